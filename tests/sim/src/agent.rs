//! Agents as processes: started, killed, each with its ways to API server and hub.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use lockstep_agent::{AcceptEntry, AgentConfig, AgentMetrics, Ambient, Deleters, Dial, Line, Token};
use lockstep_cluster::ClusterClient;
use lockstep_engine::ClusterName;
use lockstep_engine::clock::Clock;
use lockstep_hub::seal::BearerToken;
use lockstep_hub::session::SessionService;
use lockstep_hub::store::Reader;
use lockstep_wire::v1::{AgentMessage, HubMessage, agent_message, hub_message};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::builds::Builds;
use crate::dice::Dice;
use crate::hub::Hub;
use crate::link::Link;
use crate::member::{Member, Transport};
use crate::objects::{CLUSTERS, Refusal};
use crate::oracle::Oracle;
use crate::plan::Plan;

/// Messages under way in each direction.
const UNDER_WAY: usize = 64;
/// The hub's end of a connection that broke stays open for so long twice, at most: what was on its way still arrives.
const LINGER_MS: u32 = 3_000;

/// The agent of one cluster, running or not.
pub(crate) struct Agent {
    index: usize,
    member: Arc<Member>,
    hub: Hub,
    token: String,
    pub(crate) to_api: Link,
    pub(crate) to_hub: Link,
    clock: Clock,
    dice: Arc<Mutex<Dice>>,
    refusal: Refusal,
    builds: Builds,
    /// How long the hub's end of a broken connection may stay open.
    lingers: Option<Arc<Mutex<Dice>>>,
    oracle: Oracle,
    process: Option<Process>,
}

struct Process {
    killed: CancellationToken,
    task: JoinHandle<()>,
}

impl Agent {
    pub(crate) fn new(
        index: usize,
        member: Arc<Member>,
        hub: Hub,
        token: String,
        clock: Clock,
        plan: &Plan,
        oracle: Oracle,
    ) -> Self {
        let stream = |n: u64| Dice::new(plan.seed, 100 + 10 * index as u64 + n);
        let (to_api, to_hub) = (Link::new(stream(0)), Link::new(stream(1)));
        let dice = Arc::new(Mutex::new(stream(2)));
        let lingers = plan.lingers.then(|| Arc::new(Mutex::new(stream(3))));
        let (refusal, builds) = (plan.refusal, plan.builds);
        Self {
            index,
            member,
            hub,
            token,
            to_api,
            to_hub,
            clock,
            dice,
            refusal,
            builds,
            lingers,
            oracle,
            process: None,
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Did it end although nobody killed it?
    pub(crate) fn has_ended(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.task.is_finished())
    }

    /// Starts it, if it does not run.
    pub(crate) fn start(&mut self) {
        let Ok(cluster) = ClusterName::new(CLUSTERS[self.index]) else { return };
        if self.runs() {
            return;
        }
        let killed = CancellationToken::new();
        let mut config = AgentConfig::new(cluster, "https://hub", Token::new(&self.token));
        if self.index == Refusal::AT {
            config.accept = self.refusal.accepted();
        }
        config.accept.push(AcceptEntry::reading_everything());
        config.lease_namespace = "kube-system".to_owned();
        config.census_interval_s = 20;
        // A handful of objects: queues fill up while the hub is away, and are told in many batches.
        config.queue_bytes = 6 << 10;
        config.discovery_interval_s = 10;
        let transport =
            Transport { member: Arc::clone(&self.member), link: self.to_api.clone(), killed: killed.clone() };
        let client = kube::Client::new(transport, "default");
        let client =
            ClusterClient::over(client, "http://simulated", config.client_limits(), self.clock.clone());
        let dice = Arc::clone(&self.dice);
        let random = move || dice.lock().unwrap_or_else(PoisonError::into_inner).number();
        let protocols = self.builds.agents();
        let ambient = Ambient { clock: self.clock.clone(), random: Arc::new(random), protocols };
        let dial = Way {
            index: self.index,
            link: self.to_hub.clone(),
            hub: self.hub.clone(),
            token: self.token.clone(),
            killed: killed.clone(),
            lingers: self.lingers.clone(),
            builds: self.builds,
            oracle: self.oracle.clone(),
        };
        let metrics = AgentMetrics::register(&mut Registry::default());
        let never = CancellationToken::new();
        let task = tokio::spawn(async move {
            // Its configuration is ours, and right.
            let _ =
                lockstep_agent::run_over(dial, ambient, config, client, never, metrics, Deleters::default())
                    .await;
        });
        self.process = Some(Process { killed, task });
    }

    /// Kills it: what it sent and nobody has yet is lost, replies under way find nobody.
    pub(crate) fn kill(&mut self) {
        if let Some(Process { killed, task }) = self.process.take() {
            killed.cancel();
            task.abort();
            self.to_hub.reset();
        }
    }
}

/// An agent's way to the hub.
#[derive(Clone)]
struct Way {
    index: usize,
    link: Link,
    hub: Hub,
    token: String,
    killed: CancellationToken,
    lingers: Option<Arc<Mutex<Dice>>>,
    builds: Builds,
    oracle: Oracle,
}

/// A connection that was accepted.
pub(crate) struct Connection {
    way: Way,
    generation: u64,
    service: SessionService,
    down: CancellationToken,
    reader: Box<dyn Reader>,
}

impl Dial for Way {
    type Line = Connection;

    async fn connect(&mut self) -> Result<Connection, String> {
        let generation = self.link.generation();
        self.link.pass(generation).await.map_err(|error| error.to_string())?;
        let (service, down) = self.hub.service().ok_or("connection refused")?;
        let reader = self.hub.reader().ok_or("connection refused")?;
        Ok(Connection { way: self.clone(), generation, service, down, reader })
    }
}

impl Line for Connection {
    type Incoming = ReceiverStream<Result<HubMessage, Status>>;

    async fn session(self, mut outgoing: ReceiverStream<AgentMessage>) -> Result<Self::Incoming, Status> {
        let Self { way, generation, service, down, mut reader } = self;
        let Way { index, link, token, killed, lingers, builds, oracle, .. } = way;
        let (up, heard) = mpsc::channel(UNDER_WAY);
        let (told, incoming) = mpsc::channel(UNDER_WAY);
        let mut answers = service.serve(BearerToken::new(&token), None, ReceiverStream::new(heard))?;
        tokio::spawn(async move {
            // What is under way when the connection breaks.
            let mut flying = None;
            let seen = Seen { oracle, index, instance: OnceLock::new() };
            let upward = async {
                while let Some(message) = outgoing.next().await {
                    let greets = matches!(message.body, Some(agent_message::Body::Hello(_)));
                    flying = Some(message);
                    if link.pass(generation).await.is_err() {
                        return;
                    }
                    if let Some(message) = flying.take()
                        && seen.sent(&up, message).await.is_err()
                    {
                        return;
                    }
                    // What only a newer agent has reads as a message without a body.
                    let unknown = greets && builds == Builds::AgentsNewer;
                    if unknown && seen.sent(&up, AgentMessage::default()).await.is_err() {
                        return;
                    }
                }
            };
            let downward = async {
                let unknown = builds == Builds::HubNewer;
                if unknown && told.send(Ok(HubMessage::default())).await.is_err() {
                    return;
                }
                while let Some(answer) = answers.next().await {
                    if let Ok(message) = &answer
                        && !down.is_cancelled()
                    {
                        seen.answered(&mut *reader, message);
                    }
                    if link.pass(generation).await.is_err() || told.send(answer).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                () = killed.cancelled() => {}
                () = down.cancelled() => {}
                () = link.broken(generation) => {}
                () = upward => {}
                () = downward => {}
            }
            if !killed.is_cancelled() {
                // The agent may have gone.
                let _ = told.send(Err(Status::unavailable("the connection broke"))).await;
            }
            drop(told);
            let Some(dice) = lingers else { return };
            let late = || {
                let ms = dice.lock().unwrap_or_else(PoisonError::into_inner).between(0, LINGER_MS);
                tokio::time::sleep(Duration::from_millis(ms.into()))
            };
            let lingering = async {
                late().await;
                let mut left = outgoing.into_inner();
                left.close();
                for message in flying.into_iter().chain(std::iter::from_fn(|| left.try_recv().ok())) {
                    seen.oracle.met_with("a message that came after its connection had broken");
                    if seen.sent(&up, message).await.is_err() {
                        return;
                    }
                }
                late().await;
            };
            // Nobody is there any more when the hub goes.
            down.run_until_cancelled(lingering).await;
        });
        Ok(ReceiverStream::new(incoming))
    }
}

/// What passes on one connection, for the oracle.
struct Seen {
    oracle: Oracle,
    index: usize,
    /// The agent's, once it has said it.
    instance: OnceLock<String>,
}

impl Seen {
    /// Gives the hub a message.
    async fn sent(
        &self,
        up: &mpsc::Sender<Result<AgentMessage, Status>>,
        message: AgentMessage,
    ) -> Result<(), Gone> {
        match (&message.body, self.instance.get()) {
            (Some(agent_message::Body::Hello(hello)), _) => {
                // Said once.
                let _ = self.instance.set(hello.instance.clone());
            }
            (Some(agent_message::Body::Batch(batch)), Some(instance)) => {
                self.oracle.batch_arrives(self.index, instance, batch.sequence);
            }
            _ => {}
        }
        up.send(Ok(message)).await.map_err(|_| Gone)
    }

    /// The hub has said something.
    fn answered(&self, reader: &mut dyn Reader, message: &HubMessage) {
        let Some(instance) = self.instance.get() else { return };
        let sequence = match &message.body {
            Some(hub_message::Body::Ack(ack)) => ack.sequence,
            Some(hub_message::Body::Welcome(welcome)) if welcome.same_instance => welcome.committed,
            _ => return,
        };
        self.oracle.acknowledged(reader, self.index, instance, sequence);
    }
}

/// The other end is not there any more.
struct Gone;
