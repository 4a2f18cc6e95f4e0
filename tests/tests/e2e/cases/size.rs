//! An object that its cluster can hold, and no apply can write.

use anyhow::{Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually, unique_name};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::{ANYTHING, Case, definition, grant, policy, post};

/// Fields of the large one: about 1.2 MiB, whose managedFields would be nearly as much again.
const MANY: usize = 60_000;

/// Case 24 (kubernetes/kubernetes#87508, kubernetes-sigs/prow#181): `etcdserver: request is too large` under apply alone.
#[tokio::test(flavor = "multi_thread")]
async fn case_24_what_is_too_large_to_apply_is_said_to_be_and_stops_nothing() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let group = format!("{}.example.com", unique_name("size")?);
    let [a, b, _] = bed.three()?;
    for cluster in [a, b] {
        cluster.install_crd(&definition(&group, "Bulk", ANYTHING)).await?;
    }
    grant(&bed, b, &group, "bulks").await?;
    let custom = group.clone();
    let case = Case::start(&bed, "case-24", move |namespace| {
        let resources = format!("{{ apiGroup: {custom}, kind: Bulk, namespaces: [{namespace}] }}");
        vec![policy("case-24", "cluster-b", &resources, "  deletion: { budget: { count: 10 } }\n")]
    })
    .await?;
    let version = format!("{group}/v1");
    let bulk = |name: &str, value: &str, fields: usize| {
        let mut spec: serde_json::Map<String, Value> =
            (0..fields).map(|n| (format!("k{n:06}"), json!("vvvvvvvv"))).collect();
        spec.insert("v".to_owned(), value.into());
        case.object(&version, "Bulk", name, json!({"spec": spec}))
    };
    let arrives = async |name: &str, value: &str| {
        let what = format!("case 24, {value}");
        let of = (version.as_str(), "Bulk", name);
        case.holds(&what, case.b(), of, |copy| copy["spec"]["v"] == value).await.map(drop)
    };
    let served = bulk("before", "1", 1);
    eventually(PATIENCE, "the kind is served", async || post(case.a(), &served).await.map(drop)).await?;
    arrives("before", "1").await?;
    post(case.a(), &bulk("large", "1", MANY)).await?;
    post(case.a(), &bulk("after", "1", 1)).await?;
    arrives("after", "1").await?;
    let change = json!({"spec": {"v": "2"}});
    case.a().patch(&version, "Bulk", Some(case.namespace()), "before", &change).await?;
    arrives("before", "2").await?;
    let kind = format!("bulk.{group}/large");
    let said = case.lockstep.stands(&kind, case.namespace(), "cluster-b", "Failed/TooLarge").await?;
    let explained = case.explained(&kind).await?;
    ensure!(explained.contains("to do: make the object smaller"), "case 24: {said}: {explained}");
    case.a().delete(&version, "Bulk", Some(case.namespace()), "large").await?;
    let smaller = bulk("large", "2", 10);
    eventually(PATIENCE, "case 24: it is made anew", async || post(case.a(), &smaller).await.map(drop))
        .await?;
    arrives("large", "2").await
}
