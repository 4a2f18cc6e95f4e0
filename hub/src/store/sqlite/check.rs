//! Is the file ours, whole, and under our key?

use std::path::Path;

use rusqlite::Connection;

use super::damage;
use super::open::{Check, OpenError};
use super::row::database;
use super::schema::{self, APPLICATION_ID, VERSION, version};
use super::{Inner, StoreError};
use crate::seal::{Sealer, hex};

/// Larger files are not checked whole after a crash: WAL with FULL sync survives crashes, and the
/// check took 0.56 s for 509 MiB (two cores, the file in memory), which is also why it is not made
/// after a clean stop. Their small tables, which everything hangs on, are checked.
const CHECK_WHOLE_UP_TO: u64 = 512 << 20;
const SMALL_TABLES: [&str; 7] =
    ["kinds", "clusters", "watches", "policies", "policy_files", "budgets", "meta"];

/// What is sealed to recognise the key.
pub(super) const SEAL_CHECK: &str = "seal_check";
const SEAL_PLACE: &[u8] = b"meta.seal_check";
const SEAL_WORD: &[u8] = b"lockstep";

/// Is it ours, of a version that we know, and with every table of it?
pub(super) fn recognise(path: &Path, db: &Connection) -> Result<(), OpenError> {
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
    match schema::missing(db, found)?.as_slice() {
        [] => Ok(()),
        missing => {
            let why = format!("it lacks {}", missing.join(", "));
            Err(OpenError::Corrupt { path: path.to_owned(), why })
        }
    }
}

/// Looks at the pages, as far as there is reason to.
pub(super) fn examine(path: &Path, db: &Connection, unclean: bool, check: Check) -> Result<(), OpenError> {
    match damage::noted(path) {
        Some(why) if damage::suspected(path) => {
            let why = format!("{why}; it was met twice, though a check found nothing");
            return Err(OpenError::Corrupt { path: path.to_owned(), why });
        }
        Some(why) => {
            look(path, db, "integrity_check", u64::MAX)?;
            tracing::warn!("damage was met in the state store ({why}), and a check finds none: it goes on");
            return damage::suspect(path);
        }
        None => damage::acquit(path),
    }
    match check {
        Check::Whole => look(path, db, "quick_check", u64::MAX),
        Check::AfterCrash if unclean => look(path, db, "quick_check", CHECK_WHOLE_UP_TO),
        Check::AfterCrash => Ok(()),
    }
}

/// One pass of SQLite's own check, over the whole file or its small tables.
pub(super) fn look(path: &Path, db: &Connection, pragma: &str, whole_up_to: u64) -> Result<(), OpenError> {
    let size =
        std::fs::metadata(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?.len();
    let started = std::time::Instant::now();
    let check = |argument: &str| -> Result<(), OpenError> {
        let answer: String =
            db.query_row(&format!("PRAGMA {pragma}({argument})"), [], |row| row.get(0)).map_err(database)?;
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
pub(super) fn check_key(path: &Path, inner: &mut Inner) -> Result<(), OpenError> {
    let sealer = inner.bodies.sealer().clone();
    match inner.meta(SEAL_CHECK)? {
        None => {
            let sealed = sealer.seal(SEAL_PLACE, SEAL_WORD).map_err(|e| StoreError::Database(Box::new(e)))?;
            Ok(inner.put_meta(SEAL_CHECK, &hex(&sealed))?)
        }
        Some(text) if opens(&sealer, &text) => Ok(()),
        Some(_) => Err(OpenError::WrongKey { path: path.to_owned() }),
    }
}

/// Does this key open what was sealed to recognise the key?
pub(super) fn opens(sealer: &Sealer, text: &str) -> bool {
    let sealed: Vec<u8> = (0..text.len() / 2)
        .filter_map(|n| u8::from_str_radix(text.get(n * 2..n * 2 + 2)?, 16).ok())
        .collect();
    sealer.open(SEAL_PLACE, &sealed).is_ok()
}
