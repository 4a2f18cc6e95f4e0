//! What is to be done about one object at one target, and why.
//!
//! [`decide`] is the only place that decides. It is a function of its input: same input, same
//! decision (I8). Absence of knowledge never leads to a write: whatever is [`Observed::Unknown`]
//! ends in a status that says what is not known (I3).

mod compared;
mod ending;

use serde::{Deserialize, Serialize};

use crate::guard::{self, Guard};
use crate::identity::Uid;
use crate::ownership::Differences;
use crate::status::{State, Status};

/// What the hub knows of the object at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed<'a> {
    /// The watch that covers the key is live, and the object is not there.
    Absent,
    /// Nothing can be concluded.
    Unknown {
        /// PascalCase: NotConnected, Listing, WatchFailing, DiscoveryIncomplete.
        reason: &'a str,
        /// One sentence.
        message: &'a str,
    },
    /// It is there.
    Known(Known<'a>),
}

/// An object at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// metadata.uid.
    pub uid: &'a Uid,
    /// Has a deletionTimestamp.
    pub deleting: bool,
    /// Its marks, when it carries our label.
    pub marks: Marks<'a>,
    /// Projection onto our managedFields entry.
    pub owned: OwnedView,
    /// It is in the very state (resourceVersion) that our last write left it in.
    pub as_written: bool,
    /// The GitOps tool or package manager that tracks it, where the policy does not say to ignore that.
    pub tracked: Option<&'a str>,
}

/// What the marks on an object amount to. Marks alone never give authority to delete (I6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks<'a> {
    /// None.
    Absent,
    /// The MAC is ours, and covers this very cluster and key.
    Genuine {
        /// uid of the source object they name.
        source_uid: &'a str,
        /// Digest of the desired body they name.
        rendered: [u8; 32],
        /// `lockstep.dev/prevent-deletion` is set.
        prevent_deletion: bool,
    },
    /// A create of ours met what was there before, and left them.
    Met,
    /// They name another hub.
    ForeignHub,
    /// The MAC is not ours, or they were copied from elsewhere.
    Forged,
}

/// How our managedFields entry relates to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnedView {
    /// Digest of the projection.
    Digest([u8; 16]),
    /// There is no entry of ours.
    NoEntry,
    /// Our entry is in another API version: nothing can be compared.
    OtherVersion,
}

/// What we recorded of our own writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// uid at the target; none while a create has not been answered.
    pub uid: Option<&'a Uid>,
    /// Digest of the desired body of our last write.
    pub rendered: [u8; 32],
    /// Projection of the response to our last write.
    pub owned: Option<[u8; 16]>,
    /// A namespace created in passing.
    pub implicit: bool,
    /// What the comparison after our last write found.
    pub holds: Holds<'a>,
}

/// Does the object hold what our last write asked for? An answer of 200 does not say so (I17).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holds<'a> {
    /// Nobody has compared.
    #[default]
    Unknown,
    /// The agent that wrote does not compare.
    NotCompared,
    /// It does.
    AsAsked,
    /// It does not.
    Differs {
        /// Where.
        differences: &'a Differences,
        /// It may be otherwise by now, or it is time to try once more.
        again: bool,
    },
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish<'a> {
    /// A policy claims the key.
    Present {
        /// uid of the source object.
        source_uid: &'a Uid,
        /// Digest of the desired body.
        desired: [u8; 32],
        /// The source object is being deleted: do not create copies of it now.
        source_deleting: bool,
        /// The desired body could not be rendered, or must not be written.
        obstacle: Option<&'a Status>,
        /// A Job: never created a second time with the same body.
        run_once: bool,
        /// What becomes of an object of this name that is not ours.
        on_conflict: OnConflict,
        /// It is created, and never written again.
        create_only: bool,
    },
    /// Nothing claims it any more, for a reason that asks for its deletion.
    Gone {
        /// Why, in a few words, as in "the source object was deleted".
        why: &'a str,
        /// Deleting it takes others with it (Namespace, CustomResourceDefinition).
        takes_others: bool,
    },
    /// Nothing claims it any more; it stays.
    Left {
        /// PascalCase.
        reason: &'a str,
        /// One sentence.
        why: &'a str,
        /// Our marks go; without it they stay, and so does our record.
        release: bool,
    },
    /// A person asks to let go of it, whatever claims it.
    Release,
    /// The agent of the source cluster does not let the hub read it (I16): nothing can be known of it.
    NotAccepted {
        /// What to add to its configuration.
        message: &'a str,
    },
    /// Whether anything claims it cannot be known now.
    Unknown {
        /// PascalCase.
        reason: &'a str,
        /// One sentence.
        message: &'a str,
    },
}

/// The reason of a status: drift that the policy wants reported, and nothing more.
pub const DRIFT_REPORTED: &str = "DriftReported";

/// The reason of a status: whether it is what is asked for is to be found out.
pub const VERIFYING: &str = "Verifying";
/// The reason of a status: a GitOps tool or a package manager tracks the object.
pub const TRACKED: &str = "Tracked";

/// What becomes of an object that such a tool tracks, whether it is ours or is to become ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnTracked {
    /// It is left alone, and reported.
    #[default]
    Conflict,
    /// The tool does not matter.
    Ignore,
}

/// What becomes of an object that is there already and is not ours. It is settled by policy; objects with
/// marks, of whomever, are never adopted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnConflict {
    /// It is left alone.
    #[default]
    Fail,
    /// It is adopted if it holds everything that is asked for already; else it is left alone.
    AdoptIfEqual,
    /// It is adopted and changed to what is asked for.
    TakeOver,
}

/// How far the delete of a placement has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteProgress {
    /// It asks for leave: the budget decides.
    Asking,
    /// Within the budget or approved.
    Granted,
    /// The image waits for the archive.
    Archiving,
    /// The archive holds the state with this uid and resourceVersion.
    Archived,
}

/// Everything [`decide`] looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input<'a> {
    /// What is asked for.
    pub wish: Wish<'a>,
    /// What we recorded.
    pub record: Option<RecordView<'a>>,
    /// What is there.
    pub observed: Observed<'a>,
    /// Does the target serve the kind? None: discovery cannot tell.
    pub served: Option<bool>,
    /// A pause covers it; the sentence says which.
    pub paused: Option<&'a str>,
    /// Progress of its delete.
    pub delete: DeleteProgress,
    /// Its grace period is not over: when it is, in words.
    pub grace: Option<&'a str>,
    /// Its fields that others took.
    pub taken: Taken<'a>,
    /// A create was sent, and no answer said what became of it: it may have left marks on an object of others.
    pub unanswered: bool,
}

/// Fields of ours that others took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken<'a> {
    /// What our last write left to them and is to be reported: fields, managers, times.
    pub reported: Option<&'a str>,
    /// Some of what our last write left to others is nobody's now.
    pub free: bool,
    /// Who owns now what our last write owned: fields, managers, times.
    pub by: &'a str,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Rest,
    /// Create by apply, expecting that it is absent.
    Create,
    /// Apply onto the object with that uid.
    Update,
    /// Compare the object with that uid with what is asked for, and apply where it differs.
    Verify,
    /// Make an object ours that nobody marked, as [`OnConflict`] says.
    Adopt,
    /// Ask the budget for leave to delete.
    AskToDelete,
    /// Read the image for the archive.
    ReadImage,
    /// Delete exactly the archived state.
    Delete,
    /// Take our marks and entries off the object that we wrote.
    Release,
    /// See what an unanswered create left, and take it back where it met an object of others.
    Retract,
    /// Forget the placement: it is gone, or was never ours.
    Forget,
}

/// What becomes of our record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordChange {
    /// As it is.
    Keep,
    /// The observed object is the one we wrote: take over uid and projection from it.
    TakeOver,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// To be shown.
    pub status: Status,
    /// To be done.
    pub act: Act,
    /// To be recorded.
    pub record: RecordChange,
}

impl Decision {
    fn rest(state: State, reason: &str, message: impl Into<String>) -> Self {
        Self { status: Status::new(state, reason, message), act: Act::Rest, record: RecordChange::Keep }
    }

    fn act(act: Act, reason: &str, message: impl Into<String>) -> Self {
        Self { status: Status::new(State::Pending, reason, message), act, record: RecordChange::Keep }
    }

    fn taking_over(mut self, yes: bool) -> Self {
        if yes {
            self.record = RecordChange::TakeOver;
        }
        self
    }
}

/// Whose is the observed object?
enum Owner {
    /// Ours by the record.
    Recorded,
    /// Ours by genuine marks for this very source: a reply that was lost, or a hub that lost its disk.
    Marked,
    /// Not ours; the reason.
    Other(&'static str, &'static str),
}

/// Decides about one object at one target.
#[must_use]
pub fn decide(input: &Input<'_>) -> Decision {
    let ends = !matches!(input.wish, Wish::Present { .. } | Wish::Unknown { .. } | Wish::NotAccepted { .. });
    // Of a kind that is not served any more nothing is left.
    if ends && input.unanswered && input.served != Some(false) {
        return ending::decide_unanswered(input);
    }
    match &input.wish {
        Wish::Unknown { reason, message } => Decision::rest(State::Unknown, reason, *message),
        Wish::NotAccepted { message } => Decision::rest(State::Blocked, "NotAccepted", *message),
        Wish::Left { reason, why, release } => ending::decide_left(input, reason, why, *release),
        Wish::Release => ending::decide_release(input),
        Wish::Gone { why, takes_others } => ending::decide_gone(input, why, *takes_others),
        Wish::Present { .. } => decide_present(input),
    }
}

fn decide_present(input: &Input<'_>) -> Decision {
    let Wish::Present { desired, source_deleting, obstacle, run_once, .. } = &input.wish else {
        return Decision::rest(State::Unknown, "NotClaimed", "nothing claims it");
    };
    if let Some(pause) = input.paused {
        return Decision::rest(State::Paused, "Paused", pause);
    }
    if let Some(obstacle) = obstacle {
        return Decision { status: (*obstacle).clone(), act: Act::Rest, record: RecordChange::Keep };
    }
    match input.served {
        Some(true) => {}
        Some(false) => {
            return Decision::rest(
                State::Blocked,
                "KindNotServed",
                "the target does not serve this kind; install its definition there, the sync follows by itself",
            );
        }
        None => {
            return Decision::rest(
                State::Unknown,
                "DiscoveryIncomplete",
                "whether the target serves this kind is not known",
            );
        }
    }
    let known = match &input.observed {
        Observed::Unknown { reason, message } => return Decision::rest(State::Unknown, reason, *message),
        Observed::Absent => {
            let ran = *run_once && input.record.as_ref().is_some_and(|r| r.rendered == *desired);
            return if ran {
                Decision::rest(
                    State::InStep,
                    "Collected",
                    "the Job ran and was collected; it is not run again",
                )
            } else if *source_deleting {
                Decision::rest(State::Pending, "SourceTerminating", "the source object is being deleted")
            } else {
                Decision::act(Act::Create, "Creating", "it is being created")
            };
        }
        Observed::Known(known) => known,
    };
    decide_known(input, known, *desired)
}

fn decide_known(input: &Input<'_>, known: &Known<'_>, desired: [u8; 32]) -> Decision {
    let Wish::Present { on_conflict, create_only, .. } = input.wish else {
        return Decision::rest(State::Unknown, "NotClaimed", "nothing claims it");
    };
    let marked = match owner(input, known) {
        // Marks say that somebody else manages it, or that nobody can tell; only what has none is adopted.
        Owner::Other(..)
            if on_conflict != OnConflict::Fail && known.marks == Marks::Absent && !known.deleting =>
        {
            return Decision::act(
                Act::Adopt,
                "Adopting",
                "an object of this name exists; it is being adopted",
            );
        }
        Owner::Other(reason, message) => return Decision::rest(State::Conflict, reason, message),
        Owner::Recorded => false,
        Owner::Marked => true,
    };
    if known.deleting {
        return Decision::rest(
            State::Pending,
            "TargetTerminating",
            "the object at the target is being deleted; it is created again when it is gone",
        )
        .taking_over(marked);
    }
    if let Some(tool) = known.tracked {
        return Decision::rest(State::Conflict, TRACKED, tracked(tool)).taking_over(marked);
    }
    if create_only {
        let message = "it was created, and is the target's own since then, as the policy says";
        return Decision::rest(State::InStep, "CreateOnly", message).taking_over(marked);
    }
    let (rendered, owned, holds) = match (&input.record, known.marks) {
        (Some(record), _) if !marked => (Some(record.rendered), record.owned, record.holds),
        // The record's uid is void (a restore), but it is of this very write: drift since then shows.
        (Some(record), Marks::Genuine { rendered, .. }) if record.rendered == rendered => {
            (Some(rendered), record.owned, record.holds)
        }
        (_, Marks::Genuine { rendered, .. }) => (Some(rendered), None, Holds::Unknown),
        _ => (None, None, Holds::Unknown),
    };
    if rendered != Some(desired) || !guard::on(Guard::DesiredDigest) {
        return Decision::act(Act::Update, "Updating", "it is being updated").taking_over(marked);
    }
    if input.taken.free {
        let message = "fields that others held are free again; they are being written";
        return Decision::act(Act::Update, "Returned", message).taking_over(marked);
    }
    let same = match (owned, known.owned) {
        (Some(recorded), OwnedView::Digest(seen)) => recorded == seen && guard::on(Guard::OwnedProjection),
        _ => false,
    };
    // Nobody wrote since: whatever the projection looks like, it is as it was compared.
    if same || known.as_written {
        return compared::as_compared(input, holds).taking_over(marked);
    }
    match (owned, known.owned) {
        // Recognised by its marks: that body was written, and nobody knows what has become of it since.
        (None, OwnedView::Digest(_)) => compared::verify().taking_over(true),
        // Our entry is in another API version than the watch: the projection tells nothing, which is not drift.
        (_, OwnedView::OtherVersion) => compared::verify().taking_over(marked),
        _ => Decision::act(
            Act::Update,
            "Drifted",
            format!("fields we own were changed at the target; they are set back: {}", input.taken.by),
        )
        .taking_over(marked),
    }
}

fn tracked(tool: &str) -> String {
    format!(
        "{tool} tracks the copy at the target, and lockstep leaves it alone: take it out of the tool's sources, or out of the policy"
    )
}

fn owner(input: &Input<'_>, known: &Known<'_>) -> Owner {
    if let Some(uid) = input.record.as_ref().and_then(|record| record.uid) {
        if uid == known.uid || !guard::on(Guard::RecordUid) {
            return Owner::Recorded;
        }
        return Owner::Other(
            "Replaced",
            "the object that lockstep wrote was replaced by another of the same name, which it does not touch",
        );
    }
    match (known.marks, &input.wish) {
        (Marks::Genuine { source_uid, .. }, Wish::Present { source_uid: wanted, .. })
            if source_uid == wanted.as_str() =>
        {
            Owner::Marked
        }
        (Marks::Genuine { .. }, _) if input.record.is_some() || !guard::on(Guard::MarksOfOtherSource) => {
            Owner::Marked
        }
        (Marks::Forged, _) if !guard::on(Guard::ForgedMarks) => Owner::Marked,
        (Marks::Absent, _) if !guard::on(Guard::NoMarks) => Owner::Marked,
        (Marks::Genuine { .. }, _) => Owner::Other(
            "OtherSource",
            "the object carries marks of another source object, and the hub has no record of it",
        ),
        (Marks::Met, _) => Owner::Other(
            "Met",
            "it was there before lockstep, and a create met it that was cut off; what that wrote is being taken back",
        ),
        (Marks::ForeignHub, _) => Owner::Other("ForeignHub", "the object is managed by another lockstep hub"),
        (Marks::Forged, _) => Owner::Other(
            "ForgedMarks",
            "the object carries marks of lockstep that lockstep did not write there; it is not touched",
        ),
        (Marks::Absent, _) => Owner::Other(
            "Exists",
            "an object of this name exists that lockstep does not own; it is not touched",
        ),
    }
}

#[cfg(test)]
mod tests;
