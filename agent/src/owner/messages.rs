//! The messages that an owner makes out of its state.

use super::{AgentMessage, Owner, Stage, Watch, agent_message, v1};
use lockstep_cluster::{ServedKind, ServedVersion};
use lockstep_engine::Millis;

impl Owner {
    pub(super) fn hello(&mut self, now: Millis) -> AgentMessage {
        // Watches past their Resume need no other: their state is here.
        let live = self.watches.values().filter(|watch| watch.stage != Stage::AwaitingResume);
        let live = live.map(|watch| v1::LiveWatch { watch: watch.id, epoch: watch.epoch }).collect();
        let facts = v1::Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_name: self.facts.cluster_name.clone(),
            cluster_uid: self.facts.cluster_uid.clone(),
            server_version: self.facts.server_version.clone(),
            live,
            accepts: self.facts.accepts.clone(),
            // Texts and sets always serialise.
            reading: serde_json::to_vec(&self.facts.reading).unwrap_or_default().into(),
            clock_ms: now,
            lease_counter: self.guard.counter(),
            ..v1::Hello::default()
        };
        self.session.connected(facts)
    }

    pub(super) fn heartbeat(&self, now: Millis) -> AgentMessage {
        let (items, bytes) = self.queued();
        let age = |watch: &Watch| v1::WatchAge { watch: watch.id, last_event_ms: watch.last_event };
        message(agent_message::Body::Heartbeat(v1::Heartbeat {
            clock_ms: now,
            queued_items: items as u64,
            queued_bytes: bytes as u64 + self.session.unacked_bytes(),
            ages: self.watches.values().map(age).collect(),
            lease_counter: self.guard.counter(),
        }))
    }

    pub(super) fn served_message(&self) -> Option<AgentMessage> {
        let served = self.served.as_ref()?;
        let unknown = served.partial.iter().map(|failed| match (&*failed.group, &*failed.version) {
            (group, "") => group.to_owned(),
            ("", version) => version.to_owned(),
            (group, version) => format!("{group}/{version}"),
        });
        Some(message(agent_message::Body::Served(v1::Served {
            kinds: served.kinds.values().map(kind).collect(),
            unknown_groups: unknown.collect(),
        })))
    }
}

fn kind(kind: &ServedKind) -> v1::ServedKind {
    let api_version = |served: &ServedVersion| match &*served.group {
        "" => served.version.to_string(),
        group => format!("{group}/{}", served.version),
    };
    v1::ServedKind {
        group: kind.gk.group.to_string(),
        kind: kind.gk.kind.to_string(),
        versions: kind.versions.iter().map(api_version).collect(),
        plural: kind.plural.to_string(),
        singular: kind.singular.to_string(),
        short_names: kind.short_names.iter().map(ToString::to_string).collect(),
        namespaced: kind.namespaced,
        verbs: kind.verbs.iter().map(ToString::to_string).collect(),
    }
}

fn message(body: agent_message::Body) -> AgentMessage {
    AgentMessage { body: Some(body) }
}
