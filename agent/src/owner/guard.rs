//! The rewind guard: what is known of the agent's Lease, when it is read, when its counter is raised.
//! Pure.
//!
//! The counter is raised only while a session runs: first in the Lease, then told to the hub. So the
//! Lease is never behind what this process or the hub knows of it, except after a restore of etcd
//! (docs/decisions/0008-rewinds.md).
//!
//! One request is under way at a time: the answer to an old read, coming after a write, would look
//! like a rewind.

use lockstep_cluster::LeaseState;
use lockstep_engine::Millis;
use lockstep_engine::guard::{self as guards, Guard as Named};

use super::{Effect, Owner};
use crate::error::{CLUSTER_UNREACHABLE, LEASE_FORBIDDEN};
use crate::lease::Raise;

/// The counter that is told where the Lease may not be read: unknown, which is not the same as none.
const UNKNOWN: u64 = u64::MAX;
/// An API server that has just started refuses for a moment what it allows: its authorizer is still
/// reading its roles. Only a refusal that lasts this long is believed.
const FORBIDDEN_AFTER_MS: Millis = 5_000;
/// The same where the Lease could be read before: now a mistake would cost more than patience.
const WITHDRAWN_AFTER_MS: Millis = 60_000;

/// What a look at the Lease showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaseRead {
    Held(LeaseState),
    Absent,
    /// The server says no.
    Forbidden(String),
    /// The server says nothing, or nothing of use.
    Unreadable(String),
}

/// What came of writing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaseWritten {
    Raised(LeaseState),
    /// Somebody else wrote first.
    Conflict,
    Forbidden(String),
    Failed(String),
}

/// Does the hub know of the rewind that this process found? Until then the counter stays, or the hub
/// might never see that it went back; and whatever the hub says is of the time before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hold {
    #[default]
    None,
    /// It was not told.
    Untold,
    /// It was told on this stream: an ack of any later batch shows that it heard.
    NextBatch,
    /// An ack of this batch shows it.
    Until(u64),
}

#[derive(Debug, Default)]
pub(super) struct Guard {
    /// The counter, as this process knows it.
    known: Option<u64>,
    /// The Lease to write over: what the last answer showed.
    seen: Option<LeaseState>,
    /// Reads are numbered as they begin: this one must be answered,
    needed: u64,
    /// this one began last,
    begun: u64,
    /// and this one was the last to say something.
    answered: u64,
    /// A read or a write is under way.
    busy: bool,
    /// The last read said nothing: the next one begins with the next tick.
    pause: bool,
    raise_due: bool,
    forbidden: bool,
    refused_since: Option<Millis>,
    /// That it cannot be read, or not be written, was logged.
    read_warned: bool,
    write_warned: bool,
    /// The read that a Hello waits for.
    greeting: Option<u64>,
    /// The counter in the last Hello.
    greeted: u64,
    hold: Hold,
}

impl Guard {
    /// The number of the first read that begins after now.
    pub(super) fn next_read(&self) -> u64 {
        self.begun + 1
    }

    /// Wants a read that begins after now.
    pub(super) fn want(&mut self) {
        self.needed = self.next_read();
    }

    /// The counter as it is told.
    pub(super) fn counter(&self) -> u64 {
        if self.forbidden { UNKNOWN } else { self.known.unwrap_or(0) }
    }

    /// Time passes.
    pub(super) fn tick(&mut self) {
        self.pause = false;
    }

    /// A stream is open: the Lease is read before the Hello.
    pub(super) fn connected(&mut self) {
        self.want();
        self.greeting = Some(self.needed);
    }

    pub(super) fn disconnected(&mut self) {
        self.greeting = None;
        if self.hold != Hold::None {
            self.hold = Hold::Untold;
        }
    }

    /// A batch was made.
    pub(super) fn batched(&mut self, sequence: u64) {
        if self.hold == Hold::NextBatch {
            self.hold = Hold::Until(sequence);
        }
    }

    pub(super) fn acked(&mut self, sequence: u64) {
        if matches!(self.hold, Hold::Until(batch) if batch <= sequence) {
            self.hold = Hold::None;
        }
    }

    /// Is there a rewind that the hub may not know of?
    pub(super) fn holds(&self) -> bool {
        self.hold != Hold::None
    }

    /// A read was answered; `Some((from, to))` when the counter went back.
    fn answered(&mut self, lease: Option<LeaseState>) -> Option<(u64, u64)> {
        let counter = lease.as_ref().map_or(0, |lease| lease.counter);
        let before = self.known.replace(counter);
        self.seen = lease;
        self.forbidden = false;
        let back = |before: &u64| counter < *before && guards::on(Named::RewindByLeaseAtAgent);
        before.filter(back).map(|before| (before, counter))
    }

    /// Is a refusal to be believed?
    fn refused(&mut self, now: Millis) -> bool {
        let since = *self.refused_since.get_or_insert(now);
        let patience = if self.known.is_some() { WITHDRAWN_AFTER_MS } else { FORBIDDEN_AFTER_MS };
        self.forbidden |= now.saturating_sub(since) >= patience;
        self.forbidden
    }
}

fn warn_once(warned: &mut bool, code: &str, why: &str, what: &str) {
    if !std::mem::replace(warned, true) {
        tracing::warn!(code, why, "{what}");
    }
}

impl Owner {
    /// Begins what the guard is to do next.
    pub(super) fn lease_effects(&mut self, effects: &mut Vec<Effect>) {
        let guard = &mut self.guard;
        if guard.busy || guard.pause || guard.needed <= guard.answered {
            return;
        }
        guard.begun += 1;
        guard.busy = true;
        effects.push(Effect::ReadLease { read: guard.begun });
    }

    pub(super) fn lease_read(&mut self, read: u64, lease: LeaseRead, now: Millis, effects: &mut Vec<Effect>) {
        self.guard.busy = false;
        let lease = match lease {
            LeaseRead::Held(lease) => Some(lease),
            LeaseRead::Absent => None,
            LeaseRead::Forbidden(why) => return self.lease_refused(read, &why, now, effects),
            LeaseRead::Unreadable(why) => {
                self.guard.refused_since = None;
                let what = "the agent's Lease cannot be read; until it can, no delete is concluded from a list, and no new session begins";
                warn_once(&mut self.guard.read_warned, CLUSTER_UNREACHABLE, &why, what);
                return self.lease_unheard();
            }
        };
        self.guard.read_warned = false;
        self.guard.refused_since = None;
        if let Some((from, to)) = self.guard.answered(lease) {
            tracing::error!(
                from,
                to,
                "the counter in the agent's Lease went back: the cluster was restored to an older state. Everything is listed anew, and nothing is concluded from absence"
            );
            self.rewind(now, effects);
        }
        self.lease_heard(read, now, effects);
        self.raise_lease(effects);
    }

    fn lease_refused(&mut self, read: u64, why: &str, now: Millis, effects: &mut Vec<Effect>) {
        if !self.guard.refused(now) {
            return self.lease_unheard();
        }
        let what = "the agent may not read its Lease: a restore of the cluster is recognised by resourceVersions only";
        warn_once(&mut self.guard.read_warned, LEASE_FORBIDDEN, why, what);
        self.guard.raise_due = false;
        self.lease_heard(read, now, effects);
    }

    /// A read said nothing.
    fn lease_unheard(&mut self) {
        self.guard.pause = true;
        self.watches.values_mut().for_each(crate::watch::Watch::lease_unheard);
    }

    /// A read said something, if only that there is nothing to be known.
    fn lease_heard(&mut self, read: u64, now: Millis, effects: &mut Vec<Effect>) {
        self.guard.answered = read;
        if self.guard.greeting.is_some_and(|greeting| greeting <= read) {
            self.guard.greeting = None;
            self.guard.greeted = self.guard.counter();
            effects.push(Effect::Send(self.hello(now)));
        }
        self.watches.values_mut().for_each(|watch| watch.lease_heard(read, now));
    }

    fn raise_lease(&mut self, effects: &mut Vec<Effect>) {
        // With nothing watched there is nothing that the hub would have to know.
        let held = self.guard.holds() && !self.watches.is_empty();
        if !self.guard.raise_due || held || !self.session.is_open() {
            return;
        }
        self.guard.raise_due = false;
        self.guard.busy = true;
        let over = self.guard.seen.clone();
        let counter = over.as_ref().map_or(0, |lease| lease.counter).saturating_add(1);
        let holder = self.session.instance().to_owned();
        effects.push(Effect::RaiseLease(Raise { counter, holder, over }));
    }

    pub(super) fn lease_written(&mut self, written: LeaseWritten, now: Millis, effects: &mut Vec<Effect>) {
        self.guard.busy = false;
        match written {
            LeaseWritten::Raised(lease) => {
                self.guard.write_warned = false;
                self.guard.known = Some(lease.counter);
                self.guard.seen = Some(lease);
                self.tell_lease(now, effects);
            }
            LeaseWritten::Conflict => {
                self.guard.raise_due = true;
                self.guard.want();
            }
            LeaseWritten::Forbidden(why) => {
                let what = "the agent may not write its Lease: a restore of the cluster is recognised by resourceVersions only";
                warn_once(&mut self.guard.write_warned, LEASE_FORBIDDEN, &why, what);
            }
            // The next one is due in seconds.
            LeaseWritten::Failed(why) => tracing::debug!(why, "the agent's Lease was not written"),
        }
    }

    /// Whenever a sign of life is due, the Lease is read; with a session it is raised too.
    pub(super) fn lease_due(&mut self) {
        self.guard.raise_due = self.session.is_open();
        self.guard.want();
    }

    /// A session has begun. `resumed`: the hub knows this process.
    pub(super) fn lease_opened(&mut self, resumed: bool, now: Millis, effects: &mut Vec<Effect>) {
        if self.guard.holds() {
            if resumed && self.guard.greeted == self.guard.counter() {
                // The Hello said it. A hub that was restored itself may know an older counter only.
                self.guard.hold = Hold::None;
            } else {
                self.guard.hold = Hold::NextBatch;
                self.tell_lease(now, effects);
            }
        }
        self.lease_due();
    }

    fn tell_lease(&self, now: Millis, effects: &mut Vec<Effect>) {
        if self.session.is_open() {
            effects.push(Effect::Send(self.heartbeat(now)));
        }
    }

    fn rewind(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.past.0.rewinds += 1;
        // First of all: whatever follows on this stream is of the time after.
        self.tell_lease(now, effects);
        self.guard.hold = if self.session.is_open() { Hold::NextBatch } else { Hold::Untold };
        for watch in self.watches.values_mut() {
            if watch.rewind() {
                effects.push(Effect::Stop { watch: watch.id });
            }
        }
    }
}
