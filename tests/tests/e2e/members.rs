//! Members that are away, or gone for good (pains 5, 6, 17 of docs/pains.md): they block nobody, and nothing is concluded from it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};
use tokio::process::Child;

fn policy(name: &str, namespace: &str, targets: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: {name} }}
spec:
  sourceCluster: cluster-a
  targetClusters: [{targets}]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}] }}
"
    )
}

fn map(namespace: &str, name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace}, "data": {"k": value}})
}

/// A hub, and an agent of each cluster as a process of its own.
struct Scene<'a> {
    fleet: Fleet<'a>,
    hub: Lockstep,
    agents: BTreeMap<&'static str, Child>,
}

impl<'a> Scene<'a> {
    async fn new(bed: &'a Testbed, name: &str, extra: &str) -> Result<Self> {
        let fleet = Fleet::new(bed, &format!("e2e-{name}")).await?;
        let text = policy(name, &fleet.namespace, "cluster-b, cluster-c") + extra;
        let hub = Lockstep::hub_with_policy(bed, &text, &[]).await?;
        let mut scene = Self { fleet, hub, agents: BTreeMap::new() };
        for cluster in ["cluster-a", "cluster-b", "cluster-c"] {
            scene.start(cluster).await?;
        }
        scene.put("x", "1").await?;
        scene.fleet.everywhere("v1", "ConfigMap", "x", |m| m["data"]["k"] == "1").await?;
        Ok(scene)
    }

    async fn start(&mut self, cluster: &'static str) -> Result<()> {
        let address = format!("http://{}", self.hub.address("agents")?);
        self.agents.insert(cluster, self.hub.agent(cluster, &address, &[]).await?);
        Ok(())
    }

    /// Its agent dies, and the hub has noticed.
    async fn dies(&mut self, cluster: &'static str) -> Result<()> {
        self.agents.remove(cluster).context("it runs")?.kill().await?;
        eventually(PATIENCE, "the hub has noticed", async || {
            let clusters = self.hub.json(&["clusters", cluster]).await?;
            ensure!(clusters["items"][0]["connected"] == false, "{clusters}");
            Ok(())
        })
        .await
    }

    async fn put(&self, name: &str, value: &str) -> Result<Value> {
        self.fleet.source().apply_value(&map(&self.fleet.namespace, name, value)).await
    }

    /// The copies of `x`, in b and c.
    async fn copies(&self) -> Result<[Value; 2]> {
        let [b, c] = self.fleet.targets();
        let namespace = Some(self.fleet.namespace.as_str());
        Ok([b.get("v1", "ConfigMap", namespace, "x").await?, c.get("v1", "ConfigMap", namespace, "x").await?])
    }

    async fn stands(&self, object: &str, target: &str, prefix: &str) -> Result<String> {
        self.hub.stands(object, &self.fleet.namespace, target, prefix).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_17_a_dead_cluster_blocks_neither_its_removal_nor_any_other_cluster() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let mut scene = Scene::new(&bed, "dead", "").await?;
    let namespace = scene.fleet.namespace.clone();
    let [_, c] = scene.fleet.targets();
    let before = scene.copies().await?;
    scene.dies("cluster-c").await?;
    scene.put("y", "1").await?;
    scene.fleet.everywhere_but(c, "v1", "ConfigMap", "y", |m| m["data"]["k"] == "1").await?;
    scene.stands("configmap/y", "cluster-c", "Unknown/NotConnected").await?;
    let asked = scene.hub.run(&["cluster", "remove", "cluster-c"]).await?;
    ensure!(asked.code == 2 && asked.stderr.contains("--yes"), "{asked:?}");
    scene.hub.text(&["cluster", "remove", "cluster-c", "--yes"]).await?;
    let clusters = scene.hub.json(&["clusters"]).await?;
    ensure!(!clusters.to_string().contains("cluster-c"), "{clusters}");
    // Its policy goes on meanwhile, with the file as it was and then without the name.
    scene.put("z", "1").await?;
    scene.fleet.everywhere_but(c, "v1", "ConfigMap", "z", |m| m["data"]["k"] == "1").await?;
    scene.hub.policy("policy.yaml", &policy("dead", &namespace, "cluster-b"))?;
    eventually(PATIENCE, "nothing of it is in the status", async || {
        let status = scene.hub.json(&["status"]).await?;
        ensure!(!status.to_string().contains("cluster-c"), "{status}");
        Ok(())
    })
    .await?;

    // It is not dead after all: it is refused, and nothing changes there or elsewhere.
    scene.start("cluster-c").await?;
    eventually(PATIENCE, "its agent is told that it was removed", async || {
        let log = std::fs::read_to_string(scene.hub.dir.path().join("log-cluster-c"))?;
        ensure!(log.contains("LS0217"), "{log}");
        Ok(())
    })
    .await?;
    ensure!(scene.copies().await? == before, "a copy was touched");

    // Joined anew, it is a member like any other: what is in step is not written.
    let made = scene.hub.json(&["token", "create", "cluster-c"]).await?;
    let token = made["token"].as_str().context("a token")?;
    std::fs::write(scene.hub.dir.path().join("token-cluster-c"), token)?;
    scene.agents.remove("cluster-c").context("it runs")?.kill().await?;
    scene.start("cluster-c").await?;
    scene.hub.policy("policy.yaml", &policy("dead", &namespace, "cluster-b, cluster-c"))?;
    scene.fleet.everywhere("v1", "ConfigMap", "y", |m| m["data"]["k"] == "1").await?;
    scene.stands("configmap/x", "cluster-c", "InStep").await?;
    ensure!(scene.copies().await? == before, "a copy was written again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_17_a_dead_source_is_removed_without_a_delete_and_its_last_states_are_kept() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let mut scene = Scene::new(&bed, "lost-source", "").await?;
    let before = scene.copies().await?;
    scene.dies("cluster-a").await?;
    let alive = scene.hub.run(&["cluster", "remove", "cluster-b", "--yes"]).await?;
    ensure!(alive.code == 1 && alive.stderr.contains("LS0216"), "{alive:?}");
    scene.hub.text(&["cluster", "remove", "cluster-a", "--yes"]).await?;
    let kept = eventually(PATIENCE, "its last states are in the archive", async || {
        let list = scene
            .hub
            .json(&["tombstones", "list", "configmap", "--cluster", "cluster-a", "--name", "x"])
            .await?;
        ensure!(list["items"][0]["path"].as_str().is_some_and(|path| path.contains("cluster-a")), "{list}");
        Ok(list["items"][0].clone())
    })
    .await?;
    ensure!(kept["cause"] == "ClusterRemoved" && kept["cluster"] == "cluster-a", "{kept}");
    let shown = scene.hub.json(&["tombstones", "show", &kept["id"].to_string()]).await?;
    ensure!(shown["body"]["data"]["k"] == "1", "{shown}");
    for target in ["cluster-b", "cluster-c"] {
        scene.stands("configmap/x", target, "Unknown/SourceNotConnected").await?;
    }
    std::fs::remove_file(scene.hub.policies().join("policy.yaml"))?;
    for target in ["cluster-b", "cluster-c"] {
        scene.stands("configmap/x", target, "Orphaned/PolicyRemoved").await?;
    }
    ensure!(scene.copies().await? == before, "a copy was touched");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_6_a_source_that_is_silent_deletes_nothing_and_what_went_meanwhile_goes_when_it_has_told()
-> Result<()> {
    let bed = Testbed::from_env().await?;
    let mut scene = Scene::new(&bed, "silent", "").await?;
    let namespace = scene.fleet.namespace.clone();
    scene.put("gone", "1").await?;
    scene.fleet.everywhere("v1", "ConfigMap", "gone", |m| m["data"]["k"] == "1").await?;
    let before = scene.copies().await?;
    scene.dies("cluster-a").await?;
    scene.fleet.source().delete("v1", "ConfigMap", Some(&namespace), "gone").await?;
    // A policy that is edited meanwhile has everything looked at again: that nothing is told is no news.
    let edited = policy("silent", &namespace, "cluster-b, cluster-c") + "  deletion: { gracePeriod: 1s }\n";
    scene.hub.policy("policy.yaml", &edited)?;
    eventually(PATIENCE, "the edited policy is planned", async || {
        let status = scene.hub.json(&["status", "silent"]).await?;
        let item = &status["items"][0];
        ensure!(item["generation"] == 2 && item["observedGeneration"] == 2, "{item}");
        Ok(())
    })
    .await?;
    scene.fleet.everywhere("v1", "ConfigMap", "gone", |m| m["data"]["k"] == "1").await?;
    // A new process, which knows nothing by itself.
    scene.start("cluster-a").await?;
    scene.fleet.nowhere("v1", "ConfigMap", "gone").await?;
    scene.stands("configmap/x", "cluster-c", "InStep").await?;
    ensure!(scene.copies().await? == before, "a copy was touched");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_5_a_target_that_was_away_comes_back_to_what_its_policies_say_now() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let delete = "  deletion: { onPolicyDelete: Delete }\n";
    let mut scene = Scene::new(&bed, "away", delete).await?;
    let namespace = scene.fleet.namespace.clone();
    let [b, c] = scene.fleet.targets();
    scene.put("kept", "1").await?;
    scene.fleet.everywhere("v1", "ConfigMap", "kept", |m| m["data"]["k"] == "1").await?;
    let before = scene.copies().await?;
    // Away, and back: its copies are where and what they were.
    scene.dies("cluster-c").await?;
    scene.start("cluster-c").await?;
    scene.stands("configmap/x", "cluster-c", "InStep").await?;
    ensure!(scene.copies().await? == before, "a copy was touched");
    // Away, while the policy comes to name it no longer, and asks for deletes: nothing, before it is back.
    scene.dies("cluster-c").await?;
    scene.hub.policy("policy.yaml", &(policy("away", &namespace, "cluster-b") + delete))?;
    scene.stands("configmap/x", "cluster-c", "Unknown/NotConnected").await?;
    ensure!(scene.copies().await? == before, "a copy was touched");
    scene.start("cluster-c").await?;
    eventually(PATIENCE, "its copies are gone", async || {
        for name in ["x", "kept"] {
            ensure!(c.find("v1", "ConfigMap", Some(&namespace), name).await?.is_none(), "{name} is there");
        }
        Ok(())
    })
    .await?;
    ensure!(b.get("v1", "ConfigMap", Some(&namespace), "x").await? == before[0], "the other was touched");
    eventually(PATIENCE, "each of them has a tombstone", async || {
        let kept = scene.hub.json(&["tombstones", "list", "configmap", "--cluster", "cluster-c"]).await?;
        ensure!(kept["items"].as_array().is_some_and(|items| items.len() >= 2), "{kept}");
        Ok(())
    })
    .await
}
