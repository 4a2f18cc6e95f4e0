//! What happened, one line each, by virtual time: the same seed gives the same bytes.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// The event log of one history. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    begun: Instant,
    text: Arc<Mutex<String>>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), text: Arc::default() }
    }

    /// Milliseconds since the beginning.
    pub(crate) fn elapsed(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    pub(crate) fn say(&self, who: &str, what: std::fmt::Arguments<'_>) {
        let at = self.elapsed();
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        // Beside what agents and hub trace, where somebody listens.
        tracing::info!(target: "sim", "{:>4}.{:03} {who:<10} {what}", at / 1_000, at % 1_000);
        // Writing to a String does not fail.
        let _ = writeln!(text, "{:>4}.{:03} {who:<10} {what}", at / 1_000, at % 1_000);
    }

    pub(crate) fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
