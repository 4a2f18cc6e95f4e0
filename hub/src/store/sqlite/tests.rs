//! What is particular to SQLite; the rest is the conformance suite.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use lockstep_engine::ClusterId;
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::seal::HubKey;
use crate::store::conformance::{self, Bed, full_placement, key, managed, object, tombstone, within};
use crate::store::{Owned, TombstoneFilter};

fn sealer() -> Sealer {
    HubKey::from_bytes([7; 32]).sealer()
}

struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data/state.db")
    }

    fn refusal(&self) -> OpenError {
        SqliteStore::open(&self.path(), sealer()).err().unwrap()
    }
}

impl Bed for Dir {
    type Store = SqliteStore;
    type Reader = SqliteReader;

    fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path(), sealer()).unwrap()
    }

    fn reader(&self, store: &SqliteStore) -> SqliteReader {
        store.open_reader().unwrap()
    }
}

#[test]
fn sqlite_conforms() {
    conformance::run(Dir::new);
}

#[test]
fn a_second_process_is_refused_until_the_first_is_gone() {
    let dir = Dir::new();
    let store = dir.open();
    let error = dir.refusal();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().starts_with("LS0220"), "{error}");
    drop(store);
    dir.open();
}

#[test]
fn files_are_private() {
    let dir = Dir::new();
    let mut store = dir.open();
    within(&mut store, |store| store.put_meta("a", "b").unwrap());
    let data = dir.path();
    let data = data.parent().unwrap();
    assert_eq!(std::fs::metadata(data).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in std::fs::read_dir(data).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{entry:?}");
    }
}

#[test]
fn newer_foreign_damaged_and_wrongly_sealed_files_are_told_apart() {
    let dir = Dir::new();
    drop(dir.open());
    let error = SqliteStore::open(&dir.path(), HubKey::from_bytes([8; 32]).sealer()).err().unwrap();
    assert_eq!(error.code(), "LS0224", "{error}");
    dir.open();

    let pragma = |name: &str, value: i64| {
        Connection::open(dir.path()).unwrap().pragma_update(None, name, value).unwrap();
    };
    pragma("user_version", VERSION + 1);
    let error = dir.refusal();
    assert!(error.code() == "LS0221" && error.to_string().contains("newer"), "{error}");
    pragma("user_version", VERSION);
    dir.open();
    pragma("application_id", 1);
    assert_eq!(dir.refusal().code(), "LS0222");
    std::fs::write(dir.path(), [b'x'; 8192]).unwrap();
    assert_eq!(dir.refusal().code(), "LS0223");
}

#[test]
fn damage_is_found_after_a_stop_that_was_not_clean() {
    let dir = Dir::new();
    let mut store = dir.open();
    within(&mut store, |store| {
        for n in 0..2_000 {
            store.put_object(&object(1, 1, key("ConfigMap", "n", &format!("x{n}")))).unwrap();
        }
    });
    drop(store);
    // Leaves of objects, which opening alone does not look at: the tables themselves lie before them.
    let mut file = std::fs::read(dir.path()).unwrap();
    let quarter = file.len() / 4 / 4096 * 4096;
    file[3 * quarter..].fill(0x5a);
    std::fs::write(dir.path(), &file).unwrap();
    dir.open();
    let mut marker = dir.path().into_os_string();
    marker.push("-running");
    std::fs::write(&marker, b"").unwrap();
    assert_eq!(dir.refusal().code(), "LS0223");
    assert_eq!(dir.refusal().code(), "LS0223", "the mark of the crash stays");
    std::fs::remove_file(&marker).unwrap();
    assert_eq!(SqliteStore::open_with(&dir.path(), sealer(), Check::Whole).err().unwrap().code(), "LS0223");
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let dir = Dir::new();
    let mut store = dir.open();
    within(&mut store, |store| store.put_meta("kept", "yes").unwrap());
    let pages: i64 = store.inner.db.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    let limit = store.page_limit();
    limit.store(u32::try_from(pages).unwrap() + 4, Ordering::Release);
    store.begin().unwrap();
    let error = (0..1_000)
        .find_map(|n| store.put_object(&object(1, 1, key("New", "n", &format!("x{n}")))).err())
        .unwrap();
    assert!(matches!(error, StoreError::Full), "{error}");
    // SQLite has ended the transaction, or not: nothing more is taken, and nothing of it commits.
    let ended = store.inner.db.is_autocommit();
    if ended {
        assert!(store.put_meta("stray", "x").is_err() && store.commit().is_err());
    }
    store.rollback().unwrap();
    limit.store(0, Ordering::Release);
    assert_eq!(store.object_count(ClusterId(1)).unwrap(), 0);
    within(&mut store, |store| store.put_object(&object(1, 1, key("New", "n", "x"))).unwrap());
    assert_eq!(store.meta("kept").unwrap().as_deref(), Some("yes"));
    assert_eq!(store.object_count(ClusterId(1)).unwrap(), 1);
}

#[test]
fn readers_cannot_write_and_outlive_the_store() {
    let dir = Dir::new();
    let store = dir.open();
    let readers = store.readers();
    let reader = readers.open().unwrap();
    assert!(reader.inner.db.execute("INSERT INTO meta VALUES ('a', 'b')", []).is_err());
    drop(store);
    assert_eq!(readers.open().unwrap().clusters().unwrap(), []);
}

/// I13: no byte of a Secret's value in any file of the data directory.
#[test]
fn secrets_lie_encrypted() {
    let dir = Dir::new();
    let mut store = dir.open();
    within(&mut store, |store| {
        let mut row = object(1, 1, key("Secret", "n", "x"));
        row.body = Some(Bytes::from("canary".repeat(200)));
        store.put_object(&row).unwrap();
        row.body = Some(Bytes::from_static(b"canary"));
        row.key = key("Secret", "n", "y");
        store.put_object(&row).unwrap();
        let mut image = tombstone(1, key("Secret", "n", "x"), 1);
        image.body = Some(Bytes::from_static(b"canary"));
        store.put_tombstone(&image).unwrap();
    });
    let clean = || {
        for entry in std::fs::read_dir(dir.path().parent().unwrap()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(6).any(|window| window == b"canary"));
        }
    };
    clean();
    drop(store);
    clean();
}

/// Without a copy there is no upgrade, and what is there stays as it is.
#[test]
fn a_store_that_cannot_be_copied_is_not_upgraded() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path().parent().unwrap()).unwrap();
    let old = Connection::open(dir.path()).unwrap();
    old.execute_batch(include_str!("../../../fixtures/store/v4.sql")).unwrap();
    drop(old);
    // A directory of that name is in the way.
    let way = super::before::place(&dir.path(), 4);
    std::fs::create_dir_all(way.join("x")).unwrap();
    let error = dir.refusal();
    assert!(error.code() == "LS0225" && error.to_string().contains("state.db.v4"), "{error}");
    let db = Connection::open(dir.path()).unwrap();
    assert_eq!(db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap(), 4);
    drop(db);
    std::fs::remove_dir_all(&way).unwrap();
    dir.open();
    assert!(way.is_file());
}

/// What an older version wrote is read by this one. `hub/fixtures/store/v<n>.sql` is a dump, never
/// regenerated once released.
#[test]
fn old_versions_upgrade() {
    upgrades(include_str!("../../../fixtures/store/v1.sql"));
    let (_dir, mut store) = upgrades(include_str!("../../../fixtures/store/v2.sql"));
    let gone = key("ConfigMap", "", "shop");
    let version = lockstep_engine::ResourceVersion::new("12");
    assert_eq!(store.container_gone(ClusterId(1), &gone).unwrap(), Some((4, version)));
    assert_eq!(store.clusters().unwrap()[0].rewound.as_ref().unwrap().how, "restored");
    assert!(store.watches(None).unwrap()[0].rewound);
    let (_dir, mut store) = upgrades(include_str!("../../../fixtures/store/v3.sql"));
    let web = key("Deployment", "shop", "web");
    let former =
        store.former_record(ClusterId(2), &web, &lockstep_engine::Uid::new("uid-before")).unwrap().unwrap();
    assert_eq!(former.field_set, "{\"f:data\":{}}");
    let (_dir, mut store) = upgrades(include_str!("../../../fixtures/store/v4.sql"));
    let old = store.tombstones(&TombstoneFilter::default(), 9).unwrap().remove(0);
    assert_eq!(old.facts, crate::store::Facts::default());
}

fn upgrades(dump: &str) -> (Dir, SqliteStore) {
    let dir = Dir::new();
    std::fs::create_dir(dir.path().parent().unwrap()).unwrap();
    let old = Connection::open(dir.path()).unwrap();
    old.execute_batch(dump).unwrap();
    let from: i64 = old.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let before = (schema(&old), from);
    drop(old);
    let mut store = dir.open();
    let copy = Connection::open(crate::store::sqlite::before::place(&dir.path(), from)).unwrap();
    let kept: i64 = copy.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!((schema(&copy), kept), before, "the copy is what was there before the upgrade");
    assert_eq!(schema(&store.inner.db), schema(&Dir::new().open().inner.db), "upgraded is not as new");

    let secret = store.object(ClusterId(1), &key("Secret", "shop", "s")).unwrap().unwrap();
    assert_eq!(secret.body.unwrap(), "{\"data\":{}}");
    let object = store.object(ClusterId(1), &key("ConfigMap", "shop", "web")).unwrap().unwrap();
    assert_eq!(object.body.unwrap().len(), 1_000);
    assert_eq!(object.managed, Some(managed()));
    let placed = full_placement(2, key("Deployment", "shop", "web"));
    assert_eq!(store.placement(placed.target, &placed.key).unwrap(), Some(placed));
    assert_eq!(store.clusters().unwrap()[0].name.as_str(), "cluster-a");
    assert_eq!(store.watches(None).unwrap().len(), 1);
    assert_eq!(store.outbox(0, 9).unwrap().len(), 1);
    assert_eq!(store.tombstones(&TombstoneFilter::default(), 9).unwrap().len(), 1);
    assert_eq!(store.policies().unwrap()[0].generation, 3);
    assert_eq!(store.policy_files().unwrap()[0].path, "a.yaml");
    assert_eq!(store.budgets().unwrap()[0].2, "{}");
    (dir, store)
}

fn schema(db: &Connection) -> Vec<String> {
    let mut statement =
        db.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY sql").unwrap();
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    rows.map(|sql| sql.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Fills a store with what the fixture of the current version holds; `LOCKSTEP_FIXTURE=path` keeps
/// it, to be dumped by `sqlite3 path .dump` when a version is released.
#[test]
fn the_fixture_can_be_made() {
    let dir = Dir::new();
    let mut store = dir.open();
    within(&mut store, |store| {
        let cluster = store.create_cluster(&"cluster-a".to_owned().try_into().unwrap(), 5).unwrap();
        let gk = key("ConfigMap", "", "x").gk;
        let watch = store.ensure_watch(cluster.id, &gk, "", 6).unwrap();
        let mut row = object(1, watch.id, key("ConfigMap", "shop", "web"));
        row.body = Some(Bytes::from(vec![b'x'; 1_000]));
        row.managed = Some(managed());
        store.put_object(&row).unwrap();
        let mut secret = object(1, watch.id, key("Secret", "shop", "s"));
        secret.body = Some(Bytes::from_static(b"{\"data\":{}}"));
        store.put_object(&secret).unwrap();
        store.put_placement(&full_placement(2, key("Deployment", "shop", "web"))).unwrap();
        store.put_tombstone(&tombstone(1, key("Secret", "shop", "old"), 9)).unwrap();
        let policy =
            PolicyRow { name: "p".into(), digest: [1; 32], generation: 3, planned: true, paused: false };
        store.put_policy(&policy).unwrap();
        let file = PolicyFileRow { path: "a.yaml".into(), text: "kind: X\n".into() };
        store.put_policy_files(&[file]).unwrap();
        store.put_budget("p", ClusterId(2), "{}").unwrap();
    });
    drop(store);
    if let Ok(path) = std::env::var("LOCKSTEP_FIXTURE") {
        std::fs::copy(dir.path(), path).unwrap();
    }
}

#[test]
fn a_row_that_cannot_be_read_names_table_and_column_and_no_value() {
    let dir = Dir::new();
    let mut store = dir.open();
    within(&mut store, |store| {
        let mut row = object(1, 1, key("ConfigMap", "n", "x"));
        row.managed = Some(managed());
        store.put_object(&row).unwrap();
        store.put_placement(&full_placement(1, key("ConfigMap", "n", "x"))).unwrap();
    });
    store.inner.db.execute("UPDATE objects SET marks = '{\"canary\":['", []).unwrap();
    store.inner.db.execute("UPDATE placements SET state = 99", []).unwrap();
    let error = store.object(ClusterId(1), &key("ConfigMap", "n", "x")).unwrap_err().to_string();
    assert!(error.contains("objects") && error.contains("marks") && !error.contains("canary"), "{error}");
    let error = store.placement(ClusterId(1), &key("ConfigMap", "n", "x")).unwrap_err().to_string();
    assert!(error.contains("placements") && error.contains("state"), "{error}");
}

/// Scans page by page must not sort: that would make a listing quadratic.
#[test]
fn scans_do_not_sort() {
    let dir = Dir::new();
    let store = dir.open();
    let plan = |sql: &str| -> String {
        let mut statement = store.inner.db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let rows = statement.raw_query_plan();
        rows.join("; ")
    };
    for policy in [None, Some("p".to_owned())] {
        for source in [None, Some(ClusterId(1))] {
            let filter =
                crate::store::PlacementFilter { policy: policy.clone(), source, ..Default::default() };
            let plan = plan(&scan::page_sql(&filter));
            assert!(!plan.contains("TEMP B-TREE") && plan.contains("target=?"), "{plan}");
            let index = if policy.is_some() { "placements_policy" } else { "sqlite_autoindex_placements_1" };
            assert!(plan.contains(index), "{plan}");
        }
    }
    for sql in [scan::SUMMARY, scan::SUMMARY_OF_POLICY] {
        let plan = plan(sql);
        assert!(plan.contains("COVERING INDEX placements_status") && !plan.contains("TEMP"), "{plan}");
    }
}

trait RawPlan {
    fn raw_query_plan(&mut self) -> Vec<String>;
}

impl RawPlan for rusqlite::Statement<'_> {
    fn raw_query_plan(&mut self) -> Vec<String> {
        let mut rows = self.raw_query();
        let mut lines = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            lines.push(row.get::<_, String>(3).unwrap());
        }
        lines
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Whatever text agents send, also NUL and quotes, comes back.
    #[test]
    fn any_object_comes_back(
        namespace in any::<String>(), name in ".+", uid in any::<String>(), version in any::<String>(),
        body in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..2_000)),
        marks in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4),
        digest: [u8; 16], managed_at in proptest::option::of(any::<i64>()), observed_at: i64, deleting: bool,
        secret: bool,
    ) {
        let dir = Dir::new();
        let mut store = dir.open();
        let mut row = object(1, u32::MAX, key(if secret { "Secret" } else { "ConfigMap" }, &namespace, &name));
        row.uid = lockstep_engine::Uid::new(&uid);
        row.resource_version = lockstep_engine::ResourceVersion::new(&version);
        row.body = body.map(Bytes::from);
        row.managed = managed_at.map(|created_at| crate::store::ManagedRow {
            owned: Owned::Digest(digest), marks, created_at, ..managed()
        });
        row.observed_at = observed_at;
        row.deleting = deleting;
        within(&mut store, |store| store.put_object(&row).unwrap());
        prop_assert_eq!(store.object(row.cluster, &row.key).unwrap(), Some(row));
    }
}
