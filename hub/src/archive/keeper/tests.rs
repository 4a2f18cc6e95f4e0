//! The keeper on a real directory, a real store and the core that owns it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockstep_engine::acts::Span;
use lockstep_engine::retention::GRACE_MS;
use lockstep_engine::{ClusterId, ClusterName, Uid};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::archive::{ClusterRef, Keyring, LocalArchive};
use crate::config::{Secrets, Span as Age};
use crate::core::{Core, Keys, Parts};
use crate::seal::HubKey;
use crate::store::conformance::{full_placement, key, placement, tombstone, within};
use crate::store::sqlite::SqliteStore;
use crate::store::{
    Cause, DeleteStage, Hold, PlacementRow, PolicyFileRow, SourceRef, Store, TombstoneFilter, TombstoneRow,
    removed_clusters,
};

const NOW: Millis = 1_800_000_000_000;
const DAY: Millis = 24 * GRACE_MS;
const NONE: RetentionConfig = RetentionConfig { max_age: None, max_versions: None, max_bytes: None };

fn hub_key() -> HubKey {
    HubKey::from_bytes([3; 32])
}

fn prod() -> ClusterRef {
    ClusterRef { name: ClusterName::new("prod").unwrap(), uid: Some(Uid::new("u-prod")) }
}

/// A keeper, with the core beside it on a thread.
struct Bed {
    keeper: Keeper,
    readers: Readers,
    archive: PathBuf,
    problems: Problems,
    core: std::thread::JoinHandle<()>,
}

/// What is in the store before the core owns it.
fn seeded(dir: &Path, fill: impl FnOnce(&mut SqliteStore)) -> SqliteStore {
    let mut store = SqliteStore::open(&dir.join("data/state.db"), hub_key().sealer()).unwrap();
    within(&mut store, fill);
    store
}

fn with_prod(store: &mut SqliteStore) -> ClusterId {
    let mut row = store.create_cluster(&prod().name, 1).unwrap();
    row.uid = prod().uid;
    row.connected_at = Some(2);
    store.put_cluster(&row).unwrap();
    row.id
}

fn bed(dir: &TempDir, store: SqliteStore, own: &[u8], retention: RetentionConfig) -> Bed {
    let own: Vec<_> = own.iter().map(|n| [*n; 32]).collect();
    let archive = dir.path().join("archive");
    let tombstones = Tombstones::new(
        Arc::new(LocalArchive::open(&archive).unwrap()),
        Keyring::new(&own, &hub_key()),
        Secrets::Encrypted,
    );
    let sqlite = store.readers();
    let readers: Readers = Arc::new(move || Ok(Box::new(sqlite.open()?)));
    let mut core = Core::load(Parts {
        store,
        keys: Keys::of(&hub_key()),
        archive: Arc::new(Notify::new()),
        findings: Arc::default(),
        sessions: Arc::default(),
        hub_id: "hub".to_owned(),
        protocols: lockstep_wire::Protocols::BUILT_IN,
    })
    .unwrap();
    let (inputs, mut received) = mpsc::channel(8);
    let owner = std::thread::spawn(move || {
        while let Some(input) = received.blocking_recv() {
            while core.handle(Vec::new(), NOW).unwrap() {}
            core.handle(vec![input], NOW).unwrap();
            while core.handle(Vec::new(), NOW).unwrap() {}
        }
    });
    let problems = Problems::default();
    let keeper = Keeper::new(KeeperParts {
        tombstones,
        readers: readers.clone(),
        inputs,
        retention,
        metrics: Metrics::default(),
        problems: problems.clone(),
        now: || NOW,
    });
    Bed { keeper, readers, archive, problems, core: owner }
}

impl Bed {
    /// Takes a tombstone's file into the archive, and tells the core.
    async fn archive(&self, cluster: &ClusterRef, row: &TombstoneRow) -> String {
        let file = self.keeper.0.parts.tombstones.put(cluster, row).await.unwrap();
        let path = file.path.clone();
        self.keeper.0.parts.inputs.send(Input::Archived { id: row.id, file }).await.unwrap();
        path
    }

    /// The store is free when this returns.
    async fn close(self) {
        let Self { keeper, core, .. } = self;
        drop(keeper);
        tokio::task::spawn_blocking(move || core.join().unwrap()).await.unwrap();
    }

    /// All that is in the outbox.
    async fn archive_all(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for row in (self.readers)().unwrap().outbox(0, usize::MAX).unwrap() {
            paths.push(self.archive(&prod(), &row).await);
        }
        // Answered in order: what was told before is in the store.
        self.keeper.ask(|reply| Keeping::Purged { ids: Vec::new(), reply }).await.unwrap();
        paths
    }

    fn rows(&self) -> Vec<TombstoneRow> {
        let any = TombstoneFilter { undeleted: true, ..TombstoneFilter::default() };
        let mut rows = (self.readers)().unwrap().tombstones(&any, usize::MAX).unwrap();
        rows.sort_by_key(|row| row.id);
        rows
    }

    fn ids(&self) -> Vec<i64> {
        self.rows().iter().map(|row| row.id).collect()
    }

    fn is_there(&self, path: &str) -> bool {
        self.archive.join(path).exists()
    }

    async fn finished(&self, work: impl Fn(&Keeper) -> Option<Work>) -> Work {
        let waited = tokio::time::timeout(crate::TEST_PATIENCE, async {
            loop {
                match work(&self.keeper).filter(|work| !work.running) {
                    Some(work) => return work,
                    None => tokio::task::yield_now().await,
                }
            }
        });
        waited.await.unwrap()
    }

    async fn rewrapped(&self) -> Work {
        assert!(self.keeper.rewrap().running);
        self.finished(Keeper::rewrapping).await
    }

    async fn reindexed(&self) -> Work {
        assert!(self.keeper.reindex().running);
        self.finished(Keeper::reindexing).await
    }
}

/// Ages in hours, all of one object.
fn of_ages(store: &mut SqliteStore, name: &str, ages: &[i64]) {
    let cluster = store.clusters().unwrap()[0].id;
    for age in ages {
        let row = tombstone(cluster.0, key("ConfigMap", "n", name), NOW - age * GRACE_MS);
        let row = TombstoneRow { uid: Uid::new(&format!("{name}-{age}")), ..row };
        store.put_tombstone(&row).unwrap();
    }
}

#[tokio::test]
async fn a_sweep_takes_what_is_too_old_or_too_many_and_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = seeded(dir.path(), |store| {
        with_prod(store);
        of_ages(store, "x", &[100, 30, 20, 10, 0]);
        of_ages(store, "y", &[100, 10]);
    });
    let retention = RetentionConfig { max_age: Some(Age(2 * DAY)), max_versions: Some(3), max_bytes: None };
    let bed = bed(&dir, store, &[], retention);
    assert_eq!(bed.keeper.sweep().await.unwrap(), 0, "what is not in the archive yet stays");
    let paths = bed.archive_all().await;
    assert_eq!(bed.keeper.sweep().await.unwrap(), 3);
    assert_eq!(bed.ids(), [3, 4, 5, 7]);
    let there: Vec<bool> = paths.iter().map(|path| bed.is_there(path)).collect();
    assert_eq!(there, [false, false, true, true, true, false, true]);
    assert_eq!(bed.keeper.sweep().await.unwrap(), 0);
}

#[tokio::test]
async fn a_policy_keeps_what_it_means_longer_or_shorter_than_the_settings() {
    const POLICY: &str = "apiVersion: sync.k8s.io/v1
kind: ArchivePolicy
metadata: { name: week }
spec:
  resources: [{ kind: ConfigMap, names: [x] }]
  retention: { maxAge: 7d }
";
    let dir = tempfile::tempdir().unwrap();
    let store = seeded(dir.path(), |store| {
        with_prod(store);
        of_ages(store, "x", &[200, 100]);
        of_ages(store, "y", &[100, 10]);
        store.put_policy_files(&[PolicyFileRow { path: "week.yaml".into(), text: POLICY.into() }]).unwrap();
    });
    let bed = bed(&dir, store, &[], RetentionConfig { max_age: Some(Age(DAY)), ..NONE });
    bed.archive_all().await;
    assert_eq!(bed.keeper.sweep().await.unwrap(), 2);
    assert_eq!(bed.ids(), [2, 4]);
}

#[tokio::test]
async fn a_crash_between_file_and_row_leaves_a_row_that_the_next_sweep_takes() {
    let dir = tempfile::tempdir().unwrap();
    let store = seeded(dir.path(), |store| {
        with_prod(store);
        of_ages(store, "x", &[100]);
    });
    let bed = bed(&dir, store, &[], RetentionConfig { max_age: Some(Age(DAY)), ..NONE });
    let path = bed.archive_all().await.remove(0);
    std::fs::remove_file(bed.archive.join(path)).unwrap();
    assert_eq!(bed.keeper.sweep().await.unwrap(), 1);
    assert!(bed.ids().is_empty());
}

#[tokio::test]
async fn the_oldest_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = seeded(dir.path(), |store| {
        with_prod(store);
        of_ages(store, "x", &[50, 40, 30]);
        of_ages(store, "y", &[45]);
    });
    let bed = bed(&dir, store, &[], RetentionConfig { max_bytes: Some(1), ..NONE });
    bed.archive_all().await;
    bed.keeper.hold(vec![2], "audit".into(), "jane".into()).await.unwrap();
    assert_eq!(bed.keeper.sweep().await.unwrap(), 3, "all but the one that is held");
    assert_eq!(bed.ids(), [2]);
}

#[tokio::test]
async fn what_somebody_needs_is_not_purged_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let store = seeded(dir.path(), |store| {
        let prod = with_prod(store);
        of_ages(store, "source", &[100, 90]);
        of_ages(store, "image", &[100]);
        of_ages(store, "held", &[100]);
        of_ages(store, "free", &[100]);
        let source = |uid: &str| SourceRef {
            cluster: prod,
            namespace: "n".into(),
            name: "source".into(),
            uid: Uid::new(uid),
        };
        let copy = key("ConfigMap", "n", "copy");
        store
            .put_placement(&PlacementRow { source: Some(source("source-90")), ..placement(9, copy) })
            .unwrap();
        let image =
            PlacementRow { next_attempt: None, ..full_placement(prod.0, key("ConfigMap", "n", "image")) };
        let delete = Some(DeleteStage::Archiving { tombstone: 3 });
        store.put_placement(&PlacementRow { delete, source: None, ..image }).unwrap();
    });
    let bed = bed(&dir, store, &[], RetentionConfig { max_age: Some(Age(DAY)), ..NONE });
    let told = bed.keeper.purge(vec![1, 99], true).await.unwrap();
    assert_eq!(told[0].why.as_deref(), Some("it is not in the archive yet"));
    assert_eq!(told[1].why.as_deref(), Some("there is no such tombstone"));
    let paths = bed.archive_all().await;
    bed.keeper.hold(vec![4], "case 7".into(), "jane".into()).await.unwrap();
    let refused = bed.keeper.purge(vec![2, 3, 4], false).await.unwrap();
    assert!(refused.iter().all(|told| !told.purged) && paths.iter().all(|path| bed.is_there(path)));
    let shown = bed.keeper.purge(vec![1, 2, 3, 4, 5], true).await.unwrap();
    assert_eq!(shown.iter().map(|told| told.purged).collect::<Vec<_>>(), [true, false, false, false, true]);
    assert!(shown[1].why.as_ref().unwrap().contains("how the source of a copy ended"), "{shown:?}");
    assert!(shown[2].why.as_ref().unwrap().contains("a delete"), "{shown:?}");
    assert_eq!(shown[3].why.as_deref(), Some("LS0243: it is held by jane: case 7"));
    assert_eq!((shown[4].object.as_str(), shown[4].bytes > 0), ("ConfigMap n/free", true));
    assert_eq!(bed.ids().len(), 5, "a dry run does nothing");
    assert_eq!(bed.keeper.sweep().await.unwrap(), 2);
    assert_eq!(bed.ids(), [2, 3, 4]);
    bed.keeper.release(vec![4]).await.unwrap();
    assert_eq!(bed.keeper.sweep().await.unwrap(), 1);
}

/// Must show 6: rotation, and what is left of an old key.
#[tokio::test]
async fn keys_rotate_and_what_needs_an_old_key_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let store = seeded(dir.path(), |store| {
        let prod = with_prod(store);
        for n in 0..3 {
            let row = tombstone(prod.0, key("Secret", "n", &format!("s{n}")), NOW);
            store.put_tombstone(&row).unwrap();
        }
    });
    let old = bed(&dir, store, &[1], NONE);
    let paths = old.archive_all().await;
    let old_key = old.keeper.writes_with();
    assert_eq!(old.keeper.used().await.unwrap().1, [(old_key.clone(), 3)]);
    assert_eq!(old.rewrapped().await.done, 0, "they are under the key that writes");
    old.close().await;
    // A new key, and the old one was thrown away too early.
    let again = || seeded(dir.path(), |_| {});
    let lost = bed(&dir, again(), &[2], NONE);
    lost.keeper.note_keys().await.unwrap();
    let problem = lost.problems.all().remove(0);
    assert!(problem.code == "LS0248" && problem.message.contains(&old_key), "{problem}");
    assert!(problem.message.contains("3 files"), "{problem}");
    let work = lost.rewrapped().await;
    assert_eq!((work.done, work.failed, work.left), (0, 3, Some(3)));
    assert!(work.failures[0].contains("LS0248") && work.failures[0].contains(&old_key), "{work:?}");
    lost.close().await;
    let both = bed(&dir, again(), &[2, 1], NONE);
    let work = both.rewrapped().await;
    assert_eq!((work.looked_at, work.done, work.failed, work.left), (3, 3, 0, Some(0)));
    assert_eq!(both.keeper.used().await.unwrap().1, [(both.keeper.writes_with(), 3)]);
    both.close().await;
    let new = bed(&dir, again(), &[2], NONE);
    new.keeper.note_keys().await.unwrap();
    assert!(new.problems.all().is_empty());
    for path in paths {
        new.keeper.0.parts.tombstones.read(&path).await.unwrap();
    }
}

#[tokio::test]
async fn the_index_comes_back_out_of_the_archive_with_holds_and_clusters() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str, uid: &str| ClusterRef {
        name: ClusterName::new(name).unwrap(),
        uid: Some(Uid::new(uid)),
    };
    let (gone, old_prod) = (of("gone", "u-gone"), of("prod", "u-older"));
    let store = seeded(dir.path(), |store| {
        with_prod(store);
        of_ages(store, "x", &[3, 2]);
    });
    let before = bed(&dir, store, &[1], NONE);
    before.archive_all().await;
    before.keeper.hold(vec![2], "case 7".into(), "jane".into()).await.unwrap();
    // Of clusters that the new store has not heard of: one that was removed, and one whose name another has.
    let mut row = TombstoneRow { id: 90, ..tombstone(9, key("Secret", "n", "s"), NOW) };
    before.archive(&gone, &TombstoneRow { cause: Cause::ClusterRemoved, ..row.clone() }).await;
    row.cause = Cause::Lockstep { policy: "p".into() };
    row.facts.labels = [("app".to_owned(), "web".to_owned())].into();
    before.archive(&old_prod, &row).await;
    std::fs::write(before.archive.join("v1/prod-u-prod/stray"), "x").unwrap();
    let rows = before.rows();
    before.close().await;
    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    let after = bed(&dir, seeded(dir.path(), |store| _ = with_prod(store)), &[1], NONE);
    let work = after.reindexed().await;
    assert_eq!((work.looked_at, work.done, work.failed, &work.error), (4, 4, 0, &None), "{work:?}");
    let found = after.rows();
    for row in &rows {
        let same = found.iter().find(|found| found.path == row.path).unwrap();
        assert_eq!(*same, TombstoneRow { id: same.id, ..row.clone() });
    }
    let mut reader = (after.readers)().unwrap();
    let held = found.iter().find(|row| row.facts.held).unwrap();
    let hold = Hold { reason: "case 7".into(), by: "jane".into(), at_ms: NOW };
    assert_eq!(reader.hold(held.id).unwrap(), Some(hold));
    let removed = removed_clusters(&mut *reader).unwrap();
    let former: Vec<&str> = removed.iter().filter_map(|r| r.uid.as_ref()).map(Uid::as_str).collect();
    assert_eq!(former.len(), 2, "{removed:?}");
    assert!(former.contains(&"u-gone") && former.contains(&"u-older"), "{former:?}");
    assert_eq!(reader.clusters().unwrap().len(), 1, "and no member was made of them");
    let older = found.iter().find(|row| row.facts.labels.contains_key("app")).unwrap();
    assert_eq!(older.cause, Cause::Lockstep { policy: "p".into() });
    assert_eq!(after.keeper.used().await.unwrap().1, [(after.keeper.writes_with(), 2)]);
    let again = after.reindexed().await;
    assert_eq!((again.looked_at, again.done), (4, 0));
    assert_eq!(after.rows(), found, "a file has one row");
}

#[tokio::test]
async fn what_an_owner_took_with_it_is_one_act_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = seeded(dir.path(), |store| {
        let prod = with_prod(store);
        for (name, owner, at) in [("pod", Some("set"), 12), ("set", Some("web"), 11), ("web", None, 10)] {
            let mut row = tombstone(prod.0, key("ConfigMap", "n", name), NOW);
            row.uid = Uid::new(name);
            row.facts.ended = Some(Span { from: at, to: at });
            let owner = owner.map(|uid| serde_json::json!({ "name": uid, "uid": uid, "controller": true }));
            row.facts.owners =
                owner.into_iter().map(|owner| serde_json::from_value(owner).unwrap()).collect();
            store.put_tombstone(&row).unwrap();
        }
    });
    let before = bed(&dir, store, &[], NONE);
    before.archive_all().await;
    before.close().await;
    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    let after = bed(&dir, seeded(dir.path(), |store| _ = with_prod(store)), &[], NONE);
    assert_eq!(after.reindexed().await.done, 3);
    let acts: Vec<_> = after.rows().into_iter().map(|row| row.facts.act).collect();
    assert!(acts[0].is_some() && acts.iter().all(|act| *act == acts[0]), "{acts:?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_the_rest_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = seeded(dir.path(), |store| {
        with_prod(store);
        of_ages(store, "x", &[3, 2]);
    });
    let before = bed(&dir, store, &[], NONE);
    let paths = before.archive_all().await;
    before.close().await;
    std::fs::write(dir.path().join("archive").join(&paths[0]), "canary").unwrap();
    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    let after = bed(&dir, seeded(dir.path(), |_| {}), &[], NONE);
    let stop = tokio_util::sync::CancellationToken::new();
    let watching = tokio::spawn(watch(after.keeper.clone(), stop.clone()));
    let told = || after.problems.all().iter().any(|problem| problem.code == "LS0244");
    let waited = tokio::time::timeout(crate::TEST_PATIENCE, async {
        while !told() {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap();
    assert!(after.ids().is_empty(), "nothing is indexed, and nothing purged, before a person says so");
    let work = after.reindexed().await;
    assert_eq!((work.looked_at, work.done, work.failed), (2, 1, 1));
    assert!(work.failures[0].contains(&paths[0]) && !work.failures[0].contains("canary"), "{work:?}");
    assert!(!told());
    stop.cancel();
    watching.await.unwrap();
    // The cluster was not known: its name and uid are, from now on.
    let cluster = (after.readers)().unwrap().clusters().unwrap().remove(0);
    assert_eq!((cluster.name, cluster.uid), (prod().name, prod().uid));
}
