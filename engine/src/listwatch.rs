//! The list-watch loop as one state machine: no socket, no clock.
//!
//! The shell carries out [`Command`]s one at a time and feeds what came of them back as [`Input`]s;
//! whatever was learned comes out as [`Observation`]s. Bodies are opaque bytes (`B`) that pass
//! through without a copy.
//!
//! A loop starts either from nothing (a full list, then a watch) or from a checkpoint (a probe,
//! then a watch). The probe guards against rewinds: a watch from a future resourceVersion, as after
//! an etcd restore, is accepted and silently delivers nothing, so a consistent LIST with limit=1
//! precedes every watch. Lists come in pages (`list`), or as the beginning of a watch where the
//! server can do that (`stream`); `follow` is what comes after a list.
//!
//! Architecture invariant: nothing is concluded from absence here. [`Observation::ListCompleted`]
//! says whether absence from that list means anything (I3).
//!
//! Architecture invariant: the checkpoint moves when a list completes and with events and bookmarks
//! of the watch, never while a list is under way (I2).

mod body;
mod failure;
mod follow;
mod list;
mod model;
mod stream;
mod version;

pub use failure::RequestFailure;
pub use model::{Absence, Command, Event, Health, Input, Observation, Output, Settings, Start};
pub use version::streams_lists;

use crate::Millis;
use crate::backoff::{Backoff, Random, Retry};
use crate::identity::ResourceVersion;
use follow::Watching;
use list::Listing;
use stream::Held;

/// Most objects per page: what client-go uses; a page of 500 average objects is about 1 MiB.
pub const PAGE_LIMIT: u32 = 500;
/// Objects on the first page of a list, of which nothing is known yet. As many of the largest objects that etcd takes (about
/// 1.5 MiB, in JSON a little more) fit into [`PAGE_BYTES`].
pub const PAGE_START: u32 = 32;
/// The next page has at most so many times as many objects.
const PAGE_GROWTH: u32 = 4;
/// Largest page that a client takes, in bytes. One that is longer is refused, and asked for in parts.
pub const PAGE_BYTES: usize = 64 << 20;
/// What the next page is to weigh, as far as the last one tells: the objects on it may be several times as large.
const PAGE_BYTES_WANTED: usize = PAGE_BYTES / 8;
/// A page that is too long, or takes too long, is asked for again with this part of its objects.
const PAGE_LIMIT_DIVISOR: u32 = 4;
/// Pages that take too long do not become smaller than this: a server that hangs is no reason to ask
/// for one object at a time.
const SLOW_PAGE_LIMIT: u32 = 50;
/// Shortest `timeoutSeconds` asked of a watch.
pub const WATCH_TIMEOUT_MIN_S: u32 = 240;
/// Longest `timeoutSeconds` asked of a watch; spread, so that a fleet's watches do not end at once.
pub const WATCH_TIMEOUT_MAX_S: u32 = 300;
/// A server that has not ended a watch this long after its timeout is taken for dead.
pub const CUT_OFF_GRACE_MS: u64 = 20_000;
/// A watch that hears nothing for so long is renewed. Bookmarks come about every 60 s: two of them
/// and half a period more must have been missed. Also how long a server may keep silent before it
/// counts as one that sends no bookmarks; its watches are renewed at their cut-off only.
pub const WATCH_IDLE_MS: u64 = 150_000;
/// Longest wait for a probe: API servers answer within 60 s, if only to say that they cannot.
const PROBE_TIMEOUT_MS: u64 = 75_000;
/// A watch that ends sooner without an object counts as a failure, or a broken server is hammered.
const SHORT_WATCH_MS: Millis = 1_000;
/// A watch that lasts this long may be followed by a new list at once; after a shorter one lists
/// are spaced out, or a server that answers 410 to what it has just listed is listed without end.
const CALM_WATCH_MS: Millis = 60_000;
/// After this many failed watches in a row the checkpoint is given up and everything is listed.
const WATCH_FAILURES_BEFORE_RELIST: u32 = 8;
/// After this many broken streamed lists in a row, lists come in pages: those go on where they broke.
const STREAM_ATTEMPTS: u32 = 3;
/// Between attempts: 1 s doubling to 60 s, each drawn from the upper half of its step.
const RETRY: Backoff = Backoff { base_ms: 750, factor: 2, max_ms: 60_000, jitter_percent: 33 };

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// A page was asked for.
    Listing(Listing),
    /// A streamed list is being opened, or its initial events come.
    Streaming(Listing),
    Probing,
    Opening,
    Watching(Watching),
    Sleeping(Next),
}

/// What follows a sleep.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// A new list.
    List {
        /// Was the server found rewound?
        rewound: bool,
        /// Was it the first page that failed?
        again: bool,
    },
    /// The same page again.
    Page(Listing),
    /// Probe, then watch.
    Resume,
}

/// The loop.
#[derive(Debug)]
pub struct Machine<B> {
    state: State,
    health: Health,
    checkpoint: Option<ResourceVersion>,
    /// The newest version that an unfinished list has shown: the next one must not be older.
    shown: Option<ResourceVersion>,
    epoch: u64,
    /// Objects per page of the list under way.
    limit: u32,
    /// Are lists streamed?
    streaming: bool,
    /// Streamed lists that broke, in a row.
    streams_broken: u32,
    /// DELETED events of the streamed list under way.
    held: Held<B>,
    idle_ms: u64,
    /// For how long watches were open since the last bookmark, ms.
    unmarked_ms: u64,
    /// When a watch that went silent was last heard of; until the probe is answered.
    silent_since: Option<Millis>,
    watch_failures: u32,
    /// Since when requests fail; outlives a success that is not the failing request's.
    failing_since: Option<Millis>,
    /// Was it the watch that failed (rather than a list)?
    watch_fails: bool,
    retry: Retry,
    /// Spaces out lists that follow short watches.
    relists: Retry,
    random: Random,
}

impl<B: AsRef<[u8]>> Machine<B> {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { epoch, seed, streaming, idle_ms } = settings;
        Self {
            state: State::Sleeping(Next::List { rewound: false, again: false }),
            health: Health::Starting,
            checkpoint: None,
            shown: None,
            epoch,
            limit: PAGE_START,
            streaming,
            streams_broken: 0,
            held: Held::default(),
            idle_ms,
            unmarked_ms: 0,
            silent_since: None,
            watch_failures: 0,
            failing_since: None,
            watch_fails: false,
            retry: Retry::new(RETRY, seed),
            relists: Retry::new(RETRY, seed.rotate_left(16)),
            random: Random::new(seed.rotate_left(32)),
        }
    }

    /// The version up to which everything was reported.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&ResourceVersion> {
        self.checkpoint.as_ref()
    }

    /// The loop's health.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Begins. Call once, before any [`Self::step`].
    pub fn start(&mut self, start: Start, out: &mut Vec<Output<B>>) {
        match start {
            Start::Checkpoint(version) if !version.is_empty() => {
                self.checkpoint = Some(version);
                self.resume(out);
            }
            Start::Rewound => self.list(true, false, out),
            Start::Checkpoint(_) | Start::Nothing => self.list(false, false, out),
        }
    }

    /// Takes what came of the outstanding command. Observations and at most one command are pushed
    /// to `out`; inputs that do not fit the state (late events of a closed stream) are ignored.
    pub fn step(&mut self, input: Input<B>, now: Millis, out: &mut Vec<Output<B>>) {
        match (self.state.clone(), input) {
            (State::Listing(listing), Input::Page { items, continue_token, resource_version }) => {
                self.paged(listing, items, continue_token, resource_version, now, out);
            }
            (State::Listing(listing), Input::Failed(failure)) => self.page_failed(listing, failure, now, out),
            (State::Streaming(listing), Input::Event(event)) => self.streamed(listing, event, now, out),
            (State::Streaming(listing), Input::Ended | Input::Stale) => {
                self.stream_failed(&listing, RequestFailure::Incomplete, now, out);
            }
            (State::Streaming(listing), Input::Failed(failure)) => {
                self.stream_failed(&listing, failure, now, out);
            }
            (State::Probing, Input::Probed { resource_version }) => self.probed(&resource_version, now, out),
            (State::Probing, Input::Failed(failure)) => self.probe_failed(failure, now, out),
            (State::Opening, Input::Opened) => {
                self.state = State::Watching(Watching::new(now));
                self.set_health(Health::Live, out);
            }
            (State::Opening, Input::Failed(failure)) => self.watch_failed(failure, now, out),
            (State::Opening, Input::Ended | Input::Stale) => {
                self.watch_failed(RequestFailure::EndedAtOnce, now, out);
            }
            (State::Watching(watching), Input::Event(event)) => self.event(watching, event, now, out),
            (State::Watching(watching), Input::Ended) => self.ended(watching, now, out),
            (State::Watching(watching), Input::Stale) => self.stale(watching, now, out),
            (State::Watching(watching), Input::Failed(failure)) => {
                self.left(watching, now);
                self.watch_failed(failure, now, out);
            }
            (State::Sleeping(next), Input::Fired) => match next {
                Next::List { rewound, again } => self.list(rewound, again, out),
                Next::Page(listing) => self.page(listing, out),
                Next::Resume => self.resume(out),
            },
            _ => {}
        }
    }

    /// A new list: at once, or after a pause if the last one was for nothing.
    fn relist(&mut self, reason: RequestFailure, rewound: bool, now: Millis, out: &mut Vec<Output<B>>) {
        let fresh = self.relists.is_fresh();
        let ms = self.relists.next_ms(reason.retry_after_ms());
        if fresh {
            return self.list(rewound, false, out);
        }
        self.watch_fails = true;
        self.pause(ms, reason, Next::List { rewound, again: false }, now, out);
    }

    fn fail(&mut self, reason: RequestFailure, next: Next, now: Millis, out: &mut Vec<Output<B>>) {
        let ms = self.retry.next_ms(reason.retry_after_ms());
        self.pause(ms, reason, next, now, out);
    }

    fn pause(&mut self, ms: u64, reason: RequestFailure, next: Next, now: Millis, out: &mut Vec<Output<B>>) {
        let since = *self.failing_since.get_or_insert(now);
        self.set_health(Health::Failing { reason, since }, out);
        self.state = State::Sleeping(next);
        out.push(Output::Command(Command::Sleep { ms }));
    }

    /// What failed works again.
    fn cured(&mut self) {
        self.retry.reset();
        self.failing_since = None;
        self.watch_fails = false;
    }

    fn set_health(&mut self, health: Health, out: &mut Vec<Output<B>>) {
        if self.health != health {
            self.health = health.clone();
            out.push(Output::Observation(Observation::StateChanged(health)));
        }
    }

    /// `timeoutSeconds` of a watch, and when the shell cuts it off, ms.
    fn watch_times(&mut self) -> (u32, u64) {
        let timeout_s = self.random.between(WATCH_TIMEOUT_MIN_S, WATCH_TIMEOUT_MAX_S);
        (timeout_s, u64::from(timeout_s).saturating_mul(1_000).saturating_add(CUT_OFF_GRACE_MS))
    }
}

/// Is `server` older than `seen`? Only where both are numbers.
fn is_older(server: &ResourceVersion, seen: &ResourceVersion) -> bool {
    match (server.ordinal(), seen.ordinal()) {
        (Some(server), Some(seen)) => server < seen,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
