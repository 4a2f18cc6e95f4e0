//! Takes away what a failure does not need.

use crate::plan::Plan;
use crate::world::{Outcome, run};

/// A failure with as few acts as could be found.
#[derive(Debug)]
pub struct Shrunk {
    /// The acts that are left.
    pub plan: Plan,
    /// What comes of them.
    pub outcome: Outcome,
    /// Histories run.
    pub runs: usize,
}

/// Takes away acts, many at first and then fewer, as long as the same invariant is violated; runs at most `limit`
/// histories. None: the plan does not fail.
#[must_use]
pub fn shrink(plan: &Plan, limit: usize) -> Option<Shrunk> {
    let outcome = run(plan);
    let invariant = outcome.invariant()?.to_owned();
    let mut best = Shrunk { plan: plan.clone(), outcome, runs: 1 };
    let mut size = (plan.len() / 2).max(1);
    loop {
        let mut from = 0;
        let mut removed = false;
        while from < best.plan.len() && best.runs < limit {
            let plan = best.plan.without(from, size);
            let outcome = run(&plan);
            best.runs += 1;
            if outcome.invariant() == Some(&invariant) {
                (best.plan, best.outcome, removed) = (plan, outcome, true);
            } else {
                from += size;
            }
        }
        if best.runs >= limit || (size == 1 && !removed) {
            return Some(best);
        }
        size = if removed { size } else { size / 2 }.max(1);
    }
}
