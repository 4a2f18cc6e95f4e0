//! The tombstone archive: one file per tombstone, readable by people, in a directory or a bucket, in
//! one layout everywhere.
//!
//! | module | what |
//! |---|---|
//! | `layout` | where a tombstone lies |
//! | `content` | what is in the file |
//! | `keys` | the keys that encrypt files |
//! | `envelope` | a file that is encrypted |
//! | `local` | a directory, durably |
//! | `bucket` | a bucket: S3, Google Cloud Storage, Azure |
//! | `credentials` | keys out of a shared credentials file |
//! | `probe` | whether the archive works |
//! | `keeper` | retention, holds, rotation of keys, the index out of the files |
//! | `archiver` | the task that empties the store's outbox into the archive |

mod archiver;
mod bucket;
mod content;
mod credentials;
mod envelope;
pub mod keeper;
mod keys;
mod layout;
mod local;
pub(crate) mod probe;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use lockstep_engine::{ClusterName, Uid};

use crate::codes::Code;
use crate::config::{ArchiveConfig, HubConfig, Secrets};
use crate::redact::is_secret;
use crate::store::{Filed, TombstoneRow};

pub use archiver::{Archiver, ArchiverParts};
pub use bucket::BucketArchive;
pub use content::{ArchivedTombstone, Header};
use envelope::EnvelopeError;
pub use keeper::{Keeper, KeeperError, KeeperParts};
pub use keys::{KeyId, Keyring, KeysError};
pub use layout::path_of;
pub use local::LocalArchive;

/// Codes of this module.
pub const CODES: &[Code] =
    &[UNUSABLE, UNREADABLE, BAD_SETTINGS, MISSING_KEY, BAD_KEYS, SECRETS_OPEN, HELD, UNKNOWN_FILES];
const UNUSABLE: Code = Code { code: "LS0245", title: "the archive does not take tombstones" };
const UNREADABLE: Code = Code { code: "LS0246", title: "a file of the archive cannot be read" };
const BAD_SETTINGS: Code = Code { code: "LS0247", title: "the archive's settings cannot be used" };
const MISSING_KEY: Code =
    Code { code: "LS0248", title: "a file of the archive needs a key that is not given" };
const SECRETS_OPEN: Code = Code { code: "LS0242", title: "Secrets are not archived in the safe way" };
const HELD: Code = Code { code: "LS0243", title: "a tombstone is not purged, or not held" };
const UNKNOWN_FILES: Code =
    Code { code: "LS0244", title: "the archive holds tombstones that the store does not know" };
const BAD_KEYS: Code = Code { code: "LS0249", title: "the archive's keys cannot be used" };

/// Ends the name of a sealed file.
const SEALED: &str = ".sealed";
/// Archives are written once and kept for long: a little slower than bodies in the store.
const LEVEL: i32 = 3;
/// No tombstone is larger; a frame that claims more is corrupt. Twice the store's bound, for YAML.
const MAX_CONTENT: usize = 128 << 20;

/// The archive failed. Carries nothing of what is archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Writing.
    #[error(
        "{UNUSABLE}: the archive does not take {path}: check that it is reachable, writable and not full; it is tried again, and nothing is deleted meanwhile"
    )]
    Put {
        /// Path in the archive.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Reading.
    #[error(
        "{UNREADABLE}: {path} cannot be read from the archive: check that it is there, and that this is the archive it was written to"
    )]
    Get {
        /// Path in the archive.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is there is not what was written.
    #[error(
        "{UNREADABLE}: {path} is not a tombstone that can be read: {why}; restore the file from a backup of the archive"
    )]
    Content {
        /// Path in the archive.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// It is sealed under a key that is not among those of the archive.
    #[error(
        "{MISSING_KEY}: {path} is sealed under the key {key}, which is not among those of the archive: add it below the others in archive.keys_file; without it nobody can read the file"
    )]
    Key {
        /// Path in the archive.
        path: String,
        /// The key's id.
        key: KeyId,
    },
    /// Taking away.
    #[error("{UNUSABLE}: {path} cannot be taken out of the archive: check that the hub may delete there")]
    Delete {
        /// Path in the archive.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Looking what there is.
    #[error(
        "{UNREADABLE}: what is below {path} in the archive cannot be listed: check that the hub may list there"
    )]
    List {
        /// The folder.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Where it lies is not told in a way that can be used.
    #[error("{BAD_SETTINGS}: {setting} cannot be used; mend it in the hub's configuration")]
    Config {
        /// Dotted name of the setting.
        setting: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ArchiveError {
    /// The error's code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Put { .. } | Self::Delete { .. } => UNUSABLE.code,
            Self::Get { .. } | Self::Content { .. } | Self::List { .. } => UNREADABLE.code,
            Self::Key { .. } => MISSING_KEY.code,
            Self::Config { .. } => BAD_SETTINGS.code,
        }
    }
}

/// Where the files lie. Paths are relative, with `/`, every part already encoded (`layout`).
pub trait Archive: Send + Sync {
    /// Writes a file, durably: when this returns, a crash does not lose it (I4). Writing again what
    /// is there already changes nothing.
    fn put<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<(), ArchiveError>>;
    /// Reads a file.
    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Bytes, ArchiveError>>;
    /// Takes a file away. One that is not there is fine.
    fn delete<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), ArchiveError>>;
    /// Every file below a folder, in any order. A folder that is not there has none.
    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<Listed, ArchiveError>>;
}

/// A file that a listing shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Path in the archive.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// The archive that the settings name. A bucket is not asked yet whether it is there: `probe` does.
///
/// # Errors
/// When the settings cannot be used, or the directory cannot be made.
pub fn open(config: &HubConfig) -> Result<Arc<dyn Archive>, ArchiveError> {
    let ArchiveConfig { dir: _, s3, gcs, azure, keys_file: _, keys: _, secrets: _, retention: _ } =
        &config.archive;
    if let Some(dir) = config.archive_dir() {
        return Ok(Arc::new(LocalArchive::open(&dir)?));
    }
    let bucket = match (s3, gcs, azure) {
        (Some(s3), ..) => BucketArchive::s3(s3),
        (_, Some(gcs), _) => BucketArchive::gcs(gcs),
        (.., Some(azure)) => BucketArchive::azure(azure),
        // Then there is a directory.
        (None, None, None) => {
            Err(ArchiveError::Config { setting: "archive", source: "it names no place".into() })
        }
    };
    Ok(Arc::new(bucket?))
}

/// Tombstones in an archive. Cheap to clone.
#[derive(Clone)]
pub struct Tombstones {
    archive: Arc<dyn Archive>,
    keys: Keyring,
    secrets: Secrets,
}

/// The cluster that a tombstone is of, as far as its path and header need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRef {
    /// Its name.
    pub name: ClusterName,
    /// uid of its kube-system namespace, once known.
    pub uid: Option<Uid>,
}

impl Tombstones {
    /// Tombstones in this archive, sealed under its keys where they have to be.
    #[must_use]
    pub fn new(archive: Arc<dyn Archive>, keys: Keyring, secrets: Secrets) -> Self {
        Self { archive, keys, secrets }
    }

    /// Writes one. The path depends on nothing but the arguments: doing it again
    /// writes the same file again.
    ///
    /// # Errors
    /// When the archive does not take it.
    pub async fn put(&self, cluster: &ClusterRef, row: &TombstoneRow) -> Result<Filed, ArchiveError> {
        let secret = is_secret(&row.key.gk.group, &row.key.gk.kind);
        let sealed = row.facts.sealed || (secret && self.secrets == Secrets::Encrypted);
        let path = path_of(cluster, row, sealed);
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ArchiveError::Put {
            path: path.clone(),
            source,
        };
        let text = if secret && self.secrets == Secrets::MetadataOnly {
            content::write(cluster, &content::without_values(row), true)
        } else {
            content::write(cluster, row, false)
        };
        let mut bytes = compress(text.as_bytes()).map_err(|e| failed(Box::new(e)))?;
        let mut key = None;
        if sealed {
            bytes = envelope::seal(&self.keys, &path, &bytes).map_err(|e| failed(Box::new(e)))?;
            key = Some(self.keys.writes().0.to_string());
        }
        let size = bytes.len() as u64;
        self.archive.put(&path, Bytes::from(bytes)).await?;
        Ok(Filed { path, size, key })
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it is not there, is not what was written, or needs a key that is not given.
    pub async fn read(&self, path: &str) -> Result<ArchivedTombstone, ArchiveError> {
        self.opened(path, self.archive.get(path).await?)
    }

    /// What is in a file.
    fn opened(&self, path: &str, mut bytes: Bytes) -> Result<ArchivedTombstone, ArchiveError> {
        let bad = |why: &str| ArchiveError::Content { path: path.to_owned(), why: why.to_owned() };
        if path.ends_with(SEALED) {
            bytes = envelope::open(&self.keys, path, &bytes).map_err(|e| sealed_error(path, &e))?.into();
        }
        let text = zstd::bulk::decompress(&bytes, MAX_CONTENT).map_err(|_| bad("it does not decompress"))?;
        let text = String::from_utf8(text).map_err(|_| bad("it is not UTF-8"))?;
        content::read(&text).map_err(|why| bad(&why))
    }
}

fn sealed_error(path: &str, error: &EnvelopeError) -> ArchiveError {
    match error {
        EnvelopeError::NoKey(key) => ArchiveError::Key { path: path.to_owned(), key: *key },
        _ => ArchiveError::Content { path: path.to_owned(), why: error.to_string() },
    }
}

/// With a checksum, which whoever decompresses it verifies: the hub, and `zstd` on a command line.
fn compress(text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    compressor.compress(text)
}

impl crate::http::Bodies for Tombstones {
    fn body<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<serde_json::Value, String>> {
        Box::pin(async move {
            let tombstone = self.read(path).await.map_err(|error| {
                use std::error::Error;
                match error.source() {
                    None => error.to_string(),
                    Some(source) => format!("{error}: {source}"),
                }
            })?;
            Ok(tombstone.object)
        })
    }
}
