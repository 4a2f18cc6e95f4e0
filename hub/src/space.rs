//! Room on the disk of the data directory. Below a bound the hub takes nothing new: what is under way
//! must end well, and a database needs room to be read and mended.
//!
//! [`Gauge`] decides and has no clock; the owner of the core looks, and acts.

use std::path::{Path, PathBuf};

use lockstep_engine::Millis;

use crate::codes::Code;

/// Codes of this part.
pub const CODES: &[Code] = &[FULL];
/// The hub takes nothing new.
pub const FULL: Code = Code { code: "LS0228", title: "the hub's disk is full, and it takes nothing new" };

/// What to do about it.
pub const REMEDY: &str = "make room in the hub's data directory; it goes on by itself";
/// The log tells again that nothing changed.
const TELL_AGAIN_MS: i64 = 60_000;
/// So much more than the bound must be free before work goes on: a share of the bound, and no more
/// than so many bytes.
const MARGIN: u64 = 8;
const LARGEST_MARGIN: u64 = 64 << 20;

/// Free bytes for this process where a directory lies.
///
/// # Errors
/// When the system does not say.
pub fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Where room is looked for, and how much there must be.
#[derive(Clone, Debug)]
pub struct Space {
    /// The data directory.
    pub dir: PathBuf,
    /// Bytes that must be free; 0: no bound.
    pub min_free: u64,
}

/// What is new, for the log and for whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    None,
    /// From now on nothing new is taken.
    Began(String),
    /// It is still so, and was not told for a while.
    Still(String),
    /// It is over after so many milliseconds.
    Ended(i64),
}

/// Knows whether there is room enough.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    min_free: u64,
    short: Option<Short>,
}

#[derive(Clone, Debug)]
struct Short {
    since: Millis,
    told: Millis,
    why: String,
}

impl Gauge {
    /// A gauge with this bound, bytes.
    #[must_use]
    pub fn new(min_free: u64) -> Self {
        Self { min_free, short: None }
    }

    /// Why nothing new is taken now.
    #[must_use]
    pub fn short(&self) -> Option<&str> {
        self.short.as_ref().map(|short| short.why.as_str())
    }

    /// So much is free. Too little is news; enough of it again is not: see [`Self::may_try`].
    pub fn looked(&mut self, free: u64, now: Millis) -> News {
        if free >= self.min_free {
            return self.still(now);
        }
        let why = format!("{} MiB are free, and {} MiB must be", free >> 20, self.min_free.div_ceil(1 << 20));
        self.begin(why, now)
    }

    /// The store could not write.
    pub fn refused(&mut self, why: &str, now: Millis) -> News {
        self.begin(why.to_owned(), now)
    }

    /// Is there room enough to try again?
    #[must_use]
    pub fn may_try(&self, free: u64) -> bool {
        free >= self.min_free.saturating_add((self.min_free / MARGIN).min(LARGEST_MARGIN))
    }

    /// A write succeeded.
    pub fn recovered(&mut self, now: Millis) -> News {
        self.short.take().map_or(News::None, |short| News::Ended(now - short.since))
    }

    fn begin(&mut self, why: String, now: Millis) -> News {
        match &mut self.short {
            None => {
                self.short = Some(Short { since: now, told: now, why: why.clone() });
                News::Began(why)
            }
            Some(short) => {
                short.why = why;
                self.still(now)
            }
        }
    }

    fn still(&mut self, now: Millis) -> News {
        match &mut self.short {
            Some(short) if now - short.told >= TELL_AGAIN_MS => {
                short.told = now;
                News::Still(short.why.clone())
            }
            _ => News::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn it_is_told_once_then_every_minute_then_when_it_ends() {
        let mut gauge = Gauge::new(64 * MIB);
        assert_eq!(gauge.looked(64 * MIB, 0), News::None);
        let began = gauge.looked(63 * MIB, 1_000);
        assert_eq!(began, News::Began("63 MiB are free, and 64 MiB must be".to_owned()));
        assert!(gauge.short().is_some());
        for second in 2..61 {
            assert_eq!(gauge.looked(62 * MIB, second * 1_000), News::None);
        }
        assert!(matches!(gauge.looked(10 * MIB, 61_000), News::Still(why) if why.starts_with("10 MiB")));
        assert_eq!(gauge.looked(10 * MIB, 62_000), News::None);
        // Enough room alone ends nothing: a write must succeed.
        assert_eq!(gauge.looked(100 * MIB, 63_000), News::None);
        assert!(gauge.short().is_some() && gauge.may_try(100 * MIB));
        assert_eq!(gauge.recovered(64_000), News::Ended(63_000));
        assert_eq!(gauge.recovered(65_000), News::None);
        assert_eq!(gauge.short(), None);
    }

    #[test]
    fn what_hovers_around_the_bound_does_not_flap() {
        let gauge = Gauge::new(64 * MIB);
        assert!(!gauge.may_try(64 * MIB) && !gauge.may_try(71 * MIB) && gauge.may_try(72 * MIB));
        assert!(Gauge::new(MIB << 20).may_try((MIB << 20) + 64 * MIB), "nor does it wait for ever");
        assert!(Gauge::new(0).may_try(0), "without a bound only the store itself says so");
    }

    #[test]
    fn a_store_that_refuses_counts_whatever_the_system_says_is_free() {
        let mut gauge = Gauge::new(0);
        assert_eq!(gauge.looked(0, 0), News::None);
        assert_eq!(gauge.refused("the disk is full", 1), News::Began("the disk is full".to_owned()));
        assert_eq!(gauge.refused("the disk is full", 2), News::None);
    }

    #[test]
    fn free_space_is_that_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_bytes(dir.path()).unwrap() > 0);
        assert!(free_bytes(&dir.path().join("missing")).is_err());
    }
}
