//! Deletes that nobody saw coming (pains 4, 8 of docs/pains.md): they wait, are shown before they are approved, and what is to stay
//! stays as it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, TestNamespace, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

fn policy(name: &str, namespace: &str, deletion: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: {name} }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}] }}
  - {{ kind: Secret, namespaces: [{namespace}] }}
  - {{ kind: Service, namespaces: [{namespace}] }}
  deletion: {{ {deletion} }}
"
    )
}

fn map(namespace: &str, name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace}, "data": {"k": value}})
}

fn service(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]}})
}

fn secret(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}}, "stringData": {"k": "v"}})
}

/// kind/name of what lockstep placed, with a part of each.
async fn copies(
    cluster: &Cluster,
    namespace: &str,
    part: impl Fn(&Value) -> Value,
) -> Result<BTreeMap<String, Value>> {
    let mut copies = BTreeMap::new();
    for kind in ["ConfigMap", "Secret", "Service"] {
        for object in cluster.list("v1", kind, Some(namespace), "").await? {
            let name = object["metadata"]["name"].as_str().context("a name")?;
            if name.starts_with("x-") {
                copies.insert(format!("{kind}/{name}"), part(&object));
            }
        }
    }
    Ok(copies)
}

async fn fill(fleet: &Fleet<'_>, maps: usize) -> Result<()> {
    let (source, namespace) = (fleet.source(), fleet.namespace.as_str());
    for n in 0..maps {
        source.apply_value(&map(namespace, &format!("x-{n:03}"), "1")).await?;
    }
    for n in 0..5 {
        source.apply_value(&service(namespace, &format!("x-s{n}"))).await?;
        source.apply_value(&secret(namespace, &format!("x-t{n}"))).await?;
    }
    Ok(())
}

/// Waits until so many copies of the policy stand like that in both targets.
async fn count(lockstep: &Lockstep, policy: &str, state: &str, wanted: u64) -> Result<()> {
    eventually(PATIENCE, &format!("{wanted} of {policy} are {state}"), async || {
        let status = lockstep.json(&["status", policy]).await?;
        for target in status["items"][0]["targets"].as_array().context("targets")? {
            ensure!(target["counts"][state] == wanted, "{}", target["counts"]);
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_4_a_namespace_of_300_objects_deleted_by_mistake_deletes_nothing_before_approval() -> Result<()>
{
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-mistake").await?;
    let namespace = fleet.namespace.as_str();
    let lockstep = Lockstep::with_policy(&bed, &policy("mistake", namespace, "onUnselect: Delete")).await?;
    fill(&fleet, 290).await?;
    count(&lockstep, "mistake", "inStep", 300).await?;
    lockstep.settled().await?;
    let whole = |object: &Value| object.clone();
    let mut before = Vec::new();
    for target in fleet.targets() {
        before.push(copies(target, namespace, whole).await?);
    }
    TestNamespace::adopt(fleet.source(), namespace).close_and_wait().await?;
    count(&lockstep, "mistake", "held", 300).await?;
    for (target, before) in fleet.targets().into_iter().zip(&before) {
        ensure!(copies(target, namespace, whole).await? == *before, "a copy was touched");
    }
    let shown = lockstep.json(&["approve", "mistake", "--dry-run"]).await?;
    for list in shown["items"].as_array().context("items")? {
        let objects = list["objects"].as_array().context("objects")?;
        ensure!(objects.len() == 300 && objects.iter().all(|o| o["reason"] == "ContainerDeleted"), "{list}");
    }
    seen_as_held(&lockstep, namespace).await?;
    let asked = lockstep.run(&["approve", "mistake"]).await?;
    ensure!(asked.code == 2 && asked.stderr.contains("--yes"), "{asked:?}");

    // Mended at the source: the holds dissolve, and each copy is the object it was.
    let _again = TestNamespace::create_named(fleet.source(), namespace).await?;
    fill(&fleet, 290).await?;
    count(&lockstep, "mistake", "inStep", 300).await?;
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    for (target, before) in fleet.targets().into_iter().zip(&before) {
        let before: BTreeMap<_, _> = before.iter().map(|(key, object)| (key.clone(), uid(object))).collect();
        ensure!(copies(target, namespace, uid).await? == before, "a copy was made anew");
    }

    // And once more, on purpose.
    TestNamespace::adopt(fleet.source(), namespace).close_and_wait().await?;
    count(&lockstep, "mistake", "held", 300).await?;
    lockstep.text(&["approve", "mistake", "--yes"]).await?;
    for target in fleet.targets() {
        eventually(PATIENCE, "the approved deletes are carried out", async || {
            let left = copies(target, namespace, |_| Value::Null).await?;
            ensure!(left.is_empty(), "{} are there", left.len());
            Ok(())
        })
        .await?;
        archived_in_reverse_order(&lockstep, target.name(), namespace).await?;
    }
    Ok(())
}

/// Held deletes are counted, explained, and listed as what they would remove.
async fn seen_as_held(lockstep: &Lockstep, namespace: &str) -> Result<()> {
    let says = lockstep.standing("configmap/x-000", namespace, "cluster-b").await?;
    ensure!(says.starts_with("Held/ContainerDeleted") && says.contains("lockstep approve mistake"), "{says}");
    let listed = lockstep.text(&["approve", "mistake", "--dry-run", "--target", "cluster-b"]).await?;
    let line = |name: &str| listed.lines().any(|line| line.contains(namespace) && line.contains(name));
    ensure!(line("x-000") && line("x-t0") && line("x-s0"), "{listed}");
    let metrics = lockstep.metrics().await?;
    let gauge = metrics.lines().find(|line| {
        line.starts_with("lockstep_hub_held_deletes{")
            && line.contains("cluster-c")
            && line.contains("mistake")
    });
    ensure!(gauge.is_some_and(|line| line.ends_with(" 300")), "{gauge:?}");
    Ok(())
}

/// Each of them has a tombstone; Services, which are created last, were taken first.
async fn archived_in_reverse_order(lockstep: &Lockstep, cluster: &str, namespace: &str) -> Result<()> {
    let mut ids = eventually(PATIENCE, "each of them has a tombstone", async || {
        let list = ["tombstones", "list", "--cluster", cluster, "-n", namespace, "--limit", "1000"];
        let kept = lockstep.json(&list).await?;
        let ids: Vec<(i64, String)> = kept["items"]
            .as_array()
            .context("items")?
            .iter()
            .filter(|kept| kept["name"].as_str().is_some_and(|name| name.starts_with("x-")))
            .map(|kept| (kept["id"].as_i64().unwrap(), kept["kind"].as_str().unwrap().to_owned()))
            .collect();
        ensure!(ids.len() == 300, "{} tombstones", ids.len());
        Ok(ids)
    })
    .await?;
    ids.sort_unstable();
    let last = ids.iter().rposition(|(_, kind)| kind == "Service");
    // As many as are under way at a time.
    ensure!(last.is_some_and(|last| last < 64), "the last Service was number {last:?}");
    Ok(())
}

/// Without what lockstep put there, and what every change of metadata changes.
fn without_marks(object: &Value) -> Value {
    let mut object = object.clone();
    for part in ["labels", "annotations"] {
        if let Some(map) = object["metadata"].get_mut(part).and_then(Value::as_object_mut) {
            map.retain(|name, _| !name.starts_with("lockstep.dev/"));
            if map.is_empty() {
                object["metadata"].as_object_mut().unwrap().remove(part);
            }
        }
    }
    for part in ["managedFields", "resourceVersion"] {
        object["metadata"].as_object_mut().unwrap().remove(part);
    }
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstalling_leaves_every_object_as_it_is_and_a_later_edit_is_nobodys_business() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-orphan").await?;
    let namespace = fleet.namespace.as_str();
    let mut lockstep =
        Lockstep::with_policy(&bed, &policy("orphans", namespace, "onUnselect: Delete")).await?;
    fill(&fleet, 20).await?;
    count(&lockstep, "orphans", "inStep", 30).await?;
    let [b, c] = fleet.targets();
    let mut before = Vec::new();
    for target in [b, c] {
        before.push(copies(target, namespace, without_marks).await?);
    }
    let refused = lockstep.run(&["orphan", "--all", "--yes"]).await?;
    ensure!(refused.code == 1 && refused.stderr.contains("LS0214"), "{refused:?}");
    lockstep.text(&["pause", "--all"]).await?;
    let asked = lockstep.run(&["orphan", "--all"]).await?;
    ensure!(asked.code == 2 && asked.stderr.contains("--yes"), "{asked:?}");
    lockstep.text(&["orphan", "--all", "--yes"]).await?;
    // It goes on after a restart.
    lockstep.kill().await?;
    lockstep.start().await?;
    eventually(PATIENCE, "nothing of lockstep is there", async || {
        let left = lockstep.json(&["orphan", "--all", "--dry-run"]).await?;
        ensure!(left["items"] == json!([]), "{left}");
        Ok(())
    })
    .await?;
    for (target, before) in [b, c].into_iter().zip(&before) {
        let after = copies(target, namespace, |object| object.clone()).await?;
        for (key, object) in &after {
            ensure!(!object.to_string().contains("lockstep.dev/"), "{key}: {object}");
            let managers = object["metadata"]["managedFields"].as_array().into_iter().flatten();
            let ours = |manager: &Value| manager["manager"].as_str().is_some_and(|m| m == "lockstep");
            ensure!(!managers.into_iter().any(ours), "{key}: {object}");
        }
        let after: BTreeMap<_, _> = after.iter().map(|(key, o)| (key.clone(), without_marks(o))).collect();
        for (key, before) in before {
            ensure!(after.get(key) == Some(before), "{key}: {before} -> {:?}", after.get(key));
        }
        let made = target.get("v1", "Namespace", None, namespace).await?;
        ensure!(!made.to_string().contains("lockstep.dev/"), "{made}");
    }
    // Theirs now: it is edited, and lockstep, asked to go on, does not touch it.
    b.patch("v1", "ConfigMap", Some(namespace), "x-000", &json!({"data": {"k": "theirs"}})).await?;
    fleet.source().apply_value(&map(namespace, "x-000", "2")).await?;
    lockstep.text(&["resume", "--all"]).await?;
    lockstep.stands("configmap/x-000", namespace, "cluster-b", "Conflict").await?;
    ensure!(b.get("v1", "ConfigMap", Some(namespace), "x-000").await?["data"]["k"] == "theirs");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_8_what_a_policy_orphans_stays_without_marks_and_a_removed_policy_keeps_them() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-stays").await?;
    let namespace = fleet.namespace.as_str();
    let lockstep =
        Lockstep::with_policy(&bed, &policy("staying", namespace, "onSourceDelete: Orphan")).await?;
    fill(&fleet, 2).await?;
    count(&lockstep, "staying", "inStep", 12).await?;
    lockstep.settled().await?;
    let [b, c] = fleet.targets();
    fleet.source().delete("v1", "Secret", Some(namespace), "x-t0").await?;
    for target in [b, c] {
        eventually(PATIENCE, "the marks are off", async || {
            let left = target.get("v1", "Secret", Some(namespace), "x-t0").await?;
            ensure!(!left.to_string().contains("lockstep.dev/"), "it is marked");
            ensure!(left["data"]["k"] == "dg==" && left["metadata"]["labels"] == json!({"app": "x-t0"}));
            Ok(())
        })
        .await?;
    }
    // A policy that goes leaves its marks, until a person says otherwise.
    std::fs::remove_file(lockstep.policies().join("policy.yaml"))?;
    lockstep.stands("configmap/x-000", namespace, "cluster-b", "Orphaned/PolicyRemoved").await?;
    let kept = b.get("v1", "ConfigMap", Some(namespace), "x-000").await?;
    ensure!(kept.to_string().contains("lockstep.dev/"), "{kept}");
    lockstep.text(&["orphan", "staying", "--yes"]).await?;
    for target in [b, c] {
        eventually(PATIENCE, "the marks are off everywhere", async || {
            for (key, object) in copies(target, namespace, |object| object.clone()).await? {
                ensure!(!object.to_string().contains("lockstep.dev/"), "{key}");
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_4_a_source_that_is_made_again_within_the_grace_period_keeps_its_copy() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-grace").await?;
    let namespace = fleet.namespace.as_str();
    let mut lockstep = Lockstep::with_policy(&bed, &policy("grace", namespace, "gracePeriod: 1h")).await?;
    fleet.source().apply_value(&map(namespace, "x", "1")).await?;
    fleet.everywhere("v1", "ConfigMap", "x", |m| m["data"]["k"] == "1").await?;
    let [b, _] = fleet.targets();
    let before = b.get("v1", "ConfigMap", Some(namespace), "x").await?;
    fleet.source().delete("v1", "ConfigMap", Some(namespace), "x").await?;
    let says = lockstep.stands("configmap/x", namespace, "cluster-b", "Pending/GracePeriod").await?;
    ensure!(says.contains("it is deleted at 20"), "{says}");
    lockstep.kill().await?;
    lockstep.start().await?;
    lockstep.settled().await?;
    lockstep.stands("configmap/x", namespace, "cluster-b", "Pending/GracePeriod").await?;
    fleet.source().apply_value(&map(namespace, "x", "2")).await?;
    fleet.everywhere("v1", "ConfigMap", "x", |m| m["data"]["k"] == "2").await?;
    let after = b.get("v1", "ConfigMap", Some(namespace), "x").await?;
    ensure!(after["metadata"]["uid"] == before["metadata"]["uid"], "it was made anew");
    // An edit of the policy counts from the beginning.
    fleet.source().delete("v1", "ConfigMap", Some(namespace), "x").await?;
    lockstep.stands("configmap/x", namespace, "cluster-b", "Pending/GracePeriod").await?;
    lockstep.policy("policy.yaml", &policy("grace", namespace, "gracePeriod: 0s"))?;
    fleet.nowhere("v1", "ConfigMap", "x").await
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_4_an_object_that_says_so_is_not_deleted_and_our_writes_leave_the_annotation() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-prevent").await?;
    let namespace = fleet.namespace.as_str();
    let lockstep = Lockstep::with_policy(&bed, &policy("prevent", namespace, "onUnselect: Delete")).await?;
    fleet.source().apply_value(&map(namespace, "x", "1")).await?;
    fleet.everywhere("v1", "ConfigMap", "x", |m| m["data"]["k"] == "1").await?;
    let [b, c] = fleet.targets();
    let set = |value: Value| json!({"metadata": {"annotations": {"lockstep.dev/prevent-deletion": value}}});
    b.patch("v1", "ConfigMap", Some(namespace), "x", &set(json!("true"))).await?;
    fleet.source().apply_value(&map(namespace, "x", "2")).await?;
    fleet.everywhere("v1", "ConfigMap", "x", |m| m["data"]["k"] == "2").await?;
    fleet.source().delete("v1", "ConfigMap", Some(namespace), "x").await?;
    lockstep.stands("configmap/x", namespace, "cluster-b", "Held/DeletionPrevented").await?;
    eventually(PATIENCE, "the other copy is gone", async || {
        ensure!(c.find("v1", "ConfigMap", Some(namespace), "x").await?.is_none());
        Ok(())
    })
    .await?;
    // Nor does an approval release it: the object's own people decide.
    let shown = lockstep.json(&["approve", "prevent", "--yes"]).await?;
    ensure!(shown["items"] == json!([]), "{shown}");
    lockstep.stands("configmap/x", namespace, "cluster-b", "Held/DeletionPrevented").await?;
    b.patch("v1", "ConfigMap", Some(namespace), "x", &set(Value::Null)).await?;
    fleet.nowhere("v1", "ConfigMap", "x").await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hubs_on_one_cluster_never_overwrite_or_delete_what_the_other_wrote() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-hubs").await?;
    let namespace = fleet.namespace.as_str();
    let one = Lockstep::with_policy(&bed, &policy("one", namespace, "onUnselect: Delete")).await?;
    fleet.source().apply_value(&map(namespace, "x", "1")).await?;
    fleet.everywhere("v1", "ConfigMap", "x", |m| m["data"]["k"] == "1").await?;
    let [b, _] = fleet.targets();
    let before = b.get("v1", "ConfigMap", Some(namespace), "x").await?;
    let two = Lockstep::with_policy(&bed, &policy("two", namespace, "onPolicyDelete: Delete")).await?;
    for target in ["cluster-b", "cluster-c"] {
        two.stands("configmap/x", namespace, target, "Conflict/ForeignHub").await?;
    }
    // Marks copied onto another object are nobody's.
    let mut copied = before.clone();
    copied["metadata"] = json!({"name": "y", "namespace": namespace,
        "labels": before["metadata"]["labels"], "annotations": before["metadata"]["annotations"]});
    let copied = b.apply_value(&copied).await?;
    fleet.source().apply_value(&map(namespace, "y", "1")).await?;
    one.stands("configmap/y", namespace, "cluster-b", "Conflict/ForgedMarks").await?;
    two.stands("configmap/y", namespace, "cluster-b", "Conflict/ForeignHub").await?;
    // The second hub's policy goes, and asks for its copies to be deleted: it has none.
    std::fs::remove_file(two.policies().join("policy.yaml"))?;
    eventually(PATIENCE, "the second hub has forgotten them", async || {
        let says = two.standing("configmap/x", namespace, "cluster-b").await;
        ensure!(says.as_ref().map_or(true, |says| says.starts_with("nothing")), "{says:?}");
        Ok(())
    })
    .await?;
    fleet.source().delete("v1", "ConfigMap", Some(namespace), "y").await?;
    ensure!(b.get("v1", "ConfigMap", Some(namespace), "x").await? == before, "it was touched");
    // The first goes on as before, and deletes its own only.
    fleet.source().delete("v1", "ConfigMap", Some(namespace), "x").await?;
    fleet.nowhere("v1", "ConfigMap", "x").await?;
    let kept = b.get("v1", "ConfigMap", Some(namespace), "y").await?;
    ensure!(kept == copied, "{copied} -> {kept}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_14_a_job_that_was_collected_at_a_target_is_not_run_again() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-jobs").await?;
    let namespace = fleet.namespace.as_str();
    let text = policy("jobs", namespace, "onUnselect: Delete")
        .replace("kind: ConfigMap", "apiGroup: batch, kind: Job");
    let mut lockstep = Lockstep::with_policy(&bed, &text).await?;
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x", "namespace": namespace},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    fleet.source().apply_value(&job).await?;
    fleet.everywhere("batch/v1", "Job", "x", |_| true).await?;
    let [b, c] = fleet.targets();
    let other = c.get("batch/v1", "Job", Some(namespace), "x").await?["metadata"]["uid"].clone();
    // As a controller does with what finished long ago.
    b.delete("batch/v1", "Job", Some(namespace), "x").await?;
    lockstep.stands("job/x", namespace, "cluster-b", "InStep/Collected").await?;
    lockstep.kill().await?;
    lockstep.start().await?;
    lockstep.settled().await?;
    lockstep.stands("job/x", namespace, "cluster-b", "InStep/Collected").await?;
    ensure!(b.find("batch/v1", "Job", Some(namespace), "x").await?.is_none(), "it was run again");
    ensure!(c.get("batch/v1", "Job", Some(namespace), "x").await?["metadata"]["uid"] == other);
    fleet.source().delete("batch/v1", "Job", Some(namespace), "x").await?;
    fleet.nowhere("batch/v1", "Job", "x").await
}

/// The marks of an object, on another one.
fn bearing(marks: &Value, namespace: &str, name: &str) -> Value {
    let part = |part: &str| marks["metadata"][part].clone();
    let mut object = map(namespace, name, "theirs");
    object["metadata"]["labels"] = part("labels");
    object["metadata"]["annotations"] = part("annotations");
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_copied_marks_never_lead_to_a_delete_or_an_overwrite() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-forged").await?;
    let namespace = fleet.namespace.as_str();
    let all = "onPolicyDelete: Delete, budget: { count: 1000 }";
    let lockstep = Lockstep::with_policy(&bed, &policy("forged", namespace, all)).await?;
    fleet.source().apply_value(&map(namespace, "x", "1")).await?;
    fleet.everywhere("v1", "ConfigMap", "x", |m| m["data"]["k"] == "1").await?;
    let [b, c] = fleet.targets();
    let genuine = b.get("v1", "ConfigMap", Some(namespace), "x").await?;
    // Under another name; the same in another cluster; and with another policy written in.
    let mut carried = genuine.clone();
    carried["metadata"]["annotations"]["lockstep.dev/policy"] = json!("another");
    let mut theirs = Vec::new();
    for (cluster, name, marks) in [(b, "y", &genuine), (c, "y", &genuine), (b, "z", &carried)] {
        theirs.push((cluster, name, cluster.apply_value(&bearing(marks, namespace, name)).await?));
    }
    for name in ["y", "z"] {
        fleet.source().apply_value(&map(namespace, name, "1")).await?;
    }
    for (cluster, name, _) in &theirs {
        let object = format!("configmap/{name}");
        lockstep.stands(&object, namespace, cluster.name(), "Conflict/ForgedMarks").await?;
    }
    // Their sources go, and then the policy, which asks for deletes.
    for name in ["y", "z"] {
        fleet.source().delete("v1", "ConfigMap", Some(namespace), name).await?;
    }
    std::fs::remove_file(lockstep.policies().join("policy.yaml"))?;
    fleet.nowhere("v1", "ConfigMap", "x").await?;
    for (cluster, name, before) in &theirs {
        let now = cluster.get("v1", "ConfigMap", Some(namespace), name).await?;
        ensure!(now == *before, "{} {name}: {before} -> {now}", cluster.name());
    }
    Ok(())
}
