//! The table `objects`: what every cluster holds, as last seen.

use bytes::Bytes;
use lockstep_engine::catalogue::PodSecurity;
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey, ResourceVersion, Uid};
use rusqlite::params;

use super::Inner;
use super::body::{Bodies, Place};
use super::row::{Columns, execute, first, json, limit as sql_limit, query};
use super::watches::Scope;
use crate::store::{IndexRow, ManagedRow, ObjectRow, Owned, StoreError};

const TABLE: &str = "objects";

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT namespace, name, watch, uid, resource_version, deleting, observed_at, managed, owned, \
             marks, managers, managed_created_at, body, unseen, before, told, pod_security FROM objects ",
            $rest
        )
    };
}

fn read(
    row: &Columns<'_>,
    cluster: ClusterId,
    gk: &GroupKind,
    bodies: &mut Bodies,
) -> Result<ObjectRow, StoreError> {
    let key = ObjectKey::new(gk.clone(), row.text(0)?, row.text(1)?);
    let (uid, resource_version) = (Uid::new(row.text(3)?), ResourceVersion::new(row.text(4)?));
    let mut decode = |column: &'static str, stored: Option<&[u8]>| {
        let place = Place { table: TABLE, column, cluster, key: &key, uid: &uid, version: &resource_version };
        stored.map(|stored| bodies.decode(&place, stored)).transpose()
    };
    let (body, before) = (decode("body", row.opt_blob(12)?)?, decode("before", row.opt_blob(14)?)?);
    Ok(ObjectRow {
        cluster,
        watch: row.u32(2)?,
        uid,
        resource_version,
        body,
        managed: read_managed(row)?,
        deleting: row.bool(5)?,
        pod_security: if row.opt_text(16)?.is_some() { row.json(16)? } else { PodSecurity::new() },
        before,
        observed_at: row.int(6)?,
        unseen: row.opt_int(13)?,
        key,
    })
}

fn read_managed(row: &Columns<'_>) -> Result<Option<ManagedRow>, StoreError> {
    let owned = match row.opt_int(7)? {
        None => return Ok(None),
        Some(0) => Owned::Digest(row.array(8)?),
        Some(1) => Owned::NoEntry,
        Some(2) => Owned::OtherVersion,
        Some(_) => return Err(row.bad(7, "an ordinal that this version does not know")),
    };
    Ok(Some(ManagedRow {
        owned,
        marks: row.json(9)?,
        managers: row.json(10)?,
        created_at: row.int(11)?,
        told: row.bool(15)?,
    }))
}

/// Ordinal and digest.
fn owned_columns(owned: &Owned) -> (i64, Option<&[u8]>) {
    match owned {
        Owned::Digest(digest) => (0, Some(digest)),
        Owned::NoEntry => (1, None),
        Owned::OtherVersion => (2, None),
    }
}

impl Inner {
    pub(super) fn object(
        &mut self,
        cluster: ClusterId,
        key: &ObjectKey,
    ) -> Result<Option<ObjectRow>, StoreError> {
        let Self { db, kinds, bodies, .. } = self;
        let Some(kind) = kinds.id(db, &key.gk)? else { return Ok(None) };
        first(
            db,
            TABLE,
            select!("WHERE cluster = ?1 AND kind = ?2 AND namespace = ?3 AND name = ?4"),
            params![cluster.0, kind, key.namespace, key.name],
            |row| read(row, cluster, &key.gk, bodies),
        )
    }

    pub(super) fn objects(
        &mut self,
        cluster: ClusterId,
        gk: &GroupKind,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<ObjectRow>, StoreError> {
        let Self { db, kinds, bodies, .. } = self;
        let Some(kind) = kinds.id(db, gk)? else { return Ok(Vec::new()) };
        // No object has an empty name: everything comes after ("", "").
        let (after_namespace, after_name) = after.unwrap_or_default();
        let read = |row: &Columns<'_>| read(row, cluster, gk, bodies);
        let limit = sql_limit(limit);
        match namespace {
            None => query(
                db,
                TABLE,
                select!(
                    "WHERE cluster = ?1 AND kind = ?2 AND (namespace, name) > (?3, ?4) \
                     ORDER BY namespace, name LIMIT ?5"
                ),
                params![cluster.0, kind, after_namespace, after_name, limit],
                read,
            ),
            Some(namespace) if namespace < after_namespace => Ok(Vec::new()),
            Some(namespace) => query(
                db,
                TABLE,
                select!(
                    "WHERE cluster = ?1 AND kind = ?2 AND namespace = ?3 AND name > ?4 \
                     ORDER BY name LIMIT ?5"
                ),
                params![
                    cluster.0,
                    kind,
                    namespace,
                    if namespace == after_namespace { after_name } else { "" },
                    limit
                ],
                read,
            ),
        }
    }

    pub(super) fn object_count(&mut self, cluster: ClusterId) -> Result<u64, StoreError> {
        let count =
            first(&self.db, TABLE, "SELECT count(*) FROM objects WHERE cluster = ?1", [cluster.0], |row| {
                row.u64(0)
            })?;
        Ok(count.unwrap_or(0))
    }

    pub(super) fn container_gone(
        &mut self,
        cluster: ClusterId,
        key: &ObjectKey,
    ) -> Result<Option<(Millis, ResourceVersion)>, StoreError> {
        let Self { db, kinds, .. } = self;
        let Some(kind) = kinds.id(db, &key.gk)? else { return Ok(None) };
        first(
            db,
            "containers_gone",
            "SELECT gone_at, version FROM containers_gone WHERE cluster = ?1 AND kind = ?2 AND name = ?3",
            params![cluster.0, kind, key.name],
            |row| Ok((row.int(0)?, ResourceVersion::new(row.text(1)?))),
        )
    }

    pub(super) fn put_container_gone(
        &mut self,
        cluster: ClusterId,
        key: &ObjectKey,
        at: Millis,
        version: &ResourceVersion,
        before: Millis,
    ) -> Result<(), StoreError> {
        let Self { db, kinds, .. } = self;
        let kind = kinds.intern(db, &key.gk)?;
        execute(db, "DELETE FROM containers_gone WHERE gone_at < ?1", [before])?;
        execute(
            db,
            "INSERT INTO containers_gone (cluster, kind, name, gone_at, version) \
             VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (cluster, kind, name) DO UPDATE SET gone_at = max(gone_at, ?4), version = ?5",
            params![cluster.0, kind, key.name, at, version.as_str()],
        )?;
        Ok(())
    }

    pub(super) fn void_versions(&mut self, cluster: ClusterId) -> Result<(), StoreError> {
        execute(&self.db, "UPDATE containers_gone SET version = '' WHERE cluster = ?1", [cluster.0])?;
        self.void_acts(cluster)
    }

    /// Objects of a cluster that no list has shown since it was rewound.
    pub(super) fn unseen(&mut self, cluster: ClusterId, limit: usize) -> Result<Vec<ObjectKey>, StoreError> {
        let Self { db, kinds, .. } = self;
        let found = query(
            db,
            TABLE,
            "SELECT kind, namespace, name FROM objects WHERE cluster = ?1 AND unseen IS NOT NULL \
             ORDER BY kind, namespace, name LIMIT ?2",
            params![cluster.0, sql_limit(limit)],
            |row| Ok((row.int(0)?, row.string(1)?, row.string(2)?)),
        )?;
        let key = |(kind, namespace, name): (i64, String, String)| {
            Ok(ObjectKey::new(kinds.kind(db, TABLE, kind)?, &namespace, &name))
        };
        found.into_iter().map(key).collect()
    }

    pub(super) fn unseen_totals(&mut self, cluster: ClusterId) -> Result<(u64, Millis), StoreError> {
        let totals = first(
            &self.db,
            TABLE,
            "SELECT count(*), coalesce(max(unseen), 0) FROM objects WHERE cluster = ?1 AND unseen IS NOT NULL",
            [cluster.0],
            |row| Ok((row.u64(0)?, row.int(1)?)),
        )?;
        Ok(totals.unwrap_or_default())
    }

    /// A watch has no index of its own: what it reported lies together under (cluster, kind).
    pub(super) fn index(
        &mut self,
        watch: u32,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<IndexRow>, StoreError> {
        let Some(Scope { cluster, kind, namespace }) = self.scope(watch)? else { return Ok(Vec::new()) };
        let (after_namespace, after_name) = match after {
            Some(after) if after.0 >= namespace.as_str() => after,
            _ => (namespace.as_str(), ""),
        };
        let (up_to, bounded) = (namespace.as_str(), !namespace.is_empty());
        query(
            &self.db,
            TABLE,
            "SELECT namespace, name, uid, resource_version, body IS NOT NULL, managed IS NOT NULL, told \
             FROM objects WHERE cluster = ?1 AND kind = ?2 AND (namespace, name) > (?3, ?4) \
             AND watch = ?5 AND unseen IS NULL AND (NOT ?6 OR namespace <= ?7) ORDER BY namespace, name LIMIT ?8",
            params![cluster, kind, after_namespace, after_name, watch, bounded, up_to, sql_limit(limit)],
            |row| {
                Ok(IndexRow {
                    namespace: row.string(0)?,
                    name: row.string(1)?,
                    uid: Uid::new(row.text(2)?),
                    resource_version: ResourceVersion::new(row.text(3)?),
                    body_held: row.bool(4)?,
                    managed: row.bool(5)?,
                    told: row.bool(6)?,
                })
            },
        )
    }

    pub(super) fn unconfirmed(
        &mut self,
        watch: u32,
        version: u64,
    ) -> Result<Vec<(ObjectKey, ResourceVersion)>, StoreError> {
        let Some(Scope { cluster, kind, namespace }) = self.scope(watch)? else { return Ok(Vec::new()) };
        let Self { db, kinds, .. } = self;
        let gk = kinds.kind(db, TABLE, kind)?;
        query(
            db,
            TABLE,
            "SELECT namespace, name, resource_version FROM objects WHERE cluster = ?1 AND kind = ?2 \
             AND (?3 = '' OR namespace = ?3) AND watch = ?4 AND managed IS NOT NULL AND unseen IS NULL \
             AND (CAST(resource_version AS INTEGER) > ?5 OR told = 0)",
            params![cluster, kind, namespace, watch, i64::try_from(version).unwrap_or(i64::MAX)],
            |row| {
                let key = ObjectKey::new(gk.clone(), row.text(0)?, row.text(1)?);
                Ok((key, ResourceVersion::new(row.text(2)?)))
            },
        )
    }

    pub(super) fn put_object(&mut self, row: &ObjectRow) -> Result<(), StoreError> {
        let ObjectRow {
            cluster,
            key,
            watch,
            uid,
            resource_version,
            body,
            managed,
            deleting,
            pod_security,
            before,
            observed_at,
            unseen,
        } = row;
        let Self { db, kinds, bodies, .. } = self;
        let kind = kinds.intern(db, &key.gk)?;
        let mut encode = |column: &'static str, body: &Option<Bytes>| {
            let place =
                Place { table: TABLE, column, cluster: *cluster, key, uid, version: resource_version };
            body.as_ref().map(|body| bodies.encode(&place, body)).transpose()
        };
        let (body, before) = (encode("body", body)?, encode("before", before)?);
        let (mut owned, mut marks, mut managers) = ((None, None), None, None);
        if let Some(managed) = managed {
            let (ordinal, digest) = owned_columns(&managed.owned);
            owned = (Some(ordinal), digest);
            marks = Some(json(TABLE, &managed.marks)?);
            managers = Some(json(TABLE, &managed.managers)?);
        }
        execute(
            db,
            "INSERT INTO objects (cluster, kind, namespace, name, watch, uid, resource_version, deleting, \
             observed_at, managed, owned, marks, managers, managed_created_at, body, unseen, \
             before, told, pod_security) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, \
             ?18, ?19) \
             ON CONFLICT (cluster, kind, namespace, name) DO UPDATE SET watch = ?5, uid = ?6, \
             resource_version = ?7, deleting = ?8, observed_at = ?9, managed = ?10, owned = ?11, \
             marks = ?12, managers = ?13, managed_created_at = ?14, body = ?15, \
             unseen = ?16, before = ?17, told = ?18, pod_security = ?19",
            params![
                cluster.0,
                kind,
                key.namespace,
                key.name,
                watch,
                uid.as_str(),
                resource_version.as_str(),
                deleting,
                observed_at,
                owned.0,
                owned.1,
                marks,
                managers,
                managed.as_ref().map(|managed| managed.created_at),
                body,
                unseen,
                before,
                managed.as_ref().is_none_or(|managed| managed.told),
                (!pod_security.is_empty()).then(|| json(TABLE, pod_security)).transpose()?,
            ],
        )?;
        Ok(())
    }

    pub(super) fn delete_object(&mut self, cluster: ClusterId, key: &ObjectKey) -> Result<(), StoreError> {
        let Self { db, kinds, .. } = self;
        let Some(kind) = kinds.id(db, &key.gk)? else { return Ok(()) };
        execute(
            db,
            "DELETE FROM objects WHERE cluster = ?1 AND kind = ?2 AND namespace = ?3 AND name = ?4",
            params![cluster.0, kind, key.namespace, key.name],
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_pinned() {
        assert_eq!(owned_columns(&Owned::Digest([7; 16])), (0, Some(&[7; 16][..])));
        assert_eq!(owned_columns(&Owned::NoEntry), (1, None));
        assert_eq!(owned_columns(&Owned::OtherVersion), (2, None));
    }
}
