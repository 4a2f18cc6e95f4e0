//! What happens to a copy at its target, and objects at the limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

fn policy(namespace: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: drift }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources: [ {{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }} ]
"
    )
}

fn map(namespace: &str, name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"sync": "yes"}}, "data": data})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_our_fields_is_set_back_and_what_is_not_ours_is_left_alone() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-drift").await?;
    let namespace = fleet.namespace.as_str();
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace)).await?;
    fleet.source().apply_value(&map(namespace, "m", json!({"k": "1"}))).await?;
    fleet.everywhere("v1", "ConfigMap", "m", |m| m["data"]["k"] == "1").await?;
    let [b, _] = fleet.targets();
    // Ours is edited, as `kubectl edit` does it; something beside it is added.
    let edit = json!({"data": {"k": "theirs", "beside": "theirs"}, "metadata": {"labels": {"team": "b"}}});
    b.patch("v1", "ConfigMap", Some(namespace), "m", &edit).await?;
    fleet.everywhere("v1", "ConfigMap", "m", |m| m["data"]["k"] == "1").await?;
    let copy = b.get("v1", "ConfigMap", Some(namespace), "m").await?;
    ensure!(copy["data"]["beside"] == "theirs" && copy["metadata"]["labels"]["team"] == "b", "{copy}");
    lockstep.stands("configmap/m", namespace, "cluster-b", "InStep").await?;
    // A heartbeat in a field of theirs costs no write.
    let settled = b.get("v1", "ConfigMap", Some(namespace), "m").await?;
    let owner = |object: &Value| {
        let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        entries.into_iter().find(|entry| entry["manager"] == "lockstep")
    };
    b.patch("v1", "ConfigMap", Some(namespace), "m", &json!({"data": {"beside": "again"}})).await?;
    fleet.source().apply_value(&map(namespace, "other", json!({"k": "1"}))).await?;
    fleet.everywhere("v1", "ConfigMap", "other", |_| true).await?;
    let now = b.get("v1", "ConfigMap", Some(namespace), "m").await?;
    ensure!(owner(&now).is_some() && owner(&now) == owner(&settled), "it was written again: {now}");
    // Deleted at the target: made again.
    b.delete("v1", "ConfigMap", Some(namespace), "m").await?;
    eventually(PATIENCE, "the copy is made again", async || {
        let copy = b.get("v1", "ConfigMap", Some(namespace), "m").await?;
        ensure!(copy["metadata"]["uid"] != now["metadata"]["uid"]);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_at_the_size_limit_passes_and_one_the_target_refuses_blocks_no_other() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-size").await?;
    let namespace = fleet.namespace.as_str();
    let [b, c] = fleet.targets();
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace)).await?;
    // 1 MiB is what a ConfigMap may hold; the session's messages are larger.
    let big = "x".repeat(1_000_000);
    fleet.source().apply_value(&map(namespace, "big", json!({"k": big}))).await?;
    fleet
        .everywhere("v1", "ConfigMap", "big", |m| m["data"]["k"].as_str().map(str::len) == Some(1_000_000))
        .await?;
    // A quota at one target refuses what comes next there, and nowhere else.
    b.apply(&format!(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{ name: q, namespace: {namespace} }}\nspec: {{ hard: {{ count/configmaps: '1' }} }}\n"
    ))
    .await?;
    eventually(PATIENCE, "the quota is in force", async || {
        let quota = b.get("v1", "ResourceQuota", Some(namespace), "q").await?;
        ensure!(quota["status"]["used"]["count/configmaps"].is_string(), "{quota}");
        Ok(())
    })
    .await?;
    fleet.source().apply_value(&map(namespace, "refused", json!({"k": "1"}))).await?;
    fleet.source().apply_value(&map(namespace, "big", json!({"k": "small"}))).await?;
    fleet.everywhere("v1", "ConfigMap", "big", |m| m["data"]["k"] == "small").await?;
    let says = lockstep.stands("configmap/refused", namespace, "cluster-b", "Failed/Forbidden").await?;
    ensure!(says.contains("quota"), "{says}");
    eventually(PATIENCE, "cluster-c has it", async || {
        c.get("v1", "ConfigMap", Some(namespace), "refused").await
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_secrets_that_the_target_added_to_a_service_account_stay() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-accounts").await?;
    let namespace = fleet.namespace.as_str();
    let accounts = policy(namespace).replace("kind: ConfigMap", "kind: ServiceAccount");
    let lockstep = Lockstep::with_policy(&bed, &accounts).await?;
    let account = |secrets: Value| {
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "robot", "namespace": namespace, "labels": {"sync": "yes"}}, "imagePullSecrets": secrets})
    };
    fleet.source().apply_value(&account(json!([{"name": "ours"}]))).await?;
    fleet.everywhere("v1", "ServiceAccount", "robot", |a| a["imagePullSecrets"][0]["name"] == "ours").await?;
    let names = |object: &Value| -> Vec<String> {
        let secrets = object["imagePullSecrets"].as_array().cloned().unwrap_or_default();
        secrets.iter().filter_map(|s| s["name"].as_str().map(str::to_owned)).collect()
    };
    let [b, _] = fleet.targets();
    let theirs = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "robot", "namespace": namespace}, "imagePullSecrets": [{"name": "theirs"}]});
    // The list is atomic: who applies it has it whole, and ours comes back beside it.
    b.apply_value(&theirs).await?;
    let robot = || b.get("v1", "ServiceAccount", Some(namespace), "robot");
    let holds = async |what: &'static str, expected: &[&str]| {
        eventually(PATIENCE, what, async || {
            let mut found = names(&robot().await?);
            found.sort();
            ensure!(found == expected, "{found:?}");
            Ok(())
        })
        .await
    };
    holds("ours comes back, theirs stays", &["ours", "theirs"]).await?;
    // A controller adds one more, and one to the keyed list. That is no drift: nothing is written.
    let more = json!({"imagePullSecrets": [{"name": "ours"}, {"name": "theirs"}, {"name": "third"}],
        "secrets": [{"name": "robot-dockercfg-bbbbb"}]});
    b.patch("v1", "ServiceAccount", Some(namespace), "robot", &more).await?;
    let mut beside = account(json!([]));
    beside["metadata"]["name"] = "beside".into();
    fleet.source().apply_value(&beside).await?;
    fleet.everywhere("v1", "ServiceAccount", "beside", |_| true).await?;
    lockstep.stands("serviceaccount/robot", namespace, "cluster-b", "InStep").await?;
    // Who changed the list owns it alone, until we write.
    let now = robot().await?;
    let entries = now["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let ours = entries.iter().find(|entry| entry["manager"] == "lockstep").expect("an entry of ours");
    ensure!(ours["fieldsV1"].get("f:imagePullSecrets").is_none(), "it was written: {now}");
    // A new one of the source arrives, and what it takes back goes; the rest stays.
    fleet.source().apply_value(&account(json!([{"name": "ours"}, {"name": "mirror"}]))).await?;
    holds("a new one arrives", &["mirror", "ours", "theirs", "third"]).await?;
    let secrets = robot().await?["secrets"].clone();
    ensure!(secrets.to_string().contains("robot-dockercfg-bbbbb"), "{secrets}");
    fleet.source().apply_value(&account(json!([]))).await?;
    holds("the last of ours goes", &["theirs", "third"]).await?;
    lockstep.stands("serviceaccount/robot", namespace, "cluster-b", "InStep").await?;
    fleet.source().apply_value(&account(json!([{"name": "newer"}]))).await?;
    holds("ours follows, theirs stays", &["newer", "theirs", "third"]).await
}
