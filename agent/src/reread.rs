//! Reads objects again, one by one, where hub and index were found to differ.

use std::sync::Arc;

use lockstep_cluster::{ClusterClient, Resource};
use lockstep_engine::outcome::{FailureClass, Operation, Sensitivity};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::owner::Action;
use crate::watch::Read;

/// Reads at a time: they are repairs, and must not be in anybody's way.
const AT_ONCE: usize = 4;
/// Answers that wait for the owner: it does not take them while too much waits for the hub.
pub(crate) const ANSWERS: usize = AT_ONCE;

/// Objects of one namespace to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reread {
    pub(crate) watch: u32,
    pub(crate) run: u64,
    pub(crate) resource: Resource,
    pub(crate) namespace: Box<str>,
    pub(crate) names: Vec<Box<str>>,
}

/// Reads what the owner wants read.
pub(crate) struct Rereader {
    client: ClusterClient,
    slots: Arc<Semaphore>,
    answers: mpsc::Sender<Action>,
}

impl Rereader {
    pub(crate) fn new(client: ClusterClient, answers: mpsc::Sender<Action>) -> Self {
        Self { client, slots: Arc::new(Semaphore::new(AT_ONCE)), answers }
    }

    /// Reads them one after the other, beside those of other namespaces; answers each with
    /// [`Action::Reread`]. Ends early when the watch's task is cancelled: its owner forgot them then.
    pub(crate) fn begin(&self, reread: Reread, cancelled: CancellationToken) {
        let (client, slots, answers) = (self.client.clone(), Arc::clone(&self.slots), self.answers.clone());
        let work = async move {
            let Reread { watch, run, resource, namespace, names } = reread;
            for name in names {
                // Never closed; without a permit the read would still be correct.
                let permit = slots.acquire().await.ok();
                let read = read(&client, &resource, &namespace, &name).await;
                drop(permit);
                let answer = Action::Reread { watch, run, namespace: namespace.clone(), name, read };
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
        };
        let task = async move {
            // Either way there is nothing left to do.
            let _: Option<()> = cancelled.run_until_cancelled(work).await;
        };
        tokio::spawn(task.in_current_span());
    }
}

async fn read(client: &ClusterClient, resource: &Resource, namespace: &str, name: &str) -> Read {
    let reply = match client.get(&resource.object(namespace, name)).await {
        Ok(reply) if reply.is_success() => return Read::Found(reply.body),
        Ok(reply) => reply,
        Err(error) => {
            tracing::debug!(namespace, name, %error, "an object could not be read again");
            return Read::Failed;
        }
    };
    let failure = reply.failure(Operation::Read, Sensitivity::of(&resource.group, &resource.kind));
    match failure.class {
        // The answer names the object: the kind is served, and this one is not there.
        FailureClass::Gone => Read::Absent,
        FailureClass::Forbidden => Read::Forbidden,
        _ => {
            tracing::debug!(namespace, name, %failure, "an object could not be read again");
            Read::Failed
        }
    }
}
