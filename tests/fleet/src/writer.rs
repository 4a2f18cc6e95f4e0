//! Whoever works in the source clusters: creates, changes and deletes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::chaos::dice::Dice;
use tokio::time::Instant;

use crate::fleet::Member;
use crate::objects::{SOURCES, Slot, apply, share};

/// Writes at targets that edits may cause per second: a machine with two cores carries out about a thousand.
const FOLLOW: usize = 300;
/// In percent of all edits.
const DELETES: usize = 15;
const CREATES: usize = 25;

/// What was done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edits {
    pub(crate) done: u64,
    /// Deletes that may follow, by path, and how often.
    pub(crate) deleted: BTreeMap<String, u64>,
}

/// A person at each source, in turn.
pub(crate) struct Writer<'a> {
    members: &'a [Member],
    dice: Dice,
    serial: u64,
    absent: BTreeSet<Slot>,
    present: Vec<Slot>,
    edits: Edits,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(members: &'a [Member], objects: usize, seed: u64) -> Self {
        let slots = |source| (0..share(source, objects)).map(move |number| Slot { source, number });
        let present = (0..SOURCES.len()).flat_map(slots).collect();
        let dice = Dice::new(seed, "writer");
        Self { members, dice, serial: 0, absent: BTreeSet::new(), present, edits: Edits::default() }
    }

    /// Edits until then.
    pub(crate) async fn run(mut self, until: Instant) -> Result<Edits> {
        let per_second = u32::try_from((FOLLOW / self.members.len()).max(1))?;
        let mut interval = tokio::time::interval(Duration::from_secs(1) / per_second);
        while tokio::time::timeout_at(until, interval.tick()).await.is_ok() {
            self.edit()?;
        }
        Ok(self.edits)
    }

    fn edit(&mut self) -> Result<()> {
        self.edits.done += 1;
        let chance = self.dice.below(100);
        // What was deleted comes back, sooner or later.
        if chance < CREATES
            && let Some(slot) = self.absent.pop_first()
        {
            self.present.push(slot);
            return self.write(slot);
        }
        let at = self.dice.below(self.present.len());
        if chance >= 100 - DELETES && self.present.len() > SOURCES.len() {
            let slot = self.present.swap_remove(at);
            self.absent.insert(slot);
            return self.delete(slot);
        }
        let slot = *self.present.get(at).context("something is there")?;
        self.write(slot)
    }

    fn write(&mut self, slot: Slot) -> Result<()> {
        self.serial += 1;
        let body = slot.body(&mut self.dice, self.serial);
        let source = self.members.get(slot.source).context("a source")?;
        source.served.with(|server, now| apply(server, now, &body))
    }

    fn delete(&mut self, slot: Slot) -> Result<()> {
        let source = self.members.get(slot.source).context("a source")?;
        let path = source.served.look(|server| slot.path(server))?;
        let reply = source.served.with(|server, now| server.user_delete(now, &path));
        ensure!(reply.status() < 300, "{}", reply.json());
        *self.edits.deleted.entry(path).or_default() += 1;
        Ok(())
    }
}
