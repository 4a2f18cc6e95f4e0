//! Tombstones and their outbox.

use lockstep_engine::{ClusterId, GroupKind, Uid};

use super::{Bed, config_maps, key, tombstone, within};
use crate::store::{
    Cause, CauseKind, DeleterRow, Facts, Filed, Reader, RetainStore, Store, TombstoneFilter, TombstoneRow,
};

pub(super) fn tombstones_go_through_the_outbox<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let rows: Vec<_> = within(&mut store, |store| {
        let causes =
            [Cause::Observed, Cause::Inferred, Cause::Lockstep { policy: "p".into() }, Cause::ClusterRemoved];
        let rows = causes.into_iter().zip(["ConfigMap", "Secret", "Deployment"]);
        rows.map(|(cause, kind)| {
            let mut row = TombstoneRow { cause, ..tombstone(1, key(kind, "n", "x"), 10) };
            row.facts.created = Some(-3);
            row.id = store.put_tombstone(&row).unwrap();
            row
        })
        .collect()
    });
    assert!(rows.windows(2).all(|pair| pair[0].id < pair[1].id));
    drop(store);
    let mut store = bed.open();
    assert_eq!(store.outbox(0, 9).unwrap(), rows);
    assert_eq!(store.outbox(rows[0].id, 1).unwrap(), rows[1..2]);
    assert_eq!(store.tombstone(rows[1].id).unwrap().as_ref(), Some(&rows[1]));
    within(&mut store, |store| {
        let file = Filed { path: "v1/a".into(), size: 7, key: None };
        store.set_archived(rows[0].id, &file).unwrap();
        store.set_archived(rows[0].id, &file).unwrap();
    });
    let archived = TombstoneRow {
        body: None,
        path: Some("v1/a".into()),
        facts: Facts { size: 7, ..rows[0].facts.clone() },
        ..rows[0].clone()
    };
    assert_eq!(store.tombstone(rows[0].id).unwrap(), Some(archived));
    assert_eq!(store.outbox(0, 9).unwrap(), rows[1..]);
    assert_eq!(store.tombstone(999).unwrap(), None);
}

pub(super) fn tombstones_are_listed_newest_first<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let ids = within(&mut store, |store| {
        let mut ids = Vec::new();
        for (cluster, kind, namespace, name, at, deleted) in [
            (1, "ConfigMap", "n", "x", 10, true),
            (1, "ConfigMap", "n", "y", 30, true),
            (2, "ConfigMap", "m", "x", 20, true),
            (1, "Secret", "n", "x", 30, true),
            (1, "ConfigMap", "n", "x", 40, false),
        ] {
            let cause = match name {
                "y" => Cause::Lockstep { policy: "p".into() },
                _ => Cause::Observed,
            };
            let row = TombstoneRow { deleted, cause, ..tombstone(cluster, key(kind, namespace, name), at) };
            ids.push(store.put_tombstone(&row).unwrap());
        }
        ids
    });
    let any = TombstoneFilter::default();
    let mut list = |filter: TombstoneFilter, limit| -> Vec<usize> {
        let rows = store.tombstones(&filter, limit).unwrap();
        assert!(rows.iter().all(|row| row.body.is_none()), "listed without bodies");
        rows.iter().map(|row| ids.iter().position(|id| *id == row.id).unwrap()).collect()
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(list(any.clone(), 9), [3, 1, 2, 0]);
    assert_eq!(list(any.clone(), 2), [3, 1]);
    assert_eq!(list(TombstoneFilter { undeleted: true, ..any.clone() }, 9), [4, 3, 1, 2, 0]);
    assert_eq!(list(TombstoneFilter { cluster: Some(ClusterId(1)), ..any.clone() }, 9), [3, 1, 0]);
    assert_eq!(list(TombstoneFilter { gk: Some(config_maps()), ..any.clone() }, 9), [1, 2, 0]);
    assert_eq!(list(TombstoneFilter { namespace: text("n"), ..any.clone() }, 9), [3, 1, 0]);
    assert_eq!(list(TombstoneFilter { name: text("x"), ..any.clone() }, 9), [3, 2, 0]);
    assert_eq!(list(TombstoneFilter { since: Some(20), ..any.clone() }, 9), [3, 1, 2]);
    assert_eq!(list(TombstoneFilter { until: Some(30), ..any.clone() }, 9), [2, 0]);
    for (glob, found) in
        [("*", vec![3, 1, 2, 0]), ("?", vec![3, 1, 2, 0]), ("*x", vec![3, 2, 0]), ("[x]", vec![])]
    {
        assert_eq!(list(TombstoneFilter { name_glob: text(glob), ..any.clone() }, 9), found, "{glob}");
    }
    let because = |cause| TombstoneFilter { cause: Some(cause), ..any.clone() };
    assert_eq!(list(because(CauseKind::Observed), 9), [3, 2, 0]);
    assert_eq!(list(because(CauseKind::Lockstep), 9), [1]);
    assert_eq!(list(TombstoneFilter { policy: text("p"), ..any.clone() }, 9), [1]);
    let exact =
        TombstoneFilter { gk: Some(config_maps()), namespace: text("n"), name: text("x"), ..any.clone() };
    assert_eq!(list(exact, 9), [0]);
    assert!(list(TombstoneFilter { gk: Some(GroupKind::new("", "Unheard")), ..any }, 9).is_empty());
    within(&mut store, |store| {
        store.set_deleted(ids[4], true).unwrap();
        store.set_deleted(ids[0], false).unwrap();
    });
    assert_eq!(store.tombstones(&TombstoneFilter::default(), 9).unwrap()[0].id, ids[4]);
    assert_eq!(store.tombstones(&TombstoneFilter::default(), 9).unwrap().len(), 4);
}

pub(super) fn tombstones_are_found_by_labels_words_and_deleter<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let ids = within(&mut store, |store| {
        let mut ids = Vec::new();
        for (kind, name, labels, text, sealed) in [
            ("ConfigMap", "a", vec![("env", "dev"), ("tier", "web")], "image: registry/nginx:1.19", false),
            ("ConfigMap", "b", vec![("env", "prod")], "the quick brown fox", false),
            ("Secret", "c", vec![("env", "prod")], "canary", false),
            ("ConfigMap", "d", vec![], "canary", true),
        ] {
            let mut row = tombstone(1, key(kind, "n", name), 10);
            row.facts.labels = labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            row.facts.sealed = sealed;
            row.facts.deleter = (name == "b").then(|| "jane".to_owned());
            let annotations =
                serde_json::json!({ "kubectl.kubernetes.io/last-applied-configuration": "applied" });
            let body =
                serde_json::json!({ "metadata": { "annotations": annotations }, "data": { "k": text } });
            row.body = Some(body.to_string().into());
            ids.push(store.put_tombstone(&row).unwrap());
        }
        ids
    });
    let list = |store: &mut B::Store, filter: TombstoneFilter| -> Vec<usize> {
        let rows = store.tombstones(&filter, 9).unwrap();
        rows.iter().map(|row| ids.iter().position(|id| *id == row.id).unwrap()).collect()
    };
    for (text, found) in [
        ("nginx", vec![0]),
        ("registry/nginx:1.19", vec![0]),
        ("quick brown", vec![1]),
        ("brown quick", vec![]),
        ("qui*", vec![1]),
        ("qui", vec![]),
        ("PROD", vec![2, 1]),
        ("canary", vec![]),
        ("applied", vec![]),
        ("a\"b", vec![]),
        ("--", vec![]),
    ] {
        let filter = TombstoneFilter { text: Some(text.to_owned()), ..TombstoneFilter::default() };
        assert_eq!(list(&mut store, filter), found, "{text}");
    }
    for (selector, found) in [
        ("env=prod", vec![2, 1]),
        ("env in (dev,prod)", vec![2, 1, 0]),
        ("env!=prod", vec![3, 0]),
        ("env", vec![2, 1, 0]),
        ("!env", vec![3]),
        ("env,tier notin (web)", vec![2, 1]),
        ("env=none", vec![]),
    ] {
        let selector_of = crate::http::selector::parse(selector).unwrap();
        let filter = TombstoneFilter { selector: selector_of, ..TombstoneFilter::default() };
        assert_eq!(list(&mut store, filter), found, "{selector}");
    }
    let selector = crate::http::selector::parse("env=prod").unwrap();
    let both = TombstoneFilter { text: Some("fox".into()), selector, ..TombstoneFilter::default() };
    assert_eq!(list(&mut store, both), [1]);
    let by = |deleter: &str| TombstoneFilter { deleter: Some(deleter.into()), ..TombstoneFilter::default() };
    assert_eq!((list(&mut store, by("jane")), list(&mut store, by("joe"))), (vec![1], vec![]));
    within(&mut store, |store| store.forget_tombstone(ids[1]).unwrap());
    let fox = TombstoneFilter { text: Some("fox".into()), ..TombstoneFilter::default() };
    let prod = crate::http::selector::parse("env=prod").unwrap();
    let prod = TombstoneFilter { selector: prod, ..TombstoneFilter::default() };
    assert_eq!((list(&mut store, fox), list(&mut store, prod)), (vec![], vec![2]));
}

pub(super) fn who_asked_is_kept_for_a_while<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let row = |name: &str, uid: Option<&str>, user: &str, asked_at| DeleterRow {
        cluster: ClusterId(1),
        key: key("ConfigMap", "n", name),
        uid: uid.map(Uid::new),
        user: user.into(),
        asked_at,
    };
    let rows = [row("x", Some("u"), "jane", 10), row("", None, "john", 11), row("x", None, "jane", 12)];
    let id = within(&mut store, |store| {
        for row in &rows {
            store.put_deleter(row, 0).unwrap();
            store.put_deleter(row, 0).unwrap();
        }
        store.put_deleter(&row("y", None, "jane", 13), 0).unwrap();
        let id = store.put_tombstone(&tombstone(1, key("ConfigMap", "n", "x"), 10)).unwrap();
        store.set_deleter(id, "jane").unwrap();
        id
    });
    drop(store);
    let mut store = bed.open();
    assert_eq!(store.deleters(ClusterId(1), &key("ConfigMap", "n", "x")).unwrap(), rows);
    assert_eq!(store.deleters(ClusterId(2), &key("ConfigMap", "n", "x")).unwrap(), []);
    assert_eq!(store.deleters(ClusterId(1), &key("Secret", "n", "x")).unwrap(), []);
    assert_eq!(store.tombstone(id).unwrap().unwrap().facts.deleter.as_deref(), Some("jane"));
    within(&mut store, |store| store.put_deleter(&rows[2], 12).unwrap());
    assert_eq!(store.deleters(ClusterId(1), &key("ConfigMap", "n", "x")).unwrap(), rows[2..]);
}
