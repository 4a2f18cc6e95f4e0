//! Close-ups: everything happens to one or two copies, in quick succession, with a few kinds of use and of trouble each.
//!
//! What breaks only where three things meet within milliseconds is drawn here often, and among the names of a whole fleet
//! hardly ever. Leaving out most features of each test at random, and other ones in each, is swarm testing (Groce and
//! others, ISSTA 2012).

use crate::dice::Dice;
use crate::objects::{Kind, NAMESPACES};
use crate::plan::{Act, FAULTS, Scope, copy, draw_fault};

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
    Approve,
}

/// A copy: cluster of its source, kind, slot, target.
type Stage = (usize, Kind, usize, usize);

/// Draws so many acts.
pub(crate) fn draw(dice: &mut Dice, acts: usize) -> Vec<(u32, Act)> {
    let stages: Vec<Stage> = (0..dice.between(1, 2)).map(|_| copy(dice)).collect();
    let mut uses = vec![Use::Write, Use::Write];
    uses.extend(USES.into_iter().filter(|_| dice.chance(40)));
    if dice.chance(30) {
        uses.push(Use::Approve);
    }
    let faults: Vec<usize> = (0..dice.between(1, 4)).map(|_| dice.index(FAULTS)).collect();
    let (trouble, spacing) = (dice.between(10, 60), dice.pick(&SPACINGS));
    let duration = dice.pick(&DURATIONS);
    let mut at = 0;
    (0..acts)
        .map(|_| {
            at += dice.between(0, 2 * spacing);
            let stage = dice.pick(&stages);
            if dice.chance(trouble) {
                let clusters = [stage.3, stage.3, stage.0];
                let fault = dice.pick(&faults);
                (at, near(stage, draw_fault(fault, dice, &Scope { clusters: &clusters, duration })))
            } else {
                (at, used(dice.pick(&uses), stage, dice))
            }
        })
        .collect()
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
