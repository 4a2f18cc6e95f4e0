//! One watch as its owner sees it: what is known, what is wanted, what waits to be sent. Pure.
//!
//! A watch starts when the hub has named its interest, streamed its index ([`Watch::resume`]) and
//! discovery serves the kind. Nothing is concluded from absence unless the list completed with
//! every item keyed, is not older than what was seen, and after it discovery was asked again and still
//! serves the kind, and the agent's Lease was read again and had not gone back (I3).

mod census;
mod conclude;
mod observe;
mod report;
mod spilled;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lockstep_cluster::{Resource, Scope, Served};
use lockstep_engine::catalogue::is_container;
use lockstep_engine::coalesce::{CoalesceCounters, CoalescingQueue, Limits, Lives};
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::interest::Interest;
use lockstep_engine::listwatch::Start;
use lockstep_engine::relist::{Flags, KeyIndex, Seen};
use lockstep_engine::{Millis, ResourceVersion};
use lockstep_wire::Resumed;
use lockstep_wire::v1::WatchStatus;

use crate::judge::SEEDED;
use crate::spill::{Held, Key};
use census::{Asked, Round};
pub(crate) use census::{Compared, Read};
use conclude::Concluding;

/// Where a watch is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The hub has not yet said where to go on.
    AwaitingResume,
    /// The kind is not served, as far as we know.
    AwaitingKind,
    /// A list is needed, and others are under way.
    AwaitingSlot,
    /// Its task runs.
    Running,
}

/// What the owner does for all its watches' observations.
pub(crate) struct Context<'a> {
    pub(crate) secret_key: &'a [u8; 32],
    pub(crate) now: Millis,
    /// The numbers that the next look at discovery and the next read of the Lease will have.
    pub(crate) next_look: u64,
    pub(crate) next_read: u64,
}

/// What an observation calls for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Follow {
    /// Ask discovery again.
    pub(crate) look: bool,
    /// Read the Lease again.
    pub(crate) read: bool,
    /// Stop the task.
    pub(crate) stop: bool,
}

/// How a watch's task is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StartWatch {
    pub(crate) watch: u32,
    /// Tells the observations of this task from those of an earlier one.
    pub(crate) run: u64,
    pub(crate) resource: Resource,
    pub(crate) scope: Scope,
    pub(crate) start: Start,
    pub(crate) epoch: u64,
}

/// Counts since the start; of all watches together they become metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) events: u64,
    pub(crate) bodies_sent: u64,
    pub(crate) bodies_withheld: u64,
    pub(crate) undecodable: u64,
    pub(crate) lists: u64,
    pub(crate) rewinds: u64,
    pub(crate) censuses: u64,
    pub(crate) mismatches: u64,
    pub(crate) rereads: u64,
}

pub(crate) struct Watch {
    pub(crate) id: u32,
    pub(crate) interest: Interest,
    interest_digest: Bytes,
    /// Digest of the interest that everything told so far was judged by.
    judged: Bytes,
    pub(crate) stage: Stage,
    pub(crate) run: u64,
    resource: Option<Resource>,
    start: Start,
    index: KeyIndex,
    queue: CoalescingQueue<Key, Held>,
    /// Where in the queue to go on spilling.
    spilled_to: u64,
    /// Must a task be stopped that ran when something spilled was lost?
    stop: bool,
    pub(crate) epoch: u64,
    /// The newest resourceVersion seen, or the checkpoint we began from.
    reached: ResourceVersion,
    /// A list that is complete, and from which deletes are still to be concluded.
    concluding: Option<Concluding>,
    /// Does absence from the index mean absence from the cluster?
    complete: bool,
    /// The server was rewound: until everything was listed anew nothing is concluded, and no
    /// checkpoint moves.
    rewound: bool,
    /// Was that known before the list under way began?
    flagged: bool,
    pub(crate) listing: bool,
    /// Objects of the list under way that could not be keyed.
    unkeyed: u32,
    unkeyed_at_last: u32,
    failing: Option<&'static str>,
    /// Was the kind found not to be served, for certain?
    not_served: bool,
    /// Does the interest ask for what the hub may not read? The watch does not run then.
    refused: bool,
    live_at: u64,
    told: Option<WatchStatus>,
    census: Round,
    /// The index holds the hub's view where that was found to be wrong: only a list mends it.
    mending: bool,
    /// What is being read again, by name within its namespace.
    rereads: BTreeMap<(Box<str>, Box<str>), Asked>,
    pub(crate) last_event: Millis,
    /// When the hub said where to go on.
    resumed_at: Millis,
    tally: Tally,
}

impl Watch {
    pub(crate) fn new(id: u32, interest: Interest, limits: Limits) -> Self {
        let interest_digest = Bytes::copy_from_slice(&interest.digest());
        let lives = if is_container(&interest.gk) { Lives::Ends } else { Lives::Bodies };
        Self {
            id,
            interest,
            interest_digest,
            judged: Bytes::new(),
            stage: Stage::AwaitingResume,
            run: 0,
            resource: None,
            start: Start::Nothing,
            index: KeyIndex::new(),
            queue: CoalescingQueue::new(limits).telling(lives),
            spilled_to: 0,
            stop: false,
            epoch: 0,
            reached: ResourceVersion::default(),
            concluding: None,
            complete: false,
            rewound: false,
            flagged: false,
            listing: false,
            unkeyed: 0,
            unkeyed_at_last: 0,
            failing: None,
            not_served: false,
            refused: false,
            live_at: 0,
            told: None,
            census: Round::default(),
            mending: false,
            rereads: BTreeMap::new(),
            last_event: 0,
            resumed_at: 0,
            tally: Tally::default(),
        }
    }

    /// The same, where what the interest asks for may not be read.
    pub(crate) fn refused(self, refused: bool) -> Self {
        Self { refused, ..self }
    }

    /// Does it ask for what the hub may not read?
    pub(crate) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Takes where to go on. The owner has stopped the task, if one ran.
    pub(crate) fn resume(&mut self, resumed: Resumed, now: Millis) {
        self.resumed_at = now;
        let Resumed { watch: _, epoch, checkpoint, interest, api_version, entries, rewound } = resumed;
        // Keys that we know and the hub does not (yet) stay: batches that create them may be under
        // way, and only a key in the index can be found missing from a list.
        for entry in entries {
            let seen = Seen {
                uid: &entry.uid,
                resource_version: ResourceVersion::new(&entry.resource_version),
                digest: SEEDED,
                flags: Flags { body_sent: entry.body_held, managed: entry.managed, untold: false },
            };
            self.index.observe(&entry.namespace, &entry.name, &seen);
        }
        self.epoch = self.epoch.max(epoch);
        self.reached = ResourceVersion::new(&checkpoint);
        // What this process found itself stands: only a list ends it.
        self.rewound |= rewound;
        let same = interest == self.interest_digest || !guard::on(Guard::ResumeSameInterest);
        self.start = if same && !checkpoint.is_empty() && !self.rewound && !self.mending {
            Start::Checkpoint(self.reached.clone())
        } else {
            self.list_start()
        };
        self.judged = interest;
        self.resource = resource_of(&api_version, &self.interest);
        self.queue.clear();
        self.told = None;
        self.reset(Stage::AwaitingKind);
    }

    /// Takes another interest; true when a running task must be stopped: everything is listed and
    /// judged again, against the index.
    pub(crate) fn change(&mut self, interest: Interest, refused: bool) -> bool {
        self.refused = refused;
        self.interest_digest = Bytes::copy_from_slice(&interest.digest());
        self.interest = interest;
        if self.stage == Stage::AwaitingResume {
            return false;
        }
        // Until everything is judged anew, what the hub holds was judged by neither interest.
        self.judged = Bytes::new();
        self.relist()
    }

    /// Back to waiting for the kind, to list everything; true when a task must be stopped.
    fn relist(&mut self) -> bool {
        let ran = self.stage == Stage::Running;
        self.start = self.list_start();
        self.leave_to_list();
        self.reset(Stage::AwaitingKind);
        ran
    }

    fn list_start(&self) -> Start {
        if self.rewound { Start::Rewound } else { Start::Nothing }
    }

    fn reset(&mut self, stage: Stage) {
        self.stage = stage;
        self.concluding = None;
        self.complete = false;
        self.listing = false;
        self.failing = None;
        self.census.interrupt();
        self.rereads.clear();
    }

    /// Takes what is served, by the look of this number; true when a running task must be stopped. A
    /// kind that vanished makes its objects unknown, not deleted (I3).
    pub(crate) fn discovered(&mut self, served: &Served, look: u64, now: Millis) -> bool {
        let gk = &self.interest.gk;
        let Some(kind) = served.get(gk) else {
            self.not_served = !served.is_unknown(gk);
            return self.not_served && self.stage != Stage::AwaitingResume && self.relist();
        };
        self.not_served = false;
        let gone =
            self.resource.as_ref().is_some_and(|known| kind.api_version(&known.api_version()).is_none());
        if gone {
            // Bodies that the hub holds are of a version that no longer exists here: send them anew.
            self.resource = None;
            let stop = self.stage != Stage::AwaitingResume && self.relist();
            self.index.reflag(|flags| flags.body_sent = false);
            return stop;
        }
        self.looked(look, now);
        false
    }

    /// Starts the task if it can be: the kind is served, and if a list is needed there is a slot.
    pub(crate) fn try_start(&mut self, served: &Served, slot: bool, run: u64) -> Option<StartWatch> {
        if self.refused || !matches!(self.stage, Stage::AwaitingKind | Stage::AwaitingSlot) {
            return None;
        }
        let kind = served.get(&self.interest.gk)?;
        let known = self.resource.as_ref().and_then(|known| kind.api_version(&known.api_version()));
        if known.is_none() {
            self.start = self.list_start();
        }
        let resource = known.or_else(|| kind.preferred())?;
        let lists = !self.resumes();
        if lists && !slot {
            self.stage = Stage::AwaitingSlot;
            return None;
        }
        let scope = match self.interest.scope.as_str() {
            "" => Scope::Cluster,
            namespace => Scope::Namespace(namespace.into()),
        };
        self.stage = Stage::Running;
        self.listing = lists;
        self.run = run;
        self.resource = Some(resource.clone());
        let (watch, epoch, start) = (self.id, self.epoch, self.start.clone());
        Some(StartWatch { watch, run, resource, scope, start, epoch })
    }

    /// Does it go on from a checkpoint?
    fn resumes(&self) -> bool {
        matches!(self.start, Start::Checkpoint(_))
    }

    /// What the index says of an object; nothing where the index cannot tell.
    pub(crate) fn presence(&self, namespace: &str, name: &str) -> Option<bool> {
        let sure = self.complete && self.stage == Stage::Running && self.failing.is_none() && !self.rewound;
        match self.index.get(namespace, name) {
            Some(_) => Some(true),
            None if sure && self.unkeyed_at_last == 0 => Some(false),
            None if !guard::on(Guard::IndexSureOfAbsence) => Some(false),
            None => None,
        }
    }

    /// Does it cover this namespace?
    pub(crate) fn covers(&self, namespace: &str) -> bool {
        self.interest.scope.is_empty() || self.interest.scope == namespace
    }

    /// Objects known.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// What its task watches.
    pub(crate) fn resource(&self) -> Option<Resource> {
        self.resource.clone()
    }

    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.queue.len(), self.queue.bytes())
    }

    pub(crate) fn counts(&self) -> (Tally, CoalesceCounters) {
        (self.tally, self.queue.counters())
    }

    #[cfg(test)]
    pub(crate) fn keys(&self) -> Vec<String> {
        self.index.iter().map(|(namespace, name, _)| format!("{namespace}/{name}")).collect()
    }
}

/// A resource that stands for an `apiVersion` until discovery has told the rest.
fn resource_of(api_version: &str, interest: &Interest) -> Option<Resource> {
    if api_version.is_empty() {
        return None;
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = Arc::clone(&interest.gk.kind);
    Some(Resource {
        group: group.into(),
        version: version.into(),
        kind,
        plural: "".into(),
        namespaced: false,
    })
}
