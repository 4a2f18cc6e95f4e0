//! What an agent takes from its surroundings beside bytes: the time, randomness, and which build it is.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use lockstep_engine::Millis;
use lockstep_engine::clock::Clock;
use lockstep_wire::Protocols;

use crate::retry::Retry;

/// The time, randomness, and versions of the protocol. Cheap to clone.
#[derive(Clone)]
pub struct Ambient {
    /// The wall clock.
    pub clock: Clock,
    /// Random numbers, for jitter and for the name of a process's session: not for secrets.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Versions of the session protocol that are spoken.
    pub protocols: Protocols,
}

impl Ambient {
    /// The system's.
    #[must_use]
    pub fn system() -> Self {
        let now = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
        };
        // The randomness that seeds the standard library's maps.
        let random = || RandomState::new().build_hasher().finish();
        Self { clock: Clock::new(now), random: Arc::new(random), protocols: Protocols::BUILT_IN }
    }

    pub(crate) fn seed(&self) -> u64 {
        (self.random)()
    }

    /// A name for this process's session.
    pub(crate) fn instance(&self) -> String {
        format!("{:016x}{:016x}", self.seed(), self.seed())
    }

    pub(crate) fn retry(&self) -> Retry {
        Retry::new(self.seed())
    }
}

impl std::fmt::Debug for Ambient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ambient").field("clock", &self.clock).finish_non_exhaustive()
    }
}
