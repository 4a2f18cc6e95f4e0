//! The thread that owns the processes of a test bed, and the socket by which anyone asks it to start and stop them.
//!
//! One thread does everything, one request after the other: it must be the parent of all processes (they die with
//! the *thread* that spawned them), and no request takes long, because waiting is left to the one who asks.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::control_plane::Plan;
use super::process::{ProcessId, Signal};
use super::state::{Component, ProcessState, State};

/// A request is one short line sent at once; whoever is slower is broken, and must not hold up the others.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests are answered within milliseconds; under heavy load a fork may take long.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// What can be asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    Process {
        cluster: String,
        component: Component,
        action: Action,
    },
    /// All control planes are ready, and tests should be so patient: say so in `state.json`.
    Ready {
        patience_percent: u32,
    },
    /// Kill everything and end the thread.
    Shutdown,
}

/// What can be done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    /// Start it, unless it runs.
    Start,
    /// SIGTERM; it may take a while to exit.
    Stop,
    /// SIGKILL; it is gone when the reply comes.
    Kill,
    /// SIGSTOP
    Pause,
    /// SIGCONT
    Resume,
    /// Only tell whether it runs.
    Query,
}

/// Whether the process runs after the request, or why the request failed.
pub(crate) type Reply = std::result::Result<bool, String>;

/// Sends one request and waits for the reply.
pub(crate) fn ask(socket: &Path, request: &Request) -> Result<bool> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("the test bed's supervisor does not listen on {}", socket.display()))?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).context("asking the test bed's supervisor")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("waiting for the test bed's supervisor")?;
    let reply: Reply = serde_json::from_str(&answer).context("the test bed's supervisor gave no answer")?;
    reply.map_err(|message| anyhow!(message))
}

/// Owns the thread; dropping it kills every process.
#[derive(Debug)]
pub(crate) struct Supervisor {
    socket: std::path::PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Takes over these control planes; nothing is started yet.
    pub(crate) fn launch(mut state: State, plans: Vec<Plan>) -> Result<Self> {
        state.clusters = plans.iter().map(|plan| plan.state.clone()).collect();
        state.write()?;
        let socket = state.socket.clone();
        let listener =
            UnixListener::bind(&socket).with_context(|| format!("listening on {}", socket.display()))?;
        let mut owner = Owner { state, plans, children: BTreeMap::new() };
        let thread = std::thread::Builder::new()
            .name("testbed-supervisor".to_owned())
            .spawn(move || owner.run(&listener))
            .context("starting the supervisor's thread")?;
        Ok(Self { socket, thread: Some(thread) })
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // If the thread cannot be asked it has ended, and its processes with it.
            if ask(&self.socket, &Request::Shutdown).is_ok() {
                let _ = thread.join();
            }
        }
    }
}

struct Owner {
    state: State,
    plans: Vec<Plan>,
    children: BTreeMap<(String, Component), Child>,
}

impl Owner {
    fn run(&mut self, listener: &UnixListener) {
        for stream in listener.incoming().flatten() {
            let Ok(request) = read_request(&stream) else { continue };
            let done = matches!(request, Request::Shutdown);
            let reply: Reply = self.handle(request).map_err(|error| format!("{error:#}"));
            if let Ok(mut line) = serde_json::to_string(&reply) {
                line.push('\n');
                // A requester that went away does not need the answer.
                let _ = (&stream).write_all(line.as_bytes());
            }
            if done {
                return;
            }
        }
    }

    fn handle(&mut self, request: Request) -> Result<bool> {
        match request {
            Request::Process { cluster, component, action } => self.act(cluster, component, action),
            Request::Ready { patience_percent } => {
                self.state.patience_percent = patience_percent;
                self.state.ready = true;
                self.state.write()?;
                Ok(true)
            }
            Request::Shutdown => {
                // One that cannot be killed has ended already, and must not keep us from the others.
                for child in self.children.values_mut() {
                    let _ = child.kill();
                }
                for child in self.children.values_mut() {
                    let _ = child.wait();
                }
                Ok(false)
            }
        }
    }

    fn act(&mut self, cluster: String, component: Component, action: Action) -> Result<bool> {
        let key = (cluster, component);
        let running = match self.children.get_mut(&key) {
            Some(child) => child.try_wait()?.is_none(),
            None => false,
        };
        match action {
            Action::Query => return Ok(running),
            Action::Start if running => return Ok(true),
            Action::Start => {
                let plan = self.plans.iter().find(|plan| plan.state.name == key.0);
                let plan = plan.with_context(|| format!("this test bed has no cluster {:?}", key.0))?;
                self.children.insert(key, plan.spec(component)?.spawn()?);
            }
            Action::Kill => {
                if let Some(mut child) = self.children.remove(&key) {
                    child.kill()?;
                    child.wait()?;
                }
            }
            Action::Stop | Action::Pause | Action::Resume if !running => {
                bail!("{} of {} does not run", component.binary(), key.0)
            }
            Action::Stop => self.signal(&key, Signal::TERM)?,
            Action::Pause => self.signal(&key, Signal::STOP)?,
            Action::Resume => self.signal(&key, Signal::CONT)?,
        }
        if matches!(action, Action::Start | Action::Kill) {
            self.record_processes()?;
        }
        Ok(!matches!(action, Action::Kill))
    }

    fn signal(&self, key: &(String, Component), signal: Signal) -> Result<()> {
        // The child is ours and was not waited for, so its id cannot have been given to another process.
        if let Some(child) = self.children.get(key) {
            ProcessId::of(i32::try_from(child.id())?)?.signal(signal)?;
        }
        Ok(())
    }

    fn record_processes(&mut self) -> Result<()> {
        for cluster in &mut self.state.clusters {
            let ours = self.children.iter().filter(|((name, _), _)| *name == cluster.name);
            let processes = ours.filter_map(|((_, component), child)| {
                let process = ProcessId::of(i32::try_from(child.id()).ok()?).ok()?;
                Some(ProcessState { component: *component, process })
            });
            cluster.processes = processes.collect();
        }
        self.state.write()
    }
}

fn read_request(stream: &UnixStream) -> Result<Request> {
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
