//! The copy of a store that is made before its schema is upgraded, so that the older version can be run again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::aside::sync_dir;
use super::damage::beside;
use super::open::{FILE_MODE, OpenError};
use super::row::database;

/// Between the store's name and the version, in the name of a copy: `state.db.v4`.
const COPY: &str = ".v";
/// Ending of the name of a copy that is not complete.
const COPYING: &str = "-copying";

/// Where the copy of a store of that version is.
pub(super) fn place(path: &Path, version: i64) -> PathBuf {
    beside(path, &format!("{COPY}{version}"))
}

/// Copies a store of version `from` beside itself, durably; copies of earlier versions go. A crash leaves the
/// store as it was, and the next start copies again.
pub(super) fn keep(path: &Path, db: &Connection, from: i64) -> Result<PathBuf, OpenError> {
    let (to, copying) = (place(path, from), beside(path, &format!("{COPY}{from}{COPYING}")));
    let io = |source| OpenError::NotCopied { path: to.clone(), source: Box::new(source) };
    match std::fs::remove_file(&copying) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    // SQLite writes into an empty file that exists. Made here for its mode.
    OpenOptions::new().create_new(true).write(true).mode(FILE_MODE).open(&copying).map_err(io)?;
    if let Err(error) = db.execute("VACUUM INTO ?1", [copying.to_string_lossy()]) {
        // What it wrote takes room that is missing, perhaps.
        let _ = std::fs::remove_file(&copying);
        return Err(OpenError::NotCopied { path: to, source: Box::new(database(error)) });
    }
    File::open(&copying).and_then(|file| file.sync_all()).map_err(io)?;
    std::fs::rename(&copying, &to).map_err(io)?;
    sync_dir(path)?;
    for earlier in 1..from {
        // One that stays behind takes room, and does no other harm.
        let _ = std::fs::remove_file(place(path, earlier));
    }
    Ok(to)
}
