//! One act, undone as a whole; also by a hub that is killed in the middle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, TestNamespace, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

/// API version and kind of what is in the namespace, with the rest of the object.
fn kinds() -> Vec<(&'static str, &'static str, Value)> {
    let pods = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "main", "image": "nginx"}]}});
    let selector = json!({"matchLabels": {"app": "x"}});
    let deployment = json!({"spec": {"replicas": 1, "selector": selector, "template": pods}});
    let set = json!({"spec": {"replicas": 0, "serviceName": "x", "selector": selector, "template": pods}});
    let port = json!([{"port": 80, "targetPort": 8080, "protocol": "TCP"}]);
    vec![
        ("v1", "ConfigMap", json!({"data": {"k": "v"}})),
        ("v1", "Secret", json!({"type": "Opaque", "data": {"k": "dg=="}})),
        ("v1", "ServiceAccount", json!({})),
        ("v1", "Service", json!({"spec": {"selector": {"app": "x"}, "ports": port}})),
        ("v1", "LimitRange", json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "8"}}]}})),
        ("apps/v1", "Deployment", deployment),
        ("apps/v1", "StatefulSet", set),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec": {"podSelector": selector, "policyTypes": ["Ingress"]}}),
        ),
        (
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            json!({"spec": {"minReplicas": 1, "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x-none"}}}),
        ),
        (
            "networking.k8s.io/v1",
            "Ingress",
            json!({"spec": {"defaultBackend": {"service": {"name": "x", "port": {"number": 80}}}}}),
        ),
    ]
}

fn policy(namespace: &str) -> String {
    let resources: String = kinds()
        .iter()
        .map(|(version, kind, _)| {
            let group = version.split_once('/').map_or("", |(group, _)| group);
            format!("  - {{ apiGroup: '{group}', kind: {kind}, namespaces: [{namespace}], matchLabels: {{ team: shop }} }}\n")
        })
        .collect();
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: undone }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b]
  resources:
  - {{ kind: Namespace, names: [{namespace}] }}
{resources}"
    )
}

/// What a person put there, by kind and name, as he meant it.
async fn objects(cluster: &Cluster, namespace: &str) -> Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    for (version, kind, _) in kinds() {
        for object in cluster.list(version, kind, Some(namespace), "").await? {
            let name = object["metadata"]["name"].as_str().context("a name")?;
            if name.starts_with("x-") && !name.contains("-token-") {
                let mut spec = object["spec"].clone();
                for field in ["clusterIP", "clusterIPs"] {
                    spec.as_object_mut().map(|spec| spec.remove(field));
                }
                found.insert(
                    format!("{kind}/{name}"),
                    json!([spec, object["data"], object["metadata"]["labels"]]),
                );
            }
        }
    }
    Ok(found)
}

/// Twenty of each kind: what a namespace of 200 objects holds.
async fn fill(cluster: &Cluster, namespace: &str, each: usize) -> Result<()> {
    for (version, kind, rest) in kinds() {
        for n in 0..each {
            let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": format!("x-{n:02}"),
                "namespace": namespace, "labels": {"team": "shop", "n": n.to_string()}}});
            for (field, value) in rest.as_object().into_iter().flatten() {
                object[field] = value.clone();
            }
            cluster.apply_value(&object).await?;
        }
    }
    Ok(())
}

/// The act that deleted the namespace, once all of its objects are in it. Others' namespaces have acts of their own.
async fn act_of(lockstep: &Lockstep, namespace: &str, members: usize) -> Result<String> {
    eventually(PATIENCE, "one act holds them all", async || {
        let list = lockstep.json(&["tombstones", "groups", "--cluster", "cluster-a"]).await?;
        let groups = list["items"].as_array().context("a list")?;
        let root = format!("Namespace {namespace}");
        let found = groups.iter().find(|group| group["root"] == root).with_context(|| list.to_string())?;
        ensure!(found["members"].as_u64().is_some_and(|n| n >= members as u64), "{found}");
        Ok(found["id"].as_str().context("an id")?.to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_of_200_objects_is_undone_as_one_act() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-undo").await?;
    let (source, namespace) = (fleet.source(), fleet.namespace.as_str());
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace)).await?;
    lockstep.settled().await?;
    fill(source, namespace, 20).await?;
    lockstep.wait("undone").await?;
    let before = objects(source, namespace).await?;
    ensure!(before.len() == 200, "{}", before.len());
    TestNamespace::adopt(source, namespace).close_and_wait().await?;
    let act = act_of(&lockstep, namespace, 201).await?;
    let plan = lockstep.run(&["undo", &act, "--dry-run", "-o", "json"]).await?;
    let plan: Value = serde_json::from_str(&plan.stdout)?;
    ensure!(plan["counts"]["Create"].as_u64().is_some_and(|n| n >= 201), "{}", plan["counts"]);
    let undone = lockstep.run(&["undo", &act, "--yes"]).await?;
    ensure!(undone.code == 0, "{undone:?}");
    ensure!(objects(source, namespace).await? == before, "not what it was");
    eventually(PATIENCE, "controllers rebuild the rest", async || {
        let sets = source.list("apps/v1", "ReplicaSet", Some(namespace), "").await?;
        ensure!(sets.len() == 20, "{} ReplicaSets of 20 Deployments", sets.len());
        Ok(())
    })
    .await?;
    let again = lockstep.run(&["undo", &act, "--dry-run", "-o", "json"]).await?;
    let again: Value = serde_json::from_str(&again.stdout)?;
    ensure!(again["counts"].get("Create").is_none(), "once is enough: {}", again["counts"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_killed_in_the_middle_of_an_undo_goes_on() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-undo-kill").await?;
    let (source, namespace) = (fleet.source(), fleet.namespace.as_str());
    let mut lockstep = Lockstep::with_policy(&bed, &policy(namespace)).await?;
    lockstep.settled().await?;
    fill(source, namespace, 5).await?;
    lockstep.wait("undone").await?;
    let before = objects(source, namespace).await?;
    TestNamespace::adopt(source, namespace).close_and_wait().await?;
    let act = act_of(&lockstep, namespace, 51).await?;
    let killed = {
        let arguments = ["undo", &act, "--yes"];
        let undo = lockstep.run(&arguments);
        let first = eventually(PATIENCE, "the first objects are back", async || {
            let back = objects(source, namespace).await?;
            ensure!(!back.is_empty(), "none yet");
            Ok(back.len())
        });
        tokio::select! {
            ended = undo => anyhow::bail!("it ended before the kill: {ended:?}"),
            first = first => first?,
        }
    };
    lockstep.kill().await?;
    lockstep.start().await?;
    eventually(PATIENCE, &format!("it goes on after {killed}"), async || {
        let listed = lockstep.json(&["restores"]).await?;
        ensure!(listed["items"][0]["state"] == "Done", "{listed}");
        Ok(())
    })
    .await?;
    ensure!(objects(source, namespace).await? == before, "not what it was");
    Ok(())
}
