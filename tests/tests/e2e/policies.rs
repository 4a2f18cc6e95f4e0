//! Policies are edited while it runs; a file with an error changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

fn policy(namespace: &str, label: &str, targets: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: edited }}
spec:
  sourceCluster: cluster-a
  targetClusters: [{targets}]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ tier: {label} }} }}
"
    )
}

fn map(namespace: &str, name: &str, tier: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"tier": tier}}, "data": {"k": "1"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_edited_added_and_removed_while_it_runs() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-edit").await?;
    let namespace = fleet.namespace.as_str();
    let lockstep = Lockstep::with_policy(&bed, &policy(namespace, "one", "cluster-b")).await?;
    fleet.source().apply_value(&map(namespace, "one", "one")).await?;
    fleet.source().apply_value(&map(namespace, "two", "two")).await?;
    let [b, c] = fleet.targets();
    let has = async |cluster: &lockstep_tests::cluster::Cluster, name: &str, wanted: bool| {
        eventually(PATIENCE, &format!("{name} in {}: {wanted}", cluster.name()), async || {
            let found = cluster.find("v1", "ConfigMap", Some(namespace), name).await?.is_some();
            ensure!(found == wanted);
            Ok(())
        })
        .await
    };
    has(b, "one", true).await?;
    // Another target, then another selection.
    lockstep.policy("policy.yaml", &policy(namespace, "one", "cluster-b, cluster-c"))?;
    has(c, "one", true).await?;
    ensure!(b.find("v1", "ConfigMap", Some(namespace), "two").await?.is_none());
    lockstep.policy("policy.yaml", &policy(namespace, "two", "cluster-b, cluster-c"))?;
    has(b, "two", true).await?;
    has(c, "two", true).await?;
    has(b, "one", false).await?;
    has(c, "one", false).await?;
    // Removed: everything stays where it is. Returned: it is ours as before.
    std::fs::remove_file(lockstep.policies().join("policy.yaml"))?;
    lockstep.stands("configmap/two", namespace, "cluster-b", "Orphaned").await?;
    let kept = b.get("v1", "ConfigMap", Some(namespace), "two").await?;
    lockstep.policy("policy.yaml", &policy(namespace, "two", "cluster-b, cluster-c"))?;
    lockstep.stands("configmap/two", namespace, "cluster-b", "InStep").await?;
    let now = b.get("v1", "ConfigMap", Some(namespace), "two").await?;
    ensure!(
        now["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"],
        "it was written again"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_a_bad_file_keeps_its_last_good_version_also_over_a_restart() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-bad").await?;
    let namespace = fleet.namespace.as_str();
    let good = policy(namespace, "one", "cluster-b, cluster-c");
    let mut lockstep = Lockstep::with_policy(&bed, &good).await?;
    fleet.source().apply_value(&map(namespace, "one", "one")).await?;
    fleet.everywhere("v1", "ConfigMap", "one", |_| true).await?;
    let bad = [
        ("syntax", good.replace("spec:", "spec: [")),
        ("unknown field", good.replace("targetClusters", "targetCluster")),
        ("unknown enum", good.clone() + "  deletion: { onSourceDelete: Remove }\n"),
        ("empty selection", good.split("  resources:").next().unwrap().to_owned() + "  resources: []\n"),
        ("unknown cluster", good.replace("cluster-c", "cluster-x")),
        ("duplicate name", format!("{good}---\n{good}")),
    ];
    for (n, (what, text)) in bad.iter().enumerate() {
        lockstep.policy("policy.yaml", text)?;
        let findings = eventually(PATIENCE, &format!("{what} is reported"), async || {
            let status = lockstep.json(&["status"]).await?;
            let findings = status["findings"].as_array().cloned().unwrap_or_default();
            ensure!(!findings.is_empty(), "no findings: {status}");
            Ok(findings)
        })
        .await?;
        let finding = &findings[0];
        ensure!(finding["file"] == "policy.yaml" && finding["line"].as_u64() > Some(0), "{what}: {finding}");
        ensure!(!finding["remedy"].as_str().unwrap_or_default().is_empty(), "{what}: {finding}");
        // What is good stays in force.
        let name = format!("during-{n}");
        fleet.source().apply_value(&map(namespace, &name, "one")).await?;
        fleet.everywhere("v1", "ConfigMap", &name, |_| true).await?;
        // Lint says the same, and exits 3. Names of clusters it cannot know.
        if *what != "unknown cluster" {
            let path = lockstep.policies().join("policy.yaml");
            let lint = lockstep.run(&["policy", "lint", &path.to_string_lossy()]).await?;
            ensure!(lint.code == 3, "{what}: {lint:?}");
            let printed = format!("{}{}", lint.stdout, lint.stderr);
            ensure!(printed.contains(finding["code"].as_str().unwrap()), "{what}: {printed}");
        }
        lockstep.policy("policy.yaml", &good)?;
        eventually(PATIENCE, "the finding goes", async || {
            let status = lockstep.json(&["status"]).await?;
            ensure!(status["findings"].as_array().is_none_or(Vec::is_empty), "{status}");
            Ok(())
        })
        .await?;
    }
    lockstep.policy("policy.yaml", &bad[1].1)?;
    lockstep.kill().await?;
    lockstep.start().await?;
    fleet.source().apply_value(&map(namespace, "after", "one")).await?;
    fleet.everywhere("v1", "ConfigMap", "after", |_| true).await?;
    fleet.everywhere("v1", "ConfigMap", "one", |_| true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_config_map_is_followed_through_its_symlink_swap() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-swap").await?;
    let namespace = fleet.namespace.as_str();
    let mut lockstep = Lockstep::prepare(&bed).await?;
    let dir = lockstep.policies();
    // The layout of the kubelet: file -> ..data/file, ..data -> ..1, and a rename that swaps.
    let version = |n: u32, text: &str| -> Result<()> {
        std::fs::create_dir(dir.join(format!("..{n}")))?;
        std::fs::write(dir.join(format!("..{n}/policy.yaml")), text)?;
        std::os::unix::fs::symlink(format!("..{n}"), dir.join("..data_tmp"))?;
        Ok(std::fs::rename(dir.join("..data_tmp"), dir.join("..data"))?)
    };
    version(1, &policy(namespace, "one", "cluster-b"))?;
    std::os::unix::fs::symlink("..data/policy.yaml", dir.join("policy.yaml"))?;
    lockstep.start().await?;
    fleet.source().apply_value(&map(namespace, "one", "one")).await?;
    let [b, _] = fleet.targets();
    eventually(PATIENCE, "the first version is in force", async || {
        b.get("v1", "ConfigMap", Some(namespace), "one").await
    })
    .await?;
    version(2, &policy(namespace, "one", "cluster-b, cluster-c"))?;
    fleet.everywhere("v1", "ConfigMap", "one", |_| true).await
}
