//! Judges what agents do at API servers and what the hub commits, against what really happened.

mod commits;
mod sessions;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use lockstep_engine::Millis;
use lockstep_engine::budget::{Budget, Limit};
use lockstep_hub::core as hub;
use lockstep_hub::store::ClusterRow;

pub(crate) use self::writes::Written;
use crate::archive::MemoryArchive;
use crate::log::Log;
use crate::member::Member;
use crate::objects::{Key, Refusal};

/// API servers write times in whole seconds: what is as close to each other cannot be told apart by them.
const SAME_MOMENT_MS: Millis = 2_000;

/// A write that was sent before may be carried out so long after its hub's data was lost.
const STEP_MS: Millis = 60_000;

/// A create of ours met an object of others.
#[derive(Clone, Copy, Debug)]
struct Meeting {
    /// Within [`SAME_MOMENT_MS`] of its own creation.
    at_once: bool,
    /// How often the hub's data had been lost when its step was sent, at the latest.
    losses: usize,
    /// Where, and how often the history there had been forgotten.
    target: usize,
    compactions: u32,
}

/// A copy that lockstep made.
#[derive(Clone, Debug)]
struct Copy {
    target: usize,
    key: Key,
    /// uid that its marks named last.
    source: String,
    source_cluster: usize,
    /// As it was when lockstep wrote it last.
    content: String,
}

#[derive(Debug, Default)]
struct Known {
    /// By uid at the target.
    copies: BTreeMap<String, Copy>,
    /// When a person approved all that was held.
    approvals: Vec<Millis>,
    /// Tombstones up to this id were looked at.
    tombstones: i64,
    /// What the hub had counted when its store was compared last, and commits since.
    compared: (hub::Counts, u64),
    /// What was told when a watch was compared: its checkpoint, and when.
    told: BTreeMap<u32, (String, Millis)>,
    /// The budgets at the last commit, by policy and target.
    budgets: BTreeMap<(String, u32), Budget>,
    /// Objects whose bodies the store had: cluster and uid.
    stored: BTreeSet<(u32, String)>,
    /// Objects of others that a create of ours met.
    meetings: BTreeMap<String, Meeting>,
    /// Copies of which nobody heard that they were made: the answer was lost.
    unheard: BTreeSet<String>,
    /// When the hub's data was lost.
    losses: Vec<Millis>,
    /// Situations, by name.
    met: BTreeMap<&'static str, u64>,
    /// The hub's clusters: they change with sessions only.
    clusters: Vec<ClusterRow>,
    /// Batches that the hub has or may still commit.
    arrived: sessions::Arrived,
    violation: Option<String>,
    counts: Counts,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes of agents to synced kinds.
    pub writes: u64,
    /// Deletes among them that were carried out.
    pub deletes: u64,
    /// Commits of the hub's store that were compared with the clusters' histories.
    pub commits: u64,
}

/// Clones share what they know.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    known: Arc<Mutex<Known>>,
    members: Arc<OnceLock<Vec<Weak<Member>>>>,
    archive: MemoryArchive,
    log: Log,
    refusal: Refusal,
    /// What the policies allow.
    limit: Limit,
}

impl Oracle {
    pub(crate) fn new(archive: MemoryArchive, log: Log, refusal: Refusal, budget: u32) -> Self {
        let limit = Limit { count: budget, ..Limit::default() };
        Self { known: Arc::default(), members: Arc::default(), archive, log, refusal, limit }
    }

    pub(crate) fn watch(&self, members: &[Arc<Member>]) {
        // Set once, when the fleet is made.
        let _ = self.members.set(members.iter().map(Arc::downgrade).collect());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn member(&self, index: usize) -> Option<Arc<Member>> {
        self.members.get()?.get(index)?.upgrade()
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.known().violation.clone()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.known().counts
    }

    pub(crate) fn met(&self) -> BTreeMap<&'static str, u64> {
        self.known().met.clone()
    }

    /// A situation that is counted.
    pub(crate) fn met_with(&self, situation: &'static str) {
        *self.known().met.entry(situation).or_default() += 1;
    }

    pub(crate) fn approved(&self, now: Millis) {
        self.known().approvals.push(now);
    }

    pub(crate) fn is_copy(&self, uid: &str) -> bool {
        self.known().copies.contains_key(uid)
    }

    /// Was a copy made without an answer that anybody heard? Which fields were ours is not known then.
    pub(crate) fn is_unheard(&self, uid: &str) -> bool {
        self.known().unheard.contains(uid)
    }

    /// The hub's data is gone, and what it numbered.
    pub(crate) fn hub_data_lost(&self, now: Millis) {
        let mut known = self.known();
        known.losses.push(now);
        known.tombstones = 0;
        known.budgets.clear();
        known.stored.clear();
        known.told.clear();
        known.clusters.clear();
        known.arrived.clear();
    }

    pub(crate) fn fail(&self, invariant: &str, what: std::fmt::Arguments<'_>) {
        let text = format!("{invariant}: {what}");
        self.log.say("VIOLATION", format_args!("{text}"));
        self.known().violation.get_or_insert(text);
    }
}

/// Does a text with secrets in clear occur?
pub(crate) fn has_canary(bytes: &Bytes) -> bool {
    let canary = crate::objects::CANARY.as_bytes();
    let [first, ..] = canary else { return false };
    let mut rest = &bytes[..];
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(canary) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}
