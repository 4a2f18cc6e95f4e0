//! What is done to a fleet: drawn from a seed beforehand, so that a history can be shortened and run again.

use crate::builds::Builds;
use crate::closeup::{self, Generation};
use crate::dice::Dice;
use crate::link::Mode;
use crate::objects::{CLUSTERS, FileState, Kind, POLICIES, Refusal, SLOTS};

/// One thing that is done. What does not apply when its time comes is skipped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Act {
    /// A user creates or changes an object.
    Write {
        cluster: usize,
        kind: Kind,
        slot: usize,
        selected: bool,
    },
    Delete {
        cluster: usize,
        kind: Kind,
        slot: usize,
    },
    /// Deleted, and created under the same name at once.
    Recreate {
        cluster: usize,
        kind: Kind,
        slot: usize,
    },
    /// Somebody changes a field of a copy that is ours.
    Drift {
        source: usize,
        kind: Kind,
        slot: usize,
        target: usize,
    },
    /// Somebody adds an annotation to a copy.
    Annotate {
        source: usize,
        kind: Kind,
        slot: usize,
        target: usize,
    },
    DeleteCopy {
        source: usize,
        kind: Kind,
        slot: usize,
        target: usize,
    },
    /// Somebody has an object of that name, before or after lockstep.
    Foreign {
        source: usize,
        kind: Kind,
        slot: usize,
        target: usize,
    },
    /// Somebody copies the marks of a copy to an object of another name.
    Forge {
        source: usize,
        kind: Kind,
        slot: usize,
        target: usize,
    },
    /// Somebody copies a copy with its marks to an object of another name, and makes them name that.
    Counterfeit {
        source: usize,
        kind: Kind,
        slot: usize,
        target: usize,
    },
    /// Somebody carries a copy, as it is, to another cluster, as a tool for backups does.
    Carry {
        source: usize,
        kind: Kind,
        slot: usize,
        target: usize,
        to: usize,
    },
    StripMarks {
        source: usize,
        kind: Kind,
        slot: usize,
        target: usize,
    },
    /// Another hub, with another key, has a copy of its own of that name; or takes it away.
    OtherHub {
        source: usize,
        kind: Kind,
        slot: usize,
        target: usize,
        goes: bool,
    },
    /// Somebody, or another hub, is faster: where our next create under this name arrives there is an object already, since one
    /// revision.
    Ambush {
        source: usize,
        kind: Kind,
        slot: usize,
        target: usize,
        hub: bool,
        /// The agent is killed before it hears of it, and starts after so many ms.
        kill: Option<u32>,
    },
    DeleteNamespace {
        cluster: usize,
        for_ms: u32,
    },
    DeleteDefinition {
        cluster: usize,
        for_ms: u32,
    },
    /// The history is forgotten, and the watch caches are empty.
    Compact {
        cluster: usize,
    },
    RestartApi {
        cluster: usize,
    },
    Save {
        cluster: usize,
    },
    Restore {
        cluster: usize,
        bumped: bool,
    },
    Refuse {
        cluster: usize,
        verb: &'static str,
        code: u16,
        times: u32,
    },
    LoseReplies {
        cluster: usize,
        verb: &'static str,
        times: u32,
    },
    LoseRequests {
        cluster: usize,
        times: u32,
    },
    Silence {
        cluster: usize,
        for_ms: u32,
    },
    Forbid {
        cluster: usize,
        verb: &'static str,
        kind: Kind,
        for_ms: u32,
    },
    Network {
        agent: usize,
        to_hub: bool,
        mode: Mode,
        for_ms: u32,
    },
    Slow {
        agent: usize,
        to_hub: bool,
        for_ms: u32,
    },
    Reset {
        agent: usize,
        to_hub: bool,
    },
    KillAgent {
        agent: usize,
        for_ms: u32,
    },
    /// Killed when the API server has carried out its next write and before it hears of it.
    KillAgentAtWrite {
        agent: usize,
        for_ms: u32,
    },
    KillHub {
        for_ms: u32,
    },
    /// Killed while it cannot commit.
    KillHubAtCommit {
        after_ms: u32,
        for_ms: u32,
    },
    FillDisk {
        for_ms: u32,
    },
    LoseHubData {
        for_ms: u32,
    },
    /// A backup of the hub's data is made.
    BackUpHub,
    /// The hub's data is that of the last backup.
    RestoreHub {
        for_ms: u32,
    },
    ArchiveAway {
        for_ms: u32,
    },
    Policy {
        policy: usize,
        state: FileState,
        for_ms: u32,
    },
    /// Of the hub, or of an agent's process.
    ClockJump {
        who: usize,
        by_ms: i64,
    },
    Approve,
    /// An agent says that it is another cluster's.
    Impostor {
        agent: usize,
        claims: usize,
    },
}

/// A history to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Of everything that is drawn while it runs.
    pub(crate) seed: u64,
    /// Kubernetes versions of the clusters.
    pub(crate) versions: [(u32, u32); 3],
    /// Deletes that the policies' budgets allow.
    pub(crate) budget: u32,
    /// Their grace period, in seconds.
    pub(crate) grace_s: u32,
    /// What the last cluster's agent refuses.
    pub(crate) refusal: Refusal,
    /// Does what was on its way to the hub still arrive when the connection has broken, as in a half-open one?
    pub(crate) lingers: bool,
    pub(crate) builds: Builds,
    /// When each act happens, ms after the first sync; in order.
    pub(crate) acts: Vec<(u32, Act)>,
}

const VERSIONS: [(u32, u32); 4] = [(1, 20), (1, 24), (1, 29), (1, 34)];
const VERBS: [&str; 6] = ["list", "watch", "get", "apply", "delete", "discovery"];
/// Mean time between two acts, ms.
const SPACING: u32 = 150;
/// Of 100 acts, where there is another hub.
const OTHER_HUB: u32 = 6;
/// Of a disturbance.
const DURATION: (u32, u32) = (50, 9_000);

impl Plan {
    /// Draws a history of so many acts.
    #[must_use]
    pub fn draw(seed: u64, acts: usize) -> Self {
        let mut dice = Dice::new(seed, 1);
        let versions = std::array::from_fn(|_| dice.pick(&VERSIONS));
        let budget = dice.pick(&[1, 3, 3, 10, 1_000]);
        // Most histories have a few kinds of trouble, so that each is met in calm, too.
        let calm = dice.chance(15);
        let trouble = if calm { 0 } else { dice.between(5, 45) };
        let allowed: Vec<usize> = (0..FAULTS).filter(|_| dice.chance(45)).collect();
        let mut at = 0;
        let acts = (0..acts)
            .map(|_| {
                at += dice.between(0, 2 * SPACING);
                let act = if !allowed.is_empty() && dice.chance(trouble) {
                    let fault = dice.pick(&allowed);
                    draw_fault(fault, &mut dice, &EVERYWHERE)
                } else {
                    draw_use(&mut dice)
                };
                (at, act)
            })
            .collect();
        let lingers = seed >= AMBUSHES_FROM && Dice::new(seed, 5).chance(50);
        let refusal = Refusal::Nothing;
        let builds = Builds::of(seed);
        Self { seed, versions, budget, grace_s: 0, refusal, lingers, builds, acts }.among_others(seed)
    }

    /// Some fleets have an agent that refuses something or a grace period, some clusters another hub. Drawn beside all
    /// else, so that seeds without them stay what they were.
    fn among_others(mut self, seed: u64) -> Self {
        self.grace_s = if seed % 7 == 3 { 2 } else { 0 };
        let kind = seed % 11;
        self.refusal = match kind {
            0 | 10 => Refusal::Secrets,
            2 => Refusal::Doomed,
            _ => Refusal::Nothing,
        };
        if matches!(kind, 6 | 9 | 10) {
            let mut dice = Dice::new(seed, 2);
            for (_, act) in &mut self.acts {
                if dice.chance(OTHER_HUB) {
                    let (source, kind, slot, target) = copy(&mut dice);
                    *act = Act::OtherHub { source, kind, slot, target, goes: dice.chance(30) };
                }
            }
        }
        if seed < REWINDS_FROM {
            return self;
        }
        let plan = if is_close_up(seed) {
            let kind = match seed {
                CARRIED_FROM.. => Generation::Third,
                AMBUSHES_FROM.. => Generation::Second,
                _ => Generation::First,
            };
            let acts = closeup::draw(&mut Dice::new(seed, 4), self.acts.len(), kind);
            Self { acts, ..self }
        } else if seed % 5 == 1 {
            self.with_rewinds(&mut Dice::new(seed, 3))
        } else {
            self
        };
        let backups = seed >= BACKUPS_FROM && seed % 3 == 1;
        if backups { plan.with_backups(&mut Dice::new(seed, 6)) } else { plan }.without_unseen_rewinds()
    }

    /// The hub's data is backed up, and that comes back later, once or twice.
    fn with_backups(mut self, dice: &mut Dice) -> Self {
        let half = self.acts.len() / 2;
        if half == 0 {
            return self;
        }
        self.acts[dice.index(half)].1 = Act::BackUpHub;
        for _ in 0..dice.between(1, 2) {
            self.acts[half + dice.index(half)].1 = Act::RestoreHub { for_ms: dice.between(10, 2_000) };
        }
        self
    }

    /// What was saved a moment ago is not restored: nobody can notice that in every case.
    fn without_unseen_rewinds(mut self) -> Self {
        let mut saved = [0; CLUSTERS.len()];
        for (at, act) in &mut self.acts {
            match *act {
                Act::Save { cluster } => saved[cluster] = *at,
                Act::Restore { cluster, .. } if *at < saved[cluster] + LONG_AGO => {
                    *act = Act::RestartApi { cluster };
                }
                _ => {}
            }
        }
        self
    }

    /// Clusters are restored to what they were so long ago that it must be noticed. By chance that is rare.
    fn with_rewinds(mut self, dice: &mut Dice) -> Self {
        let last = self.acts.last().map_or(0, |(at, _)| *at);
        for _ in 0..dice.between(1, 3) {
            let (cluster, bumped) = (dice.index(CLUSTERS.len()), dice.chance(50));
            let saved = dice.between(0, last.saturating_sub(LONG_AGO));
            let restored = saved + dice.between(LONG_AGO, LONG_AGO + last / 3);
            for (at, new) in [(saved, Act::Save { cluster }), (restored, Act::Restore { cluster, bumped })] {
                if let Some((_, act)) = self.acts.iter_mut().find(|(then, _)| *then >= at) {
                    *act = new;
                }
            }
        }
        self
    }

    /// Are restores that nobody can notice left out?
    pub(crate) fn noticed_only(&self) -> bool {
        self.seed >= REWINDS_FROM
    }

    /// How many acts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.acts.len()
    }

    /// Is there nothing to do?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.acts.is_empty()
    }

    /// The same without these acts.
    #[must_use]
    pub fn without(&self, from: usize, count: usize) -> Self {
        let mut acts = self.acts.clone();
        acts.drain(from..(from + count).min(acts.len()));
        Self { acts, ..self.clone() }
    }
}

/// Seeds below have rewinds by chance only, also to a moment ago: they stay what they were.
const REWINDS_FROM: u64 = 20_000;
/// From here on every second seed is a close-up.
const CLOSE_UPS_FROM: u64 = 60_000;
/// A restore to a moment before that is noticed (docs/decisions/0008-rewinds.md), ms.
const LONG_AGO: u32 = 16_000;
/// From here on close-ups have ambushes and restores that must be noticed, and half of all histories half-open connections.
const AMBUSHES_FROM: u64 = 70_000;

/// From here on a third of all histories brings an older state of the hub back.
const BACKUPS_FROM: u64 = 80_000;

/// From here on close-ups have copies that somebody carries elsewhere, and marks that were made to fit.
const CARRIED_FROM: u64 = 90_000;

fn is_close_up(seed: u64) -> bool {
    seed >= CLOSE_UPS_FROM && seed % 2 == 1
}

/// Where faults are drawn, and for how long.
pub(crate) struct Scope<'a> {
    /// One of them each.
    pub(crate) clusters: &'a [usize],
    /// Of a disturbance, ms: from and to.
    pub(crate) duration: (u32, u32),
}

const EVERYWHERE: Scope<'static> = Scope { clusters: &[0, 1, 2], duration: DURATION };

/// A source object: cluster, kind and slot that some policy is about.
fn source(dice: &mut Dice) -> (usize, Kind, usize) {
    let policy = &POLICIES[dice.index(POLICIES.len())];
    (policy.source, policy.kinds[dice.index(policy.kinds.len())], dice.index(SLOTS))
}

/// A copy: the same, and a target of that policy.
pub(crate) fn copy(dice: &mut Dice) -> (usize, Kind, usize, usize) {
    let policy = &POLICIES[dice.index(POLICIES.len())];
    let kind = policy.kinds[dice.index(policy.kinds.len())];
    (policy.source, kind, dice.index(SLOTS), policy.targets[dice.index(policy.targets.len())])
}

/// What users do.
fn draw_use(dice: &mut Dice) -> Act {
    let (cluster, kind, slot) = source(dice);
    match dice.between(0, 99) {
        0..=54 => Act::Write { cluster, kind, slot, selected: !dice.chance(10) },
        55..=69 => Act::Delete { cluster, kind, slot },
        70..=74 => Act::Recreate { cluster, kind, slot },
        roll => {
            let (source, kind, slot, target) = copy(dice);
            match roll {
                75..=81 => Act::Drift { source, kind, slot, target },
                82..=85 => Act::Annotate { source, kind, slot, target },
                86..=90 => Act::DeleteCopy { source, kind, slot, target },
                91..=93 => Act::Foreign { source, kind, slot, target },
                94..=95 => Act::Forge { source, kind, slot, target },
                96..=97 => Act::StripMarks { source, kind, slot, target },
                _ => Act::Approve,
            }
        }
    }
}

/// How many kinds of faults there are.
pub(crate) const FAULTS: usize = 24;

/// Numbers of some of them.
pub(crate) mod fault {
    pub(crate) const NAMESPACE: usize = 0;
    pub(crate) const DEFINITION: usize = 1;
    pub(crate) const COMPACT: usize = 2;
    pub(crate) const SILENCE: usize = 9;
    pub(crate) const FORBID: usize = 10;
    pub(crate) const HOLE: usize = 12;
    pub(crate) const SLOW: usize = 13;
    pub(crate) const RESET: usize = 14;
    pub(crate) const KILL_AGENT: usize = 15;
    pub(crate) const KILL_AT_WRITE: usize = 16;
    pub(crate) const KILL_HUB: usize = 17;
    pub(crate) const KILL_AT_COMMIT: usize = 18;
    pub(crate) const DISK: usize = 19;
    pub(crate) const LOSE_DATA: usize = 20;
    pub(crate) const POLICY: usize = 22;
}

pub(crate) fn draw_fault(fault: usize, dice: &mut Dice, scope: &Scope<'_>) -> Act {
    let cluster = dice.pick(scope.clusters);
    let agent = cluster;
    let for_ms = dice.between(scope.duration.0, scope.duration.1);
    let times = dice.between(1, 5);
    let to_hub = dice.chance(50);
    match fault {
        fault::NAMESPACE => Act::DeleteNamespace { cluster: dice.index(2), for_ms },
        fault::DEFINITION => Act::DeleteDefinition { cluster: dice.between(1, 2) as usize, for_ms },
        fault::COMPACT => Act::Compact { cluster },
        3 => Act::RestartApi { cluster },
        4 => Act::Save { cluster },
        5 => Act::Restore { cluster, bumped: dice.chance(50) },
        6 => {
            let code = dice.pick(&[429, 500, 503, 504]);
            Act::Refuse { cluster, verb: dice.pick(&VERBS), code, times }
        }
        7 => Act::LoseReplies { cluster, verb: dice.pick(&["apply", "delete", "list"]), times },
        8 => Act::LoseRequests { cluster, times },
        fault::SILENCE => Act::Silence { cluster, for_ms },
        fault::FORBID => {
            let verb = dice.pick(&["list", "watch", "patch", "delete", "get"]);
            Act::Forbid { cluster, verb, kind: dice.pick(&Kind::ALL), for_ms }
        }
        11 => Act::Network { agent, to_hub, mode: Mode::Cut, for_ms },
        fault::HOLE => Act::Network { agent, to_hub, mode: Mode::Hole, for_ms },
        fault::SLOW => Act::Slow { agent, to_hub, for_ms },
        fault::RESET => Act::Reset { agent, to_hub },
        fault::KILL_AGENT => Act::KillAgent { agent, for_ms },
        fault::KILL_AT_WRITE => Act::KillAgentAtWrite { agent, for_ms },
        fault::KILL_HUB => Act::KillHub { for_ms },
        fault::KILL_AT_COMMIT => Act::KillHubAtCommit { after_ms: dice.between(0, 40), for_ms },
        fault::DISK => Act::FillDisk { for_ms },
        fault::LOSE_DATA => Act::LoseHubData { for_ms },
        21 => Act::ArchiveAway { for_ms },
        fault::POLICY => {
            let state = dice.pick(&[
                FileState::Suspended,
                FileState::Broken,
                FileState::Removed,
                FileState::Narrowed,
            ]);
            Act::Policy { policy: dice.index(POLICIES.len()), state, for_ms }
        }
        _ => match dice.chance(70) {
            true => {
                Act::ClockJump { who: dice.index(4), by_ms: i64::from(dice.between(0, 120_000)) - 60_000 }
            }
            false => Act::Impostor { agent, claims: (agent + 1) % CLUSTERS.len() },
        },
    }
}

impl Act {
    /// The kind of fault, for the table of what was met. None: ordinary use.
    pub(crate) fn fault(&self) -> Option<String> {
        match self {
            Self::Write { .. }
            | Self::Delete { .. }
            | Self::Recreate { .. }
            | Self::Drift { .. }
            | Self::Annotate { .. }
            | Self::DeleteCopy { .. }
            | Self::Approve => None,
            Self::Network { to_hub, mode, .. } => {
                Some(format!("{mode:?} to {}", if *to_hub { "hub" } else { "API server" }))
            }
            Self::Restore { bumped, .. } => {
                Some(format!("Restore {}", if *bumped { "bumped" } else { "plain" }))
            }
            Self::Policy { state, .. } => Some(format!("Policy {state:?}")),
            Self::Refuse { code, .. } => Some(format!("Refuse {code}")),
            other => {
                let text = format!("{other:?}");
                Some(text.split(' ').next().unwrap_or_default().to_owned())
            }
        }
    }
}
