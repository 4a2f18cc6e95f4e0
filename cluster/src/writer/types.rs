//! What a writer is asked, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lockstep_engine::catalogue::Tracker;
use lockstep_engine::outcome::Failure;
use lockstep_engine::ownership::{
    Compared, ConflictCause, FieldSet, Leave, Left, ManagerPattern, ManagerSummary, OwnedState,
};
use lockstep_engine::{ResourceVersion, Uid};

use crate::resource::Resource;

/// What we expect to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: this is a create. Apply has no create-only, so a recorded nonce travels as the
    /// annotation lockstep.dev/intent.
    Absent {
        /// Of the intent; recorded before the call.
        nonce: String,
        /// Something may be there: this nonce was sent before, with an answer that never came, or nobody knows.
        look_first: bool,
    },
    /// This object.
    Present {
        /// Its uid; always sent.
        uid: Uid,
        /// Its version, where the write depends on it; else any.
        resource_version: Option<ResourceVersion>,
        /// Nothing is written where it is what is asked for already, and ours.
        unless_equal: bool,
    },
    /// This object, which is not ours and becomes ours.
    Foreign {
        /// Its uid; always sent.
        uid: Uid,
        /// Only if it holds every value of the body already.
        only_if_equal: bool,
        /// Field managers that the policy declares to be retired.
        retired: Vec<ManagerPattern>,
        /// Also if a GitOps tool or a package manager tracks it.
        tracked_too: bool,
    },
}

/// What our last apply to an object owned after it: only that is ever forced.
#[derive(Debug, Clone, Default)]
pub enum LastApplied {
    /// Nobody knows: nothing is forced.
    #[default]
    Unknown,
    /// These fields ([`Applied::fields`]).
    Fields(FieldSet),
    /// It was this very body, so whatever it conflicts with was ours.
    ThisBody,
}

/// One server-side apply.
#[derive(Debug, Clone)]
pub struct ApplyPlan {
    /// Kind and version; the version of the body.
    pub resource: Resource,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// The desired object as JSON, marks included; without uid, resourceVersion, managedFields.
    pub body: Bytes,
    /// What we expect to find.
    pub expect: Expect,
    /// Decides whether a conflict may be overridden.
    pub last_applied: LastApplied,
    /// What earlier writes of ours owned: what of it the source removed must not be there any more.
    pub was_ours: FieldSet,
    /// Paths that were ours, were left to others and are asked for again; they may be forced, too.
    pub reclaim: Vec<String>,
    /// Which fields of the body are not ours to write.
    pub leave: Leave,
    /// Create the namespace if it is missing.
    pub ensure_namespace: bool,
    /// Labels of a namespace that is created.
    pub namespace_labels: BTreeMap<String, String>,
    /// Ask what would happen only.
    pub dry_run: bool,
}

/// A successful apply.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Of the object.
    pub uid: Uid,
    /// After the apply; the same as before when nothing changed.
    pub resource_version: ResourceVersion,
    /// Digest of what we own in the answer: later observations are compared with it.
    pub owned: OwnedState,
    /// FieldsV1 of our managedFields entry, as the server sent it.
    pub fields: Option<Bytes>,
    /// Did this intent create the object (now, or in a call whose answer was lost)?
    pub created: bool,
    /// Were conflicts overridden?
    pub forced: bool,
    /// Fields that others took, and that were left to them.
    pub left: Vec<Left>,
    /// The object as the server answered it.
    pub body: Bytes,
    /// The body that was applied: what was asked for, without what is left to others.
    pub sent: Bytes,
    /// That answer against what was asked for (I17).
    pub compared: Compared,
}

/// Whether a merge into a foreign object was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// Nothing was written.
    NotNeeded,
    /// Taken back.
    Done,
    /// Not taken back: our fields are still in an object that is not ours.
    Failed(Failure),
}

/// Whose object or fields are in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Field managers, sorted, each once.
    pub managers: Vec<String>,
    /// Conflicting fields; empty when the whole object is foreign.
    pub causes: Vec<ConflictCause>,
    /// What the others own, where an answer showed it.
    pub owners: Vec<ManagerSummary>,
    /// The GitOps tool or package manager that tracks the object, where an answer showed it.
    pub tracker: Option<Tracker>,
    /// Uid of the foreign object, where known.
    pub uid: Option<Uid>,
    /// Its resourceVersion as this call left it, where known: what is older may show what was taken back.
    pub version: Option<ResourceVersion>,
    /// What became of the merge.
    pub undo: Undo,
}

/// What came of an apply.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The object is as desired.
    Applied(Box<Applied>),
    /// Somebody else's object or fields are in the way; nothing was overridden.
    Conflict(Box<Foreign>),
    /// The namespace is not there (and was not to be created).
    NamespaceMissing,
    /// Anything else.
    Failed(Failure),
}

/// What came of an apply, and what it created beside the object.
#[derive(Debug, Clone)]
pub struct ApplyReport {
    /// Of the object.
    pub outcome: Outcome,
    /// Uid of the namespace, if this call created it; also when the apply then failed.
    pub created_namespace: Option<Uid>,
}

/// One object as read.
#[derive(Debug, Clone)]
pub struct Live {
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.resourceVersion`.
    pub resource_version: ResourceVersion,
    /// The annotation lockstep.dev/intent.
    pub nonce: Option<String>,
    /// The object as the server sent it.
    pub body: Bytes,
}

/// One delete. Its tombstone must be durable before (I4).
#[derive(Debug, Clone)]
pub struct DeletePlan {
    /// Kind and version.
    pub resource: Resource,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Of the archived state.
    pub uid: Uid,
    /// Of the archived state.
    pub resource_version: ResourceVersion,
}

/// What came of a delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// Accepted.
    Done {
        /// Do finalizers hold the object for now?
        finalizing: bool,
    },
    /// It was not there.
    Gone,
    /// It is another object or in another state: read, check, archive again.
    Stale,
    /// Anything else.
    Failed(Failure),
}

/// Give an object up without changing what it does.
#[derive(Debug, Clone)]
pub struct ReleasePlan {
    /// Kind and version.
    pub resource: Resource,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// The object that we mean.
    pub uid: Uid,
}

/// What came of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// Our marks and managedFields entries are gone.
    Done {
        /// After the release.
        resource_version: ResourceVersion,
    },
    /// It is not there, or another object has its name.
    Gone,
    /// It changed meanwhile: try again.
    Stale,
    /// Anything else.
    Failed(Failure),
}
