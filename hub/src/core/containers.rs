//! Namespaces and definitions at a source: when one goes, everything inside goes with it, and each
//! object looks as if somebody had deleted it. Deletes that follow are held until a person has
//! looked (I7).

use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey, ResourceVersion};

use super::Core;
use crate::store::{
    Cause, Ending, ObjectRow, PlacementFilter, PlacementRow, SourceRef, Store, StoreError, TombstoneRow,
};

/// How long the end of a container is remembered: a delete that waits longer for its target is held
/// by nothing but its budget.
const REMEMBERED_MS: i64 = 30 * 24 * 3_600_000;

pub(super) fn namespaces() -> GroupKind {
    GroupKind::new("", "Namespace")
}

pub(super) fn definitions() -> GroupKind {
    GroupKind::new("apiextensions.k8s.io", "CustomResourceDefinition")
}

pub(super) fn is_container(gk: &GroupKind) -> bool {
    *gk == namespaces() || *gk == definitions()
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
        if !is_custom(gk) {
            return Ok(false);
        }
        let Some(key) = self.definition_of(id, gk) else { return Ok(false) };
        Ok(self.store.object(id, &key)?.is_some_and(|object| object.deleting))
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

    /// Was the source deleted together with what contained it? One sentence, if a live watch tells so.
    pub(super) fn container_gone(&mut self, row: &PlacementRow) -> Result<Option<String>, StoreError> {
        let (Some(Ending::SourceDeleted), Some(source)) = (row.ending, row.source.clone()) else {
            return Ok(None);
        };
        let mut containers = Vec::new();
        if !source.namespace.is_empty() {
            let key = ObjectKey::new(namespaces(), "", &source.namespace);
            containers.push((key, format!("its namespace {}", source.namespace)));
        }
        if is_custom(&row.key.gk)
            && let Some(kind) = self.known_kinds().get(&row.key.gk)
        {
            let name = format!("{}.{}", kind.plural, row.key.gk.group);
            containers.push((ObjectKey::new(definitions(), "", &name), format!("its definition {name}")));
        }
        for (key, what) in containers {
            let known = self.absence(source.cluster, &key).is_none();
            let there = self.store.object(source.cluster, &key)?.is_some_and(|object| !object.deleting);
            // Another one of the name may be there by now: the object went with the one it was in.
            let went = match self.store.container_gone(source.cluster, &key)? {
                None => false,
                Some((at, version)) => self.lived_before(row, &source, at, &version)?,
            };
            if went || (known && !there) {
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
            (None, None) => false,
        };
        if ended {
            let version = ResourceVersion::new(version);
            self.store.put_container_gone(id, key, at, &version, at.saturating_sub(REMEMBERED_MS))?;
        }
        Ok(())
    }

    /// Is it still to be told whether the source went together with what contained it? Where the agent
    /// may not watch containers, the budget alone protects.
    pub(super) fn containers_unknown(&self, row: &PlacementRow) -> bool {
        let (Some(Ending::SourceDeleted), Some(source)) = (row.ending, &row.source) else { return false };
        let Some(cluster) = self.clusters.get(&source.cluster) else { return false };
        let waits = |gk: &GroupKind| {
            cluster.covering(gk, "").is_some_and(|watch| {
                let forbidden = watch.told && watch.row.reason == "Forbidden";
                !watch.is_live() && !forbidden
            })
        };
        (!source.namespace.is_empty() && waits(&namespaces()))
            || (is_custom(&row.key.gk) && waits(&definitions()))
    }
}
