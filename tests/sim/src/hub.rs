//! The hub as a process: started, killed, its disk lost or full.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use lockstep_engine::clock::Clock;
use lockstep_engine::{ClusterName, Millis};
use lockstep_hub::archive::{Archiver, ArchiverParts, Keyring, Tombstones};
use lockstep_hub::backup::{BackupOptions, RestoreOptions, backup, restore};
use lockstep_hub::blocking::Blocking;
use lockstep_hub::config::{STATE_FILE, Secrets};
use lockstep_hub::core::command::{Command, CommandError, Reply};
use lockstep_hub::core::{Core, Input, Keys, Parts};
use lockstep_hub::metrics::Metrics;
use lockstep_hub::owner::{self, Care};
use lockstep_hub::problem::Problems;
use lockstep_hub::pulse::Pulse;
use lockstep_hub::seal::HubKey;
use lockstep_hub::session::{Readers, SessionService};
use lockstep_hub::settle::Settling;
use lockstep_hub::space::Space;
use lockstep_hub::store::Reader;
use lockstep_hub::store::sqlite::{PageLimit, SqliteStore};
use lockstep_wire::Protocols;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::archive::MemoryArchive;
use crate::log::Log;
use crate::oracle::Oracle;

/// Clones are the same hub.
#[derive(Clone)]
pub(crate) struct Hub(Arc<Mutex<Inner>>);

struct Inner {
    /// The disk: on a file system in memory where there is one.
    disk: tempfile::TempDir,
    /// Backups, the last one, and how many there were.
    backups: tempfile::TempDir,
    backup: Option<PathBuf>,
    backed_up: u32,
    key: HubKey,
    archive: MemoryArchive,
    /// Files of the policies directory.
    policies: Vec<(String, String)>,
    clock: Clock,
    log: Log,
    oracle: Oracle,
    protocols: Protocols,
    process: Option<Process>,
}

struct Process {
    service: SessionService,
    inputs: mpsc::Sender<Input>,
    readers: Readers,
    pages: PageLimit,
    /// How many agents are connected.
    sessions: Arc<AtomicUsize>,
    down: CancellationToken,
    core: JoinHandle<()>,
    archiver: JoinHandle<()>,
}

impl Hub {
    pub(crate) fn new(
        archive: MemoryArchive,
        clock: Clock,
        log: Log,
        oracle: Oracle,
        protocols: Protocols,
    ) -> Result<Self> {
        let (disk, backups, key) = (disk()?, disk()?, HubKey::from_bytes([7; 32]));
        Ok(Self(Arc::new(Mutex::new(Inner {
            disk,
            backups,
            backup: None,
            backed_up: 0,
            key,
            archive,
            policies: Vec::new(),
            clock,
            log,
            oracle,
            protocols,
            process: None,
        }))))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn runs(&self) -> bool {
        self.lock().process.is_some()
    }

    /// How many agents are connected.
    pub(crate) fn sessions(&self) -> usize {
        self.lock().process.as_ref().map_or(0, |process| process.sessions.load(Ordering::Relaxed))
    }

    /// What agents connect to, and what tells that it went down. None: it does not run.
    pub(crate) fn service(&self) -> Option<(SessionService, CancellationToken)> {
        let inner = self.lock();
        let process = inner.process.as_ref()?;
        Some((process.service.clone(), process.down.clone()))
    }

    /// Starts it, if it does not run.
    pub(crate) fn start(&self) -> Result<()> {
        let mut inner = self.lock();
        if inner.process.is_none() {
            inner.process = Some(inner.begin()?);
        }
        Ok(())
    }

    /// Kills it: what it sent and nobody has yet is lost.
    pub(crate) async fn kill(&self) {
        let Some(process) = self.lock().process.take() else { return };
        process.down.cancel();
        process.core.abort();
        process.archiver.abort();
        // Cancelled, both: the files are closed then.
        let _ = (process.core.await, process.archiver.await);
    }

    /// The data directory is gone. The hub must not run.
    pub(crate) fn lose_data(&self, now: Millis) -> Result<()> {
        let mut inner = self.lock();
        inner.disk = disk()?;
        inner.oracle.hub_data_lost(now);
        Ok(())
    }

    /// Makes a backup, whether it runs or not, if there is anything to back up.
    pub(crate) fn back_up(&self, now: Millis) -> Result<()> {
        let mut inner = self.lock();
        if !inner.disk.path().join(STATE_FILE).exists() {
            return Ok(());
        }
        inner.backed_up += 1;
        let to = inner.backups.path().join(inner.backed_up.to_string());
        let (data_dir, archive_dir) = (inner.disk.path().to_owned(), None);
        backup(&BackupOptions { data_dir, archive_dir, to: to.clone(), now }, &mut |_| {})?;
        inner.backup = Some(to);
        Ok(())
    }

    /// Puts the last backup in the place of its data. The hub must not run. Answers whether there was one.
    pub(crate) fn restore(&self, now: Millis) -> Result<bool> {
        let inner = self.lock();
        let Some(from) = inner.backup.clone() else { return Ok(false) };
        let (data_dir, sealer) = (inner.disk.path().to_owned(), Some(inner.key.sealer()));
        let options = RestoreOptions { from, data_dir, archive_dir: None, force: true, sealer, now };
        restore(&options, &mut |_| {})?;
        inner.oracle.hub_data_lost(now);
        Ok(true)
    }

    /// From now on the disk is as full as the file is long, or not.
    pub(crate) fn set_full(&self, full: bool) {
        let inner = self.lock();
        let Some(process) = &inner.process else { return };
        let size = std::fs::metadata(inner.disk.path().join(STATE_FILE)).map_or(0, |file| file.len());
        let pages = u32::try_from(size / 4096).unwrap_or(u32::MAX).max(1);
        process.pages.store(if full { pages } else { 0 }, Ordering::Release);
    }

    pub(crate) async fn policies(&self, files: Vec<(String, String)>) {
        let inputs = {
            let mut inner = self.lock();
            inner.policies.clone_from(&files);
            inner.process.as_ref().map(|process| process.inputs.clone())
        };
        if let Some(inputs) = inputs {
            // It may be killed meanwhile, and reads them when it starts.
            let _ = inputs.send(Input::Policies(told(files))).await;
        }
    }

    /// Asks the core. None: it does not run, or was killed.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Option<Result<T, CommandError>> {
        let inputs = self.lock().process.as_ref()?.inputs.clone();
        let (reply, answer) = oneshot::channel();
        inputs.send(Input::Command(command(reply))).await.ok()?;
        answer.await.ok()
    }

    pub(crate) async fn token(&self, cluster: &str) -> Result<String> {
        let cluster = ClusterName::new(cluster)?;
        let answer = self.ask(|reply| Command::CreateToken { cluster, reply }).await;
        Ok(answer.context("the hub does not run")??)
    }

    pub(crate) fn reader(&self) -> Option<Box<dyn Reader>> {
        (self.lock().process.as_ref()?.readers)().ok()
    }

    /// Everything that lies on the disk.
    pub(crate) fn on_disk(&self) -> Vec<bytes::Bytes> {
        let inner = self.lock();
        let Ok(entries) = std::fs::read_dir(inner.disk.path()) else { return Vec::new() };
        entries.filter_map(|entry| std::fs::read(entry.ok()?.path()).ok()).map(Into::into).collect()
    }
}

impl Inner {
    fn begin(&self) -> Result<Process> {
        let database = self.disk.path().join(STATE_FILE);
        let store = SqliteStore::open_or_rebuild(&database, self.key.sealer(), self.clock.now())?;
        let (damage, outbox, pages) = (store.damage(), store.open_reader()?, store.page_limit());
        pages.store(0, Ordering::Release);
        let sqlite = store.readers();
        let readers: Readers = Arc::new(move || Ok(Box::new(sqlite.open()?)));
        let wake = Arc::new(Notify::new());
        let key = &self.key;
        let core = Core::load(Parts {
            store,
            keys: Keys::of(key),
            archive: Arc::clone(&wake),
            findings: Arc::default(),
            sessions: Arc::default(),
            hub_id: "simulated-hub".to_owned(),
            protocols: self.protocols,
        })?;
        let (inputs, received) = mpsc::channel(owner::INPUTS);
        let care = Care {
            space: Space { dir: self.disk.path().to_owned(), min_free: 0 },
            problems: Problems::default(),
            damage,
            metrics: Metrics::default(),
            pulse: Pulse::default(),
            clock: self.clock.clone(),
        };
        let (oracle, log, mut reader) = (self.oracle.clone(), self.log.clone(), readers()?);
        oracle.hub_started(&mut *reader);
        let mut deltas = 0;
        let sessions = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&sessions);
        let observe = move |counts: &lockstep_hub::core::Counts, connected: usize, _| {
            seen.store(connected, Ordering::Relaxed);
            if counts.deltas != deltas {
                deltas = counts.deltas;
                log.say(
                    "hub",
                    format_args!("deltas {deltas}, steps {}, {connected} connected", counts.steps),
                );
            }
            oracle.committed(&mut *reader, counts);
        };
        let down = CancellationToken::new();
        let gate = core.gate();
        let core = tokio::spawn(owner::serve(core, received, Box::new(observe), care));
        let archiver = Archiver::new(ArchiverParts {
            reader: outbox,
            tombstones: Tombstones::new(
                Arc::new(self.archive.clone()),
                Keyring::of_hub(key),
                Secrets::default(),
            ),
            wake,
            done: inputs.clone(),
            metrics: Arc::new(Metrics::default()),
            blocking: Blocking::Here,
        });
        let archiver = tokio::spawn(archiver.run(down.clone()));
        let service =
            SessionService::new(inputs.clone(), readers.clone(), gate, Blocking::Here, down.clone());
        let (problems, clock) = (Problems::default(), self.clock.clone());
        if let Some(settling) = Settling::begin(&mut *readers()?, problems, clock, Blocking::Here)? {
            tokio::spawn(settling.run(readers.clone(), inputs.clone(), down.clone()));
        }
        // The channel is new and empty.
        let _ = inputs.try_send(Input::Policies(told(self.policies.clone())));
        Ok(Process { service, inputs, readers, pages, sessions, down, core, archiver })
    }
}

fn told(files: Vec<(String, String)>) -> lockstep_hub::core::PolicyFiles {
    Ok(files.into_iter().map(|(path, text)| (path, Ok(text))).collect())
}

/// A directory in memory: what the simulation kills is a process, not the machine.
fn disk() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.context("a directory for the hub's data")
}
