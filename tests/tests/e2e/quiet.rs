//! What others add to a copy, or write differently, costs no write of ours (pain 2 of the field).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::deploy::granted;
use lockstep_tests::harness::{PATIENCE, eventually, unique_name};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use lockstep_tests::webhook::Webhook;
use serde_json::{Value, json};

/// Times that the rest of the fleet goes on while the copy is looked at.
const ROUNDS: u32 = 4;

/// What lockstep's agent wrote below this path, by the target's audit log.
pub(super) fn writes(cluster: &Cluster, path: &str) -> Result<usize> {
    let events = cluster.audit_events()?;
    let ours = |user: &str| user.starts_with("system:serviceaccount:lockstep-system:");
    let writes = events.iter().filter(|event| event.verb == "patch" && event.request_uri.contains(path));
    Ok(writes.filter(|event| ours(&event.user.username)).count())
}

fn web(namespace: &str, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": image,
                "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}}}]}}}})
}

/// A sidecar, an annotation, and a registry of the target's own before every image.
fn inject(deployment: &Value) -> Vec<Value> {
    let containers =
        deployment["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let mut patch = Vec::new();
    for (n, container) in containers.iter().enumerate() {
        let image = container["image"].as_str().unwrap_or_default();
        if !image.starts_with("mirror/") {
            let path = format!("/spec/template/spec/containers/{n}/image");
            patch.push(json!({"op": "replace", "path": path, "value": format!("mirror/{image}")}));
        }
    }
    if !containers.iter().any(|container| container["name"] == "sidecar") {
        let sidecar = json!({"name": "sidecar", "image": "mirror/sidecar:1"});
        patch.push(json!({"op": "add", "path": "/spec/template/spec/containers/-", "value": sidecar}));
    }
    patch
}

const CRD: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: queues.GROUP }
spec:
  group: GROUP
  scope: Namespaced
  names: { kind: Queue, listKind: QueueList, plural: queues, singular: queue }
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              name: { type: string }
DEFAULTS              shards: { type: array, items: { type: object, properties: { id: { type: integer }, weight: { type: integer WEIGHT } } } }
          status: { type: object, x-kubernetes-preserve-unknown-fields: true }
";

#[tokio::test(flavor = "multi_thread")]
async fn pain_2_webhooks_defaults_and_normalised_values_cause_no_endless_updates() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-quiet").await?;
    let namespace = fleet.namespace.as_str();
    let [b, c] = fleet.targets();
    let group = format!("{}.example.com", unique_name("quiet")?);
    // The target's definition has defaults that the source's has not.
    let plain = CRD.replace("GROUP", &group).replace("DEFAULTS", "").replace(" WEIGHT", "");
    let retries = "              retries: { type: integer, default: 3 }\n";
    let defaulting =
        CRD.replace("GROUP", &group).replace("DEFAULTS", retries).replace(" WEIGHT", ", default: 10");
    fleet.source().install_crd(&plain).await?;
    for target in [b, c] {
        target.install_crd(&defaulting).await?;
        target
            .apply(&format!(
                "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{ name: write-{group}, labels: {{ lockstep.dev/aggregate-to-agent-write: 'true' }} }}
rules: [ {{ apiGroups: [{group}], resources: ['*'], verbs: [get, create, patch, delete] }} ]
"
            ))
            .await?;
    }
    let webhook = Webhook::start(b, namespace, ("apps", "v1", "deployments"), inject).await?;
    let policy = format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: quiet }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], names: [beacon] }}
  - {{ apiGroup: apps, kind: Deployment, namespaces: [{namespace}] }}
  - {{ apiGroup: {group}, kind: Queue, namespaces: [{namespace}] }}
"
    );
    let lockstep = Lockstep::with_policy(&bed, &policy).await?;
    for target in [b, c] {
        granted(target, "patch", &group, "queues").await?;
    }
    let queue = json!({"apiVersion": format!("{group}/v1"), "kind": "Queue",
        "metadata": {"name": "orders", "namespace": namespace},
        "spec": {"name": "orders", "shards": [{"id": 1}, {"id": 2}]}});
    fleet.source().apply_value(&queue).await?;
    fleet.source().apply_value(&web(namespace, "w:1")).await?;
    let version = format!("{group}/v1");
    let read = async || b.get("apps/v1", "Deployment", Some(namespace), "web").await;
    let sidecar = eventually(PATIENCE, "the webhook had its way", async || {
        let copy = read().await?;
        let containers = &copy["spec"]["template"]["spec"]["containers"];
        ensure!(containers[0]["image"] == "mirror/w:1" && containers[1]["name"] == "sidecar", "{copy}");
        ensure!(containers[0]["resources"]["requests"] == json!({"cpu": "1", "memory": "1Gi"}), "{copy}");
        Ok(copy)
    })
    .await?;
    eventually(PATIENCE, "the target's defaults are there", async || {
        let copy = b.get(&version, "Queue", Some(namespace), "orders").await?;
        ensure!(copy["spec"]["retries"] == 3 && copy["spec"]["shards"][0]["weight"] == 10, "{copy}");
        Ok(())
    })
    .await?;
    lockstep.stands(&format!("queues.{group}/orders"), namespace, "cluster-b", "InStep").await?;
    // What the webhook adds is the target's own; the image was asked for, and is another.
    let said = lockstep.stands("deployment/web", namespace, "cluster-b", "Differs/ChangedByServer").await?;
    let image = r#".spec.template.spec.containers[name="web"].image has another value; "#;
    ensure!(said.contains(&format!("asks for: {image}")), "{said}");
    let paths = [
        format!("/namespaces/{namespace}/deployments/web"),
        format!("/namespaces/{namespace}/queues/orders"),
    ];
    let settled: Vec<usize> = paths.iter().map(|path| writes(b, path)).collect::<Result<_>>()?;
    ensure!(settled.iter().all(|count| *count >= 1) && webhook.asked() > 0, "{settled:?}");
    // Controllers go on writing status and annotations, the fleet goes on syncing.
    for round in 0..ROUNDS {
        let note = json!({"metadata": {"annotations": {"example.com/seen": round.to_string()}}});
        b.patch("apps/v1", "Deployment", Some(namespace), "web", &note).await?;
        b.patch(&version, "Queue", Some(namespace), "orders", &json!({"status": {"depth": round}})).await?;
        let beacon = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "beacon", "namespace": namespace}, "data": {"round": round.to_string()}});
        fleet.source().apply_value(&beacon).await?;
        fleet
            .everywhere("v1", "ConfigMap", "beacon", |m| {
                m["data"]["round"].as_str() == Some(&round.to_string())
            })
            .await?;
    }
    let after: Vec<usize> = paths.iter().map(|path| writes(b, path)).collect::<Result<_>>()?;
    ensure!(after == settled, "{settled:?} writes became {after:?}");
    // What the source changes still comes, through the webhook, once.
    fleet.source().apply_value(&web(namespace, "w:2")).await?;
    eventually(PATIENCE, "the new image is there, by way of the webhook", async || {
        let copy = read().await?;
        ensure!(copy["spec"]["template"]["spec"]["containers"][0]["image"] == "mirror/w:2", "{copy}");
        ensure!(copy["metadata"]["uid"] == sidecar["metadata"]["uid"], "{copy}");
        Ok(())
    })
    .await?;
    webhook.close().await
}
