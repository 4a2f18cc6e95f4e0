//! An application of more than sixty objects that a `kubectl apply` left at the target: adopted as a whole, it follows what
//! the source removes and renames, and is equal at the end by a comparison of this test's own.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::{Kubectl, namespace_of};

const COMPONENTS: [&str; 6] = ["cart", "catalog", "checkout", "payment", "search", "web"];
/// Large enough for a busy machine: all of it is written before the first of them counts.
const ROUNDS: u32 = 4;

fn object(api_version: &str, kind: &str, name: &str, rest: &Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "labels": {"app.example/part-of": "shop", "app.example/name": name}}});
    for (member, value) in rest.as_object().into_iter().flatten() {
        object[member] = value.clone();
    }
    object
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"labels": {"app": name, "tier": "backend"}, "annotations": {"example.com/scrape": "true"}},
        "spec": {
            "serviceAccountName": name,
            "initContainers": [{"name": "migrate", "image": format!("example.invalid/{name}:1"), "command": ["migrate"]}],
            "containers": [
                {"name": "main", "image": format!("example.invalid/{name}:1"), "args": ["--port", "8080"],
                 "ports": [{"name": "http", "containerPort": 8080}, {"name": "admin", "containerPort": 9000}],
                 "env": [{"name": "MODE", "value": "production"}, {"name": "LEGACY", "value": "1"},
                         {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": name, "key": "key"}}}],
                 "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
                 "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                 "volumeMounts": [{"name": "config", "mountPath": "/etc/config"}, {"name": "tmp", "mountPath": "/tmp"}]},
                {"name": "sidecar", "image": "example.invalid/sidecar:1"}],
            "volumes": [{"name": "config", "configMap": {"name": name}}, {"name": "tmp", "emptyDir": {}}]}})
}

fn component(name: &str, budgets: &str) -> Vec<Value> {
    let selector = json!({"matchLabels": {"app": name}});
    let mut workload = json!({"replicas": 0, "selector": selector, "template": pod(name)});
    let (kind, port) = if name == "catalog" { ("StatefulSet", 5432) } else { ("Deployment", 80) };
    if kind == "StatefulSet" {
        workload["serviceName"] = name.into();
    } else {
        workload["strategy"] =
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    }
    vec![
        object("v1", "ServiceAccount", name, &json!({"automountServiceAccountToken": false})),
        object(
            "v1",
            "ConfigMap",
            name,
            &json!({"data": {"a.conf": "x = 1\n", "b.conf": "y = 2\n", "level": "info"}}),
        ),
        object("v1", "Secret", name, &json!({"stringData": {"key": "k", "former": "f"}})),
        object(
            "v1",
            "Service",
            name,
            &json!({"spec": {"selector": {"app": name}, "ports":
            [{"name": "main", "port": port, "targetPort": 8080}, {"name": "admin", "port": 9000}]}}),
        ),
        object("apps/v1", kind, name, &json!({ "spec": workload })),
        object(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            name,
            &json!({"spec": {"podSelector": selector,
            "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 8080}]}]}}),
        ),
        object(
            budgets,
            "PodDisruptionBudget",
            name,
            &json!({"spec": {"minAvailable": 1, "selector": selector}}),
        ),
        object(
            "batch/v1beta1",
            "CronJob",
            name,
            &json!({"spec": {"schedule": "0 0 1 1 *", "suspend": true,
            "jobTemplate": {"spec": {"backoffLimit": 2, "template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "clean", "image": "example.invalid/clean:1", "args": ["--all"],
                    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]}}}}}}),
        ),
        object(
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            name,
            &json!({"spec": {"minReplicas": 2, "maxReplicas": 5,
            "targetCPUUtilizationPercentage": 60,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("{name}-none")}}}),
        ),
        object(
            "networking.k8s.io/v1",
            "Ingress",
            name,
            &json!({"spec": {"rules": [{"host": format!("{name}.example"),
            "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": name, "port": {"number": port}}}}]}}]}}),
        ),
    ]
}

/// As applied by hand to both clusters.
fn application(modern: bool) -> Vec<Value> {
    let budgets = if modern { "policy/v1" } else { "policy/v1beta1" };
    let mut all: Vec<Value> = COMPONENTS.iter().flat_map(|name| component(name, budgets)).collect();
    all.push(object(
        "v1",
        "ResourceQuota",
        "quota",
        &json!({"spec": {"hard": {"pods": "50", "secrets": "100"}}}),
    ));
    all.push(object(
        "v1",
        "LimitRange",
        "limits",
        &json!({"spec": {"limits":
        [{"type": "Container", "default": {"memory": "256Mi"}, "defaultRequest": {"memory": "32Mi"}}]}}),
    ));
    all.push(object("v1", "ConfigMap", "flags", &json!({"data": {"beta": "on"}})));
    for object in &mut all {
        if modern && object["kind"] == "CronJob" {
            object["apiVersion"] = "batch/v1".into();
        }
    }
    all
}

struct Shop<'a> {
    objects: Vec<Value>,
    kubectl: &'a Kubectl<'a>,
}

impl Shop<'_> {
    fn find(&mut self, kind: &str, name: &str) -> &mut Value {
        let found = self.objects.iter_mut();
        found.into_iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name).unwrap()
    }

    fn edit(&mut self, kind: &str, name: &str, edit: impl FnOnce(&mut Value)) -> Result<()> {
        let object = self.find(kind, name);
        edit(object);
        let object = object.clone();
        self.kubectl.apply(&[object])
    }

    /// Ten edits that remove and rename things.
    fn edits(&mut self) -> Result<()> {
        self.edit("ConfigMap", "cart", |o| o["data"] = json!({"a.conf": "x = 2\n", "c.conf": "y = 2\n"}))?;
        self.edit("Secret", "payment", |o| o["stringData"] = json!({"key": "k2"}))?;
        self.edit("Service", "web", |o| {
            o["spec"]["ports"] = json!([{"name": "main", "port": 8081, "targetPort": 8080}]);
        })?;
        self.edit("Deployment", "web", |o| {
            let pod = &mut o["spec"]["template"];
            pod["metadata"]["labels"].as_object_mut().unwrap().remove("tier");
            pod["metadata"].as_object_mut().unwrap().remove("annotations");
            let spec = pod["spec"].as_object_mut().unwrap();
            spec.remove("initContainers");
            spec["containers"].as_array_mut().unwrap().pop();
            let main = spec["containers"][0].as_object_mut().unwrap();
            main.remove("args");
            main.remove("resources");
            main["env"].as_array_mut().unwrap().remove(1);
            main["ports"] = json!([{"name": "http", "containerPort": 8888}]);
            main["readinessProbe"] = json!({"exec": {"command": ["true"]}});
            spec["volumes"] = json!([{"name": "config", "secret": {"secretName": "web"}},
                {"name": "scratch", "emptyDir": {}}]);
            spec["containers"][0]["volumeMounts"][1]["name"] = "scratch".into();
        })?;
        self.edit("Deployment", "cart", |o| o["spec"]["strategy"] = json!({"type": "Recreate"}))?;
        self.edit("StatefulSet", "catalog", |o| {
            let main = &mut o["spec"]["template"]["spec"]["containers"][0];
            main["env"][0] =
                json!({"name": "MODE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
            main["env"][2] = json!({"name": "KEY2", "value": "plain"});
        })?;
        self.edit("NetworkPolicy", "search", |o| {
            o["spec"].as_object_mut().unwrap().remove("ingress");
        })?;
        self.edit("CronJob", "checkout", |o| {
            let container = &mut o["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
            *container = json!({"name": "sweep", "image": "example.invalid/clean:1"});
        })?;
        self.edit("Ingress", "search", |o| {
            o["metadata"].as_object_mut().unwrap().remove("labels");
            o["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] = json!({"name": "main"});
        })?;
        // Renamed: the old object goes, and a new one comes.
        self.kubectl.run(&["delete", "configmap", "flags"], "")?;
        self.find("ConfigMap", "flags")["metadata"]["name"] = "features".into();
        self.edit("ConfigMap", "features", |o| o["data"] = json!({"gamma": "on"}))
    }
}

/// What people wrote of an object: no bookkeeping, nothing that each cluster chooses for itself; lists in the order of what
/// names their items.
fn plain(object: &Value) -> Value {
    let mut out = object.clone();
    let members = out.as_object_mut().unwrap();
    members.remove("status");
    members.remove("secrets");
    let metadata = object["metadata"].as_object().unwrap();
    let mut kept = serde_json::Map::new();
    for part in ["labels", "annotations"] {
        let of_servers =
            ["lockstep.dev/", "kubectl.kubernetes.io/", "deployment.kubernetes.io/", "autoscaling.alpha."];
        let entries: BTreeMap<&String, &Value> = metadata
            .get(part)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter(|(key, _)| !of_servers.iter().any(|prefix| key.starts_with(prefix)))
            .collect();
        kept.insert(part.to_owned(), json!(entries));
    }
    members.insert("metadata".to_owned(), Value::Object(kept));
    if object["kind"] == "Service" {
        let spec = members["spec"].as_object_mut().unwrap();
        spec.retain(|name, _| !name.starts_with("clusterIP"));
    }
    sort(&mut out);
    out
}

fn sort(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(sort),
        Value::Array(items) => {
            items.iter_mut().for_each(sort);
            if items.iter().all(|item| item.get("name").is_some()) {
                items.sort_by_key(|item| item["name"].to_string());
            }
        }
        _ => {}
    }
}

async fn differs(objects: &[Value], clusters: [&Cluster; 2], namespace: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for object in objects {
        let text = |member: &Value| member.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let name = text(&object["metadata"]["name"]);
        let [source, copy] = clusters.map(|cluster| cluster.find(&version, &kind, Some(namespace), &name));
        let (source, copy) = (source.await?, copy.await?);
        let (source, copy) = (source.as_ref().map(plain), copy.as_ref().map(plain));
        if source.is_none() || source != copy {
            found.push(format!("{kind} {name}: source {source:?}, copy {copy:?}"));
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_was_applied_by_hand_is_adopted_as_a_whole() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-shop").await?;
    let namespace = fleet.namespace.as_str();
    let [b, _] = fleet.targets();
    b.apply_value(&namespace_of(namespace)).await?;
    let at_source = Kubectl::new(&bed, fleet.source(), namespace);
    let objects = application(bed.version()? >= (1, 21));
    ensure!(objects.len() >= 60, "{}", objects.len());
    Kubectl::new(&bed, b, namespace).apply(&objects)?;
    at_source.apply(&objects)?;
    let mut kinds: Vec<(String, String)> = objects
        .iter()
        .map(|object| {
            let version = object["apiVersion"].as_str().unwrap();
            let group = version.split_once('/').map_or("", |(group, _)| group);
            (group.to_owned(), object["kind"].as_str().unwrap().to_owned())
        })
        .collect();
    kinds.sort();
    kinds.dedup();
    let resources: String = kinds
        .iter()
        .map(|(group, kind)| {
            format!("  - {{ apiGroup: '{group}', kind: {kind}, namespaces: [{namespace}] }}\n")
        })
        .collect();
    let policy = format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: shop }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b]
  ownership: {{ conflict: TakeOver }}
  deletion: {{ adopted: Delete }}
  resources:
{resources}"
    );
    let lockstep = Lockstep::with_policy(&bed, &policy).await?;
    eventually(PATIENCE * ROUNDS, "everything is adopted", async || {
        for object in &objects {
            let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
            let name = object["metadata"]["name"].as_str().unwrap();
            let copy = b.get(version, kind, Some(namespace), name).await?;
            ensure!(
                copy["metadata"]["annotations"]["lockstep.dev/adopted"] == "true",
                "{kind} {name}: {copy}"
            );
        }
        Ok(())
    })
    .await?;
    let mut shop = Shop { objects, kubectl: &at_source };
    shop.edits()?;
    eventually(PATIENCE * ROUNDS, "the copies are equal", async || {
        let different = differs(&shop.objects, [fleet.source(), b], namespace).await?;
        ensure!(different.is_empty(), "{} differ: {}", different.len(), different.join("\n"));
        let former = b.find("v1", "ConfigMap", Some(namespace), "flags").await?;
        ensure!(former.is_none(), "the renamed object is still there: {former:?}");
        Ok(())
    })
    .await?;
    for object in ["deployment/web", "service/web", "configmap/cart", "statefulset/catalog"] {
        lockstep.stands(object, namespace, "cluster-b", "InStep").await?;
    }
    Ok(())
}
