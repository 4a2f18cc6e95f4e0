//! A work queue with the semantics of client-go: a key is queued once however often it is added,
//! a key added while it is being worked on is queued again when that work is done, and one that
//! failed comes back after a growing delay.
//!
//! Nothing here waits: the owner calls [`WorkQueue::poll`] and sleeps until
//! [`WorkQueue::next_deadline`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::Millis;
use crate::backoff::{Backoff, mix};

/// How often keys went in, came out, and were thrown away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Keys that became ready, coalesced ones not counted again.
    pub enqueued: u64,
    /// Keys given out by [`WorkQueue::poll`].
    pub dequeued: u64,
    /// Keys removed without having been given out.
    pub dropped: u64,
}

/// An overall limit on retries: `burst` at once, then `per_second`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Retries a second; at least 1.
    pub per_second: u32,
    /// Retries at once; at least 1.
    pub burst: u32,
}

/// Reservations against a [`TokenBucket`], kept as the time at which the next token falls due
/// ("generic cell rate"): no floating point, no timer.
#[derive(Clone, Debug)]
struct Bucket {
    limit: TokenBucket,
    /// In microseconds since the epoch.
    due_us: i64,
}

impl Bucket {
    /// Reserves one token and says how many milliseconds from `now` it may be used.
    fn reserve(&mut self, now: Millis) -> u64 {
        let now_us = now.saturating_mul(1_000);
        let step_us = 1_000_000 / i64::from(self.limit.per_second.max(1));
        let slack_us = step_us.saturating_mul(i64::from(self.limit.burst.max(1)) - 1);
        let due = self.due_us.max(now_us.saturating_sub(slack_us));
        self.due_us = due.saturating_add(step_us);
        u64::try_from(due.saturating_sub(now_us).max(0) / 1_000).unwrap_or(0)
    }
}

/// The queue. `K` is cheap to clone: it stands in several sets.
#[derive(Clone, Debug)]
pub struct WorkQueue<K> {
    ready: VecDeque<K>,
    /// Wanted: in `ready`, or in `processing` and to be queued again when done.
    dirty: BTreeSet<K>,
    processing: BTreeSet<K>,
    delayed: BTreeSet<(Millis, K)>,
    due: BTreeMap<K, Millis>,
    failures: BTreeMap<K, u32>,
    backoff: Backoff,
    bucket: Option<Bucket>,
    seed: u64,
    draws: u64,
    latest: Millis,
    counters: QueueCounters,
}

impl<K: Ord + Clone> WorkQueue<K> {
    /// An empty queue. `backoff` is per key, `bucket` over all retries together; the seed decides
    /// the jitter.
    #[must_use]
    pub fn new(backoff: Backoff, bucket: Option<TokenBucket>, seed: u64) -> Self {
        Self {
            ready: VecDeque::new(),
            dirty: BTreeSet::new(),
            processing: BTreeSet::new(),
            delayed: BTreeSet::new(),
            due: BTreeMap::new(),
            failures: BTreeMap::new(),
            backoff,
            bucket: bucket.map(|limit| Bucket { limit, due_us: i64::MIN }),
            seed,
            draws: 0,
            latest: Millis::MIN,
            counters: QueueCounters::default(),
        }
    }

    /// Marks a key as in need of work. Without effect while it is already queued.
    pub fn add(&mut self, key: K) {
        if !self.dirty.insert(key.clone()) {
            return;
        }
        self.counters.enqueued += 1;
        if !self.processing.contains(&key) {
            self.ready.push_back(key);
        }
    }

    /// Adds a key `delay_ms` from now. Of two such calls the earlier time counts.
    pub fn add_after(&mut self, key: K, delay_ms: u64, now: Millis) {
        if delay_ms == 0 {
            self.add(key);
            return;
        }
        let at = now.saturating_add(i64::try_from(delay_ms).unwrap_or(i64::MAX));
        match self.due.get(&key) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => {
                self.delayed.remove(&(*later, key.clone()));
            }
            None => {}
        }
        self.due.insert(key.clone(), at);
        self.delayed.insert((at, key));
    }

    /// Adds a key that failed, after its backoff or when the overall limit allows it, whichever is
    /// later. Returns the delay in milliseconds.
    pub fn add_rate_limited(&mut self, key: K, now: Millis) -> u64 {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let attempt = *failures;
        *failures = failures.saturating_add(1);
        self.draws = self.draws.wrapping_add(1);
        let own = self.backoff.delay_ms(mix(self.seed ^ self.draws), attempt);
        let overall = self.bucket.as_mut().map_or(0, |bucket| bucket.reserve(now));
        let delay = own.max(overall);
        self.add_after(key, delay, now);
        delay
    }

    /// The key is well again: its next failure starts from the shortest delay.
    pub fn forget(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// How often the key failed since it was last forgotten.
    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.failures.get(key).copied().unwrap_or(0)
    }

    /// The next key to work on. The caller calls [`Self::done`] when it has finished.
    pub fn poll(&mut self, now: Millis) -> Option<K> {
        self.latest = self.latest.max(now);
        self.ripen(now);
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        self.counters.dequeued += 1;
        Some(key)
    }

    /// The work on a key has ended; if it was added meanwhile, it is queued again.
    pub fn done(&mut self, key: &K) {
        if self.processing.remove(key) && self.dirty.contains(key) {
            self.ready.push_back(key.clone());
        }
    }

    /// Takes a key out, delayed or ready, with its failure count. Work in progress goes on.
    pub fn remove(&mut self, key: &K) {
        self.failures.remove(key);
        let mut dropped = false;
        if let Some(at) = self.due.remove(key) {
            self.delayed.remove(&(at, key.clone()));
            dropped = true;
        }
        if self.dirty.remove(key) {
            self.ready.retain(|k| k != key);
            dropped = true;
        }
        self.counters.dropped += u64::from(dropped);
    }

    /// When [`Self::poll`] will give something without another call: now or earlier if a key is
    /// ready, else when the next delayed key falls due, else never.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        if self.ready.is_empty() { self.delayed.first().map(|(at, _)| *at) } else { Some(self.latest) }
    }

    /// Keys that wait, ready or delayed; those in work not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ready.len() + self.due.keys().filter(|key| !self.dirty.contains(*key)).count()
    }

    /// Does nothing wait?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.delayed.is_empty()
    }

    /// Keys in work.
    #[must_use]
    pub fn in_work(&self) -> usize {
        self.processing.len()
    }

    /// The counters since the start.
    #[must_use]
    pub fn counters(&self) -> QueueCounters {
        self.counters
    }

    fn ripen(&mut self, now: Millis) {
        while let Some((at, _)) = self.delayed.first()
            && *at <= now
        {
            if let Some((_, key)) = self.delayed.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> WorkQueue<&'static str> {
        let backoff = Backoff { base_ms: 100, factor: 2, max_ms: 1_000, jitter_percent: 0 };
        WorkQueue::new(backoff, None, 1)
    }

    #[test]
    fn a_key_is_queued_once_and_in_order() {
        let mut q = queue();
        q.add("a");
        q.add("b");
        q.add("a");
        assert_eq!(q.len(), 2);
        assert_eq!((q.poll(0), q.poll(0), q.poll(0)), (Some("a"), Some("b"), None));
        assert_eq!(q.counters(), QueueCounters { enqueued: 2, dequeued: 2, dropped: 0 });
    }

    #[test]
    fn added_while_in_work_it_comes_back_after_done() {
        let mut q = queue();
        q.add("a");
        assert_eq!(q.poll(0), Some("a"));
        q.add("a");
        q.add("a");
        assert_eq!(q.poll(0), None);
        q.done(&"a");
        assert_eq!(q.poll(0), Some("a"));
        q.done(&"a");
        assert_eq!(q.poll(0), None);
        assert_eq!(q.in_work(), 0);
    }

    #[test]
    fn delays_keep_the_earlier_time_and_tell_the_deadline() {
        let mut q = queue();
        q.add_after("a", 500, 0);
        q.add_after("a", 200, 0);
        q.add_after("a", 900, 0);
        assert_eq!(q.next_deadline(), Some(200));
        assert_eq!(q.poll(199), None);
        assert_eq!(q.poll(200), Some("a"));
        assert_eq!(q.next_deadline(), None);
    }

    #[test]
    fn failures_back_off_until_forgotten() {
        let mut q = queue();
        assert_eq!([0, 0, 0].map(|now| q.add_rate_limited("a", now)), [100, 200, 400]);
        assert_eq!(q.failures(&"a"), 3);
        q.forget(&"a");
        assert_eq!(q.add_rate_limited("a", 0), 100);
    }

    #[test]
    fn the_bucket_spaces_retries_of_all_keys() {
        let backoff = Backoff { base_ms: 1, factor: 1, max_ms: 1, jitter_percent: 0 };
        let mut q = WorkQueue::new(backoff, Some(TokenBucket { per_second: 10, burst: 2 }), 1);
        let delays: Vec<u64> = (0..4).map(|key| q.add_rate_limited(key, 1_000)).collect();
        assert_eq!(delays, [1, 1, 100, 200]);
        // Tokens do not pile up beyond the burst.
        let delays: Vec<u64> = (4..8).map(|key| q.add_rate_limited(key, 90_000)).collect();
        assert_eq!(delays, [1, 1, 100, 200]);
    }

    #[test]
    fn removed_keys_are_counted_as_dropped() {
        let mut q = queue();
        q.add("a");
        q.add_after("b", 10, 0);
        q.remove(&"a");
        q.remove(&"b");
        q.remove(&"c");
        assert!(q.is_empty());
        assert_eq!(q.poll(99), None);
        assert_eq!(q.counters().dropped, 2);
    }

    #[test]
    fn a_key_both_ready_and_delayed_is_given_out_for_each() {
        let mut q = queue();
        q.add_after("a", 50, 0);
        q.add("a");
        assert_eq!(q.len(), 1);
        assert_eq!(q.poll(0), Some("a"));
        assert_eq!(q.poll(50), None);
        q.done(&"a");
        assert_eq!(q.poll(50), Some("a"));
    }
}
