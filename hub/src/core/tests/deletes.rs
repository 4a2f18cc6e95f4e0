use lockstep_wire::v1::{self, outcome::Result as Answer, step::Action};
use tokio::sync::oneshot;

use super::fleet::*;
use super::told::*;
use crate::core::Input;
use crate::core::command::{Command, PauseScope};
use crate::store::Reader as _;

#[test]
fn i4_a_delete_is_archived_first_and_names_exactly_that_state() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    let read = fleet.one_step("b");
    assert!(is_read(&read));
    fleet.outcome("b", read.step, image("t0", 50));
    assert!(fleet.steps("b").is_empty(), "it waits for the archive");
    assert_eq!(fleet.status("b", "cm-0"), "Pending/Archiving");
    assert_eq!(fleet.tombstones().len(), 2, "the source's and the target's");
    fleet.archive();
    let delete = fleet.one_step("b");
    let Some(Action::Delete(action)) = &delete.action else { panic!("{delete:?}") };
    assert_eq!((action.uid.as_str(), action.resource_version.as_str()), ("t0", "50"));
    fleet.outcome("b", delete.step, Answer::Deleted(v1::Done {}));
    assert!(fleet.steps("b").is_empty());
    fleet.section("b", vec![deleted("cm-0", "t0", 60)], None);
    assert_eq!(fleet.status("b", "cm-0"), "-");
    assert!(fleet.tombstones().iter().all(|t| t.deleted));
}

#[test]
fn i4_a_delete_leaves_after_the_commit_that_says_it_is_archived() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    let read = fleet.one_step("b");
    fleet.outcome("b", read.step, image("t0", 50));
    let mut inputs = fleet.filed();
    inputs.push(fleet.large_batch("a"));
    fleet.refused(inputs);
    assert!(fleet.steps("b").is_empty());
}

#[test]
fn i4_a_state_that_changed_after_it_was_archived_is_archived_again() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    let read = fleet.one_step("b");
    fleet.outcome("b", read.step, image("t0", 50));
    fleet.archive();
    let delete = fleet.one_step("b");
    let stale = v1::Failed { class: "Stale".into(), ..Default::default() };
    fleet.outcome("b", delete.step, Answer::Failed(stale));
    fleet.tick(1_000);
    let again = fleet.one_step("b");
    assert!(is_read(&again));
    fleet.outcome("b", again.step, image("t0", 51));
    fleet.archive();
    let Some(Action::Delete(action)) = fleet.one_step("b").action else { panic!() };
    assert_eq!(action.resource_version, "51");
}

#[test]
fn leaving_the_selection_deletes_like_a_delete_at_the_source() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section("a", vec![left("cm-0", "s0", 20)], None);
    assert!(is_read(&fleet.one_step("b")));
    assert!(fleet.tombstones().is_empty(), "nothing was deleted at the source");
}

#[test]
fn i3_a_source_that_is_silent_or_listing_deletes_nothing() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(2);
    fleet.disconnect("a");
    fleet.tick(600_000);
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    fleet.connect("a");
    // A list is under way and says so: a delete is not believed before it is complete.
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], Some(v1::WatchPhase::Listing));
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Unknown/Listing");
    fleet.section("a", Vec::new(), Some(v1::WatchPhase::Live));
    assert_eq!(fleet.status("b", "cm-0"), "Pending/ContainerUnknown", "nor before its namespace is known");
    fleet.namespaces("a", Vec::new());
    assert!(is_read(&fleet.one_step("b")));
    assert_eq!(fleet.status("b", "cm-1"), "InStep/InStep");
}

#[test]
fn i7_a_burst_beyond_the_budget_is_held_as_a_whole_until_approved() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(5);
    let burst = (0..4).map(|n| deleted(&format!("cm-{n}"), &format!("s{n}"), 20 + n)).collect();
    fleet.section("a", burst, None);
    assert!(fleet.steps("b").is_empty());
    for n in 0..4 {
        assert_eq!(fleet.status("b", &format!("cm-{n}")), "Held/DeleteBudget");
    }
    // The latch holds, also for one more, and over a restart.
    fleet.tick(3_600_000);
    fleet.section("a", vec![deleted("cm-4", "s4", 30)], None);
    assert_eq!(fleet.status("b", "cm-4"), "Held/DeleteBudget");
    fleet.restart();
    fleet.policies(&[("p.yaml", POLICY)]);
    fleet.connect("a");
    fleet.connect("b");
    fleet.live("a", Vec::new());
    fleet.live("b", Vec::new());
    assert!(fleet.steps("b").is_empty());
    let approved = fleet.approve();
    assert_eq!(approved[0].objects.len(), 5);
    let steps = fleet.steps("b");
    assert_eq!(steps.iter().filter(|step| is_read(step)).count(), 5);
}

#[test]
fn i7_a_hold_dissolves_when_the_sources_come_back() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(4);
    fleet.section("a", (0..4).map(|n| deleted(&format!("cm-{n}"), &format!("s{n}"), 20 + n)).collect(), None);
    assert_eq!(fleet.status("b", "cm-0"), "Held/DeleteBudget");
    let back = (0..4).map(|n| source(&format!("cm-{n}"), &format!("new{n}"), 40 + n, "1")).collect();
    fleet.section("a", back, None);
    let steps = fleet.steps("b");
    assert_eq!(steps.len(), 4);
    for (n, step) in steps.iter().enumerate() {
        assert!(matches!(step.action, Some(Action::Apply(_))), "updated in place (I5)");
        fleet.perform("b", step, &format!("t{n}"), 80 + n as u64, false);
    }
    assert_eq!(fleet.status("b", "cm-3"), "InStep/InStep");
    fleet.section("a", vec![deleted("cm-0", "new0", 60)], None);
    assert!(is_read(&fleet.one_step("b")), "the latch is gone with the hold");
}

#[test]
fn i5_a_source_recreated_under_one_name_updates_the_target_in_place() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section("a", vec![deleted("cm-0", "s0", 20), source("cm-0", "s9", 21, "2")], None);
    let step = fleet.one_step("b");
    assert!(matches!(step.action, Some(Action::Apply(_))), "{step:?}");
    assert_eq!(fleet.tombstones().len(), 1);
}

#[test]
fn a_removed_policy_and_an_emptied_directory_orphan_and_a_returning_file_finds_its_objects() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(2);
    fleet.policies(&[]);
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Orphaned/PolicyRemoved");
    fleet.policies(&[("p.yaml", POLICY)]);
    fleet.live("a", vec![source("cm-0", "s0", 10, "1"), source("cm-1", "s1", 11, "1")]);
    fleet.received("b");
    assert_eq!(fleet.status("b", "cm-0"), "Unknown/Listing");
}

#[test]
fn an_unreadable_directory_changes_nothing() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.input(Input::Policies(Err("no such directory".into())));
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    assert!(fleet.steps("b").is_empty());
}

#[test]
fn a_pause_stops_writes_and_deletes_and_a_resume_catches_up() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(2);
    let pause = |fleet: &mut Fleet, paused| {
        let (reply, mut answer) = oneshot::channel();
        fleet.input(Input::Command(Command::Pause {
            scope: PauseScope::Policy("maps".into()),
            paused,
            reply,
        }));
        answer.try_recv().unwrap().unwrap();
    };
    pause(&mut fleet, true);
    fleet.section("a", vec![deleted("cm-0", "s0", 20), source("cm-1", "s1", 21, "2")], None);
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-1"), "Paused/Paused");
    pause(&mut fleet, false);
    assert_eq!(fleet.steps("b").len(), 2);
}

#[test]
fn an_object_that_somebody_replaced_at_the_target_is_not_deleted() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section("b", vec![deleted("cm-0", "t0", 70), foreign("cm-0", "theirs", 71)], None);
    fleet.steps("b");
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    assert!(fleet.steps("b").iter().all(|step| matches!(step.action, Some(Action::Apply(_)))));
}

#[test]
fn i7_a_hold_survives_a_pause_and_a_silence_and_never_dissolves_by_itself() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(6);
    fleet.section("a", (0..5).map(|n| deleted(&format!("cm-{n}"), &format!("s{n}"), 20 + n)).collect(), None);
    assert_eq!(fleet.status("b", "cm-0"), "Held/DeleteBudget");
    for paused in [true, false] {
        let (reply, mut answer) = oneshot::channel();
        fleet.input(Input::Command(Command::Pause { scope: PauseScope::Everything, paused, reply }));
        answer.try_recv().unwrap().unwrap();
    }
    assert!(fleet.steps("b").is_empty(), "a pause is no approval");
    assert_eq!(fleet.status("b", "cm-0"), "Held/DeleteBudget");
    // The target is silent for a while, and one of them is looked at before the others.
    fleet.disconnect("b");
    fleet.section("a", vec![source("cm-0", "new", 40, "1"), deleted("cm-0", "new", 41)], None);
    assert!(fleet.status("b", "cm-0").starts_with("Unknown/"));
    fleet.connect("b");
    fleet.live("b", Vec::new());
    assert!(fleet.steps("b").is_empty(), "silence is no approval");
    assert_eq!(fleet.status("b", "cm-1"), "Held/DeleteBudget");
    assert_eq!(fleet.approve()[0].objects.len(), 5);
    assert_eq!(fleet.steps("b").len(), 5);
}

#[test]
fn i7_a_hold_stays_one_when_the_reason_for_the_delete_changes() {
    let policy = format!("{POLICY}  deletion: {{ onPolicyDelete: Delete }}\n");
    let mut fleet = Fleet::up(&[("p.yaml", &policy)]);
    fleet.in_step(5);
    fleet.section("a", (0..5).map(|n| deleted(&format!("cm-{n}"), &format!("s{n}"), 20 + n)).collect(), None);
    fleet.policies(&[]);
    assert!(fleet.steps("b").is_empty());
    for n in 0..5 {
        let row = fleet.placement("b", &format!("cm-{n}")).unwrap();
        assert_eq!((row.status.state.as_str(), row.delete), ("Held", Some(crate::store::DeleteStage::Held)));
    }
    // Looked at again one by one, they are still held.
    fleet.disconnect("b");
    fleet.connect("b");
    fleet.live("b", Vec::new());
    assert!(fleet.steps("b").is_empty());
}

#[test]
fn a_delete_with_a_body_is_kept_also_where_the_object_was_never_heard_of() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    let mut item = deleted("brief", "s9", 30);
    if let Some(v1::item::Change::Delete(delete)) = &mut item.change {
        delete.body =
            br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"brief"}}"#.to_vec().into();
    }
    fleet.section("a", vec![item.clone()], None);
    assert_eq!(fleet.tombstones().len(), 1);
    fleet.section("a", vec![item], None);
    assert_eq!(fleet.tombstones().len(), 1, "told again, kept once");
}

#[test]
fn a_policy_that_takes_another_source_deletes_nothing() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(2);
    fleet.connect("c");
    fleet.policies(&[("p.yaml", &POLICY.replace("sourceCluster: a", "sourceCluster: c"))]);
    assert_eq!(fleet.status("b", "cm-0"), "Unknown/Listing");
    fleet.live("c", Vec::new());
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Orphaned/TargetRemoved");
}

#[test]
fn what_a_removed_policy_wants_deleted_is_deleted_and_then_no_longer_watched() {
    let policy = format!("{POLICY}  deletion: {{ onPolicyDelete: Delete }}\n");
    let mut fleet = Fleet::up(&[("p.yaml", &policy)]);
    fleet.in_step(1);
    fleet.policies(&[]);
    let read = fleet.one_step("b");
    assert!(is_read(&read));
    fleet.outcome("b", read.step, image("t0", 50));
    fleet.archive();
    let delete = fleet.one_step("b");
    fleet.outcome("b", delete.step, Answer::Deleted(v1::Done {}));
    assert!(fleet.agents["b"].watches.contains_key("ConfigMap"), "still needed");
    fleet.section("b", vec![deleted("cm-0", "t0", 60)], None);
    fleet.tick(10);
    fleet.received("b");
    assert_eq!(fleet.status("b", "cm-0"), "-");
    assert!(!fleet.agents["b"].watches.contains_key("ConfigMap"));
}

/// A cluster-wide watch that is kept for unfinished placements, and a policy that asks for one
/// namespace only: one watch tells of both, and no row is lost when it goes.
#[test]
fn i2_a_key_belongs_to_one_watch_when_scopes_change() {
    let narrow = POLICY.replace("name: maps", "name: narrow").replace(
        "  - kind: ConfigMap\n    matchLabels: { sync: 'yes' }",
        "  - { kind: ConfigMap, namespaces: [shop] }",
    );
    let elsewhere = POLICY.replace("[b]", "[c]");
    let mut fleet = Fleet::up(&[("p.yaml", POLICY), ("q.yaml", &narrow)]);
    fleet.in_step(1);
    let mut other = source("other", "so", 30, "1");
    other.namespace = "office".into();
    if let Some(v1::item::Change::Upsert(upsert)) = &mut other.change {
        let body = String::from_utf8(upsert.body.to_vec()).unwrap().replace("shop", "office");
        upsert.body = body.into();
    }
    fleet.section("a", vec![other], None);
    fleet.steps("b");
    // The wide policy goes elsewhere while its object in `office` is unfinished.
    fleet.policies(&[("p.yaml", &elsewhere), ("q.yaml", &narrow)]);
    fleet.received("b");
    let (_, interest) = &fleet.agents["b"].watches["ConfigMap"];
    assert_eq!(interest.scope, "", "the wide one covers the narrow one");
    let watches = fleet.core.store.watches(None).unwrap();
    let of_maps = |w: &&crate::store::WatchRow| w.cluster.0 == 2 && w.gk.kind.as_ref() == "ConfigMap";
    assert_eq!(watches.iter().filter(of_maps).count(), 1);
}

#[test]
fn what_a_policy_no_longer_means_is_unselected_also_where_nobody_watches_it() {
    let in_shop = POLICY.replace(
        "  - kind: ConfigMap\n    matchLabels: { sync: 'yes' }",
        "  - { kind: ConfigMap, namespaces: [shop] }",
    );
    let elsewhere = in_shop.replace("[shop]", "[office]");
    let mut fleet = Fleet::up(&[("p.yaml", &in_shop)]);
    fleet.in_step(1);
    fleet.policies(&[("p.yaml", &elsewhere)]);
    assert!(is_read(&fleet.one_step("b")), "onUnselect: Delete");
}

/// By a person, with its namespace or in a rewind: nobody looked.
#[test]
fn i3_a_source_that_went_while_no_policy_watched_it_is_held() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(2);
    let bodies = [fleet.copy_of("b", "cm-0"), fleet.copy_of("b", "cm-1")];
    fleet.policies(&[]);
    fleet.policies(&[("p.yaml", POLICY)]);
    fleet.namespaces("a", vec![namespace("shop", 1, false)]);
    fleet.live("a", Vec::new());
    let copies = ["cm-0", "cm-1"].into_iter().zip(&bodies).enumerate();
    let copies = copies.map(|(n, (name, body))| copy(name, &format!("t{n}"), 50 + n as u64, body, [0; 16]));
    fleet.live("b", copies.collect());
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Held/SourceMissing");
    // One comes back, and is deleted before our eyes: nobody has to be asked.
    fleet.section("a", vec![source("cm-1", "s1", 30, "2")], None);
    let update = fleet.one_step("b");
    fleet.perform("b", &update, "t1", 60, true);
    fleet.section("a", vec![deleted("cm-1", "s1", 31)], None);
    assert_eq!(fleet.one_step("b").name, "cm-1");
    assert_eq!(fleet.status("b", "cm-0"), "Held/SourceMissing");
    fleet.approve();
    assert_eq!(fleet.one_step("b").name, "cm-0");
}

/// Of what is not selected the end leaves no trace; that it was not selected is enough.
#[test]
fn a_source_that_is_unselected_and_then_deleted_stays_unselected() {
    for (then, deletes) in [("", true), ("  deletion: { onUnselect: Orphan }\n", false)] {
        let mut fleet = Fleet::up(&[("p.yaml", &format!("{POLICY}{then}"))]);
        fleet.in_step(1);
        let body = fleet.copy_of("b", "cm-0");
        fleet.disconnect("b");
        fleet.section("a", vec![left("cm-0", "s0", 20)], None);
        fleet.section("a", vec![deleted("cm-0", "s0", 21)], None);
        fleet.connect("b");
        fleet.live("b", vec![copy("cm-0", "t0", 50, &body, [50; 16])]);
        assert_eq!(fleet.steps("b").iter().any(is_read), deletes);
        assert_eq!(
            fleet.status("b", "cm-0"),
            if deletes { "Pending/Archiving" } else { "Pending/Releasing" }
        );
    }
}

#[test]
fn i5_the_end_of_a_later_life_ends_what_had_the_name_before() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    // s0 went, and so did s1, of which the hub never heard: the queue of the agent kept the last end only.
    fleet.section("a", vec![deleted("cm-0", "s1", 30)], None);
    assert!(
        fleet
            .core
            .store
            .object(fleet.core.names[&lockstep_engine::ClusterName::new("a").unwrap()], &key("cm-0"))
            .unwrap()
            .is_none()
    );
    assert_eq!(fleet.tombstones().len(), 1, "the last state of s0");
    let read = fleet.one_step("b");
    assert!(is_read(&read), "the copy follows");
    // An older end says nothing of a younger object.
    fleet.section("a", vec![source("cm-1", "s9", 40, "1"), deleted("cm-1", "s8", 39)], None);
    let apply = fleet.one_step("b");
    assert!(matches!(apply.action, Some(Action::Apply(_))), "{apply:?}");
}

/// The watch may be long in telling what has the name now; until then asking once more brings the same answer.
#[test]
fn i8_what_was_replaced_before_its_image_was_read_is_not_read_again_at_once() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    let read = fleet.one_step("b");
    fleet.outcome("b", read.step, image("another", 50));
    assert!(fleet.steps("b").is_empty());
    fleet.tick(1_000);
    assert!(is_read(&fleet.one_step("b")));
}
