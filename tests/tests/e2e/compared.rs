//! In step is what was compared: what the source removes, and what others hold (I17).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::quiet::writes;

fn policy(namespace: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: compared }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}] }}
  - {{ apiGroup: apps, kind: Deployment, namespaces: [{namespace}] }}
"
    )
}

fn map(namespace: &str, name: &str, metadata: Value, data: Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace}});
    for (name, value) in metadata.as_object().into_iter().flatten() {
        object["metadata"][name] = value.clone();
    }
    if !data.is_null() {
        object["data"] = data;
    }
    object
}

fn web(namespace: &str, labels: Value, containers: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}})
}

/// A write by another manager.
async fn apply_as(cluster: &Cluster, manager: &str, object: &Value) -> Result<()> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let api = cluster
        .api(&text(&object["apiVersion"]), &text(&object["kind"]), object["metadata"]["namespace"].as_str())
        .await?;
    api.patch(&text(&object["metadata"]["name"]), &PatchParams::apply(manager), &Patch::Apply(object))
        .await?;
    Ok(())
}

/// Waits until the copy is like that.
async fn follows(
    b: &Cluster,
    kind: (&str, &str),
    at: (&str, &str),
    check: impl Fn(&Value) -> bool,
) -> Result<Value> {
    eventually(PATIENCE, &format!("{} {} follows", kind.1, at.1), async || {
        let copy = b.get(kind.0, kind.1, Some(at.0), at.1).await?;
        ensure!(check(&copy), "it is {copy}");
        Ok(copy)
    })
    .await
}

const CONFIG: (&str, &str) = ("v1", "ConfigMap");
const DEPLOYMENT: (&str, &str) = ("apps/v1", "Deployment");

#[tokio::test(flavor = "multi_thread")]
async fn i17_what_the_source_removes_is_gone_and_what_only_the_target_has_stays() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-removes").await?;
    let (namespace, source, [b, _]) = (fleet.namespace.as_str(), fleet.source(), fleet.targets());
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace)).await?;
    let metadata = json!({"labels": {"keep": "1", "drop": "1"},
        "annotations": {"example.com/keep": "1", "example.com/drop": "1"}});
    source.apply_value(&map(namespace, "m", metadata, json!({"keep": "1", "drop": "1"}))).await?;
    source
        .apply_value(&map(namespace, "last", json!({"labels": {"only": "1"}}), json!({"only": "1"})))
        .await?;
    let env = json!([{"name": "KEEP", "value": "1"}, {"name": "DROP", "value": "1"}]);
    let container = json!({"name": "web", "image": "example.invalid/web:1", "env": env, "args": ["a", "b"]});
    let sidecar = json!({"name": "sidecar", "image": "example.invalid/sidecar:1"});
    let labels = json!({"app": "web", "drop": "1"});
    source.apply_value(&web(namespace, labels, json!([container, sidecar]))).await?;
    follows(b, CONFIG, (namespace, "m"), |m| m["data"]["drop"] == "1").await?;
    follows(b, CONFIG, (namespace, "last"), |m| m["data"]["only"] == "1").await?;
    follows(b, DEPLOYMENT, (namespace, "web"), |web| {
        web["spec"]["template"]["spec"]["containers"].as_array().is_some_and(|all| all.len() == 2)
    })
    .await?;
    let path = |rest: &str| format!("/namespaces/{namespace}/{rest}");
    let objects = ["configmaps/m", "configmaps/last", "deployments/web"];
    for object in ["configmap/m", "configmap/last", "deployment/web"] {
        lockstep.stands(object, namespace, "cluster-b", "InStep").await?;
    }
    let created = objects.iter().map(|object| writes(b, &path(object))).collect::<Result<Vec<usize>>>()?;
    // What the target adds.
    let own = json!({"metadata": {"labels": {"own": "t"}}, "data": {"own": "t"}});
    b.patch("v1", "ConfigMap", Some(namespace), "m", &own).await?;
    let proxy = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"template": {"spec": {"containers": [{"name": "proxy", "image": "example.invalid/proxy:1"}]}}}});
    apply_as(b, "injector", &proxy).await?;

    let metadata =
        json!({"labels": {"keep": "1"}, "annotations": {"example.com/keep": "1", "example.com/new": "1"}});
    source.apply_value(&map(namespace, "m", metadata, json!({"keep": "1"}))).await?;
    source.apply_value(&map(namespace, "last", json!({}), Value::Null)).await?;
    let container =
        json!({"name": "web", "image": "example.invalid/web:1", "env": [{"name": "KEEP", "value": "1"}]});
    source.apply_value(&web(namespace, json!({"app": "web"}), json!([container]))).await?;
    let m = follows(b, CONFIG, (namespace, "m"), |m| {
        m["metadata"]["annotations"]["example.com/new"] == "1"
            && m["data"] == json!({"keep": "1", "own": "t"})
    })
    .await?;
    let (labels, annotations) = (&m["metadata"]["labels"], &m["metadata"]["annotations"]);
    ensure!(labels["drop"].is_null() && labels["keep"] == "1" && labels["own"] == "t", "{m}");
    ensure!(annotations["example.com/drop"].is_null() && annotations["example.com/keep"] == "1", "{m}");
    follows(b, CONFIG, (namespace, "last"), |last| {
        last["data"]["only"].is_null() && last["metadata"]["labels"]["only"].is_null()
    })
    .await?;
    follows(b, DEPLOYMENT, (namespace, "web"), |web| {
        let template = &web["spec"]["template"];
        let containers = template["spec"]["containers"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<&str> = containers.iter().filter_map(|one| one["name"].as_str()).collect();
        names.sort_unstable();
        let ours = containers.iter().find(|one| one["name"] == "web").cloned().unwrap_or_default();
        names == ["proxy", "web"]
            && ours["env"] == json!([{"name": "KEEP", "value": "1"}])
            && ours["args"].is_null()
            && template["metadata"]["labels"] == json!({"app": "web"})
    })
    .await?;
    for object in ["configmap/m", "configmap/last", "deployment/web"] {
        lockstep.stands(object, namespace, "cluster-b", "InStep").await?;
    }
    for (object, before) in objects.iter().zip(created) {
        let count = writes(b, &path(object))? - before;
        ensure!(count == 1, "{object} was changed once, and written {count} times");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_what_another_manager_holds_is_named_until_it_lets_go() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-held").await?;
    let (namespace, source, [b, _]) = (fleet.namespace.as_str(), fleet.source(), fleet.targets());
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace)).await?;
    source.apply_value(&map(namespace, "m", json!({}), json!({"keep": "1", "old": "1"}))).await?;
    follows(b, CONFIG, (namespace, "m"), |m| m["data"]["old"] == "1").await?;
    apply_as(b, "somebody", &map(namespace, "m", json!({}), json!({"old": "1"}))).await?;
    source.apply_value(&map(namespace, "m", json!({}), json!({"keep": "2"}))).await?;
    let said = lockstep.stands("configmap/m", namespace, "cluster-b", "Differs/HeldByOthers").await?;
    let held = ".data.old was removed at the source and is still there, held by somebody (Apply)";
    ensure!(said.contains(held), "{said}");
    let m = b.get("v1", "ConfigMap", Some(namespace), "m").await?;
    ensure!(m["data"] == json!({"keep": "2", "old": "1"}), "what is free follows: {m}");
    // Every command says so.
    let status = lockstep.json(&["status", "compared"]).await?;
    ensure!(status["items"][0]["targets"][0]["counts"]["differs"] == 1, "{status}");
    let diff = lockstep.run(&["diff", "compared"]).await?;
    ensure!(diff.code == 3 && diff.stdout.contains(held), "{diff:?}");
    let metrics = lockstep.metrics().await?;
    let differs = |line: &&str| line.starts_with("lockstep_hub_placements{") && line.contains("Differs");
    ensure!(metrics.lines().any(|line| differs(&line) && line.ends_with(" 1")), "{metrics}");
    // No event leads to a write.
    let path = format!("/namespaces/{namespace}/configmaps/m");
    let before = writes(b, &path)?;
    for round in 0..5 {
        let note = json!({"metadata": {"annotations": {"example.com/seen": round.to_string()}}});
        b.patch("v1", "ConfigMap", Some(namespace), "m", &note).await?;
    }
    source.apply_value(&map(namespace, "beacon", json!({}), json!({"k": "1"}))).await?;
    follows(b, CONFIG, (namespace, "beacon"), |_| true).await?;
    ensure!(writes(b, &path)? == before, "it was written again");
    // The other lets go; the source has nothing to do with it.
    apply_as(b, "somebody", &map(namespace, "m", json!({}), json!({}))).await?;
    lockstep.stands("configmap/m", namespace, "cluster-b", "InStep").await?;
    let m = b.get("v1", "ConfigMap", Some(namespace), "m").await?;
    ensure!(m["data"] == json!({"keep": "2"}), "{m}");
    Ok(())
}
