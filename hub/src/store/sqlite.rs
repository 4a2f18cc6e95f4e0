//! The state store in an SQLite file: WAL, one writer, any number of readers.
//!
//! One module per table; `v1.sql` is the schema. People can open the file with `sqlite3`; the views
//! `*_readable` are for them.

mod body;
mod clusters;
mod kinds;
mod lock;
mod objects;
mod open;
mod placements;
mod row;
mod scan;
mod schema;
mod settings;
#[cfg(test)]
mod tests;
mod tombstones;
mod watches;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey};
use rusqlite::Connection;

use super::{
    ClusterNameRef, ClusterRow, IndexRow, ObjectRow, PlacementCursor, PlacementFilter, PlacementRow,
    PolicyFileRow, PolicyRow, Reader, Store, StoreError, SummaryRow, TombstoneFilter, TombstoneRow, WatchRow,
};
use crate::seal::Sealer;
use body::Bodies;
use kinds::Kinds;
pub use open::{CODES, Check, OpenError};
pub use schema::VERSION;

/// Reads and writes; one per data directory.
pub type SqliteStore = Sqlite<Writer>;
/// Reads committed state.
pub type SqliteReader = Sqlite<ReadOnly>;

/// A connection to the state store.
pub struct Sqlite<M> {
    // Dropped in this order: the connection is closed before the marker goes and the lock is released.
    inner: Inner,
    mode: M,
}

/// Mode of [`SqliteStore`].
pub struct Writer {
    in_transaction: bool,
    readers: SqliteReaders,
    _clean_stop: lock::Marker,
    _lock: lock::DirLock,
}

/// Mode of [`SqliteReader`].
pub struct ReadOnly(());

/// Opens readers of a store; they outlive it, and do not keep it.
#[derive(Clone, Debug)]
pub struct SqliteReaders {
    path: PathBuf,
    sealer: Sealer,
}

impl SqliteReaders {
    /// One more connection, which can only read.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn open(&self) -> Result<SqliteReader, StoreError> {
        let db = open::connect_reader(&self.path)?;
        Ok(Sqlite { inner: Inner::new(db, self.sealer.clone())?, mode: ReadOnly(()) })
    }
}

/// A connection with its caches.
struct Inner {
    db: Connection,
    kinds: Kinds,
    bodies: Bodies,
    /// What `served` holds, as far as this connection wrote it; emptied by a rollback.
    served: BTreeMap<u32, Bytes>,
}

impl Inner {
    fn new(db: Connection, sealer: Sealer) -> Result<Self, StoreError> {
        let bodies = Bodies::new(sealer).map_err(|e| StoreError::Database(Box::new(e)))?;
        Ok(Self { db, kinds: Kinds::default(), bodies, served: BTreeMap::new() })
    }
}

impl SqliteStore {
    /// Opens the store at `path`, or makes one; takes the lock of its directory. After a stop that
    /// was not clean, the file is checked.
    ///
    /// # Errors
    /// When another process has it, when it is corrupt, foreign, of a newer version, or sealed under
    /// another key. Each has a code and a remedy.
    pub fn open(path: &Path, sealer: Sealer) -> Result<Self, OpenError> {
        Self::open_with(path, sealer, Check::AfterCrash)
    }

    /// [`Self::open`], saying when the file is checked.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(path: &Path, sealer: Sealer, check: Check) -> Result<Self, OpenError> {
        open::open(path, sealer, check)
    }

    /// A second connection, which can only read.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn open_reader(&self) -> Result<SqliteReader, StoreError> {
        self.mode.readers.open()
    }

    /// Opens readers when this store is elsewhere.
    #[must_use]
    pub fn readers(&self) -> SqliteReaders {
        self.mode.readers.clone()
    }

    /// For writing: only within a transaction. SQLite ends one by itself when the disk is full; what
    /// came after it would otherwise be committed row by row.
    fn write(&mut self) -> Result<&mut Inner, StoreError> {
        if self.mode.in_transaction && !self.inner.db.is_autocommit() {
            Ok(&mut self.inner)
        } else {
            Err(StoreError::Database("no transaction is open".into()))
        }
    }

    fn forget_transaction(&mut self) -> Result<(), StoreError> {
        self.mode.in_transaction = false;
        self.inner.kinds.rolled_back();
        self.inner.served.clear();
        if self.inner.db.is_autocommit() {
            return Ok(());
        }
        self.inner.db.execute_batch("ROLLBACK").map_err(row::database)
    }
}

impl Store for SqliteStore {
    fn begin(&mut self) -> Result<(), StoreError> {
        if self.mode.in_transaction {
            return Err(StoreError::Database("a transaction is open already".into()));
        }
        row::execute(&self.inner.db, "BEGIN IMMEDIATE", [])?;
        self.mode.in_transaction = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.write()?;
        match row::execute(&self.inner.db, "COMMIT", []) {
            Ok(_) => {
                self.mode.in_transaction = false;
                self.inner.kinds.committed();
                Ok(())
            }
            Err(error) => {
                // The first error counts.
                let _ = self.forget_transaction();
                Err(error)
            }
        }
    }

    fn rollback(&mut self) -> Result<(), StoreError> {
        self.forget_transaction()
    }

    fn create_cluster(&mut self, name: ClusterNameRef<'_>, now: Millis) -> Result<ClusterRow, StoreError> {
        self.write()?.create_cluster(name, now)
    }

    fn put_cluster(&mut self, row: &ClusterRow) -> Result<(), StoreError> {
        self.write()?.put_cluster(row)
    }

    fn ensure_watch(
        &mut self,
        cluster: ClusterId,
        gk: &GroupKind,
        namespace: &str,
        now: Millis,
    ) -> Result<WatchRow, StoreError> {
        self.write()?.ensure_watch(cluster, gk, namespace, now)
    }

    fn put_watch(&mut self, row: &WatchRow) -> Result<(), StoreError> {
        self.write()?.put_watch(row)
    }

    fn adopt_objects(&mut self, from: u32, to: u32) -> Result<(), StoreError> {
        self.inner.adopt_objects(from, to)
    }
    fn drop_watch(&mut self, id: u32) -> Result<(), StoreError> {
        self.write()?.drop_watch(id)
    }

    fn put_object(&mut self, row: &ObjectRow) -> Result<(), StoreError> {
        self.write()?.put_object(row)
    }

    fn delete_object(&mut self, cluster: ClusterId, key: &ObjectKey) -> Result<(), StoreError> {
        self.write()?.delete_object(cluster, key)
    }

    fn put_placement(&mut self, row: &PlacementRow) -> Result<(), StoreError> {
        self.write()?.put_placement(row)
    }

    fn delete_placement(&mut self, target: ClusterId, key: &ObjectKey) -> Result<(), StoreError> {
        self.write()?.delete_placement(target, key)
    }

    fn put_tombstone(&mut self, row: &TombstoneRow) -> Result<i64, StoreError> {
        self.write()?.put_tombstone(row)
    }

    fn set_archived(&mut self, id: i64, path: &str) -> Result<(), StoreError> {
        self.write()?.set_archived(id, path)
    }

    fn set_deleted(&mut self, id: i64, deleted: bool) -> Result<(), StoreError> {
        self.write()?.set_deleted(id, deleted)
    }

    fn put_policy_files(&mut self, files: &[PolicyFileRow]) -> Result<(), StoreError> {
        self.write()?.put_policy_files(files)
    }

    fn put_policy(&mut self, row: &PolicyRow) -> Result<(), StoreError> {
        self.write()?.put_policy(row)
    }

    fn delete_policy(&mut self, name: &str) -> Result<(), StoreError> {
        self.write()?.delete_policy(name)
    }

    fn put_budget(&mut self, policy: &str, target: ClusterId, json: &str) -> Result<(), StoreError> {
        self.write()?.put_budget(policy, target, json)
    }

    fn put_meta(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        self.write()?.put_meta(name, value)
    }
}

impl<M: Send> Reader for Sqlite<M> {
    fn clusters(&mut self) -> Result<Vec<ClusterRow>, StoreError> {
        self.inner.clusters()
    }

    fn watches(&mut self, cluster: Option<ClusterId>) -> Result<Vec<WatchRow>, StoreError> {
        self.inner.watches(cluster)
    }

    fn object(&mut self, cluster: ClusterId, key: &ObjectKey) -> Result<Option<ObjectRow>, StoreError> {
        self.inner.object(cluster, key)
    }

    fn objects(
        &mut self,
        cluster: ClusterId,
        gk: &GroupKind,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<ObjectRow>, StoreError> {
        self.inner.objects(cluster, gk, namespace, after, limit)
    }

    fn unseen(&mut self, cluster: ClusterId, limit: usize) -> Result<Vec<ObjectKey>, StoreError> {
        self.inner.unseen(cluster, limit)
    }
    fn unseen_count(&mut self, cluster: ClusterId) -> Result<u64, StoreError> {
        self.inner.unseen_count(cluster)
    }
    fn object_count(&mut self, cluster: ClusterId) -> Result<u64, StoreError> {
        self.inner.object_count(cluster)
    }

    fn index(
        &mut self,
        watch: u32,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<IndexRow>, StoreError> {
        self.inner.index(watch, after, limit)
    }

    fn placement(&mut self, target: ClusterId, key: &ObjectKey) -> Result<Option<PlacementRow>, StoreError> {
        self.inner.placement(target, key)
    }

    fn placements(
        &mut self,
        filter: &PlacementFilter,
        after: Option<&PlacementCursor>,
        limit: usize,
    ) -> Result<Vec<PlacementRow>, StoreError> {
        self.inner.placements(filter, after, limit)
    }

    fn placement_count(&mut self, filter: &PlacementFilter) -> Result<u64, StoreError> {
        self.inner.placement_count(filter)
    }

    fn due(&mut self, now: Millis, limit: usize) -> Result<Vec<PlacementCursor>, StoreError> {
        self.inner.due(now, limit)
    }

    fn next_due(&mut self) -> Result<Option<Millis>, StoreError> {
        self.inner.next_due()
    }

    fn summary(&mut self, policy: Option<&str>) -> Result<Vec<SummaryRow>, StoreError> {
        self.inner.summary(policy)
    }

    fn tombstone(&mut self, id: i64) -> Result<Option<TombstoneRow>, StoreError> {
        self.inner.tombstone(id)
    }

    fn tombstones(
        &mut self,
        filter: &TombstoneFilter,
        limit: usize,
    ) -> Result<Vec<TombstoneRow>, StoreError> {
        self.inner.tombstones(filter, limit)
    }

    fn outbox(&mut self, after: i64, limit: usize) -> Result<Vec<TombstoneRow>, StoreError> {
        self.inner.outbox(after, limit)
    }

    fn policy_files(&mut self) -> Result<Vec<PolicyFileRow>, StoreError> {
        self.inner.policy_files()
    }

    fn policies(&mut self) -> Result<Vec<PolicyRow>, StoreError> {
        self.inner.policies()
    }

    fn budgets(&mut self) -> Result<Vec<(String, ClusterId, String)>, StoreError> {
        self.inner.budgets()
    }

    fn meta(&mut self, name: &str) -> Result<Option<String>, StoreError> {
        self.inner.meta(name)
    }
}
