//! Steps that wait to be carried out: one at a time per object, and in all as many as the API server
//! proves to take ([`lockstep_engine::concurrency`]). Pure: `now` is milliseconds of a steady clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lockstep_engine::concurrency::{Congestion, Limit};
use lockstep_engine::outcome::FailureClass;
use lockstep_engine::{GroupKind, Millis, ObjectKey};
use lockstep_wire::v1::{self, Step, apply::Expect, outcome::Result as Done, step::Action};

/// Steps at a time before anything is known of the server: what a small one takes without a queue.
/// Some forty answers later a large one gets as many as are allowed.
const AT_FIRST: usize = 8;

/// Kinds that may have one step under way each although the limit is reached.
const SPARE_KINDS: usize = 4;

/// A step to be carried out now.
#[derive(Debug, PartialEq)]
pub(crate) struct Job {
    pub(crate) key: ObjectKey,
    pub(crate) step: Step,
    /// What the index says of the object when the step begins; nothing where it cannot tell, or where
    /// another step of the object was before this one.
    pub(crate) present: Option<bool>,
}

/// A step that waits.
#[derive(Debug)]
struct Waiting {
    key: ObjectKey,
    step: Step,
    /// Was no other step of the object before it?
    first: bool,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepCounters {
    pub(crate) enqueued: u64,
    pub(crate) dequeued: u64,
    pub(crate) dropped: u64,
}

/// Steps whose latencies can be compared: of one kind, and of one request or two.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lane {
    gk: GroupKind,
    does: Does,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Does {
    /// Creates what is known to be absent.
    Create,
    /// Looks first.
    CreateUnseen,
    Update,
    Read,
    Delete,
    Release,
}

impl Lane {
    fn of(job: &Job) -> Option<Self> {
        let does = match job.step.action.as_ref()? {
            Action::Apply(v1::Apply { expect: Some(Expect::Present(_)), .. }) => Does::Update,
            Action::Apply(_) if job.present == Some(false) => Does::Create,
            Action::Apply(_) => Does::CreateUnseen,
            // Looking into a namespace takes a list of every kind.
            Action::Read(v1::Read { must_be_empty: true })
            | Action::Delete(v1::DeleteStep { must_be_empty: true, .. }) => return None,
            Action::Read(_) => Does::Read,
            Action::Delete(_) => Does::Delete,
            Action::Release(_) => Does::Release,
            // Reads; writes now and then.
            Action::Retract(_) => Does::CreateUnseen,
            // Writes as a rule, and as checks now and then.
            Action::Restore(_) | Action::Probe(_) => return None,
        };
        Some(Self { gk: job.key.gk.clone(), does })
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct StepQueue {
    limit: Limit<Lane>,
    waiting: VecDeque<Waiting>,
    busy: BTreeMap<ObjectKey, Option<Lane>>,
    counters: StepCounters,
}

impl StepQueue {
    /// At most `at_once` steps at a time.
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            limit: Limit::new(1, at_once, AT_FIRST),
            waiting: VecDeque::new(),
            busy: BTreeMap::new(),
            counters: StepCounters::default(),
        }
    }

    pub(crate) fn push(&mut self, step: Step) {
        let key = ObjectKey::new(GroupKind::new(&step.group, &step.kind), &step.namespace, &step.name);
        let first = !self.busy.contains_key(&key) && self.waiting.iter().all(|job| job.key != key);
        self.counters.enqueued += 1;
        self.waiting.push_back(Waiting { key, step, first });
    }

    /// The next step that may begin; the index is asked now: while the step waited, its object may have
    /// come, or the cluster may have been rewound. Call [`Self::done`] with its key when it has ended.
    pub(crate) fn next(&mut self, now: Millis, index: impl FnOnce(&Step) -> Option<bool>) -> Option<Job> {
        let limit = self.limit.limit(now);
        if limit == 0 {
            return None;
        }
        let (busy, kinds) = (self.busy.len(), self.kinds_busy());
        // A kind whose steps hang takes every place, and the limit down with it; others get through.
        let has_place = |gk: &GroupKind| busy < limit || (busy < limit + SPARE_KINDS && !kinds.contains(gk));
        let may = |job: &Waiting| !self.busy.contains_key(&job.key) && has_place(&job.key.gk);
        let at = self.waiting.iter().position(may)?;
        let Waiting { key, step, first } = self.waiting.remove(at)?;
        let present = if first { index(&step) } else { None };
        let job = Job { key, step, present };
        self.busy.insert(job.key.clone(), Lane::of(&job));
        self.counters.dequeued += 1;
        Some(job)
    }

    fn kinds_busy(&self) -> BTreeSet<&GroupKind> {
        self.busy.keys().map(|key| &key.gk).collect()
    }

    /// The step of this object has ended. What came of it tells how many the server takes.
    pub(crate) fn done(&mut self, key: &ObjectKey, outcome: &v1::Outcome, now: Millis) {
        let in_flight = self.busy.len();
        let Some(lane) = self.busy.remove(key) else { return };
        let took_us = outcome.took_us;
        match (&outcome.result, lane) {
            (Some(Done::Failed(failed)), _) => match failed.known_class() {
                FailureClass::Throttled { .. } => {
                    self.limit.on_throttled(took_us, failed.retry_after_ms, now);
                }
                FailureClass::Timeout | FailureClass::Unreachable => self.limit.on_timeout(took_us, now),
                _ => {}
            },
            (Some(_), Some(lane)) => self.limit.on_answer(lane, took_us, in_flight, now),
            (Some(_), None) | (None, _) => {}
        }
    }

    /// Steps that may be under way now; 0 while the server has asked for patience.
    pub(crate) fn limit(&self, now: Millis) -> usize {
        self.limit.limit(now)
    }

    /// How often that number was made smaller, and why.
    pub(crate) fn decreases(&self) -> impl Iterator<Item = (Congestion, u64)> {
        self.limit.decreases()
    }

    /// Drops a step that has not begun.
    pub(crate) fn cancel(&mut self, step: u64) {
        let before = self.waiting.len();
        self.waiting.retain(|job| job.step.step != step);
        self.counters.dropped += (before - self.waiting.len()) as u64;
    }

    /// Drops all that have not begun: the stream they came on is gone.
    pub(crate) fn clear(&mut self) {
        self.counters.dropped += self.waiting.len() as u64;
        self.waiting.clear();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn counters(&self) -> StepCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: u64, name: &str) -> Step {
        Step { step: number, kind: "ConfigMap".into(), name: name.into(), ..Step::default() }
    }

    /// An index that is sure that nothing is there.
    #[allow(clippy::unnecessary_wraps)] // as the queue wants it
    fn absent(_: &Step) -> Option<bool> {
        Some(false)
    }

    fn failed(class: FailureClass, retry_after_ms: u64) -> v1::Outcome {
        let failed = v1::Failed { retry_after_ms, ..v1::Failed::of(class, "") };
        v1::Outcome { result: Some(Done::Failed(failed)), took_us: 1_000, ..v1::Outcome::default() }
    }

    fn applied(took_us: u32) -> v1::Outcome {
        let result = Some(Done::Applied(v1::Applied::default()));
        v1::Outcome { result, took_us, ..v1::Outcome::default() }
    }

    /// A queue of applies that are under way up to the limit.
    fn busy(at_once: usize) -> (StepQueue, VecDeque<Job>) {
        let mut queue = StepQueue::new(at_once);
        for number in 0..500 {
            let apply =
                v1::Apply { expect: Some(Expect::Absent(v1::Absent::default())), ..Default::default() };
            let action = Some(Action::Apply(apply));
            queue.push(Step { action, ..step(number, &format!("o{number}")) });
        }
        let jobs = std::iter::from_fn(|| queue.next(0, absent)).collect();
        (queue, jobs)
    }

    #[test]
    fn one_step_per_object_in_order_and_a_bound_on_all() {
        let mut queue = StepQueue::new(2);
        for (number, name) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
            queue.push(step(number, name));
        }
        let (a, b) = (queue.next(0, absent).unwrap(), queue.next(0, absent).unwrap());
        assert_eq!((a.step.step, a.present), (1, Some(false)));
        assert_eq!(b.step.step, 3);
        assert_eq!(queue.next(0, absent), None, "two at a time");
        queue.done(&a.key, &applied(3_000), 3);
        let again = queue.next(3, absent).unwrap();
        assert_eq!((again.step.step, again.present), (2, None), "the first step may have changed it");
        queue.done(&b.key, &applied(3_000), 3);
        assert_eq!(queue.next(3, absent).unwrap().step.step, 4);
    }

    #[test]
    fn i6_a_step_goes_by_what_the_index_says_when_it_begins() {
        let mut queue = StepQueue::new(1);
        queue.push(step(1, "a"));
        queue.push(step(2, "b"));
        let first = queue.next(0, absent).unwrap();
        // Meanwhile the cluster is rewound: the index is sure of nothing any more.
        queue.done(&first.key, &applied(3_000), 3);
        assert_eq!(queue.next(3, |_| None).unwrap().present, None);
    }

    #[test]
    fn i12_a_kind_that_hangs_leaves_a_place_to_each_of_the_others() {
        let (mut queue, hanging) = busy(8);
        assert_eq!(hanging.len(), 8);
        for (number, kind) in [(900, "Secret"), (901, "Secret"), (902, "Service")] {
            queue.push(Step { kind: kind.into(), ..step(number, &format!("x{number}")) });
        }
        assert_eq!(queue.next(0, absent).unwrap().step.step, 900);
        assert_eq!(queue.next(0, absent).unwrap().step.step, 902, "one of each kind");
        assert_eq!(queue.next(0, absent), None);
    }

    #[test]
    fn a_server_that_keeps_up_gets_more_at_a_time() {
        let (mut queue, mut jobs) = busy(32);
        assert_eq!(jobs.len(), 8);
        for now in 0..400 {
            let job = jobs.pop_front().unwrap();
            queue.done(&job.key, &applied(3_000), now);
            jobs.extend(std::iter::from_fn(|| queue.next(now, absent)));
        }
        assert!(jobs.len() > 25 && jobs.len() <= 32, "{}", jobs.len());
    }

    #[test]
    fn a_server_that_throttles_gets_a_pause_and_then_less() {
        let (mut queue, mut jobs) = busy(32);
        let throttled = FailureClass::Throttled { retry_after_ms: 0 };
        queue.done(&jobs.pop_front().unwrap().key, &failed(throttled, 2_000), 100);
        assert_eq!((queue.next(100, absent), queue.limit(100)), (None, 0));
        assert_eq!((queue.next(2_100, absent), queue.limit(2_100)), (None, 5), "seven are still under way");
        queue.done(&jobs.pop_front().unwrap().key, &failed(FailureClass::Timeout, 0), 2_200);
        assert_eq!(queue.limit(2_200), 2);
        queue.done(&jobs.pop_front().unwrap().key, &failed(FailureClass::Forbidden, 0), 2_300);
        assert_eq!(queue.limit(2_300), 2, "a clear answer");
        let counts: Vec<_> = queue.decreases().map(|(why, count)| (why.code(), count)).collect();
        assert_eq!(counts, [("Throttled", 1), ("Unanswered", 1)]);
    }

    #[test]
    fn what_has_not_begun_can_be_dropped() {
        let mut queue = StepQueue::new(1);
        (1..=4).for_each(|number| queue.push(step(number, "a")));
        queue.next(0, absent).unwrap();
        queue.cancel(1);
        queue.cancel(3);
        assert_eq!(queue.waiting(), 2);
        queue.clear();
        assert_eq!(queue.counters(), StepCounters { enqueued: 4, dequeued: 1, dropped: 3 });
    }
}
