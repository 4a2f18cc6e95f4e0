//! Seeded choices.

use lockstep_engine::backoff::Random;

/// A sequence of choices; another seed, another sequence.
#[derive(Clone, Debug)]
pub(crate) struct Dice(Random);

impl Dice {
    /// `stream` tells sequences of one seed apart.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ stream.rotate_left(40)))
    }

    pub(crate) fn between(&mut self, low: u32, high: u32) -> u32 {
        self.0.between(low, high)
    }

    /// An index below `count`, which is not 0.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        let last = u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX);
        self.0.between(0, last) as usize
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.0.between(0, 99) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    pub(crate) fn number(&mut self) -> u64 {
        u64::from(self.0.between(0, u32::MAX - 1)) << 32 | u64::from(self.0.between(0, u32::MAX - 1))
    }
}
