//! The hub's core, with agents that say anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use lockstep_engine::interest::Interest;
use lockstep_engine::{ClusterId, ClusterName};
use lockstep_hub::core::command::Command;
use lockstep_hub::core::state::SessionCommand;
use lockstep_hub::core::{Connect, Core, Input, Keys, Parts};
use lockstep_hub::seal::{BearerToken, HubKey};
use lockstep_hub::store::Reader as _;
use lockstep_hub::store::sqlite::{SqliteReader, SqliteStore};
use lockstep_wire::v1::{self, agent_message, hub_message, step::Action};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::in_memory;
use crate::input::operations;
use crate::session::decode;

/// Copies config maps from a to b.
const POLICY: &str = "
apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: { name: maps }
spec: { sourceCluster: a, targetClusters: [b], resources: [{ kind: ConfigMap }] }
";
const KINDS: [(&str, &str, &str); 4] = [
    ("", "ConfigMap", "v1"),
    ("", "Namespace", "v1"),
    ("", "Secret", "v1"),
    ("apiextensions.k8s.io", "CustomResourceDefinition", "apiextensions.k8s.io/v1"),
];
/// Rounds that one input may cause: a scan ends.
const ROUNDS: usize = 1_000;
/// Commands that may wait for an agent.
const QUEUE: usize = 1_024;

/// Messages of two agents, sessions that begin and end, time, and restarts.
///
/// - The core takes every message: its store never refuses one, or that agent would send it for ever and every other
///   session would end with its own (I12).
/// - What it stored can be loaded again.
/// - No delete is sent: nothing is in the archive here (I4).
/// - An agent changes nothing of what is held of another cluster (I15).
/// - Afterwards an honest agent is welcomed and its batch acknowledged.
pub fn hub_core(data: &[u8]) {
    let mut fleet = Fleet::new();
    for (which, bytes) in operations(data) {
        let (name, operation) = (if which & 1 == 0 { "a" } else { "b" }, which >> 1 & 7);
        match operation {
            0 | 1 => {
                let Some(message) = decode::<v1::AgentMessage>(bytes) else { continue };
                fleet.message(name, message);
            }
            2 | 3 => {
                let section = decode::<v1::Section>(bytes).unwrap_or_default();
                fleet.section(name, section);
            }
            4 => {
                let told = decode::<v1::Outcome>(bytes).unwrap_or_default();
                fleet.answer(name, &told);
            }
            5 => {
                fleet.disconnect(name);
                fleet.connect(name, decode::<v1::Hello>(bytes).unwrap_or_default());
            }
            6 => {
                let ms = bytes.iter().take(4).fold(0_i64, |ms, byte| ms << 8 | i64::from(*byte));
                fleet.now += ms;
                fleet.input(Input::Tick);
            }
            _ => fleet.restart(),
        }
    }
    fleet.restart();
    fleet.goes_on();
}

struct Agent {
    session: u64,
    sequence: u64,
    commands: mpsc::Receiver<SessionCommand>,
    /// Number and digest of the interest, by kind.
    watches: BTreeMap<String, (u32, Bytes)>,
    /// Numbers of steps that are not answered.
    steps: Vec<u64>,
    acked: u64,
}

/// A hub that runs, and its store.
struct Hub {
    core: Core<SqliteStore>,
    reader: SqliteReader,
}

struct Fleet {
    /// None only between the end of a process and the next one.
    hub: Option<Hub>,
    ids: BTreeMap<&'static str, ClusterId>,
    tokens: BTreeMap<&'static str, BearerToken>,
    agents: BTreeMap<&'static str, Agent>,
    dir: tempfile::TempDir,
    now: i64,
}

fn open(dir: &Path) -> Hub {
    let key = HubKey::from_bytes([7; 32]);
    let store =
        SqliteStore::open(&dir.join("state.db"), key.sealer()).expect("what was stored can be opened");
    let reader = store.open_reader().expect("a reader");
    let parts = Parts {
        store,
        keys: Keys::of(&key),
        archive: Arc::new(Notify::new()),
        findings: Arc::default(),
        sessions: Arc::default(),
        hub_id: "hub".to_owned(),
        protocols: lockstep_wire::Protocols::BUILT_IN,
    };
    Hub { core: Core::load(parts).expect("what was stored can be loaded"), reader }
}

impl Fleet {
    /// Both are connected and serve the kinds.
    fn new() -> Self {
        let dir = in_memory();
        let hub = Some(open(dir.path()));
        let mut fleet = Self {
            hub,
            ids: BTreeMap::new(),
            tokens: BTreeMap::new(),
            agents: BTreeMap::new(),
            dir,
            now: 1_767_323_045_123,
        };
        for name in ["a", "b"] {
            let (reply, mut answer) = oneshot::channel();
            let cluster = ClusterName::new(name).expect("a name");
            fleet.input(Input::Command(Command::CreateToken { cluster, reply }));
            let token = answer.try_recv().ok().and_then(Result::ok).expect("a token");
            fleet.tokens.insert(name, BearerToken::new(&token));
        }
        fleet.policies();
        for name in ["a", "b"] {
            fleet.greet(name);
        }
        fleet
    }

    fn policies(&mut self) {
        self.input(Input::Policies(Ok(vec![("maps.yaml".to_owned(), Ok(POLICY.to_owned()))])));
    }

    fn input(&mut self, input: Input) {
        self.now = self.now.saturating_add(10);
        let Some(Hub { core, .. }) = &mut self.hub else { return };
        let mut more = core.handle(vec![input], self.now).expect("no input is too much for the store");
        for round in 0.. {
            assert!(round < ROUNDS, "a scan does not end");
            if !more {
                break;
            }
            more = core.handle(Vec::new(), self.now).expect("no scan is too much for the store");
        }
        for name in ["a", "b"] {
            self.receive(name);
        }
    }

    fn connect(&mut self, name: &'static str, hello: v1::Hello) -> bool {
        let (out, commands) = mpsc::channel(QUEUE);
        let (reply, mut answer) = oneshot::channel();
        let token = self.tokens[name].clone();
        self.input(Input::Connect(Box::new(Connect { token, hello, out, reply })));
        let answer = answer.try_recv().expect("every Hello is answered");
        let Ok((id, session)) = answer else { return false };
        assert_eq!(*self.ids.entry(name).or_insert(id), id, "a token of {name} speaks for another cluster");
        let agent =
            Agent { session, sequence: 0, commands, watches: BTreeMap::new(), steps: Vec::new(), acked: 0 };
        self.agents.insert(name, agent);
        self.receive(name);
        true
    }

    /// As an honest agent does it.
    fn greet(&mut self, name: &'static str) {
        let hello = v1::Hello {
            protocol: lockstep_wire::PROTOCOL,
            agent_version: "fuzz".to_owned(),
            cluster_name: name.to_owned(),
            cluster_uid: format!("uid-of-{name}"),
            server_version: "v1.20.2".to_owned(),
            instance: format!("instance-{}", self.now),
            clock_ms: self.now,
            ..v1::Hello::default()
        };
        assert!(self.connect(name, hello), "an honest agent is refused");
        let kinds = KINDS.map(|(group, kind, version)| v1::ServedKind {
            group: group.to_owned(),
            kind: kind.to_owned(),
            versions: vec![version.to_owned()],
            plural: format!("{}s", kind.to_lowercase()),
            singular: kind.to_lowercase(),
            namespaced: !matches!(kind, "Namespace" | "CustomResourceDefinition"),
            ..v1::ServedKind::default()
        });
        let served = v1::Served { kinds: kinds.to_vec(), unknown_groups: Vec::new() };
        self.message(name, v1::AgentMessage { body: Some(agent_message::Body::Served(served)) });
    }

    fn disconnect(&mut self, name: &'static str) {
        let Some(agent) = self.agents.remove(name) else { return };
        self.input(Input::Disconnected { cluster: self.ids[name], session: agent.session });
    }

    fn message(&mut self, name: &'static str, message: v1::AgentMessage) {
        let Some(agent) = self.agents.get(name) else { return };
        let (cluster, session) = (self.ids[name], agent.session);
        let other = if name == "a" { "b" } else { "a" };
        let before = self.held(other);
        self.input(Input::Message { cluster, session, message: Box::new(message) });
        assert_eq!(self.held(other), before, "{name} changed what is held of {other}");
    }

    /// The next batch of an agent, with one section. Small numbers stand for the watches that there are, and no digest
    /// for that of their interest: nobody guesses one.
    fn section(&mut self, name: &'static str, mut section: v1::Section) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        let at = usize::try_from(section.watch).unwrap_or(usize::MAX);
        if let Some((watch, digest)) = agent.watches.values().nth(at) {
            section.watch = *watch;
            if let Some(status) = section.status.as_mut().filter(|status| status.interest.is_empty()) {
                status.interest = digest.clone();
            }
        }
        agent.sequence += 1;
        let batch = v1::Batch { sequence: agent.sequence, sections: vec![section] };
        self.message(name, v1::AgentMessage { body: Some(agent_message::Body::Batch(batch)) });
    }

    fn answer(&mut self, name: &'static str, told: &v1::Outcome) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        for step in std::mem::take(&mut agent.steps) {
            let outcome = v1::Outcome { step, ..told.clone() };
            self.message(name, v1::AgentMessage { body: Some(agent_message::Body::Outcome(outcome)) });
        }
    }

    /// What the hub sent.
    fn receive(&mut self, name: &'static str) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        while let Ok(command) = agent.commands.try_recv() {
            let SessionCommand::Message(message) = command else { continue };
            match message.body {
                Some(hub_message::Body::Interest(set)) => {
                    let watches = set.watches.iter().map(|watch| {
                        let interest: Interest =
                            serde_json::from_slice(&watch.interest).expect("an interest is JSON");
                        let digest = Bytes::copy_from_slice(&interest.digest());
                        (interest.gk.kind.to_string(), (watch.watch, digest))
                    });
                    agent.watches = watches.collect();
                }
                Some(hub_message::Body::Step(step)) => {
                    assert!(
                        !matches!(step.action, Some(Action::Delete(_))),
                        "a delete of what is not archived: {step:?}"
                    );
                    agent.steps.push(step.step);
                }
                Some(hub_message::Body::Ack(ack)) => {
                    assert!(ack.sequence >= agent.acked, "acks fall");
                    agent.acked = ack.sequence;
                }
                _ => {}
            }
        }
    }

    /// Objects of a cluster.
    fn held(&mut self, name: &str) -> Option<u64> {
        let Hub { reader, .. } = self.hub.as_mut()?;
        Some(reader.object_count(*self.ids.get(name)?).expect("a count"))
    }

    fn restart(&mut self) {
        self.agents.clear();
        // The one before has ended when the next one begins.
        self.hub = None;
        self.hub = Some(open(self.dir.path()));
        self.policies();
    }

    fn goes_on(&mut self) {
        for name in ["a", "b"] {
            self.greet(name);
            let object =
                Bytes::from_static(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}"#);
            let upsert = v1::Upsert { body: object, ..v1::Upsert::default() };
            let item = v1::Item {
                namespace: "n".to_owned(),
                name: "x".to_owned(),
                uid: "u".to_owned(),
                resource_version: "1".to_owned(),
                observed_ms: self.now,
                change: Some(v1::item::Change::Upsert(upsert)),
                ..v1::Item::default()
            };
            self.section(name, v1::Section { epoch: 1, items: vec![item], ..v1::Section::default() });
            assert_eq!(self.agents[name].acked, 1, "an honest batch of {name} is not acknowledged");
        }
    }
}
