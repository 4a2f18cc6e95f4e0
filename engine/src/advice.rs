//! What a person can do about a status: one table for `explain`, `status`, `get` and docs/reference/status.md.

use crate::outcome::FailureClass;
use crate::status::{State, Status};

/// A reason that a person can do something about. `{policy}` and `{target}` stand for names.
struct Row {
    state: State,
    /// Empty: every other reason of that state.
    reason: &'static str,
    remedy: &'static str,
}

const fn row(state: State, reason: &'static str, remedy: &'static str) -> Row {
    Row { state, reason, remedy }
}

const APPROVE: &str = "lockstep approve {policy} --target {target}";

/// The first row that fits counts.
const REMEDIES: &[Row] = &[
    row(
        State::Held,
        "ContainerDeleted",
        "bring its namespace or definition back at the source, and the copy follows again; or delete it here with `lockstep approve {policy} --target {target}`",
    ),
    row(
        State::Held,
        "SourceMissing",
        "bring it back at the source, and the copy follows again; or delete it here with `lockstep approve {policy} --target {target}`",
    ),
    row(
        State::Held,
        "Recovered",
        "bring it back at the source, and the copy follows again; or delete it here with `lockstep approve {policy} --target {target}`",
    ),
    row(
        State::Held,
        "SourceRewound",
        "bring it back at the source; or delete it here with `lockstep approve {policy} --target {target}`; or `lockstep clusters accept-rewind CLUSTER` for all that the source lost",
    ),
    row(
        State::Held,
        "TakesOthers",
        "bring it back at the source; or remove what is inside at {target}, then `lockstep approve {policy} --target {target}`",
    ),
    row(
        State::Held,
        "DeletionPrevented",
        "take the annotation lockstep.dev/prevent-deletion off the object at {target}, or keep it",
    ),
    row(State::Held, "", APPROVE),
    row(State::Paused, "", "lockstep resume POLICY, --cluster CLUSTER or --all"),
    row(
        State::Conflict,
        "DriftReported",
        "change it back, give the field away in the policy, or `drift: Correct`",
    ),
    row(
        State::Conflict,
        "Contested",
        "remove the field on one side: from the other manager's object, or from the policy",
    ),
    row(
        State::Conflict,
        "Differs",
        "make the object at {target} equal, or set `ownership.conflict: TakeOver` in the policy",
    ),
    row(
        State::Conflict,
        "ForeignHub",
        "let one hub manage it: take it out of a policy of this hub or of the other",
    ),
    row(
        State::Conflict,
        "ForgedMarks",
        "take the label and the annotations lockstep.dev/ off the object at {target}, or delete it there",
    ),
    row(
        State::Conflict,
        "Met",
        "wait; if it stays, take the label and the annotations lockstep.dev/ off the object at {target}, or delete it there",
    ),
    row(State::Conflict, "OtherSource", "delete the object at {target}, or leave it out of the policy"),
    row(
        State::Conflict,
        "",
        "delete or rename the object at {target}, leave it out of the policy, or have it adopted (`ownership.conflict`)",
    ),
    row(
        State::Differs,
        "HeldByOthers",
        "let the managers that the message names give the fields up at {target}, or give the fields away in the policy (`ownership.ignoreDifferences`)",
    ),
    row(
        State::Differs,
        "",
        "find the webhook or the schema at {target} that changes the fields, or give them away in the policy (`ownership.ignoreDifferences`)",
    ),
    row(
        State::Blocked,
        "KindNotServed",
        "install the definition of the kind at {target}; the sync follows by itself",
    ),
    row(
        State::Blocked,
        "VersionNotServed",
        "write the source in a version that both clusters serve, or update the definition at {target}",
    ),
    row(
        State::Blocked,
        "DefinitionTerminating",
        "wait; if it lasts, look at the finalizers of the definition and of its objects at {target}",
    ),
    row(State::Blocked, "SourceIsTarget", "take {target} out of the policy's targetClusters"),
    row(
        State::Failed,
        "RenderFailed",
        "fix at the source what the message names, or leave the object out of the policy",
    ),
    row(State::Unknown, "SourceNotConnected", "start the source's agent, or give the policy another source"),
    row(State::Unknown, "", "lockstep clusters {target}"),
];

/// Reasons that the table names, with their states, for a check of the documentation.
pub fn reasons() -> impl Iterator<Item = (State, &'static str)> {
    REMEDIES.iter().filter(|row| !row.reason.is_empty()).map(|row| (row.state, row.reason))
}

/// The class of the failure that a status is about, if it is about one.
#[must_use]
pub fn class_of(state: State, reason: &str) -> Option<FailureClass> {
    FailureClass::from_code(reason).filter(|class| class.state() == state)
}

/// What a person can do about a state for this reason, with the names filled in. None where there is nothing to do.
#[must_use]
pub fn remedy(state: State, reason: &str, policy: &str, target: &str) -> Option<String> {
    if let Some(class) = class_of(state, reason) {
        return (state != State::Pending).then(|| class.advice().remedy.to_owned());
    }
    let row =
        REMEDIES.iter().find(|row| row.state == state && (row.reason == reason || row.reason.is_empty()))?;
    Some(row.remedy.replace("{policy}", policy).replace("{target}", target))
}

/// What the class of a failed write means; None where the status is about something else.
#[must_use]
pub fn meaning(status: &Status) -> Option<&'static str> {
    class_of(status.state, &status.reason).map(|class| class.advice().means)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_that_waits_for_a_person_has_a_remedy_with_the_names_filled_in() {
        for state in State::ALL {
            let waits = !matches!(state, State::InStep | State::Pending | State::Orphaned);
            let known = remedy(state, "OfTheYear2030", "shop", "cluster-b");
            let by_reason = matches!(state, State::Failed | State::Blocked);
            assert_eq!(known.is_some(), waits && !by_reason, "{state}");
        }
        for (state, reason) in reasons() {
            let text = remedy(state, reason, "shop", "cluster-b").unwrap_or_default();
            assert!(!text.is_empty() && !text.contains('{'), "{state} {reason}: {text}");
        }
        let held = remedy(State::Held, "ContainerDeleted", "shop", "cluster-b").unwrap_or_default();
        assert!(held.contains("`lockstep approve shop --target cluster-b`"), "{held}");
    }

    #[test]
    fn every_class_of_failure_has_a_meaning_and_a_remedy() {
        for class in FailureClass::ALL {
            let status = Status::new(class.state(), class.code(), "what the server said");
            assert_eq!(meaning(&status), Some(class.advice().means));
            let remedy = remedy(status.state, &status.reason, "p", "t");
            assert_eq!(remedy.is_some(), class.state() != State::Pending, "{class}");
        }
        // `Conflict` is a class; `Exists` is what the planner sees.
        assert_eq!(meaning(&Status::new(State::Conflict, "Exists", "")), None);
    }
}
