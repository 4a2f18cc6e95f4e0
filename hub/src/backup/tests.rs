//! Backups of real stores with archives, and back.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use lockstep_engine::{ClusterId, ClusterName, Uid};
use tempfile::TempDir;

use super::*;
use crate::archive::{Archive, LocalArchive};
use crate::seal::HubKey;
use crate::store::conformance::{full_placement, key, object, tombstone, within};
use crate::store::restores::{RestoreReader as _, RestoreRow, RestoreStore as _};
use crate::store::sqlite::{SETTLING, SqliteStore};
use crate::store::{Filed, Reader, Store};

const NOW: Millis = 1_767_323_045_000;

struct Bed {
    dir: TempDir,
    store: SqliteStore,
}

impl Bed {
    /// A hub's data with two archived tombstones and one that waits.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut store =
            SqliteStore::open(&dir.path().join("data/state.db"), HubKey::from_bytes([7; 32]).sealer())
                .unwrap();
        let archive = Arc::new(LocalArchive::open(&dir.path().join("data/archive")).unwrap());
        std::fs::write(dir.path().join("data/api-token"), "secret").unwrap();
        within(&mut store, |store| {
            let mut row = store.create_cluster(&ClusterName::new("a").unwrap(), 1).unwrap();
            (row.uid, row.instance, row.committed) = (Some(Uid::new("u")), "i".into(), 9);
            (row.connected_at, row.token_hash) = (Some(3), Some([1; 32]));
            store.put_cluster(&row).unwrap();
            store.put_object(&object(1, 1, key("ConfigMap", "n", "x"))).unwrap();
            store.put_placement(&full_placement(1, key("ConfigMap", "n", "x"))).unwrap();
            for n in 0..3 {
                let id =
                    store.put_tombstone(&tombstone(1, key("ConfigMap", "n", &format!("t{n}")), n)).unwrap();
                if n > 0 {
                    store
                        .set_archived(
                            id,
                            &Filed {
                                path: format!("v1/a-u/core/ConfigMap/n/t{n}.yaml.zst"),
                                size: 7,
                                key: None,
                            },
                        )
                        .unwrap();
                }
            }
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        for n in 1..4 {
            let path = format!("v1/a-u/core/ConfigMap/n/t{n}.yaml.zst");
            runtime.block_on(archive.put(&path, format!("body {n}").into())).unwrap();
        }
        Self { dir, store }
    }

    fn options(&self, to: &str) -> BackupOptions {
        let data_dir = self.dir.path().join("data");
        let (archive_dir, to) = (Some(data_dir.join("archive")), self.dir.path().join(to));
        BackupOptions { data_dir, archive_dir, to, now: NOW }
    }

    fn restore(&self, from: &str, to: &str, force: bool) -> Result<RestoreReport, BackupError> {
        let data_dir = self.dir.path().join(to);
        restore(
            &RestoreOptions {
                from: self.dir.path().join(from),
                archive_dir: Some(data_dir.join("archive")),
                data_dir,
                force,
                sealer: Some(HubKey::from_bytes([7; 32]).sealer()),
                now: NOW + 1_000,
            },
            &mut |_| {},
        )
    }

    fn open(&self, data: &str) -> SqliteStore {
        let path = self.dir.path().join(data).join("state.db");
        SqliteStore::open(&path, HubKey::from_bytes([7; 32]).sealer()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_backup_beside_a_running_hub_comes_back_whole() {
    let mut bed = Bed::new();
    let mut told = Vec::new();
    let wanted = RestoreRow {
        id: 0,
        cluster: ClusterId(1),
        asked_by: String::new(),
        asked_at: 1,
        options: lockstep_engine::restore::Options::default(),
        ended_at: None,
    };
    let wanted = within(&mut bed.store, |store| store.put_restore(&wanted).unwrap());
    let manifest = backup(&bed.options("backup"), &mut |progress| told.push(progress)).unwrap();
    assert_eq!(manifest, Manifest::read(&bed.dir.path().join("backup")).unwrap());
    assert_eq!((manifest.archive.files, manifest.archive.missing), (2, 0));
    assert_eq!(manifest.taken_at, "2026-01-02T03:04:05.000Z");
    let Counted { clusters, objects, placements, tombstones, outbox, .. } = manifest.counts;
    assert_eq!((clusters, objects, placements, tombstones, outbox), (1, 1, 1, 3, 1));
    assert!(told.contains(&Progress::Checking) && told.contains(&Progress::Archive(2, 2)), "{told:?}");
    // Only what the state names, by a second name of the same file; and nothing that opens doors.
    let at = |path: &str| bed.dir.path().join(path);
    let file = "archive/v1/a-u/core/ConfigMap/n/t1.yaml.zst";
    let inode = |path: &std::path::Path| std::fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&at("backup").join(file)), inode(&at("data").join(file)));
    assert!(!at("backup/archive/v1/a-u/core/ConfigMap/n/t3.yaml.zst").exists());
    let names: Vec<_> = std::fs::read_dir(at("backup")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "manifest, state, archive: {names:?}");
    assert_eq!(std::fs::metadata(at("backup/state.db")).unwrap().permissions().mode() & 0o077, 0);
    assert_eq!(bed.names(), ["backup", "data"], "nothing half made is left");

    // The hub goes on, and what it does is not in the backup.
    within(&mut bed.store, |store| store.put_object(&object(1, 1, key("ConfigMap", "n", "y"))).unwrap());
    let report = bed.restore("backup", "other", false).unwrap();
    assert_eq!((report.kept_aside, report.another_key), (None, false));
    assert_eq!((report.archive.files, report.archive.missing), (2, 0));
    let mut restored = bed.open("other");
    assert_eq!(restored.object_count(ClusterId(1)).unwrap(), 1);
    assert_eq!(std::fs::read_to_string(at("other").join(file)).unwrap(), "body 1");
    assert_eq!(restored.outbox(0, 9).unwrap().len(), 1);
    // Agents start anew; records name no uid that may have changed since; nothing is written yet.
    let row = restored.clusters().unwrap().remove(0);
    assert_eq!((row.instance.as_str(), row.committed, row.token_hash), ("", 0, Some([1; 32])));
    assert_eq!(row.disconnected_at, Some(NOW + 1_000));
    let placed = restored.placement(ClusterId(1), &key("ConfigMap", "n", "x")).unwrap().unwrap();
    assert_eq!(placed.record.unwrap().uid, None);
    assert_eq!(restored.meta("paused").unwrap().as_deref(), Some(SETTLING));
    let wanted = restored.restore(wanted).unwrap().unwrap();
    assert_eq!(wanted.ended_at, Some(NOW + 1_000), "what a person wanted then");
    assert!(!at("other/api-token").exists());
}

#[test]
fn a_pause_that_was_there_stays_one() {
    let mut bed = Bed::new();
    within(&mut bed.store, |store| store.put_meta("paused", "true").unwrap());
    backup(&bed.options("b"), &mut |_| {}).unwrap();
    bed.restore("b", "other", false).unwrap();
    assert_eq!(bed.open("other").meta("paused").unwrap().as_deref(), Some("true"));
}

#[test]
fn where_a_hub_runs_or_a_store_is_nothing_is_restored_by_mistake() {
    let bed = Bed::new();
    backup(&bed.options("b"), &mut |_| {}).unwrap();
    let error = bed.restore("b", "data", true).unwrap_err();
    assert!(error.to_string().starts_with("LS0220"), "{error}");
    let Bed { dir, store } = bed;
    drop(store);
    let bed = Bed { store: Bed::new().store, dir };
    let error = bed.restore("b", "data", false).unwrap_err();
    assert!(error.to_string().starts_with("LS0272") && error.to_string().contains("--force"), "{error}");
    let mut now = bed.open("data");
    within(&mut now, |store| store.put_meta("later", "yes").unwrap());
    drop(now);
    let report = bed.restore("b", "data", true).unwrap();
    let kept = report.kept_aside.unwrap();
    assert!(kept.ends_with("state.db.replaced-20260102T030406Z"), "{kept:?}");
    assert_eq!(bed.open("data").meta("later").unwrap(), None);
    let kept = SqliteStore::open(&kept, HubKey::from_bytes([7; 32]).sealer());
    assert_eq!(kept.unwrap().meta("later").unwrap().as_deref(), Some("yes"), "nothing was thrown away");
    assert!(bed.dir.path().join("data/archive/v1/a-u/core/ConfigMap/n/t3.yaml.zst").exists());
}

#[test]
fn half_a_backup_and_an_altered_one_are_refused() {
    let bed = Bed::new();
    let at = |path: &str| bed.dir.path().join(path);
    backup(&bed.options("b"), &mut |_| {}).unwrap();
    let refused = |why: &str| {
        let error = bed.restore("b", "other", false).unwrap_err().to_string();
        assert!(error.starts_with("LS0271") && error.contains(why), "{error}");
        assert!(!at("other/state.db").exists());
    };
    let manifest = std::fs::read_to_string(at("b/manifest.json")).unwrap();
    std::fs::remove_file(at("b/manifest.json")).unwrap();
    refused("no manifest.json");
    std::fs::write(at("b/manifest.json"), manifest.replace("\"schema\": ", "\"schema\": 99")).unwrap();
    refused("this build knows up to");
    std::fs::write(at("b/manifest.json"), "{").unwrap();
    refused("cannot be understood");
    std::fs::write(at("b/manifest.json"), &manifest).unwrap();
    let mut state = std::fs::read(at("b/state.db")).unwrap();
    let middle = state.len() / 2;
    state[middle] ^= 1;
    std::fs::write(at("b/state.db"), &state).unwrap();
    refused("not the one that the manifest describes");
    // An archived file that is gone is told, and hinders nothing.
    state[middle] ^= 1;
    std::fs::write(at("b/state.db"), &state).unwrap();
    std::fs::remove_file(at("b/archive/v1/a-u/core/ConfigMap/n/t2.yaml.zst")).unwrap();
    let report = bed.restore("b", "other", false).unwrap();
    assert_eq!((report.archive.files, report.archive.missing), (1, 1));
}

#[test]
fn a_backup_of_nothing_over_something_or_of_damage_is_refused_and_leaves_nothing() {
    let bed = Bed::new();
    let refused = |options: &BackupOptions, code: &str| {
        let error = backup(options, &mut |_| {}).unwrap_err().to_string();
        assert!(error.starts_with(code), "{error}");
        assert!(!bed.names().iter().any(|name| name.contains("partial")), "{:?}", bed.names());
    };
    refused(&bed.options("data/within"), "LS0270");
    std::fs::create_dir(bed.dir.path().join("full")).unwrap();
    std::fs::write(bed.dir.path().join("full/x"), "").unwrap();
    refused(&bed.options("full"), "LS0270");
    refused(
        &BackupOptions { data_dir: bed.dir.path().join("full"), ..bed.options("b") },
        "LS0270: there is no",
    );
    std::fs::create_dir(bed.dir.path().join("empty")).unwrap();
    backup(&bed.options("empty"), &mut |_| {}).unwrap();
    // A file that the archive lost is told.
    std::fs::remove_file(bed.dir.path().join("data/archive/v1/a-u/core/ConfigMap/n/t2.yaml.zst")).unwrap();
    assert_eq!(backup(&bed.options("b2"), &mut |_| {}).unwrap().archive.missing, 1);
    let Bed { dir, store } = bed;
    drop(store);
    let bed = Bed { store: Bed::new().store, dir };
    let path = bed.dir.path().join("data/state.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let pages = bytes.len() / 4096;
    bytes[(pages - 1) * 4096..].fill(0x5a);
    bytes[(pages - 2) * 4096..(pages - 1) * 4096].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let error = backup(&bed.options("b3"), &mut |_| {}).unwrap_err().to_string();
    assert!(error.starts_with("LS0270") && error.contains("damaged"), "{error}");
    assert!(!bed.dir.path().join("b3").exists());
}

/// A hub that writes all the time does not make a backup begin again and again.
#[test]
fn a_busy_hub_is_backed_up_in_one_state() {
    let mut bed = Bed::new();
    within(&mut bed.store, |store| {
        for n in 0..5_000 {
            store.put_object(&object(1, 1, key("ConfigMap", "n", &format!("x{n}")))).unwrap();
        }
    });
    let options = bed.options("b");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (seen, mut store) = (stop.clone(), bed.store);
    let writer = std::thread::spawn(move || {
        let mut n = 0;
        while !seen.load(std::sync::atomic::Ordering::Acquire) {
            // The number of objects and what says so change together.
            within(&mut store, |store| {
                store.put_object(&object(2, 1, key("ConfigMap", "busy", &format!("x{n}")))).unwrap();
                store.put_meta("written", &(n + 1).to_string()).unwrap();
            });
            n += 1;
        }
        (store, n)
    });
    let manifest =
        backup(&options, &mut |_| std::thread::sleep(std::time::Duration::from_millis(5))).unwrap();
    stop.store(true, std::sync::atomic::Ordering::Release);
    let (store, written) = writer.join().unwrap();
    bed.store = store;
    bed.restore("b", "other", false).unwrap();
    let mut restored = bed.open("other");
    let said: u64 = restored.meta("written").unwrap().map_or(0, |n| n.parse().unwrap());
    assert_eq!(restored.object_count(ClusterId(2)).unwrap(), said, "one state, not two halves");
    assert!(written >= said && manifest.counts.objects == said + 5_001, "{written} {said} {manifest:?}");
}
