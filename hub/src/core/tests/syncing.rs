use lockstep_wire::v1::{self, step::Action};

use super::fleet::*;
use super::told::*;
use crate::core::Input;
use crate::core::scan::SLICE;
use crate::store::Reader as _;

fn body(step: &v1::Step) -> serde_json::Value {
    let Some(Action::Apply(apply)) = &step.action else { panic!("not an apply: {step:?}") };
    serde_json::from_slice(&apply.body).unwrap()
}

fn expects_absent(step: &v1::Step) -> bool {
    let Some(Action::Apply(apply)) = &step.action else { panic!("not an apply: {step:?}") };
    matches!(apply.expect, Some(v1::apply::Expect::Absent(_)))
}

#[test]
fn an_object_is_created_updated_and_then_rests() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let step = fleet.one_step("b");
    assert!(expects_absent(&step));
    assert_eq!(body(&step)["data"]["k"], "1");
    assert_eq!(body(&step)["metadata"]["labels"]["lockstep.dev/managed"], "true");
    assert!(body(&step)["metadata"].get("uid").is_none());
    fleet.perform("b", &step, "t0", 50, true);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    fleet.section("a", vec![source("cm-0", "s0", 11, "2")], None);
    let step = fleet.one_step("b");
    assert!(!expects_absent(&step));
    fleet.perform("b", &step, "t0", 51, false);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    assert!(fleet.placement("b", "cm-0").unwrap().lag_ms.is_some());
    // The same state again, as after a relist or a status update: nothing to do (I8).
    fleet.section("a", vec![source("cm-0", "s0", 12, "2")], None);
    assert!(fleet.steps("b").is_empty());
}

#[test]
fn observations_of_a_key_are_held_while_a_step_is_in_flight() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let first = fleet.one_step("b");
    fleet.section("a", vec![source("cm-0", "s0", 11, "2")], None);
    fleet.section("a", vec![source("cm-0", "s0", 12, "3")], None);
    assert!(fleet.steps("b").is_empty(), "one step per object at a time");
    fleet.perform("b", &first, "t0", 50, false);
    let net = fleet.one_step("b");
    assert_eq!(body(&net)["data"]["k"], "3", "only the net effect");
}

#[test]
fn an_echo_older_than_our_own_answer_is_no_news() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section("a", vec![source("cm-0", "s0", 11, "2")], None);
    let step = fleet.one_step("b");
    let Some(Action::Apply(apply)) = &step.action else { panic!() };
    let bytes = apply.body.clone();
    fleet.perform("b", &step, "t0", 90, false);
    // The watch brings what was there before our write, then our write.
    fleet.section("b", vec![copy("cm-0", "t0", 60, &bytes, [1; 16])], None);
    assert!(fleet.steps("b").is_empty());
    fleet.section("b", vec![copy("cm-0", "t0", 90, &bytes, [90; 16])], None);
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    // A later change of fields we own is news.
    fleet.section("b", vec![copy("cm-0", "t0", 95, &bytes, [2; 16])], None);
    assert!(!expects_absent(&fleet.one_step("b")));
    assert_eq!(fleet.status("b", "cm-0"), "Pending/Drifted");
}

#[test]
fn an_object_that_is_not_ours_is_a_conflict_that_is_not_tried_again() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("b", vec![foreign("cm-0", "theirs", 40)], None);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let look = fleet.one_step("b");
    assert!(expects_absent(&look), "a step that writes nothing onto an existing object asks who manages it");
    let manager = v1::Manager { name: "kubectl-client-side-apply".into(), ..v1::Manager::default() };
    let failed = v1::Failed {
        class: "Conflict".into(),
        message: "it exists".into(),
        managers: vec![manager],
        ..Default::default()
    };
    fleet.outcome("b", look.step, v1::outcome::Result::Failed(failed));
    assert!(fleet.steps("b").is_empty());
    let row = fleet.placement("b", "cm-0").unwrap();
    assert_eq!(row.status.state.as_str(), "Conflict");
    assert!(row.status.message.contains("kubectl-client-side-apply"), "{}", row.status.message);
    // A heartbeat of theirs changes nothing; once it is gone, ours is created.
    fleet.section("b", vec![foreign("cm-0", "theirs", 41)], None);
    assert!(fleet.steps("b").is_empty());
    fleet.section("b", vec![deleted("cm-0", "theirs", 42)], None);
    assert!(expects_absent(&fleet.one_step("b")));
}

#[test]
fn i1_what_could_not_be_committed_is_not_acknowledged() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.received("a");
    let inputs = vec![fleet.batch("a", vec![source("cm-0", "s0", 10, "1")]), fleet.large_batch("a")];
    fleet.refused(inputs);
    let told = fleet.received("a");
    let acked = |body: &v1::hub_message::Body| matches!(body, v1::hub_message::Body::Ack(_));
    assert!(!told.iter().any(acked), "{told:?}");
}

#[test]
fn i1_what_an_earlier_session_says_does_not_count() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    let before = fleet.agents["a"].session;
    fleet.connect("a");
    fleet.live("a", vec![]);
    let now = std::mem::replace(&mut fleet.agents.get_mut("a").unwrap().session, before);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    fleet.agents.get_mut("a").unwrap().session = now;
    assert!(fleet.steps("b").is_empty());
}

#[test]
fn i3_a_target_is_written_to_once_its_watch_is_live_in_this_session() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.drop_stream("b");
    fleet.section("a", vec![source("cm-0", "s0", 60, "2")], None);
    fleet.resume("b");
    fleet.section("a", vec![source("cm-0", "s0", 61, "3")], None);
    assert!(fleet.steps("b").is_empty(), "nobody has said yet that the watch still goes on");
    fleet.live("b", vec![]);
    assert_eq!(body(&fleet.one_step("b"))["data"]["k"], "3");
}

#[test]
fn i3_what_comes_with_the_news_that_a_watch_fails_proves_no_absence() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.section("a", vec![deleted("cm-0", "s0", 60)], Some(v1::WatchPhase::Failing));
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Unknown/Listing");
}

/// What another policy still watches loses its bodies at the hub when a policy goes. When that comes back, its objects
/// are keys until their agent has told them again, which says nothing of their labels.
#[test]
fn i3_what_an_interest_of_before_shows_unselects_nothing() {
    let other = POLICY.replace("name: maps", "name: other").replace("sync: 'yes'", "sync: 'no'");
    let maps = POLICY.replace("  resources:", "  deletion: { onUnselect: Delete }\n  resources:");
    let mut fleet = Fleet::up(&[("p.yaml", &maps), ("o.yaml", &other)]);
    fleet.in_step(1);
    fleet.policies(&[("o.yaml", &other)]);
    fleet.live("a", vec![left("cm-0", "s0", 10)]);
    fleet.live("b", Vec::new());
    assert_eq!(fleet.status("b", "cm-0"), "Orphaned/PolicyRemoved");
    fleet.policies(&[("p.yaml", &maps), ("o.yaml", &other)]);
    assert_eq!(fleet.status("b", "cm-0"), "Unknown/Listing");
    assert!(fleet.steps("b").is_empty());
    fleet.live("a", vec![source("cm-0", "s0", 10, "1")]);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
}

/// A policy was removed, its target could not be reached, and it was put back while the hub was down.
#[test]
fn i3_before_the_policies_are_read_nothing_is_concluded_from_the_lack_of_one() {
    let policy = POLICY.replace("  resources:", "  deletion: { onPolicyDelete: Delete }\n  resources:");
    let mut fleet = Fleet::up(&[("p.yaml", &policy)]);
    fleet.in_step(1);
    fleet.disconnect("b");
    fleet.policies(&[]);
    fleet.restart();
    fleet.connect("b");
    fleet.live("b", Vec::new());
    assert_eq!(fleet.status("b", "cm-0"), "Unknown/PoliciesUnknown");
    assert!(fleet.steps("b").is_empty());
    fleet.policies(&[("p.yaml", &policy)]);
    fleet.connect("a");
    fleet.live("a", vec![source("cm-0", "s0", 10, "1")]);
    fleet.live("b", Vec::new());
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
}

#[test]
fn a_restart_of_the_hub_writes_nothing() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(5);
    fleet.restart();
    fleet.policies(&[("p.yaml", POLICY)]);
    fleet.connect("a");
    fleet.connect("b");
    fleet.live("a", Vec::new());
    fleet.live("b", Vec::new());
    assert!(fleet.steps("a").is_empty() && fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-4"), "InStep/InStep");
}

#[test]
fn a_create_whose_reply_was_lost_is_recognised_by_its_marks() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let step = fleet.one_step("b");
    let Some(Action::Apply(apply)) = &step.action else { panic!() };
    let bytes = apply.body.clone();
    fleet.disconnect("b");
    assert_eq!(fleet.status("b", "cm-0"), "Pending/Creating");
    fleet.connect("b");
    fleet.live("b", vec![listed(copy("cm-0", "t0", 50, &bytes, [5; 16]), &bytes)]);
    let step = fleet.one_step("b");
    assert!(only_compares(&step), "it is there already");
    fleet.perform("b", &step, "t0", 50, false);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    assert!(fleet.placement("b", "cm-0").unwrap().record.unwrap().uid.is_some());
}

#[test]
fn a_create_whose_reply_was_lost_is_written_again_where_nothing_says_that_it_is_whole() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let step = fleet.one_step("b");
    let Some(Action::Apply(apply)) = &step.action else { panic!() };
    let bytes = apply.body.clone();
    fleet.drop_stream("b");
    fleet.resume("b");
    // Somebody changed it before the watch told of it, without the fields that are ours.
    fleet.live("b", vec![copy("cm-0", "t0", 51, &bytes, [6; 16])]);
    let again = fleet.one_step("b");
    let Some(Action::Apply(apply)) = &again.action else { panic!("{again:?}") };
    assert!(apply.same_body && apply.last_field_set.is_empty(), "every field of it was ours");
    fleet.perform("b", &again, "t0", 52, true);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
}

#[test]
fn forged_and_copied_marks_change_nothing() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let step = fleet.one_step("b");
    let Some(Action::Apply(apply)) = &step.action else { panic!() };
    let bytes = String::from_utf8(apply.body.to_vec()).unwrap();
    fleet.perform("b", &step, "t0", 50, true);
    // The marks of cm-0 on another object, which a policy comes to want.
    fleet.section("b", vec![copy("cm-1", "theirs", 60, bytes.as_bytes(), [5; 16])], None);
    fleet.section("a", vec![source("cm-1", "s1", 20, "1")], None);
    assert!(expects_absent(&fleet.one_step("b")));
    assert_eq!(fleet.status("b", "cm-1"), "Conflict/ForgedMarks");
    let foreign_hub = bytes.replace(r#""lockstep.dev/hub":"hub-1""#, r#""lockstep.dev/hub":"hub-2""#);
    fleet.section("b", vec![copy("cm-2", "theirs2", 61, foreign_hub.as_bytes(), [5; 16])], None);
    fleet.section("a", vec![source("cm-2", "s2", 21, "1")], None);
    assert!(expects_absent(&fleet.one_step("b")));
    assert_eq!(fleet.status("b", "cm-2"), "Conflict/ForeignHub");
    // Marks that name the right object, by somebody who has no key.
    let unsigned = bytes.replace("cm-0", "cm-3");
    fleet.section("b", vec![copy("cm-3", "theirs3", 62, unsigned.as_bytes(), [5; 16])], None);
    fleet.section("a", vec![source("cm-3", "s3", 22, "1")], None);
    assert!(expects_absent(&fleet.one_step("b")));
    assert_eq!(fleet.status("b", "cm-3"), "Conflict/ForgedMarks");
}

#[test]
fn a_kind_the_target_lacks_is_blocked_and_follows_when_it_appears() {
    let mut fleet = Fleet::new(&[("p.yaml", POLICY)]);
    fleet.connect("a");
    fleet.connect("b");
    fleet.served("b", &[("", "Secret", "v1")]);
    fleet.live("a", vec![source("cm-0", "s0", 10, "1")]);
    assert_eq!(fleet.status("b", "cm-0"), "Blocked/KindNotServed");
    assert!(fleet.steps("b").is_empty());
    fleet.served("b", &[("", "ConfigMap", "v1")]);
    fleet.live("b", Vec::new());
    assert!(expects_absent(&fleet.one_step("b")));
}

#[test]
fn a_policy_edit_follows_and_a_bad_file_changes_nothing() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.policies(&[("p.yaml", &POLICY.replace("targetClusters: [b]", "targetCluster: [b]"))]);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    assert!(fleet.steps("b").is_empty());
    fleet.policies(&[("p.yaml", &POLICY.replace("[b]", "[b, c]"))]);
    fleet.connect("c");
    fleet.live("c", Vec::new());
    assert_eq!(fleet.one_step("c").name, "cm-0");
    assert!(fleet.steps("b").is_empty());
}

#[test]
fn two_policies_on_one_object_are_reported_and_the_first_name_wins() {
    let other = POLICY.replace("name: maps", "name: also-maps");
    let mut fleet = Fleet::up(&[("p.yaml", POLICY), ("q.yaml", &other)]);
    fleet.in_step(1);
    let row = fleet.placement("b", "cm-0").unwrap();
    assert_eq!((row.policy.as_str(), row.rivals), ("also-maps", vec!["maps".to_owned()]));
    // The winner goes: the other one takes over, and nothing is deleted.
    fleet.policies(&[("p.yaml", POLICY)]);
    assert!(fleet.steps("b").iter().all(|step| matches!(step.action, Some(Action::Apply(_)))));
    assert_eq!(fleet.placement("b", "cm-0").unwrap().policy, "maps");
}

#[test]
fn i9_a_copy_is_never_a_source() {
    let back =
        POLICY.replace("maps", "back").replace("sourceCluster: a", "sourceCluster: b").replace("[b]", "[a]");
    let mut fleet = Fleet::up(&[("p.yaml", POLICY), ("q.yaml", &back)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let step = fleet.one_step("b");
    let Some(Action::Apply(apply)) = &step.action else { panic!() };
    let copied = String::from_utf8(apply.body.to_vec()).unwrap();
    fleet.perform("b", &step, "t0", 50, false);
    // b is a source too, so its agent sends the body of the copy, which matches the labels.
    let mut item = copy("cm-0", "t0", 50, copied.as_bytes(), [50; 16]);
    if let Some(v1::item::Change::Upsert(upsert)) = &mut item.change {
        upsert.body = copied.replacen("\"name\":\"cm-0\"", "\"name\":\"cm-0\",\"uid\":\"t0\"", 1).into();
    }
    fleet.section("b", vec![item], None);
    assert!(fleet.steps("a").is_empty());
    assert_eq!(fleet.status("a", "cm-0"), "-");
}

#[test]
fn i12_a_target_that_does_not_answer_delays_no_other_and_memory_stays_bounded() {
    let mut fleet = Fleet::new(&[("p.yaml", &POLICY.replace("[b]", "[b, c]"))]);
    for name in ["a", "b", "c"] {
        fleet.connect(name);
        fleet.live(name, Vec::new());
    }
    // b takes steps and never answers; c answers each.
    let many = 3 * crate::core::state::MAX_IN_FLIGHT;
    for n in 0..many {
        let name = format!("cm-{n}");
        fleet.section("a", vec![source(&name, &format!("s{n}"), 10 + n as u64, "1")], None);
        let step = fleet.one_step("c");
        fleet.perform("c", &step, &format!("t{n}"), 1000 + n as u64, false);
        assert_eq!(fleet.status("c", &name), "InStep/InStep");
    }
    assert_eq!(fleet.steps("b").len(), crate::core::state::MAX_IN_FLIGHT_OF_A_KIND);
    // It comes back with nothing done: all of it is sent, in windows.
    fleet.disconnect("b");
    fleet.connect("b");
    fleet.live("b", Vec::new());
    let mut done = 0;
    while done < many {
        let steps = fleet.steps("b");
        assert!(!steps.is_empty() && steps.len() <= crate::core::state::MAX_IN_FLIGHT, "{}", steps.len());
        for step in steps {
            fleet.perform("b", &step, &format!("u{done}"), 1000 + done as u64, false);
            done += 1;
        }
    }
    assert_eq!(fleet.status("b", &format!("cm-{}", many - 1)), "InStep/InStep");
}

#[test]
fn a_poisoned_object_waits_and_the_others_go_on() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("bad", "s0", 10, "1"), source("good", "s1", 11, "1")], None);
    let steps = fleet.steps("b");
    let (bad, good) =
        (steps.iter().find(|s| s.name == "bad").unwrap(), steps.iter().find(|s| s.name == "good").unwrap());
    let failed = v1::Failed { class: "Transient".into(), message: "500".into(), ..Default::default() };
    fleet.outcome("b", bad.step, v1::outcome::Result::Failed(failed));
    assert!(fleet.steps("b").is_empty(), "not at once");
    fleet.perform("b", good, "t1", 50, true);
    assert_eq!(fleet.status("b", "good"), "InStep/InStep");
    assert_eq!(fleet.status("b", "bad"), "Failed/Transient");
    // However often it fails, its breaker-sized series of failures is its own affair.
    for n in 0..8 {
        fleet.tick(600_000);
        let again = fleet.one_step("b");
        assert_eq!(again.name, "bad", "attempt {n}");
        let failed = v1::Failed { class: "Transient".into(), message: "500".into(), ..Default::default() };
        fleet.outcome("b", again.step, v1::outcome::Result::Failed(failed));
    }
    fleet.section("a", vec![source("later", "s2", 12, "1")], None);
    assert_eq!(fleet.one_step("b").name, "later");
}

fn secret(n: usize) -> v1::Item {
    let name = format!("s-{n}");
    let mut item = source(&name, &format!("us{n}"), 10 + n as u64, "1");
    if let Some(v1::item::Change::Upsert(upsert)) = &mut item.change {
        let body = String::from_utf8(upsert.body.to_vec()).unwrap();
        upsert.body = body.replace("ConfigMap", "Secret").into();
    }
    item
}

#[test]
fn i12_a_kind_that_hangs_or_fails_leaves_the_others_their_places() {
    let both = format!("{POLICY}  - kind: Secret\n");
    let mut fleet = Fleet::up(&[("p.yaml", &both)]);
    fleet.section_of("Secret", "a", Vec::new(), Some(v1::WatchPhase::Live));
    fleet.section_of("Secret", "b", Vec::new(), Some(v1::WatchPhase::Live));
    fleet.section_of("Secret", "a", (0..80).map(secret).collect(), None);
    let hanging = fleet.steps("b");
    assert_eq!(hanging.len(), crate::core::state::MAX_IN_FLIGHT_OF_A_KIND);
    fleet.section("a", vec![source("well", "sw", 30, "1")], None);
    let step = fleet.one_step("b");
    assert_eq!(step.name, "well", "a kind of its own has places left");
    fleet.perform("b", &step, "t-well", 900, true);
    assert!(fleet.steps("b").is_empty(), "the freed place is not for the kind that has its share");
    for step in hanging.iter().take(5) {
        let failed = v1::Failed { class: "Timeout".into(), ..Default::default() };
        fleet.outcome("b", step.step, v1::outcome::Result::Failed(failed));
    }
    let breakers = fleet.core.counts().open_breakers;
    assert_eq!(breakers.into_iter().collect::<Vec<_>>(), [("b".to_owned(), "Secret".to_owned())]);
    let sent = fleet.steps("b").len();
    assert!(sent < 5, "before it opened some went on: {sent}");
    fleet.section("a", vec![source("again", "sw2", 31, "1")], None);
    assert_eq!(fleet.one_step("b").name, "again");
    // It closes with the first probe that is answered.
    for step in hanging.iter().skip(5) {
        fleet.perform("b", step, &format!("t-{}", step.name), 1_000 + step.step, false);
    }
    fleet.tick(5_000);
    let probe = fleet.one_step("b");
    fleet.perform("b", &probe, "t-probe", 5_000, false);
    assert!(fleet.core.counts().open_breakers.is_empty());
    fleet.tick(5_000);
    assert!(fleet.steps("b").len() > 5, "and the rest follows");
}

#[test]
fn nothing_is_created_for_a_definition_that_is_being_deleted() {
    let custom = POLICY.replace("kind: ConfigMap", "{ apiGroup: example.com, kind: ConfigMap }").replace(
        "  - { apiGroup: example.com, kind: ConfigMap }\n    matchLabels: { sync: 'yes' }",
        "  - { apiGroup: example.com, kind: Widget }",
    );
    let mut fleet = Fleet::new(&[("p.yaml", &custom)]);
    for name in ["a", "b"] {
        fleet.connect(name);
        fleet.served(name, &[("example.com", "Widget", "example.com/v1")]);
        fleet.section_of("Widget", name, Vec::new(), Some(v1::WatchPhase::Live));
    }
    let definition = |deleting| {
        let mut item = namespace("widgets.example.com", 5, deleting);
        item.uid = "d".into();
        item
    };
    let live = Some(v1::WatchPhase::Live);
    fleet.section_of("CustomResourceDefinition", "b", vec![definition(true)], live);
    let mut widget = source("w", "sw", 10, "1");
    if let Some(v1::item::Change::Upsert(upsert)) = &mut widget.change {
        let body = String::from_utf8(upsert.body.to_vec()).unwrap();
        let body = body.replace("\"v1\"", "\"example.com/v1\"").replace("ConfigMap", "Widget");
        upsert.body = body.into();
    }
    fleet.section_of("Widget", "a", vec![widget], None);
    assert!(fleet.steps("b").is_empty());
    let key = lockstep_engine::ObjectKey::new(
        lockstep_engine::GroupKind::new("example.com", "Widget"),
        "shop",
        "w",
    );
    let id = fleet.agents["b"].id;
    let status = fleet.core.store.placement(id, &key).unwrap().unwrap().status;
    assert_eq!(status.reason, "DefinitionTerminating");
    // It is gone and made again: the object follows.
    fleet.section_of("CustomResourceDefinition", "b", vec![definition(false)], None);
    assert_eq!(fleet.one_step("b").name, "w");
}

#[test]
fn i12_planning_a_policy_anew_takes_many_short_transactions_however_many_targets_it_has() {
    let both = POLICY.replace("[b]", "[b, c]");
    let mut fleet = Fleet::up(&[("p.yaml", &both)]);
    let objects = SLICE;
    let items = (0..objects).map(|n| source(&format!("cm-{n}"), &format!("s{n}"), 10, "1")).collect();
    fleet.section("a", items, None);
    let changed = both.replace("    matchLabels", "    namespaces: [shop]\n    matchLabels");
    let mut inputs = vec![Input::Policies(Ok(vec![("p.yaml".to_owned(), Ok(changed))]))];
    let mut planned = fleet.core.counts().planned;
    let mut transactions = 0;
    while fleet.core.handle(std::mem::take(&mut inputs), fleet.now).unwrap() {
        let sum = fleet.core.counts().planned;
        assert!(sum - planned <= SLICE as u64, "{} placements in one transaction", sum - planned);
        planned = sum;
        transactions += 1;
    }
    assert!(transactions >= 2 * objects / SLICE, "{transactions}");
}

/// When the step is answered, nothing says any more that the source was unselected before it went.
#[test]
fn a_source_that_is_unselected_and_deleted_while_a_step_is_in_flight_is_followed() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let create = fleet.one_step("b");
    fleet.section("a", vec![left("cm-0", "s0", 20)], None);
    fleet.section("a", vec![deleted("cm-0", "s0", 21)], None);
    fleet.perform("b", &create, "t0", 50, true);
    assert!(matches!(fleet.one_step("b").action, Some(Action::Read(_))));
}
