//! Signs of life of the core: when it last took a turn, and whether the store takes what it commits.
//!
//! Probes read them from another thread, so a core that hangs is noticed although nothing else does.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use lockstep_engine::Millis;
use tokio::time::Instant;

/// A core that takes no turn for this long hangs: the process is to be restarted. The longest transaction that was ever
/// seen took less.
const DEAD: Duration = Duration::from_secs(60);
/// One that takes no turn for this long serves nobody now.
const SLOW: Duration = Duration::from_secs(10);

/// Shared by the core's owner, which writes it, and the port for probes.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    begun: Instant,
    /// Of the last turn, ms since `begun`.
    turn: AtomicU64,
    /// Of the first commit that failed since one succeeded, ms since `begun` and 1; 0: none.
    refused: AtomicU64,
    /// Of the last commit, ms since the epoch; 0: none yet.
    committed: AtomicI64,
}

impl Default for Pulse {
    fn default() -> Self {
        let zero = AtomicU64::new(0);
        Self(Arc::new(Inner {
            begun: Instant::now(),
            turn: zero,
            refused: AtomicU64::new(0),
            committed: AtomicI64::new(0),
        }))
    }
}

impl Pulse {
    fn elapsed(&self) -> u64 {
        u64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The core takes a turn.
    pub(crate) fn turned(&self) {
        self.turned_at(self.elapsed());
    }

    fn turned_at(&self, elapsed: u64) {
        self.0.turn.store(elapsed, Ordering::Release);
    }

    /// The store took what was committed.
    pub(crate) fn committed(&self, at: Millis) {
        self.0.refused.store(0, Ordering::Release);
        self.0.committed.store(at, Ordering::Release);
    }

    /// The store did not take it.
    pub(crate) fn refused(&self) {
        self.refused_at(self.elapsed());
    }

    fn refused_at(&self, elapsed: u64) {
        // An error says that an earlier one is noted, which is the one that counts.
        let _ = self.0.refused.compare_exchange(0, elapsed + 1, Ordering::AcqRel, Ordering::Acquire);
    }

    /// When the store last took something, ms since the epoch; 0: not yet.
    pub(crate) fn last_commit(&self) -> Millis {
        self.0.committed.load(Ordering::Acquire)
    }

    fn since_turn(&self, elapsed: u64) -> Duration {
        Duration::from_millis(elapsed.saturating_sub(self.0.turn.load(Ordering::Acquire)))
    }

    /// Is it of any use to go on?
    ///
    /// # Errors
    /// Says for how long the core has not moved.
    pub(crate) fn alive(&self) -> Result<(), String> {
        self.alive_at(self.elapsed())
    }

    fn alive_at(&self, elapsed: u64) -> Result<(), String> {
        within(self.since_turn(elapsed), DEAD)
    }

    /// Can it serve now?
    ///
    /// # Errors
    /// Says what the core cannot do, and since when.
    pub(crate) fn serving(&self) -> Result<(), String> {
        self.serving_at(self.elapsed())
    }

    fn serving_at(&self, elapsed: u64) -> Result<(), String> {
        within(self.since_turn(elapsed), SLOW)?;
        match self.0.refused.load(Ordering::Acquire) {
            0 => Ok(()),
            since => {
                let seconds = (elapsed + 1).saturating_sub(since) / 1_000;
                Err(format!("the state store has taken no commit for {seconds} s: see the hub's log"))
            }
        }
    }
}

fn within(since: Duration, limit: Duration) -> Result<(), String> {
    if since < limit {
        return Ok(());
    }
    Err(format!("the core has not moved for {} s", since.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_hangs_is_slow_and_then_dead() {
        let pulse = Pulse::default();
        pulse.turned_at(5_000);
        for (elapsed, alive, serving) in [(14_999, true, true), (15_000, true, false), (65_000, false, false)]
        {
            assert_eq!(pulse.alive_at(elapsed).is_ok(), alive, "{elapsed}");
            assert_eq!(pulse.serving_at(elapsed).is_ok(), serving, "{elapsed}");
        }
        assert_eq!(pulse.alive_at(65_000).unwrap_err(), "the core has not moved for 60 s");
        pulse.turned_at(65_000);
        assert_eq!((pulse.alive_at(65_001), pulse.serving_at(65_001)), (Ok(()), Ok(())));
    }

    #[test]
    fn commits_that_fail_are_reported_until_one_succeeds() {
        let pulse = Pulse::default();
        pulse.refused_at(1_000);
        pulse.refused_at(3_000);
        pulse.turned_at(4_000);
        let why = pulse.serving_at(4_000).unwrap_err();
        assert!(why.contains("no commit for 3 s"), "{why}");
        assert_eq!(pulse.alive_at(4_000), Ok(()), "a restart does not help a disk");
        pulse.committed(7);
        assert_eq!((pulse.serving_at(4_000), pulse.last_commit()), (Ok(()), 7));
    }
}
