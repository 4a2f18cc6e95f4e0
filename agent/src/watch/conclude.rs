//! What a completed list says of objects that it does not show, and what a rewind does to a watch
//! (docs/decisions/0008-rewinds.md).

use lockstep_engine::guard::{self, Guard};
use lockstep_engine::listwatch::Absence;
use lockstep_engine::relist::{Entry, Gone, Unseen};
use lockstep_engine::{Millis, ResourceVersion};
use lockstep_wire::v1::{self, Item, item::Change};

use super::{Context, Follow, Stage, Watch};
use crate::judge::is_sure;

/// What must be heard after a list before deletes are concluded from it (I3).
#[derive(Clone, Copy, Debug)]
pub(super) struct Concluding {
    epoch: u64,
    /// The look at discovery that must confirm that the kind is still served; none: it did.
    look: Option<u64>,
    /// The read of the Lease that must show that nothing was rewound; none: it did.
    read: Option<u64>,
    /// A read of the Lease said nothing since.
    unheard: bool,
}

impl Watch {
    pub(super) fn list_completed(
        &mut self,
        epoch: u64,
        version: ResourceVersion,
        absence: Absence,
        context: &Context<'_>,
    ) -> Follow {
        self.listing = false;
        self.last_event = context.now;
        let behind = absence == Absence::Rewound
            || (guard::on(Guard::RewindByList) && is_older(&version, &self.reached));
        let begin_again = if self.rewound { !self.flagged } else { behind };
        if begin_again {
            return self.list_is_rewound();
        }
        self.reached = version.clone();
        self.unkeyed_at_last = 0;
        self.mending = false;
        if self.rewound {
            self.end_rewind(epoch, version, context.now);
            return Follow::default();
        }
        if let Absence::Undecodable(count) = absence {
            self.unkeyed = self.unkeyed.max(count);
        }
        if self.unkeyed > 0 {
            // Inconclusive by design: the index keeps what the list did not show.
            let _ = self.index.complete(epoch, Absence::Undecodable(self.unkeyed));
            self.unkeyed_at_last = self.unkeyed;
            self.queue.bookmark(version);
            self.live_at = self.queue.position();
            return Follow::default();
        }
        if self.index.unseen().next().is_some() {
            let look = guard::on(Guard::DiscoveryAfterList).then_some(context.next_look);
            let read = guard::on(Guard::LeaseAfterList).then_some(context.next_read);
            self.concluding = Some(Concluding { epoch, look, read, unheard: false });
            self.conclude_if_heard(context.now);
            return Follow { look: true, read: true, stop: false };
        }
        self.conclude(epoch, context.now);
        Follow::default()
    }

    /// Discovery still serves the kind, by the look of this number.
    pub(super) fn looked(&mut self, look: u64, now: Millis) {
        if let Some(concluding) = &mut self.concluding {
            concluding.look = concluding.look.filter(|needed| *needed > look);
        }
        self.conclude_if_heard(now);
    }

    /// The Lease had not gone back, by the read of this number; or nobody can read it, and nothing is
    /// to be learned from it.
    pub(crate) fn lease_heard(&mut self, read: u64, now: Millis) {
        if let Some(concluding) = &mut self.concluding {
            concluding.unheard = false;
            concluding.read = concluding.read.filter(|needed| *needed > read);
        }
        self.conclude_if_heard(now);
        self.tell_gone(read, now);
    }

    /// The Lease was to be read, and nothing came of it.
    pub(crate) fn lease_unheard(&mut self) {
        if let Some(concluding) = &mut self.concluding {
            concluding.unheard = concluding.read.is_some();
        }
    }

    /// Do deletes wait for a Lease that says nothing?
    pub(super) fn waits_for_lease(&self) -> bool {
        self.concluding.is_some_and(|concluding| concluding.unheard)
    }

    fn conclude_if_heard(&mut self, now: Millis) {
        if let Some(Concluding { epoch, look: None, read: None, .. }) = self.concluding {
            self.concluding = None;
            self.conclude(epoch, now);
        }
    }

    fn conclude(&mut self, epoch: u64, now: Millis) {
        match self.index.complete(epoch, Absence::Conclusive) {
            Ok(gone) => {
                for Gone { namespace, name, last, .. } in gone {
                    let change = Change::Delete(v1::Delete { inferred: true, ..v1::Delete::default() });
                    self.push(of_entry(namespace, name, &last, change, now), None);
                }
                self.complete = true;
                self.queue.bookmark(self.reached.clone());
                self.live_at = self.queue.position();
            }
            Err(error) => tracing::debug!(kind = %self.interest.gk, %error, "nothing concluded from a list"),
        }
    }

    /// The list-watch found its server behind: a list that concludes nothing follows, or, where it
    /// found out at the end of one, is begun again then.
    pub(super) fn rewind_suspected(&mut self) -> Follow {
        self.suspect();
        Follow { look: false, read: true, stop: false }
    }

    /// The list under way is older than what was seen. It is begun again, so that the hub knows of the
    /// rewind before the first object, and every object is told.
    pub(super) fn list_is_rewound(&mut self) -> Follow {
        tracing::error!(
            kind = %self.interest.gk, epoch = self.epoch,
            "a list is older than what was seen: the API server was restored from a backup. Everything is listed again, and nothing is concluded from absence"
        );
        self.suspect();
        Follow { look: false, read: true, stop: self.relist() }
    }

    fn suspect(&mut self) {
        self.tally.rewinds += u64::from(!self.rewound);
        self.rewound = true;
        self.complete = false;
        self.concluding = None;
        // What was reached before is of another history.
        self.queue.restart();
    }

    /// The cluster was rewound: everything is listed anew, and nothing is concluded from absence. True
    /// when a running task must be stopped.
    pub(crate) fn rewind(&mut self) -> bool {
        // That very list is under way.
        if self.rewound && self.stage == Stage::Running {
            return false;
        }
        self.suspect();
        // Without a Resume there is nothing yet that could be listed again.
        self.stage != Stage::AwaitingResume && self.relist()
    }

    /// Everything was listed anew after a rewind. What was known and is not there is neither there nor
    /// deleted; from here on it is an ordinary watch of the new history.
    fn end_rewind(&mut self, epoch: u64, version: ResourceVersion, now: Millis) {
        let unseen = match self.index.take_unseen(epoch) {
            Ok(unseen) => unseen,
            Err(error) => {
                tracing::debug!(kind = %self.interest.gk, %error, "a list ended that was not the last");
                return;
            }
        };
        let count = unseen.len();
        for Unseen { namespace, name, last } in unseen {
            let change = if guard::on(Guard::UnseenAfterRewind) {
                Change::Unseen(v1::Unseen {})
            } else {
                Change::Delete(v1::Delete { inferred: true, ..v1::Delete::default() })
            };
            self.push(of_entry(namespace, name, &last, change, now), None);
        }
        tracing::warn!(kind = %self.interest.gk, unseen = count, "listed anew after a rewind");
        self.rewound = false;
        self.complete = self.unkeyed == 0;
        self.unkeyed_at_last = self.unkeyed;
        self.queue.bookmark(version);
        self.live_at = self.queue.position();
    }

    /// Does a listed object prove that the server was rewound? A key never gets older, whoever is
    /// behind it: an object that takes the name of another has a higher resourceVersion than that ever
    /// had.
    ///
    /// The index must know the version from before the list began. It does: during a list nothing
    /// else is observed, and what the hub had to say of its own writes came before the task started,
    /// while a list shows the newest state at the time of its first request (also on its later
    /// pages). Only what was read one by one may be younger than a list that was on its way, so such
    /// entries prove nothing.
    pub(super) fn proves_rewind(&self, known: &Entry, version: &ResourceVersion) -> bool {
        guard::on(Guard::RewindByObject)
            && !self.rewound
            && is_sure(known)
            && is_older(version, &known.resource_version())
    }
}

/// An item without a body, for an object by what was known of it.
pub(super) fn of_entry(
    namespace: Box<str>,
    name: Box<str>,
    last: &Entry,
    change: Change,
    now: Millis,
) -> Item {
    Item {
        namespace: namespace.into(),
        name: name.into(),
        uid: last.uid().as_str().to_owned(),
        resource_version: last.resource_version().as_str().to_owned(),
        observed_ms: now,
        change: Some(change),
    }
}

/// Only where both are numbers.
pub(super) fn is_older(version: &ResourceVersion, than: &ResourceVersion) -> bool {
    matches!((version.ordinal(), than.ordinal()), (Some(version), Some(than)) if version < than)
}
