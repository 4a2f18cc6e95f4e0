//! What was deleted together, as agents tell it: in any order, late, or not at all.

use lockstep_engine::acts::ActKind;
use lockstep_wire::v1;

use super::fleet::{Fleet, POLICY};
use super::told::{deleted, namespace, source};
use crate::store::conformance::within;
use crate::store::{ActFilter, Reader, Store, TombstoneFilter};

/// A namespace that is gone.
fn namespace_gone(name: &str, rv: u64) -> v1::Item {
    v1::Item { namespace: String::new(), name: name.into(), uid: "n".into(), ..deleted(name, "n", rv) }
}

fn inferred(item: v1::Item, by: u64) -> v1::Item {
    let delete = v1::Delete { inferred: true, gone_by: by.to_string(), ..v1::Delete::default() };
    v1::Item { change: Some(v1::item::Change::Delete(delete)), ..item }
}

/// A source with an owner.
fn owned(name: &str, uid: &str, rv: u64, owner: &str) -> v1::Item {
    let body = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"shop","uid":"{uid}","resourceVersion":"{rv}","labels":{{"sync":"yes"}},"ownerReferences":[{{"apiVersion":"v1","kind":"ConfigMap","name":"o","uid":"{owner}","controller":true}}]}}}}"#
    );
    let upsert = v1::Upsert { body: body.into(), ..v1::Upsert::default() };
    v1::Item { change: Some(v1::item::Change::Upsert(upsert)), ..source(name, uid, rv, "x") }
}

/// Groups, the newest first: what it was, and the names in it.
fn groups(fleet: &mut Fleet) -> Vec<(ActKind, Vec<String>)> {
    let acts = fleet.core.store.acts(&ActFilter::default(), 99).unwrap();
    let mut members = |act: i64| {
        let filter = TombstoneFilter { act: Some(act), ..TombstoneFilter::default() };
        let rows = fleet.core.store.tombstones(&filter, 999).unwrap();
        let mut names: Vec<String> = rows.iter().map(|row| row.key.name.to_string()).collect();
        names.sort();
        names
    };
    acts.iter()
        .map(|act| {
            let names = members(act.id);
            assert_eq!(names.len() as u64, act.members);
            (act.kind, names)
        })
        .collect()
}

fn tell(fleet: &mut Fleet, kind: &str, items: Vec<v1::Item>) {
    fleet.section_of(kind, "a", items, Some(v1::WatchPhase::Live));
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Four sources in a namespace that is there.
fn begin() -> Fleet {
    let mut fleet = Fleet::new(&[("p.yaml", POLICY)]);
    fleet.connect("a");
    tell(&mut fleet, "Namespace", vec![namespace("shop", 1, false)]);
    let sources = ["w", "x", "y", "z"].map(|name| source(name, name, 5, "v"));
    tell(&mut fleet, "ConfigMap", sources.to_vec());
    fleet
}

#[test]
fn contents_told_before_their_namespace_are_of_its_act_also_after_a_restart() {
    for restart in [false, true] {
        let mut fleet = begin();
        tell(&mut fleet, "ConfigMap", vec![deleted("w", "w", 11)]);
        tell(&mut fleet, "ConfigMap", vec![deleted("x", "x", 21)]);
        assert_eq!(groups(&mut fleet), []);
        tell(&mut fleet, "Namespace", vec![namespace("shop", 20, true)]);
        tell(&mut fleet, "ConfigMap", vec![deleted("y", "y", 22)]);
        if restart {
            fleet.restart();
            fleet.connect("a");
        }
        tell(&mut fleet, "Namespace", vec![namespace_gone("shop", 30)]);
        tell(&mut fleet, "ConfigMap", vec![deleted("z", "z", 23)]);
        assert_eq!(groups(&mut fleet), [(ActKind::Namespace, names(&["x", "y", "z"]))]);
        // A namespace of that name, and what is deleted in it.
        let again = v1::Item { uid: "n2".into(), ..namespace("shop", 40, false) };
        tell(&mut fleet, "Namespace", vec![again]);
        tell(&mut fleet, "ConfigMap", vec![source("x", "x2", 41, "v"), source("y", "y2", 42, "v")]);
        tell(&mut fleet, "ConfigMap", vec![deleted("x", "x2", 44), deleted("y", "y2", 45)]);
        assert_eq!(groups(&mut fleet).len(), 1);
    }
}

#[test]
fn the_queue_of_an_agent_hides_no_beginning() {
    let mut fleet = begin();
    tell(&mut fleet, "ConfigMap", vec![deleted("w", "w", 11), deleted("x", "x", 21)]);
    // The agent had no time to tell of its deletion apart from its end.
    let gone = v1::Item { deleting_since: "20".into(), ..namespace_gone("shop", 30) };
    tell(&mut fleet, "Namespace", vec![gone]);
    tell(&mut fleet, "ConfigMap", vec![deleted("y", "y", 29), deleted("z", "z", 28)]);
    assert_eq!(groups(&mut fleet), [(ActKind::Namespace, names(&["x", "y", "z"]))]);
}

#[test]
fn after_an_absence_everything_of_a_namespace_that_is_gone_is_one_act() {
    for first in ["Namespace", "ConfigMap"] {
        let mut fleet = begin();
        // Before the absence, and the namespace was still there.
        tell(&mut fleet, "ConfigMap", vec![deleted("w", "w", 9)]);
        tell(&mut fleet, "Namespace", vec![]);
        fleet.disconnect("a");
        fleet.connect("a");
        let contents = ["x", "y", "z"].map(|name| inferred(deleted(name, name, 5), 1_000)).to_vec();
        let namespace = vec![inferred(namespace_gone("shop", 1), 1_001)];
        for kind in [first, if first == "Namespace" { "ConfigMap" } else { "Namespace" }] {
            let items = if kind == "Namespace" { namespace.clone() } else { contents.clone() };
            tell(&mut fleet, kind, items);
        }
        assert_eq!(groups(&mut fleet), [(ActKind::Namespace, names(&["x", "y", "z"]))], "{first} first");
    }
}

#[test]
fn dependents_go_with_their_owner_in_any_order() {
    for order in [["x", "y", "z"], ["z", "y", "x"], ["y", "x", "z"]] {
        let mut fleet = begin();
        tell(&mut fleet, "ConfigMap", vec![owned("y", "y", 12, "x"), owned("z", "z", 13, "y")]);
        for name in order {
            let version = if name == "x" { 20 } else { 21 };
            tell(&mut fleet, "ConfigMap", vec![deleted(name, name, version)]);
        }
        assert_eq!(groups(&mut fleet), [(ActKind::Owner, names(&["x", "y", "z"]))], "{order:?}");
        let act = fleet.core.store.acts(&ActFilter::default(), 9).unwrap().remove(0);
        assert_eq!(act.root.unwrap().1.as_str(), "x");
    }
}

#[test]
fn a_rewind_makes_no_act_and_ends_those_that_are_open() {
    let mut fleet = begin();
    tell(&mut fleet, "Namespace", vec![namespace("shop", 20, true)]);
    tell(&mut fleet, "ConfigMap", vec![deleted("w", "w", 21), deleted("x", "x", 22)]);
    let id = fleet.agents["a"].id;
    within(&mut fleet.core.store, |store| store.void_versions(id).unwrap());
    tell(&mut fleet, "ConfigMap", vec![deleted("y", "y", 21)]);
    assert_eq!(groups(&mut fleet), [(ActKind::Namespace, names(&["w", "x"]))]);
}
