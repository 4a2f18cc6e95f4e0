//! How long tombstones are kept, and under which key.

use lockstep_engine::{ClusterId, Millis, ObjectKey, Uid};
use rusqlite::params;

use super::kinds::Kinds;
use super::row::{Columns, execute, first, json, limit as sql_limit, query};
use super::{Inner, Sqlite, SqliteStore};
use crate::store::{
    Filed, Hold, Need, RetainCursor, RetainReader, RetainStore, RetainedRow, StoreError, Waiting,
};

const TABLE: &str = "tombstones";

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, cluster, kind, namespace, name, uid, labels, deleted_at, size, held, path \
             FROM tombstones ",
            $rest
        )
    };
}

fn read(row: &Columns<'_>, db: &rusqlite::Connection, kinds: &mut Kinds) -> Result<RetainedRow, StoreError> {
    Ok(RetainedRow {
        id: row.int(0)?,
        cluster: ClusterId(row.u32(1)?),
        key: ObjectKey::new(kinds.kind(db, TABLE, row.int(2)?)?, row.text(3)?, row.text(4)?),
        uid: Uid::new(row.text(5)?),
        labels: row.json(6)?,
        deleted_at: row.int(7)?,
        size: row.u64(8)?,
        held: row.bool(9)?,
        path: row.opt_text(10)?.map(str::to_owned),
    })
}

impl Inner {
    fn retained(
        &mut self,
        after: Option<&RetainCursor>,
        limit: usize,
    ) -> Result<Vec<RetainedRow>, StoreError> {
        let Self { db, kinds, .. } = self;
        let limit = sql_limit(limit);
        let Some((key, deleted_at, id)) = after else {
            let sql =
                select!("ORDER BY name DESC, namespace DESC, kind DESC, deleted_at DESC, id DESC LIMIT ?1");
            return query(db, TABLE, sql, params![limit], |row| read(row, db, kinds));
        };
        let sql = select!(
            "WHERE (name, namespace, kind, deleted_at, id) < (?1, ?2, ?3, ?4, ?5) \
             ORDER BY name DESC, namespace DESC, kind DESC, deleted_at DESC, id DESC LIMIT ?6"
        );
        let kind = kinds.id(db, &key.gk)?;
        query(db, TABLE, sql, params![key.name, key.namespace, kind, deleted_at, id, limit], |row| {
            read(row, db, kinds)
        })
    }

    fn retained_by_age(
        &mut self,
        after: (Millis, i64),
        limit: usize,
    ) -> Result<Vec<RetainedRow>, StoreError> {
        let Self { db, kinds, .. } = self;
        let sql = select!("WHERE (deleted_at, id) > (?1, ?2) ORDER BY deleted_at, id LIMIT ?3");
        query(db, TABLE, sql, params![after.0, after.1, sql_limit(limit)], |row| read(row, db, kinds))
    }

    fn need(&mut self, id: i64) -> Result<Option<Need>, StoreError> {
        // Of several tombstones of one source the last one that tells of a delete counts, and what is newer.
        let sql = "SELECT \
             EXISTS (SELECT 1 FROM placements p WHERE p.target = t.cluster AND p.kind = t.kind \
                 AND p.namespace = t.namespace AND p.name = t.name AND p.delete_tombstone = t.id), \
             EXISTS (SELECT 1 FROM placements p WHERE p.source_uid = t.uid \
                 AND p.source_cluster = t.cluster AND p.kind = t.kind) \
             AND NOT EXISTS (SELECT 1 FROM tombstones n WHERE n.uid = t.uid AND n.cluster = t.cluster \
                 AND n.kind = t.kind AND n.cause IN (0, 1) AND (n.deleted_at, n.id) > (t.deleted_at, t.id)), \
             EXISTS (SELECT 1 FROM restores r JOIN restore_items i ON i.restore = r.id \
                 WHERE r.ended_at IS NULL AND i.state = 0 AND (i.tombstone = t.id OR i.replaced = t.id)) \
             FROM tombstones t WHERE t.id = ?1";
        let found = first(&self.db, TABLE, sql, [id], |row| Ok((row.bool(0)?, row.bool(1)?, row.bool(2)?)))?;
        Ok(match found {
            Some((true, ..)) => Some(Need::Delete),
            Some((_, true, _)) => Some(Need::Source),
            Some((.., true)) => Some(Need::Restore),
            _ => None,
        })
    }

    fn number(&mut self, sql: &str) -> Result<u64, StoreError> {
        Ok(first(&self.db, TABLE, sql, [], |row| row.u64(0))?.unwrap_or_default())
    }

    fn waiting(&mut self) -> Result<Waiting, StoreError> {
        let count = self.number("SELECT count(*) FROM tombstones WHERE body IS NOT NULL")?;
        let sql = "SELECT deleted_at FROM tombstones WHERE body IS NOT NULL ORDER BY id LIMIT 1";
        Ok(Waiting { count, oldest: first(&self.db, TABLE, sql, [], |row| row.int(0))? })
    }

    fn sealed_otherwise(
        &mut self,
        key: &str,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, String)>, StoreError> {
        let sql = "SELECT id, path FROM tombstones WHERE sealed_under IS NOT NULL AND sealed_under <> ?1 \
             AND id > ?2 AND path IS NOT NULL ORDER BY id LIMIT ?3";
        query(&self.db, TABLE, sql, params![key, after, sql_limit(limit)], |row| {
            Ok((row.int(0)?, row.string(1)?))
        })
    }

    fn set_hold(&mut self, id: i64, hold: Option<&Hold>) -> Result<(), StoreError> {
        let text = hold.map(|hold| json(TABLE, hold)).transpose()?;
        let sql = "UPDATE tombstones SET held = ?2, hold = ?3 WHERE id = ?1";
        execute(&self.db, sql, params![id, hold.is_some(), text]).map(drop)
    }

    fn set_filed(&mut self, id: i64, file: &Filed) -> Result<(), StoreError> {
        let size = i64::try_from(file.size).unwrap_or(i64::MAX);
        let sql = "UPDATE tombstones SET path = ?2, size = ?3, sealed_under = ?4 WHERE id = ?1";
        execute(&self.db, sql, params![id, file.path, size, file.key]).map(drop)
    }
}

impl<M: Send> RetainReader for Sqlite<M> {
    fn retained(
        &mut self,
        after: Option<&RetainCursor>,
        limit: usize,
    ) -> Result<Vec<RetainedRow>, StoreError> {
        self.read(|inner| inner.retained(after, limit))
    }

    fn retained_by_age(
        &mut self,
        after: (Millis, i64),
        limit: usize,
    ) -> Result<Vec<RetainedRow>, StoreError> {
        self.read(|inner| inner.retained_by_age(after, limit))
    }

    fn retained_one(&mut self, id: i64) -> Result<Option<RetainedRow>, StoreError> {
        self.read(|Inner { db, kinds, .. }| {
            first(db, TABLE, select!("WHERE id = ?1"), [id], |row| read(row, db, kinds))
        })
    }

    fn need(&mut self, id: i64) -> Result<Option<Need>, StoreError> {
        self.read(|inner| inner.need(id))
    }

    fn hold(&mut self, id: i64) -> Result<Option<Hold>, StoreError> {
        self.read(|inner| {
            let sql = "SELECT hold FROM tombstones WHERE id = ?1 AND hold IS NOT NULL";
            first(&inner.db, TABLE, sql, [id], |row| row.json(0))
        })
    }

    fn archive_bytes(&mut self) -> Result<u64, StoreError> {
        self.read(|inner| inner.number("SELECT coalesce(sum(size), 0) FROM tombstones"))
    }

    fn waiting(&mut self) -> Result<Waiting, StoreError> {
        self.read(Inner::waiting)
    }

    fn filed_at(&mut self, uid: &Uid, path: &str) -> Result<Option<i64>, StoreError> {
        self.read(|inner| {
            let sql = "SELECT id FROM tombstones WHERE uid = ?1 AND path = ?2";
            first(&inner.db, TABLE, sql, params![uid.as_str(), path], |row| row.int(0))
        })
    }

    fn sealing_keys(&mut self) -> Result<Vec<(String, u64)>, StoreError> {
        self.read(|inner| {
            let sql = "SELECT sealed_under, count(*) FROM tombstones WHERE sealed_under IS NOT NULL \
                 GROUP BY sealed_under ORDER BY sealed_under";
            query(&inner.db, TABLE, sql, [], |row| Ok((row.string(0)?, row.u64(1)?)))
        })
    }

    fn sealed_otherwise(
        &mut self,
        key: &str,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, String)>, StoreError> {
        self.read(|inner| inner.sealed_otherwise(key, after, limit))
    }
}

impl RetainStore for SqliteStore {
    fn forget_tombstone(&mut self, id: i64) -> Result<(), StoreError> {
        self.change(|inner| inner.forget_tombstone(id))
    }

    fn set_hold(&mut self, id: i64, hold: Option<&Hold>) -> Result<(), StoreError> {
        self.change(|inner| inner.set_hold(id, hold))
    }

    fn set_filed(&mut self, id: i64, file: &Filed) -> Result<(), StoreError> {
        self.change(|inner| inner.set_filed(id, file))
    }
}
