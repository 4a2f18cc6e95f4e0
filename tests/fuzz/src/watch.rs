//! The lines of a watch: framing, events, and what the list-watch machine makes of them.

use bytes::Bytes;
use lockstep_cluster::{FrameError, LineSplitter, frame};
use lockstep_engine::ResourceVersion;
use lockstep_engine::listwatch::{
    Command, Event, Health, Input, Machine, Observation, Output, Settings, Start, WATCH_IDLE_MS,
};
use lockstep_engine::object::{RawObject, without_managed_fields};
use serde_json::Value;

use crate::input::Numbers;
use crate::secrecy::assert_no_value;

/// Lines below the one bound all pass, above the other few do.
const LIMITS: [usize; 2] = [1 << 20, 48];

/// The bytes of a watch, in chunks.
///
/// - The lines are the same wherever the chunks end, and those of a plain split.
/// - Every line leads to exactly one observation, or to one report of an error that ends the watch; a line that
///   cannot be decoded ends nothing.
/// - An object that can be keyed is delivered as it came; without managedFields it is otherwise the same.
/// - No text about undecodable bytes holds any of them.
pub fn watch_lines(data: &[u8]) {
    let mut numbers = Numbers::from(data);
    for limit in LIMITS {
        let expected = plain_split(data, limit);
        for longest in [data.len(), 1, 2 + numbers.below(64)] {
            let chunks = || chunks(data, longest, &mut Numbers::from(data));
            assert_eq!(split(chunks(), limit), expected, "limit {limit}, chunks of up to {longest}");
        }
    }
    let (lines, _) = plain_split(data, LIMITS[0]);
    let events: Vec<_> = lines.iter().map(|line| frame(&Bytes::from(line.clone()))).collect();
    watched(&events);
    streamed(&events);
}

type Lines = (Vec<Vec<u8>>, Result<(), FrameError>);

fn plain_split(data: &[u8], limit: usize) -> Lines {
    let mut lines = Vec::new();
    for line in data.split(|byte| *byte == b'\n') {
        if line.len() > limit {
            return (lines, Err(FrameError::TooLong { limit }));
        }
        if !line.iter().all(u8::is_ascii_whitespace) {
            lines.push(line.to_vec());
        }
    }
    (lines, Ok(()))
}

fn chunks(data: &[u8], longest: usize, numbers: &mut Numbers) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut rest = Bytes::copy_from_slice(data);
    while !rest.is_empty() {
        let len = if longest >= data.len() { rest.len() } else { 1 + numbers.below(longest) };
        chunks.push(rest.split_to(len.min(rest.len())));
    }
    chunks
}

/// As the driver of a watch does it.
fn split(chunks: Vec<Bytes>, limit: usize) -> Lines {
    let mut splitter = LineSplitter::new(limit);
    let mut lines = Vec::new();
    for chunk in chunks {
        splitter.push(chunk);
        loop {
            match splitter.next_line() {
                Ok(Some(line)) => lines.push(line.to_vec()),
                Ok(None) => break,
                Err(error) => return (lines, Err(error)),
            }
        }
    }
    lines.extend(splitter.finish().map(|line| line.to_vec()));
    (lines, Ok(()))
}

type Body = Bytes;

/// A machine, and what it answered last.
struct Loop {
    machine: Machine<Body>,
    now: i64,
}

impl Loop {
    fn step(&mut self, input: Input<Body>) -> (Vec<Observation<Body>>, Vec<Command>) {
        self.now += 10;
        let mut out = Vec::new();
        self.machine.step(input, self.now, &mut out);
        parted(out)
    }

    /// Its watch is open.
    fn open() -> Self {
        let settings = Settings { epoch: 0, seed: 1, streaming: false, idle_ms: WATCH_IDLE_MS };
        let mut at = Self { machine: Machine::new(settings), now: 0 };
        let mut out = Vec::new();
        at.machine.start(Start::Checkpoint(ResourceVersion::new("1")), &mut out);
        at.step(Input::Probed { resource_version: ResourceVersion::new("1") });
        at.step(Input::Opened);
        assert_eq!(at.machine.health(), &Health::Live);
        at
    }
}

fn parted(out: Vec<Output<Body>>) -> (Vec<Observation<Body>>, Vec<Command>) {
    let (mut observations, mut commands) = (Vec::new(), Vec::new());
    for output in out {
        match output {
            Output::Observation(observation) => observations.push(observation),
            Output::Command(command) => commands.push(command),
        }
    }
    assert!(commands.len() <= 1, "more than one command at a time: {commands:?}");
    (observations, commands)
}

/// Events of an open watch.
fn watched(events: &[Event<Body>]) {
    let mut at = Loop::open();
    for event in events {
        let (observations, commands) = at.step(Input::Event(event.clone()));
        if matches!(event, Event::Error(_)) {
            assert_eq!(commands.len(), 1, "an error is not followed up: {event:?}");
            at = Loop::open();
            continue;
        }
        assert_eq!(commands, [], "{event:?} ended the watch");
        let [observation] = observations.as_slice() else {
            panic!("{event:?} led to {observations:?}");
        };
        match (event, observation) {
            (Event::Applied(body), Observation::Applied { body: seen, resource_version, listed: false }) => {
                assert_eq!(seen, body);
                delivered(body, resource_version);
            }
            (Event::Deleted(body), Observation::Deleted { body: seen, resource_version }) => {
                assert_eq!(seen, body);
                delivered(body, resource_version);
            }
            (Event::Bookmark(_), Observation::Bookmark(_)) => {}
            (event, Observation::Undecodable { listed: false, why }) => {
                assert_no_value(why);
                if let Event::Applied(body) | Event::Deleted(body) = event {
                    assert!(RawObject::parse(body).is_err(), "an object was not taken: {event:?}");
                }
            }
            _ => panic!("{event:?} led to {observation:?}"),
        }
    }
}

/// Of an object that has a name and a version.
fn delivered(body: &Body, resource_version: &ResourceVersion) {
    let Ok(object) = RawObject::parse(body) else { return };
    assert_eq!(&object.resource_version(), resource_version);
    let light = without_managed_fields(body, "v1", "Kind").expect("an object that was read before");
    assert_eq!(without_managed_fields(&light, "v2", "Other").as_ref().ok(), Some(&light), "not idempotent");
    // Trees are not built of what is nested more deeply than any object.
    let Ok(mut whole) = serde_json::from_slice::<Value>(body) else { return };
    let light: Value = serde_json::from_slice(&light).expect("JSON out of JSON");
    let metadata = whole.get_mut("metadata").and_then(Value::as_object_mut).expect("it was read before");
    metadata.remove("managedFields");
    let members = whole.as_object_mut().expect("it has metadata");
    members.entry("apiVersion").or_insert_with(|| "v1".into());
    members.entry("kind").or_insert_with(|| "Kind".into());
    assert_eq!(light, whole);
}

/// The same events as the beginning of a streamed list.
fn streamed(events: &[Event<Body>]) {
    let settings = Settings { epoch: 0, seed: 1, streaming: true, idle_ms: WATCH_IDLE_MS };
    let mut machine = Machine::new(settings);
    let mut out = Vec::new();
    machine.start(Start::Nothing, &mut out);
    let (mut applied, mut deleted, mut undecodable) = (0, 0, 0);
    for event in events {
        let mut out = Vec::new();
        machine.step(Input::Event(event.clone()), 10, &mut out);
        let (mut observations, commands) = parted(out);
        observations.retain(|observation| !matches!(observation, Observation::StateChanged(_)));
        if !commands.is_empty() {
            return; // the stream is given up, and nothing is concluded from it
        }
        match observations.as_slice() {
            [Observation::Applied { listed: true, .. }] => applied += 1,
            [Observation::Undecodable { listed: true, why }] => {
                assert_no_value(why);
                undecodable += 1;
            }
            // Held until the list is complete.
            [] if matches!(event, Event::Deleted(_)) => deleted += 1,
            [Observation::ListCompleted { absence, .. }, rest @ ..] => {
                use lockstep_engine::listwatch::Absence;
                assert_eq!(*absence == Absence::Conclusive, undecodable == 0, "{absence:?}");
                let told = rest.iter().filter(|o| matches!(o, Observation::Deleted { .. })).count();
                assert_eq!(told, deleted, "deletes of the list were lost");
                return;
            }
            other => panic!("{event:?} led to {other:?} after {applied} objects"),
        }
    }
    assert_eq!(applied + deleted + undecodable, events.len(), "a line was lost");
}
