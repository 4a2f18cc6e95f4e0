use lockstep_wire::v1::hub_message::Body;

use super::fleet::*;
use super::told::*;

#[test]
fn i15_one_name_one_cluster() {
    let mut fleet = Fleet::new(&[("p.yaml", POLICY)]);
    fleet.connect("a");
    fleet.disconnect("a");
    let refused = fleet.connect_as("a", "i", "another-cluster").unwrap_err();
    assert_eq!(refused.code, "LS0323");
    let refused = fleet.connect_as("b", "i", "uid-of-a").unwrap_err();
    assert_eq!(refused.code, "LS0324");
}

#[test]
fn the_newest_session_fences_the_older() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    let old = fleet.agents.remove("b").unwrap();
    fleet.connect("b");
    // Messages and the end of the fenced session mean nothing any more.
    fleet.input(crate::core::Input::Disconnected { cluster: old.id, session: old.session });
    fleet.live("b", Vec::new());
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    assert_eq!(fleet.one_step("b").name, "cm-0");
}

#[test]
fn i1_an_ack_follows_the_commit_and_a_batch_sent_again_is_acked_again() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    let acks: Vec<u64> = fleet
        .received("a")
        .into_iter()
        .filter_map(|body| if let Body::Ack(ack) = body { Some(ack.sequence) } else { None })
        .collect();
    assert_eq!(acks, [2]);
    fleet.agents.get_mut("a").unwrap().sequence = 0;
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    assert!(fleet.steps("b").is_empty(), "batch 1 was committed before: it is not applied twice");
    let acked =
        fleet.received("a").into_iter().any(|body| matches!(body, Body::Ack(ack) if ack.sequence == 2));
    assert!(acked);
}

#[test]
fn the_interest_asks_for_bodies_at_the_source_and_marks_at_the_target() {
    let mut fleet = Fleet::new(&[("p.yaml", POLICY)]);
    fleet.connect("a");
    fleet.connect("b");
    fleet.received("a");
    fleet.received("b");
    let labels = std::collections::BTreeMap::from([("sync".to_owned(), "yes".to_owned())]);
    let (_, at_source) = &fleet.agents["a"].watches["ConfigMap"];
    assert!(at_source.syncs("shop", "x", &labels) && !at_source.syncs("shop", "x", &Default::default()));
    let (_, at_target) = &fleet.agents["b"].watches["ConfigMap"];
    assert!(at_target.managed && !at_target.syncs("shop", "x", &labels));
}

#[test]
fn work_that_came_up_in_a_break_is_done_when_the_same_agent_is_back() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    fleet.drop_stream("b");
    fleet.section("a", vec![source("cm-0", "s0", 20, "2"), source("cm-1", "s1", 21, "1")], None);
    assert!(fleet.status("b", "cm-1").starts_with("Unknown/"));
    fleet.resume("b");
    assert!(fleet.steps("b").is_empty(), "what the watch knows is not relied on before it says so");
    fleet.live("b", Vec::new());
    assert_eq!(fleet.steps("b").len(), 2);
}
