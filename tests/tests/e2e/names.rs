//! Names that only RBAC allows, and names that look like the cluster's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use kube::api::{DeleteParams, ListParams, PostParams};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::deploy::{granted, install_rbac};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

const RBAC: &str = "rbac.authorization.k8s.io/v1";
/// Beside these an API server refuses `.`, `..`, `/` and `%`, and nothing else.
const NAMES: &[&str] = &[
    "plain",
    "team::lead",
    "on call",
    "what?now#then",
    "größe+1",
    "a=b&c",
    "UPPER_case",
    "semi;colon,comma",
    "100$",
    "~tilde",
    "-dash",
    "quo'te",
    "\"quoted\"",
    "back\\slash",
    "a:b:c:d",
    "*",
];
const DELETED: &[&str] = &["what?now#then", "on call", "team::lead", "größe+1"];

fn role(kind: &str, namespace: &str, name: &str) -> Value {
    json!({"apiVersion": RBAC, "kind": kind, "metadata": {"name": name, "namespace": namespace},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})
}

/// By lists, and with names in bodies only: how a client writes them into paths is not what is tested.
async fn names(cluster: &Cluster, namespace: &str) -> Result<BTreeSet<String>> {
    let roles = cluster.list(RBAC, "Role", Some(namespace), "").await?;
    Ok(roles.iter().filter_map(|role| role["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

async fn holds(cluster: &Cluster, namespace: &str, expected: &BTreeSet<String>) -> Result<()> {
    eventually(PATIENCE, "the target has the roles of the source", async || {
        let found = names(cluster, namespace).await?;
        ensure!(found == *expected, "{found:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_only_rbac_allows_arrive_are_deleted_and_come_back() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-names").await?;
    let namespace = fleet.namespace.as_str();
    let [a, b] = [fleet.source(), fleet.targets()[0]];
    for cluster in [a, b] {
        install_rbac(&bed, cluster, "agent/components/rbac").await?;
        granted(cluster, "escalate", "rbac.authorization.k8s.io", "clusterroles").await?;
    }
    let api = a.api(RBAC, "Role", Some(namespace)).await?;
    for name in NAMES {
        let object = serde_json::from_value(role("Role", namespace, name))?;
        api.create(&PostParams::default(), &object).await?;
    }
    let ours = format!("system:{namespace}:metrics-reader");
    let mut lockstep = Lockstep::prepare(&bed).await?;
    lockstep.policy(
        "names.yaml",
        &format!(
            "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: names }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b]
  resources:
  - {{ apiGroup: rbac.authorization.k8s.io, kind: Role, namespaces: [{namespace}] }}
  - {{ apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, names: ['{ours}', 'system:node'] }}
  deletion: {{ budget: {{ count: 50 }} }}
"
        ),
    )?;
    lockstep.accept(&["*", "Role.rbac.authorization.k8s.io", "ClusterRole.rbac.authorization.k8s.io"]);
    lockstep.start().await?;
    let mut expected: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    holds(b, namespace, &expected).await?;

    // Only the label tells what is the cluster's own.
    let mut own = role("ClusterRole", namespace, &ours);
    own["metadata"].as_object_mut().unwrap().remove("namespace");
    a.apply_value(&own).await?;
    lockstep.stands(&format!("clusterrole/{ours}"), "", "cluster-b", "InStep").await?;
    let says = lockstep.json(&["explain", "clusterrole/system:node"]).await?;
    ensure!(says.to_string().contains("BootstrapRbac"), "{says}");
    let node = b.get(RBAC, "ClusterRole", None, "system:node").await?;
    ensure!(!node.to_string().contains("lockstep.dev/"), "{node}");

    for name in DELETED {
        let selector = ListParams::default().fields(&format!("metadata.name={name}"));
        api.delete_collection(&DeleteParams::default(), &selector).await?;
        expected.remove(*name);
    }
    holds(b, namespace, &expected).await?;
    for name in DELETED {
        let object = format!("role/{name}");
        lockstep.text(&["restore", &object, "-n", namespace, "--from", "cluster-a", "--yes"]).await?;
        expected.insert((*name).to_owned());
        holds(a, namespace, &expected).await?;
        lockstep.stands(&object, namespace, "cluster-b", "InStep").await?;
    }
    holds(b, namespace, &expected).await?;
    a.delete(RBAC, "ClusterRole", None, &ours).await?;
    eventually(PATIENCE, "the copy goes with its source", async || {
        let found = b.find(RBAC, "ClusterRole", None, &ours).await?;
        ensure!(found.is_none(), "{found:?}");
        Ok(())
    })
    .await
}
