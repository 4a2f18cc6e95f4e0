//! A core on a real store whose disk is full for a while.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lockstep_engine::ClusterName;
use tokio::sync::{Notify, oneshot};

use super::*;
use crate::core::command::{Command, CommandError, ObjectRef, PauseScope, Reply};
use crate::core::{Connect, Keys, Parts};
use crate::seal::{BearerToken, HubKey};
use crate::store::Reader;
use crate::store::sqlite::{PageLimit, SqliteReader, SqliteStore};

struct Bed {
    dir: tempfile::TempDir,
    inputs: mpsc::Sender<Input>,
    thread: std::thread::JoinHandle<()>,
    reader: SqliteReader,
    pages: PageLimit,
    problems: Problems,
    damage: Damage,
    pulse: Pulse,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = HubKey::from_bytes([7; 32]);
        let store = SqliteStore::open(&dir.path().join("state.db"), key.sealer()).unwrap();
        let (reader, pages, damage) = (store.open_reader().unwrap(), store.page_limit(), store.damage());
        let core = Core::load(Parts {
            store,
            keys: Keys::of(&key),
            archive: Arc::new(Notify::new()),
            findings: Arc::default(),
            sessions: Arc::default(),
            hub_id: "hub".to_owned(),
            protocols: lockstep_wire::Protocols::BUILT_IN,
        })
        .unwrap();
        let (inputs, received) = mpsc::channel(INPUTS);
        let (problems, pulse) = (Problems::default(), Pulse::default());
        let care = Care {
            space: Space { dir: dir.path().to_owned(), min_free: 0 },
            problems: problems.clone(),
            damage: damage.clone(),
            metrics: Metrics::default(),
            pulse: pulse.clone(),
            clock: Clock::new(now),
        };
        let thread = std::thread::spawn(move || run(core, received, Box::new(|_, _, _| {}), care));
        Self { dir, inputs, thread, reader, pages, problems, damage, pulse }
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.inputs.blocking_send(Input::Command(command(reply))).unwrap();
        answer.blocking_recv().unwrap_or_else(|_| {
            Err(CommandError { code: "lost".into(), message: String::new(), remedy: String::new() })
        })
    }

    fn token(&self, name: &str) -> Result<String, CommandError> {
        let cluster = ClusterName::new(name).unwrap();
        self.ask(|reply| Command::CreateToken { cluster, reply })
    }

    fn connect(
        &self,
        token: &str,
        name: &str,
    ) -> Result<mpsc::Receiver<crate::core::state::SessionCommand>, v1::Refused> {
        let (out, commands) = mpsc::channel(64);
        let (reply, answer) = oneshot::channel();
        let hello = v1::Hello {
            protocol: lockstep_wire::PROTOCOL,
            cluster_name: name.into(),
            cluster_uid: format!("uid-of-{name}"),
            server_version: "v1.20.2".into(),
            instance: "i".into(),
            ..v1::Hello::default()
        };
        let connect = Connect { token: BearerToken::new(token), hello, out, reply };
        self.inputs.blocking_send(Input::Connect(Box::new(connect))).unwrap();
        answer.blocking_recv().unwrap().map(|_| commands)
    }

    /// The disk is as full as the file is long.
    fn fill(&self) {
        let size = std::fs::metadata(self.dir.path().join("state.db")).unwrap().len();
        let pages = u32::try_from(size / 4096).unwrap();
        self.pages.store(pages.max(1), Ordering::Release);
    }

    fn until(&self, what: &str, mut check: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !check(self) {
            assert!(begun.elapsed() < crate::TEST_PATIENCE, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(self) {
        let Self { inputs, thread, .. } = self;
        drop(inputs);
        thread.join().unwrap();
    }
}

fn object() -> ObjectRef {
    ObjectRef { kind: "ConfigMap".into(), namespace: "n".into(), name: "x".into(), cluster: None }
}

#[test]
fn a_full_disk_refuses_new_work_answers_reads_loses_nothing_and_recovers_by_itself() {
    let mut bed = Bed::new();
    let token = bed.token("a").unwrap();
    bed.token("b").unwrap();
    let mut session = bed.connect(&token, "a").unwrap();
    bed.inputs.blocking_send(Input::Policies(Ok(Vec::new()))).unwrap();
    let before = bed.reader.clusters().unwrap();
    bed.fill();
    // A transaction that needs room: it is rolled back whole, and from then on nothing is taken.
    let names: Vec<String> = (0..400).map(|n| format!("filler-{n}")).collect();
    let refused = names.iter().find_map(|name| bed.token(name).err()).unwrap();
    assert!(["lost", "LS0228"].contains(&refused.code.as_str()), "{refused}");
    bed.until("it says so", |bed| bed.problems.stopping().is_some());
    let problem = bed.problems.stopping().unwrap();
    assert!(problem.code == "LS0228" && problem.to_string().contains("the disk is full"), "{problem}");
    let known = bed.reader.clusters().unwrap();
    assert!(known.len() > before.len(), "the fillers before it stay");
    assert_eq!(bed.token("more").unwrap_err().code, "LS0228");
    assert_eq!(
        bed.ask(|reply| Command::Pause { scope: PauseScope::Everything, paused: true, reply })
            .unwrap_err()
            .code,
        "LS0228"
    );
    // The session was ended, and nobody gets a new one; each is told another time to come again.
    let closed = std::iter::from_fn(|| session.blocking_recv())
        .any(|command| matches!(command, crate::core::state::SessionCommand::Close(_)));
    assert!(closed, "the agent was told");
    let times: Vec<u64> = (0..20)
        .map(|_| bed.connect(&token, "a").unwrap_err())
        .map(|refused| refused.retry_after_ms)
        .collect();
    assert!(times.iter().all(|ms| (AWAY_MS..2 * AWAY_MS).contains(ms)), "{times:?}");
    let distinct: std::collections::BTreeSet<_> = times.iter().collect();
    assert!(distinct.len() > 15, "{times:?}");
    // Reads go on, those of the core included.
    let answer = bed.ask(|reply| Command::Explain { object: object(), reply }).unwrap_err();
    assert!(answer.message.contains("no cluster serves"), "the core's own answer: {answer}");
    assert_eq!(bed.reader.clusters().unwrap(), known, "nothing of what was refused is there");
    // What is told once only is not lost.
    let policy = "apiVersion: sync.k8s.io/v1\nkind: ClusterSyncPolicy\nmetadata: { name: maps }\nspec:\n  \
                  sourceCluster: a\n  targetClusters: [b]\n  resources:\n  - kind: ConfigMap\n    \
                  matchLabels: { sync: 'yes' }\n";
    let files = vec![("p.yaml".to_owned(), Ok(policy.to_owned()))];
    bed.inputs.blocking_send(Input::Policies(Ok(files))).unwrap();
    bed.pages.store(0, Ordering::Release);
    bed.until("it goes on", |bed| bed.problems.all().is_empty());
    bed.connect(&token, "a").unwrap();
    bed.token("more").unwrap();
    assert_eq!(bed.reader.policies().unwrap().len(), 1, "the policy came through");
    bed.end();
}

#[test]
fn a_bound_on_free_space_holds_before_the_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new();
    // A bound that no disk meets, from the start.
    let (inputs, received) = mpsc::channel(INPUTS);
    let key = HubKey::from_bytes([7; 32]);
    let store = SqliteStore::open(&dir.path().join("state.db"), key.sealer()).unwrap();
    let care = Care {
        space: Space { dir: dir.path().to_owned(), min_free: u64::MAX / 2 },
        problems: bed.problems.clone(),
        damage: store.damage(),
        metrics: Metrics::default(),
        pulse: Pulse::default(),
        clock: Clock::new(now),
    };
    let core = Core::load(Parts {
        store,
        keys: Keys::of(&key),
        archive: Arc::new(Notify::new()),
        findings: Arc::default(),
        sessions: Arc::default(),
        hub_id: "hub".to_owned(),
        protocols: lockstep_wire::Protocols::BUILT_IN,
    })
    .unwrap();
    let thread = std::thread::spawn(move || run(core, received, Box::new(|_, _, _| {}), care));
    let old = std::mem::replace(&mut bed.inputs, inputs);
    drop(old);
    assert_eq!(bed.token("a").unwrap_err().code, "LS0228");
    assert!(bed.problems.stopping().unwrap().message.contains("MiB are free"));
    bed.end();
    thread.join().unwrap();
}

#[test]
fn damage_ends_the_owner() {
    let bed = Bed::new();
    bed.token("a").unwrap();
    let db = rusqlite::Connection::open(bed.dir.path().join("state.db")).unwrap();
    // A row that no version ever wrote: the core meets it when it builds its state anew.
    db.execute("INSERT INTO budgets VALUES ('p', 1, '[')", []).unwrap();
    drop(db);
    bed.fill();
    for n in 0..400 {
        if bed.inputs.is_closed() || bed.token(&format!("filler-{n}")).is_err() {
            break;
        }
    }
    bed.thread.join().unwrap();
    assert!(bed.damage.why().is_some());
}

/// Somebody holds the write lock of the database: nothing can be committed, and probes say so until it can.
#[test]
fn a_store_that_takes_no_commit_is_not_ready() {
    let bed = Bed::new();
    bed.token("a").unwrap();
    assert_eq!(bed.pulse.serving(), Ok(()));
    let committed = bed.pulse.last_commit();
    assert!(committed > 0);
    let holder = rusqlite::Connection::open(bed.dir.path().join("state.db")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (reply, _answer) = oneshot::channel();
    let cluster = ClusterName::new("b").unwrap();
    bed.inputs.blocking_send(Input::Command(Command::CreateToken { cluster, reply })).unwrap();
    bed.until("it is not ready", |bed| bed.pulse.serving().is_err());
    holder.execute_batch("ROLLBACK").unwrap();
    bed.until("it is ready again", |bed| bed.token("c").is_ok() && bed.pulse.serving().is_ok());
    assert!(bed.pulse.last_commit() >= committed);
    bed.end();
}
