//! Saving and restoring the etcd of one control plane, as an operator does after a disaster.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tempfile::TempDir;

use super::handle::ControlPlane;
use super::state::Component;

/// Where the puts go that raise the revision: outside of what API servers read.
const BUMP_KEY: &str = "/lockstep-testbed/bump";
/// Every put is one revision, however many share a transaction, so they are sent one by one, so many at a time.
const BUMPS_AT_ONCE: usize = 32;
/// How far beyond the highest revision that ever was. `etcdutl --bump-revision` takes a billion for good measure;
/// one would do.
const BUMP_MARGIN: i64 = 100;

/// A copy of an etcd's data directory. Its files go when it is dropped.
#[derive(Debug)]
pub struct Saved {
    directory: TempDir,
    revision: i64,
}

impl Saved {
    /// The revision at which it was taken.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }
}

/// How a snapshot is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RestoreForm {
    /// The old data as they are: resourceVersions go back, and are given out a second time.
    Plain,
    /// What `etcdutl snapshot restore --bump-revision --mark-compacted` does: the old data, at a revision beyond all
    /// that ever were, and compacted there. Old watches end with 410, and nothing else tells of the rewind.
    Bumped,
}

impl ControlPlane {
    /// Copies the data of its etcd. etcd is stopped for about a second, because a copy of the files under a running
    /// one is not consistent; API server and controller manager run on and connect again.
    ///
    /// # Errors
    /// If etcd does not stop or come back, or files cannot be copied.
    pub async fn save(&self) -> Result<Saved> {
        let revision = self.revision().await?;
        self.stop(Component::Etcd).await?;
        let source = self.etcd_directory();
        let parent = source.parent().context("a data directory has a parent")?.to_owned();
        let copied = tokio::task::spawn_blocking(move || {
            let directory = TempDir::with_prefix_in("saved-", parent)?;
            copy_directory(&source, directory.path())?;
            anyhow::Ok(directory)
        })
        .await?;
        // Also when the copy failed: nobody shall be left without etcd.
        self.start_etcd().await?;
        Ok(Saved { directory: copied.context("copying etcd's data")?, revision })
    }

    /// Takes the control plane back to a saved state, and waits until it is ready. Everything is killed and started:
    /// controllers with caches from the future would be no use to anyone.
    ///
    /// # Errors
    /// If the files cannot be put in place, or a part does not come up.
    pub async fn restore(&self, saved: &Saved, form: RestoreForm) -> Result<()> {
        self.start_etcd().await?;
        let highest = self.revision().await?.max(saved.revision);
        for component in [Component::ControllerManager, Component::ApiServer, Component::Etcd] {
            self.kill(component).await?;
        }
        let (from, to) = (saved.directory.path().to_owned(), self.etcd_directory());
        tokio::task::spawn_blocking(move || {
            std::fs::remove_dir_all(&to)?;
            copy_directory(&from, &to)
        })
        .await?
        .context("putting etcd's saved data in place")?;
        if form == RestoreForm::Bumped {
            self.start_etcd().await?;
            self.bump(highest + BUMP_MARGIN).await?;
            self.compact().await?;
        }
        self.start_all().await
    }

    /// Raises the revision to at least this.
    async fn bump(&self, revision: i64) -> Result<()> {
        let missing = revision - self.revision().await?;
        let client = self.etcd_client()?;
        let put = json!({ "key": base64_of(BUMP_KEY), "value": "" });
        stream::iter(0..missing)
            .map(|_| Self::etcd_ask(&client, "/v3/kv/put", &put))
            .buffer_unordered(BUMPS_AT_ONCE)
            .try_for_each(async |_| Ok(()))
            .await?;
        Self::etcd_ask(&client, "/v3/kv/deleterange", &json!({ "key": base64_of(BUMP_KEY) })).await.map(drop)
    }

    async fn revision(&self) -> Result<i64> {
        let status = self.etcd("/v3/maintenance/status", &json!({})).await?;
        let revision = status["header"]["revision"].as_str().context("etcd tells no revision")?;
        revision.parse().context("etcd's revision is not a number")
    }
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Copies files and directories, the only things that are in an etcd's data directory.
fn copy_directory(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else if !entry.file_name().to_string_lossy().ends_with(".tmp") {
            // `*.tmp` are 64 MiB that etcd keeps in reserve for its log, and makes again.
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
