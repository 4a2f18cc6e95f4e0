//! What each class of failure means: for status, for people, and for the next attempt. One row per class.

use super::FailureClass;
use crate::status::State;

/// A refusal by RBAC, admission or quota: somebody may change that, and no watch reports it.
const FORBIDDEN_RETRY_MS: i64 = 60_000;
/// A write that was refused for good is tried again that seldom although none of its inputs changed: what it failed for
/// may be fixed where no watch reports it (a port in use, a webhook).
const BARRED_RETRY_MS: i64 = 15 * 60_000;

/// What a step that failed was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Create or update a copy, or adopt what is there.
    Write {
        /// It was to adopt an object that is not ours.
        adopts: bool,
    },
    /// Delete a copy, in any of its stages.
    Delete,
    /// Anything else: release, retract, read.
    Other,
}

/// When a step that failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Once the object was observed again.
    Observed,
    /// After that many milliseconds, whatever changes.
    After(i64),
    /// The same inputs fail the same way: as soon as one of them changes, and otherwise as `again` says.
    Barred {
        /// When it is tried again although no input changed.
        again: Again,
    },
    /// With growing pauses.
    Backoff,
}

/// When a write is tried again although none of its inputs changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Not: a watch reports whatever could help.
    Never,
    /// After that many milliseconds.
    After(i64),
    /// With growing pauses.
    Backoff,
}

/// What a class of failure means, and what a person can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What it means: one sentence without a full stop.
    pub means: &'static str,
    /// What a person can do.
    pub remedy: &'static str,
}

impl FailureClass {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Conflict,
        Self::Immutable,
        Self::Forbidden,
        Self::Invalid,
        Self::SchemaMismatch,
        Self::DuplicateKeys,
        Self::NotServed,
        Self::TooLarge,
        Self::NotAccepted,
        Self::NamespaceMissing,
        Self::NamespaceTerminating,
        Self::Stale,
        Self::Gone,
        Self::AlreadyExists,
        Self::Throttled { retry_after_ms: 0 },
        Self::Unreachable,
        Self::Timeout,
        Self::Transient,
    ];

    /// The class with this code. None: a newer agent knows one that we do not.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.code() == code)
    }

    /// The state of a placement whose step failed so.
    #[must_use]
    pub fn state(self) -> State {
        match self {
            Self::Conflict => State::Conflict,
            Self::NotServed
            | Self::NotAccepted
            | Self::SchemaMismatch
            | Self::NamespaceTerminating
            | Self::Immutable => State::Blocked,
            Self::Stale | Self::Gone => State::Pending,
            Self::Forbidden
            | Self::Invalid
            | Self::DuplicateKeys
            | Self::TooLarge
            | Self::NamespaceMissing
            | Self::AlreadyExists
            | Self::Throttled { .. }
            | Self::Unreachable
            | Self::Timeout
            | Self::Transient => State::Failed,
        }
    }

    /// When a step that failed so is tried again.
    #[must_use]
    pub fn retry(self, attempt: Attempt) -> Retry {
        match (self, attempt) {
            (Self::Stale | Self::Gone, _) => Retry::Observed,
            (Self::Forbidden, Attempt::Write { .. }) => {
                Retry::Barred { again: Again::After(FORBIDDEN_RETRY_MS) }
            }
            (Self::Forbidden, _) => Retry::After(FORBIDDEN_RETRY_MS),
            // Of an object that is not ours the agent reports only that it is there, and not how it changes.
            (Self::Conflict, Attempt::Write { adopts: false }) => Retry::Barred { again: Again::Never },
            (Self::NamespaceMissing | Self::NamespaceTerminating, Attempt::Write { .. }) => {
                Retry::Barred { again: Again::Backoff }
            }
            (
                Self::Conflict
                | Self::Immutable
                | Self::Invalid
                | Self::SchemaMismatch
                | Self::DuplicateKeys
                | Self::NotServed
                | Self::TooLarge
                | Self::NotAccepted,
                Attempt::Write { .. },
            ) => Retry::Barred { again: Again::After(BARRED_RETRY_MS) },
            _ => Retry::Backoff,
        }
    }

    /// May another schema at the target help?
    #[must_use]
    pub fn is_of_schema(self) -> bool {
        matches!(self, Self::Invalid | Self::SchemaMismatch | Self::NotServed)
    }

    /// What it means, and what a person can do.
    #[must_use]
    pub fn advice(self) -> Advice {
        let (means, remedy) = match self {
            Self::Conflict => (
                "an object that is not ours, or a field that another manager owns, is in the way",
                "delete or rename the object at the target, give the field away in the policy, or adopt it (`ownership.conflict`)",
            ),
            Self::Immutable => (
                "a field is to change that the API server never lets change",
                "set `ownership.onImmutable: Recreate` in the policy, or delete the copy at the target; or undo the change at the source",
            ),
            Self::Forbidden => (
                "RBAC, an admission webhook or a quota of the target refuses it",
                "read who refuses it in the message; grant the agent the right, raise the quota, or change the source",
            ),
            Self::Invalid => (
                "the target's API server considers the object invalid",
                "fix the field that the message names at the source, or update the definition or version of the target",
            ),
            Self::SchemaMismatch => (
                "the target's schema does not know a field of the object",
                "update the target's definition or Kubernetes version, or remove the field at the source",
            ),
            Self::DuplicateKeys => (
                "a list holds two items with one key, which an API server stores but never applies",
                "remove the duplicate at the source",
            ),
            Self::NotServed => (
                "the target does not serve the kind, or not in this version",
                "install the definition at the target, or write the source in a version that both serve",
            ),
            Self::TooLarge => (
                "the object is larger than the target takes, its managedFields included",
                "make the object smaller at the source, or leave it out of the policy",
            ),
            Self::NotAccepted => (
                "the agent's own accept list does not allow it",
                "add the kind or namespace to `accept` in the agent's configuration and restart it, or leave it out of the policy",
            ),
            Self::NamespaceMissing => (
                "its namespace does not exist at the target, and the agent may not create it",
                "create the namespace at the target, or let the agent create namespaces",
            ),
            Self::NamespaceTerminating => (
                "its namespace is being deleted at the target",
                "wait; if it lasts, look at what holds it: `kubectl get namespace NAME -o yaml` names it under status",
            ),
            Self::Stale | Self::Gone => (
                "the object changed or went meanwhile; it is observed again first",
                "nothing: it is tried again at once",
            ),
            Self::AlreadyExists => {
                ("an object of this name appeared meanwhile", "nothing: it is observed and tried again")
            }
            Self::Throttled { .. } => (
                "the API server asks for patience",
                "nothing, if it passes; else look at the load and the flow control of the target's API server",
            ),
            Self::Unreachable => (
                "the target's API server cannot be reached",
                "look at the target's API server and at the network between it and its agent",
            ),
            Self::Timeout => (
                "the target's API server, or a webhook that it asks, does not answer in time",
                "look at the target's API server and its admission webhooks",
            ),
            Self::Transient => (
                "the target's API server, or a webhook that it asks, has a passing problem",
                "nothing, if it passes; else read the message, and look at the target's API server and webhooks",
            ),
        };
        Advice { means, remedy }
    }

    /// When a write that failed so is tried again, in words.
    #[must_use]
    pub fn tried_again(self) -> &'static str {
        match self.retry(Attempt::Write { adopts: true }) {
            Retry::Observed => "after 0.5 s, when the object was observed again",
            Retry::Barred { again: Again::After(FORBIDDEN_RETRY_MS) } => {
                "when an input changes, and every minute"
            }
            Retry::Barred { again: Again::Backoff } => {
                "when an input changes, and after 1 s, doubling to 5 min"
            }
            Retry::Barred { .. } => "when an input changes, and every 15 min",
            Retry::After(_) | Retry::Backoff => "1 s, doubling to 5 min, not before a Retry-After",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_back_and_unknown_ones_are_none() {
        for class in FailureClass::ALL {
            assert_eq!(FailureClass::from_code(class.code()), Some(class));
        }
        assert_eq!(FailureClass::from_code("OfTheYear2030"), None);
        let throttled = FailureClass::Throttled { retry_after_ms: 7 };
        assert_eq!(
            FailureClass::from_code(throttled.code()),
            Some(FailureClass::Throttled { retry_after_ms: 0 })
        );
    }

    #[test]
    fn what_is_permanent_is_barred_and_everything_else_is_tried_again_by_itself() {
        for class in FailureClass::ALL {
            let barred = matches!(class.retry(Attempt::Write { adopts: true }), Retry::Barred { .. });
            let waits = matches!(class, FailureClass::NamespaceMissing | FailureClass::NamespaceTerminating);
            assert_eq!(barred, class.is_permanent() || waits, "{class}");
            for attempt in [Attempt::Delete, Attempt::Other] {
                assert!(!matches!(class.retry(attempt), Retry::Barred { .. }), "{class}");
            }
        }
        let write = |adopts| Attempt::Write { adopts };
        assert_eq!(FailureClass::Conflict.retry(write(false)), Retry::Barred { again: Again::Never });
        assert_eq!(FailureClass::Conflict.retry(write(true)), Retry::Barred { again: Again::After(900_000) });
        assert_eq!(FailureClass::Conflict.retry(Attempt::Delete), Retry::Backoff);
        assert_eq!(FailureClass::Forbidden.retry(Attempt::Other), Retry::After(60_000));
        assert_eq!(FailureClass::Stale.retry(Attempt::Delete), Retry::Observed);
        let terminating = FailureClass::NamespaceTerminating.retry(write(false));
        assert_eq!(terminating, Retry::Barred { again: Again::Backoff });
    }
}
