//! What nothing asks for any more stays for the grace period of its policy, in which a source that comes
//! back finds its copy; and what is to stay for good is let go of (docs/decisions/0011-deletes.md).

use lockstep_engine::{ClusterId, Millis, ResourceVersion, grace};
use lockstep_policies::Disposition;
use lockstep_wire::v1;

use super::Core;
use super::asked::Asked;
use super::command::{CommandError, PauseScope, Releasing};
use super::commands::refusal;
use super::containers::PROBE_RETRY_MS;
use crate::store::{DeleteStage, Ending, PlacementFilter, PlacementRow, Store, StoreError};

/// Placements that one command visits at a time.
const PAGE: usize = 512;

/// How long what has ended waits, and for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// When its grace period is over.
    until: Option<Millis>,
    /// When to look again.
    pub again: Option<Millis>,
    /// Our marks go; else they stay with the copy.
    pub release: bool,
}

impl Waits {
    /// When the grace period is over, in words.
    pub(super) fn grace(&self) -> Option<String> {
        self.until.map(|until| {
            format!("at {}, when the grace period is over", lockstep_engine::rfc3339::write(until))
        })
    }
}

impl<S: Store> Core<S> {
    /// Begins the grace period of what has just ended, or looks how long it still lasts; and whether our
    /// marks go with the end of it.
    pub(super) fn wait_for_source(
        &mut self,
        row: &mut PlacementRow,
        asked: &mut Asked,
        now: Millis,
    ) -> Result<(), StoreError> {
        let Asked::Ended { ending: Ending::SourceDeleted | Ending::Unselected, delete, waits, .. } = asked
        else {
            return Ok(());
        };
        let Some(policy) = self.set.by_name(&row.policy) else { return Ok(()) };
        let grace_ms = policy.spec.deletion.grace_ms;
        if row.attempts == 0 && matches!(row.delete, None | Some(DeleteStage::Waiting { .. })) {
            // Not a step that failed: it was set below, and looked at anew now.
            row.next_attempt = None;
        }
        waits.until = match row.delete {
            None if grace_ms == 0 => None,
            None => {
                row.delete = Some(DeleteStage::Waiting { since: now });
                grace::until(now, grace_ms, now)
            }
            Some(DeleteStage::Waiting { since }) => {
                row.delete = Some(DeleteStage::Waiting { since: grace::began(since, now) });
                grace::until(since, grace_ms, now)
            }
            Some(_) => None,
        };
        waits.again = waits.until;
        if !*delete || self.stays_adopted(row) {
            let (release, unknown) = self.went_alone(row, now)?;
            waits.release = release;
            if unknown {
                waits.again = Some(now.saturating_add(PROBE_RETRY_MS));
            }
        }
        Ok(())
    }

    /// Was it there before lockstep, so that it is not lockstep's to delete, unless its policy says so (I6)?
    pub(super) fn stays_adopted(&self, row: &PlacementRow) -> bool {
        let policy = self.set.by_name(&row.policy);
        row.record.as_ref().is_some_and(|record| record.adopted)
            && policy.is_none_or(|policy| policy.spec.deletion.adopted == Disposition::Orphan)
    }

    /// Did the source go by itself? What went with its namespace, or in a rewind, may come back with it,
    /// and would find copies that nobody owns any more: they keep their marks. (So it did, it is not known)
    fn went_alone(&mut self, row: &PlacementRow, now: Millis) -> Result<(bool, bool), StoreError> {
        if row.ending == Some(Ending::Unselected) {
            return Ok((true, false));
        }
        if self.lost_in_rewind(row)?.is_some() || self.source_missing(row)?.is_some() {
            return Ok((false, false));
        }
        if !self.follows_containers(&row.policy) && self.containers_unknown(row, now)? {
            return Ok((false, true));
        }
        Ok((self.container_gone(row)?.is_none(), false))
    }

    /// Our marks are off: it is nobody's, and forgotten. An observation from before is no news any more.
    pub(super) fn released(&mut self, row: &PlacementRow, released: &v1::Released) -> Result<(), StoreError> {
        let version = ResourceVersion::new(&released.resource_version);
        let uid = row.record.as_ref().and_then(|record| record.uid.as_ref());
        if let Some(mut object) = self.store.object(row.target, &row.key)?
            && Some(&object.uid) == uid
            && !is_older(&version, &object.resource_version)
        {
            object.managed = None;
            object.resource_version = version.clone();
            self.store.put_object(&object)?;
            if let Some(cluster) = self.clusters.get_mut(&row.target) {
                cluster.echoes.insert(row.key.clone(), version);
            }
        }
        tracing::info!(cluster = self.cluster_name(row.target), object = %row.key, policy = row.policy, "let go of");
        self.let_go(row)
    }

    pub(super) fn let_go(&mut self, row: &PlacementRow) -> Result<(), StoreError> {
        // A watch may have been kept for this one only.
        self.review_interest |= self.kept_watches;
        self.store.delete_placement(row.target, &row.key)
    }

    /// A person asks to let go of everything of a policy, at a target, or everywhere.
    pub(super) fn orphan(
        &mut self,
        scope: &PauseScope,
        dry_run: bool,
    ) -> Result<Result<Vec<Releasing>, CommandError>, StoreError> {
        let filter = match self.scope(scope)? {
            Ok(filter) => filter,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Err(refused) = self.nothing_asks(scope) {
            return Ok(Err(refused));
        }
        let mut releasing: Vec<Releasing> = Vec::new();
        let mut after = None;
        loop {
            let rows = self.store.placements(&filter, after.as_ref(), PAGE)?;
            let full = rows.len() == PAGE;
            for mut row in rows {
                after = Some((row.target, row.key.clone()));
                if row.record.is_none() {
                    continue;
                }
                let name = self.cluster_name(row.target).to_owned();
                match releasing.iter_mut().find(|r| r.target == name && r.policy == row.policy) {
                    Some(counted) => counted.objects += 1,
                    None => {
                        releasing.push(Releasing { policy: row.policy.clone(), target: name, objects: 1 });
                    }
                }
                if !dry_run && row.delete != Some(DeleteStage::Releasing) {
                    row.delete = Some(DeleteStage::Releasing);
                    row.next_attempt = None;
                    row.barred = None;
                    self.store.put_placement(&row)?;
                }
            }
            if !full {
                break;
            }
        }
        if !dry_run {
            tracing::warn!(?scope, "copies are let go of, as a person asked");
            self.scan_placements(filter);
        }
        Ok(Ok(releasing))
    }

    fn scope(&mut self, scope: &PauseScope) -> Result<Result<PlacementFilter, CommandError>, StoreError> {
        let mut filter = PlacementFilter::default();
        match scope {
            PauseScope::Everything => {}
            PauseScope::Cluster(name) => match self.cluster_by_name(name) {
                Ok(id) => filter.target = Some(id),
                Err(refused) => return Ok(Err(refused)),
            },
            PauseScope::Policy(name) => {
                if let Err(refused) = self.policy_exists(name)? {
                    return Ok(Err(refused));
                }
                filter.policy = Some(name.clone());
            }
        }
        Ok(Ok(filter))
    }

    /// A policy that is in force, and not paused, would meet what was its own as somebody else's.
    fn nothing_asks(&self, scope: &PauseScope) -> Result<(), CommandError> {
        if self.paused {
            return Ok(());
        }
        let paused = |id: &ClusterId| self.clusters.get(id).is_some_and(|cluster| cluster.row.paused);
        let asks = |name: &str, target: Option<&str>| {
            let Some(policy) = self.set.by_name(name) else { return false };
            let stopped = policy.spec.suspend || self.policies.get(name).is_some_and(|row| row.paused);
            let mut targets = policy.spec.target_clusters.iter();
            !stopped
                && targets.any(|cluster| {
                    target.is_none_or(|target| target == cluster.as_str())
                        && !self.names.get(cluster).is_some_and(paused)
                })
        };
        let target = match scope {
            PauseScope::Cluster(name) => Some(name.as_str()),
            _ => None,
        };
        let asking: Vec<&str> = match scope {
            PauseScope::Policy(name) => asks(name, None).then_some(name.as_str()).into_iter().collect(),
            _ => {
                let names = self.set.policies().map(|policy| policy.name.as_str());
                names.filter(|name| asks(name, target)).collect()
            }
        };
        if asking.is_empty() {
            return Ok(());
        }
        let pause = match scope {
            PauseScope::Everything => "--all".to_owned(),
            PauseScope::Cluster(name) => format!("--cluster {name}"),
            PauseScope::Policy(name) => name.clone(),
        };
        Err(refusal(
            "LS0214",
            format!("in force, and asking for what is to be let go of: {}", asking.join(", ")),
            &format!("remove the policies' files, or stop them with `lockstep pause {pause}`"),
        ))
    }
}

fn is_older(version: &ResourceVersion, than: &ResourceVersion) -> bool {
    version.is_empty() || matches!((version.ordinal(), than.ordinal()), (Some(a), Some(b)) if a < b)
}
