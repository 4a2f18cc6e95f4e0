//! What the HTTP API answers, for the hub that writes it and the command line that reads it.
//! JSON is camelCase; times are milliseconds since the Unix epoch, spans milliseconds.

use std::collections::BTreeMap;

use lockstep_engine::status::{State, Status};
use serde::{Deserialize, Serialize};

pub use lockstep_policies::Finding;

pub use super::answer_types::*;
pub use super::archive_types::*;
pub use crate::archive::keeper::{Purged, Work};
pub use crate::core::command::{
    AcceptedRewind, Approved, ClusterRemoval, CommandError, Comparison, Explanation, HeldDelete, ObjectRef,
    PauseScope, PolicySays, Releasing, Sighting, TargetSays, digest_of,
};
pub use crate::problem::Problem;
pub use crate::restore::{
    MissingItem, PlanItem, PlanView, RestoreItem, RestoreRequest, RestoreView, Selection,
};
pub use crate::store::Hold;
pub use lockstep_engine::restore::{OnConflict, Options, Verdict};

/// A list: `{kind, items: [...]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// `ClusterList`, `ObjectList`, ...
    pub kind: String,
    /// The items, ordered.
    pub items: Vec<T>,
    /// Present when there is more: pass it as `continue`.
    #[serde(rename = "continue", default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Sentences for people: what the list does not show, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl<T> List<T> {
    /// A complete list.
    #[must_use]
    pub fn new(kind: &str, items: Vec<T>) -> Self {
        Self { kind: kind.to_owned(), items, next: None, notes: Vec::new() }
    }
}

/// A member cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Its name.
    pub name: String,
    /// uid of its kube-system namespace; none before the first session.
    pub uid: Option<String>,
    /// Is a session open?
    pub connected: bool,
    /// Since when that holds; none: it never connected.
    pub since_ms: Option<i64>,
    /// Version of its API server.
    pub server_version: String,
    /// Version of its agent.
    pub agent_version: String,
    /// Version of the session protocol that hub and agent speak; none: the agent has not connected since the hub started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u32>,
    /// What its agent accepts.
    pub accepts: Vec<String>,
    /// What policies ask for and its agent does not let the hub read: sentences that say what to accept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_accepted: Vec<String>,
    /// Paused as a target.
    pub paused: bool,
    /// Objects held (keys and bodies).
    pub objects: u64,
    /// The agent's clock minus the hub's, at the last message; none: not known.
    pub clock_skew_ms: Option<i64>,
    /// Items waiting in the agent's queues, as last told.
    pub queued_items: Option<u64>,
    /// Objects at this target that wait to be written, deleted, or known again.
    pub waiting: u64,
    /// It was rewound, as by a restore of etcd, and something is still to be listed or decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewound: Option<RewoundStatus>,
    /// What stands in the way of the agent, one sentence; from `up`, or a refused session.
    pub problem: Option<String>,
    /// Its watches.
    pub watches: Vec<WatchStatus>,
}

/// A rewind that is not dealt with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RewoundStatus {
    /// When it was noticed.
    pub at_ms: i64,
    /// By what; one sentence.
    pub how: String,
    /// Objects that were there before and are not since: `lockstep clusters accept-rewind` takes them
    /// for deleted.
    pub missing: u64,
}

/// A watch of a member cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchStatus {
    /// `Deployment.apps`.
    pub kind: String,
    /// Empty: all namespaces.
    pub namespace: String,
    /// Pending, Listing, Live or Failing; Unknown while the cluster is not connected.
    pub phase: String,
    /// PascalCase.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// `apps/v1`.
    pub api_version: String,
    /// Counts lists.
    pub epoch: u64,
    /// resourceVersion up to which everything is committed; empty: none.
    pub checkpoint: String,
    /// Since when the phase holds.
    pub since_ms: i64,
    /// When the checkpoint last moved.
    pub updated_at_ms: i64,
}

/// A policy with its standing at each target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Its name.
    pub name: String,
    /// File it came from.
    pub file: String,
    /// Source cluster.
    pub source: String,
    /// What it selects, one entry per rule: `Deployment.apps`.
    pub kinds: Vec<String>,
    /// Paused by `lockstep pause`, or suspended in its file.
    pub paused: bool,
    /// Raised with every change of the policy.
    pub generation: u64,
    /// The generation that everything was planned with.
    pub observed_generation: u64,
    /// The targets, ordered by name.
    pub targets: Vec<TargetStatus>,
}

/// How many placements are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// The target holds what the policy asks for.
    pub in_step: u64,
    /// Under way or queued.
    pub pending: u64,
    /// Deletes that wait for approval.
    pub held: u64,
    /// Something that is not ours is in the way.
    pub conflict: u64,
    /// Written, and not what was asked for.
    #[serde(default)]
    pub differs: u64,
    /// A write failed.
    pub failed: u64,
    /// Cannot be carried out as things are.
    pub blocked: u64,
    /// Not enough is known.
    pub unknown: u64,
    /// Paused.
    pub paused: u64,
    /// Left where it is; no policy asks for it.
    pub orphaned: u64,
}

impl Counts {
    /// Adds to one state.
    pub fn add(&mut self, state: State, count: u64) {
        let slot = match state {
            State::InStep => &mut self.in_step,
            State::Pending => &mut self.pending,
            State::Held => &mut self.held,
            State::Conflict => &mut self.conflict,
            State::Differs => &mut self.differs,
            State::Failed => &mut self.failed,
            State::Blocked => &mut self.blocked,
            State::Unknown => &mut self.unknown,
            State::Paused => &mut self.paused,
            State::Orphaned => &mut self.orphaned,
        };
        *slot = slot.saturating_add(count);
    }

    /// Every placement that is asked for: all but the orphaned.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        let Self { in_step, pending, held, conflict, differs, failed, blocked, unknown, paused, orphaned: _ } =
            *self;
        in_step + pending + held + conflict + differs + failed + blocked + unknown + paused
    }

    /// Is everything that is asked for in step?
    #[must_use]
    pub fn all_in_step(&self) -> bool {
        self.wanted() == self.in_step
    }
}

/// One policy at one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Target cluster.
    pub target: String,
    /// Is its session open?
    pub connected: bool,
    /// Paused as a target, with the policy, or with everything.
    pub paused: bool,
    /// Placements by state.
    pub counts: Counts,
    /// Largest lag (source event to applied write) of those in step.
    pub worst_lag_ms: Option<i64>,
    /// Oldest of those that are not in step: since when.
    pub behind_since_ms: Option<i64>,
    /// Reasons of those that are not in step, most frequent first.
    pub reasons: Vec<ReasonCount>,
    /// What cannot be known now, of the source and of this target: the counts are from before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Gap>,
}

/// Something that is not watched now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Cluster.
    pub cluster: String,
    /// `Deployment.apps`; empty: everything in the cluster.
    pub kind: String,
    /// Empty: all namespaces.
    pub namespace: String,
    /// PascalCase: NotConnected, Forbidden, NotServed, RewindSuspected, Listing, ...
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Since when; none: it never was.
    pub since_ms: Option<i64>,
}

/// How many placements give one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReasonCount {
    /// State.
    pub state: State,
    /// PascalCase.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// Since when the oldest does.
    pub since_ms: i64,
    /// What the class of a failed write means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
    /// What a person can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Everything `lockstep status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReport {
    /// `PolicyList`.
    pub kind: String,
    /// The policies, ordered by name.
    pub items: Vec<PolicyStatus>,
    /// Everything is paused.
    pub paused: bool,
    /// What is wrong with policy files.
    pub findings: Vec<Finding>,
    /// What is wrong with the hub itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// An object of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectItem {
    /// Cluster.
    pub cluster: String,
    /// API group; empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// metadata.uid.
    pub uid: String,
    /// metadata.resourceVersion.
    pub resource_version: String,
    /// metadata.creationTimestamp, RFC 3339; none when the body is not held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Labels; none when the body is not held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// When this state was read.
    pub observed_at_ms: i64,
    /// Has a deletionTimestamp.
    pub deleting: bool,
    /// Is the body held (inside the interest)?
    pub body_held: bool,
    /// Carries lockstep's label.
    pub managed: bool,
    /// Where it stands, when lockstep placed it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The policy that placed it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The body, when asked for; values of Secrets are digests unless authorised and asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
}
