//! What is there at a target already: left alone, adopted where it is equal, or taken over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

fn map(namespace: &str, name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace}, "data": data})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_is_left_adopted_or_taken_over_as_the_policy_says() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-own").await?;
    let namespace = fleet.namespace.as_str();
    let [b, _] = fleet.targets();
    let kind = ("v1", "ConfigMap", Some(namespace));
    let there = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    b.apply_value(&there).await?;
    for name in ["left", "equal", "differs", "taken"] {
        let value = if name == "equal" { "1" } else { "theirs" };
        b.apply_value(&map(namespace, name, json!({"k": value, "beside": "theirs"}))).await?;
        fleet.source().apply_value(&map(namespace, name, json!({"k": "1"}))).await?;
    }
    let before = |name| b.get(kind.0, kind.1, kind.2, name);
    let (left, equal) = (before("left").await?, before("equal").await?);
    let (differs, taken) = (before("differs").await?, before("taken").await?);
    let policy = format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: own }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b]
  ownership: {{ conflict: AdoptIfEqual }}
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], names: [left], ownership: {{ conflict: Fail }} }}
  - {{ kind: ConfigMap, namespaces: [{namespace}], names: [equal, differs] }}
  - {{ kind: ConfigMap, namespaces: [{namespace}], names: [taken], ownership: {{ conflict: TakeOver }} }}
"
    );
    let lockstep = Lockstep::with_policy(&bed, &policy).await?;
    lockstep.stands("configmap/left", namespace, "cluster-b", "Conflict/Exists").await?;
    let says = lockstep.stands("configmap/differs", namespace, "cluster-b", "Conflict/Differs").await?;
    ensure!(says.contains(".data.k") && says.contains("lockstep-tests"), "{says}");
    lockstep.stands("configmap/equal", namespace, "cluster-b", "InStep").await?;
    lockstep.stands("configmap/taken", namespace, "cluster-b", "InStep").await?;
    for object in [&left, &differs] {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        ensure!(*object == b.get(kind.0, kind.1, kind.2, name).await?, "{name} was written");
    }
    for (object, data) in
        [(&equal, json!({"k": "1", "beside": "theirs"})), (&taken, json!({"k": "1", "beside": "theirs"}))]
    {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let now = b.get(kind.0, kind.1, kind.2, name).await?;
        ensure!(now["metadata"]["uid"] == object["metadata"]["uid"] && now["data"] == data, "{now}");
        ensure!(now["metadata"]["annotations"]["lockstep.dev/adopted"] == "true", "{now}");
    }
    // From now on they follow.
    for name in ["equal", "taken"] {
        fleet.source().apply_value(&map(namespace, name, json!({"k": "2"}))).await?;
        eventually(PATIENCE, "an adopted object follows its source", async || {
            let now = b.get(kind.0, kind.1, kind.2, name).await?;
            ensure!(now["data"] == json!({"k": "2", "beside": "theirs"}), "{now}");
            Ok(())
        })
        .await?;
    }
    // When the source goes, what was there before stays, and is nobody's.
    fleet.source().delete(kind.0, kind.1, kind.2, "taken").await?;
    let now = eventually(PATIENCE, "an adopted object is let go of", async || {
        let now = b.get(kind.0, kind.1, kind.2, "taken").await?;
        ensure!(!now.to_string().contains("lockstep.dev/"), "{now}");
        Ok(now)
    })
    .await?;
    ensure!(now["metadata"]["uid"] == taken["metadata"]["uid"] && now["data"]["k"] == "2", "{now}");
    Ok(())
}
