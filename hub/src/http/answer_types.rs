//! Further answers of the HTTP API; re-exported by `types`.

use std::collections::BTreeMap;

use lockstep_engine::object::OwnerReference;
use lockstep_engine::status::Status;
use serde::{Deserialize, Serialize};

use super::types::{ClusterStatus, Finding, PauseScope, Problem};
use crate::store::Hold;

/// One object at one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacementItem {
    /// Target cluster.
    pub target: String,
    /// `Deployment.apps`.
    pub kind: String,
    /// Namespace at the target.
    pub namespace: String,
    /// Name at the target.
    pub name: String,
    /// The policy that claims it, or claimed it last.
    pub policy: String,
    /// Other policies that select it too.
    pub rivals: Vec<String>,
    /// State, reason, message.
    #[serde(flatten)]
    pub status: Status,
    /// Since when.
    pub since_ms: i64,
    /// Generation of the policy that was looked at.
    pub observed_generation: u64,
    /// Source object, as `cluster-a shop/web`.
    pub source: Option<String>,
    /// When it last came in step.
    pub synced_at_ms: Option<i64>,
    /// Source event to applied write, last time.
    pub lag_ms: Option<i64>,
    /// Failed attempts in a row.
    pub attempts: u32,
    /// Next attempt.
    pub next_attempt_ms: Option<i64>,
    /// Why nothing claims it: SourceDeleted, Unselected, PolicyRemoved, TargetRemoved.
    pub ending: Option<String>,
}

/// A retained record of something deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TombstoneItem {
    /// Ascending number.
    pub id: i64,
    /// Where it was.
    pub cluster: String,
    /// `Deployment.apps`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// resourceVersion of the last state that is known.
    pub resource_version: String,
    /// API version of the state kept.
    pub api_version: String,
    /// Observed, Inferred, Lockstep, Rewound (a state that a restore of its cluster threw away), or
    /// ClusterRemoved.
    pub cause: String,
    /// The policy it was deleted for, when lockstep did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What it was deleted together with, as in g12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its owners, the controller first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<OwnerReference>,
    /// When the deletion was seen.
    pub deleted_at_ms: i64,
    /// When the state kept was read.
    pub last_seen_ms: i64,
    /// For an inferred delete: it was deleted between this time and `deletedAtMs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_until_ms: Option<i64>,
    /// False for the image of a delete that was not carried out (yet).
    pub deleted: bool,
    /// Path in the archive, once it is there.
    pub path: Option<String>,
    /// A legal hold: it is not purged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// The user who asked for it, where a webhook told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleter: Option<String>,
    /// The body, in `show` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
}

/// What changed between two kept states of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TombstoneDifference {
    /// Where it was.
    pub cluster: String,
    /// `Deployment.apps`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The first state. Values of Secrets are keyed digests.
    pub before: serde_json::Value,
    /// The second one.
    pub after: serde_json::Value,
    /// RFC 6902 patch from the first to the second.
    pub patch: Vec<serde_json::Value>,
}

/// What was deleted together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupItem {
    /// As in g12.
    pub id: String,
    /// Where it was.
    pub cluster: String,
    /// Namespace, Definition, Owner or Lockstep.
    pub kind: String,
    /// The namespace, definition or owner, as in `Deployment.apps shop/web`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// uid of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_uid: Option<String>,
    /// The policy it was deleted for, when lockstep did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The user who asked for the delete of the root, where a webhook told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleter: Option<String>,
    /// When the first of its deletes was seen.
    pub started_at_ms: i64,
    /// When the last one was.
    pub last_at_ms: i64,
    /// How many tombstones are in it.
    pub members: u64,
}

/// The hub itself, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HubFacts {
    /// `HubFacts`.
    pub kind: String,
    /// Version of the hub.
    pub version: String,
    /// Version of the session protocol.
    pub protocol: u32,
    /// The hub's id.
    pub hub_id: String,
    /// The hub's clock when it answered.
    pub clock_ms: i64,
    /// When it started.
    pub started_at_ms: i64,
    /// Everything is paused.
    pub paused: bool,
    /// Tombstones that the archive does not have yet.
    pub outbox: u64,
    /// Policies loaded.
    pub policies: u64,
    /// What is wrong with policy files.
    pub findings: Vec<Finding>,
    /// Clusters with sessions and watches.
    pub clusters: Vec<ClusterStatus>,
    /// What is wrong with the hub itself, damaged stores that are kept aside included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// Body of `POST /api/v1/accept-rewind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AcceptRewindRequest {
    /// Name of the cluster.
    pub cluster: String,
}

/// Body of `POST /api/v1/remove-cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemoveClusterRequest {
    /// Name of the cluster.
    pub cluster: String,
    /// Only say what that would drop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Body of `POST /api/v1/approve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApproveRequest {
    /// Of this policy.
    pub policy: String,
    /// At this target only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Only say what is held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Digest of what was shown: refused where something else is held by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
}

/// Body of `POST /api/v1/orphan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrphanRequest {
    /// What to let go of.
    pub scope: PauseScope,
    /// Only count it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Body of `POST /api/v1/pause` and `/resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PauseRequest {
    /// What.
    pub scope: PauseScope,
}

/// Body of `POST /api/v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRequest {
    /// Name of the member cluster.
    pub cluster: String,
}

/// Answer to `POST /api/v1/tokens`. Debug shows no token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenAnswer {
    /// Name of the member cluster.
    pub cluster: String,
    /// The token, told only once.
    pub token: String,
}

impl std::fmt::Debug for TokenAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenAnswer").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// Answer to a call that only does something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// One sentence.
    pub message: String,
}

/// Answer to a restore that began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreStarted {
    /// Its number.
    pub id: i64,
}
