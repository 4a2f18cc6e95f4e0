use lockstep_wire::v1::{self, step::Action};

use super::fleet::*;
use super::told::*;

/// The other way round than the policy of the fleet.
const BACK: &str = "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: { name: back }
spec:
  sourceCluster: b
  targetClusters: [a]
  resources: [{ kind: ConfigMap, matchLabels: { sync: 'yes' } }]
";

#[test]
fn i9_a_copy_whose_marks_were_removed_is_still_no_source() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY), ("back.yaml", BACK)]);
    fleet.in_step(1);
    // As the agent tells of it: without marks it is an object like any other.
    fleet.section("b", vec![source("cm-0", "t0", 60, "1")], None);
    assert!(fleet.steps("a").is_empty(), "lockstep wrote it");
}

/// Nobody heard of the create, so there is no record; but the API server keeps who wrote which field.
#[test]
fn i9_a_copy_whose_marks_were_removed_before_its_create_was_heard_of_is_no_source() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY), ("back.yaml", BACK)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    fleet.one_step("b");
    fleet.restart();
    fleet.policies(&[("p.yaml", POLICY), ("back.yaml", BACK)]);
    fleet.connect("a");
    fleet.live("a", Vec::new());
    fleet.connect("b");
    let mut stripped = source("cm-0", "t0", 60, "1");
    if let Some(v1::item::Change::Upsert(upsert)) = &mut stripped.change {
        upsert.managed = Some(v1::Managed {
            owned: v1::OwnedState::Digest.into(),
            owned_digest: vec![1; 16].into(),
            ..v1::Managed::default()
        });
    }
    fleet.live("b", vec![stripped]);
    assert!(fleet.steps("a").is_empty(), "lockstep wrote it");
    assert_eq!(fleet.status("b", "cm-0"), "Conflict/Exists");
}

/// What is there instead of our copy is an older one of ours, which a restore brought back.
#[test]
fn i11_an_older_copy_in_the_place_of_ours_is_held_when_the_source_is_gone() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    let body = fleet.copy_of("b", "cm-0");
    fleet.section("b", vec![copy("cm-0", "t-old", 61, &body, [1; 16])], None);
    assert_eq!(fleet.status("b", "cm-0"), "Conflict/Replaced");
    let look = fleet.one_step("b");
    let conflict = v1::Failed { class: "Conflict".into(), ..Default::default() };
    fleet.outcome("b", look.step, v1::outcome::Result::Failed(conflict));
    fleet.section("a", vec![deleted("cm-0", "s0", 70)], None);
    assert!(fleet.steps("b").is_empty());
    fleet.tick(10_000);
    assert_eq!(fleet.status("b", "cm-0"), "Held/Recovered");
    assert!(fleet.steps("b").is_empty(), "a person decides");
}

/// The agent that created was killed before it could take back what its create did to an object that it met.
/// That it is older than its marks its agent tells.
#[test]
fn i6_genuine_marks_that_a_create_left_on_what_it_met_mean_nothing() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let create = fleet.one_step("b");
    let Some(Action::Apply(apply)) = &create.action else { panic!("{create:?}") };
    fleet.disconnect("b");
    fleet.connect("b");
    let mut met = copy("cm-0", "theirs", 50, &apply.body, [50; 16]);
    if let Some(v1::item::Change::Upsert(v1::Upsert { managed: Some(managed), .. })) = &mut met.change {
        managed.marks.insert(lockstep_engine::marks::MET.to_owned(), "true".to_owned());
    }
    fleet.live("b", vec![met]);
    let again = fleet.one_step("b");
    let Some(Action::Apply(apply)) = &again.action else { panic!("{again:?}") };
    assert!(
        matches!(apply.expect, Some(v1::apply::Expect::Absent(_))),
        "it is looked at, and given back: {apply:?}"
    );
    assert_eq!(fleet.status("b", "cm-0"), "Conflict/Met");
    fleet.section("a", vec![deleted("cm-0", "s0", 60)], None);
    let conflict = v1::Failed { class: "Conflict".into(), ..Default::default() };
    fleet.outcome("b", again.step, v1::outcome::Result::Failed(conflict));
    assert!(fleet.steps("b").is_empty());
}
