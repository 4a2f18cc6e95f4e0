//! The stream to the hub: connect, keep alive, connect again. Knows gRPC and nothing else.

use std::path::Path;
use std::time::Duration;

use lockstep_wire::v1::hub_client::HubClient;
use lockstep_wire::v1::{AgentMessage, HubMessage, hub_message::Body};
use lockstep_wire::{MAX_MESSAGE_BYTES, v1};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};

use crate::ambient::Ambient;
use crate::config::{AgentConfig, TlsConfig};
use crate::error::{AgentError, HUB_UNREACHABLE, TOKEN_REFUSED};
use crate::retry::lived_well;

/// Messages on their way into the transport. The session's window bounds the bytes; this only
/// keeps the transport busy while the owner works.
const OUTGOING: usize = 16;
/// A NAT forgets quiet connections within minutes; a dead hub is noticed within half a minute.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// No answer to a keepalive within this: the connection is dead.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// For TCP and TLS to a hub far away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 window: above the session's own, which is to be the one that counts.
const STREAM_WINDOW: u32 = 16 << 20;
/// A hub that refused and named no time: somebody must change something first.
const REFUSED_WAIT: Duration = Duration::from_secs(300);
/// A hub that refuses and names a time is believed up to here: no answer strands an agent for good.
const LONGEST_REFUSED_WAIT: Duration = Duration::from_secs(60 * 60);

/// What happens on the way to the hub.
pub(crate) enum StreamEvent {
    /// A connection is there; the first message goes into `out`. `close` ends it.
    Opening { out: mpsc::Sender<AgentMessage>, close: CancellationToken },
    /// From the hub.
    Message(Box<HubMessage>),
    /// The stream is gone; the next one is being opened.
    Closed,
}

/// The owner is gone.
struct NobodyListens;

/// Reaches the hub.
pub trait Dial: Send + 'static {
    /// A way to the hub that is open.
    type Line: Line;

    /// Opens one. The error says why not.
    fn connect(&mut self) -> impl Future<Output = Result<Self::Line, String>> + Send;
}

/// A way to the hub, for one session.
pub trait Line: Send {
    /// What the hub says.
    type Incoming: Stream<Item = Result<HubMessage, Status>> + Send + Unpin;

    /// Begins the session: `outgoing` is what the agent says.
    fn session(
        self,
        outgoing: ReceiverStream<AgentMessage>,
    ) -> impl Future<Output = Result<Self::Incoming, Status>> + Send;
}

/// gRPC over HTTP/2, with TLS where the address says so.
pub(crate) struct Grpc {
    endpoint: Endpoint,
    authorization: MetadataValue<Ascii>,
}

impl Grpc {
    /// # Errors
    /// When hub address or certificates cannot be used.
    pub(crate) fn new(config: &AgentConfig) -> Result<Self, AgentError> {
        let bad = |field, why| AgentError::Config { field, why };
        let mut endpoint = Endpoint::from_shared(config.hub.clone())
            .map_err(|_| bad("hub", "it is no URL"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW);
        if config.hub.starts_with("https://") {
            endpoint = endpoint.tls_config(tls(&config.tls)?).map_err(AgentError::Tls)?;
        }
        let mut authorization: MetadataValue<Ascii> = format!("Bearer {}", config.token.reveal())
            .parse()
            .map_err(|_| bad("token", "it contains characters that no token has"))?;
        authorization.set_sensitive(true);
        Ok(Self { endpoint, authorization })
    }
}

/// A connection of [`Grpc`].
pub(crate) struct Connection {
    channel: Channel,
    authorization: MetadataValue<Ascii>,
}

impl Dial for Grpc {
    type Line = Connection;

    async fn connect(&mut self) -> Result<Connection, String> {
        let channel = self.endpoint.connect().await.map_err(|error| root_cause(&error))?;
        Ok(Connection { channel, authorization: self.authorization.clone() })
    }
}

impl Line for Connection {
    type Incoming = Streaming<HubMessage>;

    async fn session(self, outgoing: ReceiverStream<AgentMessage>) -> Result<Self::Incoming, Status> {
        let mut request = Request::new(outgoing);
        request.metadata_mut().insert("authorization", self.authorization);
        let mut client = HubClient::new(self.channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Zstd);
        Ok(client.session(request).await?.into_inner())
    }
}

/// Keeps a stream to the hub open until cancelled.
pub(crate) struct Connector<D> {
    dial: D,
    ambient: Ambient,
    hub: String,
    events: mpsc::Sender<StreamEvent>,
    /// What was logged last: the same trouble is told once, not every few seconds.
    told: String,
    /// When the hub welcomed us on the stream that is open.
    welcomed: Option<Instant>,
}

impl<D: Dial> Connector<D> {
    pub(crate) fn new(hub: &str, dial: D, ambient: Ambient, events: mpsc::Sender<StreamEvent>) -> Self {
        Self { dial, ambient, hub: hub.to_owned(), events, told: String::new(), welcomed: None }
    }

    pub(crate) async fn run(mut self, cancelled: CancellationToken) {
        // Either way there is nothing left to do.
        let _: Option<NobodyListens> = cancelled.run_until_cancelled(self.connect_for_ever()).await;
    }

    async fn connect_for_ever(&mut self) -> NobodyListens {
        let mut retry = self.ambient.retry();
        loop {
            let pause = match self.once().await {
                Ok(pause) => pause,
                Err(gone) => return gone,
            };
            let lived = self.welcomed.take().map_or(Duration::ZERO, |welcomed| welcomed.elapsed());
            if lived_well(lived) {
                self.told.clear();
            }
            if self.events.send(StreamEvent::Closed).await.is_err() {
                return NobodyListens;
            }
            tokio::time::sleep(retry.after(lived, pause)).await;
        }
    }

    /// One stream from opening to end; how long to wait after it, where the hub said so.
    async fn once(&mut self) -> Result<Option<Duration>, NobodyListens> {
        let line = match self.dial.connect().await {
            Ok(line) => line,
            Err(why) => {
                self.trouble(HUB_UNREACHABLE, "the hub cannot be reached", &why);
                return Ok(None);
            }
        };
        let (out, outgoing) = mpsc::channel(OUTGOING);
        let close = CancellationToken::new();
        let opening = StreamEvent::Opening { out, close: close.clone() };
        self.events.send(opening).await.map_err(|_| NobodyListens)?;
        match close.run_until_cancelled(self.converse(line, ReceiverStream::new(outgoing))).await {
            Some(done) => done,
            None => Ok(None),
        }
    }

    async fn converse(
        &mut self,
        line: D::Line,
        outgoing: ReceiverStream<AgentMessage>,
    ) -> Result<Option<Duration>, NobodyListens> {
        let mut incoming = match line.session(outgoing).await {
            Ok(incoming) => incoming,
            Err(status) => {
                self.status(&status);
                return Ok(None);
            }
        };
        let mut pause = None;
        loop {
            let message = match incoming.next().await {
                Some(Ok(message)) => message,
                None => return Ok(pause),
                Some(Err(status)) => {
                    if pause.is_none() {
                        self.status(&status);
                    }
                    return Ok(pause);
                }
            };
            match &message.body {
                Some(Body::Welcome(_)) => self.welcomed = Some(Instant::now()),
                Some(Body::Refused(refused)) => pause = Some(self.refused(refused)),
                _ => {}
            }
            self.events.send(StreamEvent::Message(Box::new(message))).await.map_err(|_| NobodyListens)?;
        }
    }

    fn refused(&mut self, refused: &v1::Refused) -> Duration {
        let v1::Refused { code, message, remedy, retry_after_ms } = refused;
        let wait = refused_wait(*retry_after_ms);
        tracing::error!(%code, hub = %self.hub, wait_s = wait.as_secs(), "the hub refused this agent: {message}; {remedy}");
        wait
    }

    fn status(&mut self, status: &Status) {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => {
                self.trouble(
                    TOKEN_REFUSED,
                    "the hub does not know this agent's token; make one for this cluster on the hub",
                    status.message(),
                );
            }
            _ => self.trouble(HUB_UNREACHABLE, "the stream to the hub broke", status.message()),
        }
    }

    fn trouble(&mut self, code: &str, what: &str, why: &str) {
        let text = format!("{code}{why}");
        if self.told == text {
            tracing::debug!(code, hub = %self.hub, why, "{what}");
        } else {
            tracing::warn!(code, hub = %self.hub, why, "{what}; watches go on, and what they find waits");
            self.told = text;
        }
    }
}

/// How long to stay away from a hub that refused.
fn refused_wait(retry_after_ms: u64) -> Duration {
    match retry_after_ms {
        0 => REFUSED_WAIT,
        ms => Duration::from_millis(ms).min(LONGEST_REFUSED_WAIT),
    }
}

fn tls(config: &TlsConfig) -> Result<ClientTlsConfig, AgentError> {
    let TlsConfig { ca, server_name, certificate, key } = config;
    let mut tls = ClientTlsConfig::new();
    tls = match ca {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
        None => tls.with_native_roots(),
    };
    if let Some(name) = server_name {
        tls = tls.domain_name(name);
    }
    if let (Some(certificate), Some(key)) = (certificate, key) {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}

fn read(path: &Path) -> Result<Vec<u8>, AgentError> {
    std::fs::read(path).map_err(|source| AgentError::TlsFile { path: path.to_owned(), source })
}

/// The innermost cause says it shortest: connection refused, certificate expired.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_of_a_hub_strands_an_agent() {
        assert_eq!(refused_wait(0), REFUSED_WAIT);
        assert_eq!(refused_wait(1_500), Duration::from_millis(1_500));
        assert_eq!(refused_wait(u64::MAX), LONGEST_REFUSED_WAIT);
    }
}
