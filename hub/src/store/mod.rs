//! The state store: what the hub knows, behind one narrow trait.
//!
//! One writer (the hub's core thread) works in transactions; any number of readers look at
//! committed state. A batch of deltas, the checkpoint that it leads to and everything planned from
//! it are one transaction (I1, I2).

pub mod acts;
#[cfg(test)]
pub(crate) mod conformance;
pub mod removed;
pub mod restores;
pub mod retain;
pub mod rows;
pub mod sqlite;

use lockstep_engine::acts::Deleted;
use lockstep_engine::selector::LabelSelector;
use lockstep_engine::status::State;
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey, ResourceVersion, Uid};

pub use acts::{ActFilter, ActRow, Kin, Lives};
pub use removed::{RemovedCluster, put_removed_clusters, removed_clusters};
pub use retain::{Hold, Need, RetainCursor, RetainReader, RetainStore, RetainedRow, Waiting};
pub use rows::*;

/// A store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused.
    #[error("state store: {0}")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A stored row cannot be read: corrupt, or written by a newer version.
    #[error("state store: a row of {table} cannot be read: {why}")]
    Row {
        /// Table.
        table: &'static str,
        /// What is wrong with it; never a value of a body.
        why: String,
    },
    /// The disk is full. Nothing was lost; nothing new is taken.
    #[error("state store: the disk is full")]
    Full,
    /// The disk refused to read or write. Nothing was lost; nothing new is taken.
    #[error("state store: the disk refuses: {0}")]
    Disk(String),
    /// The file is damaged: nothing it says can be relied on.
    #[error("state store: the file is damaged: {0}")]
    Damaged(String),
}

/// Which placements a scan visits. Empty filter: all. Conditions are joined by AND.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacementFilter {
    /// Of this policy.
    pub policy: Option<String>,
    /// At this target.
    pub target: Option<ClusterId>,
    /// With a source in this cluster.
    pub source: Option<ClusterId>,
    /// Of this kind.
    pub gk: Option<GroupKind>,
    /// In one of these states; empty: any.
    pub states: Vec<State>,
    /// Only those whose delete is held.
    pub held: bool,
}

/// Where a scan goes on: after this (target, key).
pub type PlacementCursor = (ClusterId, ObjectKey);

/// Which tombstones a listing shows. Conditions are joined by AND.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TombstoneFilter {
    /// Of this cluster.
    pub cluster: Option<ClusterId>,
    /// Of this kind.
    pub gk: Option<GroupKind>,
    /// In this namespace.
    pub namespace: Option<String>,
    /// With this name.
    pub name: Option<String>,
    /// With a name that matches: `*` stands for anything, `?` for one character.
    pub name_glob: Option<String>,
    /// For this reason.
    pub cause: Option<CauseKind>,
    /// Deleted by lockstep for this policy.
    pub policy: Option<String>,
    /// Deleted at or after.
    pub since: Option<Millis>,
    /// Deleted before.
    pub until: Option<Millis>,
    /// Of this act.
    pub act: Option<i64>,
    /// With these labels.
    pub selector: LabelSelector,
    /// With these words, one after the other, in names, labels and, of what is not kept secret, in any string
    /// of the object.
    pub text: Option<String>,
    /// This user asked for it.
    pub deleter: Option<String>,
    /// Also images of deletes that were not carried out.
    pub undeleted: bool,
}

/// Reading. Lists are ordered by key, so that results are deterministic (I8).
pub trait Reader: RetainReader + restores::RestoreReader {
    /// Every cluster, by id.
    fn clusters(&mut self) -> Result<Vec<ClusterRow>, StoreError>;
    /// Every watch of a cluster, by id; of all clusters with `None`.
    fn watches(&mut self, cluster: Option<ClusterId>) -> Result<Vec<WatchRow>, StoreError>;
    /// One object.
    fn object(&mut self, cluster: ClusterId, key: &ObjectKey) -> Result<Option<ObjectRow>, StoreError>;
    /// Objects of one kind in key order after (namespace, name), at most `limit`.
    /// `cluster: None` visits all clusters (order: cluster, namespace, name) and then `after` is
    /// ignored. `namespace` narrows.
    fn objects(
        &mut self,
        cluster: ClusterId,
        gk: &GroupKind,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<ObjectRow>, StoreError>;
    /// Keys of objects that no list has shown since their cluster was rewound, at most `limit`.
    fn unseen(&mut self, cluster: ClusterId, limit: usize) -> Result<Vec<ObjectKey>, StoreError>;
    /// How many of them there are, and when the last of them was noted (0 where there are none).
    fn unseen_totals(&mut self, cluster: ClusterId) -> Result<(u64, Millis), StoreError>;
    /// When a namespace or definition of this key was last seen to go, and the resourceVersion by which
    /// it was gone.
    fn container_gone(
        &mut self,
        cluster: ClusterId,
        key: &ObjectKey,
    ) -> Result<Option<(Millis, ResourceVersion)>, StoreError>;
    /// Who asked lately for an object of this key, or for a collection that holds it, in the order of time.
    fn deleters(&mut self, cluster: ClusterId, key: &ObjectKey) -> Result<Vec<DeleterRow>, StoreError>;
    /// How many objects are held for a cluster (keys and bodies).
    fn object_count(&mut self, cluster: ClusterId) -> Result<u64, StoreError>;
    /// The key index of a watch in key order after (namespace, name), at most `limit`. Without
    /// objects that are unseen since a rewind: their agent has forgotten them.
    fn index(
        &mut self,
        watch: u32,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<IndexRow>, StoreError>;
    /// Objects of a watch that lockstep manages and whose state is of after that resourceVersion, or was told by no watch
    /// yet.
    fn unconfirmed(
        &mut self,
        watch: u32,
        version: u64,
    ) -> Result<Vec<(ObjectKey, ResourceVersion)>, StoreError>;
    /// One placement.
    fn placement(&mut self, target: ClusterId, key: &ObjectKey) -> Result<Option<PlacementRow>, StoreError>;
    /// What was last written to the copy with this uid, before its placement was forgotten.
    fn former_record(
        &mut self,
        target: ClusterId,
        key: &ObjectKey,
        uid: &Uid,
    ) -> Result<Option<Record>, StoreError>;
    /// Placements in (target, key) order after the cursor, at most `limit`.
    fn placements(
        &mut self,
        filter: &PlacementFilter,
        after: Option<&PlacementCursor>,
        limit: usize,
    ) -> Result<Vec<PlacementRow>, StoreError>;
    /// How many placements a filter finds.
    fn placement_count(&mut self, filter: &PlacementFilter) -> Result<u64, StoreError>;
    /// Placements whose `next_attempt` is due, oldest first.
    fn due(&mut self, now: Millis, limit: usize) -> Result<Vec<PlacementCursor>, StoreError>;
    /// The earliest `next_attempt`.
    fn next_due(&mut self) -> Result<Option<Millis>, StoreError>;
    /// Counts per policy, target, state and reason.
    fn summary(&mut self, policy: Option<&str>) -> Result<Vec<SummaryRow>, StoreError>;
    /// One tombstone, with its body while it is in the outbox.
    fn tombstone(&mut self, id: i64) -> Result<Option<TombstoneRow>, StoreError>;
    /// The number of the tombstone that was made last; 0 without any.
    fn last_tombstone(&mut self) -> Result<i64, StoreError>;
    /// Tombstones, newest first, without bodies.
    fn tombstones(&mut self, filter: &TombstoneFilter, limit: usize)
    -> Result<Vec<TombstoneRow>, StoreError>;
    /// One act.
    fn act(&mut self, id: i64) -> Result<Option<ActRow>, StoreError>;
    /// Groups, the newest first.
    fn acts(&mut self, filter: &ActFilter, limit: usize) -> Result<Vec<ActRow>, StoreError>;
    /// Acts that what is deleted in a cluster may belong to, the oldest first.
    fn lives(&mut self, cluster: ClusterId, of: Lives<'_>) -> Result<Vec<ActRow>, StoreError>;
    /// Deleted objects of a cluster, by id.
    fn kin(&mut self, cluster: ClusterId, of: Kin<'_>) -> Result<Vec<Deleted>, StoreError>;
    /// Tombstones that the archive does not have yet, oldest first, with bodies.
    fn outbox(&mut self, after: i64, limit: usize) -> Result<Vec<TombstoneRow>, StoreError>;
    /// Last good policy files, by path.
    fn policy_files(&mut self) -> Result<Vec<PolicyFileRow>, StoreError>;
    /// Every policy remembered, by name.
    fn policies(&mut self) -> Result<Vec<PolicyRow>, StoreError>;
    /// Every budget: (policy, target, JSON of `engine::budget::Budget`).
    fn budgets(&mut self) -> Result<Vec<(String, ClusterId, String)>, StoreError>;
    /// A setting of the store itself (hub id, paused, ...).
    fn meta(&mut self, name: &str) -> Result<Option<String>, StoreError>;
}

/// Writing: within a transaction that `begin` opens and `commit` makes durable. Reads see it.
pub trait Store: Reader + RetainStore + restores::RestoreStore {
    /// Opens a transaction.
    fn begin(&mut self) -> Result<(), StoreError>;
    /// Makes it durable: after this returns, a crash loses nothing of it.
    fn commit(&mut self) -> Result<(), StoreError>;
    /// Forgets it.
    fn rollback(&mut self) -> Result<(), StoreError>;
    /// Inserts a cluster under a new id.
    fn create_cluster(&mut self, name: ClusterNameRef<'_>, now: Millis) -> Result<ClusterRow, StoreError>;
    /// Forgets a cluster: its row, budgets, ends of containers and former records. Watches, objects and
    /// placements go one by one, tombstones stay.
    fn forget_cluster(&mut self, id: ClusterId) -> Result<(), StoreError>;
    /// Replaces a cluster's row.
    fn put_cluster(&mut self, row: &ClusterRow) -> Result<(), StoreError>;
    /// Finds or inserts a watch (phase Pending, epoch 0, no checkpoint).
    fn ensure_watch(
        &mut self,
        cluster: ClusterId,
        gk: &GroupKind,
        namespace: &str,
        now: Millis,
    ) -> Result<WatchRow, StoreError>;
    /// Replaces a watch's row.
    fn put_watch(&mut self, row: &WatchRow) -> Result<(), StoreError>;
    /// Hands the objects that one watch reported to another of the same cluster and kind, as far as
    /// that one covers them.
    fn adopt_objects(&mut self, from: u32, to: u32) -> Result<(), StoreError>;
    /// Forgets a watch and the objects it reported.
    fn drop_watch(&mut self, id: u32) -> Result<(), StoreError>;
    /// Inserts or replaces an object.
    fn put_object(&mut self, row: &ObjectRow) -> Result<(), StoreError>;
    /// Removes an object.
    fn delete_object(&mut self, cluster: ClusterId, key: &ObjectKey) -> Result<(), StoreError>;
    /// A namespace or definition was seen to go. What is older than `before` is forgotten.
    fn put_container_gone(
        &mut self,
        cluster: ClusterId,
        key: &ObjectKey,
        at: Millis,
        version: &ResourceVersion,
        before: Millis,
    ) -> Result<(), StoreError>;
    /// The resourceVersions of a cluster begin anew: of the ends of its containers only the times count,
    /// and what was deleted so far belongs to no act of what is deleted from now on.
    fn void_versions(&mut self, cluster: ClusterId) -> Result<(), StoreError>;
    /// Inserts or replaces a placement.
    fn put_placement(&mut self, row: &PlacementRow) -> Result<(), StoreError>;
    /// Removes a placement.
    fn delete_placement(&mut self, target: ClusterId, key: &ObjectKey) -> Result<(), StoreError>;
    /// Keeps the record of a copy whose placement is forgotten, by its uid. What was forgotten before
    /// `before` is given up.
    fn put_former_record(
        &mut self,
        target: ClusterId,
        key: &ObjectKey,
        record: &Record,
        at: Millis,
        before: Millis,
    ) -> Result<(), StoreError>;
    /// Inserts a tombstone into the outbox; gives its id.
    fn put_tombstone(&mut self, row: &TombstoneRow) -> Result<i64, StoreError>;
    /// The archive has it in this file: the body leaves the outbox.
    fn set_archived(&mut self, id: i64, file: &Filed) -> Result<(), StoreError>;
    /// The delete it was made for was carried out (`true`), or will not be.
    fn set_deleted(&mut self, id: i64, deleted: bool) -> Result<(), StoreError>;
    /// Makes a tombstone part of an act, and no longer of the one before.
    fn set_act(&mut self, id: i64, act: Option<i64>) -> Result<(), StoreError>;
    /// Inserts an act; gives its id. Those that have no members and were over before `before` are
    /// forgotten.
    fn create_act(&mut self, row: &ActRow, before: Millis) -> Result<i64, StoreError>;
    /// A namespace or definition is gone, by that resourceVersion.
    fn end_life(&mut self, id: i64, by: Option<u64>) -> Result<(), StoreError>;
    /// An act goes on.
    fn touch_act(&mut self, id: i64, at: Millis) -> Result<(), StoreError>;
    /// Keeps who asked for a delete; once, however often it is told. What is older than `before` is forgotten.
    fn put_deleter(&mut self, row: &DeleterRow, before: Millis) -> Result<(), StoreError>;
    /// Who asked for what this tombstone is of.
    fn set_deleter(&mut self, id: i64, user: &str) -> Result<(), StoreError>;
    /// Replaces all last good policy files.
    fn put_policy_files(&mut self, files: &[PolicyFileRow]) -> Result<(), StoreError>;
    /// Inserts or replaces a policy.
    fn put_policy(&mut self, row: &PolicyRow) -> Result<(), StoreError>;
    /// Forgets a policy.
    fn delete_policy(&mut self, name: &str) -> Result<(), StoreError>;
    /// Inserts or replaces a budget.
    fn put_budget(&mut self, policy: &str, target: ClusterId, json: &str) -> Result<(), StoreError>;
    /// Sets a setting.
    fn put_meta(&mut self, name: &str, value: &str) -> Result<(), StoreError>;
}

/// A cluster's name, borrowed.
pub type ClusterNameRef<'a> = &'a lockstep_engine::ClusterName;
