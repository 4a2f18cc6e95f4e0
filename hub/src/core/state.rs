//! What the core holds in memory. Everything here can be built anew from the store; nothing in it
//! grows with the number of objects (I14), except the bounded queues.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_engine::breaker::{Breaker, BreakerConfig, Permit};
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::ownership::Taken;
use lockstep_engine::reading::Reading;
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey, ResourceVersion};
use lockstep_wire::{HubSession, v1};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::store::{ClusterRow, Phase, WatchRow};

/// Steps under way at one target. Several times an agent's concurrency, so that it never idles
/// between an outcome and the next step, and small enough to re-plan quickly.
pub const MAX_IN_FLIGHT: usize = 64;

/// Of them of one kind: a kind whose writes hang (a webhook that does not answer) leaves the others
/// their places.
pub const MAX_IN_FLIGHT_OF_A_KIND: usize = 48;

/// Keys that wait in memory for a place in the window of one target. What does not fit stays in
/// the store as Pending and is found by a scan when the queue has drained (I14).
pub const MAX_READY: usize = 4096;

/// What the core tells the task that serves a session.
#[derive(Debug)]
pub enum SessionCommand {
    /// Send this.
    Message(Box<v1::HubMessage>),
    /// Stream the checkpoint and key index of these watches, in order.
    Resume(Vec<WatchRow>),
    /// Stream what is held of one namespace of a watch.
    Compare {
        /// The watch.
        watch: u32,
        /// Empty: objects without one.
        namespace: String,
    },
    /// Send this refusal and end the stream.
    Close(v1::Refused),
}

/// The live session of a cluster.
#[derive(Debug)]
pub struct Session {
    /// Fencing number.
    pub number: u64,
    /// To the task that serves it; bounded.
    pub out: mpsc::Sender<SessionCommand>,
    /// Sequence numbers, acks and window of its stream.
    pub stream: HubSession,
    /// Hub's clock minus agent's clock at Hello, milliseconds.
    pub skew_ms: i64,
    /// What the hub may read in the cluster; none: its agent does not say.
    pub reading: Option<Arc<Reading>>,
    /// Raised with every interest that is sent.
    pub generation: u64,
    /// What was sent: watch -> interest digest.
    pub interest: BTreeMap<u32, [u8; 32]>,
}

/// A watch, and whether what it told can be relied on now.
#[derive(Debug)]
pub struct Watch {
    /// As stored.
    pub row: WatchRow,
    /// Digest of the interest that is wanted now.
    pub wanted: [u8; 32],
    /// Its phase was told in this session.
    pub told: bool,
}

impl Watch {
    /// Is everything up to the checkpoint here, judged by the interest that is wanted now?
    pub fn is_live(&self) -> bool {
        self.told
            && self.row.phase == Phase::Live
            && (self.row.interest.as_ref() == self.wanted || !guard::on(Guard::LiveByInterest))
    }
}

/// A kind as a cluster serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedKind {
    /// API group as the server has it (not the canonical one).
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Full API versions (`apps/v1`), the preferred one first.
    pub versions: Vec<String>,
    /// Plural resource name.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Namespaced?
    pub namespaced: bool,
    /// Verbs.
    pub verbs: Vec<String>,
}

/// What a step is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Create or update to this desired digest.
    Apply {
        /// Digest of the desired body.
        rendered: [u8; 32],
        /// Digest of [`Inputs`](super::inputs::Inputs): barred when it fails for good.
        inputs: [u8; 16],
        /// When the source event that led here was read (hub's clock); for the lag.
        source_seen: Option<Millis>,
        /// API version written.
        api_version: String,
        /// It adopts an object that is not ours.
        adopts: bool,
        /// It sets drift back: who had changed what.
        drift: Option<Vec<Taken>>,
        /// Where a field cannot be changed, the object is made anew.
        recreates: bool,
        /// Nothing is forced any more: others take the same fields again and again.
        contested: bool,
        /// The `lockstep.dev/*` annotations that are written.
        marks: BTreeMap<String, String>,
    },
    /// Read the image for the archive.
    Image,
    /// Delete the archived state of this tombstone.
    Delete {
        /// The tombstone.
        tombstone: i64,
    },
    /// Take our marks and entries off.
    Release,
    /// See what an unanswered create left.
    Retract,
    /// What a person waits for.
    Ticket {
        /// Who waits.
        ticket: u64,
    },
    /// Look whether a container is still there.
    Probe,
}

/// A question whether a container is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// When it was asked last, hub's clock.
    pub asked_at: Millis,
    /// The last tombstone that there was then: of what went later it says nothing.
    pub after: i64,
    /// When what asks was seen last, by the hub's clock then, which may have been ahead.
    pub seen: Millis,
    /// Has the answer come?
    pub answered: bool,
    /// When what is there now was created, by its API server's clock, and the resourceVersion of its last change.
    pub there: Option<(Millis, ResourceVersion)>,
}

/// A step that was sent and not yet answered.
#[derive(Debug)]
pub struct InFlight {
    /// The object.
    pub key: ObjectKey,
    /// Why.
    pub purpose: Purpose,
    /// The breaker's permit.
    pub permit: Option<Permit>,
    /// Something about the key changed meanwhile: plan again when the outcome is in.
    pub again: bool,
}

/// Keys that wait for a place in a target's window: by order, then by kind, so that a kind whose
/// share of the window is taken is passed over at once.
#[derive(Debug, Default)]
pub struct Ready {
    groups: BTreeMap<(i32, GroupKind), BTreeSet<ObjectKey>>,
    len: usize,
}

impl Ready {
    /// Puts a key in line.
    pub fn insert(&mut self, order: i32, key: ObjectKey) {
        let group = self.groups.entry((order, key.gk.clone())).or_default();
        self.len += usize::from(group.insert(key));
    }

    /// Takes the next key of a kind that may have a place now.
    pub fn pop(&mut self, may: impl Fn(&GroupKind) -> bool) -> Option<ObjectKey> {
        let at = self.groups.keys().find(|(_, gk)| may(gk))?.clone();
        let group = self.groups.get_mut(&at)?;
        let key = group.pop_first();
        if group.is_empty() {
            self.groups.remove(&at);
        }
        self.len -= usize::from(key.is_some());
        key
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Does none wait?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The circuit breaker of one kind at one target.
#[derive(Debug)]
pub struct KindBreaker {
    /// The breaker.
    pub breaker: Breaker,
    /// The object whose write failed last: one that always fails is its own affair, and does not open
    /// the breaker of its kind.
    pub failed: Option<ObjectKey>,
}

impl KindBreaker {
    /// Takes what came of a step. `kind_at_fault`: could it be the kind, and not only this object?
    pub fn answered(&mut self, permit: Permit, key: &ObjectKey, answer: Answered, now: Millis) {
        let counts = match answer {
            Answered::Well => false,
            Answered::NotAtAll => true,
            Answered::WithTrouble => self.failed.as_ref() != Some(key),
        };
        match (answer, counts) {
            (Answered::Well, _) => {
                self.failed = None;
                self.breaker.on_success(permit);
            }
            (_, true) => {
                self.failed = Some(key.clone());
                self.breaker.on_failure(permit, now);
            }
            (_, false) => self.breaker.on_abandoned(permit),
        }
    }
}

/// How a target answered a step, for its breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// With what was asked, or with an error about this object.
    Well,
    /// With a passing trouble of its own (500 and the like): a failing webhook or conversion of the
    /// kind, or this object only.
    WithTrouble,
    /// Not, or with the wish to be left alone.
    NotAtAll,
}

/// A member cluster as the core sees it.
#[derive(Debug)]
pub struct Cluster {
    /// As stored.
    pub row: ClusterRow,
    /// Present while its agent is connected.
    pub session: Option<Session>,
    /// Its watches.
    pub watches: BTreeMap<u32, Watch>,
    /// What it serves, by canonical kind; none before it was told for the first time.
    pub served: Option<BTreeMap<GroupKind, ServedKind>>,
    /// Discovery of some groups failed: a kind that is missing is unknown, not gone.
    pub discovery_partial: bool,
    /// Steps under way.
    pub in_flight: BTreeMap<u64, InFlight>,
    /// Keys with a step under way.
    pub busy: BTreeMap<ObjectKey, u64>,
    /// Keys that wait for a place in the window.
    pub ready: Ready,
    /// More is Pending in the store than fitted into `ready`.
    pub overflow: bool,
    /// Writes whose echo has not come yet: older observations of the key are not news.
    pub echoes: BTreeMap<ObjectKey, ResourceVersion>,
    /// By kind: opens when the target does not answer for objects of that kind (I12).
    pub breakers: BTreeMap<GroupKind, KindBreaker>,
    /// Containers that were asked for lately.
    pub probes: BTreeMap<ObjectKey, Probe>,
    /// When sessions replaced each other lately: alternation means one identity in two places.
    pub takeovers: Vec<Millis>,
}

impl Cluster {
    /// A cluster without a session.
    pub fn new(row: ClusterRow, watches: Vec<WatchRow>) -> Self {
        let served = decode_served(&row.served);
        Self {
            row,
            session: None,
            watches: watches
                .into_iter()
                .map(|row| (row.id, Watch { row, wanted: [0; 32], told: false }))
                .collect(),
            served,
            discovery_partial: true,
            in_flight: BTreeMap::new(),
            busy: BTreeMap::new(),
            ready: Ready::default(),
            overflow: false,
            echoes: BTreeMap::new(),
            breakers: BTreeMap::new(),
            probes: BTreeMap::new(),
            takeovers: Vec::new(),
        }
    }

    /// Its id.
    pub fn id(&self) -> ClusterId {
        self.row.id
    }

    /// The watch that covers a key, if there is one.
    pub fn covering(&self, gk: &GroupKind, namespace: &str) -> Option<&Watch> {
        self.watches.values().find(|watch| {
            watch.row.gk == *gk && (watch.row.namespace.is_empty() || watch.row.namespace == namespace)
        })
    }

    /// Forgets writes that no watch will tell of any more.
    pub fn drop_echoes(&mut self) {
        let mut echoes = std::mem::take(&mut self.echoes);
        echoes.retain(|key, _| self.covering(&key.gk, &key.namespace).is_some());
        self.echoes = echoes;
    }

    /// Is there a place in the window for a step of this kind?
    pub fn has_place(&self, gk: &GroupKind) -> bool {
        let of_kind = || self.in_flight.values().filter(|step| step.key.gk == *gk).count();
        self.in_flight.len() < MAX_IN_FLIGHT
            && (self.in_flight.len() < MAX_IN_FLIGHT_OF_A_KIND || of_kind() < MAX_IN_FLIGHT_OF_A_KIND)
    }

    /// The breaker of a kind.
    pub fn breaker(&mut self, gk: &GroupKind) -> &mut KindBreaker {
        let seed = u64::from(self.row.id.0) << 32 | self.breakers.len() as u64;
        self.breakers.entry(gk.clone()).or_insert_with(|| KindBreaker {
            breaker: Breaker::new(BreakerConfig::default(), seed),
            failed: None,
        })
    }

    /// Does it serve a kind? None: nobody can tell.
    pub fn serves(&self, gk: &GroupKind) -> Option<bool> {
        let served = self.served.as_ref()?;
        match (served.contains_key(gk), self.discovery_partial) {
            (true, _) => Some(true),
            (false, true) => None,
            (false, false) => Some(false),
        }
    }

    /// A session that is noted as open, and cannot be: it ended with the process that served it. It
    /// was heard of last when a watch was.
    pub fn end_former_session(&mut self) -> bool {
        let row = &mut self.row;
        let open = row.connected_at.is_some() && row.disconnected_at.is_none();
        if open {
            let heard = self.watches.values().map(|watch| watch.row.updated_at).max();
            row.disconnected_at = heard.max(row.connected_at);
        }
        open
    }

    /// Forgets what belonged to a session that ended.
    pub fn end_session(&mut self, now: Millis) {
        self.session = None;
        self.row.disconnected_at = Some(now);
        for watch in self.watches.values_mut() {
            watch.told &= !guard::on(Guard::SessionEndsLive);
        }
        for (_, step) in std::mem::take(&mut self.in_flight) {
            if let Some(permit) = step.permit {
                self.breaker(&step.key.gk).breaker.on_abandoned(permit);
            }
        }
        self.busy.clear();
        self.probes.clear();
        self.ready = Ready::default();
        self.overflow = false;
    }
}

/// Kinds as told, keyed canonically. A kind served in two groups is listed under the canonical one,
/// whichever the server offers; the canonical group's own entry wins.
pub fn index_served(kinds: &[ServedKind]) -> BTreeMap<GroupKind, ServedKind> {
    let mut served: BTreeMap<GroupKind, ServedKind> = BTreeMap::new();
    for kind in kinds {
        let gk = GroupKind::new(&kind.group, &kind.kind);
        if gk.group.as_ref() == kind.group || !served.contains_key(&gk) {
            served.insert(gk, kind.clone());
        }
    }
    served
}

/// The stored form: JSON of a list of [`ServedKind`].
pub fn decode_served(json: &[u8]) -> Option<BTreeMap<GroupKind, ServedKind>> {
    let kinds: Vec<ServedKind> = serde_json::from_slice(json).ok()?;
    Some(index_served(&kinds))
}
