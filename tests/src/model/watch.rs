//! Watches: from a version, with bookmarks, until a timeout; and lists that are streamed.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::http::{Polled, Response, Target, WatchId};
use super::kinds::Kind;
use super::list::{revision_of, selection};
use super::selector::Selection;
use super::server::{ApiServer, Call, Millis};
use super::status::{About, ApiError, Wrong};
use super::store::{Change, Event};

/// A watch that names no timeout; real servers take half an hour to an hour.
const TIMEOUT_S: i64 = 1_800;
/// The last bookmark comes this long before the timeout, ms.
const LAST_BOOKMARK_MS: Millis = 2_000;
/// The first version that knows `sendInitialEvents`, on or off.
const KNOWS_STREAMING: (u32, u32) = (1, 27);

/// An open watch.
#[derive(Debug)]
pub(crate) struct Watch {
    kind: Arc<Kind>,
    pub(crate) target: Target,
    pub(crate) user: String,
    selection: Selection,
    /// Only what is newer is sent, bookmarks too. May lie in the future.
    since: u64,
    /// Up to here events were taken.
    taken: u64,
    /// Lines to send.
    pending: Vec<Bytes>,
    deadline: Millis,
    bookmarks: bool,
    next_bookmark: Millis,
    ended: bool,
}

fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut out = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}

impl ApiServer {
    pub(crate) fn open(&mut self, call: &Call<'_>) -> Result<Response, ApiError> {
        let parameters = &call.parameters;
        let streamed = self.streamed(call)?;
        let timeout_s = match parameters.get("timeoutSeconds") {
            "" => TIMEOUT_S,
            text => {
                text.parse().map_err(|_| ApiError::bad_request(format!("invalid timeoutSeconds: {text}")))?
            }
        };
        let asked = revision_of(parameters.get("resourceVersion"))?;
        let deadline = call.now.saturating_add(timeout_s.max(1).saturating_mul(1_000));
        let current = self.store.revision();
        let mut watch = Watch {
            kind: Arc::clone(&call.kind),
            target: call.target.clone(),
            user: call.request.user.clone(),
            selection: selection(parameters)?,
            since: asked,
            taken: asked,
            pending: Vec::new(),
            deadline,
            bookmarks: parameters.is_true("allowWatchBookmarks"),
            next_bookmark: self.bookmark_after(call.now, deadline),
            ended: false,
        };
        if streamed && asked > current {
            return Err(ApiError::version_too_large(asked, current));
        }
        if streamed || asked == 0 {
            self.begin(&mut watch, streamed);
        } else if let Some(oldest) = self.too_old(&call.kind, asked) {
            let error = ApiError::expired(format!("too old resource version: {asked} ({oldest})"));
            if self.config.gone_as_http {
                return Err(error);
            }
            watch.pending.push(line("ERROR", error.status().to_string().as_bytes()));
            watch.ended = true;
        }
        let id = self.next_id();
        self.watches.insert(id, watch);
        Ok(Response::Watch(WatchId(id)))
    }

    /// Is it a list that is to be streamed?
    fn streamed(&self, call: &Call<'_>) -> Result<bool, ApiError> {
        let parameters = &call.parameters;
        let initial = parameters.has("sendInitialEvents") && self.config.version >= KNOWS_STREAMING;
        let matches = parameters.get("resourceVersionMatch");
        let about = About { group: "meta.k8s.io", kind: "ListOptions", name: "" };
        let mut wrongs = Vec::new();
        if initial && !self.config.streaming_lists {
            let why = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
            wrongs.push(Wrong::forbidden("sendInitialEvents", why));
        } else if initial && matches != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            wrongs.push(Wrong::forbidden("resourceVersionMatch", why));
        } else if !initial && !matches.is_empty() {
            let why = "resourceVersionMatch is forbidden for watch";
            wrongs.push(Wrong::forbidden("resourceVersionMatch", why));
            if !parameters.has("resourceVersion") {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                wrongs.push(Wrong::forbidden("resourceVersionMatch", why));
            }
        }
        if !wrongs.is_empty() {
            return Err(ApiError::invalid(about, &wrongs));
        }
        Ok(initial && parameters.is_true("sendInitialEvents"))
    }

    /// Every object first, then what follows.
    fn begin(&self, watch: &mut Watch, streamed: bool) {
        let table = self.store.table(&watch.kind.table());
        for (key, object) in table.objects() {
            if watch.covers(&key.0) && watch.selection.matches(&object.value) {
                watch.pending.push(line("ADDED", &self.shown(&watch.kind, object)));
            }
        }
        watch.taken = self.store.revision();
        watch.since = watch.taken;
        if streamed {
            let mut object = bookmark(&watch.kind, watch.taken);
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            watch.pending.push(line("BOOKMARK", object.to_string().as_bytes()));
        }
    }

    /// The oldest version that the watch cache of a kind can serve, where that is newer than what is asked for.
    fn too_old(&self, kind: &Kind, asked: u64) -> Option<u64> {
        let table = self.store.table(&kind.table());
        let evicted = table.before_newest(self.config.watch_cache_events).unwrap_or(0);
        let oldest =
            self.cache_start.max(evicted).max(self.store.compacted().min(table.newest().unwrap_or(0)));
        (asked < oldest).then_some(oldest)
    }

    fn bookmark_after(&self, now: Millis, deadline: Millis) -> Millis {
        let periodic = now.saturating_add(self.config.bookmark_ms);
        let last = deadline.saturating_sub(LAST_BOOKMARK_MS);
        if last > now { periodic.min(last) } else { periodic }
    }

    /// What a watch has to say since it was last asked.
    pub fn poll(&mut self, id: WatchId, now: Millis) -> Polled {
        let Some(mut watch) = self.watches.remove(&id.0) else { return Polled::Ended(Vec::new()) };
        if self.is_silenced(now, &watch.user, &watch.target) {
            self.watches.insert(id.0, watch);
            return Polled::Lines(Vec::new());
        }
        if !watch.ended {
            self.take_events(&mut watch);
        }
        if watch.bookmarks && now >= watch.next_bookmark && !watch.ended {
            watch.next_bookmark = self.bookmark_after(now, watch.deadline);
            let revision = self.cached_revision(&watch.kind);
            if revision > watch.since {
                let object = bookmark(&watch.kind, revision);
                watch.pending.push(line("BOOKMARK", object.to_string().as_bytes()));
            }
        }
        let lines = std::mem::take(&mut watch.pending);
        if watch.ended || now >= watch.deadline {
            return Polled::Ended(lines);
        }
        self.watches.insert(id.0, watch);
        Polled::Lines(lines)
    }

    /// The client has gone.
    pub fn close(&mut self, id: WatchId) {
        self.watches.remove(&id.0);
    }

    /// How many watches are open.
    #[must_use]
    pub fn open_watches(&self) -> usize {
        self.watches.len()
    }

    fn take_events(&self, watch: &mut Watch) {
        let table = self.store.table(&watch.kind.table());
        for event in table.since(watch.taken) {
            if let Some((kind, object)) = watch.sees(event) {
                let mut json = self.shown(&watch.kind, object);
                if object.revision != event.revision {
                    json = with_revision(&json, event.revision);
                }
                watch.pending.push(line(kind, &json));
            }
        }
        watch.taken = watch.taken.max(self.store.revision());
    }

    /// Before history goes, every watch takes what is there for it.
    pub(crate) fn flush_watches(&mut self) {
        let mut watches = std::mem::take(&mut self.watches);
        for watch in watches.values_mut().filter(|watch| !watch.ended) {
            self.take_events(watch);
        }
        self.watches = watches;
    }

    /// The watches of a table end after what they have to say.
    pub(crate) fn end_table(&mut self, table: &str) {
        self.flush_watches();
        for watch in self.watches.values_mut().filter(|watch| watch.kind.table() == table) {
            watch.ended = true;
        }
    }
}

impl Watch {
    fn covers(&self, namespace: &str) -> bool {
        self.target.namespace.is_empty() || self.target.namespace == namespace
    }

    /// As what this watch sees an event, if it does. What leaves a selection is shown as it was.
    fn sees<'a>(&self, event: &'a Event) -> Option<(&'static str, &'a super::store::Stored)> {
        if !self.covers(&event.key.0) {
            return None;
        }
        let now = event.change != Change::Deleted && self.selection.matches(&event.object.value);
        let before = event.previous.as_ref().is_some_and(|previous| self.selection.matches(&previous.value));
        let kind = match (before, now) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        let left = kind == "DELETED" && event.change != Change::Deleted;
        let object = event.previous.as_ref().filter(|_| left).unwrap_or(&event.object);
        Some((kind, object))
    }
}

fn with_revision(json: &[u8], revision: u64) -> Bytes {
    let mut value: Value = serde_json::from_slice(json).unwrap_or_default();
    value["metadata"]["resourceVersion"] = revision.to_string().into();
    value.to_string().into()
}

fn bookmark(kind: &Kind, revision: u64) -> Value {
    let mut object = match kind.custom {
        Some(_) => json!({}),
        None => kind.zero.clone(),
    };
    object["kind"] = kind.kind.as_str().into();
    object["apiVersion"] = kind.api_version().into();
    object["metadata"]["creationTimestamp"] = Value::Null;
    object["metadata"]["resourceVersion"] = revision.to_string().into();
    object
}
