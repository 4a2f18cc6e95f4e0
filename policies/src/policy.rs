//! What a policy says, after it was read and checked.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use lockstep_engine::budget::Limit;
use lockstep_engine::interest::Condition;
use lockstep_engine::ownership::{Drift, Leave, ManagerPattern, Pattern};
use lockstep_engine::plan::{OnConflict, OnTracked};
use lockstep_engine::{ClusterName, GroupKind};
use serde::{Deserialize, Serialize};

use crate::finding::Place;

/// `metadata.name` of a policy: a DNS-1123 subdomain. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyName(Arc<str>);

impl PolicyName {
    pub(crate) fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for PolicyName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// `spec` of a ClusterSyncPolicy, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Where objects come from.
    pub source_cluster: ClusterName,
    /// Where copies go; never contains the source.
    pub target_clusters: BTreeSet<ClusterName>,
    /// What is synced; an object is selected by the first entry that matches it.
    pub resources: Vec<Resource>,
    /// Nothing is written, everything is still watched.
    pub suspend: bool,
    /// What happens to copies.
    pub deletion: Deletion,
}

/// One entry of `spec.resources`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// The kind.
    pub gk: GroupKind,
    /// Which objects of it.
    #[serde(flatten)]
    pub condition: Condition,
    /// Also objects that a controller owns.
    pub include_owned: bool,
    /// What becomes of objects and fields that are not ours: as the entry says, else as the policy says.
    pub ownership: Ownership,
}

/// What becomes of objects and fields at a target that lockstep does not own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ownership {
    /// An object of the same name is there. Default: Fail.
    pub conflict: OnConflict,
    /// Field managers that are done with the objects that are adopted, beside those that people run by hand.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub retired: BTreeSet<ManagerPattern>,
    /// A GitOps tool or a package manager tracks the object that is there. Default: Conflict.
    pub tracked: OnTracked,
    /// Somebody else changed a field that is ours. Default: Correct.
    pub drift: Drift,
    /// The same for some fields; the first that covers a field counts.
    pub drift_rules: Vec<(Pattern, Drift)>,
    /// Fields that are never written.
    pub ignored: BTreeSet<Pattern>,
    /// Field managers whose fields are left to them.
    pub ignored_managers: BTreeSet<String>,
    /// Fields that are written at creation only.
    pub create_only: BTreeSet<Pattern>,
    /// Whose the number of replicas is. Default: Auto.
    pub replicas: Replicas,
    /// A field of a copy is to change that cannot be changed. Default: Fail.
    pub on_immutable: OnImmutable,
}

/// What becomes of a copy of which a field is to change that cannot be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnImmutable {
    /// It stays as it is, and is reported.
    #[default]
    Fail,
    /// It is deleted (archived first, and within the budget), and created anew. Adopted objects, namespaces and
    /// definitions are not.
    Recreate,
}

/// Whose the number of replicas of a workload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replicas {
    /// The target's, where an autoscaler scales the object there; else the source's.
    #[default]
    Auto,
    /// The source's.
    Source,
    /// The target's, once the object is created.
    Target,
}

impl Ownership {
    /// Is the object given up as a whole once it is created?
    #[must_use]
    pub fn creates_only(&self) -> bool {
        self.create_only.iter().any(Pattern::is_root)
    }

    /// Which fields are not ours to write, for a copy that an autoscaler at the target scales or does not.
    #[must_use]
    pub fn leave(&self, gk: &GroupKind, autoscaled: bool) -> Leave {
        let mut after_create: BTreeSet<Pattern> =
            self.create_only.iter().filter(|path| !path.is_root()).cloned().collect();
        let left = match self.replicas {
            Replicas::Auto => autoscaled,
            Replicas::Source => false,
            Replicas::Target => true,
        };
        if left && is_scaled(gk) {
            after_create.insert(Pattern::of_members(&["spec", "replicas"]));
        }
        let mut drift = self.drift_rules.clone();
        if self.drift != Drift::Correct {
            drift.push((Pattern::root(), self.drift));
        }
        let (never, managers) = (self.ignored.clone(), self.ignored_managers.clone());
        Leave { never, after_create, managers, drift }
    }
}

/// Kinds with a number of replicas that an autoscaler may set.
#[must_use]
pub fn is_scaled(gk: &GroupKind) -> bool {
    ["Deployment", "StatefulSet", "ReplicaSet"].iter().any(|kind| gk.is("apps", kind))
        || gk.is("", "ReplicationController")
}

/// The kind that scales others.
#[must_use]
pub fn autoscalers() -> GroupKind {
    GroupKind::new("autoscaling", "HorizontalPodAutoscaler")
}

/// What happens to copies when their reason goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// How many deletes go through without approval.
    pub budget: Budget,
    /// How long a copy stays after the end of its source was seen, milliseconds: a source that is
    /// back within it finds its copy. Default: 0.
    pub grace_ms: i64,
    /// When the source object is deleted. Default: Delete.
    pub on_source_delete: Disposition,
    /// When the policy no longer selects the object. Default: Delete.
    pub on_unselect: Disposition,
    /// When the policy itself is removed. Default: Orphan.
    pub on_policy_delete: Disposition,
    /// When the source cluster was restored to a state in which the object is not. Default: Hold.
    pub on_source_rewind: OnRewind,
    /// When the source object went together with its namespace or definition. Default: Hold.
    pub container_deleted: OnContainer,
    /// What becomes of copies that were there before lockstep and were adopted, where others are deleted.
    /// Default: Orphan.
    pub adopted: Disposition,
}

impl Default for Deletion {
    fn default() -> Self {
        Self {
            budget: Budget::default(),
            grace_ms: 0,
            on_source_delete: Disposition::Delete,
            on_unselect: Disposition::Delete,
            on_policy_delete: Disposition::Orphan,
            on_source_rewind: OnRewind::Hold,
            container_deleted: OnContainer::Hold,
            adopted: Disposition::Orphan,
        }
    }
}

/// Deletes per policy and target that go through without approval: the larger of the two allowances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// So many objects. 0: every delete is held.
    pub count: u32,
    /// So much of what the policy keeps in the target, in percent; 0 to 100.
    pub percent: u8,
    /// Within such a time, milliseconds.
    pub window_ms: i64,
}

impl Default for Budget {
    fn default() -> Self {
        let Limit { count, percent, window_ms } = Limit::default();
        Self { count, percent, window_ms }
    }
}

impl From<Budget> for Limit {
    fn from(budget: Budget) -> Self {
        let Budget { count, percent, window_ms } = budget;
        Self { count, percent, window_ms }
    }
}

/// What happens to a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disposition {
    /// It is deleted (archived first, and within the budget).
    Delete,
    /// It stays, and lockstep lets go of it.
    Orphan,
}

/// What happens to the copy of an object that a rewind of its source cluster took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnRewind {
    /// Its delete is held until somebody decides.
    Hold,
    /// As if the object had been deleted: `on_source_delete`, within the budget.
    Delete,
}

/// What happens to the copy of an object that went together with what contained it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnContainer {
    /// Its delete is held until somebody approves.
    Hold,
    /// As if the object had been deleted alone: `on_source_delete`, within the budget.
    Delete,
}

/// A policy of the running set. Immutable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CompiledPolicy {
    /// Its name.
    pub name: PolicyName,
    /// What it says.
    pub spec: Spec,
    /// The file that it came from.
    pub file: String,
    /// Where in the file its name stands.
    #[serde(flatten)]
    pub place: Place,
    /// Digest of name and spec, defaults filled in: equal digests mean equal behaviour. Comments,
    /// layout and the file's name do not count.
    #[serde(skip)]
    pub digest: [u8; 32],
}

impl CompiledPolicy {
    pub(crate) fn new(name: PolicyName, spec: Spec, file: &str, place: Place) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("lockstep 2026 policy v1");
        // Strings, numbers and sets always serialise.
        hasher.update(&serde_json::to_vec(&(&name, &spec)).unwrap_or_default());
        let digest = *hasher.finalize().as_bytes();
        Self { name, spec, file: file.to_owned(), place, digest }
    }

    /// The entries of `spec.resources` for this kind, with their indices.
    pub fn resources_for<'a>(
        &'a self,
        gk: &GroupKind,
    ) -> impl Iterator<Item = (usize, &'a Resource)> + use<'a> {
        let gk = gk.clone();
        self.spec.resources.iter().enumerate().filter(move |(_, resource)| resource.gk == gk)
    }
}
