//! The keeper of the archive: sweeps what retention says, purges what a person says, holds, seals anew, and
//! finds rows for files. One of these at a time: nothing is purged while somebody puts a hold on it.

mod hold;
mod reindex;
mod rewrap;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use lockstep_engine::Millis;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{ArchiveError, HELD, Tombstones};
use crate::config::RetentionConfig;
use crate::core::Input;
use crate::core::command::{Command, CommandError, Reply};
use crate::core::keeping::Keeping;
use crate::metrics::Metrics;
use crate::problem::Problems;
use crate::session::Readers;
use crate::store::{Need, Reader, RetainedRow, StoreError};

pub use sweep::watch;

/// Files touched at a time.
const CONCURRENT: usize = 16;
/// Rows of one transaction.
const BATCH: usize = 128;
/// Files that could not be dealt with and are named.
const NAMED: usize = 20;

/// The keeper could not do it.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The archive refused.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The state store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The core refused, or there is no such tombstone.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// The hub stops.
    #[error("the hub is stopping")]
    Stopping,
}

/// What a keeper is made of.
pub struct KeeperParts {
    /// The files.
    pub tombstones: Tombstones,
    /// Makes readers of the store.
    pub readers: Readers,
    /// To the core.
    pub inputs: mpsc::Sender<Input>,
    /// How long tombstones are kept.
    pub retention: RetentionConfig,
    /// Counts.
    pub metrics: Metrics,
    /// What is wrong with the archive.
    pub problems: Problems,
    /// The clock.
    pub now: fn() -> Millis,
}

/// Keeps the archive. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Keeper(Arc<Inner>);

struct Inner {
    parts: KeeperParts,
    turn: tokio::sync::Mutex<()>,
    rewrap: Mutex<Option<Work>>,
    reindex: Mutex<Option<Work>>,
}

/// Work over the whole archive: under way, or how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Is it under way?
    pub running: bool,
    /// Files looked at.
    pub looked_at: u64,
    /// Files that something was done about.
    pub done: u64,
    /// Files that could not be dealt with.
    pub failed: u64,
    /// Files that are still to be looked at, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    /// Why it ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The first of those that could not be dealt with, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
    /// When it began.
    pub started_at_ms: Millis,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<Millis>,
}

impl Work {
    fn fail(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < NAMED {
            self.failures.push(why);
        }
    }
}

/// What became of one tombstone that was to be purged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Purged {
    /// Its number.
    pub id: i64,
    /// The object, as `Secret shop/db`.
    pub object: String,
    /// Bytes of its file.
    pub bytes: u64,
    /// Is it gone, or, in a dry run, would it go?
    pub purged: bool,
    /// Why not; one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Keeper {
    /// A keeper that has done nothing yet.
    #[must_use]
    pub fn new(parts: KeeperParts) -> Self {
        let (turn, rewrap, reindex) = Default::default();
        Self(Arc::new(Inner { parts, turn, rewrap, reindex }))
    }

    /// Purges tombstones by number: the file first, the row after it, so that a crash in between leaves a row
    /// that is purged again. What somebody needs stays, and says why.
    ///
    /// # Errors
    /// When the store cannot be read, or the core is gone; a file that cannot be deleted is told of by its row.
    pub async fn purge(&self, ids: Vec<i64>, dry_run: bool) -> Result<Vec<Purged>, KeeperError> {
        let mut told = Vec::new();
        for ids in ids.chunks(BATCH) {
            told.extend(self.purge_some(ids.to_vec(), dry_run).await?);
        }
        Ok(told)
    }

    async fn purge_some(&self, ids: Vec<i64>, dry_run: bool) -> Result<Vec<Purged>, KeeperError> {
        let _turn = self.0.turn.lock().await;
        // Looked at within the turn: nobody puts a hold on it meanwhile.
        let looked = self.read(move |reader| ids.into_iter().map(|id| look(reader, id)).collect()).await?;
        let looked: Vec<(Purged, Option<String>)> = looked;
        let delete = async |(mut told, path): (Purged, Option<String>)| {
            if let (Some(path), false) = (path, dry_run) {
                let deleted = self.0.parts.tombstones.archive.delete(&path).await;
                if let Err(error) = deleted {
                    self.0.parts.metrics.purge_failures.inc();
                    told.purged = false;
                    told.why = Some(chain(&error));
                }
            }
            told
        };
        let told: Vec<Purged> =
            futures::stream::iter(looked.into_iter().map(delete)).buffered(CONCURRENT).collect().await;
        let gone: Vec<&Purged> = told.iter().filter(|told| told.purged).collect();
        if !dry_run && !gone.is_empty() {
            let ids = gone.iter().map(|told| told.id).collect();
            let bytes = gone.iter().map(|told| told.bytes).sum();
            self.ask(|reply| Keeping::Purged { ids, reply }).await?;
            self.0.parts.metrics.purged(gone.len() as u64, bytes);
        }
        Ok(told)
    }

    /// Bytes in the archive, and files by the key that they are sealed under; the one that writes is among
    /// them also where it has written nothing yet.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn used(&self) -> Result<(u64, Vec<(String, u64)>), KeeperError> {
        let (bytes, mut used) =
            self.read(|reader| Ok((reader.archive_bytes()?, reader.sealing_keys()?))).await?;
        let writes = self.writes_with();
        if used.iter().all(|(id, _)| *id != writes) {
            used.insert(0, (writes, 0));
        }
        Ok((bytes, used))
    }

    /// Id of the key that writes.
    #[must_use]
    pub fn writes_with(&self) -> String {
        self.0.parts.tombstones.keys.writes().0.to_string()
    }

    /// Is a key given?
    #[must_use]
    pub fn has_key(&self, id: &str) -> bool {
        self.0.parts.tombstones.keys.has(id)
    }

    /// Reads the store.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, KeeperError> {
        let readers = self.0.parts.readers.clone();
        let read = tokio::task::spawn_blocking(move || work(&mut *readers()?));
        Ok(read.await.map_err(|_| KeeperError::Stopping)??)
    }

    /// Has the core do its part.
    async fn ask<T>(&self, keeping: impl FnOnce(Reply<T>) -> Keeping) -> Result<T, KeeperError> {
        let (reply, answer) = oneshot::channel();
        let input = Input::Command(Command::Keep(keeping(reply)));
        self.0.parts.inputs.send(input).await.map_err(|_| KeeperError::Stopping)?;
        Ok(answer.await.map_err(|_| KeeperError::Stopping)??)
    }
}

/// The work under way, to be looked at or counted on.
fn at(work: &Mutex<Option<Work>>) -> std::sync::MutexGuard<'_, Option<Work>> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

/// May it go? Gives the path of its file, if so.
fn look(reader: &mut dyn Reader, id: i64) -> Result<(Purged, Option<String>), StoreError> {
    let none = Purged { id, object: String::new(), bytes: 0, purged: false, why: None };
    let Some(row) = reader.retained_one(id)? else {
        return Ok((Purged { why: Some("there is no such tombstone".to_owned()), ..none }, None));
    };
    let object = named(&row);
    let why = match reader.hold(id)? {
        Some(hold) => Some(format!("{HELD}: it is held by {}: {}", hold.by, hold.reason)),
        None if row.path.is_none() => Some("it is not in the archive yet".to_owned()),
        None => reader.need(id)?.map(|need| needed(need).to_owned()),
    };
    let path = row.path.filter(|_| why.is_none());
    Ok((Purged { id, object, bytes: row.size, purged: why.is_none(), why }, path))
}

fn named(row: &RetainedRow) -> String {
    let key = &row.key;
    if key.namespace.is_empty() {
        format!("{} {}", key.gk, key.name)
    } else {
        format!("{} {}/{}", key.gk, key.namespace, key.name)
    }
}

fn needed(need: Need) -> &'static str {
    match need {
        Need::Delete => "a delete that was not carried out yet goes by it",
        Need::Source => "it tells how the source of a copy ended, and the copy is still there",
        Need::Restore => "a restore that is under way needs it",
    }
}

/// An error and its cause in one line.
fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
