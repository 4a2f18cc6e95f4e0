//! What one act deleted is one group: a namespace, an owner with its dependents, a definition, an approval; also where
//! the agent was away meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use kube::api::{DeleteParams, PropagationPolicy};
use lockstep_tests::cluster::{Cluster, queues};
use lockstep_tests::harness::{PATIENCE, TestNamespace, eventually, unique_name};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

/// Everything in cluster-a, also what controllers made.
const EVERYTHING: &str = "apiVersion: sync.k8s.io/v1
kind: ArchivePolicy
metadata: { name: everything }
spec: { clusters: [cluster-a], includeOwned: true }
";
/// Of each of ten kinds.
const EACH: usize = 20;

/// One object of each of ten kinds, none of which brings others along.
fn ten(namespace: &str, name: &str) -> Vec<Value> {
    let labels = json!({ "app": name });
    let template =
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    let subject = json!([{"kind": "ServiceAccount", "name": name, "namespace": namespace}]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let kinds = [
        ("v1", "ConfigMap", json!({"data": {"k": "v"}})),
        ("v1", "Secret", json!({"stringData": {"k": "v"}})),
        ("v1", "Service", json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}]}})),
        ("v1", "PersistentVolumeClaim", json!({"spec": claim})),
        ("v1", "LimitRange", json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "2"}}]}})),
        ("v1", "PodTemplate", json!({"template": template})),
        ("rbac.authorization.k8s.io/v1", "Role", json!({"rules": rules})),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", json!({"subjects": subject, "roleRef": role})),
        ("networking.k8s.io/v1", "NetworkPolicy", json!({"spec": {"podSelector": {"matchLabels": labels}}})),
        (
            "networking.k8s.io/v1",
            "Ingress",
            json!({"spec": {"defaultBackend": {"service": {"name": name, "port": {"number": 80}}}}}),
        ),
    ];
    let object = |(version, kind, mut content): (&str, &str, Value)| {
        content["apiVersion"] = version.into();
        content["kind"] = kind.into();
        content["metadata"] = json!({"name": name, "namespace": namespace, "labels": {"group": "test"}});
        content
    };
    kinds.into_iter().map(object).collect()
}

/// Two hundred objects of ten kinds.
async fn fill(cluster: &Cluster, namespace: &str) -> Result<()> {
    for n in 0..EACH {
        for object in ten(namespace, &format!("x-{n}")) {
            cluster.apply_value(&object).await?;
        }
    }
    Ok(())
}

/// Waits until the hub holds that many with the label: what it never saw, it cannot keep.
async fn seen(lockstep: &Lockstep, namespace: &str, kinds: &[&str], count: usize) -> Result<()> {
    eventually(PATIENCE, "the hub sees everything", async || {
        for kind in kinds {
            let list = lockstep.json(&["get", kind, "-n", namespace, "--cluster", "cluster-a"]).await?;
            let found = list["items"].as_array().context("a list")?;
            let named = |item: &&Value| item["name"].as_str().is_some_and(|name| name.starts_with("x-"));
            ensure!(found.iter().filter(named).count() == count, "{kind}: {list}");
        }
        Ok(())
    })
    .await
}

/// Groups whose root is that.
async fn groups(lockstep: &Lockstep, root: &str) -> Result<Vec<Value>> {
    let list = lockstep.json(&["tombstones", "groups", "--limit", "1000"]).await?;
    let items = list["items"].as_array().context("a list")?;
    Ok(items.iter().filter(|item| item["root"] == root).cloned().collect())
}

/// The one group with that root, once it has at least that many members.
async fn group(lockstep: &Lockstep, root: &str, members: u64) -> Result<Value> {
    eventually(PATIENCE, &format!("{root} is a group of {members}"), async || {
        let found = groups(lockstep, root).await?;
        if found.len() != 1 {
            let kept = lockstep.text(&["tombstones", "list", "-o", "wide"]).await?;
            bail!("{found:?} of {kept}");
        }
        ensure!(found[0]["members"].as_u64() >= Some(members), "{found:?}");
        Ok(found[0].clone())
    })
    .await
}

/// How many of each kind are in a group, of those with the names of the test.
async fn members(lockstep: &Lockstep, group: &Value) -> Result<BTreeMap<String, usize>> {
    let id = group["id"].as_str().context("an id")?;
    let list = lockstep.json(&["tombstones", "show", id]).await?;
    let mut count = BTreeMap::new();
    for item in list["items"].as_array().context("a list")? {
        ensure!(item["group"] == id, "{item}");
        let name = item["name"].as_str().unwrap_or_default();
        if name.starts_with("x-") {
            *count.entry(item["kind"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    Ok(count)
}

async fn remove(cluster: &Cluster, namespace: &str) -> Result<()> {
    cluster.delete("v1", "Namespace", None, namespace).await?;
    eventually(PATIENCE, "the namespace is gone", async || {
        ensure!(cluster.find("v1", "Namespace", None, namespace).await?.is_none(), "{namespace} is there");
        Ok(())
    })
    .await
}

const KINDS: [&str; 10] = [
    "configmap",
    "secret",
    "service",
    "persistentvolumeclaim",
    "limitrange",
    "podtemplate",
    "role",
    "rolebinding",
    "networkpolicy",
    "ingress",
];

#[tokio::test(flavor = "multi_thread")]
async fn two_namespaces_deleted_at_once_are_two_groups_of_two_hundred_objects() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [a, _, _] = bed.three()?;
    let homes = [TestNamespace::create(a, "e2e-acts").await?, TestNamespace::create(a, "e2e-acts").await?];
    let lockstep = Lockstep::with_policy(&bed, EVERYTHING).await?;
    lockstep.settled().await?;
    for home in &homes {
        fill(a, home.name()).await?;
        // By hand, before the namespace goes: not part of that.
        let map = ten(home.name(), "by-hand").remove(0);
        a.apply_value(&map).await?;
        seen(&lockstep, home.name(), &KINDS, EACH).await?;
        a.delete("v1", "ConfigMap", Some(home.name()), "by-hand").await?;
    }
    let [one, other] = &homes;
    tokio::try_join!(remove(a, one.name()), remove(a, other.name()))?;
    for home in &homes {
        let root = format!("Namespace {}", home.name());
        let found = group(&lockstep, &root, 201).await?;
        ensure!(found["kind"] == "Namespace", "{found}");
        eventually(PATIENCE, "everything is of the group", async || {
            let count = members(&lockstep, &found).await?;
            ensure!(count.len() == KINDS.len() && count.values().all(|n| *n == EACH), "{count:?}");
            Ok(())
        })
        .await?;
        let id = found["id"].as_str().unwrap_or_default();
        let by_hand = lockstep
            .json(&["tombstones", "list", "configmap", "-n", home.name(), "--name", "by-hand"])
            .await?;
        ensure!(by_hand["items"][0]["group"].is_null(), "{by_hand}");
        let tree = lockstep.text(&["tombstones", "show", id]).await?;
        ensure!(tree.starts_with(&format!("Namespace {}", home.name())), "{tree}");
        let listed =
            lockstep.json(&["tombstones", "list", "secret", "--group", id, "-l", "group=test"]).await?;
        ensure!(listed["items"].as_array().map(Vec::len) == Some(EACH), "{listed}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_went_while_the_agent_was_away_is_one_group() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [a, _, _] = bed.three()?;
    let home = TestNamespace::create(a, "e2e-acts").await?;
    let mut lockstep = Lockstep::with_policy(&bed, EVERYTHING).await?;
    lockstep.settled().await?;
    fill(a, home.name()).await?;
    seen(&lockstep, home.name(), &KINDS, EACH).await?;
    lockstep.stop().await?;
    remove(a, home.name()).await?;
    lockstep.start().await?;
    let root = format!("Namespace {}", home.name());
    let found = group(&lockstep, &root, 201).await?;
    eventually(PATIENCE, "everything is of the group", async || {
        let count = members(&lockstep, &found).await?;
        ensure!(count.len() == KINDS.len() && count.values().all(|n| *n == EACH), "{count:?}");
        Ok(())
    })
    .await
}

/// A Deployment whose Pods nobody schedules.
fn deployment(namespace: &str, name: &str) -> Value {
    let labels = json!({ "app": name });
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cascade_is_one_group_with_one_root_however_it_is_propagated() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [a, _, _] = bed.three()?;
    let home = TestNamespace::create(a, "e2e-acts").await?;
    let namespace = home.name();
    let lockstep = Lockstep::with_policy(&bed, EVERYTHING).await?;
    lockstep.settled().await?;
    for (name, policy) in [
        ("x-background", PropagationPolicy::Background),
        ("x-foreground", PropagationPolicy::Foreground),
        ("x-orphan", PropagationPolicy::Orphan),
    ] {
        a.apply_value(&deployment(namespace, name)).await?;
        eventually(PATIENCE, "the hub sees it and what controllers made of it", async || {
            for (kind, count) in [("deployment", 1), ("replicaset", 1), ("pod", 3)] {
                let list = lockstep.json(&["get", kind, "-n", namespace, "--cluster", "cluster-a"]).await?;
                let items = list["items"].as_array().context("a list")?;
                let mine = |item: &&Value| item["name"].as_str().is_some_and(|found| found.starts_with(name));
                ensure!(items.iter().filter(mine).count() == count, "{list}");
            }
            Ok(())
        })
        .await?;
        let api = a.api("apps/v1", "Deployment", Some(namespace)).await?;
        let orphans = policy == PropagationPolicy::Orphan;
        api.delete(name, &DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() })
            .await?;
        let root = format!("Deployment.apps {namespace}/{name}");
        if orphans {
            eventually(PATIENCE, "the Deployment is kept", async || {
                let list = lockstep.json(&["tombstones", "list", "deployment", "--name", name]).await?;
                ensure!(list["items"].as_array().is_some_and(|items| items.len() == 1), "{list}");
                ensure!(list["items"][0]["group"].is_null(), "{list}");
                Ok(())
            })
            .await?;
            ensure!(groups(&lockstep, &root).await?.is_empty(), "it had no dependents any more");
            continue;
        }
        let found = group(&lockstep, &root, 5).await?;
        ensure!(found["kind"] == "Owner" && found["members"] == 5, "{found}");
        let tree = lockstep.text(&["tombstones", "show", found["id"].as_str().unwrap_or_default()]).await?;
        ensure!(tree.lines().count() == 5 && tree.starts_with("Deployment.apps"), "{tree}");
        ensure!(tree.lines().nth(1).is_some_and(|line| line.starts_with("`- ReplicaSet.apps")), "{tree}");
    }
    home.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_objects_of_a_definition_go_with_it() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [a, _, _] = bed.three()?;
    let homes = [TestNamespace::create(a, "e2e-acts").await?, TestNamespace::create(a, "e2e-acts").await?];
    let lockstep = Lockstep::with_policy(&bed, EVERYTHING).await?;
    lockstep.settled().await?;
    let group_name = format!("{}.example.com", unique_name("acts")?);
    a.install_crd(&queues(&group_name)).await?;
    let kind = format!("queue.{group_name}");
    for home in &homes {
        for n in 0..3 {
            let name = format!("x-{n}");
            let queue = json!({"apiVersion": format!("{group_name}/v1"), "kind": "Queue",
                "metadata": {"name": name, "namespace": home.name()}, "spec": {"size": n}});
            // It is served a moment after it is established.
            eventually(PATIENCE, "the kind is served", async || a.apply_value(&queue).await).await?;
        }
        seen(&lockstep, home.name(), &[&kind], 3).await?;
    }
    let name = format!("queues.{group_name}");
    a.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, &name).await?;
    let root = format!("CustomResourceDefinition.apiextensions.k8s.io {name}");
    let found = group(&lockstep, &root, 7).await?;
    ensure!(found["kind"] == "Definition" && found["members"] == 7, "{found}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_approval_deletes_is_one_group_per_target() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-acts").await?;
    let namespace = &fleet.namespace;
    let policy = format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: acts }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ group: test }} }}
  deletion: {{ budget: {{ count: 1 }} }}
"
    );
    let lockstep = Lockstep::with_policy(&bed, &policy).await?;
    let source = fleet.source();
    for n in 0..6 {
        source.apply_value(&ten(namespace, &format!("x-{n}")).remove(0)).await?;
    }
    for n in 0..6 {
        fleet.everywhere("v1", "ConfigMap", &format!("x-{n}"), |_| true).await?;
    }
    let api = source.api("v1", "ConfigMap", Some(namespace)).await?;
    let all = kube::api::ListParams::default().labels("group=test");
    api.delete_collection(&DeleteParams::background(), &all).await?;
    eventually(PATIENCE, "the deletes are held", async || {
        let shown = lockstep.json(&["approve", "acts", "--dry-run"]).await?;
        let held: u64 = shown["items"]
            .as_array()
            .context("a list")?
            .iter()
            .filter_map(|item| item["objects"].as_array().map(|objects| objects.len() as u64))
            .sum();
        // One per target may have been within the budget: it went within the same minute.
        ensure!(held >= 10, "{shown}");
        Ok(())
    })
    .await?;
    lockstep.text(&["approve", "acts", "--yes"]).await?;
    for cluster in ["cluster-b", "cluster-c"] {
        eventually(PATIENCE, "one group per target", async || {
            let list =
                lockstep.json(&["tombstones", "groups", "--kind", "lockstep", "--cluster", cluster]).await?;
            let items = list["items"].as_array().context("a list")?;
            ensure!(items.len() == 1 && items[0]["members"] == 6 && items[0]["policy"] == "acts", "{list}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
