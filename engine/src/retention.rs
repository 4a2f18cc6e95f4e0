//! How long tombstones are kept: which of them go. A pure question; files and rows are the hub's.
//!
//! Three limits, each of them none unless it is set: age, versions of one object, bytes in all. What must stay
//! (a legal hold, a delete that still waits for it) counts, and stays.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// Whatever the limits say, what was deleted within the last hour stays: a mistake is noticed by then.
pub const GRACE_MS: Millis = 3_600_000;

/// Limits for one tombstone. They may differ from one to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Milliseconds since it was deleted.
    pub max_age: Option<Millis>,
    /// Newest tombstones of one object that stay.
    pub max_versions: Option<u32>,
}

impl Limits {
    /// These, where they say something; else those.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            max_age: self.max_age.or(others.max_age),
            max_versions: self.max_versions.or(others.max_versions),
        }
    }
}

/// What decides about one tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub id: i64,
    /// When it was deleted.
    pub deleted_at: Millis,
    /// Bytes in the archive.
    pub size: u64,
    /// Something needs it: it stays.
    pub needed: bool,
}

fn stays(candidate: &Candidate, now: Millis) -> bool {
    candidate.needed || now.saturating_sub(candidate.deleted_at) < GRACE_MS
}

/// Which tombstones of one object go. They come the newest first, each with its limits.
#[must_use]
pub fn of_object(newest_first: &[(Candidate, Limits)], now: Millis) -> Vec<i64> {
    let judged = newest_first.iter().zip(0_u32..).filter_map(|((candidate, limits), newer)| {
        if stays(candidate, now) {
            return None;
        }
        let age = now.saturating_sub(candidate.deleted_at);
        let goes = limits.max_age.is_some_and(|max| age > max)
            || limits.max_versions.is_some_and(|max| newer >= max);
        goes.then_some(candidate.id)
    });
    judged.collect()
}

/// Which go so that so many bytes are freed, or all that may go. They come the oldest first.
#[must_use]
pub fn for_room(oldest_first: &[Candidate], mut excess: u64, now: Millis) -> Vec<i64> {
    let mut going = Vec::new();
    for candidate in oldest_first.iter().filter(|candidate| !stays(candidate, now)) {
        if excess == 0 {
            break;
        }
        excess = excess.saturating_sub(candidate.size);
        going.push(candidate.id);
    }
    going
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Millis = 1_000 * GRACE_MS;

    fn candidate(id: i64, hours: i64) -> Candidate {
        Candidate { id, deleted_at: NOW - hours * GRACE_MS, size: 10, needed: false }
    }

    fn going(rows: &[Candidate], limits: Limits) -> Vec<i64> {
        let rows: Vec<_> = rows.iter().map(|row| (*row, limits)).collect();
        of_object(&rows, NOW)
    }

    #[test]
    fn the_old_go_and_those_of_which_there_are_newer_ones() {
        let rows = [candidate(5, 2), candidate(4, 3), candidate(3, 10), candidate(2, 24), candidate(1, 25)];
        assert!(going(&rows, Limits::default()).is_empty(), "nothing goes without a limit");
        let day = Limits { max_age: Some(24 * GRACE_MS), max_versions: None };
        assert_eq!(going(&rows, day), [1]);
        let two = Limits { max_age: None, max_versions: Some(2) };
        assert_eq!(going(&rows, two), [3, 2, 1]);
        let both = two.or(day);
        assert_eq!(going(&rows, both), [3, 2, 1]);
        assert_eq!(Limits { max_age: Some(1), ..two }.or(day).max_age, Some(1), "the nearer word counts");
    }

    #[test]
    fn the_needed_and_the_young_stay_and_count() {
        let none = Limits { max_age: Some(0), max_versions: Some(0) };
        let young = Candidate { deleted_at: NOW - GRACE_MS + 1, ..candidate(3, 0) };
        let held = Candidate { needed: true, ..candidate(2, 99) };
        assert_eq!(going(&[young, held, candidate(1, 100)], none), [1]);
        let one = Limits { max_age: None, max_versions: Some(1) };
        assert_eq!(going(&[held, candidate(1, 100)], one), [1]);
        assert_eq!(for_room(&[held, young, candidate(1, 1)], u64::MAX, NOW), [1]);
        // A clock that was set back: what is of the future is young.
        assert!(going(&[candidate(1, -5)], none).is_empty());
    }

    #[test]
    fn the_oldest_make_room_and_no_more_than_is_needed() {
        let rows = [candidate(1, 9), candidate(2, 8), candidate(3, 7)];
        assert!(for_room(&rows, 0, NOW).is_empty());
        assert_eq!(for_room(&rows, 1, NOW), [1]);
        assert_eq!(for_room(&rows, 11, NOW), [1, 2]);
        assert_eq!(for_room(&rows, 1_000, NOW).len(), 3);
    }

    proptest! {
        #[test]
        fn what_is_needed_or_young_never_goes_and_sweeping_twice_takes_nothing_more(
            rows in proptest::collection::vec((0_i64..200, 0_u64..9, any::<bool>()), 0..20),
            max_age in proptest::option::of(0_i64..100),
            max_versions in proptest::option::of(0_u32..5),
        ) {
            let limits = Limits { max_age: max_age.map(|hours| hours * GRACE_MS), max_versions };
            let mut rows: Vec<Candidate> = (0..).zip(rows)
                .map(|(id, (hours, size, needed))| Candidate { size, needed, ..candidate(id, hours) })
                .collect();
            rows.sort_by_key(|row| (-row.deleted_at, -row.id));
            let gone = going(&rows, limits);
            for row in rows.iter().filter(|row| row.needed || NOW - row.deleted_at < GRACE_MS) {
                prop_assert!(!gone.contains(&row.id));
            }
            rows.retain(|row| !gone.contains(&row.id));
            prop_assert!(going(&rows, limits).is_empty());
        }
    }
}
