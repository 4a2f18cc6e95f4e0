//! Hub and agents of different releases.

use lockstep_wire::{PROTOCOL, Protocols};

/// Which side speaks a version of the protocol more than the other: an upgrade of a fleet is never done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builds {
    Same,
    HubNewer,
    AgentsNewer,
}

impl Builds {
    pub(crate) fn of(seed: u64) -> Self {
        match seed % 6 {
            1 => Self::HubNewer,
            4 => Self::AgentsNewer,
            _ => Self::Same,
        }
    }

    /// What the hub speaks.
    pub(crate) fn hub(self) -> Protocols {
        if self == Self::HubNewer { Self::next() } else { Protocols::BUILT_IN }
    }

    /// What the agents speak.
    pub(crate) fn agents(self) -> Protocols {
        if self == Self::AgentsNewer { Self::next() } else { Protocols::BUILT_IN }
    }

    fn next() -> Protocols {
        Protocols { oldest: PROTOCOL, newest: PROTOCOL + 1 }
    }
}
