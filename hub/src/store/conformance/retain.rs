//! How long tombstones are kept.

use lockstep_engine::{ClusterId, Uid};

use super::{Bed, full_placement, key, placement, tombstone, within};
use crate::store::{
    Cause, DeleteStage, Filed, Hold, Need, PlacementRow, Reader, RetainReader, RetainStore, RetainedRow,
    SourceRef, Store, TombstoneRow, Waiting,
};

/// (object, deleted at) in cluster 1, and for every other one in cluster 2.
const ROWS: [(&str, i64); 5] = [("x", 10), ("y", 40), ("x", 30), ("x", 30), ("y", 20)];

fn filled<B: Bed>(bed: &B) -> B::Store {
    let mut store = bed.open();
    within(&mut store, |store| {
        for (n, (name, at)) in (0_u32..).zip(ROWS) {
            store.put_tombstone(&tombstone(1 + n % 2, key("ConfigMap", "n", name), at)).unwrap();
        }
    });
    store
}

pub(super) fn walks_see_every_tombstone_once<B: Bed>(bed: &B) {
    let mut store = filled(bed);
    let ids = |rows: &[RetainedRow]| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    let all = store.retained(None, 9).unwrap();
    assert_eq!(ids(&all), [2, 5, 4, 3, 1], "object by object, the newest first");
    for size in 1..6 {
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let page = store.retained(after.as_ref(), size).unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.key.clone(), last.deleted_at, last.id));
            seen.extend(page);
        }
        assert_eq!(seen, all, "in pages of {size}");
    }
    let by_age = store.retained_by_age((i64::MIN, 0), 9).unwrap();
    assert_eq!(ids(&by_age), [1, 5, 3, 4, 2]);
    assert_eq!(ids(&store.retained_by_age((30, 3), 1).unwrap()), [4]);
    assert_eq!(store.retained_one(4).unwrap().as_ref(), by_age.get(3));
    assert_eq!(store.retained_one(9).unwrap(), None);
}

pub(super) fn holds_files_and_keys_are_told<B: Bed>(bed: &B) {
    let mut store = filled(bed);
    assert_eq!(store.waiting().unwrap(), Waiting { count: 5, oldest: Some(10) });
    let file =
        |n: i64, key: Option<&str>| Filed { path: format!("v1/{n}"), size: 7, key: key.map(str::to_owned) };
    let hold = Hold { reason: "case 7".into(), by: "jane".into(), at_ms: 5 };
    within(&mut store, |store| {
        for n in 1..4 {
            store.set_archived(n, &file(n, (n > 1).then_some("old"))).unwrap();
        }
        store.set_hold(2, Some(&hold)).unwrap();
        store.set_hold(3, Some(&hold)).unwrap();
        store.set_hold(3, None).unwrap();
    });
    assert_eq!(store.waiting().unwrap(), Waiting { count: 2, oldest: Some(30) });
    assert_eq!(store.archive_bytes().unwrap(), 21);
    assert_eq!((store.hold(2).unwrap(), store.hold(3).unwrap()), (Some(hold), None));
    assert!(store.retained_one(2).unwrap().unwrap().held && store.tombstone(2).unwrap().unwrap().facts.held);
    assert!(!store.retained_one(3).unwrap().unwrap().held);
    assert_eq!(store.filed_at(&Uid::new("u"), "v1/2").unwrap(), Some(2));
    assert_eq!(store.filed_at(&Uid::new("v"), "v1/2").unwrap(), None);
    assert_eq!(store.sealing_keys().unwrap(), [("old".to_owned(), 2)]);
    let otherwise = [(2, "v1/2".to_owned()), (3, "v1/3".to_owned())];
    assert_eq!(store.sealed_otherwise("new", 0, 9).unwrap(), otherwise);
    assert_eq!(store.sealed_otherwise("new", 2, 9).unwrap(), otherwise[1..]);
    assert!(store.sealed_otherwise("old", 0, 9).unwrap().is_empty());
    within(&mut store, |store| {
        store.set_filed(2, &Filed { size: 9, ..file(2, Some("new")) }).unwrap();
        store.forget_tombstone(3).unwrap();
    });
    assert_eq!(store.sealing_keys().unwrap(), [("new".to_owned(), 1)]);
    assert_eq!((store.archive_bytes().unwrap(), store.tombstone(3).unwrap()), (16, None));
}

pub(super) fn who_needs_a_tombstone_is_known<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let source = |uid: &str| SourceRef {
        cluster: ClusterId(1),
        namespace: "n".into(),
        name: "x".into(),
        uid: Uid::new(uid),
    };
    let copy = |name: &str, uid: &str| PlacementRow {
        source: Some(source(uid)),
        ..placement(2, key("ConfigMap", "n", name))
    };
    within(&mut store, |store| {
        // An older life, two ends of one life (after a rewind), and a state that a restore threw away.
        for (uid, at, cause) in [
            ("v", 1, Cause::Observed),
            ("u", 2, Cause::Observed),
            ("u", 3, Cause::Inferred),
            ("u", 4, Cause::Rewound),
        ] {
            let row =
                TombstoneRow { cause, uid: Uid::new(uid), ..tombstone(1, key("ConfigMap", "n", "x"), at) };
            store.put_tombstone(&row).unwrap();
        }
        store.put_tombstone(&tombstone(2, key("ConfigMap", "n", "image"), 5)).unwrap();
        store.put_placement(&copy("renamed", "u")).unwrap();
        let delete = Some(DeleteStage::Archiving { tombstone: 5 });
        let image = full_placement(2, key("ConfigMap", "n", "image"));
        store.put_placement(&PlacementRow { delete, ..image }).unwrap();
    });
    let needs = |store: &mut B::Store| (1..7).map(|id| store.need(id).unwrap()).collect::<Vec<_>>();
    let source = Some(Need::Source);
    assert_eq!(needs(&mut store), [None, None, source, source, Some(Need::Delete), None]);
    within(&mut store, |store| {
        store.delete_placement(ClusterId(2), &key("ConfigMap", "n", "renamed")).unwrap();
        store.delete_placement(ClusterId(2), &key("ConfigMap", "n", "image")).unwrap();
    });
    assert_eq!(needs(&mut store), [None; 6]);
}
