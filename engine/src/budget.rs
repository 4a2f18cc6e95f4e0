//! How many deletes a policy may carry out at a target before a person has to look (I7).
//!
//! Deletes that ask together are granted together or not at all: a burst is judged as a whole. A
//! breach latches: until it is approved, or the deletes that were held dissolve, nothing more is
//! granted.

use serde::{Deserialize, Serialize};

use crate::Millis;
use crate::guard::{self, Guard};

/// What a policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Deletes that are always allowed within a window.
    pub count: u32,
    /// Or this share of the placements at the window's start, whichever is more. 0 to 100.
    pub percent: u8,
    /// Length of a window, milliseconds.
    pub window_ms: i64,
}

impl Default for Limit {
    /// 3 objects or 20 %, within ten minutes.
    fn default() -> Self {
        Self { count: 3, percent: 20, window_ms: 10 * 60 * 1000 }
    }
}

/// The account of one policy at one target. Persisted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// When the running window began; none before the first delete.
    pub window_start: Option<Millis>,
    /// Placements at its start.
    pub base: u64,
    /// Deletes granted within it.
    pub spent: u64,
    /// Since when a breach has latched.
    pub latched: Option<Millis>,
}

/// The answer to deletes that ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All of them may go.
    Granted,
    /// None may.
    Held {
        /// What the window allows in all.
        allowed: u64,
        /// What was granted before.
        spent: u64,
    },
}

impl Budget {
    /// `asked` deletes ask together, of `placements` that there are now (those asked for included).
    pub fn ask(&mut self, limit: Limit, asked: u64, placements: u64, now: Millis) -> Answer {
        let expired = self.window_start.is_none_or(|start| now - start >= limit.window_ms || now < start);
        if expired && self.latched.is_none() {
            *self = Self { window_start: Some(now), base: placements, spent: 0, latched: None };
        }
        let allowed = self.allowed(limit);
        let latched = self.latched.is_some() && guard::on(Guard::BudgetLatch);
        if latched || (self.spent + asked > allowed && guard::on(Guard::BudgetLimit)) {
            self.latched.get_or_insert(now);
            return Answer::Held { allowed, spent: self.spent };
        }
        self.spent += asked;
        Answer::Granted
    }

    /// What the running window allows in all.
    #[must_use]
    pub fn allowed(&self, limit: Limit) -> u64 {
        let share = self.base.saturating_mul(u64::from(limit.percent.min(100))) / 100;
        share.max(u64::from(limit.count))
    }

    /// Approved, or nothing is held any more: a new window begins with the next delete.
    pub fn release(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { count: 3, percent: 20, window_ms: 1000 };

    #[test]
    fn three_or_a_fifth_whichever_is_more() {
        assert_eq!(Budget::default().ask(LIMIT, 3, 3, 0), Answer::Granted);
        assert_eq!(Budget::default().ask(LIMIT, 4, 4, 0), Answer::Held { allowed: 3, spent: 0 });
        assert_eq!(Budget::default().ask(LIMIT, 20, 100, 0), Answer::Granted);
        assert_eq!(Budget::default().ask(LIMIT, 21, 100, 0), Answer::Held { allowed: 20, spent: 0 });
    }

    #[test]
    fn a_window_counts_and_then_starts_anew_with_the_count_of_its_start() {
        let mut budget = Budget::default();
        assert_eq!(budget.ask(LIMIT, 20, 100, 0), Answer::Granted);
        assert!(matches!(budget.clone().ask(LIMIT, 1, 80, 999), Answer::Held { .. }));
        assert_eq!(budget.ask(LIMIT, 16, 80, 1000), Answer::Granted);
        assert_eq!(budget.base, 80);
    }

    #[test]
    fn a_breach_latches_beyond_its_window_until_released() {
        let mut budget = Budget::default();
        assert!(matches!(budget.ask(LIMIT, 50, 100, 0), Answer::Held { .. }));
        assert!(matches!(budget.ask(LIMIT, 1, 100, 5000), Answer::Held { .. }));
        budget.release();
        assert_eq!(budget.ask(LIMIT, 1, 100, 5001), Answer::Granted);
    }

    #[test]
    fn a_clock_that_jumps_back_starts_a_window_instead_of_freezing_one() {
        let mut budget = Budget::default();
        assert_eq!(budget.ask(LIMIT, 3, 3, 10_000), Answer::Granted);
        assert_eq!(budget.ask(LIMIT, 3, 3, 1), Answer::Granted);
    }
}
