//! The HTTP API under `/api/v1`: what the command line and programs ask of the hub.
//!
//! Reads come from the state store through a small pool of readers; whatever changes state, and
//! what only the planner can answer, goes to the core as a [`Command`]. Every call that is not a
//! GET needs the bearer token, and so do values of Secrets; without it they are keyed digests
//! (I13). The API holds no state of its own.
//!
//! Errors are JSON `{code, message, remedy}` with the codes [`CODES`].

mod answer_types;
mod archive;
mod archive_types;
mod auth;
mod clusters;
mod commands;
mod differences;
mod error;
mod groups;
mod kinds;
mod objects;
mod params;
mod placements;
mod policies;
mod pool;
mod restores;
pub(crate) mod selector;
#[cfg(test)]
mod tests;
mod tombstones;
pub mod types;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::future::BoxFuture;
use lockstep_engine::Millis;
use lockstep_engine::reading::Reading;
use tokio::sync::mpsc;

use crate::archive::Keeper;
use crate::config::ApiConfig;
use crate::core::Findings;
use crate::core::command::Command;
use crate::problem::Problems;
use crate::restore::Restorer;
use crate::session::Readers;

pub use auth::{ApiToken, Caller};
pub use error::{ApiError, CODES};
pub use selector::{BadSelector, parse as parse_selector};

/// Largest request body: the API takes small JSON documents only.
const MAX_BODY_BYTES: usize = 64 << 10;

/// Reads bodies of tombstones out of the archive.
pub trait Bodies: Send + Sync {
    /// The body at a path of the archive.
    ///
    /// # Errors
    /// One sentence on why it cannot be read; never a part of the body.
    fn body<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<serde_json::Value, String>>;
}

/// Gives what open sessions told.
pub type Sessions = Arc<dyn Fn() -> Vec<SessionFacts> + Send + Sync>;

/// What a session told that the store does not keep.
#[derive(Clone, Debug, Default)]
pub struct SessionFacts {
    /// Member cluster.
    pub cluster: String,
    /// Version of the protocol that the session speaks.
    pub protocol: Option<u32>,
    /// What the hub may read there; none: its agent does not say.
    pub reading: Option<Arc<Reading>>,
    /// What policies ask for and the hub may not read.
    pub not_accepted: Vec<String>,
    /// Agent's clock minus the hub's.
    pub clock_skew_ms: Option<i64>,
    /// Items in the agent's queues.
    pub queued_items: Option<u64>,
    /// Why its agent was refused, or cannot work.
    pub problem: Option<String>,
}

/// What the API is made of.
pub struct ApiParts {
    /// Makes readers.
    pub readers: Readers,
    /// To the core.
    pub commands: mpsc::Sender<Command>,
    /// What is wrong with policy files; the core writes it.
    pub findings: Arc<RwLock<Findings>>,
    /// What open sessions told; `Arc::new(Vec::new)` where nothing keeps it.
    pub sessions: Sessions,
    /// When the hub started.
    pub started_at: Millis,
    /// The archive, to read.
    pub bodies: Arc<dyn Bodies>,
    /// Keeps the archive.
    pub keeper: Keeper,
    /// Plans restores and carries them out.
    pub restorer: Restorer,
    /// Needed for what changes state and for values of Secrets.
    pub token: ApiToken,
    /// Keys the digests that stand for values of Secrets.
    pub digest_key: [u8; 32],
    /// What is wrong with the hub itself.
    pub problems: Problems,
    /// The state store's file: damaged ones are kept beside it.
    pub database: PathBuf,
    /// Bounds.
    pub config: ApiConfig,
}

/// The API; cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    readers: pool::ReaderPool,
    commands: mpsc::Sender<Command>,
    findings: Arc<RwLock<Findings>>,
    sessions: Sessions,
    started_at: Millis,
    policies: policies::Cache,
    bodies: Arc<dyn Bodies>,
    keeper: Keeper,
    restorer: Restorer,
    token: ApiToken,
    digest_key: [u8; 32],
    problems: Problems,
    database: PathBuf,
    timeout: Duration,
    token_for_reads: bool,
    host_names: Vec<String>,
    kinds: kinds::Cache,
}

impl Api {
    /// The API out of its parts.
    #[must_use]
    pub fn new(parts: ApiParts) -> Self {
        let ApiParts {
            readers,
            commands,
            findings,
            sessions,
            started_at,
            bodies,
            keeper,
            restorer,
            token,
            digest_key,
            problems,
            database,
            config,
        } = parts;
        let ApiConfig { readers: count, request_timeout_seconds, token_for_reads, host_names } = config;
        Self(Arc::new(Inner {
            readers: pool::ReaderPool::new(readers, count),
            commands,
            findings,
            sessions,
            started_at,
            policies: policies::Cache::default(),
            bodies,
            keeper,
            restorer,
            token,
            digest_key,
            problems,
            database,
            timeout: Duration::from_secs(request_timeout_seconds),
            token_for_reads,
            host_names,
            kinds: kinds::Cache::default(),
        }))
    }

    /// What is wrong with policy files now, the directory as a whole first.
    fn findings(&self) -> Vec<types::Finding> {
        let Findings { files, directory } = &*self.0.findings.read().unwrap_or_else(PoisonError::into_inner);
        let whole = directory.iter().map(|message| types::Finding {
            severity: lockstep_policies::Severity::Error,
            code: "LS0264".into(),
            file: String::new(),
            place: lockstep_policies::Place::default(),
            field: String::new(),
            message: message.clone(),
            remedy: "make the policies directory readable; what was loaded stays in force".to_owned(),
        });
        whole.chain(files.iter().cloned()).collect()
    }

    /// Every route, with limits and authentication around them.
    pub fn router(self) -> Router {
        let v1 = Router::new()
            .route("/hub", get(clusters::hub))
            .route("/clusters", get(clusters::list))
            .route("/policies", get(policies::list))
            .route("/findings", get(policies::findings))
            .route("/objects", get(objects::list))
            .route("/placements", get(placements::list))
            .route("/explain", get(commands::explain))
            .route("/compare", get(commands::compare))
            .route("/tombstones", get(tombstones::list))
            .route("/tombstones/{id}", get(tombstones::show))
            .route("/tombstones/purge", post(archive::purge))
            .route("/tombstones/hold", post(archive::hold))
            .route("/tombstones/release", post(archive::release))
            .route("/archive", get(archive::facts))
            .route("/archive/rewrap", post(archive::rewrap))
            .route("/archive/reindex", post(archive::reindex))
            .route("/tombstones/{id}/diff", get(differences::show))
            .route("/groups", get(groups::list))
            .route("/groups/{id}", get(groups::show))
            .route("/restores", get(restores::list).post(restores::restore))
            .route("/restores/{id}", get(restores::show))
            .route("/approve", post(commands::approve))
            .route("/orphan", post(commands::orphan))
            .route("/accept-rewind", post(commands::accept_rewind))
            .route("/remove-cluster", post(commands::remove_cluster))
            .route("/pause", post(commands::pause))
            .route("/resume", post(commands::resume))
            .route("/tokens", post(commands::token));
        Router::new()
            .nest("/api/v1", v1)
            .fallback(|| async { ApiError::no_such_path() })
            .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
            .layer(from_fn_with_state(self.clone(), guard))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(self)
    }
}

/// Around every request: who asks, from where, and for how long.
async fn guard(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let inner = &api.0;
    let caller = auth::check_host(request.headers(), &inner.host_names)
        .and_then(|()| auth::caller(request.headers(), &inner.token))
        .and_then(|caller| {
            let reading = request.method() == axum::http::Method::GET;
            if reading && !inner.token_for_reads { Ok(caller) } else { caller.authorised().map(|()| caller) }
        });
    match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
        }
        Err(error) => return error.into_response(),
    }
    match tokio::time::timeout(inner.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::too_slow(inner.timeout).into_response(),
    }
}
