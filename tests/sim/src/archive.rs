//! An archive in memory that can be away. It outlives the hub, as a bucket does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt, iter};
use lockstep_hub::archive::{Archive, ArchiveError, Listed};

/// Clones are the same archive.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryArchive {
    files: Arc<Mutex<BTreeMap<String, Bytes>>>,
    away: Arc<AtomicBool>,
}

impl MemoryArchive {
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// Does it have this state of this object?
    pub(crate) fn has(&self, uid: &str, version: &str) -> bool {
        let (part, ending) = (format!("/{uid}/"), format!("-{version}.yaml.zst"));
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.keys().any(|path| path.contains(&part) && path.contains(&ending))
    }

    pub(crate) fn contents(&self) -> Vec<Bytes> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Archive for MemoryArchive {
    fn put<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<(), ArchiveError>> {
        Box::pin(async move {
            if self.away.load(Ordering::Relaxed) {
                return Err(ArchiveError::Put { path: path.to_owned(), source: "it is away".into() });
            }
            self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), content);
            Ok(())
        })
    }

    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Bytes, ArchiveError>> {
        Box::pin(async move {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            let missing = || ArchiveError::Get { path: path.to_owned(), source: "it is not there".into() };
            files.get(path).cloned().ok_or_else(missing)
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), ArchiveError>> {
        Box::pin(async move {
            self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
            Ok(())
        })
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<Listed, ArchiveError>> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let below = files.iter().filter(|(path, _)| path.starts_with(&format!("{folder}/")));
        let listed: Vec<_> =
            below.map(|(path, file)| Ok(Listed { path: path.clone(), size: file.len() as u64 })).collect();
        iter(listed).boxed()
    }
}
