//! List-watch and discovery against real API servers.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::api::PostParams;
use lockstep_cluster::{
    Bytes, CancellationToken, ClusterClient, ConnectError, Discovery, Limits, Refreshed, Resource, Scope,
    Serves, WatchOptions, from_kubeconfig, run_watch,
};
use lockstep_engine::listwatch::{Absence, Health, Observation, RequestFailure, Start};
use lockstep_engine::object::RawObject;
use lockstep_engine::{GroupKind, ResourceVersion};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, TestNamespace, in_time, unique_name};
use lockstep_tests::testbed::{Component, Options, Testbed};
use serde_json::json;
use tokio::sync::mpsc;

fn config_maps() -> Resource {
    Resource {
        group: "".into(),
        version: "v1".into(),
        kind: "ConfigMap".into(),
        plural: "configmaps".into(),
        namespaced: true,
    }
}

async fn client() -> Result<(Testbed, ClusterClient)> {
    let testbed = Testbed::from_env().await?;
    let [a, _, _] = testbed.three()?;
    let config = from_kubeconfig(&testbed.state().kubeconfig, Some(a.name())).await?;
    let client = ClusterClient::new(config, Limits::default())?;
    Ok((testbed, client))
}

/// A running watch.
struct Watch {
    observations: mpsc::Receiver<Observation<Bytes>>,
    cancelled: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn start(client: &ClusterClient, resource: Resource, scope: Scope, start: Start) -> Self {
        Self::with(client, WatchOptions::new(resource, scope, start, 0, 1))
    }

    fn with(client: &ClusterClient, options: WatchOptions) -> Self {
        let (sender, observations) = mpsc::channel(16);
        let cancelled = CancellationToken::new();
        let (client, token) = (client.clone(), cancelled.clone());
        let task = tokio::spawn(async move {
            run_watch(&client, options, sender, |observation| observation, token).await;
        });
        Self { observations, cancelled, task }
    }

    /// Everything up to and including the first observation that fits.
    async fn until(&mut self, fits: impl Fn(&Observation<Bytes>) -> bool) -> Result<Vec<Observation<Bytes>>> {
        let mut seen = vec![];
        loop {
            let next = in_time(PATIENCE, "another observation", self.observations.recv()).await;
            let Some(observation) = next.with_context(|| format!("{} observations so far", seen.len()))?
            else {
                bail!("the watch ended after {} observations", seen.len())
            };
            let done = fits(&observation);
            seen.push(observation);
            if done {
                return Ok(seen);
            }
        }
    }

    async fn stop(self) -> Result<()> {
        self.cancelled.cancel();
        Ok(self.task.await?)
    }
}

fn name(observation: &Observation<Bytes>) -> Option<String> {
    match observation {
        Observation::Applied { body, .. } | Observation::Deleted { body, .. } => {
            RawObject::parse(body).ok().map(|object| object.metadata.name.to_string())
        }
        _ => None,
    }
}

fn is_live(observation: &Observation<Bytes>) -> bool {
    *observation == Observation::StateChanged(Health::Live)
}

#[tokio::test]
async fn a_list_a_watch_and_a_resume_without_a_list() -> Result<()> {
    let (testbed, client) = client().await?;
    let [a, _, _] = testbed.three()?;
    let namespace = TestNamespace::create(a, "watch").await?;
    let object = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: {}}}, data: {{a: b}}}}",
            namespace.name()
        )
    };
    a.apply(&object("one")).await?;
    let scope = Scope::Namespace(namespace.name().into());
    let mut watch = Watch::start(&client, config_maps(), scope.clone(), Start::Nothing);
    let seen = watch.until(is_live).await?;
    ensure!(
        seen.iter()
            .any(|o| name(o).as_deref() == Some("one")
                && matches!(o, Observation::Applied { listed: true, .. }))
    );
    ensure!(
        seen.iter()
            .any(|o| matches!(o, Observation::ListCompleted { epoch: 1, absence: Absence::Conclusive, .. }))
    );
    a.apply(&object("two")).await?;
    let seen = watch.until(|o| name(o).as_deref() == Some("two")).await?;
    let Some(Observation::Applied { resource_version, listed: false, .. }) = seen.last() else {
        bail!("{seen:?}")
    };
    let checkpoint = resource_version.clone();
    watch.stop().await?;

    a.delete("v1", "ConfigMap", Some(namespace.name()), "one").await?;
    let mut watch = Watch::start(&client, config_maps(), scope, Start::Checkpoint(checkpoint));
    let seen = watch.until(|o| matches!(o, Observation::Deleted { .. })).await?;
    assert_eq!(seen.last().and_then(name).as_deref(), Some("one"));
    ensure!(!seen.iter().any(|o| matches!(o, Observation::ListStarted { .. })), "no list: {seen:?}");
    watch.stop().await?;
    namespace.close().await
}

#[tokio::test]
async fn lists_come_in_pages() -> Result<()> {
    const OBJECTS: usize = 1_100;
    let (testbed, client) = client().await?;
    let [a, _, _] = testbed.three()?;
    let namespace = TestNamespace::create(a, "pages").await?;
    let documents: Vec<String> = (0..OBJECTS)
        .map(|n| {
            format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: n{n}, namespace: {}}}}}",
                namespace.name()
            )
        })
        .collect();
    let applies = documents.chunks(OBJECTS / 8).map(|chunk| {
        let yaml = chunk.join("\n---\n");
        async move { a.apply(&yaml).await.map(|_| ()) }
    });
    futures::future::try_join_all(applies).await?;
    let scope = Scope::Namespace(namespace.name().into());
    let mut watch = Watch::start(&client, config_maps(), scope, Start::Nothing);
    let seen = watch.until(|o| matches!(o, Observation::ListCompleted { .. })).await?;
    let names: std::collections::BTreeSet<_> =
        seen.iter().filter_map(name).filter(|n| n.starts_with('n')).collect();
    assert_eq!(names.len(), OBJECTS);
    watch.stop().await?;
    namespace.close().await
}

#[tokio::test]
async fn i3_a_checkpoint_from_the_future_is_a_rewind() -> Result<()> {
    let (_testbed, client) = client().await?;
    let checkpoint = ResourceVersion::new("999999999999");
    let mut watch =
        Watch::start(&client, config_maps(), Scope::Cluster, Start::Checkpoint(checkpoint.clone()));
    let seen = watch.until(|o| matches!(o, Observation::ListCompleted { .. })).await?;
    ensure!(
        seen.iter()
            .any(|o| matches!(o, Observation::RewindSuspected { checkpoint: c, .. } if *c == checkpoint)),
        "{seen:?}"
    );
    ensure!(matches!(seen.last(), Some(Observation::ListCompleted { absence: Absence::Rewound, .. })));
    watch.stop().await
}

/// A CustomResourceDefinition of a group of its own; answers its kind.
async fn install_widgets(cluster: &Cluster, group: &str) -> Result<Resource> {
    cluster
        .install_crd(&format!(
            "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{ name: widgets.{group} }}
spec:
  group: {group}
  scope: Namespaced
  names: {{ kind: Widget, plural: widgets, singular: widget }}
  versions:
  - {{ name: v1, served: true, storage: true, schema: {{ openAPIV3Schema: {{ type: object }} }} }}
"
        ))
        .await?;
    Ok(Resource {
        group: group.into(),
        version: "v1".into(),
        kind: "Widget".into(),
        plural: "widgets".into(),
        namespaced: true,
    })
}

async fn remove_widgets(cluster: &Cluster, group: &str) -> Result<()> {
    let name = format!("widgets.{group}");
    cluster.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, &name).await
}

#[tokio::test]
async fn a_checkpoint_that_is_too_old_ends_in_a_list() -> Result<()> {
    let (testbed, client) = client().await?;
    let [a, _, _] = testbed.three()?;
    // The watch cache of a new kind begins now, so 1 is always before it. That of an old kind may
    // still reach back to 1, and then nothing has expired.
    let group = format!("{}.example.com", unique_name("old")?);
    let widgets = install_widgets(a, &group).await?;
    // Ready to be listed before the watch begins: what follows is about the watch only.
    let mut ready = Watch::start(&client, widgets.clone(), Scope::Cluster, Start::Nothing);
    ready.until(is_live).await?;
    ready.stop().await?;
    let mut watch =
        Watch::start(&client, widgets, Scope::Cluster, Start::Checkpoint(ResourceVersion::new("1")));
    let seen = watch.until(|o| matches!(o, Observation::ListCompleted { .. })).await?;
    ensure!(
        matches!(seen.last(), Some(Observation::ListCompleted { absence: Absence::Conclusive, .. })),
        "{seen:?}"
    );
    // Not by way of a failure: 410 is answered by a list at once.
    ensure!(!seen.iter().any(|o| matches!(o, Observation::StateChanged(Health::Failing { .. }))), "{seen:?}");
    watch.until(is_live).await?;
    watch.stop().await?;
    remove_widgets(a, &group).await
}

#[tokio::test]
async fn a_kind_that_is_not_served_is_a_state_not_an_end() -> Result<()> {
    let (_testbed, client) = client().await?;
    let resource = Resource { plural: "nosuchthings".into(), ..config_maps() };
    let mut watch = Watch::start(&client, resource, Scope::Cluster, Start::Nothing);
    let failing = |o: &Observation<Bytes>| {
        matches!(o, Observation::StateChanged(Health::Failing { reason: RequestFailure::NotServed, .. }))
    };
    watch.until(failing).await?;
    // It tries again, with a new list.
    watch.until(|o| matches!(o, Observation::ListStarted { epoch: 2 })).await?;
    watch.stop().await
}

/// Freezes an API server, so it starts one of its own.
#[tokio::test]
async fn a_watch_that_goes_silent_is_noticed_and_resumed_without_a_list() -> Result<()> {
    let options = Options { clusters: vec!["silent".to_owned()], audit: true, ..Options::default() };
    let testbed = Testbed::start(options).await?;
    let cluster = testbed.cluster("silent")?;
    let config = from_kubeconfig(&testbed.state().kubeconfig, Some(cluster.name())).await?;
    let client = ClusterClient::new(config, Limits::default())?;
    let namespace = TestNamespace::create(cluster, "silent").await?;
    let scope = Scope::Namespace(namespace.name().into());
    let options =
        WatchOptions { idle_ms: 2_000, ..WatchOptions::new(config_maps(), scope, Start::Nothing, 0, 1) };
    let mut watch = Watch::with(&client, options);
    let mut seen = watch.until(is_live).await?;
    // Nothing happens, so it is renewed.
    lockstep_tests::harness::eventually(PATIENCE, "a second watch", async || {
        let path = format!("/namespaces/{}/configmaps?", namespace.name());
        let watches = cluster.audit_events()?.into_iter().filter(|event| {
            event.verb == "watch" && event.stage == "ResponseStarted" && event.request_uri.contains(&path)
        });
        ensure!(watches.count() >= 2, "not yet");
        Ok(())
    })
    .await?;

    cluster.control_plane().pause(Component::ApiServer).await?;
    // Timeout: it was frozen at the moment when the next watch was being opened.
    let silent = |o: &Observation<Bytes>| match o {
        Observation::StateChanged(Health::Failing { reason, .. }) => {
            matches!(reason, RequestFailure::Stale | RequestFailure::Timeout)
        }
        _ => false,
    };
    seen.extend(watch.until(silent).await?);
    cluster.control_plane().resume(Component::ApiServer).await?;
    seen.extend(watch.until(is_live).await?);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "after", "namespace": namespace.name()}});
    // The first connections after the standstill may still fail.
    lockstep_tests::harness::eventually(PATIENCE, "a write", async || cluster.apply_value(&map).await)
        .await?;
    seen.extend(watch.until(|o| name(o).as_deref() == Some("after")).await?);
    assert!(matches!(seen.last(), Some(Observation::Applied { listed: false, .. })), "{seen:?}");
    let lists = seen.iter().filter(|o| matches!(o, Observation::ListStarted { .. })).count();
    assert_eq!(lists, 1, "only the first: {seen:?}");
    watch.stop().await?;
    namespace.close().await
}

/// The server must not be asked for what it does not know: it would take it for a plain watch.
#[tokio::test]
async fn lists_are_streamed_only_where_the_servers_version_can() -> Result<()> {
    let (testbed, client) = client().await?;
    assert_eq!(client.server_version(), None);
    let version = client.identity().await?.version;
    assert_eq!(client.server_version(), Some(version.as_str()));
    let [a, _, _] = testbed.three()?;
    let namespace = TestNamespace::create(a, "streamed").await?;
    let scope = Scope::Namespace(namespace.name().into());
    let options = WatchOptions {
        streaming: Some(true),
        ..WatchOptions::new(config_maps(), scope, Start::Nothing, 0, 1)
    };
    let mut watch = Watch::with(&client, options);
    let seen = watch.until(is_live).await?;
    ensure!(
        seen.iter()
            .any(|o| matches!(o, Observation::ListCompleted { epoch: 1, absence: Absence::Conclusive, .. })),
        "{seen:?}"
    );
    watch.stop().await?;
    namespace.close().await
}

#[tokio::test]
async fn discovery_knows_kinds_aliases_and_changes() -> Result<()> {
    let (testbed, client) = client().await?;
    let [a, _, _] = testbed.three()?;
    let mut discovery = Discovery::new(client.clone());
    assert_eq!(discovery.refresh().await?, Refreshed::Changed);
    ensure!(discovery.served().partial.is_empty(), "{:?}", discovery.served().partial);
    for text in ["deploy", "deployments", "Deployment", "deployment.apps"] {
        let found = discovery.served().find(text);
        assert_eq!(
            found.first().map(|kind| kind.gk.to_string()).as_deref(),
            Some("Deployment.apps"),
            "{text}"
        );
    }
    let ingress = discovery.served().get(&GroupKind::new("extensions", "Ingress")).context("Ingress")?;
    assert_eq!(ingress.preferred().context("version")?.api_version(), "networking.k8s.io/v1");
    let config_map = discovery.served().get(&GroupKind::new("", "ConfigMap")).context("ConfigMap")?;
    ensure!(
        config_map.namespaced
            && config_map.can("watch")
            && config_map.short_names.iter().any(|n| &**n == "cm")
    );

    let group = format!("{}.example.com", unique_name("g")?);
    let gk = GroupKind::new(&group, "Widget");
    ensure!(matches!(discovery.served().serves(&gk), Serves::No));
    install_widgets(a, &group).await?;
    lockstep_tests::harness::eventually(PATIENCE, "discovery shows the new kind", async || {
        client.discover().await?.get(&gk).map(|_| ()).context("not yet")
    })
    .await?;
    assert_eq!(discovery.refresh().await?, Refreshed::Changed);
    ensure!(matches!(discovery.served().serves(&gk), Serves::Yes(_)));
    remove_widgets(a, &group).await
}

#[tokio::test]
async fn i3_a_group_whose_server_is_down_is_unknown_not_gone() -> Result<()> {
    let (testbed, client) = client().await?;
    // The last cluster: a broken APIService would make discovery partial for other tests.
    let [.., c] = testbed.three()?;
    drop(client);
    let config = from_kubeconfig(&testbed.state().kubeconfig, Some(c.name())).await?;
    let client = ClusterClient::new(config, Limits::default())?;
    let group = format!("{}.example.com", unique_name("down")?);
    let name = format!("v1.{group}");
    // By POST: 1.20 drops the connection on a server-side apply of an APIService ("FieldManager must be installed").
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": name},
        "spec": {
            "group": group, "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
            "insecureSkipTLSVerify": true,
            "service": {"namespace": "default", "name": "nowhere", "port": 443},
        },
    });
    let services = c.api("apiregistration.k8s.io/v1", "APIService", None).await?;
    services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let gk = GroupKind::new(&group, "Thing");
    let unknown = lockstep_tests::harness::eventually(PATIENCE, "the group is unknown", async || {
        let served = client.discover().await?;
        ensure!(matches!(served.serves(&gk), Serves::Unknown), "not listed yet");
        ensure!(served.get(&GroupKind::new("apps", "Deployment")).is_some(), "the rest is known");
        Ok(())
    })
    .await;
    c.delete("apiregistration.k8s.io/v1", "APIService", None, &name).await?;
    unknown
}

#[tokio::test]
async fn who_a_cluster_is_and_what_a_wrong_kubeconfig_says() -> Result<()> {
    let (testbed, client) = client().await?;
    let [a, _, _] = testbed.three()?;
    let identity = client.identity().await?;
    assert_eq!(identity.version, testbed.state().kubernetes_version);
    let namespace = a.get("v1", "Namespace", None, "kube-system").await?;
    assert_eq!(namespace["metadata"]["uid"], identity.uid.as_str());
    let path = &testbed.state().kubeconfig;
    let error = from_kubeconfig(path, Some("nope")).await.err().context("refused")?;
    ensure!(error.to_string().contains("cluster-a, cluster-b, cluster-c"), "{error}");
    let missing = from_kubeconfig(std::path::Path::new("/nonexistent"), None).await;
    ensure!(matches!(missing, Err(ConnectError::File { .. })));
    Ok(())
}

#[tokio::test]
async fn a_full_channel_holds_the_watch_and_loses_nothing() -> Result<()> {
    let (testbed, client) = client().await?;
    let [a, _, _] = testbed.three()?;
    let namespace = TestNamespace::create(a, "pressure").await?;
    let mut watch =
        Watch::start(&client, config_maps(), Scope::Namespace(namespace.name().into()), Start::Nothing);
    watch.until(is_live).await?;
    let documents: Vec<String> = (0..100)
        .map(|n| {
            format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: n{n:03}, namespace: {}}}}}",
                namespace.name()
            )
        })
        .collect();
    a.apply(&documents.join("\n---\n")).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let seen = watch.until(|o| name(o).as_deref() == Some("n099")).await?;
    assert_eq!(seen.iter().filter_map(name).filter(|name| name.starts_with('n')).count(), 100);
    watch.stop().await?;
    namespace.close().await
}
