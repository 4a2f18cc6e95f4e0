//! A core on a real store with agents played by the test: synchronous, and without a clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lockstep_engine::{ClusterId, ClusterName, GroupKind, Millis, ObjectKey, marks};
use lockstep_wire::v1::{self, agent_message, hub_message, outcome::Result as Answer, step::Action};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::core::command::Command;
use crate::core::state::SessionCommand;
use crate::core::{Connect, Core, Input, Keys, Parts};
use crate::seal::{BearerToken, HubKey};
use crate::store::sqlite::SqliteStore;
use crate::store::{Filed, PlacementRow, Reader, TombstoneFilter, TombstoneRow};

pub(super) const POLICY: &str = "
apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: { name: maps }
spec:
  sourceCluster: a
  targetClusters: [b]
  resources:
  - kind: ConfigMap
    matchLabels: { sync: 'yes' }
";

pub(super) struct Agent {
    pub id: ClusterId,
    pub session: u64,
    pub sequence: u64,
    pub commands: mpsc::Receiver<SessionCommand>,
    /// Taken from there, and not looked at yet.
    pub inbox: VecDeque<SessionCommand>,
    /// (watch, interest) by kind.
    pub watches: BTreeMap<String, (u32, lockstep_engine::interest::Interest)>,
}

pub(super) struct Fleet {
    pub core: Core<SqliteStore>,
    pub agents: BTreeMap<&'static str, Agent>,
    pub tokens: BTreeMap<&'static str, String>,
    /// Counters of the Leases, told with every Hello.
    pub leases: BTreeMap<&'static str, u64>,
    /// What agents answer when the hub asks whether a namespace is there; else what they told of it.
    pub namespaces: BTreeMap<(&'static str, &'static str), Answer>,
    /// The highest resourceVersion that the watches of a cluster told.
    reached: BTreeMap<&'static str, u64>,
    dir: tempfile::TempDir,
    pub now: Millis,
}

fn open(dir: &tempfile::TempDir) -> Core<SqliteStore> {
    let key = HubKey::from_bytes([7; 32]);
    let store = SqliteStore::open(&dir.path().join("state.db"), key.sealer()).unwrap();
    let parts = Parts {
        store,
        keys: Keys { mac: key.mac_key(), secret_digest: key.secret_digest_key(), token: key.token_key() },
        archive: Arc::new(Notify::new()),
        findings: Arc::default(),
        sessions: Arc::default(),
        hub_id: "hub-1".to_owned(),
    };
    Core::load(parts).unwrap()
}

impl Fleet {
    /// Clusters a, b and c are registered; the policies are read; nobody is connected.
    pub(super) fn new(policies: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let core = open(&dir);
        let mut fleet = Self {
            core,
            agents: BTreeMap::new(),
            tokens: BTreeMap::new(),
            leases: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            reached: BTreeMap::new(),
            dir,
            now: 1_000,
        };
        for name in ["a", "b", "c"] {
            let (reply, mut answer) = oneshot::channel();
            let cluster = ClusterName::new(name).unwrap();
            fleet.input(Input::Command(Command::CreateToken { cluster, reply }));
            fleet.tokens.insert(name, answer.try_recv().unwrap().unwrap());
        }
        fleet.policies(policies);
        fleet
    }

    pub(super) fn policies(&mut self, files: &[(&str, &str)]) {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), Ok((*text).to_owned()))).collect();
        self.input(Input::Policies(Ok(files)));
    }

    pub(super) fn input(&mut self, input: Input) {
        self.now += 10;
        let mut more = self.core.handle(vec![input], self.now).unwrap();
        while more {
            more = self.core.handle(Vec::new(), self.now).unwrap();
        }
        let names: Vec<&'static str> = self.agents.keys().copied().collect();
        names.into_iter().for_each(|name| self.answer_probes(name));
    }

    /// Agents answer at once whether a namespace is there.
    fn answer_probes(&mut self, name: &'static str) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        let mut probes = Vec::new();
        while let Ok(command) = agent.commands.try_recv() {
            match probe(&command) {
                Some(step) => probes.push(step),
                None => agent.inbox.push_back(command),
            }
        }
        for step in probes {
            let told = self.namespaces.iter().find(|((at, of), _)| *at == name && *of == step.name);
            let answer = match told.map(|(_, answer)| answer.clone()) {
                Some(answer) => answer,
                None => self.known_namespace(name, &step.name),
            };
            self.outcome(name, step.step, answer);
        }
    }

    fn known_namespace(&mut self, name: &str, namespace: &str) -> Answer {
        let id = self.core.names[&ClusterName::new(name).unwrap()];
        let key = ObjectKey::new(GroupKind::new("", "Namespace"), "", namespace);
        match self.core.store.object(id, &key).unwrap() {
            Some(row) => {
                Answer::Probed(v1::Probed { uid: row.uid.to_string(), deleting: row.deleting, created_ms: 0 })
            }
            None => Answer::Gone(v1::Done {}),
        }
    }

    pub(super) fn tick(&mut self, ms: i64) {
        self.now += ms;
        self.input(Input::Tick);
    }

    /// The hub dies and starts again on its disk.
    pub(super) fn restart(&mut self) {
        self.agents.clear();
        let spare = tempfile::tempdir().unwrap();
        self.core = open(&spare);
        self.core = open(&self.dir);
    }

    /// The hub dies, its disk is lost, and it starts anew with the policies and its key.
    pub(super) fn lose_disk(&mut self, policies: &[(&str, &str)]) {
        self.agents.clear();
        let dir = tempfile::tempdir().unwrap();
        self.core = open(&dir);
        self.dir = dir;
        self.policies(policies);
    }

    pub(super) fn connect(&mut self, name: &'static str) {
        self.connect_as(name, "instance-1", &format!("uid-of-{name}")).unwrap();
        self.served(name, &[("", "ConfigMap", "v1"), ("", "Secret", "v1"), ("batch", "Job", "batch/v1")]);
    }

    pub(super) fn connect_as(
        &mut self,
        name: &'static str,
        instance: &str,
        uid: &str,
    ) -> Result<(), v1::Refused> {
        let (out, commands) = mpsc::channel(1024);
        let (reply, mut answer) = oneshot::channel();
        let hello = v1::Hello {
            protocol: lockstep_wire::PROTOCOL,
            agent_version: "test".into(),
            cluster_name: name.into(),
            cluster_uid: uid.into(),
            server_version: "v1.20.2".into(),
            instance: format!("{instance}-{}", self.now),
            lease_counter: self.leases.get(name).copied().unwrap_or(0),
            clock_ms: self.now,
            ..v1::Hello::default()
        };
        let token = BearerToken::new(&self.tokens[name]);
        self.input(Input::Connect(Box::new(Connect { token, hello, out, reply })));
        let (id, session) = answer.try_recv().unwrap()?;
        let agent =
            Agent { id, session, sequence: 0, commands, inbox: VecDeque::new(), watches: BTreeMap::new() };
        self.agents.insert(name, agent);
        Ok(())
    }

    pub(super) fn disconnect(&mut self, name: &'static str) {
        let agent = self.agents.remove(name).unwrap();
        self.input(Input::Disconnected { cluster: agent.id, session: agent.session });
    }

    /// The stream breaks; the agent's process and its watches go on.
    pub(super) fn drop_stream(&mut self, name: &'static str) {
        let agent = self.agents.get_mut(name).unwrap();
        agent.commands.close();
        let (cluster, session) = (agent.id, agent.session);
        self.input(Input::Disconnected { cluster, session });
    }

    /// The same process comes back, with the watches that it kept running.
    pub(super) fn resume(&mut self, name: &'static str) {
        let mut agent = self.agents.remove(name).unwrap();
        let live =
            agent.watches.values().map(|(watch, _)| v1::LiveWatch { watch: *watch, epoch: 1 }).collect();
        let (out, commands) = mpsc::channel(1024);
        let (reply, mut answer) = oneshot::channel();
        let row = self.core.store.clusters().unwrap().into_iter().find(|row| row.id == agent.id).unwrap();
        let hello = v1::Hello {
            protocol: lockstep_wire::PROTOCOL,
            agent_version: "test".into(),
            cluster_name: name.into(),
            cluster_uid: format!("uid-of-{name}"),
            server_version: "v1.20.2".into(),
            instance: row.instance,
            lease_counter: self.leases.get(name).copied().unwrap_or(0),
            clock_ms: self.now,
            live,
            ..v1::Hello::default()
        };
        let token = BearerToken::new(&self.tokens[name]);
        self.input(Input::Connect(Box::new(Connect { token, hello, out, reply })));
        (agent.id, agent.session) = answer.try_recv().unwrap().unwrap();
        agent.commands = commands;
        agent.inbox.clear();
        self.agents.insert(name, agent);
    }

    pub(super) fn message(&mut self, name: &'static str, body: agent_message::Body) {
        let agent = &self.agents[name];
        let (cluster, session) = (agent.id, agent.session);
        self.input(Input::Message {
            cluster,
            session,
            message: Box::new(v1::AgentMessage { body: Some(body) }),
        });
    }

    pub(super) fn served(&mut self, name: &'static str, kinds: &[(&str, &str, &str)]) {
        self.serves(name, kinds, &[]);
    }

    /// Kinds that can also be listed and watched.
    pub(super) fn lists(&mut self, name: &'static str, kinds: &[(&str, &str, &str)]) {
        self.serves(name, kinds, &["list", "watch"]);
    }

    fn serves(&mut self, name: &'static str, kinds: &[(&str, &str, &str)], verbs: &[&str]) {
        let kinds = kinds
            .iter()
            .map(|(group, kind, version)| v1::ServedKind {
                group: (*group).into(),
                kind: (*kind).into(),
                versions: vec![(*version).into()],
                plural: format!("{}s", kind.to_lowercase()),
                singular: kind.to_lowercase(),
                namespaced: true,
                verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
                ..v1::ServedKind::default()
            })
            .collect();
        self.message(name, agent_message::Body::Served(v1::Served { kinds, unknown_groups: Vec::new() }));
    }

    /// What the hub sent since the last look; interests are noted.
    pub(super) fn received(&mut self, name: &'static str) -> Vec<hub_message::Body> {
        let Some(agent) = self.agents.get_mut(name) else { return Vec::new() };
        let mut bodies = Vec::new();
        while let Some(command) = agent.inbox.pop_front() {
            let SessionCommand::Message(message) = command else { continue };
            if let Some(hub_message::Body::Interest(set)) = &message.body {
                agent.watches = set
                    .watches
                    .iter()
                    .map(|w| {
                        let interest: lockstep_engine::interest::Interest =
                            serde_json::from_slice(&w.interest).unwrap();
                        (interest.gk.kind.to_string(), (w.watch, interest))
                    })
                    .collect();
            }
            bodies.extend(message.body);
        }
        bodies
    }

    pub(super) fn steps(&mut self, name: &'static str) -> Vec<v1::Step> {
        let bodies = self.received(name);
        bodies
            .into_iter()
            .filter_map(|b| if let hub_message::Body::Step(step) = b { Some(step) } else { None })
            .collect()
    }

    pub(super) fn one_step(&mut self, name: &'static str) -> v1::Step {
        let mut steps = self.steps(name);
        assert_eq!(steps.len(), 1, "{steps:?}");
        steps.remove(0)
    }

    pub(super) fn section(
        &mut self,
        name: &'static str,
        items: Vec<v1::Item>,
        phase: Option<v1::WatchPhase>,
    ) {
        self.section_of("ConfigMap", name, items, phase);
    }

    /// The watch of namespaces is live, and brings these.
    pub(super) fn namespaces(&mut self, name: &'static str, items: Vec<v1::Item>) {
        self.section_of("Namespace", name, items, Some(v1::WatchPhase::Live));
    }

    /// The watch found its server rewound; these come from the list that follows.
    pub(super) fn rewound(&mut self, name: &'static str, items: Vec<v1::Item>) {
        let status = |phase: v1::WatchPhase, reason: &str, digest: [u8; 32]| v1::WatchStatus {
            phase: phase.into(),
            reason: reason.into(),
            api_version: "v1".into(),
            interest: digest.to_vec().into(),
            ..v1::WatchStatus::default()
        };
        self.received(name);
        let digest = self.agents[name].watches["ConfigMap"].1.digest();
        self.tell(name, items, Some(status(v1::WatchPhase::Failing, "RewindSuspected", digest)), Vec::new());
    }

    pub(super) fn heartbeat(&mut self, name: &'static str, lease_counter: u64) {
        let clock_ms = self.now;
        let beat = v1::Heartbeat { clock_ms, lease_counter, ..v1::Heartbeat::default() };
        self.message(name, agent_message::Body::Heartbeat(beat));
    }

    /// Watches that the hub asked to resume since the last look: kind, checkpoint, rewound.
    pub(super) fn resumes(&mut self, name: &'static str) -> Vec<(String, String, bool)> {
        let mut resumes = Vec::new();
        while let Some(command) = self.agents.get_mut(name).unwrap().inbox.pop_front() {
            if let SessionCommand::Resume(rows) = command {
                let rows = rows.into_iter();
                resumes.extend(rows.map(|row| (row.gk.to_string(), row.checkpoint.to_string(), row.rewound)));
            }
        }
        resumes
    }

    /// What the agent counts in the namespace `shop`; answers whether the hub asked to compare.
    pub(super) fn census(&mut self, name: &'static str, census: &lockstep_engine::census::Census) -> bool {
        self.received(name);
        let digest = census.digest().to_vec().into();
        let census = v1::Census { namespace: "shop".into(), count: census.count(), digest };
        self.tell(name, Vec::new(), None, vec![census]);
        self.asks_to_compare(name)
    }

    /// Did the hub ask the agent to compare since the last look?
    pub(super) fn asks_to_compare(&mut self, name: &'static str) -> bool {
        let compare = |command: &SessionCommand| matches!(command, SessionCommand::Compare { .. });
        let inbox = &mut self.agents.get_mut(name).unwrap().inbox;
        std::iter::from_fn(|| inbox.pop_front()).any(|command| compare(&command))
    }

    fn tell(
        &mut self,
        name: &'static str,
        items: Vec<v1::Item>,
        status: Option<v1::WatchStatus>,
        census: Vec<v1::Census>,
    ) {
        let agent = self.agents.get_mut(name).unwrap();
        let watch = agent.watches["ConfigMap"].0;
        agent.sequence += 1;
        let sequence = agent.sequence;
        let section = v1::Section { watch, epoch: 2, items, checkpoint: String::new(), status, census };
        self.message(name, agent_message::Body::Batch(v1::Batch { sequence, sections: vec![section] }));
    }

    /// A body with the marks that the hub holds of a copy, for [`copy`].
    pub(super) fn copy_of(&mut self, name: &str, object: &str) -> Vec<u8> {
        let id = self.core.names[&ClusterName::new(name).unwrap()];
        let row = self.core.store.object(id, &key(object)).unwrap().unwrap();
        let marks = row.managed.unwrap().marks;
        let metadata = serde_json::json!({ "name": object, "namespace": "shop", "annotations": marks });
        serde_json::to_vec(
            &serde_json::json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata }),
        )
        .unwrap()
    }

    pub(super) fn cluster(&mut self, name: &str) -> crate::store::ClusterRow {
        let rows = self.core.store.clusters().unwrap();
        rows.into_iter().find(|row| row.name.as_str() == name).unwrap()
    }

    pub(super) fn section_of(
        &mut self,
        kind: &str,
        name: &'static str,
        items: Vec<v1::Item>,
        phase: Option<v1::WatchPhase>,
    ) {
        let batch = self.batch_of(kind, name, items, phase);
        self.message(name, agent_message::Body::Batch(batch));
    }

    fn batch_of(
        &mut self,
        kind: &str,
        name: &'static str,
        items: Vec<v1::Item>,
        phase: Option<v1::WatchPhase>,
    ) -> v1::Batch {
        self.received(name);
        let agent = self.agents.get_mut(name).unwrap();
        let (watch, interest) = agent.watches[kind].clone();
        agent.sequence += 1;
        let sequence = agent.sequence;
        let status = phase.map(|phase| v1::WatchStatus {
            phase: phase.into(),
            api_version: "v1".into(),
            interest: interest.digest().to_vec().into(),
            ..v1::WatchStatus::default()
        });
        let versions = items.iter().filter_map(|item| item.resource_version.parse().ok());
        let reached = self.reached.entry(name).or_insert(1);
        *reached = versions.fold(*reached, u64::max);
        let checkpoint = reached.to_string();
        let section = v1::Section { watch, epoch: 1, items, checkpoint, status, census: Vec::new() };
        v1::Batch { sequence, sections: vec![section] }
    }

    /// A message with objects, as an input.
    pub(super) fn batch(&mut self, name: &'static str, items: Vec<v1::Item>) -> Input {
        let batch = self.batch_of("ConfigMap", name, items, None);
        let message = Box::new(v1::AgentMessage { body: Some(agent_message::Body::Batch(batch)) });
        Input::Message { cluster: self.agents[name].id, session: self.agents[name].session, message }
    }

    /// An object that needs room on the hub's disk, as an input.
    pub(super) fn large_batch(&mut self, name: &'static str) -> Input {
        let large: String = (0..20_000_u32).map(|n| blake3::hash(&n.to_le_bytes()).to_string()).collect();
        self.batch(name, vec![source("large", "large", 11, &large)])
    }

    /// The hub takes these in, and cannot commit: its disk has no room.
    pub(super) fn refused(&mut self, inputs: Vec<Input>) {
        let size = std::fs::metadata(self.dir.path().join("state.db")).unwrap().len();
        let pages = self.core.store.page_limit();
        pages.store(u32::try_from(size / 4096).unwrap(), Ordering::Release);
        assert!(self.core.handle(inputs, self.now).is_err(), "there was room");
        pages.store(0, Ordering::Release);
        for agent in self.agents.values_mut() {
            while let Ok(command) = agent.commands.try_recv() {
                agent.inbox.push_back(command);
            }
        }
    }

    /// The watch is listed and live, with these objects.
    pub(super) fn live(&mut self, name: &'static str, items: Vec<v1::Item>) {
        self.section(name, items, Some(v1::WatchPhase::Live));
    }

    pub(super) fn outcome(&mut self, name: &'static str, step: u64, result: v1::outcome::Result) {
        let outcome = v1::Outcome { step, result: Some(result), took_us: 1 };
        self.message(name, agent_message::Body::Outcome(outcome));
    }

    /// Carries an apply out as an API server would, echo first when `echo`.
    pub(super) fn perform(&mut self, name: &'static str, step: &v1::Step, uid: &str, rv: u64, echo: bool) {
        let Some(Action::Apply(apply)) = &step.action else { panic!("not an apply: {step:?}") };
        let digest = [u8::try_from(rv % 250).unwrap(); 16];
        if echo {
            let item = copy(&step.name, uid, rv, &apply.body, digest);
            self.section(name, vec![item], None);
        }
        let applied = v1::Applied {
            uid: uid.into(),
            resource_version: rv.to_string(),
            owned_digest: digest.to_vec().into(),
            field_set: b"{}".to_vec().into(),
            created: true,
            api_version: "v1".into(),
            ..v1::Applied::default()
        };
        self.outcome(name, step.step, v1::outcome::Result::Applied(applied));
    }

    pub(super) fn placement(&mut self, name: &'static str, object: &str) -> Option<PlacementRow> {
        let id = self.core.names[&ClusterName::new(name).unwrap()];
        self.core.store.placement(id, &key(object)).unwrap()
    }

    /// `State/Reason` of an object at a target; `-` when there is no placement.
    pub(super) fn status(&mut self, name: &'static str, object: &str) -> String {
        self.placement(name, object)
            .map_or("-".to_owned(), |row| format!("{}/{}", row.status.state, row.status.reason))
    }

    pub(super) fn tombstones(&mut self) -> Vec<TombstoneRow> {
        let filter = TombstoneFilter { undeleted: true, ..TombstoneFilter::default() };
        self.core.store.tombstones(&filter, 1000).unwrap()
    }

    /// The archive takes everything in the outbox.
    pub(super) fn archive(&mut self) {
        self.filed().into_iter().for_each(|input| self.input(input));
    }

    /// The archive took all that it was to be given, as inputs.
    pub(super) fn filed(&mut self) -> Vec<Input> {
        let outbox = self.core.store.outbox(0, 1000).unwrap().into_iter();
        let file = |id: i64| Filed { path: format!("path/{id}"), size: 7, key: None };
        outbox.map(|row| Input::Archived { id: row.id, file: file(row.id) }).collect()
    }

    /// a and b connected and live and empty.
    pub(super) fn up(policies: &[(&str, &str)]) -> Self {
        let mut fleet = Self::new(policies);
        fleet.connect("a");
        fleet.connect("b");
        fleet.namespaces("a", vec![namespace("shop", 1, false)]);
        fleet.live("a", Vec::new());
        fleet.live("b", Vec::new());
        fleet
    }

    /// Brings `count` objects in step: cm-0, cm-1, ...
    pub(super) fn in_step(&mut self, count: usize) {
        for n in 0..count {
            let name = format!("cm-{n}");
            self.section("a", vec![source(&name, &format!("s{n}"), 10, "1")], None);
            let step = self.one_step("b");
            self.perform("b", &step, &format!("t{n}"), 50 + n as u64, true);
            assert_eq!(self.status("b", &name), "InStep/InStep");
        }
    }
}

/// The step, if it asks whether a namespace is there.
fn probe(command: &SessionCommand) -> Option<v1::Step> {
    let SessionCommand::Message(message) = command else { return None };
    let Some(hub_message::Body::Step(step)) = &message.body else { return None };
    matches!(step.action, Some(Action::Probe(_))).then(|| step.clone())
}

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey::new(GroupKind::new("", "ConfigMap"), "shop", name)
}

fn item(name: &str, uid: &str, rv: u64, change: v1::item::Change) -> v1::Item {
    v1::Item {
        namespace: "shop".into(),
        name: name.into(),
        uid: uid.into(),
        resource_version: rv.to_string(),
        observed_ms: 0,
        change: Some(change),
        ..v1::Item::default()
    }
}

/// A selected source object.
pub(super) fn source(name: &str, uid: &str, rv: u64, value: &str) -> v1::Item {
    let body = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"shop","uid":"{uid}","resourceVersion":"{rv}","labels":{{"sync":"yes"}}}},"data":{{"k":"{value}"}}}}"#
    );
    item(name, uid, rv, v1::item::Change::Upsert(v1::Upsert { body: body.into(), ..v1::Upsert::default() }))
}

/// A namespace, as a key.
pub(super) fn namespace(name: &str, rv: u64, deleting: bool) -> v1::Item {
    let upsert = v1::Upsert { deleting, ..v1::Upsert::default() };
    v1::Item { namespace: String::new(), ..item(name, "n", rv, v1::item::Change::Upsert(upsert)) }
}

/// An object that is a key only.
pub(super) fn foreign(name: &str, uid: &str, rv: u64) -> v1::Item {
    item(name, uid, rv, v1::item::Change::Upsert(v1::Upsert::default()))
}

pub(super) fn left(name: &str, uid: &str, rv: u64) -> v1::Item {
    item(name, uid, rv, v1::item::Change::Upsert(v1::Upsert { left: true, ..v1::Upsert::default() }))
}

pub(super) fn deleted(name: &str, uid: &str, rv: u64) -> v1::Item {
    item(name, uid, rv, v1::item::Change::Delete(v1::Delete::default()))
}

/// Known from before a rewind, and not in the list since.
pub(super) fn unseen(name: &str, uid: &str) -> v1::Item {
    item(name, uid, 0, v1::item::Change::Unseen(v1::Unseen {}))
}

/// The same in a list, which tells which fields are ours: all of that body, which has `data.k`.
pub(super) fn listed(mut item: v1::Item, body: &[u8]) -> v1::Item {
    let mut value: serde_json::Value = serde_json::from_slice(body).unwrap();
    value["data"] = serde_json::json!({ "k": "1" });
    value["metadata"]["labels"]["sync"] = "yes".into();
    if let Some(v1::item::Change::Upsert(v1::Upsert { managed: Some(managed), .. })) = &mut item.change {
        managed.field_set = lockstep_engine::ownership::FieldSet::of_value(&value).canonical().into();
    }
    item
}

/// What a target's agent tells of a copy.
pub(super) fn copy(name: &str, uid: &str, rv: u64, body: &[u8], digest: [u8; 16]) -> v1::Item {
    let object = lockstep_engine::object::RawObject::parse(body).unwrap();
    let marks = object.metadata.annotations.iter().filter(|(k, _)| marks::is_mark(k));
    let managed = v1::Managed {
        owned_digest: digest.to_vec().into(),
        owned: v1::OwnedState::Digest.into(),
        marks: marks.map(|(k, v)| (k.clone(), v.clone())).collect(),
        ..v1::Managed::default()
    };
    let upsert = v1::Upsert { managed: Some(managed), ..v1::Upsert::default() };
    item(name, uid, rv, v1::item::Change::Upsert(upsert))
}
