use lockstep_wire::v1::{self, step::Action};
use tokio::sync::oneshot;

use super::fleet::*;
use super::told::*;
use crate::core::Input;
use crate::core::command::{AcceptedRewind, Command, CommandError};
use crate::store::{Cause, Reader as _};

fn accept(fleet: &mut Fleet) -> Result<AcceptedRewind, CommandError> {
    let (reply, mut answer) = oneshot::channel();
    fleet.input(Input::Command(Command::AcceptRewind { cluster: "a".into(), reply }));
    answer.try_recv().unwrap()
}

fn approve(fleet: &mut Fleet) {
    let (reply, mut answer) = oneshot::channel();
    fleet.input(Input::Command(Command::Approve {
        policy: "maps".into(),
        target: None,
        how: crate::core::command::Approval::Whatever,
        reply,
    }));
    answer.try_recv().unwrap().unwrap();
}

fn is_read(step: &v1::Step) -> bool {
    matches!(step.action, Some(Action::Read(_)))
}

/// Three objects in step; a restore of `a` then loses cm-0 and takes cm-1 back to an older state.
fn after_a_rewind(policy: &str) -> Fleet {
    let mut fleet = Fleet::up(&[("p.yaml", policy)]);
    fleet.namespaces("a", vec![namespace("shop", 1, false)]);
    fleet.in_step(3);
    fleet.rewound("a", vec![unseen("cm-0", "s0"), source("cm-1", "s1", 5, "older")]);
    fleet
}

#[test]
fn i3_what_a_rewind_lost_is_held_and_never_deleted_by_itself() {
    let mut fleet = after_a_rewind(POLICY);
    let update = fleet.one_step("b");
    assert_eq!(update.name, "cm-1", "what is there is followed");
    fleet.perform("b", &update, "t1", 80, true);
    assert_eq!(fleet.status("b", "cm-0"), "Unknown/Listing");
    fleet.live("a", Vec::new());
    assert_eq!(fleet.status("b", "cm-0"), "Held/SourceRewound");
    assert_eq!(fleet.status("b", "cm-2"), "InStep/InStep");
    assert!(fleet.steps("b").is_empty());
    assert!(fleet.cluster("a").rewound.is_some(), "an alarm");
    // The state that the restore threw away is kept.
    let kept = fleet.tombstones();
    assert_eq!(kept.len(), 1);
    assert_eq!((&kept[0].cause, kept[0].key.name.as_ref()), (&Cause::Rewound, "cm-1"));

    // It holds across restarts of hub and agent.
    fleet.restart();
    fleet.policies(&[("p.yaml", POLICY)]);
    fleet.connect("a");
    fleet.connect("b");
    fleet.live("b", Vec::new());
    fleet.live("a", Vec::new());
    fleet.namespaces("a", Vec::new());
    assert_eq!(fleet.status("b", "cm-0"), "Held/SourceRewound");

    // The object comes back: nothing is held, and the alarm ends.
    fleet.section("a", vec![source("cm-0", "s9", 30, "again")], None);
    let update = fleet.one_step("b");
    assert!(matches!(update.action, Some(Action::Apply(_))), "updated in place (I5)");
    fleet.perform("b", &update, "t0", 90, true);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    assert!(fleet.cluster("a").rewound.is_none());
}

#[test]
fn a_rewind_that_is_accepted_makes_inferred_deletes_with_tombstones() {
    let mut fleet = after_a_rewind(POLICY);
    let refused = accept(&mut fleet).unwrap_err();
    assert_eq!(refused.code, "LS0213", "the list is not through");
    fleet.live("a", Vec::new());
    fleet.namespaces("a", Vec::new());
    fleet.steps("b");
    assert_eq!(accept(&mut fleet).unwrap().objects, 1);
    assert!(is_read(&fleet.one_step("b")), "within the budget it goes the way of every delete");
    let kept = fleet.tombstones();
    let inferred = kept.iter().find(|kept| kept.key.name.as_ref() == "cm-0").unwrap();
    assert_eq!((&inferred.cause, inferred.known_until.is_some()), (&Cause::Inferred, true));
    let id = inferred.id;
    assert!(fleet.core.store.tombstone(id).unwrap().unwrap().body.is_some());
    assert!(fleet.cluster("a").rewound.is_none());
}

/// Sim seed 26356: it went with its namespace, which the restore brought back, so that nothing else would hold it.
#[test]
fn i7_a_delete_that_waited_when_its_source_was_rewound_is_held() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section_of("Namespace", "a", vec![], Some(v1::WatchPhase::Failing));
    fleet.section("a", vec![deleted("cm-0", "s0", 90)], None);
    assert_eq!(fleet.status("b", "cm-0"), "Pending/ContainerUnknown");
    fleet.rewound("a", vec![]);
    fleet.namespaces("a", vec![namespace("shop", 1, false)]);
    fleet.live("a", vec![]);
    fleet.tick(60_000);
    assert_eq!(fleet.status("b", "cm-0"), "Held/SourceMissing");
    assert!(fleet.steps("b").is_empty());
}

/// The same, told after the rewind was known.
#[test]
fn i3_a_delete_of_the_history_before_a_rewind_is_held_like_all_that_is_missing() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(2);
    fleet.rewound("a", vec![deleted("cm-0", "s0", 90)]);
    fleet.namespaces("a", vec![namespace("shop", 1, false)]);
    fleet.live("a", vec![source("cm-1", "s1", 12, "1")]);
    assert_eq!(fleet.status("b", "cm-0"), "Held/SourceRewound");
    assert!(fleet.steps("b").is_empty());
    assert_eq!(accept(&mut fleet).unwrap().objects, 1);
    assert!(is_read(&fleet.one_step("b")));
    let kept = fleet.tombstones();
    assert!(kept.iter().any(|kept| kept.key.name.as_ref() == "cm-0"));
}

/// Agent and hub both ask for lists, and the first of them settled the rewind.
#[test]
fn what_a_second_list_after_a_rewind_lacks_can_be_accepted_too() {
    let mut fleet = after_a_rewind(POLICY);
    fleet.live("a", Vec::new());
    fleet.namespaces("a", Vec::new());
    accept(&mut fleet).unwrap();
    assert!(fleet.cluster("a").rewound.is_none());
    fleet.section("a", vec![unseen("cm-2", "s2")], None);
    assert!(fleet.cluster("a").rewound.is_some(), "an alarm");
    assert_eq!(fleet.status("b", "cm-2"), "Held/SourceRewound");
    assert_eq!(accept(&mut fleet).unwrap().objects, 1);
    assert!(fleet.cluster("a").rewound.is_none());
    let kept = fleet.tombstones();
    assert!(kept.iter().any(|kept| (kept.key.name.as_ref(), &kept.cause) == ("cm-2", &Cause::Inferred)));
}

#[test]
fn a_rewind_may_be_followed_by_approval_or_by_policy() {
    let mut fleet = after_a_rewind(POLICY);
    fleet.live("a", Vec::new());
    fleet.steps("b");
    approve(&mut fleet);
    assert!(is_read(&fleet.one_step("b")));

    let follows = format!("{POLICY}  deletion: {{ onSourceRewind: Delete }}\n");
    let mut fleet = after_a_rewind(&follows);
    fleet.steps("b");
    fleet.live("a", Vec::new());
    assert_eq!(fleet.status("b", "cm-0"), "Pending/ContainerUnknown", "namespaces are still being listed");
    fleet.namespaces("a", Vec::new());
    assert!(is_read(&fleet.one_step("b")));
}

#[test]
fn a_lease_that_went_back_is_a_rewind_of_every_watch_until_each_is_listed() {
    let mut fleet = Fleet::new(&[("p.yaml", POLICY)]);
    fleet.leases.insert("a", 7);
    fleet.connect("a");
    fleet.live("a", Vec::new());
    fleet.heartbeat("a", 9);
    fleet.heartbeat("a", u64::MAX);
    assert_eq!(fleet.cluster("a").lease_counter, 9, "a Lease that cannot be read says nothing");
    fleet.disconnect("a");
    fleet.leases.insert("a", 8);
    fleet.connect("a");
    let resumes = fleet.resumes("a");
    assert!(resumes.iter().all(|(_, checkpoint, rewound)| checkpoint.is_empty() && *rewound), "{resumes:?}");
    assert_eq!(resumes.len(), 2, "ConfigMap and Namespace");
    assert!(fleet.cluster("a").rewound.unwrap().how.contains("from 9 to 8"));
    // The agent dies before it has listed: the next one is told the same.
    fleet.disconnect("a");
    fleet.connect("a");
    assert!(fleet.resumes("a").iter().all(|(_, checkpoint, rewound)| checkpoint.is_empty() && *rewound));
}

#[test]
fn a_lease_that_is_gone_is_a_rewind_while_the_session_runs() {
    let mut fleet = Fleet::new(&[("p.yaml", POLICY)]);
    fleet.leases.insert("a", 7);
    fleet.connect("a");
    fleet.live("a", Vec::new());
    fleet.namespaces("a", Vec::new());
    fleet.heartbeat("a", 0);
    let resumes = fleet.resumes("a");
    assert_eq!(resumes.iter().filter(|(_, _, rewound)| *rewound).count(), 2, "{resumes:?}");
    fleet.heartbeat("a", 1);
    assert!(fleet.resumes("a").is_empty(), "it counts up again");
}

#[test]
fn i3_without_a_lease_one_watch_speaks_for_all() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.namespaces("a", Vec::new());
    fleet.rewound("a", Vec::new());
    let resumes = fleet.resumes("a");
    assert_eq!(resumes, [("Namespace".to_owned(), String::new(), true)], "the others are listed anew too");
}

#[test]
fn a_target_that_was_rewound_gets_its_copies_again() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(2);
    let body = fleet.copy_of("b", "cm-1");
    // cm-0 is lost; of cm-1 there is an older copy, which had been deleted and made again since.
    fleet.rewound("b", vec![unseen("cm-0", "t0"), copy("cm-1", "t-old", 7, &body, [9; 16])]);
    fleet.live("b", Vec::new());
    let steps = fleet.steps("b");
    let create = steps.iter().find(|step| step.name == "cm-0").expect("it is created again").clone();
    fleet.perform("b", &create, "t0-new", 20, true);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    for step in steps.iter().filter(|step| step.name == "cm-1") {
        fleet.perform("b", step, "t-old", 21, true);
    }
    assert_eq!(fleet.status("b", "cm-1"), "InStep/InStep", "the marks decide, not the uid on record");
}

#[test]
fn i11_after_the_loss_of_the_disk_copies_are_recognised_and_the_rest_is_held() {
    let policies = [("p.yaml", POLICY)];
    let mut fleet = Fleet::up(&policies);
    fleet.in_step(2);
    let bodies = [fleet.copy_of("b", "cm-0"), fleet.copy_of("b", "cm-1")];
    fleet.lose_disk(&policies);
    // Tokens are known by the hub's key.
    fleet.connect("b");
    let copies =
        vec![copy("cm-0", "t0", 50, &bodies[0], [50; 16]), copy("cm-1", "t1", 51, &bodies[1], [51; 16])];
    fleet.live("b", copies.into_iter().zip(&bodies).map(|(item, body)| listed(item, body)).collect());
    assert_eq!(fleet.status("b", "cm-1"), "Unknown/NotConnected", "nobody knows yet");
    fleet.connect("a");
    fleet.namespaces("a", vec![namespace("shop", 1, false)]);
    fleet.live("a", vec![source("cm-0", "s0", 10, "1")]);
    let step = fleet.one_step("b");
    assert!(step.name == "cm-0" && only_compares(&step), "no write, no delete");
    fleet.perform("b", &step, "t0", 50, false);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    assert_eq!(fleet.status("b", "cm-1"), "Held/Recovered");
    approve(&mut fleet);
    assert!(is_read(&fleet.one_step("b")), "archived, then deleted");
}

#[test]
fn i11_a_recovered_copy_whose_source_returns_is_in_step() {
    let policies = [("p.yaml", POLICY)];
    let mut fleet = Fleet::up(&policies);
    fleet.in_step(1);
    let body = fleet.copy_of("b", "cm-0");
    fleet.lose_disk(&policies);
    fleet.connect("a");
    fleet.connect("b");
    fleet.namespaces("a", vec![namespace("shop", 1, false)]);
    fleet.live("a", Vec::new());
    fleet.live("b", vec![listed(copy("cm-0", "t0", 50, &body, [50; 16]), &body)]);
    assert_eq!(fleet.status("b", "cm-0"), "Held/Recovered");
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let step = fleet.one_step("b");
    assert!(only_compares(&step));
    fleet.perform("b", &step, "t0", 50, false);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
}

#[test]
fn i15_a_token_that_was_replaced_is_refused_while_the_store_knows_its_successor() {
    let mut fleet = Fleet::new(&[]);
    let old = fleet.tokens["a"].clone();
    let (reply, mut answer) = oneshot::channel();
    let cluster = lockstep_engine::ClusterName::new("a").unwrap();
    fleet.input(Input::Command(Command::CreateToken { cluster, reply }));
    let new = answer.try_recv().unwrap().unwrap();
    assert_eq!(fleet.connect_as("a", "i", "uid-of-a").unwrap_err().code, "LS0201");
    fleet.tokens.insert("a", new);
    fleet.connect_as("a", "i", "uid-of-a").unwrap();
    // A token made under another key is nobody's, also after a loss.
    let forged = old.replace("lockstep_a.", "lockstep_b.");
    fleet.lose_disk(&[]);
    fleet.tokens.insert("b", forged);
    assert_eq!(fleet.connect_as("b", "i", "uid-of-b").unwrap_err().code, "LS0201");
}

#[test]
fn a_census_that_differs_is_answered_with_what_is_held() {
    use lockstep_engine::census::{Census, Member};
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(2);
    let mut census = Census::default();
    let member = |name| Member { name, uid: "s0", resource_version: "10", body_held: true, managed: false };
    census.add(&member("cm-0"));
    assert!(fleet.census("a", &census), "cm-1 is missing there");
    census.add(&Member { uid: "s1", ..member("cm-1") });
    assert!(!fleet.census("a", &census));
}

#[test]
fn i5_i11_a_source_that_was_made_again_while_the_data_were_lost_updates_its_copy_in_place() {
    let policies = [("p.yaml", POLICY)];
    for source_first in [true, false] {
        let mut fleet = Fleet::up(&policies);
        fleet.in_step(1);
        let body = fleet.copy_of("b", "cm-0");
        fleet.lose_disk(&policies);
        fleet.connect("a");
        fleet.connect("b");
        fleet.namespaces("a", vec![namespace("shop", 1, false)]);
        let copy = || vec![copy("cm-0", "t0", 50, &body, [50; 16])];
        if !source_first {
            fleet.live("b", copy());
        }
        fleet.live("a", vec![source("cm-0", "s-new", 90, "1")]);
        if source_first {
            fleet.live("b", copy());
        }
        let update = fleet.one_step("b");
        assert!(matches!(update.action, Some(Action::Apply(_))));
        fleet.perform("b", &update, "t0", 95, true);
        assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    }
}

/// Somebody edited a copy while the hub's data were lost: our entry there has lost the field.
#[test]
fn i11_drift_of_a_recovered_copy_is_seen_by_the_fields_that_are_no_longer_ours() {
    let policies = [("p.yaml", POLICY)];
    for (fields, in_step) in [
        (r#"{"f:metadata":{"f:labels":{"f:sync":{}}},"f:data":{"f:k":{}}}"#, true),
        (r#"{"f:metadata":{"f:labels":{"f:sync":{}}},"f:data":{}}"#, true),
        (r#"{"f:metadata":{"f:labels":{"f:sync":{}}}}"#, false),
    ] {
        let mut fleet = Fleet::up(&policies);
        fleet.in_step(1);
        let body = fleet.copy_of("b", "cm-0");
        fleet.lose_disk(&policies);
        fleet.connect("a");
        fleet.connect("b");
        fleet.namespaces("a", vec![namespace("shop", 1, false)]);
        fleet.live("a", vec![source("cm-0", "s0", 10, "1")]);
        let mut seen = copy("cm-0", "t0", 50, &body, [50; 16]);
        if let Some(v1::item::Change::Upsert(v1::Upsert { managed: Some(managed), .. })) = &mut seen.change {
            managed.field_set = fields.as_bytes().to_vec().into();
        }
        fleet.live("b", vec![seen]);
        let step = fleet.one_step("b");
        assert_eq!(only_compares(&step), in_step, "{fields}");
        let Some(Action::Apply(apply)) = &step.action else { panic!("{step:?}") };
        assert!(apply.same_body && apply.last_field_set.is_empty(), "it may be set back by force");
        fleet.perform("b", &step, "t0", 51, true);
        assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    }
}

/// Of one uid there may be two deletions: a restore brings the object back.
#[test]
fn nothing_is_lost_when_an_object_that_was_kept_before_is_deleted_again() {
    let mut fleet = after_a_rewind(POLICY);
    fleet.steps("b");
    fleet.live("a", Vec::new());
    fleet.section("a", vec![source("cm-1", "s1", 20, "edited since")], None);
    fleet.section("a", vec![deleted("cm-1", "s1", 21)], None);
    let kept = fleet.tombstones();
    let causes: Vec<_> =
        kept.iter().filter(|kept| kept.key.name.as_ref() == "cm-1").map(|kept| &kept.cause).collect();
    assert_eq!(causes, [&Cause::Observed, &Cause::Rewound]);
}

#[test]
fn what_a_rewind_lost_is_kept_when_nobody_watches_any_more() {
    let mut fleet = after_a_rewind(POLICY);
    fleet.live("a", Vec::new());
    fleet.namespaces("a", Vec::new());
    fleet.policies(&[]);
    let kept = fleet.tombstones();
    assert!(kept.iter().any(|kept| kept.key.name.as_ref() == "cm-0"), "{kept:?}");
}

/// With the watch goes the row that said so.
#[test]
fn i3_what_a_rewind_lost_is_held_also_where_its_policy_was_removed_and_came_back() {
    let mut fleet = after_a_rewind(POLICY);
    let update = fleet.one_step("b");
    fleet.perform("b", &update, "t1", 80, true);
    fleet.live("a", Vec::new());
    fleet.namespaces("a", Vec::new());
    assert_eq!(fleet.status("b", "cm-0"), "Held/SourceRewound");
    let names = ["cm-0", "cm-1", "cm-2"];
    let bodies = names.map(|name| fleet.copy_of("b", name));
    fleet.policies(&[]);
    assert_eq!(fleet.status("b", "cm-0"), "Orphaned/PolicyRemoved");
    fleet.policies(&[("p.yaml", POLICY)]);
    fleet.namespaces("a", vec![namespace("shop", 1, false)]);
    fleet.live("a", vec![source("cm-1", "s1", 5, "older"), source("cm-2", "s2", 10, "1")]);
    let copies = [("t0", 50), ("t1", 80), ("t2", 52)].into_iter().zip(names).zip(&bodies);
    let copies = copies.map(|(((uid, rv), name), body)| copy(name, uid, rv, body, [rv as u8; 16]));
    fleet.live("b", copies.collect());
    assert!(!fleet.steps("b").iter().any(|step| step.name == "cm-0"), "nobody deleted it");
    assert_eq!(fleet.status("b", "cm-0"), "Held/SourceMissing");
    approve(&mut fleet);
    assert!(is_read(&fleet.one_step("b")));
}

#[test]
fn a_rewind_that_was_accepted_is_carried_out_after_a_restart_too() {
    let mut fleet = after_a_rewind(POLICY);
    fleet.live("a", Vec::new());
    fleet.namespaces("a", Vec::new());
    let (reply, mut answer) = oneshot::channel();
    let command = Input::Command(Command::AcceptRewind { cluster: "a".into(), reply });
    // Committed, and killed before the work begins.
    fleet.core.handle(vec![command], fleet.now).unwrap();
    assert_eq!(answer.try_recv().unwrap().unwrap().objects, 1);
    fleet.restart();
    fleet.policies(&[("p.yaml", POLICY)]);
    assert!(fleet.cluster("a").rewound.is_none(), "decided");
}

/// Sim seed 23126: what the agent had sent before it heard what the hub held is told again after that.
#[test]
fn a_state_from_before_a_rewind_that_comes_late_is_unseen_like_the_one_before_it() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.rewound("a", vec![source("cm-0", "s9", 60, "late"), unseen("cm-0", "s0")]);
    fleet.live("a", Vec::new());
    fleet.namespaces("a", Vec::new());
    assert!(fleet.cluster("a").rewound.is_some());
    assert_eq!(accept(&mut fleet).unwrap().objects, 1);
    assert!(fleet.tombstones().iter().any(|kept| kept.uid.as_str() == "s9"));
}

/// Sim seed 3060: the hub's clock had been an hour ahead when the rewind was noted.
#[test]
fn a_rewind_is_accepted_as_a_whole_although_the_clock_was_set_back() {
    let mut fleet = after_a_rewind(POLICY);
    fleet.live("a", Vec::new());
    fleet.namespaces("a", Vec::new());
    fleet.steps("b");
    fleet.now -= 3_600_000;
    assert_eq!(accept(&mut fleet).unwrap().objects, 1);
    assert!(is_read(&fleet.one_step("b")));
    assert!(fleet.tombstones().iter().any(|kept| kept.key.name.as_ref() == "cm-0"));
    assert!(fleet.cluster("a").rewound.is_none(), "decided");
}

/// After a loss a cluster may be known from marks before its agent comes: as a target it is planned
/// all the same.
#[test]
fn i11_a_cluster_that_marks_name_before_it_comes_is_a_target_too() {
    let back = POLICY.replace("name: maps", "name: back").replace("sourceCluster: a", "sourceCluster: b");
    let back = back.replace("[b]", "[c]");
    let policies = [("p.yaml", POLICY), ("q.yaml", back.as_str())];
    let mut fleet = Fleet::up(&policies);
    fleet.connect("c");
    fleet.live("c", Vec::new());
    fleet.section("b", vec![source("from-b", "sb", 10, "1")], None);
    let step = fleet.one_step("c");
    fleet.perform("c", &step, "tc", 50, true);
    let body = fleet.copy_of("c", "from-b");
    fleet.lose_disk(&policies);
    fleet.connect("a");
    fleet.namespaces("a", vec![namespace("shop", 1, false)]);
    fleet.live("a", vec![source("cm-0", "s0", 10, "1")]);
    fleet.connect("c");
    fleet.live("c", vec![copy("from-b", "tc", 50, &body, [50; 16])]);
    fleet.connect("b");
    fleet.live("b", Vec::new());
    assert_eq!(fleet.one_step("b").name, "cm-0");
}

/// lockstep deleted a copy, a restore brings it back as somebody had edited it, and its source is made
/// again: what the copy still shows to be ours is not all that was.
#[test]
fn i11_a_copy_that_a_restore_brought_back_is_known_by_what_was_written_to_it() {
    let remains = br#"{"f:data":{}}"#;
    // By the digest seen, the source that comes, and whether the last write is what the restore shows.
    for (digest, back, rolled_back, written) in [
        (50, source("cm-0", "s9", 30, "2"), false, true),
        (7, source("cm-0", "s0", 30, "1"), false, true),
        (50, source("cm-0", "s0", 30, "1"), false, false),
        (7, source("cm-0", "s0", 30, "1"), true, true),
    ] {
        let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
        fleet.in_step(1);
        let body = fleet.copy_of("b", "cm-0");
        if rolled_back {
            fleet.section("a", vec![source("cm-0", "s0", 15, "later")], None);
            let update = fleet.one_step("b");
            fleet.perform("b", &update, "t0", 55, true);
        }
        let known = fleet.placement("b", "cm-0").unwrap().record.unwrap();
        fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
        let read = fleet.one_step("b");
        fleet.outcome("b", read.step, v1::outcome::Result::Gone(v1::Done {}));
        fleet.section("b", vec![deleted("cm-0", "t0", 60)], None);
        assert_eq!(fleet.status("b", "cm-0"), "-");
        fleet.restart();
        fleet.policies(&[("p.yaml", POLICY)]);
        fleet.connect("a");
        fleet.connect("b");
        fleet.namespaces("a", vec![namespace("shop", 1, false)]);
        fleet.live("a", vec![back]);
        let mut seen = copy("cm-0", "t0", 50, &body, [digest; 16]);
        if let Some(v1::item::Change::Upsert(v1::Upsert { managed: Some(managed), .. })) = &mut seen.change {
            managed.field_set = remains.to_vec().into();
        }
        fleet.rewound("b", vec![seen]);
        fleet.live("b", Vec::new());
        let step = fleet.one_step("b");
        assert_eq!(!only_compares(&step), written);
        let Some(Action::Apply(apply)) = &step.action else { panic!("{step:?}") };
        let whole = apply.last_field_set == known.field_set;
        let same = apply.same_body && apply.last_field_set.is_empty();
        assert!(whole || same, "what was taken over may be set back by force");
        fleet.perform("b", &step, "t0", 70, true);
        assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    }
}

#[test]
fn i7_what_went_with_its_namespace_before_a_rewind_is_held_where_the_target_hears_of_it_later() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    let body = fleet.copy_of("b", "cm-0");
    fleet.disconnect("b");
    fleet.tick(1_000);
    let gone = v1::Item {
        change: Some(v1::item::Change::Delete(v1::Delete::default())),
        ..namespace("shop", 70, true)
    };
    let back = v1::Item { uid: "n2".into(), ..namespace("shop", 72, false) };
    let at = |item: v1::Item, now: i64| v1::Item { observed_ms: now, ..item };
    let now = fleet.now;
    fleet.namespaces("a", vec![at(namespace("shop", 60, true), now)]);
    fleet.section("a", vec![at(deleted("cm-0", "s0", 65), now + 5)], None);
    fleet.namespaces("a", vec![at(gone, now + 10), at(back, now + 20)]);
    // The restored cluster has the first one again, at the low versions of its history.
    fleet.tick(1_000);
    fleet.rewound("a", Vec::new());
    let now = fleet.now;
    fleet.namespaces("a", vec![at(namespace("shop", 5, false), now)]);
    fleet.live("a", Vec::new());
    fleet.connect("b");
    fleet.live("b", vec![copy("cm-0", "t0", 50, &body, [50; 16])]);
    assert_eq!(fleet.status("b", "cm-0"), "Held/ContainerDeleted");
    assert!(fleet.steps("b").is_empty());
}
