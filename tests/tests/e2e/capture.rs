//! What an ArchivePolicy keeps of what is deleted, and the bugs of other recycle bins, each as a test of its name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use lockstep_tests::cluster::{Cluster, queues};
use lockstep_tests::harness::{PATIENCE, TestNamespace, eventually, unique_name};
use lockstep_tests::identity::Identity;
use lockstep_tests::lockstep::Lockstep;
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

/// Everything, in all clusters.
const EVERYTHING: &str =
    "apiVersion: sync.k8s.io/v1\nkind: ArchivePolicy\nmetadata: { name: everything }\nspec: {}\n";

/// One object of each of twelve kinds: as `kubectl` names the kind, and the object.
fn twelve(namespace: &str, group: &str) -> Vec<(String, Value)> {
    let labels = json!({"app": "shop"});
    let template =
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let selector = json!({"matchLabels": labels});
    let workload = json!({"replicas": 0, "selector": selector, "template": template});
    let mut stateful = workload.clone();
    stateful["serviceName"] = "shop".into();
    let daemon = json!({"selector": selector, "template": template});
    let mut job = template.clone();
    job["spec"]["restartPolicy"] = "Never".into();
    let cron = json!({"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": {"template": job}}});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    let ingress = json!({"defaultBackend": {"service": {"name": "shop", "port": {"number": 80}}}});
    // CronJobs are batch/v1beta1 up to 1.20, and batch/v1 from 1.21 on.
    let all = [
        ("configmap", "v1", "ConfigMap", json!({"data": {"k": "v"}})),
        ("secret", "v1", "Secret", json!({"stringData": {"password": "p"}})),
        (
            "service",
            "v1",
            "Service",
            json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}], "selector": labels}}),
        ),
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
    a.install_crd(&queues(&group)).await?;
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

#[tokio::test(flavor = "multi_thread")]
async fn bin_keeps_everything_of_a_deleted_namespace() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [a, _, _] = bed.three()?;
    let home = TestNamespace::create(a, "e2e-bin-all").await?;
    let namespace = home.name().to_owned();
    let lockstep = Lockstep::with_policy(&bed, EVERYTHING).await?;
    let group = format!("{}.example.com", unique_name("bin")?);
    a.install_crd(&queues(&group)).await?;
    lockstep.settled().await?;
    let mut uids = BTreeMap::new();
    for (kind, mut object) in twelve(&namespace, &group) {
        served(a, &mut object).await?;
        let there = a.apply_value(&object).await?;
        seen(&lockstep, &kind, &namespace, "shop").await?;
        uids.insert(kind, there["metadata"]["uid"].clone());
    }
    // Finalizers and controllers of the namespace's own end come between the delete and the end.
    home.close_and_wait().await?;
    for (kind, uid) in &uids {
        let tombstone = kept(&lockstep, kind, &namespace, "shop").await?;
        ensure!(tombstone["uid"] == *uid, "{kind}: {tombstone}");
        let shown = lockstep.json(&["tombstones", "show", &tombstone["id"].to_string()]).await?;
        ensure!(shown.pointer("/body/metadata/deletionTimestamp").is_none(), "{kind} as it ended: {shown}");
    }
    let whole = kept(&lockstep, "namespace", "", &namespace).await?;
    let shown = lockstep.json(&["tombstones", "show", &whole["id"].to_string()]).await?;
    ensure!(text(&shown, "/body/status/phase") == "Active", "the state before the delete: {shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bin_tells_objects_of_one_second_and_of_two_namespaces_apart() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [a, _, _] = bed.three()?;
    let homes =
        [TestNamespace::create(a, "e2e-bin-one").await?, TestNamespace::create(a, "e2e-bin-two").await?];
    let lockstep = Lockstep::with_policy(&bed, EVERYTHING).await?;
    lockstep.settled().await?;
    let mut lives = BTreeSet::new();
    // The watch may tell lives that follow each other at once as one; each is seen before it ends.
    for life in ["1", "2", "3"] {
        for home in &homes {
            let there = a.apply_value(&map(home.name(), "same", life)).await?;
            lives.insert(there["metadata"]["uid"].to_string());
            seen(&lockstep, "configmap", home.name(), "same").await?;
        }
        for home in &homes {
            a.delete("v1", "ConfigMap", Some(home.name()), "same").await?;
        }
    }
    let kept = eventually(PATIENCE, "six lives, six tombstones in the archive", async || {
        let mut kept = Vec::new();
        for home in &homes {
            kept.extend(tombstones(&lockstep, "configmap", home.name(), "same").await?);
        }
        ensure!(kept.len() == 6 && kept.iter().all(|one| one["path"].is_string()), "{kept:?}");
        Ok(kept)
    })
    .await?;
    let distinct = |field: &str| kept.iter().map(|one| one[field].to_string()).collect::<BTreeSet<_>>();
    ensure!(distinct("uid") == lives && distinct("path").len() == 6, "{kept:?}");
    for home in homes {
        home.close().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bin_ignores_dry_run_deletes() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [a, _, _] = bed.three()?;
    let home = TestNamespace::create(a, "e2e-bin-dry").await?;
    let namespace = home.name();
    let lockstep = Lockstep::with_policy(&bed, EVERYTHING).await?;
    lockstep.settled().await?;
    for name in ["dry", "real"] {
        a.apply_value(&map(namespace, name, "v")).await?;
        seen(&lockstep, "configmap", namespace, name).await?;
    }
    let api = a.api("v1", "ConfigMap", Some(namespace)).await?;
    api.delete("dry", &DeleteParams { dry_run: true, ..DeleteParams::default() }).await?;
    a.delete("v1", "ConfigMap", Some(namespace), "real").await?;
    // One watch tells both, in order.
    kept(&lockstep, "configmap", namespace, "real").await?;
    ensure!(
        tombstones(&lockstep, "configmap", namespace, "dry").await?.is_empty(),
        "a dry run is in the bin"
    );
    home.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_excludes_is_not_kept_and_downtime_loses_nothing() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [a, _, _] = bed.three()?;
    let home = TestNamespace::create(a, "e2e-bin-not").await?;
    let namespace = home.name();
    let policy = EVERYTHING.replace(
        "spec: {}",
        "spec: { exclude: [{ kind: ConfigMap, names: [leader] }, { matchLabels: { bin: 'no' } }] }",
    );
    let mut lockstep = Lockstep::with_policy(&bed, &policy).await?;
    lockstep.settled().await?;
    let mut labelled = map(namespace, "labelled", "v");
    labelled["metadata"]["labels"] = json!({"bin": "no"});
    let mut owned = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "owned", "namespace": namespace},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let owner = a.apply_value(&map(namespace, "owner", "v")).await?;
    owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
        "uid": owner["metadata"]["uid"], "controller": true}]);
    let mut bare = owned.clone();
    bare["metadata"] = json!({"name": "bare", "namespace": namespace});
    let objects = [map(namespace, "leader", "v"), labelled, owned, bare, map(namespace, "plain", "v")];
    for object in &objects {
        a.apply_value(object).await?;
    }
    for (kind, name) in [("configmap", "plain"), ("pod", "bare")] {
        seen(&lockstep, kind, namespace, name).await?;
    }
    // Nobody watches while they go.
    lockstep.stop().await?;
    for object in &objects {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let kind = text(object, "/kind");
        a.api("v1", kind, Some(namespace)).await?.delete(text(object, "/metadata/name"), &now).await?;
    }
    lockstep.start().await?;
    lockstep.settled().await?;
    kept(&lockstep, "configmap", namespace, "plain").await?;
    kept(&lockstep, "pod", namespace, "bare").await?;
    for (kind, name) in [("configmap", "leader"), ("configmap", "labelled"), ("pod", "owned")] {
        ensure!(tombstones(&lockstep, kind, namespace, name).await?.is_empty(), "{kind} {name} is kept");
    }
    home.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bin_goes_on_where_the_list_of_one_kind_fails() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [a, _, _] = bed.three()?;
    let home = TestNamespace::create(a, "e2e-bin-kind").await?;
    let namespace = home.name();
    let identity = Identity::install(&bed, "bin-kind").await?;
    // Everything but Secrets: rights only add up, so the groups are named without them.
    let rules = json!([
        {"apiGroups": [""], "resources": ["configmaps", "namespaces"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["apps"], "resources": ["*"], "verbs": ["list", "watch"]},
    ]);
    let role = identity.read_role();
    a.patch("rbac.authorization.k8s.io/v1", "ClusterRole", None, &role, &json!({"rules": rules})).await?;
    identity.granted(a, "list", "", "services", false).await?;
    let mut lockstep = Lockstep::prepare_with(&identity.kubeconfig(&bed, &BTreeMap::new()).await?)?;
    lockstep.policy("policy.yaml", EVERYTHING)?;
    lockstep.start().await?;
    a.apply_value(&map(namespace, "kept", "v")).await?;
    seen(&lockstep, "configmap", namespace, "kept").await?;
    a.delete("v1", "ConfigMap", Some(namespace), "kept").await?;
    kept(&lockstep, "configmap", namespace, "kept").await?;
    eventually(PATIENCE, "what may not be listed is named, and the rest is live", async || {
        let clusters = lockstep.json(&["clusters"]).await?;
        let items = clusters["items"].as_array().context("a list")?;
        let here = items.iter().find(|item| item["name"] == "cluster-a").context("cluster-a")?;
        let phase = |kind: &str| {
            let watches = here["watches"].as_array().into_iter().flatten();
            let watch = watches.into_iter().find(|watch| watch["kind"] == kind);
            watch.map(|watch| (text(watch, "/phase").to_owned(), text(watch, "/reason").to_owned()))
        };
        let (failing, live) = (phase("Service").context("services")?, phase("ConfigMap").context("maps")?);
        ensure!(failing == ("Failing".to_owned(), "Forbidden".to_owned()), "{failing:?} in {here}");
        ensure!(live.0 == "Live", "{live:?} in {here}");
        Ok(())
    })
    .await?;
    home.close().await
}
