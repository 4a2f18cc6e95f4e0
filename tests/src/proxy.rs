//! A proxy in front of one API server, which tests tell at run time what to refuse, to hold and to cut.
//!
//! It takes plain HTTP on the loopback and hands credentials on as they come, so whoever is sent through it has
//! the same rights as without it. Discovery is always answered in its older form, group by group: then one group
//! can be refused, whatever the version of the server.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use crate::cluster::Cluster;
use crate::harness::{PATIENCE, eventually};

type Body = UnsyncBoxBody<Bytes, hyper::Error>;
type Upstream = dyn Fn(Request<Full<Bytes>>) -> BoxFuture<'static, Result<Response<Incoming>>> + Send + Sync;
type Matcher = dyn Fn(&Seen) -> bool + Send + Sync;

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Method.
    pub method: Method,
    /// Path, without the query.
    pub path: String,
    /// Query, or empty.
    pub query: String,
}

impl Seen {
    /// Does it have a parameter of this name?
    #[must_use]
    pub fn has(&self, parameter: &str) -> bool {
        self.query.split('&').any(|pair| pair.split('=').next() == Some(parameter))
    }

    /// Is it a watch?
    #[must_use]
    pub fn is_watch(&self) -> bool {
        self.method == Method::GET && self.has("watch")
    }

    /// Is it a page of a list, of any number, but no probe?
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.method == Method::GET && self.has("limit") && !self.is_probe()
    }

    /// Is it the probe that precedes a watch, a list with limit=1?
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.method == Method::GET && self.query.split('&').any(|pair| pair == "limit=1")
    }

    /// Is it about objects of this kind (plural)?
    #[must_use]
    pub fn is_about(&self, plural: &str) -> bool {
        self.path.split('/').any(|segment| segment == plural)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}?{}", self.method, self.path, self.query)
    }
}

/// What becomes of a request instead of being passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An HTTP error with a `metav1.Status`.
    Answer {
        /// HTTP status.
        code: u16,
        /// Header Retry-After.
        retry_after_s: Option<u32>,
    },
    /// The connection is closed without an answer.
    Cut,
    /// It waits until the rule is lifted, and is then passed on.
    Hold,
}

impl Fault {
    /// An HTTP error.
    #[must_use]
    pub fn answer(code: u16) -> Self {
        Self::Answer { code, retry_after_s: None }
    }
}

struct RuleState {
    id: u64,
    matches: Box<Matcher>,
    fault: Fault,
    hits: Arc<AtomicU64>,
    /// Held requests go on when this ends.
    in_force: watch::Receiver<()>,
}

struct Shared {
    upstream: Box<Upstream>,
    server: Uri,
    rules: Mutex<Vec<RuleState>>,
    next_rule: AtomicU64,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<Vec<AbortHandle>>,
    frozen: watch::Sender<bool>,
}

/// A proxy. Dropping it ends it, with all its connections.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    accept: JoinHandle<()>,
}

/// A rule in force; dropping it lifts it.
#[must_use = "a rule ends when this is dropped"]
pub struct Rule {
    shared: Arc<Shared>,
    id: u64,
    hits: Arc<AtomicU64>,
    _in_force: watch::Sender<()>,
}

impl Rule {
    /// How many requests it met.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Waits until it has met so many.
    ///
    /// # Errors
    /// When that does not come to be.
    pub async fn met(&self, requests: u64) -> Result<()> {
        eventually(PATIENCE, &format!("the fault has met {requests} requests"), async || {
            ensure!(self.hits() >= requests, "{} so far", self.hits());
            Ok(())
        })
        .await
    }

    /// Ends it.
    pub fn lift(self) {}
}

impl Drop for Rule {
    fn drop(&mut self) {
        lock(&self.shared.rules).retain(|rule| rule.id != self.id);
    }
}

impl Proxy {
    /// Starts one in front of a cluster's API server.
    ///
    /// # Errors
    /// If there is no port, or the cluster's CA cannot be read.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listening")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: upstream(cluster).await?,
            server: cluster.state().server.parse().context("the API server's URL")?,
            rules: Mutex::default(),
            next_rule: AtomicU64::new(0),
            seen: Mutex::default(),
            connections: Mutex::default(),
            frozen: watch::Sender::new(false),
        });
        let accept = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { shared, address, accept })
    }

    /// Where it listens, for a kubeconfig.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, what `matches` accepts meets a fault. Of several rules the newest counts.
    pub fn rule(&self, fault: Fault, matches: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> Rule {
        let id = self.shared.next_rule.fetch_add(1, Ordering::Relaxed);
        let (sender, in_force) = watch::channel(());
        let hits = Arc::new(AtomicU64::new(0));
        let state = RuleState { id, matches: Box::new(matches), fault, hits: Arc::clone(&hits), in_force };
        lock(&self.shared.rules).push(state);
        Rule { shared: Arc::clone(&self.shared), id, hits, _in_force: sender }
    }

    /// Nothing is passed on in either direction; connections stay open and new ones are taken, as with a process that
    /// was stopped.
    pub fn freeze(&self) {
        self.shared.frozen.send_replace(true);
    }

    /// Ends [`Self::freeze`]: whatever waited goes on.
    pub fn thaw(&self) {
        self.shared.frozen.send_replace(false);
    }

    /// Closes every connection there is, watches among them; new ones are taken.
    pub fn cut(&self) {
        for connection in lock(&self.shared.connections).drain(..) {
            connection.abort();
        }
    }

    /// The requests that arrived so far, the oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// How many requests arrived that `matches` accepts.
    pub fn count(&self, matches: impl Fn(&Seen) -> bool) -> usize {
        lock(&self.shared.seen).iter().filter(|seen| matches(seen)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // An error of accept is one of the peer, or of too many open files: the client sees it.
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let task = tokio::spawn(serve(stream, Arc::clone(&shared)));
        let mut connections = lock(&shared.connections);
        connections.retain(|connection| !connection.is_finished());
        connections.push(task.abort_handle());
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(|request| handle(Arc::clone(&shared), request));
    // However it ends, the client notices.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// An error closes the connection without an answer.
async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>> {
    let seen = Seen {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
    };
    lock(&shared.seen).push(seen.clone());
    shared.thawed().await;
    match shared.fault(&seen) {
        Some((Fault::Answer { code, retry_after_s }, _)) => return answer(code, retry_after_s),
        Some((Fault::Cut, _)) => bail!("cut"),
        // An error says that the rule is gone.
        Some((Fault::Hold, mut in_force)) => while in_force.changed().await.is_ok() {},
        None => {}
    }
    let outgoing = shared.outgoing(request).await?;
    let (parts, body) = (shared.upstream)(outgoing).await?.into_parts();
    shared.thawed().await;
    let frames = BodyStream::new(body).and_then(move |frame| {
        let shared = Arc::clone(&shared);
        async move {
            shared.thawed().await;
            Ok(frame)
        }
    });
    Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync()))
}

impl Shared {
    async fn thawed(&self) {
        // It fails when the proxy is gone, and this connection is about to be.
        let _ = self.frozen.subscribe().wait_for(|frozen| !frozen).await;
    }

    fn fault(&self, seen: &Seen) -> Option<(Fault, watch::Receiver<()>)> {
        let rules = lock(&self.rules);
        let rule = rules.iter().rev().find(|rule| (rule.matches)(seen))?;
        rule.hits.fetch_add(1, Ordering::Relaxed);
        Some((rule.fault, rule.in_force.clone()))
    }

    /// The same request for the server. Bodies of requests are single objects: they are read whole.
    async fn outgoing(&self, request: Request<Incoming>) -> Result<Request<Full<Bytes>>> {
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await.context("reading a request")?.to_bytes();
        let mut uri = self.server.clone().into_parts();
        uri.path_and_query = parts.uri.into_parts().path_and_query;
        parts.uri = Uri::from_parts(uri)?;
        parts.headers.remove(header::HOST);
        parts.headers.remove(header::TRANSFER_ENCODING);
        if matches!(parts.uri.path(), "/api" | "/apis") {
            parts.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
            parts.headers.remove(header::IF_NONE_MATCH);
        }
        Ok(Request::from_parts(parts, Full::new(body)))
    }
}

fn answer(code: u16, retry_after_s: Option<u32>) -> Result<Response<Body>> {
    let status = StatusCode::from_u16(code)?;
    let reason = status.canonical_reason().unwrap_or_default().replace(' ', "");
    let text = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "refused by the test's proxy", "reason": reason, "code": code,
    });
    let mut response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    if let Some(seconds) = retry_after_s {
        response = response.header(header::RETRY_AFTER, seconds);
    }
    let body = Full::new(Bytes::from(serde_json::to_vec(&text)?));
    Ok(response.body(body.map_err(|never| match never {}).boxed_unsync())?)
}

/// Sends to a cluster's API server, trusting its CA, with no credentials of our own.
async fn upstream(cluster: &Cluster) -> Result<Box<Upstream>> {
    let state = cluster.state();
    let kubeconfig: Kubeconfig = serde_json::from_value(json!({
        "clusters": [{"name": "it", "cluster": {"server": state.server, "certificate-authority": state.ca}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "nobody"}}],
        "current-context": "it",
    }))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = Client::builder(TokioExecutor::new()).build(config.rustls_https_connector()?);
    Ok(Box::new(move |request| {
        let sent = client.request(request);
        Box::pin(async move { sent.await.context("asking the API server") })
    }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_a_probe_and_a_watch_are_told_apart() {
        let seen = |query: &str| Seen {
            method: Method::GET,
            path: "/api/v1/namespaces/shop/secrets".to_owned(),
            query: query.to_owned(),
        };
        for (query, list, probe, watch) in [
            ("limit=500", true, false, false),
            ("limit=500&continue=x", true, false, false),
            ("limit=1", false, true, false),
            ("watch=true&resourceVersion=1", false, false, true),
            ("", false, false, false),
        ] {
            let seen = seen(query);
            assert_eq!((seen.is_list(), seen.is_probe(), seen.is_watch()), (list, probe, watch), "{query}");
            assert!(seen.is_about("secrets") && !seen.is_about("configmaps"));
        }
        assert!(seen("limit=500&continue=x").has("continue") && !seen("limit=500").has("continue"));
    }

    #[test]
    fn a_refusal_is_a_status_as_api_servers_give_it() {
        let response = answer(429, Some(2)).unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[header::RETRY_AFTER]),
            (429, &"2".parse().unwrap())
        );
    }
}
