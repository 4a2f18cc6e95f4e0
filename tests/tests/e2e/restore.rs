//! What was deleted comes back: there, in another namespace, in another cluster; and nothing that was not asked for
//! is written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Context, Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, TestNamespace, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

/// API version, kind, name, and the rest of the object.
fn kinds() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let pods = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "nginx",
        "env": [{"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}}]}]}});
    let selector = json!({"matchLabels": {"app": "web"}});
    vec![
        ("v1", "ConfigMap", "settings", json!({"data": {"mode": "fast"}, "binaryData": {"b": "AAEC"}})),
        ("v1", "Secret", "password", json!({"type": "Opaque", "data": {"p": "Y2FuYXJ5LXZhbHVl"}})),
        ("v1", "ServiceAccount", "robot", json!({"automountServiceAccountToken": false})),
        (
            "v1",
            "Service",
            "web",
            json!({"spec": {"type": "NodePort", "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]}}),
        ),
        (
            "v1",
            "PersistentVolumeClaim",
            "disk",
            json!({"spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        (
            "v1",
            "LimitRange",
            "limits",
            json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "1000m"}}]}}),
        ),
        ("v1", "ResourceQuota", "quota", json!({"spec": {"hard": {"pods": "100"}}})),
        (
            "apps/v1",
            "Deployment",
            "web",
            json!({"spec": {"replicas": 0, "selector": selector, "template": pods}}),
        ),
        (
            "apps/v1",
            "StatefulSet",
            "db",
            json!({"spec": {"replicas": 0, "serviceName": "web", "selector": selector,
            "template": pods}}),
        ),
        ("apps/v1", "DaemonSet", "logs", json!({"spec": {"selector": selector, "template": pods}})),
        (
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            "web",
            json!({"spec": {"minReplicas": 1, "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}),
        ),
        (
            "networking.k8s.io/v1",
            "Ingress",
            "web",
            json!({"spec": {"rules": [{"host": "shop.example.com", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}}),
        ),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "inner",
            json!({"spec": {"podSelector": selector,
            "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]}}),
        ),
    ]
}

fn object(namespace: &str, (api_version, kind, name, rest): &(&str, &str, &str, Value)) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace,
        "labels": {"team": "shop"}, "annotations": {"note": "kept"}}});
    for (field, value) in rest.as_object().into_iter().flatten() {
        object[field] = value.clone();
    }
    object
}

fn policy(namespace: &str) -> String {
    let kinds = [
        ("", "ConfigMap"),
        ("", "Secret"),
        ("", "ServiceAccount"),
        ("", "Service"),
        ("", "PersistentVolumeClaim"),
        ("", "LimitRange"),
        ("", "ResourceQuota"),
        ("apps", "Deployment"),
        ("apps", "StatefulSet"),
        ("apps", "DaemonSet"),
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("networking.k8s.io", "Ingress"),
        ("networking.k8s.io", "NetworkPolicy"),
    ];
    let resources = kinds.map(|(group, kind)| {
        format!("  - {{ apiGroup: '{group}', kind: {kind}, namespaces: [{namespace}], matchLabels: {{ team: shop }} }}\n")
    });
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: restores }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b]
  resources:
{}",
        resources.concat()
    )
}

/// What a person would say the object is: without what the server and its controllers give out.
fn meant(object: &Value) -> Value {
    let mut object = object.clone();
    let top = object.as_object_mut().unwrap();
    top.remove("status");
    let metadata = top["metadata"].as_object_mut().unwrap();
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
        "selfLink",
        "namespace",
        "finalizers",
    ] {
        metadata.remove(field);
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("deployment.kubernetes.io/revision");
        annotations.remove("deprecated.daemonset.template.generation");
        annotations.remove("autoscaling.alpha.kubernetes.io/conditions");
    }
    if let Some(spec) = top.get_mut("spec").and_then(Value::as_object_mut) {
        for field in ["clusterIP", "clusterIPs"] {
            spec.remove(field);
        }
    }
    // Token Secrets of older clusters.
    top.remove("secrets");
    object
}

/// Those of another place have node ports of their own.
fn elsewhere(object: &Value) -> Value {
    let mut object = meant(object);
    for port in object.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
        port.as_object_mut().map(|port| port.remove("nodePort"));
    }
    object
}

async fn tombstone(
    lockstep: &Lockstep,
    cluster: &str,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<i64> {
    eventually(PATIENCE, &format!("a tombstone of {kind} {name}"), async || {
        let listed = lockstep
            .json(&["tombstones", "list", kind, "-n", namespace, "--name", name, "--cluster", cluster])
            .await?;
        listed["items"][0]["id"].as_i64().context("none yet")
    })
    .await
}

async fn gone(cluster: &Cluster, api_version: &str, kind: &str, namespace: &str, name: &str) -> Result<()> {
    eventually(PATIENCE, &format!("{kind} {name} is gone"), async || {
        ensure!(cluster.find(api_version, kind, Some(namespace), name).await?.is_none(), "it is there");
        Ok(())
    })
    .await
}

fn verdicts(plan: &Value) -> Vec<(String, String)> {
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    plan["items"].as_array().into_iter().flatten().map(|i| (text(i, "name"), text(i, "verdict"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_thirteen_kinds_come_back_there_in_another_namespace_and_in_another_cluster() -> Result<()>
{
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-restore").await?;
    let (source, namespace) = (fleet.source(), fleet.namespace.as_str());
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace)).await?;
    lockstep.settled().await?;
    let other = TestNamespace::create(source, "e2e-restore-other").await?;
    let [_, c] = fleet.targets();
    let _third = TestNamespace::create_named(c, namespace).await?;
    let kinds = kinds();
    let mut before = Vec::new();
    for row in &kinds {
        source.apply_value(&object(namespace, row)).await?;
    }
    lockstep.wait("restores").await?;
    for (api_version, kind, name, _) in &kinds {
        before.push(source.get(api_version, kind, Some(namespace), name).await?);
    }
    let mut ids = Vec::new();
    for (api_version, kind, name, _) in &kinds {
        source.delete(api_version, kind, Some(namespace), name).await?;
        gone(source, api_version, kind, namespace, name).await?;
        ids.push(tombstone(&lockstep, "cluster-a", kind, namespace, name).await?.to_string());
    }
    for (((api_version, kind, name, _), id), before) in kinds.iter().zip(&ids).zip(&before) {
        let done = lockstep.run(&["restore", id, "--yes"]).await?;
        ensure!(done.code == 0, "{kind}: {done:?}");
        let back = source.get(api_version, kind, Some(namespace), name).await?;
        ensure!(meant(&back) == meant(before), "{kind}: {} is not {}", meant(&back), meant(before));
        ensure!(back["metadata"]["uid"] != before["metadata"]["uid"]);
        // Once more: nothing is to be done.
        let again = lockstep.json(&["restore", id, "--yes"]).await?;
        ensure!(verdicts(&again) == [(name.to_string(), "InPlace".to_owned())], "{kind}: {again}");

        let moved = lockstep.run(&["restore", id, "--namespace", other.name(), "--yes"]).await?;
        ensure!(moved.code == 0, "{kind}: {moved:?}");
        let moved = source.get(api_version, kind, Some(other.name()), name).await?;
        ensure!(
            elsewhere(&moved) == elsewhere(before),
            "{kind}: {} is not {}",
            elsewhere(&moved),
            elsewhere(before)
        );

        let carried = lockstep.run(&["restore", id, "--cluster", "cluster-c", "--yes"]).await?;
        ensure!(carried.code == 0, "{kind}: {carried:?}");
        let carried = c.get(api_version, kind, Some(namespace), name).await?;
        ensure!(
            elsewhere(&carried) == elsewhere(before),
            "{kind}: {} is not {}",
            elsewhere(&carried),
            elsewhere(before)
        );
        let text = carried["metadata"].to_string();
        ensure!(!text.contains("lockstep.dev"), "nothing of ours stays on it: {text}");
    }
    // The sync follows the source.
    fleet.everywhere_but(c, "apps/v1", "Deployment", "web", |copy| copy["spec"]["replicas"] == 0).await?;
    lockstep.wait("restores").await?;
    ensure!(!lockstep.logged()?.contains("canary-value"), "a value of a Secret was logged");
    other.close().await
}

fn map(namespace: &str, name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace,
        "labels": {"team": "shop"}}, "data": {"k": value}})
}

/// Successful writes of lockstep to a namespace of a cluster, by its audit log.
fn writes(cluster: &Cluster, namespace: &str) -> Result<usize> {
    let place = format!("/namespaces/{namespace}/");
    let written = cluster.audit_events()?.into_iter().filter(|event| {
        event.user_agent.starts_with("lockstep/")
            && event.request_uri.contains(&place)
            && !event.request_uri.contains("dryRun")
            && !["get", "list", "watch"].contains(&event.verb.as_str())
            && event.response_status.as_ref().is_some_and(|status| status.code < 400)
    });
    Ok(written.count())
}

/// A ConfigMap that was deleted and kept; its tombstone.
async fn deleted(
    lockstep: &Lockstep,
    source: &Cluster,
    namespace: &str,
    name: &str,
    value: &str,
) -> Result<String> {
    source.apply_value(&map(namespace, name, value)).await?;
    lockstep.wait("restores").await?;
    source.delete("v1", "ConfigMap", Some(namespace), name).await?;
    Ok(tombstone(lockstep, "cluster-a", "ConfigMap", namespace, name).await?.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_met_as_asked_and_a_dry_run_writes_nothing() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-restore-conflict").await?;
    let (source, namespace) = (fleet.source(), fleet.namespace.as_str());
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace)).await?;
    lockstep.settled().await?;
    let id = deleted(&lockstep, source, namespace, "settings", "kept").await?;
    source.apply_value(&map(namespace, "settings", "other")).await?;
    source
        .patch("v1", "ConfigMap", Some(namespace), "settings", &json!({"data": {"added": "since"}}))
        .await?;
    let data = async || {
        anyhow::Ok(source.get("v1", "ConfigMap", Some(namespace), "settings").await?["data"].clone())
    };

    let before = writes(source, namespace)?;
    for mode in ["client", "server"] {
        let dry = lockstep.run(&["restore", &id, &format!("--dry-run={mode}"), "-o", "json"]).await?;
        ensure!(dry.code == 3, "{dry:?}");
        let plan: Value = serde_json::from_str(&dry.stdout)?;
        ensure!(verdicts(&plan) == [("settings".to_owned(), "Conflict".to_owned())], "{plan}");
        ensure!(plan["items"][0]["why"].as_str().is_some_and(|why| why.contains("data.k")), "{plan}");
    }
    let update = ["restore", &id, "--on-conflict", "update", "--dry-run"];
    let shown = lockstep.text(&update).await?;
    ensure!(shown.contains("~ ConfigMap") && shown.contains("/data/k \"kept\""), "{shown}");
    let fail = lockstep.run(&["restore", &id, "--yes"]).await?;
    ensure!(fail.code == 3, "{fail:?}");
    let skip = lockstep.run(&["restore", &id, "--yes", "--on-conflict", "skip"]).await?;
    ensure!(skip.code == 0, "{skip:?}");
    let asks = lockstep.run(&["restore", &id, "--on-conflict", "update"]).await?;
    ensure!(asks.code == 2 && asks.stderr.contains("--yes"), "{asks:?}");
    ensure!(data().await? == json!({"k": "other", "added": "since"}), "{}", data().await?);
    ensure!(writes(source, namespace)? == before, "a dry run wrote");

    lockstep.text(&["restore", &id, "--yes", "--on-conflict", "rename"]).await?;
    let beside = source.get("v1", "ConfigMap", Some(namespace), "settings-restored").await?;
    ensure!(beside["data"] == json!({"k": "kept"}), "{beside}");

    lockstep.text(&["restore", &id, "--yes", "--on-conflict", "update"]).await?;
    ensure!(data().await? == json!({"k": "kept"}), "as a whole: {}", data().await?);
    let replaced = replaced(&lockstep).await?;
    ensure!(replaced["body"]["data"] == json!({"k": "other", "added": "since"}), "{replaced}");

    source.apply_value(&map(namespace, "settings", "third")).await?;
    let uid = source.get("v1", "ConfigMap", Some(namespace), "settings").await?["metadata"]["uid"].clone();
    lockstep.text(&["restore", &id, "--yes", "--on-conflict", "recreate"]).await?;
    ensure!(data().await? == json!({"k": "kept"}), "{}", data().await?);
    let now = source.get("v1", "ConfigMap", Some(namespace), "settings").await?["metadata"]["uid"].clone();
    ensure!(now != uid, "another object");
    Ok(())
}

/// The tombstone of what the last restore replaced.
async fn replaced(lockstep: &Lockstep) -> Result<Value> {
    let listed = lockstep.json(&["restores"]).await?;
    let id = listed["items"][0]["id"].as_i64().context("a restore")?;
    let restore = lockstep.json(&["restores", &format!("r{id}")]).await?;
    ensure!(restore["state"] == "Done", "{restore}");
    let kept = restore["items"][0]["replaced"].as_i64().context("a tombstone of what was replaced")?;
    lockstep.json(&["tombstones", "show", &kept.to_string()]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_target_under_a_policy_a_restore_is_refused_unless_forced() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-restore-target").await?;
    let (source, namespace) = (fleet.source(), fleet.namespace.as_str());
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace)).await?;
    lockstep.settled().await?;
    let id = deleted(&lockstep, source, namespace, "settings", "old").await?;
    source.apply_value(&map(namespace, "settings", "new")).await?;
    let [b, _] = fleet.targets();
    eventually(PATIENCE, "the copy is there", async || {
        let copy = b.get("v1", "ConfigMap", Some(namespace), "settings").await?;
        ensure!(copy["data"]["k"] == "new", "{copy}");
        Ok(())
    })
    .await?;
    let to_target = ["restore", &id, "--cluster", "cluster-b", "--on-conflict", "recreate", "--yes"];
    let refused = lockstep.run(&to_target).await?;
    ensure!(refused.code == 3 && refused.stdout.contains("policy `restores`"), "{refused:?}");
    lockstep.text(&["pause", "restores"]).await?;
    let forced = lockstep.run(&[&to_target[..], &["--force"]].concat()).await?;
    ensure!(forced.code == 0, "{forced:?}");
    let restored = b.get("v1", "ConfigMap", Some(namespace), "settings").await?;
    ensure!(restored["data"]["k"] == "old", "{restored}");
    ensure!(!restored["metadata"].to_string().contains("lockstep.dev/"), "{restored}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_comes_back_and_is_shown_nowhere() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-restore-secret").await?;
    let (source, namespace) = (fleet.source(), fleet.namespace.as_str());
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace)).await?;
    lockstep.settled().await?;
    let secret = |value: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "password", "namespace": namespace,
            "labels": {"team": "shop"}}, "stringData": {"p": value}})
    };
    source.apply_value(&secret("canary-one")).await?;
    lockstep.wait("restores").await?;
    source.delete("v1", "Secret", Some(namespace), "password").await?;
    let id = tombstone(&lockstep, "cluster-a", "Secret", namespace, "password").await?.to_string();
    source.apply_value(&secret("canary-two")).await?;
    let mut shown = String::new();
    for format in ["wide", "json"] {
        let plan = ["restore", &id, "--on-conflict", "update", "--dry-run", "-o", format];
        shown += &lockstep.text(&plan).await?;
    }
    shown += &lockstep.text(&["restore", &id, "--on-conflict", "update", "--yes"]).await?;
    shown += &lockstep.logged()?;
    for canary in ["canary-one", "canary-two", "Y2FuYXJ5LW9uZQ", "Y2FuYXJ5LXR3bw"] {
        ensure!(!shown.contains(canary), "{canary} was shown: {shown}");
    }
    let back = source.get("v1", "Secret", Some(namespace), "password").await?;
    ensure!(back["data"]["p"] == "Y2FuYXJ5LW9uZQ==", "it is not what was kept");
    Ok(())
}
