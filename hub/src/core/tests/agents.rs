//! What agents do in the fleet: they come and go, tell, and carry steps out.

use std::collections::{BTreeMap, VecDeque};

use lockstep_wire::v1::{self, agent_message, hub_message, step::Action};
use tokio::sync::{mpsc, oneshot};

use super::fleet::{Agent, Fleet};
use super::told::*;
use crate::core::state::SessionCommand;
use crate::core::{Connect, Input};
use crate::seal::BearerToken;
use crate::store::Reader as _;

impl Fleet {
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
            reading: self
                .readings
                .get(name)
                .map(|r| serde_json::to_vec(r).unwrap())
                .unwrap_or_default()
                .into(),
            clock_ms: self.now,
            accepts: self.accepts.clone(),
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
            reading: self
                .readings
                .get(name)
                .map(|r| serde_json::to_vec(r).unwrap())
                .unwrap_or_default()
                .into(),
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
        self.stands(name, items, v1::WatchPhase::Failing, "RewindSuspected");
    }

    /// The kind is not served there any more, and the watch says so.
    pub(super) fn unserved(&mut self, name: &'static str) {
        self.served(name, &[("", "Secret", "v1")]);
        self.stands(name, Vec::new(), v1::WatchPhase::Failing, "NotServed");
    }

    /// The watch is live, and no further than before.
    pub(super) fn lives(&mut self, name: &'static str) {
        self.stands(name, Vec::new(), v1::WatchPhase::Live, "");
    }

    /// How the watch is, without a checkpoint.
    fn stands(&mut self, name: &'static str, items: Vec<v1::Item>, phase: v1::WatchPhase, reason: &str) {
        self.received(name);
        let status = v1::WatchStatus {
            phase: phase.into(),
            reason: reason.into(),
            api_version: "v1".into(),
            interest: self.agents[name].watches["ConfigMap"].1.digest().to_vec().into(),
            ..v1::WatchStatus::default()
        };
        self.tell(name, items, Some(status), Vec::new());
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
            compared: Some(v1::Compared::default()),
            ..v1::Applied::default()
        };
        self.outcome(name, step.step, v1::outcome::Result::Applied(applied));
    }
}
