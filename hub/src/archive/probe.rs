//! Does the archive take what it is given, and give it back? Asked at the start, and now and then.

use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{ArchiveError, Tombstones, UNUSABLE};
use crate::problem::Problems;
use crate::retry::Retry;
use crate::seal::{hex, random};

/// Between looks at an archive that works. A bucket bills a request.
const AGAIN: Duration = Duration::from_secs(300);
/// First and longest wait after a failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
const REMEDY: &str =
    "mend it, or the `archive` settings; nothing is lost, and deletes by lockstep wait until it works";

impl Tombstones {
    /// Writes a small file of the hub's own and reads it back.
    ///
    /// # Errors
    /// When the archive does not take it, or gives something else back.
    pub async fn probe(&self, hub_id: &str) -> Result<(), ArchiveError> {
        // No part of a tombstone's path begins with `_probe`.
        let path = format!("v1/_probe/{hub_id}");
        let failed = |source| ArchiveError::Put { path: path.clone(), source };
        let nonce = random::<16>().map_err(|e| failed(Box::new(e)))?;
        let content = Bytes::from(format!("lockstep asks whether this can be read: {}\n", hex(&nonce)));
        self.archive.put(&path, content.clone()).await?;
        if self.archive.get(&path).await? == content {
            return Ok(());
        }
        Err(failed(
            "what was written was not what came back: do two hubs with one key use this archive?".into(),
        ))
    }
}

/// Probes until the hub stops; what is wrong is a problem of the hub, which goes on without.
pub(crate) async fn watch(
    tombstones: Tombstones,
    hub_id: String,
    problems: Problems,
    now: fn() -> i64,
    stop: CancellationToken,
) {
    let mut retry = Retry::new(RETRY_FIRST, RETRY_LONGEST, 1);
    let mut failing = false;
    loop {
        let Some(probed) = stop.run_until_cancelled(tombstones.probe(&hub_id)).await else { return };
        let wait = match probed {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("the archive works again");
                }
                problems.clear(UNUSABLE);
                retry.reset();
                AGAIN
            }
            Err(error) => {
                let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!("{error}{why}");
                }
                let message = format!("the archive does not work{why}");
                problems.set(UNUSABLE, message, REMEDY, false, now());
                retry.next_wait()
            }
        };
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}
