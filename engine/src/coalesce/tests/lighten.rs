//! Deltas whose bodies lie elsewhere: the queue gives the same as if they did not.

use super::*;

/// A delta that can be made lighter.
#[derive(Clone, Debug)]
struct Light(D, bool);

impl Coalesce for Light {
    fn kind(&self) -> DeltaKind {
        self.0.kind()
    }
    fn uid(&self) -> &str {
        self.0.uid()
    }
    fn has_body(&self) -> bool {
        self.0.has_body()
    }
    fn left(&self) -> bool {
        self.0.left()
    }
    fn set_left(&mut self) {
        self.0.set_left();
    }
    fn deleting(&self) -> bool {
        self.0.deleting()
    }
    fn deleting_since(&self) -> Option<ResourceVersion> {
        self.0.deleting_since()
    }
    fn set_deleting_since(&mut self, since: &ResourceVersion) {
        self.0.set_deleting_since(since);
    }
    fn weight(&self) -> usize {
        if self.1 { 1 } else { self.0.weight() }
    }
    fn size(&self) -> usize {
        self.0.weight()
    }
}

fn lighten_some(queue: &mut CoalescingQueue<u8, Light>, from: u64, mut count: usize) -> u64 {
    queue.lighten(from, |_, delta| {
        delta.1 = true;
        count = count.saturating_sub(1);
        if count == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

fn plain(section: Section<Light>) -> Section<D> {
    let Section { items, checkpoint, bytes } = section;
    Section { items: items.into_iter().map(|Light(delta, _)| delta).collect(), checkpoint, bytes }
}

#[test]
fn what_is_made_lighter_is_counted_so_and_sent_whole() {
    let mut queue = CoalescingQueue::new(Limits { bytes: 250, count: 9 });
    for (n, key) in ["a", "b", "c"].into_iter().enumerate() {
        queue.push(key, Light(upsert("u", true), false), Some(rv(n as u64 + 1)));
    }
    assert!(queue.is_full());
    let mut seen = 0;
    let next = queue.lighten(0, |_, delta| {
        delta.1 = true;
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((next, queue.bytes(), queue.is_full()), (1, 102, false));
    assert_eq!(queue.lighten(2, |_, _| ControlFlow::Continue(())), queue.position());
    queue.push("b", Light(upsert("u", true), false), Some(rv(4)));
    assert_eq!(queue.bytes(), 201, "the newer state is here again");
    let batch = queue.take_batch(200).unwrap();
    assert_eq!((batch.items.len(), batch.bytes, queue.bytes()), (2, 200, 100), "bodies count in messages");
}

#[derive(Clone, Debug)]
enum Step {
    Op(Op),
    Lighten { from: u64, count: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let op = prop_oneof![
        4 => (0..5u8, any::<bool>()).prop_map(|(key, body)| Step::Op(Op::Change { key, body })),
        2 => (0..5u8, any::<bool>()).prop_map(|(key, body)| Step::Op(Op::Delete { key, body })),
        1 => Just(Step::Op(Op::Bookmark)),
        2 => (0..400usize).prop_map(|bytes| Step::Op(Op::Take { bytes })),
        3 => (0..20u64, 1..9usize).prop_map(|(from, count)| Step::Lighten { from, count }),
    ];
    prop::collection::vec(op, 0..80)
}

proptest! {
    /// I2, I14: whatever is made lighter and when, the same deltas come out in the same batches with
    /// the same checkpoints, and no byte is miscounted.
    #[test]
    fn a_queue_with_lighter_deltas_gives_what_one_without_gives(steps in steps()) {
        let mut whole = CoalescingQueue::new(WIDE);
        let mut light = CoalescingQueue::new(WIDE);
        let mut uids = BTreeMap::<u8, u64>::new();
        let mut version = 0;
        for step in steps {
            let (key, delta) = match step {
                Step::Lighten { from, count } => {
                    lighten_some(&mut light, from, count);
                    continue;
                }
                Step::Op(Op::Take { bytes }) => {
                    prop_assert_eq!(light.take_batch(bytes).map(plain), whole.take_batch(bytes));
                    continue;
                }
                Step::Op(Op::Bookmark) => {
                    version += 1;
                    whole.bookmark(rv(version));
                    light.bookmark(rv(version));
                    continue;
                }
                Step::Op(Op::Change { key, body }) => {
                    (key, upsert(&format!("{key}-{}", uids.entry(key).or_default()), body))
                }
                Step::Op(Op::Delete { key, body }) => {
                    let life = uids.entry(key).or_default();
                    *life += 1;
                    (key, delete(&format!("{key}-{}", *life - 1), body))
                }
            };
            version += 1;
            let delta = D { version, ..delta };
            whole.push(key, delta.clone(), Some(rv(version)));
            light.push(key, Light(delta, false), Some(rv(version)));
            prop_assert_eq!(whole.len(), light.len());
            prop_assert!(light.bytes() <= whole.bytes());
        }
        prop_assert_eq!(light.take_batch(usize::MAX).map(plain), whole.take_batch(usize::MAX));
        prop_assert_eq!((light.len(), light.bytes(), light.counters()), (0, 0, whole.counters()));
    }
}
