//! What is there already and is not ours: left alone, or adopted as the policy says.

use lockstep_wire::v1::{self, apply::Expect, step::Action};

use super::fleet::*;
use super::told::*;

fn policy(conflict: &str) -> String {
    format!("{POLICY}    ownership: {{ conflict: {conflict} }}\n")
}

fn apply(step: &v1::Step) -> &v1::Apply {
    let Some(Action::Apply(apply)) = &step.action else { panic!("not an apply: {step:?}") };
    apply
}

fn says_adopted(step: &v1::Step) -> bool {
    let body: serde_json::Value = serde_json::from_slice(&apply(step).body).unwrap();
    body["metadata"]["annotations"]["lockstep.dev/adopted"] == "true"
}

fn adopted(fleet: &mut Fleet) -> bool {
    fleet.placement("b", "cm-0").unwrap().record.unwrap().adopted
}

/// An object that is there is adopted.
fn taken_over(policy: &str) -> Fleet {
    let mut fleet = Fleet::up(&[("p.yaml", policy)]);
    fleet.section("b", vec![foreign("cm-0", "theirs", 40)], None);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let step = fleet.one_step("b");
    let expected = v1::Adopt { uid: "theirs".into(), ..v1::Adopt::default() };
    assert_eq!(apply(&step).expect, Some(Expect::Adopt(expected)));
    assert!(says_adopted(&step));
    fleet.perform("b", &step, "theirs", 41, true);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    fleet
}

#[test]
fn what_is_taken_over_is_remembered_as_adopted_until_it_is_made_anew() {
    let mut fleet = taken_over(&policy("TakeOver"));
    assert!(adopted(&mut fleet));
    fleet.section("a", vec![source("cm-0", "s0", 11, "2")], None);
    let step = fleet.one_step("b");
    assert!(matches!(apply(&step).expect, Some(Expect::Present(_))) && says_adopted(&step));
    fleet.perform("b", &step, "theirs", 42, false);
    assert!(adopted(&mut fleet));
    // Deleted at the target: what is created now is ours from the beginning.
    fleet.section("b", vec![deleted("cm-0", "theirs", 43)], None);
    let step = fleet.one_step("b");
    assert!(matches!(apply(&step).expect, Some(Expect::Absent(_))) && !says_adopted(&step));
    fleet.perform("b", &step, "ours", 44, true);
    assert!(!adopted(&mut fleet));
}

#[test]
fn what_a_tool_tracks_is_not_adopted_unless_the_policy_says_so() {
    let mut fleet = Fleet::up(&[("p.yaml", &policy("TakeOver"))]);
    fleet.section("b", vec![foreign("cm-0", "theirs", 40)], None);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let step = fleet.one_step("b");
    let tracker = v1::Tracker { tool: "Argo CD".into(), mark: "argocd.argoproj.io/instance=shop".into() };
    let failed = v1::Failed {
        class: "Conflict".into(),
        message: "it is there".into(),
        tracker: Some(tracker),
        ..v1::Failed::default()
    };
    fleet.outcome("b", step.step, v1::outcome::Result::Failed(failed));
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Conflict/Tracked");
    let message = fleet.placement("b", "cm-0").unwrap().status.message;
    assert!(message.contains("Argo CD tracks it (argocd.argoproj.io/instance=shop)"), "{message}");
    let ignoring = policy("TakeOver, tracked: Ignore");
    fleet.policies(&[("p.yaml", &ignoring)]);
    fleet.tick(1_000);
    let step = fleet.one_step("b");
    assert!(matches!(apply(&step).expect, Some(Expect::Adopt(v1::Adopt { tracked_too: true, .. }))));
}

#[test]
fn an_adopted_object_is_orphaned_where_others_are_deleted() {
    let mut fleet = taken_over(&policy("TakeOver"));
    fleet.section("a", vec![deleted("cm-0", "s0", 11)], None);
    let step = fleet.one_step("b");
    assert_eq!(step.action, Some(Action::Release(v1::Release { uid: "theirs".into() })));
    let released = v1::Released { resource_version: "60".into() };
    fleet.outcome("b", step.step, v1::outcome::Result::Released(released));
    assert_eq!(fleet.status("b", "cm-0"), "-");
    assert!(fleet.steps("b").is_empty());
}

#[test]
fn an_adopted_object_is_deleted_where_its_policy_says_so() {
    let mut fleet = taken_over(&format!("{}  deletion: {{ adopted: Delete }}\n", policy("TakeOver")));
    fleet.section("a", vec![deleted("cm-0", "s0", 11)], None);
    assert!(matches!(fleet.one_step("b").action, Some(Action::Read(_))), "it is archived first");
}

#[test]
fn i11_after_the_loss_of_the_disk_an_adopted_object_is_known_as_adopted() {
    let policy = policy("TakeOver");
    let mut fleet = taken_over(&policy);
    let body = fleet.copy_of("b", "cm-0");
    fleet.lose_disk(&[("p.yaml", &policy)]);
    fleet.connect("a");
    fleet.connect("b");
    fleet.namespaces("a", vec![namespace("shop", 1, false)]);
    fleet.live("b", vec![listed(copy("cm-0", "theirs", 41, &body, [41; 16]), &body)]);
    assert!(adopted(&mut fleet));
    fleet.live("a", Vec::new());
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Orphaned/Recovered");
}

#[test]
fn what_differs_is_not_adopted_as_equal_and_is_looked_at_again_now_and_then() {
    let mut fleet = Fleet::up(&[("p.yaml", &policy("AdoptIfEqual"))]);
    fleet.section("b", vec![foreign("cm-0", "theirs", 40)], None);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let step = fleet.one_step("b");
    let expected = v1::Adopt { uid: "theirs".into(), only_if_equal: true, ..v1::Adopt::default() };
    assert_eq!(apply(&step).expect, Some(Expect::Adopt(expected)));
    let failed = v1::Failed {
        class: "Conflict".into(),
        message: "it differs".into(),
        paths: vec![".data.k".into()],
        ..v1::Failed::default()
    };
    let failed = v1::outcome::Result::Failed(failed);
    fleet.outcome("b", step.step, failed.clone());
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Conflict/Differs");
    assert!(fleet.placement("b", "cm-0").unwrap().status.message.contains(".data.k"));
    // Nobody tells of changes of an object that is not ours.
    fleet.tick(16 * 60_000);
    let step = fleet.one_step("b");
    fleet.outcome("b", step.step, failed);
    assert!(fleet.steps("b").is_empty());
    // The policy says otherwise now.
    fleet.policies(&[("p.yaml", &policy("TakeOver"))]);
    fleet.tick(1_000);
    let step = fleet.one_step("b");
    assert!(matches!(apply(&step).expect, Some(Expect::Adopt(v1::Adopt { only_if_equal: false, .. }))));
}
