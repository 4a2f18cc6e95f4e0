//! An archive in a local directory.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;

use super::{Archive, ArchiveError, Listed};

/// Files under one directory, by `object_store`, each fsynced with the directories above it.
#[derive(Debug)]
pub struct LocalArchive {
    root: PathBuf,
    store: LocalFileSystem,
}

impl LocalArchive {
    /// An archive in this directory, which is made (mode 0700) where it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> Result<Self, ArchiveError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ArchiveError::Put {
            path: root.display().to_string(),
            source,
        };
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(|e| failed(Box::new(e)))?;
        // Directories that become empty go, too: each object that was ever deleted would leave some.
        let store = LocalFileSystem::new_with_prefix(root).map_err(|e| failed(Box::new(e)))?;
        let store = store.with_fsync(true).with_automatic_cleanup(true);
        Ok(Self { root: root.to_owned(), store })
    }
}

impl Archive for LocalArchive {
    fn put<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<(), ArchiveError>> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ArchiveError::Put {
            path: path.to_owned(),
            source,
        };
        Box::pin(async move {
            let object = ObjectPath::parse(path).map_err(|e| failed(Box::new(e)))?;
            self.store.put(&object, content.into()).await.map_err(|e| failed(Box::new(e)))?;
            let (root, file) = (self.root.clone(), self.root.join(path));
            tokio::task::spawn_blocking(move || sync_directories(&root, &file))
                .await
                .map_err(|e| failed(Box::new(e)))?
                .map_err(|e| failed(Box::new(e)))
        })
    }

    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Bytes, ArchiveError>> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ArchiveError::Get {
            path: path.to_owned(),
            source,
        };
        Box::pin(async move {
            let object = ObjectPath::parse(path).map_err(|e| failed(Box::new(e)))?;
            let found = self.store.get(&object).await.map_err(|e| failed(Box::new(e)))?;
            found.bytes().await.map_err(|e| failed(Box::new(e)))
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), ArchiveError>> {
        Box::pin(super::bucket::delete(&self.store, ObjectPath::parse(path), path))
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<Listed, ArchiveError>> {
        super::bucket::list(&self.store, ObjectPath::parse(folder), folder, "")
    }
}

/// `LocalFileSystem` fsyncs directories that it makes, but not one that was made by a put beside
/// this one, or by a process that died before its fsync. An fsync of what is clean costs little.
fn sync_directories(root: &Path, file: &Path) -> io::Result<()> {
    let mut at = file;
    while let Some(parent) = at.parent() {
        File::open(parent)?.sync_all()?;
        if parent == root {
            // And the entry of the root itself, once it is new; a failure means it is not ours to open.
            if let Some(above) = root.parent().filter(|above| *above != Path::new("")) {
                let _ = File::open(above).and_then(|above| above.sync_all());
            }
            break;
        }
        at = parent;
    }
    Ok(())
}
