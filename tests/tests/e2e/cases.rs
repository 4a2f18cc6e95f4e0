//! Cases from other people's bug reports: mirroring tools that lost, changed or hammered what they mirrored. The names of
//! the tests say the numbers; each assertion names its case. Cases that need no fleet of their own share one.

mod bytes;
mod ends;
mod flips;
mod immutable;
mod lists;
mod services;
mod size;
mod values;

use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, PostParams};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::deploy::{agent_kubeconfig, granted};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

/// A namespace in the fleet, and a lockstep that mirrors it.
struct Case<'a> {
    fleet: Fleet<'a>,
    lockstep: Lockstep,
}

/// The policy of a case: what it means of the namespace, and more of its spec.
fn policy(name: &str, target: &str, resources: &str, more: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: {name} }}
spec:
  sourceCluster: cluster-a
  targetClusters: [{target}]
  resources: [{resources}]
{more}"
    )
}

impl<'a> Case<'a> {
    /// Starts with the policies that `policies` makes of the namespace's name.
    async fn start(bed: &'a Testbed, prefix: &str, policies: impl Fn(&str) -> Vec<String>) -> Result<Self> {
        Self::accepting(bed, prefix, &[], policies).await
    }

    /// The same, with agents that accept these kinds, too.
    async fn accepting(
        bed: &'a Testbed,
        prefix: &str,
        kinds: &[&str],
        policies: impl Fn(&str) -> Vec<String>,
    ) -> Result<Self> {
        let fleet = Fleet::new(bed, prefix).await?;
        let mut lockstep = Lockstep::prepare(bed).await?;
        lockstep.accept(kinds);
        for (n, text) in policies(&fleet.namespace).iter().enumerate() {
            lockstep.policy(&format!("{n}.yaml"), text)?;
        }
        lockstep.start().await?;
        Ok(Self { fleet, lockstep })
    }

    fn a(&self) -> &'a Cluster {
        self.fleet.clusters[0]
    }

    fn b(&self) -> &'a Cluster {
        self.fleet.clusters[1]
    }

    fn c(&self) -> &'a Cluster {
        self.fleet.clusters[2]
    }

    fn namespace(&self) -> &str {
        &self.fleet.namespace
    }

    /// An object of the namespace.
    fn object(&self, api_version: &str, kind: &str, name: &str, content: Value) -> Value {
        let mut object = content;
        object["apiVersion"] = api_version.into();
        object["kind"] = kind.into();
        object["metadata"]["name"] = name.into();
        object["metadata"]["namespace"] = self.namespace().into();
        object
    }

    /// Waits until something holds of an object in a cluster.
    async fn holds(
        &self,
        case: &str,
        cluster: &Cluster,
        (api_version, kind, name): (&str, &str, &str),
        check: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let what = format!("{case}: {kind} {name} in {}", cluster.name());
        eventually(PATIENCE, &what, async || {
            let object = cluster.get(api_version, kind, Some(self.namespace()), name).await?;
            ensure!(check(&object), "it is {object}");
            Ok(object)
        })
        .await
    }

    /// Waits until a part of a copy in cluster-b is that of its source.
    async fn same(&self, case: &str, of: (&str, &str, &str), part: &str) -> Result<Value> {
        let (api_version, kind, name) = of;
        let source = self.a().get(api_version, kind, Some(self.namespace()), name).await?;
        let wanted = source.pointer(part).cloned();
        ensure!(wanted.is_some(), "{case}: the source has no {part}: {source}");
        let case = format!("{case}: {part} is {wanted:?}");
        self.holds(&case, self.b(), of, |copy| copy.pointer(part) == wanted.as_ref()).await
    }

    /// Nothing is written to these copies in cluster-b while others are: a marker goes through the same agent several times.
    async fn quiet(&self, case: &str, copies: &[(&str, &str, &str)]) -> Result<()> {
        let versions = async || {
            let mut versions = Vec::new();
            for (api_version, kind, name) in copies {
                let copy = self.b().get(api_version, kind, Some(self.namespace()), name).await?;
                let managers = copy["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
                let ours = managers.into_iter().find(|entry| entry["manager"] == "lockstep");
                versions
                    .push((copy["metadata"]["generation"].clone(), ours.map(|ours| ours["time"].clone())));
            }
            anyhow::Ok(versions)
        };
        let before = versions().await?;
        for round in 0..ROUNDS {
            let value = format!("{round}");
            let marker = self.object("v1", "ConfigMap", MARKER, json!({"data": {"round": value}}));
            self.a().apply_value(&marker).await?;
            let arrived = |copy: &Value| copy["data"]["round"] == value.as_str();
            self.holds(case, self.b(), ("v1", "ConfigMap", MARKER), arrived).await?;
        }
        let after = versions().await?;
        ensure!(before == after, "{case}: written without a change: {before:?}, then {after:?}");
        Ok(())
    }

    /// What `explain` prints of an object.
    async fn explained(&self, object: &str) -> Result<String> {
        self.lockstep.text(&["explain", object, "-n", self.namespace()]).await
    }
}

/// How often the marker goes through.
const ROUNDS: u32 = 3;
/// A ConfigMap that the policies of cases which call [`Case::quiet`] mean.
const MARKER: &str = "marker";

/// Creates by POST, as `kubectl create` does: what apply would refuse is accepted.
async fn post(cluster: &Cluster, object: &Value) -> Result<Value> {
    let api = api_of(cluster, object).await?;
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    Ok(serde_json::to_value(api.create(&PostParams::default(), &object).await?)?)
}

/// Replaces by PUT, as `kubectl replace` does.
async fn put(cluster: &Cluster, object: &Value) -> Result<()> {
    let api = api_of(cluster, object).await?;
    let name = object["metadata"]["name"].as_str().context("a name")?;
    eventually(PATIENCE, &format!("{name} is replaced"), async || {
        let live = api.get(name).await?;
        let mut object: DynamicObject = serde_json::from_value(object.clone())?;
        object.metadata.resource_version = live.metadata.resource_version;
        api.replace(name, &PostParams::default(), &object).await?;
        Ok(())
    })
    .await
}

/// Deletes and creates, as `kubectl replace --force` does.
async fn force(cluster: &Cluster, object: &Value) -> Result<()> {
    let part = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (part("/apiVersion"), part("/kind"));
    cluster.delete(api_version, kind, Some(part("/metadata/namespace")), part("/metadata/name")).await?;
    eventually(PATIENCE, "it is created again", async || post(cluster, object).await.map(drop)).await
}

/// Sets fields by their JSON pointers, and replaces by PUT, as `kubectl patch --type=json` does.
async fn set(cluster: &Cluster, object: &Value, fields: &[(&str, Value)]) -> Result<()> {
    let api = api_of(cluster, object).await?;
    let name = object["metadata"]["name"].as_str().context("a name")?;
    eventually(PATIENCE, &format!("{name} is changed"), async || {
        let mut live = serde_json::to_value(api.get(name).await?)?;
        for (pointer, value) in fields {
            let (parent, field) = pointer.rsplit_once('/').context("a pointer")?;
            match live.pointer_mut(parent).context("a parent")? {
                Value::Array(items) => {
                    *items.get_mut(field.parse::<usize>()?).context("an item")? = value.clone()
                }
                parent => parent[field] = value.clone(),
            }
        }
        let changed: DynamicObject = serde_json::from_value(live)?;
        api.replace(name, &PostParams::default(), &changed).await?;
        Ok(())
    })
    .await
}

async fn api_of(cluster: &Cluster, object: &Value) -> Result<kube::Api<DynamicObject>> {
    let part = |path: &str| object.pointer(path).and_then(Value::as_str);
    let (api_version, kind) =
        (part("/apiVersion").context("an apiVersion")?, part("/kind").context("a kind")?);
    cluster.api(api_version, kind, part("/metadata/namespace")).await
}

/// A Deployment without Pods, of these containers and init containers.
fn deployment(name: &str, containers: &Value, init: &Value) -> Value {
    let labels = json!({"app": name});
    json!({"spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
        "metadata": {"labels": labels}, "spec": {"containers": containers, "initContainers": init}}}})
}

/// A definition of a namespaced kind in a group of its own: YAML. `schema` is its openAPIV3Schema.
fn definition(group: &str, kind: &str, schema: &str) -> String {
    let plural = format!("{}s", kind.to_lowercase());
    let singular = kind.to_lowercase();
    format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{ name: {plural}.{group} }}
spec:
  group: {group}
  scope: Namespaced
  names: {{ kind: {kind}, listKind: {kind}List, plural: {plural}, singular: {singular} }}
  versions:
  - {{ name: v1, served: true, storage: true, schema: {{ openAPIV3Schema: {schema} }} }}
"
    )
}

/// Lets the agent of a target write the custom resources of a group, as deploy/agent/components/custom-resources does. The
/// kind is waited for: rights are granted some time after they were asked for.
async fn grant(bed: &Testbed, cluster: &Cluster, group: &str, plural: &str) -> Result<()> {
    let rules = json!([{"apiGroups": [group], "resources": ["*"], "verbs": ["get", "create", "update", "patch", "delete"]}]);
    agent_kubeconfig(bed).await?;
    cluster
        .apply_value(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": rules,
            "metadata": {"name": format!("lockstep-agent-{group}"), "labels": {"lockstep.dev/aggregate-to-agent-write": "true"}}}))
        .await?;
    granted(cluster, "patch", group, plural).await
}

/// Any content.
const ANYTHING: &str = "{ type: object, x-kubernetes-preserve-unknown-fields: true }";
