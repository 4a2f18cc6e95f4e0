//! What is not ours is not touched, and too many deletes are held.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Result, ensure};
use lockstep_tests::harness::{PATIENCE, TestNamespace, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

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

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_not_ours_is_left_alone_also_with_forged_marks() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-conflict").await?;
    let namespace = fleet.namespace.as_str();
    let [b, c] = fleet.targets();
    let _in_b = TestNamespace::create_named(b, namespace).await?;
    let _in_c = TestNamespace::create_named(c, namespace).await?;
    let lockstep = Lockstep::with_policy(&bed, &policy("conflicts", namespace)).await?;
    fleet.source().apply_value(&map(namespace, "real", "1")).await?;
    fleet.everywhere("v1", "ConfigMap", "real", |m| m["data"]["k"] == "1").await?;

    // Theirs: a plain one, one with our label, one with all marks of a genuine copy, which also
    // has a managedFields entry of ours because it was applied under our name.
    let genuine = b.get("v1", "ConfigMap", Some(namespace), "real").await?;
    let mut plain = map(namespace, "plain", "theirs");
    plain["metadata"]["labels"] = json!({});
    let mut labelled = map(namespace, "labelled", "theirs");
    labelled["metadata"]["labels"] = json!({"lockstep.dev/managed": "true"});
    let mut forged = map(namespace, "forged", "theirs");
    forged["metadata"]["labels"] = genuine["metadata"]["labels"].clone();
    forged["metadata"]["annotations"] = genuine["metadata"]["annotations"].clone();
    for theirs in [&plain, &labelled] {
        b.apply_value(theirs).await?;
    }
    let maps = b.api("v1", "ConfigMap", Some(namespace)).await?;
    let as_us = kube::api::PatchParams::apply("lockstep").force();
    maps.patch("forged", &as_us, &kube::api::Patch::Apply(&forged)).await?;
    let mut before = Vec::new();
    for name in ["plain", "labelled", "forged"] {
        before.push(b.get("v1", "ConfigMap", Some(namespace), name).await?);
        fleet.source().apply_value(&map(namespace, name, "ours")).await?;
    }
    for name in ["plain", "labelled", "forged"] {
        let object = format!("configmap/{name}");
        lockstep.stands(&object, namespace, "cluster-b", "Conflict").await?;
        eventually(PATIENCE, "it says who manages it", async || {
            let says = lockstep.standing(&object, namespace, "cluster-b").await?;
            // The forged one has no manager but the name that it forged.
            let tells = if name == "forged" { "did not write there" } else { "managed by lockstep-tests" };
            ensure!(says.starts_with("Conflict") && says.contains(tells), "{says}");
            Ok(())
        })
        .await?;
        lockstep.stands(&object, namespace, "cluster-c", "InStep").await?;
        fleet.source().delete("v1", "ConfigMap", Some(namespace), name).await?;
        eventually(PATIENCE, "the copy in cluster-c is gone", async || {
            ensure!(c.find("v1", "ConfigMap", Some(namespace), name).await?.is_none());
            Ok(())
        })
        .await?;
    }
    for theirs in before {
        let name = theirs["metadata"]["name"].as_str().unwrap();
        let now = b.get("v1", "ConfigMap", Some(namespace), name).await?;
        ensure!(now == theirs, "changed: {theirs} -> {now}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_deletes_beyond_the_budget_are_held_until_approved() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-budget").await?;
    let namespace = fleet.namespace.as_str();
    let lockstep = Lockstep::with_policy(&bed, &policy("budget", namespace)).await?;
    for n in 0..6 {
        fleet.source().apply_value(&map(namespace, &format!("m{n}"), "1")).await?;
    }
    for n in 0..6 {
        fleet.everywhere("v1", "ConfigMap", &format!("m{n}"), |_| true).await?;
    }
    lockstep.wait("budget").await?;
    // Each alone is within the budget of three; the fourth is not, and latches.
    for n in 0..3 {
        let name = format!("m{n}");
        fleet.source().delete("v1", "ConfigMap", Some(namespace), &name).await?;
        fleet.nowhere("v1", "ConfigMap", &name).await?;
    }
    fleet.source().delete("v1", "ConfigMap", Some(namespace), "m3").await?;
    for target in ["cluster-b", "cluster-c"] {
        let says = lockstep.stands("configmap/m3", namespace, target, "Held/DeleteBudget").await?;
        ensure!(says.contains("lockstep approve budget"), "{says}");
    }
    fleet.everywhere("v1", "ConfigMap", "m3", |_| true).await?;
    lockstep.text(&["approve", "budget", "--target", "cluster-b", "--yes"]).await?;
    let [b, c] = fleet.targets();
    eventually(PATIENCE, "the approved delete is carried out", async || {
        ensure!(b.find("v1", "ConfigMap", Some(namespace), "m3").await?.is_none());
        Ok(())
    })
    .await?;
    ensure!(c.find("v1", "ConfigMap", Some(namespace), "m3").await?.is_some(), "only where it was approved");
    // The source comes back: the hold dissolves.
    fleet.source().apply_value(&map(namespace, "m3", "2")).await?;
    fleet.everywhere("v1", "ConfigMap", "m3", |m| m["data"]["k"] == "2").await
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_stops_writes_and_resume_catches_up() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-pause").await?;
    let namespace = fleet.namespace.as_str();
    let lockstep = Lockstep::with_policy(&bed, &policy("pausing", namespace)).await?;
    fleet.source().apply_value(&map(namespace, "m", "1")).await?;
    fleet.everywhere("v1", "ConfigMap", "m", |m| m["data"]["k"] == "1").await?;
    lockstep.text(&["pause", "--cluster", "cluster-b"]).await?;
    fleet.source().apply_value(&map(namespace, "m", "2")).await?;
    lockstep.stands("configmap/m", namespace, "cluster-b", "Paused").await?;
    lockstep.stands("configmap/m", namespace, "cluster-c", "InStep").await?;
    let [b, _] = fleet.targets();
    ensure!(b.get("v1", "ConfigMap", Some(namespace), "m").await?["data"]["k"] == "1");
    let diff = lockstep.run(&["diff", "pausing"]).await?;
    ensure!(diff.code == 3 && diff.stdout.contains("/data/k"), "{diff:?}");
    lockstep.text(&["resume", "--cluster", "cluster-b"]).await?;
    fleet.everywhere("v1", "ConfigMap", "m", |m| m["data"]["k"] == "2").await
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_a_source_namespace_deleted_by_mistake_deletes_nothing_and_the_hold_dissolves() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-namespace").await?;
    let namespace = fleet.namespace.as_str();
    let lockstep = Lockstep::with_policy(&bed, &policy("accident", namespace)).await?;
    fleet.source().apply_value(&map(namespace, "m", "1")).await?;
    fleet.everywhere("v1", "ConfigMap", "m", |_| true).await?;
    lockstep.settled().await?;
    TestNamespace::adopt(fleet.source(), namespace).close_and_wait().await?;
    for target in ["cluster-b", "cluster-c"] {
        let says = lockstep.stands("configmap/m", namespace, target, "Held/ContainerDeleted").await?;
        ensure!(says.contains("lockstep approve accident"), "{says}");
    }
    fleet.everywhere("v1", "ConfigMap", "m", |m| m["data"]["k"] == "1").await?;
    // Mended at the source: the hold dissolves, the copies follow again.
    let _again = TestNamespace::create_named(fleet.source(), namespace).await?;
    fleet.source().apply_value(&map(namespace, "m", "2")).await?;
    fleet.everywhere("v1", "ConfigMap", "m", |m| m["data"]["k"] == "2").await
}
