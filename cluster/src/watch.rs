//! The list-watch driver: carries out what [`lockstep_engine::listwatch::Machine`] decides.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use kube::client::Body;
use lockstep_engine::listwatch::{
    Command, Event, Input, Machine, Observation, Output, RequestFailure, Settings, Start, WATCH_IDLE_MS,
    streams_lists,
};
use lockstep_engine::outcome::Status;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::client::{Call, ClusterClient, Reply};
use crate::error::RequestError;
use crate::frame::{FrameError, LineSplitter, frame};
use crate::page::{ListPage, page};
use crate::resource::{Resource, Scope, with_query};

/// Asks for every object first, as of the moment of the request (no resourceVersion), then a bookmark.
const STREAMED_LIST: [(&str, &str); 2] =
    [("sendInitialEvents", "true"), ("resourceVersionMatch", "NotOlderThan")];

/// What to watch, and from where.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Kind and version.
    pub resource: Resource,
    /// Whole cluster or one namespace.
    pub scope: Scope,
    /// From nothing or from a committed checkpoint.
    pub start: Start,
    /// The number of the last list made of this watch.
    pub epoch: u64,
    /// Of the jitter; differ it per watch.
    pub seed: u64,
    /// Stream lists rather than ask for pages? Nothing: where the server's version does so by
    /// default. A version that does not know them, or none ([`ClusterClient::identity`] was not
    /// asked), is listed in pages whatever this says.
    pub streaming: Option<bool>,
    /// A watch that hears nothing for so long is renewed, ms.
    pub idle_ms: u64,
}

impl WatchOptions {
    /// Everything else as it is best.
    #[must_use]
    pub fn new(resource: Resource, scope: Scope, start: Start, epoch: u64, seed: u64) -> Self {
        Self { resource, scope, start, epoch, seed, streaming: None, idle_ms: WATCH_IDLE_MS }
    }
}

/// Runs one list-watch until it is cancelled or nobody receives any more.
///
/// `wrap` turns an observation into what the channel carries, so that many watches can share one.
/// The channel's bound is the back-pressure: a full channel stops reading from the server. Dropping
/// the future at any point is safe.
pub async fn run_watch<M: Send>(
    client: &ClusterClient,
    options: WatchOptions,
    observations: mpsc::Sender<M>,
    wrap: impl Fn(Observation<Bytes>) -> M + Send + Sync,
    cancelled: CancellationToken,
) {
    let WatchOptions { resource, scope, start, epoch, seed, streaming, idle_ms } = options;
    let streaming = client.server_version().is_some_and(|version| streams_lists(version, streaming));
    let driver = Driver {
        path: resource.scope(&scope),
        machine: Machine::new(Settings { epoch, seed, streaming, idle_ms }),
        out: Vec::new(),
        client,
        observations,
        wrap,
    };
    // Either way there is nothing left to do.
    let _: Option<Result<(), Closed>> = cancelled.run_until_cancelled(driver.run(start)).await;
}

/// The receiver is gone.
struct Closed;

struct Driver<'a, M, W> {
    path: String,
    machine: Machine<Bytes>,
    out: Vec<Output<Bytes>>,
    client: &'a ClusterClient,
    observations: mpsc::Sender<M>,
    wrap: W,
}

impl<M: Send, W: Fn(Observation<Bytes>) -> M + Send + Sync> Driver<'_, M, W> {
    async fn run(mut self, start: Start) -> Result<(), Closed> {
        self.machine.start(start, &mut self.out);
        let mut next = self.flush().await?;
        // A machine without a command would be a mistake in it: end rather than spin.
        while let Some(command) = next {
            next = match command {
                Command::List { limit, continue_token } => {
                    let input = self.list(limit, continue_token.as_deref()).await;
                    self.feed(input).await?
                }
                Command::Probe { timeout_ms } => {
                    let input = self.probe(Duration::from_millis(timeout_ms)).await;
                    self.feed(input).await?
                }
                Command::Sleep { ms } => {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    self.feed(Input::Fired).await?
                }
                Command::Watch { from, timeout_s, cut_off_ms, idle_ms } => {
                    let path = self.watch_path(&[("resourceVersion", from.as_str())], timeout_s);
                    self.watch(&path, cut_off_ms, idle_ms).await?
                }
                Command::Stream { timeout_s, cut_off_ms, idle_ms } => {
                    let path = self.watch_path(&STREAMED_LIST, timeout_s);
                    self.watch(&path, cut_off_ms, idle_ms).await?
                }
            };
        }
        Ok(())
    }

    async fn feed(&mut self, input: Input<Bytes>) -> Result<Option<Command>, Closed> {
        self.machine.step(input, self.client.now(), &mut self.out);
        self.flush().await
    }

    /// Hands observations on; answers the command, if there is one.
    async fn flush(&mut self) -> Result<Option<Command>, Closed> {
        let mut command = None;
        for output in self.out.drain(..) {
            match output {
                Output::Command(next) => command = Some(next),
                Output::Observation(observation) => {
                    if let Observation::StateChanged(health) = &observation {
                        tracing::debug!(path = %self.path, ?health, "list-watch state");
                    }
                    self.observations.send((self.wrap)(observation)).await.map_err(|_| Closed)?;
                }
            }
        }
        Ok(command)
    }

    async fn list(&self, limit: u32, continue_token: Option<&str>) -> Input<Bytes> {
        let limit = limit.to_string();
        let mut parameters = vec![("limit", limit.as_str())];
        if let Some(token) = continue_token {
            parameters.push(("continue", token));
        }
        let path = with_query(&self.path, &parameters);
        self.read_page(self.client.list(Call::get(&path)).await)
    }

    async fn probe(&self, timeout: Duration) -> Input<Bytes> {
        let path = with_query(&self.path, &[("limit", "1")]);
        match self.read_page(self.client.probe(Call::get(&path), timeout).await) {
            Input::Page { resource_version, .. } => Input::Probed { resource_version },
            other => other,
        }
    }

    fn read_page(&self, reply: Result<Reply, RequestError>) -> Input<Bytes> {
        match reply {
            Err(error) => Input::Failed(request_failure(&error)),
            Ok(reply) if !reply.is_success() => Input::Failed(refused(&reply)),
            Ok(reply) => match page(&reply.body) {
                Err(error) => {
                    tracing::warn!(path = %self.path, %error, "a list page could not be read");
                    Input::Failed(RequestFailure::Undecodable)
                }
                Ok(ListPage { items, continue_token, resource_version }) => {
                    Input::Page { items, continue_token, resource_version }
                }
            },
        }
    }

    fn watch_path(&self, parameters: &[(&str, &str)], timeout_s: u32) -> String {
        let timeout = timeout_s.to_string();
        let common = [("watch", "true"), ("allowWatchBookmarks", "true"), ("timeoutSeconds", &timeout)];
        with_query(&self.path, &[&common, parameters].concat())
    }

    /// One watch from opening to end; answers the command that follows it.
    async fn watch(&mut self, path: &str, cut_off_ms: u64, idle_ms: u64) -> Result<Option<Command>, Closed> {
        let cut_off = Instant::now() + Duration::from_millis(cut_off_ms);
        let (mut body, _permit) = match self.client.open(path).await {
            Err(error) => return self.feed(Input::Failed(request_failure(&error))).await,
            Ok(Err(reply)) => return self.feed(Input::Failed(refused(&reply))).await,
            Ok(Ok(open)) => open,
        };
        let mut next = self.feed(Input::Opened).await?;
        let mut lines = LineSplitter::new(self.client.limits().object_bytes);
        while next.is_none() {
            let end = match lines.next_line() {
                Ok(Some(line)) => {
                    next = self.feed(Input::Event(frame(&line))).await?;
                    continue;
                }
                Ok(None) => {
                    // Counted from now: while nobody took what was read, silence was ours.
                    let idle = Instant::now() + Duration::from_millis(idle_ms);
                    match timeout_at(cut_off.min(idle), chunk(&mut body)).await {
                        Ok(Some(bytes)) => {
                            lines.push(bytes);
                            continue;
                        }
                        Err(_) if idle < cut_off => {
                            tracing::debug!(path = %self.path, idle_ms, "a watch is silent; it is renewed");
                            Input::Stale
                        }
                        // The server's end, a broken connection, or our cut-off.
                        Ok(None) | Err(_) => Input::Ended,
                    }
                }
                Err(FrameError::TooLong { limit }) => {
                    tracing::warn!(path = %self.path, limit, "a line of the watch is too long");
                    return self.feed(Input::Failed(RequestFailure::TooLong)).await;
                }
            };
            // A last line without its end may be cut: only a whole event counts.
            let last = lines.finish().map(|line| frame(&line));
            if let Some(event) = last.filter(|event| !matches!(event, Event::Undecodable { .. })) {
                next = self.feed(Input::Event(event)).await?;
            }
            if next.is_none() {
                return self.feed(end).await;
            }
        }
        Ok(next)
    }
}

/// The next data of a body; nothing at its end or when the connection breaks.
async fn chunk(body: &mut Body) -> Option<Bytes> {
    loop {
        match body.frame().await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(data);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a watch broke");
                return None;
            }
        }
    }
}

fn refused(reply: &Reply) -> RequestFailure {
    RequestFailure::from_status(reply.status, &Status::parse(&reply.body), reply.retry_after_ms)
}

fn request_failure(error: &RequestError) -> RequestFailure {
    match error {
        RequestError::Timeout { .. } => RequestFailure::Timeout,
        RequestError::TooLarge { .. } => RequestFailure::TooLong,
        RequestError::Undecodable { .. } => RequestFailure::Undecodable,
        RequestError::Build(_) => RequestFailure::Rejected,
        RequestError::Unreachable(_) | RequestError::Refused { .. } => RequestFailure::Unreachable,
    }
}
