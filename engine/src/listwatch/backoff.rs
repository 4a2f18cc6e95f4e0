//! The core's own seeded schedule: same seed, same delays.

/// Shortest delay, before jitter.
const FIRST_MS: u64 = 1_000;
/// Longest delay, before jitter.
const LONGEST_MS: u64 = 60_000;
/// A server's Retry-After is obeyed up to here; what is longer is taken for a mistake.
const LONGEST_RETRY_AFTER_MS: u64 = 300_000;
/// `FIRST_MS << MAX_DOUBLINGS` exceeds the longest delay.
const MAX_DOUBLINGS: u32 = 6;

/// Exponential backoff with jitter: 1 s to 60 s, each drawn from the upper half of its step.
#[derive(Debug, Clone)]
pub struct Backoff {
    random: u64,
    failures: u32,
}

impl Backoff {
    /// A schedule of its own for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: seed, failures: 0 }
    }

    /// Success: the next failure waits the shortest delay again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The delay after one more failure, in ms; at least what the server asked for.
    pub fn next_ms(&mut self, retry_after_ms: Option<u64>) -> u64 {
        let step = (FIRST_MS << self.failures.min(MAX_DOUBLINGS)).min(LONGEST_MS);
        self.failures = self.failures.saturating_add(1);
        let half = step / 2;
        let delay = half + self.draw() % (step - half + 1);
        delay.max(retry_after_ms.unwrap_or(0).min(LONGEST_RETRY_AFTER_MS))
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high.saturating_sub(low)) + 1;
        low.saturating_add(u32::try_from(self.draw() % span).unwrap_or(0))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): enough for jitter.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_stay_in_bounds_and_repeat_with_the_seed() {
        let delays = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..12).map(|_| backoff.next_ms(None)).collect::<Vec<_>>()
        };
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
        for (n, delay) in delays(7).into_iter().enumerate() {
            let step = (1_000_u64 << n.min(6)).min(60_000);
            assert!((step / 2..=step).contains(&delay), "{n}: {delay}");
        }
    }

    #[test]
    fn retry_after_is_obeyed_within_reason() {
        let mut backoff = Backoff::new(1);
        assert_eq!(backoff.next_ms(Some(30_000)), 30_000);
        assert_eq!(backoff.next_ms(Some(u64::MAX)), 300_000);
        backoff.reset();
        assert!(backoff.next_ms(None) <= 1_000);
    }
}
