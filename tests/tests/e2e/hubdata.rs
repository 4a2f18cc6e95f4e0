//! The hub's own data: backed up while it runs and restored, and really damaged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::identity::Identity;
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;

const OBJECTS: usize = 12;
const PAGE: usize = 4096;

fn policy(name: &str, namespace: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: {name} }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }}
"
    )
}

fn map(namespace: &str, name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"sync": "yes"}}, "data": {"k": value}})
}

/// One address for agents, whatever port the hub has after its next start.
struct Switch {
    address: SocketAddr,
    upstream: Arc<Mutex<String>>,
}

impl Switch {
    async fn open() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, upstream) = (listener.local_addr()?, Arc::new(Mutex::new(String::new())));
        let current = upstream.clone();
        tokio::spawn(async move {
            while let Ok((mut agent, _)) = listener.accept().await {
                let to = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tokio::spawn(async move {
                    if let Ok(mut hub) = TcpStream::connect(&to).await {
                        // An end that breaks ends the other: agents come again.
                        let _ = tokio::io::copy_bidirectional(&mut agent, &mut hub).await;
                    }
                });
            }
        });
        Ok(Self { address, upstream })
    }

    fn to(&self, lockstep: &Lockstep) -> Result<()> {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = lockstep.address("agents")?;
        Ok(())
    }
}

/// A hub and its agents, each a process of its own, with objects in step.
struct Bed<'a> {
    fleet: &'a Fleet<'a>,
    lockstep: Lockstep,
    switch: Switch,
    _agents: Vec<Child>,
    policy: &'static str,
}

impl<'a> Bed<'a> {
    async fn start(fleet: &'a Fleet<'a>, policy_name: &'static str, mut lockstep: Lockstep) -> Result<Self> {
        let namespace = fleet.namespace.as_str();
        lockstep.log("info");
        let switch = Switch::open().await?;
        switch.to(&lockstep)?;
        let mut agents = Vec::new();
        for cluster in ["cluster-a", "cluster-b", "cluster-c"] {
            agents.push(lockstep.agent(cluster, &format!("http://{}", switch.address), &[]).await?);
        }
        let bed = Self { fleet, lockstep, switch, _agents: agents, policy: policy_name };
        for n in 0..OBJECTS {
            fleet.source().apply_value(&map(namespace, &format!("m{n}"), "1")).await?;
        }
        bed.in_step(OBJECTS).await?;
        Ok(bed)
    }

    async fn in_step(&self, objects: usize) -> Result<()> {
        self.lockstep.all_in_step(self.policy, objects, PATIENCE).await
    }

    async fn put(&self, name: &str, value: &str) -> Result<()> {
        self.fleet.source().apply_value(&map(&self.fleet.namespace, name, value)).await.map(drop)
    }

    async fn delete(&self, cluster: &Cluster, name: &str) -> Result<()> {
        cluster.delete("v1", "ConfigMap", Some(&self.fleet.namespace), name).await
    }

    async fn follows(&self, name: &str, value: &str) -> Result<()> {
        self.fleet.everywhere("v1", "ConfigMap", name, |found| found["data"]["k"] == value).await
    }

    /// Name, uid and resourceVersion of every copy.
    async fn copies(&self) -> Result<Vec<String>> {
        let mut copies = Vec::new();
        for target in self.fleet.targets() {
            for found in target.list("v1", "ConfigMap", Some(&self.fleet.namespace), "sync=yes").await? {
                let metadata = &found["metadata"];
                let (name, uid) = (&metadata["name"], &metadata["uid"]);
                copies.push(format!("{} {name} {uid} {}", target.name(), metadata["resourceVersion"]));
            }
        }
        copies.sort();
        Ok(copies)
    }

    /// The hub starts again; its agents have gone on all the time.
    async fn start_hub(&mut self) -> Result<()> {
        self.lockstep.start().await?;
        self.switch.to(&self.lockstep)
    }

    async fn tombstones(&self, name: &str, cluster: &str) -> Result<Vec<Value>> {
        let namespace = self.fleet.namespace.as_str();
        let line = ["tombstones", "list", "configmap", "-n", namespace, "--name", name, "--cluster", cluster];
        let list = self.lockstep.json(&line).await?;
        Ok(list["items"].as_array().context("a list")?.clone())
    }

    async fn archived(&self, name: &str, cluster: &str) -> Result<Vec<Value>> {
        let what = format!("the tombstone of {name} of {cluster} is in the archive");
        eventually(PATIENCE, &what, async || {
            let found = self.tombstones(name, cluster).await?;
            ensure!(!found.is_empty() && found.iter().all(|kept| kept["path"].is_string()), "{found:?}");
            Ok(found)
        })
        .await
    }
}

/// What agents under this identity asked of the clusters, in the order of the audit logs.
fn asked(identity: &Identity, fleet: &Fleet<'_>, earlier: &[usize]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (n, cluster) in fleet.clusters.into_iter().enumerate() {
        let events = identity.requests(cluster)?;
        for event in events.iter().skip(earlier.get(n).copied().unwrap_or(0)) {
            let (path, query) = event.request_uri.split_once('?').unwrap_or((&event.request_uri, ""));
            // One namespace may be looked for by its name, after a delete in it.
            let lists = event.verb == "list"
                && query != "limit=1"
                && !query.starts_with("fieldSelector=metadata.name");
            if Identity::is_write(event) || lists {
                lines.push(format!("{}: {} {path}?{query}", cluster.name(), event.verb));
            }
        }
    }
    Ok(lines)
}

fn so_far(identity: &Identity, fleet: &Fleet<'_>) -> Result<Vec<usize>> {
    fleet.clusters.into_iter().map(|cluster| Ok(identity.requests(cluster)?.len())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_behind_the_back_of_agents_and_nothing_is_written_twice() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    let fleet = Fleet::new(&testbed, "e2e-backup").await?;
    let namespace = fleet.namespace.as_str();
    let identity = Identity::install(&testbed, "backup").await?;
    let kubeconfig = identity.kubeconfig(&testbed, &BTreeMap::new()).await?;
    let hub = Lockstep::hub_as(&kubeconfig, &policy("backups", namespace), &[]).await?;
    let mut bed = Bed::start(&fleet, "backups", hub).await?;

    // Beside the running hub, while it works.
    let place = bed.lockstep.dir.path().join("backup");
    let (data, to) = (bed.lockstep.data().display().to_string(), place.display().to_string());
    let line = ["hub", "backup", "--data-dir", &data, "--to", &to];
    let (made, ()) = tokio::try_join!(bed.lockstep.json(&line), async {
        for n in 0..20 {
            bed.put("m5", &n.to_string()).await?;
        }
        Ok(())
    })?;
    ensure!(made["counts"]["clusters"] == 3 && made["archive"]["missing"] == 0, "{made}");
    ensure!(!place.join("api-token").exists(), "the token that opens the API is no part of it");

    // Everything that can happen after it.
    bed.put("m0", "2").await?;
    bed.delete(fleet.source(), "m1").await?;
    bed.delete(fleet.source(), "m2").await?;
    bed.put("m2", "again").await?;
    bed.delete(fleet.targets()[0], "m3").await?;
    bed.put("new", "1").await?;
    bed.follows("m0", "2").await?;
    bed.follows("m2", "again").await?;
    bed.follows("m3", "1").await?;
    bed.follows("m5", "19").await?;
    bed.follows("new", "1").await?;
    fleet.nowhere("v1", "ConfigMap", "m1").await?;
    bed.in_step(OBJECTS).await?;
    let before = bed.copies().await?;
    let known = bed.archived("m1", "cluster-a").await?;
    ensure!(known.len() == 1, "{known:?}");

    // Not beside a running hub, and not over its data.
    let line = ["hub", "restore", "--data-dir", &data, "--from", &to, "--force"];
    let refused = bed.lockstep.run(&line).await?;
    ensure!(refused.code == 1 && refused.stderr.contains("LS0220"), "{refused:?}");
    bed.lockstep.kill().await?;
    let refused = bed.lockstep.run(&line[..6]).await?;
    ensure!(refused.code == 1 && refused.stderr.contains("LS0272"), "{refused:?}");
    let counted = so_far(&identity, &fleet)?;
    bed.lockstep.text(&line).await?;
    bed.start_hub().await?;
    let status = bed.lockstep.text(&["status"]).await?;
    ensure!(status.contains("LS0273"), "it says that it waits: {status}");

    eventually(PATIENCE, "the hub has caught up, and goes on by itself", async || {
        let status = bed.lockstep.json(&["status"]).await?;
        // What was archived after the backup is in no index; a person decides whether it is this hub's.
        let problems = status["problems"].as_array();
        let settled = problems.is_none_or(|told| told.iter().all(|problem| problem["code"] == "LS0244"));
        ensure!(status["paused"] == false && settled, "{status}");
        Ok(())
    })
    .await?;
    bed.in_step(OBJECTS).await?;
    ensure!(bed.copies().await? == before, "something was written:\n{before:?}\n{:?}", bed.copies().await?);
    let asked = asked(&identity, &fleet, &counted)?;
    ensure!(asked.is_empty(), "neither a list nor a write: {asked:?}");
    // The delete that the backup does not know of came again by the watch.
    bed.archived("m1", "cluster-a").await?;
    // And it works as ever: also for what it had to recognise.
    for name in ["m0", "m2", "m3", "new"] {
        bed.put(name, "3").await?;
        bed.follows(name, "3").await?;
    }
    bed.delete(fleet.source(), "m3").await?;
    fleet.nowhere("v1", "ConfigMap", "m3").await?;
    bed.in_step(OBJECTS - 1).await?;
    bed.lockstep.stop().await
}

/// Overwrites the pages of the store that hold the object m7: it was not deleted, so no tombstone is
/// among them.
fn tear(database: &Path, namespace: &str) -> Result<usize> {
    let mut bytes = std::fs::read(database)?;
    let has = |page: &[u8], needle: &str| page.windows(needle.len()).any(|w| w == needle.as_bytes());
    let mut torn = 0;
    for page in bytes.chunks_mut(PAGE) {
        // 13: a leaf of a table.
        if page.first() == Some(&13) && has(page, namespace) && has(page, "\"m7\"") {
            page[8..].fill(0x5a);
            torn += 1;
        }
    }
    std::fs::write(database, bytes)?;
    Ok(torn)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_kept_aside_and_built_anew_without_a_loss() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    let fleet = Fleet::new(&testbed, "e2e-damage").await?;
    let namespace = fleet.namespace.as_str();
    let hub = Lockstep::hub_with_policy(&testbed, &policy("damages", namespace), &[]).await?;
    let mut bed = Bed::start(&fleet, "damages", hub).await?;
    let before = bed.copies().await?;

    // An archive that takes nothing: what is deleted waits in the store, and nowhere else.
    let archive = bed.lockstep.data().join("archive/v1");
    if archive.is_dir() {
        std::fs::remove_dir_all(&archive)?;
    }
    std::fs::write(&archive, "in the way")?;
    bed.delete(fleet.source(), "m1").await?;
    eventually(PATIENCE, "the last states wait in the outbox", async || {
        let kept = bed.tombstones("m1", "cluster-a").await?;
        ensure!(kept.len() == 1 && kept[0]["path"].is_null(), "{kept:?}");
        for target in ["cluster-b", "cluster-c"] {
            let standing = bed.lockstep.standing("configmap/m1", namespace, target).await?;
            ensure!(standing.contains("Archiving"), "{standing}");
        }
        Ok(())
    })
    .await?;

    // Rotten while nobody looked: the stop was clean, so the start does not look either.
    bed.lockstep.stop().await?;
    let database = bed.lockstep.data().join("state.db");
    ensure!(tear(&database, namespace)? > 0, "no page was found to tear");
    bed.start_hub().await?;
    bed.put("m7", "2").await?;
    eventually(PATIENCE, "the hub meets the damage and stops", async || {
        let logged = bed.lockstep.logged()?;
        ensure!(logged.contains("LS0227") && logged.contains("LS0009"), "{logged}");
        Ok(())
    })
    .await?;
    let _ = bed.lockstep.kill().await;
    std::fs::remove_file(&archive)?;
    bed.start_hub().await?;
    let logged = bed.lockstep.logged()?;
    ensure!(logged.contains("LS0226") && logged.contains("outbox: 3"), "{logged}");
    let kept: Vec<String> = std::fs::read_dir(bed.lockstep.data())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    ensure!(kept.iter().any(|name| name.starts_with("state.db.corrupt-2")), "{kept:?}");

    // The agents that were there all along, with the tokens that they had.
    bed.follows("m7", "2").await?;
    for target in ["cluster-b", "cluster-c"] {
        bed.lockstep.stands("configmap/m1", namespace, target, "Held/Recovered").await?;
    }
    // Nothing was lost: the last state of what was deleted is in the archive now.
    let found = bed.archived("m1", "cluster-a").await?;
    let id = found[0]["id"].to_string();
    let shown = bed.lockstep.json(&["tombstones", "show", &id]).await?;
    ensure!(shown["body"]["data"]["k"] == "1", "{shown}");
    // And nothing was written but what changed.
    let rest = |all: Vec<String>| all.into_iter().filter(|c| !c.contains("\"m7\"")).collect::<Vec<_>>();
    let (after, before) = (rest(bed.copies().await?), rest(before));
    ensure!(after == before, "something was written:\n{before:?}\n{after:?}");
    bed.lockstep.text(&["approve", "damages", "--yes"]).await?;
    fleet.nowhere("v1", "ConfigMap", "m1").await?;
    bed.in_step(OBJECTS - 1).await?;
    // People are told until they have looked.
    let doctor = bed.lockstep.run(&["doctor"]).await?;
    ensure!(doctor.stdout.contains("LS0226") && doctor.stdout.contains("state.db.corrupt-2"), "{doctor:?}");
    bed.lockstep.stop().await
}
