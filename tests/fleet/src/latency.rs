//! One change at a source, until it is seen at every target.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use lockstep_tests::chaos::dice::Dice;
use lockstep_tests::harness::in_time;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::fleet::Member;
use crate::objects::{Slot, apply};

/// The system shall be idle before each change.
const PAUSE: Duration = Duration::from_millis(300);

/// Times from the write to when a target has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies {
    /// Of each change at each target, sorted.
    pub(crate) each: Vec<Duration>,
    /// Of each change at the last of its targets, sorted.
    pub(crate) last: Vec<Duration>,
}

/// Changes one object so many times, each after the one before has arrived everywhere.
pub(crate) async fn measure(
    members: &Arc<Vec<Member>>,
    rounds: usize,
    patience: Duration,
    runtime: &Handle,
) -> Result<Latencies> {
    let slot = Slot { source: 0, number: 0 };
    let mut dice = Dice::new(0, "latency");
    let mut all = Latencies::default();
    for round in 0..rounds {
        let body = slot.body(&mut dice, 1_000_000 + round as u64);
        let waiting: FuturesUnordered<_> = (1..members.len())
            .map(|index| {
                let (members, data) = (Arc::clone(members), body["data"].clone());
                runtime.spawn(async move { arrived(&members, index, slot, &data).await })
            })
            .collect();
        tokio::time::sleep(PAUSE).await;
        let began = Instant::now();
        members.first().context("a source")?.served.with(|server, now| apply(server, now, &body))?;
        let arrived: Vec<_> = in_time(patience, "a change has arrived", waiting.collect::<Vec<_>>()).await?;
        let times = arrived.into_iter().map(|at| Ok(at?.saturating_duration_since(began)));
        let times = times.collect::<Result<Vec<_>>>()?;
        all.last.extend(times.iter().max());
        all.each.extend(times);
    }
    all.each.sort();
    all.last.sort();
    Ok(all)
}

async fn arrived(members: &[Member], index: usize, slot: Slot, data: &Value) -> Instant {
    if let Some(member) = members.get(index) {
        let (kind, namespace, name) = (slot.kind(), slot.namespace(), slot.name());
        let has = |found: Option<Value>| found.is_some_and(|object| object["data"] == *data);
        member
            .served
            .reached(|server| has(server.find(kind.api_version(), kind.name(), &namespace, &name)))
            .await;
    }
    Instant::now()
}

/// That of so many percent that are not slower.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let times: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(50));
        assert_eq!(percentile(&times, 99), Duration::from_millis(99));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
