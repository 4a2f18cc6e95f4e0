//! What each act does to a fleet.

use std::sync::atomic::Ordering;

use anyhow::Result;
use lockstep_engine::{Millis, marks};
use lockstep_hub::seal::BearerToken;
use lockstep_tests::model::{Effect, Fault, Forbid, Matcher, Restore};
use lockstep_wire::v1::{self, agent_message, hub_message};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::journal::Actor;
use crate::member::{AGENT, Ambush};
use crate::objects::{self, CLUSTERS, FileState, Key, Kind, NAMESPACES, key};
use crate::plan::Act;
use crate::world::{End, World};

/// The counter in an agent's Lease is raised at least this often, ms.
const LEASE_MS: i64 = 15_000;

/// What somebody has under the name of a copy.
fn foreign(key: &Key, slot: usize) -> Value {
    let mut object = objects::object(key, 0, false);
    object["metadata"]["labels"] = json!({ "owner": "somebody" });
    if slot % 2 == 1 {
        // Nothing of it is in the way of what is written.
        for content in ["data", "spec"] {
            if object.get(content).is_some() {
                object[content] = json!({ "mine": "bWluZQ==" });
            }
        }
    }
    object
}

impl World {
    pub(crate) async fn act(&mut self, act: &Act) -> Result<()> {
        match *act {
            Act::Write { cluster, kind, slot, selected } => self.write(cluster, kind, slot, selected),
            Act::Delete { cluster, kind, slot } => self.delete(cluster, cluster, kind, slot),
            Act::Recreate { cluster, kind, slot } => {
                self.delete(cluster, cluster, kind, slot);
                self.write(cluster, kind, slot, true);
            }
            Act::Drift { source, kind, slot, target } => self.drift(source, kind, slot, target),
            Act::Annotate { source, kind, slot, target } => {
                self.annotate(source, kind, slot, target, "mine");
            }
            Act::DeleteCopy { source, kind, slot, target } => self.delete(target, source, kind, slot),
            Act::Foreign { source, kind, slot, target } => {
                let object = foreign(&key(source, kind, slot), slot);
                self.members[target]
                    .with(Actor::User, |server, now| server.user_create(now, "somebody", &object));
            }
            Act::Ambush { source, kind, slot, target, hub, kill } => {
                self.lie_in_wait(key(source, kind, slot), slot, target, hub, kill);
            }
            Act::Forge { source, kind, slot, target } => self.forge(source, kind, slot, target),
            Act::Counterfeit { source, kind, slot, target } => {
                let name = format!("forged{slot}");
                let forged = self.taken_from(target, &key(source, kind, slot)).map(|mut object| {
                    if let Some(mark) = object["metadata"]["annotations"][marks::TARGET].as_str()
                        && let Ok(mut mark) = serde_json::from_str::<Value>(mark)
                    {
                        mark["name"] = name.as_str().into();
                        object["metadata"]["annotations"][marks::TARGET] = mark.to_string().into();
                    }
                    object["metadata"]["name"] = name.into();
                    object
                });
                self.velero(target, forged);
            }
            Act::Carry { source, kind, slot, target, to } => {
                let carried = self.taken_from(target, &key(source, kind, slot));
                self.velero(to, carried);
            }
            Act::OtherHub { source, kind, slot, target, goes } => {
                self.other_hub(&key(source, kind, slot), target, goes);
            }
            Act::StripMarks { source, kind, slot, target } => {
                self.strip(source, kind, slot, target);
            }
            Act::Approve => self.approve(false).await,
            Act::Impostor { agent, claims } => self.impostor(agent, claims),
            Act::ClockJump { who, by_ms } => {
                self.skews[who].fetch_add(by_ms, Ordering::Relaxed);
            }
            Act::Policy { policy, state, for_ms } => {
                self.files[policy] = state;
                self.released |= matches!(state, FileState::Removed | FileState::Narrowed);
                self.publish().await;
                self.later(for_ms, End::Policy(policy));
            }
            _ => {
                self.disturb_cluster(act);
                self.disturb_processes(act).await?;
            }
        }
        Ok(())
    }

    fn disturb_cluster(&mut self, act: &Act) {
        let inject = |cluster: usize, verb: &str, effect: Effect, times: u32| {
            let verbs = if verb.is_empty() { Vec::new() } else { vec![verb.to_owned()] };
            let matches = Matcher { verbs, users: vec![AGENT.to_owned()], ..Matcher::default() };
            let fault = Fault { matches, effect, until: None, times: Some(times) };
            self.members[cluster].with(Actor::User, |server, _| server.inject(fault));
        };
        match *act {
            Act::DeleteNamespace { cluster, for_ms } => {
                let path = format!("/api/v1/namespaces/{}", NAMESPACES[1]);
                self.members[cluster].with(Actor::User, |server, now| server.user_delete(now, &path));
                self.later(for_ms, End::Namespace(cluster));
            }
            Act::DeleteDefinition { cluster, for_ms } => {
                let path = format!(
                    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}",
                    objects::DEFINITION
                );
                self.members[cluster].with(Actor::User, |server, now| server.user_delete(now, &path));
                self.later(for_ms, End::Definition(cluster));
            }
            Act::Compact { cluster } => self.members[cluster].compact(),
            Act::RestartApi { cluster } => {
                self.members[cluster].with(Actor::User, |server, _| server.restart())
            }
            Act::Save { cluster } => {
                self.members[cluster].save();
                self.saved[cluster] = (self.log.elapsed(), self.members[cluster].lease_counter());
            }
            // A restore to a moment ago cannot be noticed where it is bumped, or where the watch that would notice
            // is not allowed to look (docs/decisions/0008-rewinds.md).
            Act::Restore { cluster, bumped }
                if (bumped || self.forbids(cluster))
                    && self.log.elapsed() < self.saved[cluster].0 + LEASE_MS => {}
            // Nor one by which the counter goes back to what the hub has last heard: it is raised while sessions run.
            Act::Restore { cluster, .. }
                if self.noticed_only && self.members[cluster].lease_counter() < self.saved[cluster].1 + 2 => {
            }
            // Nor one to just before the backup that the hub came back from: that counter is all that it knows.
            Act::Restore { cluster, .. }
                if self.hub_restored
                    && self.saved[cluster].0 < self.backed_up
                    && self.backed_up < self.saved[cluster].0 + 2 * LEASE_MS => {}
            Act::Restore { cluster, bumped } => {
                self.rewound_since |= self.saved[cluster].0 < self.backed_up;
                let form = if bumped { Restore::Bumped } else { Restore::Plain };
                if self.members[cluster].restore(form) {
                    self.oracle.met_with("a cluster that was restored");
                }
                self.agents[cluster].to_api.reset();
            }
            Act::Refuse { cluster, verb, code, times } => {
                let retry_after_s = (code == 429).then_some(1);
                inject(cluster, verb, Effect::Answer { code, retry_after_s }, times);
            }
            Act::LoseReplies { cluster, verb, times } => inject(cluster, verb, Effect::DropAfter, times),
            Act::LoseRequests { cluster, times } => inject(cluster, "", Effect::DropBefore, times),
            Act::Silence { cluster, for_ms } => {
                let fault = Fault {
                    matches: Matcher::default(),
                    effect: Effect::Silence,
                    until: Some(self.clock.now() + Millis::from(for_ms)),
                    times: None,
                };
                self.members[cluster].with(Actor::User, |server, _| server.inject(fault));
            }
            Act::Forbid { cluster, verb, kind, for_ms } => {
                let plural = format!("{}s", kind.name().to_lowercase());
                let rule = Forbid {
                    user: AGENT.to_owned(),
                    verbs: vec![verb.to_owned()],
                    resources: vec![plural],
                    ..Forbid::default()
                };
                let id = self.members[cluster].with(Actor::User, |server, _| server.forbid(rule));
                self.later(for_ms, End::Allow(cluster, id));
            }
            _ => {}
        }
    }

    async fn disturb_processes(&mut self, act: &Act) -> Result<()> {
        match *act {
            Act::Network { agent, to_hub, mode, for_ms } => {
                self.forgot[agent] |= to_hub;
                self.link(agent, to_hub).set(mode);
                self.later(for_ms, End::Open(agent, to_hub));
            }
            Act::Slow { agent, to_hub, for_ms } => {
                self.link(agent, to_hub).slow(true);
                self.later(for_ms, End::Fast(agent, to_hub));
            }
            Act::Reset { agent, to_hub } => {
                self.forgot[agent] |= to_hub;
                self.link(agent, to_hub).reset();
            }
            Act::KillAgent { agent, for_ms } => {
                self.agents[agent].kill();
                self.later(for_ms, End::Agent(agent));
            }
            Act::KillAgentAtWrite { agent, for_ms } if self.agents[agent].runs() => {
                // Nobody hears of that write before its fields may be another's.
                self.forgot[agent] = true;
                let trap = CancellationToken::new();
                self.members[agent].set_trap(Some(trap.clone()));
                self.traps[agent] = Some((trap, for_ms));
            }
            Act::KillHub { for_ms } => {
                self.forgot.fill(true);
                self.hub.kill().await;
                self.later(for_ms, End::Hub);
            }
            Act::KillHubAtCommit { after_ms, for_ms } if self.hub.runs() => {
                self.forgot.fill(true);
                self.hub.set_full(true);
                self.later(after_ms, End::KillHub(for_ms));
            }
            Act::FillDisk { for_ms } => {
                self.forgot.fill(true);
                self.hub.set_full(true);
                self.later(for_ms, End::Disk);
            }
            Act::LoseHubData { for_ms } => {
                self.hub.kill().await;
                self.forgot.fill(true);
                self.hub.lose_data(self.clock.now())?;
                self.later(for_ms, End::Hub);
            }
            Act::BackUpHub => {
                self.hub.back_up(self.clock.now())?;
                self.backed_up = self.log.elapsed();
                self.rewound_since = false;
            }
            // What of a lost history is in the backup nobody could tell from what is there.
            Act::RestoreHub { .. } if self.rewound_since => {}
            Act::RestoreHub { for_ms } => {
                self.hub.kill().await;
                self.forgot.fill(true);
                if self.hub.restore(self.clock.now())? {
                    self.hub_restored = true;
                    self.oracle.met_with("a hub that was restored");
                }
                self.later(for_ms, End::Hub);
            }
            Act::ArchiveAway { for_ms } => {
                self.archive.set_away(true);
                self.later(for_ms, End::Archive);
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, cluster: usize, kind: Kind, slot: usize, selected: bool) {
        self.serial += 1;
        let object = objects::object(&key(cluster, kind, slot), self.serial, selected);
        self.members[cluster].with(Actor::User, |server, now| server.user_apply(now, "user", &object, true));
    }

    /// Deletes, in a cluster, what has the name of a source's object.
    pub(crate) fn delete(&self, cluster: usize, source: usize, kind: Kind, slot: usize) {
        let key = key(source, kind, slot);
        self.members[cluster].with(Actor::User, |server, now| {
            let path = server.path(kind.api_version(), kind.name(), &key.namespace, &key.name)?;
            Some(server.user_delete(now, &path))
        });
    }

    fn drift(&self, source: usize, kind: Kind, slot: usize, target: usize) {
        let patch = match kind {
            Kind::ConfigMap => json!({ "data": { "k": "drift" } }),
            Kind::Secret => json!({ "data": { "k": "ZHJpZnRlZA==" } }),
            Kind::Widget => json!({ "spec": { "k": "drift" } }),
        };
        self.patch_copy(source, kind, slot, target, &patch);
    }

    /// Something of a copy changes that is not ours.
    pub(crate) fn annotate(&self, source: usize, kind: Kind, slot: usize, target: usize, note: &str) {
        let patch = json!({ "metadata": { "annotations": { "example.com/note": note } } });
        self.patch_copy(source, kind, slot, target, &patch);
    }

    fn patch_copy(&self, source: usize, kind: Kind, slot: usize, target: usize, patch: &Value) {
        let key = key(source, kind, slot);
        let copy =
            self.members[target].with_journal(|journal| journal.live(&key).map(|(uid, _)| uid.clone()));
        if !copy.is_some_and(|uid| self.oracle.is_copy(&uid)) {
            return;
        }
        self.members[target].with(Actor::User, |server, now| {
            let path = server.path(kind.api_version(), kind.name(), &key.namespace, &key.name)?;
            Some(server.user_patch(now, "kubectl-edit", &path, patch))
        });
    }

    fn forge(&self, source: usize, kind: Kind, slot: usize, target: usize) {
        let forged = self.taken_from(target, &key(source, kind, slot)).map(|mut object| {
            object["metadata"]["name"] = format!("forged{slot}").into();
            object
        });
        self.velero(target, forged);
    }

    /// An object as a tool for backups keeps it.
    fn taken_from(&self, cluster: usize, key: &Key) -> Option<Value> {
        self.members[cluster].with(Actor::User, |server, _| {
            let kind = key.kind;
            let mut object = server.find(kind.api_version(), kind.name(), &key.namespace, &key.name)?;
            let metadata = object["metadata"].as_object_mut()?;
            for server_side in ["uid", "resourceVersion", "managedFields", "creationTimestamp", "generation"]
            {
                metadata.remove(server_side);
            }
            Some(object)
        })
    }

    /// And puts it back, where nothing has that name.
    fn velero(&self, cluster: usize, object: Option<Value>) {
        if let Some(object) = object {
            self.members[cluster].with(Actor::User, |server, now| server.user_create(now, "velero", &object));
        }
    }

    /// What a second hub does: where nothing has that name it makes a copy of its own, as we do and under the same field
    /// manager, and changes and deletes only that.
    fn other_hub(&mut self, key: &Key, target: usize, goes: bool) {
        let kind = key.kind;
        let there =
            self.members[target].with_journal(|journal| journal.live(key).map(|(uid, _)| uid.clone()));
        if there.as_ref().is_some_and(|uid| !self.others.contains_key(&(target, uid.clone()))) {
            return;
        }
        if goes {
            self.members[target].with(Actor::User, |server, now| {
                let path = server.path(kind.api_version(), kind.name(), &key.namespace, &key.name)?;
                there.is_some().then(|| server.user_delete(now, &path))
            });
            return;
        }
        self.serial += 1;
        let object = objects::of_other_hub(key, CLUSTERS[target], self.serial);
        self.members[target]
            .with(Actor::User, |server, now| server.user_apply(now, "lockstep", &object, false));
        let written = self.members[target].with_journal(|journal| {
            let (uid, life) = journal.live(key)?;
            Some((uid.clone(), life.latest()?.content.clone()))
        });
        if let Some((uid, content)) = written {
            self.oracle.met_with("a write of another hub");
            self.others.entry((target, uid)).or_default().insert(content);
        }
    }

    /// Where our next create under this name arrives, somebody was faster.
    fn lie_in_wait(&mut self, key: Key, slot: usize, target: usize, hub: bool, kill: Option<u32>) {
        let object = if hub {
            self.serial += 1;
            objects::of_other_hub(&key, CLUSTERS[target], self.serial)
        } else {
            foreign(&key, slot)
        };
        let free = self.traps[target].is_none() && self.agents[target].runs();
        let trap = kill.filter(|_| free).map(|for_ms| {
            let trap = CancellationToken::new();
            self.forgot[target] = true;
            self.traps[target] = Some((trap.clone(), for_ms));
            trap
        });
        self.members[target].set_ambush(Some(Ambush { key, object, hub, trap }));
    }

    fn strip(&self, source: usize, kind: Kind, slot: usize, target: usize) {
        let names = ["policy", "source", "target", "hub", "rendered", "mac", "intent"];
        let annotations: serde_json::Map<String, Value> =
            names.iter().map(|mark| (format!("lockstep.dev/{mark}"), Value::Null)).collect();
        let patch = json!({ "metadata": {
            "labels": { "lockstep.dev/managed": null }, "annotations": annotations,
        } });
        self.patch_copy(source, kind, slot, target, &patch);
    }

    /// Somebody with the token of one cluster says to be another (I15).
    fn impostor(&self, agent: usize, claims: usize) {
        let Some((service, _)) = self.hub.service() else { return };
        let (token, oracle) = (BearerToken::new(&self.tokens[agent]), self.oracle.clone());
        let hello = v1::Hello {
            protocol: lockstep_wire::PROTOCOL,
            agent_version: "impostor".into(),
            cluster_name: CLUSTERS[claims].into(),
            cluster_uid: "somebody".into(),
            server_version: "v1.20.2".into(),
            instance: "impostor".into(),
            clock_ms: self.clock.now(),
            ..v1::Hello::default()
        };
        tokio::spawn(async move {
            let (say, said) = mpsc::channel(1);
            let message = v1::AgentMessage { body: Some(agent_message::Body::Hello(hello)) };
            // The receiver is right here.
            let _ = say.send(Ok(message)).await;
            let Ok(mut answers) = service.serve(token, None, ReceiverStream::new(said)) else { return };
            if let Some(Ok(answer)) = answers.next().await
                && matches!(answer.body, Some(hub_message::Body::Welcome(_)))
            {
                oracle.fail("I15", format_args!("the token of {agent} was good for {claims}"));
            }
        });
    }
}
