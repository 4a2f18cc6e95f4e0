//! What an object can hold only one of, switched after an adoption and at one (case 02 and its kin).

use anyhow::{Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::{Kubectl, namespace_of};

/// One object, before and after, and where both must be told apart.
struct Switch {
    name: &'static str,
    api_version: &'static str,
    kind: &'static str,
    pointer: &'static str,
    before: Value,
    after: Value,
}

fn deployment(pod: &Value, strategy: &Value) -> Value {
    let mut template = json!({"metadata": {"labels": {"app": "x"}}, "spec": pod});
    if template["spec"]["containers"].is_null() {
        template["spec"]["containers"] = json!([{"name": "c", "image": "example.invalid/c:1"}]);
    }
    json!({"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template, "strategy": strategy})
}

fn container(more: &Value) -> Value {
    let mut container = json!({"name": "c", "image": "example.invalid/c:1"});
    for (member, value) in more.as_object().into_iter().flatten() {
        container[member] = value.clone();
    }
    json!({ "containers": [container] })
}

fn rolling() -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}})
}

fn of_deployment(name: &'static str, pointer: &'static str, before: Value, after: Value) -> Switch {
    Switch { name, api_version: "apps/v1", kind: "Deployment", pointer, before, after }
}

/// Written for every server from 1.20 on.
fn switches(policy_group: &'static str) -> Vec<Switch> {
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        for (member, value) in source.as_object().into_iter().flatten() {
            volume[member] = value.clone();
        }
        deployment(&json!({ "volumes": [volume] }), &rolling())
    };
    let probe = |probe: Value| deployment(&container(&json!({ "readinessProbe": probe })), &rolling());
    let env = |env: Value| deployment(&container(&json!({ "env": [env] })), &rolling());
    let selector = json!({"matchLabels": {"app": "x"}});
    let backend = |service: &str, port: Value| {
        json!({"rules": [{"host": "a.example", "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": service, "port": port}}}]}}],
            "defaultBackend": {"service": {"name": service, "port": port}}})
    };
    vec![
        Switch {
            name: "ports",
            api_version: "v1",
            kind: "Service",
            pointer: "/spec/ports",
            before: json!({"selector": {"a": "b"}, "ports": [{"name": "http", "port": 80, "targetPort": 80},
                {"name": "admin", "port": 90, "targetPort": 90}]}),
            after: json!({"selector": {"a": "b"}, "ports": [{"name": "http", "port": 8080, "targetPort": 80}]}),
        },
        of_deployment(
            "volumes",
            "/spec/template/spec/volumes",
            volume(json!({"emptyDir": {"sizeLimit": "1Gi"}})),
            volume(json!({"configMap": {"name": "c"}})),
        ),
        of_deployment(
            "probes",
            "/spec/template/spec/containers/0/readinessProbe",
            probe(json!({"httpGet": {"path": "/", "port": 80}})),
            probe(json!({"exec": {"command": ["true"]}})),
        ),
        of_deployment(
            "env",
            "/spec/template/spec/containers/0/env",
            env(json!({"name": "E", "value": "1"})),
            env(json!({"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})),
        ),
        of_deployment(
            "strategy",
            "/spec/strategy",
            deployment(&json!({}), &rolling()),
            deployment(&json!({}), &json!({"type": "Recreate"})),
        ),
        Switch {
            name: "budget",
            api_version: policy_group,
            kind: "PodDisruptionBudget",
            pointer: "/spec",
            before: json!({"minAvailable": 1, "selector": selector}),
            after: json!({"maxUnavailable": "30%", "selector": selector}),
        },
        Switch {
            name: "backends",
            api_version: "networking.k8s.io/v1",
            kind: "Ingress",
            pointer: "/spec",
            before: backend("web", json!({"number": 80})),
            after: backend("web", json!({"name": "http"})),
        },
        Switch {
            name: "scaler",
            api_version: "autoscaling/v1",
            kind: "HorizontalPodAutoscaler",
            pointer: "/spec",
            before: json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"},
                "minReplicas": 2, "maxReplicas": 4, "targetCPUUtilizationPercentage": 50}),
            after: json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "none"},
                "maxReplicas": 3, "targetCPUUtilizationPercentage": 70}),
        },
    ]
}

impl Switch {
    fn object(&self, prefix: &str, spec: &Value) -> Value {
        json!({"apiVersion": self.api_version, "kind": self.kind,
            "metadata": {"name": format!("{prefix}-{}", self.name)}, "spec": spec})
    }
}

/// Without what servers choose for each cluster.
fn compared(object: &Value, pointer: &str) -> Value {
    let mut found = object.pointer(pointer).cloned().unwrap_or_default();
    for item in found.as_array_mut().into_iter().flatten() {
        if let Some(item) = item.as_object_mut() {
            item.remove("nodePort");
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_object_holds_one_of_can_be_switched() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-switch").await?;
    let namespace = fleet.namespace.as_str();
    let [b, _] = fleet.targets();
    b.apply_value(&namespace_of(namespace)).await?;
    let at_source = Kubectl::new(&bed, fleet.source(), namespace);
    let at_target = Kubectl::new(&bed, b, namespace);
    let policy_group = if bed.version()? < (1, 21) { "policy/v1beta1" } else { "policy/v1" };
    let switches = switches(policy_group);
    let all = |prefix: &str, after: bool| -> Vec<Value> {
        switches.iter().map(|s| s.object(prefix, if after { &s.after } else { &s.before })).collect()
    };
    // `late`: equal at the adoption, switched afterwards. `early`: different when it is adopted.
    at_target.apply(&[all("late", false), all("early", false)].concat())?;
    at_source.apply(&[all("late", false), all("early", true)].concat())?;
    let own = r#"[{"op":"add","path":"/spec/ports/-","value":{"name":"own","port":99,"protocol":"TCP"}}]"#;
    for service in ["late-ports", "early-ports"] {
        at_target.run(&["patch", "service", service, "--type=json", "-p", own], "")?;
    }
    let kinds: [(&str, &str); 5] = [
        ("", "Service"),
        ("apps", "Deployment"),
        ("policy", "PodDisruptionBudget"),
        ("networking.k8s.io", "Ingress"),
        ("autoscaling", "HorizontalPodAutoscaler"),
    ];
    let resources: String = kinds
        .iter()
        .map(|(group, kind)| {
            format!("  - {{ apiGroup: '{group}', kind: {kind}, namespaces: [{namespace}] }}\n")
        })
        .collect();
    let policy = format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: switch }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b]
  ownership: {{ conflict: TakeOver }}
  resources:
{resources}"
    );
    let lockstep = Lockstep::with_policy(&bed, &policy).await?;
    for switch in &switches {
        for prefix in ["late", "early"] {
            let object = format!("{}/{prefix}-{}", switch.kind.to_lowercase(), switch.name);
            lockstep.stands(&object, namespace, "cluster-b", "InStep").await?;
        }
    }
    at_source.apply(&all("late", true))?;
    for switch in &switches {
        for prefix in ["late", "early"] {
            let name = format!("{prefix}-{}", switch.name);
            eventually(PATIENCE, &format!("{name} is switched"), async || {
                let read = |cluster| Box::pin(read(cluster, switch, namespace, &name));
                let source = compared(&read(fleet.source()).await?, switch.pointer);
                let mut target = compared(&read(b).await?, switch.pointer);
                if switch.name == "ports" {
                    // What only the target had when it was adopted.
                    let own: &[u16] = if prefix == "late" { &[99] } else { &[90, 99] };
                    let ports = target.as_array_mut().unwrap();
                    let before = ports.len();
                    ports.retain(|port| !own.iter().any(|own| port["port"] == *own));
                    ensure!(
                        ports.len() + own.len() == before,
                        "a port of the target's own is gone: {ports:?}"
                    );
                }
                ensure!(source == target, "source {source}, copy {target}");
                Ok(())
            })
            .await?;
            let object = format!("{}/{name}", switch.kind.to_lowercase());
            lockstep.stands(&object, namespace, "cluster-b", "InStep").await?;
        }
    }
    Ok(())
}

async fn read(
    cluster: &lockstep_tests::cluster::Cluster,
    switch: &Switch,
    namespace: &str,
    name: &str,
) -> Result<Value> {
    cluster.get(switch.api_version, switch.kind, Some(namespace), name).await
}
