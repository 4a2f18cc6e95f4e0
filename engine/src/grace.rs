//! How long a copy outlives its source: the grace period of a policy.

use crate::Millis;

/// When a grace period that began at `since` is over; none when it is. A clock that was set back makes
/// it begin anew: `since` is then taken to be now, and what the caller keeps of it must be [`began`].
#[must_use]
pub fn until(since: Millis, grace_ms: i64, now: Millis) -> Option<Millis> {
    let until = began(since, now).saturating_add(grace_ms.max(0));
    (until > now).then_some(until)
}

/// When it began, by a clock that says `now`: never in the future, or a clock that was wrong for a moment
/// would keep a copy for years.
#[must_use]
pub fn began(since: Millis, now: Millis) -> Millis {
    since.min(now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_over_after_its_time_and_never_before(since in 0i64..1_000, grace in 0i64..1_000, later in 0i64..3_000) {
            let over = until(since, grace, since + later);
            prop_assert_eq!(over, (later < grace).then_some(since + grace));
        }

        #[test]
        fn whatever_the_clock_does_it_is_never_longer_than_it_says(since in any::<i64>(), grace in 0i64..1_000_000, now in 0i64..1_000_000) {
            if let Some(until) = until(since, grace, now) {
                prop_assert!(until > now && until <= now + grace);
            }
        }
    }
}
