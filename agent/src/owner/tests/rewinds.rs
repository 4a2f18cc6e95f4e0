//! What a rewind does to watches, however it is found.

use super::*;

fn suspected() -> Observation<Bytes> {
    Observation::RewindSuspected { checkpoint: rv(500), server: rv(300) }
}

fn began(epoch: u64) -> Observation<Bytes> {
    Observation::ListStarted { epoch }
}

fn rewound(epoch: u64, version: u64) -> Observation<Bytes> {
    Observation::ListCompleted { epoch, resource_version: rv(version), absence: Absence::Rewound }
}

fn deleted(name: &str, version: u64) -> Observation<Bytes> {
    Observation::Deleted { body: body(name, version, "prod"), resource_version: rv(version) }
}

fn config_maps() -> Arc<Served> {
    served(&[("", "ConfigMap")])
}

/// A live watch that resumed at 500 with these keys.
fn resumed(keys: &[(&str, u64, bool)]) -> Rig {
    let mut rig = Rig::new(bounds());
    let prod = interest("ConfigMap", "prod");
    rig.interests(&[(1, &prod)]).resume(1, "500", &prod, keys).live(1);
    rig.sections();
    rig.take_effects();
    rig
}

/// Sections in short: status, items, checkpoint.
fn lines(rig: &mut Rig) -> Vec<String> {
    let line = |section: &v1::Section| {
        let status = phase(section).map(|(phase, reason)| format!("{phase:?}/{reason} "));
        let items: Vec<String> = section.items.iter().map(short).collect();
        format!("{}{} @{}", status.unwrap_or_default(), items.join(" "), section.checkpoint)
    };
    rig.sections().iter().map(line).collect()
}

#[test]
fn i3_a_rewound_server_deletes_nothing_and_what_it_lost_is_unseen() {
    let mut rig = resumed(&[("a", 400, true), ("lost", 450, true)]);
    rig.observe(1, suspected()).observe(1, began(4));
    assert_eq!(lines(&mut rig), ["Failing/RewindSuspected  @"], "before the first object");
    rig.observe(1, listed("a", 200, "prod")).observe(1, listed("back", 250, "prod"));
    assert_eq!(lines(&mut rig), ["+a +back @"]);
    rig.observe(1, rewound(4, 300)).live(1);
    assert_eq!(lines(&mut rig), ["Live/ !lost @300"]);
    assert_eq!(rig.owner.watches[&1].keys(), ["shop/a", "shop/back"], "the hub keeps it, we do not");
    // From here on it is an ordinary watch of the new history.
    rig.observe(1, event("a", 301, "prod")).observe(1, deleted("back", 302));
    assert_eq!(lines(&mut rig), ["+a -back @302"]);
    rig.observe(1, began(5)).observe(1, completed(5, 310)).discovered(config_maps());
    assert_eq!(lines(&mut rig), ["~a @310"]);
}

#[test]
fn i3_what_the_hub_knew_from_beyond_the_rewind_hides_no_event_after_it() {
    let mut rig = resumed(&[("a", 490, true)]);
    rig.observe(1, suspected()).observe(1, began(4)).observe(1, listed("a", 200, "prod"));
    rig.observe(1, rewound(4, 300)).live(1);
    rig.sections();
    rig.observe(1, event("a", 301, "prod"));
    assert_eq!(rig.told(), ["+a"]);
}

#[test]
fn i3_one_resource_version_may_mean_two_states_after_a_rewind() {
    let mut rig = resumed(&[("a", 310, true), ("key", 311, false)]);
    rig.observe(1, suspected()).observe(1, began(4));
    rig.observe(1, listed("a", 310, "prod")).observe(1, listed("key", 311, "dev"));
    assert_eq!(
        rig.told(),
        ["+a", "key"],
        "also a bare key: a Resume may have thrown away what was queued of it"
    );
}

#[test]
fn i3_a_list_that_turns_out_older_is_begun_again_under_the_flag() {
    for found_by_the_machine in [true, false] {
        let mut rig = Rig::new(bounds());
        rig.listing(&interest("ConfigMap", "prod"), &[("a", 1, "prod")]);
        rig.sections();
        rig.observe(1, began(5)).observe(1, listed("a", 1, "prod"));
        rig.take_effects();
        if found_by_the_machine {
            rig.observe(1, suspected()).observe(1, rewound(5, 90));
        } else {
            rig.observe(1, completed(5, 90));
        }
        let effects = rig.take_effects();
        let [Effect::Stop { watch: 1 }, Effect::Start(start)] = effects.as_slice() else {
            panic!("{effects:?}")
        };
        assert_eq!((start.start.clone(), start.epoch), (Start::Rewound, 5));
        assert_eq!(lines(&mut rig), ["Failing/RewindSuspected  @"]);
    }
}

#[test]
fn i3_an_object_never_gets_older() {
    // Its uid, its version; is that a rewind, where the index holds u-a at 60?
    for (uid, version, proof) in
        [("u-a", 59, true), ("u-a", 60, false), ("other", 59, true), ("other", 61, false)]
    {
        let mut rig = Rig::new(bounds());
        rig.listing(&interest("ConfigMap", "prod"), &[("a", 60, "prod"), ("b", 61, "prod")]);
        rig.sections();
        rig.take_effects();
        rig.observe(1, began(5));
        let text = String::from_utf8(body("a", version, "prod").to_vec()).unwrap().replace("u-a", uid);
        let applied = |body| Observation::Applied { body, resource_version: rv(version), listed: true };
        rig.observe(1, applied(text.into()));
        assert_eq!(rig.take_effects().contains(&Effect::Stop { watch: 1 }), proof, "{uid} {version}");
        let suspected = lines(&mut rig).iter().any(|line| line == "Failing/RewindSuspected  @");
        assert_eq!(suspected, proof, "and what is older is not told without it");
    }
}

#[test]
fn i3_an_object_older_than_the_hub_knows_it_is_a_rewind_too() {
    let mut rig = Rig::new(bounds());
    let prod = interest("ConfigMap", "prod");
    // The answer to a write of lockstep's own, beyond the checkpoint: any list is younger than that.
    rig.interests(&[(1, &prod)]).resume(1, "", &prod, &[("a", 60, true)]);
    rig.observe(1, began(4)).take_effects();
    rig.observe(1, listed("a", 59, "prod"));
    assert!(rig.take_effects().contains(&Effect::Stop { watch: 1 }));
}

#[test]
fn i3_a_lease_that_went_back_rewinds_every_watch() {
    let mut rig = Rig::new(bounds());
    let (maps, secrets) = (interest("ConfigMap", "prod"), interest("Secret", "prod"));
    rig.interests(&[(1, &maps), (2, &secrets)]);
    rig.resume(1, "500", &maps, &[("a", 400, true), ("lost", 450, true)]).resume(2, "500", &secrets, &[]);
    rig.live(1).live(2);
    rig.sections();
    rig.take_effects();
    rig.lease = rig.lease.map(|counter| counter - 1);
    rig.pass(10);
    let starts = rig.starts();
    assert_eq!(starts.len(), 2);
    assert!(starts.iter().all(|start| start.start == Start::Rewound));
    assert_eq!(lines(&mut rig), ["Failing/RewindSuspected  @", "Failing/RewindSuspected  @"]);
    // Restored with bumped revisions: nothing else would have shown it.
    rig.observe(1, began(4)).observe(1, listed("a", 400, "prod")).observe(1, rewound(4, 9_000)).live(1);
    assert_eq!(lines(&mut rig), ["Live/ +a !lost @9000"]);
}

#[test]
fn i3_a_lease_that_is_gone_is_a_rewind() {
    let mut rig = resumed(&[("a", 400, true)]);
    rig.lease = None;
    rig.pass(10);
    assert_eq!(rig.starts()[0].start, Start::Rewound);
    assert_eq!(rig.beats.last(), Some(&0));
}

#[test]
fn i3_a_lease_that_was_never_there_is_none() {
    let mut rig = resumed(&[("a", 400, true)]);
    rig.by_hand = true;
    rig.owner.guard = Guard::default();
    rig.apply(Action::Heartbeat);
    let effects = rig.take_effects();
    let [Effect::ReadLease { read }] = effects.as_slice() else { panic!("{effects:?}") };
    rig.read(*read, LeaseRead::Absent);
    assert!(!rig.take_effects().contains(&Effect::Stop { watch: 1 }));
}

/// A watch whose list 4 is complete and lacks an object; the Lease is in the test's hands.
fn lacking() -> Rig {
    let mut rig = Rig::new(bounds());
    let prod = interest("ConfigMap", "prod");
    rig.interests(&[(1, &prod)]).resume(1, "", &prod, &[("gone", 4, true)]);
    rig.observe(1, began(4));
    rig.sections();
    rig.by_hand = true;
    rig.take_effects();
    rig
}

fn reads(rig: &mut Rig) -> Vec<u64> {
    let read = |effect| match effect {
        Effect::ReadLease { read } => Some(read),
        _ => None,
    };
    rig.take_effects().into_iter().filter_map(read).collect()
}

#[test]
fn i3_deletes_wait_for_a_read_of_the_lease_that_began_after_the_list() {
    let mut rig = lacking();
    rig.apply(Action::Heartbeat);
    let early = reads(&mut rig)[0];
    rig.observe(1, completed(4, 100)).live(1).discovered(config_maps());
    let counter = rig.lease.unwrap();
    rig.read(early, held(counter));
    assert_eq!(lines(&mut rig), [""; 0], "that read began before");
    // It raises the counter first: one request at a time.
    rig.apply(Action::LeaseWritten(LeaseWritten::Raised(lease(counter + 1))));
    let late = reads(&mut rig)[0];
    rig.read(late, held(counter + 1));
    assert_eq!(lines(&mut rig), ["Live/ ~gone @100"]);
}

#[test]
fn i3_deletes_wait_for_discovery_that_was_asked_after_the_list() {
    let mut rig = lacking();
    rig.by_hand = false;
    rig.observe(1, completed(4, 100)).live(1);
    let look = rig.owner.look;
    rig.apply(Action::Discovered { served: config_maps(), look: look - 1 });
    assert_eq!(lines(&mut rig), [""; 0]);
    rig.apply(Action::Discovered { served: config_maps(), look });
    assert_eq!(lines(&mut rig), ["Live/ ~gone @100"]);
}

#[test]
fn i3_a_rewind_that_shows_only_after_the_list_deletes_nothing() {
    let mut rig = lacking();
    rig.observe(1, completed(4, 100)).live(1).discovered(config_maps());
    let read = reads(&mut rig)[0];
    rig.read(read, held(rig.lease.unwrap() - 1));
    assert_eq!(lines(&mut rig), ["Failing/RewindSuspected  @"]);
    rig.observe(1, began(5)).observe(1, rewound(5, 110)).live(1);
    assert_eq!(lines(&mut rig), ["Live/ !gone @110"]);
}

#[test]
fn i3_deletes_wait_for_a_lease_that_cannot_be_read_and_say_so() {
    let mut rig = lacking();
    rig.observe(1, completed(4, 100)).live(1).discovered(config_maps());
    for _ in 0..2 {
        let read = reads(&mut rig)[0];
        rig.read(read, LeaseRead::Unreadable("no answer".into()));
        let said = lines(&mut rig);
        assert!(said.iter().all(|line| line == "Listing/LeaseUnreadable  @"), "{said:?}");
        rig.pass(1);
    }
    let read = reads(&mut rig)[0];
    rig.read(read, held(rig.lease.unwrap()));
    assert_eq!(lines(&mut rig), ["Live/ ~gone @100"]);
}

#[test]
fn a_lease_that_nobody_may_read_holds_up_nothing_for_long() {
    let mut rig = lacking();
    rig.observe(1, completed(4, 100)).live(1).discovered(config_maps());
    let mut seconds = 0;
    let told = loop {
        if let Some(read) = reads(&mut rig).first() {
            rig.read(*read, LeaseRead::Forbidden("no".into()));
        }
        let told = lines(&mut rig);
        if told.iter().any(|line| line.contains('~')) {
            break told;
        }
        rig.pass(1);
        seconds += 1;
        assert!(seconds < 100);
    };
    assert_eq!(told, ["Live/ ~gone @100"]);
    assert_eq!(seconds, 60, "it could be read before, so a refusal is believed late");
}

#[test]
fn i3_the_hub_may_say_that_a_server_was_rewound() {
    let mut rig = Rig::new(bounds());
    let prod = interest("ConfigMap", "prod");
    rig.interests(&[(1, &prod)]);
    let entry = v1::IndexEntry {
        namespace: "shop".into(),
        name: "lost".into(),
        uid: "u-lost".into(),
        resource_version: "450".into(),
        body_held: true,
        managed: false,
    };
    rig.say(Body::Resume(v1::Resume {
        watch: 1,
        epoch: 3,
        checkpoint: "500".into(),
        interest: Bytes::copy_from_slice(&prod.digest()),
        api_version: "v1".into(),
        entries: vec![entry],
        last: true,
        rewound: true,
    }));
    assert_eq!(rig.starts()[0].start, Start::Rewound);
    assert_eq!(lines(&mut rig), ["Failing/RewindSuspected  @"]);
    rig.observe(1, began(4)).observe(1, rewound(4, 600)).live(1);
    assert_eq!(lines(&mut rig), ["Live/ !lost @600"]);
}

#[test]
fn i3_a_resume_from_before_the_hub_heard_of_the_rewind_starts_no_ordinary_list() {
    let mut rig = Rig::new(bounds());
    let (maps, secrets) = (interest("ConfigMap", "prod"), interest("Secret", "prod"));
    rig.interests(&[(1, &maps), (2, &secrets)]).resume(2, "500", &secrets, &[]);
    rig.lease = rig.lease.map(|counter| counter - 1);
    rig.pass(10).take_effects();
    rig.resume(1, "500", &maps, &[("lost", 450, true)]);
    assert_eq!(rig.starts()[0].start, Start::Rewound);
}

#[test]
fn i3_a_watch_that_the_hub_asks_for_before_it_heard_of_the_rewind_starts_no_ordinary_list() {
    let mut rig = resumed(&[]);
    rig.lease = rig.lease.map(|counter| counter - 1);
    rig.pass(10);
    rig.observe(1, began(4)).observe(1, rewound(4, 9_000)).live(1).take_effects();
    let (prod, more) = (interest("ConfigMap", "prod"), interest("Secret", "prod"));
    rig.interests(&[(1, &prod), (2, &more)]).resume(2, "500", &more, &[("lost", 450, true)]);
    assert_eq!(rig.starts()[0].start, Start::Rewound);
}

/// Sim seed 80395: the hub comes back from a backup, and what it knows of the counter is older than the rewind.
#[test]
fn i3_a_rewind_of_which_a_restored_hub_cannot_know_is_told_by_every_watch() {
    let mut rig = resumed(&[("lost", 450, true)]);
    rig.apply(Action::Disconnected);
    rig.lease = rig.lease.map(|counter| counter - 1);
    rig.pass(10).take_effects();
    rig.welcome(false);
    let prod = interest("ConfigMap", "prod");
    rig.interests(&[(1, &prod)]).resume(1, "100", &prod, &[("lost", 90, true)]);
    assert_eq!(rig.starts().last().unwrap().start, Start::Rewound);
    rig.observe(1, began(4)).observe(1, rewound(4, 300)).live(1);
    assert_eq!(rig.told(), ["!lost"]);
}

#[test]
fn i3_a_rewind_outlives_a_change_of_interest_and_a_kind_that_comes_and_goes() {
    let mut rig = resumed(&[("lost", 450, true)]);
    rig.observe(1, suspected()).observe(1, began(4)).take_effects();
    rig.interests(&[(1, &interest("ConfigMap", "dev"))]);
    assert_eq!(rig.starts()[0].start, Start::Rewound);
    rig.discovered(served(&[])).discovered(config_maps());
    assert_eq!(rig.starts()[0].start, Start::Rewound);
    rig.observe(1, began(5)).observe(1, rewound(5, 300)).live(1);
    assert_eq!(rig.told(), ["!lost"]);
}

#[test]
fn an_object_that_cannot_be_keyed_leaves_the_list_after_a_rewind_inconclusive() {
    let mut rig = resumed(&[("lost", 450, true)]);
    rig.observe(1, suspected()).observe(1, began(4));
    rig.observe(1, Observation::Undecodable { listed: true, why: "no name".into() });
    rig.observe(1, rewound(4, 300)).live(1);
    assert_eq!(lines(&mut rig), ["Live/Undecodable !lost @300"]);
    assert_eq!(rig.owner.watches[&1].presence("shop", "lost"), None);
}
