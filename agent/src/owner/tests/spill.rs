//! A hub that is away for longer than memory lasts.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use lockstep_engine::coalesce::Limits;

use super::*;
use crate::spill::Spill;

/// Bytes of a body's filling: API servers' objects are mostly of a few kilobytes.
const FILLING: usize = 4_000;
/// Memory for a fifth of the bodies of [`OBJECTS`], and for the keys of all.
const MEMORY: usize = 1 << 20;
const OBJECTS: u64 = 1_000;

fn filled(name: &str, version: u64) -> Bytes {
    let filling = "canary ".repeat(FILLING / 7);
    object(
        name,
        version,
        &format!(r#""labels":{{"env":"prod"}},"annotations":{{"a":"{version} {filling}"}}"#),
    )
}

fn changed(name: &str, version: u64) -> Observation<Bytes> {
    Observation::Applied { body: filled(name, version), resource_version: rv(version), listed: false }
}

fn gone(name: &str, version: u64) -> Observation<Bytes> {
    Observation::Deleted { body: filled(name, version), resource_version: rv(version) }
}

/// An agent whose hub has just gone, with a spill file.
fn away(spill: Spill) -> Rig {
    let mut rig = Rig::new(Bounds { queue: Limits { bytes: MEMORY, count: 10_000 }, ..bounds() });
    rig.owner.spill = Some(spill);
    rig.listing(&interest("ConfigMap", "prod"), &[]);
    rig.sections();
    rig.take_effects();
    rig.apply(Action::Disconnected);
    rig
}

fn on_disk(max_bytes: u64) -> (tempfile::TempDir, Spill) {
    let dir = tempfile::tempdir().unwrap();
    let spill = Spill::open(dir.path(), "a", "i", max_bytes).unwrap();
    (dir, spill)
}

/// Observes as the driver does: until the owner is full. Returns the number of the first that was not.
fn read(rig: &mut Rig, from: u64, observation: impl Fn(&str, u64) -> Observation<Bytes>) -> u64 {
    for n in from..OBJECTS {
        if rig.owner.is_full() {
            return n;
        }
        rig.observe(1, observation(&format!("o{n}"), 1_000 + n));
    }
    OBJECTS
}

/// The bodies that are told, by name, with the version in them.
fn bodies(items: &[v1::Item]) -> Vec<(String, String)> {
    let of = |item: &v1::Item| {
        let body = match item.change.as_ref().unwrap() {
            Change::Upsert(upsert) => &upsert.body,
            Change::Delete(delete) => &delete.body,
            other => panic!("{other:?}"),
        };
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        let text = body["metadata"]["annotations"]["a"].as_str().unwrap();
        assert_eq!(text.len(), 5 + FILLING / 7 * 7);
        (item.name.clone(), text.split(' ').next().unwrap().to_owned())
    };
    items.iter().map(of).collect()
}

fn told_items(rig: &mut Rig) -> (Vec<v1::Item>, String) {
    let sections = rig.sections();
    let checkpoint = sections.iter().rfind(|section| !section.checkpoint.is_empty());
    let checkpoint = checkpoint.map(|section| section.checkpoint.clone()).unwrap_or_default();
    (sections.into_iter().flat_map(|section| section.items).collect(), checkpoint)
}

#[test]
fn i14_a_long_absence_of_the_hub_is_spilled_and_everything_arrives() {
    let (_dir, spill) = on_disk(64 << 20);
    let mut rig = away(spill);
    assert_eq!(read(&mut rig, 0, changed), OBJECTS, "the reading never stopped");
    for n in 0..OBJECTS / 2 {
        rig.observe(1, gone(&format!("o{n}"), 3_000 + n));
        assert!(rig.owner.queued().1 < MEMORY, "{n}: {:?}", rig.owner.queued());
    }
    let (items, bytes) = rig.owner.spilled();
    assert!(items as u64 > OBJECTS / 2 && bytes > 2 << 20, "{items}, {bytes}");
    assert_eq!(rig.owner.queued().0 as u64, OBJECTS);
    let file = rig.owner.spill.as_ref().unwrap().file();
    let mut raw = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut raw, 0).unwrap();
    assert!(!raw.windows(6).any(|window| window == b"canary"), "I13");

    rig.welcome(true);
    let (items, checkpoint) = told_items(&mut rig);
    let expected: Vec<_> = (0..OBJECTS)
        .map(|n| (format!("o{n}"), if n < OBJECTS / 2 { 3_000 + n } else { 1_000 + n }.to_string()))
        .collect();
    assert_eq!(bodies(&items), expected, "deletes with their last state, in order");
    assert!(items[..500].iter().all(|item| matches!(&item.change, Some(Change::Delete(_)))));
    assert_eq!(checkpoint, "3499");
    assert_eq!((rig.owner.spilled(), rig.owner.queued()), ((0, 0), (0, 0)));
    assert_eq!(file.metadata().unwrap().len(), 0, "and the disk is free again");
}

#[test]
fn what_changes_again_and_again_takes_no_more_space() {
    let (_dir, spill) = on_disk(64 << 20);
    let mut rig = away(spill);
    for round in 0..10 {
        for n in 0..400 {
            assert!(!rig.owner.is_full());
            rig.observe(1, changed(&format!("o{n}"), 1_000 + round * 400 + n));
        }
    }
    let (items, bytes) = rig.owner.spilled();
    assert!(items <= 400 && bytes < 400 * 5_000, "{items}, {bytes}");
    rig.welcome(true);
    let (items, _) = told_items(&mut rig);
    assert_eq!(bodies(&items).len(), 400);
    assert_eq!(bodies(&items)[7], ("o7".into(), "4607".into()));
}

#[test]
fn i14_when_the_file_is_full_too_the_reading_stops_and_goes_on_later() {
    let (_dir, spill) = on_disk(1 << 20);
    let mut rig = away(spill);
    let stopped = read(&mut rig, 0, changed);
    assert!((350..600).contains(&stopped), "memory and a megabyte of disk: {stopped}");
    assert_eq!(rig.owner.flush(), []);
    rig.welcome(true);
    let mut told = Vec::new();
    let mut next = stopped;
    while next < OBJECTS {
        let (items, _) = told_items(&mut rig);
        told.extend(bodies(&items));
        assert!(!rig.owner.is_full());
        next = read(&mut rig, next, changed);
    }
    told.extend(bodies(&told_items(&mut rig).0));
    let expected: Vec<_> = (0..OBJECTS).map(|n| (format!("o{n}"), (1_000 + n).to_string())).collect();
    assert_eq!(told, expected);
}

#[test]
fn a_full_disk_stops_the_reading_and_loses_nothing() {
    let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let mut rig = away(Spill::over(full, 64 << 20).unwrap());
    let stopped = read(&mut rig, 0, changed);
    assert!((150..300).contains(&stopped), "what fits into memory: {stopped}");
    assert!(rig.owner.told_of_spill);
    // Somebody makes room on the disk.
    let (_dir, spill) = on_disk(64 << 20);
    rig.owner.spill = Some(spill);
    rig.apply(Action::Heartbeat);
    assert_eq!(read(&mut rig, stopped, changed), OBJECTS);
    rig.welcome(true);
    assert_eq!(bodies(&told_items(&mut rig).0).len() as u64, OBJECTS);
}

#[test]
fn what_cannot_be_read_back_is_told_without_body_or_listed_again() {
    let (_dir, spill) = on_disk(64 << 20);
    let file = spill.file();
    let mut rig = away(spill);
    rig.observe(1, changed("kept", 1_000)).observe(1, changed("gone", 1_001)).observe(1, gone("gone", 1_002));
    rig.owner.spill_all();
    let spilled = rig.owner.spilled().0;
    assert_eq!(spilled, 2);
    file.set_len(0).unwrap();
    rig.observe(1, changed("later", 1_003));
    rig.take_effects();
    rig.welcome(true);
    rig.take_effects();

    let effects = rig.owner.flush();
    let stopped = effects.iter().any(|effect| *effect == Effect::Stop { watch: 1 });
    let starts = effects.iter().find_map(|effect| match effect {
        Effect::Start(start) => Some(start.start.clone()),
        _ => None,
    });
    assert_eq!((stopped, starts), (true, Some(Start::Nothing)));
    let sections: Vec<&v1::Section> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(AgentMessage { body: Some(agent_message::Body::Batch(batch)) }) => {
                Some(&batch.sections)
            }
            _ => None,
        })
        .flatten()
        .collect();
    let told: Vec<_> = sections.iter().flat_map(|section| &section.items).map(short).collect();
    assert_eq!(told, ["-gone", "+later"], "not a word of what exists and is not known");
    let Some(Change::Delete(delete)) = &sections[0].items[0].change else { panic!("{sections:?}") };
    assert!(delete.body.is_empty() && !delete.inferred);
    assert!(sections.iter().all(|section| section.checkpoint.is_empty()), "I2: a restart must list, too");
    assert!(sections.iter().all(|section| phase(section).is_none_or(|(phase, _)| phase != WatchPhase::Live)));

    rig.observe(1, Observation::ListStarted { epoch: 5 });
    for (name, version) in [("kept", 1_000), ("later", 1_003)] {
        let body = filled(name, version);
        rig.observe(1, Observation::Applied { body, resource_version: rv(version), listed: true });
    }
    rig.observe(1, completed(5, 1_010)).live(1);
    rig.say(Body::Ack(v1::Ack { sequence: rig.owner.session.unacked_batches() as u64 + rig.committed }));
    let (items, checkpoint) = told_items(&mut rig);
    assert_eq!(bodies(&items), [("kept".into(), "1000".into())], "found again");
    assert_eq!(checkpoint, "1010");
}
