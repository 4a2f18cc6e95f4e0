//! When to look again without being asked.

use lockstep_engine::{ClusterId, Millis, ObjectKey};

use super::Core;
use crate::store::{Store, StoreError};

/// Placements looked at again in one transaction.
const RETRY_BATCH: usize = 256;

impl<S: Store> Core<S> {
    pub(super) fn note_due(&mut self, at: Option<Millis>) {
        if let Some(at) = at {
            self.next_due = Some(self.next_due.map_or(at, |due| due.min(at)));
        }
    }

    /// Sets a placement aside until then.
    pub(super) fn postpone(
        &mut self,
        target: ClusterId,
        key: &ObjectKey,
        until: Millis,
    ) -> Result<(), StoreError> {
        if let Some(mut row) = self.store.placement(target, key)? {
            row.next_attempt = Some(until);
            self.store.put_placement(&row)?;
            self.note_due(Some(until));
        }
        Ok(())
    }

    pub(super) fn retry_due(&mut self, now: Millis) -> Result<(), StoreError> {
        if self.next_due.is_none_or(|due| due > now) {
            return Ok(());
        }
        for (target, key) in self.store.due(now, RETRY_BATCH)? {
            if let Some(mut row) = self.store.placement(target, &key)? {
                row.next_attempt = None;
                row.barred = None;
                self.store.put_placement(&row)?;
            }
            self.plan(target, &key, None, now)?;
        }
        self.next_due = self.store.next_due()?;
        Ok(())
    }
}
