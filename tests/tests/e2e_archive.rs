//! What an ArchivePolicy keeps of what is deleted, and the bugs of other recycle bins, each as a test of its name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Context, Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, TestNamespace, eventually, unique_name};
use lockstep_tests::lockstep::Lockstep;
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

/// Everything, in all clusters.
const EVERYTHING: &str =
    "apiVersion: sync.k8s.io/v1\nkind: ArchivePolicy\nmetadata: { name: everything }\nspec: {}\n";

fn definition(group: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{ name: queues.{group} }}
spec:
  group: {group}
  scope: Namespaced
  names: {{ kind: Queue, listKind: QueueList, plural: queues, singular: queue }}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {{ openAPIV3Schema: {{ type: object, x-kubernetes-preserve-unknown-fields: true }} }}
"
    )
}

/// One object of each of twelve kinds: as `kubectl` names the kind, and the object.
fn twelve(namespace: &str, group: &str) -> Vec<(String, Value)> {
    let labels = json!({"app": "shop"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let selector = json!({"matchLabels": labels});
    let workload = json!({"replicas": 0, "selector": selector, "template": template});
    let mut stateful = workload.clone();
    stateful["serviceName"] = "shop".into();
    let daemon = json!({"selector": selector, "template": template});
    let mut job = template.clone();
    job["spec"]["restartPolicy"] = "Never".into();
    let cron =
        json!({"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": {"template": job}}});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    let ingress = json!({"defaultBackend": {"service": {"name": "shop", "port": {"number": 80}}}});
    // CronJobs are batch/v1beta1 up to 1.20, and batch/v1 from 1.21 on.
    let all = [
        ("configmap", "v1", "ConfigMap", json!({"data": {"k": "v"}})),
        ("secret", "v1", "Secret", json!({"stringData": {"password": "p"}})),
        ("service", "v1", "Service", json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}], "selector": labels}})),
        ("deployment", "apps/v1", "Deployment", json!({"spec": workload})),
        ("statefulset", "apps/v1", "StatefulSet", json!({"spec": stateful})),
        ("daemonset", "apps/v1", "DaemonSet", json!({"spec": daemon})),
        ("cronjob", "batch/v1beta1", "CronJob", json!({"spec": cron})),
        ("serviceaccount", "v1", "ServiceAccount", json!({"automountServiceAccountToken": false})),
        ("role", "rbac.authorization.k8s.io/v1", "Role", json!({"rules": rules})),
        ("persistentvolumeclaim", "v1", "PersistentVolumeClaim", json!({"spec": claim})),
        ("ingress", "networking.k8s.io/v1", "Ingress", json!({"spec": ingress})),
        ("queue", "GROUP/v1", "Queue", json!({"spec": {"size": 3}})),
    ];
    let object = |(name, version, kind, mut content): (&str, &str, &str, Value)| {
        content["apiVersion"] = version.replace("GROUP", group).into();
        content["kind"] = kind.into();
        content["metadata"] = json!({"name": "shop", "namespace": namespace, "labels": labels});
        let name = if name == "queue" { format!("queue.{group}") } else { name.to_owned() };
        (name, content)
    };
    all.into_iter().map(object).collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The API version under which this server has the object's kind.
async fn served(cluster: &Cluster, object: &mut Value) -> Result<()> {
    if object["kind"] == "CronJob" && cluster.api("batch/v1", "CronJob", None).await.is_ok() {
        object["apiVersion"] = "batch/v1".into();
    }
    Ok(())
}

/// Tombstones of a kind and name in a namespace of cluster-a.
async fn tombstones(lockstep: &Lockstep, kind: &str, namespace: &str, name: &str) -> Result<Vec<Value>> {
    let mut line = vec!["tombstones", "list", kind, "--cluster", "cluster-a", "--name", name];
    if !namespace.is_empty() {
        line.extend(["-n", namespace]);
    }
    let list = lockstep.json(&line).await?;
    list["items"].as_array().cloned().context("a list")
}

/// The one tombstone of an object, once it is there.
async fn kept(lockstep: &Lockstep, kind: &str, namespace: &str, name: &str) -> Result<Value> {
    eventually(PATIENCE, &format!("{kind} {name} is kept"), async || {
        let found = tombstones(lockstep, kind, namespace, name).await?;
        ensure!(found.len() == 1, "{} tombstones: {found:?}", found.len());
        Ok(found[0].clone())
    })
    .await
}

/// Waits until the hub holds an object: what it never saw, it cannot keep.
async fn seen(lockstep: &Lockstep, kind: &str, namespace: &str, name: &str) -> Result<()> {
    eventually(PATIENCE, &format!("the hub sees {kind} {name}"), async || {
        let shown = lockstep.json(&["get", kind, name, "-n", namespace, "--cluster", "cluster-a"]).await?;
        ensure!(shown.to_string().contains("\"uid\""), "{shown}");
        Ok(())
    })
    .await
}

fn map(namespace: &str, name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace},
        "data": {"k": value}})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_archive_policy_keeps_what_is_deleted_of_every_kind() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [a, _, _] = bed.three()?;
    let home = TestNamespace::create(a, "e2e-archive").await?;
    let namespace = home.name();
    let lockstep = Lockstep::with_policy(&bed, EVERYTHING).await?;
    lockstep.settled().await?;
    // A definition that comes after the policy.
    let group = format!("{}.example.com", unique_name("archive")?);
    a.install_crd(&definition(&group)).await?;
    let mut uids = Vec::new();
    for (kind, mut object) in twelve(namespace, &group) {
        served(a, &mut object).await?;
        let there = a.apply_value(&object).await?;
        seen(&lockstep, &kind, namespace, "shop").await?;
        uids.push((kind, object, there));
    }
    for (_, object, _) in &uids {
        a.delete(text(object, "/apiVersion"), text(object, "/kind"), Some(namespace), "shop").await?;
    }
    for (kind, object, there) in &uids {
        let tombstone = kept(&lockstep, kind, namespace, "shop").await?;
        ensure!(tombstone["uid"] == there["metadata"]["uid"], "{kind}: {tombstone}");
        ensure!(tombstone["cause"] == "Observed", "{kind}: {tombstone}");
        let shown = lockstep.json(&["tombstones", "show", &tombstone["id"].to_string()]).await?;
        for part in ["spec", "data", "rules"] {
            let secret = kind == "secret";
            let same = shown.pointer(&format!("/body/{part}")) == there.get(part);
            ensure!(secret || same, "{kind}: {part} of {shown} is not that of {there}");
        }
        ensure!(text(&shown, "/body/kind") == text(object, "/kind"), "{shown}");
    }
    home.close().await
}
