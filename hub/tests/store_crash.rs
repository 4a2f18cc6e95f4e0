//! I1, I2: a crash at any instruction keeps what was committed, and nothing else.
//!
//! The test runs itself as a child that writes batches, kills it with SIGKILL in the middle, and
//! looks at what is there.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use lockstep_engine::{ClusterId, GroupKind, ObjectKey, ResourceVersion, Uid};
use lockstep_hub::seal::HubKey;
use lockstep_hub::store::sqlite::SqliteStore;
use lockstep_hub::store::{ObjectRow, Reader, Store};

/// Tells the child what it is, and where to write.
const CHILD: &str = "LOCKSTEP_CRASH_CHILD";
const BATCH: u64 = 100;
const ROUNDS: u64 = 6;

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, HubKey::from_bytes([5; 32]).sealer()).unwrap()
}

fn gk(kind: &str) -> GroupKind {
    GroupKind::new("", kind)
}

fn row(n: u64) -> ObjectRow {
    ObjectRow {
        unseen: None,
        cluster: ClusterId(1),
        key: ObjectKey::new(gk(["ConfigMap", "Secret"][(n % 2) as usize]), "shop", &format!("x{n:09}")),
        watch: 1,
        uid: Uid::new("u"),
        resource_version: ResourceVersion::new(&n.to_string()),
        body: Some(Bytes::from(format!("{n:0>900}"))),
        managed: None,
        deleting: false,
        pod_security: Default::default(),
        before: None,
        observed_at: 1,
    }
}

/// Batches without end; each moves the checkpoint, and is told once it is committed.
fn write_for_ever(path: &Path) {
    let mut store = open(path);
    let mut n: u64 = store.meta("checkpoint").unwrap().map_or(0, |n| n.parse().unwrap());
    loop {
        store.begin().unwrap();
        for _ in 0..BATCH {
            store.put_object(&row(n)).unwrap();
            n += 1;
        }
        store.put_meta("checkpoint", &n.to_string()).unwrap();
        store.commit().unwrap();
        println!("committed {n}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn i1_i2_a_kill_keeps_what_was_committed_and_nothing_else() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_for_ever(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "i1_i2_a_kill_keeps_what_was_committed_and_nothing_else", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("committed ").and_then(|n| n.parse::<u64>().ok()));
        // Somewhere within the batches after these; another place each round.
        let (mut last, mut commits) = (0, 0);
        for n in told {
            (last, commits) = (n, commits + 1);
            if commits == 3 + round {
                std::thread::sleep(Duration::from_micros(700 * round));
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(commits >= 3 + round, "the child ended early");

        let mut store = open(&path);
        let checkpoint: u64 = store.meta("checkpoint").unwrap().unwrap().parse().unwrap();
        assert!(checkpoint >= last, "{last} was told as committed, {checkpoint} is there");
        assert_eq!(store.object_count(ClusterId(1)).unwrap(), checkpoint, "checkpoint and objects differ");
        for n in [0, last - 1, checkpoint - 1] {
            assert_eq!(store.object(ClusterId(1), &row(n).key).unwrap(), Some(row(n)));
        }
        assert_eq!(store.object(ClusterId(1), &row(checkpoint).key).unwrap(), None);
    }
}
