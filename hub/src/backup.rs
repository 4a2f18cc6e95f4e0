//! Backup and restore of the hub's data: the state store, the tombstones that it names in the
//! archive, and a manifest that says what a backup must hold.
//!
//! A backup is written under another name and renamed when all of it is on the disk: a directory with
//! a manifest is whole. The API's token is not in it (a hub makes a new one), nor the hub's key:
//! whoever had both could read the Secrets.

mod files;
mod restore;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use lockstep_engine::Millis;
use serde::{Deserialize, Serialize};

use crate::codes::Code;
use crate::config::{ARCHIVE_DIR, STATE_FILE};
use crate::store::StoreError;
use crate::store::sqlite::{Counted, Frozen, OpenError, VERSION, snapshot};
use files::{Partial, digest, link_or_copy, sync_tree, write_durably};

pub use restore::{RestoreOptions, RestoreReport, restore};

/// Codes of this part.
pub const CODES: &[Code] = &[NOT_MADE, UNUSABLE, OCCUPIED, SETTLES];
const NOT_MADE: Code = Code { code: "LS0270", title: "the backup cannot be made" };
const UNUSABLE: Code = Code { code: "LS0271", title: "the backup cannot be used" };
const OCCUPIED: Code = Code { code: "LS0272", title: "the data directory holds a state store" };
pub(crate) const SETTLES: Code =
    Code { code: "LS0273", title: "the hub was restored, and writes nothing before it has caught up" };

/// The store itself refuses.
const STORE_UNUSABLE: &str = "LS0225";

/// File that says what a backup holds; written last.
pub const MANIFEST: &str = "manifest.json";
/// Format of backups that this build writes and reads.
const FORMAT: u32 = 1;
/// Archived files between two looks at the progress.
const TELL_EVERY: u64 = 256;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Format of the backup.
    pub format: u32,
    /// Version of lockstep that made it.
    pub version: String,
    /// Schema version of the store.
    pub schema: i64,
    /// When it was begun, RFC 3339: the state is that of this moment.
    pub taken_at: String,
    /// The same, milliseconds since the epoch.
    pub taken_at_ms: Millis,
    /// The state store.
    pub state: StateFile,
    /// The archived tombstones that it names.
    pub archive: ArchiveFiles,
    /// How much the store holds.
    pub counts: Counted,
}

/// The file of the state store in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateFile {
    /// Name within the backup.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its checksum, hex.
    pub blake3: String,
}

/// The archived files in a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveFiles {
    /// How many.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
    /// Files that the store names and the archive does not have.
    pub missing: u64,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Pages of the state store: so many of so many.
    State(u64, u64),
    /// The state store is being checked.
    Checking,
    /// Archived tombstones: so many of so many.
    Archive(u64, u64),
}

/// What a backup is made of.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The directory of the archive; none: it lies in a bucket, which has backups of its own.
    pub archive_dir: Option<PathBuf>,
    /// The backup: a directory that does not exist, or is empty.
    pub to: PathBuf,
    /// When it is made.
    pub now: Millis,
}

/// A backup or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be written.
    #[error(
        "{NOT_MADE}: {path} cannot be written: check the path, the permissions and the free space; what was begun was removed"
    )]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is nothing to back up.
    #[error(
        "{NOT_MADE}: there is no state store in {data_dir}: name the hub's data directory with --data-dir, or its configuration with --config"
    )]
    NoStore {
        /// Where one was looked for.
        data_dir: PathBuf,
    },
    /// Something is there already.
    #[error("{NOT_MADE}: {path} exists and is not empty: name a directory that does not exist yet")]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// The backup would lie within what is backed up.
    #[error(
        "{NOT_MADE}: {path} lies in the data directory: name a place elsewhere, on another disk if there is one"
    )]
    Inside {
        /// Where.
        path: PathBuf,
    },
    /// The copy is not sound: neither is the original.
    #[error("{NOT_MADE}: the state store is damaged ({why}): keep the last good backup, and see LS0223")]
    Damaged {
        /// What was found.
        why: String,
    },
    /// It is not a backup, or not a whole one.
    #[error("{UNUSABLE}: {path}: {why}; take another backup")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A store is where the backup is to be restored to.
    #[error(
        "{OCCUPIED}: {data_dir} holds a state store: name another directory, or keep that store aside with --force"
    )]
    Occupied {
        /// Where.
        data_dir: PathBuf,
    },
    /// The store refuses.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BackupError {
    /// The error's code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Write { .. }
            | Self::NoStore { .. }
            | Self::Exists { .. }
            | Self::Inside { .. }
            | Self::Damaged { .. } => NOT_MADE.code,
            Self::Unusable { .. } => UNUSABLE.code,
            Self::Occupied { .. } => OCCUPIED.code,
            Self::Open(error) => error.code(),
            Self::Store(_) => STORE_UNUSABLE,
        }
    }
}

/// Makes a backup; a hub may run meanwhile.
///
/// # Errors
/// When the store cannot be read, or the backup cannot be written; nothing of it is left then.
pub fn backup(options: &BackupOptions, told: &mut dyn FnMut(Progress)) -> Result<Manifest, BackupError> {
    let BackupOptions { data_dir, archive_dir, to, now } = options;
    if !data_dir.join(STATE_FILE).exists() {
        return Err(BackupError::NoStore { data_dir: data_dir.clone() });
    }
    refuse_place(data_dir, to)?;
    let partial = Partial::make(to)?;
    let state = partial.path().join(STATE_FILE);
    let damaged = |error| match error {
        OpenError::Corrupt { why, .. } => BackupError::Damaged { why },
        error => error.into(),
    };
    let mut pages = |done, all| told(Progress::State(done, all));
    let schema = snapshot(&data_dir.join(STATE_FILE), &state, &mut pages).map_err(damaged)?;
    told(Progress::Checking);
    let frozen = Frozen::open(&state).map_err(damaged)?;
    frozen.check().map_err(damaged)?;
    let counts = frozen.counted()?;
    let archive = match archive_dir {
        Some(dir) => copy_archive(&frozen, dir, &partial.path().join(ARCHIVE_DIR), &counts, told)?,
        None => ArchiveFiles::default(),
    };
    drop(frozen);
    let io = |source| BackupError::Write { path: state.clone(), source };
    let (bytes, blake3) = digest(&state).map_err(io)?;
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema,
        taken_at: lockstep_engine::rfc3339::write(*now),
        taken_at_ms: *now,
        state: StateFile { file: STATE_FILE.to_owned(), bytes, blake3 },
        archive,
        counts,
    };
    // A structure of texts and numbers always serialises.
    let text = serde_json::to_string_pretty(&manifest).unwrap_or_default() + "\n";
    let path = partial.path().join(MANIFEST);
    write_durably(&path, text.as_bytes()).map_err(|source| BackupError::Write { path, source })?;
    partial.finish()?;
    Ok(manifest)
}

fn refuse_place(data_dir: &Path, to: &Path) -> Result<(), BackupError> {
    let occupied = match std::fs::read_dir(to) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    if occupied {
        return Err(BackupError::Exists { path: to.to_owned() });
    }
    if files::real(to).starts_with(files::real(data_dir)) {
        return Err(BackupError::Inside { path: to.to_owned() });
    }
    Ok(())
}

/// Every file that the store names. They never change once they are written, so a second name for
/// one is as good as a copy.
fn copy_archive(
    frozen: &Frozen,
    from: &Path,
    to: &Path,
    counts: &Counted,
    told: &mut dyn FnMut(Progress),
) -> Result<ArchiveFiles, BackupError> {
    let mut done = ArchiveFiles::default();
    let all = counts.tombstones.saturating_sub(counts.outbox);
    frozen.paths(|path| -> Result<(), BackupError> {
        // Paths come out of a database: one that leads elsewhere is none of ours.
        if !files::is_within(path) {
            done.missing += 1;
            return Ok(());
        }
        match link_or_copy(&from.join(path), &to.join(path)) {
            Ok(bytes) => {
                done.files += 1;
                done.bytes += bytes;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => done.missing += 1,
            Err(source) => return Err(BackupError::Write { path: to.join(path), source }),
        }
        if (done.files + done.missing).is_multiple_of(TELL_EVERY) {
            told(Progress::Archive(done.files + done.missing, all));
        }
        Ok(())
    })?;
    sync_tree(to).map_err(|source| BackupError::Write { path: to.to_owned(), source })?;
    told(Progress::Archive(done.files + done.missing, all));
    Ok(done)
}

impl Manifest {
    /// Reads the manifest of a backup, and refuses what this build cannot restore.
    ///
    /// # Errors
    /// When there is none, or it is of a newer format or version.
    pub fn read(backup: &Path) -> Result<Self, BackupError> {
        let path = backup.join(MANIFEST);
        let unusable = |why: String| BackupError::Unusable { path: backup.to_owned(), why };
        let text = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                unusable(format!("it has no {MANIFEST}: it is not a backup, or half of one"))
            }
            _ => unusable(format!("{MANIFEST} cannot be read: {error}")),
        })?;
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| unusable(format!("{MANIFEST} cannot be understood: {error}")))?;
        if manifest.format > FORMAT || manifest.schema > VERSION {
            return Err(unusable(format!(
                "lockstep {} made it (format {}, schema {}), and this build knows up to format {FORMAT}, schema {VERSION}: restore it with that version",
                manifest.version, manifest.format, manifest.schema
            )));
        }
        Ok(manifest)
    }
}
