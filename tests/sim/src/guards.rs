//! Guards that are switched off in turn: does the simulation notice?

use lockstep_engine::guard::{Guard, switch_off};

use crate::plan::Plan;
use crate::world::run;

/// What came of switching guards off.
#[derive(Debug)]
pub struct Hunt {
    /// Histories that were run with the guards off.
    pub seeds: u64,
    /// The first seed whose history violates something only without them, and what.
    pub found: Option<(u64, String)>,
}

/// Runs histories without these guards, in this thread, until one violates something. What the same history
/// violates with all guards on does not count.
#[must_use]
pub fn hunt(without: &[Guard], seeds: impl Iterator<Item = u64>, events: usize) -> Hunt {
    let mut tried = 0;
    for seed in seeds {
        let plan = Plan::draw(seed, events);
        switch_off(without);
        let violation = run(&plan).violation;
        switch_off(&[]);
        tried += 1;
        if let Some(violation) = violation
            && run(&plan).violation.is_none()
        {
            return Hunt { seeds: tried, found: Some((seed, violation)) };
        }
    }
    Hunt { seeds: tried, found: None }
}
