//! How long a connection may live, by what it does. A function of times; the shell has the clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{Limits, ServedBy};

/// Why a connection is closed from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overdue {
    /// No request, or no proof of who sends it.
    FirstRequest,
    /// Nothing between two requests.
    Idle,
    /// A request under way, and not one byte moved.
    Stalled,
    /// Old: it is asked to end, and may finish what is under way.
    Aged,
}

/// What a connection does.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    served_by: ServedBy,
    under_way: usize,
    authenticated: bool,
    served_before: bool,
    waits_since: Instant,
    ends: Instant,
}

impl Life {
    /// Begins. `spread` is 0 to 15: how much of the quarter is added to its age.
    #[must_use]
    pub fn new(limits: &Limits, now: Instant, spread: u64) -> Self {
        let more = limits.max_age / 64 * u32::try_from(spread % 16).unwrap_or(0);
        Self {
            served_by: limits.served_by,
            under_way: 0,
            authenticated: false,
            served_before: false,
            waits_since: now,
            ends: now + limits.max_age + more,
        }
    }

    /// Is somebody served on it?
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.under_way > 0
            && match self.served_by {
                ServedBy::Request => true,
                ServedBy::Authentication => self.authenticated,
            }
    }

    /// A request begins.
    pub fn begins(&mut self) {
        self.under_way += 1;
        self.served_before |= self.is_served();
    }

    /// Its sender has proven who it is.
    pub fn authenticated(&mut self) {
        self.authenticated = true;
        self.served_before |= self.is_served();
    }

    /// A request ended, its answer was sent or given up.
    pub fn ends(&mut self, now: Instant) {
        let served = self.is_served();
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way == 0 {
            self.authenticated = false;
            if served {
                self.waits_since = now;
            }
        }
    }

    /// When it is overdue, and for what, if nothing changes. `moved` is when bytes last moved.
    #[must_use]
    pub fn due(&self, limits: &Limits, moved: Instant) -> (Instant, Overdue) {
        let Limits { first_request, idle, stall, .. } = *limits;
        let since = |at: Instant, bound: Duration, why| (at + bound, why);
        let next = if self.is_served() {
            since(moved, stall, Overdue::Stalled)
        } else if self.served_before {
            since(self.waits_since, idle, Overdue::Idle)
        } else {
            since(self.waits_since, first_request, Overdue::FirstRequest)
        };
        if self.ends < next.0 { (self.ends, Overdue::Aged) } else { next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Port;

    #[test]
    fn a_request_that_nobody_vouches_for_does_not_lengthen_a_life() {
        let limits = Limits::of(Port::Agents, 1000);
        let start = Instant::now();
        let mut life = Life::new(&limits, start, 0);
        for _ in 0..3 {
            life.begins();
            life.ends(start + Duration::from_secs(5));
        }
        assert_eq!(life.due(&limits, start), (start + limits.first_request, Overdue::FirstRequest));
        life.begins();
        assert!(!life.is_served());
        life.authenticated();
        assert!(life.is_served());
        let later = start + Duration::from_secs(60);
        assert_eq!(life.due(&limits, later), (later + limits.stall, Overdue::Stalled));
        life.ends(later);
        assert_eq!(life.due(&limits, later), (later + limits.idle, Overdue::Idle));
        // The next stream proves it again.
        life.begins();
        assert!(!life.is_served());
    }

    #[test]
    fn age_counts_whatever_is_under_way() {
        let limits = Limits::of(Port::Api, 1000);
        let start = Instant::now();
        let mut life = Life::new(&limits, start, 8);
        life.begins();
        let busy = start + limits.max_age * 2;
        let (at, why) = life.due(&limits, busy);
        assert_eq!(why, Overdue::Aged);
        assert_eq!(at, start + limits.max_age + limits.max_age / 8);
    }
}
