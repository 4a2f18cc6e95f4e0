//! How long to wait before a shell tries again. The only place that knows the `backoff` crate.
//!
//! Waits have full jitter: each is anything between nothing and a ceiling that doubles. A thousand
//! agents that lose their hub in the same instant come back evenly over the first second, and those
//! that find it still away over longer and longer times.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use lockstep_engine::backoff::Random;

/// Ceiling of the first wait: a hub takes up a thousand agents in about this time.
const FIRST: Duration = Duration::from_secs(1);
/// Ceiling of the longest: a hub that comes back is found within half a minute.
const LONGEST: Duration = Duration::from_secs(30);
/// A connection that lived this long was a good one. One that ends sooner is no reason to come back
/// quickly: a hub that accepts and drops would be asked all the time.
const GOOD: Duration = LONGEST;

/// Growing, jittered waits without an end.
pub(crate) struct Retry {
    /// Ceilings; the crate's own jitter cannot be seeded.
    ceilings: ExponentialBackoff,
    random: Random,
}

impl Retry {
    /// Waits of their own for each seed.
    pub(crate) fn new(seed: u64) -> Self {
        let ceilings = ExponentialBackoff {
            current_interval: FIRST,
            initial_interval: FIRST,
            randomization_factor: 0.0,
            multiplier: 2.0,
            max_interval: LONGEST,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Self { ceilings, random: Random::new(seed) }
    }

    /// How long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.ceilings.next_backoff().unwrap_or(LONGEST);
        self.below(ceiling)
    }

    fn below(&mut self, ceiling: Duration) -> Duration {
        let ceiling = u32::try_from(ceiling.as_millis()).unwrap_or(u32::MAX);
        Duration::from_millis(u64::from(self.random.between(0, ceiling)))
    }

    /// It worked: the next failure starts from the shortest waits.
    pub(crate) fn reset(&mut self) {
        self.ceilings.reset();
    }

    /// How long to wait after a connection that lived so long (not at all: zero); `named` is what the
    /// other side asked for, which is kept to and jittered too: it asks all in the same moment.
    pub(crate) fn after(&mut self, lived: Duration, named: Option<Duration>) -> Duration {
        if lived_well(lived) {
            self.reset();
        }
        let wait = self.next();
        match named {
            Some(named) => named + wait + self.below(named / 2),
            None => wait,
        }
    }
}

/// Was it a good connection?
pub(crate) fn lived_well(lived: Duration) -> bool {
    lived >= GOOD
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enough to see how waits are spread.
    const FLEET: usize = 1_000;

    /// The most waits that fall into one tenth of a second.
    fn crowd(waits: &[Duration]) -> usize {
        let mut tenths = std::collections::BTreeMap::<u128, usize>::new();
        for wait in waits {
            *tenths.entry(wait.as_millis() / 100).or_default() += 1;
        }
        tenths.into_values().max().unwrap_or(0)
    }

    #[test]
    fn waits_grow_to_a_limit_and_start_anew() {
        let mut retries: Vec<Retry> = (0..FLEET as u64).map(Retry::new).collect();
        let mut means = Vec::new();
        for _ in 0..12 {
            let waits: Vec<Duration> = retries.iter_mut().map(Retry::next).collect();
            assert!(waits.iter().all(|wait| *wait <= LONGEST), "{:?}", waits.iter().max());
            means.push(waits.iter().sum::<Duration>().as_secs_f64() / waits.len() as f64);
        }
        for (mean, expected) in means.iter().zip([0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]) {
            assert!((mean / expected - 1.0).abs() < 0.25, "{means:?}");
        }
        retries.iter_mut().for_each(Retry::reset);
        assert!(retries.iter_mut().all(|retry| retry.next() <= FIRST));
    }

    #[test]
    fn a_fleet_that_loses_its_hub_does_not_come_back_at_once() {
        let mut fleet: Vec<Retry> = (0..FLEET as u64).map(Retry::new).collect();
        let mut ended = |lived| fleet.iter_mut().map(|retry| retry.after(lived, None)).collect::<Vec<_>>();
        let waits = ended(GOOD);
        assert!(crowd(&waits) < 2 * FLEET / 10, "{} in 100 ms", crowd(&waits));
        assert!(waits.iter().all(|wait| *wait <= FIRST), "a single agent is soon back");
        let again = ended(Duration::ZERO);
        assert!(crowd(&again) < 2 * FLEET / 20, "{} in 100 ms", crowd(&again));
    }

    #[test]
    fn what_the_hub_asks_for_is_kept_to_and_jittered() {
        for named in [Duration::from_secs(1), Duration::from_secs(300)] {
            let waits: Vec<Duration> =
                (0..FLEET as u64).map(|seed| Retry::new(seed).after(Duration::ZERO, Some(named))).collect();
            assert!(waits.iter().all(|wait| *wait >= named && *wait <= named * 3 / 2 + FIRST));
            assert!(crowd(&waits) < 2 * FLEET / 10, "{} in 100 ms after {named:?}", crowd(&waits));
        }
    }

    #[test]
    fn a_hub_that_accepts_and_drops_is_asked_less_and_less() {
        let mut retry = Retry::new(7);
        let short = GOOD - Duration::from_millis(1);
        let waits: Vec<Duration> = (0..200).map(|_| retry.after(short, None)).collect();
        let late = waits[6..].iter().sum::<Duration>() / 194;
        assert!(late > LONGEST / 3, "{late:?} on average");
        assert!(retry.after(GOOD, None) <= FIRST, "a good connection is taken up again soon");
    }
}
