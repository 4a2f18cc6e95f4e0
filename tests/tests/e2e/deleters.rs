//! Who deleted it: API servers call the agent's webhook over TLS, and their watches tell what went.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::{DeleteParams, ListParams};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, TestNamespace, eventually};
use lockstep_tests::lockstep::Lockstep;
use lockstep_tests::testbed::Testbed;
use lockstep_tests::webhook;
use serde_json::{Value, json};

const EVERYTHING: &str =
    "apiVersion: sync.k8s.io/v1\nkind: ArchivePolicy\nmetadata: { name: everything }\nspec: {}\n";
const ADMISSION: &str = "admissionregistration.k8s.io/v1";

fn map(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}})
}

/// Registers the agent's receiver for deletes in one namespace.
async fn register(cluster: &Cluster, namespace: &str, url: &str, ca: &str) -> Result<String> {
    let name = format!("{namespace}.deleters.lockstep.test");
    // Namespaces carry no label of their names on 1.20: the test gives it one.
    let labelled = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": namespace, "labels": {"deleters": namespace}}});
    cluster.apply_value(&labelled).await?;
    let webhook = json!({"apiVersion": ADMISSION, "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name}, "webhooks": [{
            "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 20,
            "failurePolicy": "Ignore", "clientConfig": {"url": url, "caBundle": STANDARD.encode(ca)},
            "namespaceSelector": {"matchLabels": {"deleters": namespace}},
            "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["DELETE"]}]}]});
    cluster.apply_value(&webhook).await?;
    Ok(name)
}

/// Names of the ConfigMaps in the bin, each with who deleted it.
async fn deleters(lockstep: &Lockstep, namespace: &str) -> Result<BTreeMap<String, Option<String>>> {
    let line = ["tombstones", "list", "configmap", "--cluster", "cluster-a", "-n", namespace];
    let list = lockstep.json(&line).await?;
    let items = list["items"].as_array().context("a list")?;
    let one = |item: &Value| {
        (item["name"].as_str().unwrap_or_default().to_owned(), item["deleter"].as_str().map(str::to_owned))
    };
    Ok(items.iter().map(one).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_tells_who_deleted_what_and_never_gates_it() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [a, _, _] = bed.three()?;
    let home = TestNamespace::create(a, "e2e-deleters").await?;
    let namespace = home.name();
    let lockstep = Lockstep::hub_with_policy(&bed, EVERYTHING, &[]).await?;
    let served = webhook::certificate()?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = lockstep.dir.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let (certificate, key) = (file("hook.crt", &served.certificate)?, file("hook.key", &served.key)?);
    let listen = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let environment = [
        ("LOCKSTEP_CONFIG__DELETERS__LISTEN", listen.as_str()),
        ("LOCKSTEP_CONFIG__DELETERS__TLS__CERT_FILE", certificate.as_str()),
        ("LOCKSTEP_CONFIG__DELETERS__TLS__KEY_FILE", key.as_str()),
    ];
    let hub = format!("http://{}", lockstep.address("agents")?);
    let mut agent = lockstep.agent("cluster-a", &hub, &environment).await?;
    let registered = register(a, namespace, &format!("https://{listen}/admission"), &served.ca).await?;
    let maps = a.api("v1", "ConfigMap", Some(namespace)).await?;
    let seen = async |name: &str| {
        eventually(PATIENCE, &format!("the hub sees {name}"), async || {
            let line = ["get", "configmap", name, "-n", namespace, "--cluster", "cluster-a"];
            let shown = lockstep.json(&line).await?;
            ensure!(shown.to_string().contains("\"uid\""), "{shown}");
            Ok(())
        })
        .await
    };
    // The API server takes a moment to learn of the webhook: until then nobody is told.
    let me = eventually(PATIENCE, "the webhook tells who deleted", async || {
        a.apply_value(&map(namespace, "first")).await?;
        seen("first").await?;
        a.delete("v1", "ConfigMap", Some(namespace), "first").await?;
        eventually(PATIENCE, "it is in the bin", async || {
            ensure!(deleters(&lockstep, namespace).await?.contains_key("first"), "not yet");
            Ok(())
        })
        .await?;
        let known = deleters(&lockstep, namespace).await?;
        known["first"].clone().context("nobody was told")
    })
    .await?;
    // A dry run deletes nothing; then a single delete, and a collection.
    for name in ["dry", "one", "many-1", "many-2"] {
        let mut object = map(namespace, name);
        object["metadata"]["labels"] = json!({"many": name.starts_with("many").to_string()});
        a.apply_value(&object).await?;
        seen(name).await?;
    }
    maps.delete("dry", &DeleteParams { dry_run: true, ..DeleteParams::default() }).await?;
    maps.delete("one", &DeleteParams::default()).await?;
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("many=true")).await?;
    let known = eventually(PATIENCE, "all are in the bin", async || {
        let known = deleters(&lockstep, namespace).await?;
        ensure!(known.len() == 4, "{known:?}");
        Ok(known)
    })
    .await?;
    let everybody = ["first", "many-1", "many-2", "one"].map(|name| (name.to_owned(), Some(me.clone())));
    ensure!(known == BTreeMap::from(everybody), "{known:?}");
    // With the agent away deletes go through, are inferred afterwards, and nobody knows whose they were.
    agent.kill().await?;
    maps.delete("dry", &DeleteParams::default()).await?;
    ensure!(a.find("v1", "ConfigMap", Some(namespace), "dry").await?.is_none(), "the delete was gated");
    let mut agent = lockstep.agent("cluster-a", &hub, &environment).await?;
    eventually(PATIENCE, "the delete is inferred", async || {
        let known = deleters(&lockstep, namespace).await?;
        ensure!(known.get("dry") == Some(&None), "{known:?}");
        Ok(())
    })
    .await?;
    a.delete(ADMISSION, "ValidatingWebhookConfiguration", None, &registered).await?;
    agent.kill().await?;
    home.close().await
}
