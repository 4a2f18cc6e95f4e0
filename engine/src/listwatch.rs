//! The list-watch loop as one state machine: no socket, no clock.
//!
//! The shell carries out [`Command`]s one at a time and feeds what came of them back as [`Input`]s;
//! whatever was learned comes out as [`Observation`]s. Bodies are opaque bytes (`B`) that pass
//! through without a copy.
//!
//! A loop starts either from nothing (a full list in pages, then a watch) or from a checkpoint (a
//! probe, then a watch). The probe guards against rewinds: a watch from a future resourceVersion,
//! as after an etcd restore, is accepted and silently delivers nothing, so a consistent LIST with
//! limit=1 precedes every watch.
//!
//! Architecture invariant: nothing is concluded from absence here. [`Observation::ListCompleted`]
//! says whether absence from that list means anything (I3).

mod backoff;
mod failure;
mod model;

pub use backoff::Backoff;
pub use failure::RequestFailure;
pub use model::{Absence, Command, Event, Health, Input, Observation, Output, Start};

use serde::Deserialize;
use std::borrow::Cow;

use crate::Millis;
use crate::identity::ResourceVersion;

/// Objects per page: what client-go uses; a page of 500 average objects is about 1 MiB.
pub const PAGE_LIMIT: u32 = 500;
/// Shortest `timeoutSeconds` asked of a watch.
pub const WATCH_TIMEOUT_MIN_S: u32 = 240;
/// Longest `timeoutSeconds` asked of a watch; spread, so that a fleet's watches do not end at once.
pub const WATCH_TIMEOUT_MAX_S: u32 = 300;
/// A server that has not ended a watch this long after its timeout is taken for dead.
pub const CUT_OFF_GRACE_MS: u64 = 20_000;
/// A watch that ends sooner without an event counts as a failure, or a broken server is hammered.
const SHORT_WATCH_MS: Millis = 1_000;
/// After this many failed watches in a row the checkpoint is given up and everything is listed.
const WATCH_FAILURES_BEFORE_RELIST: u32 = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Listing { first: Option<ResourceVersion>, undecodable: u32, rewound: bool },
    Probing,
    Opening,
    Watching { opened: Millis, events: bool },
    Sleeping(Next),
}

/// What follows a sleep.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// A new list; `true` when the server was found rewound.
    List(bool),
    /// The same page again.
    Page { continue_token: Option<String>, first: Option<ResourceVersion>, undecodable: u32, rewound: bool },
    /// Probe, then watch.
    Resume,
}

/// The loop.
#[derive(Debug)]
pub struct Machine {
    state: State,
    health: Health,
    checkpoint: Option<ResourceVersion>,
    /// The token of the page asked for, to ask again.
    page: Option<String>,
    epoch: u64,
    watch_failures: u32,
    backoff: Backoff,
}

impl Machine {
    /// A loop that has not begun. `epoch` is the number of the last list made before, `seed` the
    /// source of jitter: differ it per watch.
    #[must_use]
    pub fn new(epoch: u64, seed: u64) -> Self {
        Self {
            state: State::Sleeping(Next::List(false)),
            health: Health::Starting,
            checkpoint: None,
            page: None,
            epoch,
            watch_failures: 0,
            backoff: Backoff::new(seed),
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
    pub fn start<B>(&mut self, start: Start, now: Millis, out: &mut Vec<Output<B>>) {
        match start {
            Start::Checkpoint(version) if !version.is_empty() => {
                self.checkpoint = Some(version);
                self.resume(out);
            }
            Start::Rewound => self.list(true, now, out),
            Start::Checkpoint(_) | Start::Nothing => self.list(false, now, out),
        }
    }

    /// Takes what came of the outstanding command. Observations and at most one command are pushed
    /// to `out`; inputs that do not fit the state (late events of a closed stream) are ignored.
    pub fn step<B: AsRef<[u8]>>(&mut self, input: Input<B>, now: Millis, out: &mut Vec<Output<B>>) {
        match (self.state.clone(), input) {
            (
                State::Listing { first, undecodable, rewound },
                Input::Page { items, continue_token, resource_version },
            ) => {
                let first = first.unwrap_or(resource_version);
                let undecodable = undecodable.saturating_add(self.items(items, out));
                self.page_done(continue_token, first, undecodable, rewound, now, out);
            }
            (State::Listing { first, undecodable, rewound }, Input::Failed(failure)) => {
                self.list_failed(failure, first, undecodable, rewound, now, out);
            }
            (State::Probing, Input::Probed { resource_version }) => self.probed(&resource_version, now, out),
            (State::Probing | State::Opening, Input::Failed(failure)) => self.watch_failed(failure, now, out),
            (State::Opening, Input::Opened) => {
                self.state = State::Watching { opened: now, events: false };
                self.set_health(Health::Live, out);
            }
            (State::Watching { opened, .. }, Input::Event(event)) => self.event(event, opened, now, out),
            (State::Watching { opened, events }, Input::Ended) => {
                if events || now.saturating_sub(opened) >= SHORT_WATCH_MS {
                    self.resume(out);
                } else {
                    self.watch_failed(RequestFailure::EndedAtOnce, now, out);
                }
            }
            (State::Watching { .. }, Input::Failed(failure)) => self.watch_failed(failure, now, out),
            (State::Opening, Input::Ended) => self.watch_failed(RequestFailure::EndedAtOnce, now, out),
            (State::Sleeping(next), Input::Fired) => self.fired(next, now, out),
            _ => {}
        }
    }

    fn fired<B>(&mut self, next: Next, now: Millis, out: &mut Vec<Output<B>>) {
        match next {
            Next::List(rewound) => self.list(rewound, now, out),
            Next::Page { continue_token, first, undecodable, rewound } => {
                self.page(continue_token, first, undecodable, rewound, out);
            }
            Next::Resume => self.resume(out),
        }
    }

    /// A new list from the first page.
    fn list<B>(&mut self, rewound: bool, _now: Millis, out: &mut Vec<Output<B>>) {
        self.epoch = self.epoch.saturating_add(1);
        if !matches!(self.health, Health::Failing { .. }) {
            self.set_health(Health::Listing, out);
        }
        out.push(Output::Observation(Observation::ListStarted { epoch: self.epoch }));
        self.page(None, None, 0, rewound, out);
    }

    fn page<B>(
        &mut self,
        continue_token: Option<String>,
        first: Option<ResourceVersion>,
        undecodable: u32,
        rewound: bool,
        out: &mut Vec<Output<B>>,
    ) {
        self.page.clone_from(&continue_token);
        self.state = State::Listing { first, undecodable, rewound };
        out.push(Output::Command(Command::List { limit: PAGE_LIMIT, continue_token }));
    }

    /// Reports a page's objects; answers how many could not be keyed.
    fn items<B: AsRef<[u8]>>(&self, items: Vec<B>, out: &mut Vec<Output<B>>) -> u32 {
        let mut undecodable = 0_u32;
        out.reserve(items.len());
        for body in items {
            match version_of(body.as_ref(), true) {
                Ok(resource_version) => out.push(Output::Observation(Observation::Applied {
                    body,
                    resource_version,
                    listed: true,
                })),
                Err(why) => {
                    undecodable = undecodable.saturating_add(1);
                    out.push(Output::Observation(Observation::Undecodable { listed: true, why }));
                }
            }
        }
        undecodable
    }

    fn page_done<B>(
        &mut self,
        continue_token: Option<String>,
        first: ResourceVersion,
        undecodable: u32,
        mut rewound: bool,
        now: Millis,
        out: &mut Vec<Output<B>>,
    ) {
        self.backoff.reset();
        // Each page is checked, but the version of the first counts: it is what the list shows.
        if let Some(token) = continue_token.filter(|token| !token.is_empty()) {
            self.set_health(Health::Listing, out);
            return self.page(Some(token), Some(first), undecodable, rewound, out);
        }
        if let Some(checkpoint) = self.checkpoint.clone().filter(|seen| !rewound && is_older(&first, seen)) {
            rewound = true;
            out.push(Output::Observation(Observation::RewindSuspected { checkpoint, server: first.clone() }));
        }
        let absence = match (rewound, undecodable) {
            (true, _) => Absence::Rewound,
            (false, 0) => Absence::Conclusive,
            (false, n) => Absence::Undecodable(n),
        };
        self.checkpoint = Some(first.clone());
        self.watch_failures = 0;
        out.push(Output::Observation(Observation::ListCompleted {
            epoch: self.epoch,
            resource_version: first.clone(),
            absence,
        }));
        if first.is_empty() {
            // A server without resourceVersions cannot be watched; list again, slowly.
            return self.fail(RequestFailure::Undecodable, Next::List(false), now, out);
        }
        self.watch(first, out);
    }

    fn list_failed<B>(
        &mut self,
        failure: RequestFailure,
        first: Option<ResourceVersion>,
        undecodable: u32,
        rewound: bool,
        now: Millis,
        out: &mut Vec<Output<B>>,
    ) {
        let continue_token = self.page.clone();
        let next = match (&failure, &continue_token) {
            // The token expired, or the server does not know it: from the first page.
            (RequestFailure::Expired | RequestFailure::Rejected | RequestFailure::FutureVersion, Some(_)) => {
                Next::List(rewound)
            }
            (_, Some(_)) => Next::Page { continue_token, first, undecodable, rewound },
            (_, None) => Next::List(rewound),
        };
        self.fail(failure, next, now, out);
    }

    /// Probe first, then watch from the checkpoint.
    fn resume<B>(&mut self, out: &mut Vec<Output<B>>) {
        self.state = State::Probing;
        out.push(Output::Command(Command::Probe));
    }

    fn probed<B>(&mut self, server: &ResourceVersion, now: Millis, out: &mut Vec<Output<B>>) {
        match self.checkpoint.clone() {
            None => self.list(false, now, out),
            Some(checkpoint) if is_older(server, &checkpoint) => self.rewound(server.clone(), now, out),
            Some(checkpoint) => self.watch(checkpoint, out),
        }
    }

    fn rewound<B>(&mut self, server: ResourceVersion, now: Millis, out: &mut Vec<Output<B>>) {
        if let Some(checkpoint) = self.checkpoint.clone() {
            out.push(Output::Observation(Observation::RewindSuspected { checkpoint, server }));
        }
        self.list(true, now, out);
    }

    fn watch<B>(&mut self, from: ResourceVersion, out: &mut Vec<Output<B>>) {
        self.state = State::Opening;
        let timeout_s = self.backoff.between(WATCH_TIMEOUT_MIN_S, WATCH_TIMEOUT_MAX_S);
        let cut_off_ms = u64::from(timeout_s).saturating_mul(1_000).saturating_add(CUT_OFF_GRACE_MS);
        out.push(Output::Command(Command::Watch { from, timeout_s, cut_off_ms }));
    }

    fn event<B: AsRef<[u8]>>(
        &mut self,
        event: Event<B>,
        opened: Millis,
        now: Millis,
        out: &mut Vec<Output<B>>,
    ) {
        let read = match &event {
            Event::Applied(body) | Event::Deleted(body) => version_of(body.as_ref(), true),
            Event::Bookmark(body) => version_of(body.as_ref(), false),
            Event::Error(failure) => return self.watch_failed(failure.clone(), now, out),
            Event::Undecodable { why } => Err(why.clone()),
        };
        // Anything at all from the server shows that the watch works.
        self.state = State::Watching { opened, events: true };
        self.watch_failures = 0;
        self.backoff.reset();
        let resource_version = match read {
            Ok(version) => version,
            Err(why) => {
                out.push(Output::Observation(Observation::Undecodable { listed: false, why }));
                return;
            }
        };
        if !resource_version.is_empty() {
            self.checkpoint = Some(resource_version.clone());
        }
        let observation = match event {
            Event::Applied(body) => Observation::Applied { body, resource_version, listed: false },
            Event::Deleted(body) => Observation::Deleted { body, resource_version },
            _ => Observation::Bookmark(resource_version),
        };
        out.push(Output::Observation(observation));
    }

    /// Probe, open or stream failed.
    fn watch_failed<B>(&mut self, failure: RequestFailure, now: Millis, out: &mut Vec<Output<B>>) {
        match failure {
            RequestFailure::Expired => {
                // At once the first time; a server that keeps saying so is given time.
                self.watch_failures = self.watch_failures.saturating_add(1);
                if self.watch_failures > 1 {
                    return self.fail(failure, Next::List(false), now, out);
                }
                self.list(false, now, out);
            }
            RequestFailure::FutureVersion => self.rewound(ResourceVersion::default(), now, out),
            other => {
                if other.counts_against_checkpoint() {
                    self.watch_failures = self.watch_failures.saturating_add(1);
                }
                let next = if self.watch_failures >= WATCH_FAILURES_BEFORE_RELIST {
                    self.watch_failures = 0;
                    Next::List(false)
                } else {
                    Next::Resume
                };
                self.fail(other, next, now, out);
            }
        }
    }

    fn fail<B>(&mut self, reason: RequestFailure, next: Next, now: Millis, out: &mut Vec<Output<B>>) {
        let since = match &self.health {
            Health::Failing { since, .. } => *since,
            _ => now,
        };
        let ms = self.backoff.next_ms(reason.retry_after_ms());
        self.set_health(Health::Failing { reason, since }, out);
        self.state = State::Sleeping(next);
        out.push(Output::Command(Command::Sleep { ms }));
    }

    fn set_health<B>(&mut self, health: Health, out: &mut Vec<Output<B>>) {
        if self.health != health {
            self.health = health.clone();
            out.push(Output::Observation(Observation::StateChanged(health)));
        }
    }
}

/// Is `server` older than `seen`? Only where both are numbers.
fn is_older(server: &ResourceVersion, seen: &ResourceVersion) -> bool {
    match (server.ordinal(), seen.ordinal()) {
        (Some(server), Some(seen)) => server < seen,
        _ => false,
    }
}

/// `metadata.resourceVersion`, borrowed; with `named`, an object without a name is refused.
fn version_of(body: &[u8], named: bool) -> Result<ResourceVersion, String> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        metadata: Metadata<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata<'a> {
        #[serde(borrow, default)]
        name: Cow<'a, str>,
        #[serde(borrow, default)]
        resource_version: Cow<'a, str>,
    }
    let object: Object<'_> =
        serde_json::from_slice(body).map_err(|error| crate::object::ObjectError::from(error).to_string())?;
    if named && object.metadata.name.is_empty() {
        return Err(crate::object::ObjectError::Nameless.to_string());
    }
    Ok(ResourceVersion::new(&object.metadata.resource_version))
}

#[cfg(test)]
mod tests;
