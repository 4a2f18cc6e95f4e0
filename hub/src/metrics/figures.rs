//! What the store counts, read for one scrape into a registry of its own: scrapes at the same time share nothing.

use std::path::Path;
use std::sync::atomic::AtomicI64;

use lockstep_engine::Millis;
use lockstep_engine::status::State;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::owner::now;
use crate::session::Readers;
use crate::store::sqlite::kept_aside;
use crate::store::{StoreError, Waiting};

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
struct Held {
    policy: String,
    cluster: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cluster {
    cluster: String,
}

/// The figures of now.
pub(super) fn read(readers: &Readers, database: &Path, last_commit: Millis) -> Result<Registry, StoreError> {
    let mut registry = Registry::default();
    let hub = registry.sub_registry_with_prefix("lockstep_hub");
    let mut level = |name: &str, help: &str, value: i64| {
        let gauge = Level::default();
        gauge.set(value);
        hub.register(name, help, gauge);
    };
    let mut reader = readers()?;
    let clusters = reader.clusters()?;
    let rows = reader.summary(None)?;
    let Waiting { count, oldest } = reader.waiting()?;
    level("outbox_tombstones", "Tombstones that the archive does not have yet", count_of(count));
    let age = oldest.map_or(0, |oldest| (now() - oldest).max(0));
    level("outbox_oldest_milliseconds", "Age of the oldest of them, milliseconds", age);
    let aside = i64::try_from(kept_aside(database).len()).unwrap_or(i64::MAX);
    level("damaged_stores", "Damaged state stores that are kept aside in the data directory", aside);
    let help = "When the state store last took a commit, milliseconds since the epoch; 0: not yet";
    level("last_commit_milliseconds", help, last_commit);

    let rewound = Family::<Cluster, Level>::default();
    for row in &clusters {
        let label = Cluster { cluster: row.name.to_string() };
        rewound.get_or_create(&label).set(i64::from(row.rewound.is_some()));
    }
    hub.register("cluster_rewound", "1 while a rewind of the cluster is not dealt with", rewound);
    let (placements, held) = (Family::<Placement, Level>::default(), Family::<Held, Level>::default());
    let lag = Family::<Target, Level>::default();
    for row in rows.into_iter().filter(|row| !row.policy.is_empty()) {
        let target = clusters.iter().find(|cluster| cluster.id == row.target);
        let target = target.map(|cluster| cluster.name.to_string()).unwrap_or_default();
        let (policy, count) = (row.policy.clone(), count_of(row.count));
        let label =
            Placement { policy: policy.clone(), target: target.clone(), state: row.state.to_string() };
        placements.get_or_create(&label).inc_by(count);
        if row.state == State::Held {
            let label = Held { policy: policy.clone(), cluster: target.clone(), reason: row.reason.clone() };
            held.get_or_create(&label).inc_by(count);
        }
        if let Some(ms) = row.max_lag_ms {
            let gauge = lag.get_or_create(&Target { policy, target });
            gauge.set(gauge.get().max(ms));
        }
    }
    hub.register("placements", "Objects at targets by state", placements);
    hub.register("held_deletes", "Deletes that are held", held);
    hub.register("lag_milliseconds", "Largest lag from source event to applied write, milliseconds", lag);
    Ok(registry)
}

fn count_of(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
