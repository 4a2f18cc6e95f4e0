//! The state store in an SQLite file: WAL, one writer, any number of readers.
//!
//! One module per table; `v1.sql` is the schema. People can open the file with `sqlite3`; the views
//! `*_readable` are for them.

mod acts;
mod aside;
mod backup;
mod before;
mod body;
mod check;
mod clusters;
mod damage;
mod deleters;
mod find;
mod former;
mod kinds;
mod lock;
mod objects;
mod open;
mod placements;
mod restores;
mod retain;
mod row;
mod salvage;
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
use lockstep_engine::acts::Deleted;
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey, ResourceVersion, Uid};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{
    ActFilter, ActRow, ClusterNameRef, ClusterRow, DeleterRow, Filed, IndexRow, Kin, Lives, ObjectRow,
    PlacementCursor, PlacementFilter, PlacementRow, PolicyFileRow, PolicyRow, Reader, Record, Store,
    StoreError, SummaryRow, TombstoneFilter, TombstoneRow, WatchRow,
};
use crate::seal::Sealer;
pub use backup::{Counted, Frozen, Place, Restored, SETTLING, snapshot};
use body::Bodies;
pub use damage::Damage;
use kinds::Kinds;
pub(crate) use open::WAS_REBUILT;
pub use open::{CODES, Check, OpenError};
pub use salvage::Salvaged;
pub use schema::VERSION;

/// Names of damaged stores that are kept aside beside a database, oldest first.
#[must_use]
pub fn kept_aside(database: &Path) -> Vec<String> {
    aside::kept(database)
}

/// Name of the setting that tells of a rebuild.
pub const REBUILT: &str = "rebuilt";

/// A damaged store was kept aside, and this one was built in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebuilt {
    /// When (hub's clock).
    pub at: Millis,
    /// Name under which the damaged one is kept, in the data directory.
    pub aside: String,
    /// What was found.
    pub why: String,
    /// What was taken over.
    pub salvaged: Salvaged,
}

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
    #[cfg(any(test, feature = "simulation"))]
    max_pages: PageLimit,
    _clean_stop: lock::Marker,
    _lock: lock::DirLock,
}

/// How many pages the database may have from the next transaction on, so that tests can fill a disk;
/// 0: as many as it likes.
#[cfg(any(test, feature = "simulation"))]
pub type PageLimit = std::sync::Arc<std::sync::atomic::AtomicU32>;

/// Mode of [`SqliteReader`].
pub struct ReadOnly(());

/// Opens readers of a store; they outlive it, and do not keep it.
#[derive(Clone, Debug)]
pub struct SqliteReaders {
    path: PathBuf,
    sealer: Sealer,
    damage: Damage,
}

impl SqliteReaders {
    /// One more connection, which can only read.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn open(&self) -> Result<SqliteReader, StoreError> {
        let db = open::connect_reader(&self.path);
        self.damage.look(&db);
        Ok(Sqlite { inner: Inner::new(db?, self.sealer.clone(), self.damage.clone())?, mode: ReadOnly(()) })
    }
}

/// A connection with its caches.
struct Inner {
    db: Connection,
    kinds: Kinds,
    bodies: Bodies,
    /// What `served` holds, as far as this connection wrote it; emptied by a rollback.
    served: BTreeMap<u32, Bytes>,
    damage: Damage,
}

impl Inner {
    fn new(db: Connection, sealer: Sealer, damage: Damage) -> Result<Self, StoreError> {
        let bodies = Bodies::new(sealer).map_err(|e| StoreError::Database(Box::new(e)))?;
        Ok(Self { db, kinds: Kinds::default(), bodies, served: BTreeMap::new(), damage })
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

    /// [`Self::open`], except that a damaged store is kept aside, and what can be read of it begins a
    /// new one; the rest is told anew by the clusters.
    ///
    /// # Errors
    /// As [`Self::open`], and when a store was found damaged several times within an hour.
    pub fn open_or_rebuild(path: &Path, sealer: Sealer, now: Millis) -> Result<Self, OpenError> {
        open::open_or_rebuild(path, sealer, now)
    }

    /// Tells when damage is met.
    #[must_use]
    pub fn damage(&self) -> Damage {
        self.inner.damage.clone()
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

    /// Writes, and looks whether damage was met.
    fn change<T>(&mut self, work: impl FnOnce(&mut Inner) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let result = self.write().and_then(work);
        self.inner.damage.look(&result);
        result
    }

    /// How many pages it may have.
    #[cfg(any(test, feature = "simulation"))]
    pub fn page_limit(&self) -> PageLimit {
        self.mode.max_pages.clone()
    }

    #[cfg(any(test, feature = "simulation"))]
    fn limit_pages(&self) {
        let pages = self.mode.max_pages.load(std::sync::atomic::Ordering::Acquire);
        let pages = if pages == 0 { i64::from(u32::MAX) - 1 } else { i64::from(pages) };
        let _ = self.inner.db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()));
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
        #[cfg(any(test, feature = "simulation"))]
        self.limit_pages();
        let begun = row::execute(&self.inner.db, "BEGIN IMMEDIATE", []);
        self.inner.damage.look(&begun);
        begun?;
        self.mode.in_transaction = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.write()?;
        let committed = row::execute(&self.inner.db, "COMMIT", []);
        self.inner.damage.look(&committed);
        match committed {
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
        self.change(|inner| inner.create_cluster(name, now))
    }

    fn put_cluster(&mut self, row: &ClusterRow) -> Result<(), StoreError> {
        self.change(|inner| inner.put_cluster(row))
    }

    fn ensure_watch(
        &mut self,
        cluster: ClusterId,
        gk: &GroupKind,
        namespace: &str,
        now: Millis,
    ) -> Result<WatchRow, StoreError> {
        self.change(|inner| inner.ensure_watch(cluster, gk, namespace, now))
    }

    fn forget_cluster(&mut self, id: ClusterId) -> Result<(), StoreError> {
        self.change(|inner| inner.forget_cluster(id))
    }

    fn put_watch(&mut self, row: &WatchRow) -> Result<(), StoreError> {
        self.change(|inner| inner.put_watch(row))
    }

    fn put_deleter(&mut self, row: &DeleterRow, before: Millis) -> Result<(), StoreError> {
        self.change(|inner| inner.put_deleter(row, before))
    }

    fn set_deleter(&mut self, id: i64, user: &str) -> Result<(), StoreError> {
        self.change(|inner| inner.set_deleter(id, user))
    }

    fn put_container_gone(
        &mut self,
        cluster: ClusterId,
        key: &ObjectKey,
        at: Millis,
        version: &ResourceVersion,
        before: Millis,
    ) -> Result<(), StoreError> {
        self.inner.put_container_gone(cluster, key, at, version, before)
    }
    fn void_versions(&mut self, cluster: ClusterId) -> Result<(), StoreError> {
        self.change(|inner| inner.void_versions(cluster))
    }
    fn adopt_objects(&mut self, from: u32, to: u32) -> Result<(), StoreError> {
        self.inner.adopt_objects(from, to)
    }
    fn drop_watch(&mut self, id: u32) -> Result<(), StoreError> {
        self.change(|inner| inner.drop_watch(id))
    }

    fn put_object(&mut self, row: &ObjectRow) -> Result<(), StoreError> {
        self.change(|inner| inner.put_object(row))
    }

    fn delete_object(&mut self, cluster: ClusterId, key: &ObjectKey) -> Result<(), StoreError> {
        self.change(|inner| inner.delete_object(cluster, key))
    }

    fn put_placement(&mut self, row: &PlacementRow) -> Result<(), StoreError> {
        self.change(|inner| inner.put_placement(row))
    }

    fn delete_placement(&mut self, target: ClusterId, key: &ObjectKey) -> Result<(), StoreError> {
        self.change(|inner| inner.delete_placement(target, key))
    }
    fn put_former_record(
        &mut self,
        target: ClusterId,
        key: &ObjectKey,
        record: &Record,
        at: Millis,
        before: Millis,
    ) -> Result<(), StoreError> {
        self.change(|inner| inner.put_former_record(target, key, record, at, before))
    }

    fn put_tombstone(&mut self, row: &TombstoneRow) -> Result<i64, StoreError> {
        self.change(|inner| inner.put_tombstone(row))
    }

    fn set_archived(&mut self, id: i64, file: &Filed) -> Result<(), StoreError> {
        self.change(|inner| inner.set_archived(id, file))
    }

    fn set_deleted(&mut self, id: i64, deleted: bool) -> Result<(), StoreError> {
        self.change(|inner| inner.set_deleted(id, deleted))
    }

    fn set_act(&mut self, id: i64, act: Option<i64>) -> Result<(), StoreError> {
        self.change(|inner| inner.set_act(id, act))
    }

    fn create_act(&mut self, row: &ActRow, before: Millis) -> Result<i64, StoreError> {
        self.change(|inner| inner.create_act(row, before))
    }

    fn end_life(&mut self, id: i64, by: Option<u64>) -> Result<(), StoreError> {
        self.change(|inner| inner.end_life(id, by))
    }

    fn touch_act(&mut self, id: i64, at: Millis) -> Result<(), StoreError> {
        self.change(|inner| inner.touch_act(id, at))
    }

    fn put_policy_files(&mut self, files: &[PolicyFileRow]) -> Result<(), StoreError> {
        self.change(|inner| inner.put_policy_files(files))
    }

    fn put_policy(&mut self, row: &PolicyRow) -> Result<(), StoreError> {
        self.change(|inner| inner.put_policy(row))
    }

    fn delete_policy(&mut self, name: &str) -> Result<(), StoreError> {
        self.change(|inner| inner.delete_policy(name))
    }

    fn put_budget(&mut self, policy: &str, target: ClusterId, json: &str) -> Result<(), StoreError> {
        self.change(|inner| inner.put_budget(policy, target, json))
    }

    fn put_meta(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        self.change(|inner| inner.put_meta(name, value))
    }
}

impl<M> Sqlite<M> {
    /// Reads, and looks whether damage was met.
    fn read<T>(&mut self, work: impl FnOnce(&mut Inner) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let result = work(&mut self.inner);
        self.inner.damage.look(&result);
        result
    }
}

impl<M: Send> Reader for Sqlite<M> {
    fn clusters(&mut self) -> Result<Vec<ClusterRow>, StoreError> {
        self.read(|inner| inner.clusters())
    }

    fn watches(&mut self, cluster: Option<ClusterId>) -> Result<Vec<WatchRow>, StoreError> {
        self.read(|inner| inner.watches(cluster))
    }

    fn object(&mut self, cluster: ClusterId, key: &ObjectKey) -> Result<Option<ObjectRow>, StoreError> {
        self.read(|inner| inner.object(cluster, key))
    }

    fn objects(
        &mut self,
        cluster: ClusterId,
        gk: &GroupKind,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<ObjectRow>, StoreError> {
        self.read(|inner| inner.objects(cluster, gk, namespace, after, limit))
    }

    fn deleters(&mut self, cluster: ClusterId, key: &ObjectKey) -> Result<Vec<DeleterRow>, StoreError> {
        self.read(|inner| inner.deleters(cluster, key))
    }

    fn container_gone(
        &mut self,
        cluster: ClusterId,
        key: &ObjectKey,
    ) -> Result<Option<(Millis, ResourceVersion)>, StoreError> {
        self.inner.container_gone(cluster, key)
    }
    fn unseen(&mut self, cluster: ClusterId, limit: usize) -> Result<Vec<ObjectKey>, StoreError> {
        self.inner.unseen(cluster, limit)
    }
    fn unseen_totals(&mut self, cluster: ClusterId) -> Result<(u64, Millis), StoreError> {
        self.inner.unseen_totals(cluster)
    }
    fn object_count(&mut self, cluster: ClusterId) -> Result<u64, StoreError> {
        self.read(|inner| inner.object_count(cluster))
    }

    fn index(
        &mut self,
        watch: u32,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<IndexRow>, StoreError> {
        self.read(|inner| inner.index(watch, after, limit))
    }

    fn unconfirmed(
        &mut self,
        watch: u32,
        version: u64,
    ) -> Result<Vec<(ObjectKey, ResourceVersion)>, StoreError> {
        self.read(|inner| inner.unconfirmed(watch, version))
    }

    fn placement(&mut self, target: ClusterId, key: &ObjectKey) -> Result<Option<PlacementRow>, StoreError> {
        self.read(|inner| inner.placement(target, key))
    }

    fn former_record(
        &mut self,
        target: ClusterId,
        key: &ObjectKey,
        uid: &Uid,
    ) -> Result<Option<Record>, StoreError> {
        self.read(|inner| inner.former_record(target, key, uid))
    }

    fn placements(
        &mut self,
        filter: &PlacementFilter,
        after: Option<&PlacementCursor>,
        limit: usize,
    ) -> Result<Vec<PlacementRow>, StoreError> {
        self.read(|inner| inner.placements(filter, after, limit))
    }

    fn placement_count(&mut self, filter: &PlacementFilter) -> Result<u64, StoreError> {
        self.read(|inner| inner.placement_count(filter))
    }

    fn due(&mut self, now: Millis, limit: usize) -> Result<Vec<PlacementCursor>, StoreError> {
        self.read(|inner| inner.due(now, limit))
    }

    fn next_due(&mut self) -> Result<Option<Millis>, StoreError> {
        self.read(|inner| inner.next_due())
    }

    fn summary(&mut self, policy: Option<&str>) -> Result<Vec<SummaryRow>, StoreError> {
        self.read(|inner| inner.summary(policy))
    }

    fn tombstone(&mut self, id: i64) -> Result<Option<TombstoneRow>, StoreError> {
        self.read(|inner| inner.tombstone(id))
    }

    fn last_tombstone(&mut self) -> Result<i64, StoreError> {
        self.read(|inner| inner.last_tombstone())
    }

    fn tombstones(
        &mut self,
        filter: &TombstoneFilter,
        limit: usize,
    ) -> Result<Vec<TombstoneRow>, StoreError> {
        self.read(|inner| inner.tombstones(filter, limit))
    }

    fn act(&mut self, id: i64) -> Result<Option<ActRow>, StoreError> {
        self.read(|inner| inner.act(id))
    }

    fn acts(&mut self, filter: &ActFilter, limit: usize) -> Result<Vec<ActRow>, StoreError> {
        self.read(|inner| inner.acts(filter, limit))
    }

    fn lives(&mut self, cluster: ClusterId, of: Lives<'_>) -> Result<Vec<ActRow>, StoreError> {
        self.read(|inner| inner.lives(cluster, of))
    }

    fn kin(&mut self, cluster: ClusterId, of: Kin<'_>) -> Result<Vec<Deleted>, StoreError> {
        self.read(|inner| inner.kin(cluster, of))
    }

    fn outbox(&mut self, after: i64, limit: usize) -> Result<Vec<TombstoneRow>, StoreError> {
        self.read(|inner| inner.outbox(after, limit))
    }

    fn policy_files(&mut self) -> Result<Vec<PolicyFileRow>, StoreError> {
        self.read(|inner| inner.policy_files())
    }

    fn policies(&mut self) -> Result<Vec<PolicyRow>, StoreError> {
        self.read(|inner| inner.policies())
    }

    fn budgets(&mut self) -> Result<Vec<(String, ClusterId, String)>, StoreError> {
        self.read(|inner| inner.budgets())
    }

    fn meta(&mut self, name: &str) -> Result<Option<String>, StoreError> {
        self.read(|inner| inner.meta(name))
    }
}
