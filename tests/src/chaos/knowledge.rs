//! What the hub surely knew: the objects that its own API has shown, and when. The store commits before it shows, so
//! what was shown once must be found again, live or as a tombstone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::fleet::{Fleet, HubClient};
use super::journal::Journal;
use super::objects::{Kind, POLICIES};
use crate::testbed::CLUSTERS;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(700);

/// An object that the hub has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    /// When it was shown last.
    pub(super) at_ms: u64,
}

/// By cluster and uid.
pub(super) type KnownObjects = BTreeMap<(usize, String), Known>;

/// The one who looks; ends when dropped.
pub(super) struct Watcher {
    known: Arc<Mutex<KnownObjects>>,
    task: JoinHandle<()>,
}

impl Watcher {
    pub(super) fn start(fleet: &Fleet, journal: &Arc<Journal>) -> anyhow::Result<Self> {
        let known = Arc::<Mutex<KnownObjects>>::default();
        let task = tokio::spawn(watch(fleet.hub_client()?, Arc::clone(journal), Arc::clone(&known)));
        Ok(Self { known, task })
    }

    pub(super) fn known(&self) -> KnownObjects {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(hub: HubClient, journal: Arc<Journal>, known: Arc<Mutex<KnownObjects>>) {
    loop {
        for policy in POLICIES {
            let kind = policy.kind;
            let path = format!(
                "objects?kind={}&cluster={}&selector=sync%3Dyes",
                kind.full_name(),
                CLUSTERS[policy.source]
            );
            let at_ms = journal.now_ms();
            // The hub is often away.
            let Ok(items) = hub.items(&path).await else { continue };
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            for item in items {
                let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
                let namespace = text("namespace");
                if item["managed"] == false && policy.namespaces.contains(&namespace.as_str()) {
                    let object = Known { kind, namespace, name: text("name"), at_ms };
                    known.insert((policy.source, text("uid")), object);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
