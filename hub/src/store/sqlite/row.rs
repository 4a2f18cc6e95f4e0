//! Reading columns: every failure becomes a [`StoreError::Row`] that names the table, never a value.

use bytes::Bytes;
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, Params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::StoreError;

/// A row under the cursor.
pub(super) struct Columns<'a> {
    table: &'static str,
    row: &'a rusqlite::Row<'a>,
}

impl<'a> Columns<'a> {
    pub(super) fn bad(&self, column: usize, why: &str) -> StoreError {
        let name = self.row.as_ref().column_name(column).unwrap_or("?");
        StoreError::Row { table: self.table, why: format!("column {name}: {why}") }
    }

    fn value(&self, column: usize) -> Result<ValueRef<'a>, StoreError> {
        self.row.get_ref(column).map_err(database)
    }

    fn unexpected(&self, column: usize, wanted: &str, got: Type) -> StoreError {
        self.bad(column, &format!("{wanted} expected, {got} found"))
    }

    pub(super) fn opt_int(&self, column: usize) -> Result<Option<i64>, StoreError> {
        match self.value(column)? {
            ValueRef::Integer(n) => Ok(Some(n)),
            ValueRef::Null => Ok(None),
            other => Err(self.unexpected(column, "an integer", other.data_type())),
        }
    }

    pub(super) fn int(&self, column: usize) -> Result<i64, StoreError> {
        self.opt_int(column)?.ok_or_else(|| self.bad(column, "missing"))
    }

    /// Stored as the i64 of the same bits.
    pub(super) fn u64(&self, column: usize) -> Result<u64, StoreError> {
        self.int(column).map(i64::cast_unsigned)
    }

    pub(super) fn u32(&self, column: usize) -> Result<u32, StoreError> {
        u32::try_from(self.int(column)?).map_err(|_| self.bad(column, "out of range"))
    }

    pub(super) fn bool(&self, column: usize) -> Result<bool, StoreError> {
        Ok(self.int(column)? != 0)
    }

    /// A value of an enum by its ordinal.
    pub(super) fn ordinal<T: Copy>(&self, column: usize, all: &[T]) -> Result<T, StoreError> {
        usize::try_from(self.int(column)?)
            .ok()
            .and_then(|n| all.get(n).copied())
            .ok_or_else(|| self.bad(column, "an ordinal that this version does not know"))
    }

    pub(super) fn opt_text(&self, column: usize) -> Result<Option<&'a str>, StoreError> {
        match self.value(column)? {
            ValueRef::Text(bytes) => {
                std::str::from_utf8(bytes).map(Some).map_err(|_| self.bad(column, "not UTF-8"))
            }
            ValueRef::Null => Ok(None),
            other => Err(self.unexpected(column, "text", other.data_type())),
        }
    }

    pub(super) fn text(&self, column: usize) -> Result<&'a str, StoreError> {
        self.opt_text(column)?.ok_or_else(|| self.bad(column, "missing"))
    }

    pub(super) fn string(&self, column: usize) -> Result<String, StoreError> {
        self.text(column).map(str::to_owned)
    }

    pub(super) fn opt_blob(&self, column: usize) -> Result<Option<&'a [u8]>, StoreError> {
        match self.value(column)? {
            ValueRef::Blob(bytes) => Ok(Some(bytes)),
            ValueRef::Null => Ok(None),
            other => Err(self.unexpected(column, "bytes", other.data_type())),
        }
    }

    pub(super) fn blob(&self, column: usize) -> Result<&'a [u8], StoreError> {
        self.opt_blob(column)?.ok_or_else(|| self.bad(column, "missing"))
    }

    pub(super) fn bytes(&self, column: usize) -> Result<Bytes, StoreError> {
        self.blob(column).map(Bytes::copy_from_slice)
    }

    pub(super) fn opt_array<const N: usize>(&self, column: usize) -> Result<Option<[u8; N]>, StoreError> {
        match self.opt_blob(column)? {
            None => Ok(None),
            Some(bytes) => bytes.try_into().map(Some).map_err(|_| self.bad(column, "of another length")),
        }
    }

    pub(super) fn array<const N: usize>(&self, column: usize) -> Result<[u8; N], StoreError> {
        self.opt_array(column)?.ok_or_else(|| self.bad(column, "missing"))
    }

    pub(super) fn json<T: DeserializeOwned>(&self, column: usize) -> Result<T, StoreError> {
        serde_json::from_str(self.text(column)?).map_err(|e| {
            // serde's own text may quote a value.
            self.bad(column, &format!("not the expected JSON at column {}", e.column()))
        })
    }
}

/// JSON of marks, managers, names: never of a body.
pub(super) fn json<T: Serialize + ?Sized>(table: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Row { table, why: e.to_string() })
}

/// SQLite's refusal as ours.
pub(super) fn database(error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full,
        Some(ErrorCode::SystemIoFailure) => StoreError::Disk(error.to_string()),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged(error.to_string()),
        _ => StoreError::Database(Box::new(error)),
    }
}

/// Runs a statement (prepared once per connection) for its effect; gives the number of rows.
pub(super) fn execute(db: &Connection, sql: &str, params: impl Params) -> Result<usize, StoreError> {
    db.prepare_cached(sql).and_then(|mut statement| statement.execute(params)).map_err(database)
}

/// Every row of a query.
pub(super) fn query<T>(
    db: &Connection,
    table: &'static str,
    sql: &str,
    params: impl Params,
    mut read: impl FnMut(&Columns<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(database)?;
    let mut rows = statement.query(params).map_err(database)?;
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(database)? {
        out.push(read(&Columns { table, row })?);
    }
    Ok(out)
}

/// The first row of a query.
pub(super) fn first<T>(
    db: &Connection,
    table: &'static str,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Columns<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(database)?;
    let mut rows = statement.query(params).map_err(database)?;
    match rows.next().map_err(database)? {
        Some(row) => read(&Columns { table, row }).map(Some),
        None => Ok(None),
    }
}

/// A limit for SQL: `usize::MAX` means all.
pub(super) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
