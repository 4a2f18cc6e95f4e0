//! GitOps tools and package managers beside lockstep: their marks are not copied, and what they track is left to them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

const INSTANCE: &str = "argocd.argoproj.io/instance";

fn map(namespace: &str, name: &str, labels: Value, annotations: Value, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": value},
        "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations}})
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_of_other_tools_are_not_copied_and_what_they_track_is_a_conflict_that_names_them() -> Result<()>
{
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-tracked").await?;
    let namespace = fleet.namespace.as_str();
    let [b, _] = fleet.targets();
    let a = fleet.source();
    b.apply_value(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await?;
    let shop = json!({INSTANCE: "shop"});
    // A policy may still select by such a label.
    for name in ["copied", "left", "taken", "ignored"] {
        let helm = json!({"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": "shop", "note": "kept"});
        a.apply_value(&map(namespace, name, shop.clone(), helm, "1")).await?;
    }
    b.apply_value(&map(namespace, "left", shop.clone(), json!({}), "theirs")).await?;
    b.apply_value(&map(namespace, "taken", json!({}), json!({"meta.helm.sh/release-name": "web"}), "theirs"))
        .await?;
    b.apply_value(&map(namespace, "ignored", shop.clone(), json!({}), "theirs")).await?;
    let policy = format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: tracked }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], names: [ignored], ownership: {{ conflict: TakeOver, tracked: Ignore }} }}
  - {{ kind: ConfigMap, namespaces: [{namespace}], names: [taken], ownership: {{ conflict: TakeOver }} }}
  - {{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ {INSTANCE}: shop }} }}
"
    );
    let lockstep = Lockstep::with_policy(&bed, &policy).await?;
    let get = |name: &'static str| b.get("v1", "ConfigMap", Some(namespace), name);
    lockstep.stands("configmap/copied", namespace, "cluster-b", "InStep").await?;
    let copy = get("copied").await?;
    ensure!(!copy.to_string().contains("argocd") && !copy.to_string().contains("helm.sh"), "{copy}");
    ensure!(copy["metadata"]["annotations"]["note"] == "kept", "{copy}");

    let says = lockstep.stands("configmap/left", namespace, "cluster-b", "Conflict/Exists").await?;
    ensure!(says.contains("Argo CD") && says.contains("argocd.argoproj.io/instance=shop"), "{says}");
    let says = lockstep.stands("configmap/taken", namespace, "cluster-b", "Conflict/Tracked").await?;
    ensure!(says.contains("Helm") && says.contains("meta.helm.sh/release-name=web"), "{says}");
    for name in ["left", "taken"] {
        ensure!(get(name).await?["data"]["k"] == "theirs", "{name} was written");
    }
    lockstep.stands("configmap/ignored", namespace, "cluster-b", "InStep").await?;
    ensure!(get("ignored").await?["data"]["k"] == "1", "the policy says to ignore the tool");

    // A tool begins to track a copy: from then on nothing is written to it, and it is not deleted.
    let begins = json!({"metadata": {"labels": {INSTANCE: "theirs"}}});
    b.patch("v1", "ConfigMap", Some(namespace), "copied", &begins).await?;
    let says = lockstep.stands("configmap/copied", namespace, "cluster-b", "Conflict/Tracked").await?;
    ensure!(says.contains("argocd.argoproj.io/instance=theirs"), "{says}");
    a.apply_value(&map(namespace, "copied", shop.clone(), json!({}), "2")).await?;
    a.apply_value(&map(namespace, "beside", shop, json!({}), "2")).await?;
    lockstep.stands("configmap/beside", namespace, "cluster-b", "InStep").await?;
    lockstep.stands("configmap/copied", namespace, "cluster-b", "Conflict/Tracked").await?;
    ensure!(get("copied").await?["data"]["k"] == "1", "it was written");
    let ends = json!({"metadata": {"labels": {INSTANCE: null}}});
    b.patch("v1", "ConfigMap", Some(namespace), "copied", &ends).await?;
    eventually(PATIENCE, "it follows again", async || {
        let now = get("copied").await?;
        ensure!(now["data"]["k"] == "2", "{now}");
        Ok(())
    })
    .await
}
