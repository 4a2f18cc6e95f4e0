//! The table `watches`.

use lockstep_engine::{ClusterId, GroupKind, Millis, ResourceVersion};
use rusqlite::params;

use super::Inner;
use super::row::{Columns, execute, first, query};
use crate::store::{Phase, StoreError, WatchRow};

const TABLE: &str = "watches";
const BY_CLUSTER: &str = "SELECT id, cluster, kind, namespace, epoch, checkpoint, interest, api_version, \
    phase, reason, message, since, updated_at, rewound, live_at FROM watches WHERE cluster = ?1 ORDER BY id";
const ALL: &str = "SELECT id, cluster, kind, namespace, epoch, checkpoint, interest, api_version, \
    phase, reason, message, since, updated_at, rewound, live_at FROM watches ORDER BY id";
const ONE: &str = "SELECT id, cluster, kind, namespace, epoch, checkpoint, interest, api_version, \
    phase, reason, message, since, updated_at, rewound, live_at FROM watches \
    WHERE cluster = ?1 AND kind = ?2 AND namespace = ?3";

/// In the order of their stored ordinals: only ever append.
const PHASES: [Phase; 4] = [Phase::Pending, Phase::Listing, Phase::Live, Phase::Failing];

fn ordinal(phase: Phase) -> i64 {
    match phase {
        Phase::Pending => 0,
        Phase::Listing => 1,
        Phase::Live => 2,
        Phase::Failing => 3,
    }
}

/// What a watch covers.
pub(super) struct Scope {
    pub(super) cluster: u32,
    pub(super) kind: i64,
    pub(super) namespace: String,
}

fn read(row: &Columns<'_>, gk: GroupKind) -> Result<WatchRow, StoreError> {
    Ok(WatchRow {
        id: row.u32(0)?,
        cluster: ClusterId(row.u32(1)?),
        gk,
        namespace: row.string(3)?,
        epoch: row.u64(4)?,
        checkpoint: ResourceVersion::new(row.text(5)?),
        interest: row.bytes(6)?,
        api_version: row.string(7)?,
        phase: row.ordinal(8, &PHASES)?,
        reason: row.string(9)?,
        message: row.string(10)?,
        since: row.int(11)?,
        updated_at: row.int(12)?,
        rewound: row.bool(13)?,
        live_at: row.opt_int(14)?,
    })
}

impl Inner {
    pub(super) fn watches(&mut self, cluster: Option<ClusterId>) -> Result<Vec<WatchRow>, StoreError> {
        let Self { db, kinds, .. } = self;
        let mut with_kind = |row: &Columns<'_>| read(row, kinds.kind(db, TABLE, row.int(2)?)?);
        match cluster {
            Some(cluster) => query(db, TABLE, BY_CLUSTER, [cluster.0], &mut with_kind),
            None => query(db, TABLE, ALL, [], &mut with_kind),
        }
    }

    pub(super) fn ensure_watch(
        &mut self,
        cluster: ClusterId,
        gk: &GroupKind,
        namespace: &str,
        now: Millis,
    ) -> Result<WatchRow, StoreError> {
        let Self { db, kinds, .. } = self;
        let kind = kinds.intern(db, gk)?;
        if let Some(found) =
            first(db, TABLE, ONE, params![cluster.0, kind, namespace], |row| read(row, gk.clone()))?
        {
            return Ok(found);
        }
        execute(
            db,
            "INSERT INTO watches (cluster, kind, namespace, epoch, checkpoint, interest, api_version, \
             phase, reason, message, since, updated_at) \
             VALUES (?1, ?2, ?3, 0, '', x'', '', 0, '', '', ?4, ?4)",
            params![cluster.0, kind, namespace, now],
        )?;
        first(db, TABLE, ONE, params![cluster.0, kind, namespace], |row| read(row, gk.clone()))?.ok_or_else(
            || StoreError::Row { table: TABLE, why: "a watch just inserted is not there".to_owned() },
        )
    }

    pub(super) fn put_watch(&mut self, row: &WatchRow) -> Result<(), StoreError> {
        let WatchRow {
            id,
            cluster,
            gk,
            namespace,
            epoch,
            checkpoint,
            interest,
            api_version,
            phase,
            reason,
            message,
            since,
            updated_at,
            rewound,
            live_at,
        } = row;
        let Self { db, kinds, .. } = self;
        let kind = kinds.intern(db, gk)?;
        execute(
            db,
            "INSERT INTO watches (id, cluster, kind, namespace, epoch, checkpoint, interest, api_version, \
             phase, reason, message, since, updated_at, rewound, live_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) \
             ON CONFLICT (id) DO UPDATE SET epoch = ?5, checkpoint = ?6, interest = ?7, api_version = ?8, \
             phase = ?9, reason = ?10, message = ?11, since = ?12, updated_at = ?13, \
             rewound = ?14, live_at = ?15",
            params![
                id,
                cluster.0,
                kind,
                namespace,
                epoch.cast_signed(),
                checkpoint.as_str(),
                &interest[..],
                api_version,
                ordinal(*phase),
                reason,
                message,
                since,
                updated_at,
                rewound,
                live_at,
            ],
        )?;
        Ok(())
    }

    /// What a watch covers, if it exists.
    pub(super) fn scope(&self, id: u32) -> Result<Option<Scope>, StoreError> {
        first(&self.db, TABLE, "SELECT cluster, kind, namespace FROM watches WHERE id = ?1", [id], |row| {
            Ok(Scope { cluster: row.u32(0)?, kind: row.int(1)?, namespace: row.string(2)? })
        })
    }

    pub(super) fn adopt_objects(&mut self, from: u32, to: u32) -> Result<(), StoreError> {
        let (Some(old), Some(new)) = (self.scope(from)?, self.scope(to)?) else { return Ok(()) };
        if (old.cluster, old.kind) == (new.cluster, new.kind) {
            execute(
                &self.db,
                "UPDATE objects SET watch = ?4 WHERE cluster = ?1 AND kind = ?2 AND watch = ?3 \
                 AND (?5 = '' OR namespace = ?5)",
                params![old.cluster, old.kind, from, to, new.namespace],
            )?;
        }
        Ok(())
    }

    pub(super) fn drop_watch(&mut self, id: u32) -> Result<(), StoreError> {
        if let Some(Scope { cluster, kind, .. }) = self.scope(id)? {
            execute(
                &self.db,
                "DELETE FROM objects WHERE cluster = ?1 AND kind = ?2 AND watch = ?3",
                params![cluster, kind, id],
            )?;
            execute(&self.db, "DELETE FROM watches WHERE id = ?1", [id])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_pinned() {
        for (n, phase) in PHASES.into_iter().enumerate() {
            assert_eq!(ordinal(phase), i64::try_from(n).unwrap());
        }
        assert_eq!((ordinal(Phase::Pending), ordinal(Phase::Failing)), (0, 3));
    }
}
