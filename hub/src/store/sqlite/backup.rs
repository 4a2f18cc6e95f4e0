//! The database part of backup and restore: a copy of a store that may be in use, what a copy holds,
//! and putting one into a data directory.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_engine::Millis;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, params};
use serde::{Deserialize, Serialize};

use super::aside::{self, compact, sync_dir};
use super::check::{look, opens, recognise};
use super::damage::beside;
use super::lock::DirLock;
use super::open::{self, FILE_MODE, OpenError, judge};
use super::row::database;
use super::schema::version;
use crate::seal::Sealer;
use crate::store::StoreError;

/// Pages copied between two looks at the progress: 16 MiB.
const STEP_PAGES: i32 = 4096;
/// A hub that writes its log back into the file is waited for.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// How often in a row.
const BUSY_TRIES: u32 = 500;
/// Value of the setting `paused` while a restored hub waits until it has caught up.
pub const SETTLING: &str = "restored";
/// Name of the setting that tells of a restore.
const RESTORED: &str = "restored";
/// In the name of a store that gave way to a restored one.
const REPLACED: &str = ".replaced-";
/// Ending of the name of a database on its way into its place.
const ARRIVING: &str = "-restoring";

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// Member clusters.
    pub clusters: u64,
    /// Watches, each with its checkpoint.
    pub watches: u64,
    /// Objects.
    pub objects: u64,
    /// Objects at targets.
    pub placements: u64,
    /// Policies.
    pub policies: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Tombstones that the archive did not have yet: their bodies are in the store.
    pub outbox: u64,
}

/// A restore, as the restored store remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// When it was restored.
    pub at: Millis,
    /// When the backup was made.
    pub taken_at: Millis,
}

/// Copies a store, also while a hub works on it: one state of it, as of the beginning.
///
/// # Errors
/// When there is none, when it is not ours or damaged, or when the copy cannot be written.
pub fn snapshot(from: &Path, to: &Path, told: &mut dyn FnMut(u64, u64)) -> Result<i64, OpenError> {
    if !from.exists() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(OpenError::Io { path: from.to_owned(), source });
    }
    if let Some(aside) = aside::unfinished(from)? {
        return Err(OpenError::Corrupt { path: from.to_owned(), why: aside.why });
    }
    let source = open::connect_reader(from).map_err(|e| judge(from, e.into()))?;
    recognise(from, &source).map_err(|e| judge(from, e))?;
    let schema = version(&source)?;
    let io = |source| OpenError::Io { path: to.to_owned(), source };
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(to).map_err(io)?;
    copy(&source, to, told).map_err(|e| judge(from, e.into()))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(io)?;
    Ok(schema)
}

fn copy(source: &Connection, to: &Path, told: &mut dyn FnMut(u64, u64)) -> Result<(), StoreError> {
    // One transaction around all steps: what is written meanwhile goes to the log, and would otherwise
    // make the copy begin again, for ever beside a busy hub.
    source.execute_batch("BEGIN").map_err(database)?;
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(database)?;
    let mut target = Connection::open(to).map_err(database)?;
    {
        let backup = Backup::new(source, &mut target).map_err(database)?;
        let mut busy = 0;
        loop {
            let step = backup.step(STEP_PAGES).map_err(database)?;
            let progress = backup.progress();
            let total = u64::try_from(progress.pagecount).unwrap_or(0);
            told(total.saturating_sub(u64::try_from(progress.remaining).unwrap_or(0)), total);
            match step {
                StepResult::Done => break,
                StepResult::More => busy = 0,
                _ if busy < BUSY_TRIES => {
                    busy += 1;
                    std::thread::sleep(BUSY_PAUSE);
                }
                _ => return Err(StoreError::Database("the database stays locked".into())),
            }
        }
    }
    source.execute_batch("ROLLBACK").map_err(database)?;
    target.close().map_err(|(_, error)| database(error))
}

/// A copy that nobody writes to.
pub struct Frozen {
    path: PathBuf,
    db: Connection,
}

impl Frozen {
    /// Opens a copy; makes no files beside it.
    ///
    /// # Errors
    /// When it is not a store of ours, of a newer version, or damaged.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let mut uri = "file:".to_owned();
        for byte in
            std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).as_os_str().as_encoded_bytes()
        {
            use std::fmt::Write;
            // Writing to a String does not fail.
            let _ = match byte {
                b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                    write!(uri, "{}", char::from(*byte))
                }
                other => write!(uri, "%{other:02X}"),
            };
        }
        uri.push_str("?immutable=1");
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(uri, flags).map_err(|e| judge(path, database(e).into()))?;
        recognise(path, &db).map_err(|e| judge(path, e))?;
        Ok(Self { path: path.to_owned(), db })
    }

    /// Its schema version.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn schema(&self) -> Result<i64, OpenError> {
        version(&self.db)
    }

    /// Every page, and every index against its table.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(&self) -> Result<(), OpenError> {
        look(&self.path, &self.db, "integrity_check", u64::MAX).map_err(|e| judge(&self.path, e))
    }

    /// Was it sealed under this key?
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_under(&self, sealer: &Sealer) -> Result<bool, StoreError> {
        let sql = "SELECT value FROM meta WHERE name = ?1";
        let text: Option<String> = self
            .db
            .query_row(sql, [super::check::SEAL_CHECK], |row| row.get(0))
            .map(Some)
            .or_else(|e| if e == rusqlite::Error::QueryReturnedNoRows { Ok(None) } else { Err(e) })
            .map_err(database)?;
        Ok(text.is_none_or(|text| opens(sealer, &text)))
    }

    /// How much it holds.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn counted(&self) -> Result<Counted, StoreError> {
        let count = |what: &str| -> Result<u64, StoreError> {
            let sql = format!("SELECT count(*) FROM {what}");
            self.db.query_row(&sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned).map_err(database)
        };
        Ok(Counted {
            clusters: count("clusters")?,
            watches: count("watches")?,
            objects: count("objects")?,
            placements: count("placements")?,
            policies: count("policies")?,
            tombstones: count("tombstones")?,
            outbox: count("tombstones WHERE body IS NOT NULL")?,
        })
    }

    /// Paths in the archive that it names, in the order in which they came there.
    ///
    /// # Errors
    /// When it cannot be read, or the visitor refuses.
    pub fn paths<E: From<StoreError>>(&self, mut visit: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let sql = "SELECT path FROM tombstones WHERE path IS NOT NULL ORDER BY id";
        let mut statement = self.db.prepare(sql).map_err(|e| E::from(database(e)))?;
        let mut rows = statement.query([]).map_err(|e| E::from(database(e)))?;
        while let Some(row) = rows.next().map_err(|e| E::from(database(e)))? {
            let path = row.get_ref(0).ok().and_then(|value| value.as_str().ok());
            visit(path.unwrap_or_default())?;
        }
        Ok(())
    }
}

/// The place of a store, held against hubs while something is put there.
pub struct Place {
    database: PathBuf,
    _lock: DirLock,
}

impl Place {
    /// Holds it.
    ///
    /// # Errors
    /// When a hub runs there, or the directory cannot be used.
    pub fn take(database: &Path) -> Result<Self, OpenError> {
        Ok(Self { _lock: open::lock(database)?, database: database.to_owned() })
    }

    /// Is there a store, or what is left of one?
    #[must_use]
    pub fn is_taken(&self) -> bool {
        ["", "-wal", "-rebuild"].iter().any(|part| beside(&self.database, part).exists())
    }

    /// Keeps what is there under another name, which it answers.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn keep_aside(&self, now: Millis) -> Result<PathBuf, OpenError> {
        let database = &self.database;
        let kept = beside(database, &format!("{REPLACED}{}", compact(now)));
        for part in ["-wal", "-shm", ""] {
            let (from, to) = (beside(database, part), beside(&kept, part));
            match std::fs::rename(&from, to) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(OpenError::Io { path: from, source });
                }
                _ => {}
            }
        }
        aside::abandon(database);
        let _ = std::fs::remove_file(beside(database, "-running"));
        sync_dir(database)?;
        Ok(kept)
    }

    /// Where a database is to be written before [`Self::put`].
    #[must_use]
    pub fn arriving(&self) -> PathBuf {
        beside(&self.database, ARRIVING)
    }

    /// Makes what was written there the store of this place.
    ///
    /// # Errors
    /// When it cannot be changed or moved.
    pub fn put(&self, restored: &Restored) -> Result<(), OpenError> {
        let arriving = self.arriving();
        adopt(&arriving, restored).map_err(|e| judge(&arriving, e.into()))?;
        let io = |source| OpenError::Io { path: arriving.clone(), source };
        File::open(&arriving).and_then(|file| file.sync_all()).map_err(io)?;
        std::fs::rename(&arriving, &self.database).map_err(io)?;
        sync_dir(&self.database)
    }
}

/// A store from the past does not go on with the sessions of today.
fn adopt(path: &Path, restored: &Restored) -> Result<(), StoreError> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(database)?;
    let change = || -> rusqlite::Result<()> {
        db.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.execute_batch("BEGIN IMMEDIATE")?;
        // Agents are ahead of it: each starts anew from the checkpoints that are here.
        db.execute("UPDATE clusters SET instance = '', committed = 0", [])?;
        let closed = "UPDATE clusters SET disconnected_at = ?1 \
                      WHERE disconnected_at IS NULL AND connected_at IS NOT NULL";
        db.execute(closed, [restored.at])?;
        // A copy may have been made anew since, with another uid: the marks on it decide whose it is.
        db.execute("UPDATE placements SET written_uid = NULL WHERE written_uid IS NOT NULL", [])?;
        end_restores(&db, restored.at)?;
        let set =
            "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
        let text = serde_json::to_string(restored).unwrap_or_default();
        db.execute(set, params![RESTORED, text])?;
        // Nothing is written to clusters before what happened since has been read. A pause that was
        // there stays one.
        db.execute(&format!("{set} WHERE value <> 'true'"), params!["paused", SETTLING])?;
        db.execute_batch("COMMIT")
    };
    change().map_err(database)?;
    db.close().map_err(|(_, error)| database(error))
}

/// Restores of objects that were under way when the backup was made: what a person wanted then, nobody
/// may want now.
fn end_restores(db: &Connection, at: Millis) -> rusqlite::Result<()> {
    let known = "SELECT count(*) FROM sqlite_master WHERE name = 'restores'";
    if db.query_row(known, [], |row| row.get::<_, i64>(0))? == 0 {
        // A backup of before there were any.
        return Ok(());
    }
    let unwritten = "UPDATE restore_items SET state = 2, message = 'the hub was restored from a backup meanwhile' \
                     WHERE state = 0";
    db.execute(unwritten, [])?;
    db.execute("UPDATE restores SET ended_at = ?1 WHERE ended_at IS NULL", [at]).map(drop)
}
