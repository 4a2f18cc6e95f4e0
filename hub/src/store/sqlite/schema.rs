//! Versions of the schema. Steps are only ever appended; each has a fixture of the version before it
//! in `hub/fixtures/store`, which a test upgrades.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::before;
use super::open::OpenError;
use super::row::database;

/// `PRAGMA application_id`: "LSTP". Tells our files from others', also for file(1).
pub(super) const APPLICATION_ID: i64 = 0x4c53_5450;

/// Step n leads from version n to n + 1.
const STEPS: &[&str] = &[
    include_str!("v1.sql"),
    include_str!("v2.sql"),
    include_str!("v3.sql"),
    include_str!("v4.sql"),
    include_str!("v5.sql"),
];

/// The version that this build reads and writes.
pub const VERSION: i64 = STEPS.len() as i64;

/// Brings the database at `path` to [`VERSION`], one transaction per step. A copy of what is there is made before.
pub(super) fn migrate(path: &Path, db: &mut Connection) -> Result<(), OpenError> {
    let from = version(db)?;
    if (1..VERSION).contains(&from) {
        let copy = before::keep(path, db, from)?;
        tracing::info!(
            ?copy,
            from,
            to = VERSION,
            "the state store is upgraded; this is its copy from before"
        );
    }
    loop {
        let found = version(db)?;
        let Some(step) = usize::try_from(found).ok().and_then(|n| STEPS.get(n)) else { return Ok(()) };
        let run = || {
            let transaction = Transaction::new_unchecked(db, TransactionBehavior::Immediate)?;
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", found + 1)?;
            transaction.commit()
        };
        run().map_err(database)?;
        tracing::info!(from = found, to = found + 1, "the state store has a new schema version");
    }
}

/// Makes the schema of version 1 in an empty database, as every store began.
pub(super) fn first_step(db: &Connection) -> rusqlite::Result<()> {
    STEPS.first().map_or(Ok(()), |step| {
        let transaction = Transaction::new_unchecked(db, TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.commit()
    })
}

/// A database of this version in memory: what a file of it must have.
pub(super) fn scratch(version: i64) -> rusqlite::Result<Connection> {
    let db = Connection::open_in_memory()?;
    for step in STEPS.iter().take(usize::try_from(version).unwrap_or(0)) {
        db.execute_batch(step)?;
    }
    Ok(db)
}

/// Tables and indices that a database of this version lacks.
pub(super) fn missing(db: &Connection, version: i64) -> Result<Vec<String>, OpenError> {
    let names = |db: &Connection| -> rusqlite::Result<std::collections::BTreeSet<String>> {
        let sql = "SELECT type || ' ' || name FROM sqlite_schema WHERE type IN ('table', 'index')";
        db.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
    };
    let wanted = scratch(version).and_then(|db| names(&db)).map_err(database)?;
    let there = names(db).map_err(database)?;
    Ok(wanted.difference(&there).cloned().collect())
}

/// `PRAGMA user_version`; 0 for a new file.
pub(super) fn version(db: &Connection) -> Result<i64, OpenError> {
    Ok(db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(database)?)
}
