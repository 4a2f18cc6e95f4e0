//! Hostile clients and honest ones, on real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use lockstep_net::life::Overdue;
use lockstep_net::metrics::Closed;
use lockstep_net::tls::{HTTP1, Reread};
use lockstep_net::{Front, Limits, Port, PortMetrics, ServerTls, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// A passing test does not wait so long.
const PATIENCE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_millis(200);
const NEVER: Duration = Duration::from_secs(3600);

async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Bounds that no test meets unless it sets them.
fn wide() -> Limits {
    Limits {
        connections: 16,
        per_address: 16,
        handshake: NEVER,
        first_request: NEVER,
        idle: NEVER,
        stall: NEVER,
        max_age: NEVER,
        drain: SOON,
        ..Limits::of(Port::Api, 1024)
    }
}

struct Served {
    address: SocketAddr,
    metrics: PortMetrics,
    stop: CancellationToken,
    done: JoinHandle<()>,
}

impl Served {
    async fn new(limits: Limits, tls: Option<ServerTls>) -> Self {
        let metrics = PortMetrics::default();
        let loopback = "127.0.0.1:0".parse().unwrap();
        let mut front = Front::bind(Port::Api, loopback, limits, metrics.clone()).await.unwrap();
        if let Some(tls) = tls {
            front = front.with_tls(tls);
        }
        let (address, stop) = (front.local_addr().unwrap(), CancellationToken::new());
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/never", get(|| async { std::future::pending::<()>().await }));
        let done = tokio::spawn(front.serve(router, stop.clone()));
        Self { address, metrics, stop, done }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A whole request, on a connection of its own.
    async fn greets(&self) {
        let mut stream = self.connect().await;
        assert!(patiently("an answer", answer(&mut stream)).await.contains("hello"));
    }

    fn closed(&self, why: Closed) -> u64 {
        self.metrics.count_closed(Port::Api, why)
    }

    /// Until so many were closed for that reason: the client sees it before it is counted.
    async fn closes(&self, count: u64, why: Closed) {
        patiently(&format!("{count} closed: {why:?}"), async {
            while self.closed(why) < count {
                tokio::time::sleep(SOON / 10).await;
            }
        })
        .await;
    }
}

async fn answer<S: AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: &mut S) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).ends_with("hello") {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "closed after {read:?}");
    }
    String::from_utf8(read).unwrap()
}

/// Until the other side has closed it.
async fn ended(mut stream: impl AsyncRead + Unpin) {
    let mut read = Vec::new();
    let _ = patiently("the connection is closed", stream.read_to_end(&mut read)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_silent_and_slow_clients_are_closed() {
    let served = Served::new(Limits { first_request: SOON, ..wide() }, None).await;
    let silent = served.connect().await;
    let mut half = served.connect().await;
    half.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    let slow = served.connect().await;
    let (slow, mut say) = slow.into_split();
    let talking = tokio::spawn(async move {
        // A byte now and then keeps nothing open.
        while say.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SOON / 10).await;
        }
    });
    ended(silent).await;
    ended(half).await;
    ended(slow).await;
    patiently("writing fails", talking).await.unwrap();
    served.closes(3, Closed::Overdue(Overdue::FirstRequest)).await;
    served.greets().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_idle_stalled_and_old_connections_are_closed() {
    let served = Served::new(Limits { idle: SOON, ..wide() }, None).await;
    let mut idle = served.connect().await;
    answer(&mut idle).await;
    ended(idle).await;
    served.closes(1, Closed::Overdue(Overdue::Idle)).await;

    let served = Served::new(Limits { stall: SOON, ..wide() }, None).await;
    let mut stalled = served.connect().await;
    stalled.write_all(b"GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    ended(stalled).await;
    served.closes(1, Closed::Overdue(Overdue::Stalled)).await;

    let served = Served::new(Limits { max_age: SOON, ..wide() }, None).await;
    let mut old = served.connect().await;
    old.write_all(b"GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    ended(old).await;
    served.closes(1, Closed::Overdue(Overdue::Aged)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_flood_displaces_itself_and_honest_clients_get_through() {
    let served = Served::new(wide(), None).await;
    let mut busy = served.connect().await;
    busy.write_all(b"GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut flood = Vec::new();
    for n in 0..200 {
        flood.push(served.connect().await);
        if n % 50 == 0 {
            served.greets().await;
        }
    }
    served.greets().await;
    served.closes(150, Closed::Displaced).await;
    assert_eq!(served.closed(Closed::Full), 0);
    // What is being served is still there.
    let mut byte = [0];
    assert!(tokio::time::timeout(SOON, busy.read(&mut byte)).await.is_err(), "it was closed");
    drop(flood);
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_port_full_of_requests_refuses_and_recovers() {
    let served = Served::new(Limits { connections: 2, per_address: 2, ..wide() }, None).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = served.connect().await;
        stream.write_all(b"GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        busy.push(stream);
    }
    patiently("both are being served, and a third is refused", async {
        while served.closed(Closed::Full) == 0 {
            let mut third = served.connect().await;
            let _ = third.write_all(b"GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            if served.closed(Closed::Full) == 0 {
                busy.push(third);
            }
            tokio::time::sleep(SOON / 10).await;
        }
    })
    .await;
    drop(busy);
    patiently("there is a place again", async {
        loop {
            let mut stream = served.connect().await;
            let mut read = Vec::new();
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
            if stream.read_to_end(&mut read).await.is_ok() && read.ends_with(b"hello") {
                return;
            }
            tokio::time::sleep(SOON / 10).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_heads_are_bounded() {
    let served = Served::new(wide(), None).await;
    let mut stream = served.connect().await;
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut read = Vec::new();
    let _ = patiently("it is closed", stream.read_to_end(&mut read)).await;
    let read = String::from_utf8_lossy(&read);
    assert!(read.is_empty() || read.starts_with("HTTP/1.1 431"), "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_stopping_ends_whatever_is_open() {
    let served = Served::new(wide(), None).await;
    let silent = served.connect().await;
    let mut half = served.connect().await;
    half.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    let mut busy = served.connect().await;
    busy.write_all(b"GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut idle = served.connect().await;
    answer(&mut idle).await;
    served.stop.cancel();
    patiently("the port is closed", served.done).await.unwrap();
    for stream in [silent, half, busy, idle] {
        ended(stream).await;
    }
    assert!(TcpStream::connect(served.address).await.is_err(), "it still listens");
}

/// A CA and certificates signed by it.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn certificate(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn put(&self, dir: &Path) -> TlsConfig {
        let (chain, key) = self.certificate();
        let config =
            TlsConfig { cert_file: dir.join("tls.crt"), key_file: dir.join("tls.key"), client_ca_file: None };
        std::fs::write(&config.cert_file, chain).unwrap();
        std::fs::write(&config.key_file, key).unwrap();
        config
    }

    fn client(&self, identity: Option<(String, String)>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

async fn over_tls(served: &Served, connector: &TlsConnector) -> std::io::Result<String> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, served.connect().await).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut read = String::new();
    // The server closes without a word of TLS.
    match stream.read_to_string(&mut read).await {
        Err(error) if !read.ends_with("hello") => Err(error),
        _ => Ok(read),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_half_a_handshake_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let tls = ServerTls::load(&authority.put(dir.path()), HTTP1).unwrap();
    let served = Served::new(Limits { handshake: SOON, ..wide() }, Some(tls)).await;
    let silent = served.connect().await;
    let mut half = served.connect().await;
    half.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    let mut plain = served.connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    for stream in [silent, half, plain] {
        ended(stream).await;
    }
    served.closes(2, Closed::HandshakeTimeout).await;
    served.closes(1, Closed::HandshakeFailed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s21_a_certificate_is_read_again_and_the_last_good_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let files = old.put(dir.path());
    let tls = ServerTls::load(&files, HTTP1).unwrap();
    let served = Served::new(wide(), Some(tls.clone())).await;
    let (by_old, by_new) = (old.client(None), new.client(None));
    assert!(over_tls(&served, &by_old).await.unwrap().ends_with("hello"));
    assert!(over_tls(&served, &by_new).await.is_err());
    assert!(matches!(tls.reread(), Reread::Unchanged));
    // A certificate whose key is not there yet, no PEM, nothing.
    let (chain, key) = new.certificate();
    for bad in [chain.as_str(), "no certificate", ""] {
        std::fs::write(&files.cert_file, bad).unwrap();
        assert!(matches!(tls.reread(), Reread::Refused(_)), "{bad}");
        assert!(over_tls(&served, &by_old).await.unwrap().ends_with("hello"));
    }
    std::fs::write(&files.cert_file, chain).unwrap();
    std::fs::write(&files.key_file, key).unwrap();
    assert!(matches!(tls.reread(), Reread::Replaced));
    assert!(over_tls(&served, &by_new).await.unwrap().ends_with("hello"));
    assert!(over_tls(&served, &by_old).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn s21_clients_without_a_certificate_of_the_ca_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, foreign) = (Authority::new(), Authority::new());
    let client_ca = dir.path().join("clients.crt");
    std::fs::write(&client_ca, &authority.pem).unwrap();
    let files = TlsConfig { client_ca_file: Some(client_ca), ..authority.put(dir.path()) };
    let tls = ServerTls::load(&files, HTTP1).unwrap();
    let served = Served::new(wide(), Some(tls)).await;
    let known = authority.client(Some(authority.certificate()));
    assert!(over_tls(&served, &known).await.unwrap().ends_with("hello"));
    assert!(over_tls(&served, &authority.client(None)).await.is_err());
    assert!(over_tls(&served, &authority.client(Some(foreign.certificate()))).await.is_err());
}
