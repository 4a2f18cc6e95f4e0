//! The gRPC side of a session: moves messages between an agent's stream and the core. It holds no
//! state that matters; when it dies the agent comes again.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use lockstep_engine::ClusterId;
use lockstep_wire::resume::{chunks, compare_chunks};
use lockstep_wire::v1::{self, agent_message, hub_message};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::core::census::each;
use crate::core::state::SessionCommand;
use crate::core::{Connect, Input};
use crate::seal::BearerToken;
use crate::store::{IndexRow, Reader, StoreError, WatchRow};

/// Commands of the core that wait for one session: its window of steps and acks, several times over.
/// A session that lets them pile up ends (I12).
const COMMANDS: usize = 1024;
/// Messages between the session task and the HTTP/2 stream.
const OUTGOING: usize = 16;
/// How long a new stream may take to say Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Index rows per query.
const INDEX_PAGE: usize = 1000;

/// Makes readers of the state store.
pub type Readers = Arc<dyn Fn() -> Result<Box<dyn Reader>, StoreError> + Send + Sync>;

/// Serves agents.
pub struct SessionService {
    inputs: mpsc::Sender<Input>,
    readers: Readers,
    stop: CancellationToken,
}

impl SessionService {
    /// A service that feeds the core.
    pub fn new(inputs: mpsc::Sender<Input>, readers: Readers, stop: CancellationToken) -> Self {
        Self { inputs, readers, stop }
    }
}

type Outgoing = mpsc::Sender<Result<v1::HubMessage, Status>>;

#[tonic::async_trait]
impl v1::hub_server::Hub for SessionService {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::HubMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| Status::unauthenticated("LS0201: no bearer token; give the agent its token"))?;
        let token = BearerToken::new(token);
        let (out, receiver) = mpsc::channel(OUTGOING);
        let task =
            Task { inputs: self.inputs.clone(), readers: self.readers.clone(), out, stop: self.stop.clone() };
        tokio::spawn(task.run(token, request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

struct Task {
    inputs: mpsc::Sender<Input>,
    readers: Readers,
    out: Outgoing,
    stop: CancellationToken,
}

impl Task {
    async fn run(self, token: BearerToken, mut stream: Streaming<v1::AgentMessage>) {
        let hello = match tokio::time::timeout(HELLO_TIMEOUT, stream.next()).await {
            Ok(Some(Ok(v1::AgentMessage { body: Some(agent_message::Body::Hello(hello)) }))) => hello,
            _ => {
                // The agent is gone or speaks something else; its own log says what it saw.
                let _ = self.out.send(Err(Status::invalid_argument("the first message must be Hello"))).await;
                return;
            }
        };
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (reply, answer) = oneshot::channel();
        let connect = Connect { token, hello, out: commands, reply };
        if self.inputs.send(Input::Connect(Box::new(connect))).await.is_err() {
            return;
        }
        match answer.await {
            Ok(Ok((cluster, session))) => {
                self.serve(cluster, session, stream, receiver).await;
                // The core may have stopped already.
                let _ = self.inputs.send(Input::Disconnected { cluster, session }).await;
            }
            Ok(Err(refused)) => self.send(hub_message::Body::Refused(refused)).await.unwrap_or(()),
            Err(_) => {}
        }
    }

    async fn serve(
        &self,
        cluster: ClusterId,
        session: u64,
        mut stream: Streaming<v1::AgentMessage>,
        mut commands: mpsc::Receiver<SessionCommand>,
    ) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                command = commands.recv() => {
                    let Some(command) = command else { return };
                    if self.carry_out(command).await.is_err() {
                        return;
                    }
                }
                message = stream.next() => match message {
                    Some(Ok(message)) => {
                        let input = Input::Message { cluster, session, message: Box::new(message) };
                        if self.inputs.send(input).await.is_err() {
                            return;
                        }
                    }
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
                    let id = watch.id;
                    self.stream(id, |readers, messages| stream_index(readers, watch, messages)).await?;
                }
                Ok(())
            }
            SessionCommand::Compare { watch, namespace } => {
                self.stream(watch, move |readers, messages| {
                    stream_namespace(readers, watch, namespace, messages)
                })
                .await
            }
            SessionCommand::Close(refused) => {
                self.send(hub_message::Body::Refused(refused)).await?;
                Err(())
            }
        }
    }

    async fn send(&self, body: hub_message::Body) -> Result<(), ()> {
        self.out.send(Ok(v1::HubMessage { body: Some(body) })).await.map_err(drop)
    }

    /// Streams keys of a watch, page by page, with the back-pressure of the stream.
    async fn stream<F>(&self, watch: u32, read: F) -> Result<(), ()>
    where
        F: FnOnce(&Readers, &mpsc::Sender<v1::HubMessage>) -> Result<(), StoreError> + Send + 'static,
    {
        let (messages, mut receiver) = mpsc::channel(2);
        let readers = self.readers.clone();
        let reading = tokio::task::spawn_blocking(move || read(&readers, &messages));
        while let Some(message) = receiver.recv().await {
            self.out.send(Ok(message)).await.map_err(drop)?;
        }
        match reading.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(watch, "the key index cannot be read: {error}");
                Err(())
            }
            Err(_) => Err(()),
        }
    }
}

/// Reads the index of a watch and hands it on in chunks. After a read that failed nothing more is
/// sent: an agent must not take part of an index for the whole (I3).
fn stream_index(
    readers: &Readers,
    watch: WatchRow,
    messages: &mpsc::Sender<v1::HubMessage>,
) -> Result<(), StoreError> {
    let mut reader = readers()?;
    let failed: Cell<Option<StoreError>> = Cell::new(None);
    let mut after: Option<(String, String)> = None;
    let pages = std::iter::from_fn(|| {
        let from = after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        match reader.index(watch.id, from, INDEX_PAGE) {
            Ok(page) => {
                after = page.last().map(|row| (row.namespace.clone(), row.name.clone()));
                (!page.is_empty()).then_some(page)
            }
            Err(error) => {
                failed.set(Some(error));
                None
            }
        }
    });
    let head = v1::Resume {
        watch: watch.id,
        epoch: watch.epoch,
        checkpoint: watch.checkpoint.to_string(),
        interest: watch.interest.clone(),
        api_version: watch.api_version.clone(),
        rewound: watch.rewound,
        ..v1::Resume::default()
    };
    for message in chunks(head, pages.flatten().map(entry)) {
        if let Some(error) = failed.take() {
            return Err(error);
        }
        // Nobody listens any more: the session ended.
        if messages.blocking_send(message).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// What is held of one namespace of a watch. After a read that failed nothing more is sent.
fn stream_namespace(
    readers: &Readers,
    watch: u32,
    namespace: String,
    messages: &mpsc::Sender<v1::HubMessage>,
) -> Result<(), StoreError> {
    let mut reader = readers()?;
    let mut entries = Vec::new();
    each(&mut *reader, watch, &namespace, |row| entries.push(entry(row)))?;
    let head = v1::Compare { watch, namespace, ..v1::Compare::default() };
    for message in compare_chunks(head, entries) {
        if messages.blocking_send(message).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn entry(row: IndexRow) -> v1::IndexEntry {
    let IndexRow { namespace, name, uid, resource_version, body_held, managed } = row;
    let (uid, resource_version) = (uid.to_string(), resource_version.to_string());
    v1::IndexEntry { namespace, name, uid, resource_version, body_held, managed }
}
