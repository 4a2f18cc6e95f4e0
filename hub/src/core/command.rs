//! What the HTTP API asks of the core, and what it answers. Serialised as they stand under
//! `/api/v1`.

use lockstep_engine::ClusterName;
use lockstep_engine::status::Status;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use super::restore::RestoreCommand;
pub use super::tickets::Question;

/// What a pause covers, or letting go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PauseScope {
    /// One policy.
    Policy(String),
    /// One member cluster, as a target.
    Cluster(String),
    /// Every write everywhere.
    Everything,
}

/// An object named by a person: kind as kubectl takes it (plural, singular, short name,
/// `kind.group`), optional namespace and cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// As typed.
    pub kind: String,
    /// Empty for cluster-scoped kinds.
    #[serde(default)]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Narrow to this cluster, as source or target.
    #[serde(default)]
    pub cluster: Option<String>,
}

/// State-changing calls, and reads that only the planner can answer.
#[derive(Debug)]
pub enum Command {
    /// Release the deletes that are held now.
    Approve {
        /// Of this policy.
        policy: String,
        /// At this target only.
        target: Option<String>,
        /// What of it.
        how: Approval,
        /// Answer: what was, or would be, released.
        reply: Reply<Vec<Approved>>,
    },
    /// Pause (true) or resume (false).
    Pause {
        /// What.
        scope: PauseScope,
        /// On or off.
        paused: bool,
        /// Answer.
        reply: Reply<()>,
    },
    /// Let go of copies: they stay, and nothing of lockstep stays on them.
    Orphan {
        /// Which.
        scope: PauseScope,
        /// Only count them.
        dry_run: bool,
        /// Answer: how many, where.
        reply: Reply<Vec<Releasing>>,
    },
    /// A cluster that was rewound: its restored state is what counts, and what it lost is deleted.
    AcceptRewind {
        /// Name of the cluster.
        cluster: String,
        /// Answer: how many objects that concerns.
        reply: Reply<AcceptedRewind>,
    },
    /// Remove a cluster that is gone for good.
    RemoveCluster {
        /// Name of the cluster.
        cluster: String,
        /// Only say what that would drop.
        dry_run: bool,
        /// Answer: what was, or would be, dropped.
        reply: Reply<ClusterRemoval>,
    },
    /// Make a new bearer token for a cluster, replacing the old one; registers the cluster.
    CreateToken {
        /// Name of the member cluster.
        cluster: ClusterName,
        /// Answer: the token in clear, told only once.
        reply: Reply<String>,
    },
    /// The archive's keeper did something to tombstones.
    Keep(super::keeping::Keeping),
    /// Why an object is where it is, or is not.
    Explain {
        /// Which.
        object: ObjectRef,
        /// Answer.
        reply: Reply<Explanation>,
    },
    /// Desired and observed body of a placement, for a field-level diff; reads the target through
    /// its agent.
    Compare {
        /// Which (cluster: the target; required).
        object: ObjectRef,
        /// Answer.
        reply: Reply<Comparison>,
    },
    /// A part of a restore.
    Restore(RestoreCommand),
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// A command was refused; the code has a page in docs/errors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}; {remedy}")]
pub struct CommandError {
    /// `LS02xx`.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub remedy: String,
}

/// How an approval goes about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approval {
    /// It only says what is held.
    DryRun,
    /// It releases what is held, whatever that is.
    Whatever,
    /// It releases what is held if it is what was shown, by its digest ([`digest_of`]).
    AsShown(String),
}

/// Names exactly the objects of a list of held deletes.
#[must_use]
pub fn digest_of(held: &[Approved]) -> String {
    let mut names: Vec<String> = Vec::new();
    for Approved { target, objects, .. } in held {
        names.extend(objects.iter().map(|o| format!("{target} {} {}/{}", o.kind, o.namespace, o.name)));
    }
    names.sort_unstable();
    blake3::hash(names.join("\n").as_bytes()).to_hex().to_string()
}

/// Deletes that an approval released, or would release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approved {
    /// Policy.
    pub policy: String,
    /// Target cluster.
    pub target: String,
    /// Each of them.
    pub objects: Vec<HeldDelete>,
}

/// One delete that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldDelete {
    /// `Deployment.apps`.
    pub kind: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// PascalCase.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Since when, ms since the epoch.
    pub since_ms: i64,
}

/// Copies that are let go of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Releasing {
    /// Policy; empty for namespaces that were created in passing.
    pub policy: String,
    /// Target cluster.
    pub target: String,
    /// How many.
    pub objects: u64,
}

/// A cluster that is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRemoval {
    /// The cluster.
    pub cluster: String,
    /// Copies that lockstep looked after there, or was to make.
    pub placements: u64,
    /// Objects that the hub knows there; those whose bodies it holds become tombstones.
    pub objects: u64,
    /// Policies in force that name it.
    pub policies: Vec<String>,
}

/// A rewind that was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedRewind {
    /// The cluster.
    pub cluster: String,
    /// Objects that it lost, which count as deleted now.
    pub objects: u64,
}

/// Everything the planner says of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The object, as `Deployment.apps shop/web`.
    pub object: String,
    /// Is the kind watched anywhere? When not, a sentence says so.
    pub note: Option<String>,
    /// Where it exists, as far as the hub knows.
    pub clusters: Vec<Sighting>,
    /// What each policy says of it as a source.
    pub policies: Vec<PolicySays>,
    /// Where it stands at each target.
    pub targets: Vec<TargetSays>,
}

/// The object in one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sighting {
    /// Cluster.
    pub cluster: String,
    /// Exists, Absent, Unknown, or Unseen: there before a rewind of the cluster, and not since.
    pub presence: String,
    /// resourceVersion, when it exists.
    pub resource_version: Option<String>,
    /// When that state was read, ms since the epoch.
    pub observed_at_ms: Option<i64>,
    /// Is its body held (inside the interest)?
    pub body_held: bool,
    /// Did lockstep write it?
    pub managed: bool,
    /// One sentence on what is not known, and since when.
    pub note: Option<String>,
}

/// One policy's verdict on the object as a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicySays {
    /// Policy.
    pub policy: String,
    /// Source cluster.
    pub source: String,
    /// Selected?
    pub selected: bool,
    /// PascalCase.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// The planner's report on one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetSays {
    /// Target cluster.
    pub target: String,
    /// The policy that claims it, or claimed it last.
    pub policy: String,
    /// Other policies that select it too; the one above wins.
    pub rivals: Vec<String>,
    /// State, reason, message.
    #[serde(flatten)]
    pub status: Status,
    /// Its delete waits for an approval, whatever else the status says.
    #[serde(default)]
    pub held: bool,
    /// What the class of a failed write means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
    /// What a person can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Since when, ms since the epoch.
    pub since_ms: i64,
    /// When it last came in step, ms since the epoch.
    pub synced_at_ms: Option<i64>,
    /// Source event to applied write, last time.
    pub lag_ms: Option<i64>,
    /// Source object, as `cluster-a shop/web`.
    pub source: Option<String>,
    /// Failed attempts in a row.
    pub attempts: u32,
    /// Next attempt, ms since the epoch.
    pub next_attempt_ms: Option<i64>,
    /// Other field managers at the target and the fields they own.
    pub managers: Vec<crate::store::ManagerRow>,
    /// Drift that was set back last: when, how often, and who had changed what.
    pub corrected: Option<lockstep_engine::ownership::Corrected>,
    /// Fields that the last write left to whom they belong.
    pub left: Vec<lockstep_engine::ownership::Left>,
}

/// Desired against observed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Target cluster.
    pub target: String,
    /// What the policy asks for; values of Secrets replaced by digests.
    pub desired: Option<serde_json::Value>,
    /// What is there, projected on the fields that are asked for; values of Secrets replaced.
    pub observed: Option<serde_json::Value>,
    /// RFC 6902 patch from observed to desired.
    pub patch: Vec<serde_json::Value>,
    /// State, reason, message.
    pub status: Option<Status>,
}
