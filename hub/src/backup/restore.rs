//! A backup back into a data directory.

use std::path::{Path, PathBuf};

use lockstep_engine::Millis;

use super::files::{copy, digest, is_within, link_or_copy, make_dir, sync_tree};
use super::{ArchiveFiles, BackupError, Manifest, Progress, TELL_EVERY};
use crate::config::{ARCHIVE_DIR, STATE_FILE};
use crate::seal::Sealer;
use crate::store::sqlite::{Frozen, OpenError, Place, Restored};

/// What is restored, and where to.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The backup.
    pub from: PathBuf,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The directory of the archive; none: it lies in a bucket, and stays as it is.
    pub archive_dir: Option<PathBuf>,
    /// Keep a store that is there aside.
    pub force: bool,
    /// Seals under the hub's key, where that is known: a backup of another hub is told apart.
    pub sealer: Option<Sealer>,
    /// When.
    pub now: Millis,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// Of the backup.
    pub manifest: Manifest,
    /// Where the store that was there is now.
    pub kept_aside: Option<PathBuf>,
    /// Archived tombstones that were put back, and that are missing in the backup.
    pub archive: ArchiveFiles,
    /// The hub's key is another one: the hub will refuse to start with it (LS0224).
    pub another_key: bool,
}

/// Restores a backup. What it puts back is checked before anything changes.
///
/// # Errors
/// When the backup is not sound, a hub runs on the data directory, or a store is there.
pub fn restore(
    options: &RestoreOptions,
    told: &mut dyn FnMut(Progress),
) -> Result<RestoreReport, BackupError> {
    let RestoreOptions { from, data_dir, archive_dir, force, sealer, now } = options;
    let manifest = Manifest::read(from)?;
    told(Progress::Checking);
    let frozen = verify(from, &manifest)?;
    let another_key = match sealer {
        Some(sealer) => !frozen.is_under(sealer)?,
        None => false,
    };
    let place = Place::take(&data_dir.join(STATE_FILE))?;
    if place.is_taken() && !force {
        return Err(BackupError::Occupied { data_dir: data_dir.clone() });
    }
    // Archived tombstones first: a state may not name what is not there.
    let archive = match archive_dir {
        Some(dir) => put_archive(&frozen, &manifest, &from.join(ARCHIVE_DIR), dir, told)?,
        None => ArchiveFiles::default(),
    };
    drop(frozen);
    let arriving = place.arriving();
    let io = |source| BackupError::Write { path: arriving.clone(), source };
    let all = manifest.state.bytes;
    let blake3 =
        copy(&from.join(STATE_FILE), &arriving, &mut |done| told(Progress::State(done, all))).map_err(io)?;
    if blake3 != manifest.state.blake3 {
        let _ = std::fs::remove_file(&arriving);
        return Err(unusable(from, "the state store changed while it was copied".to_owned()));
    }
    let kept_aside = if place.is_taken() { Some(place.keep_aside(*now)?) } else { None };
    place.put(&Restored { at: *now, taken_at: manifest.taken_at_ms })?;
    Ok(RestoreReport { manifest, kept_aside, archive, another_key })
}

fn unusable(path: &Path, why: String) -> BackupError {
    BackupError::Unusable { path: path.to_owned(), why }
}

/// Is the state in the backup the one that was put there, and sound?
fn verify(from: &Path, manifest: &Manifest) -> Result<Frozen, BackupError> {
    let state = from.join(STATE_FILE);
    let (bytes, blake3) =
        digest(&state).map_err(|e| unusable(from, format!("{STATE_FILE} cannot be read: {e}")))?;
    if (bytes, &blake3) != (manifest.state.bytes, &manifest.state.blake3) {
        let why = format!(
            "{STATE_FILE} is not the one that the manifest describes: {bytes} bytes, checksum {blake3}"
        );
        return Err(unusable(from, why));
    }
    let damaged = |error| match error {
        OpenError::Corrupt { why, .. } => unusable(from, format!("{STATE_FILE} is damaged: {why}")),
        error => error.into(),
    };
    let frozen = Frozen::open(&state).map_err(damaged)?;
    frozen.check().map_err(damaged)?;
    let counts = frozen.counted()?;
    if counts != manifest.counts {
        return Err(unusable(from, "the store does not hold what the manifest says".to_owned()));
    }
    Ok(frozen)
}

/// Nothing that is in the archive is taken out of it, or changed.
fn put_archive(
    frozen: &Frozen,
    manifest: &Manifest,
    from: &Path,
    to: &Path,
    told: &mut dyn FnMut(Progress),
) -> Result<ArchiveFiles, BackupError> {
    let mut done = ArchiveFiles::default();
    let all = manifest.archive.files + manifest.archive.missing;
    let io = |path: PathBuf| move |source| BackupError::Write { path, source };
    make_dir(to).map_err(io(to.to_owned()))?;
    frozen.paths(|path| -> Result<(), BackupError> {
        if !is_within(path) {
            done.missing += 1;
            return Ok(());
        }
        let (source, target) = (from.join(path), to.join(path));
        match link_or_copy(&source, &target) {
            Ok(bytes) => {
                done.files += 1;
                done.bytes += bytes;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !source.exists() => {
                // The archive may have kept what the backup never had.
                done.missing += u64::from(!target.exists());
            }
            Err(error) => return Err(io(target)(error)),
        }
        if (done.files + done.missing).is_multiple_of(TELL_EVERY) {
            told(Progress::Archive(done.files + done.missing, all));
        }
        Ok(())
    })?;
    sync_tree(to).map_err(io(to.to_owned()))?;
    told(Progress::Archive(done.files + done.missing, all));
    Ok(done)
}
