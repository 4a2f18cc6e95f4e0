//! The archive, on real control planes: keys that rotate, holds, purges, and the index out of the files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Context, Result, ensure};
use base64::Engine;
use lockstep_tests::harness::{PATIENCE, eventually, unique_name};
use lockstep_tests::lockstep::{Fleet, Lockstep, search};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

const KEYS: &str = "LOCKSTEP_CONFIG__ARCHIVE__KEYS";

fn key(n: u8) -> String {
    format!("{}{n:02x}", "5a".repeat(31))
}

fn policy(namespace: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: archive }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: Secret, namespaces: [{namespace}] , matchLabels: {{ sync: 'yes' }} }}
"
    )
}

/// Tombstones of one Secret, once all of them are in the archive.
async fn archived(lockstep: &Lockstep, namespace: &str, count: usize) -> Result<Vec<Value>> {
    eventually(PATIENCE, "they are in the archive", async || {
        let list = lockstep.json(&["tombstones", "list", "secrets", "-n", namespace]).await?;
        let items = list["items"].as_array().context("a list")?.clone();
        ensure!(items.len() == count && items.iter().all(|item| item["path"].is_string()), "{list}");
        Ok(items)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_holds_hold_and_the_index_comes_back_out_of_the_archive() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-archive").await?;
    let namespace = fleet.namespace.as_str();
    let canary = base64::engine::general_purpose::STANDARD.encode(unique_name("canary-of-the-archive")?);
    let mut lockstep = Lockstep::prepare(&bed).await?;
    lockstep.policy("policy.yaml", &policy(namespace))?;
    lockstep.set(KEYS, &key(1));
    lockstep.start().await?;
    let source = fleet.source();
    source
        .apply_value(&json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "db", "namespace": namespace, "labels": {"sync": "yes"}},
            "data": {"password": canary}}))
        .await?;
    fleet.everywhere("v1", "Secret", "db", |_| true).await?;
    source.delete("v1", "Secret", Some(namespace), "db").await?;
    fleet.nowhere("v1", "Secret", "db").await?;
    // One of each cluster: the delete that was seen, and the two that lockstep did.
    let items = archived(&lockstep, namespace, 3).await?;
    let ids: Vec<String> = items.iter().map(|item| item["id"].to_string()).collect();
    for id in &ids {
        ensure!(!lockstep.text(&["tombstones", "show", id]).await?.contains(&canary));
        ensure!(lockstep.text(&["tombstones", "show", id, "--show-secrets"]).await?.contains(&canary));
    }
    ensure!(search(&lockstep.data(), &[&canary])?.is_none(), "it lies open");

    // A hold holds, and a purge needs a yes.
    lockstep.text(&["tombstones", "hold", &ids[0], "--reason", "case 7", "--by", "jane"]).await?;
    ensure!(lockstep.run(&["tombstones", "purge", "--yes"]).await?.code == 2, "it would purge everything");
    ensure!(
        lockstep.run(&["tombstones", "purge", "secrets", "-n", namespace]).await?.code == 2,
        "nobody said yes"
    );
    let refused = lockstep.run(&["tombstones", "purge", "--id", &ids[0], "--yes"]).await?;
    ensure!(
        refused.code == 3 && refused.stdout.contains("LS0243: it is held by jane: case 7"),
        "{}",
        refused.stdout
    );
    lockstep.text(&["tombstones", "purge", "--id", &ids[1], "--yes"]).await?;
    archived(&lockstep, namespace, 2).await?;
    lockstep.stop().await?;

    // A new key in front, and all files under it.
    lockstep.set(KEYS, &format!("{},{}", key(2), key(1)));
    lockstep.start().await?;
    let work = lockstep.json(&["archive", "rewrap"]).await?;
    ensure!(work["done"] == 2 && work["left"] == 0, "{work}");
    lockstep.stop().await?;

    // The hub's data is lost, all but the archive.
    for entry in std::fs::read_dir(lockstep.data())? {
        let path = entry?.path();
        if path.is_file() {
            std::fs::remove_file(path)?;
        }
    }
    lockstep.set(KEYS, &key(2));
    lockstep.start().await?;
    lockstep.settled().await?;
    let doctor = lockstep.run(&["doctor"]).await?;
    ensure!(doctor.stdout.contains("LS0244"), "{}", doctor.stdout);
    let work = lockstep.json(&["archive", "reindex"]).await?;
    ensure!(work["done"] == 2 && work["failed"] == 0, "{work}");
    let found = archived(&lockstep, namespace, 2).await?;
    for before in items.iter().filter(|item| item["id"] != items[1]["id"]) {
        let same = found.iter().find(|item| item["path"] == before["path"]).context("it is back")?;
        for field in ["cluster", "uid", "cause", "deletedAtMs", "resourceVersion", "deleted"] {
            ensure!(same[field] == before[field], "{field}: {same} for {before}");
        }
        let id = same["id"].to_string();
        ensure!(lockstep.text(&["tombstones", "show", &id, "--show-secrets"]).await?.contains(&canary));
    }
    ensure!(found.iter().any(|item| item["hold"]["reason"] == "case 7"), "{found:?}");
    ensure!(!lockstep.logged()?.contains(&key(1)), "a key is in the log");
    lockstep.stop().await
}
