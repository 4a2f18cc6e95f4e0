//! A mutating admission webhook, as API servers call them: HTTPS on the loopback, with a CA of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use crate::cluster::Cluster;
use crate::testbed::certificates::Authority;

/// What is to be changed of an object, as a JSON patch.
type Patch = dyn Fn(&Value) -> Vec<Value> + Send + Sync;

/// A CA, and a certificate of it for the loopback; PEM.
#[derive(Debug)]
pub struct Certificate {
    /// What API servers are to trust.
    pub ca: String,
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// A certificate for a webhook that listens on the loopback.
///
/// # Errors
/// When none can be made.
pub fn certificate() -> Result<Certificate> {
    let authority = Authority::new("webhook")?;
    let identity = authority.server("127.0.0.1")?;
    Ok(Certificate { ca: authority.pem(), certificate: identity.certificate, key: identity.key })
}

/// A webhook that runs, and is registered in a cluster. Stopped and removed when it is closed.
pub struct Webhook {
    cluster: Cluster,
    name: String,
    asked: Arc<AtomicU64>,
    server: AbortHandle,
}

impl Webhook {
    /// Mutates objects of one kind in one namespace.
    ///
    /// # Errors
    /// When it cannot listen, or the API server refuses it.
    pub async fn start(
        cluster: &Cluster,
        namespace: &str,
        (group, version, plural): (&str, &str, &str),
        patch: impl Fn(&Value) -> Vec<Value> + Send + Sync + 'static,
    ) -> Result<Self> {
        let served = certificate()?;
        let chain = CertificateDer::pem_slice_iter(served.certificate.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().context("reading the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(served.key.as_bytes()).context("reading the key")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked = Arc::new(AtomicU64::new(0));
        let server = serve(listener, TlsAcceptor::from(Arc::new(config)), Arc::new(patch), asked.clone());
        let name = format!("{namespace}.{plural}.lockstep.test");
        // Namespaces carry no label of their names on 1.20: the tests give them one.
        let labelled = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"webhook": namespace}}});
        cluster.apply_value(&labelled).await?;
        let registered = json!({"apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration", "metadata": {"name": name}, "webhooks": [{
                "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 10,
                "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
                "clientConfig": {"url": format!("https://{address}/"), "caBundle": STANDARD.encode(&served.ca)},
                "namespaceSelector": {"matchLabels": {"webhook": namespace}},
                "rules": [{"apiGroups": [group], "apiVersions": [version], "resources": [plural],
                    "operations": ["CREATE", "UPDATE"]}]}]});
        cluster.apply_value(&registered).await?;
        Ok(Self { cluster: cluster.clone(), name, asked, server })
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Removes it from the cluster, and stops it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn close(self) -> Result<()> {
        let version = "admissionregistration.k8s.io/v1";
        self.cluster.delete(version, "MutatingWebhookConfiguration", None, &self.name).await
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn serve(listener: TcpListener, tls: TlsAcceptor, patch: Arc<Patch>, asked: Arc<AtomicU64>) -> AbortHandle {
    let accept = async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, patch, asked) = (tls.clone(), patch.clone(), asked.clone());
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let service = hyper::service::service_fn(move |request| {
                    let (patch, asked) = (patch.clone(), asked.clone());
                    async move { answer(request, &*patch, &asked).await }
                });
                // A client that goes away is no error of ours.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    };
    tokio::spawn(accept).abort_handle()
}

async fn answer(
    request: Request<Incoming>,
    patch: &Patch,
    asked: &AtomicU64,
) -> Result<Response<Full<Bytes>>> {
    let review: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes())?;
    asked.fetch_add(1, Ordering::Relaxed);
    let operations = patch(&review["request"]["object"]);
    let mut response = json!({"uid": review["request"]["uid"], "allowed": true});
    if !operations.is_empty() {
        response["patchType"] = "JSONPatch".into();
        response["patch"] = STANDARD.encode(Value::from(operations).to_string()).into();
    }
    let review =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    Ok(response.body(Full::new(Bytes::from(review.to_string())))?)
}
