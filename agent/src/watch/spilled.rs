//! What a watch has in the spill file: put there when memory is short, taken back when it is told.

use std::ops::ControlFlow;

use lockstep_engine::ResourceVersion;
use lockstep_engine::coalesce::{DeltaKind, Section};
use lockstep_engine::relist::Seen;
use lockstep_wire::v1::{self, Item, item::Change};

use super::{Stage, Watch};
use crate::error::CANNOT_SPILL;
use crate::judge::SEEDED;
use crate::spill::{Held, Lost, Spill, SpillError};

impl Watch {
    /// Moves changes into the file, the oldest first: in that order they will be taken back. Returns
    /// the bytes of memory that this freed, `wanted` if there are as many, and what stopped it early.
    pub(crate) fn spill(&mut self, spill: &mut Spill, wanted: usize) -> (usize, Option<SpillError>) {
        let mut freed = 0;
        let mut stopped = None;
        // Behind the place of the last visit all are here; before it those that changed since.
        for from in [self.spilled_to, 0] {
            self.spilled_to = self.queue.lighten(from, |key, held| match held.spill(key, spill) {
                Ok(bytes) => {
                    freed += bytes;
                    if freed < wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                }
                // Others are smaller.
                Err(SpillError::TooLarge) => ControlFlow::Continue(()),
                Err(error) => {
                    stopped = Some(error);
                    ControlFlow::Break(())
                }
            });
            if freed >= wanted || stopped.is_some() || from == 0 {
                break;
            }
        }
        (freed, stopped)
    }

    /// Takes back what a batch needs.
    pub(super) fn unpack(&mut self, section: Section<Held>) -> (Vec<Item>, Option<ResourceVersion>) {
        let mut items = Vec::with_capacity(section.items.len());
        let mut complete = true;
        for held in section.items {
            match held.into_item() {
                Ok(item) => items.push(item),
                Err(lost) => match self.lost(*lost) {
                    Some(item) => items.push(item),
                    None => complete = false,
                },
            }
        }
        if complete {
            return (items, section.checkpoint);
        }
        // What is missing is found again by a list; until that is complete the hub must not believe
        // that it knows everything up to here (I2).
        if self.stage != Stage::AwaitingResume {
            self.stop |= self.relist();
        }
        self.queue.restart();
        (items, None)
    }

    /// Something spilled cannot be read back. What is told instead: of a delete, that it happened.
    /// Nothing of an object that exists, and the list that follows will find that it has to be told.
    fn lost(&mut self, lost: Lost) -> Option<Item> {
        let Lost { item, kind, error } = lost;
        let Item { namespace, name, uid, resource_version, .. } = &item;
        if kind == DeltaKind::Delete {
            tracing::error!(
                code = CANNOT_SPILL, kind = %self.interest.gk, namespace, name, uid, resource_version, %error,
                "the last state of a deleted object cannot be read back; the delete is told without it"
            );
            let change = Some(Change::Delete(v1::Delete::default()));
            return Some(Item { change, ..item });
        }
        tracing::error!(
            code = CANNOT_SPILL, kind = %self.interest.gk, namespace, name, uid, resource_version, %error,
            "a state that waited for the hub cannot be read back; everything of this watch is listed again"
        );
        if let Some(entry) = self.index.get(namespace, name).cloned() {
            // No version is this low: whatever the list shows of it is news.
            let resource_version = ResourceVersion::new("0");
            let (uid, flags) = (entry.uid(), entry.flags());
            let seen = Seen { uid: uid.as_str(), resource_version, digest: SEEDED, flags };
            self.index.observe(namespace, name, &seen);
        }
        None
    }

    /// Must its task be stopped, because everything is listed again?
    pub(crate) fn take_stop(&mut self) -> bool {
        std::mem::take(&mut self.stop)
    }
}
