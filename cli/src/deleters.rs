//! The receiver of webhooks that tell who deleted what: audit events and admission reviews of this cluster's API
//! server, for its agent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use lockstep_agent::{Ambient, Deleters};
use lockstep_net::tls::HTTP1;
use lockstep_net::{Front, Limits, Port, PortMetrics, ServerTls, TlsConfig};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::CliError;

/// Largest batch of audit events: an API server puts up to 400 into one.
const MAX_BATCH: usize = 16 << 20;
/// Batches read at once: their bytes are in memory until they are parsed.
const BATCHES_AT_ONCE: usize = 2;
/// Largest review: it holds the object that is deleted. Of a larger one nobody learns who deleted it; the delete goes
/// through, as always.
const MAX_REVIEW: usize = 1 << 20;
/// Reviews read at once.
const REVIEWS_AT_ONCE: usize = 16;
/// For a place and the whole body. API servers wait ten seconds by default, and send a body at once.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

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
    batches: Arc<Semaphore>,
    reviews: Arc<Semaphore>,
}

/// Serves POST /audit and POST /admission until it is stopped; the task that does.
///
/// # Errors
/// When the address or the certificate cannot be used.
pub(crate) async fn serve(
    config: &DeletersConfig,
    limits: Limits,
    deleters: Deleters,
    figures: PortMetrics,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, CliError> {
    let DeletersConfig { listen, tls } = config;
    if tls.is_none() && !listen.ip().is_loopback() {
        let message = format!("`deleters.listen` is {listen}, and there is no TLS");
        let remedy = "give deleters.tls.cert_file and deleters.tls.key_file, or an address on the loopback";
        return Err(CliError::new("LS0302", message, remedy));
    }
    let front = Front::bind(Port::Webhooks, *listen, limits, figures).await.map_err(|error| {
        CliError::io(format!("webhooks cannot be received at {listen} (setting `deleters.listen`)"), &error)
    })?;
    tracing::info!(%listen, tls = tls.is_some(), "webhooks may tell who deletes");
    let front = match tls {
        None => front,
        Some(files) => {
            let tls = ServerTls::load(files, HTTP1).map_err(|error| {
                let remedy = "check deleters.tls.cert_file and deleters.tls.key_file";
                CliError::new("LS0303", "the certificate for webhooks cannot be used", remedy)
                    .caused_by(&error)
            })?;
            // What went bad is logged by the watch itself.
            tokio::spawn(tls.clone().watch(Box::new(|_| {}), stop.clone()));
            front.with_tls(tls)
        }
    };
    Ok(tokio::spawn(front.serve(router(deleters), stop)))
}

fn router(deleters: Deleters) -> Router {
    let (batches, reviews) = (Semaphore::new(BATCHES_AT_ONCE), Semaphore::new(REVIEWS_AT_ONCE));
    let (batches, reviews) = (Arc::new(batches), Arc::new(reviews));
    Router::new().route("/audit", post(audit)).route("/admission", post(admission)).with_state(Receiver {
        deleters,
        ambient: Ambient::system(),
        batches,
        reviews,
    })
}

/// Reads a body once there is a place for it: what waits costs no memory. The place is held until the body is parsed.
async fn body(
    places: Arc<Semaphore>,
    body: Body,
    most: usize,
) -> Result<(OwnedSemaphorePermit, Bytes), StatusCode> {
    let read = async {
        let place = places.acquire_owned().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let bytes = to_bytes(body, most).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
        Ok((place, bytes))
    };
    tokio::time::timeout(BODY_TIMEOUT, read).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
}

/// A batch that cannot be read is not sent again: the next one comes anyway.
async fn audit(State(receiver): State<Receiver>, request: Request) -> StatusCode {
    let Receiver { deleters, ambient, batches, .. } = receiver;
    let (_place, body) = match body(batches, request.into_body(), MAX_BATCH).await {
        Ok(read) => read,
        Err(status) => return status,
    };
    match deleters.audited(&body, ambient.clock.now()) {
        Ok(()) => StatusCode::OK,
        Err(error) => {
            tracing::warn!("a batch of audit events was not read: {error}");
            StatusCode::BAD_REQUEST
        }
    }
}

/// Whatever is wrong is said in a log: the delete goes through.
async fn admission(State(receiver): State<Receiver>, request: Request) -> Response {
    let Receiver { deleters, ambient, reviews, .. } = receiver;
    let (_place, body) = match body(reviews, request.into_body(), MAX_REVIEW).await {
        Ok(read) => read,
        Err(status) => return status.into_response(),
    };
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Callers that send a body without end, many at once: only those that have a place are read.
    #[tokio::test]
    async fn s12_a_body_is_read_once_there_is_a_place_for_it_and_no_further_than_its_bound() {
        let (places, read) = (Arc::new(Semaphore::new(REVIEWS_AT_ONCE)), Arc::new(AtomicUsize::new(0)));
        let mut callers = Vec::new();
        for _ in 0..60 {
            let (places, read) = (places.clone(), read.clone());
            let mut begun = false;
            let endless = futures::stream::poll_fn(move |_| {
                if std::mem::replace(&mut begun, true) {
                    return std::task::Poll::Pending;
                }
                read.fetch_add(1, Ordering::Relaxed);
                std::task::Poll::Ready(Some(Ok::<_, std::io::Error>(Bytes::from_static(b"{"))))
            });
            callers.push(tokio::spawn(body(places, Body::from_stream(endless), MAX_REVIEW)));
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(read.load(Ordering::Relaxed), REVIEWS_AT_ONCE);
        callers.iter().for_each(JoinHandle::abort);
        for caller in callers {
            assert!(caller.await.unwrap_err().is_cancelled());
        }
        let large = Body::from(vec![b' '; MAX_REVIEW + 1]);
        assert_eq!(body(places, large, MAX_REVIEW).await.unwrap_err(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
