//! Close-ups: everything happens to one or two copies, in quick succession, with a few kinds of use and of trouble each.
//!
//! What breaks only where three things meet within milliseconds is drawn here often, and among the names of a whole fleet
//! hardly ever. Leaving out most features of each test at random, and other ones in each, is swarm testing (Groce and
//! others, ISSTA 2012).

use crate::dice::Dice;
use crate::objects::{CLUSTERS, Kind, NAMESPACES, POLICIES};
use crate::plan::{Act, FAULTS, Scope, copy, draw_fault, fault};

/// What users and others do beside writing to the source; each history has some of it.
const USES: [Use; 9] = [
    Use::Unselect,
    Use::Delete,
    Use::Recreate,
    Use::Drift,
    Use::DeleteCopy,
    Use::Foreign,
    Use::Forge,
    Use::StripMarks,
    Use::OtherHub,
];
/// And, from the second generation on:
const AMBUSHES: [Use; 2] = [Use::Ambush, Use::AmbushOfHub];
/// And from the third on:
const FORGERIES: [Use; 2] = [Use::Counterfeit, Use::Carry];
/// Of 100 close-ups from the second generation on, those in which a cluster is restored to what it was before a pause.
const RESTORED: u32 = 35;
/// How long such a pause is, ms: the counter in an agent's Lease moves on twice.
const PAUSE_MS: (u32, u32) = (32_000, 45_000);
/// Of 100 close-ups from the second generation on, those with two faults of which one is worst in the moment of the other.
const PAIRED: u32 = 50;
/// Such pairs, as [`draw_fault`] numbers them.
const PAIRS: [[usize; 2]; 14] = [
    // Definitions and namespaces go while a watch is silent, agents are cut off or the hub is away.
    [fault::DEFINITION, fault::SILENCE],
    [fault::DEFINITION, fault::HOLE],
    [fault::NAMESPACE, fault::SILENCE],
    [fault::NAMESPACE, fault::KILL_HUB],
    // What would tell is forgotten.
    [fault::KILL_AT_WRITE, fault::COMPACT],
    [fault::KILL_AGENT, fault::COMPACT],
    [fault::HOLE, fault::COMPACT],
    // A connection breaks while both ends find out what the other has.
    [fault::LOSE_DATA, fault::RESET],
    [fault::SLOW, fault::RESET],
    // Policies change while somebody is away.
    [fault::POLICY, fault::KILL_HUB],
    [fault::POLICY, fault::KILL_AT_COMMIT],
    [fault::POLICY, fault::KILL_AGENT],
    [fault::POLICY, fault::FORBID],
    [fault::DISK, fault::KILL_AT_COMMIT],
];
/// Mean times between two acts, ms.
const SPACINGS: [u32; 3] = [15, 50, 150];
/// Of disturbances.
const DURATIONS: [(u32, u32); 3] = [(10, 300), (50, 2_000), (50, 9_000)];

#[derive(Clone, Copy)]
enum Use {
    Write,
    Unselect,
    Delete,
    Recreate,
    Drift,
    DeleteCopy,
    Foreign,
    Forge,
    StripMarks,
    OtherHub,
    Ambush,
    AmbushOfHub,
    Counterfeit,
    Carry,
    Approve,
}

/// What close-ups may have: seeds of before stay what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Generation {
    First,
    /// With ambushes, restores that must be noticed, and faults that concern what happens.
    Second,
    /// With copies that are carried elsewhere, and marks that were made to fit.
    Third,
}

/// A copy: cluster of its source, kind, slot, target.
type Stage = (usize, Kind, usize, usize);

/// Draws so many acts.
pub(crate) fn draw(dice: &mut Dice, acts: usize, generation: Generation) -> Vec<(u32, Act)> {
    let second = generation >= Generation::Second;
    let stages: Vec<Stage> = (0..dice.between(1, 2)).map(|_| copy(dice)).collect();
    let mut uses = vec![Use::Write, Use::Write];
    uses.extend(USES.into_iter().filter(|_| dice.chance(40)));
    if second {
        uses.extend(AMBUSHES.into_iter().filter(|_| dice.chance(40)));
    }
    if generation >= Generation::Third {
        uses.extend(FORGERIES.into_iter().filter(|_| dice.chance(40)));
    }
    if dice.chance(30) {
        uses.push(Use::Approve);
    }
    let mut faults: Vec<usize> = (0..dice.between(1, 4)).map(|_| dice.index(FAULTS)).collect();
    if second && dice.chance(PAIRED) {
        faults.truncate(2);
        faults.extend(dice.pick(&PAIRS));
    }
    let (trouble, spacing) = (dice.between(10, 60), dice.pick(&SPACINGS));
    let duration = dice.pick(&DURATIONS);
    let mut at = 0;
    let acts = (0..acts)
        .map(|_| {
            at += dice.between(0, 2 * spacing);
            let stage = dice.pick(&stages);
            if dice.chance(trouble) {
                let clusters = [stage.3, stage.3, stage.0];
                let fault = dice.pick(&faults);
                let fault = near(stage, draw_fault(fault, dice, &Scope { clusters: &clusters, duration }));
                (at, if second { nearer(stage, fault) } else { fault })
            } else {
                (at, used(dice.pick(&uses), stage, dice))
            }
        })
        .collect();
    if second && dice.chance(RESTORED) { with_restore(acts, stages[0], dice) } else { acts }
}

/// A cluster is saved, a while later nothing happens, and soon after that it is as it was.
fn with_restore(mut acts: Vec<(u32, Act)>, stage: Stage, dice: &mut Dice) -> Vec<(u32, Act)> {
    let cluster = dice.pick(&[stage.0, stage.3]);
    let third = acts.len() / 3;
    if third == 0 {
        return acts;
    }
    let saved = dice.index(third);
    let pause = saved + dice.index(third);
    let restored = pause + dice.index(third);
    let long = dice.between(PAUSE_MS.0, PAUSE_MS.1);
    acts[saved].1 = Act::Save { cluster };
    acts[restored].1 = Act::Restore { cluster, bumped: dice.chance(50) };
    acts.iter_mut().skip(pause).for_each(|(at, _)| *at += long);
    acts
}

fn used(what: Use, (source, kind, slot, target): Stage, dice: &mut Dice) -> Act {
    let cluster = source;
    match what {
        Use::Write => Act::Write { cluster, kind, slot, selected: true },
        Use::Unselect => Act::Write { cluster, kind, slot, selected: false },
        Use::Delete => Act::Delete { cluster, kind, slot },
        Use::Recreate => Act::Recreate { cluster, kind, slot },
        Use::Drift => Act::Drift { source, kind, slot, target },
        Use::DeleteCopy => Act::DeleteCopy { source, kind, slot, target },
        Use::Foreign => Act::Foreign { source, kind, slot, target },
        Use::Forge => Act::Forge { source, kind, slot, target },
        Use::StripMarks => Act::StripMarks { source, kind, slot, target },
        Use::OtherHub => Act::OtherHub { source, kind, slot, target, goes: dice.chance(40) },
        Use::Ambush | Use::AmbushOfHub => {
            let kill = dice.chance(40).then(|| dice.between(10, 3_000));
            Act::Ambush { source, kind, slot, target, hub: matches!(what, Use::AmbushOfHub), kill }
        }
        Use::Counterfeit => Act::Counterfeit { source, kind, slot, target },
        Use::Carry => Act::Carry { source, kind, slot, target, to: dice.index(CLUSTERS.len()) },
        Use::Approve => Act::Approve,
    }
}

/// The same fault, where it concerns this copy.
fn near((source, kind, slot, _): Stage, fault: Act) -> Act {
    match fault {
        Act::Forbid { cluster, verb, for_ms, .. } => Act::Forbid { cluster, verb, kind, for_ms },
        // Of the namespaces the second one is deleted.
        Act::DeleteNamespace { for_ms, .. } if slot % NAMESPACES.len() == 1 => {
            Act::DeleteNamespace { cluster: source, for_ms }
        }
        other => other,
    }
}

/// And of its policy, and of its kind.
fn nearer((source, kind, _, target): Stage, fault: Act) -> Act {
    match fault {
        Act::Policy { policy, state, for_ms } => {
            let brings = POLICIES
                .iter()
                .position(|p| p.source == source && p.targets.contains(&target) && p.kinds.contains(&kind));
            Act::Policy { policy: brings.unwrap_or(policy), state, for_ms }
        }
        Act::DeleteDefinition { for_ms, .. } if kind == Kind::Widget => {
            Act::DeleteDefinition { cluster: source, for_ms }
        }
        other => other,
    }
}
