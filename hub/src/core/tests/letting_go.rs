//! Grace periods, and what lockstep lets go of.

use lockstep_wire::v1::{self, outcome::Result as Answer, step::Action};
use tokio::sync::oneshot;

use super::fleet::*;
use super::told::*;
use crate::core::Input;
use crate::core::command::{Command, CommandError, PauseScope, Releasing};

fn with(deletion: &str) -> String {
    format!("{POLICY}  deletion: {{ {deletion} }}\n")
}

fn is_read(step: &v1::Step) -> bool {
    matches!(step.action, Some(Action::Read(_)))
}

/// The uid that is to be let go of.
fn released(step: &v1::Step) -> &str {
    let Some(Action::Release(release)) = &step.action else { panic!("not a release: {step:?}") };
    &release.uid
}

fn done(version: u64) -> Answer {
    Answer::Released(v1::Released { resource_version: version.to_string() })
}

/// The copy as it was before our marks were taken off.
fn marked(fleet: &mut Fleet, name: &str, uid: &str, version: u64) -> v1::Item {
    let body = fleet.copy_of("b", name);
    copy(name, uid, version, &body, [50; 16])
}

fn orphan(fleet: &mut Fleet, scope: PauseScope) -> Result<Vec<Releasing>, CommandError> {
    let (reply, mut answer) = oneshot::channel();
    fleet.input(Input::Command(Command::Orphan { scope, dry_run: false, reply }));
    answer.try_recv().unwrap()
}

fn pause(fleet: &mut Fleet, scope: PauseScope) {
    let (reply, mut answer) = oneshot::channel();
    fleet.input(Input::Command(Command::Pause { scope, paused: true, reply }));
    answer.try_recv().unwrap().unwrap();
}

#[test]
fn a_source_that_is_back_within_the_grace_period_finds_its_copy() {
    let policy = with("gracePeriod: 30s");
    let mut fleet = Fleet::up(&[("p.yaml", &policy)]);
    fleet.in_step(1);
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Pending/GracePeriod");
    assert!(fleet.placement("b", "cm-0").unwrap().status.message.contains("1970-01-01T00:00:3"));
    fleet.tick(20_000);
    assert!(fleet.steps("b").is_empty());
    fleet.section("a", vec![source("cm-0", "s9", 30, "2")], None);
    let step = fleet.one_step("b");
    assert!(matches!(step.action, Some(Action::Apply(_))), "updated in place (I5): {step:?}");
    fleet.perform("b", &step, "t0", 60, true);
    fleet.tick(60_000);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    // The next end begins a period of its own.
    fleet.section("a", vec![deleted("cm-0", "s9", 40)], None);
    fleet.tick(20_000);
    assert!(fleet.steps("b").is_empty());
    fleet.tick(11_000);
    assert!(is_read(&fleet.one_step("b")));
}

#[test]
fn a_grace_period_goes_on_over_a_restart_and_follows_its_policy() {
    let policy = with("gracePeriod: 1h");
    let mut fleet = Fleet::up(&[("p.yaml", &policy)]);
    fleet.in_step(1);
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    fleet.tick(600_000);
    fleet.restart();
    fleet.policies(&[("p.yaml", &policy)]);
    fleet.connect("a");
    fleet.connect("b");
    fleet.namespaces("a", Vec::new());
    fleet.live("a", Vec::new());
    fleet.live("b", Vec::new());
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Pending/GracePeriod");
    // Ten minutes of it are over: a policy that says five lets it go at once.
    fleet.policies(&[("p.yaml", &with("gracePeriod: 5m"))]);
    assert!(is_read(&fleet.one_step("b")));
}

#[test]
fn i7_what_asks_after_its_grace_period_is_judged_by_the_budget_together() {
    let policy = with("gracePeriod: 10s, budget: { count: 1, percent: 0, window: 1m }");
    let mut fleet = Fleet::up(&[("p.yaml", &policy)]);
    fleet.in_step(3);
    fleet.section("a", vec![deleted("cm-0", "s0", 20), deleted("cm-1", "s1", 21)], None);
    assert_eq!(fleet.status("b", "cm-1"), "Pending/GracePeriod");
    fleet.tick(11_000);
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Held/DeleteBudget");
    let says = fleet.placement("b", "cm-1").unwrap().status.message;
    assert!(says.contains("allows 1 here in 1m"), "{says}");
}

#[test]
fn a_window_of_a_policy_counts_for_its_budget() {
    let policy = with("budget: { count: 1, percent: 0, window: 1m }");
    let mut fleet = Fleet::up(&[("p.yaml", &policy)]);
    fleet.in_step(3);
    for n in 0..2 {
        fleet.section("a", vec![deleted(&format!("cm-{n}"), &format!("s{n}"), 20 + n)], None);
        assert!(is_read(&fleet.one_step("b")));
        fleet.tick(60_000);
    }
}

#[test]
fn i7_deletes_that_follow_a_namespace_go_within_the_budget_where_the_policy_says_so() {
    for (deletion, stands) in
        [("onUnselect: Delete", "Held/ContainerDeleted"), ("containerDeleted: Delete", "Pending/Archiving")]
    {
        let mut fleet = Fleet::up(&[("p.yaml", &with(deletion))]);
        fleet.in_step(1);
        fleet.namespaces("a", vec![namespace("shop", 60, true)]);
        fleet.section("a", vec![deleted("cm-0", "s0", 65)], None);
        assert_eq!(fleet.status("b", "cm-0"), stands);
    }
}

#[test]
fn i7_a_policy_that_is_removed_keeps_its_budget() {
    let policy = with("onPolicyDelete: Delete, budget: { count: 0, percent: 0 }");
    let mut fleet = Fleet::up(&[("p.yaml", &policy)]);
    fleet.in_step(1);
    fleet.policies(&[]);
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Held/DeleteBudget");
}

#[test]
fn what_is_to_stay_is_let_go_of_after_its_grace_period_and_never_touched_again() {
    let policy = with("onSourceDelete: Orphan, gracePeriod: 10s");
    let mut fleet = Fleet::up(&[("p.yaml", &policy)]);
    fleet.in_step(1);
    let before = marked(&mut fleet, "cm-0", "t0", 50);
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    assert_eq!(fleet.status("b", "cm-0"), "Pending/GracePeriod");
    fleet.tick(11_000);
    let step = fleet.one_step("b");
    assert_eq!(released(&step), "t0");
    fleet.outcome("b", step.step, done(70));
    assert_eq!(fleet.status("b", "cm-0"), "-");
    // What the watch tells of before is no news, and what others do with it nobody's business.
    fleet.section("b", vec![before], None);
    fleet.section("b", vec![foreign("cm-0", "t0", 70), foreign("cm-0", "t0", 71)], None);
    assert_eq!(fleet.status("b", "cm-0"), "-");
    fleet.section("a", vec![source("cm-0", "s9", 30, "2")], None);
    assert_eq!(fleet.status("b", "cm-0"), "Conflict/Exists");
}

#[test]
fn letting_go_that_fails_is_tried_again_at_its_pace() {
    for deletion in ["onSourceDelete: Orphan", "onSourceDelete: Orphan, gracePeriod: 10s"] {
        let mut fleet = Fleet::up(&[("p.yaml", &with(deletion))]);
        fleet.in_step(1);
        fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
        fleet.tick(11_000);
        let step = fleet.one_step("b");
        let failed = v1::Failed { class: "Forbidden".into(), message: "no".into(), ..v1::Failed::default() };
        fleet.outcome("b", step.step, Answer::Failed(failed));
        assert!(fleet.steps("b").is_empty());
        assert_eq!(fleet.status("b", "cm-0"), "Failed/Forbidden");
        fleet.tick(61_000);
        assert_eq!(released(&fleet.one_step("b")), "t0");
    }
}

#[test]
fn what_went_with_its_namespace_or_unseen_keeps_its_marks() {
    let policy = with("onSourceDelete: Orphan");
    let mut fleet = Fleet::up(&[("p.yaml", &policy)]);
    fleet.in_step(1);
    fleet.namespaces("a", vec![namespace("shop", 60, true)]);
    fleet.section("a", vec![deleted("cm-0", "s0", 65)], None);
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Orphaned/SourceDeleted");
    let back = v1::Item { uid: "n2".into(), ..namespace("shop", 72, false) };
    fleet.namespaces("a", vec![back]);
    fleet.section("a", vec![source("cm-0", "s9", 80, "1")], None);
    assert!(matches!(fleet.one_step("b").action, Some(Action::Apply(_))), "it is in step again");
}

#[test]
fn a_source_that_went_while_its_namespace_was_not_known_is_let_go_of_when_it_is() {
    let policy = with("onSourceDelete: Orphan");
    let mut fleet = Fleet::up(&[("p.yaml", &policy)]);
    fleet.in_step(1);
    fleet.disconnect("a");
    fleet.connect("a");
    fleet.live("a", vec![deleted("cm-0", "s0", 20)]);
    assert!(fleet.steps("b").is_empty());
    fleet.namespaces("a", Vec::new());
    fleet.tick(5_000);
    assert_eq!(released(&fleet.one_step("b")), "t0");
}

#[test]
fn a_command_lets_go_of_what_a_removed_policy_left_also_where_nobody_watches_it() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(2);
    fleet.policies(&[]);
    fleet.received("b");
    assert!(!fleet.agents["b"].watches.contains_key("ConfigMap"));
    assert_eq!(fleet.status("b", "cm-0"), "Orphaned/PolicyRemoved");
    fleet.disconnect("b");
    let counted = orphan(&mut fleet, PauseScope::Policy("maps".into())).unwrap();
    assert_eq!((counted[0].target.as_str(), counted[0].objects), ("b", 2));
    assert_eq!(fleet.status("b", "cm-0"), "Pending/Releasing", "it waits for its cluster");
    fleet.restart();
    fleet.policies(&[]);
    fleet.connect("b");
    let steps = fleet.steps("b");
    assert_eq!(steps.iter().map(released).collect::<Vec<_>>(), ["t0", "t1"]);
    fleet.outcome("b", steps[0].step, done(70));
    fleet.outcome("b", steps[1].step, Answer::Gone(v1::Done {}));
    assert_eq!((fleet.status("b", "cm-0"), fleet.status("b", "cm-1")), ("-".into(), "-".into()));
    assert!(fleet.steps("b").is_empty());
    assert!(fleet.tombstones().is_empty());
}

#[test]
fn what_a_policy_in_force_asks_for_is_let_go_of_only_where_it_is_paused() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    for scope in [PauseScope::Everything, PauseScope::Cluster("b".into()), PauseScope::Policy("maps".into())]
    {
        let refused = orphan(&mut fleet, scope).unwrap_err();
        assert_eq!(refused.code, "LS0214");
        assert!(refused.message.contains("maps") && refused.remedy.contains("lockstep pause"), "{refused}");
    }
    assert!(orphan(&mut fleet, PauseScope::Cluster("c".into())).unwrap().is_empty());
    pause(&mut fleet, PauseScope::Cluster("b".into()));
    let before = marked(&mut fleet, "cm-0", "t0", 50);
    assert_eq!(orphan(&mut fleet, PauseScope::Cluster("b".into())).unwrap()[0].objects, 1);
    // A pause keeps lockstep from writing; this a person asked for.
    let step = fleet.one_step("b");
    fleet.section("b", vec![foreign("cm-0", "t0", 70)], None);
    fleet.outcome("b", step.step, done(70));
    fleet.section("b", vec![before, foreign("cm-0", "t0", 70)], None);
    assert!(fleet.steps("b").is_empty());
    let (reply, mut answer) = oneshot::channel();
    let scope = PauseScope::Cluster("b".into());
    fleet.input(Input::Command(Command::Pause { scope, paused: false, reply }));
    answer.try_recv().unwrap().unwrap();
    assert_eq!(fleet.status("b", "cm-0"), "Conflict/Exists", "it is somebody else's now");
}

/// Sim seed 20471: a policy was away for a moment while its source's agent could not be reached, and a namespace was
/// deleted and made again there. Its watch tells only as long as it goes on.
#[test]
fn i7_namespaces_stay_watched_while_what_is_in_them_is() {
    let back = POLICY.replace("name: maps", "name: back").replace("sourceCluster: a", "sourceCluster: b");
    let back = back.replace("[b]", "[a]");
    let mut fleet = Fleet::up(&[("p.yaml", POLICY), ("q.yaml", back.as_str())]);
    fleet.in_step(1);
    fleet.disconnect("a");
    fleet.policies(&[("q.yaml", back.as_str())]);
    fleet.policies(&[("p.yaml", POLICY), ("q.yaml", back.as_str())]);
    fleet.connect("a");
    fleet.namespaces("a", vec![v1::Item { uid: "n2".into(), ..namespace("shop", 90, false) }]);
    fleet.live("a", vec![deleted("cm-0", "s0", 80)]);
    fleet.tick(10_000);
    assert_eq!(fleet.status("b", "cm-0"), "Held/ContainerDeleted");
}
