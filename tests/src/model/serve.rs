//! The model behind plain HTTP on loopback: agents and hub run against it unchanged.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderName, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::faults::verb_of;
use super::http::{Answer, Polled, Request, Response, WatchId};
use super::server::{ApiServer, Millis};

/// How often watches look at the clock for bookmarks and timeouts; writes wake them at once.
const CLOCK: Duration = Duration::from_secs(1);
/// How often controllers take a step, unless a test says otherwise.
const TICK: Duration = Duration::from_millis(100);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The way to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Open.
    Open,
    /// Connections end, and new ones too.
    Cut,
    /// Connections stay and are made, and nothing comes back.
    Silent,
}

/// What was asked, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// As a [`super::Matcher`] calls it.
    pub verb: &'static str,
    /// Plural resource; empty for discovery.
    pub resource: String,
    /// HTTP status; 0 where the connection broke.
    pub status: u16,
}

/// What came over HTTP so far.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Requests.
    pub requests: BTreeMap<Asked, u64>,
    /// Deletes of objects that were carried out, by path.
    pub deleted: BTreeMap<String, u64>,
}

/// One simulated API server that listens. It ends when this is dropped.
#[derive(Debug)]
pub struct Served {
    shared: Arc<Shared>,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    server: Mutex<ApiServer>,
    /// Grows with every change, so that watches look.
    changes: watch::Sender<u64>,
    way: watch::Sender<Way>,
    traffic: Mutex<Traffic>,
}

impl Served {
    /// Serves a model on a port of the system's choice. Controllers tick by themselves.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(server: ApiServer) -> Result<Self> {
        Self::start_ticking(server, TICK).await
    }

    /// The same, with controllers that take a step so often: hundreds of servers have better to do.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start_ticking(server: ApiServer, every: Duration) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening on loopback")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server: Mutex::new(server),
            changes: watch::Sender::new(0),
            way: watch::Sender::new(Way::Open),
            traffic: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        tasks.spawn(tick(Arc::clone(&shared), every));
        Ok(Self { shared, address, _tasks: tasks })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig with one context of this name, for a user of this name.
    #[must_use]
    pub fn kubeconfig(&self, context: &str, user: &str) -> String {
        kubeconfig(&[(context, self)], user)
    }

    /// Does something with the model, as of now: faults, users, restores.
    pub fn with<T>(&self, act: impl FnOnce(&mut ApiServer, Millis) -> T) -> T {
        let done = act(&mut self.shared.lock(), now());
        self.shared.changed();
        done
    }

    /// Reads the model, and wakes nobody.
    pub fn look<T>(&self, look: impl FnOnce(&ApiServer) -> T) -> T {
        look(&self.shared.lock())
    }

    /// Waits until the model is so; looks at every change.
    pub async fn reached(&self, is_so: impl Fn(&ApiServer) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        while !self.look(&is_so) {
            // The sender lives as long as this.
            let _ = changes.changed().await;
        }
    }

    /// Partitions the server from all who talk to it, or ends that.
    pub fn set_way(&self, way: Way) {
        self.shared.way.send_replace(way);
    }

    /// What came over HTTP so far; users of [`Self::with`] come another way.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic().clone()
    }
}

/// A kubeconfig with a context per server; the first is the current one. The user is known by the token.
#[must_use]
pub fn kubeconfig(servers: &[(&str, &Served)], user: &str) -> String {
    let (mut clusters, mut users, mut contexts) = (String::new(), String::new(), String::new());
    for (name, served) in servers {
        clusters += &format!("- name: {name}\n  cluster:\n    server: {}\n", served.url());
        users += &format!("- name: {name}\n  user:\n    token: {user}\n");
        contexts += &format!("- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n");
    }
    let current = servers.first().map_or("", |(name, _)| name);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {current}\nclusters:\n{clusters}users:\n{users}contexts:\n{contexts}"
    )
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ApiServer> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, request: &Request, response: &Response) {
        let (verb, target) = verb_of(request);
        let status = match response {
            Response::Full(answer) => answer.status,
            Response::Watch(_) => StatusCode::OK.as_u16(),
            Response::Dropped => 0,
        };
        let mut traffic = self.traffic();
        if verb == "delete" && status < 300 {
            *traffic.deleted.entry(request.path.clone()).or_default() += 1;
        }
        *traffic.requests.entry(Asked { verb, resource: target.plural, status }).or_default() += 1;
    }

    /// Waits while nothing comes through.
    async fn audible(&self) {
        // It fails when the server is gone, and this connection is about to be.
        let _ = self.way.subscribe().wait_for(|way| *way != Way::Silent).await;
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

async fn tick(shared: Arc<Shared>, every: Duration) {
    let mut interval = tokio::time::interval(every);
    loop {
        interval.tick().await;
        if shared.lock().tick(now()) > 0 {
            shared.changed();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, Arc::clone(&shared)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut way = shared.way.subscribe();
    let service = hyper::service::service_fn(|request| handle(Arc::clone(&shared), request));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // However it ends, the client notices.
    tokio::select! {
        _ = connection => {}
        _ = way.wait_for(|way| *way == Way::Cut) => {}
    }
}

/// An error closes the connection without an answer.
async fn handle(shared: Arc<Shared>, request: http::Request<Incoming>) -> Result<http::Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.context("reading a request")?.to_bytes();
    let text = |name: HeaderName| header_text(&parts.headers, &name);
    let request = Request {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        content_type: text(header::CONTENT_TYPE),
        accept: text(header::ACCEPT),
        if_none_match: Some(text(header::IF_NONE_MATCH)).filter(|text| !text.is_empty()),
        user_agent: text(header::USER_AGENT),
        user: text(header::AUTHORIZATION).trim_start_matches("Bearer ").to_owned(),
        body,
    };
    shared.audible().await;
    let reply = shared.lock().handle(now(), &request);
    shared.count(&request, &reply.response);
    if request.method != "GET" {
        shared.changed();
    }
    if reply.after_ms > 0 {
        tokio::time::sleep(Duration::from_millis(reply.after_ms)).await;
    }
    shared.audible().await;
    match reply.response {
        Response::Full(answer) => full(answer),
        Response::Watch(id) => stream_of(shared, id),
        Response::Dropped => anyhow::bail!("dropped"),
    }
}

fn header_text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn full(answer: Answer) -> Result<http::Response<Body>> {
    let mut response = http::Response::builder()
        .status(StatusCode::from_u16(answer.status)?)
        .header(header::CONTENT_TYPE, answer.content_type);
    if let Some(seconds) = answer.retry_after_s {
        response = response.header(header::RETRY_AFTER, seconds);
    }
    if let Some(etag) = answer.etag {
        response = response.header(header::ETAG, etag);
    }
    Ok(response.body(Full::new(answer.body).boxed_unsync())?)
}

/// Closes the watch when the client goes.
struct Open {
    shared: Arc<Shared>,
    id: WatchId,
    changes: watch::Receiver<u64>,
    ended: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.lock().close(self.id);
    }
}

fn stream_of(shared: Arc<Shared>, id: WatchId) -> Result<http::Response<Body>> {
    let changes = shared.changes.subscribe();
    let open = Open { shared, id, changes, ended: false };
    let frames = stream::unfold(open, |mut open| async move {
        while !open.ended {
            open.shared.audible().await;
            open.changes.mark_unchanged();
            let polled = open.shared.lock().poll(open.id, now());
            let lines = match polled {
                Polled::Lines(lines) => lines,
                Polled::Ended(lines) => {
                    open.ended = true;
                    lines
                }
            };
            if !lines.is_empty() {
                let chunk = Bytes::from(lines.concat());
                return Some((Ok::<_, Infallible>(Frame::data(chunk)), open));
            }
            if !open.ended {
                // Either way it looks again: a change, or the clock.
                let _ = tokio::time::timeout(CLOCK, open.changes.changed()).await;
            }
        }
        None
    });
    let response = http::Response::builder().header(header::CONTENT_TYPE, "application/json");
    Ok(response.body(StreamBody::new(frames).boxed_unsync())?)
}
