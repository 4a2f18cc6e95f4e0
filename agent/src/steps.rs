//! Steps that wait to be carried out: one at a time per object, so many at a time in all. Pure.

use std::collections::{BTreeSet, VecDeque};

use lockstep_engine::{GroupKind, ObjectKey};
use lockstep_wire::v1::Step;

/// A step to be carried out now.
#[derive(Debug, PartialEq)]
pub(crate) struct Job {
    pub(crate) key: ObjectKey,
    pub(crate) step: Step,
    /// What the index said of the object when the step came; nothing where it could not tell, or
    /// where another step of the object was before this one.
    pub(crate) present: Option<bool>,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepCounters {
    pub(crate) enqueued: u64,
    pub(crate) dequeued: u64,
    pub(crate) dropped: u64,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct StepQueue {
    at_once: usize,
    waiting: VecDeque<Job>,
    busy: BTreeSet<ObjectKey>,
    counters: StepCounters,
}

impl StepQueue {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { at_once, waiting: VecDeque::new(), busy: BTreeSet::new(), counters: StepCounters::default() }
    }

    pub(crate) fn push(&mut self, step: Step, present: Option<bool>) {
        let key = ObjectKey::new(GroupKind::new(&step.group, &step.kind), &step.namespace, &step.name);
        let first = !self.busy.contains(&key) && self.waiting.iter().all(|job| job.key != key);
        self.counters.enqueued += 1;
        self.waiting.push_back(Job { key, step, present: present.filter(|_| first) });
    }

    /// The next step that may begin. Call [`Self::done`] with its key when it has ended.
    pub(crate) fn next(&mut self) -> Option<Job> {
        if self.busy.len() >= self.at_once {
            return None;
        }
        let at = self.waiting.iter().position(|job| !self.busy.contains(&job.key))?;
        let job = self.waiting.remove(at)?;
        self.busy.insert(job.key.clone());
        self.counters.dequeued += 1;
        Some(job)
    }

    pub(crate) fn done(&mut self, key: &ObjectKey) {
        self.busy.remove(key);
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

    #[test]
    fn one_step_per_object_in_order_and_a_bound_on_all() {
        let mut queue = StepQueue::new(2);
        for (number, name) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
            queue.push(step(number, name), Some(false));
        }
        let (a, b) = (queue.next().unwrap(), queue.next().unwrap());
        assert_eq!((a.step.step, a.present), (1, Some(false)));
        assert_eq!(b.step.step, 3);
        assert_eq!(queue.next(), None, "two at a time");
        queue.done(&a.key);
        let again = queue.next().unwrap();
        assert_eq!((again.step.step, again.present), (2, None), "the first step may have changed it");
        queue.done(&b.key);
        assert_eq!(queue.next().unwrap().step.step, 4);
    }

    #[test]
    fn what_has_not_begun_can_be_dropped() {
        let mut queue = StepQueue::new(1);
        (1..=4).for_each(|number| queue.push(step(number, "a"), None));
        queue.next().unwrap();
        queue.cancel(1);
        queue.cancel(3);
        assert_eq!(queue.waiting(), 2);
        queue.clear();
        assert_eq!(queue.counters(), StepCounters { enqueued: 4, dequeued: 1, dropped: 3 });
    }
}
