//! Reading around damage.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Row, ToSql};

use super::super::damage::beside;
use super::super::schema;
use crate::store::StoreError;

/// Ids that are asked for one by one behind a damaged place: some seconds' worth.
const MAX_PROBES: u32 = 2_000_000;
/// Where nobody can say how far ids go.
const FEW: i64 = 10_000;
/// Tables without which nothing can be had.
const NEEDED: [&str; 3] = ["kinds", "clusters", "tombstones"];
/// Ending of the name of a copy that is given another first page.
const PATCHED: &str = "-salvage";
/// Ids of clusters and of tombstones stay far below; what says more is itself damaged.
const MAX_ID: i64 = 1 << 31;

/// A query without parameters.
const NONE: [i64; 0] = [];

/// A damaged store, read only.
pub(super) struct Source {
    db: Connection,
    /// Removed in the end.
    _copy: Option<Copy>,
}

/// A copy of the damaged file.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        for part in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(beside(&self.0, part));
        }
    }
}

/// A connection that changes nothing, and takes a schema for what it can.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    // The log stays what it is: it belongs to what is kept.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    db.pragma_update(None, "trusted_schema", false)?;
    // A part of the schema that cannot be read does not hide the rest.
    db.pragma_update(None, "writable_schema", true)?;
    db.pragma_update(None, "cell_size_check", true)?;
    Ok(db)
}

/// Names of a table's columns.
pub(super) fn columns(db: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut names = Vec::new();
    db.pragma(None, "table_info", table, |row| {
        names.push(row.get(1)?);
        Ok(())
    })?;
    Ok(names)
}

fn has_what_is_needed(db: &Connection) -> bool {
    NEEDED.iter().all(|table| columns(db, table).is_ok_and(|columns| !columns.is_empty()))
}

fn values(row: &Row<'_>) -> rusqlite::Result<Vec<Value>> {
    (0..row.as_ref().column_count()).map(|n| row.get(n)).collect()
}

impl Source {
    /// None: nothing at all can be read.
    pub(super) fn open(damaged: &Path) -> Option<Self> {
        if let Ok(db) = connect(damaged)
            && has_what_is_needed(&db)
        {
            return Some(Self { db, _copy: None });
        }
        tracing::warn!(
            "the damaged store does not say where its tables are; they are looked for where they were made"
        );
        let copy =
            patched(damaged).inspect_err(|error| tracing::warn!("it cannot be copied: {error}")).ok()?;
        let db = connect(&copy.0).ok()?;
        has_what_is_needed(&db).then_some(Self { db, _copy: Some(copy) })
    }

    /// Those of the wanted columns that the table has.
    pub(super) fn columns(&self, table: &str, wanted: &[&str]) -> Vec<String> {
        let there = columns(&self.db, table).unwrap_or_default();
        wanted.iter().filter(|name| there.iter().any(|c| c == *name)).map(|name| (*name).to_owned()).collect()
    }

    /// The highest id that the table ever gave out.
    pub(super) fn sequence(&self, table: &str) -> Option<i64> {
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = ?1";
        self.db.query_row(sql, [table], |row| row.get(0)).ok().filter(|seq| (0..MAX_ID).contains(seq))
    }

    /// Every row of a query, up to the first damage, and in the order `back` from the end back to it.
    /// Rows may come twice. Answers how often it met some.
    pub(super) fn scan(
        &self,
        sql: &str,
        back: &str,
        take: &mut dyn FnMut(Vec<Value>) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        if self.stream(sql, NONE, take)? == End::Reached {
            return Ok(0);
        }
        self.stream(&format!("{sql} ORDER BY {back}"), NONE, take)?;
        Ok(1)
    }

    /// Every row of a table whose first column is the row's number: those behind a damaged place are
    /// asked for one by one. Answers how many places were damaged.
    pub(super) fn by_id(
        &self,
        table: &str,
        columns: &str,
        take: &mut dyn FnMut(Vec<Value>) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let sql = format!("SELECT {columns} FROM {table} WHERE id > ?1 ORDER BY id");
        let last = self.last(table);
        let (mut from, mut places, mut probes) = (0_i64, 0, MAX_PROBES);
        loop {
            let mut reached = from;
            let mut noting = |row: Vec<Value>| {
                if let Some(Value::Integer(id)) = row.first() {
                    reached = *id;
                }
                take(row)
            };
            let end = self.stream(&sql, [from], &mut noting)?;
            if end == End::Reached {
                return Ok(places);
            }
            places += 1;
            from = reached.max(from);
            loop {
                from += 1;
                probes -= 1;
                if from > last || probes == 0 {
                    return Ok(places);
                }
                if self.one(table, columns, &Value::Integer(from), take)? {
                    break;
                }
            }
        }
    }

    /// One row by its number, if it can be read.
    pub(super) fn one(
        &self,
        table: &str,
        columns: &str,
        id: &Value,
        take: &mut dyn FnMut(Vec<Value>) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let mut found = false;
        let mut noting = |row| {
            found = true;
            take(row)
        };
        self.stream(&format!("SELECT {columns} FROM {table} WHERE id = ?1"), [id], &mut noting)?;
        Ok(found)
    }

    fn last(&self, table: &str) -> i64 {
        let sql = format!("SELECT id FROM {table} ORDER BY id DESC LIMIT 1");
        let highest: Option<i64> = self.db.query_row(&sql, [], |row| row.get(0)).ok();
        let known = highest.filter(|id| (0..MAX_ID).contains(id)).max(self.sequence(table));
        known.unwrap_or(FEW)
    }

    fn stream<P: ToSql, const N: usize>(
        &self,
        sql: &str,
        params: [P; N],
        take: &mut dyn FnMut(Vec<Value>) -> Result<(), StoreError>,
    ) -> Result<End, StoreError> {
        let Ok(mut statement) = self.db.prepare_cached(sql) else { return Ok(End::Damage) };
        let Ok(mut rows) = statement.query(rusqlite::params_from_iter(params)) else {
            return Ok(End::Damage);
        };
        loop {
            match rows.next() {
                Ok(Some(row)) => match values(row) {
                    Ok(row) => take(row)?,
                    // Text that is none: of this row only.
                    Err(_) => continue,
                },
                Ok(None) => return Ok(End::Reached),
                Err(_) => return Ok(End::Damage),
            }
        }
    }
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Reached,
    Damage,
}

/// A copy of the file with the schema that a new store of version 1 has: its tables were the first
/// thing in every store, at the same pages, and never moved. Tables and indices that later versions added are unknown
/// in the copy, and not needed.
fn patched(damaged: &Path) -> Result<Copy, Box<dyn std::error::Error>> {
    let copy = Copy(beside(damaged, PATCHED));
    std::fs::copy(damaged, &copy.0)?;
    match std::fs::copy(beside(damaged, "-wal"), beside(&copy.0, "-wal")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let model = Copy(beside(damaged, "-model"));
    let db = Connection::open(&model.0)?;
    schema::first_step(&db)?;
    let pages: Vec<i64> = db
        .prepare("SELECT pageno FROM dbstat WHERE name IN ('sqlite_schema', 'sqlite_master')")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let page_size: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
    drop(db);
    let mut from = std::fs::File::open(&model.0)?;
    let mut to = OpenOptions::new().write(true).open(&copy.0)?;
    let mut page = vec![0; usize::try_from(page_size)?];
    for number in pages {
        let at = SeekFrom::Start(u64::try_from((number - 1) * page_size)?);
        from.seek(at)?;
        from.read_exact(&mut page)?;
        if number == 1 {
            // WAL, as the store had it; no free pages; and the size is that of the file, for which
            // the counter at 24 must not be the one at 92.
            page[18..20].fill(2);
            page[24..28].copy_from_slice(&1_u32.to_be_bytes());
            page[28..40].fill(0);
            page[92..96].fill(0);
        }
        to.seek(at)?;
        to.write_all(&page)?;
    }
    to.sync_all()?;
    widen(&copy.0)?;
    Ok(copy)
}

/// Tells a copy with the schema of version 1 which columns came later: rows that lack them have their defaults. The
/// text of the schema is changed, not the tables, whose pages may be damaged.
fn widen(copy: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (now, db) = (schema::scratch(schema::VERSION)?, Connection::open(copy)?);
    db.pragma_update(None, "writable_schema", true)?;
    for table in NEEDED {
        let sql: String =
            now.query_row("SELECT sql FROM sqlite_schema WHERE name = ?1", [table], |row| row.get(0))?;
        db.execute("UPDATE sqlite_schema SET sql = ?2 WHERE name = ?1 AND type = 'table'", [table, &sql])?;
    }
    Ok(())
}
