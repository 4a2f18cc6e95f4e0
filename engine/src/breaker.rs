//! A circuit breaker, one per target: a broken cluster costs one probe now and then, not a queue
//! of timeouts (I12).

use crate::Millis;
use crate::backoff::Backoff;

/// When a breaker opens and how it closes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row that open it; at least 1.
    pub failures_to_open: u32,
    /// Probes that must succeed before it closes; at least 1.
    pub successes_to_close: u32,
    /// Probes in flight at once while half open; at least 1.
    pub probes_at_once: u32,
    /// How long it stays open, by how often it opened without closing in between.
    pub open_for: Backoff,
}

impl Default for BreakerConfig {
    /// Opens after 5 failures in a row, one probe at a time, closes after one success; open for
    /// 1 s at first, then longer, up to a minute.
    fn default() -> Self {
        Self {
            failures_to_open: 5,
            successes_to_close: 1,
            probes_at_once: 1,
            open_for: Backoff { base_ms: 1_000, factor: 2, max_ms: 60_000, jitter_percent: 20 },
        }
    }
}

/// What the breaker is doing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// No call passes before `until`.
    Open {
        /// When the first probe may go.
        until: Millis,
    },
    /// Probes pass.
    HalfOpen,
}

/// The answer to "may I call?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes; give the permit back with the result.
    Go(Permit),
    /// No. `until` is when to ask again; none: when a probe in flight has answered.
    Wait {
        /// When to ask again.
        until: Option<Millis>,
    },
}

/// Goes with one admitted call. A result under an old permit does not move a newer state: the
/// answer to a call from before the breaker opened says nothing about the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Permit {
    generation: u64,
}

/// The breaker of one target.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    seed: u64,
    state: BreakerState,
    /// Counts the changes of `state`.
    generation: u64,
    failures: u32,
    successes: u32,
    probes: u32,
    /// Opened this often since it was last closed.
    opened: u32,
}

impl Breaker {
    /// A closed breaker. `seed` spreads the probes of many targets in time.
    #[must_use]
    pub fn new(config: BreakerConfig, seed: u64) -> Self {
        Self {
            config,
            seed,
            state: BreakerState::Closed,
            generation: 0,
            failures: 0,
            successes: 0,
            probes: 0,
            opened: 0,
        }
    }

    /// The state at `now`: an open breaker whose time is over is half open.
    #[must_use]
    pub fn state(&self, now: Millis) -> BreakerState {
        match self.state {
            BreakerState::Open { until } if now >= until => BreakerState::HalfOpen,
            other => other,
        }
    }

    /// May a call be made?
    pub fn admit(&mut self, now: Millis) -> Admission {
        if self.state != self.state(now) {
            self.enter(BreakerState::HalfOpen);
        }
        match self.state {
            BreakerState::Closed => {}
            BreakerState::Open { until } => return Admission::Wait { until: Some(until) },
            BreakerState::HalfOpen if self.probes >= self.config.probes_at_once.max(1) => {
                return Admission::Wait { until: None };
            }
            BreakerState::HalfOpen => self.probes += 1,
        }
        Admission::Go(Permit { generation: self.generation })
    }

    /// The call got an answer, of whatever kind: the cluster is there.
    pub fn on_success(&mut self, permit: Permit) {
        if permit.generation != self.generation {
            return;
        }
        self.failures = 0;
        if self.state == BreakerState::HalfOpen {
            self.probes = self.probes.saturating_sub(1);
            self.successes += 1;
            if self.successes >= self.config.successes_to_close.max(1) {
                self.opened = 0;
                self.enter(BreakerState::Closed);
            }
        }
    }

    /// The call got no answer, or one that says the cluster is not able to answer.
    pub fn on_failure(&mut self, permit: Permit, now: Millis) {
        if permit.generation != self.generation {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let trips = match self.state {
            BreakerState::Closed => self.failures >= self.config.failures_to_open.max(1),
            BreakerState::HalfOpen => true,
            BreakerState::Open { .. } => false,
        };
        if trips {
            let delay = self.config.open_for.delay_ms(self.seed, self.opened);
            self.opened = self.opened.saturating_add(1);
            let until = now.saturating_add(i64::try_from(delay).unwrap_or(i64::MAX));
            self.enter(BreakerState::Open { until });
        }
    }

    /// The call was not made, or its result will never be known.
    pub fn on_abandoned(&mut self, permit: Permit) {
        if permit.generation == self.generation && self.state == BreakerState::HalfOpen {
            self.probes = self.probes.saturating_sub(1);
        }
    }

    fn enter(&mut self, state: BreakerState) {
        self.state = state;
        self.generation += 1;
        self.failures = 0;
        self.successes = 0;
        self.probes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        let open_for = Backoff { base_ms: 100, factor: 2, max_ms: 1_000, jitter_percent: 0 };
        Breaker::new(BreakerConfig { failures_to_open: 3, open_for, ..BreakerConfig::default() }, 0)
    }

    fn go(breaker: &mut Breaker, now: Millis) -> Permit {
        match breaker.admit(now) {
            Admission::Go(permit) => permit,
            Admission::Wait { until } => panic!("refused until {until:?}"),
        }
    }

    fn fail(breaker: &mut Breaker, now: Millis) {
        let permit = go(breaker, now);
        breaker.on_failure(permit, now);
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let mut b = breaker();
        fail(&mut b, 0);
        fail(&mut b, 0);
        let permit = go(&mut b, 0);
        b.on_success(permit);
        fail(&mut b, 0);
        fail(&mut b, 0);
        assert_eq!(b.state(0), BreakerState::Closed);
        fail(&mut b, 5);
        assert_eq!(b.state(5), BreakerState::Open { until: 105 });
        assert_eq!(b.admit(104), Admission::Wait { until: Some(105) });
    }

    #[test]
    fn one_probe_at_a_time_closes_it_or_opens_it_for_longer() {
        let mut b = breaker();
        (0..3).for_each(|_| fail(&mut b, 0));
        let probe = go(&mut b, 100);
        assert_eq!(b.admit(100), Admission::Wait { until: None });
        b.on_failure(probe, 110);
        assert_eq!(b.state(110), BreakerState::Open { until: 310 });
        let probe = go(&mut b, 310);
        b.on_success(probe);
        assert_eq!(b.state(310), BreakerState::Closed);
        // Closed again, the next opening starts from the shortest time.
        (0..3).for_each(|_| fail(&mut b, 400));
        assert_eq!(b.state(400), BreakerState::Open { until: 500 });
    }

    #[test]
    fn an_answer_from_before_it_opened_does_not_move_it() {
        let mut b = breaker();
        let late = go(&mut b, 0);
        let later = go(&mut b, 0);
        (0..3).for_each(|_| fail(&mut b, 0));
        b.on_success(late);
        assert_eq!(b.state(50), BreakerState::Open { until: 100 });
        let probe = go(&mut b, 100);
        b.on_failure(later, 100);
        assert_eq!(b.state(100), BreakerState::HalfOpen);
        b.on_abandoned(probe);
        let _ = go(&mut b, 100);
    }
}
