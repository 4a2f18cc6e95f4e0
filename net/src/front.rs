//! A listener with its bounds: takes connections, shakes hands, serves HTTP, and ends in time.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt as _};

use crate::admission::{Admission, Id, Verdict};
use crate::body::Held;
use crate::io::{Moved, Watched};
use crate::life::{Life, Overdue};
use crate::limits::{Limits, Port, Speaks};
use crate::metrics::{Closed, PortMetrics};
use crate::tls::ServerTls;

/// After accepting failed for want of descriptors: time for some to be given back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Headers of one request.
const MAX_HEADERS: usize = 64;
/// An agent behind a dead connection is noticed after twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Streams that a client opened and reset before they were looked at (rapid reset).
const MAX_RESETS: usize = 16;

/// A port that is listened on.
pub struct Front {
    port: Port,
    listener: TcpListener,
    tls: Option<ServerTls>,
    limits: Limits,
    metrics: PortMetrics,
}

impl Front {
    /// Listens. Nothing is accepted before [`Front::serve`].
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(
        port: Port,
        address: SocketAddr,
        limits: Limits,
        metrics: PortMetrics,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { port, listener, tls: None, limits, metrics })
    }

    /// With TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`; then what is open has [`Limits::drain`] to end.
    pub async fn serve<S, B>(self, service: S, stop: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Self { port, listener, tls, limits, metrics } = self;
        let desk = Arc::new(Desk::new(port, limits, metrics));
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    desk.pause(&error, &stop).await;
                    continue;
                }
            };
            let Some(link) = desk.arrive(address) else { continue };
            let (tls, service, stop) = (tls.clone(), service.clone(), stop.clone());
            tasks.spawn(async move {
                if let Err(why) = link.run(stream, tls, service, stop).await {
                    tracing::debug!(port = port.name(), %address, "connection closed: {why:?}");
                    link.desk.metrics.closed(port, why);
                }
            });
        }
        // Newcomers are refused by the system from here on.
        drop(listener);
        tasks.close();
        // Each ends by itself within the time to drain.
        tasks.wait().await;
    }
}

/// Who has a place.
struct Desk {
    port: Port,
    limits: Limits,
    metrics: PortMetrics,
    places: Mutex<Places>,
}

struct Places {
    admission: Admission,
    /// What closes each connection.
    closers: BTreeMap<Id, CancellationToken>,
}

impl Desk {
    fn new(port: Port, limits: Limits, metrics: PortMetrics) -> Self {
        let admission = Admission::new(limits.connections, limits.per_address);
        Self { port, limits, metrics, places: Mutex::new(Places { admission, closers: BTreeMap::new() }) }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a newcomer, if there is one.
    fn arrive(self: &Arc<Self>, address: SocketAddr) -> Option<Arc<Link>> {
        let mut places = self.places();
        let id = match places.admission.arrive(address.ip().into()) {
            Verdict::Admitted(id) => id,
            Verdict::InPlaceOf { id, evicted } => {
                places.close(evicted);
                id
            }
            Verdict::Refused => {
                drop(places);
                self.metrics.closed(self.port, Closed::Full);
                return None;
            }
        };
        let closer = CancellationToken::new();
        places.closers.insert(id, closer.clone());
        drop(places);
        self.metrics.opened(self.port);
        let life = Life::new(&self.limits, Instant::now(), id.0);
        let (desk, changed) = (Arc::clone(self), Notify::new());
        Some(Arc::new(Link { id, address, desk, closer, life: Mutex::new(life), changed }))
    }

    /// Gives the descriptor of one that waits back.
    fn relieve(&self) {
        let mut places = self.places();
        if let Some(evicted) = places.admission.relieve() {
            places.close(evicted);
        }
    }

    /// Accepting failed.
    async fn pause(&self, error: &io::Error, stop: &CancellationToken) {
        // The client hung up before it was accepted.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        tracing::debug!(port = self.port.name(), "a connection could not be accepted: {error}");
        self.metrics.paused(self.port);
        self.relieve();
        let _ = stop.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await;
    }
}

impl Places {
    fn close(&mut self, id: Id) {
        if let Some(closer) = self.closers.remove(&id) {
            closer.cancel();
        }
    }
}

/// One connection.
struct Link {
    id: Id,
    address: SocketAddr,
    desk: Arc<Desk>,
    closer: CancellationToken,
    life: Mutex<Life>,
    changed: Notify,
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut places = self.desk.places();
        places.admission.leave(self.id);
        places.closers.remove(&self.id);
        drop(places);
        self.desk.metrics.ended(self.desk.port);
    }
}

impl Link {
    fn change(&self, change: impl FnOnce(&mut Life)) {
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        let before = life.is_served();
        change(&mut life);
        let after = life.is_served();
        drop(life);
        if before != after {
            let mut places = self.desk.places();
            if after {
                places.admission.served(self.id);
            } else {
                places.admission.waits(self.id);
            }
        }
        self.changed.notify_one();
    }

    fn is_served(&self) -> bool {
        self.life.lock().unwrap_or_else(PoisonError::into_inner).is_served()
    }

    fn due(&self, moved: &Moved) -> (Instant, Overdue) {
        self.life.lock().unwrap_or_else(PoisonError::into_inner).due(&self.desk.limits, moved.at())
    }

    async fn run<S, B>(
        self: &Arc<Self>,
        stream: TcpStream,
        tls: Option<ServerTls>,
        service: S,
        stop: CancellationToken,
    ) -> Result<(), Closed>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // A socket that refuses it works all the same.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.http(stream, service, stop).await };
        let shaken = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = self.closer.cancelled() => return Err(Closed::Displaced),
            shaken = tokio::time::timeout(self.desk.limits.handshake, tls.acceptor().accept(stream)) => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => self.http(stream, service, stop).await,
            Ok(Err(error)) => {
                tracing::debug!(address = %self.address, "no TLS: {error}");
                Err(Closed::HandshakeFailed)
            }
            Err(_) => Err(Closed::HandshakeTimeout),
        }
    }

    async fn http<T, S, B>(
        self: &Arc<Self>,
        stream: T,
        service: S,
        stop: CancellationToken,
    ) -> Result<(), Closed>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let moved = Moved::new(Instant::now());
        let stream = TokioIo::new(Watched::new(stream, moved.clone()));
        let link = Arc::clone(self);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let under_way = UnderWay::begin(&link);
            request.extensions_mut().insert(Peer(Arc::clone(&link)));
            let answer = service.clone().oneshot(request);
            async move { answer.await.map(|answer| answer.map(|body| Held::new(body, under_way))) }
        });
        let builder = protocol(&self.desk.limits);
        let mut connection = pin!(builder.serve_connection(stream, service));
        // Once it is asked to end: by when, and what it is if it does not.
        let mut ending: Option<(Instant, Closed)> = None;
        loop {
            let (at, why) = match ending {
                Some((at, why)) => (at, why),
                None => {
                    let (at, overdue) = self.due(&moved);
                    (at, Closed::Overdue(overdue))
                }
            };
            tokio::select! {
                // How a client leaves is its own affair.
                _ = connection.as_mut() => return Ok(()),
                () = self.closer.cancelled() => return Err(Closed::Displaced),
                () = self.changed.notified() => {}
                () = stop.cancelled(), if !matches!(ending, Some((_, Closed::Stopped))) => {
                    // Only what is being served has something to finish.
                    if !self.is_served() {
                        return Ok(());
                    }
                    ending = Some((Instant::now() + self.desk.limits.drain, Closed::Stopped));
                    connection.as_mut().graceful_shutdown();
                }
                () = tokio::time::sleep_until(at) => match (ending, why) {
                    (None, Closed::Overdue(Overdue::Aged)) => {
                        ending = Some((Instant::now() + self.desk.limits.drain, why));
                        connection.as_mut().graceful_shutdown();
                    }
                    // Bytes moved since.
                    (None, _) if self.due(&moved).0 > Instant::now() => {}
                    _ => return Err(why),
                },
            }
        }
    }
}

fn protocol(limits: &Limits) -> Builder<TokioExecutor> {
    let builder = Builder::new(TokioExecutor::new());
    let head = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    match limits.speaks {
        Speaks::Http1 => {
            let mut builder = builder.http1_only();
            builder
                .http1()
                // Our own bounds count from the last answer, too; hyper's would end idle connections.
                .header_read_timeout(None)
                .max_headers(MAX_HEADERS)
                .max_buf_size(limits.header_bytes);
            builder
        }
        Speaks::Http2 { streams } => {
            let mut builder = builder.http2_only();
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(streams)
                .max_header_list_size(head)
                .max_pending_accept_reset_streams(MAX_RESETS)
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE);
            builder
        }
    }
}

/// A request, until its answer was sent.
struct UnderWay(Arc<Link>);

impl UnderWay {
    fn begin(link: &Arc<Link>) -> Self {
        link.change(Life::begins);
        Self(Arc::clone(link))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.change(|life| life.ends(Instant::now()));
    }
}

/// Who sends a request: an extension of it.
#[derive(Clone)]
pub struct Peer(Arc<Link>);

impl Peer {
    /// Where from.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// It has proven who it is: no newcomer takes its place any more.
    pub fn authenticated(&self) {
        self.0.change(Life::authenticated);
    }
}
