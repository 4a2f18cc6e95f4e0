//! A hub and three agents as processes of their own, two of them behind proxies, under an account of their own: what tests
//! of failing API servers need.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Child;

use crate::identity::Identity;
use crate::lockstep::{Fleet, Lockstep};
use crate::proxy::Proxy;
use crate::testbed::Testbed;

/// A hub and three agents, each a process.
pub struct Scene<'a> {
    /// A namespace in all three clusters.
    pub fleet: Fleet<'a>,
    /// The agents' account.
    pub identity: Identity,
    /// In front of cluster-a.
    pub source: Proxy,
    /// In front of cluster-c.
    pub target: Proxy,
    /// The hub.
    pub hub: Lockstep,
    /// The agents that run, by cluster.
    pub agents: BTreeMap<&'static str, Child>,
}

/// Discovery is looked at every 30 s unless something calls for it.
const AGENT: [(&str, &str); 1] = [("LOCKSTEP_CONFIG__DISCOVERY_INTERVAL_S", "1")];

impl<'a> Scene<'a> {
    /// With a policy on ConfigMaps and Secrets of the test's namespace, and on what else is given.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(bed: &'a Testbed, prefix: &str, more: &str) -> Result<Self> {
        let fleet = Fleet::new(bed, &format!("e2e-{prefix}")).await?;
        let identity = Identity::install(bed, prefix).await?;
        let [a, _, c] = fleet.clusters;
        let (source, target) = (Proxy::start(a).await?, Proxy::start(c).await?);
        let proxies = BTreeMap::from([("cluster-a", &source), ("cluster-c", &target)]);
        let namespace = &fleet.namespace;
        let policy = format!(
            "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: faults }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }}
  - {{ kind: Secret, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }}
{more}"
        );
        let hub = Lockstep::hub_as(&identity.kubeconfig(bed, &proxies).await?, &policy, &[]).await?;
        let mut scene = Self { fleet, identity, source, target, hub, agents: BTreeMap::new() };
        for cluster in ["cluster-a", "cluster-b", "cluster-c"] {
            scene.agent(cluster).await?;
        }
        scene.hub.settled().await?;
        Ok(scene)
    }

    /// Starts the agent of a cluster.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn agent(&mut self, cluster: &'static str) -> Result<()> {
        let address = format!("http://{}", self.hub.address("agents")?);
        self.agents.insert(cluster, self.hub.agent(cluster, &address, &AGENT).await?);
        Ok(())
    }

    /// An object of the namespace that the policy selects.
    #[must_use]
    pub fn object(&self, api_version: &str, kind: &str, name: &str, content: &Value) -> Value {
        let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata":
            {"name": name, "namespace": self.fleet.namespace, "labels": {"sync": "yes"}}});
        for (field, value) in content.as_object().into_iter().flatten() {
            object[field] = value.clone();
        }
        object
    }

    /// Applies a Secret at the source.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn secret(&self, name: &str, value: &str) -> Result<()> {
        let secret = self.object("v1", "Secret", name, &json!({"stringData": {"k": value}}));
        self.fleet.source().apply_value(&secret).await.map(drop)
    }

    /// Deletes an object at the source.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete(&self, api_version: &str, kind: &str, name: &str) -> Result<()> {
        self.fleet.source().delete(api_version, kind, Some(&self.fleet.namespace), name).await
    }

    /// A change of another kind still arrives everywhere.
    ///
    /// # Errors
    /// When it does not arrive.
    pub async fn goes_on(&self, kind: &str, value: &str) -> Result<()> {
        let field = if kind == "Secret" { "stringData" } else { "data" };
        let beacon = self.object("v1", kind, "beacon", &json!({field: {"beacon": value}}));
        let data = &self.fleet.source().apply_value(&beacon).await?["data"];
        self.fleet.everywhere("v1", kind, "beacon", |copy| copy["data"] == *data).await
    }

    /// `clusters`, `status` and `explain` say that a kind of a cluster is not known, why, and since when.
    ///
    /// # Errors
    /// When one of them does not say so.
    pub async fn is_unknown(
        &self,
        cluster: &str,
        object: &str,
        kind: &str,
        reason: &str,
        after: i64,
    ) -> Result<()> {
        let watch = self.hub.watch_is(cluster, kind, "Failing", reason).await?;
        ensure!(watch["sinceMs"].as_i64().is_some_and(|since| since >= after), "{watch}");
        ensure!(watch["message"].as_str().is_some_and(|message| !message.is_empty()), "{watch}");
        let status = self.hub.json(&["status", "faults"]).await?;
        let targets = status["items"][0]["targets"].as_array().context("a list of targets")?;
        let told = |target: &&Value| {
            let gaps = target["unknown"].as_array().into_iter().flatten();
            gaps.filter(|gap| gap["cluster"] == cluster && gap["kind"] == kind && gap["reason"] == reason)
                .any(|gap| gap["sinceMs"].as_i64().is_some_and(|since| since >= after))
        };
        ensure!(targets.iter().any(|target| told(&target)), "{status}");
        let explained = self.hub.json(&["explain", object, "-n", &self.fleet.namespace]).await?;
        let sighting =
            explained["clusters"].as_array().and_then(|all| all.iter().find(|c| c["cluster"] == cluster));
        let note = sighting.and_then(|sighting| sighting["note"].as_str()).unwrap_or_default();
        ensure!(note.contains(reason), "{explained}");
        Ok(())
    }

    /// What the agents deleted at the targets, by their audit logs.
    ///
    /// # Errors
    /// When there is no audit log.
    pub fn deletes(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for target in self.fleet.targets() {
            let writes = self.identity.writes(target)?;
            let deletes = writes.iter().filter(|event| event.verb.starts_with("delete"));
            found.extend(deletes.map(|event| format!("{}: {}", target.name(), event.request_uri)));
        }
        Ok(found)
    }

    /// Nothing was deleted at any target.
    ///
    /// # Errors
    /// When something was deleted.
    pub fn none_deleted(&self) -> Result<()> {
        let deletes = self.deletes()?;
        ensure!(deletes.is_empty(), "{deletes:?}");
        Ok(())
    }

    /// Waits until everything is in step.
    ///
    /// # Errors
    /// When that does not come to be.
    pub async fn in_step(&self) -> Result<()> {
        self.hub.wait("faults").await.map(drop)
    }
}
