//! What lockstep says about one object at one target.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a placement (one object at one target) stands. Ordinals are stored: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    /// The target holds what the policy asks for.
    InStep,
    /// Work is under way or queued.
    Pending,
    /// A delete waits for approval.
    Held,
    /// Something that is not ours is in the way.
    Conflict,
    /// A write failed; see the reason for whether it will be tried again.
    Failed,
    /// It cannot be carried out as things are (kind not served, not accepted, ...).
    Blocked,
    /// Not enough is known to act.
    Unknown,
    /// Policy, cluster or everything is paused.
    Paused,
    /// No policy asks for it any more; the object was left where it is.
    Orphaned,
    /// It was written, and the target does not hold what was asked for.
    Differs,
}

impl State {
    /// All of them, in the order of their stored ordinals.
    pub const ALL: [Self; 10] = [
        Self::InStep,
        Self::Pending,
        Self::Held,
        Self::Conflict,
        Self::Failed,
        Self::Blocked,
        Self::Unknown,
        Self::Paused,
        Self::Orphaned,
        Self::Differs,
    ];

    /// The stored ordinal.
    #[must_use]
    pub fn ordinal(self) -> u8 {
        self as u8
    }

    /// The state of a stored ordinal.
    #[must_use]
    pub fn from_ordinal(ordinal: u8) -> Option<Self> {
        Self::ALL.get(usize::from(ordinal)).copied()
    }

    /// The name people see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InStep => "InStep",
            Self::Pending => "Pending",
            Self::Held => "Held",
            Self::Conflict => "Conflict",
            Self::Failed => "Failed",
            Self::Blocked => "Blocked",
            Self::Unknown => "Unknown",
            Self::Paused => "Paused",
            Self::Orphaned => "Orphaned",
            Self::Differs => "Differs",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// State, a PascalCase reason for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where it stands.
    pub state: State,
    /// PascalCase, stable.
    pub reason: String,
    /// One sentence; never a value out of a Secret.
    pub message: String,
}

impl Status {
    /// A status out of its parts.
    #[must_use]
    pub fn new(state: State, reason: &str, message: impl Into<String>) -> Self {
        Self { state, reason: reason.to_owned(), message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_pinned() {
        for (n, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(state.ordinal()), n);
            assert_eq!(State::from_ordinal(state.ordinal()), Some(state));
        }
        assert_eq!(State::InStep.ordinal(), 0);
        assert_eq!((State::Orphaned.ordinal(), State::Differs.ordinal()), (8, 9));
    }
}
