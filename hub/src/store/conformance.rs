//! What every implementation of [`Store`] must do.

mod acts;
mod clusters;
mod restores;
mod retain;
mod samples;
mod tombstones;

use bytes::Bytes;
use lockstep_engine::status::{State, Status};
use lockstep_engine::{ClusterId, ClusterName, GroupKind, ResourceVersion, Uid};

use super::*;
pub(crate) use samples::{full_placement, key, managed, object, placement, tombstone};

/// Opens a store on the same data again and again: first call makes it.
pub(crate) trait Bed {
    /// The store under test.
    type Store: Store;
    /// A reader beside it.
    type Reader: Reader;
    /// Opens it; the one before was dropped.
    fn open(&self) -> Self::Store;
    /// A reader of committed state.
    fn reader(&self, store: &Self::Store) -> Self::Reader;
}

/// Every check, each on a store of its own.
pub(crate) fn run<B: Bed>(bed: impl Fn() -> B) {
    rows_come_back_as_they_were(&bed());
    a_rollback_leaves_nothing(&bed());
    readers_see_commits_only(&bed());
    writing_needs_a_transaction(&bed());
    ids_are_never_given_twice(&bed());
    clusters::a_forgotten_cluster_leaves_no_row_and_its_name_is_free(&bed());
    objects_are_paged_in_key_order(&bed());
    the_key_index_is_that_of_one_watch(&bed());
    dropping_a_watch_drops_what_it_reported(&bed());
    placements_are_paged_in_target_and_key_order(&bed());
    due_placements_come_oldest_first(&bed());
    the_summary_counts(&bed());
    tombstones::tombstones_go_through_the_outbox(&bed());
    tombstones::tombstones_are_listed_newest_first(&bed());
    retain::walks_see_every_tombstone_once(&bed());
    retain::holds_files_and_keys_are_told(&bed());
    retain::who_needs_a_tombstone_is_known(&bed());
    tombstones::tombstones_are_found_by_labels_words_and_deleter(&bed());
    acts::acts_count_their_members_and_groups_are_listed(&bed());
    acts::acts_and_kin_are_found(&bed());
    tombstones::who_asked_is_kept_for_a_while(&bed());
    restores::restores_are_noted_object_by_object_and_found_while_under_way(&bed());
    the_small_tables_replace_and_forget(&bed());
    writing_twice_is_writing_once(&bed());
    former_records_are_found_by_uid_until_they_are_old(&bed());
}

/// Works in one transaction.
pub(crate) fn within<S: Store, T>(store: &mut S, work: impl FnOnce(&mut S) -> T) -> T {
    store.begin().unwrap();
    let out = work(store);
    store.commit().unwrap();
    out
}

fn name(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

fn config_maps() -> GroupKind {
    GroupKind::new("", "ConfigMap")
}

fn rows_come_back_as_they_were<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let (cluster, watch) = within(&mut store, |store| {
        let mut cluster = store.create_cluster(&name("a"), 5).unwrap();
        cluster.uid = Some(Uid::new("kube-system"));
        cluster.token_hash = Some([1; 32]);
        cluster.instance = "i".into();
        cluster.committed = u64::MAX;
        cluster.session = 2;
        cluster.lease_counter = u64::MAX - 1;
        cluster.server_version = "v1.36".into();
        cluster.agent_version = "0.1".into();
        cluster.accepts = vec!["apps/*".into(), "\u{1f600}".into()];
        cluster.served = Bytes::from(vec![b'x'; 5_000]);
        cluster.paused = true;
        cluster.connected_at = Some(6);
        cluster.disconnected_at = Some(-7);
        store.put_cluster(&cluster).unwrap();
        let mut watch = store.ensure_watch(cluster.id, &config_maps(), "shop", 9).unwrap();
        assert_eq!((watch.phase, watch.epoch, watch.checkpoint.as_str()), (Phase::Pending, 0, ""));
        watch.epoch = 4;
        watch.checkpoint = ResourceVersion::new("123");
        watch.interest = Bytes::from_static(b"\x01\x00");
        watch.api_version = "v1".into();
        watch.phase = Phase::Failing;
        watch.reason = "Forbidden".into();
        watch.message = "no".into();
        watch.updated_at = 10;
        store.put_watch(&watch).unwrap();
        (cluster, watch)
    });
    let mut objects = Vec::new();
    for (n, owned) in [Owned::Digest([9; 16]), Owned::NoEntry, Owned::OtherVersion].into_iter().enumerate() {
        let mut row = object(cluster.id.0, watch.id, key("Secret", "shop", &format!("s{n}")));
        row.managed = Some(ManagedRow { owned, ..managed() });
        row.deleting = n == 1;
        row.body = [None, Some(Bytes::from(vec![b'y'; 9_000])), Some(Bytes::new())][n].clone();
        objects.push(row);
    }
    let mut adopted = full_placement(2, key("Deployment", "n", "z"));
    adopted.record.as_mut().unwrap().adopted = true;
    let placements =
        [placement(2, key("ConfigMap", "", "x")), full_placement(2, key("Deployment", "n", "y")), adopted];
    within(&mut store, |store| {
        objects.iter().for_each(|row| store.put_object(row).unwrap());
        placements.iter().for_each(|row| store.put_placement(row).unwrap());
    });
    drop(store);
    let mut store = bed.open();
    assert_eq!(store.clusters().unwrap(), std::slice::from_ref(&cluster));
    assert_eq!(store.watches(None).unwrap(), std::slice::from_ref(&watch));
    assert_eq!(store.watches(Some(cluster.id)).unwrap(), std::slice::from_ref(&watch));
    assert_eq!(store.watches(Some(ClusterId(99))).unwrap(), []);
    for row in &objects {
        assert_eq!(store.object(row.cluster, &row.key).unwrap().as_ref(), Some(row));
    }
    for row in &placements {
        assert_eq!(store.placement(row.target, &row.key).unwrap().as_ref(), Some(row));
    }
    assert_eq!(store.object(ClusterId(1), &key("Unheard", "", "x")).unwrap(), None);
    within(&mut store, |store| {
        assert_eq!(store.ensure_watch(cluster.id, &config_maps(), "shop", 99).unwrap(), watch);
    });
}

fn a_rollback_leaves_nothing<B: Bed>(bed: &B) {
    let mut store = bed.open();
    store.begin().unwrap();
    let mut cluster = store.create_cluster(&name("a"), 5).unwrap();
    cluster.served = Bytes::from_static(b"[1]");
    store.put_cluster(&cluster).unwrap();
    store.put_object(&object(cluster.id.0, 1, key("First", "", "x"))).unwrap();
    store.put_placement(&placement(1, key("Second", "", "x"))).unwrap();
    assert!(store.object(cluster.id, &key("First", "", "x")).unwrap().is_some(), "reads see the transaction");
    store.rollback().unwrap();
    store.rollback().unwrap();
    assert_eq!(store.clusters().unwrap(), []);
    assert_eq!(store.object(cluster.id, &key("First", "", "x")).unwrap(), None);
    assert_eq!(store.summary(None).unwrap(), []);
    // What was learned in the transaction is forgotten too: kinds get their ids anew, in another order.
    within(&mut store, |store| {
        store.put_object(&object(1, 1, key("Second", "", "x"))).unwrap();
        store.put_object(&object(1, 1, key("First", "", "x"))).unwrap();
        let mut again = store.create_cluster(&name("a"), 5).unwrap();
        again.served = Bytes::from_static(b"[1]");
        store.put_cluster(&again).unwrap();
    });
    drop(store);
    let mut store = bed.open();
    assert_eq!(
        store.object(ClusterId(1), &key("First", "", "x")).unwrap().unwrap().key,
        key("First", "", "x")
    );
    assert_eq!(store.objects(ClusterId(1), &key("Second", "", "x").gk, None, None, 9).unwrap().len(), 1);
    assert_eq!(store.clusters().unwrap()[0].served, "[1]");
}

fn readers_see_commits_only<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let mut reader = bed.reader(&store);
    let row = object(1, 1, key("ConfigMap", "shop", "x"));
    store.begin().unwrap();
    store.put_object(&row).unwrap();
    assert_eq!(reader.object(row.cluster, &row.key).unwrap(), None);
    store.commit().unwrap();
    assert_eq!(reader.object(row.cluster, &row.key).unwrap(), Some(row));
}

fn writing_needs_a_transaction<B: Bed>(bed: &B) {
    let mut store = bed.open();
    assert!(store.put_meta("a", "b").is_err());
    assert!(store.commit().is_err());
    store.begin().unwrap();
    assert!(store.begin().is_err(), "transactions do not nest");
    store.put_meta("a", "b").unwrap();
    store.commit().unwrap();
    assert_eq!(store.meta("a").unwrap().as_deref(), Some("b"));
}

fn ids_are_never_given_twice<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let first = within(&mut store, |store| {
        let cluster = store.create_cluster(&name("a"), 1).unwrap();
        assert_ne!(store.create_cluster(&name("b"), 1).unwrap().id, cluster.id);
        store.ensure_watch(cluster.id, &config_maps(), "", 1).unwrap()
    });
    within(&mut store, |store| store.drop_watch(first.id).unwrap());
    drop(store);
    let mut store = bed.open();
    let again = within(&mut store, |store| store.ensure_watch(first.cluster, &config_maps(), "", 1).unwrap());
    assert!(again.id > first.id);
    store.begin().unwrap();
    assert!(store.create_cluster(&name("a"), 1).is_err(), "names are unique");
    store.rollback().unwrap();
}

fn objects_are_paged_in_key_order<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let mut rows = Vec::new();
    for namespace in ["b", "", "a", "a-b"] {
        for name in ["z", "a", "m", "Z"] {
            rows.push(object(1, 1, key("ConfigMap", namespace, name)));
        }
    }
    within(&mut store, |store| {
        rows.iter().for_each(|row| store.put_object(row).unwrap());
        store.put_object(&object(2, 1, key("ConfigMap", "a", "other-cluster"))).unwrap();
        store.put_object(&object(1, 1, key("Secret", "a", "other-kind"))).unwrap();
    });
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    for limit in [1, 3, 100] {
        let (mut paged, mut after) = (Vec::new(), None::<(String, String)>);
        loop {
            let cursor = after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
            let page = store.objects(ClusterId(1), &config_maps(), None, cursor, limit).unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.key.namespace.to_string(), last.key.name.to_string()));
            paged.extend(page);
        }
        assert_eq!(paged, rows);
    }
    let a: Vec<_> = rows.iter().filter(|row| &*row.key.namespace == "a").cloned().collect();
    let list = |store: &mut B::Store, after| {
        store.objects(ClusterId(1), &config_maps(), Some("a"), after, 9).unwrap()
    };
    assert_eq!(list(&mut store, None), a);
    assert_eq!(list(&mut store, Some(("", "zz"))), a);
    assert_eq!(list(&mut store, Some(("a", "a"))), a[2..]);
    assert_eq!(list(&mut store, Some(("b", ""))), []);
    assert_eq!(store.object_count(ClusterId(1)).unwrap(), 17);
    assert_eq!(store.object_count(ClusterId(3)).unwrap(), 0);
    within(&mut store, |store| store.delete_object(ClusterId(1), &rows[0].key).unwrap());
    assert_eq!(store.object_count(ClusterId(1)).unwrap(), 16);
}

fn the_key_index_is_that_of_one_watch<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let (all, one) = within(&mut store, |store| {
        let all = store.ensure_watch(ClusterId(1), &config_maps(), "", 1).unwrap().id;
        let one = store.ensure_watch(ClusterId(1), &config_maps(), "b", 1).unwrap().id;
        for (watch, namespace, name) in [(all, "a", "y"), (all, "a", "x"), (one, "b", "x"), (all, "c", "x")] {
            let mut row = object(1, watch, key("ConfigMap", namespace, name));
            row.managed = (name == "y").then(managed);
            row.body = row.body.filter(|_| namespace != "c");
            store.put_object(&row).unwrap();
        }
        (all, one)
    });
    let names = |rows: Vec<IndexRow>| -> Vec<_> {
        rows.into_iter().map(|row| (row.namespace, row.name, row.body_held, row.managed)).collect()
    };
    let entry =
        |namespace: &str, name: &str, body, managed| (namespace.to_owned(), name.to_owned(), body, managed);
    let of_all = [entry("a", "x", true, false), entry("a", "y", true, true), entry("c", "x", false, false)];
    assert_eq!(names(store.index(all, None, 9).unwrap()), of_all);
    assert_eq!(names(store.index(all, Some(("a", "x")), 1).unwrap()), of_all[1..2]);
    assert_eq!(names(store.index(one, None, 9).unwrap()), [entry("b", "x", true, false)]);
    assert_eq!(store.index(one, Some(("b", "x")), 9).unwrap(), []);
    assert_eq!(store.index(99, None, 9).unwrap(), []);
    let row = &store.index(all, None, 1).unwrap()[0];
    assert_eq!((row.uid.as_str(), row.resource_version.as_str()), ("uid-x", "7"));
    let ours = (key("ConfigMap", "a", "y"), row.resource_version.clone());
    assert_eq!(store.unconfirmed(all, 6).unwrap(), [ours]);
    assert!(store.unconfirmed(all, 7).unwrap().is_empty() && store.unconfirmed(one, 0).unwrap().is_empty());
    let mut untold = store.object(ClusterId(1), &key("ConfigMap", "a", "y")).unwrap().unwrap();
    untold.managed = Some(ManagedRow { told: false, ..managed() });
    within(&mut store, |store| store.put_object(&untold).unwrap());
    assert_eq!(store.object(ClusterId(1), &untold.key).unwrap(), Some(untold));
    assert_eq!(store.unconfirmed(all, 7).unwrap().len(), 1);
    assert_eq!(store.index(all, None, 9).unwrap().iter().filter(|row| !row.told).count(), 1);
}

fn dropping_a_watch_drops_what_it_reported<B: Bed>(bed: &B) {
    let mut store = bed.open();
    within(&mut store, |store| {
        let kept = store.ensure_watch(ClusterId(1), &config_maps(), "", 1).unwrap().id;
        let gone = store.ensure_watch(ClusterId(1), &config_maps(), "b", 1).unwrap().id;
        store.put_object(&object(1, kept, key("ConfigMap", "a", "x"))).unwrap();
        store.put_object(&object(1, gone, key("ConfigMap", "b", "x"))).unwrap();
        store.drop_watch(gone).unwrap();
        store.drop_watch(gone).unwrap();
    });
    assert_eq!(store.watches(None).unwrap().len(), 1);
    assert!(store.object(ClusterId(1), &key("ConfigMap", "a", "x")).unwrap().is_some());
    assert!(store.object(ClusterId(1), &key("ConfigMap", "b", "x")).unwrap().is_none());
}

fn placements_are_paged_in_target_and_key_order<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let mut rows = Vec::new();
    for target in [3, 1, 2] {
        // Kinds meet the store in an order that is not theirs.
        for kind in ["Secret", "Deployment", "ConfigMap"] {
            for (n, name) in ["b", "a", "c"].into_iter().enumerate() {
                let mut row = placement(target, key(kind, ["", "n", "m"][n], name));
                row.policy = if kind == "Secret" { "q".into() } else { "p".into() };
                row.status.state = if name == "c" { State::Held } else { State::InStep };
                row.source.as_mut().unwrap().cluster = ClusterId(if target == 1 { 2 } else { 1 });
                if name == "a" && kind == "ConfigMap" {
                    row.source = None;
                }
                rows.push(row);
            }
        }
    }
    within(&mut store, |store| rows.iter().for_each(|row| store.put_placement(row).unwrap()));
    rows.sort_by(|a, b| (a.target, &a.key).cmp(&(b.target, &b.key)));
    let any = PlacementFilter::default();
    let policy = |p: &str| Some(p.to_owned());
    for filter in [
        any.clone(),
        PlacementFilter { policy: policy("q"), ..any.clone() },
        PlacementFilter { policy: policy("p"), states: vec![State::Held], ..any.clone() },
        PlacementFilter { policy: policy("none"), ..any.clone() },
        PlacementFilter { target: Some(ClusterId(2)), ..any.clone() },
        PlacementFilter { source: Some(ClusterId(2)), ..any.clone() },
        PlacementFilter { source: Some(ClusterId(1)), policy: policy("p"), ..any.clone() },
        PlacementFilter { gk: Some(config_maps()), ..any.clone() },
        PlacementFilter { gk: Some(GroupKind::new("", "Unheard")), ..any.clone() },
        PlacementFilter { states: vec![State::Held, State::InStep, State::Held], ..any.clone() },
        PlacementFilter { held: true, ..any.clone() },
        PlacementFilter { target: Some(ClusterId(3)), states: vec![State::Failed], ..any },
    ] {
        let PlacementFilter { policy, target, source, gk, states, held } = &filter;
        let wanted: Vec<_> = rows
            .iter()
            .filter(|row| policy.as_ref().is_none_or(|policy| *policy == row.policy))
            .filter(|row| target.is_none_or(|target| target == row.target))
            .filter(|row| {
                source.is_none_or(|cluster| row.source.as_ref().is_some_and(|s| s.cluster == cluster))
            })
            .filter(|row| gk.as_ref().is_none_or(|gk| *gk == row.key.gk))
            .filter(|row| states.is_empty() || states.contains(&row.status.state))
            .filter(|row| !held || row.delete == Some(DeleteStage::Held))
            .cloned()
            .collect();
        assert_eq!(store.placement_count(&filter).unwrap(), wanted.len() as u64, "{filter:?}");
        for limit in [1, 2, 4, 100] {
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let page = store.placements(&filter, after.as_ref(), limit).unwrap();
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                after = Some((last.target, last.key.clone()));
                paged.extend(page);
            }
            assert_eq!(paged, wanted, "{filter:?} by {limit}");
        }
    }
}

fn due_placements_come_oldest_first<B: Bed>(bed: &B) {
    let mut store = bed.open();
    assert_eq!(store.next_due().unwrap(), None);
    within(&mut store, |store| {
        for (name, at) in [("c", Some(30)), ("a", Some(10)), ("b", Some(20)), ("never", None)] {
            let mut row = placement(1, key("ConfigMap", "n", name));
            row.next_attempt = at;
            store.put_placement(&row).unwrap();
        }
    });
    let at = |name: &str| (ClusterId(1), key("ConfigMap", "n", name));
    assert_eq!(store.next_due().unwrap(), Some(10));
    assert_eq!(store.due(20, 9).unwrap(), [at("a"), at("b")]);
    assert_eq!(store.due(99, 1).unwrap(), [at("a")]);
    assert_eq!(store.due(9, 9).unwrap(), []);
}

fn the_summary_counts<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let put = |store: &mut B::Store, name: &str, state, reason: &str, since, lag| {
        let mut row = placement(1, key("ConfigMap", "n", name));
        row.status = Status::new(state, reason, name);
        row.since = since;
        row.lag_ms = lag;
        store.put_placement(&row).unwrap();
    };
    within(&mut store, |store| {
        put(store, "a", State::InStep, "InStep", 30, Some(5));
        put(store, "b", State::InStep, "InStep", 20, Some(7));
        put(store, "c", State::Failed, "Conflict", 40, Some(99));
        put(store, "d", State::Pending, "Queued", 40, None);
        store
            .put_placement(&PlacementRow { policy: "q".into(), ..placement(2, key("Secret", "", "x")) })
            .unwrap();
    });
    within(&mut store, |store| {
        put(store, "d", State::InStep, "InStep", 50, None);
        store.delete_placement(ClusterId(2), &key("Secret", "", "none")).unwrap();
    });
    let row = |policy: &str, target, state, reason: &str, count, max_lag_ms, oldest_since| SummaryRow {
        policy: policy.into(),
        target: ClusterId(target),
        state,
        reason: reason.into(),
        count,
        max_lag_ms,
        oldest_since,
    };
    let p = [
        row("p", 1, State::InStep, "InStep", 3, Some(7), 20),
        row("p", 1, State::Failed, "Conflict", 1, None, 40),
    ];
    assert_eq!(store.summary(Some("p")).unwrap(), p);
    let all = store.summary(None).unwrap();
    assert_eq!(all[..2], p);
    assert_eq!(all[2..], [row("q", 2, State::Pending, "Queued", 1, None, 10)]);
    within(&mut store, |store| store.delete_placement(ClusterId(2), &key("Secret", "", "x")).unwrap());
    assert_eq!(store.summary(None).unwrap(), p);
}

fn the_small_tables_replace_and_forget<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let file = |path: &str, text: &str| PolicyFileRow { path: path.into(), text: text.into() };
    let policy = |name: &str, generation| PolicyRow {
        name: name.into(),
        digest: [generation as u8; 32],
        generation,
        planned: generation > 1,
        paused: generation == 1,
    };
    within(&mut store, |store| {
        store.put_policy_files(&[file("b.yaml", "b"), file("a.yaml", "a")]).unwrap();
        store.put_policy(&policy("b", 1)).unwrap();
        store.put_policy(&policy("a", 1)).unwrap();
        store.put_policy(&policy("a", 2)).unwrap();
        store.put_budget("b", ClusterId(1), "{}").unwrap();
        store.put_budget("a", ClusterId(2), "{}").unwrap();
        store.put_budget("a", ClusterId(2), "{\"held\":1}").unwrap();
    });
    assert_eq!(store.policy_files().unwrap(), [file("a.yaml", "a"), file("b.yaml", "b")]);
    assert_eq!(store.policies().unwrap(), [policy("a", 2), policy("b", 1)]);
    let budget = |policy: &str, target, json: &str| (policy.to_owned(), ClusterId(target), json.to_owned());
    assert_eq!(store.budgets().unwrap(), [budget("a", 2, "{\"held\":1}"), budget("b", 1, "{}")]);
    within(&mut store, |store| {
        store.put_policy_files(&[file("c.yaml", "c")]).unwrap();
        store.delete_policy("a").unwrap();
        store.put_meta("paused", "true").unwrap();
        store.put_meta("paused", "false").unwrap();
    });
    assert_eq!(store.policy_files().unwrap(), [file("c.yaml", "c")]);
    assert_eq!(store.policies().unwrap(), [policy("b", 1)]);
    assert_eq!(store.meta("paused").unwrap().as_deref(), Some("false"));
    assert_eq!(store.meta("none").unwrap(), None);
}

fn writing_twice_is_writing_once<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let mut row = object(1, 1, key("ConfigMap", "n", "x"));
    let mut placed = full_placement(1, key("ConfigMap", "n", "x"));
    for round in 0..3 {
        row.resource_version = ResourceVersion::new(&round.to_string());
        // Each time other columns than the last time, indexed ones among them.
        placed.policy = format!("p{}", round / 2);
        placed.attempts = round;
        placed.source = placed.source.filter(|_| round != 2);
        within(&mut store, |store| {
            for _ in 0..2 {
                store.put_object(&row).unwrap();
                store.put_placement(&placed).unwrap();
            }
        });
        assert_eq!(store.object(row.cluster, &row.key).unwrap().as_ref(), Some(&row));
        assert_eq!(store.placement(placed.target, &placed.key).unwrap().as_ref(), Some(&placed));
    }
    assert_eq!(store.object_count(ClusterId(1)).unwrap(), 1);
    assert_eq!(store.placement_count(&PlacementFilter::default()).unwrap(), 1);
    within(&mut store, |store| {
        for _ in 0..2 {
            store.delete_object(row.cluster, &row.key).unwrap();
            store.delete_placement(placed.target, &placed.key).unwrap();
        }
    });
    assert_eq!(store.summary(None).unwrap(), []);
}

fn former_records_are_found_by_uid_until_they_are_old<B: Bed>(bed: &B) {
    let mut store = bed.open();
    let (target, key) = (ClusterId(2), key("ConfigMap", "n", "x"));
    let record = |uid: &str, rendered| Record {
        uid: Some(Uid::new(uid)),
        rendered: [rendered; 32],
        implicit: false,
        adopted: false,
        ..full_placement(2, key.clone()).record.unwrap()
    };
    within(&mut store, |store| {
        store.put_former_record(target, &key, &record("old", 1), 10, 0).unwrap();
        store.put_former_record(target, &key, &record("new", 2), 20, 0).unwrap();
        store.put_former_record(target, &key, &record("new", 3), 30, 0).unwrap();
        store.put_former_record(target, &key, &Record { uid: None, ..record("", 4) }, 30, 0).unwrap();
    });
    let mut found = |uid: &str| store.former_record(target, &key, &Uid::new(uid)).unwrap();
    assert_eq!((found("old"), found("new")), (Some(record("old", 1)), Some(record("new", 3))));
    assert_eq!(found(""), None);
    within(&mut store, |store| store.put_former_record(target, &key, &record("newer", 5), 40, 11).unwrap());
    let mut found = |uid: &str| store.former_record(target, &key, &Uid::new(uid)).unwrap();
    assert_eq!((found("old"), found("new")), (None, Some(record("new", 3))));
}
