//! TLS of the hub's ports: certificates from PEM files, by rustls with ring.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::codes::Code;
use crate::config::TlsConfig;

/// Codes of this part.
pub const CODES: &[Code] = &[UNUSABLE];
const UNUSABLE: Code = Code { code: "LS0241", title: "a certificate or key of the hub cannot be used" };
/// A client that does not finish its handshake holds up nobody for longer.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at once; more clients wait in the kernel's queue.
const HANDSHAKES: usize = 64;
/// Connections that wait to be served.
const READY: usize = 16;
/// After accepting failed (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("LS0241: {path}: {why}; give a PEM file with {wanted}")]
pub struct TlsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub why: String,
    /// What it must hold.
    pub wanted: &'static str,
}

const CHAIN: &str = "the certificate chain, leaf first";
const KEY: &str = "the private key of that certificate";

fn refused(path: &Path, wanted: &'static str, why: impl ToString) -> TlsError {
    TlsError { path: path.to_owned(), why: why.to_string(), wanted }
}

/// PEM of certificate chain and key, checked.
///
/// # Errors
/// When a file cannot be read or used.
pub fn identity(tls: &TlsConfig) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
    let read = |path: &Path, wanted| std::fs::read(path).map_err(|error| refused(path, wanted, error));
    let (chain, key) = (read(&tls.cert_file, CHAIN)?, read(&tls.key_file, KEY)?);
    server_config(tls, &chain, &key, &[])?;
    Ok((chain, key))
}

fn server_config(
    tls: &TlsConfig,
    chain: &[u8],
    key: &[u8],
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refused(&tls.cert_file, CHAIN, error))?;
    if chain.is_empty() {
        return Err(refused(&tls.cert_file, CHAIN, "it holds no certificate"));
    }
    // The error must not quote what it read: it may be the key.
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| refused(&tls.key_file, KEY, "it holds no private key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&tls.cert_file, CHAIN, error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| refused(&tls.key_file, KEY, error))?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// A listener that speaks TLS, for the HTTP API. Handshakes run side by side: a client that says
/// nothing delays nobody.
pub struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    accepting: JoinHandle<()>,
}

impl TlsListener {
    /// Wraps a listener.
    ///
    /// # Errors
    /// When the certificate cannot be used, or the listener has no address.
    pub fn new(listener: TcpListener, tls: &TlsConfig) -> Result<Self, TlsError> {
        let (chain, key) = identity(tls)?;
        let config = server_config(tls, &chain, &key, &[b"http/1.1"])?;
        let address = listener.local_addr().map_err(|error| refused(&tls.cert_file, CHAIN, error))?;
        let (done, ready) = mpsc::channel(READY);
        let accepting = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), done));
        Ok(Self { address, ready, accepting })
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    done: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, done) = (acceptor.clone(), done.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                // Nobody takes it: the server is stopping.
                Ok(Ok(stream)) => drop(done.send((stream, address)).await),
                Ok(Err(error)) => tracing::debug!(%address, "no TLS: {error}"),
                Err(_) => tracing::debug!(%address, "no TLS in time"),
            }
            drop(place);
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task never ends by itself.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}
