//! What is archived of what anybody deletes.

use lockstep_wire::v1::{self, agent_message, item::Change, outcome::Result as Answer};

use super::fleet::*;
use super::told::*;
use crate::store::{Cause, Reader};

const EVERYTHING: &str = "
apiVersion: sync.k8s.io/v1
kind: ArchivePolicy
metadata: { name: everything }
spec: { encrypt: [{ kind: ConfigMap, names: [sealed] }] }
";

/// Cluster a is live, under a policy that archives everything.
fn archiving() -> Fleet {
    let mut fleet = Fleet::new(&[("p.yaml", EVERYTHING)]);
    fleet.connect("a");
    fleet.lists("a", &[("", "ConfigMap", "v1"), ("coordination.k8s.io", "Lease", "coordination.k8s.io/v1")]);
    fleet.received("a");
    fleet.live("a", Vec::new());
    fleet
}

fn body(item: &v1::Item) -> serde_json::Value {
    match &item.change {
        Some(Change::Upsert(upsert)) => serde_json::from_slice(&upsert.body).unwrap(),
        other => panic!("no body: {other:?}"),
    }
}

/// The same object, at a later version, with a deletionTimestamp and a finalizer.
fn lingering(name: &str, uid: &str, rv: u64, value: &str) -> v1::Item {
    let mut item = source(name, uid, rv, value);
    let mut body = body(&item);
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    if let Some(Change::Upsert(upsert)) = &mut item.change {
        upsert.body = body.to_string().into();
        upsert.deleting = true;
    }
    item
}

/// Its end, with the last state.
fn end(state: &v1::Item, rv: u64, managers: &[&str]) -> v1::Item {
    let delete = v1::Delete {
        body: body(state).to_string().into(),
        inferred: false,
        managers: managers.iter().map(|name| (*name).to_owned()).collect(),
        ..v1::Delete::default()
    };
    v1::Item { resource_version: rv.to_string(), change: Some(Change::Delete(delete)), ..state.clone() }
}

#[test]
fn every_kind_that_is_listed_is_watched_and_what_comes_later_too() {
    let mut fleet = archiving();
    let watched = |fleet: &Fleet| fleet.agents["a"].watches.keys().cloned().collect::<Vec<_>>();
    assert_eq!(watched(&fleet), ["ConfigMap"], "Leases are never archived");
    fleet.lists("a", &[("", "ConfigMap", "v1"), ("example.com", "Queue", "example.com/v1")]);
    fleet.received("a");
    assert_eq!(watched(&fleet), ["ConfigMap", "Queue"]);
    // While objects of a kind are known, its watch stays: what became of them it tells when it can.
    fleet.section_of("Queue", "a", vec![source("q", "u", 5, "1")], Some(v1::WatchPhase::Live));
    fleet.lists("a", &[("", "ConfigMap", "v1")]);
    fleet.received("a");
    assert_eq!(fleet.core.store.watches(None).unwrap().len(), 2);
    fleet.section_of("Queue", "a", vec![end(&source("q", "u", 5, "1"), 9, &[])], None);
    fleet.lists("a", &[("", "ConfigMap", "v1"), ("", "Service", "v1")]);
    fleet.received("a");
    let kinds: Vec<_> = fleet.core.store.watches(None).unwrap().into_iter().map(|w| w.gk.kind).collect();
    assert_eq!(kinds, ["ConfigMap".into(), "Service".into()] as [std::sync::Arc<str>; 2]);
}

#[test]
fn the_state_before_the_deletion_timestamp_is_kept_and_the_final_one_as_a_patch() {
    let mut fleet = archiving();
    fleet.section("a", vec![source("x", "u", 10, "1")], None);
    fleet.section("a", vec![lingering("x", "u", 11, "1")], None);
    // A finalizer takes things away before it lets the object go.
    let last = lingering("x", "u", 12, "emptied");
    fleet.section("a", vec![last.clone()], None);
    fleet.section("a", vec![end(&last, 13, &["kubectl-create"])], None);
    let kept = fleet.tombstones();
    assert_eq!(kept.len(), 1);
    let kept = fleet.core.store.tombstone(kept[0].id).unwrap().unwrap();
    assert_eq!((&kept.cause, kept.resource_version.as_str()), (&Cause::Observed, "13"));
    let mut state: serde_json::Value = serde_json::from_slice(kept.body.as_ref().unwrap()).unwrap();
    assert_eq!(state, body(&source("x", "u", 10, "1")));
    let patch: json_patch::Patch = serde_json::from_slice(kept.facts.last.as_ref().unwrap()).unwrap();
    json_patch::patch(&mut state, &patch).unwrap();
    assert_eq!(state, body(&last));
    assert_eq!(kept.facts.managers, ["kubectl-create"]);
    // Told again, it is the same deletion.
    fleet.section("a", vec![end(&last, 13, &["kubectl-create"])], None);
    assert_eq!(fleet.tombstones().len(), 1);
}

#[test]
fn the_state_before_survives_a_restart_and_counts_for_inferred_deletes_and_changed_uids() {
    let mut fleet = archiving();
    fleet.section("a", vec![source("x", "u", 10, "1"), source("y", "v", 11, "1")], None);
    fleet.section("a", vec![lingering("x", "u", 12, "2"), lingering("y", "v", 13, "2")], None);
    fleet.restart();
    fleet.connect("a");
    fleet.received("a");
    let gone = Change::Delete(v1::Delete { inferred: true, ..v1::Delete::default() });
    let inferred = v1::Item { change: Some(gone), ..source("x", "u", 12, "2") };
    fleet.live("a", vec![inferred, source("y", "w", 20, "3")]);
    for kept in fleet.tombstones() {
        let kept = fleet.core.store.tombstone(kept.id).unwrap().unwrap();
        let state: serde_json::Value = serde_json::from_slice(kept.body.as_ref().unwrap()).unwrap();
        assert_eq!((state["data"]["k"].as_str(), kept.cause), (Some("1"), Cause::Inferred));
        assert!(kept.facts.last.is_some());
    }
    assert_eq!(fleet.tombstones().len(), 2);
}

#[test]
fn an_end_that_comes_with_its_beginning_keeps_what_was_held_before() {
    let mut fleet = archiving();
    fleet.section("a", vec![source("x", "u", 10, "1")], None);
    // The agent joined deletionTimestamp and end.
    fleet.section("a", vec![end(&lingering("x", "u", 11, "emptied"), 12, &[])], None);
    let id = fleet.tombstones()[0].id;
    let kept = fleet.core.store.tombstone(id).unwrap().unwrap();
    let state: serde_json::Value = serde_json::from_slice(kept.body.as_ref().unwrap()).unwrap();
    assert_eq!(state["data"]["k"], "1");
    assert!(kept.facts.last.is_some());
}

#[test]
fn a_delete_of_ours_is_in_the_bin_once() {
    for told_first in [true, false] {
        let mut fleet = Fleet::up(&[("p.yaml", POLICY), ("q.yaml", EVERYTHING)]);
        fleet.lists("b", &[("", "ConfigMap", "v1")]);
        fleet.in_step(1);
        let state = source("cm-0", "t0", 50, "1");
        fleet.section("b", vec![state.clone()], None);
        fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
        let read = fleet.one_step("b");
        let image = v1::Image {
            uid: "t0".into(),
            resource_version: "50".into(),
            body: body(&state).to_string().into(),
            api_version: "v1".into(),
            managed: true,
        };
        fleet.outcome("b", read.step, Answer::Image(image));
        fleet.archive();
        let delete = fleet.one_step("b");
        if told_first {
            fleet.section("b", vec![end(&state, 60, &[])], None);
        }
        fleet.outcome("b", delete.step, Answer::Deleted(v1::Done {}));
        if !told_first {
            fleet.section("b", vec![lingering("cm-0", "t0", 60, "1")], None);
            fleet.section("b", vec![end(&lingering("cm-0", "t0", 60, "1"), 61, &[])], None);
        }
        let at_b: Vec<_> = fleet.tombstones().into_iter().filter(|kept| kept.uid.as_str() == "t0").collect();
        assert_eq!(at_b.len(), 1, "{at_b:?}");
        assert!(at_b[0].deleted && matches!(at_b[0].cause, Cause::Lockstep { .. }));
    }
}

/// Who asked for a delete of a ConfigMap in namespace shop.
fn asked(name: &str, uid: &str, user: &str, asked_ms: i64) -> v1::Deleter {
    v1::Deleter {
        resource: "configmaps".into(),
        namespace: "shop".into(),
        name: name.into(),
        uid: uid.into(),
        user: user.into(),
        asked_ms,
        ..v1::Deleter::default()
    }
}

#[test]
fn who_deleted_it_is_known_whether_webhook_or_watch_comes_first() {
    let mut fleet = archiving();
    let tell = |fleet: &mut Fleet, deleters: Vec<v1::Deleter>| {
        fleet.message("a", agent_message::Body::Deleters(v1::Deleters { deleters }));
    };
    for (name, rv) in [("before", 10), ("after", 20), ("nobody", 30)] {
        fleet.section("a", vec![source(name, name, rv, "1")], None);
    }
    let at = fleet.now;
    tell(&mut fleet, vec![asked("before", "before", "jane", at), asked("nobody", "another", "jane", at)]);
    for (name, rv) in [("before", 10), ("after", 20), ("nobody", 30)] {
        fleet.section("a", vec![end(&source(name, name, rv, "1"), rv + 1, &[])], None);
    }
    let at = fleet.now;
    let controller = "system:serviceaccount:kube-system:namespace-controller";
    tell(&mut fleet, vec![asked("after", "", controller, at)]);
    tell(&mut fleet, vec![asked("after", "", "john", at), asked("before", "before", "mallory", at)]);
    let mut known: Vec<_> =
        fleet.tombstones().into_iter().map(|kept| (kept.key.name.to_string(), kept.facts.deleter)).collect();
    known.sort();
    let expected = [("after", Some("john")), ("before", Some("jane")), ("nobody", None)]
        .map(|(name, user)| (name.to_owned(), user.map(str::to_owned)));
    assert_eq!(known, expected);
}

#[test]
fn what_a_policy_wants_encrypted_is_marked() {
    let mut fleet = archiving();
    for (name, rv) in [("sealed", 10), ("plain", 20)] {
        let state = source(name, name, rv, "1");
        fleet.section("a", vec![state.clone()], None);
        fleet.section("a", vec![end(&state, rv + 1, &[])], None);
    }
    let sealed = |kept: &crate::store::TombstoneRow| (kept.key.name.to_string(), kept.facts.sealed);
    let kept: Vec<_> = fleet.tombstones().iter().map(sealed).collect();
    assert_eq!(kept, [("plain".to_owned(), false), ("sealed".to_owned(), true)]);
}
