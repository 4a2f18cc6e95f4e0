//! The archive as a whole, on a real directory and a real store.

mod canary;
mod conformance;
mod outage;
mod s3;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::core::Input;
use crate::metrics::Metrics;
use crate::seal::{HubKey, Sealer};
use crate::store::conformance::{key, tombstone, within};
use crate::store::sqlite::SqliteStore;
use crate::store::{Filed, Reader, Store};
use lockstep_engine::{ClusterId, GroupKind, ObjectKey};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

fn sealer() -> Sealer {
    HubKey::from_bytes([3; 32]).sealer()
}

/// The archive has a key of its own, `n`, and the one of the hub.
fn keys(own: &[u8]) -> Keyring {
    let own: Vec<_> = own.iter().map(|n| [*n; 32]).collect();
    Keyring::new(&own, &HubKey::from_bytes([3; 32]))
}

fn tombstones_in(archive: Arc<dyn Archive>) -> Tombstones {
    Tombstones::new(archive, keys(&[]), Secrets::Encrypted)
}

fn cluster() -> ClusterRef {
    ClusterRef { name: ClusterName::new("prod").unwrap(), uid: Some(Uid::new("0d9f3a52-aaaa")) }
}

fn local(dir: &TempDir) -> Tombstones {
    tombstones_in(Arc::new(LocalArchive::open(&dir.path().join("a/archive")).unwrap()))
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { out.extend(files(&path)) } else { out.push(path) }
    }
    out
}

#[tokio::test]
async fn what_is_put_can_be_read_and_putting_it_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tombstones = local(&dir);
    let gk = GroupKind::new("rbac.authorization.k8s.io", "ClusterRole");
    for key in [key("ConfigMap", "shop", "web"), ObjectKey::new(gk, "", "system:node 50%/x")] {
        let row = tombstone(1, key, 1_767_323_045_123);
        let path = tombstones.put(&cluster(), &row).await.unwrap().path;
        let first = std::fs::read(dir.path().join("a/archive").join(&path)).unwrap();
        assert_eq!(tombstones.put(&cluster(), &row).await.unwrap().path, path);
        assert_eq!(std::fs::read(dir.path().join("a/archive").join(&path)).unwrap(), first);
        let read = tombstones.read(&path).await.unwrap();
        assert_eq!(read.object, serde_json::json!({ "canary": 1 }));
        assert_eq!(read.header.object.name, row.key.name.as_ref());
        assert_eq!(read.header.cluster.uid, "0d9f3a52-aaaa");
    }
    assert_eq!(files(dir.path()).len(), 2, "no staging file stays");
}

/// I13.
#[tokio::test]
async fn secrets_lie_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let tombstones = local(&dir);
    let row = tombstone(1, key("Secret", "shop", "web"), 5);
    let path = tombstones.put(&cluster(), &row).await.unwrap().path;
    assert!(path.ends_with(".yaml.zst.sealed"), "{path}");
    let bytes = std::fs::read(dir.path().join("a/archive").join(&path)).unwrap();
    assert!(zstd::bulk::decompress(&bytes, 1 << 20).is_err());
    assert_eq!(tombstones.read(&path).await.unwrap().object, serde_json::json!({ "canary": 1 }));
    let archive = Arc::new(LocalArchive::open(&dir.path().join("a/archive")).unwrap());
    let other = Keyring::of_hub(&HubKey::from_bytes([4; 32]));
    let error = Tombstones::new(archive, other, Secrets::Encrypted).read(&path).await.unwrap_err();
    assert!(error.code() == "LS0248" && error.to_string().contains("archive.keys_file"), "{error}");
}

#[tokio::test]
async fn what_a_policy_names_lies_sealed_and_secrets_as_the_settings_say() {
    let dir = tempfile::tempdir().unwrap();
    let archive: Arc<dyn Archive> = Arc::new(LocalArchive::open(dir.path()).unwrap());
    let body = Bytes::from_static(br#"{"kind":"Secret","data":{"p":"canary"}}"#);
    for (kind, sealed, secrets, ends, shown) in [
        ("ConfigMap", true, Secrets::Plaintext, ".sealed", true),
        ("ConfigMap", false, Secrets::Encrypted, ".zst", true),
        ("Secret", false, Secrets::Encrypted, ".sealed", true),
        ("Secret", false, Secrets::Plaintext, ".zst", true),
        ("Secret", true, Secrets::Plaintext, ".sealed", true),
        ("Secret", false, Secrets::MetadataOnly, ".zst", false),
        ("Secret", true, Secrets::MetadataOnly, ".sealed", false),
    ] {
        let tombstones = Tombstones::new(archive.clone(), keys(&[1]), secrets);
        let mut row = TombstoneRow { body: Some(body.clone()), ..tombstone(1, key(kind, "n", "x"), 5) };
        row.facts.sealed = sealed;
        let filed = tombstones.put(&cluster(), &row).await.unwrap();
        assert!(filed.path.ends_with(ends), "{} {secrets:?}", filed.path);
        assert_eq!(filed.key.is_some(), ends == ".sealed");
        let read = tombstones.read(&filed.path).await.unwrap();
        assert_eq!(read.object.to_string().contains("canary"), shown, "{secrets:?}");
        assert_ne!(read.header.values_withheld, shown);
        if filed.key.is_none() {
            let text = std::fs::read(dir.path().join(&filed.path)).unwrap();
            let text = String::from_utf8(zstd::bulk::decompress(&text, 1 << 20).unwrap()).unwrap();
            assert_eq!(text.contains("canary"), shown, "{secrets:?}");
        }
    }
}

#[tokio::test]
async fn what_is_read_is_what_was_written_or_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let tombstones = local(&dir);
    for kind in ["ConfigMap", "Secret"] {
        let mut row = tombstone(1, key(kind, "n", "x"), 5);
        row.body = Some(serde_json::json!({ "data": { "k": "canary ".repeat(50) } }).to_string().into());
        let path = tombstones.put(&cluster(), &row).await.unwrap().path;
        let file = dir.path().join("a/archive").join(&path);
        let whole = std::fs::read(&file).unwrap();
        let read = tombstones.read(&path).await.unwrap();
        for n in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[n] ^= 0x10;
            for content in [&damaged[..], &whole[..n]] {
                std::fs::write(&file, content).unwrap();
                match tombstones.read(&path).await {
                    // Some bits of a zstd frame mean nothing.
                    Ok(same) => assert_eq!(same, read, "{kind}: byte {n}"),
                    Err(error) => {
                        let text = error.to_string();
                        assert!(
                            ["LS0246", "LS0248"].contains(&error.code()) && text.contains(&path),
                            "{text}"
                        );
                        assert!(!text.contains("canary"), "{text}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_missing_or_damaged_is_told_without_quoting_it() {
    let dir = tempfile::tempdir().unwrap();
    let tombstones = local(&dir);
    assert_eq!(tombstones.read("v1/none.yaml.zst").await.unwrap_err().code(), "LS0246");
    assert_eq!(tombstones.read("../../etc/passwd").await.unwrap_err().code(), "LS0246");
    let path = tombstones.put(&cluster(), &tombstone(1, key("ConfigMap", "n", "x"), 5)).await.unwrap().path;
    std::fs::write(dir.path().join("a/archive").join(&path), b"canary").unwrap();
    let error = tombstones.read(&path).await.unwrap_err().to_string();
    assert!(error.contains("LS0246") && !error.contains("canary"), "{error}");
}

/// Fails for one object always, and for all a given number of times.
struct Flaky {
    inner: LocalArchive,
    down: AtomicUsize,
    puts: AtomicUsize,
}

impl Archive for Flaky {
    fn put<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<(), ArchiveError>> {
        self.puts.fetch_add(1, Ordering::SeqCst);
        let down = self.down.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if down || path.contains("/poison/") {
            return Box::pin(
                async move { Err(ArchiveError::Put { path: path.into(), source: "down".into() }) },
            );
        }
        self.inner.put(path, content)
    }

    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Bytes, ArchiveError>> {
        self.inner.get(path)
    }

    fn delete<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), ArchiveError>> {
        self.inner.delete(path)
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<Listed, ArchiveError>> {
        self.inner.list(folder)
    }
}

struct Bed {
    _dir: TempDir,
    store: SqliteStore,
    flaky: Arc<Flaky>,
    wake: Arc<Notify>,
    inputs: mpsc::Receiver<Input>,
    stop: CancellationToken,
}

fn bed(down: usize, names: &[&str]) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&dir.path().join("data/state.db"), sealer()).unwrap();
    within(&mut store, |store| {
        store.create_cluster(&ClusterName::new("prod").unwrap(), 1).unwrap();
        for name in names {
            store.put_tombstone(&tombstone(1, key("ConfigMap", "n", name), 5)).unwrap();
        }
    });
    let inner = LocalArchive::open(&dir.path().join("archive")).unwrap();
    let flaky = Arc::new(Flaky { inner, down: AtomicUsize::new(down), puts: AtomicUsize::new(0) });
    let (done, inputs) = mpsc::channel(1);
    let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
    let archiver = Archiver::new(ArchiverParts {
        reader: store.open_reader().unwrap(),
        tombstones: tombstones_in(flaky.clone()),
        wake: wake.clone(),
        done,
        metrics: Arc::new(Metrics::register(&mut prometheus_client::registry::Registry::default())),
        blocking: crate::blocking::Blocking::Threads,
    });
    tokio::spawn(archiver.run(stop.clone()));
    Bed { _dir: dir, store, flaky, wake, inputs, stop }
}

impl Bed {
    async fn archived(&mut self) -> (i64, Filed) {
        match tokio::time::timeout(crate::TEST_PATIENCE, self.inputs.recv()).await.unwrap().unwrap() {
            Input::Archived { id, file } => (id, file),
            other => panic!("{other:?}"),
        }
    }

    fn take_out(&mut self, id: i64, file: &Filed) {
        within(&mut self.store, |store| store.set_archived(id, file).unwrap());
    }
}

#[tokio::test]
async fn the_outbox_is_emptied_at_the_start_and_on_each_wake_up() {
    let mut bed = bed(0, &["a", "b", "c"]);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (id, file) = bed.archived().await;
        bed.take_out(id, &file);
        ids.push(id);
    }
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    within(&mut bed.store, |store| {
        store.put_tombstone(&tombstone(1, key("ConfigMap", "n", "d"), 5)).unwrap()
    });
    bed.wake.notify_one();
    let (id, file) = bed.archived().await;
    assert_eq!(id, 4);
    let read = tombstones_in(bed.flaky.clone()).read(&file.path).await.unwrap();
    assert_eq!(read.header.object.name, "d");
    bed.stop.cancel();
}

#[tokio::test]
async fn one_that_fails_for_good_delays_no_other_and_outages_are_survived() {
    let mut bed = bed(2, &["poison", "b", "c"]);
    let mut names = Vec::new();
    while names.len() < 2 {
        let (id, file) = bed.archived().await;
        bed.take_out(id, &file);
        names.push(id);
    }
    names.sort_unstable();
    assert_eq!(names, [2, 3]);
    assert_eq!(bed.store.outbox(0, 9).unwrap().len(), 1, "what the archive did not take stays");
}

/// A transaction of the core that failed takes its note of the archive with it.
#[tokio::test]
async fn a_core_that_did_not_take_note_is_told_again_without_another_put() {
    let mut bed = bed(0, &["a"]);
    let first = bed.archived().await;
    assert_eq!(bed.archived().await, first);
    assert_eq!(bed.flaky.puts.load(Ordering::SeqCst), 1);
    bed.take_out(first.0, &first.1);
    assert_eq!(bed.store.tombstone(1).unwrap().unwrap().cluster, ClusterId(1));
}
