//! The hub's ports, each behind its front door.

use std::net::SocketAddr;

use axum::Router;
use lockstep_net::{Front, Limits, Port, PortMetrics, ServerTls, descriptors, tls::HTTP1, tls::HTTP2};
use lockstep_wire::MAX_MESSAGE_BYTES;
use lockstep_wire::v1::hub_server::HubServer;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;

use super::HubError;
use crate::config::{HubConfig, TlsConfig};
use crate::problem::Problems;
use crate::session::SessionService;
use crate::tls;

/// What is listened on.
pub(super) struct Ports {
    pub(super) agents: Front,
    pub(super) api: Front,
    pub(super) metrics: Option<Front>,
    /// To be read again when their files change.
    certificates: Vec<ServerTls>,
}

impl Ports {
    pub(super) async fn bind(config: &HubConfig, figures: &PortMetrics) -> Result<Self, HubError> {
        let listen = &config.listen;
        let files = descriptors::raise();
        let connections = descriptors::for_connections(files);
        tracing::debug!(files, connections, "the limit on open files, and what connections may take of it");
        let bind = async |what: &'static str, port, address: SocketAddr| {
            let limits = Limits::of(port, connections);
            let bound = Front::bind(port, address, limits, figures.clone()).await;
            bound.map_err(|source| HubError::Listen { what, address, source })
        };
        let mut agents = bind("agents", Port::Agents, listen.agents).await?;
        let mut api = bind("the HTTP API", Port::Api, listen.api).await?;
        let metrics = match listen.metrics {
            Some(address) => Some(bind("metrics and probes", Port::Metrics, address).await?),
            None => None,
        };
        let mut certificates = Vec::new();
        if let Some(tls) = &config.tls {
            let loaded = ServerTls::load(tls, HTTP2)?;
            certificates.push(loaded.clone());
            agents = agents.with_tls(loaded);
        }
        // On the loopback commands speak plain HTTP: there is nobody in between.
        if let Some(tls) = config.tls.as_ref().filter(|_| config.api_has_tls()) {
            // People have tokens, not certificates.
            let loaded = ServerTls::load(&TlsConfig { client_ca_file: None, ..tls.clone() }, HTTP1)?;
            certificates.push(loaded.clone());
            api = api.with_tls(loaded);
        }
        Ok(Self { agents, api, metrics, certificates })
    }

    /// Reads certificates again when their files change.
    pub(super) fn watch_certificates(&mut self, problems: &Problems, stop: &CancellationToken) {
        for certificate in self.certificates.drain(..) {
            tokio::spawn(certificate.watch(tls::report(problems.clone()), stop.clone()));
        }
    }
}

/// Serves agents.
pub(super) async fn agents(
    front: Front,
    service: SessionService,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let service = HubServer::new(service)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    front.serve(Routes::new(service).prepare(), stop).await;
    Ok(())
}

/// Serves HTTP.
pub(super) async fn http(front: Front, router: Router, stop: CancellationToken) -> std::io::Result<()> {
    front.serve(router, stop).await;
    Ok(())
}
