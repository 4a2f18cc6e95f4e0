//! Fields that are left to targets, drift, wars, and copies that are made anew.

use lockstep_wire::v1::{self, apply::Expect, outcome::Result as Answer, step::Action};

use super::fleet::*;
use super::told::*;

fn policy(ownership: &str) -> String {
    format!("{POLICY}    ownership: {{ {ownership} }}\n")
}

fn apply(step: &v1::Step) -> &v1::Apply {
    let Some(Action::Apply(apply)) = &step.action else { panic!("not an apply: {step:?}") };
    apply
}

fn manager(name: &str, fields: &[&str]) -> v1::Manager {
    let fields = fields.iter().map(|field| (*field).to_owned()).collect();
    let (operation, time) = ("Update".to_owned(), "2026-01-02T03:04:05Z".to_owned());
    v1::Manager { name: name.into(), operation, time, fields, ..v1::Manager::default() }
}

/// What the watch tells of the copy once somebody else wrote to it.
fn edited(fleet: &mut Fleet, rv: u64, by: v1::Manager) {
    let body = fleet.copy_of("b", "cm-0");
    let mut item = copy("cm-0", "t0", rv, &body, [u8::try_from(rv % 250).unwrap(); 16]);
    if let Some(v1::item::Change::Upsert(v1::Upsert { managed: Some(managed), .. })) = &mut item.change {
        managed.managers = vec![by];
    }
    fleet.section("b", vec![item], None);
}

fn answer(fleet: &mut Fleet, step: &v1::Step, rv: u64, left: Vec<v1::Left>) {
    let applied = v1::Applied {
        uid: "t0".into(),
        resource_version: rv.to_string(),
        owned_digest: vec![u8::try_from(rv % 250).unwrap(); 16].into(),
        field_set: br#"{"f:data":{"f:k":{}}}"#.to_vec().into(),
        api_version: "v1".into(),
        compared: Some(v1::Compared::default()),
        left,
        ..v1::Applied::default()
    };
    fleet.outcome("b", step.step, Answer::Applied(applied));
}

fn message(fleet: &mut Fleet) -> String {
    fleet.placement("b", "cm-0").unwrap().status.message
}

#[test]
fn a_rule_travels_with_the_step_and_its_change_is_one_update() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.policies(&[("p.yaml", &policy("ignoreDifferences: [{ jsonPointers: [/data/k] }]"))]);
    let step = fleet.one_step("b");
    let leave: lockstep_engine::ownership::Leave = serde_json::from_slice(&apply(&step).leave).unwrap();
    assert_eq!(leave.never.iter().map(ToString::to_string).collect::<Vec<_>>(), ["$.data.k"]);
    fleet.perform("b", &step, "t0", 60, true);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    fleet.restart();
    fleet.policies(&[("p.yaml", POLICY)]);
    fleet.connect("a");
    fleet.connect("b");
    fleet.live("a", Vec::new());
    fleet.live("b", Vec::new());
    let step = fleet.one_step("b");
    assert!(apply(&step).leave.is_empty());
}

#[test]
fn drift_is_named_and_a_war_ends_in_a_conflict_until_the_other_lets_go() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section("a", vec![source("cm-0", "s0", 11, "2")], None);
    let step = fleet.one_step("b");
    answer(&mut fleet, &step, 60, Vec::new());
    for round in 0..5 {
        edited(&mut fleet, 70 + 10 * round, manager("kubectl-edit", &[".data.k", ".data.beside"]));
        assert_eq!(fleet.status("b", "cm-0"), "Pending/Drifted");
        let said = message(&mut fleet);
        assert!(said.ends_with(".data.k by kubectl-edit (Update) at 2026-01-02T03:04:05Z"), "{said}");
        let step = fleet.one_step("b");
        assert!(!apply(&step).last_field_set.is_empty(), "it may be forced");
        answer(&mut fleet, &step, 71 + 10 * round, Vec::new());
        assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    }
    assert_eq!(fleet.core.counts.drifts, 5);
    edited(&mut fleet, 130, manager("kubectl-edit", &[".data.k"]));
    let step = fleet.one_step("b");
    assert!(apply(&step).last_field_set.is_empty() && !apply(&step).same_body, "nothing is forced");
    let failed = v1::Failed {
        class: "Conflict".into(),
        message: "fields are owned by kubectl-edit".into(),
        paths: vec![".data.k".into()],
        ..v1::Failed::default()
    };
    fleet.outcome("b", step.step, Answer::Failed(failed));
    assert_eq!(fleet.status("b", "cm-0"), "Conflict/Contested");
    fleet.tick(3_600_000);
    assert!(fleet.steps("b").is_empty(), "nothing changed, nothing is tried");
    // The other lets go.
    edited(&mut fleet, 140, manager("kubectl-edit", &[".data.beside"]));
    let step = fleet.one_step("b");
    answer(&mut fleet, &step, 141, Vec::new());
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    edited(&mut fleet, 150, manager("kubectl-edit", &[".data.k"]));
    let step = fleet.one_step("b");
    assert!(!apply(&step).last_field_set.is_empty(), "a single edit is set back as ever");
}

#[test]
fn what_is_left_is_reported_survives_a_restart_and_is_written_once_it_is_free() {
    let mut fleet = Fleet::up(&[("p.yaml", &policy("drift: Report"))]);
    fleet.in_step(1);
    let by = manager("kubectl-edit", &[".data.k"]);
    edited(&mut fleet, 60, by.clone());
    let step = fleet.one_step("b");
    let left =
        v1::Left { path: ".data.k".into(), manager: Some(manager("kubectl-edit", &[])), reported: true };
    answer(&mut fleet, &step, 60, vec![left]);
    assert_eq!(fleet.status("b", "cm-0"), "Conflict/DriftReported");
    assert!(message(&mut fleet).ends_with(".data.k by kubectl-edit (Update) at 2026-01-02T03:04:05Z"));
    assert!(fleet.steps("b").is_empty(), "a report is no reason to ask the agent who is in the way");
    let before = fleet.placement("b", "cm-0");
    fleet.restart();
    assert_eq!(fleet.placement("b", "cm-0"), before);
    fleet.policies(&[("p.yaml", &policy("drift: Report"))]);
    fleet.connect("a");
    fleet.connect("b");
    fleet.live("a", Vec::new());
    fleet.live("b", Vec::new());
    assert!(fleet.steps("b").is_empty());
    let body = fleet.copy_of("b", "cm-0");
    let mut item = copy("cm-0", "t0", 70, &body, [60; 16]);
    if let Some(v1::item::Change::Upsert(v1::Upsert { managed: Some(managed), .. })) = &mut item.change {
        managed.managers = vec![manager("kubectl-edit", &[".data.beside"])];
    }
    fleet.section("b", vec![item], None);
    let step = fleet.one_step("b");
    answer(&mut fleet, &step, 71, Vec::new());
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
}

#[test]
fn what_is_only_created_is_left_alone_afterwards() {
    let mut fleet = Fleet::up(&[("p.yaml", &policy("createOnly: true"))]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let step = fleet.one_step("b");
    fleet.perform("b", &step, "t0", 50, true);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/CreateOnly");
    edited(&mut fleet, 60, manager("kubectl-edit", &[".data.k"]));
    fleet.section("a", vec![source("cm-0", "s0", 11, "2")], None);
    assert!(fleet.steps("b").is_empty());
    fleet.section("b", vec![deleted("cm-0", "t0", 70)], None);
    assert!(matches!(apply(&fleet.one_step("b")).expect, Some(Expect::Absent(_))));
}

/// The source changes something that cannot be changed.
fn immutable(policy: &str) -> Fleet {
    let mut fleet = Fleet::up(&[("p.yaml", policy)]);
    fleet.in_step(1);
    fleet.section("a", vec![source("cm-0", "s0", 11, "2")], None);
    let step = fleet.one_step("b");
    let failed =
        v1::Failed { class: "Immutable".into(), message: "immutable".into(), ..v1::Failed::default() };
    fleet.outcome("b", step.step, Answer::Failed(failed));
    fleet
}

#[test]
fn what_cannot_be_changed_is_made_anew_where_the_policy_says_so_archived_first() {
    let mut fleet = immutable(POLICY);
    assert_eq!(fleet.status("b", "cm-0"), "Blocked/Immutable");
    let mut fleet = immutable(&policy("onImmutable: Recreate"));
    let read = fleet.one_step("b");
    assert!(matches!(read.action, Some(Action::Read(_))));
    let image = v1::Image {
        uid: "t0".into(),
        resource_version: "50".into(),
        body: br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}"#.to_vec().into(),
        api_version: "v1".into(),
        managed: true,
    };
    fleet.outcome("b", read.step, Answer::Image(image));
    assert!(fleet.steps("b").is_empty(), "it waits for the archive");
    fleet.archive();
    let delete = fleet.one_step("b");
    assert!(matches!(delete.action, Some(Action::Delete(_))));
    fleet.outcome("b", delete.step, Answer::Deleted(v1::Done {}));
    fleet.section("b", vec![deleted("cm-0", "t0", 60)], None);
    let create = fleet.one_step("b");
    assert!(matches!(apply(&create).expect, Some(Expect::Absent(_))));
    fleet.perform("b", &create, "t1", 61, true);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    assert!(fleet.placement("b", "cm-0").unwrap().ending.is_none());
    assert!(fleet.tombstones().iter().any(|tombstone| tombstone.uid.as_str() == "t0" && tombstone.deleted));
}

#[test]
fn i7_making_anew_stays_within_the_budget_and_dissolves_when_the_source_goes_back() {
    let none = "    deletion: { budget: { count: 0, percent: 0 } }\n";
    let text =
        policy("onImmutable: Recreate").replace("  resources:", &format!("{}  resources:", &none[2..]));
    let mut fleet = immutable(&text);
    assert_eq!(fleet.status("b", "cm-0"), "Held/DeleteBudget");
    assert!(fleet.steps("b").is_empty());
    fleet.section("a", vec![source("cm-0", "s0", 12, "1")], None);
    assert!(fleet.steps("b").is_empty(), "it holds that already");
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
}
