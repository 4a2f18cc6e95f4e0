//! Creates: an apply that merges with what it meets, and whose answer may be lost.

use lockstep_engine::marks;
use lockstep_wire::v1::{self, apply::Expect, step::Action};

use super::fleet::*;
use super::told::*;
use crate::store::Reader;

fn apply(step: &v1::Step) -> &v1::Apply {
    match &step.action {
        Some(Action::Apply(apply)) => apply,
        _ => panic!("not an apply: {step:?}"),
    }
}

/// What a create expects.
fn absent(step: &v1::Step) -> v1::Absent {
    match &apply(step).expect {
        Some(Expect::Absent(absent)) => absent.clone(),
        _ => panic!("not a create: {step:?}"),
    }
}

/// The object as a create leaves it: with its nonce.
fn left_by(create: &v1::Step, uid: &str, rv: u64) -> v1::Item {
    let mut item = copy(&create.name, uid, rv, &apply(create).body, [7; 16]);
    if let Some(v1::item::Change::Upsert(v1::Upsert { managed: Some(managed), .. })) = &mut item.change {
        managed.marks.insert(marks::INTENT.to_owned(), absent(create).nonce);
    }
    item
}

/// The agent says that an object of others is there, and is asked to look again.
fn met(fleet: &mut Fleet, create: &v1::Step) -> v1::Absent {
    let conflict = v1::Failed { class: "Conflict".into(), ..Default::default() };
    fleet.outcome("b", create.step, v1::outcome::Result::Failed(conflict));
    let look = fleet.one_step("b");
    let again = absent(&look);
    let conflict = v1::Failed { class: "Conflict".into(), ..Default::default() };
    fleet.outcome("b", look.step, v1::outcome::Result::Failed(conflict));
    assert!(fleet.steps("b").is_empty(), "asked once about each state");
    again
}

/// Sim seed 4141: a watch was silent for longer than the agent took to take its merge back. What it says in between is not
/// ours.
#[test]
fn i6_marks_that_a_create_left_on_what_it_met_make_no_record() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let create = fleet.one_step("b");
    let conflict = v1::Failed { class: "Conflict".into(), ..Default::default() };
    fleet.outcome("b", create.step, v1::outcome::Result::Failed(conflict.clone()));
    fleet.tick(60_000);
    fleet.section("b", vec![foreign("cm-0", "theirs", 39)], None);
    for step in fleet.steps("b") {
        fleet.outcome("b", step.step, v1::outcome::Result::Failed(conflict.clone()));
    }
    fleet.section("b", vec![left_by(&create, "theirs", 40)], None);
    let look = fleet.one_step("b");
    assert_eq!(absent(&look), v1::Absent { nonce: absent(&create).nonce, again: true });
    fleet.outcome("b", look.step, v1::outcome::Result::Failed(conflict));
    assert!(fleet.placement("b", "cm-0").unwrap().record.is_none());
    fleet.section("b", vec![foreign("cm-0", "theirs", 41)], None);
    fleet.tick(60_000);
    assert!(fleet.placement("b", "cm-0").unwrap().record.is_none());
    assert!(fleet.status("b", "cm-0").starts_with("Conflict/"));
}

/// Sim seed 21653: by the time the marks are told of, nothing asks for the object any more.
#[test]
fn i6_what_a_create_met_is_not_deleted_when_its_source_is_unselected() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let create = fleet.one_step("b");
    fleet.section("a", vec![left("cm-0", "s0", 11)], None);
    let conflict = v1::Failed { class: "Conflict".into(), ..Default::default() };
    fleet.outcome("b", create.step, v1::outcome::Result::Failed(conflict));
    fleet.section("b", vec![left_by(&create, "theirs", 40)], None);
    fleet.tick(600_000);
    assert!(fleet.steps("b").is_empty());
}

/// Sim seed 2706: the copy was deleted, the answer to the create of the next one was lost, and that to its repetition,
/// too. What the record named is gone: the next one is known by its marks.
#[test]
fn i11_a_copy_that_was_made_again_is_ours_however_many_answers_are_lost() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section("b", vec![deleted("cm-0", "t0", 60)], None);
    let create = fleet.one_step("b");
    assert!(!absent(&create).again);
    fleet.disconnect("b");
    fleet.connect("b");
    fleet.live("b", vec![left_by(&create, "t1", 61)]);
    let again = fleet.one_step("b");
    assert_eq!(absent(&again), v1::Absent { nonce: absent(&create).nonce, again: true });
    // The nonce was of the creation: a repetition that finds it takes it off.
    fleet.disconnect("b");
    fleet.connect("b");
    fleet.live("b", vec![copy("cm-0", "t1", 62, &apply(&again).body, [7; 16])]);
    for step in fleet.steps("b") {
        let present = v1::Present { uid: "t1".into(), resource_version: String::new() };
        assert_eq!(apply(&step).expect, Some(Expect::Present(present)));
        fleet.perform("b", &step, "t1", 63, true);
    }
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    fleet.section("a", vec![source("cm-0", "s0", 15, "later")], None);
    let update = fleet.one_step("b");
    assert!(matches!(apply(&update).expect, Some(Expect::Present(_))));
}

/// Sim seed 27435: the source was made anew before any answer came, and so was the copy. The create that is sent for
/// the new source carries the nonce that the agent knows what was left by.
#[test]
fn i11_a_create_without_an_answer_is_sent_again_for_another_source_of_the_name() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let create = fleet.one_step("b");
    fleet.disconnect("b");
    fleet.connect("b");
    fleet.live("b", vec![left_by(&create, "t0", 40)]);
    let again = fleet.one_step("b");
    fleet.disconnect("b");
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    assert!(fleet.status("b", "cm-0").starts_with("Unknown/"), "{}", fleet.status("b", "cm-0"));
    fleet.section("a", vec![source("cm-0", "s1", 30, "2")], None);
    fleet.connect("b");
    fleet.live("b", vec![left_by(&again, "t1", 60)]);
    let step = fleet.one_step("b");
    assert_eq!(absent(&step), v1::Absent { nonce: absent(&create).nonce, again: true });
    fleet.perform("b", &step, "t1", 61, true);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    // Answered: whatever is created from now on has a nonce of its own.
    fleet.section("b", vec![deleted("cm-0", "t1", 70)], None);
    let next = absent(&fleet.one_step("b"));
    assert!(!next.again && next.nonce != absent(&create).nonce, "{next:?}");
}

/// The agent is asked what the create with this nonce left.
fn retract(fleet: &mut Fleet) -> (u64, String) {
    let step = fleet.one_step("b");
    match step.action {
        Some(Action::Retract(v1::Retract { nonce })) => (step.step, nonce),
        _ => panic!("not a retraction: {step:?}"),
    }
}

/// A create without an answer, whose source went meanwhile: what it left is looked at before it is forgotten.
fn unanswered_and_unasked() -> (Fleet, v1::Step) {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let create = fleet.one_step("b");
    fleet.disconnect("b");
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    assert_eq!(fleet.status("b", "cm-0"), "Unknown/NotConnected");
    fleet.connect("b");
    (fleet, create)
}

#[test]
fn i11_a_create_without_an_answer_is_deleted_with_its_source() {
    let (mut fleet, create) = unanswered_and_unasked();
    fleet.live("b", vec![left_by(&create, "t0", 40)]);
    let (step, nonce) = retract(&mut fleet);
    assert_eq!(nonce, absent(&create).nonce);
    let made = v1::Probed { uid: "t0".into(), ..v1::Probed::default() };
    fleet.outcome("b", step, v1::outcome::Result::Probed(made));
    assert!(fleet.status("b", "cm-0").starts_with("Pending/"), "{}", fleet.status("b", "cm-0"));
}

/// The agent knows what its create made before a watch tells of it.
#[test]
fn i11_what_a_create_without_an_answer_made_is_waited_for() {
    let (mut fleet, create) = unanswered_and_unasked();
    fleet.live("b", Vec::new());
    let made = || v1::outcome::Result::Probed(v1::Probed { uid: "t0".into(), ..v1::Probed::default() });
    let (step, _) = retract(&mut fleet);
    fleet.outcome("b", step, made());
    assert!(fleet.steps("b").is_empty(), "it is not asked again at once");
    fleet.section("b", vec![left_by(&create, "t0", 40)], None);
    fleet.tick(60_000);
    let (step, _) = retract(&mut fleet);
    fleet.outcome("b", step, made());
    assert!(fleet.status("b", "cm-0").starts_with("Pending/"), "{}", fleet.status("b", "cm-0"));
}

/// A copy that is made again has a record already: why it ends is known, whatever its create left.
#[test]
fn i11_a_copy_made_again_without_an_answer_is_deleted_with_its_source() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let create = fleet.one_step("b");
    fleet.perform("b", &create, "t0", 40, true);
    fleet.disconnect("b");
    fleet.section("a", vec![source("cm-0", "s0", 15, "2")], None);
    fleet.connect("b");
    fleet.live("b", vec![deleted("cm-0", "t0", 41)]);
    let again = fleet.one_step("b");
    fleet.disconnect("b");
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    fleet.connect("b");
    fleet.live("b", vec![left_by(&again, "t1", 50)]);
    let (step, _) = retract(&mut fleet);
    let made = v1::Probed { uid: "t1".into(), ..v1::Probed::default() };
    fleet.outcome("b", step, v1::outcome::Result::Probed(made));
    fleet.section("b", vec![left_by(&again, "t1", 50)], None);
    assert!(fleet.status("b", "cm-0").starts_with("Pending/"), "{}", fleet.status("b", "cm-0"));
}

/// Sim seeds 42939, 43126: nobody would have taken back what the create left on an object of others. 26227: a person's
/// approval deleted that.
#[test]
fn i6_what_a_create_without_an_answer_met_is_taken_back_although_nothing_asks_for_it() {
    let (mut fleet, create) = unanswered_and_unasked();
    // The watch may be long in telling of it.
    fleet.live("b", Vec::new());
    let (step, _) = retract(&mut fleet);
    let refused = v1::Failed { class: "Forbidden".into(), ..Default::default() };
    fleet.outcome("b", step, v1::outcome::Result::Failed(refused));
    assert_eq!(fleet.status("b", "cm-0"), "Failed/Forbidden");
    fleet.section("b", vec![left_by(&create, "theirs", 40)], None);
    assert!(fleet.placement("b", "cm-0").unwrap().record.is_none());
    assert!(fleet.approve().iter().all(|approved| approved.objects.is_empty()));
    fleet.tick(600_000);
    let (step, _) = retract(&mut fleet);
    let conflict =
        v1::Failed { class: "Conflict".into(), resource_version: "41".into(), ..Default::default() };
    fleet.outcome("b", step, v1::outcome::Result::Failed(conflict));
    assert_eq!(fleet.status("b", "cm-0"), "-");
    fleet.section("b", vec![left_by(&create, "theirs", 40)], None);
    assert_eq!(fleet.status("b", "cm-0"), "-", "told late");
}

#[test]
fn a_create_that_never_arrived_is_forgotten_with_its_source() {
    let (mut fleet, _) = unanswered_and_unasked();
    fleet.live("b", Vec::new());
    let (step, _) = retract(&mut fleet);
    fleet.outcome("b", step, v1::outcome::Result::Gone(v1::Done {}));
    assert_eq!(fleet.status("b", "cm-0"), "-");
}

/// The create of the next object of that name met it before any watch told of the restore. What the
/// agent takes back then is the create, not the copy's own marks.
#[test]
fn i11_a_deleted_copy_that_a_restore_brought_back_is_ours_after_a_create_met_it() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let create = fleet.one_step("b");
    let Some(Action::Apply(first)) = create.action.clone() else { panic!("{create:?}") };
    fleet.perform("b", &create, "t0", 40, true);
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    let read = fleet.one_step("b");
    fleet.outcome("b", read.step, v1::outcome::Result::Gone(v1::Done {}));
    fleet.section("b", vec![deleted("cm-0", "t0", 60)], None);
    assert_eq!(fleet.status("b", "cm-0"), "-");
    fleet.section("a", vec![source("cm-0", "s1", 30, "2")], None);
    let again = fleet.one_step("b");
    fleet.section("b", vec![left_by(&again, "t0", 41)], None);
    let look = met(&mut fleet, &again);
    assert!(look.again, "what it is can only be said when the undoing was told");
    fleet.section("b", vec![copy("cm-0", "t0", 42, &first.body, [1; 16])], None);
    fleet.tick(10_000);
    let update = fleet.one_step("b");
    let Some(Action::Apply(apply)) = &update.action else { panic!("{update:?}") };
    let present = v1::Present { uid: "t0".into(), resource_version: String::new() };
    assert_eq!(apply.expect, Some(v1::apply::Expect::Present(present)));
    fleet.perform("b", &update, "t0", 43, true);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
}

/// Sim seed 20645: of a create that was not heard of the source has gone, and the create for its successor finds what it
/// made.
#[test]
fn i11_what_an_earlier_create_made_is_ours_for_its_successor() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let create = fleet.one_step("b");
    fleet.disconnect("b");
    fleet.section("a", vec![deleted("cm-0", "s0", 20), source("cm-0", "s1", 21, "2")], None);
    fleet.connect("b");
    fleet.live("b", Vec::new());
    let next = fleet.one_step("b");
    assert_eq!(absent(&next), v1::Absent { nonce: absent(&create).nonce, again: true });
    fleet.perform("b", &next, "t0", 41, false);
    fleet.section("b", vec![left_by(&create, "t0", 40)], None);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
}

/// Sim seed 20832: the source was deleted and the placement forgotten before the watch told of the merge.
#[test]
fn i6_a_merge_that_was_taken_back_is_no_news_whenever_it_is_told() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let create = fleet.one_step("b");
    let conflict =
        v1::Failed { class: "Conflict".into(), resource_version: "41".into(), ..Default::default() };
    fleet.outcome("b", create.step, v1::outcome::Result::Failed(conflict));
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    assert_eq!(fleet.status("b", "cm-0"), "-");
    fleet.section("b", vec![left_by(&create, "theirs", 40)], None);
    assert_eq!(fleet.status("b", "cm-0"), "-", "it is nobody's");
    fleet.section("b", vec![foreign("cm-0", "theirs", 41)], None);
    fleet.section("a", vec![source("cm-0", "s1", 30, "2")], None);
    assert_eq!(fleet.status("b", "cm-0"), "Conflict/Exists");
}

/// Found by the simulation: the policy went and came while the watch had told of the merge only.
#[test]
fn i6_a_merge_that_was_taken_back_is_forgotten_with_its_placement() {
    // Another one keeps the watches.
    let other = POLICY.replace("name: maps", "name: others").replace("sync: 'yes'", "sync: 'no'");
    let mut fleet = Fleet::up(&[("p.yaml", POLICY), ("q.yaml", &other)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let create = fleet.one_step("b");
    fleet.section("b", vec![left_by(&create, "theirs", 40)], None);
    fleet.policies(&[("q.yaml", &other)]);
    let conflict =
        v1::Failed { class: "Conflict".into(), resource_version: "41".into(), ..Default::default() };
    fleet.outcome("b", create.step, v1::outcome::Result::Failed(conflict));
    fleet.live("a", Vec::new());
    fleet.policies(&[("p.yaml", POLICY), ("q.yaml", &other)]);
    fleet.live("a", vec![source("cm-0", "s0", 10, "1")]);
    fleet.live("b", Vec::new());
    assert_eq!(fleet.status("b", "cm-0"), "Conflict/Exists");
    assert!(fleet.steps("b").is_empty(), "nothing of it is written");
}

/// A Job that has finished is not copied anew; one that is ours stays, also where that is known by its marks only.
#[test]
fn i11_a_finished_job_that_only_marks_tell_of_stays() {
    let policy = format!("{POLICY}  - apiGroup: batch\n    kind: Job\n    matchLabels: {{ sync: 'yes' }}\n");
    let policies = [("p.yaml", policy.as_str())];
    let job = |finished: bool| {
        let status =
            if finished { r#","status":{"conditions":[{"type":"Complete","status":"True"}]}"# } else { "" };
        let mut item = source("cm-0", "s0", 10, "1");
        let Some(v1::item::Change::Upsert(upsert)) = &mut item.change else { panic!() };
        let body = String::from_utf8(upsert.body.to_vec()).unwrap();
        let body = body
            .replace(r#""apiVersion":"v1","kind":"ConfigMap""#, r#""apiVersion":"batch/v1","kind":"Job""#);
        upsert.body = body.replace(r#","data":{"k":"1"}"#, status).into();
        item
    };
    let live = Some(v1::WatchPhase::Live);
    let mut fleet = Fleet::up(&policies);
    fleet.section_of("Job", "b", Vec::new(), live);
    fleet.section_of("Job", "a", vec![job(false)], live);
    let create = fleet.one_step("b");
    let body = apply(&create).body.clone();
    fleet.perform("b", &create, "t0", 50, false);
    fleet.lose_disk(&policies);
    fleet.connect("a");
    fleet.namespaces("a", vec![namespace("shop", 1, false)]);
    fleet.live("a", Vec::new());
    fleet.section_of("Job", "a", vec![job(true)], live);
    fleet.connect("b");
    fleet.live("b", Vec::new());
    fleet.section_of("Job", "b", vec![copy("cm-0", "t0", 50, &body, [7; 16])], live);
    fleet.tick(60_000);
    assert!(
        fleet.steps("b").iter().all(|step| matches!(step.action, Some(Action::Apply(_)))),
        "it is not deleted"
    );
}

/// Sim seed 30959: the agent took a merge back, and its answer was lost; the hub hears of the merge when the source is gone.
#[test]
fn i6_what_only_marks_called_a_copy_is_none_without_them() {
    let (mut fleet, create) = unanswered_and_unasked();
    fleet.live("b", vec![left_by(&create, "theirs", 40)]);
    let (step, _) = retract(&mut fleet);
    fleet.outcome("b", step, v1::outcome::Result::Gone(v1::Done {}));
    assert!(fleet.status("b", "cm-0").starts_with("Held/"), "{}", fleet.status("b", "cm-0"));
    fleet.section("b", vec![foreign("cm-0", "theirs", 41)], None);
    assert_eq!(fleet.status("b", "cm-0"), "-");
    fleet.section("a", vec![source("cm-0", "s1", 30, "2")], None);
    assert_eq!(fleet.status("b", "cm-0"), "Conflict/Exists");
}

/// Sim seed 30359: the answer was long under way, and the watch told meanwhile that the object went.
#[test]
fn i2_an_answer_that_comes_late_is_no_news_of_an_object_that_went() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1"), source("cm-1", "s1", 11, "1")], None);
    let creates = fleet.steps("b");
    let id = fleet.agents["b"].id;
    for create in &creates {
        fleet.section(
            "b",
            vec![left_by(create, &create.name, 40), deleted(&create.name, &create.name, 41)],
            None,
        );
    }
    fleet.section("b", vec![foreign("cm-0", "theirs", 42)], None);
    for create in &creates {
        fleet.perform("b", create, &create.name, 40, false);
    }
    let held = fleet.core.store.object(id, &key("cm-0")).unwrap().map(|row| row.uid);
    assert_eq!(held, Some(lockstep_engine::Uid::new("theirs")));
    assert!(fleet.core.store.object(id, &key("cm-1")).unwrap().is_none());
    assert_eq!(fleet.status("b", "cm-0"), "Conflict/Replaced");
    let steps = fleet.steps("b");
    assert!(
        steps.iter().any(|step| step.name == "cm-1" && matches!(apply(step).expect, Some(Expect::Absent(_)))),
        "the other is made again: {steps:?}"
    );
}

/// Sim seed 22771: it went again in a gap of the watch, which passed it without a word.
#[test]
fn i2_what_we_wrote_and_no_watch_told_of_is_asked_for_until_one_does() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let create = fleet.one_step("b");
    fleet.perform("b", &create, "t0", 40, false);
    assert!(!fleet.asks_to_compare("b"), "its event may be on its way");
    fleet.section("b", vec![foreign("other", "o", 50)], None);
    assert!(fleet.asks_to_compare("b"));
    // Whoever was asked ended, and so did the hub.
    fleet.restart();
    fleet.policies(&[("p.yaml", POLICY)]);
    fleet.connect("a");
    fleet.connect("b");
    fleet.live("b", vec![]);
    assert!(fleet.asks_to_compare("b"));
    fleet.section("b", vec![deleted("cm-0", "t0", 41)], None);
    fleet.disconnect("b");
    fleet.connect("b");
    fleet.live("b", vec![]);
    assert!(!fleet.asks_to_compare("b"));
}

/// Sim seed 60033: the checkpoint of a list came before the news that its watch is live, and no other after it.
#[test]
fn i2_what_a_list_passed_is_asked_for_when_its_watch_is_live() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let create = fleet.one_step("b");
    fleet.perform("b", &create, "t0", 40, false);
    fleet.section("b", vec![foreign("other", "o", 50)], Some(v1::WatchPhase::Failing));
    assert!(!fleet.asks_to_compare("b"), "nothing follows from what a watch lacks that is not live");
    fleet.lives("b");
    assert!(fleet.asks_to_compare("b"));
    fleet.lives("b");
    assert!(!fleet.asks_to_compare("b"), "it is asked for once while that session lasts");
}
