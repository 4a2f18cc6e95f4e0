//! In step is what was compared (decision 0016).

use lockstep_engine::ownership::FieldSet;
use lockstep_wire::v1::{self, outcome::Result as Answer, step::Action};

use super::fleet::*;
use super::told::*;

const LINGERING: &[u8] = br#"{"f:data":{"f:old":{".":{}}}}"#;

fn apply(step: &v1::Step) -> &v1::Apply {
    let Some(Action::Apply(apply)) = &step.action else { panic!("not an apply: {step:?}") };
    apply
}

fn manager(name: &str, fields: &[&str]) -> v1::Manager {
    let fields = fields.iter().map(|field| (*field).to_owned()).collect();
    v1::Manager { name: name.into(), operation: "Update".into(), fields, ..v1::Manager::default() }
}

/// The answer to an apply, with what the agent found when it compared.
fn answer(fleet: &mut Fleet, step: &v1::Step, rv: u64, compared: Option<v1::Compared>) {
    let applied = v1::Applied {
        uid: "t0".into(),
        resource_version: rv.to_string(),
        owned_digest: vec![7; 16].into(),
        field_set: br#"{"f:data":{"f:k":{}}}"#.to_vec().into(),
        api_version: "v1".into(),
        compared,
        ..v1::Applied::default()
    };
    fleet.outcome("b", step.step, Answer::Applied(applied));
}

fn held() -> v1::Compared {
    let difference = v1::Difference {
        path: ".data.old".into(),
        kind: v1::DifferenceKind::Extra.into(),
        holders: vec![manager("somebody", &[])],
    };
    v1::Compared { differences: vec![difference], more: 0, lingering: LINGERING.to_vec().into() }
}

/// The watch tells of the copy, which is as our last write left it as far as it is ours.
fn told(fleet: &mut Fleet, rv: u64, by: v1::Manager) {
    let body = fleet.copy_of("b", "cm-0");
    let mut item = copy("cm-0", "t0", rv, &body, [7; 16]);
    if let Some(v1::item::Change::Upsert(v1::Upsert { managed: Some(managed), .. })) = &mut item.change {
        managed.managers = vec![by];
    }
    fleet.section("b", vec![item], None);
}

/// A copy that differs: somebody holds what the source has removed.
fn differing() -> Fleet {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section("a", vec![source("cm-0", "s0", 11, "2")], None);
    let step = fleet.one_step("b");
    answer(&mut fleet, &step, 60, Some(held()));
    fleet
}

#[test]
fn i17_what_differs_is_said_and_not_written_again_for_every_event() {
    let mut fleet = differing();
    assert_eq!(fleet.status("b", "cm-0"), "Differs/HeldByOthers");
    let said = fleet.placement("b", "cm-0").unwrap().status.message;
    let wanted = ".data.old was removed at the source and is still there, held by somebody (Update)";
    assert!(said.contains(wanted), "{said}");
    // Heartbeats of others, the holder's among them.
    for rv in 61..80 {
        told(&mut fleet, rv, manager("somebody", &[".data.old", ".data.own"]));
        assert!(fleet.steps("b").is_empty());
    }
    let before = fleet.placement("b", "cm-0");
    fleet.restart();
    assert_eq!(fleet.placement("b", "cm-0"), before);
    fleet.policies(&[("p.yaml", POLICY)]);
    fleet.connect("a");
    fleet.connect("b");
    fleet.live("a", Vec::new());
    fleet.live("b", Vec::new());
    assert!(fleet.steps("b").is_empty());
    // It is time: once, and it stands as it is meanwhile.
    fleet.tick(15 * 60_000);
    let step = fleet.one_step("b");
    assert_eq!(fleet.status("b", "cm-0"), "Differs/HeldByOthers");
    let was_ours = FieldSet::parse(&apply(&step).was_ours).unwrap();
    assert!(was_ours.contains(".data.old"), "what lingers goes along");
    answer(&mut fleet, &step, 79, Some(held()));
    assert!(fleet.steps("b").is_empty());
    // The holder lets go, and the source has nothing to do with it.
    told(&mut fleet, 90, manager("somebody", &[".data.own"]));
    let step = fleet.one_step("b");
    answer(&mut fleet, &step, 90, Some(v1::Compared::default()));
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    fleet.tick(3_600_000);
    assert!(fleet.steps("b").is_empty());
}

#[test]
fn i17_what_differs_follows_its_source_at_once() {
    let mut fleet = differing();
    fleet.section("a", vec![source("cm-0", "s0", 12, "3")], None);
    let step = fleet.one_step("b");
    answer(&mut fleet, &step, 61, Some(v1::Compared::default()));
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
}

#[test]
fn i17_an_agent_that_does_not_compare_is_not_believed() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let step = fleet.one_step("b");
    answer(&mut fleet, &step, 60, None);
    assert_eq!(fleet.status("b", "cm-0"), "Unknown/NotCompared");
    fleet.tick(3_600_000);
    assert!(fleet.steps("b").is_empty());
}

#[test]
fn i17_after_the_loss_of_the_disk_a_copy_is_compared_and_not_believed() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    let body = fleet.copy_of("b", "cm-0");
    fleet.lose_disk(&[("p.yaml", POLICY)]);
    fleet.connect("a");
    fleet.connect("b");
    fleet.live("a", vec![source("cm-0", "s0", 10, "1")]);
    fleet.live("b", vec![copy("cm-0", "t0", 70, &body, [7; 16])]);
    let step = fleet.one_step("b");
    assert!(apply(&step).unless_equal, "nothing is written where it is what is asked for");
    assert_eq!(fleet.status("b", "cm-0"), "Pending/Verifying");
    answer(&mut fleet, &step, 70, Some(v1::Compared::default()));
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
}
