//! The one task that owns an agent's state: waits for something to happen, lets [`Owner`] decide,
//! carries out what came of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lockstep_cluster::{ClusterClient, WatchOptions, Writer, run_watch};
use lockstep_engine::listwatch::Observation;
use lockstep_engine::outcome::FailureClass;
use lockstep_engine::{Millis, ObjectKey};
use lockstep_wire::v1::{self, AgentMessage, HubMessage, agent_message::Body, outcome::Result as Done};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::accept::AcceptList;
use crate::ambient::Ambient;
use crate::deleters::Deleters;
use crate::discovery::{Calls, Discovered};
use crate::lease::Keeper;
use crate::metrics::ClusterMetrics;
use crate::owner::{Action, Effect, Owner};
use crate::perform::{Tools, class, perform};
use crate::reread::Rereader;
use crate::steps::StepQueue;
use crate::stream::StreamEvent;
use crate::watch::StartWatch;

/// Observations between watches and owner. Short: what waits belongs into the coalescing queues,
/// which are bounded by bytes.
pub(crate) const OBSERVATIONS: usize = 64;
/// Messages of the hub that wait for the owner.
pub(crate) const STREAM_EVENTS: usize = 64;
/// Observations taken in one go before batches are made: under load batches get fuller, and an
/// idle agent still sends each at once.
const OBSERVATIONS_AT_ONCE: usize = 256;
/// Steps that may wait; beyond it the hub's stream is not read.
const STEPS_WAITING: usize = 4096;
/// Between two looks at the metrics.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two signs of life.
const TICKS_PER_HEARTBEAT: u32 = 10;
/// How long running calls may take after the agent was told to stop: under the 30 s that a Pod gets.
const STOP_GRACE: Duration = Duration::from_secs(20);

/// An observation and the task it comes from.
pub(crate) struct Observed {
    watch: u32,
    run: u64,
    observation: Observation<Bytes>,
}

/// What the driver listens to.
pub(crate) struct Inputs {
    pub(crate) stream: mpsc::Receiver<StreamEvent>,
    pub(crate) observations: mpsc::Receiver<Observed>,
    pub(crate) discovered: mpsc::Receiver<Discovered>,
    pub(crate) leases: mpsc::Receiver<Action>,
    pub(crate) rereads: mpsc::Receiver<Action>,
    pub(crate) deleters: Deleters,
}

/// A stream to the hub.
struct Hub {
    out: mpsc::Sender<AgentMessage>,
    close: CancellationToken,
}

/// A step in work: its object, its number, and the connection it came on.
struct Running {
    key: ObjectKey,
    step: u64,
    connection: u64,
}

pub(crate) struct Driver {
    pub(crate) owner: Owner,
    pub(crate) client: ClusterClient,
    pub(crate) accept: Arc<AcceptList>,
    pub(crate) metrics: ClusterMetrics,
    pub(crate) ambient: Ambient,
    /// For pauses, which must not last hours because somebody set the clock.
    pub(crate) begun: Instant,
    pub(crate) observations: mpsc::Sender<Observed>,
    pub(crate) discovery: Arc<Calls>,
    pub(crate) lease: Keeper,
    pub(crate) rereader: Rereader,
    pub(crate) steps: StepQueue,
    pub(crate) deleters: Deleters,
    pub(crate) state: State,
}

/// What changes while it runs.
#[derive(Default)]
pub(crate) struct State {
    hub: Option<Hub>,
    /// Counts the streams: outcomes of an earlier one are nobody's.
    connection: u64,
    pending: VecDeque<AgentMessage>,
    writer: Option<Writer>,
    watches: BTreeMap<u32, CancellationToken>,
    running: JoinSet<v1::Outcome>,
    jobs: HashMap<Id, Running>,
    ticks: u32,
    /// Watches whose age is among the metrics.
    aged: BTreeSet<(String, String)>,
}

/// What woke the driver.
enum Woken {
    Stop,
    Sent,
    Stream(StreamEvent),
    Observed(Observed),
    Discovered(Discovered),
    /// What is an action already: of the Lease, or of an object that was read again.
    Answered(Action),
    Stepped(Result<(Id, v1::Outcome), JoinError>),
    /// A webhook told who asked for deletes.
    Deleters,
    Tick,
}

impl Driver {
    /// Runs until cancelled; then finishes the calls that are under way.
    pub(crate) async fn run(mut self, mut inputs: Inputs, cancelled: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match self.wait(&mut inputs, &mut ticks, &cancelled).await {
                Woken::Stop => break,
                Woken::Sent => continue,
                // Told below, as soon as there is a hub.
                Woken::Deleters => {}
                Woken::Stream(event) => self.stream(event),
                Woken::Observed(observed) => self.observed(observed, &mut inputs.observations),
                Woken::Discovered(Discovered { served, look }) => {
                    self.act(Action::Discovered { served, look });
                }
                Woken::Answered(action) => self.act(action),
                Woken::Stepped(result) => self.stepped(result),
                Woken::Tick => self.tick(),
            }
            let effects = self.owner.flush();
            self.carry_out(effects);
            self.begin_steps();
            self.tell_deleters();
            self.discovery.awaits_kinds(self.owner.awaits_kinds());
        }
        self.stop().await;
    }

    async fn wait(
        &mut self,
        inputs: &mut Inputs,
        ticks: &mut Interval,
        cancelled: &CancellationToken,
    ) -> Woken {
        let State { hub, pending, running, .. } = &mut self.state;
        let out = hub.as_ref().map(|hub| &hub.out).filter(|_| !pending.is_empty());
        let reads_watches = !self.owner.is_full();
        let reads_hub = self.steps.waiting() < STEPS_WAITING;
        // In this order: what is rare and what makes room before what may flood.
        tokio::select! {
            biased;
            () = cancelled.cancelled() => Woken::Stop,
            _ = ticks.tick() => Woken::Tick,
            permit = reserve(out), if out.is_some() => {
                // A transport that is gone says so with its own event.
                if let (Some(permit), Some(message)) = (permit, pending.pop_front()) {
                    self.metrics.sent(message.encoded_len());
                    permit.send(message);
                } else {
                    pending.clear();
                }
                Woken::Sent
            }
            Some(done) = running.join_next_with_id() => Woken::Stepped(done),
            () = inputs.deleters.came() => Woken::Deleters,
            event = inputs.stream.recv(), if reads_hub => event.map_or(Woken::Stop, Woken::Stream),
            served = inputs.discovered.recv() => served.map_or(Woken::Stop, Woken::Discovered),
            lease = inputs.leases.recv() => lease.map_or(Woken::Stop, Woken::Answered),
            reread = inputs.rereads.recv(), if reads_watches => reread.map_or(Woken::Stop, Woken::Answered),
            observed = inputs.observations.recv(), if reads_watches => observed.map_or(Woken::Stop, Woken::Observed),
        }
    }

    fn stream(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Opening { out, close } => {
                self.disconnected();
                self.state.connection += 1;
                self.state.hub = Some(Hub { out, close });
                self.act(Action::Connected);
            }
            StreamEvent::Message(message) => self.message(*message),
            StreamEvent::Closed => {
                self.disconnected();
                self.act(Action::Disconnected);
            }
        }
    }

    fn message(&mut self, message: HubMessage) {
        // Late words of a stream that was closed from here.
        if self.state.hub.is_some() {
            self.act(Action::Message(Box::new(message)));
        }
    }

    /// The stream is gone: what was queued on it goes, running calls finish.
    fn disconnected(&mut self) {
        if let Some(hub) = self.state.hub.take() {
            hub.close.cancel();
            self.metrics.connected(false);
        }
        self.state.pending.clear();
        self.steps.clear();
    }

    fn observed(&mut self, first: Observed, more: &mut mpsc::Receiver<Observed>) {
        let mut next = Some(first);
        for _ in 0..OBSERVATIONS_AT_ONCE {
            let Some(Observed { watch, run, observation }) = next else { return };
            self.act(Action::Observed { watch, run, observation });
            next = if self.owner.is_full() { None } else { more.try_recv().ok() };
        }
        if let Some(Observed { watch, run, observation }) = next {
            self.act(Action::Observed { watch, run, observation });
        }
    }

    fn act(&mut self, action: Action) {
        let effects = self.owner.apply(action, self.ambient.clock.now());
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(message) => self.send(message),
                Effect::Start(start) => self.start(start),
                Effect::Stop { watch } => {
                    if let Some(task) = self.state.watches.remove(&watch) {
                        task.cancel();
                    }
                }
                Effect::Rediscover { look } => self.discovery.again(look),
                Effect::ReadLease { read } => self.lease.read(read),
                Effect::RaiseLease(raise) => self.lease.raise(raise),
                Effect::Reread(reread) => {
                    if let Some(task) = self.state.watches.get(&reread.watch) {
                        self.rereader.begin(reread, task.clone());
                    }
                }
                Effect::Execute { step } => self.steps.push(step),
                Effect::Cancel { step } => self.steps.cancel(step),
                Effect::Welcomed { secret_key, hub_version, protocol, resumed, skew_ms } => {
                    tracing::info!(%hub_version, protocol, resumed, skew_ms, "the hub serves this agent");
                    self.metrics.connected(true);
                    self.state.writer = Some(Writer::new(self.client.clone(), secret_key.0));
                }
                // The stream task told people and waits; the stream ends by itself.
                Effect::Refused(_) => {}
                Effect::Broken(error) => {
                    tracing::warn!(%error, "agent and hub do not agree; starting a new session");
                    self.disconnected();
                    let effects = self.owner.renew(self.ambient.instance());
                    self.carry_out(effects);
                }
            }
        }
    }

    fn send(&mut self, message: AgentMessage) {
        if self.state.hub.is_some() {
            self.state.pending.push_back(message);
        }
    }

    /// Without a hub they wait in their queue; one that is lost with its stream is not told again.
    fn tell_deleters(&mut self) {
        while self.state.hub.is_some() && self.owner.is_served() {
            let deleters = self.deleters.take();
            if deleters.is_empty() {
                return;
            }
            self.send(AgentMessage { body: Some(Body::Deleters(v1::Deleters { deleters })) });
        }
    }

    fn start(&mut self, start: StartWatch) {
        let StartWatch { watch, run, resource, scope, start, epoch } = start;
        let cancelled = CancellationToken::new();
        if let Some(old) = self.state.watches.insert(watch, cancelled.clone()) {
            old.cancel();
        }
        let span =
            tracing::debug_span!("watch", kind = %resource.kind, version = %resource.api_version(), ?scope);
        let seed = u64::from(watch) ^ self.ambient.seed();
        let options = WatchOptions::new(resource, scope, start, epoch, seed);
        let (client, observations) = (self.client.clone(), self.observations.clone());
        let wrap = move |observation| Observed { watch, run, observation };
        let task = async move { run_watch(&client, options, observations, wrap, cancelled).await };
        tokio::spawn(task.instrument(span));
    }

    fn begin_steps(&mut self) {
        let (Some(writer), Some(served)) = (&self.state.writer, self.owner.served()) else { return };
        while let Some(job) = self.steps.next(self.steady(), |step| self.owner.presence(step)) {
            let tools = Tools {
                writer: writer.clone(),
                served: Arc::clone(&served),
                accept: Arc::clone(&self.accept),
            };
            let (key, step, connection) = (job.key.clone(), job.step.step, self.state.connection);
            let span = tracing::debug_span!(
                "step", step, kind = %key.gk, namespace = %key.namespace, name = %key.name
            );
            let task = self.state.running.spawn(async move { perform(&tools, &job).await }.instrument(span));
            self.state.jobs.insert(task.id(), Running { key, step, connection });
        }
    }

    fn stepped(&mut self, result: Result<(Id, v1::Outcome), JoinError>) {
        let id = result.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(Running { key, step, connection }) = self.state.jobs.remove(&id) else { return };
        let outcome = result.map_or_else(|error| panicked(step, &error), |(_, outcome)| outcome);
        self.steps.done(&key, &outcome, self.steady());
        tracing::debug!(step, %key, outcome = class(&outcome), took_us = outcome.took_us, "step ended");
        self.metrics.step(class(&outcome), outcome.took_us);
        let doubted = is_doubted(&outcome);
        if connection == self.state.connection {
            self.send(AgentMessage { body: Some(Body::Outcome(outcome)) });
        }
        if doubted {
            self.act(Action::Doubted(key));
        }
    }

    /// Milliseconds on a clock that nobody sets.
    fn steady(&self) -> Millis {
        Millis::try_from(self.begun.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn tick(&mut self) {
        let (tally, queue) = self.owner.counts();
        self.metrics.owner(tally, queue, self.steps.counters());
        self.metrics.deleters(self.deleters.counters());
        let (items, bytes) = self.owner.queued();
        self.metrics.queued(items, bytes);
        let (items, bytes) = self.owner.spilled();
        self.metrics.spilled(items, bytes);
        self.metrics.limit(self.steps.limit(self.steady()), self.steps.decreases());
        self.act(Action::Tick);
        self.state.ticks += 1;
        if self.state.ticks < TICKS_PER_HEARTBEAT {
            return;
        }
        self.state.ticks = 0;
        let now = self.ambient.clock.now();
        let ages: BTreeMap<(String, String), i64> = self
            .owner
            .ages()
            .map(|(gk, scope, at)| ((gk.to_string(), scope.to_owned()), now.saturating_sub(at) / 1_000))
            .collect();
        for (kind, namespace) in self.state.aged.iter().filter(|watch| !ages.contains_key(watch)) {
            self.metrics.watch_age(kind, namespace, None);
        }
        for ((kind, namespace), age_s) in &ages {
            self.metrics.watch_age(kind, namespace, Some(*age_s));
        }
        self.state.aged = ages.into_keys().collect();
        self.act(Action::Heartbeat);
    }

    async fn stop(mut self) {
        for task in self.state.watches.values() {
            task.cancel();
        }
        self.steps.clear();
        let running = self.state.running.len();
        tracing::info!(running, "stopping; calls under way are finished");
        let finish = async {
            while let Some(result) = self.state.running.join_next_with_id().await {
                self.stepped(result);
                self.hand_over();
            }
        };
        if tokio::time::timeout(STOP_GRACE, finish).await.is_err() {
            tracing::warn!("calls to the API server were still under way when the agent had to stop");
        }
        self.hand_over();
        self.metrics.connected(false);
    }

    /// Gives the transport what it takes at once; what is not acked is sent again by the next one.
    fn hand_over(&mut self) {
        let State { hub: Some(hub), pending, .. } = &mut self.state else { return };
        while let Some(message) = pending.pop_front() {
            if hub.out.try_send(message).is_err() {
                return;
            }
        }
    }
}

async fn reserve(out: Option<&mpsc::Sender<AgentMessage>>) -> Option<mpsc::Permit<'_, AgentMessage>> {
    out?.reserve().await.ok()
}

/// Does it say that the object is another than the hub knows of, or none?
fn is_doubted(outcome: &v1::Outcome) -> bool {
    match &outcome.result {
        Some(Done::Gone(_)) => true,
        Some(Done::Failed(failed)) => {
            matches!(failed.known_class(), FailureClass::Gone | FailureClass::Stale)
        }
        _ => false,
    }
}

/// A step whose task died: whether the server acted is unknown.
fn panicked(step: u64, error: &JoinError) -> v1::Outcome {
    tracing::error!(step, cancelled = error.is_cancelled(), "a step's task died");
    let failed = v1::Failed::of(
        FailureClass::Transient,
        "the agent failed while it carried out the step; see its log",
    );
    v1::Outcome { step, result: Some(Done::Failed(failed)), took_us: 0 }
}
