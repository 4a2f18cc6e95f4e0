//! What was refused for good is looked at again as soon as one of its inputs changes, and not before its time otherwise.

use lockstep_engine::outcome::FailureClass;
use lockstep_engine::{ClusterName, GroupKind, ObjectKey};
use lockstep_wire::v1::{self, outcome::Result as Answer, step::Action};

use super::fleet::*;
use super::told::*;
use crate::store::Reader as _;

fn refused(class: FailureClass) -> Answer {
    Answer::Failed(v1::Failed::of(class, "the server said no"))
}

fn is_apply(step: &v1::Step) -> bool {
    matches!(step.action, Some(Action::Apply(_)))
}

/// An update of a copy that is there is refused so.
fn update_refused(policy: &str, class: FailureClass) -> Fleet {
    let mut fleet = Fleet::up(&[("p.yaml", policy)]);
    fleet.in_step(1);
    fleet.section("a", vec![source("cm-0", "s0", 11, "2")], None);
    let step = fleet.one_step("b");
    fleet.outcome("b", step.step, refused(class));
    assert_eq!(fleet.status("b", "cm-0"), format!("{}/{class}", class.state()));
    assert!(fleet.steps("b").is_empty());
    fleet
}

#[test]
fn the_source_the_copy_and_the_policy_are_inputs() {
    for class in [FailureClass::Invalid, FailureClass::Forbidden, FailureClass::TooLarge] {
        let mut fleet = update_refused(POLICY, class);
        fleet.section("a", vec![source("cm-0", "s0", 12, "3")], None);
        assert!(is_apply(&fleet.one_step("b")), "{class}: another source");

        let mut fleet = update_refused(POLICY, class);
        let body = fleet.copy_of("b", "cm-0");
        fleet.section("b", vec![copy("cm-0", "t0", 70, &body, [9; 16])], None);
        assert!(is_apply(&fleet.one_step("b")), "{class}: somebody changed the copy");

        let mut fleet = update_refused(POLICY, class);
        fleet.policies(&[("p.yaml", &format!("{POLICY}    ownership: {{ drift: Report }}\n"))]);
        assert!(is_apply(&fleet.one_step("b")), "{class}: the policy");
    }
}

#[test]
fn what_the_target_serves_accepts_and_runs_are_inputs() {
    let mut fleet = update_refused(POLICY, FailureClass::SchemaMismatch);
    fleet.served("b", &[("", "ConfigMap", "v1"), ("", "Secret", "v1")]);
    assert!(fleet.steps("b").is_empty(), "the kind is served as before");
    fleet.lists("b", &[("", "ConfigMap", "v1"), ("", "Secret", "v1")]);
    assert!(is_apply(&fleet.one_step("b")), "it is served otherwise");

    let mut fleet = update_refused(POLICY, FailureClass::NotAccepted);
    for (accepts, again) in [(Vec::new(), false), (vec!["create ConfigMap in *".to_owned()], true)] {
        fleet.accepts = accepts;
        fleet.disconnect("b");
        fleet.connect("b");
        fleet.live("b", Vec::new());
        assert_eq!(fleet.steps("b").iter().any(is_apply), again);
    }
}

#[test]
fn a_policy_that_comes_to_recreate_does_so_at_once_also_with_a_grace_period() {
    let grace = format!("{POLICY}  deletion: {{ gracePeriod: 1h }}\n");
    let mut fleet = update_refused(&grace, FailureClass::Immutable);
    let recreate =
        format!("{POLICY}    ownership: {{ onImmutable: Recreate }}\n  deletion: {{ gracePeriod: 1h }}\n");
    fleet.policies(&[("p.yaml", &recreate)]);
    let step = fleet.one_step("b");
    assert!(is_apply(&step), "it may be accepted by now");
    fleet.outcome("b", step.step, refused(FailureClass::Immutable));
    assert!(is_read(&fleet.one_step("b")), "no grace period is waited for");
}

/// The source was away for a moment (`kubectl replace --force`), and came back with another body.
#[test]
fn a_recreate_does_not_wait_for_a_grace_period_that_had_begun() {
    let policy =
        format!("{POLICY}    ownership: {{ onImmutable: Recreate }}\n  deletion: {{ gracePeriod: 1h }}\n");
    let mut fleet = Fleet::up(&[("p.yaml", &policy)]);
    fleet.in_step(1);
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    assert_eq!(fleet.status("b", "cm-0"), "Pending/GracePeriod");
    fleet.section("a", vec![source("cm-0", "s1", 21, "2")], None);
    let step = fleet.one_step("b");
    fleet.outcome("b", step.step, refused(FailureClass::Immutable));
    assert!(is_read(&fleet.one_step("b")));
}

#[test]
fn rights_quotas_and_webhooks_are_not_seen_and_asked_about_by_the_clock() {
    for (class, ms) in [(FailureClass::Forbidden, 60_000), (FailureClass::Invalid, 15 * 60_000)] {
        let mut fleet = update_refused(POLICY, class);
        fleet.tick(ms - 1_000);
        assert!(fleet.steps("b").is_empty(), "{class}");
        fleet.tick(1_000);
        assert!(is_apply(&fleet.one_step("b")), "{class}");
    }
}

#[test]
fn the_end_of_a_namespace_is_an_event_however_long_it_took() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.namespaces("b", vec![namespace("shop", 5, true)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    for _ in 0..12 {
        let step = fleet.one_step("b");
        fleet.outcome("b", step.step, refused(FailureClass::NamespaceTerminating));
        assert_eq!(fleet.status("b", "cm-0"), "Blocked/NamespaceTerminating");
        fleet.tick(400_000);
    }
    let step = fleet.one_step("b");
    fleet.outcome("b", step.step, refused(FailureClass::NamespaceTerminating));
    assert!(fleet.steps("b").is_empty(), "five minutes are to be waited now");
    let gone = v1::item::Change::Delete(v1::Delete::default());
    fleet.namespaces("b", vec![v1::Item { change: Some(gone), ..namespace("shop", 60, true) }]);
    let step = fleet.one_step("b");
    fleet.outcome("b", step.step, refused(FailureClass::NamespaceTerminating));
    assert_eq!(fleet.placement("b", "cm-0").unwrap().attempts, 1, "it is another matter now");
}

const KNOBS: &str = "
apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: { name: knobs }
spec:
  sourceCluster: a
  targetClusters: [b]
  resources: [{ apiGroup: example.com, kind: Knob }]
";

fn knob(rv: u64) -> v1::Item {
    let mut item = source("knob", "k", rv, "1");
    if let Some(v1::item::Change::Upsert(upsert)) = &mut item.change {
        let body = String::from_utf8(upsert.body.to_vec()).unwrap();
        let body = body.replacen("\"v1\"", "\"example.com/v1\"", 1).replacen("ConfigMap", "Knob", 1);
        upsert.body = body.into();
    }
    item
}

/// The definition as a key, of this resourceVersion.
fn definition(fleet: &Fleet, rv: u64) -> v1::Item {
    let mut item = namespace("knobs.example.com", rv, false);
    item.observed_ms = fleet.now;
    item
}

#[test]
fn a_definition_that_changes_at_the_target_is_an_input_and_has_time_to_settle() {
    let live = Some(v1::WatchPhase::Live);
    let mut fleet = Fleet::new(&[("p.yaml", KNOBS)]);
    for name in ["a", "b"] {
        fleet.connect(name);
        fleet.served(name, &[("example.com", "Knob", "example.com/v1")]);
        fleet.section_of("Knob", name, Vec::new(), live);
        fleet.section_of("CustomResourceDefinition", name, vec![definition(&fleet, 1)], live);
    }
    let (_, interest) = &fleet.agents["b"].watches["CustomResourceDefinition"];
    assert!(interest.revisions, "its life alone does not tell of its schema");
    fleet.tick(600_000);
    fleet.section_of("Knob", "a", vec![knob(10)], None);
    let step = fleet.one_step("b");
    fleet.outcome("b", step.step, refused(FailureClass::SchemaMismatch));
    fleet.tick(14 * 60_000);
    assert!(fleet.steps("b").is_empty());
    // The schema is fixed; its API server takes some seconds until it goes by it.
    fleet.section_of("CustomResourceDefinition", "b", vec![definition(&fleet, 20)], live);
    let mut attempts = 0;
    for _ in 0..90 {
        for step in fleet.steps("b") {
            attempts += 1;
            fleet.outcome("b", step.step, refused(FailureClass::SchemaMismatch));
        }
        fleet.tick(1_000);
    }
    assert!((6..=9).contains(&attempts), "it settles: {attempts} attempts");
    let id = fleet.core.names[&ClusterName::new("b").unwrap()];
    let key = ObjectKey::new(GroupKind::new("example.com", "Knob"), "shop", "knob");
    let row = fleet.core.store.placement(id, &key).unwrap().unwrap();
    assert!(row.next_attempt.unwrap() > fleet.now + 10 * 60_000, "and is barred like before");
}

/// Its definition went, and the watch with it: held is held, and an approval is carried out.
#[test]
fn i7_what_is_held_stays_held_where_the_source_does_not_serve_its_kind_any_more() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(6);
    fleet.section("a", (0..6).map(|n| deleted(&format!("cm-{n}"), &format!("s{n}"), 20 + n)).collect(), None);
    assert_eq!(fleet.status("b", "cm-0"), "Held/DeleteBudget");
    fleet.unserved("a");
    fleet.disconnect("b");
    fleet.connect("b");
    fleet.live("b", Vec::new());
    assert_eq!(fleet.status("b", "cm-0"), "Held/DeleteBudget");
    assert!(fleet.steps("b").is_empty());
    fleet.approve();
    assert!(fleet.steps("b").iter().all(is_read));
    assert_eq!(fleet.status("b", "cm-0"), "Pending/Archiving");
}
