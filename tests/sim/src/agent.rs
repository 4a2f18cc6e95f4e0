//! Agents as processes: started, killed, each with its ways to API server and hub.

use std::sync::{Arc, Mutex, PoisonError};

use lockstep_agent::{AgentConfig, AgentMetrics, Ambient, Deleters, Dial, Line, Token};
use lockstep_cluster::ClusterClient;
use lockstep_engine::ClusterName;
use lockstep_engine::clock::Clock;
use lockstep_hub::seal::BearerToken;
use lockstep_hub::session::SessionService;
use lockstep_wire::v1::{AgentMessage, HubMessage};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::dice::Dice;
use crate::hub::Hub;
use crate::link::Link;
use crate::member::{Member, Transport};
use crate::objects::{CLUSTERS, Refusal};

/// Messages under way in each direction.
const UNDER_WAY: usize = 64;

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
        seed: u64,
        refusal: Refusal,
    ) -> Self {
        let stream = |n: u64| Dice::new(seed, 100 + 10 * index as u64 + n);
        let (to_api, to_hub) = (Link::new(stream(0)), Link::new(stream(1)));
        let dice = Arc::new(Mutex::new(stream(2)));
        Self { index, member, hub, token, to_api, to_hub, clock, dice, refusal, process: None }
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
        let mut config = AgentConfig::new(cluster, "http://hub", Token::new(&self.token));
        if self.index == Refusal::AT {
            config.accept = self.refusal.accepted();
        }
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
        let ambient = Ambient { clock: self.clock.clone(), random: Arc::new(random) };
        let dial = Way {
            link: self.to_hub.clone(),
            hub: self.hub.clone(),
            token: self.token.clone(),
            killed: killed.clone(),
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
struct Way {
    link: Link,
    hub: Hub,
    token: String,
    killed: CancellationToken,
}

/// A connection that was accepted.
pub(crate) struct Connection {
    link: Link,
    generation: u64,
    service: SessionService,
    down: CancellationToken,
    token: String,
    killed: CancellationToken,
}

impl Dial for Way {
    type Line = Connection;

    async fn connect(&mut self) -> Result<Connection, String> {
        let generation = self.link.generation();
        self.link.pass(generation).await.map_err(|error| error.to_string())?;
        let (service, down) = self.hub.service().ok_or("connection refused")?;
        let (link, token, killed) = (self.link.clone(), self.token.clone(), self.killed.clone());
        Ok(Connection { link, generation, service, down, token, killed })
    }
}

impl Line for Connection {
    type Incoming = ReceiverStream<Result<HubMessage, Status>>;

    async fn session(self, mut outgoing: ReceiverStream<AgentMessage>) -> Result<Self::Incoming, Status> {
        let Self { link, generation, service, down, token, killed } = self;
        let (up, heard) = mpsc::channel(UNDER_WAY);
        let (told, incoming) = mpsc::channel(UNDER_WAY);
        let mut answers = service.serve(BearerToken::new(&token), ReceiverStream::new(heard));
        let (sent, way) = (up, link.clone());
        let upward = async move {
            while let Some(message) = outgoing.next().await {
                if way.pass(generation).await.is_err() || sent.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        };
        let (way, say) = (link.clone(), told.clone());
        let downward = async move {
            while let Some(answer) = answers.next().await {
                if way.pass(generation).await.is_err() || say.send(answer).await.is_err() {
                    return;
                }
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = killed.cancelled() => return,
                () = down.cancelled() => {}
                () = link.broken(generation) => {}
                () = upward => {}
                () = downward => {}
            }
            // The agent may have gone.
            let _ = told.send(Err(Status::unavailable("the connection broke"))).await;
        });
        Ok(ReceiverStream::new(incoming))
    }
}
