//! What the hub counts, and the port for scrapers and probes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use lockstep_engine::status::State;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::core::Counts;
use crate::owner::now;
use crate::problem::Problems;
use crate::session::Readers;
use crate::store::Waiting;
use crate::store::sqlite::kept_aside;

/// First bucket of transaction times, seconds; they double 14 times, to 1.6 s.
const FIRST_BUCKET_S: f64 = 0.000_1;
/// Buckets of transaction times.
const BUCKETS: u16 = 15;
/// Media type of the metrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Count = Counter<u64, AtomicU64>;
type Level = Gauge<i64, AtomicI64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Placement {
    policy: String,
    target: String,
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Target {
    policy: String,
    target: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HeldLabel {
    policy: String,
    cluster: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Breaker {
    target: String,
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabel {
    cluster: String,
}

/// The hub's metrics. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    deltas: Count,
    batches: Count,
    planned: Count,
    steps: Count,
    failed_steps: Count,
    tombstones: Count,
    deletes: Count,
    held: Count,
    drifts: Count,
    sessions: Count,
    rewinds: Count,
    census_mismatches: Count,
    connected: Level,
    archived: Count,
    /// Attempts that it refused.
    pub(crate) archive_failures: Count,
    /// Tombstones that it refuses now.
    pub(crate) archive_waiting: Level,
    archive_bytes: Level,
    purged: Count,
    /// Files that were to go and could not be deleted.
    pub(crate) purge_failures: Count,
    outbox: Level,
    outbox_age: Level,
    free_bytes: Level,
    out_of_space: Level,
    damaged_stores: Level,
    breakers_known: Arc<Mutex<BTreeSet<(String, String)>>>,
    breaker_open: Family<Breaker, Level>,
    rewound: Family<ClusterLabel, Level>,
    transactions: Option<Histogram>,
    placements: Family<Placement, Level>,
    lag: Family<Target, Level>,
    held_now: Family<HeldLabel, Level>,
}

impl Metrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let transactions = Histogram::new(exponential_buckets(FIRST_BUCKET_S, 2.0, BUCKETS));
        let metrics = Self { transactions: Some(transactions.clone()), ..Self::default() };
        let hub = registry.sub_registry_with_prefix("lockstep_hub");
        for (name, help, counter) in [
            ("deltas_ingested", "Deltas committed to the state store", &metrics.deltas),
            ("batches_committed", "Batches committed to the state store", &metrics.batches),
            ("placements_planned", "Decisions about one object at one target", &metrics.planned),
            ("steps_sent", "Steps sent to agents", &metrics.steps),
            ("steps_failed", "Steps that were answered with a failure", &metrics.failed_steps),
            ("tombstones_made", "Tombstones put into the outbox", &metrics.tombstones),
            ("deletes", "Objects deleted at targets, each archived before", &metrics.deletes),
            ("deletes_held", "Deletes held by a budget", &metrics.held),
            (
                "drifts",
                "Changes of fields of ours by others that were answered with a write",
                &metrics.drifts,
            ),
            ("tombstones_archived", "Tombstones that the archive took", &metrics.archived),
            ("archive_failures", "Attempts to archive that failed", &metrics.archive_failures),
            ("tombstones_purged", "Tombstones that retention or a person took away", &metrics.purged),
            ("purge_failures", "Files that were to go and could not be deleted", &metrics.purge_failures),
            ("sessions_begun", "Sessions of agents begun", &metrics.sessions),
            ("rewinds", "Rewinds of clusters noticed", &metrics.rewinds),
            ("census_mismatches", "Namespaces in which store and agent differed", &metrics.census_mismatches),
        ] {
            hub.register(name, help, counter.clone());
        }
        hub.register("agents_connected", "Agents connected now", metrics.connected.clone());
        let help = "Tombstones that wait because the archive refuses them";
        hub.register("archive_waiting", help, metrics.archive_waiting.clone());
        let help = "Bytes of the archive's files, as the index has them";
        hub.register("archive_bytes", help, metrics.archive_bytes.clone());
        let help = "Tombstones that the archive does not have yet, as of the last scrape";
        hub.register("outbox_tombstones", help, metrics.outbox.clone());
        let help = "Age of the oldest of them, as of the last scrape, milliseconds";
        hub.register("outbox_oldest_milliseconds", help, metrics.outbox_age.clone());
        let help = "Free bytes where the data directory lies";
        hub.register("free_bytes", help, metrics.free_bytes.clone());
        let help = "1 while nothing new is taken because there is no room on the disk";
        hub.register("out_of_space", help, metrics.out_of_space.clone());
        let help = "Damaged state stores that are kept aside in the data directory";
        hub.register("damaged_stores", help, metrics.damaged_stores.clone());
        let help = "Time of one transaction of the core, commit included";
        hub.register_with_unit("transaction", help, Unit::Seconds, transactions);
        let help = "1 while the circuit breaker of a kind at a target is not closed";
        hub.register("breaker_open", help, metrics.breaker_open.clone());
        let help = "1 while a rewind of the cluster is not dealt with, as of the last scrape";
        hub.register("cluster_rewound", help, metrics.rewound.clone());
        let help = "Objects at targets by state, as of the last scrape";
        hub.register("placements", help, metrics.placements.clone());
        let help = "Deletes that are held, as of the last scrape";
        hub.register("held_deletes", help, metrics.held_now.clone());
        let help = "Largest lag from source event to applied write, as of the last scrape, milliseconds";
        hub.register("lag_milliseconds", help, metrics.lag.clone());
        metrics
    }

    /// Takes over what the core has counted since the start.
    pub fn observe(&self, before: &Counts, now: &Counts, connected: usize, took: Duration) {
        self.breakers(&now.open_breakers);
        let Counts {
            deltas,
            batches,
            planned,
            steps,
            failed_steps,
            tombstones,
            deletes,
            drifts,
            held,
            sessions,
            rewinds,
            census_mismatches,
            open_breakers: _,
        } = now;
        for (counter, now, before) in [
            (&self.deltas, deltas, before.deltas),
            (&self.batches, batches, before.batches),
            (&self.planned, planned, before.planned),
            (&self.steps, steps, before.steps),
            (&self.failed_steps, failed_steps, before.failed_steps),
            (&self.tombstones, tombstones, before.tombstones),
            (&self.deletes, deletes, before.deletes),
            (&self.drifts, drifts, before.drifts),
            (&self.held, held, before.held),
            (&self.sessions, sessions, before.sessions),
            (&self.rewinds, rewinds, before.rewinds),
            (&self.census_mismatches, census_mismatches, before.census_mismatches),
        ] {
            counter.inc_by(now.saturating_sub(before));
        }
        self.connected.set(i64::try_from(connected).unwrap_or(i64::MAX));
        if let Some(transactions) = &self.transactions {
            transactions.observe(took.as_secs_f64());
        }
    }

    /// The archive took a file.
    pub(crate) fn took(&self, bytes: u64) {
        self.archived.inc();
        self.archive_bytes.inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Files of the archive are gone.
    pub(crate) fn purged(&self, files: u64, bytes: u64) {
        self.purged.inc_by(files);
        self.archive_bytes.dec_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// So much is in the archive.
    pub(crate) fn archive_bytes(&self, bytes: u64) {
        self.archive_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// So much is free on the disk.
    pub(crate) fn free(&self, bytes: u64) {
        self.free_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Is nothing new taken for want of room?
    pub(crate) fn out_of_space(&self, yes: bool) {
        self.out_of_space.set(i64::from(yes));
    }

    /// So many damaged stores are kept aside.
    pub(crate) fn damaged_stores(&self, count: usize) {
        self.damaged_stores.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn breakers(&self, open: &BTreeSet<(String, String)>) {
        // Those that closed stay as 0, so that their graphs end in a fall and not in a gap.
        let Ok(mut known) = self.breakers_known.lock() else { return };
        if known.is_empty() && open.is_empty() {
            return;
        }
        known.extend(open.iter().cloned());
        for (target, kind) in &*known {
            let is_open = open.contains(&(target.clone(), kind.clone()));
            let label = Breaker { target: target.clone(), kind: kind.clone() };
            self.breaker_open.get_or_create(&label).set(i64::from(is_open));
        }
    }

    /// Reads what is counted by the store.
    fn refresh(&self, readers: &Readers) -> Result<(), crate::store::StoreError> {
        let mut reader = readers()?;
        let clusters = reader.clusters()?;
        let rows = reader.summary(None)?;
        let Waiting { count, oldest } = reader.waiting()?;
        self.outbox.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.outbox_age.set(oldest.map_or(0, |oldest| (now() - oldest).max(0)));
        self.rewound.clear();
        for row in &clusters {
            let label = ClusterLabel { cluster: row.name.to_string() };
            self.rewound.get_or_create(&label).set(i64::from(row.rewound.is_some()));
        }
        self.placements.clear();
        self.lag.clear();
        self.held_now.clear();
        for row in rows.into_iter().filter(|row| !row.policy.is_empty()) {
            let target =
                clusters.iter().find(|c| c.id == row.target).map(|c| c.name.to_string()).unwrap_or_default();
            let label = Placement {
                policy: row.policy.clone(),
                target: target.clone(),
                state: row.state.to_string(),
            };
            self.placements.get_or_create(&label).inc_by(i64::try_from(row.count).unwrap_or(i64::MAX));
            if row.state == State::Held {
                let (policy, cluster) = (row.policy.clone(), target.clone());
                let label = HeldLabel { policy, cluster, reason: row.reason.clone() };
                self.held_now.get_or_create(&label).inc_by(i64::try_from(row.count).unwrap_or(i64::MAX));
            }
            if let Some(lag) = row.max_lag_ms {
                let gauge = self.lag.get_or_create(&Target { policy: row.policy, target });
                gauge.set(gauge.get().max(lag));
            }
        }
        Ok(())
    }
}

/// What the port for scrapers and probes serves.
#[derive(Clone)]
pub struct Scraped {
    /// Everything registered in this process.
    pub registry: Arc<Mutex<Registry>>,
    /// The hub's own.
    pub metrics: Metrics,
    /// Readers of the state store.
    pub readers: Readers,
    /// What is wrong with the hub itself.
    pub problems: Problems,
    /// The state store's file.
    pub database: PathBuf,
    /// Set once every part runs.
    pub ready: Arc<AtomicBool>,
}

/// `/metrics`, `/healthz`, `/readyz`.
pub fn router(scraped: Scraped) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(scraped)
}

async fn scrape(Shared(scraped): Shared<Scraped>) -> impl IntoResponse {
    let (metrics, readers, database) = (scraped.metrics.clone(), scraped.readers.clone(), scraped.database);
    // A store that cannot be read now leaves the last figures out; the counters still tell.
    let refresh = move || {
        metrics.damaged_stores(kept_aside(&database).len());
        metrics.refresh(&readers)
    };
    if let Ok(Err(error)) = tokio::task::spawn_blocking(refresh).await {
        tracing::debug!("placements are left out of a scrape: {error}");
    }
    let mut text = String::new();
    let registry = scraped.registry.lock().unwrap_or_else(PoisonError::into_inner);
    match encode(&mut text, &registry) {
        Ok(()) => (StatusCode::OK, [(CONTENT_TYPE, OPENMETRICS)], text),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], String::new()),
    }
}

async fn ready(Shared(scraped): Shared<Scraped>) -> impl IntoResponse {
    if !scraped.ready.load(Ordering::Acquire) {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n".to_owned());
    }
    match scraped.problems.stopping() {
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
        None => (StatusCode::OK, "ok\n".to_owned()),
    }
}
