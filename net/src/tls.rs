//! TLS of our ports: certificates from PEM files, by rustls with ring; read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// HTTP/2 in the TLS handshake, for gRPC.
pub const HTTP2: &[u8] = b"h2";
/// HTTP/1.1 in the TLS handshake.
pub const HTTP1: &[u8] = b"http/1.1";
/// Between two looks at the files. A kubelet takes a minute to put a renewed Secret in place.
const REREAD: Duration = Duration::from_secs(5);
/// Larger than any chain; anything beyond is another file.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// Certificate of a server, in PEM files. They are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, leaf first.
    pub cert_file: PathBuf,
    /// Private key.
    pub key_file: PathBuf,
    /// Certificates that every client's must be signed by. None: clients need no certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
}

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
const CLIENT_CA: &str = "the certificates that sign those of clients";

fn refused(path: &Path, wanted: &'static str, why: impl ToString) -> TlsError {
    TlsError { path: path.to_owned(), why: why.to_string(), wanted }
}

/// Content of the files.
#[derive(PartialEq, Eq)]
struct Pem {
    chain: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Pem {
    fn read(files: &TlsConfig) -> Result<Self, TlsError> {
        let read = |path: &Path, wanted| {
            let size = std::fs::metadata(path).map_err(|error| refused(path, wanted, error))?.len();
            if size > MAX_PEM_BYTES {
                return Err(refused(path, wanted, format!("it has {size} bytes, more than {MAX_PEM_BYTES}")));
            }
            std::fs::read(path).map_err(|error| refused(path, wanted, error))
        };
        let client_ca = files.client_ca_file.as_deref().map(|path| read(path, CLIENT_CA)).transpose()?;
        Ok(Self { chain: read(&files.cert_file, CHAIN)?, key: read(&files.key_file, KEY)?, client_ca })
    }

    fn server(&self, files: &TlsConfig, alpn: &'static [u8]) -> Result<ServerConfig, TlsError> {
        let (cert_file, key_file) = (files.cert_file.as_path(), files.key_file.as_path());
        let chain = certificates(&self.chain, cert_file, CHAIN)?;
        // The error must not quote what it read: it may be the key.
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| refused(key_file, KEY, "it holds no private key"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(cert_file, CHAIN, error))?;
        let builder = match (&self.client_ca, &files.client_ca_file) {
            (Some(pem), Some(path)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(pem, path, CLIENT_CA)? {
                    roots.add(certificate).map_err(|error| refused(path, CLIENT_CA, error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| refused(path, CLIENT_CA, error))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config =
            builder.with_single_cert(chain, key).map_err(|error| refused(key_file, KEY, error))?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }
}

fn certificates(
    pem: &[u8],
    path: &Path,
    wanted: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refused(path, wanted, error))?;
    if found.is_empty() { Err(refused(path, wanted, "it holds no certificate")) } else { Ok(found) }
}

/// What a look at the files found.
#[derive(Debug)]
pub enum Reread {
    /// What is in use.
    Unchanged,
    /// Another certificate, which new connections get from now on.
    Replaced,
    /// Something that cannot be used: the last good one stays.
    Refused(TlsError),
}

/// Told when the files cannot be used any more (Some), and when they can again (None).
pub type Report = Box<dyn Fn(Option<&TlsError>) + Send + Sync>;

struct Current {
    pem: Pem,
    config: Arc<ServerConfig>,
}

/// TLS of one port. Clones are one.
#[derive(Clone)]
pub struct ServerTls {
    files: Arc<TlsConfig>,
    alpn: &'static [u8],
    current: Arc<RwLock<Current>>,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read or used.
    pub fn load(files: &TlsConfig, alpn: &'static [u8]) -> Result<Self, TlsError> {
        let pem = Pem::read(files)?;
        let config = Arc::new(pem.server(files, alpn)?);
        let current = Arc::new(RwLock::new(Current { pem, config }));
        Ok(Self { files: Arc::new(files.clone()), alpn, current })
    }

    /// For the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current.config))
    }

    /// Looks at the files.
    #[must_use]
    pub fn reread(&self) -> Reread {
        let pem = match Pem::read(&self.files) {
            Ok(pem) => pem,
            Err(error) => return Reread::Refused(error),
        };
        if self.current.read().unwrap_or_else(PoisonError::into_inner).pem == pem {
            return Reread::Unchanged;
        }
        match pem.server(&self.files, self.alpn) {
            Ok(config) => {
                let config = Arc::new(config);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { pem, config };
                Reread::Replaced
            }
            Err(error) => Reread::Refused(error),
        }
    }

    /// Looks at the files every few seconds until `stop`.
    pub async fn watch(self, report: Report, stop: CancellationToken) {
        let mut failures = 0_u32;
        while stop.run_until_cancelled(tokio::time::sleep(REREAD)).await.is_some() {
            let tls = self.clone();
            let Ok(reread) = tokio::task::spawn_blocking(move || tls.reread()).await else { continue };
            match reread {
                Reread::Unchanged | Reread::Replaced => {
                    if matches!(reread, Reread::Replaced) {
                        let file = self.files.cert_file.display();
                        tracing::info!(%file, "the certificate was replaced; new connections get the new one");
                    }
                    if failures > 1 {
                        report(None);
                    }
                    failures = 0;
                }
                Reread::Refused(error) => {
                    failures = failures.saturating_add(1);
                    // Certificate and key are two files: the first look may come between them.
                    if failures == 2 {
                        tracing::error!("{error}; the last good certificate stays in use");
                        report(Some(&error));
                    }
                }
            }
        }
    }
}
