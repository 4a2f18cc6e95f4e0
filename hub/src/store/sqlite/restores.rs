//! The tables `restores` and `restore_items`.

use lockstep_engine::restore::Verdict;
use lockstep_engine::{ClusterId, Millis, ObjectKey};
use rusqlite::params;

use super::row::{Columns, execute, first, json, limit as sql_limit, query};
use super::{Inner, Sqlite, SqliteStore};
use crate::store::StoreError;
use crate::store::restores::{ItemState, RestoreItemRow, RestoreReader, RestoreRow, RestoreStore};

const TABLE: &str = "restores";
const ITEMS: &str = "restore_items";

fn ordinal<T: PartialEq>(all: impl IntoIterator<Item = T>, value: &T) -> i64 {
    all.into_iter().position(|one| one == *value).and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)
}

fn verdicts() -> [Verdict; 9] {
    Verdict::ALL.map(|(_, verdict)| verdict)
}

fn read(row: &Columns<'_>) -> Result<RestoreRow, StoreError> {
    Ok(RestoreRow {
        id: row.int(0)?,
        cluster: ClusterId(row.u32(1)?),
        asked_by: row.string(2)?,
        asked_at: row.int(3)?,
        options: row.json(4)?,
        ended_at: row.opt_int(5)?,
    })
}

impl Inner {
    fn restores(&mut self, under_way: bool, limit: usize) -> Result<Vec<RestoreRow>, StoreError> {
        let sql = "SELECT id, cluster, asked_by, asked_at, options, ended_at FROM restores \
                   WHERE ended_at IS NULL OR NOT ?1 ORDER BY id DESC LIMIT ?2";
        query(&self.db, TABLE, sql, params![under_way, sql_limit(limit)], read)
    }

    fn restore(&mut self, id: i64) -> Result<Option<RestoreRow>, StoreError> {
        let sql = "SELECT id, cluster, asked_by, asked_at, options, ended_at FROM restores WHERE id = ?1";
        first(&self.db, TABLE, sql, [id], read)
    }

    fn restore_items(&mut self, id: i64) -> Result<Vec<RestoreItemRow>, StoreError> {
        let Self { db, kinds, .. } = self;
        let sql = "SELECT position, tombstone, kind, namespace, name, dependency, verdict, state, message, \
                   replaced FROM restore_items WHERE restore = ?1 ORDER BY position";
        query(db, ITEMS, sql, [id], |row| {
            Ok(RestoreItemRow {
                restore: id,
                position: row.u32(0)?,
                tombstone: row.int(1)?,
                key: ObjectKey::new(kinds.kind(db, ITEMS, row.int(2)?)?, row.text(3)?, row.text(4)?),
                dependency: row.bool(5)?,
                verdict: row.ordinal(6, &verdicts())?,
                state: row.ordinal(7, &ItemState::ALL)?,
                message: row.string(8)?,
                replaced: row.opt_int(9)?,
            })
        })
    }

    fn put_restore(&mut self, row: &RestoreRow) -> Result<i64, StoreError> {
        let RestoreRow { id: _, cluster, asked_by, asked_at, options, ended_at } = row;
        let sql = "INSERT INTO restores (cluster, asked_by, asked_at, options, ended_at) \
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        execute(&self.db, sql, params![cluster.0, asked_by, asked_at, json(TABLE, options)?, ended_at])?;
        Ok(self.db.last_insert_rowid())
    }

    fn put_restore_item(&mut self, row: &RestoreItemRow) -> Result<(), StoreError> {
        let RestoreItemRow {
            restore,
            position,
            tombstone,
            key,
            dependency,
            verdict,
            state,
            message,
            replaced,
        } = row;
        let Self { db, kinds, .. } = self;
        let kind = kinds.intern(db, &key.gk)?;
        execute(
            db,
            "INSERT OR REPLACE INTO restore_items (restore, position, tombstone, kind, namespace, name, \
             dependency, verdict, state, message, replaced) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                restore,
                position,
                tombstone,
                kind,
                key.namespace,
                key.name,
                dependency,
                ordinal(verdicts(), verdict),
                ordinal(ItemState::ALL, state),
                message,
                replaced,
            ],
        )?;
        Ok(())
    }
}

impl<M: Send> RestoreReader for Sqlite<M> {
    fn restores(&mut self, under_way: bool, limit: usize) -> Result<Vec<RestoreRow>, StoreError> {
        self.read(|inner| inner.restores(under_way, limit))
    }

    fn restore(&mut self, id: i64) -> Result<Option<RestoreRow>, StoreError> {
        self.read(|inner| inner.restore(id))
    }

    fn restore_items(&mut self, id: i64) -> Result<Vec<RestoreItemRow>, StoreError> {
        self.read(|inner| inner.restore_items(id))
    }
}

impl RestoreStore for SqliteStore {
    fn put_restore(&mut self, row: &RestoreRow) -> Result<i64, StoreError> {
        self.change(|inner| inner.put_restore(row))
    }

    fn put_restore_item(&mut self, row: &RestoreItemRow) -> Result<(), StoreError> {
        self.change(|inner| inner.put_restore_item(row))
    }

    fn end_restore(&mut self, id: i64, at: Millis) -> Result<(), StoreError> {
        self.change(|inner| {
            execute(&inner.db, "UPDATE restores SET ended_at = ?2 WHERE id = ?1", params![id, at]).map(drop)
        })
    }
}
