//! Opening: lock, checks, settings of a connection.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::lock::{DirLock, Marker};
use super::row::database;
use super::schema::{APPLICATION_ID, VERSION, migrate, version};
use super::{Inner, Sqlite, SqliteReaders, SqliteStore, Writer};
use crate::codes::Code;
use crate::seal::{Sealer, hex};
use crate::store::StoreError;

/// Codes of the store.
pub const CODES: &[Code] = &[IN_USE, NEWER, FOREIGN, CORRUPT, WRONG_KEY, UNUSABLE];
const IN_USE: Code = Code { code: "LS0220", title: "another process uses the data directory" };
const NEWER: Code = Code { code: "LS0221", title: "the state store was written by a newer version" };
const FOREIGN: Code = Code { code: "LS0222", title: "the file is not a lockstep state store" };
const CORRUPT: Code = Code { code: "LS0223", title: "the state store is damaged" };
const WRONG_KEY: Code = Code { code: "LS0224", title: "the state store was sealed under another key" };
const UNUSABLE: Code = Code { code: "LS0225", title: "the state store cannot be opened" };

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
/// Larger files are not checked whole after a crash: about a second per GiB, and WAL with FULL sync
/// survives crashes. Their small tables, which everything hangs on, are.
const CHECK_WHOLE_UP_TO: u64 = 512 << 20;
const SMALL_TABLES: [&str; 7] =
    ["kinds", "clusters", "watches", "policies", "policy_files", "budgets", "meta"];
/// Mode of the directory and the file: they hold what members' objects say.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// What is sealed to recognise the key.
const SEAL_CHECK: &str = "seal_check";
const SEAL_PLACE: &[u8] = b"meta.seal_check";

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
        "{NEWER}: {path} has schema version {found}, this build knows up to {VERSION}: run the newer version again, or restore the backup from before the upgrade"
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
        "{CORRUPT}: {path} is damaged ({why}): move it away and start again: the hub builds its state anew from the clusters, history is lost; or restore a backup"
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
            Self::Io { .. } | Self::Store(_) => UNUSABLE.code,
        }
    }
}

pub(super) fn open(path: &Path, sealer: Sealer, check: Check) -> Result<SqliteStore, OpenError> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(io(dir))?;
    let lock = DirLock::take(dir)?;
    // Made here for its mode, which SQLite gives the WAL too.
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(io(path))?;
    let mut db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|e| judge(path, e.into()))?;
    recognise(path, &db).map_err(|e| judge(path, e))?;
    let (marker, unclean) = Marker::set(path)?;
    let checked = match check {
        Check::Whole => quick_check(path, &db, u64::MAX),
        Check::AfterCrash if unclean => quick_check(path, &db, CHECK_WHOLE_UP_TO),
        Check::AfterCrash => Ok(()),
    };
    let result = checked.and_then(|()| {
        settle(&mut db).map_err(OpenError::from)?;
        migrate(&mut db)?;
        let mut inner = Inner::new(db, sealer.clone())?;
        check_key(path, &mut inner)?;
        Ok(inner)
    });
    match result {
        Ok(inner) => Ok(Sqlite {
            inner,
            mode: Writer {
                in_transaction: false,
                readers: SqliteReaders { path: path.to_owned(), sealer },
                _clean_stop: marker,
                _lock: lock,
            },
        }),
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
fn judge(path: &Path, error: OpenError) -> OpenError {
    let OpenError::Store(StoreError::Database(source)) = &error else { return error };
    let code = source.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    match code {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            OpenError::Corrupt { path: path.to_owned(), why: source.to_string() }
        }
        _ => error,
    }
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, StoreError> {
    // No mutex of its own: a connection is owned by one thread at a time.
    let db = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(database)?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(database)?;
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

/// Is it ours, and of a version that we know?
fn recognise(path: &Path, db: &Connection) -> Result<(), OpenError> {
    let id: i64 = db.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(database)?;
    let found = version(db)?;
    let tables: i64 =
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(database)?;
    let empty = id == 0 && found == 0 && tables == 0;
    if id != APPLICATION_ID && !empty {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    if found > VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found });
    }
    Ok(())
}

fn quick_check(path: &Path, db: &Connection, whole_up_to: u64) -> Result<(), OpenError> {
    let size =
        std::fs::metadata(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?.len();
    let started = std::time::Instant::now();
    let check = |argument: &str| -> Result<(), OpenError> {
        let answer: String = db
            .query_row(&format!("PRAGMA quick_check({argument})"), [], |row| row.get(0))
            .map_err(database)?;
        if answer == "ok" { Ok(()) } else { Err(OpenError::Corrupt { path: path.to_owned(), why: answer }) }
    };
    if size <= whole_up_to {
        check("1")?;
    } else {
        for table in SMALL_TABLES {
            check(&format!("'{table}'"))?;
        }
    }
    tracing::info!(
        bytes = size,
        took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "the state store was checked"
    );
    Ok(())
}

/// Recognises the hub key by a sealed word; puts one there the first time.
fn check_key(path: &Path, inner: &mut Inner) -> Result<(), OpenError> {
    let sealer = inner.bodies.sealer().clone();
    match inner.meta(SEAL_CHECK)? {
        None => {
            let sealed =
                sealer.seal(SEAL_PLACE, b"lockstep").map_err(|e| StoreError::Database(Box::new(e)))?;
            Ok(inner.put_meta(SEAL_CHECK, &hex(&sealed))?)
        }
        Some(text) => {
            let sealed: Vec<u8> = (0..text.len() / 2)
                .filter_map(|n| u8::from_str_radix(text.get(n * 2..n * 2 + 2)?, 16).ok())
                .collect();
            match sealer.open(SEAL_PLACE, &sealed) {
                Ok(_) => Ok(()),
                Err(_) => Err(OpenError::WrongKey { path: path.to_owned() }),
            }
        }
    }
}
