//! The port for scrapers and probes: `/metrics`, `/healthz`, `/readyz`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::figures;
use crate::problem::Problems;
use crate::pulse::Pulse;
use crate::session::Readers;

/// Media type of the metrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// A scrape is answered from the last one where that is no older: several scrapers cost no more than one.
const FRESH: Duration = Duration::from_secs(1);

/// What the port for scrapers and probes serves.
#[derive(Clone)]
pub struct Scraped {
    /// Everything that is counted in this process.
    pub registry: Arc<Mutex<Registry>>,
    /// Readers of the state store.
    pub readers: Readers,
    /// What is wrong with the hub itself.
    pub problems: Problems,
    /// The core's signs of life.
    pub pulse: Pulse,
    /// The state store's file.
    pub database: PathBuf,
    /// Set once every part runs.
    pub ready: Arc<AtomicBool>,
}

/// What was answered, and when.
type Answered = Option<(Instant, Arc<str>)>;

#[derive(Clone)]
struct Port {
    scraped: Scraped,
    last: Arc<tokio::sync::Mutex<Answered>>,
}

/// `/metrics`, `/healthz`, `/readyz`.
pub fn router(scraped: Scraped) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .with_state(Port { scraped, last: Arc::default() })
}

async fn scrape(Shared(port): Shared<Port>) -> impl IntoResponse {
    // Held while the figures are read: one reader of the store at a time, however many ask.
    let mut last = port.last.lock().await;
    if let Some((at, text)) = &*last
        && at.elapsed() < FRESH
    {
        return answer(Some(text.clone()));
    }
    let scraped = port.scraped.clone();
    let text = tokio::task::spawn_blocking(move || figures_of(&scraped)).await.ok().flatten();
    *last = text.clone().map(|text| (Instant::now(), text));
    answer(text)
}

fn answer(text: Option<Arc<str>>) -> impl IntoResponse {
    match text {
        Some(text) => (StatusCode::OK, [(CONTENT_TYPE, OPENMETRICS)], text.to_string()),
        None => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], String::new()),
    }
}

fn figures_of(scraped: &Scraped) -> Option<Arc<str>> {
    let mut text = String::new();
    {
        let registry = scraped.registry.lock().unwrap_or_else(PoisonError::into_inner);
        encode_registry(&mut text, &registry).ok()?;
    }
    // A store that cannot be read now leaves its figures out; the counters still tell.
    match figures::read(&scraped.readers, &scraped.database, scraped.pulse.last_commit()) {
        Ok(registry) => encode_registry(&mut text, &registry).ok()?,
        Err(error) => tracing::debug!("the store's figures are left out of a scrape: {error}"),
    }
    encode_eof(&mut text).ok()?;
    Some(text.into())
}

async fn health(Shared(port): Shared<Port>) -> (StatusCode, String) {
    verdict(port.scraped.pulse.alive())
}

async fn ready(Shared(port): Shared<Port>) -> (StatusCode, String) {
    let Scraped { problems, pulse, ready, .. } = &port.scraped;
    if !ready.load(Ordering::Acquire) {
        return verdict(Err("starting or stopping".to_owned()));
    }
    match problems.stopping() {
        Some(problem) => verdict(Err(problem.to_string())),
        None => verdict(pulse.serving()),
    }
}

fn verdict(verdict: Result<(), String>) -> (StatusCode, String) {
    match verdict {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
