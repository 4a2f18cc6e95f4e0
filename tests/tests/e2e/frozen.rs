//! One target does not answer for a while, under load: the other gets every change meanwhile, and the frozen one the net
//! effect afterwards. Times are printed, not judged; `a_minute` judges them, and runs on demand:
//! `cargo nextest run -p lockstep-tests --run-ignored only -E 'binary(e2e) and test(/^frozen::/)'` within `testbed run`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt as _;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, eventually, resident_kib};
use lockstep_tests::identity::Identity;
use lockstep_tests::load::{Maps, names};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::proxy::Proxy;
use lockstep_tests::testbed::{Component, Options, Testbed};
use serde_json::Value;
use tokio::task::JoinHandle;

const MANAGED: &str = "lockstep.dev/managed=true";
const OBJECTS: usize = 200;
/// Changed together, every [`PACE`]: 100 changes a second, of each object one in two seconds. Three API servers, a hub
/// and three agents in a debug build on two cores take that with room to spare, or latency would say nothing.
const BATCH: usize = 20;
const PACE: Duration = Duration::from_millis(200);
/// Steps that may be under way at the frozen target when it stops answering (the hub's window). Those are older than the
/// net effect; if the frost outlasts their timeout, they are sent once more.
const IN_FLIGHT: usize = 64;
/// The hub's bound on memory is one of configuration; this one says only that nothing grows with the number of changes.
const GROWTH_KIB: u64 = 64 << 10;

fn policy(namespace: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: frozen }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }}
"
    )
}

/// When each value was written at the source, and how long it took to the healthy target.
#[derive(Default)]
struct Clock {
    sent: BTreeMap<(String, String), Instant>,
    lags: Vec<Duration>,
}

/// Watches the copies at a target, and notes when they come.
async fn watch(
    target: &Cluster,
    namespace: &str,
    clock: Arc<Mutex<Clock>>,
) -> Result<JoinHandle<Result<()>>> {
    let api = target.api("v1", "ConfigMap", Some(namespace)).await?;
    let list = api.list(&ListParams::default().limit(1)).await?;
    let from = list.metadata.resource_version.context("a resourceVersion")?;
    Ok(tokio::spawn(async move {
        let mut events = pin!(api.watch(&WatchParams::default().labels(MANAGED), &from).await?);
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Added(copy) | WatchEvent::Modified(copy) = event {
                let now = Instant::now();
                let copy: DynamicObject = copy;
                let key = (copy.metadata.name.unwrap_or_default(), value(&copy.data));
                let mut clock = clock.lock().unwrap();
                if let Some(sent) = clock.sent.remove(&key) {
                    clock.lags.push(now - sent);
                }
            }
        }
        Ok(())
    }))
}

fn value(object: &Value) -> String {
    object["data"]["k"].as_str().unwrap_or_default().to_owned()
}

/// Changes objects at the source at a steady pace for so long; gives the lags at the healthy target.
async fn load(
    maps: &Maps,
    all: &[String],
    time: Duration,
    label: &str,
    clock: &Mutex<Clock>,
) -> Result<Lags> {
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (began, mut round) = (Instant::now(), 0);
    while began.elapsed() < time {
        ticks.tick().await;
        let batch: Vec<String> =
            all.iter().cycle().skip(round * BATCH % all.len()).take(BATCH).cloned().collect();
        let text = format!("{label}-{round}");
        let now = Instant::now();
        clock.lock().unwrap().sent.extend(batch.iter().map(|name| ((name.clone(), text.clone()), now)));
        maps.replace(&batch, &text).await?;
        round += 1;
    }
    // What is superseded before it is sent is never seen there: the rest arrives.
    let last: Vec<String> =
        all.iter().cycle().skip((round - 1) * BATCH % all.len()).take(BATCH).cloned().collect();
    eventually(PATIENCE, "the last changes are at the healthy target", async || {
        let clock = clock.lock().unwrap();
        let waits =
            |name: &String| clock.sent.contains_key(&(name.clone(), format!("{label}-{}", round - 1)));
        ensure!(!last.iter().any(waits), "some are missing");
        Ok(())
    })
    .await?;
    let mut clock = clock.lock().unwrap();
    clock.sent.clear();
    Ok(Lags::of(std::mem::take(&mut clock.lags), round * BATCH))
}

struct Lags {
    p50: Duration,
    p99: Duration,
    arrived: usize,
    changes: usize,
}

impl Lags {
    fn of(mut lags: Vec<Duration>, changes: usize) -> Self {
        lags.sort_unstable();
        let at = |percent: usize| lags.get((lags.len() * percent / 100).min(lags.len() - 1)).copied();
        let (p50, p99) = (at(50).unwrap_or_default(), at(99).unwrap_or_default());
        Self { p50, p99, arrived: lags.len(), changes }
    }
}

impl fmt::Display for Lags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p99, arrived, changes } = self;
        write!(f, "p50 {p50:.1?} p99 {p99:.1?} ({arrived} of {changes} changes seen)")
    }
}

/// How a target is frozen.
enum Frost {
    /// By a proxy that passes nothing on.
    Proxy(Proxy),
    /// By SIGSTOP to its API server.
    Process,
}

impl Frost {
    async fn set(&self, target: &Cluster, frozen: bool) -> Result<()> {
        match (self, frozen) {
            (Self::Proxy(proxy), true) => proxy.freeze(),
            (Self::Proxy(proxy), false) => proxy.thaw(),
            (Self::Process, true) => target.control_plane().pause(Component::ApiServer).await?,
            (Self::Process, false) => target.control_plane().resume(Component::ApiServer).await?,
        }
        Ok(())
    }
}

/// Lags before and during the frost.
async fn freezes(bed: &Testbed, frost: Frost, calm: Duration, frozen: Duration) -> Result<(Lags, Lags)> {
    let fleet = Fleet::new(bed, "e2e-frozen").await?;
    let identity = Identity::install(bed, "frozen").await?;
    let [a, b, c] = fleet.clusters;
    let proxies = match &frost {
        Frost::Proxy(proxy) => BTreeMap::from([("cluster-c", proxy)]),
        Frost::Process => BTreeMap::new(),
    };
    let kubeconfig = identity.kubeconfig(bed, &proxies).await?;
    let hub = Lockstep::hub_as(&kubeconfig, &policy(&fleet.namespace), &[]).await?;
    let address = format!("http://{}", hub.address("agents")?);
    let mut agents = Vec::new();
    for cluster in ["cluster-a", "cluster-b", "cluster-c"] {
        agents.push(hub.agent(cluster, &address, &[]).await?);
    }
    let (maps, all) = (Maps::of(a, &fleet.namespace).await?, names("m", OBJECTS));
    maps.create(&all, "0").await?;
    hub.all_in_step("frozen", OBJECTS, PATIENCE).await?;
    let clock = Arc::new(Mutex::new(Clock::default()));
    let watching = watch(b, &fleet.namespace, Arc::clone(&clock)).await?;
    let memory = || resident_kib(hub.pid().context("it runs")?);

    let before = load(&maps, &all, calm, "calm", &clock).await?;
    hub.all_in_step("frozen", OBJECTS, PATIENCE).await?;
    let (writes, resident) = (identity.writes(c)?.len(), memory()?);
    frost.set(c, true).await?;
    let during = load(&maps, &all, frozen, "frozen", &clock).await?;
    let peak = memory()?;

    // Still frozen: the healthy target holds the last of everything, and each object waits once for the other.
    maps.replace(&all, "last").await?;
    eventually(PATIENCE, "the healthy target holds everything", async || {
        let copies = Maps::of(b, &fleet.namespace).await?.labelled(MANAGED).await?;
        let behind = copies.values().filter(|copy| value(copy) != "last").count();
        ensure!(copies.len() == OBJECTS && behind == 0, "{behind} of {} are behind", copies.len());
        Ok(())
    })
    .await?;
    let status = hub.json(&["status", "frozen"]).await?;
    let targets = status["items"][0]["targets"].as_array().context("a list of targets")?;
    let counts = |name: &str| targets.iter().find(|target| target["target"] == name).map(|t| &t["counts"]);
    let waiting = counts("cluster-c").and_then(Value::as_object).context("counts")?;
    let placements: u64 = waiting.values().filter_map(Value::as_u64).sum();
    ensure!(placements == OBJECTS as u64 && waiting["inStep"] == 0, "{waiting:?}");

    frost.set(c, false).await?;
    hub.all_in_step("frozen", OBJECTS, PATIENCE * 3).await?;
    let copies = Maps::of(c, &fleet.namespace).await?.labelled(MANAGED).await?;
    ensure!(copies.values().all(|copy| value(copy) == "last"), "{copies:?}");
    let writes = identity.writes(c)?.split_off(writes);
    println!("calm: {before}; frozen: {during}; writes at the frozen target: {}", writes.len());
    println!("hub KiB: {resident} calm, {peak} frozen, {} afterwards", memory()?);
    let expected = OBJECTS..=OBJECTS + 2 * IN_FLIGHT;
    ensure!(expected.contains(&writes.len()), "the net effect is one write per object: {}", writes.len());
    ensure!(peak < resident + GROWTH_KIB, "the hub grew from {resident} to {peak} KiB");
    watching.abort();
    Ok((before, during))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_target_delays_no_other_and_gets_the_net_effect() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let frost = Frost::Proxy(Proxy::start(bed.cluster("cluster-c")?).await?);
    freezes(&bed, frost, Duration::from_secs(4), Duration::from_secs(12)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "stops an API server for a minute, and judges times"]
async fn a_minute() -> Result<()> {
    let bed = Testbed::start(Options { audit: true, ..Options::default() }).await?;
    let minute = Duration::from_secs(60);
    let (before, during) = freezes(&bed, Frost::Process, minute / 2, minute).await?;
    ensure!(during.p99 <= before.p99 * 2, "p99 {:?} became {:?}", before.p99, during.p99);
    Ok(())
}
