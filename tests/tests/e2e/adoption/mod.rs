//! Adopted objects are wholly lockstep's where they are asked for: what the source removes goes, what it renames follows,
//! and what only the target has stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod application;
mod switches;

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

const MAP: (&str, &str) = ("v1", "ConfigMap");

/// The test bed's own kubectl in a namespace of a cluster: what a person would have run.
struct Kubectl<'a> {
    bed: &'a Testbed,
    cluster: &'a Cluster,
    namespace: &'a str,
}

impl<'a> Kubectl<'a> {
    fn new(bed: &'a Testbed, cluster: &'a Cluster, namespace: &'a str) -> Self {
        Self { bed, cluster, namespace }
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(self.bed.kubectl());
        command.arg("--kubeconfig").arg(self.bed.kubeconfig()).args(["--context", self.cluster.name()]);
        command.args(["--namespace", self.namespace]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("running kubectl")?;
        child.stdin.take().context("its input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {errors}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Client-side apply.
    fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.run(&["apply", "-f", "-"], &list.to_string()).map(drop)
    }
}

fn namespace_of(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn managers(object: &Value) -> Vec<&str> {
    let entries = object["metadata"]["managedFields"].as_array();
    entries.into_iter().flatten().filter_map(|entry| entry["manager"].as_str()).collect()
}

/// Waits until a path of an object is as wanted; null: not there.
async fn is(
    cluster: &Cluster,
    kind: (&str, &str),
    namespace: &str,
    name: &str,
    pointer: &str,
    wanted: &Value,
) -> Result<()> {
    eventually(PATIENCE, &format!("{pointer} of {name} is {wanted}"), async || {
        let object = cluster.get(kind.0, kind.1, Some(namespace), name).await?;
        let found = object.pointer(pointer).unwrap_or(&Value::Null);
        ensure!(found == wanted, "it is {found}: {object}");
        Ok(())
    })
    .await
}

fn map(name: &str, value: &Value) -> Value {
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    for (member, value) in value.as_object().into_iter().flatten() {
        match member.as_str() {
            "data" => map["data"] = value.clone(),
            member => map["metadata"][member] = value.clone(),
        }
    }
    map
}

/// Case 08: kubernetes#99003, and the remedy of fluxcd/kustomize-controller#527.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_removes_goes_from_what_was_adopted() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-adopt").await?;
    let namespace = fleet.namespace.as_str();
    let [b, _] = fleet.targets();
    b.apply_value(&namespace_of(namespace)).await?;
    let (at_source, at_target) =
        (Kubectl::new(&bed, fleet.source(), namespace), Kubectl::new(&bed, b, namespace));
    let more = json!({"labels": {"team": "a", "stage": "test"}, "annotations": {"example.com/note": "hello"},
        "data": {"keep": "1", "legacy": "1"}});
    let names = ["taken", "equal", "created", "server", "cleared"];
    for name in names {
        at_source.apply(&[map(name, &more)])?;
        let text = map(name, &more).to_string();
        match name {
            "created" => drop(at_target.run(&["create", "-f", "-"], &text)?),
            "server" => drop(at_target.run(&["apply", "--server-side", "-f", "-"], &text)?),
            _ => at_target.apply(&[map(name, &more)])?,
        }
    }
    at_target
        .run(&["patch", "configmap", "taken", "--type=merge", "-p", r#"{"data":{"own":"target"}}"#], "")?;
    let clear = r#"[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]"#;
    at_target.run(&["patch", "configmap", "cleared", "--type=json", "-p", clear], "")?;
    let policy = format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: adopt }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b]
  ownership: {{ conflict: TakeOver }}
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], names: [taken, created, server, cleared] }}
  - {{ kind: ConfigMap, namespaces: [{namespace}], names: [equal], ownership: {{ conflict: AdoptIfEqual }} }}
"
    );
    let lockstep = Lockstep::with_policy(&bed, &policy).await?;
    for name in names {
        lockstep.stands(&format!("configmap/{name}"), namespace, "cluster-b", "InStep").await?;
    }
    let less = json!({"labels": {"team": "a"}, "data": {"keep": "2"}});
    for name in names {
        at_source.apply(&[map(name, &less)])?;
    }
    for name in names {
        is(b, MAP, namespace, name, "/data/keep", &json!("2")).await?;
        for gone in ["/data/legacy", "/metadata/labels/stage", "/metadata/annotations/example.com~1note"] {
            is(b, MAP, namespace, name, gone, &Value::Null).await?;
        }
        lockstep.stands(&format!("configmap/{name}"), namespace, "cluster-b", "InStep").await?;
    }
    is(b, MAP, namespace, "taken", "/data/own", &json!("target")).await?;

    // Whoever applies the old manifest once more is corrected, and holds nothing for ever.
    at_target.apply(&[map("taken", &more)])?;
    is(b, MAP, namespace, "taken", "/data/keep", &json!("2")).await?;
    at_source.apply(&[map("taken", &json!({"data": {"other": "3"}}))])?;
    is(b, MAP, namespace, "taken", "/data/other", &json!("3")).await?;
    is(b, MAP, namespace, "taken", "/data/keep", &Value::Null).await
}

/// Whoever clears managedFields of a copy makes everything in it everybody's.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_managed_fields_were_cleared_is_ours_again() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-clear").await?;
    let namespace = fleet.namespace.as_str();
    let [b, _] = fleet.targets();
    let at_source = Kubectl::new(&bed, fleet.source(), namespace);
    let at_target = Kubectl::new(&bed, b, namespace);
    let service = |name: &str, port: u16| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": port, "targetPort": 80}]}})
    };
    let more = json!({"data": {"keep": "1", "gone": "1"}});
    at_source.apply(&[map("m", &more), service("web", 80)])?;
    let policy = format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: clear }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], names: [m] }}
  - {{ kind: Service, namespaces: [{namespace}] }}
"
    );
    let lockstep = Lockstep::with_policy(&bed, &policy).await?;
    lockstep.stands("configmap/m", namespace, "cluster-b", "InStep").await?;
    lockstep.stands("service/web", namespace, "cluster-b", "InStep").await?;
    at_target.run(&["patch", "configmap", "m", "--type=merge", "-p", r#"{"data":{"own":"target"}}"#], "")?;
    for (object, cleared) in [("configmap/m", "[{}]"), ("service/web", "[]"), ("service/web", "[{}]")] {
        let clear = format!(r#"[{{"op":"replace","path":"/metadata/managedFields","value":{cleared}}}]"#);
        at_target.run(&["patch", object, "--type=json", "-p", &clear], "")?;
    }
    at_source.apply(&[map("m", &json!({"data": {"keep": "2"}})), service("web", 8080)])?;
    is(b, MAP, namespace, "m", "/data", &json!({"keep": "2", "own": "target"})).await?;
    eventually(PATIENCE, "the port is renumbered", async || {
        let service = b.get("v1", "Service", Some(namespace), "web").await?;
        let ports: Vec<&Value> =
            service["spec"]["ports"].as_array().unwrap().iter().map(|p| &p["port"]).collect();
        ensure!(ports == [&json!(8080)], "{service}");
        Ok(())
    })
    .await?;
    lockstep.stands("configmap/m", namespace, "cluster-b", "InStep").await?;
    lockstep.stands("service/web", namespace, "cluster-b", "InStep").await.map(drop)
}

/// A controller at work keeps its entry; whom the policy calls retired does not.
#[tokio::test(flavor = "multi_thread")]
async fn whose_fields_are_taken_over_is_the_policys_to_say() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-retired").await?;
    let namespace = fleet.namespace.as_str();
    let [b, _] = fleet.targets();
    b.apply_value(&namespace_of(namespace)).await?;
    let at_source = Kubectl::new(&bed, fleet.source(), namespace);
    let at_target = Kubectl::new(&bed, b, namespace);
    let both = json!({"data": {"keep": "1", "gone": "1"}});
    for (name, manager) in [("operated", "example-operator"), ("deployed", "deployer-7")] {
        at_source.apply(&[map(name, &both)])?;
        let arguments = ["apply", "--server-side", "--field-manager", manager, "-f", "-"];
        at_target.run(&arguments, &map(name, &both).to_string())?;
    }
    let policy = format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: retired }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b]
  ownership: {{ conflict: TakeOver, retiredManagers: ['deployer-*'] }}
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], names: [operated, deployed] }}
"
    );
    let lockstep = Lockstep::with_policy(&bed, &policy).await?;
    for name in ["operated", "deployed"] {
        lockstep.stands(&format!("configmap/{name}"), namespace, "cluster-b", "InStep").await?;
    }
    let operated = b.get(MAP.0, MAP.1, Some(namespace), "operated").await?;
    ensure!(managers(&operated).contains(&"example-operator"), "{operated}");
    let deployed = b.get(MAP.0, MAP.1, Some(namespace), "deployed").await?;
    ensure!(managers(&deployed) == ["lockstep"], "{deployed}");
    for name in ["operated", "deployed"] {
        at_source.apply(&[map(name, &json!({"data": {"keep": "2"}}))])?;
        is(b, MAP, namespace, name, "/data/keep", &json!("2")).await?;
    }
    is(b, MAP, namespace, "deployed", "/data/gone", &Value::Null).await?;
    is(b, MAP, namespace, "operated", "/data/gone", &json!("1")).await
}
