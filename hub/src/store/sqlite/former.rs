//! The table `former_records`: what was last written to copies whose placements are forgotten.

use lockstep_engine::{ClusterId, Millis, ObjectKey, ResourceVersion, Uid};
use rusqlite::params;

use super::Inner;
use super::row::{execute, first};
use crate::store::{Record, StoreError};

const TABLE: &str = "former_records";

impl Inner {
    pub(super) fn former_record(
        &mut self,
        target: ClusterId,
        key: &ObjectKey,
        uid: &Uid,
    ) -> Result<Option<Record>, StoreError> {
        let Self { db, kinds, bodies, .. } = self;
        let Some(kind) = kinds.id(db, &key.gk)? else { return Ok(None) };
        first(
            db,
            TABLE,
            "SELECT version, rendered, owned, api, fields, written_at FROM former_records \
             WHERE target = ?1 AND kind = ?2 AND namespace = ?3 AND name = ?4 AND uid = ?5",
            params![target.0, kind, key.namespace, key.name, uid.as_str()],
            |row| {
                Ok(Record {
                    uid: Some(uid.clone()),
                    resource_version: ResourceVersion::new(row.text(0)?),
                    rendered: row.array(1)?,
                    owned: row.opt_array(2)?,
                    field_set: bodies.unpack(TABLE, row.blob(4)?)?,
                    api_version: row.string(3)?,
                    implicit: false,
                    // Its marks tell.
                    adopted: false,
                    created_at: row.int(5)?,
                })
            },
        )
    }

    pub(super) fn put_former_record(
        &mut self,
        target: ClusterId,
        key: &ObjectKey,
        record: &Record,
        at: Millis,
        before: Millis,
    ) -> Result<(), StoreError> {
        let Self { db, kinds, bodies, .. } = self;
        execute(db, "DELETE FROM former_records WHERE forgotten_at < ?1", [before])?;
        let Some(uid) = &record.uid else { return Ok(()) };
        let kind = kinds.intern(db, &key.gk)?;
        execute(
            db,
            "INSERT OR REPLACE INTO former_records (target, kind, namespace, name, uid, version, rendered, \
             owned, api, fields, written_at, forgotten_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            params![
                target.0,
                kind,
                key.namespace,
                key.name,
                uid.as_str(),
                record.resource_version.as_str(),
                &record.rendered[..],
                record.owned.as_ref().map(|owned| &owned[..]),
                record.api_version,
                bodies.pack(TABLE, &record.field_set)?,
                record.created_at,
                at,
            ],
        )?;
        Ok(())
    }
}
