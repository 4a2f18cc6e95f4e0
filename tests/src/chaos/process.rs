//! The processes of lockstep: started, killed, frozen, and watched for ending by themselves.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::testbed::{ProcessId, Signal, dying_with_parent};

/// A process that ends by itself is started again after this long, as a kubelet does at first.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// A thread that spawns processes and lives as long as they: they die with the thread that spawned them, and threads
/// of tokio come and go.
#[derive(Debug, Clone)]
pub(super) struct Nursery(Sender<(Command, Sender<std::io::Result<Child>>)>);

impl Nursery {
    pub(super) fn start() -> Result<Self> {
        let (sender, orders): (_, Receiver<(Command, Sender<_>)>) = channel();
        let spawner = move || {
            for (mut command, reply) in orders {
                let _ = reply.send(command.spawn());
            }
        };
        std::thread::Builder::new().name("chaos-nursery".to_owned()).spawn(spawner)?;
        Ok(Self(sender))
    }

    fn spawn(&self, command: Command) -> Result<Child> {
        let (reply, answer) = channel();
        self.0.send((command, reply)).context("the thread that spawns has ended")?;
        Ok(answer.recv().context("the thread that spawns has ended")??)
    }
}

/// One process that shall run, but for the times when chaos has killed it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: String,
    nursery: Nursery,
    arguments: Vec<String>,
    binary: PathBuf,
    pub(super) log: PathBuf,
    state: Mutex<ProcessState>,
}

#[derive(Debug, Default)]
struct ProcessState {
    child: Option<Child>,
    wanted: bool,
    ended_at: Option<Instant>,
    /// How it ended when nobody had asked.
    surprises: Vec<String>,
}

impl Process {
    pub(super) fn new(
        nursery: &Nursery,
        name: &str,
        binary: PathBuf,
        arguments: Vec<String>,
        log: PathBuf,
    ) -> Self {
        let state = Mutex::default();
        Self { name: name.to_owned(), nursery: nursery.clone(), arguments, binary, log, state }
    }

    /// Starts it unless it runs.
    pub(super) fn start(&self) -> Result<()> {
        let mut state = self.lock();
        state.wanted = true;
        if state.child.is_some() {
            return Ok(());
        }
        state.child = Some(self.spawn()?);
        Ok(())
    }

    fn spawn(&self) -> Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = dying_with_parent("KILL", self.binary.as_os_str());
        command.args(&self.arguments).env_remove("KUBECONFIG").env("NO_COLOR", "1");
        command.env("RUST_LOG", "info,lockstep_hub=debug,lockstep_agent=debug,lockstep_cluster=debug");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.nursery.spawn(command).with_context(|| format!("starting {}", self.name))
    }

    /// SIGKILL; it is gone when this returns, and stays away until it is started.
    pub(super) fn kill(&self) -> Result<()> {
        let mut state = self.lock();
        state.wanted = false;
        if let Some(mut child) = state.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGSTOP and SIGCONT; nothing happens if it does not run.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        if let Some(child) = &self.lock().child {
            ProcessId::of(i32::try_from(child.id())?)?.signal(signal)?;
        }
        Ok(())
    }

    /// Notes whether it has ended by itself, and starts it again after a while.
    pub(super) fn look(&self) -> Result<()> {
        let mut state = self.lock();
        let ended = match &mut state.child {
            Some(child) => child.try_wait()?,
            None => None,
        };
        if let Some(status) = ended {
            state.child = None;
            state.ended_at = Some(Instant::now());
            state.surprises.push(format!("{} ended by itself: {status}", self.name));
        }
        let rested = state.ended_at.is_none_or(|at| at.elapsed() >= RESTART_AFTER);
        if state.wanted && state.child.is_none() && rested {
            state.child = Some(self.spawn()?);
        }
        Ok(())
    }

    pub(super) fn surprises(&self) -> Vec<String> {
        self.lock().surprises.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ProcessState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
