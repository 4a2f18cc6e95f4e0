//! What is there was compared with what was asked for, or is to be (I17).

use super::{Act, DRIFT_REPORTED, Decision, Holds, Input, RecordChange, VERIFYING};
use crate::guard::{self, Guard};
use crate::status::{State, Status};

pub(super) fn verify() -> Decision {
    let message = "lockstep wrote it, and does not know whether it is what is asked for; it is compared, and written where it is not";
    Decision::act(Act::Verify, VERIFYING, message)
}

/// Of an object that is as it was when it was compared.
pub(super) fn as_compared(input: &Input<'_>, holds: Holds<'_>) -> Decision {
    if let Some(by) = input.taken.reported {
        let message = format!("fields of ours were changed, and stay so, as the policy says: {by}");
        return Decision::rest(State::Conflict, DRIFT_REPORTED, message);
    }
    match holds {
        Holds::Differs { differences, again } if guard::on(Guard::ComparedAfterWrite) => {
            let status = Status::new(State::Differs, differences.why().as_str(), differences.sentence());
            let act = if again { Act::Update } else { Act::Rest };
            Decision { status, act, record: RecordChange::Keep }
        }
        Holds::Unknown if guard::on(Guard::ComparedAfterWrite) => verify(),
        Holds::NotCompared => Decision::rest(
            State::Unknown,
            "NotCompared",
            "it was written by an agent that does not compare what is there with what was asked for; upgrade the agent of the target",
        ),
        Holds::AsAsked | Holds::Unknown | Holds::Differs { .. } => {
            Decision::rest(State::InStep, "InStep", "the target holds what the policy asks for")
        }
    }
}
