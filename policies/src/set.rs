//! The running set of policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_engine::retention::Limits;
use lockstep_engine::{ClusterName, GroupKind, ObjectKey};

use crate::archive::ArchivePolicy;
use crate::parse::{Documents, Kind};
use crate::policy::{CompiledPolicy, PolicyName};

/// The last good version of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GoodFile {
    pub(crate) text: Arc<str>,
    pub(crate) documents: Documents,
}

impl GoodFile {
    pub(crate) fn defines(&self, kind: Kind, name: &PolicyName) -> bool {
        self.documents.names().any(|(of, defined, _)| of == kind && defined == name)
    }
}

type Index = BTreeMap<ClusterName, BTreeMap<GroupKind, Vec<Arc<CompiledPolicy>>>>;

/// All policies in force, compiled. Immutable; a change makes a new one ([`crate::load`]).
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    pub(crate) files: BTreeMap<String, GoodFile>,
    policies: BTreeMap<PolicyName, Arc<CompiledPolicy>>,
    archive: BTreeMap<PolicyName, Arc<ArchivePolicy>>,
    by_source: Index,
    by_target: Index,
}

impl PolicySet {
    pub(crate) fn build(files: BTreeMap<String, GoodFile>) -> Self {
        let mut set = Self { files, ..Self::default() };
        for documents in set.files.values().map(|file| &file.documents) {
            set.policies
                .extend(documents.policies.iter().map(|policy| (policy.name.clone(), policy.clone())));
            set.archive.extend(documents.archive.iter().map(|policy| (policy.name.clone(), policy.clone())));
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

    /// All policies that sync, by name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<CompiledPolicy>> {
        self.policies.values()
    }

    /// All policies that archive, by name.
    pub fn archive(&self) -> impl Iterator<Item = &Arc<ArchivePolicy>> {
        self.archive.values()
    }

    /// How many policies there are, of both kinds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len() + self.archive.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The policy of that name that syncs.
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

    /// How long a deleted object is kept, as the policies that mean it say: the longest of what they ask
    /// for. `default` is what holds where they say nothing; None of a limit is forever.
    #[must_use]
    pub fn retention(
        &self,
        cluster: &str,
        key: &ObjectKey,
        labels: &BTreeMap<String, String>,
        default: Limits,
    ) -> Limits {
        let asked = self.meaning(cluster, key, labels).map(|policy| policy.spec.retention.or(default));
        let longest = |a: Limits, b: Limits| Limits {
            max_age: a.max_age.zip(b.max_age).map(|(a, b)| a.max(b)),
            max_versions: a.max_versions.zip(b.max_versions).map(|(a, b)| a.max(b)),
        };
        asked.reduce(longest).unwrap_or(default)
    }

    /// Does a policy ask for a deleted object to be encrypted in the archive?
    #[must_use]
    pub fn encrypts(&self, cluster: &str, key: &ObjectKey, labels: &BTreeMap<String, String>) -> bool {
        self.meaning(cluster, key, labels).any(|policy| policy.encrypts(key, labels))
    }

    /// The archive policies that mean an object.
    fn meaning<'a>(
        &'a self,
        cluster: &'a str,
        key: &'a ObjectKey,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Arc<ArchivePolicy>> {
        self.archive().filter(move |policy| policy.covers(cluster) && policy.means(key, labels))
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

    /// Kinds that policies sync from or to a cluster.
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
