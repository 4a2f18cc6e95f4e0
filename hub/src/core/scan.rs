//! Walks over many rows, in slices between inputs: a policy edit over a million objects delays no
//! delta by more than one slice.

use lockstep_engine::status::State;
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey};

use super::Core;
use crate::store::{PlacementCursor, PlacementFilter, Store, StoreError};

/// Placements planned per slice: some milliseconds of work.
pub(super) const SLICE: usize = 256;

/// States that a change in what is known may move.
pub(super) const WAITING: [State; 8] = [
    State::Pending,
    State::Held,
    State::Conflict,
    State::Failed,
    State::Blocked,
    State::Unknown,
    State::Orphaned,
    State::Differs,
];

/// States of a placement that something may still have to be done about.
pub(super) const UNFINISHED: [State; 9] = [
    State::InStep,
    State::Pending,
    State::Held,
    State::Conflict,
    State::Failed,
    State::Blocked,
    State::Unknown,
    State::Paused,
    State::Differs,
];

/// A walk that is under way.
#[derive(Debug)]
pub(super) enum Scan {
    /// Over the objects of a kind in a source cluster, planning them at these targets.
    Sources { cluster: ClusterId, gk: GroupKind, targets: Vec<ClusterId>, after: Option<(String, String)> },
    /// Over placements.
    Placements { filter: PlacementFilter, after: Option<PlacementCursor> },
    /// Over what a cluster lost in a rewind that was accepted.
    AcceptRewind { cluster: ClusterId },
    /// Over what is held of a cluster that was removed.
    Clear { cluster: ClusterId },
    /// Everything that a policy's generation asks for was planned.
    Planned { policy: String, generation: u64 },
}

impl<S: Store> Core<S> {
    pub(super) fn scan_placements(&mut self, filter: PlacementFilter) {
        let same = |scan: &Scan| matches!(scan, Scan::Placements { filter: f, after: None } if *f == filter);
        if !self.scans.iter().any(same) {
            self.scans.push_back(Scan::Placements { filter, after: None });
        }
    }

    pub(super) fn scan_slice(&mut self, now: Millis) -> Result<(), StoreError> {
        let Some(scan) = self.scans.pop_front() else { return Ok(()) };
        match scan {
            Scan::Sources { cluster, gk, targets, after } => {
                self.scan_sources(cluster, gk, targets, after, now)
            }
            Scan::Placements { filter, after } => self.scan_filter(filter, after, now),
            Scan::AcceptRewind { cluster } => self.scan_unseen(cluster, now),
            Scan::Clear { cluster } => self.clear(cluster, now),
            Scan::Planned { policy, generation } => {
                if let Some(row) = self.policies.get_mut(&policy).filter(|row| row.generation == generation) {
                    row.planned = true;
                    let row = row.clone();
                    self.store.put_policy(&row)?;
                }
                Ok(())
            }
        }
    }

    fn scan_sources(
        &mut self,
        cluster: ClusterId,
        gk: GroupKind,
        mut targets: Vec<ClusterId>,
        after: Option<(String, String)>,
        now: Millis,
    ) -> Result<(), StoreError> {
        if targets.len() > SLICE {
            let (gk, targets, after) = (gk.clone(), targets.split_off(SLICE), after.clone());
            self.scans.push_front(Scan::Sources { cluster, gk, targets, after });
        }
        // A thousand targets make of each object a thousand placements.
        let rows = (SLICE / targets.len().max(1)).max(1);
        let from = after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        let index = self.store.objects(cluster, &gk, None, from, rows)?;
        let last = index.last().map(|row| (row.key.namespace.to_string(), row.key.name.to_string()));
        let full = index.len() == rows;
        for row in index.into_iter().filter(|row| row.body.is_some()) {
            for target in &targets {
                self.plan(*target, &row.key, None, now)?;
            }
        }
        if full {
            self.scans.push_front(Scan::Sources { cluster, gk, targets, after: last });
        }
        Ok(())
    }

    fn scan_filter(
        &mut self,
        filter: PlacementFilter,
        after: Option<PlacementCursor>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let rows = self.store.placements(&filter, after.as_ref(), SLICE)?;
        let last = rows.last().map(|row| (row.target, row.key.clone()));
        let full = rows.len() == SLICE;
        let keys: Vec<(ClusterId, ObjectKey)> = rows.into_iter().map(|row| (row.target, row.key)).collect();
        for (target, key) in keys {
            self.plan(target, &key, None, now)?;
        }
        if full {
            self.scans.push_front(Scan::Placements { filter, after: last });
        }
        Ok(())
    }
}
