//! Versions of the schema. Steps are only ever appended; each has a fixture of the version before it
//! in `hub/fixtures/store`, which a test upgrades.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::open::OpenError;
use super::row::database;

/// `PRAGMA application_id`: "LSTP". Tells our files from others', also for file(1).
pub(super) const APPLICATION_ID: i64 = 0x4c53_5450;

/// Step n leads from version n to n + 1.
const STEPS: &[&str] = &[include_str!("v1.sql"), include_str!("v2.sql")];

/// The version that this build reads and writes.
pub const VERSION: i64 = STEPS.len() as i64;

/// Brings a database to [`VERSION`], one transaction per step.
pub(super) fn migrate(db: &mut Connection) -> Result<(), OpenError> {
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

/// `PRAGMA user_version`; 0 for a new file.
pub(super) fn version(db: &Connection) -> Result<i64, OpenError> {
    Ok(db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(database)?)
}
