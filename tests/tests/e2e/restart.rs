//! Killed at any time and started again, it converges, and writes nothing that was in step.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Result, ensure};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

const OBJECTS: usize = 40;

fn policy(namespace: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: restarts }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }}
"
    )
}

fn map(namespace: &str, name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"sync": "yes"}}, "data": {"k": value}})
}

/// Requests of lockstep about a namespace in a target, from the API server's audit log.
fn requests(fleet: &Fleet<'_>, verbs: &[&str]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let place = format!("/namespaces/{}/", fleet.namespace);
    for cluster in fleet.clusters {
        for event in cluster.audit_events()? {
            if event.user_agent.starts_with("lockstep/")
                && event.request_uri.contains(&place)
                && verbs.contains(&event.verb.as_str())
                // A namespace that is not there yet answers 404, and nothing was written.
                && event.response_status.as_ref().is_some_and(|status| status.code < 400)
            {
                found.push(format!("{} {}", event.verb, event.request_uri));
            }
        }
    }
    Ok(found)
}

const WRITES: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_nothing_in_step_is_rewritten_and_the_rest_converges() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-restart").await?;
    let namespace = fleet.namespace.as_str();
    let mut lockstep = Lockstep::with_policy(&bed, &policy(namespace)).await?;
    for n in 0..OBJECTS {
        fleet.source().apply_value(&map(namespace, &format!("m{n}"), "1")).await?;
    }
    for n in 0..OBJECTS {
        fleet.everywhere("v1", "ConfigMap", &format!("m{n}"), |_| true).await?;
    }
    lockstep.wait("restarts").await?;
    let before = requests(&fleet, WRITES)?.len();
    ensure!(before == 2 * OBJECTS, "one apply per object and target: {before}");

    lockstep.kill().await?;
    lockstep.start().await?;
    lockstep.settled().await?;
    lockstep.wait("restarts").await?;
    ensure!(requests(&fleet, WRITES)?.len() == before, "a restart wrote: {:?}", requests(&fleet, WRITES)?);

    // Changes while it is away: of 40 one is changed, one deleted, one is new.
    lockstep.kill().await?;
    fleet.source().apply_value(&map(namespace, "m0", "2")).await?;
    fleet.source().delete("v1", "ConfigMap", Some(namespace), "m1").await?;
    fleet.source().apply_value(&map(namespace, "new", "1")).await?;
    lockstep.start().await?;
    fleet.everywhere("v1", "ConfigMap", "m0", |m| m["data"]["k"] == "2").await?;
    fleet.everywhere("v1", "ConfigMap", "new", |_| true).await?;
    fleet.nowhere("v1", "ConfigMap", "m1").await?;
    lockstep.wait("restarts").await?;
    let writes = requests(&fleet, WRITES)?.len() - before;
    ensure!(writes == 6, "one write per change and target, no more: {writes}");
    // A graceful stop ends in time and with 0.
    lockstep.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_a_burst_it_converges() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-burst").await?;
    let namespace = fleet.namespace.as_str();
    let mut lockstep = Lockstep::with_policy(&bed, &policy(namespace)).await?;
    lockstep.settled().await?;
    for n in 0..3 * OBJECTS {
        fleet.source().apply_value(&map(namespace, &format!("m{n}"), "1")).await?;
        // Wherever it is just then: between event and commit, commit and ack, apply and answer.
        if n % OBJECTS == OBJECTS / 2 {
            lockstep.kill().await?;
            lockstep.start().await?;
        }
    }
    for n in 0..3 * OBJECTS {
        fleet.everywhere("v1", "ConfigMap", &format!("m{n}"), |m| m["data"]["k"] == "1").await?;
    }
    lockstep.wait("restarts").await?;
    let status = lockstep.json(&["status"]).await?;
    ensure!(!status.to_string().contains("\"Conflict\""), "{status}");
    Ok(())
}
