//! Namespaces and definitions at a source: when one goes, everything inside goes with it, and each
//! object looks as if somebody had deleted it. Deletes that follow are held until a person has
//! looked (I7).

use lockstep_engine::catalogue::is_container;
use lockstep_engine::outcome::FailureClass;
use lockstep_engine::status::State;
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey, ResourceVersion};
use lockstep_policies::OnContainer;
use lockstep_wire::v1::outcome::Result as Answer;

use super::Core;
use super::dispatch::Prepared;
use super::state::Probe;
use crate::store::{
    Cause, Ending, ObjectRow, PlacementFilter, PlacementRow, SourceRef, Store, StoreError, TombstoneRow,
};

/// How long the end of a container is remembered: a delete that waits longer for its target is held
/// by nothing but its budget.
const REMEMBERED_MS: i64 = 30 * 24 * 3_600_000;
/// How long the answer about a container is kept: deletes that were told before it are asked for within
/// seconds.
const PROBE_COUNTS_MS: i64 = 60_000;
/// When a delete that waits for an answer asks again, should it not come.
pub(super) const PROBE_RETRY_MS: i64 = 5_000;
/// Answers by which asking again is of no use.
const MAY_NOT_ASK: [FailureClass; 3] =
    [FailureClass::Forbidden, FailureClass::NotServed, FailureClass::Invalid];

pub(super) fn namespaces() -> GroupKind {
    GroupKind::new("", "Namespace")
}

pub(super) fn definitions() -> GroupKind {
    GroupKind::new("apiextensions.k8s.io", "CustomResourceDefinition")
}

/// May the kind come from a CustomResourceDefinition? Kubernetes' own groups have no dot, or end in
/// `.k8s.io`; a definition in such a group needs an approval of its own and is rare.
pub(super) fn is_custom(gk: &GroupKind) -> bool {
    gk.group.contains('.') && !gk.group.ends_with(".k8s.io")
}

impl<S: Store> Core<S> {
    /// The definition of a kind in a cluster, as far as discovery told its plural.
    fn definition_of(&self, id: ClusterId, gk: &GroupKind) -> Option<ObjectKey> {
        let kind = self.clusters.get(&id)?.served.as_ref()?.get(gk)?;
        Some(ObjectKey::new(definitions(), "", &format!("{}.{}", kind.plural, gk.group)))
    }

    /// Is the definition of this kind being deleted there? Until it is gone an API server takes applies
    /// of its objects, deletes them, and waits until none is left: it would never end.
    pub(super) fn definition_ends(&mut self, id: ClusterId, gk: &GroupKind) -> Result<bool, StoreError> {
        Ok(self.definition(id, gk)?.is_some_and(|object| object.deleting))
    }

    /// The definition of a kind in a cluster, as far as it is known.
    pub(super) fn definition(
        &mut self,
        id: ClusterId,
        gk: &GroupKind,
    ) -> Result<Option<ObjectRow>, StoreError> {
        match self.definition_of(id, gk).filter(|_| is_custom(gk)) {
            Some(key) => self.store.object(id, &key),
            None => Ok(None),
        }
    }

    /// What could not be written while a namespace of a target was being deleted, or was not there, is looked at again.
    pub(super) fn namespace_changed(&mut self, id: ClusterId) {
        self.scan_placements(PlacementFilter {
            target: Some(id),
            states: vec![State::Failed, State::Blocked],
            ..PlacementFilter::default()
        });
    }

    /// What waited for a definition to go, or to come back, is looked at again.
    pub(super) fn definition_changed(&mut self, id: ClusterId, key: &ObjectKey) {
        let Some(cluster) = self.clusters.get(&id) else { return };
        let Some((plural, group)) = key.name.split_once('.') else { return };
        let named = |(gk, kind): &(&GroupKind, &super::state::ServedKind)| {
            kind.plural == plural && gk.group.as_ref() == group
        };
        let found = cluster.served.iter().flatten().find(named).map(|(gk, _)| gk.clone());
        let Some(gk) = found else { return };
        self.scan_placements(PlacementFilter {
            target: Some(id),
            gk: Some(gk),
            states: super::scan::WAITING.to_vec(),
            ..PlacementFilter::default()
        });
    }

    /// What contains an object, each with what to call it.
    fn containers_of(&self, gk: &GroupKind, namespace: &str) -> Vec<(ObjectKey, String)> {
        let mut containers = Vec::new();
        if !namespace.is_empty() {
            let key = ObjectKey::new(namespaces(), "", namespace);
            containers.push((key, format!("its namespace {namespace}")));
        }
        if is_custom(gk)
            && let Some(kind) = self.known_kinds().get(gk)
        {
            let name = format!("{}.{}", kind.plural, gk.group);
            containers.push((ObjectKey::new(definitions(), "", &name), format!("its definition {name}")));
        }
        containers
    }

    /// Does the policy take what went with its namespace or definition for deleted like anything else?
    pub(super) fn follows_containers(&self, policy: &str) -> bool {
        let policy = self.set.by_name(policy);
        policy.is_some_and(|policy| policy.spec.deletion.container_deleted == OnContainer::Delete)
    }

    /// Was the source deleted together with what contained it? One sentence, if a live watch tells so.
    pub(super) fn container_gone(&mut self, row: &PlacementRow) -> Result<Option<String>, StoreError> {
        let (Some(Ending::SourceDeleted), Some(source)) = (row.ending, row.source.clone()) else {
            return Ok(None);
        };
        if self.follows_containers(&row.policy) {
            return Ok(None);
        }
        for (key, what) in self.containers_of(&row.key.gk, &source.namespace) {
            let known = self.absence(source.cluster, &key).is_none();
            let there = self.store.object(source.cluster, &key)?.is_some_and(|object| !object.deleting);
            // Another one of the name may be there by now: the object went with the one it was in.
            let went = match self.store.container_gone(source.cluster, &key)? {
                None => false,
                Some((at, version)) => self.lived_before(row, &source, at, &version)?,
            };
            if went || (known && !there) || self.is_older(row, &source, &key)? {
                return Ok(Some(format!("{what} was deleted in {}", self.cluster_name(source.cluster))));
            }
        }
        Ok(None)
    }

    /// Did a source that was deleted live before its container was gone? What was in it was gone first.
    /// resourceVersions of one API server are in one order, over all kinds; times of reading are not.
    fn lived_before(
        &mut self,
        row: &PlacementRow,
        source: &SourceRef,
        at: Millis,
        version: &ResourceVersion,
    ) -> Result<bool, StoreError> {
        let kept = self.kept_of(&row.key.gk, source)?;
        let deleted = |kept: &&TombstoneRow| matches!(kept.cause, Cause::Observed | Cause::Inferred);
        let Some(kept) = kept.iter().find(deleted) else { return Ok(true) };
        Ok(match (kept.resource_version.ordinal(), version.ordinal()) {
            (Some(last), Some(gone)) => last <= gone,
            _ => kept.last_seen <= at,
        })
    }

    /// Was a source that was deleted created before what has the name of its container now? Then it was in another
    /// one, also where nobody told of that, as after a loss of the hub's data. One API server's clock says so, in whole
    /// seconds: what is of one second may be of one container, and is not held for that. Nor is what was changed after
    /// the last change of the container, which was there then: clocks may be set.
    fn is_older(
        &mut self,
        row: &PlacementRow,
        source: &SourceRef,
        container: &ObjectKey,
    ) -> Result<bool, StoreError> {
        let cluster = self.clusters.get(&source.cluster);
        let probe = cluster.and_then(|cluster| cluster.probes.get(container));
        let Some((since, changed)) = probe.and_then(|probe| probe.there.clone()) else { return Ok(false) };
        let kept = self.kept_of(&row.key.gk, source)?;
        let Some(kept) = kept.iter().find(|kept| kept.facts.created.is_some()) else { return Ok(false) };
        let (last, changed) = (kept.resource_version.ordinal(), changed.ordinal());
        let after = last.zip(changed).is_some_and(|(last, changed)| last >= changed);
        Ok(kept.facts.created.is_some_and(|created| created < since) && !after)
    }

    /// A namespace or definition was told of: if it is the end of what `before` knew, that is noted.
    pub(super) fn container_told(
        &mut self,
        id: ClusterId,
        key: &ObjectKey,
        before: Option<&ObjectRow>,
        now_is: Option<(&str, bool)>,
        version: &str,
        at: Millis,
    ) -> Result<(), StoreError> {
        if !is_container(&key.gk) {
            return Ok(());
        }
        let ended = match (before, now_is) {
            (Some(before), Some((uid, deleting))) => {
                before.uid.as_str() != uid || (deleting && !before.deleting)
            }
            (Some(_), None) => true,
            // Another one takes the name: whatever was in the one before was gone by now.
            (None, Some((_, deleting))) => deleting || self.store.container_gone(id, key)?.is_some(),
            // Its whole life was in a gap, and what was inside may be known from another watch.
            (None, None) => true,
        };
        if ended {
            let version = ResourceVersion::new(version);
            self.store.put_container_gone(id, key, at, &version, at.saturating_sub(REMEMBERED_MS))?;
        }
        Ok(())
    }

    /// Is it still to be told whether the source went together with what contained it? Watches tell of
    /// one server's changes each at its own pace, and one that resumes is live before it has caught up: so
    /// the server is asked, after the deletion was told. Where the agent may not ask, the budget alone
    /// protects.
    pub(super) fn containers_unknown(&mut self, row: &PlacementRow, now: Millis) -> Result<bool, StoreError> {
        let (Some(Ending::SourceDeleted), Some(source)) = (row.ending, row.source.clone()) else {
            return Ok(false);
        };
        let kept = self.kept_of(&row.key.gk, &source)?;
        let deleted = |kept: &&TombstoneRow| matches!(kept.cause, Cause::Observed | Cause::Inferred);
        // Of what nobody saw deleted (a rewind) nothing was in it when it went.
        let told = kept.iter().find(deleted).map(|kept| (kept.id, kept.last_seen));
        let mut unknown = false;
        for (key, _) in self.containers_of(&row.key.gk, &source.namespace) {
            unknown |= self.is_unknown(source.cluster, key, told, now);
        }
        Ok(unknown)
    }

    /// Is it unknown what became of a container since the tombstone of that number? If so, it is asked, unless it was
    /// already. By numbers: the hub's clock may be set.
    fn is_unknown(
        &mut self,
        id: ClusterId,
        key: ObjectKey,
        told: Option<(i64, Millis)>,
        now: Millis,
    ) -> bool {
        let last = self.last_tombstone;
        let Some(cluster) = self.clusters.get_mut(&id) else { return false };
        let Some(watch) = cluster.covering(&key.gk, "") else { return false };
        if !watch.is_live() {
            return !(watch.told && watch.row.reason == "Forbidden");
        }
        let Some((told, seen)) = told else { return false };
        let asked = cluster.probes.get_mut(&key).filter(|probe| probe.after >= told);
        if let Some(probe) = asked {
            probe.seen = probe.seen.max(seen);
            return !probe.answered;
        }
        if !cluster.busy.contains_key(&key) {
            cluster.probes.retain(|_, probe| now - probe.asked_at < PROBE_COUNTS_MS || !probe.answered);
            cluster.probes.insert(
                key.clone(),
                Probe { asked_at: now, after: last.max(told), seen, answered: false, there: None },
            );
            self.send_step(id, &key, Prepared::probe(), None);
        }
        true
    }

    /// A container was asked for: what that says of its end is noted, and the deletes that waited ask again.
    pub(super) fn probed(
        &mut self,
        id: ClusterId,
        key: &ObjectKey,
        answer: Answer,
        now: Millis,
    ) -> Result<(), StoreError> {
        let known = self.store.object(id, key)?;
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(()) };
        let ended = match &answer {
            Answer::Probed(probed) => {
                probed.deleting || known.is_some_and(|known| known.uid.as_str() != probed.uid)
            }
            Answer::Gone(_) => true,
            // Nobody may ask, or the agent is of the version before: it stays at what the watch tells.
            Answer::Failed(failed) if MAY_NOT_ASK.contains(&failed.known_class()) => false,
            _ => {
                cluster.probes.remove(key);
                return Ok(());
            }
        };
        let mut at = now;
        if let Some(probe) = cluster.probes.get_mut(key) {
            probe.answered = true;
            probe.there = match &answer {
                Answer::Probed(probed) => {
                    Some((probed.created_ms, ResourceVersion::new(&probed.resource_version)))
                }
                _ => None,
            };
            at = at.max(probe.seen);
        }
        if ended {
            let (none, before) = (ResourceVersion::default(), now.saturating_sub(REMEMBERED_MS));
            self.store.put_container_gone(id, key, at, &none, before)?;
        }
        let states = vec![State::Pending, State::Orphaned];
        self.scan_placements(PlacementFilter { source: Some(id), states, ..PlacementFilter::default() });
        Ok(())
    }
}
