//! Rewinds: a cluster that was restored to an older state. Recognised by its agent's Lease or by its
//! watches; noted durably; what the restore lost waits object by object for a decision
//! (docs/decisions/0008-rewinds.md).

use lockstep_engine::guard::{self, Guard};
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey, ResourceVersion};
use lockstep_policies::OnRewind;

use super::command::{AcceptedRewind, CommandError};
use super::scan::Scan;
use super::state::{SessionCommand, Watch};
use super::{AfterCommit, Core};
use crate::store::{Cause, DeleteStage, Ending, ObjectRow, Phase, PlacementRow, Rewound, Store, StoreError};

/// Status reason of a watch that found its server behind, or is being listed because of it.
pub(super) const REWIND_SUSPECTED: &str = "RewindSuspected";
/// An agent that may not read its Lease tells this as the counter.
const UNREADABLE: u64 = u64::MAX;
/// Unseen objects that are taken for deleted in one slice of the scan.
const SLICE: usize = 256;

impl<S: Store> Core<S> {
    /// Takes the counter of an agent's Lease. It is raised in the Lease before it is told, so only a
    /// rewind makes it lower than what was told.
    pub(super) fn lease_told(&mut self, id: ClusterId, counter: u64, now: Millis) -> Result<(), StoreError> {
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(()) };
        let known = cluster.row.lease_counter;
        if counter == UNREADABLE || counter == known {
            return Ok(());
        }
        cluster.row.lease_counter = counter;
        self.store.put_cluster(&cluster.row)?;
        if counter > known || !guard::on(Guard::RewindByLeaseAtHub) {
            return Ok(());
        }
        let how = match counter {
            0 => format!("the agent's Lease is gone, its counter was {known}"),
            _ => format!("the counter in the agent's Lease went back from {known} to {counter}"),
        };
        self.rewound(id, &how, None, now)
    }

    /// A watch says that its server is behind what was seen of it.
    pub(super) fn rewind_told(&mut self, id: ClusterId, watch: u32, now: Millis) -> Result<(), StoreError> {
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(()) };
        let others = cluster.watches.values().any(|other| other.row.rewound);
        let Some(told) = cluster.watches.get_mut(&watch).filter(|watch| !watch.row.rewound) else {
            return Ok(());
        };
        let how = format!("the watch of {} found the server behind its checkpoint", told.row.gk);
        // Where no Lease speaks for all watches, the first of them does.
        if cluster.row.lease_counter == 0 && !others {
            return self.rewound(id, &how, Some(watch), now);
        }
        told.row.rewound = true;
        told.row.checkpoint = ResourceVersion::default();
        told.told = false;
        self.store.put_watch(&told.row)?;
        self.note_rewind(id, &how, now)
    }

    /// Every watch is listed anew, and nothing is concluded from what a list lacks. `listing` does so
    /// already.
    fn rewound(
        &mut self,
        id: ClusterId,
        how: &str,
        listing: Option<u32>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(()) };
        let mut again = Vec::new();
        for (number, watch) in &mut cluster.watches {
            watch.row.rewound = true;
            // It belongs to a history that no longer exists.
            watch.row.checkpoint = ResourceVersion::default();
            watch.told = false;
            self.store.put_watch(&watch.row)?;
            let asked = cluster.session.as_ref().is_some_and(|s| s.interest.contains_key(number));
            if asked && listing != Some(*number) {
                again.push(watch.row.clone());
            }
        }
        if let Some(session) = cluster.session.as_ref().map(|session| session.number)
            && !again.is_empty()
        {
            self.after.push(AfterCommit::Send(id, session, SessionCommand::Resume(again)));
        }
        self.note_rewind(id, how, now)
    }

    fn note_rewind(&mut self, id: ClusterId, how: &str, now: Millis) -> Result<(), StoreError> {
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(()) };
        // What was written to the lost history has no echo.
        cluster.echoes.clear();
        self.store.void_versions(id)?;
        // What was told to have gone went in the lost history.
        let last = self.store.last_tombstone()?;
        self.store.put_meta(&rewound_key(id), &last.to_string())?;
        self.raise(id, how, now)
    }

    /// The cluster waits for a decision from now on.
    fn raise(&mut self, id: ClusterId, how: &str, now: Millis) -> Result<(), StoreError> {
        let Some(cluster) = self.clusters.get_mut(&id).filter(|cluster| cluster.row.rewound.is_none()) else {
            return Ok(());
        };
        tracing::error!(
            cluster = %cluster.row.name,
            "the cluster was rewound, as by a restore of etcd: {how}. Everything in it is listed anew; what is missing is held, not deleted: see `lockstep clusters`"
        );
        self.counts.rewinds += 1;
        cluster.row.rewound = Some(Rewound { at: now, how: how.to_owned() });
        self.store.put_cluster(&cluster.row)
    }

    /// The list that followed a rewind lacks it. What it lacks is the name: a state from before the rewind may have come
    /// meanwhile, of another object that the agent no longer knows of. Only a write of our own may be younger than the list.
    pub(super) fn unseen(
        &mut self,
        id: ClusterId,
        key: &ObjectKey,
        uid: &str,
        now: Millis,
    ) -> Result<(), StoreError> {
        let Some(mut row) = self.store.object(id, key)? else { return Ok(()) };
        if row.uid.as_str() != uid && (row.body.is_none() || row.managed.is_some()) {
            return Ok(());
        }
        if row.body.is_none() {
            // A key, or a copy of ours: there is nothing in it to lose, and a copy is made again.
            return self.store.delete_object(id, key);
        }
        // An acceptance that is still being carried out did not mean it, whatever the hub's clock did since.
        let accepted = self.accepted(id)?.map_or(now, |accepted| accepted.saturating_add(1));
        row.unseen.get_or_insert(now.max(accepted));
        self.store.put_object(&row)?;
        // Agent and hub each notice a rewind, and what the list for the one finds may be dealt with when that for the
        // other ends: what is missing is never without an alarm, since only that can be accepted.
        let how = format!("the list that followed a rewind lacks {key}");
        self.raise(id, &how, now)
    }

    /// An object as the list after a rewind shows it. What it takes the place of was thrown away by
    /// the restore, and is kept; a uid on record may be one that never was.
    pub(super) fn seen_after_rewind(
        &mut self,
        id: ClusterId,
        before: Option<&ObjectRow>,
        key: &ObjectKey,
        uid: &str,
        version: &ResourceVersion,
        now: Millis,
    ) -> Result<(), StoreError> {
        let older = before.filter(|row| row.uid.as_str() == uid && row.body.is_some()).filter(|row| {
            matches!((version.ordinal(), row.resource_version.ordinal()), (Some(is), Some(was)) if is < was)
        });
        if let Some(row) = older {
            self.entomb(row.clone(), Cause::Rewound, None, None, now)?;
        }
        if let Some(mut placed) = self.store.placement(id, key)?
            && let Some(record) = &mut placed.record
            && record.uid.as_ref().is_some_and(|known| known.as_str() != uid)
        {
            record.uid = None;
            self.store.put_placement(&placed)?;
        }
        Ok(())
    }

    /// Is there still anything to decide about a rewind?
    pub(super) fn settle_rewind(&mut self, id: ClusterId) -> Result<(), StoreError> {
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(()) };
        if cluster.row.rewound.is_none() || cluster.watches.values().any(|watch| watch.row.rewound) {
            return Ok(());
        }
        if self.store.unseen_totals(id)?.0 > 0 {
            return Ok(());
        }
        tracing::info!(cluster = %cluster.row.name, "the rewind is dealt with: nothing is missing any more");
        cluster.row.rewound = None;
        self.store.put_cluster(&cluster.row)
    }

    /// The restored state is what counts: what it lacks is taken for deleted.
    pub(super) fn accept_rewind(
        &mut self,
        name: &str,
        now: Millis,
    ) -> Result<Result<AcceptedRewind, CommandError>, StoreError> {
        let id = match self.cluster_by_name(name) {
            Ok(id) => id,
            Err(refused) => return Ok(Err(refused)),
        };
        let Some(cluster) = self.clusters.get(&id) else { return Ok(Ok(AcceptedRewind::default())) };
        // A watch that fails for another reason (a right that is missing) may do so for ever: what it
        // covers is not known to be lost, and stays as it is.
        let fails = |watch: &Watch| {
            watch.told && watch.row.phase == Phase::Failing && watch.row.reason != REWIND_SUSPECTED
        };
        if cluster.watches.values().any(|watch| watch.row.rewound && !fails(watch)) {
            return Ok(Err(super::commands::refusal(
                "LS0213",
                format!("{name} is still being listed after it was rewound: what it lost is not known yet"),
                "wait until `lockstep clusters` shows its watches live",
            )));
        }
        let (objects, latest) = self.store.unseen_totals(id)?;
        tracing::warn!(
            cluster = name,
            objects,
            "the rewind was accepted: what the cluster lost counts as deleted"
        );
        // All that is missing now, also where the hub's clock was set back since it was noted.
        self.store.put_meta(&accepted_key(id), &now.max(latest).to_string())?;
        self.scans.push_back(Scan::AcceptRewind { cluster: id });
        Ok(Ok(AcceptedRewind { cluster: name.to_owned(), objects }))
    }

    pub(super) fn scan_unseen(&mut self, id: ClusterId, now: Millis) -> Result<(), StoreError> {
        // What a later rewind lost was not accepted with this one.
        let Some(accepted) = self.accepted(id)? else { return Ok(()) };
        let mut keys = Vec::new();
        for key in self.store.unseen(id, usize::MAX)? {
            let row = self.store.object(id, &key)?;
            if row.is_some_and(|row| row.unseen.is_some_and(|since| since <= accepted)) {
                keys.push(key);
            }
            if keys.len() == SLICE {
                break;
            }
        }
        let full = keys.len() == SLICE;
        for key in keys {
            if let Some(row) = self.store.object(id, &key)? {
                self.decided(id, &key)?;
                let known_until = row.observed_at;
                self.entomb_known(row, Cause::Inferred, Some(known_until), None, None, now)?;
                self.store.delete_object(id, &key)?;
                self.concerns(id, &key, now, now)?;
            }
        }
        if full {
            self.scans.push_front(Scan::AcceptRewind { cluster: id });
            return Ok(());
        }
        self.store.put_meta(&accepted_key(id), "")?;
        self.settle_rewind(id)
    }

    /// Is a tombstone of the history before the last rewind of its cluster?
    pub(super) fn is_of_lost_history(&mut self, id: ClusterId, tombstone: i64) -> Result<bool, StoreError> {
        let last = self.store.meta(&rewound_key(id))?.and_then(|last| last.parse::<i64>().ok());
        Ok(last.is_some_and(|last| tombstone <= last))
    }

    /// What was noted as missing until then counts as deleted: an acceptance that is being carried out.
    fn accepted(&mut self, id: ClusterId) -> Result<Option<Millis>, StoreError> {
        Ok(self.store.meta(&accepted_key(id))?.and_then(|at| at.parse().ok()))
    }

    /// Acceptances that were under way when the hub stopped, or a transaction failed.
    pub(super) fn resume_acceptances(&mut self) -> Result<(), StoreError> {
        for id in self.clusters.keys().copied().collect::<Vec<_>>() {
            if self.accepted(id)?.is_some() {
                self.scans.push_back(Scan::AcceptRewind { cluster: id });
            }
        }
        Ok(())
    }

    /// Deletes that were held for this very source ask anew: it is decided.
    fn decided(&mut self, id: ClusterId, key: &ObjectKey) -> Result<(), StoreError> {
        for target in self.clusters.keys().copied().collect::<Vec<_>>() {
            if let Some(mut row) = self.store.placement(target, key)?
                && row.delete == Some(DeleteStage::Held)
                && row.source.as_ref().is_some_and(|source| source.cluster == id)
            {
                row.delete = None;
                self.store.put_placement(&row)?;
            }
        }
        Ok(())
    }

    /// A watch goes, and with it what it told: of what a rewind lost this is the only copy.
    pub(super) fn keep_unseen(&mut self, id: ClusterId, watch: u32, now: Millis) -> Result<(), StoreError> {
        if self.clusters.get(&id).is_none_or(|cluster| cluster.row.rewound.is_none()) {
            return Ok(());
        }
        for key in self.store.unseen(id, usize::MAX)? {
            if let Some(row) = self.store.object(id, &key)?.filter(|row| row.watch == watch) {
                self.entomb(row, Cause::Rewound, None, None, now)?;
            }
        }
        Ok(())
    }

    /// Does the policy take what a rewind lost for deleted?
    pub(super) fn follows_rewinds(&self, policy: &str) -> bool {
        let policy = self.set.by_name(policy);
        policy.is_some_and(|policy| policy.spec.deletion.on_source_rewind == OnRewind::Delete)
    }

    /// Was the source lost in a rewind that is not decided? One sentence.
    pub(super) fn lost_in_rewind(&mut self, row: &PlacementRow) -> Result<Option<String>, StoreError> {
        let (Some(Ending::SourceDeleted), Some(source)) = (row.ending, row.source.clone()) else {
            return Ok(None);
        };
        if self.follows_rewinds(&row.policy) {
            return Ok(None);
        }
        let key = source_key(&row.key.gk, &source.namespace, &source.name);
        let unseen = self.store.object(source.cluster, &key)?.is_some_and(|object| object.unseen.is_some());
        let name = self.cluster_name(source.cluster);
        Ok(unseen.then(|| {
            format!(
                "{name} was restored to an older state, in which the source object is not; it stays until that is decided: `lockstep approve {}` deletes the copies, `lockstep clusters accept-rewind {name}` takes all that {name} lost for deleted, and an object that comes back ends it",
                row.policy
            )
        }))
    }
}

/// Name of the setting that keeps an acceptance until it is carried out.
fn accepted_key(id: ClusterId) -> String {
    format!("accept-rewind/{}", id.0)
}

/// Name of the setting that keeps the last tombstone before the last rewind of a cluster.
fn rewound_key(id: ClusterId) -> String {
    format!("rewound-after/{}", id.0)
}

pub(super) fn source_key(gk: &GroupKind, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(gk.clone(), namespace, name)
}
