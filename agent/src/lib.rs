//! The member-cluster agent: list-watch to session, steps to API server.
//!
//! A shell around two pure cores: [`lockstep_wire::session`] and this crate's `owner`, which turns
//! actions into effects. What may be done in the cluster is decided by the agent's own
//! configuration ([`AcceptList`], I16), what is wanted by the hub.
//!
//! Architecture invariant: an agent keeps no state on disk. Where to go on it learns from the hub, so
//! the two cannot disagree; what it may spill while the hub is away can be read by the running process
//! only. And nothing the agent does is a decision of policy.

mod accept;
mod ambient;
mod config;
mod deleters;
mod discovery;
mod driver;
mod error;
mod judge;
mod lease;
mod metrics;
mod owner;
mod perform;
mod reread;
mod retry;
mod spill;
mod steps;
mod stream;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use lockstep_cluster::{ClusterClient, ClusterIdentity};
use lockstep_engine::Millis;
use lockstep_engine::coalesce::Limits;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

pub use accept::{AcceptEntry, AcceptError, AcceptList, ReadScope, Subject, Verb};
pub use ambient::Ambient;
pub use config::{AgentConfig, TlsConfig, Token, WatchConfig};
pub use deleters::{Deleters, Unreadable};
pub use error::{AgentError, CODES};
pub use metrics::AgentMetrics;
pub use stream::{Dial, Line};

use discovery::Calls;
use driver::{Driver, Inputs, OBSERVATIONS, STREAM_EVENTS, State};
use error::{CANNOT_SPILL, CLUSTER_UNREACHABLE};
use lease::Keeper;
use owner::{Bounds, Facts, Owner};
use reread::Rereader;
use spill::Spill;
use steps::StepQueue;
use stream::{Connector, Grpc};

/// Runs an agent until it is cancelled. An API server or a hub that is away is waited for.
///
/// `client` is best made with [`AgentConfig::client_limits`]. What a receiver of webhooks puts into `deleters`
/// goes to the hub.
///
/// # Errors
/// When the configuration cannot be used. Nothing was sent then.
pub async fn run(
    config: AgentConfig,
    client: ClusterClient,
    cancelled: CancellationToken,
    metrics: AgentMetrics,
    deleters: Deleters,
) -> Result<(), AgentError> {
    let dial = Grpc::new(&config)?;
    run_over(dial, Ambient::system(), config, client, cancelled, metrics, deleters).await
}

/// The same, over the caller's way to the hub and in the caller's surroundings.
///
/// # Errors
/// When the configuration cannot be used. Nothing was sent then.
pub async fn run_over<D: Dial>(
    dial: D,
    ambient: Ambient,
    config: AgentConfig,
    client: ClusterClient,
    cancelled: CancellationToken,
    metrics: AgentMetrics,
    deleters: Deleters,
) -> Result<(), AgentError> {
    let accept = config.validate()?;
    let (events, stream) = mpsc::channel(STREAM_EVENTS);
    let connector = Connector::new(&config.hub, dial, ambient.clone(), events);
    let span = tracing::info_span!("agent", cluster = %config.cluster);
    let parts = Parts { config, client, accept, connector, stream, ambient, metrics, deleters };
    Box::pin(serve(parts, cancelled)).instrument(span).await;
    Ok(())
}

/// What an agent is made of.
struct Parts<D> {
    config: AgentConfig,
    client: ClusterClient,
    accept: AcceptList,
    connector: Connector<D>,
    stream: mpsc::Receiver<stream::StreamEvent>,
    ambient: Ambient,
    metrics: AgentMetrics,
    deleters: Deleters,
}

async fn serve<D: Dial>(parts: Parts<D>, cancelled: CancellationToken) {
    let Parts { config, client, accept, connector, stream, ambient, metrics, deleters } = parts;
    let Some(identity) = cancelled.run_until_cancelled(identity(&client, &ambient)).await else { return };
    tracing::info!(uid = %identity.uid, version = %identity.version, server = client.server(), "the cluster is there");
    let facts = Facts {
        cluster_name: config.cluster.to_string(),
        cluster_uid: identity.uid.as_str().to_owned(),
        server_version: identity.version,
        accepts: accept.describe(),
        reading: accept.reading().clone(),
        protocols: ambient.protocols,
    };
    let census_interval_ms = Millis::try_from(config.census_interval_s.saturating_mul(1_000)).unwrap_or(0);
    let queue = Limits { bytes: config.queue_bytes, count: config.queue_items };
    let bounds = Bounds { queue, lists_at_once: config.lists_at_once, census_interval_ms };
    let (observations, observed) = mpsc::channel(OBSERVATIONS);
    let (served, discovered) = mpsc::channel(1);
    let (answers, leases) = mpsc::channel(lease::ANSWERS);
    let (reread, rereads) = mpsc::channel(reread::ANSWERS);
    let calls = Arc::new(Calls::default());
    let instance = ambient.instance();
    let spill = spill(&config, &instance);
    let driver = Driver {
        owner: Owner::new(facts, bounds, instance).spilling_to(spill),
        client: client.clone(),
        accept: Arc::new(accept),
        metrics: metrics.of(config.cluster.as_str()),
        ambient: ambient.clone(),
        begun: Instant::now(),
        observations,
        discovery: Arc::clone(&calls),
        lease: Keeper::new(client.clone(), &config.lease_namespace, ambient.clock.clone(), answers),
        rereader: Rereader::new(client.clone(), reread),
        steps: StepQueue::new(config.steps_at_once),
        deleters: deleters.clone(),
        state: State::default(),
    };
    // The stream outlives the driver by a moment, to carry the last outcomes.
    let background = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let here = tracing::Span::current();
    tasks.spawn(connector.run(background.clone()).instrument(here.clone()));
    let interval = Duration::from_secs(config.discovery_interval_s);
    tasks
        .spawn(discovery::run(client, served, calls, interval, ambient, background.clone()).instrument(here));
    let inputs = Inputs { stream, observations: observed, discovered, leases, rereads, deleters };
    Box::pin(driver.run(inputs, cancelled)).await;
    background.cancel();
    while tasks.join_next().await.is_some() {}
}

/// The spill file, where one is wanted. Without it the agent works all the same.
fn spill(config: &AgentConfig, instance: &str) -> Option<Spill> {
    let dir = config.spill_dir.as_deref()?;
    match Spill::open(dir, config.cluster.as_str(), instance, config.spill_bytes) {
        Ok(spill) => Some(spill),
        Err(error) => {
            tracing::warn!(
                code = CANNOT_SPILL, dir = %dir.display(), %error,
                "there is no spill file; watches are not read while `queue_bytes` are in use"
            );
            None
        }
    }
}

/// Who the cluster is; asked until it answers.
async fn identity(client: &ClusterClient, ambient: &Ambient) -> ClusterIdentity {
    let mut retry = ambient.retry();
    loop {
        match client.identity().await {
            Ok(identity) => return identity,
            Err(error) => {
                let failure = error.into_failure();
                tracing::warn!(
                    code = CLUSTER_UNREACHABLE, server = client.server(), %failure,
                    "the cluster does not say who it is; trying again"
                );
                tokio::time::sleep(retry.next()).await;
            }
        }
    }
}
