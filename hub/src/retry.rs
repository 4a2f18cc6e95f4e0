//! When to try again: the only place of this crate that knows the `backoff` crate, which has an
//! "unmaintained" notice (deny.toml). Replacing it is replacing this file.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use lockstep_engine::backoff::Random;

/// Each interval is this many times the one before.
const MULTIPLIER: f64 = 2.0;
/// Intervals are spread by half in both directions, so that what failed together is not tried again
/// together.
const SPREAD_PERCENT: u32 = 50;

/// Growing, spread intervals without an end.
#[derive(Debug)]
pub struct Retry {
    /// Without the crate's own spread, which cannot be seeded.
    schedule: ExponentialBackoff,
    random: Random,
    max: Duration,
}

impl Retry {
    /// The first interval is about `initial`, none is longer than `max`; spread differently for each seed.
    #[must_use]
    pub fn new(initial: Duration, max: Duration, seed: u64) -> Self {
        let mut schedule = ExponentialBackoff {
            current_interval: initial,
            initial_interval: initial,
            randomization_factor: 0.0,
            multiplier: MULTIPLIER,
            max_interval: max,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        schedule.reset();
        Self { schedule, random: Random::new(seed), max }
    }

    /// How long to wait before the next attempt.
    pub fn next_wait(&mut self) -> Duration {
        // None only where a longest elapsed time is set.
        let interval = self.schedule.next_backoff().unwrap_or(self.max);
        let percent = self.random.between(100 - SPREAD_PERCENT, 100 + SPREAD_PERCENT);
        (interval * percent / 100).min(self.max)
    }

    /// It worked: begin again with short intervals.
    pub fn reset(&mut self) {
        self.schedule.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_grow_up_to_the_longest_and_begin_again() {
        let (initial, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut retry = Retry::new(initial, max, 7);
        let waits: Vec<_> = (0..20).map(|_| retry.next_wait()).collect();
        assert!(waits[0] >= initial / 2 && waits[0] <= initial * 3 / 2, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= max), "{waits:?}");
        assert!(waits[19] >= max / 2, "{waits:?}");
        retry.reset();
        assert!(retry.next_wait() <= initial * 3 / 2);
    }
}
