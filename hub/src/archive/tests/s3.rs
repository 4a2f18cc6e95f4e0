//! A server of the S3 protocol on the loopback, which can be killed and started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::S3Config;

const BUCKET: &str = "tombstones";
pub(super) const PREFIX: &str = "lockstep/prod";

pub(super) struct S3Server {
    root: PathBuf,
    at: SocketAddr,
    service: S3Service,
    tls: Option<tokio_rustls::TlsAcceptor>,
    stop: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

impl S3Server {
    pub(super) async fn start(dir: &Path) -> Self {
        Self::with(dir, None).await
    }

    /// Over TLS, under an authority of its own, whose certificate is the file `ca.pem`.
    pub(super) async fn start_tls(dir: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &authority).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
        Self::with(dir, Some(Arc::new(config).into())).await
    }

    async fn with(dir: &Path, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let root = dir.join("s3");
        std::fs::create_dir_all(root.join(BUCKET)).unwrap();
        let keys = "[t]\naws_access_key_id=k\naws_secret_access_key=canary\n[wrong]\naws_access_key_id=k\n\
            aws_secret_access_key=canary-2\n";
        std::fs::write(dir.join("credentials"), keys).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(&root).unwrap());
        builder.set_auth(SimpleAuth::from_single("k", "canary"));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { root, at: any, service: builder.build(), tls, stop: None };
        server.listen().await;
        server
    }

    /// Listens at the port it has, or at any.
    pub(super) async fn listen(&mut self) {
        let listener = TcpListener::bind(self.at).await.unwrap();
        self.at = listener.local_addr().unwrap();
        let (stop, service, tls) = (CancellationToken::new(), self.service.clone(), self.tls.clone());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            // Dropped with the task: what is under way ends in the middle.
            let mut connections = JoinSet::new();
            while let Some(Ok((socket, _))) = stopped.run_until_cancelled(listener.accept()).await {
                let (service, tls) = (service.clone(), tls.clone());
                connections.spawn(async move {
                    let served = match tls {
                        None => http1::Builder::new().serve_connection(TokioIo::new(socket), service).await,
                        Some(tls) => {
                            let Ok(socket) = tls.accept(socket).await else { return };
                            http1::Builder::new().serve_connection(TokioIo::new(socket), service).await
                        }
                    };
                    // Clients end as they like.
                    drop(served);
                });
            }
        });
        self.stop = Some((stop, task));
    }

    /// Nobody listens any more, and every connection is gone, when this returns.
    pub(super) async fn kill(&mut self) {
        let (stop, task) = self.stop.take().unwrap();
        stop.cancel();
        task.await.unwrap();
    }

    pub(super) fn config(&self, dir: &Path) -> S3Config {
        S3Config {
            bucket: BUCKET.to_owned(),
            prefix: PREFIX.to_owned(),
            endpoint: Some(match self.tls {
                None => format!("http://{}", self.at),
                Some(_) => format!("https://{}", self.at),
            }),
            ca_file: self.tls.as_ref().map(|_| dir.join("ca.pem")),
            path_style: true,
            credentials_file: Some(dir.join("credentials")),
            profile: Some("t".to_owned()),
            region: None,
        }
    }

    /// Where the server keeps what is below the prefix.
    pub(super) fn files(&self) -> PathBuf {
        self.root.join(BUCKET).join(PREFIX)
    }
}
