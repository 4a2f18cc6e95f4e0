//! A seeded exponential backoff: the same seed and attempt always give the same delay.
//!
//! The shells use the `backoff` crate for their connects; the core, where a run must be repeatable
//! from its seed, uses this.

/// A server's Retry-After is obeyed up to here; what is longer is taken for a mistake.
pub const LONGEST_RETRY_AFTER_MS: u64 = 300_000;

/// An exponential schedule with jitter. Delays are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Delay before the first retry.
    pub base_ms: u64,
    /// Each delay is this many times the one before; at least 1.
    pub factor: u32,
    /// No delay is longer, jitter included.
    pub max_ms: u64,
    /// A delay is moved by up to this share of itself, up or down, so that many clients that failed
    /// together do not come back together. 0 to 100.
    pub jitter_percent: u8,
}

impl Default for Backoff {
    /// 200 ms doubling to one minute, a fifth of jitter.
    fn default() -> Self {
        Self { base_ms: 200, factor: 2, max_ms: 60_000, jitter_percent: 20 }
    }
}

impl Backoff {
    /// The delay before retry `attempt` (0: the first), in milliseconds.
    #[must_use]
    pub fn delay_ms(&self, seed: u64, attempt: u32) -> u64 {
        let factor = u64::from(self.factor.max(1));
        let jitter = u128::from(self.jitter_percent.min(100));
        // The longest delays are spread like the others: cut off at the maximum, half of all clients
        // would come back at the same moment.
        let longest = u128::from(self.max_ms) * 100 / (100 + jitter);
        let plain = u128::from(factor.saturating_pow(attempt).saturating_mul(self.base_ms)).min(longest);
        let span = plain * jitter / 100;
        let offset = u128::from(mix(seed ^ mix(u64::from(attempt)))) % (span * 2 + 1);
        u64::try_from(plain + offset - span).unwrap_or(u64::MAX).min(self.max_ms)
    }
}

/// A [`Backoff`] under way: counts the failures, draws its jitter anew for each.
#[derive(Clone, Debug)]
pub struct Retry {
    schedule: Backoff,
    random: Random,
    failures: u32,
}

impl Retry {
    /// A run of its own for each seed.
    #[must_use]
    pub fn new(schedule: Backoff, seed: u64) -> Self {
        Self { schedule, random: Random::new(seed), failures: 0 }
    }

    /// Success: the next failure waits the shortest delay again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// No failure since the start or the last [`Self::reset`]?
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// The delay after one more failure, in ms; at least what the server asked for.
    pub fn next_ms(&mut self, retry_after_ms: Option<u64>) -> u64 {
        let delay = self.schedule.delay_ms(self.random.draw(), self.failures);
        self.failures = self.failures.saturating_add(1);
        delay.max(retry_after_ms.unwrap_or(0).min(LONGEST_RETRY_AFTER_MS))
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): enough for jitter, and nothing else.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        let value = mix(self.0);
        self.0 = self.0.wrapping_add(GOLDEN);
        value
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high.saturating_sub(low)) + 1;
        low.saturating_add(u32::try_from(self.draw() % span).unwrap_or(0))
    }
}

/// The step of `SplitMix64`: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// `SplitMix64`'s step and finaliser: spreads neighbouring seeds over the whole range.
#[must_use]
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_jitter_it_doubles_up_to_the_maximum() {
        let backoff = Backoff { base_ms: 100, factor: 2, max_ms: 1_000, jitter_percent: 0 };
        let delays: Vec<u64> = (0..6).map(|attempt| backoff.delay_ms(7, attempt)).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff.delay_ms(7, u32::MAX), 1_000);
    }

    #[test]
    fn jitter_is_seeded_bounded_and_spreads() {
        let backoff = Backoff { base_ms: 1_000, factor: 2, max_ms: 60_000, jitter_percent: 20 };
        let delays: Vec<u64> = (0..200).map(|seed| backoff.delay_ms(seed, 0)).collect();
        assert!(delays.iter().all(|d| (800..=1_200).contains(d)), "{delays:?}");
        assert!(delays.iter().max() > Some(&1_150) && delays.iter().min() < Some(&850));
        assert_eq!(backoff.delay_ms(42, 3), backoff.delay_ms(42, 3));
        assert!((0..99).all(|attempt| backoff.delay_ms(1, attempt) <= 60_000));
    }

    #[test]
    fn the_longest_delays_are_spread_too() {
        let backoff = Backoff { base_ms: 1_000, factor: 2, max_ms: 60_000, jitter_percent: 20 };
        let mut delays: Vec<u64> = (0..1_000).map(|seed| backoff.delay_ms(seed, 40)).collect();
        assert!(delays.iter().all(|d| (40_000..=60_000).contains(d)));
        delays.sort_unstable();
        delays.dedup();
        assert!(delays.len() > 900, "{} different delays of 1000", delays.len());
    }

    fn retry(seed: u64) -> Retry {
        Retry::new(Backoff { base_ms: 750, factor: 2, max_ms: 60_000, jitter_percent: 33 }, seed)
    }

    #[test]
    fn delays_grow_stay_in_bounds_and_repeat_with_the_seed() {
        let delays = |seed| {
            let mut retry = retry(seed);
            (0..12).map(|_| retry.next_ms(None)).collect::<Vec<_>>()
        };
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
        for (n, delay) in delays(7).into_iter().enumerate() {
            let step = (1_000_u64 << n.min(6)).min(60_000);
            assert!((step / 2..=step).contains(&delay), "{n}: {delay}");
        }
        let mut retry = retry(7);
        let firsts: Vec<_> = (0..3)
            .map(|_| {
                retry.reset();
                retry.next_ms(None)
            })
            .collect();
        assert!(firsts.windows(2).all(|two| two[0] != two[1]), "drawn anew each time: {firsts:?}");
    }

    #[test]
    fn retry_after_is_obeyed_within_reason() {
        let mut retry = retry(1);
        assert!(retry.is_fresh());
        assert_eq!(retry.next_ms(Some(30_000)), 30_000);
        assert_eq!(retry.next_ms(Some(u64::MAX)), 300_000);
        assert!(!retry.is_fresh());
        retry.reset();
        assert!(retry.is_fresh() && retry.next_ms(None) <= 1_000);
    }

    #[test]
    fn between_includes_both_ends() {
        let mut random = Random::new(3);
        let drawn: std::collections::BTreeSet<_> = (0..100).map(|_| random.between(4, 6)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [4, 5, 6]);
        assert_eq!(random.between(9, 9), 9);
    }
}
