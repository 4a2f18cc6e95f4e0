//! Namespaces and definitions at a source: when one goes, everything inside goes with it, and each
//! object looks as if somebody had deleted it. Deletes that follow are held until a person has
//! looked (I7).

use lockstep_engine::{GroupKind, ObjectKey};

use super::Core;
use crate::store::{Ending, PlacementRow, Store, StoreError};

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
