//! What a damaged store still gives, row by row: member clusters with the hashes of their tokens,
//! tombstones (those that the archive does not have first) and the acts they belong to, pauses, budgets, the
//! last good policies.
//!
//! Objects, checkpoints and placements are left behind: the clusters tell them again, and a
//! checkpoint without the state it covers would be a hole (I2). Records of copies, those that are
//! forgotten included, go with the placements: marks stand in for them (I11). A row is taken over
//! only where the store can read it back; the damaged file itself is never written to.

mod pages;
mod source;

use std::path::Path;

use lockstep_engine::budget::Budget;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use serde::{Deserialize, Serialize};

use super::check::{SEAL_CHECK, opens};
use super::row::{database, execute};
use super::{Inner, StoreError};
use crate::seal::Sealer;
use pages::Pages;
use source::Source;

/// Settings of the store that concern the old file only.
const OWN_SETTINGS: &[&str] = &[SEAL_CHECK, super::REBUILT];
/// Of a cluster: who it is, who may speak for it, and what a person said of it. Its sessions and
/// batches are those of the lost state.
const CLUSTER: &[&str] = &[
    "id",
    "name",
    "uid",
    "token_hash",
    "session",
    "lease_counter",
    "server_version",
    "agent_version",
    "accepts",
    "paused",
    "connected_at",
    "disconnected_at",
    "created_at",
];

/// Name of the core's setting that says that there may be clusters of which nothing is stored.
const VOUCHED: &str = "vouched";
/// Columns of a tombstone in version 1.
const TOMBSTONE_V1: usize = 15;

/// What was taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Salvaged {
    /// Member clusters.
    pub clusters: u64,
    /// Tombstones, those in the outbox included.
    pub tombstones: u64,
    /// Tombstones that the archive does not have yet.
    pub outbox: u64,
    /// Policies with their pauses.
    pub policies: u64,
    /// Last good policy files.
    pub policy_files: u64,
    /// Rows that were found and could not be read.
    pub unreadable: u64,
}

/// Was the damaged store sealed under another key? Only where it still says so.
pub(super) fn of_another_key(damaged: &Path, sealer: &Sealer) -> bool {
    let said = source::connect(damaged).and_then(|db| {
        db.query_row("SELECT value FROM meta WHERE name = ?1", [SEAL_CHECK], |row| row.get::<_, String>(0))
    });
    said.is_ok_and(|text| !opens(sealer, &text))
}

/// Takes over what can be read, within a transaction of the new store.
pub(super) fn salvage(damaged: &Path, into: &mut Inner) -> Result<Salvaged, StoreError> {
    let mut done = Salvaged::default();
    let Some(source) = Source::open(damaged) else { return Ok(done) };
    kinds(&source, into)?;
    clusters(&source, into, &mut done)?;
    tombstones(damaged, &source, into, &mut done)?;
    acts(&source, into, &mut done)?;
    small(&source, into, &mut done)?;
    Ok(done)
}

/// Without its kind no row can be named. Two places hold it.
fn kinds(source: &Source, into: &Inner) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO kinds (id, grp, kind) VALUES (?1, ?2, ?3)";
    let mut take = |row: Vec<Value>| execute(&into.db, sql, params_from_iter(row)).map(drop);
    source.by_id("kinds", "id, grp, kind", &mut take)?;
    let sql = "SELECT id, grp, kind FROM kinds INDEXED BY sqlite_autoindex_kinds_1";
    source.scan(sql, "grp DESC, kind DESC", &mut take)?;
    Ok(())
}

fn clusters(source: &Source, into: &mut Inner, done: &mut Salvaged) -> Result<(), StoreError> {
    let columns = source.columns("clusters", CLUSTER);
    let mut rows = Vec::new();
    let places = source.by_id("clusters", &columns.join(", "), &mut |row| {
        rows.push(row);
        Ok(())
    })?;
    if places > 0 {
        // Who is missing comes with a token of this hub, and policies may name them before.
        into.put_meta(VOUCHED, "true")?;
        done.unreadable += places;
    }
    let marks: Vec<String> = (1..=columns.len()).map(|n| format!("?{n}")).collect();
    // Sessions start anew: the state that their batches led to is lost.
    let sql = format!(
        "INSERT OR IGNORE INTO clusters ({}, instance, committed) VALUES ({}, '', 0)",
        columns.join(", "),
        marks.join(", ")
    );
    done.clusters += guarded(into, &sql, rows, done, |inner| inner.clusters().map(drop))?;
    // Where the row is lost, its indices may still say whose the tombstones are.
    let mut named = Vec::new();
    let sql = "SELECT id, name FROM clusters INDEXED BY sqlite_autoindex_clusters_1";
    source.scan(sql, "name DESC", &mut |row| {
        named.push(row);
        Ok(())
    })?;
    let sql = "INSERT OR IGNORE INTO clusters (id, name, instance, committed, session, lease_counter, \
         server_version, agent_version, accepts, paused, created_at) \
         VALUES (?1, ?2, '', 0, 0, 0, '', '', '[]', 0, 0)";
    done.clusters += guarded(into, sql, named, done, |inner| inner.clusters().map(drop))?;
    let sql = "UPDATE clusters SET disconnected_at = connected_at WHERE disconnected_at IS NULL";
    execute(&into.db, sql, [])?;
    keep_sequence(source, &into.db, "clusters")
}

/// An id is never given out again, whatever the row it was given to has become.
fn keep_sequence(source: &Source, db: &Connection, table: &str) -> Result<(), StoreError> {
    let known: i64 = db
        .query_row("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?1", [table], |r| r.get(0))
        .map_err(database)?;
    let used =
        if table == "clusters" { "SELECT coalesce(max(cluster), 0) FROM tombstones" } else { "SELECT 0" };
    let used: i64 = db.query_row(used, [], |row| row.get(0)).map_err(database)?;
    let seq = known.max(used).max(source.sequence(table).unwrap_or(0));
    execute(db, "DELETE FROM sqlite_sequence WHERE name = ?1", [table])?;
    execute(db, "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", rusqlite::params![table, seq])?;
    Ok(())
}

/// Promise 1: what was deleted and is in no archive yet comes first.
fn tombstones(
    damaged: &Path,
    source: &Source,
    into: &mut Inner,
    done: &mut Salvaged,
) -> Result<(), StoreError> {
    let table = "tombstones";
    let all = columns_of(&into.db, table)?;
    let columns = source.columns(table, &all.iter().map(String::as_str).collect::<Vec<_>>()).join(", ");
    let mut waiting = Vec::new();
    source.scan("SELECT id FROM tombstones WHERE body IS NOT NULL", "id DESC", &mut |row| {
        waiting.extend(row);
        Ok(())
    })?;
    let mut places = 0;
    for id in &waiting {
        source.one(table, &columns, id, &mut |row| tombstone(into, &columns, row, done))?;
    }
    places += source.by_id(table, &columns, &mut |row| tombstone(into, &columns, row, done))?;
    if places > 0 {
        bare_tombstones(damaged, &all, into, done)?;
    }
    done.unreadable += places;
    keep_sequence(source, &into.db, table)?;
    keep_sequence(source, &into.db, "clusters")
}

/// Those that no way leads to any more. Columns stand in the order in which versions added them.
fn bare_tombstones(
    damaged: &Path,
    all: &[String],
    into: &mut Inner,
    done: &mut Salvaged,
) -> Result<(), StoreError> {
    let Ok(mut pages) = Pages::open(damaged) else { return Ok(()) };
    pages.rows(|id, mut row| {
        let width = row.len();
        let (Some(first), Some(columns)) = (row.first_mut(), all.get(..width)) else { return Ok(()) };
        // The number of a row stands beside it.
        *first = Value::Integer(id);
        if is_tombstone(&row) { tombstone(into, &columns.join(", "), row, done) } else { Ok(()) }
    })
}

/// No other table has rows like it.
fn is_tombstone(row: &[Value]) -> bool {
    let integer = |n: usize| matches!(row.get(n), Some(Value::Integer(_)));
    let text = |n: usize| matches!(row.get(n), Some(Value::Text(_)));
    // cluster, kind; namespace, name, uid, resource_version, api_version; cause; three times and a flag
    row.len() >= TOMBSTONE_V1 && [1, 2, 8, 10, 11, 12].into_iter().all(integer) && (3..=7).all(text)
}

/// Takes one over, unless it is there already or cannot be read back.
fn tombstone(
    into: &mut Inner,
    columns: &str,
    row: Vec<Value>,
    done: &mut Salvaged,
) -> Result<(), StoreError> {
    let Some(Value::Integer(id)) = row.first().cloned() else { return Ok(()) };
    let marks: Vec<String> = (1..=row.len()).map(|n| format!("?{n}")).collect();
    let sql = format!("INSERT OR IGNORE INTO tombstones ({columns}) VALUES ({})", marks.join(", "));
    match execute(&into.db, &sql, params_from_iter(row)) {
        Ok(0) => return Ok(()),
        Ok(_) => {}
        // A column of another type, or one that is missing: the row is not what it was.
        Err(StoreError::Database(_)) => {
            done.unreadable += 1;
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    let read = match into.tombstone(id) {
        Ok(read) => read,
        Err(StoreError::Row { .. }) => None,
        Err(error) => return Err(error),
    };
    let json = |body: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    match read {
        Some(row) if row.body.as_ref().is_none_or(|body| json(body)) => {
            done.tombstones += 1;
            done.outbox += u64::from(row.body.is_some());
            // Of what lies in the archive already names and labels are left to find it by.
            super::find::put(&into.db, id, &row)?;
        }
        _ => {
            done.unreadable += 1;
            execute(&into.db, "DELETE FROM tombstones WHERE id = ?1", [id])?;
        }
    }
    Ok(())
}

/// What deleted several at once. A tombstone of an act that is lost is one by itself.
fn acts(source: &Source, into: &mut Inner, done: &mut Salvaged) -> Result<(), StoreError> {
    let table = "acts";
    let all = columns_of(&into.db, table)?;
    let columns = source.columns(table, &all.iter().map(String::as_str).collect::<Vec<_>>()).join(", ");
    let mut rows = Vec::new();
    if !columns.is_empty() {
        done.unreadable += source.by_id(table, &columns, &mut |row| {
            rows.push(row);
            Ok(())
        })?;
    }
    let marks: Vec<String> = (1..=rows.first().map_or(0, Vec::len)).map(|n| format!("?{n}")).collect();
    let sql = format!("INSERT OR IGNORE INTO acts ({columns}) VALUES ({})", marks.join(", "));
    if !rows.is_empty() {
        guarded(into, &sql, rows, done, |inner| inner.every_act())?;
    }
    let sql = "UPDATE tombstones SET act = NULL WHERE act NOT IN (SELECT id FROM acts)";
    execute(&into.db, sql, [])?;
    let sql = "UPDATE acts SET members = (SELECT count(*) FROM tombstones WHERE act = acts.id AND deleted)";
    execute(&into.db, sql, [])?;
    keep_sequence(source, &into.db, table)
}

/// The tables whose keys are names.
fn small(source: &Source, into: &mut Inner, done: &mut Salvaged) -> Result<(), StoreError> {
    let rows = |sql: &str, done: &mut Salvaged| -> Result<Vec<Vec<Value>>, StoreError> {
        let mut rows = Vec::new();
        done.unreadable += source.scan(sql, "1 DESC", &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    };
    let policies = rows("SELECT name, digest, generation, paused FROM policies", done)?;
    // Nothing is planned yet in the new store.
    let sql = "INSERT OR IGNORE INTO policies (name, digest, generation, planned, paused) \
               VALUES (?1, ?2, ?3, 0, ?4)";
    done.policies += guarded(into, sql, policies, done, |inner| inner.policies().map(drop))?;
    let files = rows("SELECT path, text FROM policy_files", done)?;
    let sql = "INSERT OR IGNORE INTO policy_files (path, text) VALUES (?1, ?2)";
    done.policy_files += guarded(into, sql, files, done, |inner| inner.policy_files().map(drop))?;
    let budgets = rows("SELECT policy, target, budget FROM budgets", done)?;
    let sql = "INSERT OR IGNORE INTO budgets (policy, target, budget) VALUES (?1, ?2, ?3)";
    guarded(into, sql, budgets, done, |inner| {
        for (_, _, json) in inner.budgets()? {
            serde_json::from_str::<Budget>(&json)
                .map_err(|e| StoreError::Row { table: "budgets", why: e.to_string() })?;
        }
        Ok(())
    })?;
    let mut settings = rows("SELECT name, value FROM meta", done)?;
    settings.retain(
        |row| !matches!(row.first(), Some(Value::Text(name)) if OWN_SETTINGS.contains(&name.as_str())),
    );
    let sql = "INSERT OR IGNORE INTO meta (name, value) VALUES (?1, ?2)";
    guarded(into, sql, settings, done, |_| Ok(())).map(drop)
}

/// Inserts rows that the store can read back: all together, and where one of them is not as it
/// should be, one after the other. How many were new.
fn guarded(
    into: &mut Inner,
    sql: &str,
    rows: Vec<Vec<Value>>,
    done: &mut Salvaged,
    mut reads: impl FnMut(&mut Inner) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let mut attempt = |into: &mut Inner, rows: &[Vec<Value>]| -> Result<Option<u64>, StoreError> {
        execute(&into.db, "SAVEPOINT rows", [])?;
        let inserted = rows
            .iter()
            .try_fold(0, |sum, row| execute(&into.db, sql, params_from_iter(row)).map(|n| sum + n as u64));
        let sound = inserted.and_then(|n| reads(into).map(|()| n));
        match sound {
            Ok(n) => execute(&into.db, "RELEASE rows", []).map(|_| Some(n)),
            Err(StoreError::Row { .. } | StoreError::Database(_)) => {
                execute(&into.db, "ROLLBACK TO rows", [])?;
                execute(&into.db, "RELEASE rows", []).map(|_| None)
            }
            Err(error) => Err(error),
        }
    };
    if let Some(all) = attempt(into, &rows)? {
        return Ok(all);
    }
    let mut count = 0;
    for row in rows {
        match attempt(into, &[row])? {
            Some(n) => count += n,
            None => done.unreadable += 1,
        }
    }
    Ok(count)
}

fn columns_of(db: &Connection, table: &str) -> Result<Vec<String>, StoreError> {
    source::columns(db, table).map_err(database)
}

#[cfg(test)]
mod tests;
