//! The hub's data directory is lost: nothing is written, nothing is deleted, and what nobody accounts for is held (I11).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Context, Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

const OBJECTS: usize = 20;

fn policy(namespace: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: losses }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }}
"
    )
}

fn map(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"sync": "yes"}}, "data": {"k": "1"}})
}

/// uid and resourceVersion of every ConfigMap of the test in the targets.
async fn states(fleet: &Fleet<'_>) -> Result<Vec<String>> {
    let mut states = Vec::new();
    for target in fleet.targets() {
        for n in 0..OBJECTS {
            let name = format!("m{n}");
            let found = target.get("v1", "ConfigMap", Some(&fleet.namespace), &name).await?;
            let metadata = &found["metadata"];
            states.push(format!(
                "{} {name} {} {}",
                target.name(),
                metadata["uid"],
                metadata["resourceVersion"]
            ));
        }
    }
    Ok(states)
}

#[tokio::test(flavor = "multi_thread")]
async fn i11_after_the_loss_of_the_data_directory_nothing_is_written_and_leftovers_are_held() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-loss").await?;
    let namespace = fleet.namespace.as_str();
    let mut lockstep = Lockstep::with_policy(&bed, &policy(namespace)).await?;
    for n in 0..OBJECTS {
        fleet.source().apply_value(&map(namespace, &format!("m{n}"))).await?;
    }
    for n in 0..OBJECTS {
        fleet.everywhere("v1", "ConfigMap", &format!("m{n}"), |_| true).await?;
    }
    lockstep.wait("losses").await?;
    let before = states(&fleet).await?;

    lockstep.kill().await?;
    fleet.source().delete("v1", "ConfigMap", Some(namespace), "m0").await?;
    std::fs::remove_dir_all(lockstep.data()).context("losing the data directory")?;
    std::fs::create_dir(lockstep.data())?;
    lockstep.start().await?;
    lockstep.settled().await?;
    for target in ["cluster-b", "cluster-c"] {
        let held = lockstep.stands("configmap/m0", namespace, target, "Held/Recovered").await?;
        ensure!(held.contains("lockstep approve losses"), "it says what to do: {held}");
        lockstep.stands("configmap/m1", namespace, target, "InStep").await?;
    }
    eventually(PATIENCE, "the others are in step", async || {
        let status = lockstep.json(&["status", "losses"]).await?;
        for target in status["items"][0]["targets"].as_array().context("targets")? {
            ensure!(target["counts"]["inStep"] == OBJECTS - 1 && target["counts"]["held"] == 1, "{target}");
        }
        Ok(())
    })
    .await?;
    ensure!(states(&fleet).await? == before, "something was written: {:?}", states(&fleet).await?);

    // It is ours again: a change is followed, and an approval deletes the leftover, archived before.
    let mut changed = map(namespace, "m1");
    changed["data"]["k"] = json!("2");
    fleet.source().apply_value(&changed).await?;
    fleet.everywhere("v1", "ConfigMap", "m1", |m| m["data"]["k"] == "2").await?;
    lockstep.text(&["approve", "losses", "--yes"]).await?;
    fleet.nowhere("v1", "ConfigMap", "m0").await?;
    // Listed is what is known to be deleted: the answers may be on their way still.
    eventually(PATIENCE, "one tombstone per target", async || {
        let list = ["tombstones", "list", "configmap", "-n", namespace, "--name", "m0"];
        let kept = lockstep.json(&list).await?;
        ensure!(kept["items"].as_array().is_some_and(|items| items.len() == 2), "{kept}");
        Ok(())
    })
    .await?;
    lockstep.stop().await
}
