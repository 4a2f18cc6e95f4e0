//! What nothing asks for any more: it is deleted, let go of, or left as it is.

use super::{Act, Decision, DeleteProgress, Input, Marks, Observed, Owner, TRACKED, owner, tracked};
use crate::status::State;

/// Before a placement ends it is known what its create left: nobody would take it back afterwards (I6).
pub(super) fn decide_unanswered(input: &Input<'_>) -> Decision {
    if let Some(pause) = input.paused {
        return Decision::rest(State::Paused, "Paused", pause);
    }
    if let Observed::Unknown { reason, message } = &input.observed {
        return Decision::rest(State::Unknown, reason, *message);
    }
    let message = "its create was not answered, and nothing asks for it any more; what it left is looked at";
    Decision::act(Act::Retract, "Retracting", message)
}

pub(super) fn decide_left(input: &Input<'_>, reason: &str, why: &str, release: bool) -> Decision {
    let Some(record) = &input.record else {
        return Decision { act: Act::Forget, ..Decision::rest(State::Orphaned, reason, why) };
    };
    let known = match &input.observed {
        Observed::Absent => {
            return Decision {
                act: Act::Forget,
                ..Decision::rest(State::Orphaned, "Gone", "it is gone from the target")
            };
        }
        Observed::Known(known) if release && !record.implicit => known,
        Observed::Known(_) | Observed::Unknown { .. } => {
            return Decision::rest(State::Orphaned, reason, format!("{why}; the object was left as it is"));
        }
    };
    let marked = match owner(input, known) {
        Owner::Recorded => false,
        Owner::Marked => true,
        Owner::Other(..) => {
            let message = "the object there now is not the one lockstep wrote";
            return Decision { act: Act::Forget, ..Decision::rest(State::Orphaned, "Replaced", message) };
        }
    };
    if let Some(pause) = input.paused {
        return Decision::rest(State::Paused, "Paused", format!("{why}; {pause}")).taking_over(marked);
    }
    match input.grace {
        Some(over) => Decision::rest(
            State::Pending,
            "GracePeriod",
            format!("{why}; lockstep lets go of it {over}, unless its source comes back before"),
        ),
        None => Decision::act(
            Act::Release,
            "Releasing",
            format!("{why}; it stays, and lockstep takes its marks off"),
        ),
    }
    .taking_over(marked)
}

/// Whether it is there, and still the one we wrote, the agent sees when it is asked to: nothing is
/// concluded from what is not known.
pub(super) fn decide_release(input: &Input<'_>) -> Decision {
    let forget =
        |message: &str| Decision { act: Act::Forget, ..Decision::rest(State::Orphaned, "Released", message) };
    let Some(record) = &input.record else { return forget("lockstep never wrote it") };
    let marked = match &input.observed {
        Observed::Absent => return forget("it is gone from the target"),
        Observed::Known(known) => match owner(input, known) {
            Owner::Recorded => false,
            Owner::Marked => true,
            Owner::Other(..) => return forget("the object there now is not the one lockstep wrote"),
        },
        Observed::Unknown { reason, message } if record.uid.is_none() => {
            return Decision::rest(State::Unknown, reason, *message);
        }
        Observed::Unknown { .. } => false,
    };
    let message = "a person asked to let go of it: it stays, and lockstep takes its marks off";
    Decision::act(Act::Release, "Releasing", message).taking_over(marked)
}

pub(super) fn decide_gone(input: &Input<'_>, why: &str, takes_others: bool) -> Decision {
    let forget = |reason: &str, message: &str| Decision {
        act: Act::Forget,
        ..Decision::rest(State::InStep, reason, message)
    };
    let Some(record) = &input.record else {
        return forget("NeverWritten", "lockstep never wrote it");
    };
    if record.implicit {
        return Decision::rest(
            State::Orphaned,
            "ImplicitNamespace",
            "the namespace was created in passing; such namespaces are never deleted",
        );
    }
    let known = match &input.observed {
        Observed::Absent => return forget("Deleted", "it is gone from the target"),
        Observed::Unknown { reason, message } => {
            return Decision::rest(State::Unknown, reason, format!("{why}; {message}"));
        }
        Observed::Known(known) => known,
    };
    let marked = match owner(input, known) {
        Owner::Recorded => false,
        Owner::Marked => true,
        Owner::Other(..) => return forget("Replaced", "the object there now is not the one lockstep wrote"),
    };
    if known.deleting {
        return Decision::rest(State::Pending, "TargetTerminating", "it is being deleted at the target")
            .taking_over(marked);
    }
    if let Some(pause) = input.paused {
        return Decision::rest(State::Paused, "Paused", format!("{why}; {pause}")).taking_over(marked);
    }
    if matches!(known.marks, Marks::Genuine { prevent_deletion: true, .. }) {
        return Decision::rest(
            State::Held,
            "DeletionPrevented",
            format!("{why}; the object at the target carries lockstep.dev/prevent-deletion"),
        )
        .taking_over(marked);
    }
    if let Some(tool) = known.tracked {
        let message = format!("{why}; {}", tracked(tool));
        return Decision::rest(State::Conflict, TRACKED, message).taking_over(marked);
    }
    if let (DeleteProgress::Asking, Some(over)) = (input.delete, input.grace) {
        let message = format!("{why}; it is deleted {over}, unless its source comes back before");
        return Decision::rest(State::Pending, "GracePeriod", message).taking_over(marked);
    }
    match input.delete {
        DeleteProgress::Asking if takes_others => Decision::rest(
            State::Held,
            "TakesOthers",
            format!("{why}; deleting it takes other objects with it: `lockstep approve` releases the delete, which then succeeds only if nothing is left inside"),
        ),
        DeleteProgress::Asking => Decision::act(Act::AskToDelete, "Deleting", format!("{why}; it is being deleted")),
        DeleteProgress::Granted => {
            Decision::act(Act::ReadImage, "Archiving", format!("{why}; its last state is being archived"))
        }
        DeleteProgress::Archiving => {
            Decision::rest(State::Pending, "Archiving", format!("{why}; its last state is being archived"))
        }
        DeleteProgress::Archived => {
            Decision::act(Act::Delete, "Deleting", format!("{why}; archived, and being deleted"))
        }
    }
    .taking_over(marked)
}
