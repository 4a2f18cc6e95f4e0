//! One cluster's API server: connections, limits, single requests.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Config;
use kube::client::{Body, ConfigExt as _};
use lockstep_engine::clock::Clock;
use lockstep_engine::listwatch::PAGE_BYTES;
use lockstep_engine::outcome::{Failure, Operation, Sensitivity, classify};
use lockstep_engine::{Millis, Uid};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tower::{BoxError, ServiceBuilder};

use crate::body::collect;
use crate::connect::ConnectError;
use crate::error::{RequestError, position};

/// To establish TCP; a server farther away than this is not reachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of one request with its answer. API servers give up on a request after 60 s, on a write after 34 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
/// Of one page of a list: servers take up to 60 s.
const LIST_TIMEOUT: Duration = Duration::from_secs(75);
/// Idle connections are kept this long. API servers close them later, load balancers after 60 s or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// TCP keepalive finds a dead peer long before a watch's cut-off does.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// What lockstep calls itself: `lockstep/<version>`.
const USER_AGENT: &str = concat!("lockstep/", env!("CARGO_PKG_VERSION"));
/// A 429's Retry-After is in seconds.
const MS_PER_S: u64 = 1_000;

/// Bounds on what one cluster may cost us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Reads and writes at a time; each takes a connection (HTTP/1.1).
    pub requests: usize,
    /// List pages at a time: a list costs an API server five times its size in memory.
    pub lists: usize,
    /// Watches at a time; each takes a connection.
    pub watches: usize,
    /// Longest line of a watch, largest answer to a read or write, in bytes. Objects are at most
    /// about 1.5 MiB in etcd; JSON and aggregated servers need room.
    pub object_bytes: usize,
    /// Largest page of a list, in bytes.
    pub page_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: 32, lists: 2, watches: 512, object_bytes: 16 << 20, page_bytes: PAGE_BYTES }
    }
}

/// Who a cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// Uid of the namespace kube-system; survives an etcd restore.
    pub uid: Uid,
    /// `gitVersion`, as in `v1.20.2`.
    pub version: String,
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The body; a `metav1.Status` where the status is no success.
    pub body: Bytes,
    /// From the header Retry-After.
    pub retry_after_ms: Option<u64>,
    /// From the header ETag.
    pub etag: Option<String>,
}

impl Reply {
    /// 2xx?
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn failure(&self, operation: Operation, sensitivity: Sensitivity) -> Failure {
        classify(self.status, &self.body, operation, sensitivity, self.retry_after_ms)
    }
}

/// A client of one cluster. Cheap to clone; clones share connections and limits.
#[derive(Clone)]
pub struct ClusterClient {
    inner: kube::Client,
    server: Arc<str>,
    limits: Arc<Limits>,
    requests: Arc<Semaphore>,
    lists: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    /// `gitVersion`, once it was asked for.
    version: Arc<OnceLock<String>>,
    clock: Clock,
}

impl std::fmt::Debug for ClusterClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterClient").field("server", &self.server).finish_non_exhaustive()
    }
}

/// What to send.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) accept: &'a str,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) body: Vec<u8>,
    pub(crate) if_none_match: Option<&'a str>,
}

impl<'a> Call<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            accept: "application/json",
            content_type: None,
            body: Vec::new(),
            if_none_match: None,
        }
    }

    fn request(self) -> Result<Request<Body>, RequestError> {
        let mut builder =
            Request::builder().method(self.method).uri(self.path).header(header::ACCEPT, self.accept);
        if let Some(content_type) = self.content_type {
            builder = builder.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(etag) = self.if_none_match {
            builder = builder.header(header::IF_NONE_MATCH, etag);
        }
        builder.body(Body::from(self.body)).map_err(RequestError::Build)
    }
}

impl ClusterClient {
    /// A client; nothing is sent yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When credentials, certificates or the proxy of the configuration cannot be used.
    pub fn new(config: Config, limits: Limits) -> Result<Self, ConnectError> {
        let server = config.cluster_url.to_string();
        refuse_proxy(&config)?;
        let inner = build(config, &limits)
            .map_err(|source| ConnectError::Client { server: server.clone(), source: Box::new(source) })?;
        Ok(Self::over(inner, &server, limits, Clock::new(system_now)))
    }

    /// A client over a transport of the caller's own, which knows where the server is and who asks,
    /// and over the caller's clock.
    #[must_use]
    pub fn over(transport: kube::Client, server: &str, limits: Limits, clock: Clock) -> Self {
        Self {
            inner: transport,
            server: server.into(),
            requests: Arc::new(Semaphore::new(limits.requests)),
            lists: Arc::new(Semaphore::new(limits.lists)),
            watches: Arc::new(Semaphore::new(limits.watches)),
            limits: Arc::new(limits),
            version: Arc::default(),
            clock,
        }
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    /// What the server called its version when [`Self::identity`] was first asked; it decides whether
    /// lists are streamed.
    #[must_use]
    pub fn server_version(&self) -> Option<&str> {
        self.version.get().map(String::as_str)
    }

    /// URL of the server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The limits given.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Uid of kube-system and version of the server.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn identity(&self) -> Result<ClusterIdentity, RequestError> {
        #[derive(Deserialize)]
        struct Namespace {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        struct Metadata {
            uid: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        let namespace: Namespace =
            self.get_json("/api/v1/namespaces/kube-system", "the namespace kube-system").await?;
        let Version { git_version: version } = self.get_json("/version", "the server version").await?;
        // The first answer stays: a server that is upgraded meanwhile is listed in pages as before.
        let _ = self.version.set(version.clone());
        Ok(ClusterIdentity { uid: Uid::new(&namespace.metadata.uid), version })
    }

    /// GETs any path and hands back the answer, whatever its status.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Result<Reply, RequestError> {
        self.call(Call::get(path)).await
    }

    pub(crate) async fn get_json<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        what: &'static str,
    ) -> Result<T, RequestError> {
        let reply = self.get(path).await?;
        if !reply.is_success() {
            let failure = Box::new(reply.failure(Operation::Read, Sensitivity::Plain));
            return Err(RequestError::Refused { what, failure });
        }
        serde_json::from_slice(&reply.body)
            .map_err(|error| RequestError::Undecodable { what, why: position(&error) })
    }

    /// A read or write.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Reply, RequestError> {
        self.bounded(call, &self.requests, REQUEST_TIMEOUT, self.limits.object_bytes).await
    }

    /// A page of a list.
    pub(crate) async fn list(&self, call: Call<'_>) -> Result<Reply, RequestError> {
        self.bounded(call, &self.lists, LIST_TIMEOUT, self.limits.page_bytes).await
    }

    /// A list of one object. It does not queue behind big lists, nor do the probes of many watches
    /// behind each other when the server hangs.
    pub(crate) async fn probe(&self, call: Call<'_>, timeout: Duration) -> Result<Reply, RequestError> {
        // An aggregated API server may not know `limit`.
        self.bounded(call, &self.requests, timeout, self.limits.page_bytes).await
    }

    async fn bounded(
        &self,
        call: Call<'_>,
        semaphore: &Semaphore,
        timeout: Duration,
        limit: usize,
    ) -> Result<Reply, RequestError> {
        let request = call.request()?;
        // Semaphores are never closed; without a permit the request would still be correct.
        let _permit = semaphore.acquire().await.ok();
        let exchange = async {
            let response = self.inner.send(request).await.map_err(unreachable)?;
            let (parts, body) = response.into_parts();
            let body = collect(body, limit).await?;
            Ok(reply(parts.status.as_u16(), &parts.headers, body))
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| Err(timed_out(timeout)))
    }

    /// Opens a stream. A status that is no success is read to its end.
    pub(crate) async fn open(
        &self,
        path: &str,
    ) -> Result<Result<(Body, tokio::sync::OwnedSemaphorePermit), Reply>, RequestError> {
        let mut request = Call::get(path).request()?;
        // Kubernetes 1.37 gzips watch events one by one where compression is accepted.
        request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let permit = Arc::clone(&self.watches).acquire_owned().await.map_err(|error| {
            // Never closed.
            RequestError::Unreachable(Box::new(error))
        })?;
        let opening = async {
            let response = self.inner.send(request).await.map_err(unreachable)?;
            let (parts, body) = response.into_parts();
            if parts.status.is_success() {
                return Ok(Ok((body, permit)));
            }
            let body = collect(body, self.limits.object_bytes).await?;
            Ok(Err(reply(parts.status.as_u16(), &parts.headers, body)))
        };
        tokio::time::timeout(REQUEST_TIMEOUT, opening)
            .await
            .unwrap_or_else(|_| Err(timed_out(REQUEST_TIMEOUT)))
    }
}

/// Proxies are not supported yet: going around one silently would be worse. Loopback never uses one.
fn refuse_proxy(config: &Config) -> Result<(), ConnectError> {
    let host = config.cluster_url.host().unwrap_or_default();
    let loopback = host == "localhost" || host.starts_with("127.") || host == "[::1]";
    match &config.proxy_url {
        Some(proxy) if !loopback => {
            let proxy = format!("{}://{}", proxy.scheme_str().unwrap_or("http"), proxy.host().unwrap_or("?"));
            Err(ConnectError::Proxy { proxy })
        }
        _ => Ok(()),
    }
}

fn system_now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

fn unreachable(error: kube::Error) -> RequestError {
    RequestError::Unreachable(Box::new(error))
}

fn timed_out(after: Duration) -> RequestError {
    RequestError::Timeout { after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX) }
}

fn reply(status: u16, headers: &HeaderMap, body: Bytes) -> Reply {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let seconds = text(header::RETRY_AFTER).and_then(|value| value.trim().parse::<u64>().ok());
    Reply {
        status,
        body,
        retry_after_ms: seconds.map(|s| s.saturating_mul(MS_PER_S)),
        etag: text(header::ETAG).map(str::to_owned),
    }
}

/// kube's layers for address and credentials over a connector of our own: without its retries
/// (ours are decided elsewhere), without its ERROR log per failed request, with TCP_NODELAY.
fn build(mut config: Config, limits: &Limits) -> Result<kube::Client, kube::Error> {
    config.headers.push((header::USER_AGENT, HeaderValue::from_static(USER_AGENT)));
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE / 3));
    tcp.set_keepalive_retries(Some(3));
    let https = config.rustls_https_connector_with_connector(tcp)?;
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(limits.requests.saturating_add(limits.lists))
        .build::<_, Body>(https);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(kube::Client::new(service, config.default_namespace))
}
