//! Random objects, and random changes of them, of every kind that people mirror: the copy becomes what the source is, as an
//! independent comparison sees it.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kube::api::{DynamicObject, PostParams};
use lockstep_tests::chaos::dice::Dice;
use lockstep_tests::deploy::{agent_kubeconfig, granted, install_rbac};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Map, Value, json};

/// Requests at a time.
const AT_ONCE: usize = 8;

type Make = fn(&mut Dice) -> Value;

/// Kinds with what makes a random object of them; the parts that cannot change are the same in all.
const KINDS: [(&str, &str, Make); 16] = [
    ("v1", "ConfigMap", config_map),
    ("v1", "Secret", secret),
    ("v1", "Service", service),
    ("v1", "ServiceAccount", service_account),
    ("v1", "LimitRange", limit_range),
    ("v1", "ResourceQuota", quota),
    ("apps/v1", "Deployment", deployment),
    ("apps/v1", "StatefulSet", stateful_set),
    ("apps/v1", "DaemonSet", daemon_set),
    ("batch/v1beta1", "CronJob", cron_job),
    ("networking.k8s.io/v1", "Ingress", ingress),
    ("networking.k8s.io/v1", "NetworkPolicy", network_policy),
    ("policy/v1beta1", "PodDisruptionBudget", budget),
    ("autoscaling/v1", "HorizontalPodAutoscaler", autoscaler),
    ("rbac.authorization.k8s.io/v1", "Role", role),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", role_binding),
];

#[tokio::test(flavor = "multi_thread")]
async fn random_pairs_of_every_kind_arrive_and_follow() -> Result<()> {
    mirror(6, 20_261_201, &["Differs"]).await
}

/// What was removed and stays by a default may be said to differ although source and copy are equal: that is not judged here.
/// On demand: `cargo nextest run --workspace --run-ignored only -E 'test(/^pairs::/)'` within `testbed run`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; six pairs of each kind are tried with every run"]
async fn two_hundred_random_pairs_of_every_kind_arrive_and_follow() -> Result<()> {
    mirror(200, 7, &[]).await
}

/// Mirrors so many pairs of each kind. `lockstep status` names no failure in the end, and none of these.
async fn mirror(pairs: usize, seed: u64, unheard: &[&str]) -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "pairs").await?;
    let namespace = fleet.namespace.as_str();
    let served = served(&fleet).await?;
    let resources: Vec<String> = served
        .iter()
        .map(|(version, kind, _)| {
            let group = version.split_once('/').map_or("", |(group, _)| group);
            format!("  - {{ apiGroup: '{group}', kind: {kind}, namespaces: [{namespace}], matchLabels: {{ pair: 'yes' }} }}\n")
        })
        .collect();
    let policy = format!(
        "apiVersion: sync.k8s.io/v1\nkind: ClusterSyncPolicy\nmetadata: {{ name: pairs }}\nspec:\n  sourceCluster: cluster-a\n  \
         targetClusters: [cluster-b]\n  ownership: {{ replicas: Source }}\n  resources:\n{}",
        resources.concat()
    );
    agent_kubeconfig(&bed).await?;
    install_rbac(&bed, fleet.clusters[1], "agent/components/rbac").await?;
    granted(fleet.clusters[1], "escalate", "rbac.authorization.k8s.io", "roles").await?;
    let mut lockstep = Lockstep::prepare(&bed).await?;
    lockstep.accept(&["Role", "RoleBinding"]);
    lockstep.policy("pairs.yaml", &policy)?;
    lockstep.start().await?;
    let mut dice = Dice::new(seed, "pairs");
    let mut objects = Vec::new();
    for (version, kind, make) in &served {
        for n in 0..pairs {
            let name = format!("p{n}");
            let pair = [0, 1].map(|_| object(&mut dice, version, kind, *make, namespace, &name));
            objects.push((*version, *kind, name, pair));
        }
    }
    for turn in 0..2 {
        let writes =
            objects.iter().map(|(version, kind, name, pair)| write(&fleet, version, kind, name, &pair[turn]));
        stream::iter(writes).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        let what = format!("seed {seed}, turn {turn}: every copy is what its source is");
        let all = eventually(PATIENCE, &what, async || {
            let kinds = served.iter().map(|(version, kind, _)| equal(&fleet, version, kind, pairs));
            try_join_all(kinds).await.map(drop)
        });
        if let Err(error) = all.await {
            return Err(error.context(lockstep.text(&["status", "pairs"]).await?));
        }
    }
    eventually(PATIENCE, "nothing is said to be wrong", async || {
        let status = lockstep.text(&["status", "pairs"]).await?;
        let wrong = ["Failed (", "Conflict ("].iter().chain(unheard).find(|word| status.contains(**word));
        ensure!(wrong.is_none(), "{status}");
        Ok(())
    })
    .await
}

/// The kinds in the versions that this server has.
async fn served(fleet: &Fleet<'_>) -> Result<Vec<(&'static str, &'static str, Make)>> {
    let mut served = Vec::new();
    for (version, kind, make) in KINDS {
        let newer = match kind {
            "CronJob" => "batch/v1",
            "PodDisruptionBudget" => "policy/v1",
            _ => version,
        };
        let has = async |version| fleet.clusters[0].api(version, kind, Some(&fleet.namespace)).await.is_ok();
        served.push((if has(newer).await { newer } else { version }, kind, make));
    }
    Ok(served)
}

fn object(dice: &mut Dice, version: &str, kind: &str, make: Make, namespace: &str, name: &str) -> Value {
    let mut object = make(dice);
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    object["metadata"] = json!({"name": name, "namespace": namespace, "annotations": texts(dice, "note")});
    object["metadata"]["labels"] = texts(dice, "label").into();
    object["metadata"]["labels"]["pair"] = "yes".into();
    object
}

/// Creates, or replaces: as people do with kubectl.
async fn write(fleet: &Fleet<'_>, version: &str, kind: &str, name: &str, object: &Value) -> Result<()> {
    let api = fleet.clusters[0].api(version, kind, Some(&fleet.namespace)).await?;
    eventually(PATIENCE, &format!("{kind} {name} is written"), async || {
        let mut wanted: DynamicObject = serde_json::from_value(object.clone())?;
        match api.get_opt(name).await? {
            None => api.create(&PostParams::default(), &wanted).await?,
            Some(live) => {
                wanted.metadata.resource_version = live.metadata.resource_version;
                if kind == "Service" {
                    wanted.data["spec"]["clusterIP"] = live.data["spec"]["clusterIP"].clone();
                }
                api.replace(name, &PostParams::default(), &wanted).await?
            }
        };
        Ok(())
    })
    .await
    .with_context(|| object.to_string())
}

async fn equal(fleet: &Fleet<'_>, version: &str, kind: &str, pairs: usize) -> Result<()> {
    for n in 0..pairs {
        let name = format!("p{n}");
        let (a, b) = (&fleet.clusters[0], &fleet.clusters[1]);
        let source = plain(a.get(version, kind, Some(&fleet.namespace), &name).await?);
        let copy = plain(b.get(version, kind, Some(&fleet.namespace), &name).await?);
        ensure!(source == copy, "{kind} {name}: {source} is {copy}");
    }
    Ok(())
}

/// What people mean by an object: without what each cluster makes for itself.
fn plain(object: Value) -> Value {
    let Value::Object(mut object) = object else { return object };
    object.remove("status");
    let metadata = object.remove("metadata").unwrap_or_default();
    for part in ["labels", "annotations"] {
        let mut kept = metadata[part].as_object().cloned().unwrap_or_default();
        let own = ["lockstep.dev/", "deprecated.daemonset", "autoscaling.alpha.kubernetes.io/con"];
        kept.retain(|name, _| !own.iter().any(|own| name.starts_with(own)));
        object.insert(part.to_owned(), kept.into());
    }
    if object["kind"] == "ServiceAccount" {
        object.remove("secrets");
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        for field in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
            spec.remove(field);
        }
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            port.as_object_mut().map(|port| port.remove("nodePort"));
        }
    }
    let mut object = object.into();
    sort(&mut object);
    object
}

/// Lists of named items by their names: API servers before 1.23 keep the order that the live object has.
fn sort(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(sort),
        Value::Array(items) => {
            items.iter_mut().for_each(sort);
            items.sort_by_key(|item| item["name"].as_str().map(str::to_owned));
        }
        _ => {}
    }
}

fn one<'a>(dice: &mut Dice, of: &[&'a str]) -> &'a str {
    of[dice.below(of.len())]
}

fn texts(dice: &mut Dice, prefix: &str) -> Map<String, Value> {
    let mut map = Map::new();
    for n in 0..4 {
        if dice.chance(50) {
            map.insert(format!("{prefix}-{n}"), one(dice, &["", "1", "1000m", "x"]).into());
        }
    }
    map
}

/// Some of these, in an order of its own.
fn some(dice: &mut Dice, of: &[Value]) -> Vec<Value> {
    let mut some: Vec<Value> = of.iter().filter(|_| dice.chance(60)).cloned().collect();
    if some.len() > 1 && dice.chance(30) {
        some.reverse();
    }
    some
}

fn config_map(dice: &mut Dice) -> Value {
    let mut data = texts(dice, "key");
    data.insert("odd".into(), one(dice, &["a \u{2028} b", "\u{85}", " x \n\n", "\u{7f}🧨", "yes"]).into());
    json!({"data": data, "binaryData": {"b": one(dice, &["", "AP8="])}})
}

fn secret(dice: &mut Dice) -> Value {
    json!({"type": "Opaque", "data": {"a": one(dice, &["", "YQ==", "/v8A"]), "b": one(dice, &["Yg==", "Yw=="])}})
}

fn service(dice: &mut Dice) -> Value {
    let ports = [
        json!({"name": "http", "port": 80, "targetPort": 8080}),
        json!({"name": "dns", "port": 53, "protocol": "UDP"}),
        json!({"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": "dns"}),
        json!({"name": "admin", "port": one(dice, &["81", "82"]).parse::<u16>().unwrap_or(81)}),
    ];
    let mut ports = some(dice, &ports);
    if ports.is_empty() {
        ports.push(json!({"name": "http", "port": 8080}));
    }
    json!({"spec": {"selector": texts(dice, "app"), "ports": ports, "sessionAffinity": one(dice, &["None", "ClientIP"])}})
}

fn service_account(dice: &mut Dice) -> Value {
    let pulls = some(dice, &[json!({"name": "one"}), json!({"name": "two"}), json!({"name": "three"})]);
    json!({"automountServiceAccountToken": dice.chance(50), "imagePullSecrets": pulls})
}

fn limit_range(dice: &mut Dice) -> Value {
    let cpu = one(dice, &["1", "1000m", "0.5", "250m"]);
    json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": cpu, "memory": one(dice, &["1Gi", "1024Mi"])}}]}})
}

fn quota(dice: &mut Dice) -> Value {
    let mut hard = json!({"count/leases.coordination.k8s.io": one(dice, &["100", "1k"])});
    if dice.chance(50) {
        hard["requests.nvidia.com/gpu"] = "7".into();
    }
    json!({"spec": { "hard": hard }})
}

fn pod(dice: &mut Dice) -> Value {
    let probe = [
        json!({"httpGet": {"path": "/", "port": 80}}),
        json!({"tcpSocket": {"port": "http"}}),
        json!({"exec": {"command": ["true"]}}),
    ][dice.below(3)]
    .clone();
    let env = [
        json!({"name": "A", "value": one(dice, &["", "1", "2"])}),
        json!({"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        json!({"name": "C", "value": "$(A)"}),
    ];
    // Not from or to `emptyDir: {}`: Kubernetes 1.20 gives what is empty to no manager, and keeps it beside what follows it.
    let volume = [
        json!({"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}}),
        json!({"name": "v", "secret": {"secretName": "s"}}),
    ][dice.below(2)]
    .clone();
    let mut main = json!({"name": "main", "image": one(dice, &["example.invalid/a:1", "example.invalid/a:2"]),
        "env": some(dice, &env), "livenessProbe": probe, "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "ports": [{"name": "http", "containerPort": 80}]});
    if dice.chance(50) {
        main["resources"] = json!({"limits": {"cpu": one(dice, &["1", "1000m", "0.1"]), "memory": "1.5Gi"}});
    }
    let mut containers = vec![main];
    if dice.chance(50) {
        containers.push(json!({"name": "side", "image": "example.invalid/side:1", "args": ["", "x"]}));
    }
    let tolerations =
        some(dice, &[json!({"key": "a", "operator": "Exists"}), json!({"key": "b", "value": "1"})]);
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": containers, "volumes": [volume],
        "tolerations": tolerations, "nodeSelector": texts(dice, "zone"), "terminationGracePeriodSeconds": dice.below(3)}})
}

fn deployment(dice: &mut Dice) -> Value {
    let strategy = [
        json!({"type": "Recreate"}),
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}}),
        json!({"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": 2}}),
    ][dice.below(3)]
    .clone();
    json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "strategy": strategy,
        "minReadySeconds": dice.below(2), "paused": true, "template": pod(dice)}})
}

fn stateful_set(dice: &mut Dice) -> Value {
    json!({"spec": {"replicas": 0, "serviceName": "s", "selector": {"matchLabels": {"app": "x"}}, "template": pod(dice)}})
}

fn daemon_set(dice: &mut Dice) -> Value {
    let update = [json!({"type": "OnDelete"}), json!({"rollingUpdate": {"maxUnavailable": "10%"}})]
        [dice.below(2)]
    .clone();
    json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "updateStrategy": update, "template": pod(dice)}})
}

fn cron_job(dice: &mut Dice) -> Value {
    let mut template = pod(dice);
    template["spec"]["restartPolicy"] = one(dice, &["Never", "OnFailure"]).into();
    json!({"spec": {"schedule": one(dice, &["0 0 1 1 *", "@yearly"]), "suspend": true,
        "concurrencyPolicy": one(dice, &["Allow", "Forbid"]), "jobTemplate": {"spec": {"template": template}}}})
}

fn ingress(dice: &mut Dice) -> Value {
    let backend = |port: Value| json!({"service": {"name": "s", "port": port}});
    let port = if dice.chance(50) { json!({"number": 80}) } else { json!({"name": "http"}) };
    let paths = [
        json!({"path": "/", "pathType": "Prefix", "backend": backend(port)}),
        json!({"path": "/a", "pathType": "Exact", "backend": backend(json!({"number": 81}))}),
    ];
    let mut paths = some(dice, &paths);
    if paths.is_empty() {
        paths.push(json!({"path": "/z", "pathType": "Prefix", "backend": backend(json!({"number": 1}))}));
    }
    let tls = some(dice, &[json!({"hosts": ["a.example.com"], "secretName": "t"})]);
    json!({"spec": {"rules": [{"host": one(dice, &["a.example.com", "b.example.com"]), "http": { "paths": paths }}], "tls": tls}})
}

fn network_policy(dice: &mut Dice) -> Value {
    let from = some(
        dice,
        &[json!({"podSelector": {}}), json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}})],
    );
    json!({"spec": {"podSelector": {"matchLabels": texts(dice, "app")}, "policyTypes": ["Ingress"],
        "ingress": [{"from": from, "ports": [{"port": 80}, {"port": "http"}]}]}})
}

fn budget(dice: &mut Dice) -> Value {
    // Which of the two it is cannot be told from a default: one excludes the other.
    let bound = one(dice, &["minAvailable", "maxUnavailable"]);
    let mut spec = json!({"selector": {"matchLabels": {"app": "x"}}});
    spec[bound] = if dice.chance(50) { json!(1) } else { json!("50%") };
    json!({ "spec": spec })
}

fn autoscaler(dice: &mut Dice) -> Value {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"});
    json!({"spec": {"scaleTargetRef": target, "minReplicas": 1 + dice.below(2), "maxReplicas": 3 + dice.below(3),
        "targetCPUUtilizationPercentage": 10 + dice.below(50)}})
}

fn role(dice: &mut Dice) -> Value {
    let rules = [
        json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}),
        json!({"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["x"], "verbs": ["*"]}),
    ];
    json!({"rules": some(dice, &rules)})
}

fn role_binding(dice: &mut Dice) -> Value {
    let subjects = [
        json!({"kind": "ServiceAccount", "name": "p0", "namespace": "default"}),
        json!({"kind": "Group", "name": "g", "apiGroup": "rbac.authorization.k8s.io"}),
    ];
    json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": some(dice, &subjects)})
}
