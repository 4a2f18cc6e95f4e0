//! Rotation of keys: every file that is sealed under an older key gets a new front.

use bytes::Bytes;
use futures::StreamExt;

use super::super::envelope;
use super::super::{ArchiveError, sealed_error};
use super::{BATCH, CONCURRENT, Keeper, KeeperError, Work, at, chain};
use crate::core::keeping::Keeping;
use crate::store::Filed;

impl Keeper {
    /// Begins to seal files anew that are under another key than the one that writes, unless that is under way.
    /// Which those are the store knows: after a restart it goes on where it was.
    #[must_use]
    pub fn rewrap(&self) -> Work {
        let mut work = at(&self.0.rewrap);
        if let Some(running) = work.as_ref().filter(|work| work.running) {
            return running.clone();
        }
        let begun = Work { running: true, started_at_ms: (self.0.parts.now)(), ..Work::default() };
        *work = Some(begun.clone());
        let keeper = self.clone();
        tokio::spawn(async move {
            let result = keeper.rewrap_all().await;
            keeper.ended(&keeper.0.rewrap, result).await;
        });
        begun
    }

    /// The last one, and whether it is under way.
    #[must_use]
    pub fn rewrapping(&self) -> Option<Work> {
        at(&self.0.rewrap).clone()
    }

    pub(super) async fn ended(&self, work: &std::sync::Mutex<Option<Work>>, result: Result<(), KeeperError>) {
        if let Some(work) = at(work).as_mut() {
            work.running = false;
            work.ended_at_ms = Some((self.0.parts.now)());
            work.error = result.err().map(|error| chain(&error));
        }
        if let Err(error) = self.note_keys().await {
            tracing::warn!("which keys files need cannot be told: {}", chain(&error));
        }
    }

    async fn rewrap_all(&self) -> Result<(), KeeperError> {
        let key = self.0.parts.tombstones.keys.writes().0.to_string();
        let mut after = 0;
        loop {
            let (turn, wanted) = (self.0.turn.lock().await, key.clone());
            let (page, used) = self
                .read(move |reader| {
                    Ok((reader.sealed_otherwise(&wanted, after, BATCH)?, reader.sealing_keys()?))
                })
                .await?;
            let left = used.iter().filter(|(id, _)| *id != key).map(|(_, files)| files).sum();
            if let Some(work) = at(&self.0.rewrap).as_mut() {
                work.left = Some(left);
            }
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = *last;
            let wrap = async |(id, path): (i64, String)| (id, self.rewrap_one(&path).await);
            let results: Vec<_> =
                futures::stream::iter(page.into_iter().map(wrap)).buffered(CONCURRENT).collect().await;
            let mut files = Vec::new();
            if let Some(work) = at(&self.0.rewrap).as_mut() {
                for (id, result) in results {
                    work.looked_at += 1;
                    match result {
                        Ok(file) => {
                            work.done += 1;
                            files.push((id, file));
                        }
                        Err(error) => work.fail(chain(&error)),
                    }
                }
            }
            self.ask(|reply| Keeping::Rewrapped { files, reply }).await?;
            drop(turn);
        }
    }

    /// Written over the old one: a put is whole or not at all, in a directory and in a bucket.
    async fn rewrap_one(&self, path: &str) -> Result<Filed, ArchiveError> {
        let tombstones = &self.0.parts.tombstones;
        let sealed = tombstones.archive.get(path).await?;
        let wrapped =
            envelope::rewrap(&tombstones.keys, path, &sealed).map_err(|e| sealed_error(path, &e))?;
        let size = wrapped.len() as u64;
        tombstones.archive.put(path, Bytes::from(wrapped)).await?;
        Ok(Filed { path: path.to_owned(), size, key: Some(tombstones.keys.writes().0.to_string()) })
    }
}
