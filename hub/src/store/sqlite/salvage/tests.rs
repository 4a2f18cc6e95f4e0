//! Files that are really damaged: pages overwritten, schema taken away, logs left behind.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use lockstep_engine::acts::ActKind;
use lockstep_engine::{ClusterId, ClusterName, Uid};
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::seal::HubKey;
use crate::store::conformance::{key, object, placement, tombstone, within};
use crate::store::sqlite::{Rebuilt, SqliteStore, VERSION};
use crate::store::{
    ActFilter, ActRow, Filed, PolicyFileRow, PolicyRow, Reader, Store, TombstoneFilter, TombstoneRow,
};

const PAGE: usize = 4096;
const NOW: i64 = 1_767_323_045_000;
const TOMBSTONES: i64 = 60;

fn sealer() -> Sealer {
    HubKey::from_bytes([7; 32]).sealer()
}

/// Knuth's generator: the same bytes each time.
fn noise(seed: &mut u64) -> u8 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    seed.to_be_bytes()[0]
}

/// Where the system has a file system in memory: nothing here is about disks.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

struct Bed {
    dir: TempDir,
    /// As they were put there.
    tombstones: BTreeMap<i64, TombstoneRow>,
}

impl Bed {
    fn path(&self) -> PathBuf {
        self.dir.path().join("state.db")
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.dir.path().join(format!("state.db{ending}"))
    }

    /// A store with something of everything, stopped cleanly.
    fn new() -> Self {
        let mut bed = Self { dir: in_memory(), tombstones: BTreeMap::new() };
        let mut store = SqliteStore::open(&bed.path(), sealer()).unwrap();
        within(&mut store, |store| {
            for (n, name) in ["cluster-a", "cluster-b", "cluster-c"].into_iter().enumerate() {
                let mut row = store.create_cluster(&ClusterName::new(name).unwrap(), 5).unwrap();
                row.uid = Some(Uid::new(&format!("uid-{n}")));
                row.token_hash = Some([u8::try_from(n).unwrap(); 32]);
                row.instance = "agent".into();
                row.committed = 77;
                row.session = 9;
                row.lease_counter = 4;
                row.paused = n == 1;
                row.connected_at = Some(6);
                store.put_cluster(&row).unwrap();
            }
            for n in 0..200 {
                store.put_object(&object(1, 1, key("ConfigMap", "shop", &format!("m{n}")))).unwrap();
                store.put_placement(&placement(2, key("ConfigMap", "shop", &format!("m{n}")))).unwrap();
            }
            let policy =
                PolicyRow { name: "p".into(), digest: [1; 32], generation: 3, planned: true, paused: true };
            store.put_policy(&policy).unwrap();
            let file = PolicyFileRow { path: "a.yaml".into(), text: "kind: X\n".into() };
            store.put_policy_files(&[file]).unwrap();
            store
                .put_budget("p", ClusterId(2), r#"{"base":5,"spent":2,"windowStart":1,"latched":7}"#)
                .unwrap();
            store.put_meta("paused", "true").unwrap();
        });
        within(&mut store, |store| (0..TOMBSTONES).for_each(|n| bed.entomb(store, n)));
        within(&mut store, |store| bed.group(store));
        bed
    }

    /// Of several kinds and sizes; two of three are in the archive already.
    fn entomb(&mut self, store: &mut SqliteStore, n: i64) {
        let kind = ["ConfigMap", "Secret", "Deployment"][usize::try_from(n / 3 % 3).unwrap()];
        let mut row = tombstone(1 + u32::try_from(n % 2).unwrap(), key(kind, "shop", &format!("t{n}")), n);
        row.known_until = Some(n);
        let long = if n % 5 == 0 { 9_000 } else { 40 };
        // Not to be compressed: what lies on several pages can be torn in several places.
        let mut seed = n.cast_unsigned();
        let text: String = (0..long)
            .map(|_| char::from(b' ' + noise(&mut seed) % 90))
            .filter(|c| !"\"\\".contains(*c))
            .collect();
        row.body = Some(Bytes::from(format!(r#"{{"data":{{"k":"{text}"}}}}"#)));
        row.id = store.put_tombstone(&row).unwrap();
        if n % 3 != 0 {
            let file = Filed { path: format!("v1/t{n}"), size: 7, key: None };
            store.set_archived(row.id, &file).unwrap();
            row.facts.size = file.size;
            (row.body, row.path) = (None, Some(file.path));
        }
        self.tombstones.insert(row.id, row);
    }

    /// Two of them were deleted together.
    fn group(&mut self, store: &mut SqliteStore) {
        let act = ActRow {
            id: 0,
            cluster: ClusterId(1),
            kind: ActKind::Namespace,
            root: Some((key("Deployment", "shop", "web"), Uid::new("w"))),
            contents: None,
            policy: None,
            began: Some(1),
            ended: None,
            over: false,
            started_at: 0,
            last_at: 0,
            members: 0,
        };
        let act = store.create_act(&act, 0).unwrap();
        for row in self.tombstones.values_mut().take(2) {
            store.set_act(row.id, Some(act)).unwrap();
            row.facts.act = Some(act);
        }
    }

    /// Pages of a table or index.
    fn pages(&self, name: &str) -> Vec<usize> {
        let db = Connection::open(self.path()).unwrap();
        let mut statement = db.prepare("SELECT pageno FROM dbstat WHERE name = ?1 ORDER BY path").unwrap();
        let pages = statement.query_map([name], |row| row.get::<_, i64>(0)).unwrap();
        pages.map(|n| usize::try_from(n.unwrap()).unwrap()).collect()
    }

    fn tear(&self, pages: &[usize]) {
        let mut bytes = std::fs::read(self.path()).unwrap();
        for page in pages {
            let mut seed = *page as u64;
            bytes[(page - 1) * PAGE..page * PAGE].fill_with(|| noise(&mut seed));
        }
        std::fs::write(self.path(), bytes).unwrap();
    }

    /// As after a kill: the whole file is looked at.
    fn open(&self) -> SqliteStore {
        std::fs::write(self.file("-running"), "").unwrap();
        SqliteStore::open_or_rebuild(&self.path(), sealer(), NOW).unwrap()
    }

    /// Nothing that is there differs from what was put there.
    fn check(&self, store: &mut SqliteStore) -> u64 {
        let all = TombstoneFilter { undeleted: true, ..TombstoneFilter::default() };
        let kept = store.tombstones(&all, 1_000).unwrap();
        for row in &kept {
            let whole = store.tombstone(row.id).unwrap().unwrap();
            let mut put = self.tombstones.get(&row.id).unwrap().clone();
            let act = put.facts.act.filter(|act| store.act(*act).unwrap().is_some());
            put.facts.act = act;
            assert_eq!(put, whole);
        }
        kept.len() as u64
    }
}

fn rebuilt(store: &mut SqliteStore) -> Option<Rebuilt> {
    store.meta(crate::store::sqlite::REBUILT).unwrap().map(|text| serde_json::from_str(&text).unwrap())
}

#[test]
fn what_the_clusters_cannot_tell_is_taken_over_and_the_rest_is_not() {
    let bed = Bed::new();
    bed.tear(&bed.pages("objects")[1..3]);
    let damaged = std::fs::read(bed.path()).unwrap();
    let mut store = bed.open();
    let told = rebuilt(&mut store).unwrap();
    assert_eq!(told.aside, "state.db.corrupt-20260102T030405Z");
    assert!(std::fs::read(bed.dir.path().join(&told.aside)).unwrap() == damaged, "kept as it was");
    assert_eq!(bed.check(&mut store), 60);
    let Salvaged { clusters, tombstones, outbox, policies, policy_files, unreadable } = told.salvaged;
    assert_eq!((clusters, tombstones, outbox), (3, 60, 20));
    assert_eq!((policies, policy_files, unreadable), (1, 1, 0));

    let clusters = store.clusters().unwrap();
    assert_eq!(
        clusters.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
        ["cluster-a", "cluster-b", "cluster-c"]
    );
    for (n, row) in clusters.iter().enumerate() {
        assert_eq!(row.token_hash, Some([u8::try_from(n).unwrap(); 32]));
        assert_eq!((row.instance.as_str(), row.committed, row.session, row.lease_counter), ("", 0, 9, 4));
        assert_eq!((row.paused, row.disconnected_at.is_some()), (n == 1, true));
    }
    // I2: no checkpoint without the state that it covers.
    assert_eq!(store.watches(None).unwrap(), []);
    assert_eq!(store.object_count(ClusterId(1)).unwrap(), 0);
    assert_eq!(store.placement_count(&crate::store::PlacementFilter::default()).unwrap(), 0);
    let policy = store.policies().unwrap().remove(0);
    assert_eq!((policy.generation, policy.planned, policy.paused), (3, false, true));
    assert_eq!(store.policy_files().unwrap()[0].text, "kind: X\n");
    assert_eq!(store.budgets().unwrap().len(), 1);
    assert_eq!(store.meta("paused").unwrap().as_deref(), Some("true"));
    // Ids go on where they were.
    let id = within(&mut store, |store| {
        store.put_tombstone(&tombstone(1, key("ConfigMap", "n", "x"), 1)).unwrap()
    });
    assert_eq!(id, TOMBSTONES + 1);
    let next = within(&mut store, |s| s.create_cluster(&ClusterName::new("cluster-d").unwrap(), 1).unwrap());
    assert_eq!(next.id, ClusterId(4));
    drop(store);
    let mut store = bed.open();
    assert_eq!(rebuilt(&mut store).unwrap().at, NOW, "once");
    assert_eq!(store.outbox(0, 100).unwrap().len(), 21);
    assert_eq!(store.acts(&ActFilter::default(), 9).unwrap()[0].members, 2);
}

/// Every page in turn: whatever is hit, a store comes out of it, and nothing in it is false.
#[test]
fn any_page_may_be_torn() {
    let bed = Bed::new();
    let sound = std::fs::read(bed.path()).unwrap();
    let (mut worst, mut found) = (u64::MAX, 0);
    for page in 1..=sound.len() / PAGE {
        std::fs::write(bed.path(), &sound).unwrap();
        bed.tear(&[page]);
        let mut store = bed.open();
        let kept = bed.check(&mut store);
        if rebuilt(&mut store).is_some() {
            found += 1;
            worst = worst.min(kept);
        } else {
            assert_eq!(kept, 60, "page {page}: what nobody uses may be torn");
        }
        drop(store);
        for entry in std::fs::read_dir(bed.dir.path()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
    assert!(found > sound.len() / PAGE * 9 / 10, "{found} of {} were noticed", sound.len() / PAGE);
    assert!(worst > 40, "one page took {} tombstones with it", 60 - worst);
}

#[test]
fn a_file_without_its_first_page_gives_its_rows_all_the_same() {
    let bed = Bed::new();
    let pages = bed.pages("sqlite_schema");
    bed.tear(&pages);
    let mut store = bed.open();
    assert_eq!(bed.check(&mut store), 60, "{:?}", rebuilt(&mut store));
    assert_eq!(store.clusters().unwrap().len(), 3);
    let left: Vec<_> = std::fs::read_dir(bed.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("salvage")), "{left:?}");
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("model")), "{left:?}");
}

#[test]
fn a_store_that_lacks_a_table_is_damaged_and_the_table_is_found_where_it_was() {
    for what in ["tombstones", "placements_due", "clusters"] {
        let bed = Bed::new();
        let db = Connection::open(bed.path()).unwrap();
        db.pragma_update(None, "writable_schema", true).unwrap();
        db.execute("DELETE FROM sqlite_schema WHERE name = ?1", [what]).unwrap();
        drop(db);
        let mut store = SqliteStore::open_or_rebuild(&bed.path(), sealer(), NOW).unwrap();
        let told = rebuilt(&mut store).unwrap();
        assert!(told.why.contains(what), "{told:?}");
        assert_eq!(bed.check(&mut store), 60, "{what}: {told:?}");
        assert_eq!(store.clusters().unwrap().len(), 3, "{what}");
    }
}

#[test]
fn only_what_lies_on_a_torn_page_of_the_tombstones_is_lost() {
    let bed = Bed::new();
    let pages = bed.pages("tombstones");
    assert!(pages.len() > 8, "{pages:?}");
    // The root, a leaf, and pages of long bodies.
    bed.tear(&[pages[0], pages[2], pages[pages.len() / 2], pages[pages.len() - 1]]);
    let mut store = bed.open();
    let told = rebuilt(&mut store).unwrap().salvaged;
    let kept = bed.check(&mut store);
    assert!((25..60).contains(&kept) && kept == told.tombstones && told.unreadable > 0, "{told:?}");
}

#[test]
fn what_was_only_in_the_log_counts() {
    let mut bed = Bed::new();
    let mut store = SqliteStore::open(&bed.path(), sealer()).unwrap();
    within(&mut store, |store| (1_000..1_004).for_each(|n| bed.entomb(store, n)));
    // As a kill leaves it.
    let image: Vec<_> =
        ["", "-wal"].into_iter().map(|end| (end, std::fs::read(bed.file(end)).unwrap())).collect();
    drop(store);
    for (end, bytes) in image {
        std::fs::write(bed.file(end), bytes).unwrap();
    }
    assert!(std::fs::metadata(bed.file("-wal")).unwrap().len() > 4_000);
    let log = std::fs::read(bed.file("-wal")).unwrap();
    // Looking would write the log back: the places are those of another bed.
    bed.tear(&Bed::new().pages("objects")[1..2]);
    let mut store = bed.open();
    assert_eq!(bed.check(&mut store), 64, "{:?}", rebuilt(&mut store));
    let kept = bed.dir.path().join("state.db.corrupt-20260102T030405Z-wal");
    assert!(std::fs::read(kept).unwrap() == log, "the log is kept as it was");
}

#[test]
fn a_newer_version_another_key_and_a_foreign_file_are_never_set_aside() {
    let refused = |bed: &Bed, key: u8| {
        std::fs::write(bed.file("-running"), "").unwrap();
        let sealer = HubKey::from_bytes([key; 32]).sealer();
        let error = SqliteStore::open_or_rebuild(&bed.path(), sealer, NOW).err().unwrap();
        let left = std::fs::read_dir(bed.dir.path()).unwrap().map(|e| e.unwrap().file_name());
        let left: Vec<_> = left.map(|name| name.to_string_lossy().into_owned()).collect();
        assert!(!left.iter().any(|name| name.contains("corrupt") || name.contains("rebuild")), "{left:?}");
        error.code()
    };
    let bed = Bed::new();
    bed.tear(&bed.pages("objects")[1..3]);
    assert_eq!(refused(&bed, 8), "LS0224", "damaged, and under another key");
    let bed = Bed::new();
    assert_eq!(refused(&bed, 8), "LS0224");
    let pragma = |name: &str, value: i64| {
        Connection::open(bed.path()).unwrap().pragma_update(None, name, value).unwrap();
    };
    pragma("user_version", VERSION + 1);
    bed.tear(&bed.pages("objects")[1..3]);
    assert_eq!(refused(&bed, 7), "LS0221", "damaged, and newer");
    pragma("application_id", 1);
    assert_eq!(refused(&bed, 7), "LS0222");
    std::fs::remove_file(bed.path()).unwrap();
    std::fs::create_dir(bed.path()).unwrap();
    assert_eq!(refused(&bed, 7), "LS0225");
}

#[test]
fn damage_met_while_in_use_is_remembered_and_dealt_with_at_the_next_start() {
    let bed = Bed::new();
    // The stop was clean: the file is not looked at.
    bed.tear(&bed.pages("objects")[1..3]);
    let store = SqliteStore::open_or_rebuild(&bed.path(), sealer(), NOW).unwrap();
    let mut reader = store.open_reader().unwrap();
    assert_eq!(store.damage().why(), None);
    let error = reader.objects(ClusterId(1), &key("ConfigMap", "", "x").gk, None, None, 1_000).unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    assert!(store.damage().why().is_some(), "readers and writer share it");
    assert!(bed.file("-damaged").exists());
    drop((store, reader));
    let mut store = SqliteStore::open_or_rebuild(&bed.path(), sealer(), NOW).unwrap();
    assert!(rebuilt(&mut store).is_some());
    assert_eq!(bed.check(&mut store), 60);
    assert!(!bed.file("-damaged").exists());
}

#[test]
fn damage_that_a_check_does_not_find_is_believed_the_second_time() {
    let bed = Bed::new();
    let open = || SqliteStore::open_or_rebuild(&bed.path(), sealer(), NOW).unwrap();
    let store = open();
    store.damage().note("a row cannot be read");
    drop(store);
    let mut store = open();
    assert_eq!(rebuilt(&mut store), None, "the check finds nothing");
    drop(store);
    let store = open();
    store.damage().note("by chance, after a start without");
    drop(store);
    let store = open();
    store.damage().note("a row cannot be read");
    drop(store);
    let mut store = open();
    assert!(rebuilt(&mut store).unwrap().why.contains("met twice"));
    assert_eq!(bed.check(&mut store), 60);
}
