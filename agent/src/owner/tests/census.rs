//! Anti-entropy: what is counted when, and how a difference is mended.

use super::*;

const INTERVAL: Millis = 60_000;

fn counting() -> Bounds {
    Bounds { census_interval_ms: INTERVAL, ..bounds() }
}

fn of(namespace: &str, name: &str, version: u64, env: &str) -> Bytes {
    let text = String::from_utf8(body(name, version, env).to_vec()).unwrap();
    text.replace("shop", namespace).into()
}

fn entry(name: &str, version: u64, body_held: bool) -> v1::IndexEntry {
    v1::IndexEntry {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("u-{name}"),
        resource_version: version.to_string(),
        body_held,
        managed: false,
    }
}

/// All that is told as a census within a time: watch, namespace, count.
fn counted(rig: &mut Rig, seconds: u32) -> Vec<(u32, String, u64)> {
    let mut counted = Vec::new();
    for _ in 0..seconds {
        rig.pass(1);
        for section in rig.sections() {
            let watch = section.watch;
            counted.extend(section.census.into_iter().map(|census| (watch, census.namespace, census.count)));
        }
    }
    counted
}

/// A live watch that listed these and counted them.
fn live(objects: &[(&str, u64, &str)]) -> Rig {
    let mut rig = Rig::new(counting());
    rig.listing(&interest("ConfigMap", "prod"), objects);
    rig.sections();
    counted(&mut rig, 120);
    rig.take_effects();
    rig
}

fn compare(rig: &mut Rig, entries: Vec<v1::IndexEntry>) -> Vec<Effect> {
    rig.say(Body::Compare(v1::Compare { watch: 1, namespace: "shop".into(), entries, last: true }));
    rig.take_effects()
}

fn asked(effects: &[Effect]) -> Vec<&str> {
    let mut names = Vec::new();
    for effect in effects {
        let Effect::Reread(reread) = effect else { panic!("{effect:?}") };
        names.extend(reread.names.iter().map(|name| &**name));
    }
    names
}

fn answer(rig: &mut Rig, name: &str, read: Read) {
    let run = rig.owner.watches[&1].run;
    rig.apply(Action::Reread { watch: 1, run, namespace: "shop".into(), name: name.into(), read });
}

fn mismatches(rig: &Rig) -> (u64, u64) {
    let tally = rig.owner.counts().0;
    (tally.mismatches, tally.rereads)
}

#[test]
fn every_namespace_is_counted_once_in_each_interval_and_an_emptied_one_too() {
    let mut rig = Rig::new(counting());
    rig.listing(&interest("ConfigMap", "prod"), &[("a", 1, "prod")]);
    for (namespace, name, version) in [("x", "b", 101), ("x", "c", 102), ("y", "d", 103)] {
        let body = of(namespace, name, version, "dev");
        rig.observe(1, Observation::Applied { body, resource_version: rv(version), listed: false });
    }
    rig.sections();
    let first = counted(&mut rig, 60);
    assert_eq!(first, [(1, "shop".into(), 1), (1, "x".into(), 2), (1, "y".into(), 1)]);
    rig.observe(1, Observation::Deleted { body: of("y", "d", 104, "dev"), resource_version: rv(104) });
    let second = counted(&mut rig, 60);
    assert_eq!(second, [(1, "shop".into(), 1), (1, "x".into(), 2), (1, "y".into(), 0)]);
    assert_eq!(counted(&mut rig, 60).len(), 2, "that it is empty is told once");
}

#[test]
fn only_what_is_told_and_settled_is_counted() {
    let mut rig = Rig::new(counting());
    rig.listing(&interest("ConfigMap", "prod"), &[("a", 1, "prod")]);
    assert_eq!(rig.owner.counts().0.censuses, 0);
    rig.pass(60);
    let sections = rig.sections();
    assert_eq!(sections[0].items.len(), 1, "with what goes before it in the same section");
    assert_eq!(sections.iter().map(|section| section.census.len()).sum::<usize>(), 1);
    rig.observe(1, Observation::ListStarted { epoch: 5 });
    assert_eq!(counted(&mut rig, 120), [], "a list is under way");
    rig.observe(1, listed("a", 1, "prod")).observe(1, completed(5, 110)).live(1);
    assert_eq!(counted(&mut rig, 120).len(), 2);
    rig.apply(Action::Disconnected).pass(120);
    rig.welcome(true);
    assert!(rig.sections().iter().all(|section| section.census.is_empty()), "nobody was there to tell");
}

#[test]
fn a_census_says_what_the_hub_can_work_out_from_its_rows() {
    use lockstep_engine::census::{Census, Member};
    let mut rig = Rig::new(counting());
    rig.listing(&interest("ConfigMap", "prod"), &[("a", 1, "prod"), ("key", 2, "dev")]);
    // An object that never could be decoded is no row.
    let bad = Bytes::from_static(
        br#"{"metadata":{"name":"bad","namespace":"shop","uid":"u","resourceVersion":"101","labels":7}}"#,
    );
    rig.observe(1, Observation::Applied { body: bad, resource_version: rv(101), listed: false });
    // Of a key outside the interest the hub does not learn every version.
    rig.observe(1, event("key", 102, "dev"));
    rig.sections();
    rig.pass(60);
    let told = rig.sections().into_iter().find_map(|section| section.census.into_iter().next()).unwrap();
    let mut census = Census::default();
    for (name, uid, version, body_held) in [("a", "u-a", "1", true), ("key", "u-key", "2", false)] {
        census.add(&Member { name, uid, resource_version: version, body_held, managed: false });
    }
    assert_eq!((told.count, told.digest.as_ref()), (2, census.digest().as_slice()));
}

#[test]
fn what_the_hub_holds_otherwise_is_read_again_and_told_as_it_is() {
    let mut rig = live(&[("a", 1, "prod"), ("b", 2, "prod"), ("c", 3, "dev"), ("same", 4, "prod")]);
    let wrong = v1::IndexEntry { uid: "other".into(), ..entry("c", 3, false) };
    // `b` is missing there, `ghost` here.
    let effects =
        compare(&mut rig, vec![entry("a", 9, true), wrong, entry("same", 4, true), entry("ghost", 5, true)]);
    assert_eq!(asked(&effects), ["a", "b", "c", "ghost"]);
    for (name, version, env) in [("a", 1, "prod"), ("b", 2, "prod"), ("c", 3, "dev")] {
        answer(&mut rig, name, Read::Found(body(name, version, env)));
    }
    let sections = rig.sections();
    assert_eq!(sections.iter().flat_map(|s| &s.items).map(short).collect::<Vec<_>>(), ["+a", "+b", "c"]);
    assert!(sections.iter().all(|section| section.checkpoint.is_empty()), "the watch has not moved");
    answer(&mut rig, "ghost", Read::Absent);
    let sections = rig.sections();
    let [item] = sections[0].items.as_slice() else { panic!("{sections:?}") };
    assert_eq!(
        (short(item).as_str(), item.uid.as_str(), item.resource_version.as_str()),
        ("~ghost", "u-ghost", "5")
    );
    assert_eq!(mismatches(&rig), (4, 4));
}

/// A restore that nobody could notice took the object away, and the watch goes on over it.
#[test]
fn what_a_step_finds_to_be_gone_is_read_again() {
    let mut rig = live(&[("a", 1, "prod")]);
    let key = |name: &str| ObjectKey::new(GroupKind::new("", "ConfigMap"), "shop", name);
    rig.apply(Action::Doubted(key("a")));
    assert_eq!(asked(&rig.take_effects()), ["a"]);
    rig.apply(Action::Doubted(key("a"))).apply(Action::Doubted(key("never-seen")));
    assert_eq!(rig.take_effects(), [], "asked already, and never told of");
    answer(&mut rig, "a", Read::Absent);
    let sections = rig.sections();
    assert_eq!(sections.iter().flat_map(|s| &s.items).map(short).collect::<Vec<_>>(), ["~a"]);
}

#[test]
fn writes_of_the_hub_and_changes_since_the_census_are_no_difference() {
    let mut rig = live(&[("a", 1, "prod"), ("b", 2, "prod")]);
    // Changed and told since; the hub's answer is older than that.
    rig.observe(1, event("b", 150, "prod"));
    // The hub knows the answers to its writes at 200 and 201 before their events are here.
    let effects =
        compare(&mut rig, vec![entry("a", 200, true), entry("b", 2, true), entry("new", 201, true)]);
    assert_eq!((effects.as_slice(), mismatches(&rig)), ([].as_slice(), (0, 0)));
}

#[test]
fn i3_an_object_that_is_not_there_is_deleted_only_once_the_lease_was_read() {
    let mut rig = live(&[("a", 1, "prod")]);
    rig.by_hand = true;
    let effects = compare(&mut rig, vec![entry("a", 1, true), entry("ghost", 5, true)]);
    assert_eq!(asked(&effects), ["ghost"]);
    answer(&mut rig, "ghost", Read::Absent);
    let effects = rig.take_effects();
    let [Effect::ReadLease { read }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(rig.told(), [""; 0]);
    let counter = rig.lease.unwrap();
    rig.read(*read, held(counter - 1));
    assert_eq!(rig.told(), [""; 0], "a rewind took it");
    assert_eq!(rig.starts()[0].start, Start::Rewound);
}

#[test]
fn i3_what_the_watch_says_meanwhile_counts_and_not_the_late_answer() {
    let mut rig = live(&[("a", 1, "prod"), ("b", 2, "dev"), ("c", 3, "prod")]);
    let effects = compare(&mut rig, vec![entry("c", 3, false), entry("ghost", 5, true)]);
    assert_eq!(asked(&effects), ["a", "b", "c", "ghost"]);
    rig.observe(1, Observation::Deleted { body: body("a", 151, "prod"), resource_version: rv(151) });
    rig.observe(1, event("b", 152, "dev")).observe(1, event("ghost", 153, "prod"));
    assert_eq!(rig.told(), ["-a", "b", "+ghost"], "of a key that it lacks the hub is told again");
    answer(&mut rig, "a", Read::Found(body("a", 1, "prod")));
    answer(&mut rig, "ghost", Read::Absent);
    assert_eq!(rig.told(), [""; 0]);
    // What was read beside the watch is ahead of it: events from before say nothing.
    answer(&mut rig, "c", Read::Found(body("c", 160, "prod")));
    rig.observe(1, event("c", 155, "prod"));
    assert_eq!(rig.told(), ["+c"]);
    rig.observe(1, event("c", 161, "prod"));
    assert_eq!(rig.told(), ["+c"]);
}

#[test]
fn a_list_that_was_on_its_way_while_an_object_was_read_proves_no_rewind() {
    let mut rig = live(&[("a", 1, "prod")]);
    assert_eq!(asked(&compare(&mut rig, vec![])), ["a"]);
    answer(&mut rig, "a", Read::Found(body("a", 160, "prod")));
    rig.take_effects();
    rig.observe(1, Observation::ListStarted { epoch: 5 }).observe(1, listed("a", 1, "prod"));
    assert_eq!(rig.take_effects(), []);
}

#[test]
fn i3_a_read_that_is_older_than_what_was_seen_is_a_rewind() {
    let mut rig = live(&[("a", 90, "prod")]);
    assert_eq!(asked(&compare(&mut rig, vec![])), ["a"]);
    answer(&mut rig, "a", Read::Found(body("a", 80, "prod")));
    assert_eq!(rig.starts()[0].start, Start::Rewound);
    assert_eq!(rig.told(), [""; 0]);
}

#[test]
fn where_too_much_differs_one_list_mends_it() {
    let mut rig = live(&[("a", 1, "prod"), ("b", 2, "dev"), ("c", 3, "prod")]);
    let ghosts: Vec<String> = (0..1_001).map(|n| format!("ghost{n}")).collect();
    let mut entries: Vec<_> = ghosts.iter().map(|name| entry(name, 5, false)).collect();
    entries.push(entry("c", 1, true));
    let effects = compare(&mut rig, entries);
    let [Effect::Stop { watch: 1 }, Effect::Start(start)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(start.start, Start::Nothing);
    rig.observe(1, Observation::ListStarted { epoch: 5 });
    for (name, version, env) in [("a", 1, "prod"), ("b", 2, "dev"), ("c", 3, "prod")] {
        rig.observe(1, listed(name, version, env));
    }
    assert_eq!(rig.told(), ["+a", "b", "+c"], "against what the hub holds");
    rig.observe(1, completed(5, 120)).live(1).discovered(served(&[("", "ConfigMap")]));
    assert_eq!(rig.told().len(), ghosts.len(), "under the guards of every list");
}

#[test]
fn a_list_that_mends_is_not_given_up_for_a_checkpoint() {
    let mut rig = live(&[("a", 1, "prod"), ("b", 2, "prod")]);
    assert_eq!(asked(&compare(&mut rig, vec![entry("b", 2, true)])), ["a"]);
    answer(&mut rig, "a", Read::Forbidden);
    rig.take_effects();
    // The hub still lacks it, and so would an index that came from the hub.
    rig.resume(1, "100", &interest("ConfigMap", "prod"), &[("b", 2, true)]);
    assert_eq!(rig.starts()[0].start, Start::Nothing);
    rig.observe(1, Observation::ListStarted { epoch: 5 });
    rig.observe(1, listed("a", 1, "prod")).observe(1, listed("b", 2, "prod"));
    assert_eq!(rig.told(), ["+a"]);
}

#[test]
fn what_may_not_be_read_one_by_one_is_listed() {
    let mut rig = live(&[("a", 1, "prod"), ("b", 2, "prod")]);
    assert_eq!(asked(&compare(&mut rig, vec![entry("b", 1, true)])), ["a", "b"]);
    answer(&mut rig, "a", Read::Forbidden);
    assert_eq!(rig.starts()[0].start, Start::Nothing);
    rig.observe(1, Observation::ListStarted { epoch: 5 });
    rig.observe(1, listed("a", 1, "prod")).observe(1, listed("b", 2, "prod"));
    assert_eq!(rig.told(), ["+a", "+b"]);
}

#[test]
fn a_read_that_failed_is_forgotten_until_the_next_census() {
    let mut rig = live(&[("a", 1, "prod")]);
    for _ in 0..2 {
        assert_eq!(asked(&compare(&mut rig, vec![])), ["a"]);
        assert_eq!(compare(&mut rig, vec![]), [], "not twice at a time");
        answer(&mut rig, "a", Read::Failed);
    }
    assert_eq!((rig.told(), mismatches(&rig)), (vec![], (2, 2)));
}

/// Sim seed 60033: nobody asks again for what a list interrupted.
#[test]
fn i2_what_was_being_read_again_is_told_by_a_list_that_begins() {
    let mut rig = live(&[("a", 1, "prod"), ("b", 2, "prod")]);
    let effects = compare(&mut rig, vec![entry("a", 1, true), entry("ghost", 5, true)]);
    assert_eq!(asked(&effects), ["b", "ghost"]);
    rig.by_hand = true;
    answer(&mut rig, "ghost", Read::Absent);
    let effects = rig.take_effects();
    let [Effect::ReadLease { read }] = effects.as_slice() else { panic!("{effects:?}") };
    rig.by_hand = false;
    rig.observe(1, Observation::ListStarted { epoch: 5 });
    let lease = held(rig.lease.unwrap());
    rig.read(*read, lease);
    rig.observe(1, listed("a", 1, "prod")).observe(1, listed("b", 2, "prod"));
    assert_eq!(rig.told(), ["+b"], "against what the hub holds");
    rig.observe(1, completed(5, 120)).live(1).discovered(served(&[("", "ConfigMap")]));
    assert_eq!(rig.told(), ["~ghost"], "under the guards of every list");
}

#[test]
fn i2_a_namespace_of_which_only_the_hub_knows_is_counted_until_that_is_settled() {
    let mut rig = live(&[]);
    assert_eq!(asked(&compare(&mut rig, vec![entry("ghost", 5, true)])), ["ghost"]);
    answer(&mut rig, "ghost", Read::Failed);
    assert_eq!(counted(&mut rig, 60), [(1, "shop".into(), 0)]);
    assert_eq!(counted(&mut rig, 60), []);
    rig.observe(1, Observation::ListStarted { epoch: 5 });
    assert_eq!(compare(&mut rig, vec![entry("ghost", 5, true)]), [], "a list is under way");
    rig.observe(1, completed(5, 120)).live(1);
    assert_eq!(counted(&mut rig, 60), [(1, "shop".into(), 0)]);
}
