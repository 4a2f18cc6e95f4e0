//! After the chaos: everything is healed, decisions that are a person's are made, and lockstep comes in step.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;
use serde_json::Value;

use super::compare;
use super::fleet::Fleet;
use super::inject::History;
use super::objects::{
    Bystander, CLASH, CLASH_TARGET, DEFINITION, DEFINITION_NAME, Kind, POLICIES, create_namespace,
    namespaces_of,
};
use super::process::Process;
use crate::cluster::Cluster;
use crate::harness::eventually;
use crate::patience::scaled;
use crate::testbed::{CLUSTERS, Component, Signal};

/// Between two looks at the status.
const LOOK: Duration = Duration::from_secs(1);
/// So often the status must say that all is in step before it is taken at its word.
const IN_STEP: u32 = 2;
/// Once the status says so, differences that stay for this long are differences: an event may be under way.
const GRACE: Duration = Duration::from_secs(30);
/// Rewinds and holds are looked for so often.
const DECIDE: Duration = Duration::from_secs(5);
/// API servers look at a definition that did not go in time again after a minute.
const GOING: Duration = Duration::from_secs(120);
/// A control plane after all that.
const HEAL_TRIES: u32 = 3;

/// How it came in step.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Settled {
    pub(super) seconds: f32,
    /// When the first decision of a person was asked for, since the start of the run.
    pub(super) decided_ms: u64,
    pub(super) approvals: u64,
    pub(super) rewinds_accepted: u64,
    /// Copies that were deleted because others had taken over fields that lockstep no longer knew to be its own.
    pub(super) conflicts_resolved: u64,
    /// What stood in the way, and from when on.
    pub(super) waited_for: Vec<String>,
    /// Remarks that are no failure.
    pub(super) remarks: Vec<String>,
    /// What still differs.
    pub(super) differences: Vec<String>,
}

/// Undoes whatever chaos may have left.
pub(super) async fn heal(fleet: &Fleet) -> Result<()> {
    fleet.to_hub.iter().chain(&fleet.to_api).for_each(|link| link.set(None));
    for process in fleet.processes() {
        process.signal(Signal::CONT)?;
        process.start()?;
    }
    fleet.write_policies()?;
    let healed = fleet.bed.clusters().iter().enumerate().map(async |(index, cluster)| {
        heal_cluster(fleet, index, cluster).await.with_context(|| format!("healing {}", cluster.name()))
    });
    futures::future::try_join_all(healed).await.map(drop)
}

async fn heal_cluster(fleet: &Fleet, index: usize, cluster: &Cluster) -> Result<()> {
    let plane = cluster.control_plane();
    for component in Component::ALL {
        if plane.is_running(component).await? {
            plane.resume(component).await?;
        }
    }
    let mut tries = 0;
    while let Err(error) = plane.start_all().await {
        tries += 1;
        if tries == HEAL_TRIES {
            return Err(error);
        }
    }
    // A snapshot may have brought back a time when these were missing, or being deleted.
    eventually(GOING, "rights, namespaces and the definition are there", async || {
        fleet.install_rights(cluster).await?;
        for namespace in namespaces_of(index) {
            not_going(cluster, "v1", "Namespace", namespace).await?;
            create_namespace(cluster, namespace).await?;
        }
        not_going(cluster, "apiextensions.k8s.io/v1", "CustomResourceDefinition", DEFINITION_NAME).await?;
        cluster.install_crd(DEFINITION).await
    })
    .await
}

/// Fails while something is being deleted: an apply would succeed, and it would go all the same.
async fn not_going(cluster: &Cluster, version: &str, kind: &str, name: &str) -> Result<()> {
    let found = cluster.find(version, kind, None, name).await?.unwrap_or_default();
    ensure!(found["metadata"]["deletionTimestamp"].is_null(), "{kind} {name} is still being deleted");
    Ok(())
}

/// Accepts rewinds, approves holds, and waits until the status says that all is in step and the clusters agree.
pub(super) async fn settle(
    fleet: &Fleet,
    history: &History,
    bystanders: &[Bystander],
    patience: Duration,
    decided_ms: u64,
) -> Result<Settled> {
    let began = Instant::now();
    let mut settled = Settled { decided_ms, ..Settled::default() };
    let (mut decided, mut in_step, mut in_step_since) = (None::<Instant>, 0, None::<Instant>);
    loop {
        tokio::time::sleep(LOOK).await;
        fleet.processes().try_for_each(Process::look)?;
        if decided.is_none_or(|at| at.elapsed() >= DECIDE) {
            decided = Some(Instant::now());
            decide(fleet, history, &mut settled).await;
        }
        let standing = standing(fleet).await;
        if standing.is_ok() {
            in_step += 1;
        } else {
            (in_step, in_step_since) = (0, None);
        }
        settled.differences = match standing {
            Err(error) => vec![format!("not in step: {error:#}")],
            Ok(()) if in_step < IN_STEP => vec!["in step for a moment only".to_owned()],
            Ok(()) => {
                in_step_since.get_or_insert_with(Instant::now);
                match compare::state(fleet, history, bystanders).await {
                    Ok(found) => found,
                    Err(error) => vec![format!("the comparison failed: {error:#}")],
                }
            }
        };
        settled.seconds = began.elapsed().as_secs_f32();
        if let Some(first) = settled.differences.first() {
            let line = first.split(':').take(3).collect::<Vec<_>>().join(":");
            if !settled.waited_for.last().is_some_and(|last| last.ends_with(&line)) {
                settled.waited_for.push(format!("{:.0} s: {line}", settled.seconds));
            }
        }
        let late = began.elapsed() > scaled(patience)
            || in_step_since.is_some_and(|at| at.elapsed() > scaled(GRACE));
        if settled.differences.is_empty() {
            return Ok(settled);
        }
        if late && in_step != 1 {
            settled.differences.extend(behind(fleet).await.unwrap_or_default());
            if in_step == 0 {
                let more = compare::state(fleet, history, bystanders).await;
                settled.differences.extend(more.unwrap_or_default());
            }
            return Ok(settled);
        }
    }
}

/// What a person would do now. The hub may be busy: whatever fails is tried again.
async fn decide(fleet: &Fleet, history: &History, settled: &mut Settled) {
    if history.forgotten.iter().any(|forgotten| forgotten.policy.is_none())
        && let Err(error) = resolve_conflicts(fleet, settled).await
    {
        remark(settled, format!("conflicts: {error:#}"));
    }
    if let Err(error) = accept_rewinds(fleet, settled).await {
        remark(settled, format!("accept-rewind: {error:#}"));
    }
    if let Err(error) = approve(fleet, settled).await {
        remark(settled, format!("approve: {error:#}"));
    }
}

fn remark(settled: &mut Settled, text: String) {
    if !settled.remarks.contains(&text) {
        settled.remarks.push(text);
    }
}

async fn accept_rewinds(fleet: &Fleet, settled: &mut Settled) -> Result<()> {
    let clusters = fleet.json(&["clusters"]).await?;
    for cluster in clusters["items"].as_array().into_iter().flatten() {
        if cluster["rewound"]["missing"].as_u64().unwrap_or_default() == 0 {
            continue;
        }
        let name = cluster["name"].as_str().context("a cluster's name")?;
        let printed = fleet.run(&["clusters", "accept-rewind", name]).await?;
        // Refused while it is being listed.
        ensure!(printed.code == 0, "{name}: {}", printed.stderr.lines().next().unwrap_or_default());
        settled.rewinds_accepted += 1;
    }
    Ok(())
}

/// With its data the hub has lost which fields were its own. Where somebody changed one while the copy was behind its
/// source, nobody can know it again, and a person decides.
async fn resolve_conflicts(fleet: &Fleet, settled: &mut Settled) -> Result<()> {
    for item in fleet.hub_client()?.items("placements?state=Conflict").await? {
        let text = |field: &str| item[field].as_str().unwrap_or_default();
        if text("reason") != "Conflict" || text("name") == CLASH {
            continue;
        }
        let kind = Kind::ALL.into_iter().find(|kind| kind.full_name() == text("kind")).context("a kind")?;
        let cluster = fleet.bed.cluster(text("target"))?;
        cluster.delete(kind.api_version(), kind.name(), Some(text("namespace")), text("name")).await?;
        settled.conflicts_resolved += 1;
    }
    Ok(())
}

async fn approve(fleet: &Fleet, settled: &mut Settled) -> Result<()> {
    let status = fleet.json(&["status"]).await?;
    for policy in status["items"].as_array().into_iter().flatten() {
        let targets = policy["targets"].as_array().into_iter().flatten();
        let held: u64 = targets.filter_map(|target| target["counts"]["held"].as_u64()).sum();
        if held > 0 {
            let name = policy["name"].as_str().context("a policy's name")?;
            let printed = fleet.run(&["approve", name, "--yes"]).await?;
            ensure!(printed.code == 0, "{name}: {}", printed.stderr);
            settled.approvals += held;
        }
    }
    Ok(())
}

/// What is not in step, one by one.
async fn behind(fleet: &Fleet) -> Result<Vec<String>> {
    let states = "Pending,Held,Conflict,Failed,Blocked,Unknown,Paused";
    let items = fleet.hub_client()?.items(&format!("placements?state={states}")).await?;
    let items = items.iter().filter(|item| item["name"] != CLASH);
    Ok(items
        .map(|item| {
            let text = |field: &str| item[field].as_str().unwrap_or_default();
            format!(
                "{} {}/{} at {} is {}/{}: {}",
                text("kind"),
                text("namespace"),
                text("name"),
                text("target"),
                text("state"),
                text("reason"),
                text("message")
            )
        })
        .collect())
}

/// Fails with what the status says is not in step.
async fn standing(fleet: &Fleet) -> Result<()> {
    let clusters = fleet.json(&["clusters"]).await?;
    for cluster in clusters["items"].as_array().context("a list of clusters")? {
        let name = &cluster["name"];
        ensure!(cluster["connected"] == true, "{name} is not connected: {}", cluster["problem"]);
        for watch in cluster["watches"].as_array().into_iter().flatten() {
            let Value::String(kind) = &watch["kind"] else { continue };
            let (phase, reason) = (&watch["phase"], &watch["reason"]);
            ensure!(
                phase == "Live",
                "the watch of {kind} in {name} is {phase} ({reason}): {}",
                watch["message"]
            );
        }
    }
    let status = fleet.json(&["status"]).await?;
    let findings = status["findings"].as_array().cloned().unwrap_or_default();
    ensure!(findings.is_empty(), "policies have findings: {findings:?}");
    let items = status["items"].as_array().context("a list of policies")?;
    for policy in POLICIES {
        let item = items.iter().find(|item| item["name"] == policy.name);
        let item = item.ok_or_else(|| anyhow!("{} is not loaded", policy.name))?;
        let newest = item["generation"] == item["observedGeneration"] && item["paused"] == false;
        ensure!(newest, "{} is paused or not planned yet", policy.name);
        for index in policy.targets {
            let target = CLUSTERS[*index];
            let found =
                item["targets"].as_array().into_iter().flatten().find(|item| item["target"] == target);
            let found = found.ok_or_else(|| anyhow!("{} does not go to {target}", policy.name))?;
            let expected = u64::from(policy.name == "chaos-configmaps" && *index == CLASH_TARGET);
            for (state, count) in found["counts"].as_object().context("counts")? {
                let allowed = match state.as_str() {
                    "inStep" | "orphaned" => continue,
                    "conflict" => expected,
                    _ => 0,
                };
                let count = count.as_u64().unwrap_or_default();
                ensure!(
                    count <= allowed,
                    "{} at {target}: {count} {state}: {}",
                    policy.name,
                    found["reasons"]
                );
            }
        }
    }
    Ok(())
}
