//! Acts, and the tombstones that belong to them.

use lockstep_engine::acts::{ActKind, Span};
use lockstep_engine::object::OwnerReference;
use lockstep_engine::{ClusterId, GroupKind, Uid};

use super::{Bed, key, tombstone, within};
use crate::store::{
    ActFilter, ActRow, Cause, Facts, Kin, Lives, Reader, RetainStore, Store, TombstoneFilter, TombstoneRow,
};

fn namespace_act() -> ActRow {
    ActRow {
        id: 0,
        cluster: ClusterId(1),
        kind: ActKind::Namespace,
        root: Some((key("Namespace", "", "shop"), Uid::new("n1"))),
        contents: None,
        policy: None,
        began: Some(10),
        ended: None,
        over: false,
        started_at: 50,
        last_at: 50,
        members: 0,
    }
}

fn gone(name: &str, ended: Option<u64>, at: i64) -> TombstoneRow {
    let ended = ended.map(|at| Span { from: at, to: at });
    TombstoneRow {
        uid: Uid::new(name),
        facts: Facts { ended, ..Facts::default() },
        ..tombstone(1, key("ConfigMap", "shop", name), at)
    }
}

pub(super) fn acts_count_their_members_and_groups_are_listed<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let (act, ours, ids) = within(&mut store, |store| {
        let act = store.create_act(&namespace_act(), 0).unwrap();
        let ours =
            ActRow { kind: ActKind::Lockstep, root: None, policy: Some("p".into()), ..namespace_act() };
        let ours = store.create_act(&ours, 0).unwrap();
        let mut image = gone("d", None, 70);
        image.deleted = false;
        let rows = [gone("a", Some(11), 40), gone("b", Some(12), 60), gone("c", Some(13), 61), image];
        let ids: Vec<i64> = rows.iter().map(|row| store.put_tombstone(row).unwrap()).collect();
        store.set_act(ids[0], Some(act)).unwrap();
        (act, ours, ids)
    });
    assert_eq!(store.acts(&ActFilter::default(), 9).unwrap(), [], "one alone is no group");
    within(&mut store, |store| {
        store.set_act(ids[1], Some(act)).unwrap();
        store.set_act(ids[1], Some(act)).unwrap();
        store.set_act(ids[2], Some(ours)).unwrap();
        store.set_act(ids[3], Some(ours)).unwrap();
        store.end_life(act, Some(20)).unwrap();
        store.touch_act(ours, 80).unwrap();
    });
    let row = ActRow { id: act, ended: Some(20), started_at: 40, last_at: 60, members: 2, ..namespace_act() };
    drop(store);
    let mut store = bed.open();
    assert_eq!(store.act(act).unwrap().as_ref(), Some(&row));
    assert_eq!(store.acts(&ActFilter::default(), 9).unwrap(), [row]);
    within(&mut store, |store| store.set_deleted(ids[3], true).unwrap());
    let list = |store: &mut B::Store, filter: ActFilter| -> Vec<i64> {
        store.acts(&filter, 9).unwrap().into_iter().map(|row| row.id).collect()
    };
    let any = ActFilter::default;
    assert_eq!(list(&mut store, any()), [ours, act], "the newest first");
    assert_eq!(list(&mut store, ActFilter { since: Some(61), ..any() }), [ours]);
    assert_eq!(list(&mut store, ActFilter { kind: Some(ActKind::Namespace), ..any() }), [act]);
    assert_eq!(list(&mut store, ActFilter { cluster: Some(ClusterId(2)), ..any() }), [0_i64; 0]);
    let members =
        store.tombstones(&TombstoneFilter { act: Some(act), ..TombstoneFilter::default() }, 9).unwrap();
    assert_eq!(members.iter().map(|row| row.id).collect::<Vec<_>>(), [ids[1], ids[0]]);
    within(&mut store, |store| {
        store.forget_tombstone(ids[0]).unwrap();
        store.forget_tombstone(ids[0]).unwrap();
        store.set_act(ids[1], None).unwrap();
    });
    assert_eq!(store.act(act).unwrap().unwrap().members, 0);
    assert_eq!(store.tombstone(ids[0]).unwrap(), None);
    within(&mut store, |store| store.create_act(&namespace_act(), 61).unwrap());
    assert_eq!(store.act(act).unwrap(), None, "it has no members, and is old");
}

pub(super) fn acts_and_kin_are_found<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let crontabs = GroupKind::new("stable.example.com", "CronTab");
    let owner = OwnerReference {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        name: "web".into(),
        uid: "a".into(),
        controller: Some(true),
    };
    let ids = within(&mut store, |store| {
        let of = |kind, root, contents: Option<GroupKind>| ActRow { kind, root, contents, ..namespace_act() };
        let mut acts = vec![store.create_act(&namespace_act(), 0).unwrap()];
        let root = Some((key("CustomResourceDefinition", "", "crontabs.stable.example.com"), Uid::new("d1")));
        acts.push(store.create_act(&of(ActKind::Definition, root, Some(crontabs.clone())), 0).unwrap());
        for last_at in [70, 60] {
            let ours = ActRow { policy: Some("p".into()), last_at, ..of(ActKind::Lockstep, None, None) };
            acts.push(store.create_act(&ours, 0).unwrap());
        }
        let root = Some((key("Deployment", "shop", "web"), Uid::new("a")));
        acts.push(store.create_act(&of(ActKind::Owner, root, None), 0).unwrap());
        acts
    });
    let [a, c, e] = ["a", "c", "e"].map(Uid::new);
    let found = |store: &mut B::Store, of: Lives<'_>| -> Vec<i64> {
        store.lives(ClusterId(1), of).unwrap().into_iter().map(|row| row.id).collect()
    };
    assert_eq!(found(&mut store, Lives::Namespace("shop")), ids[..1]);
    assert_eq!(found(&mut store, Lives::Namespace("other")), [0_i64; 0]);
    assert_eq!(found(&mut store, Lives::Definition(&crontabs)), ids[1..2]);
    assert_eq!(found(&mut store, Lives::Lockstep("p")), ids[2..3], "the latest");
    assert_eq!(found(&mut store, Lives::Of(&a)), ids[4..]);
    assert_eq!(store.lives(ClusterId(2), Lives::Namespace("shop")).unwrap(), []);
    let gones = within(&mut store, |store| {
        let mut child = gone("b", Some(12), 2);
        child.facts.owners = vec![owner];
        child.facts.alive = 3;
        let ours = TombstoneRow { cause: Cause::Lockstep { policy: "p".into() }, ..gone("c", None, 3) };
        let image = TombstoneRow { deleted: false, ..ours.clone() };
        let rows = [gone("a", Some(11), 1), child, ours, image, gone("e", None, 4)];
        rows.iter().map(|row| store.put_tombstone(row).unwrap()).collect::<Vec<_>>()
    });
    let kin = |store: &mut B::Store, of: Kin<'_>| -> Vec<i64> {
        store.kin(ClusterId(1), of).unwrap().into_iter().map(|deleted| deleted.id).collect()
    };
    assert_eq!(kin(&mut store, Kin::Uid(&a)), gones[..1]);
    assert_eq!(kin(&mut store, Kin::Uid(&c)), gones[2..3], "not an image");
    assert_eq!(kin(&mut store, Kin::Uid(&e)), [0_i64; 0], "nobody knows when it ended");
    assert_eq!(kin(&mut store, Kin::Owner(&a)), gones[1..2]);
    assert_eq!(kin(&mut store, Kin::Namespace("shop", 11)), gones[..2]);
    assert_eq!(kin(&mut store, Kin::Namespace("shop", 12)), gones[1..2]);
    assert_eq!(kin(&mut store, Kin::Kind(&super::config_maps(), 12)), gones[1..2]);
    assert_eq!(kin(&mut store, Kin::Id(gones[1])), gones[1..2]);
    let child = store.kin(ClusterId(1), Kin::Id(gones[1])).unwrap().remove(0);
    assert_eq!((child.ended, child.alive), (Some(Span { from: 12, to: 12 }), 3));
    assert_eq!((child.owner, child.by_lockstep), (Some(Uid::new("a")), false));
    within(&mut store, |store| {
        store.set_act(gones[0], Some(ids[4])).unwrap();
        store.set_act(gones[1], Some(ids[4])).unwrap();
        store.void_versions(ClusterId(1)).unwrap();
    });
    assert_eq!(found(&mut store, Lives::Namespace("shop")), [0_i64; 0]);
    assert_eq!(kin(&mut store, Kin::Uid(&a)), [0_i64; 0]);
    assert_eq!(store.acts(&ActFilter::default(), 9).unwrap().len(), 1, "groups stay what they are");
}
