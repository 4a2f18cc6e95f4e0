//! The server: its state, and the way of a request through it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::access::{Forbid, ForbidId};
use super::faults::{Effect, Fault, FaultId, refusal, verb_of};
use super::http::{Answer, Parameters, Reply, Request, Response, Route, Target, route};
use super::kinds::{BUILTIN, Kind, Kinds};
use super::status::{About, ApiError};
use super::store::{Change, Store};
use super::time::rfc3339;
use super::watch::Watch;

/// Milliseconds since the epoch.
pub type Millis = i64;

/// Largest body of a request.
const BODY_LIMIT: usize = 3 << 20;
/// The first revisions go to what the model has none of: a fresh cluster's counter stands about here.
const FIRST_REVISION: u64 = 200;

/// What kind of server it is.
#[derive(Debug, Clone)]
pub struct Config {
    /// Kubernetes' major and minor version.
    pub version: (u32, u32),
    /// Of uids, addresses and generated names.
    pub seed: u64,
    /// Events that the watch cache of a type holds at least; who asks for older ones is told 410.
    pub watch_cache_events: usize,
    /// Between bookmarks, ms.
    pub bookmark_ms: Millis,
    /// The history is compacted so often, ms, each time up to the last time; none: only by [`ApiServer::compact`].
    pub compaction_ms: Option<Millis>,
    /// Are lists streamed when asked for?
    pub streaming_lists: bool,
    /// Is discovery aggregated when asked for?
    pub aggregated_discovery: bool,
    /// Do bookmarks tell the newest revision of all types, rather than that of their own?
    pub progress_notify: bool,
    /// Is a watch from a version that is too old answered with HTTP 410, as aggregated API servers do, rather than with
    /// an ERROR event?
    pub gone_as_http: bool,
    /// The namespace controller lets so much pass before it empties a deleted namespace, ms.
    pub namespace_delay_ms: Millis,
    /// Do controllers add what every namespace has (a ServiceAccount, the CA's ConfigMap)?
    pub controllers: bool,
}

impl Config {
    /// A server of this version with its defaults.
    #[must_use]
    pub fn new(version: (u32, u32), seed: u64) -> Self {
        Self {
            version,
            seed,
            watch_cache_events: 100,
            bookmark_ms: 60_000,
            compaction_ms: Some(300_000),
            streaming_lists: version >= (1, 34),
            aggregated_discovery: version >= (1, 27),
            progress_notify: version >= (1, 21),
            gone_as_http: false,
            namespace_delay_ms: 5_000,
            controllers: true,
        }
    }
}

/// A copy of everything in etcd.
#[derive(Debug, Clone)]
pub struct Snapshot {
    store: Store,
    kinds: Kinds,
}

impl Snapshot {
    /// The revision at which it was taken.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.store.revision()
    }
}

/// One change in etcd, for who keeps a journal.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The revision that it made.
    pub revision: u64,
    /// Group and plural resource, as in `apps/deployments`, `/configmaps`.
    pub table: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// After the change; none: it was deleted.
    pub after: Option<Value>,
    /// uid of the object.
    pub uid: String,
}

/// How a snapshot is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restore {
    /// As it is: resourceVersions go back, and are given out again.
    Plain,
    /// At a revision beyond all that ever were, and compacted there (`--bump-revision --mark-compacted`).
    Bumped,
}

/// A model of an API server and its etcd.
#[derive(Debug)]
pub struct ApiServer {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) kinds: Kinds,
    /// The revision from which on the watch caches know.
    pub(crate) cache_start: u64,
    pub(crate) watches: BTreeMap<u64, Watch>,
    pub(crate) forbidden: BTreeMap<ForbidId, Forbid>,
    pub(crate) faults: BTreeMap<FaultId, Fault>,
    /// Groups whose aggregated API server is away.
    pub(crate) down: BTreeSet<String>,
    /// Never goes back, whatever is restored.
    counter: u64,
    /// The highest revision that ever was.
    highest: u64,
    /// The revision at which controllers had nothing to do, and until when that holds.
    pub(crate) idle: Option<(u64, Millis)>,
    /// When compactions were noted, and at which revision.
    compactions: VecDeque<(Millis, u64)>,
}

/// A request for a resource, on its way.
pub(crate) struct Call<'a> {
    pub(crate) now: Millis,
    pub(crate) request: &'a Request,
    pub(crate) parameters: Parameters,
    pub(crate) target: Target,
    pub(crate) kind: Arc<Kind>,
}

impl Call<'_> {
    pub(crate) fn about(&self) -> About<'_> {
        About { group: &self.target.group, kind: &self.target.plural, name: &self.target.name }
    }

    /// As errors about the object itself name it.
    pub(crate) fn about_kind(&self) -> About<'_> {
        About { group: &self.kind.group, kind: &self.kind.kind, name: &self.target.name }
    }

    pub(crate) fn key(&self) -> (String, String) {
        (self.target.namespace.clone(), self.target.name.clone())
    }

    pub(crate) fn dry_run(&self) -> bool {
        self.parameters.has("dryRun")
    }

    pub(crate) fn time(&self) -> String {
        rfc3339(self.now)
    }
}

impl ApiServer {
    /// A cluster with its four namespaces.
    #[must_use]
    pub fn new(now: Millis, config: Config) -> Self {
        let mut this = Self {
            config,
            store: Store::default(),
            kinds: Kinds::default(),
            cache_start: 0,
            watches: BTreeMap::new(),
            forbidden: BTreeMap::new(),
            faults: BTreeMap::new(),
            down: BTreeSet::new(),
            counter: 0,
            highest: 0,
            idle: None,
            compactions: VecDeque::new(),
        };
        this.store.advance(FIRST_REVISION);
        this.cache_start = FIRST_REVISION;
        this.populate(now);
        this
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The revision of etcd.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.store.revision()
    }

    /// Handles a request completely: its effect is there when this returns.
    pub fn handle(&mut self, now: Millis, request: &Request) -> Reply {
        let (verb, target) = verb_of(request);
        let effect = self.fault(now, verb, &request.user, &target);
        if let Some(refused) = effect.and_then(refusal) {
            let response = refused.unwrap_or_else(|error| Response::Full(refuse(&error)));
            return Reply { after_ms: 0, response };
        }
        let mut response = self.respond(now, request).unwrap_or_else(|error| Response::Full(refuse(&error)));
        self.highest = self.highest.max(self.store.revision());
        if effect == Some(Effect::DropAfter) {
            if let Response::Watch(id) = response {
                self.watches.remove(&id.0);
            }
            response = Response::Dropped;
        }
        let after_ms = if let Some(Effect::Delay(ms)) = effect { ms } else { 0 };
        Reply { after_ms, response }
    }

    fn respond(&mut self, now: Millis, request: &Request) -> Result<Response, ApiError> {
        self.authenticated(&request.user)?;
        let target = match route(&request.path) {
            Route::Resource(target) => target,
            other => return self.discover(request, &other).map(Response::Full),
        };
        if self.down.contains(&target.group) {
            return Err(ApiError::unavailable());
        }
        if request.body.len() > BODY_LIMIT {
            return Err(ApiError::too_large(format!("Request entity too large: limit is {BODY_LIMIT}")));
        }
        let (verb, _) = verb_of(request);
        let verb = if verb == "apply" { "patch" } else { verb };
        self.authorized(&request.user, verb, &target)?;
        let kind = self.kind_of(&target)?;
        let parameters = request.parameters();
        let call = Call { now, request, parameters, target, kind };
        self.dispatch(verb, &call)
    }

    fn kind_of(&self, target: &Target) -> Result<Arc<Kind>, ApiError> {
        let found = self.kinds.find(&target.group, &target.version, &target.plural);
        let kind = found.ok_or_else(|| {
            let built_in = BUILTIN.kinds().any(|kind| kind.group == target.group);
            if built_in { ApiError::unknown_resource() } else { ApiError::no_page() }
        })?;
        let misplaced = if kind.namespaced {
            target.namespace.is_empty() && !target.name.is_empty()
        } else {
            !target.namespace.is_empty()
        };
        let subresource = match target.subresource.as_str() {
            "" => true,
            "status" => kind.status,
            "finalize" => kind.is("", "Namespace"),
            _ => false,
        };
        if misplaced || !subresource {
            return Err(ApiError::unknown_resource());
        }
        Ok(kind)
    }

    fn dispatch(&mut self, verb: &str, call: &Call<'_>) -> Result<Response, ApiError> {
        let terminating = call.kind.terminating;
        if verb == "create" && terminating {
            return Err(ApiError::crd_terminating(call.about(), verb));
        }
        let named = !call.target.name.is_empty();
        let fits = match verb {
            "list" | "watch" | "deletecollection" => !named,
            "create" => !named && (!call.kind.namespaced || !call.target.namespace.is_empty()),
            _ => named,
        };
        // The others are answered although discovery does not name them any more.
        let can = call.kind.can(verb) || (terminating && matches!(verb, "patch" | "update"));
        if !fits || !can {
            return Err(ApiError::not_allowed());
        }
        let full = |answer: Answer| Ok(Response::Full(answer));
        match verb {
            "get" => full(self.get(call)?),
            "list" => full(self.list(call)?),
            "watch" => self.open(call),
            "create" => full(self.create(call)?),
            "update" => full(self.update(call)?),
            "patch" => full(self.patch(call)?),
            "delete" => full(self.delete(call)?),
            "deletecollection" => full(self.delete_all(call)?),
            _ => Err(ApiError::not_allowed()),
        }
    }

    fn get(&self, call: &Call<'_>) -> Result<Answer, ApiError> {
        if let Ok(asked) = call.parameters.get("resourceVersion").parse::<u64>() {
            let current = self.cached_revision(&call.kind);
            if asked > self.store.revision() {
                return Err(ApiError::version_too_large(asked, current));
            }
        }
        let found = self.store.table(&call.kind.table()).get(&call.key());
        let found = found.ok_or_else(|| ApiError::not_found(call.about()))?;
        Ok(json_answer(200, self.shown(&call.kind, found)))
    }

    /// The revision that the watch cache of a kind has reached.
    pub(crate) fn cached_revision(&self, kind: &Kind) -> u64 {
        if self.config.progress_notify {
            return self.store.revision();
        }
        self.store.table(&kind.table()).newest().unwrap_or(0).max(self.cache_start)
    }

    /// An object as this kind's version shows it.
    pub(crate) fn shown(&self, kind: &Kind, object: &super::store::Stored) -> Bytes {
        let api_version = kind.api_version();
        match &kind.custom {
            // Another version has another schema.
            Some(schema) if object.value["apiVersion"] != api_version.as_str() => {
                let mut value = object.value.clone();
                value["apiVersion"] = api_version.into();
                super::crd::complete(schema, &mut value);
                value.to_string().into()
            }
            _ => object.json(&api_version),
        }
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Pseudo-random numbers from seed and counter (splitmix64).
    pub(crate) fn draw(&mut self) -> u64 {
        let mut z = self.config.seed ^ self.next_id().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn uid(&mut self) -> String {
        let (a, b) = (self.draw(), self.draw());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            0x8000 | (b >> 48 & 0x3fff),
            b & 0xffff_ffff_ffff
        )
    }

    /// Other writes, as any cluster has: the revision grows, and nothing that is watched changes.
    pub fn advance(&mut self, revisions: u64) {
        self.store.advance(revisions);
    }

    /// Compacts the history: continue tokens and exact lists from before answer 410.
    pub fn compact(&mut self, revision: u64) {
        self.flush_watches();
        self.store.compact(revision);
    }

    /// Compacts when it is time.
    pub(crate) fn compact_in_time(&mut self, now: Millis) {
        let Some(every) = self.config.compaction_ms else { return };
        let due = self.compactions.back().is_none_or(|(last, _)| now >= last.saturating_add(every));
        if due {
            self.compactions.push_back((now, self.store.revision()));
            if self.compactions.len() > 2 {
                self.compactions.pop_front();
            }
            if let Some((at, revision)) = self.compactions.front().copied()
                && at < now
            {
                self.compact(revision);
            }
        }
    }

    /// The API server process starts anew: connections end, watch caches are empty. etcd keeps everything.
    pub fn restart(&mut self) {
        self.watches.clear();
        self.cache_start = self.store.revision();
    }

    /// Ends the watches that match, as a broken connection does.
    pub fn end_watches(&mut self, matches: &super::faults::Matcher) {
        self.watches.retain(|_, watch| !matches.matches("watch", &watch.user, &watch.target));
    }

    /// A copy of etcd.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { store: self.store.clone(), kinds: self.kinds.clone() }
    }

    /// etcd is replaced by a copy from before, and the API server restarts.
    pub fn restore(&mut self, snapshot: &Snapshot, form: Restore) {
        self.highest = self.highest.max(self.store.revision());
        self.store = snapshot.store.clone();
        self.kinds = snapshot.kinds.clone();
        self.compactions.clear();
        self.idle = None;
        if form == Restore::Bumped {
            self.store.advance(self.highest.saturating_sub(self.store.revision()).saturating_add(100));
            self.store.compact(self.store.revision());
        }
        self.restart();
    }

    /// The text of `/version`.
    pub(crate) fn git_version(&self) -> String {
        let (major, minor) = self.config.version;
        let patch = if self.config.version == (1, 20) { 2 } else { 0 };
        format!("v{major}.{minor}.{patch}")
    }

    /// Every change after a revision that is not compacted, in order.
    #[must_use]
    pub fn changed_since(&self, revision: u64) -> Vec<Changed> {
        let mut all: Vec<Changed> = Vec::new();
        for (table, rows) in self.store.tables() {
            all.extend(rows.since(revision).map(|event| {
                let value = &event.object.value;
                Changed {
                    revision: event.revision,
                    table: table.clone(),
                    namespace: event.key.0.clone(),
                    name: event.key.1.clone(),
                    after: (event.change != Change::Deleted).then(|| value.clone()),
                    uid: value["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
                }
            }));
        }
        all.sort_by_key(|changed| changed.revision);
        all
    }

    /// Reads an object without a request.
    #[must_use]
    pub fn find(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let kind = self.kinds.by_kind(api_version, kind)?;
        let key = (namespace.to_owned(), name.to_owned());
        Some(self.store.table(&kind.table()).get(&key)?.value.clone())
    }

    /// Reads all objects of a kind without a request, by namespace and name.
    #[must_use]
    pub fn all(&self, api_version: &str, kind: &str) -> Vec<Value> {
        let Some(kind) = self.kinds.by_kind(api_version, kind) else { return Vec::new() };
        self.store.table(&kind.table()).objects().map(|(_, object)| object.value.clone()).collect()
    }
}

fn refuse(error: &ApiError) -> Answer {
    let content_type = if error.is_text() { "text/plain; charset=utf-8" } else { "application/json" };
    Answer {
        status: error.code,
        content_type,
        retry_after_s: error.retry_after_s,
        etag: None,
        body: error.body().into(),
    }
}

pub(crate) fn json_answer(status: u16, body: impl Into<Bytes>) -> Answer {
    Answer { status, content_type: "application/json", retry_after_s: None, etag: None, body: body.into() }
}

/// A success without an object.
pub(crate) fn success(call: &Call<'_>, uid: &Value) -> Answer {
    let mut details = json!({"name": call.target.name, "kind": call.target.plural, "uid": uid});
    if !call.target.group.is_empty() {
        details["group"] = call.target.group.as_str().into();
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    json_answer(200, status.to_string())
}
