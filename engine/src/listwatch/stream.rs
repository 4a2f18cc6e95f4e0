//! Streamed lists: a watch that begins with every object, says with a bookmark that these were all,
//! and goes on as the watch. Cheaper than pages for an API server, which keeps no list in memory.
//!
//! Real servers stream from Kubernetes 1.32 on; before that, nothing here runs against one.
//!
//! Not everything that answers a watch knows them: aggregated API servers may take the parameters,
//! send the objects and never the bookmark. Lists that break again and again therefore come in pages.

use super::State;
use super::body::{bookmark_of, version_of};
use super::follow::Watching;
use super::list::{Listing, listed};
use super::{Command, Event, Health, Machine, Next, Observation, Output, RequestFailure, STREAM_ATTEMPTS};
use crate::Millis;
use crate::identity::ResourceVersion;

/// Deletes held at most: a list takes seconds, so this is a storm.
const HELD_DELETES: usize = 1_000;
/// Bytes of held deletes at most, by their bodies.
const HELD_BYTES: usize = 8 << 20;

/// DELETED events from before the end of a streamed list. A delete that is reported moves the
/// checkpoint, and that must not happen before the list is complete (I2): they wait for its end.
#[derive(Debug)]
pub(super) struct Held<B> {
    deletes: Vec<(B, ResourceVersion)>,
    bytes: usize,
}

impl<B> Default for Held<B> {
    fn default() -> Self {
        Self { deletes: Vec::new(), bytes: 0 }
    }
}

impl<B: AsRef<[u8]>> Held<B> {
    /// False when it is full.
    fn push(&mut self, body: B, version: ResourceVersion) -> bool {
        self.bytes = self.bytes.saturating_add(body.as_ref().len());
        self.deletes.push((body, version));
        self.deletes.len() <= HELD_DELETES && self.bytes <= HELD_BYTES
    }
}

impl<B: AsRef<[u8]>> Machine<B> {
    pub(super) fn stream(&mut self, listing: Listing, out: &mut Vec<Output<B>>) {
        self.held = Held::default();
        self.state = State::Streaming(listing);
        let (timeout_s, cut_off_ms) = self.watch_times();
        out.push(Output::Command(Command::Stream { timeout_s, cut_off_ms, idle_ms: self.idle_ms }));
    }

    /// An event before the end of the list.
    pub(super) fn streamed(
        &mut self,
        mut listing: Listing,
        event: Event<B>,
        now: Millis,
        out: &mut Vec<Output<B>>,
    ) {
        let keyed = match event {
            // ADDED and MODIFIED alike: the newest state that came before the end is what is listed.
            Event::Applied(body) => listed(body, out),
            Event::Deleted(body) => match version_of(body.as_ref()) {
                Ok(version) => {
                    if !self.held.push(body, version.clone()) {
                        return self.stream_failed(&listing, RequestFailure::Incomplete, now, out);
                    }
                    Some(version)
                }
                Err(why) => undecodable(why, out),
            },
            Event::Bookmark(body) => match bookmark_of(body.as_ref()) {
                Ok(bookmark) if bookmark.ends_list && !bookmark.version.is_empty() => {
                    return self.streamed_all(listing, bookmark.version, now, out);
                }
                // A server that does not know what was asked of it: this is a plain watch.
                Ok(_) => return self.stream_failed(&listing, RequestFailure::Rejected, now, out),
                Err(why) => undecodable(why, out),
            },
            Event::Error(failure) => return self.stream_failed(&listing, failure, now, out),
            Event::Undecodable { why } => undecodable(why, out),
        };
        match keyed {
            Some(version) if !listing.rewound => self.show(&version),
            Some(_) => {}
            None => listing.undecodable = listing.undecodable.saturating_add(1),
        }
        self.set_health(Health::Listing, out);
        self.state = State::Streaming(listing);
    }

    /// The bookmark that ends the list: what follows is the watch.
    fn streamed_all(
        &mut self,
        mut listing: Listing,
        version: ResourceVersion,
        now: Millis,
        out: &mut Vec<Output<B>>,
    ) {
        // Its objects are not newer than itself; the list before, or the checkpoint, may be.
        self.check(&mut listing, &version, out);
        self.streams_broken = 0;
        self.completed(&listing, version.clone(), out);
        let held = std::mem::take(&mut self.held).deletes;
        let any = !held.is_empty();
        for (body, resource_version) in held {
            out.push(Output::Observation(Observation::Deleted { body, resource_version }));
        }
        if any {
            // The deletes are older than the list's end: whoever follows versions is set right.
            out.push(Output::Observation(Observation::Bookmark(version)));
        }
        self.state = State::Watching(Watching::after_list(now));
        self.set_health(Health::Live, out);
    }

    /// Nothing may be concluded from half a list: once more from the start.
    pub(super) fn stream_failed(
        &mut self,
        listing: &Listing,
        failure: RequestFailure,
        now: Millis,
        out: &mut Vec<Output<B>>,
    ) {
        self.held = Held::default();
        if failure == RequestFailure::Rejected {
            self.streaming = false;
            return self.list(listing.rewound, false, out);
        }
        if failure.counts_against_streaming() {
            self.streams_broken = self.streams_broken.saturating_add(1);
            self.streaming = self.streams_broken < STREAM_ATTEMPTS;
        }
        let next = Next::List { rewound: listing.rewound, again: false };
        self.fail(failure, next, now, out);
    }
}

fn undecodable<B>(why: String, out: &mut Vec<Output<B>>) -> Option<ResourceVersion> {
    out.push(Output::Observation(Observation::Undecodable { listed: true, why }));
    None
}
