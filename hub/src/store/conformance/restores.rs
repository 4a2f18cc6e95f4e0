//! Restores and how far they have come.

use lockstep_engine::ClusterId;
use lockstep_engine::restore::{OnConflict, Options, Verdict};

use super::{Bed, key, tombstone, within};
use crate::store::restores::{ItemState, RestoreItemRow, RestoreReader, RestoreRow, RestoreStore};
use crate::store::{Need, RetainReader, Store};

fn item(restore: i64, position: u32, state: ItemState) -> RestoreItemRow {
    RestoreItemRow {
        restore,
        position,
        tombstone: i64::from(position) + 7,
        key: key("Deployment", "shop", "web"),
        dependency: position == 1,
        verdict: Verdict::ALL[position as usize].1,
        state,
        message: "why".to_owned(),
        replaced: (position == 2).then_some(9),
    }
}

pub(super) fn restores_are_noted_object_by_object_and_found_while_under_way<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let options = Options { on_conflict: OnConflict::Rename, status: true, ..Options::default() };
    let mut row = RestoreRow {
        id: 0,
        cluster: ClusterId(3),
        asked_by: "ada".to_owned(),
        asked_at: 11,
        options,
        ended_at: None,
    };
    let ids = within(&mut store, |store| {
        let ids = [store.put_restore(&row).unwrap(), store.put_restore(&row).unwrap()];
        for (at, state) in (0..4).zip(ItemState::ALL) {
            store.put_restore_item(&item(ids[0], at, state)).unwrap();
        }
        ids
    });
    row.id = ids[0];
    assert!(ids[0] < ids[1]);
    assert_eq!(store.restore(ids[0]).unwrap().as_ref(), Some(&row));
    assert_eq!(store.restore(99).unwrap(), None);
    let items: Vec<_> = (0..4).zip(ItemState::ALL).map(|(at, state)| item(ids[0], at, state)).collect();
    assert_eq!(store.restore_items(ids[0]).unwrap(), items);
    within(&mut store, |store| {
        for at in 0..10 {
            store.put_tombstone(&tombstone(3, key("Deployment", "shop", "web"), at)).unwrap();
        }
        let replaces = RestoreItemRow { replaced: Some(3), ..item(ids[0], 0, ItemState::Planned) };
        store.put_restore_item(&replaces).unwrap();
    });
    let needed = |store: &mut B::Store| {
        let ids = (1..=10).filter(|id| store.need(*id).unwrap() == Some(Need::Restore));
        ids.collect::<Vec<_>>()
    };
    assert_eq!(needed(&mut store), [3, 7], "what it writes from, and what it replaced");
    within(&mut store, |store| {
        store.put_restore_item(&item(ids[0], 0, ItemState::Done)).unwrap();
    });
    assert_eq!(needed(&mut store), [0; 0]);
    within(&mut store, |store| {
        store.put_restore_item(&item(ids[1], 0, ItemState::Planned)).unwrap();
        store.end_restore(ids[0], 20).unwrap();
    });
    drop(store);
    let mut store = bed.open();
    assert_eq!(store.restore_items(ids[0]).unwrap()[0].state, ItemState::Done);
    let listed = |rows: Vec<RestoreRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(listed(store.restores(true, 9).unwrap()), [ids[1]]);
    assert_eq!(listed(store.restores(false, 9).unwrap()), [ids[1], ids[0]], "the newest first");
    assert_eq!(listed(store.restores(false, 1).unwrap()), [ids[1]]);
    assert_eq!(store.restore(ids[0]).unwrap().unwrap().ended_at, Some(20));
}
