//! How many steps a target carries out at a time: additive increase, multiplicative decrease, as TCP
//! does it for packets, and driven by latency as well as by refusals.
//!
//! A fixed number is wrong twice: too few for a large API server, too many for a small one or one
//! that others load. What a server can take shows in its answers. One that refuses (429) or does not
//! answer at all has had too much; one that answers several times slower than it can queues what it
//! is given, and more would only make the queue longer.
//!
//! Latency is compared with the least that the same sort of step ever took (its floor), because a
//! delete, a read and an apply that a webhook sees differ by more than load makes of them. The
//! ratios are capped and smoothed, so that one slow object moves nothing. Floors below 25 ms
//! count as 25 ms: an API server whose applies take 3 ms alone does most at 30 at a time and 40 ms each
//! (measured, two cores), and to answer in 40 ms is no distress.

use std::collections::BTreeMap;

use crate::Millis;

/// One, in the fixed point that limits and ratios are kept in: runs are the same on every machine.
const ONE: u64 = 1_000;
/// Smoothed ratio of latency to floor up to which the limit grows. Answers vary by a factor of two
/// without load of ours: disk syncs, garbage collection, larger objects, other clients.
const HEALTHY: u64 = 2_500;
/// Smoothed ratio above which it shrinks. Between the two it stays.
const CONGESTED: u64 = 4_000;
/// What takes no longer than this is quick, in microseconds: neither person nor server is waiting.
const QUICK_US: u64 = 25_000;
/// No single answer counts for more than this ratio.
const RATIO_CAP: u64 = 8_000;
/// An answer moves the smoothed ratio by one part in so many: sixteen in a row decide.
const SMOOTHING: u64 = 16;
/// Alone at the server, an answer that takes longer lifts the floor by one part in so many of the
/// difference: a server that has become slower for good is believed within some hundred steps.
const FLOOR_SMOOTHING: u64 = 64;
/// What a refusal leaves of the limit: the server is there and says how it is, so not much is given
/// away, as in TCP's CUBIC.
const KEPT_WHEN_THROTTLED: u64 = ONE * 7 / 10;
/// What a silence leaves, and the least that anything leaves.
const KEPT: u64 = ONE / 2;
/// The longest pause that a Retry-After gets: API servers ask for seconds, and a proxy's mistake must
/// not stop a target for days.
const PAUSE_MS: u64 = 5 * 60 * 1_000;
/// Sorts of steps with a floor of their own: kinds by verbs, more than a cluster serves.
const LANES: usize = 2_048;

/// Why the limit was made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Congestion {
    /// The server refused: 429, or 503 with a Retry-After.
    Throttled,
    /// No connection, or no answer in time.
    Unanswered,
    /// Answers take several times as long as they could.
    Latency,
}

impl Congestion {
    /// As in metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Throttled => "Throttled",
            Self::Unanswered => "Unanswered",
            Self::Latency => "Latency",
        }
    }
}

/// How many steps may be under way, learned from their answers. `L` names a sort of steps whose
/// latencies can be compared.
///
/// Answers to steps that began before the last decrease say nothing about the smaller limit, and are
/// not listened to: one episode of congestion, one decrease.
#[derive(Clone, Debug)]
pub struct Limit<L> {
    min: u64,
    max: u64,
    /// In parts of [`ONE`].
    limit: u64,
    /// Latency over floor, smoothed, in parts of [`ONE`].
    ratio: u64,
    /// The shortest answer of each sort, in microseconds.
    floors: BTreeMap<L, u64>,
    decreased: Option<Millis>,
    paused_until: Option<Millis>,
    decreases: BTreeMap<Congestion, u64>,
}

impl<L: Ord> Limit<L> {
    /// A limit between `min` (at least 1) and `max` that begins at `start`.
    #[must_use]
    pub fn new(min: usize, max: usize, start: usize) -> Self {
        let min = min.max(1);
        let max = max.max(min);
        Self {
            min: fixed(min),
            max: fixed(max),
            limit: fixed(start.clamp(min, max)),
            ratio: ONE,
            floors: BTreeMap::new(),
            decreased: None,
            paused_until: None,
            decreases: BTreeMap::new(),
        }
    }

    /// A step was answered after `took_us`, while `in_flight` steps were under way, itself included.
    /// Only for steps that did their work: what is refused is refused quickly.
    pub fn on_answer(&mut self, lane: L, took_us: u32, in_flight: usize, now: Millis) {
        let Some(ratio) = self.compare(lane, u64::from(took_us.max(1)), in_flight) else { return };
        if self.is_over(took_us, now) {
            return;
        }
        self.ratio = self.ratio - self.ratio / SMOOTHING + ratio / SMOOTHING;
        if self.ratio > CONGESTED {
            // At the minimum there is nothing to relieve: the server is slow by itself.
            if self.limit > self.min {
                self.decrease(Congestion::Latency, HEALTHY * ONE / self.ratio, now);
            }
        } else if self.ratio <= HEALTHY && fixed(in_flight) >= self.whole() {
            // One more per round of answers, and only while the limit is what holds steps back.
            self.limit = (self.limit + ONE * ONE / self.limit).min(self.max);
        }
    }

    /// The server refused a step and asks for patience: nothing new until then.
    pub fn on_throttled(&mut self, took_us: u32, retry_after_ms: u64, now: Millis) {
        let pause = i64::try_from(retry_after_ms.min(PAUSE_MS)).unwrap_or(0);
        let until = now.saturating_add(pause);
        self.paused_until = Some(self.paused_until.map_or(until, |known| known.max(until)));
        if !self.is_over(took_us, now) {
            self.decrease(Congestion::Throttled, KEPT_WHEN_THROTTLED, now);
        }
    }

    /// A step got no answer.
    pub fn on_timeout(&mut self, took_us: u32, now: Millis) {
        if !self.is_over(took_us, now) {
            self.decrease(Congestion::Unanswered, KEPT, now);
        }
    }

    /// Steps that may be under way at `now`; 0 while the server has asked for a pause.
    #[must_use]
    pub fn limit(&self, now: Millis) -> usize {
        if self.paused_until.is_some_and(|until| now < until) {
            return 0;
        }
        usize::try_from(self.limit / ONE).unwrap_or(usize::MAX)
    }

    /// Until when the server has asked for a pause.
    #[must_use]
    pub fn paused_until(&self) -> Option<Millis> {
        self.paused_until
    }

    /// How often the limit was made smaller, and why.
    pub fn decreases(&self) -> impl Iterator<Item = (Congestion, u64)> {
        self.decreases.iter().map(|(why, count)| (*why, *count))
    }

    /// Did a step that ends now begin before the last decrease?
    fn is_over(&self, took_us: u32, now: Millis) -> bool {
        let began = now.saturating_sub(i64::from(took_us / 1_000));
        self.decreased.is_some_and(|decreased| began <= decreased)
    }

    fn decrease(&mut self, why: Congestion, kept: u64, now: Millis) {
        self.limit = (self.limit * kept.clamp(KEPT, ONE) / ONE).max(self.min);
        self.decreased = Some(now);
        // Neither healthy nor congested: what the smaller limit does decides.
        self.ratio = HEALTHY + ONE / 2;
        *self.decreases.entry(why).or_default() += 1;
    }

    /// Latency over the floor of its lane, which learns from it; none for a lane too many.
    fn compare(&mut self, lane: L, took_us: u64, in_flight: usize) -> Option<u64> {
        let alone = fixed(in_flight) <= self.min;
        let room = self.floors.len() < LANES;
        let floor = match self.floors.get_mut(&lane) {
            Some(floor) => floor,
            None if room => self.floors.entry(lane).or_insert(took_us),
            None => return None,
        };
        *floor = (*floor).min(took_us);
        if alone {
            let slower = took_us.min(*floor * RATIO_CAP / ONE) - *floor;
            *floor += slower / FLOOR_SMOOTHING;
        }
        Some((took_us * ONE / (*floor).max(QUICK_US)).min(RATIO_CAP))
    }

    /// The limit without its fraction.
    fn whole(&self) -> u64 {
        self.limit / ONE * ONE
    }
}

fn fixed(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(ONE).min(u64::MAX / ONE / ONE)
}

#[cfg(test)]
mod tests;
