//! The table `kinds`: (group, kind) as a small integer, with a cache.

use std::collections::BTreeMap;

use lockstep_engine::GroupKind;
use rusqlite::{Connection, params};

use super::row::{Columns, execute, first, query};
use crate::store::StoreError;

/// What is known of the table. A kind is never removed and an id never given to another kind, except
/// by a rollback: what was interned in a transaction is forgotten with it.
#[derive(Default)]
pub(super) struct Kinds {
    ids: BTreeMap<GroupKind, i64>,
    kinds: BTreeMap<i64, GroupKind>,
    uncommitted: Vec<GroupKind>,
}

const SELECT: &str = "SELECT id, grp, kind FROM kinds";

fn read(row: &Columns<'_>) -> Result<(i64, GroupKind), StoreError> {
    // Not GroupKind::new: what is stored was canonical when it was written.
    Ok((row.int(0)?, GroupKind { group: row.text(1)?.into(), kind: row.text(2)?.into() }))
}

impl Kinds {
    fn learn(&mut self, id: i64, gk: GroupKind) {
        self.kinds.insert(id, gk.clone());
        self.ids.insert(gk, id);
    }

    /// The id of a kind, if it has one.
    pub(super) fn id(&mut self, db: &Connection, gk: &GroupKind) -> Result<Option<i64>, StoreError> {
        if let Some(id) = self.ids.get(gk) {
            return Ok(Some(*id));
        }
        let found = first(
            db,
            "kinds",
            "SELECT id, grp, kind FROM kinds WHERE grp = ?1 AND kind = ?2",
            params![gk.group, gk.kind],
            read,
        )?;
        Ok(found.map(|(id, gk)| {
            self.learn(id, gk);
            id
        }))
    }

    /// The id of a kind, given now if need be; within a transaction.
    pub(super) fn intern(&mut self, db: &Connection, gk: &GroupKind) -> Result<i64, StoreError> {
        if let Some(id) = self.id(db, gk)? {
            return Ok(id);
        }
        execute(db, "INSERT INTO kinds (grp, kind) VALUES (?1, ?2)", params![gk.group, gk.kind])?;
        let id = db.last_insert_rowid();
        self.learn(id, gk.clone());
        self.uncommitted.push(gk.clone());
        Ok(id)
    }

    /// The kind of an id.
    pub(super) fn kind(
        &mut self,
        db: &Connection,
        table: &'static str,
        id: i64,
    ) -> Result<GroupKind, StoreError> {
        if let Some(gk) = self.kinds.get(&id) {
            return Ok(gk.clone());
        }
        let (id, gk) =
            first(db, "kinds", "SELECT id, grp, kind FROM kinds WHERE id = ?1", [id], read)?.ok_or_else(
                || StoreError::Row { table, why: format!("it names kind {id}, which does not exist") },
            )?;
        self.learn(id, gk.clone());
        Ok(gk)
    }

    /// Every kind, in order.
    pub(super) fn all(&mut self, db: &Connection) -> Result<Vec<(GroupKind, i64)>, StoreError> {
        for (id, gk) in query(db, "kinds", SELECT, [], read)? {
            self.learn(id, gk);
        }
        Ok(self.ids.iter().map(|(gk, id)| (gk.clone(), *id)).collect())
    }

    pub(super) fn committed(&mut self) {
        self.uncommitted.clear();
    }

    pub(super) fn rolled_back(&mut self) {
        for gk in self.uncommitted.drain(..) {
            if let Some(id) = self.ids.remove(&gk) {
                self.kinds.remove(&id);
            }
        }
    }
}
