//! One cluster: the model of its API server, its controllers, its journal, and the way to it.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use http::{HeaderName, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use lockstep_engine::Millis;
use lockstep_engine::clock::Clock;
use lockstep_tests::model::{
    Answer, ApiServer, Polled, Reply, Request, Response, Restore, Snapshot, WatchId,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service};

use crate::journal::{Actor, Journal};
use crate::link::{Broken, Link};
use crate::log::Log;
use crate::objects::{CLUSTERS, Key, Kind};
use crate::oracle::{Oracle, Written};
use crate::signal::Signal;

/// How often watches look at the clock for bookmarks and their end; changes wake them at once.
const CLOCK: Duration = Duration::from_secs(5);
/// How often controllers take a step.
const TICK: Duration = Duration::from_millis(500);
/// Writes at one cluster in one history: some hundreds are usual.
const MOST_WRITES: u64 = 5_000;
/// What agents are called by the model.
pub(crate) const AGENT: &str = "agent";

/// A cluster.
#[derive(Debug)]
pub(crate) struct Member {
    index: usize,
    inner: Mutex<Inner>,
    /// Grows with every change, so that watches look.
    changes: Signal,
    /// Writes that agents asked for, beside Leases.
    writes: AtomicU64,
    clock: Clock,
    log: Log,
    oracle: Oracle,
}

#[derive(Debug)]
struct Inner {
    server: ApiServer,
    journal: Journal,
    saved: Option<(Snapshot, Journal)>,
    /// Told of the agent's next write, whose reply then never arrives.
    trap: Option<CancellationToken>,
    /// Who is faster than the agent's next create.
    ambush: Option<Ambush>,
    /// What other hubs wrote so: uid and content.
    ambushed: Vec<(String, String)>,
}

/// An object that comes one revision before a create of ours under its name.
#[derive(Debug)]
pub(crate) struct Ambush {
    pub(crate) key: Key,
    pub(crate) object: Value,
    /// It is another hub's.
    pub(crate) hub: bool,
    /// Told of that create, whose reply then never arrives.
    pub(crate) trap: Option<CancellationToken>,
}

impl Member {
    pub(crate) fn new(index: usize, server: ApiServer, clock: Clock, log: Log, oracle: Oracle) -> Self {
        let inner = Inner {
            server,
            journal: Journal::default(),
            saved: None,
            trap: None,
            ambush: None,
            ambushed: Vec::new(),
        };
        let (inner, changes) = (Mutex::new(inner), Signal::default());
        Self { index, inner, changes, writes: AtomicU64::new(0), clock, log, oracle }
    }

    pub(crate) fn name(&self) -> &'static str {
        CLUSTERS[self.index]
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with_journal<T>(&self, look: impl FnOnce(&Journal) -> T) -> T {
        look(&self.lock().journal)
    }

    /// Writes that agents asked for, beside Leases.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Does something with the model, and enters what changed into the journal.
    pub(crate) fn with<T>(&self, actor: Actor, act: impl FnOnce(&mut ApiServer, Millis) -> T) -> T {
        let now = self.clock.now();
        let mut inner = self.lock();
        let done = act(&mut inner.server, now);
        inner.absorb(actor, now);
        drop(inner);
        self.changes.raise();
        done
    }

    /// Its history is forgotten, and its watch caches are empty.
    pub(crate) fn compact(&self) {
        let mut inner = self.lock();
        let revision = inner.server.revision();
        inner.server.compact(revision);
        inner.server.restart();
        inner.journal.compactions += 1;
        drop(inner);
        self.changes.raise();
    }

    pub(crate) fn save(&self) {
        let mut inner = self.lock();
        inner.saved = Some((inner.server.snapshot(), inner.journal.clone()));
    }

    /// Answers whether there was a snapshot.
    pub(crate) fn restore(&self, form: Restore) -> bool {
        let now = self.clock.now();
        let mut inner = self.lock();
        let Some((snapshot, journal)) = inner.saved.clone() else { return false };
        inner.server.restore(&snapshot, form);
        let revision = inner.server.revision();
        inner.journal.restore(&journal, revision, now);
        drop(inner);
        self.changes.raise();
        true
    }

    /// The counter in the agent's Lease.
    pub(crate) fn lease_counter(&self) -> u64 {
        let leases = self.lock().server.all("coordination.k8s.io/v1", "Lease");
        let counters = leases.iter().filter_map(|lease| {
            lease["metadata"]["annotations"]["lockstep.dev/lease-counter"].as_str()?.parse().ok()
        });
        counters.max().unwrap_or(0)
    }

    pub(crate) fn set_trap(&self, trap: Option<CancellationToken>) {
        self.lock().trap = trap;
    }

    pub(crate) fn set_ambush(&self, ambush: Option<Ambush>) {
        self.lock().ambush = ambush;
    }

    /// What other hubs wrote in ambushes since this was asked: uid and content.
    pub(crate) fn ambushed(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.lock().ambushed)
    }

    /// Controllers, until dropped.
    pub(crate) async fn controllers(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TICK).await;
            let now = self.clock.now();
            let mut inner = self.lock();
            if inner.server.tick(now) > 0 {
                inner.absorb(Actor::Controller, now);
                drop(inner);
                self.changes.raise();
            }
        }
    }

    /// Counts what an exchange was a case of.
    fn met(&self, request: &Request, reply: &Reply, changed: bool) {
        let situation = match (&*request.method, &reply.response) {
            (_, Response::Dropped) if changed => "a write whose answer was lost",
            (_, Response::Dropped) => "a request without an answer",
            ("GET", Response::Watch(_)) => "a watch that was opened",
            ("GET", Response::Full(answer)) => match answer.status {
                200 if request.query.contains("limit=1&") || request.query.ends_with("limit=1") => {
                    "a probe instead of a list"
                }
                200 if request.query.contains("limit=") => "a page of a list",
                410 => "410 to a list or watch",
                403 | 404 | 429 | 500 | 503 | 504 => "a read that was refused",
                _ => return,
            },
            ("DELETE", Response::Full(answer)) if answer.status == 409 => {
                "a delete refused: the copy is not as archived"
            }
            ("PATCH", Response::Full(answer)) if answer.status == 409 => "an apply with a conflict",
            (_, Response::Full(answer)) => match answer.status {
                403 => "a write that was forbidden",
                404 => "a write where kind, namespace or object was gone",
                422 => "a write that was invalid",
                429 | 500 | 503 | 504 => "a write that was refused for a while",
                _ => return,
            },
            (_, Response::Watch(_)) => return,
        };
        self.oracle.met_with(situation);
    }

    /// A request of an agent. None: its reply never arrives.
    fn handle(&self, request: &Request) -> Option<Reply> {
        let now = self.clock.now();
        let mut inner = self.lock();
        if request.method == "GET" {
            let reply = inner.server.handle(now, request);
            self.met(request, &reply, false);
            // With --trace sim=trace.
            let (path, query, status) = (&request.path, &request.query, reply.status());
            tracing::trace!(target: "sim", "{} GET {path}?{query}: {status}", self.name());
            return Some(reply);
        }
        let subject = subject(&request.path);
        if let Some(key) = subject.as_ref().filter(|_| request.method == "PATCH")
            && !request.query.contains("dryRun")
            && inner.spring_ambush(key, now)
        {
            self.log.say(self.name(), format_args!("somebody makes {key} a moment before"));
            self.oracle.met_with("an object that came one revision before our create");
        }
        let before = subject.as_ref().and_then(|key| inner.journal.current.get(key).cloned());
        let revision = inner.server.revision();
        let reply = inner.server.handle(now, request);
        let changed = inner.server.revision() != revision;
        inner.absorb(Actor::Agent, now);
        let lease = request.path.contains("/leases");
        if !lease {
            self.met(request, &reply, changed);
        }
        // What changes nothing counts, too: nobody should ask for it (I8).
        let writes = !lease && !request.query.contains("dryRun");
        if writes && self.writes.fetch_add(1, Ordering::Relaxed) == MOST_WRITES {
            self.oracle
                .fail("I8", format_args!("{MOST_WRITES} writes at {}, and no end of them", self.name()));
        }
        let status = reply.status();
        if !lease {
            let dry = if request.query.contains("dryRun") { " dry run" } else { "" };
            self.log.say(self.name(), format_args!("{} {}{dry}: {status}", request.method, request.path));
            // With --trace sim=debug.
            if let Response::Full(answer) = &reply.response {
                let (sent, got) =
                    (String::from_utf8_lossy(&request.body), String::from_utf8_lossy(&answer.body));
                tracing::debug!(target: "sim", "sent {sent}, got {got}");
            }
        }
        if let Some(key) = subject {
            let after = inner.journal.current.get(&key).cloned();
            // What had an effect counts, also where the reply is lost.
            let status = if changed { 200 } else { status.max(300) };
            let life = before.as_ref().and_then(|uid| inner.journal.lives.get(uid));
            let born = life.and_then(|life| Some(life.states.first()?.at.ms));
            let is = after.as_ref().and_then(|uid| inner.journal.lives.get(uid)?.latest());
            let content = is.map(|state| state.content.clone()).unwrap_or_default();
            let compactions = inner.journal.compactions;
            self.oracle.wrote(&Written {
                at: self.index,
                request,
                status,
                key,
                before,
                after,
                born,
                content,
                compactions,
                answered: !matches!(reply.response, Response::Dropped),
                now,
            });
        }
        let trapped = if changed && !lease { inner.trap.take() } else { None };
        drop(inner);
        self.changes.raise();
        if let Some(trap) = trapped {
            trap.cancel();
            return None;
        }
        Some(reply)
    }
}

impl Inner {
    fn absorb(&mut self, actor: Actor, now: Millis) {
        let changes = self.server.changed_since(self.journal.seen());
        self.journal.absorb(changes, actor, now);
    }

    /// Where an agent is about to create what somebody else wants to make, that is made first.
    fn spring_ambush(&mut self, key: &Key, now: Millis) -> bool {
        let springs = |ambush: &mut Ambush| ambush.key == *key;
        if self.journal.current.contains_key(key) {
            return false;
        }
        let Some(ambush) = self.ambush.take_if(springs) else { return false };
        if ambush.hub {
            self.server.user_apply(now, "lockstep", &ambush.object, false);
        } else {
            self.server.user_create(now, "somebody", &ambush.object);
        }
        self.absorb(Actor::User, now);
        let Some((uid, life)) = self.journal.live(key) else { return false };
        if ambush.hub {
            let content = life.latest().map(|state| state.content.clone()).unwrap_or_default();
            self.ambushed.push((uid.clone(), content));
        }
        if ambush.trap.is_some() {
            self.trap = ambush.trap;
        }
        true
    }
}

/// The object of a synced kind that a path names.
fn subject(path: &str) -> Option<Key> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (table, rest) = match parts.as_slice() {
        ["api", "v1", "namespaces", namespace, plural, name] => (format!("/{plural}"), (namespace, name)),
        ["apis", group, _, "namespaces", namespace, plural, name] => {
            (format!("{group}/{plural}"), (namespace, name))
        }
        _ => return None,
    };
    let kind = Kind::of_table(&table)?;
    Some(Key { kind, namespace: (*rest.0).to_owned(), name: (*rest.1).to_owned() })
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An agent's way to its API server.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) member: Arc<Member>,
    pub(crate) link: Link,
    /// Cancelled when the agent's process is killed: nothing of it moves any more.
    pub(crate) killed: CancellationToken,
}

impl Service<http::Request<kube::client::Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<kube::client::Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let killed = this.killed.clone();
            match killed.run_until_cancelled(this.exchange(request)).await {
                Some(done) => done,
                None => std::future::pending().await,
            }
        })
    }
}

impl Transport {
    async fn exchange(
        self,
        request: http::Request<kube::client::Body>,
    ) -> Result<http::Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let text = |name: HeaderName| {
            parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let request = Request {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            content_type: text(header::CONTENT_TYPE),
            accept: text(header::ACCEPT),
            if_none_match: Some(text(header::IF_NONE_MATCH)).filter(|text| !text.is_empty()),
            user_agent: text(header::USER_AGENT),
            user: AGENT.to_owned(),
            body,
        };
        let generation = self.link.generation();
        self.link.pass(generation).await?;
        let Some(reply) = self.member.handle(&request) else { return std::future::pending().await };
        tokio::time::sleep(Duration::from_millis(reply.after_ms)).await;
        self.link.pass(generation).await?;
        match reply.response {
            Response::Full(answer) => full(answer),
            Response::Watch(id) => {
                tracing::trace!(target: "sim", "{} opens {id:?} for {}?{}", self.member.name(), request.path, request.query);
                Ok(self.stream(id, generation))
            }
            Response::Dropped => Err(Broken.into()),
        }
    }

    fn stream(self, id: WatchId, generation: u64) -> http::Response<Body> {
        let open = Open { transport: self, id, generation, ended: false };
        let frames = stream::unfold(open, |mut open| async move {
            let killed = open.transport.killed.clone();
            match killed.run_until_cancelled(open.next()).await {
                Some(Some(chunk)) => Some((Ok::<_, Infallible>(Frame::data(chunk)), open)),
                Some(None) => None,
                None => std::future::pending().await,
            }
        });
        http::Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

/// An open watch; the server closes it when the client goes.
struct Open {
    transport: Transport,
    id: WatchId,
    generation: u64,
    ended: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.transport.member.lock().server.close(self.id);
    }
}

impl Open {
    /// The next lines. None: the stream is over, or broken: to a client that is the same.
    async fn next(&mut self) -> Option<Bytes> {
        let Transport { member, link, .. } = self.transport.clone();
        while !self.ended {
            let seen = member.changes.count();
            let now = member.clock.now();
            let polled = member.lock().server.poll(self.id, now);
            let lines = match polled {
                Polled::Lines(lines) => lines,
                Polled::Ended(lines) => {
                    self.ended = true;
                    lines
                }
            };
            if !lines.is_empty() {
                if lines.iter().any(|line| contains(line, b"\"code\":410")) {
                    member.oracle.met_with("410 within a watch");
                }
                link.pass(self.generation).await.ok()?;
                let lines = Bytes::from(lines.concat());
                tracing::trace!(target: "sim", "{} {:?} tells {}", member.name(), self.id, String::from_utf8_lossy(&lines));
                return Some(lines);
            }
            if !self.ended {
                // A change, or the clock: either way it looks again.
                let wait = tokio::time::timeout(CLOCK, member.changes.beyond(seen));
                tokio::select! {
                    biased;
                    () = link.broken(self.generation) => return None,
                    _ = wait => {}
                }
            }
        }
        None
    }
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    // Errors are short; objects that are not, are none.
    line.len() < 1_000 && line.windows(part.len()).any(|window| window == part)
}

fn full(answer: Answer) -> Result<http::Response<Body>, BoxError> {
    let mut response =
        http::Response::builder().status(answer.status).header(header::CONTENT_TYPE, answer.content_type);
    if let Some(seconds) = answer.retry_after_s {
        response = response.header(header::RETRY_AFTER, seconds);
    }
    if let Some(etag) = answer.etag {
        response = response.header(header::ETAG, etag);
    }
    Ok(response.body(Full::new(answer.body).boxed_unsync())?)
}
