//! What follows a list: probe, watch, and what to do when they fail.

use super::body::{bookmark_of, version_of};
use super::{CALM_WATCH_MS, PROBE_TIMEOUT_MS, SHORT_WATCH_MS, WATCH_FAILURES_BEFORE_RELIST, WATCH_IDLE_MS};
use super::{Command, Event, Machine, Next, Observation, Output, RequestFailure, State, is_older};
use crate::Millis;
use crate::guard::{self, Guard};
use crate::identity::ResourceVersion;

/// An open watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watching {
    opened: Millis,
    /// When something was last heard.
    heard: Millis,
    /// Did an object come that moved the checkpoint?
    moved: bool,
    /// Did a bookmark come?
    bookmarked: bool,
}

impl Watching {
    pub(super) fn new(now: Millis) -> Self {
        Self { opened: now, heard: now, moved: false, bookmarked: false }
    }

    /// The end of a streamed list is no sign that bookmarks will follow.
    pub(super) fn after_list(now: Millis) -> Self {
        Self { moved: true, ..Self::new(now) }
    }
}

impl<B: AsRef<[u8]>> Machine<B> {
    /// Probe first, then watch from the checkpoint.
    pub(super) fn resume(&mut self, out: &mut Vec<Output<B>>) {
        self.state = State::Probing;
        // A server that may be silent for so long has as long to answer.
        let timeout_ms = self.idle_ms.min(PROBE_TIMEOUT_MS);
        out.push(Output::Command(Command::Probe { timeout_ms }));
    }

    pub(super) fn probed(&mut self, server: &ResourceVersion, now: Millis, out: &mut Vec<Output<B>>) {
        self.silent_since = None;
        match self.checkpoint.clone() {
            None => self.list(false, false, out),
            Some(checkpoint) if is_older(server, &checkpoint) && guard::on(Guard::RewindByProbe) => {
                self.rewound(server.clone(), now, out);
            }
            Some(checkpoint) => self.watch(checkpoint, out),
        }
    }

    pub(super) fn probe_failed(&mut self, failure: RequestFailure, now: Millis, out: &mut Vec<Output<B>>) {
        let Some(since) = self.silent_since.take() else { return self.watch_failed(failure, now, out) };
        self.failing_since.get_or_insert(since);
        if !matches!(failure, RequestFailure::Timeout | RequestFailure::Unreachable) {
            return self.watch_failed(failure, now, out);
        }
        // It was the server, not a want of bookmarks.
        self.unmarked_ms = 0;
        self.watch_failed(RequestFailure::Stale, now, out);
    }

    fn rewound(&mut self, server: ResourceVersion, now: Millis, out: &mut Vec<Output<B>>) {
        self.suspect(server, out);
        self.relist(RequestFailure::FutureVersion, true, now, out);
    }

    pub(super) fn watch(&mut self, from: ResourceVersion, out: &mut Vec<Output<B>>) {
        self.state = State::Opening;
        let (timeout_s, cut_off_ms) = self.watch_times();
        // Without bookmarks silence is no sign of anything.
        let idle_ms = if self.unmarked_ms < WATCH_IDLE_MS { self.idle_ms } else { cut_off_ms };
        out.push(Output::Command(Command::Watch { from, timeout_s, cut_off_ms, idle_ms }));
    }

    pub(super) fn event(
        &mut self,
        mut watching: Watching,
        event: Event<B>,
        now: Millis,
        out: &mut Vec<Output<B>>,
    ) {
        watching.heard = now;
        let read = match &event {
            Event::Applied(body) | Event::Deleted(body) => version_of(body.as_ref()),
            Event::Bookmark(body) => bookmark_of(body.as_ref()).map(|bookmark| bookmark.version),
            Event::Error(failure) => {
                self.left(watching, now);
                return self.watch_failed(failure.clone(), now, out);
            }
            Event::Undecodable { why } => Err(why.clone()),
        };
        let resource_version = match read {
            Ok(version) => version,
            Err(why) => {
                self.state = State::Watching(watching);
                out.push(Output::Observation(Observation::Undecodable { listed: false, why }));
                return;
            }
        };
        watching.bookmarked |= matches!(event, Event::Bookmark(_));
        if !resource_version.is_empty() && self.checkpoint.as_ref() != Some(&resource_version) {
            watching.moved |= !matches!(event, Event::Bookmark(_));
            self.checkpoint = Some(resource_version.clone());
        }
        if watching.moved || now.saturating_sub(watching.opened) >= SHORT_WATCH_MS {
            self.works();
        }
        self.state = State::Watching(watching);
        let observation = match event {
            Event::Applied(body) => Observation::Applied { body, resource_version, listed: false },
            Event::Deleted(body) => Observation::Deleted { body, resource_version },
            _ => Observation::Bookmark(resource_version),
        };
        out.push(Output::Observation(observation));
    }

    pub(super) fn ended(&mut self, watching: Watching, now: Millis, out: &mut Vec<Output<B>>) {
        if self.left(watching, now) {
            self.resume(out);
        } else {
            self.watch_failed(RequestFailure::EndedAtOnce, now, out);
        }
    }

    /// Nothing came for too long. The probe tells whether the server is there; only if it is not,
    /// this was a failure.
    pub(super) fn stale(&mut self, watching: Watching, now: Millis, out: &mut Vec<Output<B>>) {
        self.left(watching, now);
        self.silent_since = Some(watching.heard);
        self.resume(out);
    }

    /// The watch is over, whatever ended it. Did it work?
    pub(super) fn left(&mut self, watching: Watching, now: Millis) -> bool {
        let Watching { opened, heard: _, moved, bookmarked } = watching;
        let lasted = now.saturating_sub(opened);
        let lasted_ms = u64::try_from(lasted).unwrap_or(0);
        self.unmarked_ms = if bookmarked { 0 } else { self.unmarked_ms.saturating_add(lasted_ms) };
        if lasted >= CALM_WATCH_MS {
            self.relists.reset();
        }
        let worked = moved || lasted >= SHORT_WATCH_MS;
        if worked {
            self.works();
        }
        worked
    }

    fn works(&mut self) {
        self.watch_failures = 0;
        self.cured();
    }

    /// Probe, open or stream failed.
    pub(super) fn watch_failed(&mut self, failure: RequestFailure, now: Millis, out: &mut Vec<Output<B>>) {
        match failure {
            RequestFailure::Expired => return self.relist(failure, false, now, out),
            RequestFailure::FutureVersion => return self.rewound(ResourceVersion::default(), now, out),
            _ => {}
        }
        if failure.counts_against_checkpoint() {
            self.watch_failures = self.watch_failures.saturating_add(1);
        }
        let next = if self.watch_failures >= WATCH_FAILURES_BEFORE_RELIST {
            self.watch_failures = 0;
            Next::List { rewound: false, again: false }
        } else {
            Next::Resume
        };
        self.watch_fails = true;
        self.fail(failure, next, now, out);
    }
}
