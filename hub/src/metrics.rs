//! What the hub counts, and the port for scrapers and probes.

mod figures;
mod scrape;
#[cfg(test)]
mod tests;

pub use scrape::{Scraped, router};

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::core::Counts;

/// First bucket of transaction times, seconds; they double 14 times, to 1.6 s.
const FIRST_BUCKET_S: f64 = 0.000_1;
/// Buckets of transaction times.
const BUCKETS: u16 = 15;

type Count = Counter<u64, AtomicU64>;
type Level = Gauge<i64, AtomicI64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Breaker {
    target: String,
    kind: String,
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
    free_bytes: Level,
    out_of_space: Level,
    breakers_known: Arc<Mutex<BTreeSet<(String, String)>>>,
    breaker_open: Family<Breaker, Level>,
    transactions: Option<Histogram>,
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
        let help = "Free bytes where the data directory lies";
        hub.register("free_bytes", help, metrics.free_bytes.clone());
        let help = "1 while nothing new is taken because there is no room on the disk";
        hub.register("out_of_space", help, metrics.out_of_space.clone());
        let help = "Time of one transaction of the core, commit included";
        hub.register_with_unit("transaction", help, Unit::Seconds, transactions);
        let help = "1 while the circuit breaker of a kind at a target is not closed";
        hub.register("breaker_open", help, metrics.breaker_open.clone());
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
}
