//! The queue between a watch and the session: one slot per key, the newest state wins, and
//! nothing that only this queue knows is overwritten.
//!
//! A checkpoint says "whoever resumes here misses nothing". A batch's checkpoint is therefore the
//! highest resourceVersion with nothing at or below it still queued, and a bookmark queues behind
//! the deltas that came before it (I2).
//!
//! Architecture invariant: the queue never drops. When it is full its owner makes deltas lighter
//! ([`CoalescingQueue::lighten`]), where it has a place for their bodies, and else stops reading the
//! watches ([`CoalescingQueue::is_full`]); memory is bounded by configuration (I14).

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::ResourceVersion;
use crate::guard::{self, Guard};

/// What a delta does to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaKind {
    /// The object exists.
    Upsert,
    /// The object is gone.
    Delete,
    /// The object exists and could not be decoded.
    Undecodable,
}

/// What the queue must know of a delta. Implemented by the wire's item, so that deltas are queued
/// in the form in which they are sent.
pub trait Coalesce {
    /// What it does.
    fn kind(&self) -> DeltaKind;
    /// The object's uid; empty where it is not known.
    fn uid(&self) -> &str;
    /// Does it carry a body?
    fn has_body(&self) -> bool;
    /// Does it say that the object left the interest?
    fn left(&self) -> bool;
    /// Make it say so.
    fn set_left(&mut self);
    /// Does it say that the object is being deleted (`deletionTimestamp`)?
    fn deleting(&self) -> bool;
    /// The resourceVersion at which it was first seen deleting, as far as this queue knows.
    fn deleting_since(&self) -> Option<ResourceVersion>;
    /// Make it say so.
    fn set_deleting_since(&mut self, since: &ResourceVersion);
    /// Bytes it takes in memory, about.
    fn weight(&self) -> usize;
    /// Bytes it takes in a message, about: more than its weight, where its body lies elsewhere.
    fn size(&self) -> usize {
        self.weight()
    }
}

/// How much a queue may hold before it counts as full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, by [`Coalesce::weight`].
    pub bytes: usize,
    /// Deltas.
    pub count: usize,
}

/// What is told of a key that had several lives while it was queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lives {
    /// That which nothing else tells: bodies of those that ended, and the end of the last.
    #[default]
    Bodies,
    /// The end of each: other objects went with it (namespaces, definitions).
    Ends,
}

/// What one batch takes from one watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<D> {
    /// Deltas in order; of one key never more than must be told one by one.
    pub items: Vec<D>,
    /// Where the watch may resume once these are committed. None: it does not move.
    pub checkpoint: Option<ResourceVersion>,
    /// Bytes of the items, by [`Coalesce::size`].
    pub bytes: usize,
}

/// How often deltas went in, came out, and were replaced by newer ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoalesceCounters {
    /// Deltas pushed.
    pub enqueued: u64,
    /// Deltas taken.
    pub dequeued: u64,
    /// Deltas that a newer one of the same key made superfluous, or that were cleared.
    pub dropped: u64,
}

#[derive(Clone, Debug)]
struct Slot<K, D> {
    key: K,
    deltas: Vec<D>,
    /// The newest resourceVersion at the time the slot was made: everything up to it is queued
    /// before this slot, or taken.
    before: Option<ResourceVersion>,
}

/// Deltas of one watch, by key, in the order in which the keys came.
#[derive(Clone, Debug)]
pub struct CoalescingQueue<K, D> {
    limits: Limits,
    /// What is told of lives that ended.
    lives: Lives,
    /// By arrival number.
    slots: BTreeMap<u64, Slot<K, D>>,
    numbers: BTreeMap<K, u64>,
    next: u64,
    /// The newest resourceVersion seen.
    latest: Option<ResourceVersion>,
    /// The checkpoint given out last.
    told: Option<ResourceVersion>,
    bytes: usize,
    count: usize,
    counters: CoalesceCounters,
}

impl<K: Ord + Clone, D: Coalesce> CoalescingQueue<K, D> {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lives: Lives::default(),
            slots: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next: 0,
            latest: None,
            told: None,
            bytes: 0,
            count: 0,
            counters: CoalesceCounters::default(),
        }
    }

    /// The same, and this is told of lives that ended.
    #[must_use]
    pub fn telling(self, lives: Lives) -> Self {
        Self { lives, ..self }
    }

    /// Adds a delta. `version` is the resourceVersion that the watch has reached with it; none
    /// while a list is under way, when no resourceVersion covers what came so far.
    pub fn push(&mut self, key: K, delta: D, version: Option<ResourceVersion>) {
        self.counters.enqueued += 1;
        self.count += 1;
        self.bytes += delta.weight();
        let number = *self.numbers.entry(key.clone()).or_insert(self.next);
        if number == self.next {
            self.next += 1;
            let before = self.latest.clone();
            self.slots.insert(number, Slot { key, deltas: vec![delta], before });
        } else if let Some(slot) = self.slots.get_mut(&number) {
            let (bytes, count) = fold(&mut slot.deltas, delta, self.lives);
            self.bytes -= bytes;
            self.count -= count;
            self.counters.dropped += count as u64;
        }
        if version.is_some() {
            self.latest = version;
        }
    }

    /// The watch has reached `version` without a change, or a list has completed at it.
    pub fn bookmark(&mut self, version: ResourceVersion) {
        self.latest = Some(version);
    }

    /// A list begins: what was reached before it is no place to resume any more, and there is none
    /// until it completes. The deltas stay.
    pub fn restart(&mut self) {
        if !guard::on(Guard::CheckpointVoidWhileListing) {
            return;
        }
        self.latest = None;
        self.told = None;
        for slot in self.slots.values_mut() {
            slot.before = None;
        }
    }

    /// Takes deltas up to about `max_bytes`, at least one key's if there are any, and the
    /// checkpoint they lead to. None when there is nothing to say.
    pub fn take_batch(&mut self, max_bytes: usize) -> Option<Section<D>> {
        let mut items = Vec::new();
        let (mut bytes, mut freed) = (0, 0);
        while let Some(mut first) = self.slots.first_entry() {
            let slot = first.get_mut();
            // A key that lived many lives has as many deltas: not even one slot may outgrow a message.
            let mut taken = 0;
            for delta in &slot.deltas {
                let size = delta.size();
                if items.len() + taken > 0 && bytes + size > max_bytes {
                    break;
                }
                bytes += size;
                freed += delta.weight();
                taken += 1;
            }
            let all = taken == slot.deltas.len();
            items.extend(slot.deltas.drain(..taken));
            if !all {
                // The rest stays at its place, and the checkpoint before it.
                break;
            }
            let slot = first.remove();
            self.numbers.remove(&slot.key);
        }
        self.bytes -= freed;
        self.count -= items.len();
        self.counters.dequeued += items.len() as u64;
        let first = self.slots.first_key_value().filter(|_| guard::on(Guard::CheckpointBehindQueue));
        let reached = first.map_or(&self.latest, |(_, slot)| &slot.before);
        let checkpoint = if *reached == self.told { None } else { reached.clone() };
        if checkpoint.is_some() {
            self.told.clone_from(&checkpoint);
        }
        (!items.is_empty() || checkpoint.is_some()).then_some(Section { items, checkpoint, bytes })
    }

    /// Visits deltas from the oldest on, or from the place that an earlier visit gave back, until
    /// `visit` breaks. It may make a delta lighter, and change nothing else of it. Returns where to go
    /// on; [`Self::position`] at the end.
    pub fn lighten(&mut self, from: u64, mut visit: impl FnMut(&K, &mut D) -> ControlFlow<()>) -> u64 {
        for (number, slot) in self.slots.range_mut(from..) {
            for delta in &mut slot.deltas {
                let before = delta.weight();
                let flow = visit(&slot.key, delta);
                self.bytes = self.bytes - before + delta.weight();
                if flow.is_break() {
                    return *number;
                }
            }
        }
        self.next
    }

    /// Throws everything away: the watch is gone, or starts anew from what the hub holds.
    pub fn clear(&mut self) {
        self.counters.dropped += self.count as u64;
        self.slots.clear();
        self.numbers.clear();
        self.latest = None;
        self.told = None;
        self.bytes = 0;
        self.count = 0;
    }

    /// Is a bound reached? The owner then stops reading the watch.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= self.limits.bytes || self.count >= self.limits.count
    }

    /// Would [`Self::take_batch`] give anything?
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.slots.is_empty() || (self.latest.is_some() && self.latest != self.told)
    }

    /// A mark behind everything that is queued now; see [`Self::drained_to`].
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Was everything taken that was queued when [`Self::position`] gave this mark?
    #[must_use]
    pub fn drained_to(&self, position: u64) -> bool {
        self.slots.first_key_value().is_none_or(|(number, _)| *number >= position)
    }

    /// Deltas queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Are no deltas queued? A checkpoint may still be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes queued, by [`Coalesce::weight`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The counters since the start.
    #[must_use]
    pub fn counters(&self) -> CoalesceCounters {
        self.counters
    }
}

/// Puts `newer` behind what a slot holds, in place of the last delta where that has become
/// superfluous. Returns bytes and number of the deltas that went.
fn fold<D: Coalesce>(deltas: &mut Vec<D>, mut newer: D, lives: Lives) -> (usize, usize) {
    match deltas.last_mut().map(|last| (relation(last, &newer, lives), last)) {
        Some((Relation::Repeats, _)) => (newer.weight(), 1),
        Some((Relation::Supersedes, last)) => {
            if last.left() && !newer.has_body() && newer.kind() == DeltaKind::Upsert {
                newer.set_left();
            }
            if let Some(since) = last.deleting_since().filter(|_| last.uid() == newer.uid()) {
                newer.set_deleting_since(&since);
            }
            let gone = last.weight();
            *last = newer;
            (gone, 1)
        }
        Some((Relation::Follows, _)) | None => {
            deltas.push(newer);
            (0, 0)
        }
    }
}

enum Relation {
    /// The newer takes the place of the older.
    Supersedes,
    /// Both must be told: the older says something that the newer does not.
    Follows,
    /// The newer says less than the older.
    Repeats,
}

fn relation<D: Coalesce>(last: &D, newer: &D, lives: Lives) -> Relation {
    use DeltaKind::{Delete, Undecodable, Upsert};
    let same = last.uid() == newer.uid();
    // The last state of an object, or that it left: lost if overwritten by another object (I5).
    let telling = last.has_body() || last.left();
    let keep = match (last.kind(), newer.kind()) {
        (Undecodable, _) => false,
        (Delete, Delete) if same && last.has_body() && !newer.has_body() => return Relation::Repeats,
        (Upsert, Upsert) if same => last.has_body() && !last.deleting() && newer.deleting(),
        (Upsert, Delete) if same => last.left() || (last.has_body() && !newer.has_body()),
        (Delete, _) if same => false,
        (_, Undecodable) => telling || last.kind() == Delete,
        _ => telling || lives == Lives::Ends,
    };
    if keep && guard::on(Guard::LastStateNotOverwritten) { Relation::Follows } else { Relation::Supersedes }
}

#[cfg(test)]
mod tests;
