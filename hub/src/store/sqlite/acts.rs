//! The table `acts`, and which tombstones belong to which.

use lockstep_engine::acts::{ActKind, Deleted, Span};
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey, Uid};
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use super::Inner;
use super::kinds::Kinds;
use super::row::{Columns, execute, first, limit as sql_limit, query};
use crate::store::{ActFilter, ActRow, Kin, Lives, StoreError};

const TABLE: &str = "acts";
/// What is joined by its ordinal.
const KINDS: [ActKind; 4] = [ActKind::Namespace, ActKind::Definition, ActKind::Owner, ActKind::Lockstep];
/// `cause` of a tombstone that lockstep made.
const BY_LOCKSTEP: i64 = 2;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, cluster, act, kind, namespace, name, uid, contents, policy, began, ended, over, \
             started_at, last_at, members FROM acts ",
            $rest
        )
    };
}

macro_rules! kin {
    ($rest:literal) => {
        concat!(
            "SELECT id, kind, namespace, name, uid, owner_uid, ended_from, ended_to, alive, cause, act \
             FROM tombstones WHERE cluster = ?1 AND deleted AND (ended_to IS NOT NULL OR cause = 2) AND ",
            $rest
        )
    };
}

fn ordinal(kind: ActKind) -> i64 {
    match kind {
        ActKind::Namespace => 0,
        ActKind::Definition => 1,
        ActKind::Owner => 2,
        ActKind::Lockstep => 3,
    }
}

fn read(row: &Columns<'_>, db: &Connection, kinds: &mut Kinds) -> Result<ActRow, StoreError> {
    let mut kind = |id: Option<i64>| id.map(|id| kinds.kind(db, TABLE, id)).transpose();
    let (of_root, contents) = (kind(row.opt_int(3)?)?, kind(row.opt_int(7)?)?);
    let root = match of_root {
        Some(gk) => Some((ObjectKey::new(gk, row.text(4)?, row.text(5)?), Uid::new(row.text(6)?))),
        None => None,
    };
    Ok(ActRow {
        id: row.int(0)?,
        cluster: ClusterId(row.u32(1)?),
        kind: row.ordinal(2, &KINDS)?,
        root,
        contents,
        policy: row.opt_text(8)?.map(str::to_owned),
        began: row.opt_int(9)?.map(i64::cast_unsigned),
        ended: row.opt_int(10)?.map(i64::cast_unsigned),
        over: row.bool(11)?,
        started_at: row.int(12)?,
        last_at: row.int(13)?,
        members: row.u64(14)?,
    })
}

fn read_kin(row: &Columns<'_>, db: &Connection, kinds: &mut Kinds) -> Result<Deleted, StoreError> {
    let ended = match (row.opt_int(6)?, row.opt_int(7)?) {
        (Some(from), Some(to)) => Some(Span { from: from.cast_unsigned(), to: to.cast_unsigned() }),
        _ => None,
    };
    Ok(Deleted {
        id: row.int(0)?,
        key: ObjectKey::new(kinds.kind(db, "tombstones", row.int(1)?)?, row.text(2)?, row.text(3)?),
        uid: Uid::new(row.text(4)?),
        owner: row.opt_text(5)?.map(Uid::new),
        ended,
        alive: row.u64(8)?,
        by_lockstep: row.int(9)? == BY_LOCKSTEP,
        act: row.opt_int(10)?,
    })
}

/// A resourceVersion as a column: beyond what SQLite holds there are none.
pub(super) fn version(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

impl Inner {
    pub(super) fn act(&mut self, id: i64) -> Result<Option<ActRow>, StoreError> {
        let Self { db, kinds, .. } = self;
        first(db, TABLE, select!("WHERE id = ?1"), [id], |row| read(row, db, kinds))
    }

    pub(super) fn acts(&mut self, filter: &ActFilter, limit: usize) -> Result<Vec<ActRow>, StoreError> {
        let ActFilter { cluster, kind, since } = filter;
        let Self { db, kinds, .. } = self;
        let conditions = [
            ("+cluster =", cluster.map(|cluster| i64::from(cluster.0))),
            ("+act =", kind.map(ordinal)),
            ("last_at >=", *since),
        ];
        let mut sql = select!("WHERE members > 1").to_owned();
        let mut values = Vec::new();
        for (condition, value) in conditions {
            let Some(value) = value else { continue };
            sql.push_str(&format!(" AND {condition} ?"));
            values.push(Value::Integer(value));
        }
        sql.push_str(" ORDER BY last_at DESC, id DESC LIMIT ?");
        values.push(Value::Integer(sql_limit(limit)));
        query(db, TABLE, &sql, params_from_iter(values), |row| read(row, db, kinds))
    }

    /// Can all of them be read?
    pub(super) fn every_act(&mut self) -> Result<(), StoreError> {
        let Self { db, kinds, .. } = self;
        query(db, TABLE, select!("ORDER BY id"), [], |row| read(row, db, kinds)).map(drop)
    }

    pub(super) fn lives(&mut self, cluster: ClusterId, of: Lives<'_>) -> Result<Vec<ActRow>, StoreError> {
        let Self { db, kinds, .. } = self;
        match of {
            Lives::Of(uid) => query(
                db,
                TABLE,
                select!("WHERE cluster = ?1 AND uid = ?2 AND NOT over ORDER BY id"),
                params![cluster.0, uid.as_str()],
                |row| read(row, db, kinds),
            ),
            Lives::Namespace(name) => query(
                db,
                TABLE,
                select!("WHERE act = 0 AND cluster = ?1 AND name = ?2 AND NOT over ORDER BY id"),
                params![cluster.0, name],
                |row| read(row, db, kinds),
            ),
            Lives::Definition(gk) => {
                let Some(kind) = kinds.id(db, gk)? else { return Ok(Vec::new()) };
                query(
                    db,
                    TABLE,
                    select!("WHERE act = 1 AND cluster = ?1 AND contents = ?2 AND NOT over ORDER BY id"),
                    params![cluster.0, kind],
                    |row| read(row, db, kinds),
                )
            }
            Lives::Lockstep(policy) => query(
                db,
                TABLE,
                select!(
                    "WHERE act = 3 AND cluster = ?1 AND policy = ?2 AND NOT over \
                     ORDER BY last_at DESC, id DESC LIMIT 1"
                ),
                params![cluster.0, policy],
                |row| read(row, db, kinds),
            ),
        }
    }

    pub(super) fn kin(&mut self, cluster: ClusterId, of: Kin<'_>) -> Result<Vec<Deleted>, StoreError> {
        let Self { db, kinds, .. } = self;
        let id = cluster.0;
        match of {
            Kin::Id(tombstone) => {
                let found = params![id, tombstone];
                query(db, "tombstones", kin!("id = ?2"), found, |row| read_kin(row, db, kinds))
            }
            Kin::Uid(uid) => {
                let found = params![id, uid.as_str()];
                query(db, "tombstones", kin!("uid = ?2 ORDER BY id"), found, |row| read_kin(row, db, kinds))
            }
            Kin::Owner(uid) => {
                let (sql, found) = (kin!("owner_uid = ?2 ORDER BY id"), params![id, uid.as_str()]);
                query(db, "tombstones", sql, found, |row| read_kin(row, db, kinds))
            }
            Kin::Namespace(namespace, since) => {
                let sql = kin!("namespace = ?2 AND ended_to >= ?3 AND cause <> 2 ORDER BY id");
                let found = params![id, namespace, version(since)];
                query(db, "tombstones", sql, found, |row| read_kin(row, db, kinds))
            }
            Kin::Kind(gk, since) => {
                let Some(kind) = kinds.id(db, gk)? else { return Ok(Vec::new()) };
                let sql = kin!("kind = ?2 AND ended_to >= ?3 AND cause <> 2 ORDER BY id");
                let found = params![id, kind, version(since)];
                query(db, "tombstones", sql, found, |row| read_kin(row, db, kinds))
            }
        }
    }

    pub(super) fn create_act(&mut self, row: &ActRow, before: Millis) -> Result<i64, StoreError> {
        let ActRow {
            id: _, // given here
            cluster,
            kind,
            root,
            contents,
            policy,
            began,
            ended,
            over,
            started_at,
            last_at,
            members: _, // none yet
        } = row;
        let Self { db, kinds, .. } = self;
        execute(db, "DELETE FROM acts WHERE members = 0 AND last_at < ?1", [before])?;
        let mut intern = |gk: Option<&GroupKind>| gk.map(|gk| kinds.intern(db, gk)).transpose();
        let of_root = intern(root.as_ref().map(|(key, _)| &key.gk))?;
        let contents = intern(contents.as_ref())?;
        execute(
            db,
            "INSERT INTO acts (cluster, act, kind, namespace, name, uid, contents, policy, began, ended, over, \
             started_at, last_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                cluster.0,
                ordinal(*kind),
                of_root,
                root.as_ref().map(|(key, _)| &key.namespace),
                root.as_ref().map(|(key, _)| &key.name),
                root.as_ref().map(|(_, uid)| uid.as_str()),
                contents,
                policy,
                began.map(version),
                ended.map(version),
                over,
                started_at,
                last_at,
            ],
        )?;
        Ok(db.last_insert_rowid())
    }

    pub(super) fn end_life(&mut self, id: i64, by: Option<u64>) -> Result<(), StoreError> {
        execute(&self.db, "UPDATE acts SET ended = ?2 WHERE id = ?1", params![id, by.map(version)])?;
        Ok(())
    }

    pub(super) fn touch_act(&mut self, id: i64, at: Millis) -> Result<(), StoreError> {
        execute(&self.db, "UPDATE acts SET last_at = max(last_at, ?2) WHERE id = ?1", params![id, at])?;
        Ok(())
    }

    pub(super) fn set_act(&mut self, id: i64, act: Option<i64>) -> Result<(), StoreError> {
        self.counted(id, |db| {
            execute(db, "UPDATE tombstones SET act = ?2 WHERE id = ?1", params![id, act]).map(drop)
        })
    }

    /// The acts of a cluster are over, and no tombstone of it has a place in the order of versions.
    pub(super) fn void_acts(&mut self, cluster: ClusterId) -> Result<(), StoreError> {
        execute(&self.db, "UPDATE acts SET over = 1 WHERE cluster = ?1", [cluster.0])?;
        let sql = "UPDATE tombstones SET ended_from = NULL, ended_to = NULL \
                   WHERE cluster = ?1 AND ended_to IS NOT NULL";
        execute(&self.db, sql, [cluster.0])?;
        Ok(())
    }

    /// Changes a tombstone, and counts the members of its acts anew.
    pub(super) fn counted(
        &mut self,
        id: i64,
        change: impl FnOnce(&Connection) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let member = |db: &Connection| {
            let sql = "SELECT act, deleted_at FROM tombstones WHERE id = ?1 AND deleted AND act IS NOT NULL";
            first(db, "tombstones", sql, [id], |row| Ok((row.int(0)?, row.int(1)?)))
        };
        let before = member(&self.db)?;
        change(&self.db)?;
        let after = member(&self.db)?;
        if before == after {
            return Ok(());
        }
        if let Some((act, _)) = before {
            execute(&self.db, "UPDATE acts SET members = members - 1 WHERE id = ?1", [act])?;
            // Of an owner alone nothing else is known.
            execute(&self.db, "DELETE FROM acts WHERE id = ?1 AND members = 0 AND act = 2", [act])?;
        }
        if let Some((act, at)) = after {
            let sql = "UPDATE acts SET members = members + 1, started_at = min(started_at, ?2), \
                       last_at = max(last_at, ?2) WHERE id = ?1";
            execute(&self.db, sql, params![act, at])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_pinned() {
        for (n, (_, kind)) in ActKind::ALL.into_iter().enumerate() {
            assert_eq!(ordinal(kind), i64::try_from(n).unwrap());
            assert_eq!(KINDS[n], kind);
        }
    }
}
