//! Keeps a damaged store aside, so that a new one can be built in its place.
//!
//! A crash may come at any point. A note beside the file, written first and removed last, names the
//! place: while it is there, a database at that place is the damaged one, and one in the store's own
//! place is not complete and is built again from the beginning.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use lockstep_engine::Millis;
use serde::{Deserialize, Serialize};

use super::damage::{self, beside};
use super::open::OpenError;

/// Ending of the note's name.
const NOTE: &str = "-rebuild";
/// Between the store's name and the time, in the name of a store that is kept aside.
pub(super) const CORRUPT: &str = ".corrupt-";
/// What SQLite keeps beside a database. The database itself comes last: once it was moved, what
/// stands beside the old place is the new one's.
const PARTS: [&str; 3] = ["-wal", "-shm", ""];
/// So many stores kept aside within [`LATELY_MS`] mean that it is not the store that is broken.
const TOO_MANY: usize = 3;
/// An hour.
const LATELY_MS: i64 = 60 * 60 * 1000;

/// A damaged store and why it was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Aside {
    /// Name in the data directory.
    pub(super) file: String,
    /// What was found.
    pub(super) why: String,
    /// When.
    pub(super) at: Millis,
}

impl Aside {
    pub(super) fn path(&self, database: &Path) -> PathBuf {
        database.with_file_name(&self.file)
    }
}

/// A store that was set aside by a process that did not live to build the new one.
pub(super) fn unfinished(database: &Path) -> Result<Option<Aside>, OpenError> {
    let note = beside(database, NOTE);
    match std::fs::read(&note) {
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(aside) => Ok(Some(aside)),
            Err(why) => Err(OpenError::Io { path: note, source: std::io::Error::other(why) }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { path: note, source }),
    }
}

/// Notes that the store is given up, and under which name it is kept.
pub(super) fn begin(database: &Path, why: String, now: Millis) -> Result<Aside, OpenError> {
    let name = database.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kept = kept(database);
    // Names sort as their times do.
    let hour_ago = format!("{name}{CORRUPT}{}", compact(now - LATELY_MS));
    let lately = kept.iter().filter(|file| **file > hour_ago).count();
    if lately >= TOO_MANY {
        let why = format!(
            "{why}; {lately} stores were kept aside within an hour, so the disk is not to be trusted"
        );
        return Err(OpenError::Corrupt { path: database.to_owned(), why });
    }
    let stem = format!("{name}{CORRUPT}{}", compact(now));
    let file = std::iter::once(stem.clone())
        .chain((2..).map(|n| format!("{stem}-{n}")))
        .find(|file| !kept.contains(file))
        .unwrap_or(stem);
    let aside = Aside { file, why, at: now };
    let note = beside(database, NOTE);
    let io = |source| OpenError::Io { path: note.clone(), source };
    // A structure of two texts and a number always serialises.
    let text = serde_json::to_vec(&aside).unwrap_or_default();
    // Written beside and renamed: half a note would be no note.
    let half = beside(database, "-rebuild.tmp");
    let mut file = File::create(&half).map_err(io)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(io)?;
    std::fs::rename(&half, &note).map_err(io)?;
    sync_dir(database)?;
    Ok(aside)
}

/// Moves what is not moved yet, and takes away what was begun in its place.
pub(super) fn clear(database: &Path, aside: &Aside) -> Result<(), OpenError> {
    damage::acquit(database);
    let kept = aside.path(database);
    let moved = kept.exists();
    for part in PARTS {
        let (from, to) = (beside(database, part), beside(&kept, part));
        let result = if moved { std::fs::remove_file(&from) } else { std::fs::rename(&from, &to) };
        match result {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(OpenError::Io { path: from, source });
            }
            _ => {}
        }
    }
    sync_dir(database)
}

/// The new store is complete.
pub(super) fn finish(database: &Path) -> Result<(), OpenError> {
    let note = beside(database, NOTE);
    std::fs::remove_file(&note).map_err(|source| OpenError::Io { path: note, source })?;
    sync_dir(database)
}

/// A store came from elsewhere: what was begun is of no use any more.
pub(super) fn abandon(database: &Path) {
    damage::acquit(database);
    let _ = std::fs::remove_file(beside(database, NOTE));
}

/// Names of the stores that are kept aside in this directory, oldest first.
pub(super) fn kept(database: &Path) -> Vec<String> {
    let (Some(dir), Some(name)) = (database.parent(), database.file_name()) else { return Vec::new() };
    let prefix = format!("{}{CORRUPT}", name.to_string_lossy());
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&prefix) && !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    found.sort();
    found
}

/// `20260102T030405Z`.
pub(super) fn compact(at: Millis) -> String {
    let text: String =
        lockstep_engine::rfc3339::write(at).chars().filter(|c| !matches!(c, '-' | ':')).collect();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

pub(super) fn sync_dir(database: &Path) -> Result<(), OpenError> {
    let dir = match database.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let io = |source| OpenError::Io { path: dir.to_owned(), source };
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_the_time_in_utc() {
        assert_eq!(compact(1_767_323_045_123), "20260102T030405Z");
    }

    #[test]
    fn a_crash_between_the_moves_is_taken_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("state.db");
        for part in ["", "-wal", "-shm"] {
            std::fs::write(beside(&database, part), format!("old{part}")).unwrap();
        }
        let aside = begin(&database, "torn".to_owned(), 1_767_323_045_123).unwrap();
        let kept_at = aside.path(&database);
        // The log was moved, and then it died.
        std::fs::rename(beside(&database, "-wal"), beside(&kept_at, "-wal")).unwrap();
        let again = unfinished(&database).unwrap().unwrap();
        assert_eq!(again, aside);
        clear(&database, &again).unwrap();
        for part in ["", "-wal", "-shm"] {
            assert_eq!(std::fs::read_to_string(beside(&kept_at, part)).unwrap(), format!("old{part}"));
        }
        // A new one was begun, and it died again: the half goes, the old one stays.
        std::fs::write(&database, "half").unwrap();
        std::fs::write(beside(&database, "-wal"), "half").unwrap();
        clear(&database, &again).unwrap();
        assert!(!database.exists() && !beside(&database, "-wal").exists());
        assert_eq!(std::fs::read_to_string(&kept_at).unwrap(), "old");
        finish(&database).unwrap();
        assert_eq!(unfinished(&database).unwrap(), None);
        assert_eq!(kept(&database), ["state.db.corrupt-20260102T030405Z"]);
    }

    #[test]
    fn a_disk_that_breaks_one_store_after_the_other_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("state.db");
        let now = 1_767_323_045_000;
        for n in 0..3 {
            std::fs::write(&database, "x").unwrap();
            let aside = begin(&database, "torn".to_owned(), now + n).unwrap();
            clear(&database, &aside).unwrap();
            finish(&database).unwrap();
        }
        assert_eq!(kept(&database).len(), 3, "each has a name of its own");
        let refused = begin(&database, "torn".to_owned(), now + 1000).unwrap_err();
        assert!(refused.code() == "LS0223" && refused.to_string().contains("the disk"), "{refused}");
        begin(&database, "torn".to_owned(), now + LATELY_MS + 1000).unwrap();
    }
}
