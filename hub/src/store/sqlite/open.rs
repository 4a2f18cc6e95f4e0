//! Opening: lock, checks, settings of a connection.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_engine::Millis;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::aside::{self, Aside};
use super::before;
use super::check::{check_key, examine, recognise};
use super::damage::Damage;
use super::lock::{DirLock, Marker};
use super::row::database;
use super::salvage::{of_another_key, salvage};
use super::schema::{VERSION, migrate};
use super::{Inner, REBUILT, Rebuilt, Sqlite, SqliteReaders, SqliteStore, Writer};
use crate::codes::Code;
use crate::seal::Sealer;
use crate::store::StoreError;

/// Codes of the store.
pub const CODES: &[Code] = &[IN_USE, NEWER, FOREIGN, CORRUPT, WRONG_KEY, UNUSABLE, WAS_REBUILT, DAMAGED];
const IN_USE: Code = Code { code: "LS0220", title: "another process uses the data directory" };
const NEWER: Code = Code { code: "LS0221", title: "the state store was written by a newer version" };
const FOREIGN: Code = Code { code: "LS0222", title: "the file is not a lockstep state store" };
const CORRUPT: Code = Code { code: "LS0223", title: "the state store is damaged" };
const WRONG_KEY: Code = Code { code: "LS0224", title: "the state store was sealed under another key" };
const UNUSABLE: Code = Code { code: "LS0225", title: "the state store cannot be opened" };
pub(crate) const WAS_REBUILT: Code =
    Code { code: "LS0226", title: "the state store was damaged and is built anew" };
pub(super) const DAMAGED: Code =
    Code { code: "LS0227", title: "the state store was found damaged while it was in use" };

/// How long a connection waits for another one. Only a checkpoint or a person with sqlite3 can hold
/// the writer up; longer than this, and it is an error that is tried again.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Page cache of the writer, KiB: the inner pages of all indices at 1,000,000 objects.
const WRITER_CACHE_KIB: i64 = 64 << 10;
/// Page cache of each reader, KiB: they also have the map.
const READER_CACHE_KIB: i64 = 8 << 10;
/// Bytes of the file that are read through a map instead of copied into a cache. Pages of it are the
/// system's to take back (I14).
const MMAP_BYTES: i64 = 256 << 20;
/// Pages in the WAL before they are copied into the file: 32 MiB. Every checkpoint is two fsyncs and
/// writes each page once, however often it was in the WAL.
const CHECKPOINT_PAGES: i64 = 8192;
/// A WAL that grew beyond this (while a reader was slow) is cut back.
const WAL_LIMIT_BYTES: i64 = 128 << 20;
/// Statements kept prepared: more than there are.
const STATEMENTS: usize = 128;
/// Mode of the directory and the file: they hold what members' objects say.
const DIR_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o600;

/// When the file is checked while it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// After a stop that was not clean.
    AfterCrash,
    /// Always, and whole, whatever its size.
    Whole,
}

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the lock.
    #[error(
        "{IN_USE}: another process uses the data directory {dir}: stop it, or give this hub a data directory of its own"
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// A downgrade.
    #[error(
        "{NEWER}: {path} has schema version {found}, this build knows up to {VERSION}: run the newer version again; to go back for good, put the copy from before the upgrade ({copy}) in its place (LS0221 says how)",
        copy = copy_of(path)
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// An SQLite file of something else.
    #[error("{FOREIGN}: {path} is a database of another program: give another data directory")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Found damaged.
    #[error(
        "{CORRUPT}: {path} is damaged ({why}): check the disk, then restore a backup or move the file away; without it the hub builds its state anew from the clusters, and history is lost"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        why: String,
    },
    /// Another hub key.
    #[error(
        "{WRONG_KEY}: {path} was sealed under another hub key: give the key that belongs to it; without it, start with an empty data directory"
    )]
    WrongKey {
        /// The file.
        path: PathBuf,
    },
    /// No copy could be made before an upgrade.
    #[error(
        "{UNUSABLE}: the state store cannot be copied to {path} before its upgrade: make room for as much as the store takes, and start again; the store was not changed"
    )]
    NotCopied {
        /// The copy.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file beside it cannot be made or opened.
    #[error("{UNUSABLE}: {path}: check that it exists, and that the hub may write there")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database refused.
    #[error(
        "{UNUSABLE}: the state store cannot be opened: check the disk and the permissions of the data directory"
    )]
    Store(#[from] StoreError),
}

impl OpenError {
    /// The error's code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InUse { .. } => IN_USE.code,
            Self::Newer { .. } => NEWER.code,
            Self::Foreign { .. } => FOREIGN.code,
            Self::Corrupt { .. } => CORRUPT.code,
            Self::WrongKey { .. } => WRONG_KEY.code,
            Self::NotCopied { .. } | Self::Io { .. } | Self::Store(_) => UNUSABLE.code,
        }
    }
}

/// The copy that the last upgrade made, in words.
fn copy_of(path: &Path) -> String {
    let copy = (1..=VERSION).rev().map(|version| before::place(path, version)).find(|copy| copy.exists());
    copy.map_or("none is there".to_owned(), |copy| copy.display().to_string())
}

/// Opens the store or makes one.
pub(super) fn open(path: &Path, sealer: Sealer, check: Check) -> Result<SqliteStore, OpenError> {
    let lock = lock(path)?;
    if let Some(Aside { why, .. }) = aside::unfinished(path)? {
        return Err(OpenError::Corrupt { path: path.to_owned(), why });
    }
    let (inner, marker) = open_file(path, &sealer, check)?;
    Ok(assemble(path, inner, marker, sealer, lock))
}

/// Opens the store or makes one. A damaged one is kept aside, and what can be read of it begins the
/// new one.
pub(super) fn open_or_rebuild(path: &Path, sealer: Sealer, now: Millis) -> Result<SqliteStore, OpenError> {
    let lock = lock(path)?;
    let aside = match aside::unfinished(path)? {
        Some(aside) => aside,
        None => match open_file(path, &sealer, Check::AfterCrash) {
            Ok((inner, marker)) => return Ok(assemble(path, inner, marker, sealer, lock)),
            Err(OpenError::Corrupt { why, .. }) => {
                if of_another_key(path, &sealer) {
                    return Err(OpenError::WrongKey { path: path.to_owned() });
                }
                aside::begin(path, why, now)?
            }
            Err(error) => return Err(error),
        },
    };
    let (inner, marker) = rebuild(path, &sealer, &aside)?;
    Ok(assemble(path, inner, marker, sealer, lock))
}

/// A new store in the place of a damaged one.
fn rebuild(path: &Path, sealer: &Sealer, aside: &Aside) -> Result<(Inner, Marker), OpenError> {
    let Aside { file, why, at } = aside;
    tracing::error!(
        "{WAS_REBUILT}: the state store {path:?} is damaged ({why}): it is kept as {file}, what can be read of it is taken over, and the rest is told anew by the clusters"
    );
    aside::clear(path, aside)?;
    let (mut inner, marker) = open_file(path, sealer, Check::AfterCrash)?;
    let mut fill = || -> Result<Rebuilt, StoreError> {
        inner.db.execute_batch("BEGIN IMMEDIATE").map_err(database)?;
        let salvaged = salvage(&aside.path(path), &mut inner)?;
        let rebuilt = Rebuilt { at: *at, aside: file.clone(), why: why.clone(), salvaged };
        let text = serde_json::to_string(&rebuilt).unwrap_or_default();
        inner.put_meta(REBUILT, &text)?;
        inner.db.execute_batch("COMMIT").map_err(database)?;
        Ok(rebuilt)
    };
    let Rebuilt { salvaged, .. } = fill()?;
    aside::finish(path)?;
    tracing::error!(?salvaged, "{WAS_REBUILT}: the state store was built anew");
    Ok((inner, marker))
}

pub(super) fn lock(path: &Path) -> Result<DirLock, OpenError> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let io = |source| OpenError::Io { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(io)?;
    DirLock::take(dir)
}

fn assemble(path: &Path, inner: Inner, marker: Marker, sealer: Sealer, lock: DirLock) -> SqliteStore {
    let readers = SqliteReaders { path: path.to_owned(), sealer, damage: inner.damage.clone() };
    let mode = Writer {
        in_transaction: false,
        readers,
        #[cfg(any(test, feature = "simulation"))]
        max_pages: super::PageLimit::default(),
        _clean_stop: marker,
        _lock: lock,
    };
    Sqlite { inner, mode }
}

fn open_file(path: &Path, sealer: &Sealer, check: Check) -> Result<(Inner, Marker), OpenError> {
    // Made here for its mode, which SQLite gives the WAL too.
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let mut db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|e| judge(path, e.into()))?;
    // A file that is not to be relied on is left as it is, and so is its log.
    let keep_log = |db: &Connection, keep| {
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map(drop).map_err(database)
    };
    keep_log(&db, true)?;
    recognise(path, &db).map_err(|e| judge(path, e))?;
    let (marker, unclean) = Marker::set(path)?;
    let result = examine(path, &db, unclean, check).and_then(|()| {
        settle(&mut db).map_err(OpenError::from)?;
        migrate(path, &mut db)?;
        let mut inner = Inner::new(db, sealer.clone(), Damage::of(path))?;
        check_key(path, &mut inner)?;
        keep_log(&inner.db, false)?;
        Ok(inner)
    });
    match result {
        Ok(inner) => Ok((inner, marker)),
        Err(error) => {
            if unclean {
                // The next start is to check again.
                std::mem::forget(marker);
            }
            Err(judge(path, error))
        }
    }
}

/// SQLite notices damage wherever it reads.
pub(super) fn judge(path: &Path, error: OpenError) -> OpenError {
    match error {
        OpenError::Store(StoreError::Damaged(why)) => OpenError::Corrupt { path: path.to_owned(), why },
        error => error,
    }
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, StoreError> {
    // No mutex of its own: a connection is owned by one thread at a time.
    let db = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(database)?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(database)?;
    // Without it SQLite plans a prepared statement anew whenever a parameter that its statistics could speak of is bound
    // to another value: it took more than running the statement. No plan of ours depends on a value.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(database)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(db)
}

/// A connection of [`super::SqliteReader`].
pub(super) fn connect_reader(path: &Path) -> Result<Connection, StoreError> {
    // Read-write as a file: a reader of a WAL takes part in its index. query_only refuses writes.
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let set = || {
        db.pragma_update(None, "query_only", true)?;
        db.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        common(&db)
    };
    set().map_err(database)?;
    Ok(db)
}

fn common(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update_and_check(None, "mmap_size", MMAP_BYTES, |_| Ok(()))?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "foreign_keys", false)?;
    db.pragma_update(None, "trusted_schema", false)
}

/// Settings of the writer. Journal mode is kept in the file, the others are not.
fn settle(db: &mut Connection) -> Result<(), StoreError> {
    let set = || {
        db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        // FULL: in WAL mode a commit is one fsync of the WAL, and durable.
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        db.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
        db.pragma_update_and_check(None, "journal_size_limit", WAL_LIMIT_BYTES, |_| Ok(()))?;
        common(db)
    };
    set().map_err(database)
}
