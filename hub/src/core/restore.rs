//! What a restore asks of the owner of the state: steps, tombstones of what it replaces, and a note of
//! how far it has come. What it does, and in which order, `crate::restore` decides.

use std::collections::BTreeSet;

use lockstep_engine::catalogue::PodSecurity;
use lockstep_engine::{ClusterId, Millis, ObjectKey, ResourceVersion, Uid};
use lockstep_wire::v1::{self, outcome::Result as Answer};

use super::Core;
use super::command::{CommandError, Reply};
use super::commands::refusal;
use super::tickets::Question;
use crate::store::restores::{ItemState, RestoreItemRow, RestoreRow};
use crate::store::{Cause, ObjectRow, Store, StoreError};

/// Restores under way at a time. More are refused: they are people's doing.
const MAX_UNDER_WAY: usize = 64;

/// What a restore asks.
#[derive(Debug)]
pub enum RestoreCommand {
    /// A step.
    Ask {
        /// Of this cluster's agent.
        cluster: ClusterId,
        /// About this object.
        key: ObjectKey,
        /// What.
        question: Question,
        /// Answer; dropped where the agent left before it came.
        reply: Reply<Answer>,
    },
    /// Keep this state: it is about to be replaced.
    Keep {
        /// Where it is.
        cluster: ClusterId,
        /// What it is.
        key: ObjectKey,
        /// The state.
        image: v1::Image,
        /// Answer, once the archive has it: the tombstone.
        reply: Reply<i64>,
    },
    /// Write a restore down, before anything is sent.
    Begin {
        /// The restore.
        row: RestoreRow,
        /// Its objects.
        items: Vec<RestoreItemRow>,
        /// Answer: its id.
        reply: Reply<i64>,
    },
    /// Note how far objects have come.
    Note {
        /// As they are now.
        items: Vec<RestoreItemRow>,
        /// Answer.
        reply: Reply<()>,
    },
    /// Nothing of it is left to do.
    End {
        /// Which.
        id: i64,
        /// Answer.
        reply: Reply<()>,
    },
}

impl RestoreCommand {
    /// It is not carried out.
    pub(super) fn refuse(self, error: CommandError) {
        match self {
            Self::Ask { reply, .. } => drop(reply.send(Err(error))),
            Self::Keep { reply, .. } | Self::Begin { reply, .. } => drop(reply.send(Err(error))),
            Self::Note { reply, .. } | Self::End { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

impl<S: Store> Core<S> {
    pub(super) fn restore_command(&mut self, command: RestoreCommand, now: Millis) -> Result<(), StoreError> {
        match command {
            RestoreCommand::Ask { cluster, key, question, reply } => self.ask(cluster, &key, question, reply),
            RestoreCommand::Keep { cluster, key, image, reply } => {
                let id = self.keep(cluster, key, image, now)?;
                self.tickets.kept.insert(id, reply);
            }
            RestoreCommand::Begin { row, items, reply } => {
                let result = self.begin_restore(row, items, now)?;
                self.answer(reply, result);
            }
            RestoreCommand::Note { items, reply } => {
                for item in items {
                    // What it replaced is gone now.
                    if let (ItemState::Done, Some(replaced)) = (item.state, item.replaced) {
                        self.store.set_deleted(replaced, true)?;
                    }
                    self.store.put_restore_item(&item)?;
                }
                self.answer(reply, Ok(()));
            }
            RestoreCommand::End { id, reply } => {
                self.store.end_restore(id, now)?;
                self.answer(reply, Ok(()));
            }
        }
        Ok(())
    }

    fn keep(
        &mut self,
        cluster: ClusterId,
        key: ObjectKey,
        image: v1::Image,
        now: Millis,
    ) -> Result<i64, StoreError> {
        let object = ObjectRow {
            cluster,
            key,
            watch: 0,
            uid: Uid::new(&image.uid),
            resource_version: ResourceVersion::new(&image.resource_version),
            body: Some(image.body),
            managed: None,
            before: None,
            deleting: false,
            pod_security: PodSecurity::new(),
            observed_at: now,
            unseen: None,
        };
        self.entomb(object, Cause::Restore, None, None, now)
    }

    /// Two restores of one object would undo each other's work.
    fn begin_restore(
        &mut self,
        row: RestoreRow,
        items: Vec<RestoreItemRow>,
        now: Millis,
    ) -> Result<Result<i64, CommandError>, StoreError> {
        let under_way = self.store.restores(true, MAX_UNDER_WAY)?;
        if under_way.len() >= MAX_UNDER_WAY {
            let message = format!("{MAX_UNDER_WAY} restores are under way");
            return Ok(Err(refusal("LS0284", message, "see `lockstep restores`, and wait for some to end")));
        }
        let planned: BTreeSet<&ObjectKey> =
            items.iter().filter(|item| item.state == ItemState::Planned).map(|item| &item.key).collect();
        for other in under_way.iter().filter(|other| other.cluster == row.cluster) {
            let items = self.store.restore_items(other.id)?;
            let taken = items.iter().find(|i| i.state == ItemState::Planned && planned.contains(&i.key));
            if let Some(taken) = taken {
                let message = format!("restore r{} of {} is under way", other.id, taken.key);
                let remedy = format!("see `lockstep restores r{}`, and wait for it to end", other.id);
                return Ok(Err(refusal("LS0284", message, &remedy)));
            }
        }
        let id = self.store.put_restore(&RestoreRow { asked_at: now, ..row })?;
        for item in items {
            self.store.put_restore_item(&RestoreItemRow { restore: id, ..item })?;
        }
        Ok(Ok(id))
    }
}
