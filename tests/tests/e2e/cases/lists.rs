//! Lists whose items have keys: two items with one key, and the order of items.

use anyhow::{Result, ensure};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::{Case, deployment, policy, post, put};

const DEPLOYMENT: &str = "apps/v1";

fn serve(ports: &Value, env: &Value) -> Value {
    json!([{"name": "serve", "image": "example.invalid/serve:1", "ports": ports, "env": env}])
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect()
}

/// Case 03 (kubernetes/kubernetes#113482): two ports with one number, one `env` name twice. POST and PUT accept that, and no
/// apply can write it.
#[tokio::test(flavor = "multi_thread")]
async fn case_03_duplicate_keys_are_named_and_nothing_else_stops() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let case = Case::start(&bed, "case-03", |namespace| {
        let resources = format!(
            "{{ apiGroup: apps, kind: Deployment, namespaces: [{namespace}] }}, {{ kind: ConfigMap, namespaces: [{namespace}] }}"
        );
        vec![policy("case-03", "cluster-b", &resources, "")]
    })
    .await?;
    let one = json!([{"name": "p", "containerPort": 93}]);
    let two = json!([{"name": "p", "containerPort": 93}, {"name": "q", "containerPort": 93}]);
    let (single, double) = (
        json!([{"name": "MODE", "value": "a"}]),
        json!([{"name": "MODE", "value": "a"}, {"name": "MODE", "value": "b"}]),
    );
    let dup = |ports, env| {
        case.object(DEPLOYMENT, "Deployment", "dup", deployment("dup", &serve(ports, env), &json!([])))
    };
    let later = |ports| {
        case.object(
            DEPLOYMENT,
            "Deployment",
            "later",
            deployment("later", &serve(ports, &single), &json!([])),
        )
    };
    let neighbour = |value: &str| case.object("v1", "ConfigMap", "neighbour", json!({"data": {"v": value}}));
    post(case.a(), &dup(&two, &double)).await?;
    post(case.a(), &later(&one)).await?;
    case.a().apply_value(&neighbour("1")).await?;
    let of = |name| (DEPLOYMENT, "Deployment", name);
    case.holds("case 03, a neighbour", case.b(), ("v1", "ConfigMap", "neighbour"), |copy| {
        copy["data"]["v"] == "1"
    })
    .await?;
    case.holds("case 03, no duplicates yet", case.b(), of("later"), |_| true).await?;
    let namespace = case.namespace();
    case.lockstep.stands("deployment/dup", namespace, "cluster-b", "Failed/DuplicateKeys").await?;
    let said = case.explained("deployment/dup").await?;
    ensure!(said.contains("to do: remove the duplicate at the source"), "case 03, explain: {said}");
    let got = case.lockstep.run(&["get", "deployment/dup", "-n", namespace]).await?;
    ensure!(got.stderr.contains("dup at cluster-b: Failed (DuplicateKeys)"), "case 03, get: {got:?}");
    ensure!(got.stderr.contains("to do: remove the duplicate at the source"), "case 03, get: {got:?}");
    let status = case.lockstep.text(&["status", "case-03"]).await?;
    ensure!(status.contains("to do: remove the duplicate at the source"), "case 03, status: {status}");
    // A duplicate that comes later leaves the copy in its last good state.
    put(case.a(), &later(&two)).await?;
    case.a().apply_value(&neighbour("2")).await?;
    case.holds("case 03, the neighbour goes on", case.b(), ("v1", "ConfigMap", "neighbour"), |copy| {
        copy["data"]["v"] == "2"
    })
    .await?;
    case.lockstep.stands("deployment/later", namespace, "cluster-b", "Failed/DuplicateKeys").await?;
    let ports = |copy: &Value| names(&copy["spec"]["template"]["spec"]["containers"][0]["ports"]).join(" ");
    case.holds("case 03, the copy keeps its port", case.b(), of("later"), |copy| ports(copy) == "p").await?;
    // Without duplicates both follow by themselves.
    put(case.a(), &dup(&one, &single)).await?;
    put(case.a(), &later(&one)).await?;
    case.holds("case 03, without duplicates", case.b(), of("dup"), |copy| ports(copy) == "p").await?;
    case.lockstep.stands("deployment/later", namespace, "cluster-b", "InStep").await?;
    Ok(())
}

/// Case 04 (kubernetes/kubernetes#104641): API servers before 1.23 keep the order of the live object when a keyed list is
/// applied, so init containers run in the wrong order. Where apply cannot bring the order about, the copy is not in step.
#[tokio::test(flavor = "multi_thread")]
async fn case_04_the_order_of_init_containers_is_the_sources_or_it_is_reported() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let case = Case::start(&bed, "case-04", |namespace| {
        let resources = format!("{{ apiGroup: apps, kind: Deployment, namespaces: [{namespace}] }}");
        vec![policy("case-04", "cluster-b", &resources, "")]
    })
    .await?;
    let web = |inits: &[&str], version: &str| {
        let inits: Vec<Value> = inits
            .iter()
            .map(|name| json!({"name": name, "image": format!("example.invalid/{name}:1")}))
            .collect();
        let containers = json!([{"name": "web", "image": format!("example.invalid/web:{version}")}]);
        case.object(DEPLOYMENT, "Deployment", "web", deployment("web", &containers, &json!(inits)))
    };
    let of = (DEPLOYMENT, "Deployment", "web");
    let inits = |copy: &Value| names(&copy["spec"]["template"]["spec"]["initContainers"]).join(" ");
    post(case.a(), &web(&["migrate", "seed"], "1")).await?;
    case.holds("case 04, created in order", case.b(), of, |copy| inits(copy) == "migrate seed").await?;
    put(case.a(), &web(&["wait", "seed", "migrate"], "2")).await?;
    let image =
        |copy: &Value| copy["spec"]["template"]["spec"]["containers"][0]["image"] == "example.invalid/web:2";
    let copy = case.holds("case 04, the new version", case.b(), of, image).await?;
    if inits(&copy) != "wait seed migrate" {
        let namespace = case.namespace();
        lockstep_tests::harness::eventually(
            lockstep_tests::harness::PATIENCE,
            "case 04: it is said",
            async || {
                let standing = case.lockstep.standing("deployment/web", namespace, "cluster-b").await?;
                ensure!(!standing.starts_with("InStep") && !standing.starts_with("Pending"), "{standing}");
                Ok(())
            },
        )
        .await?;
    }
    Ok(())
}
