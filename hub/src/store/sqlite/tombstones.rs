//! The table `tombstones`; rows with a body are the outbox.

use bytes::Bytes;
use lockstep_engine::acts::Span;
use lockstep_engine::{ClusterId, ObjectKey, ResourceVersion, Uid};
use rusqlite::{ToSql, params, params_from_iter};

use super::acts::version;
use super::body::{Bodies, Place};
use super::kinds::Kinds;
use super::row::{Columns, execute, first, json, limit as sql_limit, query};
use super::{Inner, find};
use crate::store::{Cause, CauseKind, Facts, Filed, StoreError, TombstoneFilter, TombstoneRow};

const TABLE: &str = "tombstones";

macro_rules! columns {
    ($body:literal) => {
        concat!(
            "SELECT id, cluster, kind, namespace, name, uid, resource_version, api_version, cause, policy, \
             deleted_at, last_seen, deleted, path, known_until, labels, owners, managers, deleter, act, held, \
             size, sealed, ended_from, ended_to, alive, created, ",
            $body,
            " FROM "
        )
    };
}

macro_rules! select {
    ($body:literal, $rest:literal) => {
        concat!(columns!($body), "tombstones ", $rest)
    };
}

fn ordinal(cause: CauseKind) -> i64 {
    match cause {
        CauseKind::Observed => 0,
        CauseKind::Inferred => 1,
        CauseKind::Lockstep => 2,
        CauseKind::Rewound => 3,
        CauseKind::ClusterRemoved => 4,
        CauseKind::Restore => 5,
    }
}

/// Ordinal and policy.
fn cause_columns(cause: &Cause) -> (i64, Option<&str>) {
    let (kind, policy) = match cause {
        Cause::Observed => (CauseKind::Observed, None),
        Cause::Inferred => (CauseKind::Inferred, None),
        Cause::Lockstep { policy } => (CauseKind::Lockstep, Some(policy.as_str())),
        Cause::Rewound => (CauseKind::Rewound, None),
        Cause::ClusterRemoved => (CauseKind::ClusterRemoved, None),
        Cause::Restore => (CauseKind::Restore, None),
    };
    (ordinal(kind), policy)
}

/// A condition's value, where it is asked for.
fn some<T: ToSql>(value: &Option<T>) -> Option<&dyn ToSql> {
    value.as_ref().map(|value| value as &dyn ToSql)
}

fn read(
    row: &Columns<'_>,
    db: &rusqlite::Connection,
    kinds: &mut Kinds,
    bodies: &mut Bodies,
) -> Result<TombstoneRow, StoreError> {
    let key = ObjectKey::new(kinds.kind(db, TABLE, row.int(2)?)?, row.text(3)?, row.text(4)?);
    let cause = match row.int(8)? {
        0 => Cause::Observed,
        1 => Cause::Inferred,
        2 => Cause::Lockstep { policy: row.string(9)? },
        3 => Cause::Rewound,
        4 => Cause::ClusterRemoved,
        5 => Cause::Restore,
        _ => return Err(row.bad(8, "an ordinal that this version does not know")),
    };
    let (uid, resource_version) = (Uid::new(row.text(5)?), ResourceVersion::new(row.text(6)?));
    let cluster = ClusterId(row.u32(1)?);
    let mut decode = |column: &'static str, stored: Option<&[u8]>| {
        let place = Place { table: TABLE, column, cluster, key: &key, uid: &uid, version: &resource_version };
        stored.map(|stored| bodies.decode(&place, stored)).transpose()
    };
    let (body, last) = (decode("body", row.opt_blob(27)?)?, decode("final", row.opt_blob(28)?)?);
    let facts = Facts {
        labels: row.json(15)?,
        owners: row.json(16)?,
        created: row.opt_int(26)?,
        managers: row.json(17)?,
        deleter: row.opt_text(18)?.map(str::to_owned),
        act: row.opt_int(19)?,
        ended: row
            .opt_int(23)?
            .zip(row.opt_int(24)?)
            .map(|(from, to)| Span { from: from.cast_unsigned(), to: to.cast_unsigned() }),
        alive: row.u64(25)?,
        held: row.bool(20)?,
        size: row.u64(21)?,
        sealed: row.bool(22)?,
        last,
    };
    Ok(TombstoneRow {
        id: row.int(0)?,
        cluster,
        key,
        uid,
        resource_version,
        api_version: row.string(7)?,
        cause,
        deleted_at: row.int(10)?,
        last_seen: row.int(11)?,
        body,
        path: row.opt_text(13)?.map(str::to_owned),
        known_until: row.opt_int(14)?,
        deleted: row.bool(12)?,
        facts,
    })
}

impl Inner {
    pub(super) fn tombstone(&mut self, id: i64) -> Result<Option<TombstoneRow>, StoreError> {
        let Self { db, kinds, bodies, .. } = self;
        first(db, TABLE, select!("body, final", "WHERE id = ?1"), [id], |row| read(row, db, kinds, bodies))
    }

    pub(super) fn last_tombstone(&mut self) -> Result<i64, StoreError> {
        let last =
            first(&self.db, TABLE, "SELECT coalesce(max(id), 0) FROM tombstones", [], |row| row.int(0))?;
        Ok(last.unwrap_or(0))
    }

    pub(super) fn tombstones(
        &mut self,
        filter: &TombstoneFilter,
        limit: usize,
    ) -> Result<Vec<TombstoneRow>, StoreError> {
        let TombstoneFilter {
            cluster,
            gk,
            namespace,
            name,
            name_glob,
            cause,
            policy,
            since,
            until,
            act,
            selector,
            text,
            deleter,
            undeleted,
        } = filter;
        let Self { db, kinds, bodies, .. } = self;
        let kind = match gk {
            None => None,
            Some(gk) => match kinds.id(db, gk)? {
                Some(kind) => Some(kind),
                None => return Ok(Vec::new()),
            },
        };
        let (cluster, cause) = (cluster.map(|cluster| cluster.0), cause.map(ordinal));
        // Classes of characters are no part of it.
        let glob = name_glob.as_ref().map(|glob| glob.replace('[', "[[]"));
        // Without indices of their own: many that match would have to be sorted, and the newest are asked for.
        let plus = |column: &'static str| match (name, column) {
            (Some(_), column) => column,
            (None, "cluster") => "+cluster",
            (None, "kind") => "+kind",
            (None, _) => "+namespace",
        };
        let conditions: [(&str, Option<&dyn ToSql>); 12] = [
            ("deleted", (!undeleted).then_some(&true)),
            (plus("cluster"), some(&cluster)),
            (plus("kind"), some(&kind)),
            (plus("namespace"), some(namespace)),
            ("name", some(name)),
            ("+name GLOB", some(&glob)),
            ("+cause", some(&cause)),
            ("+policy", some(policy)),
            ("deleted_at >=", some(since)),
            ("deleted_at <", some(until)),
            ("act", some(act)),
            ("deleter", some(deleter)),
        ];
        let limit = sql_limit(limit);
        let way = find::way(text.as_deref(), selector);
        let mut sql = format!("{}{}", columns!("NULL, NULL"), way.from);
        let mut values: Vec<&dyn ToSql> = way.values.iter().map(|value| value as &dyn ToSql).collect();
        for (column, value) in conditions {
            let Some(value) = value else { continue };
            let is = if column.contains(' ') { "" } else { " =" };
            sql.push_str(&format!(" AND {column}{is} ?"));
            values.push(value);
        }
        sql.push_str(&format!(" ORDER BY {} LIMIT ?", way.order));
        values.push(&limit);
        query(db, TABLE, &sql, params_from_iter(values), |row| read(row, db, kinds, bodies))
    }

    pub(super) fn outbox(&mut self, after: i64, limit: usize) -> Result<Vec<TombstoneRow>, StoreError> {
        let Self { db, kinds, bodies, .. } = self;
        query(
            db,
            TABLE,
            select!("body, final", "WHERE body IS NOT NULL AND id > ?1 ORDER BY id LIMIT ?2"),
            params![after, sql_limit(limit)],
            |row| read(row, db, kinds, bodies),
        )
    }

    pub(super) fn put_tombstone(&mut self, row: &TombstoneRow) -> Result<i64, StoreError> {
        let TombstoneRow {
            id: _, // given here
            cluster,
            key,
            uid,
            resource_version,
            api_version,
            cause,
            deleted_at,
            last_seen,
            body,
            path,
            deleted,
            known_until,
            facts:
                Facts { labels, owners, created, managers, deleter, act, ended, alive, held, sealed, size, last },
        } = row;
        let Self { db, kinds, bodies, .. } = self;
        let kind = kinds.intern(db, &key.gk)?;
        let mut encode = |column: &'static str, body: &Option<Bytes>| {
            let place =
                Place { table: TABLE, column, cluster: *cluster, key, uid, version: resource_version };
            body.as_ref().map(|body| bodies.encode(&place, body)).transpose()
        };
        let (body, last) = (encode("body", body)?, encode("final", last)?);
        let (cause, policy) = cause_columns(cause);
        execute(
            db,
            "INSERT INTO tombstones (cluster, kind, namespace, name, uid, resource_version, api_version, \
             cause, policy, deleted_at, last_seen, deleted, path, body, known_until, labels, owners, \
             owner_uid, managers, deleter, held, size, final, sealed, ended_from, ended_to, alive, created) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, \
             ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28)",
            params![
                cluster.0,
                kind,
                key.namespace,
                key.name,
                uid.as_str(),
                resource_version.as_str(),
                api_version,
                cause,
                policy,
                deleted_at,
                last_seen,
                deleted,
                path,
                body,
                known_until,
                json(TABLE, labels)?,
                json(TABLE, owners)?,
                owners.first().map(|owner| owner.uid.as_str()),
                json(TABLE, managers)?,
                deleter,
                held,
                i64::try_from(*size).unwrap_or(i64::MAX),
                last,
                sealed,
                ended.map(|ended| version(ended.from)),
                ended.map(|ended| version(ended.to)),
                version(*alive),
                created,
            ],
        )?;
        let id = db.last_insert_rowid();
        find::put(db, id, row)?;
        if act.is_some() {
            self.set_act(id, *act)?;
        }
        Ok(id)
    }

    pub(super) fn forget_tombstone(&mut self, id: i64) -> Result<(), StoreError> {
        self.counted(id, |db| {
            find::delete(db, id)?;
            execute(db, "DELETE FROM tombstones WHERE id = ?1", [id]).map(drop)
        })
    }

    pub(super) fn set_archived(&mut self, id: i64, file: &Filed) -> Result<(), StoreError> {
        let size = i64::try_from(file.size).unwrap_or(i64::MAX);
        execute(
            &self.db,
            "UPDATE tombstones SET path = ?2, size = ?3, sealed_under = ?4, body = NULL, final = NULL \
             WHERE id = ?1",
            params![id, file.path, size, file.key],
        )?;
        Ok(())
    }

    pub(super) fn set_deleted(&mut self, id: i64, deleted: bool) -> Result<(), StoreError> {
        self.counted(id, |db| {
            let sql = "UPDATE tombstones SET deleted = ?2 WHERE id = ?1";
            execute(db, sql, params![id, deleted]).map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_pinned() {
        assert_eq!(cause_columns(&Cause::Observed), (0, None));
        assert_eq!(cause_columns(&Cause::Inferred), (1, None));
        assert_eq!(cause_columns(&Cause::Rewound), (3, None));
        assert_eq!(cause_columns(&Cause::ClusterRemoved), (4, None));
        assert_eq!(cause_columns(&Cause::Restore), (5, None));
        assert_eq!(cause_columns(&Cause::Lockstep { policy: "p".into() }), (2, Some("p")));
    }
}
