//! The test bed itself: what every other end-to-end test relies on.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, TestNamespace, eventually};
use lockstep_tests::testbed::{CLUSTERS, Component, Options, State, Testbed};
use serde_json::{Value, json};

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: NAMESPACE, labels: { env: production } }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers: [{ name: web, image: example.invalid/web:1 }]
";

#[tokio::test]
async fn three_clusters_are_ready_and_tell_their_version() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    let names: Vec<_> = testbed.clusters().iter().map(Cluster::name).collect();
    assert_eq!(names, CLUSTERS);
    let mut uids = vec![];
    for cluster in testbed.clusters() {
        assert_eq!(cluster.raw("/readyz").await?, "ok");
        let version: Value = serde_json::from_str(&cluster.raw("/version").await?)?;
        assert_eq!(version["gitVersion"], testbed.state().kubernetes_version);
        uids.push(cluster.get("v1", "Namespace", None, "kube-system").await?["metadata"]["uid"].clone());
    }
    assert!(uids[0] != uids[1] && uids[1] != uids[2], "they are different clusters: {uids:?}");
    assert!(testbed.version()? >= (1, 20));
    Ok(())
}

#[tokio::test]
async fn the_controller_manager_makes_a_replica_set_for_a_deployment() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    let [a, _, _] = testbed.three()?;
    let namespace = TestNamespace::create(a, "deployment").await?;
    let name = Some(namespace.name());
    let applied = a.apply(&DEPLOYMENT.replace("NAMESPACE", namespace.name())).await?;
    assert_eq!(applied[0]["spec"]["replicas"], 2);
    eventually(PATIENCE, "the Deployment has a ReplicaSet with two Pods", async || {
        let sets = a.list("apps/v1", "ReplicaSet", name, "app=web").await?;
        let pods = a.list("v1", "Pod", name, "app=web").await?;
        ensure!(sets.len() == 1 && pods.len() == 2, "{} ReplicaSets, {} Pods", sets.len(), pods.len());
        Ok(())
    })
    .await?;
    let ready = json!({ "replicas": 2, "readyReplicas": 2, "availableReplicas": 2 });
    let patched = a.patch_status("apps/v1", "Deployment", name, "web", &ready).await?;
    assert_eq!(patched["status"]["readyReplicas"], 2);
    a.delete("apps/v1", "Deployment", name, "web").await?;
    eventually(PATIENCE, "garbage collection removes the ReplicaSet", async || {
        let sets = a.list("apps/v1", "ReplicaSet", name, "").await?;
        ensure!(sets.is_empty(), "{} ReplicaSets", sets.len());
        Ok(())
    })
    .await?;
    namespace.close().await
}

#[tokio::test]
async fn request_counts_show_what_was_sent() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    let [_, b, _] = testbed.three()?;
    let namespace = TestNamespace::create(b, "counts").await?;
    // A kind that nothing else in this test run touches.
    let object = format!(
        "{{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {{name: {}}}, value: 7}}",
        namespace.name()
    );
    b.apply(&object).await?;
    let before = b.request_counts().await?;
    b.apply(&object).await?;
    b.apply(&object).await?;
    let difference = b.request_counts().await?.since(&before);
    b.delete("scheduling.k8s.io/v1", "PriorityClass", None, namespace.name()).await?;
    let applies =
        difference.count(|key| key.resource == "priorityclasses" && key.verb == "APPLY" && key.code == 200);
    assert_eq!(applies, 2, "{difference}");
    assert!(difference.writes() >= 2, "{difference}");
    namespace.close().await
}

#[tokio::test]
async fn a_dropped_namespace_goes_away() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    let [_, _, c] = testbed.three()?;
    let namespace = TestNamespace::create(c, "dropped").await?;
    let name = namespace.name().to_owned();
    drop(namespace);
    eventually(PATIENCE, "the namespace is gone", async || {
        ensure!(c.find("v1", "Namespace", None, &name).await?.is_none(), "it is still there");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn kubectl_reads_every_context() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    for name in CLUSTERS {
        let arguments = ["--context", name, "get", "namespace", "kube-system", "--output", "name"];
        let output = Command::new(testbed.kubectl())
            .args(arguments)
            .env("KUBECONFIG", testbed.kubeconfig())
            .output()
            .context("running kubectl")?;
        assert_eq!(String::from_utf8(output.stdout)?.trim(), "namespace/kube-system");
    }
    Ok(())
}

#[tokio::test]
async fn a_crd_is_served_once_it_is_established() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    let [a, _, _] = testbed.three()?;
    let namespace = TestNamespace::create(a, "crd").await?;
    let group = format!("{}.example.invalid", namespace.name());
    a.install_crd(&format!(
        "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{ name: widgets.{group} }}
spec:
  group: {group}
  scope: Namespaced
  names: {{ plural: widgets, singular: widget, kind: Widget }}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {{ openAPIV3Schema: {{ type: object, x-kubernetes-preserve-unknown-fields: true }} }}
"
    ))
    .await?;
    let widget = json!({
        "apiVersion": format!("{group}/v1"), "kind": "Widget",
        "metadata": { "name": "one", "namespace": namespace.name() }, "spec": { "size": 3 },
    });
    let applied = eventually(PATIENCE, "the kind is served", async || a.apply_value(&widget).await).await?;
    assert_eq!(applied["spec"]["size"], 3);
    a.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, &format!("widgets.{group}"))
        .await?;
    namespace.close().await
}

#[tokio::test]
async fn a_service_account_may_do_what_rbac_grants_and_no_more() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    let [_, b, _] = testbed.three()?;
    let namespace = TestNamespace::create(b, "rbac").await?;
    let name = namespace.name();
    b.apply(&format!(
        "
apiVersion: v1
kind: ServiceAccount
metadata: {{ name: reader, namespace: {name} }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{ name: reader, namespace: {name} }}
roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view }}
subjects: [{{ kind: ServiceAccount, name: reader, namespace: {name} }}]
"
    ))
    .await?;
    let text = b.service_account_kubeconfig(name, "reader").await?;
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&text)?;
    let client =
        kube::Client::try_from(kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?;
    let get = async |resource: &str| {
        let path = format!("/api/v1/namespaces/{name}/{resource}");
        client.request_text(http::Request::get(path).body(vec![]).expect("a valid path")).await
    };
    // The authorizer learns of a binding by a watch, a moment after the write.
    eventually(PATIENCE, "reading ConfigMaps is allowed", async || Ok(get("configmaps").await?)).await?;
    match get("secrets").await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 403),
        other => panic!("reading Secrets must be forbidden: {other:?}"),
    }
    namespace.close().await
}

/// Breaks control planes, so it starts one of its own.
#[tokio::test]
async fn a_control_plane_survives_kills_and_ends_with_its_owner() -> Result<()> {
    let options = Options { clusters: vec!["lonely".to_owned()], audit: true, ..Options::default() };
    let testbed = Testbed::start(options).await?;
    let cluster = testbed.cluster("lonely")?;
    let control = cluster.control_plane();
    let namespace = TestNamespace::create(cluster, "kept").await?;

    for component in Component::ALL {
        control.kill(component).await?;
        assert!(!control.is_running(component).await?, "{component:?} is dead");
        control.restart(component).await?;
    }
    control.stop(Component::ApiServer).await?;
    assert!(cluster.raw("/readyz").await.is_err(), "nothing listens");
    control.restart(Component::ApiServer).await?;
    control.pause(Component::ApiServer).await?;
    // A signal takes a moment to stop every thread, and a connection from before the restart may fail
    // at once instead of hanging.
    eventually(PATIENCE, "a frozen server does not answer", async || {
        let answer = tokio::time::timeout(Duration::from_millis(300), cluster.raw("/readyz")).await;
        anyhow::ensure!(!matches!(answer, Ok(Ok(_))), "it answers");
        Ok(())
    })
    .await?;
    control.resume(Component::ApiServer).await?;
    assert!(control.compact().await? > 1);
    cluster.get("v1", "Namespace", None, namespace.name()).await.context("what was acknowledged is kept")?;
    let events = cluster.audit_events()?;
    assert!(events.iter().any(|event| event.request_uri.contains(namespace.name()) && event.verb == "patch"));

    namespace.close().await?;
    let state_path = testbed.state_path();
    let processes = State::read(&state_path)?.clusters[0].processes.clone();
    assert_eq!(processes.len(), 3);
    drop(testbed);
    assert!(processes.iter().all(|process| !process.process.is_alive()), "{processes:?}");
    assert!(!state_path.exists());
    Ok(())
}
