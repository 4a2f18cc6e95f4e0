//! Fields of copies that others have a say in: autoscalers, webhooks, people, other appliers (pains 1, 2 and 3 of
//! docs/pains.md).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

/// More than the corrections after which lockstep gives way.
const ROUNDS: usize = 12;

fn policy(namespace: &str, kind: &str, ownership: &str) -> String {
    let group = if kind == "Deployment" { "apiGroup: apps, " } else { "" };
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: fields }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  ownership: {ownership}
  resources: [ {{ {group}kind: {kind}, namespaces: [{namespace}] }} ]
"
    )
}

fn map(namespace: &str, name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"sync": "yes"}}, "data": data})
}

fn web(namespace: &str, replicas: u32, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": image}]}}}})
}

/// Waits until an object is so.
async fn becomes(
    cluster: &Cluster,
    (version, kind): (&str, &str),
    namespace: &str,
    name: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let what = format!("{kind} {name} of {} is as wanted", cluster.name());
    eventually(PATIENCE, &what, async || {
        let object = cluster.get(version, kind, Some(namespace), name).await?;
        ensure!(wanted(&object), "{object}");
        Ok(object)
    })
    .await
}

fn managers(object: &Value) -> Vec<&str> {
    let entries = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().filter_map(|entry| entry["manager"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_1_an_autoscaler_and_the_sync_do_not_fight_over_replicas() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-scale").await?;
    let namespace = fleet.namespace.as_str();
    let [b, c] = fleet.targets();
    let kind = ("apps/v1", "Deployment");
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace, "Deployment", "{}")).await?;
    fleet.source().apply_value(&web(namespace, 2, "w:1")).await?;
    fleet.everywhere(kind.0, kind.1, "web", |web| web["spec"]["replicas"] == 2).await?;
    // Nobody measures anything here: below its minimum an autoscaler scales all the same.
    let scaler = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"minReplicas": 5, "maxReplicas": 9, "targetCPUUtilizationPercentage": 80,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    b.apply_value(&scaler).await?;
    let scaled = becomes(b, kind, namespace, "web", |web| {
        web["spec"]["replicas"] == 5 && managers(web).contains(&"lockstep-yield")
    })
    .await?;
    lockstep.stands("deployment/web", namespace, "cluster-b", "InStep").await?;
    // The source goes on: its image follows, its replicas do not where they are scaled.
    fleet.source().apply_value(&web(namespace, 3, "w:2")).await?;
    let image = |web: &Value| web["spec"]["template"]["spec"]["containers"][0]["image"] == "w:2";
    let now = becomes(b, kind, namespace, "web", image).await?;
    ensure!(now["spec"]["replicas"] == 5, "{now}");
    ensure!(now["metadata"]["uid"] == scaled["metadata"]["uid"], "{now}");
    becomes(c, kind, namespace, "web", |web| image(web) && web["spec"]["replicas"] == 3).await?;
    // Without the autoscaler the replicas are the source's again.
    b.delete("autoscaling/v1", "HorizontalPodAutoscaler", Some(namespace), "web").await?;
    let back = becomes(b, kind, namespace, "web", |web| web["spec"]["replicas"] == 3).await?;
    ensure!(!managers(&back).contains(&"lockstep-yield"), "{back}");
    lockstep.stands("deployment/web", namespace, "cluster-b", "InStep").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_3_fields_that_the_policy_gives_away_are_neither_reset_nor_called_modified() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-leave").await?;
    let namespace = fleet.namespace.as_str();
    let [b, c] = fleet.targets();
    let kind = ("v1", "ConfigMap");
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace, kind.1, "{}")).await?;
    let data = |n: u32| json!({"k": format!("{n}"), "given": format!("{n}"), "once": format!("{n}")});
    fleet.source().apply_value(&map(namespace, "m", data(1))).await?;
    fleet.everywhere(kind.0, kind.1, "m", |m| m["data"] == data(1)).await?;
    let rules =
        "{ ignoreDifferences: [ { jsonPointers: [/data/given] } ], createOnly: { jsonPaths: [.data.once] } }";
    lockstep.policy("policy.yaml", &policy(namespace, kind.1, rules))?;
    for target in [b, c] {
        becomes(target, kind, namespace, "m", |m| managers(m).contains(&"lockstep-yield")).await?;
    }
    // One target changes what is its own now; the source changes everything.
    b.patch(kind.0, kind.1, Some(namespace), "m", &json!({"data": {"once": "theirs"}})).await?;
    fleet.source().apply_value(&map(namespace, "m", data(2))).await?;
    fleet.source().apply_value(&map(namespace, "new", data(2))).await?;
    let at_b = json!({"k": "2", "given": "1", "once": "theirs"});
    becomes(b, kind, namespace, "m", |m| m["data"] == at_b).await?;
    becomes(c, kind, namespace, "m", |m| m["data"] == json!({"k": "2", "given": "1", "once": "1"})).await?;
    // What is created now has what is written once, and not what is never written.
    fleet.everywhere(kind.0, kind.1, "new", |m| m["data"] == json!({"k": "2", "once": "2"})).await?;
    for object in ["configmap/m", "configmap/new"] {
        lockstep.stands(object, namespace, "cluster-b", "InStep").await?;
    }
    let diff = lockstep.text(&["diff", "fields"]).await?;
    ensure!(!diff.contains("given") && !diff.contains("once"), "{diff}");
    // The rule goes: nobody took these fields at c, so they are the source's again; at b somebody did.
    lockstep.policy("policy.yaml", &policy(namespace, kind.1, "{}"))?;
    let back = becomes(c, kind, namespace, "m", |m| m["data"] == data(2)).await?;
    ensure!(!managers(&back).contains(&"lockstep-yield"), "{back}");
    let says = lockstep.stands("configmap/m", namespace, "cluster-b", "Conflict/Conflict").await?;
    ensure!(says.contains(".data.once"), "{says}");
    becomes(b, kind, namespace, "m", |m| m["data"] == at_b).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_3_an_edit_of_our_field_is_reported_with_manager_and_time_and_followed_no_further() -> Result<()>
{
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-report").await?;
    let namespace = fleet.namespace.as_str();
    let [b, _] = fleet.targets();
    let kind = ("v1", "ConfigMap");
    let rules = "{ drift: Report, driftRules: [ { jsonPaths: [.data.strict], drift: Correct }, { jsonPaths: [.data.loose], drift: Ignore } ] }";
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace, kind.1, rules)).await?;
    let data = |n: u32| json!({"k": "1", "strict": "1", "loose": "1", "n": format!("{n}")});
    fleet.source().apply_value(&map(namespace, "m", data(1))).await?;
    fleet.everywhere(kind.0, kind.1, "m", |m| m["data"] == data(1)).await?;
    let theirs = json!({"data": {"k": "theirs", "strict": "theirs", "loose": "theirs"}});
    b.patch(kind.0, kind.1, Some(namespace), "m", &theirs).await?;
    let expected = |n: &str| json!({"k": "theirs", "strict": "1", "loose": "theirs", "n": n});
    let edited = becomes(b, kind, namespace, "m", |m| m["data"] == expected("1")).await?;
    let says = lockstep.stands("configmap/m", namespace, "cluster-b", "Conflict/DriftReported").await?;
    let entries = edited["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let theirs = entries.iter().find(|entry| entry["fieldsV1"].to_string().contains("f:loose")).unwrap();
    for part in [".data.k", theirs["manager"].as_str().unwrap(), theirs["time"].as_str().unwrap()] {
        ensure!(says.contains(part), "{part} is not in {says}");
    }
    ensure!(!says.contains(".data.loose") && !says.contains(".data.strict"), "{says}");
    // The rest still follows.
    fleet.source().apply_value(&map(namespace, "m", data(2))).await?;
    becomes(b, kind, namespace, "m", |m| m["data"] == expected("2")).await?;
    lockstep.stands("configmap/m", namespace, "cluster-b", "Conflict/DriftReported").await?;
    // They let go of the fields: these are ours again.
    let gone = json!({"data": {"k": null, "loose": null}});
    b.patch(kind.0, kind.1, Some(namespace), "m", &gone).await?;
    becomes(b, kind, namespace, "m", |m| m["data"] == data(2)).await?;
    lockstep.stands("configmap/m", namespace, "cluster-b", "InStep").await?;
    // Once the policy wants it corrected, what was ours is taken back.
    b.patch(kind.0, kind.1, Some(namespace), "m", &json!({"data": {"k": "again"}})).await?;
    lockstep.stands("configmap/m", namespace, "cluster-b", "Conflict/DriftReported").await?;
    lockstep.policy("policy.yaml", &policy(namespace, kind.1, "{}"))?;
    becomes(b, kind, namespace, "m", |m| m["data"] == data(2)).await?;
    lockstep.stands("configmap/m", namespace, "cluster-b", "InStep").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_1_a_field_that_another_manager_takes_by_force_again_and_again_is_a_conflict_and_no_war()
-> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-war").await?;
    let namespace = fleet.namespace.as_str();
    let [b, _] = fleet.targets();
    let kind = ("v1", "ConfigMap");
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace, kind.1, "{}")).await?;
    fleet.source().apply_value(&map(namespace, "m", json!({"k": "1", "l": "1"}))).await?;
    fleet.everywhere(kind.0, kind.1, "m", |m| m["data"]["k"] == "1").await?;
    // Another applier, as stubborn as lockstep.
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "m", "namespace": namespace}, "data": {"k": "theirs"}});
    let mut contested = false;
    for _ in 0..ROUNDS {
        b.apply_value(&theirs).await?;
        contested = eventually(PATIENCE, "it is set back, or left in dispute", async || {
            let m = b.get(kind.0, kind.1, Some(namespace), "m").await?;
            let stands = lockstep.standing("configmap/m", namespace, "cluster-b").await?;
            ensure!(m["data"]["k"] == "1" || stands.starts_with("Conflict/Contested"), "{stands}: {m}");
            Ok(m["data"]["k"] != "1")
        })
        .await?;
        if contested {
            break;
        }
    }
    ensure!(contested, "it went on for {ROUNDS} rounds");
    let says = lockstep.stands("configmap/m", namespace, "cluster-b", "Conflict/Contested").await?;
    ensure!(says.contains("lockstep-tests") && says.contains(".data.k"), "{says}");
    let disputed = b.get(kind.0, kind.1, Some(namespace), "m").await?;
    fleet.source().apply_value(&map(namespace, "other", json!({"k": "1"}))).await?;
    fleet.everywhere(kind.0, kind.1, "other", |_| true).await?;
    ensure!(b.get(kind.0, kind.1, Some(namespace), "m").await? == disputed, "it was written");
    // They let go: peace.
    let nothing =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": namespace}});
    b.apply_value(&nothing).await?;
    becomes(b, kind, namespace, "m", |m| m["data"] == json!({"k": "1", "l": "1"})).await?;
    lockstep.stands("configmap/m", namespace, "cluster-b", "InStep").await?;
    // The war is over, and a single edit is set back as ever.
    b.patch(kind.0, kind.1, Some(namespace), "m", &json!({"data": {"l": "edited"}})).await?;
    becomes(b, kind, namespace, "m", |m| m["data"]["l"] == "1").await?;
    eventually(PATIENCE, "explain names what was set back", async || {
        let explained = lockstep.json(&["explain", "configmap/m", "-n", namespace]).await?;
        let targets = explained["targets"].as_array().cloned().unwrap_or_default();
        let at_b = targets.iter().find(|target| target["target"] == "cluster-b").cloned().unwrap_or_default();
        let by = &at_b["corrected"]["by"][0];
        ensure!(by["fields"][0] == ".data.l" && by["operation"] == "Update", "{at_b}");
        ensure!(by["manager"].is_string() && by["time"].is_string(), "{at_b}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_14_a_job_that_changed_is_made_anew_where_the_policy_says_so() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-anew").await?;
    let namespace = fleet.namespace.as_str();
    let [b, _] = fleet.targets();
    let kind = ("batch/v1", "Job");
    let policy = format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: anew }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b]
  ownership: {{ onImmutable: Recreate }}
  deletion: {{ gracePeriod: 10m }}
  resources: [ {{ apiGroup: batch, kind: Job, namespaces: [{namespace}] }} ]
"
    );
    let lockstep = Lockstep::with_policy(&bed, &policy).await?;
    let job = |image: &str| {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": namespace},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "j", "image": image}]}}}})
    };
    let has = |image: &'static str| {
        move |job: &Value| job["spec"]["template"]["spec"]["containers"][0]["image"] == image
    };
    fleet.source().apply_value(&job("j:1")).await?;
    let first = becomes(b, kind, namespace, "once", has("j:1")).await?;
    // A template cannot be changed: at the source, too, the Job is made anew.
    fleet.source().delete(kind.0, kind.1, Some(namespace), "once").await?;
    eventually(PATIENCE, "the Job is gone at the source", async || {
        let there = fleet.source().find(kind.0, kind.1, Some(namespace), "once").await?;
        ensure!(there.is_none(), "{there:?}");
        Ok(())
    })
    .await?;
    fleet.source().apply_value(&job("j:2")).await?;
    let second = becomes(b, kind, namespace, "once", has("j:2")).await?;
    ensure!(second["metadata"]["uid"] != first["metadata"]["uid"], "{second}");
    lockstep.stands("job/once", namespace, "cluster-b", "InStep").await?;
    let tombstones = lockstep.json(&["tombstones", "list", "--cluster", "cluster-b"]).await?;
    let kept = tombstones["items"].as_array().cloned().unwrap_or_default();
    ensure!(kept.iter().any(|tombstone| tombstone["uid"] == first["metadata"]["uid"]), "{tombstones}");
    Ok(())
}
