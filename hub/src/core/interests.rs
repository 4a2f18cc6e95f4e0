//! What the agent of a cluster is to watch, out of policies and of what the cluster serves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_engine::interest::Interest;
use lockstep_engine::reading::Refused;
use lockstep_engine::{ClusterId, ClusterName, GroupKind, ObjectKey};
use lockstep_policies::CompiledPolicy;

use super::Core;
use super::containers::{definitions, is_custom, namespaces};
use super::state::ServedKind;
use crate::store::{Store, StoreError};

impl<S: Store> Core<S> {
    /// Kinds that can be listed and watched in a cluster, and whether they are in namespaces. One that no longer
    /// can counts while objects of it are known: what became of them is told by its watch.
    pub(super) fn listed_kinds(&mut self, id: ClusterId) -> Result<BTreeMap<GroupKind, bool>, StoreError> {
        let Some(cluster) = self.clusters.get(&id) else { return Ok(BTreeMap::new()) };
        let has = |kind: &ServedKind, verb: &str| kind.verbs.iter().any(|has| has == verb);
        let served = cluster.served.iter().flatten();
        let mut listed: BTreeMap<GroupKind, bool> = served
            .filter(|(_, kind)| has(kind, "list") && has(kind, "watch"))
            .map(|(gk, kind)| (gk.clone(), kind.namespaced))
            .collect();
        let watched: BTreeSet<GroupKind> =
            cluster.watches.values().map(|watch| watch.row.gk.clone()).collect();
        let partial = cluster.discovery_partial;
        for gk in watched {
            let gone = !listed.contains_key(&gk);
            if gone && (partial || !self.store.objects(id, &gk, None, None, 1)?.is_empty()) {
                listed.insert(gk, true);
            }
        }
        Ok(listed)
    }

    pub(super) fn interests(&self, name: &ClusterName, listed: &BTreeMap<GroupKind, bool>) -> Vec<Interest> {
        let mut interests: Vec<Interest> = self
            .set
            .interest(name.as_str(), listed.iter().map(|(gk, namespaced)| (gk, *namespaced)))
            .iter()
            .flat_map(lockstep_policies::KindInterest::watches)
            .collect();
        // Keys of what holds sources: deletes that follow a deleted namespace or definition are held (I7). And of what
        // holds copies: nothing is created for a definition or in a namespace that is being deleted, and what waited for
        // the end of that, or for another schema, is looked at again.
        let here = |policy: &&Arc<CompiledPolicy>| {
            policy.spec.source_cluster == *name || policy.spec.target_clusters.contains(name)
        };
        let policies: Vec<_> = self.set.policies().filter(here).collect();
        let custom = policies.iter().flat_map(|policy| &policy.spec.resources);
        let custom = custom.into_iter().any(|resource| is_custom(&resource.gk));
        let containers = [(!policies.is_empty(), namespaces()), (custom, definitions())];
        for (_, gk) in containers.into_iter().filter(|(needed, _)| *needed) {
            if !interests.iter().any(|interest| interest.gk == gk) {
                interests.push(Interest::of_keys(gk, ""));
            }
        }
        for interest in interests.iter_mut().filter(|interest| interest.gk == definitions()) {
            interest.revisions = custom;
        }
        interests
    }
}

impl<S: Store> Core<S> {
    /// Takes off what the cluster's agent does not let the hub read (I16), and reports it.
    pub(super) fn cut_interests(&mut self, id: ClusterId, interests: &mut [Interest]) {
        let Some(cluster) = self.clusters.get(&id) else { return };
        let Some(reading) = cluster.session.as_ref().and_then(|session| session.reading.clone()) else {
            return;
        };
        let name = cluster.row.name.to_string();
        let mut refused = BTreeSet::new();
        for interest in interests {
            let archived = interest.archive.iter().map(|capture| &capture.condition);
            let asked = interest.conditions.iter().chain(archived);
            refused.extend(asked.filter_map(|condition| reading.refused(&interest.gk, condition)));
            *interest = reading.cut(interest);
        }
        self.told(&name, |told| told.not_accepted = refused.iter().map(ToString::to_string).collect());
    }

    /// What to accept so that this object of a source can be read, where the cluster's agent does not let the hub and
    /// the policy asks for it. Nothing is known of such an object, nor of its end.
    pub(super) fn not_accepted(
        &self,
        source: ClusterId,
        policy: &CompiledPolicy,
        key: &ObjectKey,
    ) -> Option<String> {
        let reading = self.clusters.get(&source)?.session.as_ref()?.reading.as_ref()?;
        if reading.allows(&key.gk, &key.namespace, &key.name) {
            return None;
        }
        let means = |resource: &lockstep_policies::Resource| {
            resource.condition.covers_namespace(&key.namespace) && resource.condition.covers_name(&key.name)
        };
        let asked = policy.resources_for(&key.gk).any(|(_, resource)| means(resource));
        asked.then(|| Refused::at(key).to_string())
    }
}

/// Adds a watch that is kept. One of the whole cluster takes those of single namespaces in: a key is
/// told by one watch only, and its row is that watch's.
pub(super) fn absorb(interests: &mut Vec<Interest>, mut kept: Interest) {
    if kept.scope.is_empty() {
        for narrow in interests.extract_if(.., |interest| interest.gk == kept.gk) {
            kept.conditions.extend(narrow.conditions);
            kept.managed |= narrow.managed;
            kept.archive.extend(narrow.archive);
            kept.revisions |= narrow.revisions;
        }
    }
    interests.push(kept);
}
