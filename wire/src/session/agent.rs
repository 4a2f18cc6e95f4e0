//! The agent's side of the session.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use lockstep_engine::guard::{self, Guard};
use prost::Message as _;

use super::{ProtocolError, Window};
use crate::Protocols;
use crate::v1::{
    self, AgentMessage, Batch, Hello, HubMessage, IndexEntry, Refused, Section, Step, agent_message,
    hub_message::Body,
};

/// What the owner of the session is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentEffect {
    /// Send this to the hub.
    Send(AgentMessage),
    /// The hub welcomed us.
    Opened(Opened),
    /// Forget every watch with its index and queue: the hub goes on from what it holds, and will
    /// name interests and places to resume anew.
    Forget,
    /// A watch is wanted; it starts when its [`AgentEffect::Resume`] comes.
    Started {
        /// The hub's number for it.
        watch: u32,
        /// JSON of `engine::interest::Interest`.
        interest: Bytes,
    },
    /// A watch's interest changed; the watch goes on.
    Changed {
        /// The hub's number for it.
        watch: u32,
        /// JSON of `engine::interest::Interest`.
        interest: Bytes,
    },
    /// A watch is wanted no longer.
    Stopped {
        /// The hub's number for it.
        watch: u32,
    },
    /// Where to go on with a watch, complete.
    Resume(Resumed),
    /// What the hub holds of one namespace of a watch, where a census differed; complete.
    Compare(Compared),
    /// Everything up to here is committed.
    Acked {
        /// A batch's number.
        sequence: u64,
    },
    /// Something to be done in this cluster.
    Step(Step),
    /// A step that is wanted no longer.
    Cancel {
        /// The step's number.
        step: u64,
    },
    /// The hub does not serve us; the stream ends.
    Refused(Refused),
    /// A message of a kind that this version does not have was left out. Told once in a connection.
    Unknown,
}

/// What the hub said when it welcomed us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The version of this session.
    pub protocol: u32,
    /// Does this instance go on where it was, or start anew?
    pub resumed: bool,
    /// The hub's small number for our cluster.
    pub cluster: u32,
    /// The session's number: the newest of a cluster wins.
    pub session: u64,
    /// The hub's identity.
    pub hub_id: String,
    /// The hub's release.
    pub hub_version: String,
    /// The hub's clock in milliseconds, for the skew.
    pub clock_ms: i64,
    /// Keys the digests of Secrets (I13).
    pub secret_key: SecretKey,
}

/// Keys the digests of Secrets (I13). Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretKey(pub [u8; 32]);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

/// All chunks of a Resume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resumed {
    /// The hub's number for the watch.
    pub watch: u32,
    /// Number of the last list the hub knows of.
    pub epoch: u64,
    /// resourceVersion to go on from; empty: list.
    pub checkpoint: String,
    /// Digest of the interest that the checkpoint was made under.
    pub interest: Bytes,
    /// API version that the checkpoint belongs to.
    pub api_version: String,
    /// The keys that the hub holds.
    pub entries: Vec<IndexEntry>,
    /// The server was restored to an older state: nothing is concluded from absence.
    pub rewound: bool,
}

/// All chunks of a Compare.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compared {
    /// The hub's number for the watch.
    pub watch: u32,
    /// Empty: objects without a namespace.
    pub namespace: String,
    /// The keys that the hub holds there.
    pub entries: Vec<IndexEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Away,
    Greeting,
    Open,
}

#[derive(Clone, Debug)]
struct Unacked {
    batch: Batch,
    bytes: u64,
}

/// One instance of an agent, over any number of connections.
#[derive(Clone, Debug)]
pub struct AgentSession {
    instance: String,
    protocols: Protocols,
    phase: Phase,
    window: Window,
    /// Number of the last batch made.
    made: u64,
    /// Everything up to here is committed.
    acked: u64,
    /// Batches after `acked`, in order.
    unacked: VecDeque<Unacked>,
    /// How many of `unacked` went out on this connection.
    sent: usize,
    /// Their bytes.
    sent_bytes: u64,
    /// Bytes of all of `unacked`.
    held_bytes: u64,
    generation: u64,
    interests: BTreeMap<u32, Bytes>,
    resumes: BTreeMap<u32, Resumed>,
    compares: BTreeMap<(u32, String), Vec<IndexEntry>>,
    told_of_unknown: bool,
}

impl AgentSession {
    /// A session that was never connected. `instance` is random, one per process; `protocols` are the versions that
    /// this agent speaks.
    #[must_use]
    pub fn new(instance: String, protocols: Protocols) -> Self {
        Self {
            instance,
            protocols,
            phase: Phase::Away,
            window: Window::default(),
            made: 0,
            acked: 0,
            unacked: VecDeque::new(),
            sent: 0,
            sent_bytes: 0,
            held_bytes: 0,
            generation: 0,
            interests: BTreeMap::new(),
            resumes: BTreeMap::new(),
            compares: BTreeMap::new(),
            told_of_unknown: false,
        }
    }

    /// A stream was opened: the first message on it. `facts` gives what the shell knows (names,
    /// versions, live watches, clock); protocol, instance and numbers are filled in here.
    pub fn connected(&mut self, facts: Hello) -> AgentMessage {
        self.disconnected();
        self.phase = Phase::Greeting;
        let oldest_unacked = if self.unacked.is_empty() { 0 } else { self.acked + 1 };
        let Protocols { oldest, newest } = self.protocols;
        let hello = Hello {
            protocol: newest,
            oldest_protocol: oldest,
            instance: self.instance.clone(),
            oldest_unacked,
            ..facts
        };
        AgentMessage { body: Some(agent_message::Body::Hello(hello)) }
    }

    /// The stream is gone. Unacknowledged batches and interests stay.
    pub fn disconnected(&mut self) {
        self.phase = Phase::Away;
        self.resumes.clear();
        self.compares.clear();
        self.told_of_unknown = false;
        self.sent = 0;
        self.sent_bytes = 0;
    }

    /// Goes on as another instance, after a [`ProtocolError`]: the two sides know different pasts,
    /// so ours is dropped, and the owner does the same with its watches.
    pub fn renew(&mut self, instance: String) {
        *self = Self::new(instance, self.protocols);
    }

    /// Takes a message of the hub.
    ///
    /// # Errors
    /// When the hub does not keep to the protocol: close the stream, [`Self::renew`], connect again.
    pub fn handle(&mut self, message: HubMessage) -> Result<Vec<AgentEffect>, ProtocolError> {
        let Some(body) = message.body else {
            let first = !std::mem::replace(&mut self.told_of_unknown, true);
            return Ok(if first { vec![AgentEffect::Unknown] } else { Vec::new() });
        };
        match (self.phase, body) {
            (_, Body::Refused(refused)) => Ok(vec![AgentEffect::Refused(refused)]),
            (Phase::Greeting, Body::Welcome(welcome)) => self.welcome(welcome),
            (Phase::Open, Body::Welcome(_)) => Err(ProtocolError::SecondGreeting),
            (Phase::Away | Phase::Greeting, _) => Err(ProtocolError::BeforeGreeting),
            (Phase::Open, Body::Interest(set)) => Ok(self.interest(set)),
            (Phase::Open, Body::Resume(resume)) => Ok(self.resume(resume)),
            (Phase::Open, Body::Compare(compare)) => Ok(self.compare(compare)),
            (Phase::Open, Body::Ack(ack)) => self.ack(ack.sequence),
            (Phase::Open, Body::Step(step)) => Ok(vec![AgentEffect::Step(step)]),
            (Phase::Open, Body::Cancel(cancel)) => Ok(vec![AgentEffect::Cancel { step: cancel.step }]),
        }
    }

    /// Bytes that the next batch may have, about; none while there is no stream or no window.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        if self.phase != Phase::Open || self.sent < self.unacked.len() {
            return None;
        }
        self.window.room(self.sent_bytes, self.sent)
    }

    /// Numbers a batch, keeps it until it is acknowledged, and gives the message to send. Call it
    /// only when [`Self::room`] says so.
    pub fn batch(&mut self, sections: Vec<Section>) -> AgentMessage {
        self.made += 1;
        let batch = Batch { sequence: self.made, sections };
        let bytes = batch.encoded_len() as u64;
        // The bodies are reference-counted: this keeps no second copy of them.
        self.unacked.push_back(Unacked { batch: batch.clone(), bytes });
        self.held_bytes += bytes;
        if self.phase == Phase::Open && self.sent + 1 == self.unacked.len() {
            self.sent += 1;
            self.sent_bytes += bytes;
        }
        AgentMessage { body: Some(agent_message::Body::Batch(batch)) }
    }

    /// Is the stream open and welcomed?
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Bytes of batches that are not acknowledged.
    #[must_use]
    pub fn unacked_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Batches that are not acknowledged.
    #[must_use]
    pub fn unacked_batches(&self) -> usize {
        self.unacked.len()
    }

    /// This instance's name.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    fn welcome(&mut self, welcome: v1::Welcome) -> Result<Vec<AgentEffect>, ProtocolError> {
        if !self.protocols.contains(welcome.protocol) {
            return Err(ProtocolError::Version { chosen: welcome.protocol, ours: self.protocols });
        }
        let secret_key = <[u8; 32]>::try_from(welcome.secret_key.as_ref())
            .map(SecretKey)
            .map_err(|_| ProtocolError::SecretKey(welcome.secret_key.len()))?;
        let resumed = welcome.same_instance;
        if resumed && welcome.committed < self.acked && guard::on(Guard::HubBehindAgent) {
            return Err(ProtocolError::HubBehind { committed: welcome.committed, acked: self.acked });
        }
        if resumed && welcome.committed > self.made {
            return Err(ProtocolError::AckAhead { sequence: welcome.committed, sent: self.made });
        }
        self.phase = Phase::Open;
        self.window = Window { bytes: welcome.window_bytes, batches: welcome.window_batches };
        self.generation = 0;
        let mut effects = vec![AgentEffect::Opened(Opened {
            protocol: welcome.protocol,
            resumed,
            cluster: welcome.cluster,
            session: welcome.session,
            hub_id: welcome.hub_id,
            hub_version: welcome.hub_version,
            clock_ms: welcome.clock_ms,
            secret_key,
        })];
        if resumed {
            self.drop_acked(welcome.committed);
            self.pump(&mut effects);
        } else {
            let Self { made, acked, unacked, held_bytes, interests, .. } = self;
            (*made, *acked, *held_bytes) = (0, 0, 0);
            unacked.clear();
            interests.clear();
            effects.push(AgentEffect::Forget);
        }
        Ok(effects)
    }

    fn ack(&mut self, sequence: u64) -> Result<Vec<AgentEffect>, ProtocolError> {
        let sent = self.acked + self.sent as u64;
        if sequence > sent {
            return Err(ProtocolError::AckAhead { sequence, sent });
        }
        let mut effects = Vec::new();
        if sequence > self.acked {
            self.drop_acked(sequence);
            effects.push(AgentEffect::Acked { sequence });
        }
        self.pump(&mut effects);
        Ok(effects)
    }

    fn drop_acked(&mut self, sequence: u64) {
        while self.acked < sequence
            && let Some(batch) = self.unacked.pop_front()
        {
            self.acked += 1;
            self.held_bytes -= batch.bytes;
            if self.sent > 0 {
                self.sent -= 1;
                self.sent_bytes -= batch.bytes;
            }
        }
    }

    /// Sends again what an earlier connection left unacknowledged, as the window allows.
    fn pump(&mut self, effects: &mut Vec<AgentEffect>) {
        while let Some(next) = self.unacked.get(self.sent)
            && self.window.room(self.sent_bytes, self.sent).is_some()
        {
            self.sent += 1;
            self.sent_bytes += next.bytes;
            let body = agent_message::Body::Batch(next.batch.clone());
            effects.push(AgentEffect::Send(AgentMessage { body: Some(body) }));
        }
    }

    fn interest(&mut self, set: v1::InterestSet) -> Vec<AgentEffect> {
        if set.generation < self.generation {
            return Vec::new();
        }
        self.generation = set.generation;
        let wanted: BTreeMap<u32, Bytes> = set.watches.into_iter().map(|w| (w.watch, w.interest)).collect();
        let old = std::mem::take(&mut self.interests);
        let mut effects: Vec<AgentEffect> = old
            .keys()
            .filter(|watch| !wanted.contains_key(watch))
            .map(|watch| AgentEffect::Stopped { watch: *watch })
            .collect();
        for (watch, interest) in &wanted {
            let (watch, interest) = (*watch, interest.clone());
            match old.get(&watch) {
                None => effects.push(AgentEffect::Started { watch, interest }),
                Some(known) if *known != interest => effects.push(AgentEffect::Changed { watch, interest }),
                Some(_) => {}
            }
        }
        self.resumes.retain(|watch, _| wanted.contains_key(watch));
        self.compares.retain(|(watch, _), _| wanted.contains_key(watch));
        self.interests = wanted;
        effects
    }

    fn resume(&mut self, resume: v1::Resume) -> Vec<AgentEffect> {
        let v1::Resume { watch, epoch, checkpoint, interest, api_version, entries, last, rewound } = resume;
        // The interest may have gone while its index was on the way.
        if !self.interests.contains_key(&watch) {
            return Vec::new();
        }
        let mut whole = self.resumes.remove(&watch).filter(|begun| begun.epoch == epoch).unwrap_or_default();
        whole.entries.extend(entries);
        let entries = whole.entries;
        let whole = Resumed { watch, epoch, checkpoint, interest, api_version, entries, rewound };
        if last {
            return vec![AgentEffect::Resume(whole)];
        }
        self.resumes.insert(watch, whole);
        Vec::new()
    }

    fn compare(&mut self, compare: v1::Compare) -> Vec<AgentEffect> {
        let v1::Compare { watch, namespace, entries, last } = compare;
        if !self.interests.contains_key(&watch) {
            return Vec::new();
        }
        let mut whole = self.compares.remove(&(watch, namespace.clone())).unwrap_or_default();
        whole.extend(entries);
        if last {
            return vec![AgentEffect::Compare(Compared { watch, namespace, entries: whole })];
        }
        self.compares.insert((watch, namespace), whole);
        Vec::new()
    }
}
