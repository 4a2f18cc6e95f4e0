//! Parts of an API server fail. In each case nothing is deleted, it is said what is not known and since when, other kinds
//! go on, and all is well again without a restart. The agents of cluster-a and cluster-c reach their API servers through
//! proxies, and run under an account of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::conditions::now_ms;
use lockstep_tests::harness::{PATIENCE, eventually, unique_name};
use lockstep_tests::load::{Maps, names};
use lockstep_tests::proxy::{Fault, Seen};
use lockstep_tests::scene::Scene;
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

/// The first request that it accepts, and no other.
fn once(
    accepts: impl Fn(&Seen) -> bool + Send + Sync + 'static,
) -> impl Fn(&Seen) -> bool + Send + Sync + 'static {
    let met = AtomicBool::new(false);
    move |seen| accepts(seen) && !met.swap(true, Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_page_refused_midway_concludes_nothing() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let scene = Scene::start(&bed, "page", "").await?;
    let (hub, fleet) = (&scene.hub, &scene.fleet);
    let maps = Maps::of(fleet.source(), &fleet.namespace).await?;
    // Those of the policy are on both pages; what is between them is keys only.
    maps.create_others(&names("m", 600)).await?;
    maps.create(&[names("a", 10), names("z", 10)].concat(), "1").await?;
    scene.secret("s", "1").await?;
    hub.all_in_step("faults", 21, PATIENCE).await?;

    // The watch ends, its resume is held until deletes have happened that it never hears of, and meets 410.
    let after = now_ms()?;
    let held = scene.source.rule(Fault::Hold, |seen| seen.is_about("configmaps") && seen.is_probe());
    scene.source.cut();
    held.met(1).await?;
    maps.delete(&["a-00000".to_owned(), "z-00000".to_owned()]).await?;
    let second_page = |seen: &Seen| seen.is_about("configmaps") && seen.has("continue");
    let mut refused = scene.source.rule(Fault::answer(403), second_page);
    let expired =
        scene.source.rule(Fault::answer(410), once(|seen| seen.is_about("configmaps") && seen.is_watch()));
    held.lift();
    let throttled = Fault::Answer { code: 429, retry_after_s: Some(1) };
    for (fault, reason) in
        [(Fault::answer(403), "Forbidden"), (Fault::answer(500), "ServerError"), (throttled, "Throttled")]
    {
        drop(std::mem::replace(&mut refused, scene.source.rule(fault, second_page)));
        scene.is_unknown("cluster-a", "configmap/a-00000", "ConfigMap", reason, after).await?;
        ensure!(refused.hits() > 0);
        scene.goes_on("Secret", reason).await?;
        fleet.everywhere("v1", "ConfigMap", "a-00000", |_| true).await?;
        fleet.everywhere("v1", "ConfigMap", "z-00000", |_| true).await?;
    }
    ensure!(expired.hits() == 1);
    scene.none_deleted()?;

    refused.lift();
    fleet.nowhere("v1", "ConfigMap", "a-00000").await?;
    fleet.nowhere("v1", "ConfigMap", "z-00000").await?;
    hub.all_in_step("faults", 20, PATIENCE).await?;
    let deletes = scene.deletes()?;
    ensure!(deletes.len() == 4, "{deletes:?}");
    Ok(())
}

/// The role by which the agents read a cluster, without one kind of the core group.
async fn withdraw(scene: &Scene<'_>, cluster: &Cluster, resource: &str) -> Result<Value> {
    let role = scene.identity.read_role();
    let version = "rbac.authorization.k8s.io/v1";
    let whole = cluster.get(version, "ClusterRole", None, &role).await?;
    let others: Vec<&str> =
        ["configmaps", "namespaces", "secrets"].into_iter().filter(|r| *r != resource).collect();
    let rules = json!([
        {"apiGroups": [""], "resources": others, "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
    ]);
    cluster.patch(version, "ClusterRole", None, &role, &json!({ "rules": rules })).await?;
    scene.identity.granted(cluster, "list", "", resource, false).await?;
    Ok(json!({ "rules": whole["rules"] }))
}

async fn give_back(scene: &Scene<'_>, cluster: &Cluster, rules: &Value) -> Result<()> {
    let role = scene.identity.read_role();
    cluster.patch("rbac.authorization.k8s.io/v1", "ClusterRole", None, &role, rules).await?;
    scene.identity.granted(cluster, "list", "", "secrets", true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_withdrawn_makes_its_kind_unknown_until_it_is_given_back() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let scene = Scene::start(&bed, "rights", "").await?;
    let (hub, fleet) = (&scene.hub, &scene.fleet);
    for n in 0..4 {
        scene.secret(&format!("s{n}"), "1").await?;
    }
    hub.all_in_step("faults", 4, PATIENCE).await?;
    let [a, b, c] = fleet.clusters;

    // At the source. A right is looked at when a request begins: an open watch goes on until it ends.
    let after = now_ms()?;
    let rules = withdraw(&scene, a, "secrets").await?;
    scene.source.cut();
    scene.is_unknown("cluster-a", "secret/s0", "Secret", "Forbidden", after).await?;
    scene.delete("v1", "Secret", "s0").await?;
    scene.secret("s1", "2").await?;
    scene.goes_on("ConfigMap", "at the source").await?;
    fleet.everywhere("v1", "Secret", "s0", |_| true).await?;
    fleet.everywhere("v1", "Secret", "s1", |s| s["data"]["k"] == "MQ==").await?;
    scene.none_deleted()?;
    give_back(&scene, a, &rules).await?;
    fleet.nowhere("v1", "Secret", "s0").await?;
    fleet.everywhere("v1", "Secret", "s1", |s| s["data"]["k"] == "Mg==").await?;
    let lists = scene.source.count(|seen| seen.is_about("secrets") && seen.is_list());
    ensure!(lists == 1, "it went on from its checkpoint: {lists} lists");

    // At a target: what it holds is not known, so nothing of the kind is written there.
    let (after, deletes) = (now_ms()?, scene.deletes()?.len());
    let rules = withdraw(&scene, c, "secrets").await?;
    scene.target.cut();
    scene.is_unknown("cluster-c", "secret/s2", "Secret", "Forbidden", after).await?;
    scene.secret("s2", "2").await?;
    scene.delete("v1", "Secret", "s3").await?;
    fleet.everywhere_but(c, "v1", "Secret", "s2", |s| s["data"]["k"] == "Mg==").await?;
    eventually(PATIENCE, "the other target follows", async || {
        ensure!(b.find("v1", "Secret", Some(&fleet.namespace), "s3").await?.is_none());
        Ok(())
    })
    .await?;
    hub.stands("secret/s2", &fleet.namespace, "cluster-c", "Unknown/WatchFailing").await?;
    hub.stands("secret/s3", &fleet.namespace, "cluster-c", "Unknown/WatchFailing").await?;
    scene.goes_on("ConfigMap", "at a target").await?;
    ensure!(c.find("v1", "Secret", Some(&fleet.namespace), "s3").await?.is_some());
    ensure!(scene.deletes()?.len() == deletes + 1, "{:?}", scene.deletes()?);
    give_back(&scene, c, &rules).await?;
    fleet.everywhere("v1", "Secret", "s2", |s| s["data"]["k"] == "Mg==").await?;
    fleet.nowhere("v1", "Secret", "s3").await?;
    scene.in_step().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_answers_500_for_one_kind() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let scene = Scene::start(&bed, "broken", "").await?;
    let (hub, fleet) = (&scene.hub, &scene.fleet);
    let secrets = 12;
    for n in 0..secrets {
        scene.secret(&format!("s{n}"), "1").await?;
    }
    hub.all_in_step("faults", secrets, PATIENCE).await?;
    let [a, b, c] = fleet.clusters;

    // The source answers no read of the kind.
    let after = now_ms()?;
    let broken = scene.source.rule(Fault::answer(500), |seen| seen.is_about("secrets"));
    scene.source.cut();
    scene.is_unknown("cluster-a", "secret/s0", "Secret", "ServerError", after).await?;
    scene.delete("v1", "Secret", "s0").await?;
    scene.goes_on("ConfigMap", "the source is broken").await?;
    fleet.everywhere("v1", "Secret", "s0", |_| true).await?;
    scene.none_deleted()?;
    broken.lift();
    fleet.nowhere("v1", "Secret", "s0").await?;
    ensure!(a.find("v1", "Secret", Some(&fleet.namespace), "s1").await?.is_some());
    scene.in_step().await?;

    // A target takes no write of the kind: many fail, and neither another kind nor another target waits for them.
    let deletes = scene.deletes()?.len();
    let broken = scene
        .target
        .rule(Fault::answer(500), |seen| seen.is_about("secrets") && seen.method != http::Method::GET);
    for n in 1..secrets {
        scene.secret(&format!("s{n}"), "2").await?;
    }
    fleet.everywhere_but(c, "v1", "Secret", "s11", |s| s["data"]["k"] == "Mg==").await?;
    hub.stands("secret/s1", &fleet.namespace, "cluster-c", "Failed/Transient").await?;
    broken.met(5).await?;
    for n in 0..3 {
        scene.goes_on("ConfigMap", &format!("the target is broken {n}")).await?;
    }
    ensure!(b.get("v1", "Secret", Some(&fleet.namespace), "s1").await?["data"]["k"] == "Mg==");
    ensure!(scene.deletes()?.len() == deletes);
    broken.lift();
    for n in 1..secrets {
        fleet.everywhere("v1", "Secret", &format!("s{n}"), |s| s["data"]["k"] == "Mg==").await?;
    }
    scene.in_step().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_missing_from_discovery_is_unknown_not_gone() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let more = "  - { apiGroup: networking.k8s.io, kind: NetworkPolicy, matchLabels: { sync: 'yes' } }\n";
    let mut scene = Scene::start(&bed, "partial", more).await?;
    let version = "networking.k8s.io/v1";
    let spec = |port: u16| json!({"spec": {"podSelector": {}, "ingress": [{"ports": [{"port": port}]}]}});
    let port = |copy: &Value| copy.pointer("/spec/ingress/0/ports/0/port").and_then(Value::as_u64);
    for name in ["one", "two"] {
        let object = scene.object(version, "NetworkPolicy", name, &spec(1));
        scene.fleet.source().apply_value(&object).await?;
    }
    scene.hub.all_in_step("faults", 2, PATIENCE).await?;

    // Discovery of running agents becomes partial, at the source and at a target.
    let group = |seen: &Seen| seen.path.starts_with("/apis/networking.k8s.io/") && seen.query.is_empty();
    let at_source = scene.source.rule(Fault::answer(503), group);
    let at_target = scene.target.rule(Fault::answer(503), group);
    // Two versions of the group each time: discovery was looked at twice.
    at_source.met(4).await?;
    at_target.met(4).await?;
    scene.goes_on("ConfigMap", "partial").await?;
    scene.fleet.everywhere(version, "NetworkPolicy", "one", |p| port(p) == Some(1)).await?;
    scene.none_deleted()?;

    // An agent that comes to know its cluster only now does not know the kind, which is not the same as none.
    scene.agents.remove("cluster-a").context("it runs")?.kill().await?;
    scene.delete(version, "NetworkPolicy", "one").await?;
    let object = scene.object(version, "NetworkPolicy", "two", &spec(2));
    scene.fleet.source().apply_value(&object).await?;
    let after = now_ms()?;
    scene.agent("cluster-a").await?;
    let kind = "NetworkPolicy.networking.k8s.io";
    let watch = eventually(PATIENCE, "the source is back, without the kind", async || {
        let watch = scene.hub.watch("cluster-a", kind).await?;
        ensure!(watch["sinceMs"].as_i64().is_some_and(|since| since >= after), "{watch}");
        ensure!(watch["phase"] == "Pending" && watch["reason"] == "DiscoveryPending", "{watch}");
        Ok(watch)
    })
    .await?;
    scene.goes_on("ConfigMap", "partial from the start").await?;
    scene.fleet.everywhere(version, "NetworkPolicy", "one", |p| port(p) == Some(1)).await?;
    scene.none_deleted()?;

    at_source.lift();
    at_target.lift();
    scene.fleet.everywhere(version, "NetworkPolicy", "two", |p| port(p) == Some(2)).await?;
    scene.fleet.nowhere(version, "NetworkPolicy", "one").await?;
    scene.in_step().await?;
    ensure!(watch["message"].as_str().is_some_and(|message| !message.is_empty()), "it said nothing: {watch}");
    Ok(())
}

const CRD: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: widgets.GROUP }
spec:
  group: GROUP
  scope: Namespaced
  names: { plural: widgets, singular: widget, kind: Widget }
  versions:
  - name: v1
    served: true
    storage: true
    schema: { openAPIV3Schema: { type: object, x-kubernetes-preserve-unknown-fields: true } }
";

/// The API server deletes its objects first: whoever writes new ones meanwhile keeps it there.
async fn remove_crd(cluster: &Cluster, group: &str) -> Result<()> {
    let (version, kind) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let name = format!("widgets.{group}");
    cluster.delete(version, kind, None, &name).await?;
    eventually(PATIENCE, "the definition is gone", async || {
        let found = cluster.find(version, kind, None, &name).await?;
        ensure!(found.is_none(), "it is there: {}", found.unwrap_or_default()["status"]);
        Ok(())
    })
    .await
}

const WIDGETS: [&str; 5] = ["one", "two", "three", "four", "five"];

fn widget(scene: &Scene<'_>, version: &str, name: &str, size: u32) -> Value {
    scene.object(version, "Widget", name, &json!({"spec": {"size": size}}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_removed_and_brought_back_deletes_nothing() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let group = format!("{}.example.invalid", unique_name("widgets")?);
    for cluster in bed.clusters() {
        cluster.install_crd(&CRD.replace("GROUP", &group)).await?;
        let role = format!(
            "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{ name: write-{group}, labels: {{ lockstep.dev/aggregate-to-agent-write: 'true' }} }}
rules: [ {{ apiGroups: [{group}], resources: ['*'], verbs: [get, create, patch, delete] }} ]
"
        );
        cluster.apply(&role).await?;
    }
    let more = format!("  - {{ apiGroup: {group}, kind: Widget, matchLabels: {{ sync: 'yes' }} }}\n");
    let scene = Scene::start(&bed, "definition", &more).await?;
    for target in scene.fleet.targets() {
        scene.identity.granted(target, "patch", &group, "widgets", true).await?;
    }
    for name in WIDGETS {
        let object = widget(&scene, &format!("{group}/v1"), name, 1);
        scene.fleet.source().apply_value(&object).await?;
    }
    scene.hub.all_in_step("faults", WIDGETS.len(), PATIENCE).await?;
    removed_at_the_source(&scene, &group).await?;
    removed_at_a_target(&scene, &group).await?;
    scene.none_deleted()?;
    for cluster in scene.fleet.clusters {
        remove_crd(cluster, &group).await?;
    }
    Ok(())
}

/// Its objects go with it, and their copies stay.
async fn removed_at_the_source(scene: &Scene<'_>, group: &str) -> Result<()> {
    let (hub, fleet, version) = (&scene.hub, &scene.fleet, format!("{group}/v1"));
    let [a, b, _] = fleet.clusters;
    let copy = async || b.get(&version, "Widget", Some(&fleet.namespace), "one").await;
    let uid = copy().await?["metadata"]["uid"].clone();
    let after = now_ms()?;
    remove_crd(a, group).await?;
    let watch = hub.watch_is("cluster-a", &format!("Widget.{group}"), "Failing", "NotServed").await?;
    ensure!(watch["sinceMs"].as_i64().is_some_and(|since| since >= after), "{watch}");
    for target in ["cluster-b", "cluster-c"] {
        eventually(PATIENCE, "it is held or unknown", async || {
            let says = hub.standing(&format!("Widget.{group}/one"), &fleet.namespace, target).await?;
            ensure!(says.starts_with("Held/") || says.starts_with("Unknown/"), "{says}");
            Ok(())
        })
        .await?;
    }
    scene.goes_on("ConfigMap", "without the definition").await?;
    for name in WIDGETS {
        fleet.everywhere(&version, "Widget", name, |w| w["spec"]["size"] == 1).await?;
    }
    scene.none_deleted()?;
    a.install_crd(&CRD.replace("GROUP", group)).await?;
    for name in WIDGETS {
        let again = widget(scene, &version, name, 2);
        eventually(PATIENCE, "the kind is served again", async || a.apply_value(&again).await).await?;
        fleet.everywhere(&version, "Widget", name, |w| w["spec"]["size"] == 2).await?;
    }
    hub.all_in_step("faults", WIDGETS.len() + 1, PATIENCE).await?;
    let now = copy().await?;
    ensure!(now["metadata"]["uid"] == uid, "it was not updated in place: {now}");
    Ok(())
}

/// The copies are gone there, and come back with it.
async fn removed_at_a_target(scene: &Scene<'_>, group: &str) -> Result<()> {
    let (hub, fleet, version) = (&scene.hub, &scene.fleet, format!("{group}/v1"));
    let [a, _, c] = fleet.clusters;
    remove_crd(c, group).await?;
    let object = format!("Widget.{group}/one");
    hub.stands(&object, &fleet.namespace, "cluster-c", "Blocked/KindNotServed").await?;
    scene.goes_on("ConfigMap", "without the definition at a target").await?;
    a.apply_value(&widget(scene, &version, "one", 3)).await?;
    fleet.everywhere_but(c, &version, "Widget", "one", |w| w["spec"]["size"] == 3).await?;
    c.install_crd(&CRD.replace("GROUP", group)).await?;
    for (name, size) in WIDGETS.into_iter().zip([3, 2, 2, 2, 2]) {
        fleet.everywhere(&version, "Widget", name, |w| w["spec"]["size"] == size).await?;
    }
    hub.all_in_step("faults", WIDGETS.len() + 1, PATIENCE).await
}
