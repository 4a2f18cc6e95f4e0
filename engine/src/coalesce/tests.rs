//! Rules of the coalescing queue, one by one and as laws.

mod lighten;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A delta of the model: `version` orders the states of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct D {
    kind: DeltaKind,
    uid: String,
    body: bool,
    left: bool,
    deleting: bool,
    version: u64,
    /// First seen deleting then, if this took that one's place.
    since: Option<u64>,
}

impl Coalesce for D {
    fn kind(&self) -> DeltaKind {
        self.kind
    }
    fn uid(&self) -> &str {
        &self.uid
    }
    fn has_body(&self) -> bool {
        self.body
    }
    fn left(&self) -> bool {
        self.left
    }
    fn set_left(&mut self) {
        self.left = true;
    }
    fn deleting(&self) -> bool {
        self.deleting
    }
    fn deleting_since(&self) -> Option<ResourceVersion> {
        self.deleting.then(|| rv(self.since.unwrap_or(self.version)))
    }
    fn set_deleting_since(&mut self, since: &ResourceVersion) {
        self.since = since.ordinal();
    }
    fn weight(&self) -> usize {
        if self.body { 100 } else { 10 }
    }
}

fn upsert(uid: &str, body: bool) -> D {
    D {
        kind: DeltaKind::Upsert,
        uid: uid.into(),
        body,
        left: false,
        deleting: false,
        version: 0,
        since: None,
    }
}

fn delete(uid: &str, body: bool) -> D {
    D { kind: DeltaKind::Delete, ..upsert(uid, body) }
}

fn rv(n: u64) -> ResourceVersion {
    ResourceVersion::new(&n.to_string())
}

const WIDE: Limits = Limits { bytes: 1 << 20, count: 1 << 20 };

fn check(pushed: &[D], expect: &[D]) {
    let mut queue = CoalescingQueue::new(WIDE);
    for (n, delta) in pushed.iter().enumerate() {
        queue.push("k", delta.clone(), Some(rv(n as u64 + 1)));
    }
    let section = queue.take_batch(usize::MAX).unwrap();
    assert_eq!(section.items, expect);
    assert_eq!(section.checkpoint, Some(rv(pushed.len() as u64)));
    assert_eq!((queue.bytes(), queue.len()), (0, 0));
}

#[test]
fn the_newest_state_of_a_key_is_sent() {
    check(
        &[upsert("u", false), upsert("u", true), D { version: 9, ..upsert("u", true) }],
        &[D { version: 9, ..upsert("u", true) }],
    );
}

#[test]
fn every_end_of_what_holds_others_is_told() {
    let [a, b, c] = ["a", "b", "c"].map(|uid| upsert(uid, false));
    let [a_ends, b_ends] = ["a", "b"].map(|uid| delete(uid, false));
    let lives = [a, a_ends.clone(), b, b_ends.clone(), c.clone()];
    for (told, expect) in [(Lives::Bodies, vec![c.clone()]), (Lives::Ends, vec![a_ends, b_ends, c])] {
        let mut queue = CoalescingQueue::new(WIDE).telling(told);
        lives.iter().for_each(|delta| queue.push("k", delta.clone(), Some(rv(1))));
        assert_eq!(queue.take_batch(usize::MAX).unwrap().items, expect);
    }
}

#[test]
fn a_delete_keeps_its_body_and_swallows_the_create() {
    check(&[upsert("u", true), delete("u", true)], &[delete("u", true)]);
    check(&[upsert("u", false), delete("u", false)], &[delete("u", false)]);
}

#[test]
fn a_delete_with_a_body_survives_the_recreation() {
    let all = [delete("u1", true), upsert("u2", true)];
    check(&all, &all);
    check(&[delete("u1", false), upsert("u2", true)], &[upsert("u2", true)]);
}

#[test]
fn a_last_state_is_not_overwritten_by_a_delete_without_body() {
    let all = [upsert("u", true), delete("u", false)];
    check(&all, &all);
    let all = [upsert("u1", true), upsert("u2", true)];
    check(&all, &all);
    check(&[delete("u", true), delete("u", false)], &[delete("u", true)]);
}

#[test]
fn the_image_from_before_the_deletion_timestamp_is_kept() {
    let deleting = D { deleting: true, ..upsert("u", true) };
    check(
        &[upsert("u", true), deleting.clone(), D { version: 3, ..deleting.clone() }],
        &[upsert("u", true), D { version: 3, since: Some(0), ..deleting }],
    );
}

#[test]
fn what_takes_the_place_of_a_deleting_state_says_since_when() {
    let deleting = |version| D { deleting: true, version, ..upsert("u", false) };
    check(
        &[deleting(4), deleting(5), D { version: 6, ..delete("u", true) }],
        &[D { version: 6, since: Some(4), ..delete("u", true) }],
    );
    check(&[deleting(4), upsert("other", false)], &[upsert("other", false)]);
}

#[test]
fn leaving_is_told_even_when_a_key_only_update_follows() {
    let left = D { left: true, ..upsert("u", false) };
    check(&[left.clone(), upsert("u", false)], std::slice::from_ref(&left));
    check(&[left.clone(), upsert("u", true)], &[upsert("u", true)]);
    let all = [left, delete("u", false)];
    check(&all, &all);
}

#[test]
fn an_undecodable_state_stands_beside_the_last_good_one() {
    let bad = D { kind: DeltaKind::Undecodable, ..upsert("", false) };
    check(&[upsert("u", true), bad.clone()], &[upsert("u", true), bad.clone()]);
    check(&[bad, upsert("u", true)], &[upsert("u", true)]);
}

#[test]
fn a_checkpoint_waits_for_what_is_queued_before_it() {
    let mut queue = CoalescingQueue::new(WIDE);
    queue.push("a", upsert("1", true), Some(rv(1)));
    queue.push("b", upsert("2", true), Some(rv(2)));
    queue.push("a", upsert("1", true), Some(rv(3)));
    queue.bookmark(rv(9));
    let first = queue.take_batch(1).unwrap();
    assert_eq!((first.items.len(), first.checkpoint), (1, Some(rv(1))));
    let second = queue.take_batch(1).unwrap();
    assert_eq!((second.items.len(), second.checkpoint), (1, Some(rv(9))));
    assert_eq!(queue.take_batch(1), None);
    queue.bookmark(rv(10));
    assert!(queue.has_news());
    assert_eq!(queue.take_batch(1).unwrap().checkpoint, Some(rv(10)));
    queue.bookmark(rv(10));
    assert!(!queue.has_news());
}

#[test]
fn a_list_has_no_checkpoint_until_it_completes() {
    let mut queue = CoalescingQueue::new(WIDE);
    queue.push("a", upsert("1", true), Some(rv(1)));
    queue.push("b", upsert("2", true), Some(rv(2)));
    queue.restart();
    queue.push("c", upsert("3", true), None);
    assert_eq!(queue.take_batch(1).unwrap().checkpoint, None);
    queue.bookmark(rv(7));
    assert_eq!(queue.take_batch(usize::MAX).unwrap().checkpoint, Some(rv(7)));
}

#[test]
fn a_position_is_drained_when_all_before_it_was_taken() {
    let mut queue = CoalescingQueue::new(WIDE);
    queue.push("a", upsert("1", true), None);
    queue.push("b", upsert("2", true), None);
    let mark = queue.position();
    queue.push("c", upsert("3", true), None);
    queue.push("a", upsert("1", true), None);
    let mut drained = Vec::new();
    for _ in 0..3 {
        queue.take_batch(1).unwrap();
        drained.push(queue.drained_to(mark));
    }
    assert_eq!(drained, [false, true, true]);
}

#[test]
fn is_full_at_either_bound() {
    let mut queue = CoalescingQueue::new(Limits { bytes: 150, count: 9 });
    queue.push("a", upsert("1", true), None);
    assert!(!queue.is_full());
    queue.push("b", upsert("2", true), None);
    assert!(queue.is_full());
    queue.clear();
    assert!(!queue.is_full());
    assert_eq!(queue.counters(), CoalesceCounters { enqueued: 2, dequeued: 0, dropped: 2 });
}

/// The watch as a test sees it: keys whose objects come, change and go, with fresh uids.
#[derive(Clone, Debug)]
enum Op {
    Change { key: u8, body: bool },
    Delete { key: u8, body: bool },
    Bookmark,
    Take { bytes: usize },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0..5u8, any::<bool>()).prop_map(|(key, body)| Op::Change { key, body }),
        2 => (0..5u8, any::<bool>()).prop_map(|(key, body)| Op::Delete { key, body }),
        1 => Just(Op::Bookmark),
        2 => (0..400usize).prop_map(|bytes| Op::Take { bytes }),
    ];
    prop::collection::vec(op, 0..80)
}

/// What exists under a key: (uid, version of the event that said so).
type State = Option<(String, u64)>;

/// Drives a queue beside a model that keeps everything.
#[derive(Default)]
struct Run {
    version: u64,
    uids: u64,
    now: BTreeMap<u8, State>,
    /// Every state of each key, by the version it came with.
    history: BTreeMap<u8, Vec<(u64, State)>>,
    delivered: BTreeMap<u8, State>,
    bodies_in: BTreeMap<String, u64>,
    bodies_out: BTreeMap<String, u64>,
}

impl Run {
    fn step(&mut self, queue: &mut CoalescingQueue<u8, (u8, D)>, op: &Op) {
        match *op {
            Op::Take { bytes } => self.take(queue, bytes),
            Op::Bookmark => {
                self.version += 1;
                queue.bookmark(rv(self.version));
            }
            Op::Change { key, body } => {
                let uid = match self.now.get(&key).cloned().flatten() {
                    Some((uid, _)) => uid,
                    None => {
                        self.uids += 1;
                        format!("u{}", self.uids)
                    }
                };
                self.push(queue, key, upsert(&uid, body));
            }
            Op::Delete { key, body } => {
                if let Some((uid, _)) = self.now.get(&key).cloned().flatten() {
                    self.push(queue, key, delete(&uid, body));
                }
            }
        }
    }

    fn push(&mut self, queue: &mut CoalescingQueue<u8, (u8, D)>, key: u8, delta: D) {
        self.version += 1;
        let state = (delta.kind == DeltaKind::Upsert).then(|| (delta.uid.clone(), self.version));
        self.now.insert(key, state.clone());
        self.history.entry(key).or_default().push((self.version, state));
        if delta.body {
            self.bodies_in.insert(delta.uid.clone(), self.version);
        } else if delta.kind == DeltaKind::Upsert {
            // A key-only update replaces a body that was not delivered: the object lives on.
            self.bodies_in.remove(&delta.uid);
        }
        let delta = D { version: self.version, ..delta };
        queue.push(key, (key, delta), Some(rv(self.version)));
    }

    fn take(&mut self, queue: &mut CoalescingQueue<u8, (u8, D)>, bytes: usize) {
        let Some(section) = queue.take_batch(bytes) else { return };
        for (key, delta) in section.items {
            if delta.body {
                self.bodies_out.insert(delta.uid.clone(), delta.version);
            }
            let state = (delta.kind == DeltaKind::Upsert).then_some((delta.uid, delta.version));
            self.delivered.insert(key, state);
        }
        let Some(checkpoint) = section.checkpoint.and_then(|c| c.ordinal()) else { return };
        for (key, history) in &self.history {
            let covered = history.iter().rposition(|(version, _)| *version <= checkpoint);
            let Some(covered) = covered else { continue };
            let delivered = self.delivered.get(key).cloned().flatten();
            assert!(
                history[covered..].iter().any(|(_, state)| *state == delivered),
                "checkpoint {checkpoint} is ahead of key {key}: {delivered:?} in {history:?}"
            );
        }
    }
}

impl Coalesce for (u8, D) {
    fn kind(&self) -> DeltaKind {
        self.1.kind()
    }
    fn uid(&self) -> &str {
        self.1.uid()
    }
    fn has_body(&self) -> bool {
        self.1.has_body()
    }
    fn left(&self) -> bool {
        self.1.left()
    }
    fn set_left(&mut self) {
        self.1.set_left();
    }
    fn deleting(&self) -> bool {
        self.1.deleting()
    }
    fn deleting_since(&self) -> Option<ResourceVersion> {
        self.1.deleting_since()
    }
    fn set_deleting_since(&mut self, since: &ResourceVersion) {
        self.1.set_deleting_since(since);
    }
    fn weight(&self) -> usize {
        self.1.weight()
    }
}

proptest! {
    /// I2, and: draining leads to the state that a queue which keeps everything leads to, with
    /// the last body of every object that went.
    #[test]
    fn i2_a_checkpoint_never_runs_ahead_and_draining_equals_the_naive_model(ops in ops()) {
        let mut queue = CoalescingQueue::new(WIDE);
        let mut run = Run::default();
        for op in &ops {
            run.step(&mut queue, op);
        }
        run.take(&mut queue, usize::MAX);
        prop_assert_eq!(&run.delivered, &run.now);
        for (uid, version) in &run.bodies_in {
            prop_assert!(run.bodies_out.get(uid) >= Some(version), "the last body of {} is lost", uid);
        }
        prop_assert_eq!((queue.len(), queue.bytes()), (0, 0));
        let counters = queue.counters();
        prop_assert_eq!(counters.enqueued, counters.dequeued + counters.dropped);
    }
}
