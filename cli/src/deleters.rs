//! The receiver of webhooks that tell who deleted what: audit events and admission reviews of this cluster's API
//! server, for its agent.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use lockstep_agent::{Ambient, Deleters};
use lockstep_hub::config::TlsConfig;
use lockstep_hub::tls::TlsListener;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::CliError;

/// Largest body: an API server puts up to 400 events into a batch, and a review holds an object.
const MAX_BODY: usize = 16 << 20;
/// Bodies read at once; more wait, and API servers give up on them without harm.
const AT_ONCE: usize = 4;

/// The setting `deleters` of an agent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeletersConfig {
    /// Where API servers reach it.
    pub listen: SocketAddr,
    /// Its certificate; needed off the loopback, and by admission webhooks anywhere.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
}

#[derive(Clone)]
struct Receiver {
    deleters: Deleters,
    ambient: Ambient,
    places: Arc<Semaphore>,
}

/// Serves POST /audit and POST /admission until it is stopped.
///
/// # Errors
/// When the address or the certificate cannot be used.
pub(crate) async fn serve(
    config: &DeletersConfig,
    deleters: Deleters,
    stop: CancellationToken,
) -> Result<(), CliError> {
    let DeletersConfig { listen, tls } = config;
    if tls.is_none() && !listen.ip().is_loopback() {
        let message = format!("`deleters.listen` is {listen}, and there is no TLS");
        let remedy = "give deleters.tls.cert_file and deleters.tls.key_file, or an address on the loopback";
        return Err(CliError::new("LS0302", message, remedy));
    }
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        CliError::io(format!("webhooks cannot be received at {listen} (setting `deleters.listen`)"), &error)
    })?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let router = Router::new()
        .route("/audit", post(audit))
        .route("/admission", post(admission))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Receiver { deleters, ambient: Ambient::system(), places });
    tracing::info!(%listen, tls = tls.is_some(), "webhooks may tell who deletes");
    match tls {
        None => run(listener, router, stop),
        Some(tls) => {
            let listener = TlsListener::new(listener, tls).map_err(|error| {
                let remedy = "check deleters.tls.cert_file and deleters.tls.key_file";
                CliError::new("LS0303", "the certificate for webhooks cannot be used", remedy)
                    .caused_by(&error)
            })?;
            run(listener, router, stop);
        }
    }
    Ok(())
}

fn run<L>(listener: L, router: Router, stop: CancellationToken)
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!("webhooks are no longer received; who deletes is not known any more: {error}");
        }
    });
}

/// A batch that cannot be read is not sent again: the next one comes anyway.
async fn audit(State(receiver): State<Receiver>, body: Bytes) -> StatusCode {
    let Receiver { deleters, ambient, places } = receiver;
    // The semaphore is never closed.
    let _place = places.acquire().await;
    match deleters.audited(&body, ambient.clock.now()) {
        Ok(()) => StatusCode::OK,
        Err(error) => {
            tracing::warn!("a batch of audit events was not read: {error}");
            StatusCode::BAD_REQUEST
        }
    }
}

/// Whatever is wrong is said in a log: the delete goes through.
async fn admission(State(receiver): State<Receiver>, body: Bytes) -> Response {
    let Receiver { deleters, ambient, places } = receiver;
    let _place = places.acquire().await;
    match deleters.reviewed(&body, ambient.clock.now()) {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(error) => {
            tracing::warn!(
                "an admission review was not read, the API server goes on without an answer: {error}"
            );
            StatusCode::BAD_REQUEST.into_response()
        }
    }
}
