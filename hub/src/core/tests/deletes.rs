use lockstep_wire::v1::{self, outcome::Result as Answer, step::Action};
use tokio::sync::oneshot;

use super::fleet::*;
use crate::core::Input;
use crate::core::command::{Approval, Approved, Command, PauseScope};
use crate::store::conformance::within;
use crate::store::{Reader as _, Store as _};

fn image(uid: &str, rv: u64) -> Answer {
    Answer::Image(v1::Image {
        uid: uid.into(),
        resource_version: rv.to_string(),
        body: br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}"#.to_vec().into(),
        api_version: "v1".into(),
        managed: true,
    })
}

fn is_read(step: &v1::Step) -> bool {
    matches!(step.action, Some(Action::Read(_)))
}

fn approve(fleet: &mut Fleet) -> Vec<Approved> {
    let (reply, mut answer) = oneshot::channel();
    fleet.input(Input::Command(Command::Approve {
        policy: "maps".into(),
        target: None,
        how: Approval::Whatever,
        reply,
    }));
    answer.try_recv().unwrap().unwrap()
}

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
    approve(&mut fleet);
    let read = fleet.one_step("b");
    fleet.outcome("b", read.step, image("t0", 50));
    assert_eq!(fleet.status("b", "cm-0"), "Pending/Archiving", "a person has said so");
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
    let approved = approve(&mut fleet);
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
    assert_eq!(approve(&mut fleet)[0].objects.len(), 5);
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
    let scopes: Vec<String> = fleet.agents["b"].watches.values().map(|(_, i)| i.scope.clone()).collect();
    assert_eq!(scopes, [""], "the wide one covers the narrow one");
    assert_eq!(fleet.core.store.watches(None).unwrap().iter().filter(|w| w.cluster.0 == 2).count(), 1);
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
    let probed =
        |uid: &str, deleting| Answer::Probed(v1::Probed { uid: uid.into(), deleting, created_ms: 0 });
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
    for (namespace, status) in [
        ("2026-11-22T10:00:01Z", "Held/ContainerDeleted"),
        ("2026-11-22T10:00:00Z", "Pending/Archiving"),
        ("2026-11-22T09:59:59Z", "Pending/Archiving"),
    ] {
        let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
        fleet.in_step(1);
        fleet.section("a", vec![created(source("cm-0", "s0", 15, "1"), "2026-11-22T10:00:00Z")], None);
        let created_ms = lockstep_engine::rfc3339::parse(namespace).unwrap();
        let there = v1::Probed { uid: "n".into(), deleting: false, created_ms };
        fleet.namespaces.insert(("a", "shop"), Answer::Probed(there));
        fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
        assert_eq!(fleet.status("b", "cm-0"), status, "{namespace}");
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
    approve(&mut fleet);
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
