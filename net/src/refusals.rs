//! Refusals in the log: one line per address and minute, with a count. Who is turned away writes no log.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::Origin;

/// Between two lines about one address.
const EVERY: Duration = Duration::from_secs(60);
/// Addresses that are kept apart; all others share one line.
const ADDRESSES: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    since: u64,
}

/// Who was refused, and when that was last said. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<BTreeMap<Option<Origin>, Told>>>);

impl Refusals {
    /// One more. Some: say so, for so many refusals since the last line.
    pub fn count(&self, address: Option<IpAddr>, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut origin = address.map(Origin::from);
        if !told.contains_key(&origin) && told.len() >= ADDRESSES {
            told.retain(|_, told| now.saturating_duration_since(told.at) < EVERY);
            if told.len() >= ADDRESSES {
                origin = None;
            }
        }
        let Some(known) = told.get_mut(&origin) else {
            told.insert(origin, Told { at: now, since: 0 });
            return Some(1);
        };
        known.since += 1;
        if now.saturating_duration_since(known.at) < EVERY {
            return None;
        }
        known.at = now;
        Some(std::mem::take(&mut known.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_line_a_minute_and_the_book_is_bounded() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let one = IpAddr::from([10, 0, 0, 1]);
        let lines = (0..1000).filter(|_| refusals.count(Some(one), start).is_some()).count();
        assert_eq!(lines, 1);
        assert_eq!(refusals.count(Some(one), start + EVERY), Some(1000));
        let many = (0..5000u32).map(|n| IpAddr::from((n + 0x0b00_0000).to_be_bytes()));
        let lines = many.filter(|address| refusals.count(Some(*address), start + EVERY).is_some()).count();
        assert!(lines <= ADDRESSES + 1, "{lines}");
        assert!(refusals.0.lock().unwrap().len() <= ADDRESSES + 1);
    }
}
