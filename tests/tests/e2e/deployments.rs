//! The example policy, unchanged, on real clusters: the main job.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep, wait_limit};
use lockstep_tests::testbed::Testbed;
use serde_json::json;

const POLICY: &str = include_str!("../../../policies/examples/production-deployments.yaml");

fn deployment(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name}, namespace: {namespace}, labels: {{ env: production, tier: front }}, annotations: {{ note: kept }} }}
spec:
  replicas: 2
  revisionHistoryLimit: 3
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec: {{ containers: [ {{ name: web, image: 'nginx:1.25', resources: {{ requests: {{ cpu: 1000m }} }} }} ] }}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_are_created_updated_deselected_and_deleted() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-deploy").await?;
    let namespace = fleet.namespace.as_str();
    let lockstep = Lockstep::with_policy(&bed, POLICY).await?;
    lockstep.settled().await?;
    let source = fleet.source();
    source.apply(&deployment(namespace, "web")).await?;
    fleet.everywhere("apps/v1", "Deployment", "web", |d| d["spec"]["replicas"] == 2).await?;

    for target in fleet.targets() {
        let copy = target.get("apps/v1", "Deployment", Some(namespace), "web").await?;
        ensure!(copy["metadata"]["annotations"]["note"] == "kept");
        ensure!(
            copy["metadata"]["annotations"].get("deployment.kubernetes.io/revision").is_none_or(|r| r == "1")
        );
        let original = source.get("apps/v1", "Deployment", Some(namespace), "web").await?;
        ensure!(copy["metadata"]["uid"] != original["metadata"]["uid"]);
        // The ReplicaSet there is the target's own: made by its controller from the copy.
        let set = eventually(PATIENCE, "a ReplicaSet", async || {
            let sets = target.list("apps/v1", "ReplicaSet", Some(namespace), "app=web").await?;
            sets.into_iter().next().ok_or_else(|| anyhow::anyhow!("none yet"))
        })
        .await?;
        ensure!(set["metadata"]["ownerReferences"][0]["uid"] == copy["metadata"]["uid"]);
        ensure!(set["metadata"]["labels"].get("lockstep.dev/managed").is_none());
    }

    // Status is not copied: the source's is set by hand, node-less clusters never get there.
    let status = json!({"status": {"observedGeneration": 1, "replicas": 2, "readyReplicas": 2}});
    source.patch_status("apps/v1", "Deployment", Some(namespace), "web", &status).await?;
    // Image, replicas, labels, and a field that goes: owned by the tests' field manager, so that
    // leaving it out removes it.
    let changed = deployment(namespace, "web")
        .replace("nginx:1.25", "nginx:1.27")
        .replace("replicas: 2", "replicas: 4")
        .replace("tier: front", "tier: back")
        .replace(", annotations: { note: kept }", "");
    source.apply(&changed).await?;
    fleet
        .everywhere("apps/v1", "Deployment", "web", |d| {
            d["spec"]["replicas"] == 4
                && d["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:1.27"
                && d["metadata"]["labels"]["tier"] == "back"
                && d["metadata"]["annotations"].get("note").is_none()
                && d["status"].get("readyReplicas").is_none()
        })
        .await?;

    // Deselected: gone. Selected again: there.
    let label = |value: serde_json::Value| json!({"metadata": {"labels": {"env": value}}});
    source.patch("apps/v1", "Deployment", Some(namespace), "web", &label(json!(null))).await?;
    fleet.nowhere("apps/v1", "Deployment", "web").await?;
    source.patch("apps/v1", "Deployment", Some(namespace), "web", &label(json!("production"))).await?;
    fleet.everywhere("apps/v1", "Deployment", "web", |d| d["spec"]["replicas"] == 4).await?;

    source.delete("apps/v1", "Deployment", Some(namespace), "web").await?;
    fleet.nowhere("apps/v1", "Deployment", "web").await?;
    tombstones_tell(&lockstep, namespace).await
}

/// The source's tombstone and those of both copies, each with its body.
async fn tombstones_tell(lockstep: &Lockstep, namespace: &str) -> Result<()> {
    // Listed is what is known to be deleted: the answers may be on their way still.
    let items = eventually(PATIENCE, "each deletion has its tombstone", async || {
        let listed = lockstep.json(&["tombstones", "list", "-n", namespace, "--name", "web"]).await?;
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        let of = |cluster: &str| items.iter().filter(|t| t["cluster"] == cluster).count();
        ensure!(of("cluster-a") == 1 && of("cluster-b") == 2 && of("cluster-c") == 2, "{listed}");
        Ok(items)
    })
    .await?;
    for item in &items {
        let shown = lockstep.text(&["tombstones", "show", &item["id"].to_string()]).await?;
        ensure!(shown.contains("nginx:1.27") && !shown.contains("managedFields"), "{shown}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_the_fleet_and_explain_says_why() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-explain").await?;
    let namespace = fleet.namespace.as_str();
    let policy =
        POLICY.replace("env: production", "env: explained").replace("production-deployments", "explained");
    let lockstep = Lockstep::with_policy(&bed, &policy).await?;
    let web = deployment(namespace, "web").replace("env: production", "env: explained");
    fleet.source().apply(&web).await?;
    fleet.source().apply(&deployment(namespace, "dev").replace("env: production", "env: dev")).await?;
    fleet.everywhere("apps/v1", "Deployment", "web", |_| true).await?;
    lockstep.stands("deployment/web", namespace, "cluster-b", "InStep").await?;
    lockstep.stands("deployment/web", namespace, "cluster-c", "InStep").await?;
    let printed = lockstep.text(&["wait", "explained", "--for=InStep", "--timeout", &wait_limit()]).await?;
    ensure!(!printed.is_empty());

    let shown = lockstep.text(&["get", "deployments", "-n", namespace]).await?;
    for cluster in ["cluster-a", "cluster-b", "cluster-c"] {
        ensure!(shown.contains(cluster), "{shown}");
    }
    for kind in ["deploy", "Deployment", "deployments.apps"] {
        ensure!(lockstep.text(&["get", kind, "-A"]).await?.contains("web"));
    }
    let explained = lockstep.text(&["explain", "deployment/web", "-n", namespace]).await?;
    ensure!(explained.contains("cluster-b") && explained.contains("step"), "{explained}");
    // Not selected: the policy says which label differs.
    let dev = lockstep.json(&["explain", "deploy", "dev", "-n", namespace]).await?;
    ensure!(dev["policies"][0]["selected"] == false, "{dev}");
    let unwatched = lockstep.run(&["get", "ingresses"]).await?;
    ensure!(unwatched.code == 1 && unwatched.stderr.contains("watch"), "{unwatched:?}");
    let status = lockstep.text(&["status"]).await?;
    ensure!(status.contains("explained"), "{status}");
    Ok(())
}
