//! Which faults there are, and when they come: a pure function of the seed and the length of the run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::dice::Dice;
use crate::testbed::{CLUSTERS, Component, RestoreForm};

/// On average so many faults share a run, within the bounds below.
const FAULTS: u32 = 60;
/// Faults follow each other after this long, on average: closer, and nothing works long enough to break.
const GAP_LEAST: Duration = Duration::from_millis(1300);
const GAP_MOST: Duration = Duration::from_secs(4);
/// No fault at the very beginning: it would only delay the first copies.
const CALM: Duration = Duration::from_secs(3);
/// Restoring takes etcd and an API server about this long to come back.
const RESTORE: Duration = Duration::from_secs(12);
/// Between a snapshot and its restore. The agents' Leases are written every ten seconds: a restore to less than that ago,
/// with bumped revisions, cannot be recognised (docs/reliability.md).
const REWIND_LEAST: Duration = Duration::from_secs(15);
const REWIND_MOST: Duration = Duration::from_secs(40);
/// Runs shorter than this have no room for the freeze of a minute.
const LONG_RUN: Duration = Duration::from_secs(150);
const LONG_FREEZE: Duration = Duration::from_secs(60);
/// Tries to find a victim that is not being hurt already.
const DRAWS: u32 = 4;

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Hub,
    /// Of the cluster with this index.
    Agent(usize),
    Server(usize, Component),
}

/// A connection that goes through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wire {
    /// From the agent of a cluster to the hub.
    Hub(usize),
    /// From the agent of a cluster to its API server.
    Api(usize),
}

/// What a wire does to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Connections are reset, and new ones too.
    Cut,
    /// Connections stay open, new ones are accepted, and nothing moves.
    BlackHole,
    /// A tenth of a second for every few KiB.
    Slow,
}

/// A right of an agent that is withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    ReadConfigMaps,
    WriteConfigMaps,
}

/// What happens to a policy file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Edit {
    /// It cannot be read as a policy.
    Broken,
    Suspended,
    /// It no longer names its last target.
    TargetRemoved,
    /// The file is removed.
    Removed,
}

/// Something bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    Kill(Part),
    Freeze(Part),
    Trouble(Wire, Trouble),
    /// etcd is compacted; with `true` its API server is killed too, whose cache would hide it.
    Compact(usize, bool),
    Save(usize),
    Restore(usize, RestoreForm),
    /// The CustomResourceDefinition of a cluster is deleted, with all objects of the kind, and made again; with
    /// `true` its agent is away meanwhile and sees only the outcome.
    Definition(usize, bool),
    /// The same for a namespace of the first cluster.
    Namespace(bool),
    Rights(usize, Right),
    Policy(Edit),
    /// The hub is killed and its data directory removed.
    HubData,
}

/// What is hurt by at most one fault at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Victim {
    Hub,
    Agent(usize),
    Plane(usize),
    Wire(Wire),
    Definition(usize),
    Namespace,
    Rights(usize),
    Policies,
}

/// A fault in the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    /// Since the start of the chaos.
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    pub(super) fault: Fault,
}

impl Fault {
    pub(super) fn victim(self) -> Victim {
        match self {
            Self::Kill(Part::Hub) | Self::Freeze(Part::Hub) | Self::HubData => Victim::Hub,
            Self::Kill(Part::Agent(c)) | Self::Freeze(Part::Agent(c)) => Victim::Agent(c),
            Self::Kill(Part::Server(c, _)) | Self::Freeze(Part::Server(c, _)) => Victim::Plane(c),
            Self::Compact(c, _) | Self::Save(c) | Self::Restore(c, _) => Victim::Plane(c),
            Self::Trouble(wire, _) => Victim::Wire(wire),
            Self::Definition(c, _) => Victim::Definition(c),
            Self::Namespace(_) => Victim::Namespace,
            Self::Rights(c, _) => Victim::Rights(c),
            Self::Policy(_) => Victim::Policies,
        }
    }

    /// For counting: the fault without whom it hits.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill(Part::Hub) => "kill hub",
            Self::Kill(Part::Agent(_)) => "kill agent",
            Self::Kill(Part::Server(_, Component::Etcd)) => "kill etcd",
            Self::Kill(Part::Server(..)) => "kill API server",
            Self::Freeze(Part::Hub) => "freeze hub",
            Self::Freeze(Part::Agent(_)) => "freeze agent",
            Self::Freeze(Part::Server(_, Component::Etcd)) => "freeze etcd",
            Self::Freeze(Part::Server(..)) => "freeze API server",
            Self::Trouble(Wire::Hub(_), Trouble::Cut) => "cut agent-hub",
            Self::Trouble(Wire::Hub(_), Trouble::BlackHole) => "black hole agent-hub",
            Self::Trouble(Wire::Hub(_), Trouble::Slow) => "slow agent-hub",
            Self::Trouble(Wire::Api(_), Trouble::Cut) => "cut agent-API server",
            Self::Trouble(Wire::Api(_), Trouble::BlackHole) => "black hole agent-API server",
            Self::Trouble(Wire::Api(_), Trouble::Slow) => "slow agent-API server",
            Self::Compact(_, false) => "compact etcd",
            Self::Compact(_, true) => "compact etcd, kill API server",
            Self::Save(_) => "save etcd",
            Self::Restore(_, RestoreForm::Plain) => "restore etcd, plain",
            Self::Restore(_, RestoreForm::Bumped) => "restore etcd, bumped",
            Self::Definition(_, false) => "delete definition",
            Self::Definition(_, true) => "delete definition unseen",
            Self::Namespace(false) => "delete namespace",
            Self::Namespace(true) => "delete namespace unseen",
            Self::Rights(_, Right::ReadConfigMaps) => "withdraw right to read",
            Self::Rights(_, Right::WriteConfigMaps) => "withdraw right to write",
            Self::Policy(Edit::Broken) => "break policy",
            Self::Policy(Edit::Suspended) => "suspend policy",
            Self::Policy(Edit::TargetRemoved) => "remove target from policy",
            Self::Policy(Edit::Removed) => "remove policy",
            Self::HubData => "remove data of hub",
        }
    }

    fn cluster(self) -> Option<usize> {
        match self {
            Self::Kill(part) | Self::Freeze(part) => match part {
                Part::Hub => None,
                Part::Agent(c) | Part::Server(c, _) => Some(c),
            },
            Self::Trouble(Wire::Hub(c) | Wire::Api(c), _) => Some(c),
            Self::Compact(c, _) | Self::Save(c) | Self::Restore(c, _) => Some(c),
            Self::Definition(c, _) | Self::Rights(c, _) => Some(c),
            Self::Namespace(_) => Some(0),
            Self::Policy(_) | Self::HubData => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cluster().and_then(|index| CLUSTERS.get(index)) {
            Some(cluster) => write!(f, "{} ({cluster})", self.name()),
            None => f.write_str(self.name()),
        }
    }
}

/// All faults of a run, in the order of their times.
pub(super) fn schedule(seed: u64, length: Duration) -> Vec<Event> {
    let mut dice = Dice::new(seed, "faults");
    let gap = (length / FAULTS).clamp(GAP_LEAST, GAP_MOST);
    let mut plan = Plan { length, busy: BTreeMap::new(), pending: BTreeMap::new(), events: vec![] };
    if length >= LONG_RUN {
        let latest = length - LONG_FREEZE - CALM;
        let victim = Part::Server(1 + dice.below(2), Component::ApiServer);
        let at = dice.between(CALM, latest);
        plan.take(Event { at, lasts: LONG_FREEZE, fault: Fault::Freeze(victim) });
    }
    let mut bag = vec![];
    let mut at = CALM.min(length / 10);
    while at < length {
        if bag.is_empty() {
            bag = full_bag(&mut dice);
        }
        if let Some(kind) = bag.pop() {
            for _ in 0..DRAWS {
                let fault = kind.draw(&mut dice);
                if plan.add(&mut dice, at, fault) {
                    break;
                }
            }
        }
        at += dice.between(gap / 2, gap * 3 / 2);
    }
    plan.events.sort_by_key(|event| event.at);
    plan.events
}

/// A kind of fault, before it has a victim.
#[derive(Debug, Clone, Copy)]
enum Draw {
    Kill(fn(usize) -> Part),
    Freeze(fn(usize) -> Part),
    Trouble(fn(usize) -> Wire, Trouble),
    Compact(bool),
    Restore(RestoreForm),
    Definition(bool),
    Namespace(bool),
    Rights(Right),
    Policy(Edit),
    HubData,
}

/// Every kind once or more, shuffled: a run that is long enough has them all.
fn full_bag(dice: &mut Dice) -> Vec<Draw> {
    let etcd: fn(usize) -> Part = |c| Part::Server(c, Component::Etcd);
    let api_server: fn(usize) -> Part = |c| Part::Server(c, Component::ApiServer);
    let hub: fn(usize) -> Part = |_| Part::Hub;
    let mut bag = vec![
        Draw::Compact(false),
        Draw::Compact(true),
        Draw::Restore(RestoreForm::Plain),
        Draw::Restore(RestoreForm::Bumped),
        Draw::Definition(false),
        Draw::Definition(true),
        Draw::Namespace(false),
        Draw::Namespace(true),
        Draw::Rights(Right::ReadConfigMaps),
        Draw::Rights(Right::WriteConfigMaps),
        Draw::Policy(Edit::Broken),
        Draw::Policy(Edit::Suspended),
        Draw::Policy(if dice.chance(50) { Edit::TargetRemoved } else { Edit::Removed }),
    ];
    for part in [hub, Part::Agent, api_server, etcd] {
        bag.extend([Draw::Kill(part), Draw::Freeze(part)]);
    }
    for wire in [Wire::Hub, Wire::Api] {
        let troubles = [Trouble::Cut, Trouble::BlackHole, Trouble::Slow];
        bag.extend(troubles.map(|trouble| Draw::Trouble(wire, trouble)));
    }
    if dice.chance(40) {
        bag.push(Draw::HubData);
    }
    dice.shuffle(&mut bag);
    bag
}

impl Draw {
    fn draw(self, dice: &mut Dice) -> Fault {
        let cluster = dice.below(CLUSTERS.len());
        match self {
            Self::Kill(part) => Fault::Kill(part(cluster)),
            Self::Freeze(part) => Fault::Freeze(part(cluster)),
            Self::Trouble(wire, trouble) => Fault::Trouble(wire(cluster), trouble),
            Self::Compact(kill) => Fault::Compact(cluster, kill),
            Self::Restore(form) => Fault::Restore(cluster, form),
            Self::Definition(unseen) => Fault::Definition(cluster, unseen),
            Self::Namespace(unseen) => Fault::Namespace(unseen),
            Self::Rights(right) => Fault::Rights(cluster, right),
            Self::Policy(edit) => Fault::Policy(edit),
            Self::HubData => Fault::HubData,
        }
    }
}

struct Plan {
    length: Duration,
    busy: BTreeMap<Victim, Vec<(Duration, Duration)>>,
    /// Until when a cluster has a snapshot that is yet to be restored.
    pending: BTreeMap<usize, Duration>,
    events: Vec<Event>,
}

impl Plan {
    /// Adds a fault unless its victim is being hurt at that time. A restore needs a snapshot some time before.
    fn add(&mut self, dice: &mut Dice, at: Duration, fault: Fault) -> bool {
        let (least, most) = self.lasting(fault);
        let lasts = dice.between(least, most).min(self.length / 4);
        let Fault::Restore(cluster, _) = fault else {
            return self.take(Event { at, lasts, fault });
        };
        let restored = at + dice.between(REWIND_LEAST, (self.length / 4).clamp(REWIND_MOST / 2, REWIND_MOST));
        let save = Event { at, lasts: Duration::from_secs(2), fault: Fault::Save(cluster) };
        let restore = Event { at: restored, lasts: RESTORE, fault };
        // One snapshot of a cluster at a time: a second restore would take up a history that the first has ended.
        let pending = self.pending.get(&cluster).is_some_and(|until| *until > at);
        if restored >= self.length || pending || !self.is_free(&save) || !self.is_free(&restore) {
            return false;
        }
        self.pending.insert(cluster, restored + RESTORE);
        self.take(save) && self.take(restore)
    }

    fn lasting(&self, fault: Fault) -> (Duration, Duration) {
        let (least, most) = match fault {
            Fault::Kill(_) => (0, 8),
            Fault::Freeze(_) => (2, 15),
            Fault::Trouble(_, Trouble::Cut) => (1, 10),
            Fault::Trouble(_, Trouble::BlackHole) => (3, 20),
            Fault::Trouble(_, Trouble::Slow) => (5, 20),
            Fault::Compact(..) | Fault::Save(_) | Fault::HubData => (0, 3),
            Fault::Restore(..) | Fault::Definition(..) | Fault::Namespace(_) => (3, 10),
            Fault::Rights(..) | Fault::Policy(_) => (3, 15),
        };
        (Duration::from_secs(least), Duration::from_secs(most))
    }

    fn take(&mut self, event: Event) -> bool {
        let free = self.is_free(&event);
        if free {
            let busy = self.busy.entry(event.fault.victim()).or_default();
            busy.push((event.at, event.at + event.lasts));
            self.events.push(event);
        }
        free
    }

    fn is_free(&self, event: &Event) -> bool {
        let end = event.at + event.lasts;
        let busy = self.busy.get(&event.fault.victim()).map(Vec::as_slice).unwrap_or_default();
        busy.iter().all(|(from, to)| end < *from || *to < event.at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{SHORT_LENGTH, SHORT_SEED};
    use super::*;

    #[test]
    fn a_seed_gives_one_schedule() {
        let length = Duration::from_secs(180);
        assert_eq!(schedule(42, length), schedule(42, length));
        assert_ne!(schedule(42, length), schedule(43, length));
    }

    #[test]
    fn three_minutes_have_every_kind_and_no_victim_is_hurt_twice_at_once() {
        for seed in 0..50 {
            let length = Duration::from_secs(180);
            let events = schedule(seed, length);
            let names: BTreeSet<_> = events.iter().map(|event| event.fault.name()).collect();
            assert!(names.len() >= 22, "seed {seed} has only {names:?}");
            assert!(events.iter().all(|event| event.at < length));
            for (n, event) in events.iter().enumerate() {
                for later in &events[n + 1..] {
                    let apart =
                        event.fault.victim() != later.fault.victim() || later.at > event.at + event.lasts;
                    assert!(apart, "seed {seed}: {event:?} and {later:?}");
                }
            }
        }
    }

    #[test]
    fn the_short_run_has_the_faults_that_matter_most() {
        let events = schedule(SHORT_SEED, SHORT_LENGTH);
        let names: BTreeSet<_> = events.iter().map(|event| event.fault.name()).collect();
        for name in [
            "kill hub",
            "kill agent",
            "kill API server",
            "kill etcd",
            "freeze agent",
            "freeze API server",
            "cut agent-API server",
            "black hole agent-hub",
            "compact etcd, kill API server",
            "restore etcd, plain",
            "restore etcd, bumped",
            "remove data of hub",
            "delete namespace",
            "withdraw right to read",
        ] {
            assert!(names.contains(name), "choose another seed: {name} is not in {names:?}");
        }
    }

    #[test]
    fn a_restore_has_a_snapshot_before_it() {
        for seed in 0..50 {
            let mut saved = BTreeSet::new();
            for event in schedule(seed, Duration::from_secs(180)) {
                match event.fault {
                    Fault::Save(cluster) => drop(saved.insert(cluster)),
                    Fault::Restore(cluster, _) => assert!(saved.contains(&cluster), "seed {seed}"),
                    _ => {}
                }
            }
        }
    }
}
