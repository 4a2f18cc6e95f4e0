//! The table `deleters`: who asked for deletes. A day old it is given up, so it is not salvaged either.

use lockstep_engine::{ClusterId, Millis, ObjectKey, Uid};
use rusqlite::params;

use super::Inner;
use super::row::{execute, query};
use crate::store::{DeleterRow, StoreError};

const TABLE: &str = "deleters";

impl Inner {
    pub(super) fn deleters(
        &mut self,
        cluster: ClusterId,
        key: &ObjectKey,
    ) -> Result<Vec<DeleterRow>, StoreError> {
        let Self { db, kinds, .. } = self;
        let Some(kind) = kinds.id(db, &key.gk)? else { return Ok(Vec::new()) };
        query(
            db,
            TABLE,
            "SELECT name, uid, user, asked_at FROM deleters \
             WHERE cluster = ?1 AND kind = ?2 AND namespace = ?3 AND name IN (?4, '') ORDER BY asked_at, user",
            params![cluster.0, kind, key.namespace, key.name],
            |row| {
                let uid = row.text(1)?;
                Ok(DeleterRow {
                    cluster,
                    key: ObjectKey::new(key.gk.clone(), &key.namespace, row.text(0)?),
                    uid: (!uid.is_empty()).then(|| Uid::new(uid)),
                    user: row.string(2)?,
                    asked_at: row.int(3)?,
                })
            },
        )
    }

    pub(super) fn put_deleter(&mut self, row: &DeleterRow, before: Millis) -> Result<(), StoreError> {
        let DeleterRow { cluster, key, uid, user, asked_at } = row;
        let Self { db, kinds, .. } = self;
        let kind = kinds.intern(db, &key.gk)?;
        execute(db, "DELETE FROM deleters WHERE asked_at < ?1", [before])?;
        execute(
            db,
            "INSERT OR IGNORE INTO deleters (cluster, kind, namespace, name, uid, user, asked_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                cluster.0,
                kind,
                key.namespace,
                key.name,
                uid.as_ref().map_or("", Uid::as_str),
                user,
                asked_at
            ],
        )?;
        Ok(())
    }

    pub(super) fn set_deleter(&mut self, id: i64, user: &str) -> Result<(), StoreError> {
        execute(&self.db, "UPDATE tombstones SET deleter = ?2 WHERE id = ?1", params![id, user])?;
        Ok(())
    }
}
