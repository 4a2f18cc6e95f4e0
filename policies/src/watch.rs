//! What the agent of a cluster watches.

use std::collections::BTreeSet;
use std::sync::Arc;

use lockstep_engine::GroupKind;
use lockstep_engine::interest::{Capture, Condition, Interest};

use crate::archive::ArchivePolicy;
use crate::policy::{Replicas, Resource, autoscalers, is_scaled};
use crate::set::PolicySet;

/// From this many namespaces on, one watch of the whole kind is cheaper than one per namespace.
pub const MAX_LITERAL_NAMESPACES: usize = 16;

/// What is watched of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindInterest {
    /// The kind.
    pub gk: GroupKind,
    /// Only these namespaces; None: the kind as a whole. For a cluster-scoped kind there is
    /// nothing to watch per namespace, nor does any condition match: the agent, which knows the
    /// scope from discovery, reports it and watches nothing.
    pub namespaces: Option<BTreeSet<String>>,
    /// Objects that match any of these are synced from here; empty where the cluster is a target only.
    pub conditions: BTreeSet<Condition>,
    /// The cluster is a target for this kind.
    pub managed: bool,
    /// What is archived when it is deleted.
    pub archive: BTreeSet<Capture>,
}

impl KindInterest {
    /// One interest per watch.
    #[must_use]
    pub fn watches(&self) -> Vec<Interest> {
        let watch = |scope: &str, conditions, archive| Interest {
            gk: self.gk.clone(),
            scope: scope.to_owned(),
            conditions,
            managed: self.managed,
            archive,
            revisions: false,
        };
        let Some(namespaces) = &self.namespaces else {
            return vec![watch("", self.conditions.clone(), self.archive.clone())];
        };
        namespaces
            .iter()
            .map(|namespace| {
                let here = |condition: &&Condition| condition.covers_namespace(namespace);
                let archive = self.archive.iter().filter(|capture| here(&&capture.condition));
                let conditions = self.conditions.iter().filter(here);
                watch(namespace, conditions.cloned().collect(), archive.cloned().collect())
            })
            .collect()
    }
}

impl PolicySet {
    /// What the agent of this cluster watches, by kind. Suspended policies count: what they would
    /// do must be known the moment they resume. `served`: the kinds that can be
    /// listed and watched there, and whether they are in namespaces; for policies that archive every kind.
    #[must_use]
    pub fn interest<'a>(
        &self,
        cluster: &str,
        served: impl IntoIterator<Item = (&'a GroupKind, bool)>,
    ) -> Vec<KindInterest> {
        let archiving: Vec<&Arc<ArchivePolicy>> =
            self.archive().filter(|policy| policy.covers(cluster)).collect();
        let mut kinds: BTreeSet<GroupKind> = self.kinds_of(cluster).into_iter().cloned().collect();
        kinds.extend(archiving.iter().flat_map(|policy| policy.named()));
        for (gk, namespaced) in served {
            let captures = archiving.iter().flat_map(|policy| policy.captures(gk));
            let mut used = captures.filter(|capture| namespaced || capture.condition.namespaces.is_empty());
            if used.next().is_some() {
                kinds.insert(gk.clone());
            }
        }
        let mut interests: Vec<KindInterest> =
            kinds.iter().map(|gk| self.kind_interest(cluster, gk, &archiving)).collect();
        self.add_autoscalers(cluster, &mut interests);
        interests
    }

    /// Autoscalers at a target say which of its workloads they scale: their bodies are sent.
    fn add_autoscalers(&self, cluster: &str, interests: &mut Vec<KindInterest>) {
        let scaled =
            |resource: &&Resource| is_scaled(&resource.gk) && resource.ownership.replicas == Replicas::Auto;
        let kinds = self.kinds_of(cluster);
        let policies =
            kinds.into_iter().filter(|gk| is_scaled(gk)).flat_map(|gk| self.claimants(cluster, gk));
        let resources = policies.flat_map(|policy| &policy.spec.resources);
        let conditions: BTreeSet<Condition> = resources
            .filter(scaled)
            .map(|resource| Condition {
                namespaces: resource.condition.namespaces.clone(),
                exclude_namespaces: resource.condition.exclude_namespaces.clone(),
                ..Condition::default()
            })
            .collect();
        if conditions.is_empty() {
            return;
        }
        let gk = autoscalers();
        let at = interests.iter().position(|interest| interest.gk == gk);
        let known = at.map(|at| interests.remove(at));
        let mut interest = known.unwrap_or_else(|| KindInterest {
            gk,
            namespaces: Some(BTreeSet::new()),
            conditions: BTreeSet::new(),
            managed: false,
            archive: BTreeSet::new(),
        });
        let literal = conditions.iter().all(|condition| !condition.namespaces.is_empty());
        interest.namespaces = interest.namespaces.filter(|_| literal).map(|mut namespaces| {
            namespaces.extend(conditions.iter().flat_map(|condition| condition.namespaces.iter().cloned()));
            namespaces
        });
        interest.namespaces = interest.namespaces.filter(|all| all.len() <= MAX_LITERAL_NAMESPACES);
        interest.conditions.extend(conditions);
        interests.push(interest);
        interests.sort_by(|a, b| a.gk.cmp(&b.gk));
    }

    fn kind_interest(
        &self,
        cluster: &str,
        gk: &GroupKind,
        archiving: &[&Arc<ArchivePolicy>],
    ) -> KindInterest {
        let source: Vec<&Resource> = self
            .for_source(cluster, gk)
            .flat_map(|policy| policy.resources_for(gk))
            .map(|(_, r)| r)
            .collect();
        let target: Vec<&Resource> =
            self.claimants(cluster, gk).flat_map(|policy| policy.resources_for(gk)).map(|(_, r)| r).collect();
        let archive: BTreeSet<Capture> = archiving.iter().flat_map(|policy| policy.captures(gk)).collect();
        let synced = source.iter().chain(&target).map(|resource| &resource.condition);
        let all: Vec<&Condition> = synced.chain(archive.iter().map(|capture| &capture.condition)).collect();
        let namespaces: BTreeSet<String> =
            all.iter().flat_map(|condition| condition.namespaces.iter().cloned()).collect();
        let literal = all.iter().all(|condition| !condition.namespaces.is_empty());
        KindInterest {
            gk: gk.clone(),
            namespaces: (literal && namespaces.len() <= MAX_LITERAL_NAMESPACES).then_some(namespaces),
            conditions: source.iter().map(|resource| resource.condition.clone()).collect(),
            managed: !target.is_empty(),
            archive,
        }
    }
}
