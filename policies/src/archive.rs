//! What an ArchivePolicy says, after it was read and checked.

use std::collections::BTreeSet;
use std::sync::Arc;

use lockstep_engine::catalogue::is_never_archived;
use lockstep_engine::interest::{Capture, Condition};
use lockstep_engine::retention::Limits;
use lockstep_engine::{ClusterName, GroupKind, ObjectKey};
use serde::Serialize;

use crate::finding::Place;
use crate::policy::PolicyName;

/// `spec` of an ArchivePolicy. The default: everything, in all clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveSpec {
    /// Of which clusters; empty: of all.
    pub clusters: BTreeSet<ClusterName>,
    /// What is archived when it is deleted; empty: every kind.
    pub resources: BTreeSet<Scope>,
    /// What of it is not.
    pub exclude: BTreeSet<Scope>,
    /// Also what a controller makes anew, as the Pods of a Deployment.
    pub include_owned: bool,
    /// How long it is kept.
    pub retention: Limits,
    /// What is encrypted in the archive, besides Secrets.
    pub encrypt: Encrypt,
}

/// Objects of some kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    /// The API group; none: any.
    pub group: Option<Arc<str>>,
    /// The kind; none: any.
    pub kind: Option<Arc<str>>,
    /// Which objects of them.
    pub condition: Condition,
}

impl Scope {
    /// Everything there is, the cluster's own namespaces included.
    #[must_use]
    pub fn everything() -> Self {
        Self { condition: Condition { system: true, ..Condition::default() }, ..Self::default() }
    }

    /// Is the kind among them?
    #[must_use]
    pub fn covers(&self, gk: &GroupKind) -> bool {
        self.group.as_ref().is_none_or(|group| *group == gk.group)
            && self.kind.as_ref().is_none_or(|kind| *kind == gk.kind)
    }

    /// The kind, where there is just one.
    #[must_use]
    pub fn literal(&self) -> Option<GroupKind> {
        Some(GroupKind::new(self.group.as_ref()?, self.kind.as_ref()?))
    }

    fn means(&self, key: &ObjectKey, labels: &Labels) -> bool {
        self.covers(&key.gk) && self.condition.matches(&key.namespace, &key.name, labels)
    }
}

type Labels = std::collections::BTreeMap<String, String>;

/// What is encrypted in the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Encrypt {
    /// Everything that the policy means.
    All(bool),
    /// Of that, these objects.
    Only(BTreeSet<Scope>),
}

impl Default for Encrypt {
    fn default() -> Self {
        Self::All(false)
    }
}

/// An ArchivePolicy of the running set. Immutable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchivePolicy {
    /// Its name.
    pub name: PolicyName,
    /// What it says.
    pub spec: ArchiveSpec,
    /// The file that it came from.
    pub file: String,
    /// Where in the file its name stands.
    #[serde(flatten)]
    pub place: Place,
}

impl ArchivePolicy {
    /// Does it archive anything of this cluster?
    #[must_use]
    pub fn covers(&self, cluster: &str) -> bool {
        self.spec.clusters.is_empty() || self.spec.clusters.iter().any(|name| name.as_str() == cluster)
    }

    /// Kinds that it names, as far as it names one at a time.
    pub fn named(&self) -> impl Iterator<Item = GroupKind> {
        self.spec.resources.iter().filter_map(Scope::literal)
    }

    /// What it keeps of a kind.
    #[must_use]
    pub fn captures(&self, gk: &GroupKind) -> BTreeSet<Capture> {
        if is_never_archived(gk) {
            return BTreeSet::new();
        }
        let spec = &self.spec;
        let except: BTreeSet<Condition> = spec
            .exclude
            .iter()
            .filter(|scope| scope.covers(gk))
            .map(|scope| scope.condition.clone())
            .collect();
        let capture = |condition: Condition| Capture {
            condition,
            except: except.clone(),
            made_anew: spec.include_owned,
        };
        if spec.resources.is_empty() {
            return BTreeSet::from([capture(Scope::everything().condition)]);
        }
        let scopes = spec.resources.iter().filter(|scope| scope.covers(gk));
        scopes.map(|scope| capture(scope.condition.clone())).collect()
    }

    /// Does it mean this object?
    #[must_use]
    pub fn means(&self, key: &ObjectKey, labels: &Labels) -> bool {
        let captures = self.captures(&key.gk);
        captures.iter().any(|capture| capture.means(&key.namespace, &key.name, labels))
    }

    /// Does it ask for this object, which it means, to be encrypted in the archive?
    #[must_use]
    pub fn encrypts(&self, key: &ObjectKey, labels: &Labels) -> bool {
        match &self.spec.encrypt {
            Encrypt::All(all) => *all,
            Encrypt::Only(scopes) => scopes.iter().any(|scope| scope.means(key, labels)),
        }
    }
}
