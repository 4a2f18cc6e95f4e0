//! Where watches start, what is concluded from lists, and what happens while the hub is away.

use super::*;
use lockstep_engine::listwatch::RequestFailure;

#[test]
fn a_watch_starts_where_the_hub_says() {
    let mut rig = Rig::new(bounds());
    let prod = interest("ConfigMap", "prod");
    rig.interests(&[(1, &prod)]);
    assert_eq!(rig.starts(), [], "not before its Resume");
    rig.resume(1, "50", &prod, &[("a", 7, true)]);
    let starts = rig.starts();
    assert_eq!((starts[0].start.clone(), starts[0].epoch), (Start::Checkpoint(rv(50)), 3));
    rig.live(1);
    let sections = rig.sections();
    assert_eq!(phase(&sections[0]), Some((WatchPhase::Live, "")));
    assert!(sections[0].items.is_empty());
    rig.observe(1, event("a", 51, "prod"));
    assert_eq!(rig.sections()[0].checkpoint, "51");
}

#[test]
fn a_checkpoint_made_under_another_interest_is_not_used() {
    let mut rig = Rig::new(bounds());
    let prod = interest("ConfigMap", "prod");
    rig.interests(&[(1, &prod)]).resume(
        1,
        "50",
        &interest("ConfigMap", "dev"),
        &[("a", 7, true), ("b", 8, false)],
    );
    assert_eq!(rig.starts()[0].start, Start::Nothing);
    rig.observe(1, Observation::ListStarted { epoch: 4 });
    for (name, version, env) in [("a", 7, "dev"), ("b", 8, "prod"), ("c", 9, "dev")] {
        rig.observe(1, listed(name, version, env));
    }
    assert_eq!(rig.told(), ["<a", "+b", "c"]);
}

#[test]
fn a_list_sends_only_what_differs_from_the_index() {
    let mut rig = Rig::new(bounds());
    let prod = interest("ConfigMap", "prod");
    let known = [("a", 1, true), ("b", 2, true), ("c", 3, false), ("gone", 4, true)];
    rig.interests(&[(1, &prod)]).resume(1, "", &prod, &known);
    rig.observe(1, Observation::ListStarted { epoch: 4 });
    for (name, version, env) in [("a", 1, "prod"), ("b", 20, "prod"), ("c", 3, "dev")] {
        rig.observe(1, listed(name, version, env));
    }
    rig.observe(1, completed(4, 100)).discovered(served(&[("", "ConfigMap")]));
    assert_eq!(rig.told(), ["+b", "~gone"]);
}

#[test]
fn replayed_events_do_not_undo_what_the_hub_already_holds() {
    let mut rig = Rig::new(bounds());
    let prod = interest("ConfigMap", "prod");
    rig.interests(&[(1, &prod)]).resume(1, "50", &prod, &[("a", 60, true)]);
    rig.observe(1, event("a", 55, "prod")).observe(1, event("a", 60, "prod"));
    assert_eq!(rig.told(), [""; 0]);
    rig.observe(1, event("a", 61, "prod"));
    assert_eq!(rig.told(), ["+a"]);
}

#[test]
fn i3_deletes_wait_for_discovery_and_so_does_the_checkpoint() {
    let mut rig = Rig::new(bounds());
    let prod = interest("ConfigMap", "prod");
    rig.interests(&[(1, &prod)]).resume(1, "", &prod, &[("gone", 4, true)]);
    rig.observe(1, Observation::ListStarted { epoch: 4 });
    rig.take_effects();
    rig.observe(1, completed(4, 100));
    assert_eq!(rig.take_effects(), [Effect::Rediscover { look: 1 }]);
    rig.live(1).observe(1, event("a", 101, "prod")).observe(1, Observation::Bookmark(rv(102)));
    let sections = rig.sections();
    assert_eq!(sections[0].items.iter().map(short).collect::<Vec<_>>(), ["+a"]);
    assert_eq!((phase(&sections[0]), sections[0].checkpoint.as_str()), (Some((WatchPhase::Listing, "")), ""));
    rig.discovered(served(&[("", "ConfigMap")]));
    let sections = rig.sections();
    assert_eq!(sections[0].items.iter().map(short).collect::<Vec<_>>(), ["~gone"]);
    assert_eq!((phase(&sections[0]), sections[0].checkpoint.as_str()), (Some((WatchPhase::Live, "")), "102"));
}

#[test]
fn i3_a_kind_that_vanishes_is_unknown_and_listed_when_it_returns() {
    let mut rig = Rig::new(bounds());
    rig.listing(&interest("ConfigMap", "prod"), &[("a", 1, "prod")]);
    rig.sections();
    rig.take_effects();
    rig.discovered(served(&[]));
    assert!(rig.take_effects().contains(&Effect::Stop { watch: 1 }));
    let sections = rig.sections();
    assert!(sections[0].items.is_empty());
    assert_eq!(phase(&sections[0]), Some((WatchPhase::Failing, "NotServed")));
    assert_eq!(rig.owner.watches[&1].keys(), ["shop/a"], "nothing is forgotten");
    rig.discovered(served(&[("", "ConfigMap")]));
    let starts = rig.starts();
    assert_eq!((starts[0].start.clone(), starts[0].epoch), (Start::Nothing, 4));
    rig.observe(1, Observation::ListStarted { epoch: 5 }).observe(1, listed("a", 1, "prod"));
    rig.observe(1, completed(5, 200)).live(1);
    let sections = rig.sections();
    assert!(sections.iter().all(|section| section.items.is_empty()));
    assert_eq!(phase(sections.last().unwrap()), Some((WatchPhase::Live, "")));
}

#[test]
fn i3_a_group_that_could_not_be_asked_stops_nothing() {
    let mut rig = Rig::new(bounds());
    rig.listing(&interest("ConfigMap", "prod"), &[]);
    rig.take_effects();
    let failed =
        lockstep_cluster::PartialFailure { group: String::new(), version: "v1".into(), reason: "503".into() };
    rig.discovered(Arc::new(Served { kinds: BTreeMap::new(), partial: vec![failed] }));
    assert!(!rig.take_effects().contains(&Effect::Stop { watch: 1 }));
}

#[test]
fn a_kind_that_is_not_served_yet_is_pending_until_it_appears() {
    let mut rig = Rig::new(bounds());
    let things = Interest { gk: GroupKind::new("example.com", "Thing"), ..interest("", "prod") };
    rig.interests(&[(1, &things)]).resume(1, "", &things, &[]);
    rig.discovered(served(&[]));
    assert_eq!(phase(rig.sections().last().unwrap()), Some((WatchPhase::Pending, "NotServed")));
    assert!(rig.owner.awaits_kinds());
    rig.starts();
    rig.discovered(served(&[("example.com", "Thing")]));
    assert_eq!(rig.starts()[0].resource.api_version(), "example.com/v1");
}

#[test]
fn an_object_that_cannot_be_read_makes_the_list_inconclusive_and_stops_nothing() {
    let mut rig = Rig::new(bounds());
    let prod = interest("ConfigMap", "prod");
    rig.interests(&[(1, &prod)]).resume(1, "", &prod, &[("known", 4, true)]);
    rig.observe(1, Observation::ListStarted { epoch: 4 }).observe(1, listed("a", 1, "prod"));
    let body = Bytes::from_static(br#"{"metadata":{"name":["canary"]}}"#);
    rig.observe(1, Observation::Applied { body, resource_version: rv(2), listed: true });
    let body = object("odd", 3, r#""labels":{"env":["canary"]}"#);
    rig.observe(1, Observation::Applied { body, resource_version: rv(3), listed: true });
    rig.observe(1, completed(4, 100)).live(1);
    let sections = rig.sections();
    let items: Vec<_> = sections.iter().flat_map(|section| &section.items).collect();
    assert_eq!(items.iter().map(|item| short(item)).collect::<Vec<_>>(), ["+a", "?odd"]);
    assert!(!format!("{items:?}").contains("canary"), "I13");
    assert_eq!(phase(sections.last().unwrap()), Some((WatchPhase::Live, "Undecodable")));
}

#[test]
fn so_many_lists_at_a_time() {
    let mut rig = Rig::new(Bounds { lists_at_once: 1, ..bounds() });
    let (maps, secrets) = (interest("ConfigMap", "prod"), interest("Secret", "prod"));
    rig.interests(&[(1, &maps), (2, &secrets)]).resume(1, "", &maps, &[]).resume(2, "", &secrets, &[]);
    assert_eq!(rig.starts().iter().map(|start| start.watch).collect::<Vec<_>>(), [1]);
    rig.observe(1, Observation::ListStarted { epoch: 4 }).observe(1, completed(4, 100));
    assert_eq!(rig.starts().iter().map(|start| start.watch).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_list_that_fails_gives_its_slot_away_and_says_why() {
    let mut rig = Rig::new(Bounds { lists_at_once: 1, ..bounds() });
    let (maps, secrets) = (interest("ConfigMap", "prod"), interest("Secret", "prod"));
    rig.interests(&[(1, &maps), (2, &secrets)]).resume(1, "", &maps, &[]).resume(2, "", &secrets, &[]);
    rig.starts();
    let failing = Health::Failing { reason: RequestFailure::Forbidden, since: 0 };
    rig.observe(1, Observation::StateChanged(failing));
    assert_eq!(rig.starts().iter().map(|start| start.watch).collect::<Vec<_>>(), [2]);
    let sections = rig.sections();
    let first = sections.iter().rfind(|section| section.watch == 1).unwrap();
    assert_eq!(phase(first), Some((WatchPhase::Failing, "Forbidden")));
    // It is tried again, and fails for the same reason, which its task does not say once more.
    rig.observe(2, Observation::ListStarted { epoch: 1 }).observe(2, completed(1, 100));
    rig.sections();
    rig.observe(1, Observation::ListStarted { epoch: 2 });
    assert!(rig.sections().iter().all(|section| section.watch != 1), "nothing is new");
    // Another kind comes to be watched.
    let nodes = interest("Node", "prod");
    rig.discovered(served(&[("", "ConfigMap"), ("", "Secret"), ("", "Node")]));
    rig.interests(&[(1, &maps), (2, &secrets), (3, &nodes)]).resume(3, "", &nodes, &[]);
    assert_eq!(rig.starts().iter().map(|start| start.watch).collect::<Vec<_>>(), [3], "it holds no slot");
    // At last it may.
    rig.observe(1, completed(2, 101)).observe(1, Observation::StateChanged(Health::Live));
    let sections = rig.sections();
    let first = sections.iter().rfind(|section| section.watch == 1 && section.status.is_some()).unwrap();
    assert_eq!(phase(first).unwrap().0, WatchPhase::Live);
}

#[test]
fn i14_a_full_queue_stops_the_reading_and_loses_nothing() {
    let mut rig = Rig::new(Bounds { queue: Limits { bytes: 1 << 20, count: 3 }, ..bounds() });
    rig.listing(&interest("ConfigMap", "prod"), &[]);
    rig.sections();
    rig.apply(Action::Disconnected);
    for (name, version) in [("a", 101), ("b", 102), ("a", 103)] {
        rig.observe(1, event(name, version, "prod"));
    }
    assert!(!rig.owner.is_full(), "one slot per key");
    rig.observe(1, event("c", 104, "prod"));
    assert!(rig.owner.is_full());
    assert_eq!(rig.owner.flush(), []);
    rig.welcome(true);
    assert_eq!(rig.told(), ["+a", "+b", "+c"]);
    assert!(!rig.owner.is_full());
}

#[test]
fn the_same_instance_goes_on_without_a_resume() {
    let mut rig = Rig::new(bounds());
    let prod = interest("ConfigMap", "prod");
    rig.listing(&prod, &[("a", 1, "prod")]);
    rig.sections();
    rig.take_effects();
    rig.apply(Action::Disconnected).observe(1, event("a", 101, "prod"));
    rig.apply(Action::Connected);
    let effects = rig.take_effects();
    let [Effect::Send(AgentMessage { body: Some(agent_message::Body::Hello(hello)) })] = effects.as_slice()
    else {
        panic!("{effects:?}")
    };
    assert_eq!(hello.live, [v1::LiveWatch { watch: 1, epoch: 4 }]);
    rig.welcome(true).interests(&[(1, &prod)]);
    let moved = |effect: &Effect| matches!(effect, Effect::Start(_) | Effect::Stop { .. });
    assert!(!rig.take_effects().iter().any(moved));
    assert_eq!(rig.told(), ["+a"]);
}

#[test]
fn another_hub_makes_it_start_from_what_that_hub_holds() {
    let mut rig = Rig::new(bounds());
    let prod = interest("ConfigMap", "prod");
    rig.listing(&prod, &[("a", 1, "prod")]);
    rig.take_effects();
    rig.welcome(false);
    assert!(rig.take_effects().contains(&Effect::Stop { watch: 1 }));
    assert_eq!(rig.owner.queued(), (0, 0));
    rig.interests(&[(1, &prod)]).resume(1, "90", &prod, &[("a", 1, true)]);
    assert_eq!(rig.starts()[0].start, Start::Checkpoint(rv(90)));
}

#[test]
fn live_is_told_when_the_whole_list_is_with_the_hub() {
    let mut rig = Rig::new(bounds());
    let names: Vec<String> = (0..40).map(|n| format!("o{n}")).collect();
    let objects: Vec<(&str, u64, &str)> = names.iter().map(|name| (name.as_str(), 1, "prod")).collect();
    rig.listing(&interest("ConfigMap", "prod"), &objects);
    let watch = rig.owner.watches.get_mut(&1).unwrap();
    let mut told = 0;
    while let Some(section) = watch.take(1_000) {
        told += section.items.len();
        let live = phase(&section).is_some_and(|(phase, _)| phase == WatchPhase::Live);
        assert_eq!(live, told == 40);
        assert_eq!(section.checkpoint.as_str(), if told == 40 { "100" } else { "" }, "I2");
    }
    assert_eq!(told, 40);
}

#[test]
fn a_busy_watch_does_not_keep_the_others_waiting() {
    let mut rig = Rig::new(bounds());
    let (maps, secrets) = (interest("ConfigMap", "prod"), interest("Secret", "prod"));
    rig.interests(&[(1, &maps), (2, &secrets)]).resume(1, "1", &maps, &[]).resume(2, "1", &secrets, &[]);
    let names: Vec<String> = (0..900).map(|n| format!("o{n}-{}", "x".repeat(400))).collect();
    for (n, name) in names.iter().enumerate() {
        rig.observe(1, event(name, 10 + n as u64, "prod"));
    }
    rig.observe(2, event("s", 5, "prod"));
    let batches = rig.owner.flush();
    let of_secret = batches.iter().position(|effect| format!("{effect:?}").contains("u-s\""));
    assert!(
        batches.len() > 2 && of_secret.is_some_and(|at| at <= 1),
        "{} batches, {of_secret:?}",
        batches.len()
    );
}
