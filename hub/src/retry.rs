//! When to try again: the only place of this crate that knows the `backoff` crate, which has an
//! "unmaintained" notice (deny.toml). Replacing it is replacing this file.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Each interval is this many times the one before.
const MULTIPLIER: f64 = 2.0;
/// Intervals are spread by half in both directions, so that what failed together is not tried again
/// together.
const SPREAD: f64 = 0.5;

/// Growing, spread intervals without an end.
#[derive(Debug)]
pub struct Retry {
    schedule: ExponentialBackoff,
    max: Duration,
}

impl Retry {
    /// The first interval is about `initial`, none is longer than `max`.
    #[must_use]
    pub fn new(initial: Duration, max: Duration) -> Self {
        let mut schedule = ExponentialBackoff {
            current_interval: initial,
            initial_interval: initial,
            randomization_factor: SPREAD,
            multiplier: MULTIPLIER,
            max_interval: max,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        schedule.reset();
        Self { schedule, max }
    }

    /// How long to wait before the next attempt.
    pub fn next_wait(&mut self) -> Duration {
        // None only where a longest elapsed time is set.
        self.schedule.next_backoff().unwrap_or(self.max).min(self.max)
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
        let mut retry = Retry::new(initial, max);
        let waits: Vec<_> = (0..20).map(|_| retry.next_wait()).collect();
        assert!(waits[0] >= initial / 2 && waits[0] <= initial * 3 / 2, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= max), "{waits:?}");
        assert!(waits[19] >= max / 2, "{waits:?}");
        retry.reset();
        assert!(retry.next_wait() <= initial * 3 / 2);
    }
}
