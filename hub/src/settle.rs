//! After a restore: the state is of yesterday, and the clusters are of today. Nothing is written to
//! them until every cluster that the state knows has connected and told what happened since; or until
//! somebody says so (`lockstep resume --all`).
//!
//! A watch that goes on from an old checkpoint says that it is live before it has caught up. So its
//! word is taken after a while of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lockstep_engine::clock::Clock;
use lockstep_engine::{ClusterId, Millis};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backup::SETTLES;
use crate::blocking::Blocking;
use crate::core::Input;
use crate::core::command::{Command, PauseScope};
use crate::problem::Problems;
use crate::session::Readers;
use crate::store::sqlite::SETTLING;
use crate::store::{ClusterRow, Phase, Reader, StoreError, WatchRow};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long every watch must have been live: API servers hand out what was missed at once, and a
/// backlog comes in at tens of thousands a second.
const CAUGHT_UP: Duration = Duration::from_secs(5);
/// Clusters that are named in the sentence about who is waited for.
const NAMED: usize = 5;

/// What a restored hub waits for.
#[derive(Debug)]
pub struct Settling {
    before: Before,
    problems: Problems,
    clock: Clock,
    blocking: Blocking,
}

/// What the state said of clusters and watches before anybody connected. Clocks are set, also back: none is asked.
#[derive(Debug)]
struct Before {
    /// Number of each cluster's last session.
    sessions: BTreeMap<ClusterId, u64>,
    /// When each watch had last been told of.
    told: BTreeMap<u32, Millis>,
}

impl Settling {
    /// Looks at the state, before agents may connect. None: it was not restored.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn begin(
        reader: &mut dyn Reader,
        problems: Problems,
        clock: Clock,
        blocking: Blocking,
    ) -> Result<Option<Self>, StoreError> {
        Ok(Before::read(reader)?.map(|before| Self { before, problems, clock, blocking }))
    }

    /// Ends the pause when the hub has caught up.
    pub async fn run(self, readers: Readers, inputs: mpsc::Sender<Input>, stop: CancellationToken) {
        let Self { before, problems, clock, blocking } = self;
        let before = Arc::new(before);
        let mut caught_up: Option<Instant> = None;
        loop {
            let (readers, before) = (readers.clone(), Arc::clone(&before));
            match blocking.run(move || before.look(&mut *readers()?)).await {
                Some(Ok(None)) => {
                    problems.clear(SETTLES);
                    return;
                }
                Some(Ok(Some(waiting))) => {
                    caught_up = if waiting.is_empty() { caught_up.or(Some(Instant::now())) } else { None };
                    problems.set(SETTLES, sentence(&waiting), REMEDY, false, clock.now());
                }
                // A store that cannot be read now: nothing is concluded from it.
                Some(Err(_)) | None => caught_up = None,
            }
            if caught_up.is_some_and(|since| since.elapsed() >= CAUGHT_UP) {
                let (reply, answer) = oneshot::channel();
                let command = Command::Pause { scope: PauseScope::Everything, paused: false, reply };
                if inputs.send(Input::Command(command)).await.is_err() {
                    return;
                }
                if let Ok(Ok(())) = answer.await {
                    tracing::info!("the restored hub has caught up with its clusters, and writes again");
                }
                caught_up = None;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

const REMEDY: &str =
    "it goes on by itself; `lockstep resume --all` goes on at once, without clusters that are gone for good";

impl Before {
    /// None: it is not a pause after a restore.
    fn read(reader: &mut dyn Reader) -> Result<Option<Self>, StoreError> {
        if !is_settling(reader)? {
            return Ok(None);
        }
        let sessions = reader.clusters()?.into_iter().map(|row| (row.id, row.session)).collect();
        let told = reader.watches(None)?.into_iter().map(|row| (row.id, row.updated_at)).collect();
        Ok(Some(Self { sessions, told }))
    }

    /// Who is waited for. None: it is no longer a pause after a restore.
    fn look(&self, reader: &mut dyn Reader) -> Result<Option<Vec<String>>, StoreError> {
        if !is_settling(reader)? {
            return Ok(None);
        }
        let mut waiting = Vec::new();
        for cluster in reader.clusters()? {
            let watches = reader.watches(Some(cluster.id))?;
            if !self.has_told(&cluster, &watches) {
                waiting.push(cluster.name.to_string());
            }
        }
        Ok(Some(waiting))
    }

    /// Has a cluster told of all its watches since? One that was never connected, or that no policy named, has told
    /// nothing before, so nothing of it is of yesterday.
    fn has_told(&self, cluster: &ClusterRow, watches: &[WatchRow]) -> bool {
        if cluster.uid.is_none() || watches.is_empty() {
            return true;
        }
        if self.sessions.get(&cluster.id).is_some_and(|before| cluster.session <= *before)
            || cluster.disconnected_at.is_some()
        {
            return false;
        }
        let is_news = |watch: &WatchRow| self.told.get(&watch.id) != Some(&watch.updated_at);
        watches.iter().all(|watch| match watch.phase {
            Phase::Live => is_news(watch),
            // A kind that is not served tells nothing.
            // Nor does one that may not be read: what depends on it is unknown anyway.
            Phase::Pending | Phase::Failing => {
                is_news(watch) && matches!(watch.reason.as_str(), "NotServed" | "Forbidden" | "NotAccepted")
            }
            Phase::Listing => false,
        })
    }
}

fn is_settling(reader: &mut dyn Reader) -> Result<bool, StoreError> {
    Ok(reader.meta("paused")?.as_deref() == Some(SETTLING))
}

fn sentence(waiting: &[String]) -> String {
    let who = match waiting {
        [] => "it is reading what happened since".to_owned(),
        some if some.len() <= NAMED => format!("it waits for {}", some.join(", ")),
        many => format!("it waits for {} and {} others", many[..NAMED].join(", "), many.len() - NAMED),
    };
    format!("the hub was restored from a backup and writes nothing yet: {who}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::HubKey;
    use crate::store::Store;
    use crate::store::conformance::{key, within};
    use crate::store::sqlite::SqliteStore;
    use lockstep_engine::{ClusterName, Uid};

    #[test]
    fn every_cluster_that_is_known_must_have_told_of_all_its_watches() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = HubKey::from_bytes([1; 32]).sealer();
        let mut store = SqliteStore::open(&dir.path().join("state.db"), sealer).unwrap();
        assert!(Before::read(&mut store).unwrap().is_none(), "it was not restored");
        let (mut row, mut watch) = within(&mut store, |store| {
            store.put_meta("paused", SETTLING).unwrap();
            store.create_cluster(&ClusterName::new("registered").unwrap(), 1).unwrap();
            let mut idle = store.create_cluster(&ClusterName::new("idle").unwrap(), 1).unwrap();
            idle.uid = Some(Uid::new("i"));
            store.put_cluster(&idle).unwrap();
            let mut row = store.create_cluster(&ClusterName::new("known").unwrap(), 1).unwrap();
            row.uid = Some(Uid::new("u"));
            row.session = 7;
            store.put_cluster(&row).unwrap();
            let mut watch = store.ensure_watch(row.id, &key("ConfigMap", "", "x").gk, "", 1).unwrap();
            watch.phase = Phase::Live;
            watch.updated_at = 50;
            store.put_watch(&watch).unwrap();
            (row, watch)
        });
        let before = Before::read(&mut store).unwrap().unwrap();
        let waiting = |store: &mut SqliteStore| before.look(store).unwrap();
        let known = Some(vec!["known".to_owned()]);
        assert_eq!(waiting(&mut store), known, "its session is one of the time before");
        row.session = 8;
        within(&mut store, |store| store.put_cluster(&row).unwrap());
        assert_eq!(waiting(&mut store), known, "its watch has not told anything yet");
        // The clock was ahead before.
        watch.updated_at = 40;
        within(&mut store, |store| store.put_watch(&watch).unwrap());
        assert_eq!(waiting(&mut store), Some(vec![]));
        watch.phase = Phase::Listing;
        within(&mut store, |store| store.put_watch(&watch).unwrap());
        assert_eq!(waiting(&mut store), known);
        // Somebody pauses everything, or goes on: that is theirs to end.
        within(&mut store, |store| store.put_meta("paused", "true").unwrap());
        assert_eq!(waiting(&mut store), None);
    }

    #[test]
    fn who_is_waited_for_is_named_and_not_without_end() {
        let names = |n| (0..n).map(|n| format!("c{n}")).collect::<Vec<_>>();
        assert!(sentence(&names(2)).ends_with("it waits for c0, c1"));
        assert!(sentence(&names(7)).ends_with("it waits for c0, c1, c2, c3, c4 and 2 others"));
    }
}
