//! etcd of a source restored from an old snapshot, in both forms: recognised, nothing deleted, an alarm, and a way out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Context, Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::{Options, RestoreForm, Testbed};
use serde_json::{Value, json};

fn policy(namespace: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: rewinds }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  deletion: {{ budget: {{ count: 1000 }} }}
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }}
"
    )
}

fn map(namespace: &str, name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"sync": "yes"}}, "data": {"k": value}})
}

async fn rewound(lockstep: &Lockstep, missing: u64) -> Result<()> {
    eventually(PATIENCE, "the rewind is told", async || {
        let clusters = lockstep.json(&["clusters", "cluster-a"]).await?;
        let rewound = &clusters["items"][0]["rewound"];
        ensure!(rewound["missing"] == missing && rewound["how"].is_string(), "{clusters}");
        Ok(())
    })
    .await
}

/// Waits until the agent's Lease was written so often after this revision. The hub is told of a write by the next one.
async fn counted_beyond(cluster: &Cluster, revision: i64, writes: usize) -> Result<()> {
    let mut seen = revision;
    for _ in 0..writes {
        seen = eventually(PATIENCE, "the Lease counts on", async || {
            let lease = cluster
                .get("coordination.k8s.io/v1", "Lease", Some("lockstep-system"), "lockstep-agent")
                .await?;
            let version = lease["metadata"]["resourceVersion"].as_str().context("a resourceVersion")?;
            let version = version.parse::<i64>()?;
            ensure!(version > seen, "it is at {version}");
            Ok(version)
        })
        .await?;
    }
    Ok(())
}

/// Objects made before the snapshot (kept, changed since, deleted since) and after it (lost).
async fn rewind(bed: &Testbed, form: RestoreForm, agents_are_away: bool) -> Result<()> {
    let fleet = Fleet::new(bed, "e2e-rewind").await?;
    let namespace = fleet.namespace.as_str();
    let mut lockstep = Lockstep::with_policy(bed, &policy(namespace)).await?;
    let source = fleet.source();
    for name in ["kept", "changed", "deleted"] {
        source.apply_value(&map(namespace, name, "old")).await?;
    }
    for name in ["kept", "changed", "deleted"] {
        fleet.everywhere("v1", "ConfigMap", name, |_| true).await?;
    }
    lockstep.settled().await?;
    let plane = source.control_plane();
    let saved = plane.save().await?;

    source.apply_value(&map(namespace, "changed", "new")).await?;
    source.delete("v1", "ConfigMap", Some(namespace), "deleted").await?;
    for n in 0..10 {
        source.apply_value(&map(namespace, &format!("lost{n}"), "1")).await?;
    }
    fleet.everywhere("v1", "ConfigMap", "changed", |m| m["data"]["k"] == "new").await?;
    fleet.nowhere("v1", "ConfigMap", "deleted").await?;
    for n in 0..10 {
        fleet.everywhere("v1", "ConfigMap", &format!("lost{n}"), |_| true).await?;
    }
    lockstep.wait("rewinds").await?;
    // The guard counts every ten seconds: the counter is to have moved past the snapshot's.
    counted_beyond(source, saved.revision(), if agents_are_away { 2 } else { 1 }).await?;

    if agents_are_away {
        lockstep.kill().await?;
    }
    plane.restore(&saved, form).await?;
    if agents_are_away {
        // The server passes the old checkpoints: resourceVersions alone would tell nothing any more.
        for n in 0..200 {
            source
                .apply_value(&json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "busy", "namespace": namespace}, "data": {"n": n.to_string()}}))
                .await?;
        }
        lockstep.start().await?;
    }
    rewound(&lockstep, 10).await?;
    for target in ["cluster-b", "cluster-c"] {
        let held = lockstep.stands("configmap/lost3", namespace, target, "Held/SourceRewound").await?;
        ensure!(held.contains("accept-rewind cluster-a"), "it says what to do: {held}");
    }
    // What is there is followed: the old state, and the object that is back.
    fleet.everywhere("v1", "ConfigMap", "changed", |m| m["data"]["k"] == "old").await?;
    fleet.everywhere("v1", "ConfigMap", "deleted", |_| true).await?;
    fleet.everywhere("v1", "ConfigMap", "lost3", |_| true).await?;
    // The thrown-away state is kept.
    let kept =
        lockstep.json(&["tombstones", "list", "configmap", "-n", namespace, "--name", "changed"]).await?;
    ensure!(kept["items"][0]["cause"] == "Rewound", "{kept}");

    // One comes back by hand; the rest is accepted as lost.
    source.apply_value(&map(namespace, "lost0", "2")).await?;
    fleet.everywhere("v1", "ConfigMap", "lost0", |m| m["data"]["k"] == "2").await?;
    let done = lockstep.json(&["clusters", "accept-rewind", "cluster-a"]).await?;
    ensure!(done["objects"] == 9, "{done}");
    fleet.nowhere("v1", "ConfigMap", "lost3").await?;
    fleet.everywhere("v1", "ConfigMap", "lost0", |m| m["data"]["k"] == "2").await?;
    // The image counts as deleted when the hub has heard of it, after the copy is gone.
    eventually(PATIENCE, "what was lost, and the copies, are kept", async || {
        let kept =
            lockstep.json(&["tombstones", "list", "configmap", "-n", namespace, "--name", "lost3"]).await?;
        let items = kept["items"].as_array().context("a list")?;
        let causes: Vec<&str> = items.iter().filter_map(|item| item["cause"].as_str()).collect();
        ensure!(causes.contains(&"Inferred") && causes.contains(&"Lockstep"), "{kept}");
        Ok(())
    })
    .await?;
    lockstep.wait("rewinds").await?;
    let clusters = lockstep.json(&["clusters", "cluster-a"]).await?;
    ensure!(clusters["items"][0]["rewound"].is_null(), "the alarm is over: {clusters}");
    lockstep.stop().await
}

/// One after the other on one set of control planes, which this test may break.
#[tokio::test(flavor = "multi_thread")]
async fn i3_a_restored_etcd_is_recognised_and_deletes_nothing() -> Result<()> {
    let bed = Testbed::start(Options::default()).await?;
    for (form, agents_are_away, what) in [
        (RestoreForm::Bumped, false, "with bumped revisions, while everything runs"),
        (RestoreForm::Plain, false, "plain, while everything runs"),
        (
            RestoreForm::Plain,
            true,
            "plain, while the agents are away and until the old checkpoints are passed",
        ),
    ] {
        rewind(&bed, form, agents_are_away).await.context(what)?;
    }
    Ok(())
}
