//! What the state store holds, one type per row.

use std::collections::BTreeMap;

use bytes::Bytes;
use lockstep_engine::acts::Span;
use lockstep_engine::catalogue::PodSecurity;
use lockstep_engine::object::OwnerReference;
use lockstep_engine::ownership::{Corrected, Differences, Left};
use lockstep_engine::status::Status;
use lockstep_engine::{ClusterId, ClusterName, GroupKind, Millis, ObjectKey, ResourceVersion, Uid};
use serde::{Deserialize, Serialize};

/// A member cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRow {
    /// The hub's integer for it.
    pub id: ClusterId,
    /// Its name; unique.
    pub name: ClusterName,
    /// uid of its kube-system namespace, from its first session on; unique.
    pub uid: Option<Uid>,
    /// blake3 of the bearer token; none until `lockstep token create`.
    pub token_hash: Option<[u8; 32]>,
    /// Agent process whose batches are counted by `committed`.
    pub instance: String,
    /// Highest batch sequence of that instance that is committed.
    pub committed: u64,
    /// Last session number given out (fencing).
    pub session: u64,
    /// Last value of the rewind guard's counter.
    pub lease_counter: u64,
    /// Version of its API server, as last told.
    pub server_version: String,
    /// Version of its agent, as last told.
    pub agent_version: String,
    /// What its agent accepts, as last told, for people to read.
    pub accepts: Vec<String>,
    /// JSON of the kinds it served, as last told; empty before the first session.
    pub served: Bytes,
    /// Paused by `lockstep pause --cluster`.
    pub paused: bool,
    /// When the last session began.
    pub connected_at: Option<Millis>,
    /// When the last session ended; none while one runs.
    pub disconnected_at: Option<Millis>,
    /// When it was first heard of.
    pub created_at: Millis,
    /// A rewind that waits for a decision, or whose lists are still under way.
    pub rewound: Option<Rewound>,
}

/// A cluster was restored to an older state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewound {
    /// When that was noticed (hub's clock).
    pub at: Millis,
    /// By what; one sentence.
    pub how: String,
}

/// Phases of a watch; ordinals are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Not started, or the kind is not served.
    Pending,
    /// A list is under way.
    Listing,
    /// Everything up to the checkpoint is here.
    Live,
    /// Failing; what is here may be old.
    Failing,
}

/// One watch of one agent, with its checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRow {
    /// Stable for (cluster, group, kind, namespace).
    pub id: u32,
    /// Whose.
    pub cluster: ClusterId,
    /// Of what.
    pub gk: GroupKind,
    /// Empty: all namespaces.
    pub namespace: String,
    /// Counts lists.
    pub epoch: u64,
    /// resourceVersion up to which everything is committed; empty: list.
    pub checkpoint: ResourceVersion,
    /// Digest of the interest everything held was judged by; empty: none yet.
    pub interest: Bytes,
    /// API version watched, as in `apps/v1`.
    pub api_version: String,
    /// As last told. Only a connected session's phase counts.
    pub phase: Phase,
    /// PascalCase reason for the phase.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Since when this phase holds.
    pub since: Millis,
    /// Hub's clock at the last batch of this watch.
    pub updated_at: Millis,
    /// The cluster was rewound, and this watch has not been listed to the end since.
    pub rewound: bool,
    /// When it was last told to be complete (hub's clock): what was here then existed then.
    pub live_at: Option<Millis>,
}

/// How our entry in managedFields relates to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owned {
    /// Digest of the projection.
    Digest([u8; 16]),
    /// We have no entry.
    NoEntry,
    /// Our entry is in another API version than the watch.
    OtherVersion,
}

/// Another field manager, for attribution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerRow {
    /// Its name.
    pub name: String,
    /// Apply or Update.
    pub operation: String,
    /// `status`, `scale` or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subresource: String,
    /// RFC 3339.
    #[serde(default)]
    pub time: String,
    /// Paths, never values; bounded by the agent.
    #[serde(default)]
    pub fields: Vec<String>,
    /// Were there more?
    #[serde(default)]
    pub truncated: bool,
}

/// What an agent tells of an object that carries our label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedRow {
    /// Our projection.
    pub owned: Owned,
    /// Its `lockstep.dev/*` labels and annotations.
    pub marks: BTreeMap<String, String>,
    /// The other managers.
    pub managers: Vec<ManagerRow>,
    /// metadata.creationTimestamp.
    pub created_at: Millis,
    /// Has a watch told of it? Else only the answer to our own write has.
    pub told: bool,
}

/// One object of one cluster as last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRow {
    /// Where.
    pub cluster: ClusterId,
    /// What.
    pub key: ObjectKey,
    /// The watch that reports it.
    pub watch: u32,
    /// metadata.uid.
    pub uid: Uid,
    /// metadata.resourceVersion.
    pub resource_version: ResourceVersion,
    /// JSON without managedFields; none for objects outside the interest. The store compresses it
    /// and encrypts it where the kind is Secret.
    pub body: Option<Bytes>,
    /// Present when it carries our label and the watch is that of a target.
    pub managed: Option<ManagedRow>,
    /// Has a deletionTimestamp.
    pub deleting: bool,
    /// Of a Namespace: its Pod Security labels.
    pub pod_security: PodSecurity,
    /// Its body before that, where it was held then: what comes after it is the work of finalizers.
    pub before: Option<Bytes>,
    /// Agent's clock when this state was read.
    pub observed_at: Millis,
    /// Known from before a rewind of its cluster, and in no list since then (hub's clock): neither
    /// there nor deleted.
    pub unseen: Option<Millis>,
}

/// A row of the key index that is streamed to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexRow {
    /// Namespace or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// metadata.uid.
    pub uid: Uid,
    /// metadata.resourceVersion.
    pub resource_version: ResourceVersion,
    /// Is the body here?
    pub body_held: bool,
    /// Does it carry our label?
    pub managed: bool,
    /// Has a watch told of it?
    pub told: bool,
}

/// The source of a placement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRef {
    /// Cluster.
    pub cluster: ClusterId,
    /// Namespace in the source cluster.
    pub namespace: String,
    /// Name in the source cluster.
    pub name: String,
    /// uid of the source object.
    pub uid: Uid,
}

/// What the hub knows of an object that it wrote: the authority to update and delete it (I6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// uid at the target; none while a create has not been answered.
    pub uid: Option<Uid>,
    /// resourceVersion of our last write.
    pub resource_version: ResourceVersion,
    /// Digest of the desired body that was written.
    pub rendered: [u8; 32],
    /// Digest of the projection of the response to our last write; none when taken over from marks
    /// and not yet seen.
    pub owned: Option<[u8; 16]>,
    /// Our fieldsV1 after the last write, JSON.
    pub field_set: Bytes,
    /// API version written.
    pub api_version: String,
    /// A namespace that was created in passing: never deleted.
    pub implicit: bool,
    /// It was there before, and a policy had it adopted.
    pub adopted: bool,
    /// When we first wrote it.
    pub created_at: Millis,
}

/// Why nothing claims an object any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The source object was deleted.
    SourceDeleted,
    /// The source object is no longer selected.
    Unselected,
    /// The policy is gone.
    PolicyRemoved,
    /// The policy no longer names this target.
    TargetRemoved,
    /// Found at the target with genuine marks, without a record of it and without a source (I11).
    Recovered,
    /// A field that cannot be changed is to be another: it is claimed, and made anew.
    Recreate,
}

/// How far a delete has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeleteStage {
    /// The grace period of its policy began then, when the end of its source was seen.
    Waiting {
        /// Hub's clock.
        since: Millis,
    },
    /// It asked, and was not granted: it stays so, whatever its status says meanwhile, until it is
    /// approved or claimed again.
    Held,
    /// Within the budget: the image is being read.
    Granted,
    /// A person said so: the image is being read.
    Approved,
    /// The image is in the outbox and not yet in the archive.
    Archiving {
        /// Of that image.
        tombstone: i64,
    },
    /// The archive has exactly this state: it may be deleted.
    Archived {
        /// Of that image.
        tombstone: i64,
        /// uid of the image.
        uid: Uid,
        /// resourceVersion of the image.
        resource_version: ResourceVersion,
    },
    /// A person asked to let go of it: it is not deleted, and whatever claims it gives way.
    Releasing,
}

/// One object at one target: what is asked, what we wrote, where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementRow {
    /// Target cluster.
    pub target: ClusterId,
    /// Key at the target.
    pub key: ObjectKey,
    /// The policy that claims it, or claimed it last.
    pub policy: String,
    /// Other policies that select it too.
    pub rivals: Vec<String>,
    /// The source, or the last one.
    pub source: Option<SourceRef>,
    /// Our record, once we wrote it.
    pub record: Option<Record>,
    /// Where it stands.
    pub status: Status,
    /// Since when that state and reason hold.
    pub since: Millis,
    /// Generation of the policy that was looked at.
    pub observed_generation: u64,
    /// Why nothing claims it.
    pub ending: Option<Ending>,
    /// How far its delete has come.
    pub delete: Option<DeleteStage>,
    /// Failed attempts in a row.
    pub attempts: u32,
    /// When to try again; none: when an input changes.
    pub next_attempt: Option<Millis>,
    /// Fingerprint of the inputs that failed for good; the same inputs are not tried again.
    pub barred: Option<Bytes>,
    /// When it last came in step.
    pub synced_at: Option<Millis>,
    /// From the source event to the applied write, milliseconds, last time.
    pub lag_ms: Option<i64>,
    /// Its fields that others took, and what else is remembered of its writes.
    pub fields: Fields,
}

/// Fields of a copy that others took, and what else is remembered of its writes beside the record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fields {
    /// What our last write left to them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<LeftRow>,
    /// The drift that was corrected last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Corrected>,
    /// The desired body that was refused because of a field that cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<[u8; 32]>,
    /// A create was sent, and did not make anything that is known of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creating: Option<Creating>,
    /// What the comparison after the write of the record found; none: nobody has compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared: Option<ComparedRow>,
}

/// What is at the target, against what our last write asked for (I17).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedRow {
    /// When it was compared, hub's clock.
    pub at: Millis,
    /// What came of it.
    pub found: Finding,
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// It is what was asked for.
    AsAsked,
    /// The agent does not compare.
    NotCompared,
    /// It is not.
    Differs {
        /// Where, and who holds it.
        differences: Differences,
        /// fieldsV1 of what the source removed and is still there, JSON; empty: nothing.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        lingering: String,
        /// API server and rules of that time; others may change the answer.
        target: String,
    },
}

/// What is known of a create that was sent. It is an apply, which merges with what it meets: the marks that it leaves may
/// be on an object of others (I6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Creating {
    /// Nothing: no answer came. Whatever source is asked for by then, it is sent again with this nonce: the agent knows what
    /// it left by that.
    Sent(String),
    /// The one with this nonce met an object of others: marks that carry it are to be taken back, or were.
    Met(String),
}

impl Creating {
    /// Its nonce.
    #[must_use]
    pub fn nonce(&self) -> &str {
        let (Self::Sent(nonce) | Self::Met(nonce)) = self;
        nonce
    }
}

/// A field that our last write left to whom it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftRow {
    /// Which, and whose it is.
    #[serde(flatten)]
    pub left: Left,
    /// It was ours before.
    pub ours: bool,
}

/// Why a tombstone was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// A DELETED event was seen.
    Observed,
    /// Concluded from a completed list.
    Inferred,
    /// lockstep deleted it.
    Lockstep {
        /// For this policy.
        policy: String,
    },
    /// Not deleted by anybody: its cluster was restored to an older state, which has another one.
    Rewound,
    /// Not deleted by anybody: its cluster was removed from the hub.
    ClusterRemoved,
    /// A restore replaced it.
    Restore,
}

/// A [`Cause`] without its details; ordinals are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseKind {
    /// [`Cause::Observed`].
    Observed,
    /// [`Cause::Inferred`].
    Inferred,
    /// [`Cause::Lockstep`].
    Lockstep,
    /// [`Cause::Rewound`].
    Rewound,
    /// [`Cause::ClusterRemoved`].
    ClusterRemoved,
    /// [`Cause::Restore`].
    Restore,
}

impl CauseKind {
    /// All of them, by their names.
    pub const ALL: [(&str, Self); 6] = [
        ("Observed", Self::Observed),
        ("Inferred", Self::Inferred),
        ("Lockstep", Self::Lockstep),
        ("Rewound", Self::Rewound),
        ("ClusterRemoved", Self::ClusterRemoved),
        ("Restore", Self::Restore),
    ];
}

/// A retained record of something deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TombstoneRow {
    /// Ascending; given by the store on insertion (0 before).
    pub id: i64,
    /// Where it was.
    pub cluster: ClusterId,
    /// What it was.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Uid,
    /// resourceVersion of the last state that is known.
    pub resource_version: ResourceVersion,
    /// API version of the state kept.
    pub api_version: String,
    /// Why.
    pub cause: Cause,
    /// When the deletion was seen (hub's clock).
    pub deleted_at: Millis,
    /// When the last state that is known was read.
    pub last_seen: Millis,
    /// For an inferred delete, the last time at which the object is known to have existed: it was
    /// deleted between then and `deleted_at`.
    pub known_until: Option<Millis>,
    /// JSON; here (the outbox) until the archive has it. Compressed, and encrypted for Secrets.
    pub body: Option<Bytes>,
    /// Path in the archive, once it is there.
    pub path: Option<String>,
    /// False for the image of a delete that was not carried out (yet).
    pub deleted: bool,
    /// What else is known of it.
    pub facts: Facts,
}

/// A file of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filed {
    /// Path in the archive.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Id of the archive's key that it is sealed under; none: it can be read as it is.
    pub key: Option<String>,
}

/// What a tombstone is found by besides its identity, and what decides how long it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Labels of the state kept.
    pub labels: BTreeMap<String, String>,
    /// Its ownerReferences, the controller first.
    pub owners: Vec<OwnerReference>,
    /// metadata.creationTimestamp, by its API server's clock.
    pub created: Option<Millis>,
    /// Names of its field managers, where they were told.
    pub managers: Vec<String>,
    /// The user who asked for the delete, where a webhook told it.
    pub deleter: Option<String>,
    /// The act that deleted it together with others.
    pub act: Option<i64>,
    /// When it ended; none where nobody knows, or where nobody deleted it.
    pub ended: Option<Span>,
    /// resourceVersion of the state kept, where that has no deletionTimestamp: its delete had not begun.
    pub alive: u64,
    /// A legal hold: it is not purged, whatever its age.
    pub held: bool,
    /// A policy asks for its file to be encrypted. Those of Secrets are, whatever policies say.
    pub sealed: bool,
    /// Bytes of its file in the archive; 0 before it is there.
    pub size: u64,
    /// RFC 6902 patch (JSON) from the state kept, which is the one before deletionTimestamp, to the final
    /// one; none where they are the same, or the final one is not known.
    pub last: Option<Bytes>,
}

/// Who asked for a delete, as a webhook of an API server told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleterRow {
    /// Where.
    pub cluster: ClusterId,
    /// Of what; the name is empty where a whole collection was meant.
    pub key: ObjectKey,
    /// uid of the object, where it was told.
    pub uid: Option<Uid>,
    /// The user, as the API server authenticated it.
    pub user: String,
    /// Hub's clock.
    pub asked_at: Millis,
}

/// The last good version of a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFileRow {
    /// Path within the policies directory.
    pub path: String,
    /// Text of the last version without an error.
    pub text: String,
}

/// What the hub remembers of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRow {
    /// Its name.
    pub name: String,
    /// Digest of its compiled form.
    pub digest: [u8; 32],
    /// Raised with every change.
    pub generation: u64,
    /// Has everything been planned with this generation?
    pub planned: bool,
    /// Paused by `lockstep pause POLICY`.
    pub paused: bool,
}

/// Counts of one policy at one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryRow {
    /// Policy.
    pub policy: String,
    /// Target.
    pub target: ClusterId,
    /// Status state and reason.
    pub state: lockstep_engine::status::State,
    /// Reason.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// Largest lag of those in step, milliseconds.
    pub max_lag_ms: Option<i64>,
    /// Oldest `since`.
    pub oldest_since: Millis,
}
