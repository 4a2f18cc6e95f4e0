//! Quick changes there and back, and names as long as they may be.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::{Case, force, policy, post, set};

/// ConfigMaps with the label.
fn labelled(namespace: &str) -> String {
    format!("{{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }}")
}

/// Case 22 (kubevela/kubevela#6746, #5256): a label goes and comes back, `replace --force` of many objects, creates with
/// deletes right behind them, all under a budget of one delete an hour: none was meant.
#[tokio::test(flavor = "multi_thread")]
async fn case_22_flips_and_forced_replaces_cost_no_delete() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let case = Case::start(&bed, "case-22", |namespace| {
        vec![policy(
            "case-22",
            "cluster-b",
            &labelled(namespace),
            "  deletion: { budget: { count: 1, percent: 0, window: 1h } }\n",
        )]
    })
    .await?;
    let map = |name: &str, value: &str| {
        let content = json!({"metadata": {"labels": {"sync": "yes"}}, "data": {"v": value}});
        case.object("v1", "ConfigMap", name, content)
    };
    let names = ["m1", "m2", "m3", "m4", "m5"];
    let copies = async |what: &str, wanted: BTreeMap<&str, &str>| {
        eventually(PATIENCE, &format!("case 22: {what}"), async || {
            let found = case.b().list("v1", "ConfigMap", Some(case.namespace()), "sync=yes").await?;
            let found: BTreeMap<&str, &str> = found
                .iter()
                .filter_map(|copy| Some((copy["metadata"]["name"].as_str()?, copy["data"]["v"].as_str()?)))
                .collect();
            ensure!(found == wanted, "{found:?}");
            Ok(())
        })
        .await
    };
    for name in names {
        post(case.a(), &map(name, "1")).await?;
    }
    copies("five copies", names.map(|name| (name, "1")).into()).await?;
    for round in 0..10 {
        for (label, value) in [("no", "away".to_owned()), ("yes", format!("flip{round}"))] {
            let edit = [("/metadata/labels/sync", json!(label)), ("/data/v", json!(value))];
            set(case.a(), &map("m1", ""), &edit).await?;
        }
    }
    let mut wanted: BTreeMap<&str, &str> = names.map(|name| (name, "1")).into();
    wanted.insert("m1", "flip9");
    copies("flips that end selected leave the newest copy", wanted).await?;
    for name in names {
        force(case.a(), &map(name, "2")).await?;
    }
    copies("five made anew are five copies", names.map(|name| (name, "2")).into()).await?;
    let held = case.lockstep.run(&["approve", "case-22", "--dry-run"]).await?;
    ensure!(!names.iter().any(|name| held.stdout.contains(name)), "case 22: {held:?}");
    // What is created and deleted at once is deleted where it was copied, within a budget that allows it.
    let wide = "  deletion: { budget: { count: 100, percent: 100 } }\n";
    case.lockstep.policy("0.yaml", &policy("case-22", "cluster-b", &labelled(case.namespace()), wide))?;
    eventually(PATIENCE, "case 22: the policy of another budget is in force", async || {
        let status = case.lockstep.json(&["status", "case-22"]).await?;
        let item = &status["items"][0];
        ensure!(item["generation"] == 2 && item["observedGeneration"] == 2, "{item}");
        Ok(())
    })
    .await?;
    for n in 0..10 {
        let brief = map(&format!("brief{n}"), "x");
        post(case.a(), &brief).await?;
        case.a().delete("v1", "ConfigMap", Some(case.namespace()), &format!("brief{n}")).await?;
    }
    // What is told after them has arrived: so have they.
    post(case.a(), &map("last", "2")).await?;
    let mut wanted: BTreeMap<&str, &str> = names.map(|name| (name, "2")).into();
    wanted.insert("last", "2");
    case.holds("case 22, the last", case.b(), ("v1", "ConfigMap", "last"), |_| true).await?;
    copies("what was there for a moment leaves nothing", wanted).await?;
    Ok(())
}

/// Case 16 (karmada-io/karmada#463, fluxcd/flux2#2004): names that end up in label values end at 63 characters.
#[tokio::test(flavor = "multi_thread")]
async fn case_16_names_may_be_as_long_as_kubernetes_allows() -> Result<()> {
    let bed = Testbed::from_env().await?;
    // 253 characters in parts of at most 63, and 63 after them.
    let prefix = format!("{}.{}.{}.{}.io", "p".repeat(62), "q".repeat(62), "r".repeat(62), "s".repeat(61));
    let label = format!("{prefix}/{}", "l".repeat(63));
    let (name, key, value) = ("n".repeat(253), "k".repeat(253), "v".repeat(63));
    let policy_name = format!("case-16-{}", "x".repeat(245));
    let (selected, long) = (label.clone(), policy_name.clone());
    let case = Case::start(&bed, "case-16", move |namespace| {
        let resources = format!("{{ kind: ConfigMap, namespaces: [{namespace}], matchExpressions: [{{ key: '{selected}', operator: Exists }}] }}");
        vec![policy(&long, "cluster-b", &resources, "  deletion: { budget: { count: 10 } }\n")]
    })
    .await?;
    let map = |data: &str| {
        let content = json!({"metadata": {"labels": {label.as_str(): value}}, "data": {key.as_str(): data}});
        case.object("v1", "ConfigMap", &name, content)
    };
    let of = ("v1", "ConfigMap", name.as_str());
    let has = |copy: &Value, data: &str| {
        copy["data"][&key] == data && copy["metadata"]["labels"][&label] == value.as_str()
    };
    case.a().apply_value(&map("one")).await?;
    case.holds("case 16, created", case.b(), of, |copy| has(copy, "one")).await?;
    case.a().apply_value(&map("two")).await?;
    case.holds("case 16, changed", case.b(), of, |copy| has(copy, "two")).await?;
    case.lockstep.stands(&format!("configmap/{name}"), case.namespace(), "cluster-b", "InStep").await?;
    case.a().delete("v1", "ConfigMap", Some(case.namespace()), &name).await?;
    eventually(PATIENCE, "case 16: it is deleted, and in the bin", async || {
        let there = case.b().find("v1", "ConfigMap", Some(case.namespace()), &name).await?;
        ensure!(there.is_none(), "it is there");
        let kept = case
            .lockstep
            .json(&["tombstones", "list", "configmap", "-n", case.namespace(), "--name", &name])
            .await?;
        ensure!(kept["items"].as_array().is_some_and(|items| !items.is_empty()), "{kept}");
        Ok(())
    })
    .await
}
