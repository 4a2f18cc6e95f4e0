//! Something changed: a count that can be waited for. Who waits is woken in the order of waiting, which tokio's `watch`
//! does not promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Clones are the same signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signal(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    count: AtomicU64,
    changed: Notify,
}

impl Signal {
    pub(crate) fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    pub(crate) fn raise(&self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        self.0.changed.notify_waiters();
    }

    /// Until it is raised beyond `seen`.
    pub(crate) async fn beyond(&self, seen: u64) {
        loop {
            let changed = self.0.changed.notified();
            // From here on a raise is not missed.
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.count() != seen {
                return;
            }
            changed.await;
        }
    }
}
