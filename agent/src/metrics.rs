//! What an agent counts. One set per process; several agents in it differ by the label `cluster`.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use lockstep_engine::coalesce::CoalesceCounters;
use lockstep_engine::concurrency::Congestion;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::deleters;
use crate::steps::StepCounters;
use crate::watch::Tally;

type Count = Counter<u64, AtomicU64>;
type Level = Gauge<i64, AtomicI64>;

/// First bucket of step latencies, in seconds: a server-side apply takes about 3 ms.
const FIRST_BUCKET_S: f64 = 0.001;
/// Buckets double 15 times, up to half a minute.
const BUCKETS: u16 = 16;

/// Which agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabel {
    cluster: String,
}

/// Which agent, and how a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    cluster: String,
    outcome: String,
}

/// Which agent, and why fewer steps may be under way at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    cluster: String,
    reason: String,
}

/// Which agent, and which watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabel {
    cluster: String,
    kind: String,
    namespace: String,
}

/// The metrics of all agents in this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    queue_enqueued: Family<ClusterLabel, Count>,
    queue_dequeued: Family<ClusterLabel, Count>,
    queue_dropped: Family<ClusterLabel, Count>,
    queue_items: Family<ClusterLabel, Level>,
    queue_bytes: Family<ClusterLabel, Level>,
    spilled_items: Family<ClusterLabel, Level>,
    spilled_bytes: Family<ClusterLabel, Level>,
    steps_enqueued: Family<ClusterLabel, Count>,
    steps_dequeued: Family<ClusterLabel, Count>,
    steps_dropped: Family<ClusterLabel, Count>,
    steps: Family<OutcomeLabel, Count>,
    step_seconds: Family<ClusterLabel, Histogram>,
    steps_limit: Family<ClusterLabel, Level>,
    steps_limit_decreases: Family<ReasonLabel, Count>,
    deleters_enqueued: Family<ClusterLabel, Count>,
    deleters_dequeued: Family<ClusterLabel, Count>,
    deleters_dropped: Family<ClusterLabel, Count>,
    events: Family<ClusterLabel, Count>,
    lists: Family<ClusterLabel, Count>,
    rewinds: Family<ClusterLabel, Count>,
    censuses: Family<ClusterLabel, Count>,
    census_mismatches: Family<ClusterLabel, Count>,
    rereads: Family<ClusterLabel, Count>,
    bodies_sent: Family<ClusterLabel, Count>,
    bodies_withheld: Family<ClusterLabel, Count>,
    undecodable: Family<ClusterLabel, Count>,
    sent_bytes: Family<ClusterLabel, Count>,
    connects: Family<ClusterLabel, Count>,
    connected: Family<ClusterLabel, Level>,
    watch_age: Family<WatchLabel, Level>,
}

impl AgentMetrics {
    /// Makes the metrics and registers them. Call it once per registry.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::unregistered();
        let agent = registry.sub_registry_with_prefix("lockstep_agent");
        let m = &metrics;
        agent.register("queue_enqueued", "Deltas queued for the hub", m.queue_enqueued.clone());
        agent.register("queue_dequeued", "Deltas put into batches", m.queue_dequeued.clone());
        agent.register("queue_dropped", "Deltas made superfluous by newer ones", m.queue_dropped.clone());
        agent.register("queue_items", "Deltas that wait for the hub", m.queue_items.clone());
        agent.register_with_unit("queue", "Memory of what waits", Unit::Bytes, m.queue_bytes.clone());
        agent.register("spilled_items", "Deltas whose bodies wait on disk", m.spilled_items.clone());
        agent.register_with_unit("spilled", "Bodies that wait on disk", Unit::Bytes, m.spilled_bytes.clone());
        agent.register("steps_enqueued", "Steps taken from the hub", m.steps_enqueued.clone());
        agent.register("steps_dequeued", "Steps begun", m.steps_dequeued.clone());
        agent.register(
            "steps_dropped",
            "Steps cancelled, or lost with their stream",
            m.steps_dropped.clone(),
        );
        for (name, help, family) in [
            ("deleters_enqueued", "Deletes whose users webhooks told", &m.deleters_enqueued),
            ("deleters_dequeued", "Those told to the hub", &m.deleters_dequeued),
            ("deleters_dropped", "Those given up while the hub was away", &m.deleters_dropped),
        ] {
            agent.register(name, help, family.clone());
        }
        agent.register("steps", "Steps carried out, by outcome", m.steps.clone());
        agent.register_with_unit("step", "Time of a step's requests", Unit::Seconds, m.step_seconds.clone());
        agent.register("steps_limit", "Steps that may be under way at a time", m.steps_limit.clone());
        agent.register(
            "steps_limit_decreases",
            "Times that the limit was made smaller, by reason",
            m.steps_limit_decreases.clone(),
        );
        agent.register("events", "Objects seen in lists and watches", m.events.clone());
        agent.register("lists", "Full lists begun", m.lists.clone());
        agent.register("rewinds", "Rewinds found, by the Lease and by each watch", m.rewinds.clone());
        agent.register("censuses", "Namespaces of watches compared with the hub", m.censuses.clone());
        agent.register(
            "census_mismatches",
            "Objects that the hub was found to hold otherwise than they are",
            m.census_mismatches.clone(),
        );
        agent.register("rereads", "Objects read again because of that", m.rereads.clone());
        agent.register("bodies_sent", "Bodies queued for the hub", m.bodies_sent.clone());
        agent.register("bodies_withheld", "Deltas sent as keys only", m.bodies_withheld.clone());
        agent.register("undecodable", "Objects that could not be read", m.undecodable.clone());
        agent.register_with_unit("sent", "Messages sent to the hub", Unit::Bytes, m.sent_bytes.clone());
        agent.register("connects", "Streams to the hub opened", m.connects.clone());
        agent.register("connected", "1 while the hub serves this agent", m.connected.clone());
        agent.register_with_unit(
            "watch_age",
            "Time since a watch last heard of its server",
            Unit::Seconds,
            m.watch_age.clone(),
        );
        metrics
    }

    fn unregistered() -> Self {
        let buckets = || Histogram::new(exponential_buckets(FIRST_BUCKET_S, 2.0, BUCKETS));
        Self {
            queue_enqueued: Family::default(),
            queue_dequeued: Family::default(),
            queue_dropped: Family::default(),
            queue_items: Family::default(),
            queue_bytes: Family::default(),
            spilled_items: Family::default(),
            spilled_bytes: Family::default(),
            steps_enqueued: Family::default(),
            steps_dequeued: Family::default(),
            steps_dropped: Family::default(),
            steps: Family::default(),
            step_seconds: Family::new_with_constructor(buckets),
            steps_limit: Family::default(),
            steps_limit_decreases: Family::default(),
            deleters_enqueued: Family::default(),
            deleters_dequeued: Family::default(),
            deleters_dropped: Family::default(),
            events: Family::default(),
            lists: Family::default(),
            rewinds: Family::default(),
            censuses: Family::default(),
            census_mismatches: Family::default(),
            rereads: Family::default(),
            bodies_sent: Family::default(),
            bodies_withheld: Family::default(),
            undecodable: Family::default(),
            sent_bytes: Family::default(),
            connects: Family::default(),
            connected: Family::default(),
            watch_age: Family::default(),
        }
    }

    /// The metrics of one agent.
    pub(crate) fn of(&self, cluster: &str) -> ClusterMetrics {
        ClusterMetrics { all: self.clone(), label: ClusterLabel { cluster: cluster.to_owned() } }
    }
}

/// The metrics of one agent.
#[derive(Clone, Debug)]
pub(crate) struct ClusterMetrics {
    all: AgentMetrics,
    label: ClusterLabel,
}

impl ClusterMetrics {
    pub(crate) fn connected(&self, connected: bool) {
        self.all.connected.get_or_create(&self.label).set(i64::from(connected));
        if connected {
            self.all.connects.get_or_create(&self.label).inc();
        }
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.all.sent_bytes.get_or_create(&self.label).inc_by(bytes as u64);
    }

    pub(crate) fn step(&self, outcome: &str, took_us: u32) {
        let label = OutcomeLabel { cluster: self.label.cluster.clone(), outcome: outcome.to_owned() };
        self.all.steps.get_or_create(&label).inc();
        self.all.step_seconds.get_or_create(&self.label).observe(f64::from(took_us) / 1e6);
    }

    /// How many steps may be under way now, and how often that was made smaller since the start.
    pub(crate) fn limit(&self, limit: usize, decreases: impl Iterator<Item = (Congestion, u64)>) {
        self.all.steps_limit.get_or_create(&self.label).set(level(limit));
        for (why, count) in decreases {
            let label = ReasonLabel { cluster: self.label.cluster.clone(), reason: why.code().to_owned() };
            self.all.steps_limit_decreases.get_or_create(&label).inner().store(count, Ordering::Relaxed);
        }
    }

    /// Copies what the owner counted.
    pub(crate) fn owner(&self, tally: Tally, queue: CoalesceCounters, steps: StepCounters) {
        let Tally {
            events,
            bodies_sent,
            bodies_withheld,
            undecodable,
            lists,
            rewinds,
            censuses,
            mismatches,
            rereads,
        } = tally;
        for (family, value) in [
            (&self.all.events, events),
            (&self.all.lists, lists),
            (&self.all.rewinds, rewinds),
            (&self.all.censuses, censuses),
            (&self.all.census_mismatches, mismatches),
            (&self.all.rereads, rereads),
            (&self.all.bodies_sent, bodies_sent),
            (&self.all.bodies_withheld, bodies_withheld),
            (&self.all.undecodable, undecodable),
            (&self.all.queue_enqueued, queue.enqueued),
            (&self.all.queue_dequeued, queue.dequeued),
            (&self.all.queue_dropped, queue.dropped),
            (&self.all.steps_enqueued, steps.enqueued),
            (&self.all.steps_dequeued, steps.dequeued),
            (&self.all.steps_dropped, steps.dropped),
        ] {
            family.get_or_create(&self.label).inner().store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn deleters(&self, counters: deleters::Counters) {
        let deleters::Counters { enqueued, dequeued, dropped } = counters;
        for (family, value) in [
            (&self.all.deleters_enqueued, enqueued),
            (&self.all.deleters_dequeued, dequeued),
            (&self.all.deleters_dropped, dropped),
        ] {
            family.get_or_create(&self.label).inner().store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn queued(&self, items: usize, bytes: usize) {
        self.all.queue_items.get_or_create(&self.label).set(level(items));
        self.all.queue_bytes.get_or_create(&self.label).set(level(bytes));
    }

    pub(crate) fn spilled(&self, items: usize, bytes: u64) {
        self.all.spilled_items.get_or_create(&self.label).set(level(items));
        self.all.spilled_bytes.get_or_create(&self.label).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The age of one watch, in seconds; none: the watch is gone.
    pub(crate) fn watch_age(&self, kind: &str, namespace: &str, age_s: Option<i64>) {
        let (kind, namespace) = (kind.to_owned(), namespace.to_owned());
        let label = WatchLabel { cluster: self.label.cluster.clone(), kind, namespace };
        match age_s {
            Some(age_s) => {
                self.all.watch_age.get_or_create(&label).set(age_s);
            }
            None => {
                self.all.watch_age.remove(&label);
            }
        }
    }
}

fn level(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_style() {
        let mut registry = Registry::default();
        let metrics = AgentMetrics::register(&mut registry).of("a");
        metrics.sent(7);
        metrics.step("Applied", 3_000);
        metrics.owner(
            Tally::default(),
            CoalesceCounters { enqueued: 5, ..Default::default() },
            StepCounters::default(),
        );
        metrics.spilled(1, 9);
        metrics.limit(7, [(Congestion::Throttled, 2)].into_iter());
        metrics.watch_age("Pod", "", Some(3));
        metrics.watch_age("Secret", "", Some(3));
        metrics.watch_age("Secret", "", None);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"lockstep_agent_sent_bytes_total{cluster="a"} 7"#,
            r#"lockstep_agent_steps_total{cluster="a",outcome="Applied"} 1"#,
            r#"lockstep_agent_queue_enqueued_total{cluster="a"} 5"#,
            r#"lockstep_agent_watch_age_seconds{cluster="a",kind="Pod",namespace=""} 3"#,
            r#"lockstep_agent_step_seconds_count{cluster="a"} 1"#,
            r#"lockstep_agent_spilled_items{cluster="a"} 1"#,
            r#"lockstep_agent_spilled_bytes{cluster="a"} 9"#,
            r#"lockstep_agent_steps_limit{cluster="a"} 7"#,
            r#"lockstep_agent_steps_limit_decreases_total{cluster="a",reason="Throttled"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("Secret"));
    }
}
