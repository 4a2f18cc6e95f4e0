//! Keeps discovery current: at intervals, when something calls for it, and closely while a policy
//! names a kind that the cluster does not serve yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lockstep_cluster::{ClusterClient, Discovery, Served};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ambient::Ambient;
use crate::error::CLUSTER_UNREACHABLE;

/// Between two looks at discovery, however many things call for one.
const SPACING: Duration = Duration::from_millis(500);
/// While a kind is awaited, the list of groups (one small request) is looked at this often: a new
/// definition mostly brings a new group.
const GLANCE: Duration = Duration::from_secs(1);
/// While a kind is awaited, all of discovery is looked at this often: its group may be an old one.
const AWAITING: Duration = Duration::from_secs(5);

/// What was found, and the number of the last call before that look began.
pub(crate) struct Discovered {
    pub(crate) served: Arc<Served>,
    pub(crate) look: u64,
}

/// What calls for a look.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    again: Notify,
    look: AtomicU64,
    awaits: AtomicBool,
}

impl Calls {
    /// Look again; answers that begin from now on carry this number.
    pub(crate) fn again(&self, look: u64) {
        self.look.store(look, Ordering::Release);
        self.again.notify_one();
    }

    /// Does a watch wait for its kind to be served? Look again when that begins.
    pub(crate) fn awaits_kinds(&self, awaits: bool) {
        if !self.awaits.swap(awaits, Ordering::Relaxed) && awaits {
            self.again.notify_one();
        }
    }
}

/// Looks at discovery until cancelled. Every answer is handed on, also an unchanged one: a completed
/// list waits for it before deletes are concluded (I3).
pub(crate) async fn run(
    client: ClusterClient,
    served: mpsc::Sender<Discovered>,
    calls: Arc<Calls>,
    interval: Duration,
    ambient: Ambient,
    cancelled: CancellationToken,
) {
    let mut discovery = Discovery::new(client.clone());
    let mut retry = ambient.retry();
    let work = async {
        loop {
            let look = calls.look.load(Ordering::Acquire);
            let wait = match discovery.refresh().await {
                Ok(_) => {
                    retry.reset();
                    let found = Discovered { served: Arc::new(discovery.served().clone()), look };
                    if served.send(found).await.is_err() {
                        return;
                    }
                    interval
                }
                Err(error) => {
                    let failure = error.into_failure();
                    tracing::warn!(code = CLUSTER_UNREACHABLE, %failure, "discovery failed; what was known stays");
                    retry.next()
                }
            };
            tokio::time::sleep(SPACING.min(wait)).await;
            until_called_for(&client, &calls, wait).await;
        }
    };
    // Cancelled or nobody listens: the end either way.
    let _: Option<()> = cancelled.run_until_cancelled(work).await;
}

/// Early is fine, late is too.
async fn until_called_for(client: &ClusterClient, calls: &Calls, wait: Duration) {
    let began = Instant::now();
    let mut groups = None;
    loop {
        let awaits = calls.awaits.load(Ordering::Relaxed);
        let left = if awaits { AWAITING.min(wait) } else { wait }.saturating_sub(began.elapsed());
        let pause = if awaits { GLANCE.min(left) } else { left };
        if tokio::time::timeout(pause, calls.again.notified()).await.is_ok() || left.is_zero() {
            return;
        }
        if awaits {
            // A failure shows in the next full look.
            let Ok(reply) = client.get("/apis").await else { continue };
            if groups.replace(reply.body.clone()).is_some_and(|before| before != reply.body) {
                return;
            }
        }
    }
}
