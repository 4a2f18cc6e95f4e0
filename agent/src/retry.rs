//! How long to wait before a shell tries again. The only place that knows the `backoff` crate.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// Wait before the first retry.
const FIRST: Duration = Duration::from_millis(250);
/// Longest wait: a hub that comes back is found within half a minute.
const LONGEST: Duration = Duration::from_secs(30);
/// Share by which a wait is moved, so that a fleet does not come back at once.
const JITTER: f64 = 0.5;

/// Growing, jittered waits without an end.
pub(crate) struct Retry(ExponentialBackoff);

impl Retry {
    pub(crate) fn new() -> Self {
        Self(ExponentialBackoff {
            current_interval: FIRST,
            initial_interval: FIRST,
            randomization_factor: JITTER,
            multiplier: 2.0,
            max_interval: LONGEST,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// How long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(LONGEST)
    }

    /// It worked: the next failure starts from the shortest wait.
    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_anew() {
        let mut retry = Retry::new();
        assert!(retry.next() < Duration::from_millis(500));
        let late = (0..40).map(|_| retry.next()).last().unwrap();
        assert!(late >= LONGEST / 2 && late <= LONGEST * 2, "{late:?}");
        retry.reset();
        assert!(retry.next() < Duration::from_millis(500));
    }
}
