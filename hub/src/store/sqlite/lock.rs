//! One process per data directory, and whether the last one stopped cleanly.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::open::OpenError;

/// Name of the lock file in the data directory.
const LOCK_FILE: &str = "lock";

/// Holds the advisory lock; the system releases it with the process, however that ends.
pub(super) struct DirLock(#[allow(dead_code)] File);

impl DirLock {
    pub(super) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(LOCK_FILE);
        let io = |source| OpenError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {
                // For people who look; nothing reads it, and on a full disk it is left out.
                let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                Ok(Self(file))
            }
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }
}

/// A file that exists while the store is open: found at the start, the last stop was not clean.
pub(super) struct Marker(PathBuf);

impl Marker {
    /// The marker of a database, and whether one was left behind.
    pub(super) fn set(database: &Path) -> Result<(Self, bool), OpenError> {
        let mut name = database.as_os_str().to_owned();
        name.push("-running");
        let path = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(_) => Ok((Self(path), false)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok((Self(path), true)),
            Err(source) => Err(OpenError::Io { path, source }),
        }
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        // While a panic unwinds the stop is not clean. A marker that stays costs one check.
        if !std::thread::panicking() {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
