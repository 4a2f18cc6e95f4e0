//! How long a listing of tombstones takes on this machine, by filter:
//! `cargo run --release -p lockstep-hub --example store_tombstones [ROWS]`
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lockstep_engine::acts::ActKind;
use lockstep_engine::selector::{LabelSelector, Operator, Requirement};
use lockstep_engine::{ClusterId, GroupKind, ObjectKey, ResourceVersion, Uid};
use lockstep_hub::seal::HubKey;
use lockstep_hub::store::sqlite::SqliteStore;
use lockstep_hub::store::{
    ActFilter, ActRow, Cause, CauseKind, Facts, Filed, Reader, Store, TombstoneFilter, TombstoneRow,
};

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
        body: Some(body(n).into()),
        path: Some(format!("v1/cluster/{group}/{kind}/team/web-{n:06}/uid/8232676954876-{n}.yaml.zst")),
        deleted: true,
        facts: Facts { labels: labels(n), deleter: Some(format!("user-{}", n % 40)), ..Facts::default() },
    }
}

fn labels(n: usize) -> BTreeMap<String, String> {
    let label = |name: &str, value: String| (name.to_owned(), value);
    [label("app", format!("web-{}", n % 500)), label("env", "production".to_owned())].into()
}

/// What there is to be found in one.
fn body(n: usize) -> String {
    format!(
        r#"{{"metadata":{{"annotations":{{"team":"team-{}"}}}},"spec":{{"image":"registry/shop/web-{}:1.{}","note":"one of many that are kept"}}}}"#,
        n % 100,
        n % 500,
        n % 30
    )
}

fn act() -> ActRow {
    ActRow {
        id: 0,
        cluster: ClusterId(1),
        kind: ActKind::Namespace,
        root: None,
        contents: None,
        policy: None,
        began: None,
        ended: None,
        over: false,
        started_at: 0,
        last_at: 0,
        members: 0,
    }
}

fn label(key: &str, operator: Operator, values: &[&str]) -> LabelSelector {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    let requirement = Requirement { key: key.to_owned(), operator, values };
    LabelSelector { match_expressions: [requirement].into(), ..LabelSelector::default() }
}

fn main() {
    let rows = std::env::args().nth(1).map_or(100_000, |rows| rows.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let sealer = HubKey::from_bytes([1; 32]).sealer();
    let mut store = SqliteStore::open(&dir.path().join("state.db"), sealer).unwrap();
    store.begin().unwrap();
    let acts: Vec<i64> = (0..250).map(|_| store.create_act(&act(), 0).unwrap()).collect();
    store.commit().unwrap();
    for n in 0..rows {
        if n % COMMIT == 0 {
            store.begin().unwrap();
        }
        let id = store.put_tombstone(&tombstone(n)).unwrap();
        let path = format!("v1/cluster/kind/team/web-{n:06}/uid/8232676954876-{n}.yaml.zst");
        store.set_archived(id, &Filed { path, size: 900, key: None }).unwrap();
        // Acts of 200 objects each, and one of everything else.
        let act = if n < rows / 2 { acts[n / 200 % acts.len()] } else { acts[0] };
        store.set_act(id, Some(act)).unwrap();
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
        ("deleter", TombstoneFilter { deleter: text("user-7"), ..any() }),
        ("deleter without any", TombstoneFilter { deleter: text("nobody"), ..any() }),
        ("group of 200", TombstoneFilter { act: Some(acts[7]), ..any() }),
        ("group of half of them", TombstoneFilter { act: Some(acts[0]), ..any() }),
        ("group without any", TombstoneFilter { act: Some(-1), ..any() }),
        ("label, some", TombstoneFilter { selector: label("app", Operator::In, &["web-7"]), ..any() }),
        ("label, all", TombstoneFilter { selector: label("env", Operator::In, &["production"]), ..any() }),
        ("label, none", TombstoneFilter { selector: label("env", Operator::In, &["dev"]), ..any() }),
        (
            "label, not there",
            TombstoneFilter { selector: label("env", Operator::DoesNotExist, &[]), ..any() },
        ),
        (
            "label, other value",
            TombstoneFilter { selector: label("env", Operator::NotIn, &["dev"]), ..any() },
        ),
        ("words, some", TombstoneFilter { text: text("registry/shop/web-7"), ..any() }),
        ("words, all", TombstoneFilter { text: text("one of many"), ..any() }),
        ("words, none", TombstoneFilter { text: text("nothing"), ..any() }),
        ("beginning of a word, all", TombstoneFilter { text: text("regis*"), ..any() }),
        (
            "words of all, namespace of none",
            TombstoneFilter { text: text("one of many"), namespace: text("none"), ..any() },
        ),
    ];
    println!("{rows} tombstones, the newest {LIMIT}, slowest of {RUNS}:");
    for (name, filter) in filters {
        let (mut slowest, mut found) = (Duration::ZERO, 0);
        for _ in 0..RUNS {
            let begun = Instant::now();
            found = store.tombstones(&filter, LIMIT).unwrap().len();
            slowest = slowest.max(begun.elapsed());
        }
        println!("{name:32}{found:>6} found{:>10.1} ms", slowest.as_secs_f64() * 1e3);
    }
    let begun = Instant::now();
    let found = store.acts(&ActFilter::default(), LIMIT).unwrap().len();
    println!("{:32}{found:>6} found{:>10.1} ms", "groups", begun.elapsed().as_secs_f64() * 1e3);
}
