//! Member clusters that are gone for good. Removing one waits for nobody: what was to be done there is
//! dropped, what is held of it becomes tombstones, and nothing is concluded for any other cluster
//! (docs/decisions/0011-deletes.md).

use std::sync::Arc;

use lockstep_engine::{ClusterId, ClusterName, Millis};
use lockstep_policies::CompiledPolicy;

use super::Core;
use super::command::{ClusterRemoval, CommandError};
use super::commands::refusal;
use super::scan::{SLICE, Scan};
use crate::store::{
    Cause, PlacementFilter, RemovedCluster, Store, StoreError, put_removed_clusters, removed_clusters,
};

impl<S: Store> Core<S> {
    /// A person says that a cluster does not come back.
    pub(super) fn remove_cluster(
        &mut self,
        name: &str,
        dry_run: bool,
        now: Millis,
    ) -> Result<Result<ClusterRemoval, CommandError>, StoreError> {
        let id = match self.cluster_by_name(name) {
            Ok(id) => id,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Err(refused) = self.is_gone(id, name) {
            return Ok(Err(refused));
        }
        let filter = PlacementFilter { target: Some(id), ..PlacementFilter::default() };
        let removal = ClusterRemoval {
            cluster: name.to_owned(),
            placements: self.store.placement_count(&filter)?,
            objects: self.store.object_count(id)?,
            policies: self.naming(name),
        };
        if !dry_run {
            self.take_out(id, now)?;
            let ClusterRemoval { placements, objects, .. } = &removal;
            tracing::warn!(cluster = name, placements, objects, "the cluster was removed, as a person asked");
        }
        Ok(Ok(removal))
    }

    /// While its agent runs, copies there would be left that nobody looks after.
    fn is_gone(&self, id: ClusterId, name: &str) -> Result<(), CommandError> {
        if self.clusters.get(&id).is_none_or(|cluster| cluster.session.is_none()) {
            return Ok(());
        }
        Err(refusal(
            "LS0216",
            format!("the agent of {name} is connected"),
            &format!(
                "let go of the copies there with `lockstep orphan --cluster {name}`, and stop the agent"
            ),
        ))
    }

    /// Policies in force that name it. They stay as they are, without it: their files are faulty from now on.
    fn naming(&self, name: &str) -> Vec<String> {
        let named = |policy: &&Arc<CompiledPolicy>| {
            let spec = &policy.spec;
            spec.source_cluster.as_str() == name || spec.target_clusters.iter().any(|t| t.as_str() == name)
        };
        self.set.policies().filter(named).map(|policy| policy.name.as_str().to_owned()).collect()
    }

    /// From here on it is no member; what is held of it goes slice by slice.
    pub(super) fn take_out(&mut self, id: ClusterId, now: Millis) -> Result<(), StoreError> {
        let Some(cluster) = self.clusters.remove(&id) else { return Ok(()) };
        self.open_gate();
        let name = cluster.row.name;
        self.names.remove(&name);
        self.budgets.retain(|(_, target), _| *target != id);
        self.counts.open_breakers.retain(|(target, _)| target != name.as_str());
        self.tickets.cluster_left(id);
        if let Ok(mut sessions) = self.sessions.write() {
            sessions.remove(name.as_str());
        }
        self.store.forget_cluster(id)?;
        self.removed.push(RemovedCluster { id, name, uid: cluster.row.uid, at: now, cleared: false });
        put_removed_clusters(&mut self.store, &self.removed)?;
        // Nothing is known of its objects any more: the copies elsewhere stay.
        self.scan_placements(PlacementFilter { source: Some(id), ..PlacementFilter::default() });
        self.scans.push_back(Scan::Clear { cluster: id });
        Ok(())
    }

    /// Who was removed, and what of it is still to be cleared, after a start.
    pub(super) fn load_removed(&mut self) -> Result<(), StoreError> {
        self.removed = removed_clusters(&mut self.store)?;
        let open = self.removed.iter().filter(|removed| !removed.cleared);
        self.scans.extend(open.map(|removed| Scan::Clear { cluster: removed.id }));
        Ok(())
    }

    /// One slice: the last states into the outbox, then the work that was to be done there.
    pub(super) fn clear(&mut self, id: ClusterId, now: Millis) -> Result<(), StoreError> {
        if let Some(watch) = self.store.watches(Some(id))?.first() {
            let namespace = (!watch.namespace.is_empty()).then_some(watch.namespace.as_str());
            let rows = self.store.objects(id, &watch.gk, namespace, None, SLICE)?;
            if rows.is_empty() {
                self.store.drop_watch(watch.id)?;
            }
            for row in rows {
                let key = row.key.clone();
                if row.body.is_some() {
                    self.entomb(row, Cause::ClusterRemoved, None, None, now)?;
                }
                self.store.delete_object(id, &key)?;
            }
        } else {
            let filter = PlacementFilter { target: Some(id), ..PlacementFilter::default() };
            let rows = self.store.placements(&filter, None, SLICE)?;
            if rows.is_empty() {
                return self.cleared(id);
            }
            for row in rows {
                self.store.delete_placement(id, &row.key)?;
            }
        }
        self.scans.push_back(Scan::Clear { cluster: id });
        Ok(())
    }

    fn cleared(&mut self, id: ClusterId) -> Result<(), StoreError> {
        self.removed.iter_mut().filter(|removed| removed.id == id).for_each(|removed| removed.cleared = true);
        put_removed_clusters(&mut self.store, &self.removed)
    }

    /// Was a cluster of this name removed, and none joined under it since?
    pub(super) fn is_removed(&self, name: &ClusterName) -> bool {
        !self.names.contains_key(name) && self.removed.iter().any(|removed| removed.name == *name)
    }
}
