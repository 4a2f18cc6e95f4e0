//! Namespaces and definitions at a source: when one goes, everything inside goes with it, and each
//! object looks as if somebody had deleted it. Deletes that follow are held until a person has
//! looked (I7).

use lockstep_engine::{ClusterId, GroupKind, ObjectKey};

use super::Core;
use crate::store::{Ending, PlacementFilter, PlacementRow, Store, StoreError};

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
            if known && !there {
                return Ok(Some(format!("{what} was deleted in {}", self.cluster_name(source.cluster))));
            }
        }
        Ok(None)
    }
}
