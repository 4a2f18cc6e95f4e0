//! What tests of failures wait for, as lockstep's own commands tell it.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::{PATIENCE, eventually};
use crate::lockstep::Lockstep;

/// Milliseconds since the epoch, now.
///
/// # Errors
/// If the clock stands before the epoch.
pub fn now_ms() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
}

impl Lockstep {
    /// Waits until every watch of these clusters has been told of as live since that time, by a session of now.
    ///
    /// # Errors
    /// When that does not come to be.
    pub async fn resumed(&self, clusters: &[&str], after_ms: i64) -> Result<()> {
        eventually(PATIENCE, &format!("every watch of {clusters:?} is live again"), async || {
            for name in clusters {
                let list = self.json(&["clusters", name]).await?;
                let cluster = &list["items"][0];
                ensure!(cluster["connected"] == true, "{cluster}");
                let watches = cluster["watches"].as_array().context("a list of watches")?;
                let told = |watch: &Value| watch["updatedAtMs"].as_i64().is_some_and(|at| at >= after_ms);
                ensure!(watches.iter().all(|watch| watch["phase"] == "Live" && told(watch)), "{cluster}");
            }
            Ok(())
        })
        .await
    }

    /// Waits until a policy has exactly so many objects in step at every target, and nothing else.
    ///
    /// # Errors
    /// When that does not come to be in time.
    pub async fn all_in_step(&self, policy: &str, objects: usize, timeout: Duration) -> Result<()> {
        let what = format!("{objects} objects of {policy} are in step at every target");
        eventually(timeout, &what, async || {
            let status = self.json(&["status", policy]).await?;
            let targets = status["items"][0]["targets"].as_array().context("a list of targets")?;
            for target in targets {
                let counts = target["counts"].as_object().context("counts")?;
                let right = counts.iter().all(|(state, count)| {
                    count.as_u64() == Some(if state == "inStep" { objects as u64 } else { 0 })
                });
                ensure!(target["connected"] == true && right, "{target}");
            }
            Ok(())
        })
        .await
    }

    /// The watch of a kind (`ConfigMap`, `Deployment.apps`) in a cluster, as `lockstep clusters` shows it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn watch(&self, cluster: &str, kind: &str) -> Result<Value> {
        let clusters = self.json(&["clusters", cluster]).await?;
        let watches = clusters["items"][0]["watches"].as_array().context("a list of watches")?;
        let found = watches.iter().find(|watch| watch["kind"] == kind);
        Ok(found.with_context(|| format!("{kind} is not watched: {clusters}"))?.clone())
    }

    /// Waits until the watch of a kind is in this phase for this reason, and gives it.
    ///
    /// # Errors
    /// When that does not come to be.
    pub async fn watch_is(&self, cluster: &str, kind: &str, phase: &str, reason: &str) -> Result<Value> {
        eventually(PATIENCE, &format!("the watch of {kind} in {cluster} is {phase} {reason}"), async || {
            let watch = self.watch(cluster, kind).await?;
            ensure!(watch["phase"] == phase && watch["reason"] == reason, "it is {watch}");
            Ok(watch)
        })
        .await
    }
}
