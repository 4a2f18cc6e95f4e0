//! Deletes that follow a namespace (I7).

use lockstep_wire::v1::{self, item::Change, outcome::Result as Answer, step::Action};

use super::fleet::*;
use super::told::*;
use crate::store::Store as _;
use crate::store::conformance::within;

/// Its agent was away while the namespace was deleted and made again.
#[test]
fn i7_objects_of_a_namespace_that_was_replaced_unseen_are_held() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(2);
    fleet.disconnect("a");
    fleet.tick(60_000);
    fleet.connect("a");
    let gone = |name: &str, uid: &str| {
        let change = v1::item::Change::Delete(v1::Delete { inferred: true, ..v1::Delete::default() });
        v1::Item { change: Some(change), ..deleted(name, uid, 10) }
    };
    fleet.live("a", vec![gone("cm-0", "s0"), gone("cm-1", "s1")]);
    assert!(fleet.steps("b").is_empty());
    let other = v1::Item { uid: "n2".into(), ..namespace("shop", 70, false) };
    fleet.namespaces("a", vec![other]);
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Held/ContainerDeleted");
    assert_eq!(fleet.status("b", "cm-1"), "Held/ContainerDeleted");
    // What is made in the new namespace and deleted there is deleted like any other.
    fleet.tick(1_000);
    let mut again = source("cm-0", "s9", 80, "1");
    again.observed_ms = fleet.now;
    fleet.section("a", vec![again], None);
    let step = fleet.one_step("b");
    fleet.perform("b", &step, "t0", 90, true);
    fleet.section("a", vec![deleted("cm-0", "s9", 95)], None);
    assert!(is_read(&fleet.one_step("b")));
}

/// The news of the namespace comes on a watch of its own, and may be late.
#[test]
fn i7_a_delete_that_was_granted_before_its_namespace_was_known_to_go_is_held_all_the_same() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    let read = fleet.one_step("b");
    let mut ending = namespace("shop", 21, true);
    ending.observed_ms = fleet.now;
    fleet.namespaces("a", vec![ending]);
    fleet.outcome("b", read.step, image("t0", 50));
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Held/ContainerDeleted");
    fleet.approve();
    let read = fleet.one_step("b");
    fleet.outcome("b", read.step, image("t0", 50));
    assert_eq!(fleet.status("b", "cm-0"), "Pending/Archiving", "a person has said so");
}

#[test]
fn i7_a_delete_that_follows_its_namespace_is_held_first() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.namespaces("a", vec![namespace("shop", 5, false)]);
    fleet.namespaces("a", vec![namespace("shop", 60, true)]);
    fleet.section("a", vec![deleted("cm-0", "s0", 61)], None);
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Held/ContainerDeleted");
    // Namespace and source come back: the hold dissolves.
    fleet.namespaces("a", vec![namespace("shop", 70, false)]);
    fleet.section("a", vec![source("cm-0", "new", 71, "1")], None);
    assert!(matches!(fleet.one_step("b").action, Some(Action::Apply(_))));
}

/// After a gap the watches replay, each for itself: the namespace's end and return are read before the
/// objects' last changes and deletes. resourceVersions tell what came first.
#[test]
fn i7_replayed_deletes_of_a_namespace_that_is_back_are_held() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.tick(1_000);
    let at = |mut item: v1::Item, now: i64| {
        item.observed_ms = now;
        item
    };
    let now = fleet.now;
    let gone = v1::Item {
        change: Some(v1::item::Change::Delete(v1::Delete::default())),
        ..namespace("shop", 70, true)
    };
    let back = v1::Item { uid: "n2".into(), ..namespace("shop", 72, false) };
    fleet.namespaces("a", vec![at(namespace("shop", 60, true), now), at(gone, now), at(back, now)]);
    let changed = at(source("cm-0", "s0", 50, "2"), now + 20);
    fleet.section("a", vec![changed, at(deleted("cm-0", "s0", 65), now + 20)], None);
    // The change is on its way when the delete comes.
    let update = fleet.one_step("b");
    fleet.perform("b", &update, "t0", 89, true);
    assert_eq!(fleet.status("b", "cm-0"), "Held/ContainerDeleted");
    // One that was made in the new namespace is deleted like any other.
    fleet.section("a", vec![at(source("cm-1", "s9", 80, "1"), now + 30)], None);
    let step = fleet.one_step("b");
    fleet.perform("b", &step, "t9", 90, true);
    fleet.section("a", vec![at(deleted("cm-1", "s9", 95), now + 40)], None);
    assert!(is_read(&fleet.one_step("b")));
}

/// A watch that goes on is live before it has caught up, and one that hangs is live for long: another
/// watch tells of the delete first.
#[test]
fn i7_the_server_is_asked_for_the_namespace_of_what_was_deleted() {
    let failed = |class: &str| Answer::Failed(v1::Failed { class: class.into(), ..Default::default() });
    let probed = |uid: &str, deleting| {
        Answer::Probed(v1::Probed { uid: uid.into(), deleting, ..v1::Probed::default() })
    };
    for (answer, status) in [
        (probed("n", false), "Pending/Archiving"),
        (probed("n", true), "Held/ContainerDeleted"),
        (probed("n2", false), "Held/ContainerDeleted"),
        (Answer::Gone(v1::Done {}), "Held/ContainerDeleted"),
        (failed("Transient"), "Pending/ContainerUnknown"),
        (failed("Forbidden"), "Pending/Archiving"),
    ] {
        let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
        fleet.in_step(1);
        fleet.namespaces.insert(("a", "shop"), answer.clone());
        fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
        assert_eq!(fleet.status("b", "cm-0"), status, "{answer:?}");
        // A server that did not answer is asked again.
        fleet.namespaces.insert(("a", "shop"), probed("n", false));
        fleet.tick(10_000);
        let after = status.replace("ContainerUnknown", "Archiving");
        assert_eq!(fleet.status("b", "cm-0"), after, "{answer:?}");
    }
}

/// Sim seed 27057: the hub's data was lost, and it had not heard of the namespace yet when that went; by the time its agent
/// came again there was another one. API servers write whole seconds: of one second both may be of one life.
#[test]
fn i7_what_is_older_than_the_namespace_went_with_an_earlier_one() {
    let created = |mut item: v1::Item, at: &str| {
        let Some(v1::item::Change::Upsert(upsert)) = &mut item.change else { panic!("{item:?}") };
        let text = String::from_utf8(upsert.body.to_vec()).unwrap();
        let with = format!(r#""metadata":{{"creationTimestamp":"{at}","#);
        upsert.body = text.replace(r#""metadata":{"#, &with).into();
        item
    };
    for (namespace, version, status) in [
        ("2026-11-22T10:00:01Z", 30, "Held/ContainerDeleted"),
        ("2026-11-22T10:00:00Z", 30, "Pending/Archiving"),
        ("2026-11-22T09:59:59Z", 30, "Pending/Archiving"),
        // The clock of the server was set back: the source was changed later than the namespace.
        ("2026-11-22T10:00:01Z", 5, "Pending/Archiving"),
    ] {
        let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
        fleet.in_step(1);
        fleet.section("a", vec![created(source("cm-0", "s0", 15, "1"), "2026-11-22T10:00:00Z")], None);
        let created_ms = lockstep_engine::rfc3339::parse(namespace).unwrap();
        let resource_version = version.to_string();
        let there = v1::Probed { uid: "n".into(), deleting: false, created_ms, resource_version };
        fleet.namespaces.insert(("a", "shop"), Answer::Probed(there));
        fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
        assert_eq!(fleet.status("b", "cm-0"), status, "{namespace} {version}");
    }
}

#[test]
fn i7_a_hold_for_a_container_outlives_the_reason() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.namespaces("a", vec![namespace("shop", 60, true)]);
    fleet.section("a", vec![deleted("cm-0", "s0", 65)], None);
    assert_eq!(fleet.status("b", "cm-0"), "Held/ContainerDeleted");
    let back = v1::Item { uid: "n2".into(), ..namespace("shop", 72, false) };
    fleet.namespaces("a", vec![back]);
    // What is known of the end of the namespace counts for less (a rewind).
    let id = fleet.agents["a"].id;
    within(&mut fleet.core.store, |store| store.void_versions(id).unwrap());
    fleet.tick(1_000);
    fleet.live("a", Vec::new());
    fleet.live("b", Vec::new());
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Held/ContainerDeleted");
}

fn labels_of_the_namespace(fleet: &mut Fleet) -> std::collections::BTreeMap<String, String> {
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let step = fleet.one_step("b");
    let Some(Action::Apply(apply)) = step.action else { panic!("{step:?}") };
    assert!(apply.ensure_namespace);
    apply.namespace_labels
}

#[test]
fn a_namespace_that_is_made_for_an_object_has_the_pod_security_of_the_sources() {
    let enforce = "pod-security.kubernetes.io/enforce";
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    let mut labelled = namespace("shop", 2, false);
    let Some(Change::Upsert(upsert)) = &mut labelled.change else { panic!() };
    upsert.pod_security.insert(enforce.into(), "baseline".into());
    fleet.namespaces("a", vec![labelled]);
    assert_eq!(labels_of_the_namespace(&mut fleet), [(enforce.to_owned(), "baseline".to_owned())].into());

    // Without labels there, none here: the cluster's own default is what holds.
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    assert!(labels_of_the_namespace(&mut fleet).is_empty());

    // Not known: nobody gains rights by being synced.
    let mut fleet = Fleet::new(&[("p.yaml", POLICY)]);
    fleet.connect("a");
    fleet.connect("b");
    fleet.live("a", Vec::new());
    fleet.live("b", Vec::new());
    assert_eq!(labels_of_the_namespace(&mut fleet), [(enforce.to_owned(), "restricted".to_owned())].into());
}
