//! How long a listing of tombstones takes on this machine, by filter:
//! `cargo run --release -p lockstep-hub --example store_tombstones [ROWS]`
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::time::{Duration, Instant};

use lockstep_engine::{ClusterId, GroupKind, ObjectKey, ResourceVersion, Uid};
use lockstep_hub::seal::HubKey;
use lockstep_hub::store::sqlite::SqliteStore;
use lockstep_hub::store::{Cause, CauseKind, Facts, Reader, Store, TombstoneFilter, TombstoneRow};

const COMMIT: usize = 1_000;
/// Of each filter; the slowest counts.
const RUNS: usize = 20;
/// As the command asks for.
const LIMIT: usize = 101;
const KINDS: [(&str, &str); 5] =
    [("", "ConfigMap"), ("", "Secret"), ("apps", "Deployment"), ("", "Service"), ("batch", "Job")];

fn tombstone(n: usize) -> TombstoneRow {
    let (group, kind) = KINDS[n % KINDS.len()];
    let cause = match n % 7 {
        0 => Cause::Inferred,
        1 => Cause::Lockstep { policy: format!("policy-{}", n % 11) },
        _ => Cause::Observed,
    };
    let at = 1_700_000_000_000 + i64::try_from(n).unwrap() * 1_000;
    TombstoneRow {
        id: 0,
        cluster: ClusterId(u32::try_from(n % 20).unwrap() + 1),
        key: ObjectKey::new(
            GroupKind::new(group, kind),
            &format!("team-{:03}", n % 100),
            &format!("web-{n:06}"),
        ),
        uid: Uid::new(&format!("8f0c5d2e-8a8e-4b57-9c1f-{n:012x}")),
        resource_version: ResourceVersion::new(&n.to_string()),
        api_version: "v1".to_owned(),
        cause,
        deleted_at: at,
        last_seen: at,
        known_until: None,
        body: None,
        path: Some(format!("v1/cluster/{group}/{kind}/team/web-{n:06}/uid/8232676954876-{n}.yaml.zst")),
        deleted: true,
        facts: Facts::default(),
    }
}

fn main() {
    let rows = std::env::args().nth(1).map_or(100_000, |rows| rows.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let sealer = HubKey::from_bytes([1; 32]).sealer();
    let mut store = SqliteStore::open(&dir.path().join("state.db"), sealer).unwrap();
    for n in 0..rows {
        if n % COMMIT == 0 {
            store.begin().unwrap();
        }
        store.put_tombstone(&tombstone(n)).unwrap();
        if n % COMMIT == COMMIT - 1 || n == rows - 1 {
            store.commit().unwrap();
        }
    }
    let any = TombstoneFilter::default;
    let text = |text: &str| Some(text.to_owned());
    let last = tombstone(rows - 1).deleted_at;
    let filters = [
        ("everything", any()),
        ("cluster", TombstoneFilter { cluster: Some(ClusterId(7)), ..any() }),
        ("kind", TombstoneFilter { gk: Some(GroupKind::new("apps", "Deployment")), ..any() }),
        ("namespace", TombstoneFilter { namespace: text("team-042"), ..any() }),
        ("namespace without any", TombstoneFilter { namespace: text("none"), ..any() }),
        ("name", TombstoneFilter { name: text("web-000042"), ..any() }),
        ("pattern, many", TombstoneFilter { name_glob: text("web-*"), ..any() }),
        ("pattern, none", TombstoneFilter { name_glob: text("*nothing*"), ..any() }),
        ("last hour", TombstoneFilter { since: Some(last - 3_600_000), ..any() }),
        ("oldest hour", TombstoneFilter { until: Some(1_700_003_600_000), ..any() }),
        ("cause", TombstoneFilter { cause: Some(CauseKind::Inferred), ..any() }),
        ("cause without any", TombstoneFilter { cause: Some(CauseKind::Rewound), ..any() }),
        ("policy without any", TombstoneFilter { policy: text("none"), ..any() }),
    ];
    println!("{rows} tombstones, the newest {LIMIT}, slowest of {RUNS}:");
    for (name, filter) in filters {
        let (mut slowest, mut found) = (Duration::ZERO, 0);
        for _ in 0..RUNS {
            let begun = Instant::now();
            found = store.tombstones(&filter, LIMIT).unwrap().len();
            slowest = slowest.max(begun.elapsed());
        }
        println!("{name:24}{found:>6} found{:>10.1} ms", slowest.as_secs_f64() * 1e3);
    }
}
