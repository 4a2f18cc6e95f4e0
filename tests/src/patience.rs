//! How long this run waits before it calls something broken.
//!
//! Limits are written for an idle machine with two cores. Starting three control planes is work of the kind that tests
//! wait for, so the time that it takes says how much slower this machine is: `testbed` measures it once per run, notes
//! it in `state.json` and hands it to its command as `LOCKSTEP_PATIENCE`. A limit that is only ever reached by a failing
//! test costs nothing when it is too long.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The environment variable that holds the factor as a number, for example `2.5`. A person may set it.
pub const VARIABLE: &str = "LOCKSTEP_PATIENCE";
/// Three control planes on an idle machine with two cores are ready within this time (measured: 4.8 to 5.6 s).
const IDLE: Duration = Duration::from_secs(6);
/// A run that is even slower has another problem, which shall show.
const MOST: f64 = 10.0;

/// The factor for a machine on which the control planes took so long; never below 1.
#[must_use]
pub fn measured(ready_after: Duration) -> f64 {
    (ready_after.as_secs_f64() / IDLE.as_secs_f64()).clamp(1.0, MOST)
}

/// The factor that a person has set.
///
/// # Errors
/// If it is not a number from 1 to 100.
pub fn set_by_person() -> Result<Option<f64>> {
    std::env::var(VARIABLE).ok().map(|text| parse(&text)).transpose()
}

/// A limit for an idle machine, as this run means it. `testbed run` has refused a factor that is not understood.
#[must_use]
pub fn scaled(limit: Duration) -> Duration {
    static FACTOR: LazyLock<f64> = LazyLock::new(|| set_by_person().ok().flatten().unwrap_or(1.0));
    limit.mul_f64(*FACTOR)
}

fn parse(text: &str) -> Result<f64> {
    let what = || format!("{VARIABLE}={text}: give a number from 1 to 100, as in {VARIABLE}=2.5");
    let factor: f64 = text.trim().parse().with_context(what)?;
    ensure!((1.0..=100.0).contains(&factor), what());
    Ok(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_machines_are_given_more_time_and_no_machine_less() {
        let factor = |seconds| measured(Duration::from_secs(seconds));
        assert_eq!([factor(3), factor(6), factor(15), factor(600)], [1.0, 1.0, 2.5, MOST]);
    }

    #[test]
    fn a_factor_that_makes_no_sense_is_an_error_that_says_what_to_give() {
        assert_eq!(parse("2.5").unwrap(), 2.5);
        for text in ["", "0.5", "-1", "NaN", "inf", "101", "two"] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains("a number from 1 to 100"), "{error}");
        }
    }
}
