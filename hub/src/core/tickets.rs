//! Steps that a person waits for: reads, restores, and deletes of what a restore replaces. They go
//! through the agent of the cluster like all others, one at a time per object.

use std::collections::{BTreeMap, VecDeque};

use lockstep_engine::{ClusterId, GroupKind, ObjectKey};
use lockstep_wire::v1::outcome::Result as Answer;
use lockstep_wire::v1::{self, step::Action};

use super::Core;
use super::command::{CommandError, Comparison, Reply};
use super::commands::refusal;
use super::dispatch::Prepared;
use crate::store::Store;

/// Steps that people wait for. More are refused.
const MAX_TICKETS: usize = 256;

/// What is asked of an agent.
#[derive(Clone, Debug)]
pub enum Question {
    /// What is there?
    Read,
    /// Bring it back, or only have the server check that.
    Restore(v1::Restore),
    /// Delete exactly this state, which the archive has (I4).
    Delete {
        /// Its uid.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
}

impl Question {
    fn action(self) -> Action {
        match self {
            Self::Read => Action::Read(v1::Read { must_be_empty: false }),
            Self::Restore(restore) => Action::Restore(restore),
            Self::Delete { uid, resource_version } => {
                Action::Delete(v1::DeleteStep { uid, resource_version, must_be_empty: false })
            }
        }
    }
}

/// Whom the answer is for.
#[derive(Debug)]
pub(super) enum Asker {
    /// A comparison, which it completes.
    Comparison { comparison: Box<Comparison>, gk: GroupKind, reply: Reply<Comparison> },
    /// Whoever asked.
    Answer(Reply<Answer>),
}

/// Steps that people wait for.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    next: u64,
    open: BTreeMap<u64, (ClusterId, Asker)>,
    /// Their objects are busy, or the window is full.
    waiting: VecDeque<(ClusterId, ObjectKey, Prepared)>,
    /// Tombstones that somebody waits for until the archive has them.
    pub(super) kept: BTreeMap<i64, Reply<i64>>,
}

impl Tickets {
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= MAX_TICKETS
    }

    pub(super) fn open(&mut self, target: ClusterId, asker: Asker) -> u64 {
        self.next += 1;
        self.open.insert(self.next, (target, asker));
        self.next
    }

    pub(super) fn close(&mut self, ticket: u64) -> Option<Asker> {
        self.open.remove(&ticket).map(|(_, asker)| asker)
    }

    /// Its agent is gone: the answers will not come. Dropping the reply tells who waits.
    pub(super) fn cluster_left(&mut self, id: ClusterId) {
        self.open.retain(|_, (target, _)| *target != id);
        self.waiting.retain(|(target, ..)| *target != id);
    }
}

impl<S: Store> Core<S> {
    pub(super) fn ask(
        &mut self,
        target: ClusterId,
        key: &ObjectKey,
        question: Question,
        reply: Reply<Answer>,
    ) {
        let connected = self.clusters.get(&target).is_some_and(|cluster| cluster.session.is_some());
        if let Err(refused) = self.may_ask(target, connected) {
            return self.answer(reply, Err(refused));
        }
        let ticket = self.tickets.open(target, Asker::Answer(reply));
        self.tickets.waiting.push_back((target, key.clone(), Prepared::ticket(ticket, question.action())));
        self.ask_waiting(target);
    }

    fn may_ask(&self, target: ClusterId, connected: bool) -> Result<(), CommandError> {
        if !connected {
            let message = format!("the agent of {} is not connected", self.cluster_name(target));
            return Err(refusal("LS0280", message, "see `lockstep clusters`, and try again when it is"));
        }
        if self.tickets.is_full() {
            let message = "too much is asked of agents at once".to_owned();
            return Err(refusal("LS0280", message, "try again in a moment"));
        }
        Ok(())
    }

    /// Sends what waits for this cluster, as far as there is a place.
    pub(super) fn ask_waiting(&mut self, target: ClusterId) {
        let waiting = std::mem::take(&mut self.tickets.waiting);
        for (of, key, step) in waiting {
            let goes = of == target
                && self.clusters.get(&of).is_some_and(|c| !c.busy.contains_key(&key) && c.has_place(&key.gk));
            if goes {
                self.send_step(of, &key, step, None);
            } else {
                self.tickets.waiting.push_back((of, key, step));
            }
        }
    }

    pub(super) fn ticket_answered(&mut self, ticket: u64, answer: Answer) {
        match self.tickets.close(ticket) {
            Some(Asker::Comparison { comparison, gk, reply }) => {
                self.compared(*comparison, &gk, reply, &answer);
            }
            Some(Asker::Answer(reply)) => self.answer(reply, Ok(answer)),
            None => {}
        }
    }

    /// The archive has a tombstone that somebody waits for.
    pub(super) fn kept_is_archived(&mut self, id: i64) {
        if let Some(reply) = self.tickets.kept.remove(&id) {
            self.answer(reply, Ok(id));
        }
    }
}
