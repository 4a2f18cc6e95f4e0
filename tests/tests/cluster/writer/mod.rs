//! The writer against real API servers: every rule of docs/kubernetes.md, "Server-side apply", that it carries out.

mod adopt;
mod bytes;
mod leave;

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use lockstep_cluster::{
    Applied, ApplyPlan, Bytes, ClusterClient, DeletePlan, Deleted, Expect, Foreign, LastApplied, Limits,
    Outcome, ReleasePlan, Released, Resource, Retracted, Served, Undo, Writer, from_kubeconfig,
};
use lockstep_engine::GroupKind;
use lockstep_engine::outcome::FailureClass;
use lockstep_engine::ownership::{FieldSet, Leave, Owned, owned_digest};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{PATIENCE, TestNamespace, eventually, unique_name};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

/// One cluster, a namespace, and a writer under test.
struct Bench {
    cluster: Cluster,
    namespace: TestNamespace,
    writer: Writer,
    served: Served,
    minor: (u32, u32),
}

impl Bench {
    async fn new() -> Result<Self> {
        let testbed = Testbed::from_env().await?;
        let [a, _, _] = testbed.three()?;
        let config = from_kubeconfig(&testbed.state().kubeconfig, Some(a.name())).await?;
        let client = ClusterClient::new(config, Limits::default())?;
        let version = testbed.version()?;
        Ok(Self {
            cluster: a.clone(),
            namespace: TestNamespace::create(a, "writer").await?,
            served: client.discover().await?,
            writer: Writer::new(client, [7; 32]),
            minor: version,
        })
    }

    fn resource(&self, group: &str, kind: &str) -> Result<Resource> {
        let served = self.served.get(&GroupKind::new(group, kind)).context(kind.to_owned())?;
        served.preferred().context("a version")
    }

    fn plan(&self, group: &str, kind: &str, name: &str, body: Value, expect: Expect) -> Result<ApplyPlan> {
        let resource = self.resource(group, kind)?;
        let mut body = body;
        body["apiVersion"] = resource.api_version().into();
        body["kind"] = kind.into();
        body["metadata"]["name"] = name.into();
        body["metadata"]["namespace"] = self.namespace.name().into();
        Ok(ApplyPlan {
            resource,
            namespace: self.namespace.name().into(),
            name: name.into(),
            body: Bytes::from(body.to_string()),
            expect,
            last_applied: LastApplied::Unknown,
            was_ours: FieldSet::default(),
            reclaim: Vec::new(),
            leave: Leave::default(),
            ensure_namespace: false,
            namespace_labels: BTreeMap::new(),
            dry_run: false,
        })
    }

    fn config_map(&self, data: Value, expect: Expect) -> Result<ApplyPlan> {
        self.plan("", "ConfigMap", "cm", json!({"data": data}), expect)
    }

    async fn create(&self, data: Value) -> Result<Applied> {
        applied(self.writer.apply(&self.config_map(data, absent("n1"))?).await.outcome)
    }

    async fn live(&self) -> Result<Value> {
        self.cluster.get("v1", "ConfigMap", Some(self.namespace.name()), "cm").await
    }

    /// Applies by force as another manager.
    async fn other_applies(&self, data: Value) -> Result<Value> {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {"name": "cm", "namespace": self.namespace.name()}});
        Ok(self.cluster.apply(&body.to_string()).await?.remove(0))
    }

    async fn close(self) -> Result<()> {
        self.namespace.close().await
    }
}

fn absent(nonce: &str) -> Expect {
    Expect::Absent { nonce: nonce.to_owned(), look_first: false }
}

fn present(applied: &Applied) -> Expect {
    Expect::Present { uid: applied.uid.clone(), resource_version: None, unless_equal: false }
}

fn applied(outcome: Outcome) -> Result<Applied> {
    match outcome {
        Outcome::Applied(applied) => Ok(*applied),
        other => bail!("not applied: {other:?}"),
    }
}

fn conflict(outcome: Outcome) -> Result<Foreign> {
    match outcome {
        Outcome::Conflict(foreign) => Ok(*foreign),
        other => bail!("no conflict: {other:?}"),
    }
}

fn failed(outcome: Outcome) -> Result<FailureClass> {
    match outcome {
        Outcome::Failed(failure) => Ok(failure.class),
        other => bail!("no failure: {other:?}"),
    }
}

fn managers(object: &Value) -> Vec<&str> {
    let entries = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().filter_map(|entry| entry["manager"].as_str()).collect()
}

#[tokio::test]
async fn a_create_answers_what_it_owns_and_the_same_again_changes_nothing() -> Result<()> {
    let bench = Bench::new().await?;
    let first = bench.create(json!({"a": "1"})).await?;
    ensure!(first.created && !first.forced);
    let fields = FieldSet::parse(&first.fields.clone().context("fieldsV1")?)?;
    ensure!(fields.contains(".data.a"), "{:?}", fields.paths(10));
    let read = bench.writer.read(&bench.resource("", "ConfigMap")?, bench.namespace.name(), "cm").await?;
    let read = read.context("it is there")?;
    assert_eq!(read.nonce.as_deref(), Some("n1"));
    assert_eq!(owned_digest(&read.body, "v1", None)?, first.owned);
    ensure!(matches!(first.owned, Owned::Digest(_)));
    // The update goes without the intent, which changes neither digest nor, the second time, the version.
    let plan = bench.config_map(json!({"a": "1"}), present(&first))?;
    let second = applied(bench.writer.apply(&plan).await.outcome)?;
    assert_eq!((second.owned.clone(), second.created), (first.owned, false));
    let third = applied(bench.writer.apply(&plan).await.outcome)?;
    assert_eq!(third.resource_version, second.resource_version);
    bench.close().await
}

#[tokio::test]
async fn a_create_onto_a_foreign_object_is_taken_back() -> Result<()> {
    let bench = Bench::new().await?;
    let before = bench.other_applies(json!({"a": "1", "theirs": "x"})).await?;
    let plan = bench.config_map(json!({"a": "1", "ours": "y"}), absent("n1"))?;
    let foreign = conflict(bench.writer.apply(&plan).await.outcome)?;
    assert_eq!((foreign.undo, foreign.managers), (Undo::Done, vec!["lockstep-tests".to_owned()]));
    let after = bench.live().await?;
    assert_eq!((&after["data"], &after["metadata"]["annotations"]), (&before["data"], &Value::Null));
    ensure!(!managers(&after).contains(&"lockstep"), "{after}");
    // A different value is refused by the server itself.
    let plan = bench.config_map(json!({"a": "2"}), absent("n2"))?;
    let foreign = conflict(bench.writer.apply(&plan).await.outcome)?;
    assert_eq!((foreign.undo, foreign.causes.len()), (Undo::NotNeeded, 1));
    // Sent before without an answer: looked at first, and left alone.
    let expect = Expect::Absent { nonce: "n3".to_owned(), look_first: true };
    let version = bench.live().await?["metadata"]["resourceVersion"].clone();
    let foreign = conflict(bench.writer.apply(&bench.config_map(json!({"a": "1"}), expect)?).await.outcome)?;
    assert_eq!(foreign.undo, Undo::NotNeeded);
    assert_eq!(bench.live().await?["metadata"]["resourceVersion"], version);
    bench.close().await
}

#[tokio::test]
async fn i6_a_copy_of_ours_that_a_restore_brought_back_is_not_emptied_by_a_create() -> Result<()> {
    let bench = Bench::new().await?;
    // What the restore brought back; the index that the create goes by says that nothing is there.
    let copy = bench.create(json!({"a": "1", "old": "x"})).await?;
    bench.other_applies(json!({"theirs": "x"})).await?;
    let before = bench.live().await?;
    let plan = bench.config_map(json!({"a": "1", "new": "y"}), absent("n2"))?;
    let foreign = conflict(bench.writer.apply(&plan).await.outcome)?;
    assert_eq!((foreign.undo, foreign.uid), (Undo::Done, Some(copy.uid)));
    // The hub judges by the marks, which are the ones from before; the nonce was of that write only.
    let after = bench.live().await?;
    assert_eq!(after["data"], before["data"]);
    assert_eq!(after["metadata"]["annotations"], Value::Null);
    assert_eq!(owned_digest(after.to_string().as_bytes(), "v1", None)?, copy.owned);
    bench.close().await
}

#[tokio::test]
async fn i6_a_create_that_arrives_twice_does_not_empty_what_it_created() -> Result<()> {
    let bench = Bench::new().await?;
    let first = bench.create(json!({"a": "1"})).await?;
    // Sent again by an index that has not heard of it: once the same, once with another body, and once
    // after somebody else wrote.
    for data in [json!({"a": "1"}), json!({"a": "2"}), json!({"a": "2"})] {
        let again = bench.create(data.clone()).await?;
        assert_eq!((&again.uid, again.created), (&first.uid, true));
        assert_eq!(bench.live().await?["data"]["a"], data["a"]);
        bench.other_applies(json!({"theirs": "x"})).await?;
    }
    bench.close().await
}

/// Whoever created was cut off before it could take back what its create did to an object that it met: that object as it
/// was before.
async fn met_and_left(bench: &Bench) -> Result<Value> {
    bench.other_applies(json!({"theirs": "x"})).await?;
    let before = bench.live().await?;
    let created = before["metadata"]["creationTimestamp"].as_str().and_then(lockstep_engine::rfc3339::parse);
    eventually(PATIENCE, "a later second than that of its creation", async || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
        ensure!(i64::try_from(now)? > created.context("created")? + 2_000);
        Ok(())
    })
    .await?;
    let marked = json!({"data": {"a": "1"}, "metadata": {"annotations": {"lockstep.dev/intent": "n1"}}});
    let uid = lockstep_engine::Uid::new(before["metadata"]["uid"].as_str().context("uid")?);
    let met = Expect::Present { uid, resource_version: None, unless_equal: false };
    applied(bench.writer.apply(&bench.plan("", "ConfigMap", "cm", marked, met)?).await.outcome)?;
    Ok(before)
}

async fn is_as_before(bench: &Bench, before: &Value) -> Result<()> {
    let after = bench.live().await?;
    assert_eq!(
        (&after["data"], &after["metadata"]["annotations"]),
        (&before["data"], &Value::Null),
        "{after}"
    );
    assert_eq!(managers(&after), managers(before));
    Ok(())
}

#[tokio::test]
async fn i6_what_a_create_met_and_left_with_our_nonce_is_given_back_by_its_retry() -> Result<()> {
    let bench = Bench::new().await?;
    let before = met_and_left(&bench).await?;
    let retry = Expect::Absent { nonce: "n1".to_owned(), look_first: true };
    let outcome = bench.writer.apply(&bench.config_map(json!({"a": "1"}), retry)?).await.outcome;
    assert_eq!(conflict(outcome)?.undo, Undo::Done);
    is_as_before(&bench, &before).await?;
    bench.close().await
}

/// Nothing asks for the object any more, so nothing is created again.
#[tokio::test]
async fn i6_what_a_create_met_and_left_with_our_nonce_is_given_back_by_its_retraction() -> Result<()> {
    let bench = Bench::new().await?;
    let before = met_and_left(&bench).await?;
    let plan = bench.config_map(json!({}), absent("n1"))?;
    let retract = async |nonce: &str| {
        let retracted = bench.writer.retract(&plan.resource, &plan.namespace, &plan.name, nonce).await;
        retracted.map_err(|failure| anyhow!("{failure}"))
    };
    ensure!(matches!(retract("another").await?, Retracted::Nothing));
    match retract("n1").await? {
        Retracted::Met(foreign) => assert_eq!(foreign.undo, Undo::Done),
        other => bail!("{other:?}"),
    }
    is_as_before(&bench, &before).await?;
    ensure!(matches!(retract("n1").await?, Retracted::Nothing), "it carries the nonce no more");
    bench.cluster.delete("v1", "ConfigMap", Some(bench.namespace.name()), "cm").await?;
    ensure!(matches!(retract("n1").await?, Retracted::Nothing));
    let made = bench.create(json!({"a": "1"})).await?;
    ensure!(matches!(retract("n1").await?, Retracted::Made(uid) if uid == made.uid));
    let live = bench.live().await?;
    assert_eq!(live["metadata"]["resourceVersion"], made.resource_version.as_str(), "nothing is written");
    bench.close().await
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_ours() -> Result<()> {
    let bench = Bench::new().await?;
    let first = bench.create(json!({"a": "1"})).await?;
    let retry = || Expect::Absent { nonce: "n1".to_owned(), look_first: true };
    let again = applied(bench.writer.apply(&bench.config_map(json!({"a": "1"}), retry())?).await.outcome)?;
    assert_eq!((&again.uid, again.created, &again.owned), (&first.uid, true, &first.owned));
    assert_eq!(
        again.resource_version, first.resource_version,
        "nobody wrote since: nothing is to be written"
    );
    // Somebody changed it before it was known for ours.
    bench.other_applies(json!({"a": "9"})).await?;
    let again = applied(bench.writer.apply(&bench.config_map(json!({"a": "1"}), retry())?).await.outcome)?;
    assert_eq!((&again.uid, again.created), (&first.uid, true));
    let live = bench.live().await?;
    assert_eq!((&live["data"]["a"], &live["metadata"]["annotations"]), (&json!("1"), &Value::Null), "{live}");
    bench.close().await
}

#[tokio::test]
async fn an_update_never_creates_and_never_hits_another_object() -> Result<()> {
    let bench = Bench::new().await?;
    let first = bench.create(json!({"a": "1"})).await?;
    let mut plan = bench.config_map(json!({"a": "2"}), present(&first))?;
    let other = Expect::Present {
        uid: lockstep_engine::Uid::new("00000000-0000-4000-8000-000000000000"),
        resource_version: None,
        unless_equal: false,
    };
    plan.expect = other;
    assert_eq!(failed(bench.writer.apply(&plan).await.outcome)?, FailureClass::Stale);
    plan.expect = Expect::Present {
        uid: first.uid.clone(),
        resource_version: Some(first.resource_version.clone()),
        unless_equal: false,
    };
    applied(bench.writer.apply(&plan).await.outcome)?;
    plan.body = bench.config_map(json!({"a": "3"}), absent(""))?.body;
    assert_eq!(failed(bench.writer.apply(&plan).await.outcome)?, FailureClass::Stale);
    bench.cluster.delete("v1", "ConfigMap", Some(bench.namespace.name()), "cm").await?;
    plan.expect = present(&first);
    assert_eq!(failed(bench.writer.apply(&plan).await.outcome)?, FailureClass::Gone);
    bench.close().await
}

#[tokio::test]
async fn drift_is_taken_back_only_where_it_was_ours() -> Result<()> {
    let bench = Bench::new().await?;
    let first = bench.create(json!({"a": "1"})).await?;
    let drifted = bench.other_applies(json!({"a": "theirs", "b": "theirs"})).await?;
    let seen = owned_digest(drifted.to_string().as_bytes(), "v1", None)?;
    ensure!(seen != first.owned, "a field that was taken over is seen");
    let mut plan = bench.config_map(json!({"a": "1"}), present(&first))?;
    let refused = conflict(bench.writer.apply(&plan).await.outcome)?;
    assert_eq!(refused.managers, ["lockstep-tests"]);
    assert_eq!(refused.causes.iter().map(|cause| cause.path.as_str()).collect::<Vec<_>>(), [".data.a"]);
    // The marks vouch that our last apply was this very body (after a loss of the hub's record).
    plan.last_applied = LastApplied::ThisBody;
    let back = applied(bench.writer.apply(&plan).await.outcome)?;
    ensure!(back.forced && back.owned == first.owned);
    bench.other_applies(json!({"a": "theirs", "b": "theirs"})).await?;
    plan.last_applied = LastApplied::Fields(FieldSet::parse(&first.fields.clone().context("fieldsV1")?)?);
    let back = applied(bench.writer.apply(&plan).await.outcome)?;
    ensure!(back.forced && back.owned == first.owned);
    assert_eq!(bench.live().await?["data"], json!({"a": "1", "b": "theirs"}));
    // `b` was never ours.
    plan.body = bench.config_map(json!({"a": "1", "b": "ours"}), absent(""))?.body;
    let refused = conflict(bench.writer.apply(&plan).await.outcome)?;
    assert_eq!(refused.causes.iter().map(|cause| cause.path.as_str()).collect::<Vec<_>>(), [".data.b"]);
    bench.close().await
}

#[tokio::test]
async fn a_missing_namespace_is_told_or_made() -> Result<()> {
    let bench = Bench::new().await?;
    let name = unique_name("implicit")?;
    let mut plan = bench.config_map(json!({"a": "1"}), absent("n1"))?;
    plan.namespace = name.as_str().into();
    let mut body: Value = serde_json::from_slice(&plan.body)?;
    body["metadata"]["namespace"] = name.as_str().into();
    plan.body = Bytes::from(body.to_string());
    ensure!(matches!(bench.writer.apply(&plan).await.outcome, Outcome::NamespaceMissing));
    plan.ensure_namespace = true;
    let enforce = "pod-security.kubernetes.io/enforce".to_owned();
    plan.namespace_labels = BTreeMap::from([(enforce.clone(), "restricted".to_owned())]);
    let report = bench.writer.apply(&plan).await;
    applied(report.outcome)?;
    let namespace = bench.cluster.get("v1", "Namespace", None, &name).await?;
    assert_eq!(namespace["metadata"]["uid"], report.created_namespace.context("created")?.as_str());
    assert_eq!(namespace["metadata"]["annotations"]["lockstep.dev/implicit"], "true");
    assert_eq!(namespace["metadata"]["labels"][&enforce], "restricted");
    ensure!(!bench.writer.namespace_contents(&name, &bench.served).await.is_empty());
    // One that is there already is left as it is.
    let there = bench.writer.create_namespace(bench.namespace.name(), &plan.namespace_labels).await?;
    ensure!(!there.created);
    // Also where its labels are somebody else's.
    let privileged = BTreeMap::from([(enforce.clone(), "privileged".to_owned())]);
    ensure!(!bench.writer.create_namespace(&name, &privileged).await?.created);
    let kept = bench.cluster.get("v1", "Namespace", None, &name).await?;
    assert_eq!(kept["metadata"]["labels"][&enforce], "restricted");
    let untouched = bench.cluster.get("v1", "Namespace", None, bench.namespace.name()).await?;
    ensure!(untouched["metadata"]["annotations"]["lockstep.dev/implicit"].is_null(), "{untouched}");
    ensure!(untouched["metadata"]["labels"][&enforce].is_null(), "{untouched}");
    bench.cluster.delete("v1", "Namespace", None, &name).await?;
    bench.close().await
}

#[tokio::test]
async fn i4_a_delete_hits_exactly_the_archived_state() -> Result<()> {
    let bench = Bench::new().await?;
    let first = bench.create(json!({"a": "1"})).await?;
    let mut plan = DeletePlan {
        resource: bench.resource("", "ConfigMap")?,
        namespace: bench.namespace.name().into(),
        name: "cm".into(),
        uid: first.uid.clone(),
        resource_version: first.resource_version.clone(),
    };
    let patch = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    let held = bench.cluster.patch("v1", "ConfigMap", Some(bench.namespace.name()), "cm", &patch).await?;
    assert_eq!(bench.writer.delete(&plan).await, Deleted::Stale);
    plan.resource_version = lockstep_engine::ResourceVersion::new(
        held["metadata"]["resourceVersion"].as_str().unwrap_or_default(),
    );
    plan.uid = lockstep_engine::Uid::new("00000000-0000-4000-8000-000000000000");
    assert_eq!(bench.writer.delete(&plan).await, Deleted::Stale);
    plan.uid = first.uid;
    assert_eq!(bench.writer.delete(&plan).await, Deleted::Done { finalizing: true });
    let patch = json!({"metadata": {"finalizers": null}});
    bench.cluster.patch("v1", "ConfigMap", Some(bench.namespace.name()), "cm", &patch).await?;
    assert_eq!(bench.writer.delete(&plan).await, Deleted::Gone);
    let second = bench.create(json!({"a": "1"})).await?;
    (plan.uid, plan.resource_version) = (second.uid, second.resource_version);
    assert_eq!(bench.writer.delete(&plan).await, Deleted::Done { finalizing: false });
    bench.close().await
}

#[tokio::test]
async fn a_release_takes_the_marks_and_leaves_the_object() -> Result<()> {
    let bench = Bench::new().await?;
    for others in [false, true] {
        let body = json!({"data": {"a": "1"}, "metadata": {
            "labels": {"lockstep.dev/managed": "true", "app": "x"}, "annotations": {"lockstep.dev/policy": "p"}}});
        let first = applied(
            bench.writer.apply(&bench.plan("", "ConfigMap", "cm", body, absent("n1"))?).await.outcome,
        )?;
        if others {
            bench.other_applies(json!({"b": "2"})).await?;
        }
        let plan = ReleasePlan {
            resource: bench.resource("", "ConfigMap")?,
            namespace: bench.namespace.name().into(),
            name: "cm".into(),
            uid: first.uid.clone(),
        };
        ensure!(matches!(bench.writer.release(&plan).await, Released::Done { .. }));
        let after = bench.live().await?;
        assert_eq!(after["data"]["a"], "1");
        assert_eq!(after["metadata"]["labels"], json!({"app": "x"}));
        ensure!(after["metadata"]["annotations"].is_null(), "{after}");
        ensure!(
            !managers(&after)
                .iter()
                .any(|manager| manager.starts_with("lockstep") && *manager != "lockstep-tests"),
            "{after}"
        );
        ensure!(managers(&after).contains(&"lockstep-tests") == others, "{after}");
        ensure!(matches!(bench.writer.release(&plan).await, Released::Done { .. }), "again");
        bench.cluster.delete("v1", "ConfigMap", Some(bench.namespace.name()), "cm").await?;
        assert_eq!(bench.writer.release(&plan).await, Released::Gone);
    }
    bench.close().await
}

fn deployment(image: &str, app: &str) -> Value {
    json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"app": app}}, "template": {
        "metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "web", "image": image}]}}}})
}

#[tokio::test]
async fn rejections_have_their_own_classes() -> Result<()> {
    let bench = Bench::new().await?;
    let plan = bench.plan("apps", "Deployment", "web", deployment("w:1", "web"), absent("n1"))?;
    let first = applied(bench.writer.apply(&plan).await.outcome)?;
    let plan = bench.plan("apps", "Deployment", "web", deployment("w:1", "other"), present(&first))?;
    assert_eq!(failed(bench.writer.apply(&plan).await.outcome)?, FailureClass::Immutable);
    let mut twice = deployment("w:1", "web");
    twice["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "X", "value": "1"}, {"name": "X", "value": "2"}]);
    let plan = bench.plan("apps", "Deployment", "twice", twice, absent("n2"))?;
    assert_eq!(failed(bench.writer.apply(&plan).await.outcome)?, FailureClass::DuplicateKeys);
    let body = json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}], "fieldOfTomorrow": "x"}});
    let plan = bench.plan("", "Service", "svc", body, absent("n3"))?;
    assert_eq!(failed(bench.writer.apply(&plan).await.outcome)?, FailureClass::SchemaMismatch);
    let plan = bench.plan(
        "",
        "Service",
        "svc",
        json!({"spec": {"ports": [{"port": -1, "protocol": "TCP"}]}}),
        absent("n4"),
    )?;
    assert_eq!(failed(bench.writer.apply(&plan).await.outcome)?, FailureClass::Invalid);
    if bench.minor < (1, 21) {
        let body =
            json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}], "internalTrafficPolicy": "Local"}});
        let plan = bench.plan("", "Service", "svc", body, absent("n5"))?;
        assert_eq!(failed(bench.writer.apply(&plan).await.outcome)?, FailureClass::SchemaMismatch);
    }
    let mut plan = bench.config_map(json!({}), absent("n6"))?;
    plan.resource.version = "v9".into();
    assert_eq!(failed(bench.writer.apply(&plan).await.outcome)?, FailureClass::NotServed);
    bench.close().await
}

#[tokio::test]
async fn i13_no_value_of_a_secret_comes_back_in_a_failure() -> Result<()> {
    let bench = Bench::new().await?;
    // "Y2FuYXJ5" is "canary".
    let body = json!({"immutable": true, "data": {"k": "Y2FuYXJ5"}});
    let first =
        applied(bench.writer.apply(&bench.plan("", "Secret", "s", body, absent("n1"))?).await.outcome)?;
    ensure!(owned_digest(&first.body, "v1", None)? != first.owned, "digests of Secrets are keyed");
    for data in [
        json!({"k": "Y2FuYXJ5Mg=="}),
        json!({"k": "not base64 canary"}),
        json!({"not a key canary": "Y2FuYXJ5"}),
        json!("canary"),
    ] {
        let plan =
            bench.plan("", "Secret", "s", json!({"immutable": true, "data": data}), present(&first))?;
        let Outcome::Failed(failure) = bench.writer.apply(&plan).await.outcome else { bail!("not refused") };
        let text = format!("{failure} {failure:?}");
        ensure!(!text.contains("Y2FuYXJ5") && !text.contains("base64 canary"), "{text}");
        ensure!(failure.class.is_permanent(), "{text}");
    }
    bench.close().await
}

#[tokio::test]
async fn an_empty_namespace_is_known_to_be_empty() -> Result<()> {
    let bench = Bench::new().await?;
    let contents = lockstep_tests::harness::eventually(
        lockstep_tests::harness::PATIENCE,
        "default objects are there",
        async || {
            bench.cluster.get("v1", "ConfigMap", Some(bench.namespace.name()), "kube-root-ca.crt").await?;
            bench.cluster.get("v1", "ServiceAccount", Some(bench.namespace.name()), "default").await?;
            Ok(bench.writer.namespace_contents(bench.namespace.name(), &bench.served).await)
        },
    )
    .await?;
    ensure!(contents.is_empty(), "{contents:?}");
    bench.create(json!({"a": "1"})).await?;
    let contents = bench.writer.namespace_contents(bench.namespace.name(), &bench.served).await;
    let names: Vec<_> = contents.items.iter().map(|item| item.key.to_string()).collect();
    assert_eq!(names, [format!("ConfigMap {}/cm", bench.namespace.name())]);
    bench.close().await
}
