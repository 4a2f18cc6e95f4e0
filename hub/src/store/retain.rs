//! What the archive's keeper asks of the store: how long tombstones are kept, and under which key.

use std::collections::BTreeMap;

use lockstep_engine::{ClusterId, Millis, ObjectKey, Uid};
use serde::{Deserialize, Serialize};

use super::{Filed, StoreError};

/// A tombstone, as far as its keeping is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedRow {
    /// Its number.
    pub id: i64,
    /// Where the object was.
    pub cluster: ClusterId,
    /// The object.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Uid,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When the deletion was seen.
    pub deleted_at: Millis,
    /// Bytes in the archive.
    pub size: u64,
    /// A legal hold.
    pub held: bool,
    /// Path in the archive, once it is there.
    pub path: Option<String>,
}

/// Where a walk over tombstones goes on.
pub type RetainCursor = (ObjectKey, Millis, i64);

/// Somebody needs a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A delete that was not carried out yet goes by it.
    Delete,
    /// It tells how the source of a copy ended, and the copy is still there.
    Source,
    /// A restore that is under way writes from it, or replaced what it keeps.
    Restore,
}

/// A legal hold: the tombstone stays, whatever its age.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Why.
    pub reason: String,
    /// Who says so.
    pub by: String,
    /// Since when.
    pub at_ms: Millis,
}

/// Tombstones that wait for the archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub count: u64,
    /// When the oldest of them was made.
    pub oldest: Option<Millis>,
}

/// Reading.
pub trait RetainReader: Send {
    /// Tombstones by object, those of one object together, the newest first.
    fn retained(
        &mut self,
        after: Option<&RetainCursor>,
        limit: usize,
    ) -> Result<Vec<RetainedRow>, StoreError>;
    /// The same, the oldest first, after this time and number.
    fn retained_by_age(&mut self, after: (Millis, i64), limit: usize)
    -> Result<Vec<RetainedRow>, StoreError>;
    /// One of them.
    fn retained_one(&mut self, id: i64) -> Result<Option<RetainedRow>, StoreError>;
    /// Who needs a tombstone.
    fn need(&mut self, id: i64) -> Result<Option<Need>, StoreError>;
    /// The hold on a tombstone.
    fn hold(&mut self, id: i64) -> Result<Option<Hold>, StoreError>;
    /// Bytes of all tombstones in the archive.
    fn archive_bytes(&mut self) -> Result<u64, StoreError>;
    /// What waits for the archive.
    fn waiting(&mut self) -> Result<Waiting, StoreError>;
    /// The tombstone that has this file.
    fn filed_at(&mut self, uid: &Uid, path: &str) -> Result<Option<i64>, StoreError>;
    /// Ids of keys that files are sealed under, and of how many.
    fn sealing_keys(&mut self) -> Result<Vec<(String, u64)>, StoreError>;
    /// Tombstones after this one whose files are sealed under another key, by number, with their paths.
    fn sealed_otherwise(
        &mut self,
        key: &str,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, String)>, StoreError>;
}

/// Writing, within a transaction.
pub trait RetainStore: RetainReader {
    /// Forgets a tombstone, with its words, its labels and its place in an act.
    fn forget_tombstone(&mut self, id: i64) -> Result<(), StoreError>;
    /// Puts a hold on a tombstone, or takes it off.
    fn set_hold(&mut self, id: i64, hold: Option<&Hold>) -> Result<(), StoreError>;
    /// Its file was written anew, under another key.
    fn set_filed(&mut self, id: i64, file: &Filed) -> Result<(), StoreError>;
}
