//! What people had restored, and how far it has come: written before anything is sent, so that a hub
//! that was killed goes on.

use lockstep_engine::restore::{Options, Verdict};
use lockstep_engine::{ClusterId, Millis, ObjectKey};

use super::StoreError;

/// One restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreRow {
    /// Ascending; given by the store on insertion (0 before).
    pub id: i64,
    /// Where to.
    pub cluster: ClusterId,
    /// Who asked, as the caller calls itself.
    pub asked_by: String,
    /// When.
    pub asked_at: Millis,
    /// How.
    pub options: Options,
    /// When the last of it was done; none: it is under way.
    pub ended_at: Option<Millis>,
}

/// How far one object has come; ordinals are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemState {
    /// Not written yet, or the answer has not come.
    Planned,
    /// It is there.
    Done,
    /// It is not: see the message.
    Failed,
    /// Nothing was to be written.
    Left,
}

impl ItemState {
    /// All of them, by their ordinals.
    pub const ALL: [Self; 4] = [Self::Planned, Self::Done, Self::Failed, Self::Left];
}

/// One object of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreItemRow {
    /// Which restore.
    pub restore: i64,
    /// Its place in the order of writing.
    pub position: u32,
    /// The tombstone.
    pub tombstone: i64,
    /// What it becomes.
    pub key: ObjectKey,
    /// Nobody named it: another object of the restore does.
    pub dependency: bool,
    /// What was planned.
    pub verdict: Verdict,
    /// How far it has come.
    pub state: ItemState,
    /// Why, in one sentence.
    pub message: String,
    /// The tombstone of what it replaced.
    pub replaced: Option<i64>,
}

/// Reading.
pub trait RestoreReader {
    /// Restores, the newest first; only those under way, if so asked.
    fn restores(&mut self, under_way: bool, limit: usize) -> Result<Vec<RestoreRow>, StoreError>;
    /// One restore.
    fn restore(&mut self, id: i64) -> Result<Option<RestoreRow>, StoreError>;
    /// Its objects, in the order of writing.
    fn restore_items(&mut self, id: i64) -> Result<Vec<RestoreItemRow>, StoreError>;
}

/// Writing.
pub trait RestoreStore {
    /// Inserts a restore; gives its id.
    fn put_restore(&mut self, row: &RestoreRow) -> Result<i64, StoreError>;
    /// Inserts or replaces one of its objects.
    fn put_restore_item(&mut self, row: &RestoreItemRow) -> Result<(), StoreError>;
    /// Nothing of it is left to do.
    fn end_restore(&mut self, id: i64, at: Millis) -> Result<(), StoreError>;
}
