//! Values that API servers rewrite, and values that mean something although they are empty.

use anyhow::{Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually, unique_name};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::{ANYTHING, Case, MARKER, definition, grant, policy, post, set};

const GAUGE: &str = "{ type: object, properties: { spec: { type: object, properties: { a: { x-kubernetes-int-or-string: true }, b: { x-kubernetes-int-or-string: true }, c: { x-kubernetes-int-or-string: true }, cpu: { type: string } } } } }";

/// Case 18 (argoproj/argo-cd#17682, #8833): quantities, int-or-string and zero values. Case 26 (kyverno/kyverno#15116,
/// kubernetes/kubernetes#51726): `{}` and `[]` select everything, and their absence nothing.
#[tokio::test(flavor = "multi_thread")]
async fn cases_18_and_26_values_keep_form_and_meaning_and_nothing_is_written_twice() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let group = format!("{}.example.com", unique_name("values")?);
    let [a, b, _] = bed.three()?;
    for cluster in [a, b] {
        cluster.install_crd(&definition(&group, "Gauge", GAUGE)).await?;
        cluster.install_crd(&definition(&group, "Blank", ANYTHING)).await?;
    }
    grant(&bed, b, &group, "gauges").await?;
    let custom = group.clone();
    let case = Case::start(&bed, "case-18", move |namespace| {
        let kinds = [
            ("", "LimitRange"),
            ("", "ResourceQuota"),
            ("apps", "Deployment"),
            ("networking.k8s.io", "NetworkPolicy"),
            (&custom, "Gauge"),
            (&custom, "Blank"),
        ];
        let resources: Vec<String> = kinds
            .iter()
            .map(|(group, kind)| {
                format!("{{ apiGroup: '{group}', kind: {kind}, namespaces: [{namespace}] }}")
            })
            .chain([format!("{{ kind: ConfigMap, namespaces: [{namespace}], names: [{MARKER}] }}")])
            .collect();
        vec![policy("case-18", "cluster-b", &resources.join(", "), "")]
    })
    .await?;
    let version = format!("{group}/v1");
    let objects = objects(&case, &version);
    for (_, object) in &objects {
        eventually(PATIENCE, "the kind is served", async || post(case.a(), object).await.map(drop)).await?;
    }
    let named: Vec<(&str, (&str, &str, &str))> = objects
        .iter()
        .map(|(number, object)| {
            let part = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
            (*number, (part("/apiVersion"), part("/kind"), part("/metadata/name")))
        })
        .collect();
    for (number, of) in &named {
        case.same(number, *of, "/spec").await?;
    }
    let gauge = (version.as_str(), "Gauge", "g");
    let blank = (version.as_str(), "Blank", "e");
    case.holds("case 18, number and string", case.b(), gauge, |copy| {
        copy["spec"]["a"] == json!(5) && copy["spec"]["b"] == json!("5")
    })
    .await?;
    case.same("case 26, at the top", blank, "/top").await?;
    case.holds("case 26, a blank label", case.b(), blank, |copy| copy["metadata"]["labels"]["blank"] == "")
        .await?;
    changes(&case, &objects, gauge).await?;
    let copies: Vec<_> = named.iter().map(|(_, of)| *of).collect();
    case.quiet("cases 18 and 26", &copies).await?;
    ensure!(case.lockstep.text(&["status", "case-18"]).await?.contains("InStep"));
    Ok(())
}

fn objects(case: &Case<'_>, version: &str) -> Vec<(&'static str, Value)> {
    let limits = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": 1, "memory": "1.5Gi"}, "defaultRequest": {"cpu": 0.5, "memory": "1000M"}}]}});
    let quota = json!({"spec": {"hard": {"requests.cpu": "2000m", "limits.memory": "0.5Ti", "pods": "10"}}});
    let strategy =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}});
    let web = json!([{"name": "web", "image": "example.invalid/web:1",
        "resources": {"requests": {"cpu": 0.5, "memory": "1000M"}, "limits": {"cpu": "1000m", "memory": "1.5Gi"}},
        "ports": [{"containerPort": 80}],
        "env": [{"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}}}],
        "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "initialDelaySeconds": 0}}]);
    let mut web = super::deployment("web", &web, &json!([]));
    web["spec"]["strategy"] = strategy;
    let mut empties = super::deployment(
        "empties",
        &json!([{"name": "c", "image": "example.invalid/c:1", "args": [""],
        "env": [{"name": "EMPTY", "value": ""}], "resources": {}, "securityContext": {"capabilities": {"drop": ["ALL"], "add": []}}}]),
        &json!([]),
    );
    let pod = &mut empties["spec"]["template"]["spec"];
    pod["securityContext"] = json!({});
    pod["nodeSelector"] = json!({});
    pod["volumes"] =
        json!([{"name": "tmp", "emptyDir": {}}, {"name": "opt", "configMap": {"name": "x", "items": []}}]);
    let blank = json!({"metadata": {"labels": {"blank": ""}}, "top": {},
        "spec": {"map": {}, "list": [], "text": "", "zero": 0, "no": false, "deep": {"a": {"b": {}}, "c": [{}, [], ""]}}});
    let net = "networking.k8s.io/v1";
    let netpol = |name: &str, spec: Value| case.object(net, "NetworkPolicy", name, json!({"spec": spec}));
    vec![
        (
            "case 18",
            case.object(
                version,
                "Gauge",
                "g",
                json!({"spec": {"a": 5, "b": "5", "c": "5%", "cpu": "1000m"}}),
            ),
        ),
        ("case 18", case.object("v1", "LimitRange", "limits", limits)),
        ("case 18", case.object("v1", "ResourceQuota", "quota", quota)),
        ("case 18", case.object("apps/v1", "Deployment", "web", web)),
        ("case 26", case.object(version, "Blank", "e", blank)),
        ("case 26", case.object("apps/v1", "Deployment", "empties", empties)),
        ("case 26", netpol("deny-all", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))),
        (
            "case 26",
            netpol("allow-all", json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]})),
        ),
        (
            "case 26",
            netpol("any", json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]})),
        ),
        (
            "case 26",
            netpol(
                "same",
                json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}]}]}),
            ),
        ),
    ]
}

/// Number to percent, string to number, allow to deny and back.
async fn changes(
    case: &Case<'_>,
    objects: &[(&'static str, Value)],
    gauge: (&str, &str, &str),
) -> Result<()> {
    let named = |name: &str| {
        objects.iter().map(|(_, object)| object).find(|object| object["metadata"]["name"] == name)
    };
    let edits = [
        ("g", vec![("/spec/a", json!("5%")), ("/spec/b", json!(5))]),
        ("web", vec![("/spec/strategy/rollingUpdate", json!({"maxSurge": "30%", "maxUnavailable": 0}))]),
        ("allow-all", vec![("/spec/ingress", json!([]))]),
        ("deny-all", vec![("/spec/egress", json!([{}]))]),
    ];
    for (name, edit) in edits {
        if let Some(object) = named(name) {
            set(case.a(), object, &edit).await?;
        }
    }
    case.same("case 18, changed", gauge, "/spec").await?;
    case.same("case 18, changed", ("apps/v1", "Deployment", "web"), "/spec/strategy").await?;
    for name in ["allow-all", "deny-all"] {
        case.same("case 26, changed", ("networking.k8s.io/v1", "NetworkPolicy", name), "/spec").await?;
    }
    Ok(())
}
