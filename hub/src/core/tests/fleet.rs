//! A core on a real store with agents played by the test: synchronous, and without a clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lockstep_engine::reading::Reading;
use lockstep_engine::{ClusterId, ClusterName, GroupKind, Millis, ObjectKey};
use lockstep_wire::v1::{self, outcome::Result as Answer};
use tokio::sync::{Notify, mpsc, oneshot};

use super::told::*;
use crate::core::command::{Approval, Approved, Command};
use crate::core::state::SessionCommand;
use crate::core::{Core, Input, Keys, Parts};
use crate::seal::HubKey;
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
    /// What agents let the hub read, told with every Hello.
    pub readings: BTreeMap<&'static str, Reading>,
    /// What agents answer when the hub asks whether a namespace is there; else what they told of it.
    pub namespaces: BTreeMap<(&'static str, &'static str), Answer>,
    /// What agents say that they accept, told with every new session.
    pub accepts: Vec<String>,
    /// The highest resourceVersion that the watches of a cluster told.
    pub reached: BTreeMap<&'static str, u64>,
    dir: tempfile::TempDir,
    pub now: Millis,
}

fn open(dir: &tempfile::TempDir) -> Core<SqliteStore> {
    let key = HubKey::from_bytes([7; 32]);
    let store = SqliteStore::open(&dir.path().join("state.db"), key.sealer()).unwrap();
    let parts = Parts {
        store,
        keys: Keys::of(&key),
        archive: Arc::new(Notify::new()),
        findings: Arc::default(),
        sessions: Arc::default(),
        hub_id: "hub-1".to_owned(),
        protocols: lockstep_wire::Protocols::BUILT_IN,
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
            readings: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            accepts: Vec::new(),
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
                let (uid, deleting) = (row.uid.to_string(), row.deleting);
                Answer::Probed(v1::Probed { uid, deleting, ..v1::Probed::default() })
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

    /// Everything that is held.
    pub(super) fn approve(&mut self) -> Vec<Approved> {
        let (reply, mut answer) = oneshot::channel();
        self.input(Input::Command(Command::Approve {
            policy: "maps".into(),
            target: None,
            how: Approval::Whatever,
            reply,
        }));
        answer.try_recv().unwrap().unwrap()
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
