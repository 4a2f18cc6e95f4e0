//! Messages of released protocol versions, pinned as bytes in wire/fixtures: what an agent or hub
//! of the version before sends must go on meaning the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use crate::v1::{agent_message::Body as Up, hub_message::Body as Down, *};

const VERSION_1: &str = include_str!("../../fixtures/protocol-1.txt");

fn item(change: item::Change) -> Item {
    Item {
        namespace: "shop".into(),
        name: "web".into(),
        uid: "0b2c8d5e-0000-4000-8000-000000000001".into(),
        resource_version: "4711".into(),
        observed_ms: 1_700_000_000_000,
        change: Some(change),
        ..Item::default()
    }
}

fn managed() -> Managed {
    Managed {
        owned_digest: Bytes::from_static(&[1, 2, 3]),
        owned: OwnedState::Digest.into(),
        marks: BTreeMap::from([("lockstep.dev/policy".into(), "p".into())]),
        managers: vec![Manager {
            name: "kubectl-edit".into(),
            operation: "Update".into(),
            subresource: "status".into(),
            time: "2026-01-01T00:00:00Z".into(),
            fields: vec![".spec.replicas".into()],
            truncated: true,
        }],
        created_ms: 1,
        field_set: Bytes::new(),
    }
}

fn up() -> Vec<(&'static str, Up)> {
    let upsert = Upsert {
        body: Bytes::from_static(b"{}"),
        left: true,
        managed: Some(managed()),
        deleting: true,
        ..Upsert::default()
    };
    let section = Section {
        watch: 1,
        epoch: 2,
        items: vec![
            item(item::Change::Upsert(upsert)),
            item(item::Change::Delete(Delete {
                body: Bytes::from_static(b"{}"),
                inferred: true,
                ..Delete::default()
            })),
            item(item::Change::Undecodable(Undecodable { error: "truncated at line 1 column 2".into() })),
        ],
        checkpoint: "4712".into(),
        status: Some(WatchStatus {
            phase: WatchPhase::Live.into(),
            reason: "NotServed".into(),
            message: "m".into(),
            api_version: "apps/v1".into(),
            interest: Bytes::from_static(&[9; 4]),
        }),
        census: Vec::new(),
    };
    let served = ServedKind {
        group: "apps".into(),
        kind: "Deployment".into(),
        versions: vec!["v1".into()],
        plural: "deployments".into(),
        singular: "deployment".into(),
        short_names: vec!["deploy".into()],
        namespaced: true,
        verbs: vec!["list".into(), "watch".into()],
    };
    let hello = Hello {
        protocol: 1,
        agent_version: "0.1.0".into(),
        cluster_name: "cluster-a".into(),
        cluster_uid: "u".into(),
        server_version: "v1.20.2".into(),
        instance: "i".into(),
        oldest_unacked: 3,
        lease_counter: 4,
        live: vec![LiveWatch { watch: 1, epoch: 2 }],
        accepts: vec!["*".into()],
        clock_ms: 5,
        ..Hello::default()
    };
    vec![
        ("hello", Up::Hello(hello)),
        ("served", Up::Served(Served { kinds: vec![served], unknown_groups: vec!["m.io/v1".into()] })),
        ("batch", Up::Batch(Batch { sequence: 7, sections: vec![section] })),
        (
            "heartbeat",
            Up::Heartbeat(Heartbeat {
                clock_ms: 1,
                queued_items: 2,
                queued_bytes: 3,
                ages: vec![WatchAge { watch: 1, last_event_ms: 9 }],
                lease_counter: 0,
            }),
        ),
    ]
}

/// Fields and changes that came later.
fn later_up() -> Vec<(&'static str, Up)> {
    let census = Census { namespace: "shop".into(), count: 2, digest: Bytes::from_static(&[7; 16]) };
    let items = vec![item(item::Change::Unseen(Unseen {}))];
    let section = Section { watch: 1, items, census: vec![census], ..Section::default() };
    let delete = Delete { managers: vec!["kubectl-edit".into()], ..Delete::default() };
    let items = vec![item(item::Change::Delete(delete))];
    let managers = Section { watch: 1, items, ..Section::default() };
    let deleter = Deleter {
        group: "apps".into(),
        resource: "deployments".into(),
        namespace: "shop".into(),
        name: "web".into(),
        uid: "u".into(),
        user: "jane".into(),
        asked_ms: 5,
    };
    vec![
        ("batch-census", Up::Batch(Batch { sequence: 8, sections: vec![section] })),
        ("batch-managers", Up::Batch(Batch { sequence: 9, sections: vec![managers] })),
        ("deleters", Up::Deleters(Deleters { deleters: vec![deleter] })),
        ("heartbeat-lease", Up::Heartbeat(Heartbeat { lease_counter: 6, ..Heartbeat::default() })),
    ]
}

fn later_down() -> Vec<(&'static str, Down)> {
    let entries = vec![IndexEntry { name: "web".into(), ..IndexEntry::default() }];
    let same = step::Action::Apply(Apply { same_body: true, ..Apply::default() });
    let anew = step::Action::Restore(Restore {
        body: Bytes::from_static(b"{}"),
        expect: Some(restore::Expect::Present(Present { uid: "u".into(), resource_version: "1".into() })),
        dry_run: true,
        status: true,
    });
    let compare = Compare { watch: 1, namespace: "shop".into(), entries, last: true };
    vec![
        ("resume-rewound", Down::Resume(Resume { watch: 1, rewound: true, last: true, ..Resume::default() })),
        ("compare", Down::Compare(compare)),
        ("step-same-body", Down::Step(Step { step: 2, action: Some(same), ..Step::default() })),
        ("step-restore", Down::Step(Step { step: 2, action: Some(anew), ..Step::default() })),
    ]
}

fn outcomes() -> Vec<(&'static str, Up)> {
    let outcome = |result| Up::Outcome(Outcome { step: 8, result: Some(result), took_us: 9 });
    let applied = Applied {
        uid: "u".into(),
        resource_version: "1".into(),
        owned_digest: Bytes::from_static(&[1]),
        field_set: Bytes::from_static(b"{}"),
        created: true,
        created_namespace_uid: "n".into(),
        api_version: "apps/v1".into(),
        left: Vec::new(),
    };
    let image = Image {
        uid: "u".into(),
        resource_version: "1".into(),
        body: Bytes::from_static(b"{}"),
        api_version: "v1".into(),
        managed: false,
    };
    let failed = Failed {
        class: "Conflict".into(),
        message: "m".into(),
        retry_after_ms: 1,
        managers: managed().managers,
        paths: vec![".spec".into()],
        resource_version: String::new(),
    };
    vec![
        ("outcome-applied", outcome(outcome::Result::Applied(applied))),
        ("outcome-image", outcome(outcome::Result::Image(image))),
        ("outcome-deleted", outcome(outcome::Result::Deleted(Done {}))),
        ("outcome-released", outcome(outcome::Result::Released(Released::default()))),
        ("outcome-gone", outcome(outcome::Result::Gone(Done {}))),
        ("outcome-failed", outcome(outcome::Result::Failed(failed))),
    ]
}

fn greeting() -> Vec<(&'static str, Down)> {
    let welcome = Welcome {
        protocol: 1,
        hub_version: "0.1.0".into(),
        hub_id: "h".into(),
        cluster: 2,
        session: 3,
        same_instance: true,
        committed: 4,
        window_bytes: 5,
        window_batches: 6,
        clock_ms: 7,
        secret_key: Bytes::from_static(&[8; 32]),
    };
    let refused =
        Refused { code: "LS0321".into(), message: "m".into(), remedy: "r".into(), retry_after_ms: 1 };
    let entry = IndexEntry {
        namespace: "shop".into(),
        name: "web".into(),
        uid: "u".into(),
        resource_version: "1".into(),
        body_held: true,
        managed: true,
    };
    let resume = Resume {
        watch: 1,
        epoch: 2,
        checkpoint: "3".into(),
        interest: Bytes::from_static(&[4]),
        api_version: "apps/v1".into(),
        entries: vec![entry],
        last: true,
        rewound: false,
    };
    let watch = WatchInterest { watch: 1, interest: Bytes::from_static(b"{}") };
    vec![
        ("welcome", Down::Welcome(welcome)),
        ("refused", Down::Refused(refused)),
        ("interest", Down::Interest(InterestSet { generation: 1, watches: vec![watch] })),
        ("resume", Down::Resume(resume)),
        ("ack", Down::Ack(Ack { sequence: 1 })),
        ("cancel", Down::Cancel(CancelStep { step: 1 })),
    ]
}

fn steps() -> Vec<(&'static str, Down)> {
    let step = |action| {
        Down::Step(Step {
            step: 1,
            group: "apps".into(),
            kind: "Deployment".into(),
            namespace: "shop".into(),
            name: "web".into(),
            action: Some(action),
        })
    };
    let apply = |expect| Apply {
        body: Bytes::from_static(b"{}"),
        versions: vec!["v1".into()],
        last_field_set: Bytes::from_static(b"{}"),
        ensure_namespace: true,
        same_body: false,
        expect: Some(expect),
        leave: Bytes::new(),
        reclaim: Vec::new(),
        ..Apply::default()
    };
    let present = Present { uid: "u".into(), resource_version: "1".into() };
    vec![
        (
            "step-create",
            step(step::Action::Apply(apply(apply::Expect::Absent(Absent {
                nonce: "n".into(),
                again: false,
            })))),
        ),
        ("step-update", step(step::Action::Apply(apply(apply::Expect::Present(present))))),
        ("step-read", step(step::Action::Read(Read { must_be_empty: true }))),
        (
            "step-delete",
            step(step::Action::Delete(DeleteStep {
                uid: "u".into(),
                resource_version: "1".into(),
                must_be_empty: true,
            })),
        ),
        ("step-release", step(step::Action::Release(Release { uid: "u".into() }))),
        ("step-retract", step(step::Action::Retract(Retract { nonce: "n".into() }))),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn messages_of_protocol_1_are_what_they_were() {
    let up = up().into_iter().chain(outcomes()).chain(later_up());
    let up = up.map(|(name, body)| (name, AgentMessage { body: Some(body) }.encode_to_vec()));
    let down = greeting().into_iter().chain(steps()).chain(later_down());
    let down = down.map(|(name, body)| (name, HubMessage { body: Some(body) }.encode_to_vec()));
    let now: BTreeMap<&str, String> = up.chain(down).map(|(name, bytes)| (name, hex(&bytes))).collect();
    let pinned: BTreeMap<&str, String> = VERSION_1
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, hex)| (name, hex.to_owned()))
        .collect();
    let printed: Vec<String> = now.iter().map(|(name, hex)| format!("{name} {hex}")).collect();
    assert_eq!(now, pinned, "new lines for a new message only:\n{}", printed.join("\n"));
}

#[test]
fn messages_of_protocol_1_decode() {
    let mut names = Vec::new();
    for (name, hex) in VERSION_1.lines().filter_map(|line| line.split_once(' ')) {
        if name == "#" {
            continue;
        }
        let bytes = unhex(hex);
        let up = up().into_iter().chain(outcomes()).chain(later_up()).find(|(n, _)| *n == name);
        let down = greeting().into_iter().chain(steps()).chain(later_down()).find(|(n, _)| *n == name);
        match (up, down) {
            (Some((_, body)), None) => {
                assert_eq!(AgentMessage::decode(bytes.as_slice()).unwrap().body, Some(body), "{name}");
            }
            (None, Some((_, body))) => {
                assert_eq!(HubMessage::decode(bytes.as_slice()).unwrap().body, Some(body), "{name}");
            }
            _ => panic!("{name} is no message of protocol 1"),
        }
        names.push(name);
    }
    assert_eq!(names.len(), 30);
}
