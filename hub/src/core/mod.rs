//! The hub's core: one owner of all state. It takes inputs one after the other, works in store
//! transactions, and hands out effects. It has no tokio runtime of its own to wait on, reads no
//! clock (`now` comes with every input) and no network: the shells move its messages.
//!
//! Order of effects: creates and updates may leave before the commit (marks with a MAC let a hub
//! that crashed in between recognise them); acks, deletes and archive orders leave after it (I1, I4).

mod acts;
mod asked;

pub mod census;
pub mod command;
mod commands;
mod compare;
mod compared;
mod connect;
mod containers;
mod decline;
mod deleters;
mod dispatch;
mod explain;
mod failed;
mod fields;
mod gather;
mod ingest;
mod inputs;
mod interests;
pub mod keeping;
mod keys;
mod missing;
mod outcome;
mod policy;
mod recover;
mod release;
mod remove;
mod restore;
mod retry;
mod rewind;
mod scan;
pub mod state;
mod target;
#[cfg(test)]
mod tests;
mod tickets;
mod tombstone;

pub use keys::Keys;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use lockstep_engine::budget::Budget;
use lockstep_engine::reading::Reading;
use lockstep_engine::{ClusterId, ClusterName, GroupKind, Millis, ObjectKey};
use lockstep_policies::PolicySet;
use lockstep_wire::{Protocols, v1};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::codes::Code;
use crate::gate::Gate;
use crate::seal::BearerToken;
use crate::store::{Filed, PolicyRow, RemovedCluster, Store, StoreError};
use command::{Command, CommandError};
use scan::Scan;
use state::{Cluster, SessionCommand};
use tickets::Tickets;

/// Codes of this part.
pub const CODES: &[Code] = &[
    Code { code: "LS0200", title: "the hub does not know what was named" },
    Code { code: "LS0201", title: "the agent's token is not known" },
    Code { code: "LS0205", title: "the hub's state store refused a write" },
    Code { code: "LS0207", title: "a newer session of the cluster took over" },
    Code { code: "LS0208", title: "the session broke its protocol" },
    Code { code: "LS0209", title: "the system gives no random bytes" },
    Code { code: "LS0213", title: "a rewind cannot be accepted yet" },
    Code { code: "LS0214", title: "a policy still asks for what is to be let go of" },
    Code { code: "LS0215", title: "what is held is not what was shown" },
    Code { code: "LS0216", title: "a cluster whose agent is connected cannot be removed" },
    Code { code: "LS0217", title: "the cluster was removed from this hub" },
];

/// Files of the policies directory, or why it cannot be read.
pub type PolicyFiles = Result<Vec<(String, Result<String, String>)>, String>;

/// What happens to the core.
#[derive(Debug)]
pub enum Input {
    /// An agent said Hello with this token.
    Connect(Box<Connect>),
    /// A message of the session with this number.
    Message {
        /// Cluster.
        cluster: ClusterId,
        /// Session number; messages of fenced sessions are dropped.
        session: u64,
        /// The message.
        message: Box<v1::AgentMessage>,
    },
    /// The stream of that session ended.
    Disconnected {
        /// Cluster.
        cluster: ClusterId,
        /// Session number.
        session: u64,
    },
    /// The policies directory was read.
    Policies(PolicyFiles),
    /// The archive has a tombstone.
    Archived {
        /// Which.
        id: i64,
        /// Where.
        file: Filed,
    },
    /// A person asks.
    Command(Command),
    /// Time passes.
    Tick,
}

/// The opening of a session.
#[derive(Debug)]
pub struct Connect {
    /// The bearer token.
    pub token: BearerToken,
    /// What the agent says of itself.
    pub hello: v1::Hello,
    /// To the task that serves the session.
    pub out: mpsc::Sender<SessionCommand>,
    /// Answer: (cluster, session number), or the refusal to send.
    pub reply: oneshot::Sender<Result<(ClusterId, u64), v1::Refused>>,
}

/// What must not leave before the commit.
#[derive(Debug)]
enum AfterCommit {
    Send(ClusterId, u64, SessionCommand),
    /// There is something new in the outbox.
    Archive,
    Connected(oneshot::Sender<Result<(ClusterId, u64), v1::Refused>>, Result<(ClusterId, u64), v1::Refused>),
    Answer(Answer),
}

/// An answer to a person, given once what it says is durable.
struct Answer(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

/// Counters that the shell turns into metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Deltas committed.
    pub deltas: u64,
    /// Batches committed.
    pub batches: u64,
    /// Placements planned.
    pub planned: u64,
    /// Steps sent.
    pub steps: u64,
    /// Steps answered with a failure.
    pub failed_steps: u64,
    /// Tombstones made.
    pub tombstones: u64,
    /// Deletes carried out.
    pub deletes: u64,
    /// Deletes held by a budget.
    pub held: u64,
    /// Drifts that were answered with a write.
    pub drifts: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Rewinds noticed.
    pub rewinds: u64,
    /// Circuit breakers that are not closed: target and kind.
    pub open_breakers: BTreeSet<(String, String)>,
    /// Namespaces of watches whose census differed from what is held here.
    pub census_mismatches: u64,
}

/// The owner of the hub's state.
pub struct Core<S> {
    store: S,
    keys: Keys,
    hub_id: String,
    protocols: Protocols,
    set: Arc<PolicySet>,
    /// Told by the policies directory at least once: before, nothing is concluded from absence of a
    /// policy (I3).
    policies_known: bool,
    /// The tombstone that was made last, since the state was loaded.
    last_tombstone: i64,
    /// What the directory held last, good or bad.
    last_files: Option<Vec<(String, Result<String, String>)>>,
    policies: BTreeMap<String, PolicyRow>,
    clusters: BTreeMap<ClusterId, Cluster>,
    names: BTreeMap<ClusterName, ClusterId>,
    /// Clusters that a person removed; not among the two above.
    removed: Vec<RemovedCluster>,
    budgets: BTreeMap<(String, ClusterId), Budget>,
    paused: bool,
    scans: VecDeque<Scan>,
    /// What is in memory is not what the store holds: it is loaded before anything else.
    stale: bool,
    /// Sessions that ended with the last process, or with a transaction that failed, are still noted as
    /// open in the store.
    ended: bool,
    /// Watches that no policy asks for are kept while something they cover waits for its delete.
    kept_watches: bool,
    /// When the scans are through: is any of them still needed?
    review_interest: bool,
    /// Deletes of this transaction that ask the budget together.
    asking: BTreeMap<(String, ClusterId), Vec<ObjectKey>>,
    tickets: Tickets,
    next_step: u64,
    next_due: Option<Millis>,
    render_cache: gather::RenderCache,
    autoscaled: fields::Autoscaled,
    after: Vec<AfterCommit>,
    archive: Arc<Notify>,
    findings: Arc<std::sync::RwLock<Findings>>,
    sessions: SharedSessions,
    gate: Gate,
    counts: Counts,
}

/// What is wrong with policy files now; read by the HTTP API.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Of the files.
    pub files: Vec<lockstep_policies::Finding>,
    /// Of the directory as a whole.
    pub directory: Option<String>,
}

/// What sessions told that the store does not keep, by cluster; read by the HTTP API.
pub type SharedSessions = Arc<std::sync::RwLock<BTreeMap<String, SessionTold>>>;

/// What a session told that the store does not keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionTold {
    /// Version of the protocol that the session speaks.
    pub protocol: Option<u32>,
    /// What the hub may read there; none: its agent does not say.
    pub reading: Option<Arc<Reading>>,
    /// What policies ask for and the hub may not read: what to accept, by kind.
    pub not_accepted: Vec<String>,
    /// Agent's clock minus the hub's, milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// Items in the agent's queues.
    pub queued_items: Option<u64>,
    /// Why its agent was refused.
    pub problem: Option<String>,
}

/// What a core is made of.
pub struct Parts<S> {
    /// The state store.
    pub store: S,
    /// Derived keys.
    pub keys: Keys,
    /// Wakes the archiver, which empties the outbox at its own pace.
    pub archive: Arc<Notify>,
    /// Shared with the HTTP API.
    pub findings: Arc<std::sync::RwLock<Findings>>,
    /// Shared with the HTTP API.
    pub sessions: SharedSessions,
    /// Derived from the hub key, so that it survives the loss of the data directory (I11).
    pub hub_id: String,
    /// Versions of the session protocol that this hub speaks.
    pub protocols: Protocols,
}

impl<S: Store> Core<S> {
    /// Loads the core from its store.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn load(parts: Parts<S>) -> Result<Self, StoreError> {
        let Parts { store, keys, archive, findings, sessions, hub_id, protocols } = parts;
        let mut core = Self {
            store,
            gate: Gate::new(keys.token),
            keys,
            hub_id,
            protocols,
            set: Arc::default(),
            policies_known: false,
            last_tombstone: 0,
            last_files: None,
            policies: BTreeMap::new(),
            clusters: BTreeMap::new(),
            names: BTreeMap::new(),
            removed: Vec::new(),
            budgets: BTreeMap::new(),
            paused: false,
            scans: VecDeque::new(),
            ended: false,
            stale: true,
            kept_watches: false,
            review_interest: false,
            asking: BTreeMap::new(),
            tickets: Tickets::default(),
            next_step: 1,
            next_due: None,
            render_cache: gather::RenderCache::default(),
            autoscaled: fields::Autoscaled::default(),
            after: Vec::new(),
            archive,
            findings,
            sessions,
            counts: Counts::default(),
        };
        core.reload()?;
        Ok(core)
    }

    /// Builds everything in memory anew from the store; sessions end. Also the way back after a
    /// transaction that failed.
    fn reload(&mut self) -> Result<(), StoreError> {
        self.last_tombstone = 0;
        self.clusters.clear();
        self.names.clear();
        self.autoscaled = fields::Autoscaled::default();
        for row in self.store.clusters()? {
            let watches = self.store.watches(Some(row.id))?;
            self.names.insert(row.name.clone(), row.id);
            let mut cluster = Cluster::new(row, watches);
            self.ended |= cluster.end_former_session();
            self.clusters.insert(cluster.id(), cluster);
        }
        self.open_gate();
        self.policies = self.store.policies()?.into_iter().map(|row| (row.name.clone(), row)).collect();
        self.budgets.clear();
        for (policy, target, json) in self.store.budgets()? {
            let budget = serde_json::from_str(&json)
                .map_err(|error| StoreError::Row { table: "budgets", why: error.to_string() })?;
            self.budgets.insert((policy, target), budget);
        }
        // `restored` is a pause that ends by itself, see `settle`.
        self.paused = self.store.meta("paused")?.is_some_and(|value| value != "false");
        self.scans.clear();
        self.asking.clear();
        self.tickets = Tickets::default();
        self.after.clear();
        self.render_cache = gather::RenderCache::default();
        self.next_due = self.store.next_due()?;
        self.archive.notify_one();
        self.resume_acceptances()?;
        self.load_removed()?;
        self.load_last_good()?;
        self.stale = false;
        Ok(())
    }

    /// Takes inputs that came together, and commits once for all of them. Returns whether there is
    /// more to do at once (a scan that is not through).
    ///
    /// # Errors
    /// When the store refused: nothing was acknowledged, sessions were closed, and the agents send
    /// again what was not acknowledged.
    pub fn handle(&mut self, inputs: Vec<Input>, now: Millis) -> Result<bool, StoreError> {
        if self.stale {
            // Half of it was loaded when the store failed once more.
            self.reload()?;
        }
        let done =
            self.store.begin().and_then(|()| self.work(inputs, now)).and_then(|()| self.store.commit());
        match done {
            Ok(()) => {
                self.release_effects();
                Ok(!self.scans.is_empty())
            }
            Err(error) => {
                self.store.rollback()?;
                self.close_all("LS0205", "the hub's state store refused a write", "see the hub's log", now);
                self.stale = true;
                self.reload()?;
                Err(error)
            }
        }
    }

    fn work(&mut self, inputs: Vec<Input>, now: Millis) -> Result<(), StoreError> {
        if let (false, Some(files)) = (self.policies_known, self.last_files.clone()) {
            // A transaction failed after the directory was read: its news is not told twice.
            self.policies_read(Ok(files), now)?;
        }
        if self.ended {
            for cluster in self.clusters.values() {
                self.store.put_cluster(&cluster.row)?;
            }
            // Only now: a transaction that fails writes nothing.
            self.ended = false;
        }
        for input in inputs {
            self.take(input, now)?;
        }
        self.scan_slice(now)?;
        if self.scans.is_empty() && std::mem::take(&mut self.review_interest) {
            self.send_interests(now)?;
        }
        self.retry_due(now)?;
        self.settle_deletes(now)
    }

    fn take(&mut self, input: Input, now: Millis) -> Result<(), StoreError> {
        match input {
            Input::Connect(connect) => self.connect(*connect, now),
            Input::Message { cluster, session, message } => self.message(cluster, session, *message, now),
            Input::Disconnected { cluster, session } => self.disconnected(cluster, session, now),
            Input::Policies(files) => self.policies_read(files, now),
            Input::Archived { id, file } => self.archived(id, &file, now),
            Input::Command(command) => self.command(command, now),
            Input::Tick => Ok(()),
        }
    }

    fn release_effects(&mut self) {
        for effect in std::mem::take(&mut self.after) {
            match effect {
                AfterCommit::Send(cluster, session, command) => self.send_to(cluster, session, command),
                AfterCommit::Archive => self.archive.notify_one(),
                AfterCommit::Connected(reply, result) => drop(reply.send(result)),
                AfterCommit::Answer(answer) => (answer.0)(),
            }
        }
    }

    /// When the core wants to be woken at the latest.
    #[must_use]
    pub fn wake_at(&self) -> Option<Millis> {
        self.next_due
    }

    /// Counters since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Which tokens are listened to.
    #[must_use]
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Connected clusters.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.clusters.values().filter(|cluster| cluster.session.is_some()).count()
    }

    /// Notes what a session told; poisoned locks only cost the figure.
    fn told(&self, cluster: &str, note: impl FnOnce(&mut SessionTold)) {
        if let Ok(mut sessions) = self.sessions.write() {
            note(sessions.entry(cluster.to_owned()).or_default());
        }
    }

    fn cluster_name(&self, id: ClusterId) -> &str {
        let removed = || self.removed.iter().find(|removed| removed.id == id).map(|removed| &removed.name);
        self.clusters
            .get(&id)
            .map(|cluster| &cluster.row.name)
            .or_else(removed)
            .map_or("?", ClusterName::as_str)
    }

    fn answer<T: Send + 'static>(&mut self, reply: command::Reply<T>, result: Result<T, CommandError>) {
        // Nobody waits any more: that is their decision.
        self.after.push(AfterCommit::Answer(Answer(Box::new(move || drop(reply.send(result))))));
    }

    fn known_kinds(&self) -> BTreeMap<GroupKind, state::ServedKind> {
        let mut kinds = BTreeMap::new();
        for served in self.clusters.values().filter_map(|cluster| cluster.served.as_ref()) {
            for (gk, kind) in served {
                kinds.entry(gk.clone()).or_insert_with(|| kind.clone());
            }
        }
        kinds
    }
}
