//! What the state store does per second on this machine:
//! `cargo run --release -p lockstep-hub --example store_ingest [ROWS [DIR]]`
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lockstep_engine::status::{State, Status};
use lockstep_engine::{ClusterId, GroupKind, ObjectKey, ResourceVersion, Uid};
use lockstep_hub::seal::HubKey;
use lockstep_hub::store::sqlite::SqliteStore;
use lockstep_hub::store::{
    Fields, ObjectRow, PlacementFilter, PlacementRow, Reader, Record, SourceRef, Store,
};

const COMMIT: usize = 512;
const TARGETS: usize = 20;

fn key(n: usize) -> ObjectKey {
    ObjectKey::new(
        GroupKind::new("", "ConfigMap"),
        &format!("team-{:03}", n % 100),
        &format!("settings-{n:07}"),
    )
}

/// About 1.2 KB, as JSON compresses: words that repeat, values that do not.
fn body(n: usize) -> Bytes {
    let mut out = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"settings-{n:07}","namespace":"team","uid":"{}","labels":{{"app.kubernetes.io/name":"web","env":"production"}}}},"data":{{"#,
        blake3::hash(&n.to_le_bytes()).to_hex()
    );
    for m in 0..10 {
        let value = blake3::hash(&(n * 10 + m).to_le_bytes()).to_hex();
        out.push_str(&format!(r#"{}"setting-{m}":"{value}""#, if m == 0 { "" } else { "," }));
    }
    out.push_str("}}");
    Bytes::from(out)
}

fn object(n: usize, version: usize) -> ObjectRow {
    ObjectRow {
        unseen: None,
        cluster: ClusterId(1),
        key: key(n),
        watch: 1,
        uid: Uid::new("8f0c5d2e-8a8e-4b57-9c1f-1a2b3c4d5e6f"),
        resource_version: ResourceVersion::new(&version.to_string()),
        body: Some(body(n + version)),
        managed: None,
        deleting: false,
        pod_security: Default::default(),
        before: None,
        observed_at: 1,
    }
}

fn placement(n: usize, state: State) -> PlacementRow {
    let record = Record {
        uid: Some(Uid::new("8f0c5d2e-8a8e-4b57-9c1f-1a2b3c4d5e6f")),
        resource_version: ResourceVersion::new("123456"),
        rendered: [1; 32],
        owned: Some([2; 16]),
        field_set: Bytes::from(br#"{"f:data":{"f:setting-0":{},"f:setting-1":{}},"f:metadata":{"f:annotations":{"f:lockstep.dev/source":{}},"f:labels":{"f:app.kubernetes.io/name":{}}}}"#.to_vec()),
        api_version: "v1".into(),
        implicit: false,
        adopted: false,
        created_at: 1,
    };
    PlacementRow {
        target: ClusterId((2 + n % TARGETS) as u32),
        key: key(n / TARGETS),
        policy: "production-settings".into(),
        rivals: Vec::new(),
        source: Some(SourceRef {
            cluster: ClusterId(1),
            namespace: "team".into(),
            name: format!("settings-{n:07}"),
            uid: Uid::new("8f0c5d2e-8a8e-4b57-9c1f-1a2b3c4d5e6f"),
        }),
        record: (state == State::InStep).then_some(record),
        status: Status::new(state, state.as_str(), "as the policy asks"),
        since: n as i64,
        observed_generation: 1,
        ending: None,
        delete: None,
        attempts: 0,
        next_attempt: None,
        barred: None,
        synced_at: None,
        lag_ms: Some(n as i64 % 977),
        fields: Fields::default(),
    }
}

fn rate(what: &str, rows: usize, took: Duration) {
    let seconds = took.as_secs_f64();
    println!("{what:<52} {:>9.0} rows/s {:>7.1} us/row", rows as f64 / seconds, seconds * 1e6 / rows as f64);
}

fn in_commits(
    store: &mut SqliteStore,
    what: &str,
    rows: usize,
    mut put: impl FnMut(&mut SqliteStore, usize),
) {
    let started = Instant::now();
    for first in (0..rows).step_by(COMMIT) {
        store.begin().unwrap();
        (first..rows.min(first + COMMIT)).for_each(|n| put(store, n));
        store.commit().unwrap();
    }
    rate(what, rows, started.elapsed());
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let out = work();
    println!("{what:<52} {:>9.1} ms", started.elapsed().as_secs_f64() * 1e3);
    out
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rows: usize = arguments.next().map_or(200_000, |rows| rows.parse().unwrap());
    let dir = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from).join("lockstep-store-ingest");
    let _ = std::fs::remove_dir_all(&dir);
    let path = dir.join("state.db");
    let mut store = SqliteStore::open(&path, HubKey::from_bytes([1; 32]).sealer()).unwrap();
    store.begin().unwrap();
    let watch = store.ensure_watch(ClusterId(1), &key(0).gk, "", 1).unwrap().id;
    store.commit().unwrap();

    println!("{rows} rows, {COMMIT} a commit, bodies of {} bytes", body(1).len());
    let started = Instant::now();
    (0..rows).for_each(|n| drop(std::hint::black_box(object(n, 1))));
    rate("(making the rows, included below)", rows, started.elapsed());
    in_commits(&mut store, "objects, new", rows, |store, n| store.put_object(&object(n, 1)).unwrap());
    let scattered = |n: usize| n * 7919 % rows;
    in_commits(&mut store, "objects, read and updated, scattered", rows, |store, n| {
        let row = object(scattered(n), 2);
        assert!(store.object(row.cluster, &row.key).unwrap().is_some());
        store.put_object(&row).unwrap();
    });
    in_commits(&mut store, "placements, new", rows, |store, n| {
        store.put_placement(&placement(n, State::Pending)).unwrap();
    });
    in_commits(&mut store, "placements, to InStep, scattered", rows, |store, n| {
        store.put_placement(&placement(scattered(n), State::InStep)).unwrap();
    });

    let mut reader = store.open_reader().unwrap();
    timed("summary, all", || reader.summary(None).unwrap());
    timed("summary, all, again", || reader.summary(None).unwrap());
    let filter = PlacementFilter { policy: Some("production-settings".into()), ..PlacementFilter::default() };
    timed("placement_count of a policy", || reader.placement_count(&filter).unwrap());
    let started = Instant::now();
    let (mut after, mut seen) = (None, 0);
    loop {
        let page = reader.placements(&filter, after.as_ref(), 500).unwrap();
        let Some(last) = page.last() else { break };
        seen += page.len();
        after = Some((last.target, last.key.clone()));
    }
    rate("placements of a policy, pages of 500", seen, started.elapsed());
    let held = PlacementFilter { states: vec![State::Held], ..filter };
    timed("held placements of a policy (none)", || reader.placements(&held, None, 500).unwrap());
    let started = Instant::now();
    let (mut after, mut seen) = (None::<(String, String)>, 0);
    loop {
        let cursor = after.as_ref().map(|(a, b)| (a.as_str(), b.as_str()));
        let page = reader.index(watch, cursor, 1_000).unwrap();
        let Some(last) = page.last() else { break };
        seen += page.len();
        after = Some((last.namespace.clone(), last.name.clone()));
    }
    rate("key index of a watch, pages of 1000", seen, started.elapsed());
    drop((reader, store));
    println!("{:<52} {:>9.1} MB", "file", std::fs::metadata(&path).unwrap().len() as f64 / 1e6);
    let open = || SqliteStore::open(&path, HubKey::from_bytes([1; 32]).sealer()).unwrap();
    timed("open", open);
    std::fs::write(dir.join("state.db-running"), b"").unwrap();
    timed("open and check, as after a crash", open);
    std::fs::remove_dir_all(&dir).unwrap();
}
