//! What contains others goes: the namespace at a target, the definition at the source; and a schema that is fixed.

use anyhow::{Context, Result, ensure};
use lockstep_tests::deploy::{granted, install_rbac};
use lockstep_tests::harness::{PATIENCE, eventually, unique_name};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::{ANYTHING, Case, definition, grant, policy};

const CRD: &str = "apiextensions.k8s.io/v1";
/// The name of a definition in these tests: what a policy names, and what is waited for.
const KIND: &str = "Database";

/// Case 20 (Azure/fleet#263, karmada-io/karmada#557): the target's namespace is deleted by mistake, and hangs.
#[tokio::test(flavor = "multi_thread")]
async fn case_20_a_namespace_that_hangs_is_not_hammered_and_filled_again_when_it_is_gone() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let case = Case::start(&bed, "case-20", |namespace| {
        let resources = format!("{{ kind: ConfigMap, namespaces: [{namespace}], names: [one, two] }}");
        vec![policy("case-20", "'cluster-b', 'cluster-c'", &resources, "")]
    })
    .await?;
    let namespace = case.namespace();
    let map = |name: &str, value: &str| case.object("v1", "ConfigMap", name, json!({"data": {"v": value}}));
    let of = |name| ("v1", "ConfigMap", name);
    let is = |value: &'static str| move |copy: &Value| copy["data"]["v"] == value;
    for name in ["one", "two", "three"] {
        case.a().apply_value(&map(name, "1")).await?;
    }
    for cluster in [case.b(), case.c()] {
        case.holds("case 20", cluster, of("one"), is("1")).await?;
        case.holds("case 20", cluster, of("two"), is("1")).await?;
    }
    let mut blocker = map("blocker", "x");
    blocker["metadata"]["finalizers"] = json!(["example.com/hold"]);
    case.b().apply_value(&blocker).await?;
    let old = case.b().get("v1", "Namespace", None, namespace).await?["metadata"]["uid"].clone();
    case.b().delete("v1", "Namespace", None, namespace).await?;
    eventually(PATIENCE, "case 20: its copies went", async || {
        ensure!(case.b().find("v1", "ConfigMap", Some(namespace), "one").await?.is_none(), "it is there");
        Ok(())
    })
    .await?;
    case.a().apply_value(&map("one", "2")).await?;
    case.holds("case 20, the other target goes on", case.c(), of("one"), is("2")).await?;
    // One attempt, which is refused; then it waits for the namespace, and says so.
    case.lockstep.stands("configmap/one", namespace, "cluster-b", "Blocked/NamespaceTerminating").await?;
    let said = case.explained("configmap/one").await?;
    ensure!(said.contains("its namespace is being deleted at the target"), "case 20: {said}");
    let unblock = json!({"metadata": {"finalizers": null}});
    case.b().patch("v1", "ConfigMap", Some(namespace), "blocker", &unblock).await?;
    case.holds("case 20, the newest state is back", case.b(), of("one"), is("2")).await?;
    case.holds("case 20, and the other copy", case.b(), of("two"), is("1")).await?;
    let new = case.b().get("v1", "Namespace", None, namespace).await?;
    ensure!(new["metadata"]["uid"] != old && new["status"]["phase"] == "Active", "case 20: {new}");
    ensure!(
        case.b().find("v1", "ConfigMap", Some(namespace), "three").await?.is_none(),
        "case 20: nobody asked for it"
    );
    Ok(())
}

/// Case 23 (rancher/fleet#1978, #5406): somebody deletes the definition at the source, and with it every object.
#[tokio::test(flavor = "multi_thread")]
async fn case_23_a_definition_deleted_at_the_source_holds_and_explain_says_what_to_do() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let group = format!("{}.example.com", unique_name("ends")?);
    let b = bed.three()?[1];
    install_rbac(&bed, b, "agent/components/definitions").await?;
    granted(b, "patch", "apiextensions.k8s.io", "customresourcedefinitions").await?;
    grant(&bed, b, &group, "databases").await?;
    let (crd, plural) = (definition(&group, KIND, ANYTHING), format!("databases.{group}"));
    let (custom, named) = (group.clone(), plural.clone());
    let mut case = Case::accepting(&bed, "case-23", &["CustomResourceDefinition"], move |namespace| {
        let resources = format!(
            "{{ apiGroup: apiextensions.k8s.io, kind: CustomResourceDefinition, names: [{named}] }}, {{ apiGroup: {custom}, kind: {KIND}, namespaces: [{namespace}] }}"
        );
        vec![policy("case-23", "cluster-b", &resources, "  deletion: { budget: { count: 100, percent: 100 } }\n")]
    })
    .await?;
    let version = format!("{group}/v1");
    let database = |case: &Case<'_>, name: &str, value: &str| {
        case.object(&version, KIND, name, json!({"spec": {"v": value}}))
    };
    let of = |name| (version.as_str(), KIND, name);
    case.a().install_crd(&crd).await?;
    for name in ["orders", "carts"] {
        let object = database(&case, name, "1");
        eventually(PATIENCE, "the kind is served", async || case.a().apply_value(&object).await).await?;
        case.holds("case 23, it arrives", case.b(), of(name), |copy| copy["spec"]["v"] == "1").await?;
    }
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    let orders = uid(&case.b().get(&version, KIND, Some(case.namespace()), "orders").await?);
    let held = uid(&case.b().get(CRD, "CustomResourceDefinition", None, &plural).await?);
    case.a().delete(CRD, "CustomResourceDefinition", None, &plural).await?;
    let (object, of_definition) = (format!("{plural}/orders"), format!("crd/{plural}"));
    holds_and_says(&case, &object, &of_definition).await?;
    // A hub that starts anew says it, too: its agents find the kind not served at the source.
    case.lockstep.kill().await?;
    case.lockstep.start().await?;
    let kind = format!("{KIND}.{group}");
    case.lockstep.watch_is("cluster-a", &kind, "Pending", "NotServed").await?;
    case.lockstep.watch_is("cluster-b", &kind, "Live", "").await?;
    holds_and_says(&case, &object, &of_definition).await?;
    let there = case.b().get(CRD, "CustomResourceDefinition", None, &plural).await?;
    ensure!(uid(&there) == held, "case 23: the definition stays: {there}");
    case.holds("case 23, the objects stay", case.b(), of("orders"), |copy| uid(copy) == orders).await?;
    // Made anew, the holds dissolve without an approval, and the copies follow in place.
    case.a().install_crd(&crd).await?;
    for name in ["orders", "carts"] {
        let object = database(&case, name, "2");
        eventually(PATIENCE, "the kind is served", async || case.a().apply_value(&object).await).await?;
    }
    case.holds("case 23, followed in place", case.b(), of("orders"), |copy| {
        copy["spec"]["v"] == "2" && uid(copy) == orders
    })
    .await?;
    case.holds("case 23, the other, too", case.b(), of("carts"), |copy| copy["spec"]["v"] == "2").await?;
    let groups = case
        .lockstep
        .text(&["tombstones", "groups", "--cluster", "cluster-a", "--kind", "definition", "-o", "json"])
        .await?;
    ensure!(groups.contains(&plural), "case 23: the bin has the act: {groups}");
    case.a().delete(CRD, "CustomResourceDefinition", None, &plural).await?;
    case.b().delete(CRD, "CustomResourceDefinition", None, &plural).await
}

async fn holds_and_says(case: &Case<'_>, object: &str, definition: &str) -> Result<()> {
    case.lockstep.stands(object, case.namespace(), "cluster-b", "Held/ContainerDeleted").await?;
    case.lockstep.stands(definition, "", "cluster-b", "Held/TakesOthers").await?;
    for named in [object, definition] {
        let said = case.explained(named).await?;
        ensure!(said.contains("lockstep approve case-23 --target cluster-b"), "case 23, {named}: {said}");
    }
    Ok(())
}

/// A schema at the target that does not know a field, and then does: the copy is looked at again at once, not after 15
/// minutes (the definition's resourceVersion is one of the inputs of a write).
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_fixed_at_the_target_is_tried_at_once() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let group = format!("{}.example.com", unique_name("schema")?);
    let [a, b, _] = bed.three()?;
    let schema = |extent: &str| {
        let size = format!("{{ type: integer, maximum: {extent} }}");
        format!(
            "{{ type: object, properties: {{ spec: {{ type: object, properties: {{ size: {size} }} }} }} }}"
        )
    };
    a.install_crd(&definition(&group, KIND, &schema("100"))).await?;
    b.install_crd(&definition(&group, KIND, &schema("10"))).await?;
    grant(&bed, b, &group, "databases").await?;
    let custom = group.clone();
    let case = Case::start(&bed, "e2e-schema", move |namespace| {
        let resources = format!("{{ apiGroup: {custom}, kind: {KIND}, namespaces: [{namespace}] }}");
        vec![policy("schema", "cluster-b", &resources, "")]
    })
    .await?;
    let version = format!("{group}/v1");
    let large = case.object(&version, KIND, "large", json!({"spec": {"size": 50}}));
    eventually(PATIENCE, "the kind is served", async || case.a().apply_value(&large).await).await?;
    let object = format!("databases.{group}/large");
    case.lockstep.stands(&object, case.namespace(), "cluster-b", "Failed/Invalid").await?;
    let explained = case.lockstep.json(&["explain", &object, "-n", case.namespace()]).await?;
    let target = explained["targets"].get(0).context("a target")?;
    ensure!(target["remedy"].as_str().is_some_and(|remedy| remedy.contains("definition")), "{target}");
    b.install_crd(&definition(&group, KIND, &schema("100"))).await?;
    case.holds("the schema is fixed", case.b(), (&version, KIND, "large"), |copy| copy["spec"]["size"] == 50)
        .await?;
    Ok(())
}
