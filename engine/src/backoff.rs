//! A seeded exponential backoff: the same seed and attempt always give the same delay.
//!
//! The shells use the `backoff` crate for their connects; the core, where a run must be repeatable
//! from its seed, uses this.

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
        let plain = factor.saturating_pow(attempt).saturating_mul(self.base_ms).min(self.max_ms);
        let span = u128::from(plain) * u128::from(self.jitter_percent.min(100)) / 100;
        if span == 0 {
            return plain;
        }
        let width = span * 2 + 1;
        let offset = u128::from(mix(seed ^ mix(u64::from(attempt)))) % width;
        let moved = u128::from(plain) + offset - span;
        u64::try_from(moved).unwrap_or(u64::MAX).min(self.max_ms)
    }
}

/// SplitMix64's finaliser: spreads neighbouring seeds over the whole range.
#[must_use]
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
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
}
