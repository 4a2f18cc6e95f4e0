//! Retention: at the start, and every hour.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt;
use lockstep_engine::retention::{Candidate, Limits, for_room, of_object};
use lockstep_engine::{ClusterId, ClusterName};
use lockstep_policies::PolicySet;
use tokio_util::sync::CancellationToken;

use super::super::layout::{ROOT, is_tombstone};
use super::super::{MISSING_KEY, SECRETS_OPEN, UNKNOWN_FILES};
use super::{BATCH, Keeper, KeeperError, chain};
use crate::config::Secrets;
use crate::store::{Reader, RetainCursor, RetainedRow, StoreError, removed_clusters};

/// Between two sweeps.
const AGAIN: Duration = Duration::from_secs(3600);
/// After one that failed.
const AGAIN_SOON: Duration = Duration::from_secs(300);
/// Rows read at a time.
const PAGE: usize = 512;

/// Sweeps until the hub stops, and says what is wrong with the archive.
pub async fn watch(keeper: Keeper, stop: CancellationToken) {
    keeper.note_secrets();
    loop {
        let swept = async {
            keeper.note_keys().await?;
            keeper.note_unknown().await?;
            keeper.sweep().await
        };
        let Some(swept) = stop.run_until_cancelled(swept).await else { return };
        let wait = match swept {
            Ok(0) => AGAIN,
            Ok(purged) => {
                tracing::info!(purged, "tombstones that were older or more than archive.retention says went");
                AGAIN
            }
            Err(KeeperError::Stopping) => return,
            Err(error) => {
                tracing::warn!("what is too old in the archive stays for now: {}", chain(&error));
                AGAIN_SOON
            }
        };
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// What policies say about retention: those that are in force, or were last.
struct Rules {
    set: PolicySet,
    clusters: BTreeMap<ClusterId, ClusterName>,
}

impl Rules {
    fn read(reader: &mut dyn Reader) -> Result<Self, StoreError> {
        let files = reader.policy_files()?;
        let (set, _) = PolicySet::restore(files.iter().map(|file| (file.path.as_str(), file.text.as_str())));
        let members = reader.clusters()?.into_iter().map(|row| (row.id, row.name));
        let removed = removed_clusters(reader)?.into_iter().map(|removed| (removed.id, removed.name));
        Ok(Self { set, clusters: members.chain(removed).collect() })
    }

    /// The limits of one tombstone.
    fn limits(&self, row: &RetainedRow, default: Limits) -> Limits {
        let cluster = self.clusters.get(&row.cluster);
        cluster.map_or(default, |name| self.set.retention(name.as_str(), &row.key, &row.labels, default))
    }
}

impl Keeper {
    /// Purges what the limits say. How many.
    ///
    /// # Errors
    /// When the store cannot be read, or the core is gone.
    pub async fn sweep(&self) -> Result<u64, KeeperError> {
        let mut purged = self.sweep_objects().await?;
        let mut bytes = self.read(|reader| reader.archive_bytes()).await?;
        if let Some(max) = self.0.parts.retention.max_bytes.filter(|max| bytes > *max) {
            let (count, freed) = self.make_room(bytes - max).await?;
            purged += count;
            bytes = bytes.saturating_sub(freed);
        }
        self.0.parts.metrics.archive_bytes(bytes);
        Ok(purged)
    }

    /// By age and by versions, object by object.
    async fn sweep_objects(&self) -> Result<u64, KeeperError> {
        let rules = self.read(Rules::read).await?;
        let (mut after, mut purged): (Option<RetainCursor>, u64) = (None, 0);
        let (mut object, mut going): (Vec<RetainedRow>, Vec<i64>) = (Vec::new(), Vec::new());
        loop {
            let from = after.take();
            let page = self.read(move |reader| reader.retained(from.as_ref(), PAGE)).await?;
            let full = page.len() == PAGE;
            after = page.last().map(|row| (row.key.clone(), row.deleted_at, row.id));
            for row in page {
                if object.last().is_some_and(|last| last.key != row.key) {
                    going.extend(self.judge(std::mem::take(&mut object), &rules));
                }
                object.push(row);
            }
            if !full {
                going.extend(self.judge(std::mem::take(&mut object), &rules));
            }
            if going.len() >= BATCH || !full {
                purged += self.purge_and_count(std::mem::take(&mut going)).await?.0;
            }
            if !full {
                return Ok(purged);
            }
        }
    }

    /// Tombstones of one object, in any cluster.
    fn judge(&self, rows: Vec<RetainedRow>, rules: &Rules) -> Vec<i64> {
        let (now, default) = ((self.0.parts.now)(), self.0.parts.retention.limits());
        let mut by_cluster: BTreeMap<ClusterId, Vec<(Candidate, Limits)>> = BTreeMap::new();
        for row in &rows {
            by_cluster.entry(row.cluster).or_default().push((candidate(row), rules.limits(row, default)));
        }
        by_cluster.values().flat_map(|rows| of_object(rows, now)).collect()
    }

    /// The oldest go until so many bytes are freed. How many went, and their bytes.
    async fn make_room(&self, excess: u64) -> Result<(u64, u64), KeeperError> {
        let (mut after, mut count, mut freed) = ((i64::MIN, 0), 0, 0);
        while freed < excess {
            let read = move |reader: &mut dyn Reader| {
                let rows = reader.retained_by_age(after, PAGE)?;
                let look = |row: &RetainedRow| {
                    let needed = candidate(row).needed || reader.need(row.id)?.is_some();
                    Ok::<_, StoreError>(Candidate { needed, ..candidate(row) })
                };
                rows.iter().map(look).collect::<Result<Vec<_>, _>>()
            };
            let page = self.read(read).await?;
            let Some(last) = page.last() else { break };
            after = (last.deleted_at, last.id);
            let going = for_room(&page, excess - freed, (self.0.parts.now)());
            let (gone, bytes) = self.purge_and_count(going).await?;
            count += gone;
            freed += bytes;
        }
        Ok((count, freed))
    }

    async fn purge_and_count(&self, ids: Vec<i64>) -> Result<(u64, u64), KeeperError> {
        let told = self.purge(ids, false).await?;
        if let Some(refused) =
            told.iter().find(|told| told.why.as_ref().is_some_and(|why| why.starts_with("LS0245")))
        {
            tracing::warn!(tombstone = refused.id, "{}", refused.why.as_deref().unwrap_or_default());
        }
        let gone = || told.iter().filter(|told| told.purged);
        Ok((gone().count() as u64, gone().map(|told| told.bytes).sum()))
    }

    /// What the settings say of Secrets, where that is not the safe way.
    fn note_secrets(&self) {
        let (message, remedy) = match self.0.parts.tombstones.secrets {
            Secrets::Encrypted => return,
            Secrets::MetadataOnly => (
                "Secrets are archived without their values, and cannot be restored",
                "set archive.secrets to Encrypted if they are to be",
            ),
            Secrets::Plaintext => (
                "Secrets are archived as plaintext: whoever can read the archive can read them",
                "set archive.secrets to Encrypted; `lockstep tombstones purge secrets` takes away what lies there",
            ),
        };
        tracing::warn!("{SECRETS_OPEN}: {message}; {remedy}");
        self.0.parts.problems.set(SECRETS_OPEN, message.to_owned(), remedy, false, (self.0.parts.now)());
    }

    /// Keys that files need and that are not given.
    pub(super) async fn note_keys(&self) -> Result<(), KeeperError> {
        let parts = &self.0.parts;
        let used = self.read(|reader| reader.sealing_keys()).await?;
        let missing: Vec<String> = used
            .into_iter()
            .filter(|(id, _)| !parts.tombstones.keys.has(id))
            .map(|(id, files)| format!("{files} files are sealed under the key {id}"))
            .collect();
        if missing.is_empty() {
            parts.problems.clear(MISSING_KEY);
            return Ok(());
        }
        let message = format!("{}, which is not among those of the archive", missing.join("; "));
        let remedy = "add it below the others in archive.keys_file: without it nobody can read them";
        tracing::error!("{MISSING_KEY}: {message}; {remedy}");
        parts.problems.set(MISSING_KEY, message, remedy, false, (parts.now)());
        Ok(())
    }

    /// An archive full of tombstones, and a store that knows of none: it was lost. Whose they are only a
    /// person can say: what is indexed is subject to retention.
    async fn note_unknown(&self) -> Result<(), KeeperError> {
        let parts = &self.0.parts;
        let known = self.read(|reader| Ok(!reader.retained(None, 1)?.is_empty())).await?;
        let listed = parts.tombstones.archive.list(ROOT);
        let mut listed = listed.try_filter(|file| std::future::ready(is_tombstone(&file.path)));
        if known || listed.try_next().await?.is_none() {
            parts.problems.clear(UNKNOWN_FILES);
            return Ok(());
        }
        let message = "the archive holds tombstones, and the state store knows of none";
        let remedy = "if they are this hub's, `lockstep archive reindex` brings them back";
        parts.problems.set(UNKNOWN_FILES, message.to_owned(), remedy, false, (parts.now)());
        Ok(())
    }
}

/// What is known of it without asking further.
fn candidate(row: &RetainedRow) -> Candidate {
    let RetainedRow { id, deleted_at, size, held, path, .. } = row;
    Candidate { id: *id, deleted_at: *deleted_at, size: *size, needed: *held || path.is_none() }
}
