//! When bodies go to the spill file, and what happens when they cannot.

use super::{Effect, Owner};
use crate::error::CANNOT_SPILL;
use crate::spill::{Spill, SpillError};

/// A visit frees this part of the memory bound, and no more than [`PASS_BYTES`]: enough that the next
/// one is not due at once, little enough that the owner is back within milliseconds.
const PASS_SHARE: usize = 8;
/// Bytes that one visit frees at most.
const PASS_BYTES: usize = 4 << 20;

impl Owner {
    /// Lets bodies beyond the memory bound go to this file.
    pub(crate) fn spilling_to(mut self, spill: Option<Spill>) -> Self {
        self.spill = spill;
        self
    }

    /// Bodies in the spill file, and their bytes.
    pub(crate) fn spilled(&self) -> (usize, u64) {
        self.spill.as_ref().map_or((0, 0), Spill::level)
    }

    /// Moves all bodies to disk.
    #[cfg(test)]
    pub(super) fn spill_all(&mut self) {
        let spill = self.spill.as_mut().unwrap();
        self.watches.values_mut().for_each(|watch| drop(watch.spill(spill, usize::MAX)));
    }

    /// At the memory bound, moves bodies to disk.
    pub(super) fn make_room(&mut self) {
        if self.spill.is_none() {
            return;
        }
        let bound = self.bounds.queue.bytes;
        let (_, bytes) = self.queued();
        let Some(spill) = self.spill.as_mut().filter(|_| bytes >= bound) else { return };
        let mut wanted = bytes - bound + (bound / PASS_SHARE).clamp(1, PASS_BYTES);
        let mut order: Vec<(usize, u32)> =
            self.watches.values().map(|watch| (watch.queued().1, watch.id)).collect();
        // The largest first, so that few are visited.
        order.sort_unstable_by(|a, b| b.cmp(a));
        if spill.level().0 == 0 {
            // Another absence of the hub, or another full disk: worth telling anew.
            self.told_of_spill = false;
        }
        for (_, id) in order {
            let Some(watch) = self.watches.get_mut(&id) else { continue };
            let (freed, stopped) = watch.spill(spill, wanted);
            wanted = wanted.saturating_sub(freed);
            if let Some(error) = stopped {
                return self.cannot_spill(&error);
            }
            if wanted == 0 {
                return;
            }
        }
    }

    fn cannot_spill(&mut self, error: &SpillError) {
        if std::mem::replace(&mut self.told_of_spill, true) {
            return;
        }
        let (items, bytes) = self.spilled();
        tracing::warn!(
            code = CANNOT_SPILL, %error, items, bytes,
            "bodies that wait for the hub no longer go to disk; watches are not read until there is room, \
             and nothing is lost"
        );
    }

    /// Ends the tasks of watches that are to be listed anew.
    pub(super) fn stop_lost(&mut self, effects: &mut Vec<Effect>) {
        let mut any = false;
        for watch in self.watches.values_mut() {
            if watch.take_stop() {
                effects.push(Effect::Stop { watch: watch.id });
                any = true;
            }
        }
        if any {
            self.start_watches(effects);
        }
    }
}
