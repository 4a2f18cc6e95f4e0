//! The table `placements`: writing, and reading one. Scans are in `scan.rs`.

use lockstep_engine::status::{State, Status};
use lockstep_engine::{ClusterId, GroupKind, ObjectKey, ResourceVersion, Uid};
use rusqlite::{ToSql, params, params_from_iter};

use super::Inner;
use super::body::Bodies;
use super::row::{Columns, execute, first, json};
use crate::store::{DeleteStage, Ending, Fields, PlacementRow, Record, SourceRef, StoreError};

pub(super) const TABLE: &str = "placements";

/// Columns in the order in which [`read`] takes them, without target and kind.
macro_rules! select_placement {
    ($rest:expr) => {
        concat!(
            "SELECT namespace, name, policy, source_cluster, source_namespace, source_name, source_uid, \
             state, reason, message, since, generation, attempts, next_attempt, synced_at, lag_ms, ending, \
             delete_stage, delete_tombstone, delete_uid, delete_version, barred, rivals, \
             written_rendered, written_uid, written_version, written_owned, written_api, \
             written_implicit, written_at, written_fields, written_adopted, fields FROM placements ",
            $rest
        )
    };
}
pub(super) use select_placement;

/// Parameters ?1 to ?35 are those of [`Inner::put_placement`]. In these, columns that are indexed and
/// rarely change (policy, source cluster) are conditions: SQLite rewrites the entry of every index
/// that has a column in SET, changed or not.
const UPDATE: &str = "UPDATE placements SET source_namespace = ?7, source_name = ?8, source_uid = ?9, \
    state = ?10, reason = ?11, message = ?12, since = ?13, generation = ?14, attempts = ?15, \
    next_attempt = ?16, synced_at = ?17, lag_ms = ?18, ending = ?19, delete_stage = ?20, \
    delete_tombstone = ?21, delete_uid = ?22, delete_version = ?23, barred = ?24, rivals = ?25, \
    written_rendered = ?26, written_uid = ?27, written_version = ?28, written_owned = ?29, \
    written_api = ?30, written_implicit = ?31, written_at = ?32, written_fields = ?33, \
    written_adopted = ?34, fields = ?35 WHERE target = ?1 AND kind = ?2 AND namespace = ?3 AND name = ?4 \
    AND policy = ?5 AND source_cluster IS ?6";
const UPSERT: &str = "INSERT INTO placements (target, kind, namespace, name, policy, source_cluster, \
    source_namespace, source_name, source_uid, state, reason, message, since, generation, attempts, \
    next_attempt, synced_at, lag_ms, ending, delete_stage, delete_tombstone, delete_uid, delete_version, \
    barred, rivals, written_rendered, written_uid, written_version, written_owned, written_api, \
    written_implicit, written_at, written_fields, written_adopted, fields) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, \
    ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35) \
    ON CONFLICT (target, kind, namespace, name) DO UPDATE SET policy = ?5, source_cluster = ?6, \
    source_namespace = ?7, source_name = ?8, source_uid = ?9, \
    state = ?10, reason = ?11, message = ?12, since = ?13, generation = ?14, attempts = ?15, \
    next_attempt = ?16, synced_at = ?17, lag_ms = ?18, ending = ?19, delete_stage = ?20, \
    delete_tombstone = ?21, delete_uid = ?22, delete_version = ?23, barred = ?24, rivals = ?25, \
    written_rendered = ?26, written_uid = ?27, written_version = ?28, written_owned = ?29, \
    written_api = ?30, written_implicit = ?31, written_at = ?32, written_fields = ?33, \
    written_adopted = ?34, fields = ?35";

/// In the order of their stored ordinals: only ever append.
const ENDINGS: [Ending; 6] = [
    Ending::SourceDeleted,
    Ending::Unselected,
    Ending::PolicyRemoved,
    Ending::TargetRemoved,
    Ending::Recovered,
    Ending::Recreate,
];

fn ending_ordinal(ending: Ending) -> i64 {
    match ending {
        Ending::SourceDeleted => 0,
        Ending::Unselected => 1,
        Ending::PolicyRemoved => 2,
        Ending::TargetRemoved => 3,
        Ending::Recovered => 4,
        Ending::Recreate => 5,
    }
}

/// The columns of a stage: ordinal, tombstone (of the first stage: since when), uid, resourceVersion.
type StageColumns<'a> = (Option<i64>, Option<i64>, Option<&'a str>, Option<&'a str>);

fn stage_columns(stage: Option<&DeleteStage>) -> StageColumns<'_> {
    match stage {
        None => (None, None, None, None),
        Some(DeleteStage::Granted) => (Some(0), None, None, None),
        Some(DeleteStage::Held) => (Some(3), None, None, None),
        Some(DeleteStage::Approved) => (Some(4), None, None, None),
        Some(DeleteStage::Waiting { since }) => (Some(5), Some(*since), None, None),
        Some(DeleteStage::Releasing) => (Some(6), None, None, None),
        Some(DeleteStage::Archiving { tombstone }) => (Some(1), Some(*tombstone), None, None),
        Some(DeleteStage::Archived { tombstone, uid, resource_version }) => {
            (Some(2), Some(*tombstone), Some(uid.as_str()), Some(resource_version.as_str()))
        }
    }
}

fn read_stage(row: &Columns<'_>) -> Result<Option<DeleteStage>, StoreError> {
    Ok(match row.opt_int(17)? {
        None => None,
        Some(0) => Some(DeleteStage::Granted),
        Some(3) => Some(DeleteStage::Held),
        Some(4) => Some(DeleteStage::Approved),
        Some(5) => Some(DeleteStage::Waiting { since: row.int(18)? }),
        Some(6) => Some(DeleteStage::Releasing),
        Some(1) => Some(DeleteStage::Archiving { tombstone: row.int(18)? }),
        Some(2) => Some(DeleteStage::Archived {
            tombstone: row.int(18)?,
            uid: Uid::new(row.text(19)?),
            resource_version: ResourceVersion::new(row.text(20)?),
        }),
        Some(_) => return Err(row.bad(17, "an ordinal that this version does not know")),
    })
}

fn read_source(row: &Columns<'_>) -> Result<Option<SourceRef>, StoreError> {
    if row.opt_int(3)?.is_none() {
        return Ok(None);
    }
    Ok(Some(SourceRef {
        cluster: ClusterId(row.u32(3)?),
        namespace: row.string(4)?,
        name: row.string(5)?,
        uid: Uid::new(row.text(6)?),
    }))
}

fn read_record(row: &Columns<'_>, bodies: &mut Bodies) -> Result<Option<Record>, StoreError> {
    let Some(rendered) = row.opt_array(23)? else { return Ok(None) };
    Ok(Some(Record {
        uid: row.opt_text(24)?.map(Uid::new),
        resource_version: ResourceVersion::new(row.text(25)?),
        rendered,
        owned: row.opt_array(26)?,
        field_set: bodies.unpack(TABLE, row.blob(30)?)?,
        api_version: row.string(27)?,
        implicit: row.bool(28)?,
        adopted: row.opt_int(31)? == Some(1),
        created_at: row.int(29)?,
    }))
}

/// One row of `select_placement!`.
pub(super) fn read(
    row: &Columns<'_>,
    target: ClusterId,
    gk: &GroupKind,
    bodies: &mut Bodies,
) -> Result<PlacementRow, StoreError> {
    let ending = row.opt_int(16)?.map(|_| row.ordinal(16, &ENDINGS)).transpose()?;
    Ok(PlacementRow {
        target,
        key: ObjectKey::new(gk.clone(), row.text(0)?, row.text(1)?),
        policy: row.string(2)?,
        rivals: row.json(22)?,
        source: read_source(row)?,
        record: read_record(row, bodies)?,
        status: Status {
            state: row.ordinal(7, &State::ALL)?,
            reason: row.string(8)?,
            message: row.string(9)?,
        },
        since: row.int(10)?,
        observed_generation: row.u64(11)?,
        ending,
        delete: read_stage(row)?,
        attempts: row.u32(12)?,
        next_attempt: row.opt_int(13)?,
        barred: row.opt_blob(21)?.map(bytes::Bytes::copy_from_slice),
        synced_at: row.opt_int(14)?,
        lag_ms: row.opt_int(15)?,
        fields: match row.opt_text(32)? {
            Some(_) => row.json(32)?,
            None => Fields::default(),
        },
    })
}

impl Inner {
    pub(super) fn placement(
        &mut self,
        target: ClusterId,
        key: &ObjectKey,
    ) -> Result<Option<PlacementRow>, StoreError> {
        let Self { db, kinds, bodies, .. } = self;
        let Some(kind) = kinds.id(db, &key.gk)? else { return Ok(None) };
        first(
            db,
            TABLE,
            select_placement!("WHERE target = ?1 AND kind = ?2 AND namespace = ?3 AND name = ?4"),
            params![target.0, kind, key.namespace, key.name],
            |row| read(row, target, &key.gk, bodies),
        )
    }

    pub(super) fn put_placement(&mut self, row: &PlacementRow) -> Result<(), StoreError> {
        let PlacementRow {
            target,
            key,
            policy,
            rivals,
            source,
            record,
            status: Status { state, reason, message },
            since,
            observed_generation,
            ending,
            delete,
            attempts,
            next_attempt,
            barred,
            synced_at,
            lag_ms,
            fields: taken,
        } = row;
        let Self { db, kinds, bodies, .. } = self;
        let kind = kinds.intern(db, &key.gk)?;
        let rivals = json(TABLE, rivals)?;
        let (stage, tombstone, delete_uid, delete_version) = stage_columns(delete.as_ref());
        let (source, record) = (source.as_ref(), record.as_ref());
        let fields = record.map(|record| bodies.pack(TABLE, &record.field_set)).transpose()?;
        let taken = (*taken != Fields::default()).then(|| json(TABLE, taken)).transpose()?;
        let values: [&dyn ToSql; 35] = [
            &target.0,
            &kind,
            &key.namespace,
            &key.name,
            policy,
            &source.map(|source| source.cluster.0),
            &source.map(|source| &source.namespace),
            &source.map(|source| &source.name),
            &source.map(|source| source.uid.as_str()),
            &state.ordinal(),
            reason,
            message,
            since,
            &observed_generation.cast_signed(),
            attempts,
            next_attempt,
            synced_at,
            lag_ms,
            &ending.map(ending_ordinal),
            &stage,
            &tombstone,
            &delete_uid,
            &delete_version,
            &barred.as_ref().map(|barred| &barred[..]),
            &rivals,
            &record.map(|record| &record.rendered[..]),
            &record.and_then(|record| record.uid.as_ref()).map(Uid::as_str),
            &record.map(|record| record.resource_version.as_str()),
            &record.and_then(|record| record.owned.as_ref()).map(|owned| &owned[..]),
            &record.map(|record| &record.api_version),
            &record.map(|record| record.implicit),
            &record.map(|record| record.created_at),
            &fields,
            &record.map(|record| record.adopted),
            &taken,
        ];
        if execute(db, UPDATE, params_from_iter(values))? == 0 {
            execute(db, UPSERT, params_from_iter(values))?;
        }
        Ok(())
    }

    pub(super) fn delete_placement(&mut self, target: ClusterId, key: &ObjectKey) -> Result<(), StoreError> {
        let Self { db, kinds, .. } = self;
        let Some(kind) = kinds.id(db, &key.gk)? else { return Ok(()) };
        execute(
            db,
            "DELETE FROM placements WHERE target = ?1 AND kind = ?2 AND namespace = ?3 AND name = ?4",
            params![target.0, kind, key.namespace, key.name],
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_pinned() {
        for (n, ending) in ENDINGS.into_iter().enumerate() {
            assert_eq!(ending_ordinal(ending), i64::try_from(n).unwrap());
        }
        assert_eq!((ending_ordinal(Ending::SourceDeleted), ending_ordinal(Ending::Recovered)), (0, 4));
        assert_eq!(stage_columns(Some(&DeleteStage::Granted)).0, Some(0));
        assert_eq!(stage_columns(Some(&DeleteStage::Held)).0, Some(3));
        assert_eq!(stage_columns(Some(&DeleteStage::Approved)).0, Some(4));
        let waiting = DeleteStage::Waiting { since: 7 };
        assert_eq!(stage_columns(Some(&waiting)), (Some(5), Some(7), None, None));
        assert_eq!(stage_columns(Some(&DeleteStage::Releasing)).0, Some(6));
        assert_eq!(
            stage_columns(Some(&DeleteStage::Archiving { tombstone: 5 })),
            (Some(1), Some(5), None, None)
        );
        let archived = DeleteStage::Archived {
            tombstone: 5,
            uid: Uid::new("u"),
            resource_version: ResourceVersion::new("7"),
        };
        assert_eq!(stage_columns(Some(&archived)), (Some(2), Some(5), Some("u"), Some("7")));
    }
}
