//! What a member's agent does not let the hub read (I16): it is reported, and nothing is concluded from it (I3).

use std::collections::BTreeSet;

use lockstep_engine::reading::{KindRule, NamespaceRule, ReadRule, Reading};
use lockstep_wire::v1;

use super::fleet::*;
use super::told::*;

fn reads(namespace: NamespaceRule) -> Reading {
    let rule = ReadRule { kinds: BTreeSet::from([KindRule::All]), namespaces: BTreeSet::from([namespace]) };
    Reading { rules: vec![rule], protected: BTreeSet::new() }
}

fn restarted(fleet: &mut Fleet, reading: Reading, items: Vec<v1::Item>) {
    fleet.disconnect("a");
    fleet.readings.insert("a", reading);
    fleet.connect("a");
    fleet.namespaces("a", vec![namespace("shop", 1, false)]);
    fleet.live("a", items);
}

#[test]
fn i3_i16_what_an_agent_no_longer_lets_the_hub_read_is_blocked_and_never_deleted() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.in_step(1);
    restarted(&mut fleet, reads(NamespaceRule::Named("dev".to_owned())), vec![left("cm-0", "s0", 10)]);
    let asked = &fleet.agents["a"].watches["ConfigMap"].1;
    assert!(asked.conditions.iter().all(|condition| condition.namespaces.contains("dev")), "{asked:?}");
    assert_eq!(fleet.status("b", "cm-0"), "Blocked/NotAccepted");
    let message = fleet.placement("b", "cm-0").unwrap().status.message;
    assert!(message.contains(r#"kinds: ["ConfigMap"], namespaces: ["shop"], verbs: [read]"#), "{message}");
    let refused = fleet.core.sessions.read().unwrap()["a"].not_accepted.clone();
    assert_eq!(refused.len(), 1, "{refused:?}");

    // Not even its end is believed: the hub does not know what the policy would have said of it.
    fleet.section("a", vec![deleted("cm-0", "s0", 20)], None);
    fleet.tick(3_600_000);
    fleet.live("a", Vec::new());
    assert_eq!(fleet.status("b", "cm-0"), "Blocked/NotAccepted");
    assert!(fleet.steps("b").is_empty());
    assert!(fleet.tombstones().is_empty());

    // Accepted again, it goes on where it was.
    restarted(&mut fleet, reads(NamespaceRule::All), vec![source("cm-0", "s0", 30, "1")]);
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    let refused = fleet.core.sessions.read().unwrap()["a"].not_accepted.clone();
    assert_eq!(refused, Vec::<String>::new());
}

#[test]
fn an_agent_that_does_not_say_what_may_be_read_is_asked_for_everything() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    fleet.received("a");
    let asked = &fleet.agents["a"].watches["ConfigMap"].1;
    assert!(asked.conditions.iter().all(|condition| condition.namespaces.is_empty()), "{asked:?}");
    assert!(fleet.core.sessions.read().unwrap()["a"].not_accepted.is_empty());
}
