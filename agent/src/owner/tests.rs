//! The owner, driven synchronously: no runtime, no sockets, no clock.

mod census;
mod interests;
mod lease;
mod lists;
mod reading;
mod rewinds;
mod spill;

use std::collections::{BTreeMap, BTreeSet};

use lockstep_cluster::{LeaseState, ServedKind, ServedVersion};
use lockstep_engine::catalogue::system_namespaces;
use lockstep_engine::interest::{Condition, Interest};
use lockstep_engine::listwatch::{Absence, Health, Start};
use lockstep_engine::reading::{KindRule, NamespaceRule, ReadRule};
use lockstep_engine::selector::LabelSelector;
use lockstep_engine::{ResourceVersion, Uid};
use lockstep_wire::Protocols;
use lockstep_wire::v1::{WatchPhase, hub_message::Body, item::Change};

use super::*;

const WINDOW: u64 = 1 << 20;

pub(super) struct Rig {
    pub(super) owner: Owner,
    pub(super) effects: Vec<Effect>,
    committed: u64,
    generation: u64,
    pub(super) now: Millis,
    /// The Lease in the cluster. Reads and writes are answered at once, unless a test does it.
    pub(super) lease: Option<u64>,
    pub(super) by_hand: bool,
    /// The counters that heartbeats told.
    pub(super) beats: Vec<u64>,
}

pub(super) fn bounds() -> Bounds {
    Bounds { queue: Limits { bytes: 1 << 20, count: 1_000 }, lists_at_once: 2, census_interval_ms: 0 }
}

pub(super) fn served(kinds: &[(&str, &str)]) -> Arc<Served> {
    let kinds = kinds.iter().map(|(group, kind)| {
        let plural: Arc<str> = format!("{}s", kind.to_lowercase()).into();
        let version = ServedVersion {
            group: (*group).into(),
            version: "v1".into(),
            plural: plural.clone(),
            verbs: vec![],
        };
        let gk = GroupKind::new(group, kind);
        let served = ServedKind {
            gk: gk.clone(),
            versions: vec![version],
            singular: plural.clone(),
            plural,
            short_names: vec![],
            namespaced: true,
            verbs: vec![],
            categories: vec![],
        };
        (gk, served)
    });
    Arc::new(Served { kinds: kinds.collect(), partial: vec![] })
}

pub(super) fn interest(kind: &str, env: &str) -> Interest {
    let match_labels = BTreeMap::from([("env".to_owned(), env.to_owned())]);
    let selector = LabelSelector { match_labels, ..LabelSelector::default() };
    Interest {
        gk: GroupKind::new("", kind),
        scope: String::new(),
        conditions: BTreeSet::from([Condition { selector, ..Condition::default() }]),
        managed: false,
        archive: BTreeSet::new(),
        revisions: false,
    }
}

pub(super) fn rv(n: u64) -> ResourceVersion {
    ResourceVersion::new(&n.to_string())
}

pub(super) fn lease(counter: u64) -> LeaseState {
    LeaseState { counter, uid: Uid::new("l"), resource_version: rv(1_000 + counter) }
}

pub(super) fn held(counter: u64) -> LeaseRead {
    LeaseRead::Held(lease(counter))
}

pub(super) fn body(name: &str, version: u64, env: &str) -> Bytes {
    object(name, version, &format!(r#""labels":{{"env":"{env}"}}"#))
}

pub(super) fn object(name: &str, version: u64, metadata: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"shop","uid":"u-{name}","resourceVersion":"{version}",{metadata}}},"data":{{"k":"v"}}}}"#
    ))
}

pub(super) fn listed(name: &str, version: u64, env: &str) -> Observation<Bytes> {
    Observation::Applied { body: body(name, version, env), resource_version: rv(version), listed: true }
}

pub(super) fn event(name: &str, version: u64, env: &str) -> Observation<Bytes> {
    Observation::Applied { body: body(name, version, env), resource_version: rv(version), listed: false }
}

pub(super) fn completed(epoch: u64, version: u64) -> Observation<Bytes> {
    Observation::ListCompleted { epoch, resource_version: rv(version), absence: Absence::Conclusive }
}

/// Whatever is asked for may be read.
pub(super) fn everything() -> Reading {
    let named = |namespace: &str| NamespaceRule::Named(namespace.to_owned());
    let secrets = KindRule::Named { name: "Secret".to_owned(), group: String::new() };
    let rule = ReadRule {
        kinds: [KindRule::All, secrets].into(),
        namespaces: system_namespaces().map(named).chain([NamespaceRule::All]).collect(),
    };
    Reading { rules: vec![rule], protected: BTreeSet::new() }
}

impl Rig {
    /// A welcomed agent in a cluster that serves ConfigMaps and Secrets.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self::reading(bounds, everything())
    }

    /// The same, of which a hub may read no more than this.
    pub(super) fn reading(bounds: Bounds, reading: Reading) -> Self {
        let facts = Facts {
            cluster_name: "a".into(),
            cluster_uid: "u".into(),
            server_version: "v1.20.2".into(),
            accepts: vec![],
            reading,
            protocols: Protocols::BUILT_IN,
        };
        let owner = Owner::new(facts, bounds, "i".into());
        let mut rig = Self {
            owner,
            effects: vec![],
            committed: 0,
            generation: 0,
            now: 1_000,
            lease: None,
            by_hand: false,
            beats: vec![],
        };
        rig.discovered(served(&[("", "ConfigMap"), ("", "Secret")]));
        rig.welcome(false);
        rig
    }

    pub(super) fn apply(&mut self, action: Action) -> &mut Self {
        let effects = self.owner.apply(action, self.now);
        for effect in effects {
            match effect {
                Effect::ReadLease { read } if !self.by_hand => {
                    self.read(read, self.lease.map_or(LeaseRead::Absent, held));
                }
                Effect::RaiseLease(raise) if !self.by_hand => {
                    self.lease = Some(raise.counter);
                    self.apply(Action::LeaseWritten(LeaseWritten::Raised(lease(raise.counter))));
                }
                Effect::Send(AgentMessage { body: Some(agent_message::Body::Heartbeat(beat)) }) => {
                    self.beats.push(beat.lease_counter);
                }
                effect => self.effects.push(effect),
            }
        }
        self
    }

    /// Discovery answers what is asked now.
    pub(super) fn discovered(&mut self, served: Arc<Served>) -> &mut Self {
        let look = self.owner.look;
        self.apply(Action::Discovered { served, look })
    }

    /// The Lease is read.
    pub(super) fn read(&mut self, read: u64, lease: LeaseRead) -> &mut Self {
        self.apply(Action::LeaseRead { read, lease })
    }

    /// So much time passes, a second at a time, with a sign of life every ten.
    pub(super) fn pass(&mut self, seconds: u32) -> &mut Self {
        for second in 1..=seconds {
            self.now += 1_000;
            self.apply(Action::Tick);
            if second % 10 == 0 {
                self.apply(Action::Heartbeat);
            }
        }
        self
    }

    pub(super) fn say(&mut self, body: Body) -> &mut Self {
        self.apply(Action::Message(Box::new(HubMessage { body: Some(body) })))
    }

    pub(super) fn welcome(&mut self, same_instance: bool) -> &mut Self {
        self.apply(Action::Connected);
        self.say(Body::Welcome(v1::Welcome {
            protocol: 1,
            same_instance,
            committed: if same_instance { self.committed } else { 0 },
            window_bytes: WINDOW,
            window_batches: 8,
            secret_key: Bytes::from_static(&[7; 32]),
            ..v1::Welcome::default()
        }))
    }

    pub(super) fn interests(&mut self, interests: &[(u32, &Interest)]) -> &mut Self {
        self.generation += 1;
        let watches = interests.iter().map(|(watch, interest)| v1::WatchInterest {
            watch: *watch,
            interest: serde_json::to_vec(interest).unwrap().into(),
        });
        let watches = watches.collect();
        self.say(Body::Interest(v1::InterestSet { generation: self.generation, watches }))
    }

    pub(super) fn resume(
        &mut self,
        watch: u32,
        checkpoint: &str,
        interest: &Interest,
        keys: &[(&str, u64, bool)],
    ) -> &mut Self {
        let entries = keys.iter().map(|(name, version, body_held)| v1::IndexEntry {
            namespace: "shop".into(),
            name: (*name).into(),
            uid: format!("u-{name}"),
            resource_version: version.to_string(),
            body_held: *body_held,
            managed: false,
        });
        self.say(Body::Resume(v1::Resume {
            watch,
            epoch: 3,
            checkpoint: checkpoint.into(),
            interest: Bytes::copy_from_slice(&interest.digest()),
            api_version: "v1".into(),
            entries: entries.collect(),
            last: true,
            rewound: false,
        }))
    }

    pub(super) fn observe(&mut self, watch: u32, observation: Observation<Bytes>) -> &mut Self {
        let run = self.owner.watches[&watch].run;
        self.apply(Action::Observed { watch, run, observation })
    }

    pub(super) fn live(&mut self, watch: u32) -> &mut Self {
        self.observe(watch, Observation::StateChanged(Health::Live))
    }

    /// A watch of ConfigMaps that listed these objects (name, version, env) and went live.
    pub(super) fn listing(&mut self, interest: &Interest, objects: &[(&str, u64, &str)]) -> &mut Self {
        self.interests(&[(1, interest)]).resume(1, "", interest, &[]);
        self.observe(1, Observation::ListStarted { epoch: 4 });
        for (name, version, env) in objects {
            self.observe(1, listed(name, *version, env));
        }
        self.observe(1, completed(4, 100)).live(1);
        self
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn starts(&mut self) -> Vec<StartWatch> {
        let start = |effect| match effect {
            Effect::Start(start) => Some(start),
            _ => None,
        };
        self.take_effects().into_iter().filter_map(start).collect()
    }

    /// All batches that may be sent now, as if the hub committed each at once.
    pub(super) fn sections(&mut self) -> Vec<v1::Section> {
        let mut sections = Vec::new();
        loop {
            let effects = self.owner.flush();
            if effects.is_empty() {
                return sections;
            }
            for effect in effects {
                let Effect::Send(AgentMessage { body: Some(agent_message::Body::Batch(batch)) }) = effect
                else {
                    panic!("{effect:?}")
                };
                self.committed = batch.sequence;
                sections.extend(batch.sections);
            }
            self.say(Body::Ack(v1::Ack { sequence: self.committed }));
        }
    }

    /// What is told, in short: `+a` with body, `a` key only, `<a` left, `-a` deleted, `~a` inferred.
    pub(super) fn told(&mut self) -> Vec<String> {
        self.sections().iter().flat_map(|section| &section.items).map(short).collect()
    }
}

pub(super) fn short(item: &v1::Item) -> String {
    let mark = match item.change.as_ref().unwrap() {
        Change::Upsert(upsert) if upsert.left => "<",
        Change::Upsert(upsert) if upsert.body.is_empty() => "",
        Change::Upsert(_) => "+",
        Change::Delete(delete) if delete.inferred => "~",
        Change::Delete(_) => "-",
        Change::Undecodable(_) => "?",
        Change::Unseen(_) => "!",
    };
    format!("{mark}{}", item.name)
}

pub(super) fn phase(section: &v1::Section) -> Option<(WatchPhase, &str)> {
    section.status.as_ref().map(|status| (status.phase(), status.reason.as_str()))
}
