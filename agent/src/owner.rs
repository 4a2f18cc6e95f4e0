//! The owner of an agent's state: session, watches, discovery. Pure: an [`Action`] changes state,
//! [`Effect`]s come out as values, and the driver carries them out.
//!
//! Watches go on while the hub is away. What they find waits in coalescing queues, whose bodies go to a
//! file where there is one ([`crate::spill`], the one effect that happens right here); when both are
//! full the driver stops reading the watches ([`Owner::is_full`]), and nothing is dropped.

mod census;
mod guard;
mod interests;
mod messages;
mod spilling;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lockstep_cluster::Served;
use lockstep_engine::coalesce::{Coalesce, CoalesceCounters, Limits};
use lockstep_engine::guard as guards;
use lockstep_engine::listwatch::Observation;
use lockstep_engine::reading::Reading;
use lockstep_engine::{GroupKind, Millis, ObjectKey};
use lockstep_wire::v1::{self, AgentMessage, HubMessage, agent_message};
use lockstep_wire::{AgentEffect, AgentSession, ProtocolError, Protocols, Resumed, SecretKey};

use crate::lease::Raise;
use crate::reread::Reread;
use crate::spill::Spill;
use crate::watch::{Context, Follow, Read, Stage, StartWatch, Tally, Watch};
use guard::Guard;
pub(crate) use guard::{LeaseRead, LeaseWritten};

/// Bytes of one batch, about: a commit of the hub's store costs the same for one delta and for
/// hundreds, and a step behind a batch of this size waits for milliseconds only.
const BATCH_BYTES: usize = 256 << 10;
/// And at most this part of what may be queued: batches are kept until they are acknowledged.
const BATCHES_IN_QUEUE: usize = 4;

/// What happened.
#[derive(Debug)]
pub(crate) enum Action {
    /// The stream to the hub is open.
    Connected,
    /// The stream is gone.
    Disconnected,
    /// The hub says something.
    Message(Box<HubMessage>),
    /// A watch's task learned something.
    Observed { watch: u32, run: u64, observation: Observation<Bytes> },
    /// Discovery was asked; `look` is the number of the last [`Effect::Rediscover`] before that.
    Discovered { served: Arc<Served>, look: u64 },
    /// The Lease was read, as [`Effect::ReadLease`] of this number wanted.
    LeaseRead { read: u64, lease: LeaseRead },
    /// The Lease was written, or not.
    LeaseWritten(LeaseWritten),
    /// An object was read again for a watch's task.
    Reread { watch: u32, run: u64, namespace: Box<str>, name: Box<str>, read: Read },
    /// A step was told that the object is not the one that the hub knows of, or is not there.
    Doubted(ObjectKey),
    /// A second has passed.
    Tick,
    /// Time for a sign of life.
    Heartbeat,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Send to the hub.
    Send(AgentMessage),
    /// Start a watch's task.
    Start(StartWatch),
    /// End a watch's task.
    Stop { watch: u32 },
    /// Ask discovery soon. Looks are numbered: an answer counts for what was asked before it began.
    Rediscover { look: u64 },
    /// Read the agent's Lease. Answered once, before anything else is wanted of the Lease.
    ReadLease { read: u64 },
    /// Write the agent's Lease; answered likewise.
    RaiseLease(Raise),
    /// Read objects again, one by one.
    Reread(Reread),
    /// Carry out a step.
    Execute { step: v1::Step },
    /// Drop a step that was not begun.
    Cancel { step: u64 },
    /// The hub welcomed us: its key for digests of Secrets.
    Welcomed { secret_key: SecretKey, hub_version: String, protocol: u32, resumed: bool, skew_ms: i64 },
    /// The hub does not serve us.
    Refused(v1::Refused),
    /// Close the stream, call [`Owner::renew`], and connect again.
    Broken(ProtocolError),
}

/// Who we are, for the greeting.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) cluster_name: String,
    pub(crate) cluster_uid: String,
    pub(crate) server_version: String,
    pub(crate) accepts: Vec<String>,
    /// What the hub may read.
    pub(crate) reading: Reading,
    /// Versions of the session protocol that this agent speaks.
    pub(crate) protocols: Protocols,
}

/// Bounds of an owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) queue: Limits,
    pub(crate) lists_at_once: usize,
    /// Within this time each namespace of each watch is told to the hub as a census; 0: never.
    pub(crate) census_interval_ms: Millis,
}

pub(crate) struct Owner {
    facts: Facts,
    bounds: Bounds,
    session: AgentSession,
    secret_key: SecretKey,
    watches: BTreeMap<u32, Watch>,
    served: Option<Arc<Served>>,
    /// The number of the last look at discovery that was asked for.
    look: u64,
    guard: Guard,
    /// The last batch ended after this watch: the next one begins behind it, so that a busy watch
    /// does not keep the others waiting.
    turn: u32,
    /// Counts of watches that are gone.
    past: (Tally, CoalesceCounters),
    /// Grows with every task that is started, so that a late observation never finds its number.
    runs: u64,
    spill: Option<Spill>,
    /// Was it said that bodies cannot be spilled?
    told_of_spill: bool,
}

impl Owner {
    pub(crate) fn new(facts: Facts, bounds: Bounds, instance: String) -> Self {
        Self {
            session: AgentSession::new(instance, facts.protocols),
            facts,
            bounds,
            secret_key: SecretKey([0; 32]),
            watches: BTreeMap::new(),
            served: None,
            look: 0,
            guard: Guard::default(),
            turn: 0,
            past: Default::default(),
            runs: 0,
            spill: None,
            told_of_spill: false,
        }
    }

    /// Takes what happened. Batches are made by [`Self::flush`], after as many actions as there are.
    pub(crate) fn apply(&mut self, action: Action, now: Millis) -> Vec<Effect> {
        let mut effects = Vec::new();
        match action {
            // The Hello tells the counter of the Lease, as it is now.
            Action::Connected => {
                self.session.disconnected();
                self.guard.connected();
            }
            Action::Disconnected => {
                self.session.disconnected();
                self.guard.disconnected();
            }
            Action::Message(message) => match self.session.handle(*message) {
                Ok(told) => told.into_iter().for_each(|told| self.told(told, now, &mut effects)),
                Err(error) => effects.push(Effect::Broken(error)),
            },
            Action::Observed { watch, run, observation } => {
                self.observed(watch, run, observation, now, &mut effects);
                self.make_room();
            }
            Action::Discovered { served, look } => self.discovered(served, look, now, &mut effects),
            Action::LeaseRead { read, lease } => self.lease_read(read, lease, now, &mut effects),
            Action::LeaseWritten(written) => self.lease_written(written, now, &mut effects),
            Action::Doubted(key) => self.doubt(&key, &mut effects),
            Action::Reread { watch, run, namespace, name, read } => {
                self.reread(watch, run, (&namespace, &name), &read, now, &mut effects);
                self.make_room();
            }
            Action::Tick => {
                self.guard.tick();
                self.choose_censuses(now);
            }
            Action::Heartbeat => {
                // The disk may have space again.
                self.make_room();
                if self.session.is_open() {
                    effects.push(Effect::Send(self.heartbeat(now)));
                }
                self.lease_due();
            }
        }
        self.start_watches(&mut effects);
        self.lease_effects(&mut effects);
        effects
    }

    /// Makes batches of what is queued, as far as the hub's window allows.
    pub(crate) fn flush(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(room) = self.session.room() {
            let room = usize::try_from(room)
                .unwrap_or(usize::MAX)
                .min(BATCH_BYTES)
                .min(self.bounds.queue.bytes / BATCHES_IN_QUEUE);
            let sections = self.sections(room);
            if sections.is_empty() {
                break;
            }
            let batch = self.session.batch(sections);
            if let Some(agent_message::Body::Batch(batch)) = &batch.body {
                self.guard.batched(batch.sequence);
            }
            effects.push(Effect::Send(batch));
        }
        self.stop_lost(&mut effects);
        effects
    }

    fn sections(&mut self, room: usize) -> Vec<v1::Section> {
        let behind = self.watches.range(self.turn.saturating_add(1)..).map(|(id, _)| *id);
        let before = self.watches.range(..=self.turn).map(|(id, _)| *id);
        let order: Vec<u32> = behind.chain(before).collect();
        let mut sections = Vec::new();
        let mut used = 0;
        for id in order {
            let Some(watch) = self.watches.get_mut(&id) else { continue };
            if !watch.has_news() {
                continue;
            }
            let Some(section) = watch.take(room - used) else { continue };
            used += section.items.iter().map(Coalesce::weight).sum::<usize>();
            sections.push(section);
            self.turn = id;
            if used >= room {
                break;
            }
        }
        sections
    }

    /// Goes on as another instance, with nothing: after [`Effect::Broken`].
    pub(crate) fn renew(&mut self, instance: String) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.session.renew(instance);
        self.forget(&mut effects);
        effects
    }

    /// Does a hub serve us?
    pub(crate) fn is_served(&self) -> bool {
        self.session.is_open()
    }

    /// Is a bound reached? Watches are then not read.
    pub(crate) fn is_full(&self) -> bool {
        let (items, bytes) = self.queued();
        items >= self.bounds.queue.count || bytes >= self.bounds.queue.bytes
    }

    /// Deltas and bytes that wait for the hub.
    pub(crate) fn queued(&self) -> (usize, usize) {
        let all = self.watches.values().map(Watch::queued);
        all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Counts since the start, over all watches.
    pub(crate) fn counts(&self) -> (Tally, CoalesceCounters) {
        self.watches.values().map(Watch::counts).fold(self.past, add)
    }

    /// When each watch last heard of its server.
    pub(crate) fn ages(&self) -> impl Iterator<Item = (&GroupKind, &str, Millis)> {
        self.watches
            .values()
            .filter(|watch| watch.last_event > 0)
            .map(|watch| (&watch.interest.gk, watch.interest.scope.as_str(), watch.last_event))
    }

    /// Does a watch wait for its kind to be served?
    pub(crate) fn awaits_kinds(&self) -> bool {
        self.watches.values().any(|watch| watch.stage == Stage::AwaitingKind && !watch.is_refused())
    }

    pub(crate) fn served(&self) -> Option<Arc<Served>> {
        self.served.clone()
    }

    fn told(&mut self, told: AgentEffect, now: Millis, effects: &mut Vec<Effect>) {
        match told {
            AgentEffect::Send(message) => effects.push(Effect::Send(message)),
            AgentEffect::Opened(opened) => {
                self.secret_key = opened.secret_key;
                effects.push(Effect::Welcomed {
                    secret_key: opened.secret_key,
                    hub_version: opened.hub_version,
                    protocol: opened.protocol,
                    resumed: opened.resumed,
                    skew_ms: now.saturating_sub(opened.clock_ms),
                });
                effects.extend(self.served_message().map(Effect::Send));
                // The hub trusts no status of an earlier session: it is told again, behind what is
                // sent again.
                self.watches.values_mut().for_each(Watch::tell_again);
                self.lease_opened(opened.resumed, now, effects);
            }
            AgentEffect::Forget => self.forget(effects),
            AgentEffect::Started { watch, interest } => self.started(watch, &interest),
            AgentEffect::Changed { watch, interest } => self.changed(watch, &interest, effects),
            AgentEffect::Stopped { watch } => self.stopped(watch, effects),
            AgentEffect::Resume(resumed) => self.resumed(resumed, now, effects),
            AgentEffect::Compare(compared) => self.compare(compared, effects),
            AgentEffect::Acked { sequence } => self.guard.acked(sequence),
            AgentEffect::Step(step) => effects.push(Effect::Execute { step }),
            AgentEffect::Cancel { step } => effects.push(Effect::Cancel { step }),
            AgentEffect::Refused(refused) => effects.push(Effect::Refused(refused)),
            AgentEffect::Unknown => {
                tracing::warn!(
                    "the hub sent a kind of message that this agent does not know; it is ignored, upgrade the agent"
                );
            }
        }
    }

    fn forget(&mut self, effects: &mut Vec<Effect>) {
        let all: Vec<u32> = self.watches.keys().copied().collect();
        for watch in all {
            self.stopped(watch, effects);
        }
    }

    fn stopped(&mut self, id: u32, effects: &mut Vec<Effect>) {
        let Some(watch) = self.watches.remove(&id) else { return };
        let (tally, mut counters) = watch.counts();
        counters.dropped += watch.queued().0 as u64;
        self.past = add(self.past, (tally, counters));
        if watch.stage == Stage::Running {
            effects.push(Effect::Stop { watch: id });
        }
    }

    fn resumed(&mut self, mut resumed: Resumed, now: Millis, effects: &mut Vec<Effect>) {
        // The hub said this before it heard of the rewind.
        resumed.rewound |= self.guard.holds() && guards::on(guards::Guard::RewindKnownToHub);
        let Some(watch) = self.watches.get_mut(&resumed.watch) else { return };
        if watch.stage == Stage::Running {
            effects.push(Effect::Stop { watch: watch.id });
        }
        watch.resume(resumed, now);
        if let Some(served) = &self.served {
            // An answer from before: it confirms no list.
            watch.discovered(served, 0, now);
        }
    }

    fn observed(
        &mut self,
        id: u32,
        run: u64,
        observation: Observation<Bytes>,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(watch) = self.watches.get_mut(&id) else { return };
        let other = watch.run != run && guards::on(guards::Guard::RunOfWatch);
        if watch.stage != Stage::Running || other {
            return;
        }
        let defines_kinds =
            matches!(&observation, Observation::Applied { listed: false, .. } | Observation::Deleted { .. })
                && (watch.interest.gk.is("apiextensions.k8s.io", "CustomResourceDefinition")
                    || watch.interest.gk.is("apiregistration.k8s.io", "APIService"));
        let context = Context {
            secret_key: &self.secret_key.0,
            now,
            next_look: self.look + 1,
            next_read: self.guard.next_read(),
        };
        let mut follow = watch.observe(observation, &context);
        follow.look |= defines_kinds;
        self.follow(id, follow, effects);
    }

    fn follow(&mut self, watch: u32, follow: Follow, effects: &mut Vec<Effect>) {
        let Follow { look, read, stop } = follow;
        if look {
            self.look += 1;
            effects.push(Effect::Rediscover { look: self.look });
        }
        if read {
            self.guard.want();
        }
        if stop {
            effects.push(Effect::Stop { watch });
        }
    }

    fn discovered(&mut self, served: Arc<Served>, look: u64, now: Millis, effects: &mut Vec<Effect>) {
        let changed = self.served.as_ref().is_none_or(|known| served.changed(known));
        self.served = Some(Arc::clone(&served));
        for watch in self.watches.values_mut() {
            if watch.discovered(&served, look, now) {
                effects.push(Effect::Stop { watch: watch.id });
            }
        }
        if changed && self.session.is_open() {
            effects.extend(self.served_message().map(Effect::Send));
        }
    }

    fn start_watches(&mut self, effects: &mut Vec<Effect>) {
        let Some(served) = &self.served else { return };
        let waits = |watch: &Watch| matches!(watch.stage, Stage::AwaitingKind | Stage::AwaitingSlot);
        if !self.watches.values().any(waits) {
            return;
        }
        let listing = self.watches.values().filter(|watch| watch.listing).count();
        let mut slots = self.bounds.lists_at_once.saturating_sub(listing);
        for watch in self.watches.values_mut() {
            if let Some(start) = watch.try_start(served, slots > 0, self.runs + 1) {
                self.runs += 1;
                slots = slots.saturating_sub(usize::from(watch.listing));
                effects.push(Effect::Start(start));
            }
        }
    }

    /// What the watches know of a step's object now.
    pub(crate) fn presence(&self, step: &v1::Step) -> Option<bool> {
        let gk = GroupKind::new(&step.group, &step.kind);
        let covers = |watch: &&Watch| watch.interest.gk == gk && watch.covers(&step.namespace);
        self.watches.values().filter(covers).find_map(|watch| watch.presence(&step.namespace, &step.name))
    }
}

fn add(a: (Tally, CoalesceCounters), b: (Tally, CoalesceCounters)) -> (Tally, CoalesceCounters) {
    let tally = Tally {
        events: a.0.events + b.0.events,
        bodies_sent: a.0.bodies_sent + b.0.bodies_sent,
        bodies_withheld: a.0.bodies_withheld + b.0.bodies_withheld,
        undecodable: a.0.undecodable + b.0.undecodable,
        lists: a.0.lists + b.0.lists,
        rewinds: a.0.rewinds + b.0.rewinds,
        censuses: a.0.censuses + b.0.censuses,
        mismatches: a.0.mismatches + b.0.mismatches,
        rereads: a.0.rereads + b.0.rereads,
    };
    let counters = CoalesceCounters {
        enqueued: a.1.enqueued + b.1.enqueued,
        dequeued: a.1.dequeued + b.1.dequeued,
        dropped: a.1.dropped + b.1.dropped,
    };
    (tally, counters)
}

#[cfg(test)]
mod tests;
