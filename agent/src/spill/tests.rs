//! The file on a real disk, and deltas that go through it.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;

use bytes::Bytes;
use lockstep_engine::ResourceVersion;
use lockstep_engine::coalesce::{Coalesce, CoalescingQueue, DeltaKind, Limits};
use lockstep_wire::v1::{self, Item, item::Change};
use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const INSTANCE: &str = "0123456789abcdef";

fn spill(dir: &tempfile::TempDir, max_bytes: u64) -> Spill {
    Spill::open(dir.path(), "a", INSTANCE, max_bytes).unwrap()
}

fn names(dir: &tempfile::TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn length(spill: &Spill) -> u64 {
    spill.file().metadata().unwrap().len()
}

#[test]
fn i13_what_is_spilled_can_be_read_by_this_process_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut spill = spill(&dir, MIB);
    let body = b"canary-in-a-cage".repeat(100);
    let place = spill.put(&body).unwrap();
    assert_eq!(place.read().unwrap(), body);
    let mut raw = vec![0; usize::try_from(length(&spill)).unwrap()];
    spill.file().read_exact_at(&mut raw, 0).unwrap();
    assert!(raw.len() >= body.len() && !raw.windows(6).any(|bytes| bytes == b"canary"));
    assert!(raw.windows(16).collect::<std::collections::BTreeSet<_>>().len() > 1_500, "not even a pattern");
    assert_eq!(spill.file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(&dir), [""; 0], "a crash leaves nothing behind");
}

#[test]
fn a_directory_is_made_private() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("var/spill");
    Spill::open(&inner, "a", INSTANCE, MIB).unwrap();
    assert_eq!(std::fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(Spill::open(&file, "a", INSTANCE, MIB), Err(SpillError::Io(_))));
}

#[test]
fn what_dead_processes_left_is_removed_and_what_is_in_use_stays() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str| File::create_new(dir.path().join(name)).unwrap();
    put("lockstep-spill-a.dead.tmp");
    let in_use = put("lockstep-spill-a.alive.tmp");
    in_use.lock().unwrap();
    let others = ["lockstep-spill-a-b.x.tmp", "lockstep-spill-a.txt", "notes.tmp"];
    others.iter().for_each(|name| drop(put(name)));
    spill(&dir, MIB);
    assert_eq!(
        names(&dir),
        ["lockstep-spill-a-b.x.tmp", "lockstep-spill-a.alive.tmp", "lockstep-spill-a.txt", "notes.tmp"]
    );
}

#[test]
fn space_is_used_again_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut spill = spill(&dir, 3 * SEGMENT);
    let body = vec![7; 100_000];
    // First in, first out, at two thirds of the bound: ten times as much as the file may hold.
    let mut places = VecDeque::new();
    for _ in 0..1_200 {
        places.push_back(spill.put(&body).unwrap());
        if places.len() > 75 {
            assert_eq!(places.pop_front().unwrap().read().unwrap(), body);
        }
    }
    assert_eq!(spill.level(), (75, 75 * 100_016));
    assert!(length(&spill) <= 3 * SEGMENT);
    places.truncate(1);
    assert_eq!(places[0].read().unwrap(), body);
    places.clear();
    assert_eq!((spill.level(), length(&spill)), ((0, 0), 0));
}

#[test]
fn the_bound_is_kept_and_nothing_is_harmed_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let max = SEGMENT + 300_000;
    let mut spill = spill(&dir, max);
    let mut places = Vec::new();
    let error = loop {
        match spill.put(&[1; 99_984]) {
            Ok(place) => places.push(place),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SpillError::Full), "{error}");
    assert_eq!(places.len(), 41 + 3);
    assert!(length(&spill) <= max);
    let too_large = vec![0; usize::try_from(SEGMENT).unwrap()];
    assert!(matches!(spill.put(&too_large), Err(SpillError::TooLarge)));
    places.drain(..41);
    assert_eq!(spill.put(&[2; 99_984]).unwrap().read().unwrap(), [2; 99_984]);
    assert!(places.iter().all(|place| place.read().unwrap() == [1; 99_984]));
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_trace() {
    let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let mut spill = Spill::over(full, MIB).unwrap();
    for _ in 0..3 {
        let Err(SpillError::Io(error)) = spill.put(b"body") else { panic!("/dev/full took it") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
    assert_eq!(spill.level(), (0, 0));
}

#[test]
fn a_file_that_was_changed_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut spill = spill(&dir, MIB);
    let (one, two) = (spill.put(b"one").unwrap(), spill.put(b"two").unwrap());
    let mut bytes = [0; 19];
    spill.file().read_exact_at(&mut bytes, one.at).unwrap();
    spill.file().write_all_at(&bytes, two.at).unwrap();
    assert_eq!(one.read().unwrap(), b"one");
    assert!(matches!(two.read(), Err(SpillError::Altered)), "moved");
    spill.file().set_len(two.at).unwrap();
    assert!(matches!(two.read(), Err(SpillError::Io(_))), "cut off");
}

/// An item as an agent makes them: `size` bytes of body, or of an error.
fn item() -> impl Strategy<Value = Item> {
    let body = prop_oneof![Just(0), 1..3_000_usize].prop_map(|size| Bytes::from(vec![b'x'; size]));
    let upsert = (body.clone(), any::<bool>(), any::<bool>(), prop::option::of(0..40_usize)).prop_map(
        |(body, left, deleting, managers)| {
            let manager = || v1::Manager { name: "somebody".into(), ..Default::default() };
            let managed = managers.map(|count| v1::Managed {
                managers: (0..count).map(|_| manager()).collect(),
                ..Default::default()
            });
            Change::Upsert(v1::Upsert {
                left: left && body.is_empty(),
                body,
                managed,
                deleting,
                ..v1::Upsert::default()
            })
        },
    );
    let delete = (body, any::<bool>())
        .prop_map(|(body, inferred)| Change::Delete(v1::Delete { body, inferred, ..v1::Delete::default() }));
    let undecodable =
        (0..900_usize).prop_map(|size| Change::Undecodable(v1::Undecodable { error: "e".repeat(size) }));
    let change = prop_oneof![4 => upsert, 2 => delete, 1 => undecodable];
    (0..6_u8, 0..3_u8, change).prop_map(|(name, uid, change)| Item {
        namespace: "shop".into(),
        name: format!("o{name}"),
        uid: format!("u{uid}"),
        resource_version: "1".into(),
        observed_ms: 7,
        change: Some(change),
        ..Item::default()
    })
}

fn key(item: &Item) -> Key {
    Arc::new((item.namespace.as_str().into(), item.name.as_str().into()))
}

fn facts(held: &Held) -> (DeltaKind, [bool; 3], String, usize) {
    let flags = [held.has_body(), held.left(), held.deleting()];
    (held.kind(), flags, held.uid().to_owned(), held.size())
}

#[derive(Clone, Debug)]
enum Op {
    Push(Box<Item>),
    Spill { from: u64, count: usize },
    Take { bytes: usize },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        5 => item().prop_map(|item| Op::Push(Box::new(item))),
        3 => (0..20_u64, 1..9_usize).prop_map(|(from, count)| Op::Spill { from, count }),
        1 => (0..5_000_usize).prop_map(|bytes| Op::Take { bytes }),
    ];
    prop::collection::vec(op, 0..60)
}

proptest! {
    #[test]
    fn an_item_comes_back_as_it_went(item in item()) {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = spill(&dir, MIB);
        let mut held = Held::new(item.clone());
        let (before, weight) = (facts(&held), held.weight());
        let freed = held.spill(&key(&item), &mut spill).unwrap();
        prop_assert_eq!(facts(&held), before);
        prop_assert_eq!(held.weight() + freed, weight);
        prop_assert_eq!(held.into_item().unwrap(), item);
        prop_assert_eq!(spill.level(), (0, 0));
    }

    /// Nothing is lost, and nothing is told that would not have been: a queue whose deltas go to disk
    /// and back gives exactly what one that keeps them gives.
    #[test]
    fn a_queue_that_spills_gives_what_one_that_does_not_gives(ops in ops()) {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = spill(&dir, MIB);
        let limits = Limits { bytes: 1 << 20, count: 1 << 20 };
        let (mut plain, mut spilling) = (CoalescingQueue::new(limits), CoalescingQueue::new(limits));
        let mut version = 0;
        for op in ops.into_iter().chain([Op::Take { bytes: usize::MAX }]) {
            match op {
                Op::Push(item) => {
                    version += 1;
                    let item = Item { resource_version: version.to_string(), ..*item };
                    let reached = Some(ResourceVersion::new(&item.resource_version));
                    plain.push(key(&item), item.clone(), reached.clone());
                    spilling.push(key(&item), Held::new(item), reached);
                }
                Op::Spill { from, mut count } => {
                    spilling.lighten(from, |key, held| {
                        held.spill(key, &mut spill).unwrap();
                        count -= 1;
                        if count == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    });
                }
                Op::Take { bytes } => {
                    let (plain, spilling) = (plain.take_batch(bytes), spilling.take_batch(bytes));
                    let (items, checkpoint, bytes) = match spilling {
                        Some(section) => (section.items, section.checkpoint, section.bytes),
                        None => (Vec::new(), None, 0),
                    };
                    let items: Vec<Item> = items.into_iter().map(|held| held.into_item().unwrap()).collect();
                    let expected = plain.map(|section| (section.items, section.checkpoint, section.bytes));
                    prop_assert_eq!((items, checkpoint, bytes), expected.unwrap_or_default());
                }
            }
        }
        prop_assert_eq!((spilling.len(), spilling.bytes(), spill.level()), (0, 0, (0, 0)));
        prop_assert_eq!(spilling.counters(), plain.counters());
        prop_assert_eq!(length(&spill), 0);
    }
}

#[test]
fn what_stays_of_a_spilled_delta_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let mut spill = spill(&dir, MIB);
    let body = Bytes::from(vec![b'x'; 1_300]);
    let change = Some(Change::Delete(v1::Delete { body, ..v1::Delete::default() }));
    let item = Item { name: "settings".into(), uid: "u".repeat(36), change, ..Item::default() };
    let mut held = Held::new(item.clone());
    held.spill(&key(&item), &mut spill).unwrap();
    assert!(held.weight() < 512, "{}", held.weight());
    assert!(size_of::<Held>() <= 16, "the queue's own entries do not grow with what they hold");
}
