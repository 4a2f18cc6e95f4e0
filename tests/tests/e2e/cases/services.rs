//! Services without a selector, their Endpoints, and Services that become another kind of Service.

use anyhow::{Result, ensure};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::{Case, MARKER, policy, post, set};

/// Case 28 (argoproj/argo-cd#25783, velero-io/velero#72, kubernetes/kubernetes#91072). A 1.20 test bed has no
/// `ipFamilyPolicy`; what newer servers do with it is the model's (tests/model).
#[tokio::test(flavor = "multi_thread")]
async fn case_28_endpoints_by_hand_arrive_and_those_of_controllers_are_left_alone() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let case = Case::start(&bed, "case-28", |namespace| {
        let resources = format!(
            "{{ kind: Service, namespaces: [{namespace}] }}, {{ kind: Endpoints, namespaces: [{namespace}] }}, {{ kind: ConfigMap, namespaces: [{namespace}], names: [{MARKER}] }}"
        );
        vec![policy("case-28", "cluster-b", &resources, "")]
    })
    .await?;
    let service = |name: &str, spec: Value| case.object("v1", "Service", name, json!({"spec": spec}));
    let outside = service("outside", json!({"clusterIP": "None", "ports": [{"name": "pg", "port": 5432}]}));
    let inside = service("inside", json!({"selector": {"app": "web"}, "ports": [{"port": 80}]}));
    let alias = service("alias", json!({"type": "ExternalName", "externalName": "db.example.invalid"}));
    let endpoints = case.object(
        "v1",
        "Endpoints",
        "outside",
        json!({"subsets": [{
        "addresses": [{"ip": "192.0.2.10"}, {"ip": "192.0.2.11", "hostname": "two"}],
        "ports": [{"name": "pg", "port": 5432, "protocol": "TCP"}]}]}),
    );
    for object in [&outside, &inside, &alias, &endpoints] {
        post(case.a(), object).await?;
    }
    let of = |name| ("v1", "Service", name);
    case.holds("case 28, headless", case.b(), of("outside"), |copy| copy["spec"]["clusterIP"] == "None")
        .await?;
    case.holds("case 28, an address of the target", case.b(), of("inside"), |copy| {
        copy["spec"]["clusterIP"].as_str().is_some_and(|ip| ip != "None" && !ip.is_empty())
    })
    .await?;
    case.holds("case 28, an alias", case.b(), of("alias"), |copy| {
        copy["spec"]["externalName"] == "db.example.invalid"
    })
    .await?;
    case.same("case 28, by hand", ("v1", "Endpoints", "outside"), "/subsets").await?;
    let moved = [("/subsets/0/addresses/0/ip", json!("192.0.2.99"))];
    set(case.a(), &endpoints, &moved).await?;
    case.same("case 28, by hand, changed", ("v1", "Endpoints", "outside"), "/subsets").await?;
    // The controller of each cluster makes those of a Service with a selector.
    let made =
        case.holds("case 28, a controller's", case.b(), ("v1", "Endpoints", "inside"), |_| true).await?;
    // It copies the labels of the Service, the one of lockstep included; only annotations say what lockstep wrote.
    ensure!(!made["metadata"]["annotations"].to_string().contains("lockstep.dev/"), "case 28: {made}");
    // An alias becomes a Service with an address, and the other way round.
    let cluster_ip = json!({"type": "ClusterIP", "selector": {"app": "web"}, "ports": [{"port": 80}]});
    set(case.a(), &alias, &[("/spec", json!(cluster_ip))]).await?;
    case.holds("case 28, no alias any more", case.b(), of("alias"), |copy| {
        copy["spec"]["externalName"].is_null()
            && copy["spec"]["clusterIP"].as_str().is_some_and(|ip| !ip.is_empty())
    })
    .await?;
    let external = json!({"type": "ExternalName", "externalName": "moved.example.invalid"});
    set(case.a(), &inside, &[("/spec", json!(external))]).await?;
    case.holds("case 28, an alias now", case.b(), of("inside"), |copy| {
        copy["spec"]["externalName"] == "moved.example.invalid"
            && copy["spec"]["clusterIP"].as_str().unwrap_or_default().is_empty()
    })
    .await?;
    case.quiet("case 28", &[of("outside"), of("inside"), of("alias"), ("v1", "Endpoints", "outside")]).await
}
