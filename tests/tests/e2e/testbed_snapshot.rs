//! The test bed takes a control plane back in time, in both forms that operators know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::patience::scaled;
use lockstep_tests::testbed::{Options, RestoreForm, Testbed};
use serde_json::{Value, json};

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"}, "data": {"k": value}})
}

async fn find(cluster: &Cluster, name: &str) -> Result<Option<Value>> {
    cluster.find("v1", "ConfigMap", Some("default"), name).await
}

/// resourceVersion of a list: the revision of etcd.
async fn now(cluster: &Cluster) -> Result<i64> {
    let list: Value = serde_json::from_str(&cluster.raw("/api/v1/namespaces?limit=1").await?)?;
    Ok(list["metadata"]["resourceVersion"].as_str().context("a resourceVersion")?.parse()?)
}

/// What a watch from a resourceVersion answers first, if anything within a second of an idle machine.
async fn watch_from(cluster: &Cluster, resource_version: i64) -> Result<String> {
    let seconds = scaled(Duration::from_secs(1)).as_secs();
    let path =
        format!("/api/v1/configmaps?watch=1&timeoutSeconds={seconds}&resourceVersion={resource_version}");
    cluster.raw(&path).await
}

/// Restoring breaks a control plane, so it starts one of its own.
#[tokio::test]
async fn a_restored_control_plane_is_back_in_time() -> Result<()> {
    let options = Options { clusters: vec!["restored".to_owned()], ..Options::default() };
    let testbed = Testbed::start(options).await?;
    let cluster = testbed.cluster("restored")?;
    let kept = cluster.apply_value(&map("kept", "old")).await?;
    let back = cluster.apply_value(&map("deleted", "old")).await?;
    let saved = cluster.control_plane().save().await?;
    ensure!(saved.revision() > 1, "a cluster that was used has a revision: {saved:?}");

    for form in [RestoreForm::Plain, RestoreForm::Bumped] {
        cluster.control_plane().wait_ready().await?;
        cluster.apply_value(&map("kept", "new")).await?;
        cluster.apply_value(&map("created", "new")).await?;
        cluster.delete("v1", "ConfigMap", Some("default"), "deleted").await?;
        for n in 0..50 {
            cluster.apply_value(&map("busy", &n.to_string())).await?;
        }
        let before = now(cluster).await?;
        cluster.control_plane().restore(&saved, form).await?;

        let found = find(cluster, "kept").await?.context("what was there is there")?;
        ensure!(found["data"]["k"] == "old", "{form:?}: {found}");
        ensure!(found["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"], "{found}");
        ensure!(find(cluster, "created").await?.is_none(), "{form:?}: what came later is gone");
        let found = find(cluster, "deleted").await?.context("what was deleted later is back")?;
        ensure!(found["metadata"]["uid"] == back["metadata"]["uid"], "{form:?}: as the same object");

        let after = now(cluster).await?;
        let watched = watch_from(cluster, before).await?;
        match form {
            RestoreForm::Plain => {
                ensure!(after < before, "plain: the revision goes back: {before} -> {after}");
                ensure!(watched.is_empty(), "a watch from the future is silent: {watched}");
            }
            RestoreForm::Bumped => {
                ensure!(after > before, "bumped: it goes on: {before} -> {after}");
                ensure!(watched.contains("\"code\":410"), "a watch from before is expired: {watched}");
            }
        }
    }
    Ok(())
}
