//! A small client for the hub's HTTP API: hyper-util's, with our error texts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lockstep_hub::http::types::CommandError;
use lockstep_net::is_loopback;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::CliError;

/// Largest answer taken: several times the largest page.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Longest wait for an answer; the hub itself gives up after 30 s.
const TIMEOUT: Duration = Duration::from_secs(35);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A bearer token. Never printed.
#[derive(Clone)]
pub(crate) struct Token(HeaderValue);

impl Token {
    /// A token as it stands in a file; None when no header can carry it.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim())).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// Talks to one hub.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    base: String,
    token: Option<Token>,
    http: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// For a URL as in `http://127.0.0.1:7441` or `https://hub.example.com:7441`; `ca_file` holds what signs the
    /// certificate of an `https://` one, without it the system's do.
    pub(crate) fn new(server: &str, token: Option<Token>, ca_file: Option<&Path>) -> Result<Self, CliError> {
        let base = server.trim_end_matches('/').to_owned();
        let bad = |what: &str, remedy| Err(CliError::usage(format!("`{server}` {what}"), remedy));
        let url: Option<Uri> = base.parse().ok();
        let host = url.as_ref().and_then(Uri::host);
        let remedy = "write it as http://127.0.0.1:7441 or https://hub.example.com:7441";
        match (url.as_ref().and_then(Uri::scheme_str), host) {
            (Some("https"), Some(_)) => {}
            (Some("http"), Some(host)) if is_loopback(host) => {}
            (Some("http"), Some(_)) => {
                let remedy = "write https:// (LOCKSTEP_CA_FILE or --ca-file names the CA of the hub's certificate), or \
                              reach it through `kubectl port-forward` or ssh -L";
                return bad(
                    "is another machine, and over http:// everybody on the way reads the token",
                    remedy,
                );
            }
            _ => return bad("is not the URL of a hub's API", remedy),
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.enforce_http(false);
        let tls =
            if base.starts_with("https://") { trust(ca_file)? } else { trusting(RootCertStore::empty())? };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = HyperClient::builder(TokioExecutor::new()).build(connector);
        Ok(Self { base, token, http })
    }

    /// The URL.
    pub(crate) fn server(&self) -> &str {
        &self.base
    }

    /// Reads. `query` pairs without a value are left out.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, Option<&str>)],
    ) -> Result<T, CliError> {
        let mut target = format!("/api/v1/{path}");
        let mut separator = '?';
        for (name, value) in query {
            if let Some(value) = value {
                target.push(separator);
                target.push_str(&format!("{name}={}", encode(value)));
                separator = '&';
            }
        }
        self.call(Method::GET, &target, Bytes::new()).await
    }

    /// Changes something.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, CliError> {
        let body = serde_json::to_vec(body).map_err(|error| {
            CliError::new("LS0002", "the request cannot be written", "report it").caused_by(&error)
        })?;
        self.call(Method::POST, &format!("/api/v1/{path}"), body.into()).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<T, CliError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.base))
            .header(ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.0.clone());
        }
        let request = request.body(Full::new(body)).map_err(|error| {
            CliError::usage("the request cannot be written", "check the names").caused_by(&error)
        })?;
        let (status, bytes) = tokio::time::timeout(TIMEOUT, self.exchange(request))
            .await
            .map_err(|_| self.unreachable(&format!("no answer within {} s", TIMEOUT.as_secs())))??;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| self.odd(&error));
        }
        match serde_json::from_slice::<CommandError>(&bytes) {
            Ok(error) => Err(CliError::from_hub(error)),
            Err(error) => Err(self.odd(&error)),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), CliError> {
        let response = self.http.request(request).await.map_err(|error| {
            let why = if error.is_connect() { "nothing answers there" } else { "the connection broke" };
            self.unreachable(why).caused_by(&error)
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| self.unreachable(&format!("the answer broke off: {error}")))?;
        Ok((status, body.to_bytes()))
    }

    fn unreachable(&self, why: &str) -> CliError {
        let remedy = "start one with `lockstep up --kubeconfig FILE --policies DIR` or `lockstep hub --config FILE`, \
                      or name another with --server or LOCKSTEP_SERVER";
        CliError::new("LS0001", format!("no hub at {}: {why}", self.base), remedy)
    }

    fn odd(&self, error: &dyn std::error::Error) -> CliError {
        let message = format!("{} does not answer as a hub of this version does", self.base);
        let remedy = "check the address; compare `lockstep --version` with the version that the hub logs";
        CliError::new("LS0002", message, remedy).caused_by(error)
    }
}

/// TLS with the certificates of a file, or the system's.
fn trust(ca_file: Option<&Path>) -> Result<ClientConfig, CliError> {
    let Some(file) = ca_file else {
        let builder = client_tls()?.with_native_roots().map_err(|error| {
            let remedy = "name the CA of the hub's certificate with --ca-file or LOCKSTEP_CA_FILE";
            CliError::new("LS0014", "this system has no CA certificates", remedy).caused_by(&error)
        })?;
        return Ok(builder.with_no_client_auth());
    };
    let unusable = |error: &dyn std::error::Error| {
        let message = format!("the CA file {} cannot be used", file.display());
        CliError::new("LS0014", message, "give a PEM file with the CA of the hub's certificate")
            .caused_by(error)
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unusable(&error))? {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(unusable(&std::io::Error::other("it holds no certificate")));
    }
    trusting(roots)
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, CliError> {
    Ok(client_tls()?.with_root_certificates(roots).with_no_client_auth())
}

fn client_tls() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, CliError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| CliError::new("LS0014", "TLS cannot be used", "report it").caused_by(&error))
}

/// Percent-encodes a query value or a part of a path.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_and_tokens_are_not_shown() {
        assert_eq!(encode("a=b,c in (d)/ü"), "a%3Db%2Cc%20in%20%28d%29%2F%C3%BC");
        let token = Token::new("s3cret\n").unwrap();
        let client = Client::new("http://127.0.0.1:1/", Some(token), None).unwrap();
        assert!(!format!("{client:?}").contains("s3cret"));
        assert_eq!(client.server(), "http://127.0.0.1:1");
        assert_eq!(Client::new("127.0.0.1:7441", None, None).err().map(|e| e.outcome().code()), Some(2));
    }

    #[test]
    fn no_token_goes_in_clear_to_another_machine() {
        for other in [
            "http://hub.example:7441",
            "http://10.0.0.1:7441",
            "http://127.evil.example",
            "http://[2001:db8::1]",
        ] {
            let error = Client::new(other, Token::new("s3cret"), None).unwrap_err();
            assert!(error.to_string().contains("https://") && error.outcome().code() == 2, "{error}");
        }
        let nowhere =
            Client::new("https://hub.example", None, Some(Path::new("/nowhere/ca.crt"))).unwrap_err();
        assert!(nowhere.code() == "LS0014" && nowhere.to_string().contains("/nowhere/ca.crt"), "{nowhere}");
    }

    #[tokio::test]
    async fn a_refused_connection_says_how_to_start_a_hub() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = Client::new(&format!("http://127.0.0.1:{port}"), None, None).unwrap();
        let error = client.get::<serde_json::Value>("clusters", &[]).await.unwrap_err();
        assert_eq!(error.code(), "LS0001");
        assert!(error.to_string().contains("lockstep up --kubeconfig"), "{error}");
    }
}
