//! After a restore: the state is of yesterday, and the clusters are of today. Nothing is written to
//! them until every cluster that the state knows has connected and told what happened since; or until
//! somebody says so (`lockstep resume --all`).
//!
//! A watch that goes on from an old checkpoint says that it is live before it has caught up. So its
//! word is taken after a while of it.

use std::time::Duration;

use lockstep_engine::Millis;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backup::SETTLES;
use crate::core::Input;
use crate::core::command::{Command, PauseScope};
use crate::owner::now;
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

/// Ends the pause of a restored hub when it has caught up. Returns at once where there is none.
pub(crate) async fn run(
    readers: Readers,
    inputs: mpsc::Sender<Input>,
    problems: Problems,
    stop: CancellationToken,
) {
    let began = now();
    let mut caught_up: Option<Instant> = None;
    loop {
        let readers = readers.clone();
        let looked = tokio::task::spawn_blocking(move || look(&mut *readers()?, began)).await;
        match looked {
            Ok(Ok(None)) => {
                problems.clear(SETTLES);
                return;
            }
            Ok(Ok(Some(waiting))) => {
                caught_up = if waiting.is_empty() { caught_up.or(Some(Instant::now())) } else { None };
                problems.set(SETTLES, sentence(&waiting), REMEDY, false, now());
            }
            // A store that cannot be read now: nothing is concluded from it.
            Ok(Err(_)) | Err(_) => caught_up = None,
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

const REMEDY: &str =
    "it goes on by itself; `lockstep resume --all` goes on at once, without clusters that are gone for good";

/// Who is waited for. None: it is not, or no longer, a pause after a restore.
fn look(reader: &mut dyn Reader, began: Millis) -> Result<Option<Vec<String>>, StoreError> {
    if reader.meta("paused")?.as_deref() != Some(SETTLING) {
        return Ok(None);
    }
    let mut waiting = Vec::new();
    for cluster in reader.clusters()? {
        let watches = reader.watches(Some(cluster.id))?;
        if !has_told(&cluster, &watches, began) {
            waiting.push(cluster.name.to_string());
        }
    }
    Ok(Some(waiting))
}

/// Has a cluster told of all its watches since the hub began? One that was never connected, or that
/// no policy named, has told nothing before, so nothing of it is of yesterday.
fn has_told(cluster: &ClusterRow, watches: &[WatchRow], began: Millis) -> bool {
    if cluster.uid.is_none() || watches.is_empty() {
        return true;
    }
    let Some(since) = cluster.connected_at.filter(|since| *since >= began) else { return false };
    cluster.disconnected_at.is_none()
        && watches.iter().all(|watch| match watch.phase {
            Phase::Live => watch.updated_at >= since,
            // A kind that is not served tells nothing.
            // Nor does one that may not be read: what depends on it is unknown anyway.
            Phase::Pending | Phase::Failing => {
                watch.updated_at >= since && matches!(watch.reason.as_str(), "NotServed" | "Forbidden")
            }
            Phase::Listing => false,
        })
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
        let waiting = |store: &mut SqliteStore| look(store, 100).unwrap();
        assert_eq!(waiting(&mut store), None, "it was not restored");
        let (mut row, mut watch) = within(&mut store, |store| {
            store.put_meta("paused", SETTLING).unwrap();
            store.create_cluster(&ClusterName::new("registered").unwrap(), 1).unwrap();
            let mut idle = store.create_cluster(&ClusterName::new("idle").unwrap(), 1).unwrap();
            idle.uid = Some(Uid::new("i"));
            store.put_cluster(&idle).unwrap();
            let mut row = store.create_cluster(&ClusterName::new("known").unwrap(), 1).unwrap();
            row.uid = Some(Uid::new("u"));
            row.connected_at = Some(50);
            store.put_cluster(&row).unwrap();
            let mut watch = store.ensure_watch(row.id, &key("ConfigMap", "", "x").gk, "", 1).unwrap();
            watch.phase = Phase::Live;
            store.put_watch(&watch).unwrap();
            (row, watch)
        });
        let known = Some(vec!["known".to_owned()]);
        assert_eq!(waiting(&mut store), known, "its session is one of the time before");
        row.connected_at = Some(120);
        within(&mut store, |store| store.put_cluster(&row).unwrap());
        assert_eq!(waiting(&mut store), known, "its watch has not told anything yet");
        watch.updated_at = 121;
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
