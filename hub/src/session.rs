//! The gRPC side of a session: moves messages between an agent's stream and the core. It holds no
//! state that matters; when it dies the agent comes again.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use lockstep_engine::{ClusterId, ResourceVersion};
use lockstep_net::{Peer, Refusals};
use lockstep_wire::MAX_MESSAGE_BYTES;
use lockstep_wire::budget::TOO_LARGE;
use lockstep_wire::resume::{chunks, compare_chunks};
use lockstep_wire::v1::{self, agent_message, hub_message};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::blocking::Blocking;
use crate::core::census::each;
use crate::core::state::SessionCommand;
use crate::core::{Connect, Input};
use crate::gate::Gate;
use crate::seal::BearerToken;
use crate::store::{IndexRow, Reader, StoreError, WatchRow};

/// Commands of the core that wait for one session: its window of steps and acks, several times over.
/// A session that lets them pile up ends (I12).
const COMMANDS: usize = 1024;
/// Messages between the session task and the HTTP/2 stream.
const OUTGOING: usize = 16;
/// How long a new stream may take to say Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// What an agent without a token of this hub is told.
const UNKNOWN_TOKEN: &str = "LS0201: the token is not known to this hub; create one with `lockstep token create CLUSTER` \
                             and give it to the agent";
/// Index rows per query.
const INDEX_PAGE: usize = 1000;

/// Makes readers of the state store.
pub type Readers = Arc<dyn Fn() -> Result<Box<dyn Reader>, StoreError> + Send + Sync>;

/// Serves agents.
#[derive(Clone)]
pub struct SessionService {
    inputs: mpsc::Sender<Input>,
    readers: Readers,
    gate: Gate,
    refusals: Refusals,
    blocking: Blocking,
    stop: CancellationToken,
}

impl SessionService {
    /// A service that feeds the core.
    pub fn new(
        inputs: mpsc::Sender<Input>,
        readers: Readers,
        gate: Gate,
        blocking: Blocking,
        stop: CancellationToken,
    ) -> Self {
        Self { inputs, readers, gate, refusals: Refusals::default(), blocking, stop }
    }

    /// Serves one agent, whose messages come as `stream`, from `address`; the answers. Of an agent without a token of this
    /// hub nothing is read.
    ///
    /// # Errors
    /// `Unauthenticated`, when the token is not known.
    pub fn serve<St>(
        &self,
        token: BearerToken,
        address: Option<IpAddr>,
        stream: St,
    ) -> Result<Answers, Status>
    where
        St: Stream<Item = Result<v1::AgentMessage, Status>> + Send + Unpin + 'static,
    {
        if !self.gate.admits(&token) {
            self.refused(address, "LS0201", "the token is not known to this hub");
            return Err(Status::unauthenticated(UNKNOWN_TOKEN));
        }
        let (out, receiver) = mpsc::channel(OUTGOING);
        let service = self.clone();
        tokio::spawn(Task { service, address, out }.run(token, stream));
        Ok(ReceiverStream::new(receiver))
    }

    /// Logs a refusal, unless the address was logged within a minute.
    fn refused(&self, address: Option<IpAddr>, code: &str, why: &str) {
        if let Some(times) = self.refusals.count(address, Instant::now()) {
            let address = address.map(tracing::field::display);
            tracing::warn!(code, address, times, "agent refused: {why}");
        }
    }
}

/// What the hub says in one session.
pub type Answers = ReceiverStream<Result<v1::HubMessage, Status>>;

type Outgoing = mpsc::Sender<Result<v1::HubMessage, Status>>;

#[tonic::async_trait]
impl v1::hub_server::Hub for SessionService {
    type SessionStream = Answers;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let address = peer.as_ref().map(|peer| peer.address().ip());
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .map(BearerToken::new);
        let Some(token) = token else {
            self.refused(address, "LS0201", "it has no bearer token");
            return Err(Status::unauthenticated("LS0201: no bearer token; give the agent its token"));
        };
        let answers = self.serve(token, address, request.into_inner())?;
        if let Some(peer) = peer {
            peer.authenticated();
        }
        Ok(Response::new(answers))
    }
}

/// By our own bounds, or by tonic's on encoded messages.
fn is_too_large(status: &Status) -> bool {
    matches!(status.code(), tonic::Code::ResourceExhausted | tonic::Code::OutOfRange)
}

struct Task {
    service: SessionService,
    address: Option<IpAddr>,
    out: Outgoing,
}

impl Task {
    async fn run<St>(self, token: BearerToken, mut stream: St)
    where
        St: Stream<Item = Result<v1::AgentMessage, Status>> + Send + Unpin,
    {
        let hello = match tokio::time::timeout(HELLO_TIMEOUT, stream.next()).await {
            Ok(Some(Ok(v1::AgentMessage { body: Some(agent_message::Body::Hello(hello)) }))) => hello,
            Ok(Some(Err(status))) if is_too_large(&status) => return self.too_large(&status).await,
            _ => {
                // The agent is gone or speaks something else; its own log says what it saw.
                let _ = self.out.send(Err(Status::invalid_argument("the first message must be Hello"))).await;
                return;
            }
        };
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (reply, answer) = oneshot::channel();
        let connect = Connect { token, hello, out: commands, reply };
        if self.service.inputs.send(Input::Connect(Box::new(connect))).await.is_err() {
            return;
        }
        match answer.await {
            Ok(Ok((cluster, session))) => {
                self.serve(cluster, session, stream, receiver).await;
                // The core may have stopped already.
                let _ = self.service.inputs.send(Input::Disconnected { cluster, session }).await;
            }
            Ok(Err(refused)) => {
                self.service.refused(self.address, &refused.code, &refused.message);
                self.send(hub_message::Body::Refused(refused)).await.unwrap_or(());
            }
            Err(_) => {}
        }
    }

    async fn serve<St>(
        &self,
        cluster: ClusterId,
        session: u64,
        mut stream: St,
        mut commands: mpsc::Receiver<SessionCommand>,
    ) where
        St: Stream<Item = Result<v1::AgentMessage, Status>> + Send + Unpin,
    {
        loop {
            // Commands first: acks among them make room for what the agent says.
            tokio::select! {
                biased;
                () = self.service.stop.cancelled() => return,
                command = commands.recv() => {
                    let Some(command) = command else { return };
                    if self.carry_out(command).await.is_err() {
                        return;
                    }
                }
                message = stream.next() => match message {
                    Some(Ok(message)) => {
                        let input = Input::Message { cluster, session, message: Box::new(message) };
                        if self.service.inputs.send(input).await.is_err() {
                            return;
                        }
                    }
                    Some(Err(status)) if is_too_large(&status) => return self.too_large(&status).await,
                    Some(Err(status)) => {
                        tracing::debug!(%cluster, "session ended: {}", status.code());
                        return;
                    }
                    None => return,
                },
            }
        }
    }

    /// Err: the stream is to end.
    async fn carry_out(&self, command: SessionCommand) -> Result<(), ()> {
        match command {
            SessionCommand::Message(message) => self.out.send(Ok(*message)).await.map_err(drop),
            SessionCommand::Resume(watches) => {
                for watch in watches {
                    self.stream(watch.id, |reader| index_messages(reader, watch)).await?;
                }
                Ok(())
            }
            SessionCommand::Compare { watch, namespace } => {
                self.stream(watch, move |reader| namespace_messages(reader, watch, namespace)).await
            }
            SessionCommand::Close(refused) => {
                self.send(hub_message::Body::Refused(refused)).await?;
                Err(())
            }
        }
    }

    /// Tells the agent, and the log, that it sent more than it may.
    async fn too_large(&self, status: &Status) {
        let why = match status.code() {
            tonic::Code::ResourceExhausted => status.message().to_owned(),
            _ => format!("{TOO_LARGE}: a message of more than {MAX_MESSAGE_BYTES} bytes"),
        };
        self.service.refused(self.address, TOO_LARGE, &why);
        // The agent is gone: then it needs no answer.
        let _ = self.out.send(Err(Status::resource_exhausted(why))).await;
    }

    async fn send(&self, body: hub_message::Body) -> Result<(), ()> {
        self.out.send(Ok(v1::HubMessage { body: Some(body) })).await.map_err(drop)
    }

    /// Streams what is read of a watch, message by message, with the back-pressure of the stream. After
    /// a read that failed nothing more is sent: an agent must not take part of an index for the whole (I3).
    async fn stream<I>(
        &self,
        watch: u32,
        begin: impl FnOnce(Box<dyn Reader>) -> I + Send + 'static,
    ) -> Result<(), ()>
    where
        I: Iterator<Item = Result<v1::HubMessage, StoreError>> + Send + 'static,
    {
        let unreadable = |error| tracing::error!(watch, "the key index cannot be read: {error}");
        let (readers, blocking) = (self.service.readers.clone(), &self.service.blocking);
        let begun = blocking.run(move || readers().map(begin)).await.ok_or(())?;
        let mut messages = begun.map_err(unreadable)?;
        loop {
            let (rest, message) = blocking.next(messages).await.ok_or(())?;
            messages = rest;
            match message {
                Some(message) => self.out.send(Ok(message.map_err(unreadable)?)).await.map_err(drop)?,
                None => return Ok(()),
            }
        }
    }
}

/// The index of a watch.
fn index_messages(
    mut reader: Box<dyn Reader>,
    watch: WatchRow,
) -> impl Iterator<Item = Result<v1::HubMessage, StoreError>> + Send {
    let head = v1::Resume {
        watch: watch.id,
        epoch: watch.epoch,
        checkpoint: watch.checkpoint.to_string(),
        interest: watch.interest.clone(),
        api_version: watch.api_version.clone(),
        rewound: watch.rewound,
        ..v1::Resume::default()
    };
    let failed = Arc::new(Mutex::new(None));
    let failure = Arc::clone(&failed);
    let mut after: Option<(String, String)> = None;
    let pages = std::iter::from_fn(move || {
        let from = after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        match reader.index(watch.id, from, INDEX_PAGE) {
            Ok(page) => {
                after = page.last().map(|row| (row.namespace.clone(), row.name.clone()));
                let seen = |row: &IndexRow| may_be_seen(row, &watch.checkpoint);
                (!page.is_empty()).then(|| page.into_iter().filter(seen).collect::<Vec<_>>())
            }
            Err(error) => {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                None
            }
        }
    });
    chunks(head, pages.flatten().map(entry)).map(move |message| {
        // What a failed read cut short looks like the end.
        failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(message), Err)
    })
}

/// Has the watch told of it, or will it, when it goes on from there? What we wrote ourselves, and a watch has passed
/// without a word, went in a gap of it: an agent that was told that it is there would never miss it. It is compared (I2).
fn may_be_seen(row: &IndexRow, checkpoint: &ResourceVersion) -> bool {
    let passed = row.resource_version.ordinal().zip(checkpoint.ordinal()).is_some_and(|(is, at)| is <= at);
    row.told || !passed
}

/// What is held of one namespace of a watch.
fn namespace_messages(
    mut reader: Box<dyn Reader>,
    watch: u32,
    namespace: String,
) -> impl Iterator<Item = Result<v1::HubMessage, StoreError>> + Send {
    let mut entries = Vec::new();
    let read = each(&mut *reader, watch, &namespace, |row| entries.push(entry(row)));
    let head = v1::Compare { watch, namespace, ..v1::Compare::default() };
    let (failed, entries) = match read {
        Ok(()) => (None, Some(entries)),
        Err(error) => (Some(Err(error)), None),
    };
    failed
        .into_iter()
        .chain(entries.into_iter().flat_map(move |entries| compare_chunks(head.clone(), entries).map(Ok)))
}

fn entry(row: IndexRow) -> v1::IndexEntry {
    let IndexRow { namespace, name, uid, resource_version, body_held, managed, told: _ } = row;
    let (uid, resource_version) = (uid.to_string(), resource_version.to_string());
    v1::IndexEntry { namespace, name, uid, resource_version, body_held, managed }
}
