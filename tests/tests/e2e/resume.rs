//! Hub and agents end and come back: they go on from their checkpoints, list nothing and write nothing.
//!
//! `ten_thousand` is the size that the project promises; it takes minutes in a debug build, so it runs on demand:
//! `cargo nextest run -p lockstep-tests --run-ignored only -E 'binary(e2e) and test(/^resume::/)'` within `testbed run --audit`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::conditions::now_ms;
use lockstep_tests::harness::resident_kib;
use lockstep_tests::identity::Identity;
use lockstep_tests::load::{Maps, names};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::requests::AuditEvent;
use lockstep_tests::testbed::{CLUSTERS, Testbed};

/// For ten thousand objects at two targets, with three API servers and a debug build on two cores.
const LONG: Duration = Duration::from_secs(600);

fn policy(namespace: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: resumes }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }}
"
    )
}

/// What the agents asked of each cluster since an earlier look at its audit log.
struct Since<'a> {
    identity: &'a Identity,
    before: Vec<(&'a Cluster, usize)>,
}

impl<'a> Since<'a> {
    fn now(identity: &'a Identity, clusters: [&'a Cluster; 3]) -> Result<Self> {
        let before = clusters.into_iter().map(|cluster| Ok((cluster, identity.requests(cluster)?.len())));
        Ok(Self { identity, before: before.collect::<Result<_>>()? })
    }

    fn requests(&self) -> Result<Vec<(&'a str, Vec<AuditEvent>)>> {
        let of = |(cluster, before): &(&'a Cluster, usize)| {
            Ok((cluster.name(), self.identity.requests(cluster)?.split_off(*before)))
        };
        self.before.iter().map(of).collect()
    }

    fn writes(&self) -> Result<Vec<String>> {
        let mut writes = Vec::new();
        for (cluster, events) in self.requests()? {
            let written = events.iter().filter(|event| Identity::is_write(event));
            writes.extend(written.map(|event| format!("{cluster}: {} {}", event.verb, event.request_uri)));
        }
        Ok(writes)
    }

    /// Every watch that the hub knows of was preceded by one probe, and there was no other list.
    async fn only_probes(&self, lockstep: &Lockstep) -> Result<()> {
        let clusters = lockstep.json(&["clusters"]).await?;
        for (cluster, events) in self.requests()? {
            let mut probes = BTreeMap::new();
            for event in events.iter().filter(|event| event.verb == "list") {
                let (path, query) = event.request_uri.split_once('?').unwrap_or((&event.request_uri, ""));
                // One namespace by its name, after a delete in it.
                if query.starts_with("fieldSelector=metadata.name") {
                    continue;
                }
                ensure!(query == "limit=1", "{cluster} was listed: {}", event.request_uri);
                *probes.entry(path).or_insert(0) += 1;
            }
            let known = clusters["items"].as_array().into_iter().flatten().find(|c| c["name"] == cluster);
            let watches = known.and_then(|c| c["watches"].as_array()).map_or(0, Vec::len);
            ensure!(
                watches > 0 && probes.len() == watches,
                "{cluster}: {watches} watches, probes: {probes:?}"
            );
            ensure!(probes.values().all(|count| *count == 1), "{cluster}: {probes:?}");
        }
        Ok(())
    }
}

/// Restarts it at so many objects in step; prints what it took.
async fn resumes(objects: usize) -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-resume").await?;
    let namespace = fleet.namespace.as_str();
    let identity = Identity::install(&bed, "resume").await?;
    let mut lockstep = Lockstep::prepare_with(&identity.kubeconfig(&bed, &BTreeMap::new()).await?)?;
    // A line per object would be most of the work.
    lockstep.log("info");
    lockstep.policy("policy.yaml", &policy(namespace))?;
    lockstep.start().await?;
    lockstep.settled().await?;
    let began = Instant::now();
    let maps = Maps::of(fleet.source(), namespace).await?;
    maps.create(&names("m", objects), "1").await?;
    let filled = began.elapsed();
    lockstep.all_in_step("resumes", objects, LONG).await?;
    println!("{objects} objects written in {filled:.1?}, at both targets after {:.1?}", began.elapsed());

    for graceful in [false, true] {
        let since = Since::now(&identity, fleet.clusters)?;
        if graceful {
            lockstep.stop().await?
        } else {
            lockstep.kill().await?
        }
        let (began, after) = (Instant::now(), now_ms()?);
        lockstep.start().await?;
        lockstep.resumed(&CLUSTERS, after).await?;
        lockstep.all_in_step("resumes", objects, LONG).await?;
        println!(
            "restarted, in step after {:.1?}, {} KiB",
            began.elapsed(),
            resident_kib(lockstep.pid().context("it runs")?)?
        );
        since.only_probes(&lockstep).await?;
        let writes = since.writes()?;
        ensure!(writes.is_empty(), "a restart wrote: {writes:?}");
    }

    // What happened meanwhile comes by the watches, too.
    lockstep.kill().await?;
    let since = Since::now(&identity, fleet.clusters)?;
    maps.replace(&["m-00000".to_owned()], "2").await?;
    maps.delete(&["m-00001".to_owned()]).await?;
    maps.create(&["new".to_owned()], "1").await?;
    let after = now_ms()?;
    lockstep.start().await?;
    lockstep.resumed(&CLUSTERS, after).await?;
    fleet.everywhere("v1", "ConfigMap", "m-00000", |m| m["data"]["k"] == "2").await?;
    fleet.everywhere("v1", "ConfigMap", "new", |_| true).await?;
    fleet.nowhere("v1", "ConfigMap", "m-00001").await?;
    lockstep.all_in_step("resumes", objects, LONG).await?;
    since.only_probes(&lockstep).await?;
    let writes = since.writes()?;
    ensure!(writes.len() == 6, "one write per change and target: {writes:?}");
    lockstep.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_lists_nothing_and_writes_nothing() -> Result<()> {
    resumes(2_000).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes in a debug build"]
async fn ten_thousand() -> Result<()> {
    resumes(10_000).await
}
