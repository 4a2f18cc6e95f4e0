//! What is sent of which object, and how a change of interest is told.

use super::*;

#[test]
fn bodies_are_sent_only_of_what_is_wanted() {
    let mut rig = Rig::new(bounds());
    rig.listing(&interest("ConfigMap", "prod"), &[("a", 1, "prod"), ("b", 2, "dev")]);
    let sections = rig.sections();
    let items: Vec<_> = sections.iter().flat_map(|section| &section.items).collect();
    assert_eq!(items.iter().map(|item| short(item)).collect::<Vec<_>>(), ["+a", "b"]);
    let Some(Change::Upsert(upsert)) = &items[0].change else { panic!() };
    assert!(upsert.body.starts_with(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":"#));
}

#[test]
fn of_keys_outside_the_interest_only_their_life_is_told() {
    let mut rig = Rig::new(bounds());
    rig.listing(&interest("ConfigMap", "prod"), &[("b", 2, "dev")]);
    rig.sections();
    rig.observe(1, event("b", 3, "dev"));
    assert_eq!(rig.told(), [""; 0]);
    let deleting = object("b", 4, r#""deletionTimestamp":"2026-01-01T00:00:00Z""#);
    rig.observe(1, Observation::Applied { body: deleting, resource_version: rv(4), listed: false });
    assert_eq!(rig.told(), ["b"]);
    rig.observe(1, Observation::Deleted { body: body("b", 5, "dev"), resource_version: rv(5) });
    rig.observe(1, Observation::Deleted { body: body("never-seen", 6, "dev"), resource_version: rv(6) });
    let sections = rig.sections();
    let [item] = sections[0].items.as_slice() else { panic!("{sections:?}") };
    let Some(Change::Delete(delete)) = &item.change else { panic!("{item:?}") };
    assert!(delete.body.is_empty(), "the body of what is not wanted never leaves the cluster");
}

#[test]
fn leaving_the_interest_is_not_a_delete() {
    let mut rig = Rig::new(bounds());
    rig.listing(&interest("ConfigMap", "prod"), &[("a", 1, "prod")]);
    assert_eq!(rig.told(), ["+a"]);
    rig.observe(1, event("a", 101, "dev"));
    assert_eq!(rig.told(), ["<a"]);
    rig.observe(1, event("a", 102, "dev"));
    assert_eq!(rig.told(), [""; 0]);
    rig.observe(1, event("a", 103, "prod"));
    assert_eq!(rig.told(), ["+a"]);
    rig.observe(1, Observation::Deleted { body: body("a", 104, "prod"), resource_version: rv(104) });
    assert_eq!(rig.told(), ["-a"]);
}

#[test]
fn a_changed_interest_is_judged_again_against_the_index() {
    let mut rig = Rig::new(bounds());
    let (prod, dev) = (interest("ConfigMap", "prod"), interest("ConfigMap", "dev"));
    rig.listing(&prod, &[("a", 1, "prod"), ("b", 2, "dev"), ("c", 3, "other")]);
    rig.sections();
    rig.take_effects();
    rig.interests(&[(1, &dev)]);
    let effects = rig.take_effects();
    let [Effect::Stop { watch: 1 }, Effect::Start(start)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((start.start.clone(), start.epoch), (Start::Nothing, 4));
    rig.observe(1, Observation::ListStarted { epoch: 5 });
    for (name, version, env) in [("a", 1, "prod"), ("b", 2, "dev"), ("c", 3, "other")] {
        rig.observe(1, listed(name, version, env));
    }
    let under_way = rig.sections();
    assert_eq!(under_way.iter().flat_map(|s| &s.items).map(short).collect::<Vec<_>>(), ["<a", "+b"]);
    let digest = |section: &v1::Section| section.status.as_ref().unwrap().interest.clone();
    assert!(digest(&under_way[0]).is_empty(), "by now what the hub holds was judged by neither");
    rig.observe(1, completed(5, 100)).live(1);
    let done = rig.sections();
    assert_eq!(digest(&done[0]), dev.digest().as_slice());
    assert_eq!(done[0].checkpoint, "100");
}

#[test]
fn a_late_observation_of_a_stopped_task_is_ignored() {
    let mut rig = Rig::new(bounds());
    rig.listing(&interest("ConfigMap", "prod"), &[]);
    rig.sections();
    let run = rig.owner.watches[&1].run;
    rig.interests(&[(1, &interest("ConfigMap", "dev"))]);
    rig.apply(Action::Observed { watch: 1, run, observation: event("a", 5, "dev") });
    assert_eq!(rig.told(), [""; 0]);
}

#[test]
fn a_removed_watch_is_stopped_and_forgotten() {
    let mut rig = Rig::new(bounds());
    rig.listing(&interest("ConfigMap", "prod"), &[("a", 1, "prod")]);
    rig.take_effects();
    rig.interests(&[]);
    assert_eq!(rig.take_effects(), [Effect::Stop { watch: 1 }]);
    assert_eq!((rig.owner.queued(), rig.told()), ((0, 0), vec![]));
    assert_eq!(rig.owner.counts().1.dropped, 1);
}

#[test]
fn what_lockstep_manages_is_told_with_marks_and_owners_on_every_version() {
    let mut rig = Rig::new(bounds());
    let managed = Interest { managed: true, conditions: BTreeSet::new(), ..interest("Secret", "") };
    rig.listing(&managed, &[]);
    rig.sections();
    let metadata = r#""labels":{"lockstep.dev/managed":"true"},"annotations":{"lockstep.dev/policy":"p","x":"y"},
        "creationTimestamp":"1970-01-01T00:00:01Z","managedFields":[
        {"manager":"lockstep","operation":"Apply","apiVersion":"v1","fieldsV1":{"f:data":{"f:k":{}}}},
        {"manager":"other","operation":"Update","apiVersion":"v1","fieldsV1":{"f:data":{"f:z":{}}}}]"#;
    let mut digests = Vec::new();
    for version in [101, 102] {
        let body = object("s", version, metadata);
        rig.observe(1, Observation::Applied { body, resource_version: rv(version), listed: false });
        let sections = rig.sections();
        let Some(Change::Upsert(upsert)) = &sections[0].items[0].change else { panic!("{sections:?}") };
        assert!(upsert.body.is_empty());
        let managed = upsert.managed.as_ref().unwrap();
        assert_eq!(managed.owned(), v1::OwnedState::Digest);
        assert_eq!(managed.marks.len(), 2);
        assert_eq!(managed.managers.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["other"]);
        assert_eq!(managed.created_ms, 1_000);
        digests.push(managed.owned_digest.clone());
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn of_a_key_each_revision_is_told_only_where_it_is_asked_for() {
    for revisions in [false, true] {
        let mut rig = Rig::new(bounds());
        let keys = Interest { revisions, conditions: BTreeSet::new(), ..interest("ConfigMap", "") };
        rig.listing(&keys, &[]);
        rig.sections();
        let mut told = Vec::new();
        for version in [101, 102, 102] {
            let body = object("s", version, "\"labels\":{}");
            rig.observe(1, Observation::Applied { body, resource_version: rv(version), listed: false });
            let items = rig.sections().into_iter().flat_map(|section| section.items);
            told.extend(items.map(|item| item.resource_version));
        }
        assert_eq!(told, if revisions { vec!["101", "102"] } else { vec!["101"] });
    }
}

#[test]
fn a_step_goes_with_what_the_index_knows_of_its_object() {
    let mut rig = Rig::new(bounds());
    let config_maps = interest("ConfigMap", "prod");
    rig.listing(&config_maps, &[("a", 1, "prod")]);
    let ask = |rig: &mut Rig, kind: &str, name: &str| {
        rig.take_effects();
        let (kind, namespace, name) = (kind.into(), "shop".into(), name.into());
        rig.say(Body::Step(v1::Step { kind, namespace, name, ..v1::Step::default() }));
        match rig.take_effects().as_slice() {
            [Effect::Execute { step }] => rig.owner.presence(step),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(&mut rig, "ConfigMap", "a"), Some(true));
    assert_eq!(ask(&mut rig, "ConfigMap", "b"), Some(false));
    assert_eq!(ask(&mut rig, "Secret", "b"), None, "nobody watches Secrets");
    rig.observe(1, Observation::ListStarted { epoch: 5 });
    assert_eq!(ask(&mut rig, "ConfigMap", "b"), None, "a list is under way");
}
