//! Full lists: in pages, and what completes any list.

use super::body::version_of;
use super::{Absence, Command, Health, Machine, Next, Observation, Output, RequestFailure, State};
use super::{
    PAGE_BYTES_WANTED, PAGE_GROWTH, PAGE_LIMIT, PAGE_LIMIT_DIVISOR, PAGE_START, SLOW_PAGE_LIMIT, is_older,
};
use crate::Millis;
use crate::guard::{self, Guard};
use crate::identity::ResourceVersion;

/// A list under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// Was the server found rewound? Then nothing is concluded from absence.
    pub(super) rewound: bool,
    /// Objects that could not be keyed.
    pub(super) undecodable: u32,
    /// Version of the first page: what the list shows.
    first: Option<ResourceVersion>,
    /// The page asked for; nothing: the first.
    token: Option<String>,
    /// Has this page failed before?
    again: bool,
}

impl<B: AsRef<[u8]>> Machine<B> {
    /// A new list from the start. `again`: the last one failed before it gave anything.
    pub(super) fn list(&mut self, rewound: bool, again: bool, out: &mut Vec<Output<B>>) {
        self.epoch = self.epoch.saturating_add(1);
        if !matches!(self.health, Health::Failing { .. }) {
            self.set_health(Health::Listing, out);
        }
        out.push(Output::Observation(Observation::ListStarted { epoch: self.epoch }));
        let listing = Listing { rewound, again, ..Listing::default() };
        if self.streaming { self.stream(listing, out) } else { self.page(listing, out) }
    }

    pub(super) fn page(&mut self, listing: Listing, out: &mut Vec<Output<B>>) {
        let continue_token = listing.token.clone();
        self.state = State::Listing(listing);
        out.push(Output::Command(Command::List { limit: self.limit, continue_token }));
    }

    pub(super) fn paged(
        &mut self,
        mut listing: Listing,
        items: Vec<B>,
        continue_token: Option<String>,
        version: ResourceVersion,
        now: Millis,
        out: &mut Vec<Output<B>>,
    ) {
        if listing.again && !self.watch_fails {
            self.cured();
        }
        self.check(&mut listing, &version, out);
        if listing.first.as_ref().is_some_and(|first| is_older(&version, first)) {
            // The pages before it are of another history, and so may be objects on them.
            return self.relist(RequestFailure::FutureVersion, true, now, out);
        }
        if !listing.rewound {
            self.show(&version);
        }
        let first = listing.first.get_or_insert(version).clone();
        self.limit = next_limit(self.limit, &items);
        out.reserve(items.len());
        for body in items {
            let unkeyed = u32::from(listed(body, out).is_none());
            listing.undecodable = listing.undecodable.saturating_add(unkeyed);
        }
        if let Some(token) = continue_token.filter(|token| !token.is_empty()) {
            self.set_health(Health::Listing, out);
            return self.page(Listing { token: Some(token), again: false, ..listing }, out);
        }
        self.completed(&listing, first.clone(), out);
        if first.is_empty() {
            // A server without resourceVersions cannot be watched; list again, slower and slower.
            self.watch_fails = true;
            let ms = self.relists.next_ms(None);
            let next = Next::List { rewound: false, again: false };
            return self.pause(ms, RequestFailure::Undecodable, next, now, out);
        }
        self.watch(first, out);
    }

    pub(super) fn page_failed(
        &mut self,
        listing: Listing,
        failure: RequestFailure,
        now: Millis,
        out: &mut Vec<Output<B>>,
    ) {
        let Listing { rewound, .. } = listing;
        let smaller = self.limit / PAGE_LIMIT_DIVISOR;
        match failure {
            RequestFailure::TooLong => self.limit = smaller.max(1),
            RequestFailure::Timeout => self.limit = smaller.max(SLOW_PAGE_LIMIT).min(self.limit),
            _ => {}
        }
        let next = match (&failure, &listing.token) {
            // The token expired, or the server does not know it: from the first page.
            (RequestFailure::Expired | RequestFailure::Rejected, Some(_)) => {
                Next::List { rewound, again: false }
            }
            // The token names a version that the server no longer knows.
            (RequestFailure::FutureVersion, Some(_)) => {
                if !rewound {
                    self.suspect(ResourceVersion::default(), out);
                }
                Next::List { rewound: true, again: false }
            }
            (_, Some(_)) => Next::Page(Listing { again: true, ..listing }),
            (_, None) => Next::List { rewound, again: true },
        };
        self.fail(failure, next, now, out);
    }

    /// The server shows `version`: older than what was reported, it was rewound.
    pub(super) fn check(
        &mut self,
        listing: &mut Listing,
        version: &ResourceVersion,
        out: &mut Vec<Output<B>>,
    ) {
        if guard::on(Guard::RewindByList)
            && !listing.rewound
            && self.newest().is_some_and(|seen| is_older(version, seen))
        {
            listing.rewound = true;
            self.suspect(version.clone(), out);
        }
    }

    /// Tells of a rewind.
    pub(super) fn suspect(&self, server: ResourceVersion, out: &mut Vec<Output<B>>) {
        let checkpoint = self.newest().cloned().unwrap_or_default();
        out.push(Output::Observation(Observation::RewindSuspected { checkpoint, server }));
    }

    /// The newest version of which anything was reported.
    fn newest(&self) -> Option<&ResourceVersion> {
        match (&self.checkpoint, &self.shown) {
            (Some(checkpoint), Some(shown)) if is_older(checkpoint, shown) => Some(shown),
            (Some(checkpoint), _) => Some(checkpoint),
            (None, shown) => shown.as_ref(),
        }
    }

    /// A list under way shows this version.
    pub(super) fn show(&mut self, version: &ResourceVersion) {
        if self.shown.as_ref().is_none_or(|shown| is_older(shown, version)) {
            self.shown = Some(version.clone());
        }
    }

    /// All objects were reported, as of `version`.
    pub(super) fn completed(
        &mut self,
        listing: &Listing,
        version: ResourceVersion,
        out: &mut Vec<Output<B>>,
    ) {
        if !self.watch_fails {
            self.cured();
        }
        let absence = match (listing.rewound, listing.undecodable) {
            (true, _) => Absence::Rewound,
            (false, 0) => Absence::Conclusive,
            (false, n) if guard::on(Guard::UnkeyedItems) => Absence::Undecodable(n),
            (false, _) => Absence::Conclusive,
        };
        self.limit = PAGE_START;
        self.shown = None;
        self.checkpoint = Some(version.clone()).filter(|version| !version.is_empty());
        self.watch_failures = 0;
        out.push(Output::Observation(Observation::ListCompleted {
            epoch: self.epoch,
            resource_version: version,
            absence,
        }));
    }
}

/// Objects of the next page, by the bytes of this one (I14): whoever may create large objects must not decide how much
/// memory a list takes.
fn next_limit<B: AsRef<[u8]>>(limit: u32, items: &[B]) -> u32 {
    let bytes: usize = items.iter().map(|item| item.as_ref().len()).sum();
    let Some(mean) = bytes.checked_div(items.len()) else { return limit };
    let fitting = u32::try_from(PAGE_BYTES_WANTED / mean.max(1)).unwrap_or(u32::MAX);
    fitting.min(limit.saturating_mul(PAGE_GROWTH)).clamp(1, PAGE_LIMIT)
}

/// Reports an object of a list; answers its version, nothing where it could not be keyed.
pub(super) fn listed<B: AsRef<[u8]>>(body: B, out: &mut Vec<Output<B>>) -> Option<ResourceVersion> {
    match version_of(body.as_ref()) {
        Ok(resource_version) => {
            let version = resource_version.clone();
            out.push(Output::Observation(Observation::Applied { body, resource_version, listed: true }));
            Some(version)
        }
        Err(why) => {
            out.push(Output::Observation(Observation::Undecodable { listed: true, why }));
            None
        }
    }
}
