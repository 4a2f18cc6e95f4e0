//! What goes into the loop and what comes out of it.

use super::RequestFailure;
use crate::Millis;
use crate::identity::ResourceVersion;

/// What a loop is given once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The number of the last list made before.
    pub epoch: u64,
    /// Of the jitter; differ it per watch.
    pub seed: u64,
    /// May lists be streamed? See [`super::streams_lists`].
    pub streaming: bool,
    /// A watch that hears nothing for this long is renewed: [`super::WATCH_IDLE_MS`].
    pub idle_ms: u64,
}

/// Where a loop begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Nothing is known: list everything.
    Nothing,
    /// The server was restored to an older state: list everything, conclude nothing from absence.
    Rewound,
    /// Resume from a committed resourceVersion.
    Checkpoint(ResourceVersion),
}

/// What the shell is to do next. Exactly one is outstanding at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// LIST one page. Answer with [`Input::Page`] or [`Input::Failed`].
    List {
        /// Objects at most.
        limit: u32,
        /// From the previous page.
        continue_token: Option<String>,
    },
    /// Consistent LIST with limit=1, for its resourceVersion only. Answer with [`Input::Probed`] or
    /// [`Input::Failed`].
    Probe {
        /// How long the server may take.
        timeout_ms: u64,
    },
    /// A streamed list: WATCH from the empty version with `sendInitialEvents=true`,
    /// `resourceVersionMatch=NotOlderThan` and bookmarks. Answered like [`Self::Watch`]; the same
    /// stream goes on as the watch.
    Stream {
        /// `timeoutSeconds` of the request.
        timeout_s: u32,
        /// The shell cuts the stream off after this long: [`Input::Ended`].
        cut_off_ms: u64,
        /// The shell ends the stream when nothing at all came for this long: [`Input::Stale`].
        idle_ms: u64,
    },
    /// WATCH with bookmarks. Answer with [`Input::Opened`], then events, then [`Input::Ended`] or
    /// [`Input::Stale`]; or with [`Input::Failed`].
    Watch {
        /// Events after this version.
        from: ResourceVersion,
        /// `timeoutSeconds` of the request.
        timeout_s: u32,
        /// The shell cuts the stream off after this long: [`Input::Ended`].
        cut_off_ms: u64,
        /// The shell ends the stream when nothing at all came for this long: [`Input::Stale`].
        idle_ms: u64,
    },
    /// Wait, then answer with [`Input::Fired`].
    Sleep {
        /// Milliseconds.
        ms: u64,
    },
}

/// What a watch line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<B> {
    /// ADDED or MODIFIED.
    Applied(B),
    /// DELETED: the object as it last was, with the resourceVersion of the delete.
    Deleted(B),
    /// BOOKMARK.
    Bookmark(B),
    /// ERROR, or a bare Status in the stream.
    Error(RequestFailure),
    /// A line that is no event.
    Undecodable {
        /// What is wrong with it; never a value.
        why: String,
    },
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<B> {
    /// One page of a list.
    Page {
        /// The objects.
        items: Vec<B>,
        /// Set when there are more pages.
        continue_token: Option<String>,
        /// `metadata.resourceVersion` of the list.
        resource_version: ResourceVersion,
    },
    /// The probe's list was answered.
    Probed {
        /// `metadata.resourceVersion` of the list.
        resource_version: ResourceVersion,
    },
    /// The server accepted the watch.
    Opened,
    /// A line of the watch.
    Event(Event<B>),
    /// The watch is over: by the server, by a broken connection, or by our cut-off.
    Ended,
    /// Nothing came for as long as the command allowed, and the shell ended the watch.
    Stale,
    /// A request failed, or a page could not be read.
    Failed(RequestFailure),
    /// The sleep is over.
    Fired,
}

/// May something be concluded from a key's absence from a completed list?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Yes, as far as this list can tell.
    Conclusive,
    /// No: the server's state is older than what we have seen.
    Rewound,
    /// No: this many items could not be keyed.
    Undecodable(u32),
}

/// Whether the loop is up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Not started, or between the start and the first answer.
    Starting,
    /// A list is under way.
    Listing,
    /// The watch is open.
    Live,
    /// Requests fail; retried for ever.
    Failing {
        /// The latest failure.
        reason: RequestFailure,
        /// When it began to fail; of a watch that went silent, when it was last heard of. Requests
        /// that succeed in between do not move it, unless what failed was among them.
        since: Millis,
    },
}

/// What was learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation<B> {
    /// An object as it is now.
    Applied {
        /// The object as the server sent it.
        body: B,
        /// Its `metadata.resourceVersion`.
        resource_version: ResourceVersion,
        /// Does it come from a list (rather than a watch)?
        listed: bool,
    },
    /// An object is gone.
    Deleted {
        /// The object as it last was.
        body: B,
        /// The resourceVersion of the delete.
        resource_version: ResourceVersion,
    },
    /// Everything up to this version has been reported.
    Bookmark(ResourceVersion),
    /// A full list began; what an earlier, unfinished one said about absence is void.
    ListStarted {
        /// Grows by one with every list.
        epoch: u64,
    },
    /// A full list is complete: all its objects were reported before this.
    ListCompleted {
        /// As in `ListStarted`.
        epoch: u64,
        /// The version that the list shows.
        resource_version: ResourceVersion,
        /// May absence mean a delete?
        absence: Absence,
    },
    /// Something could not be keyed; the loop goes on.
    Undecodable {
        /// In a list (else in the watch)?
        listed: bool,
        /// Positions and categories, never values.
        why: String,
    },
    /// The server is behind our checkpoint: restored from a backup, most likely. A list with
    /// [`Absence::Rewound`] follows.
    RewindSuspected {
        /// What we had seen.
        checkpoint: ResourceVersion,
        /// What the server says; empty where it only refused.
        server: ResourceVersion,
    },
    /// The loop's health changed.
    StateChanged(Health),
}

/// An item of [`Machine::step`]'s answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<B> {
    /// To be done.
    Command(Command),
    /// To be handed on.
    Observation(Observation<B>),
}
