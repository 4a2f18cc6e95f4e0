//! The thread that owns the core: takes what has queued up, has it worked through in one
//! transaction, and does so again. While it waits for the disk, inputs gather for the next commit.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockstep_engine::Millis;
use tokio::sync::mpsc;

use crate::core::{Core, Counts, Input};
use crate::store::Store;

/// Inputs that wait for the core. Full: sessions stop reading, and so do their agents (I14).
pub const INPUTS: usize = 1024;
/// Inputs worked through in one transaction.
const BATCH: usize = 256;
/// After the store refused (disk full, say): how long before the next attempt.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Longest sleep without anything due.
const IDLE: Duration = Duration::from_secs(60);

/// The hub's clock, milliseconds since the epoch.
#[must_use]
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

/// Told after every transaction.
pub type Observer = Box<dyn FnMut(&Counts, usize, Duration) + Send>;

/// Runs the core until every sender of inputs is gone. Starts no runtime of its own: it is called on
/// a thread made for it.
///
/// # Errors
/// None: a store that refuses is tried again until the hub is stopped.
pub fn run<S: Store>(mut core: Core<S>, mut inputs: mpsc::Receiver<Input>, mut observe: Observer) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("the core cannot run: {error}");
            return;
        }
    };
    let mut more = true;
    loop {
        let mut batch = Vec::new();
        if !more {
            let wait = core
                .wake_at()
                .map_or(IDLE, |at| Duration::from_millis(u64::try_from(at - now()).unwrap_or(0)).min(IDLE));
            match runtime.block_on(async { tokio::time::timeout(wait, inputs.recv()).await }) {
                Ok(Some(input)) => batch.push(input),
                Ok(None) => return,
                Err(_) => batch.push(Input::Tick),
            }
        }
        while batch.len() < BATCH {
            match inputs.try_recv() {
                Ok(input) => batch.push(input),
                Err(mpsc::error::TryRecvError::Disconnected) if batch.is_empty() => return,
                Err(_) => break,
            }
        }
        let started = std::time::Instant::now();
        match core.handle(batch, now()) {
            Ok(again) => {
                more = again;
                observe(&core.counts(), core.connected(), started.elapsed());
            }
            Err(error) => {
                tracing::error!("{error}; nothing was acknowledged, trying again");
                std::thread::sleep(REFUSED_PAUSE);
                more = false;
            }
        }
    }
}
