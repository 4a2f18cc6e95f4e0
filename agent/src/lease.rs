//! Carries out what the rewind guard wants of the agent's Lease (`owner::guard`): one request at a
//! time, each answered exactly once.

use std::sync::Arc;
use std::time::Duration;

use lockstep_cluster::{ClusterClient, LeaseState, LeaseWrite};
use lockstep_engine::clock::Clock;
use lockstep_engine::outcome::{Failure, FailureClass};
use lockstep_engine::rfc3339;
use tokio::sync::mpsc;
use tracing::Instrument as _;

use crate::owner::{Action, LeaseRead, LeaseWritten};

/// Name of the Lease.
const NAME: &str = "lockstep-agent";
/// Four times the ten seconds between two renewals, as with the Leases of nodes.
const DURATION_S: u32 = 40;
/// A server that has not answered by then is asked again.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raise {
    pub(crate) counter: u64,
    pub(crate) holder: String,
    /// The state that was read; none: there was no Lease.
    pub(crate) over: Option<LeaseState>,
}

/// Answers to the owner: one request at a time.
pub(crate) const ANSWERS: usize = 1;

/// Reads and writes the Lease.
pub(crate) struct Keeper {
    client: ClusterClient,
    namespace: Arc<str>,
    clock: Clock,
    answers: mpsc::Sender<Action>,
}

impl Keeper {
    pub(crate) fn new(
        client: ClusterClient,
        namespace: &str,
        clock: Clock,
        answers: mpsc::Sender<Action>,
    ) -> Self {
        Self { client, namespace: namespace.into(), clock, answers }
    }

    /// Reads it; answers with [`Action::LeaseRead`].
    pub(crate) fn read(&self, read: u64) {
        let (client, namespace) = (self.client.clone(), Arc::clone(&self.namespace));
        self.answer(async move {
            let asked = tokio::time::timeout(TIMEOUT, client.read_lease(&namespace, NAME));
            let lease = match asked.await {
                Ok(Ok(Some(lease))) => LeaseRead::Held(lease),
                Ok(Ok(None)) => LeaseRead::Absent,
                // Without Leases there is nothing to count in, either.
                Ok(Err(failure))
                    if matches!(failure.class, FailureClass::Forbidden | FailureClass::NotServed) =>
                {
                    LeaseRead::Forbidden(failure.to_string())
                }
                Ok(Err(failure)) => LeaseRead::Unreadable(failure.to_string()),
                Err(_) => LeaseRead::Unreadable(silence()),
            };
            Action::LeaseRead { read, lease }
        });
    }

    /// Writes it; answers with [`Action::LeaseWritten`].
    pub(crate) fn raise(&self, raise: Raise) {
        let now = self.clock.now();
        let (client, namespace) = (self.client.clone(), Arc::clone(&self.namespace));
        self.answer(async move {
            let write = LeaseWrite {
                namespace: &namespace,
                name: NAME,
                counter: raise.counter,
                holder: &raise.holder,
                duration_s: DURATION_S,
                renew_time: &rfc3339::write_micros(now),
                over: raise.over.as_ref(),
            };
            let written = match tokio::time::timeout(TIMEOUT, client.write_lease(&write)).await {
                Ok(Ok(lease)) => LeaseWritten::Raised(lease),
                Ok(Err(failure)) if is_refusal(&failure) => LeaseWritten::Forbidden(failure.to_string()),
                Ok(Err(failure)) if matches!(failure.class, FailureClass::Stale | FailureClass::Gone) => {
                    LeaseWritten::Conflict
                }
                Ok(Err(failure)) => LeaseWritten::Failed(failure.to_string()),
                Err(_) => LeaseWritten::Failed(silence()),
            };
            Action::LeaseWritten(written)
        });
    }

    fn answer(&self, work: impl Future<Output = Action> + Send + 'static) {
        let answers = self.answers.clone();
        let task = async move {
            // The agent is gone: nobody to tell.
            let _ = answers.send(work.await).await;
        };
        tokio::spawn(task.in_current_span());
    }
}

/// Will a write be refused until somebody changes something? Without the namespace it is, too.
fn is_refusal(failure: &Failure) -> bool {
    let class = failure.class;
    class.is_permanent()
        || matches!(class, FailureClass::NamespaceMissing | FailureClass::NamespaceTerminating)
}

fn silence() -> String {
    format!("no answer within {} s", TIMEOUT.as_secs())
}
