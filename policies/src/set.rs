//! The running set of policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_engine::{ClusterName, GroupKind};

use crate::policy::{CompiledPolicy, PolicyName};

/// The last good version of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GoodFile {
    pub(crate) text: Arc<str>,
    pub(crate) policies: Vec<Arc<CompiledPolicy>>,
}

impl GoodFile {
    pub(crate) fn defines(&self, name: &PolicyName) -> bool {
        self.policies.iter().any(|policy| policy.name == *name)
    }
}

type Index = BTreeMap<ClusterName, BTreeMap<GroupKind, Vec<Arc<CompiledPolicy>>>>;

/// All policies in force, compiled. Immutable; a change makes a new one ([`crate::load`]).
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    pub(crate) files: BTreeMap<String, GoodFile>,
    policies: BTreeMap<PolicyName, Arc<CompiledPolicy>>,
    by_source: Index,
    by_target: Index,
}

impl PolicySet {
    pub(crate) fn build(files: BTreeMap<String, GoodFile>) -> Self {
        let mut set = Self { files, ..Self::default() };
        for policy in set.files.values().flat_map(|file| &file.policies) {
            set.policies.insert(policy.name.clone(), policy.clone());
        }
        for policy in set.policies.values() {
            let kinds: BTreeSet<&GroupKind> = policy.spec.resources.iter().map(|r| &r.gk).collect();
            for gk in kinds {
                insert(&mut set.by_source, &policy.spec.source_cluster, gk, policy);
                for target in &policy.spec.target_clusters {
                    insert(&mut set.by_target, target, gk, policy);
                }
            }
        }
        set
    }

    /// All policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<CompiledPolicy>> {
        self.policies.values()
    }

    /// How many policies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The policy of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Arc<CompiledPolicy>> {
        self.policies.get(name)
    }

    /// The policies that take objects of this kind from this cluster, by name.
    pub fn for_source(&self, cluster: &str, gk: &GroupKind) -> impl Iterator<Item = &Arc<CompiledPolicy>> {
        lookup(&self.by_source, cluster, gk)
    }

    /// The policies that may write objects of this kind into this cluster, by name.
    pub fn claimants(&self, target: &str, gk: &GroupKind) -> impl Iterator<Item = &Arc<CompiledPolicy>> {
        lookup(&self.by_target, target, gk)
    }

    /// Every cluster that a policy names, as source or target.
    #[must_use]
    pub fn clusters(&self) -> BTreeSet<&ClusterName> {
        self.by_source.keys().chain(self.by_target.keys()).collect()
    }

    /// The last good text of every file, to be kept across restarts: (path, text). Fed back
    /// through [`PolicySet::restore`].
    pub fn last_good(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file.text.as_ref()))
    }

    pub(crate) fn kinds_of(&self, cluster: &str) -> BTreeSet<&GroupKind> {
        let kinds = [&self.by_source, &self.by_target].map(|index| index.get(cluster));
        kinds.into_iter().flatten().flat_map(BTreeMap::keys).collect()
    }
}

fn insert(index: &mut Index, cluster: &ClusterName, gk: &GroupKind, policy: &Arc<CompiledPolicy>) {
    index.entry(cluster.clone()).or_default().entry(gk.clone()).or_default().push(policy.clone());
}

fn lookup<'a>(
    index: &'a Index,
    cluster: &str,
    gk: &GroupKind,
) -> impl Iterator<Item = &'a Arc<CompiledPolicy>> + use<'a> {
    index.get(cluster).and_then(|kinds| kinds.get(gk)).into_iter().flatten()
}
