//! Fields that are left to the target.

use anyhow::{Context, Result, ensure};
use lockstep_cluster::{ApplyPlan, Expect, LastApplied};
use lockstep_engine::ownership::{Drift, FieldSet, Leave, Pattern};
use serde_json::json;

use super::{Bench, absent, applied, conflict, deployment, managers, present};

#[tokio::test]
async fn a_field_that_is_given_up_keeps_its_value() -> Result<()> {
    let bench = Bench::new().await?;
    let first = bench.create(json!({"a": "1", "b": "2"})).await?;
    let mut plan = bench.config_map(json!({"a": "2", "b": "3"}), present(&first))?;
    plan.leave.never.insert(Pattern::of_members(&["data", "b"]));
    let given = applied(bench.writer.apply(&plan).await.outcome)?;
    let live = bench.live().await?;
    assert_eq!(live["data"], json!({"a": "2", "b": "2"}));
    ensure!(managers(&live).contains(&"lockstep-yield"), "{live}");
    // Nothing is left to do.
    let again = applied(bench.writer.apply(&plan).await.outcome)?;
    assert_eq!(again.resource_version, given.resource_version);
    // It is asked for again: only our own second manager stands in the way, and goes.
    plan.leave = Leave::default();
    let back = applied(bench.writer.apply(&plan).await.outcome)?;
    ensure!(back.forced, "{back:?}");
    let live = bench.live().await?;
    assert_eq!(live["data"], json!({"a": "2", "b": "3"}));
    ensure!(!managers(&live).contains(&"lockstep-yield"), "{live}");
    bench.close().await
}

#[tokio::test]
async fn a_field_of_a_creation_is_given_up_at_once_and_follows_whoever_wants_it() -> Result<()> {
    let bench = Bench::new().await?;
    let mut plan = bench.plan("apps", "Deployment", "web", deployment("w:1", "web"), absent("n1"))?;
    plan.leave.after_create.insert(Pattern::of_members(&["spec", "replicas"]));
    plan.leave.after_create.insert(".spec.template.spec.containers[*].image".parse()?);
    let first = applied(bench.writer.apply(&plan).await.outcome)?;
    let read = async || bench.cluster.get("apps/v1", "Deployment", Some(bench.namespace.name()), "web").await;
    let live = read().await?;
    assert_eq!(live["spec"]["replicas"], 0);
    ensure!(first.created && managers(&live).contains(&"lockstep-yield"), "{live}");
    let fields = first.fields.context("our fields")?;
    let text = std::str::from_utf8(&fields)?;
    ensure!(!text.contains("f:replicas") && !text.contains("f:image\"") && text.contains("f:name"), "{text}");
    let image = json!({"spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "web", "image": "w:9"}]}}}});
    let namespace = Some(bench.namespace.name());
    bench.cluster.patch("apps/v1", "Deployment", namespace, "web", &image).await?;
    let expect = Expect::Present { uid: first.uid.clone(), resource_version: None, unless_equal: false };
    let mut next = deployment("w:2", "web");
    next["metadata"]["labels"] = json!({"app": "web"});
    let mut plan = ApplyPlan { leave: plan.leave, ..bench.plan("apps", "Deployment", "web", next, expect)? };
    applied(bench.writer.apply(&plan).await.outcome)?;
    let live = read().await?;
    assert_eq!(live["spec"]["replicas"], 1);
    assert_eq!(live["spec"]["template"]["spec"]["containers"][0]["image"], "w:9");
    assert_eq!(live["metadata"]["labels"]["app"], "web");
    // Another wrote it meanwhile: it is theirs, and not taken by force.
    plan.leave = Leave::default();
    conflict(bench.writer.apply(&plan).await.outcome)?;
    bench.close().await
}

#[tokio::test]
async fn what_others_took_is_left_to_them_and_told() -> Result<()> {
    let bench = Bench::new().await?;
    let first = bench.create(json!({"a": "1", "b": "2"})).await?;
    bench.other_applies(json!({"b": "theirs"})).await?;
    let mut plan = bench.config_map(json!({"a": "3", "b": "3"}), present(&first))?;
    plan.leave.drift.push((Pattern::root(), Drift::Report));
    let next = applied(bench.writer.apply(&plan).await.outcome)?;
    assert_eq!(bench.live().await?["data"], json!({"a": "3", "b": "theirs"}));
    let left = next.left.first().context("a field that was left")?;
    assert_eq!(
        (left.path.as_str(), left.manager.as_str(), left.reported),
        (".data.b", "lockstep-tests", true)
    );
    ensure!(!left.time.is_empty() && next.left.len() == 1, "{next:?}");
    // It was ours, and is to be corrected after all.
    plan.leave = Leave::default();
    plan.last_applied = LastApplied::Fields(FieldSet::parse(&next.fields.context("our fields")?)?);
    conflict(bench.writer.apply(&plan).await.outcome)?;
    plan.reclaim = vec![".data.b".to_owned()];
    applied(bench.writer.apply(&plan).await.outcome)?;
    assert_eq!(bench.live().await?["data"], json!({"a": "3", "b": "3"}));
    bench.close().await
}
