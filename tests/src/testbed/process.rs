//! Processes: identity that survives reuse of process ids, signals, and children that die with us.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process, told apart from a later one with the same id by the time it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot (field 22 of `/proc/<pid>/stat`).
    pub started: u64,
}

impl ProcessId {
    /// Looks up a running process.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of(pid: i32) -> io::Result<Self> {
        let (_, started) = stat(pid)?;
        Ok(Self { pid, started })
    }

    /// This process.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn own() -> io::Result<Self> {
        Self::of(i32::try_from(std::process::id()).map_err(io::Error::other)?)
    }

    /// Whether exactly this process still runs (a zombie does not).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_ok_and(|(state, started)| started == self.started && state != 'Z' && state != 'X')
    }

    /// Sends a signal to exactly this process; `false` if it is gone.
    ///
    /// # Errors
    /// If the signal cannot be sent to a living process.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        // The descriptor pins the process, so the check below holds when the signal is sent.
        let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if !self.is_alive() {
            return Ok(false);
        }
        match pidfd_send_signal(&descriptor, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// State letter and start time of a process.
fn stat(pid: i32) -> io::Result<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let malformed = || io::Error::other(format!("/proc/{pid}/stat is not understood"));
    // The command's name stands in parentheses and may hold spaces and parentheses itself.
    let (_, rest) = text.rsplit_once(") ").ok_or_else(malformed)?;
    let mut fields = rest.split(' ');
    let state = fields.next().and_then(|field| field.chars().next()).ok_or_else(malformed)?;
    let started = fields.nth(18).and_then(|field| field.parse().ok()).ok_or_else(malformed)?;
    Ok((state, started))
}

/// Identity of the current boot: process identities of another boot mean nothing.
///
/// # Errors
/// If `/proc` cannot be read.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A command that gets `signal` when the *thread* that spawns it ends, however that happens, SIGKILL included.
///
/// It goes through `setpriv` of util-linux because setting it ourselves, between fork and exec, takes `unsafe`.
#[must_use]
pub fn dying_with_parent(signal: &str, program: impl Into<OsString>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal, "--"]).arg(program.into());
    command
}

/// How to start one component of a control plane.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) directory: PathBuf,
    pub(crate) log: PathBuf,
}

impl Spec {
    /// Starts it. The calling thread must outlive it, see [`dying_with_parent`].
    pub(crate) fn spawn(&self) -> Result<Child> {
        let log =
            OpenOptions::new().create(true).append(true).open(&self.log).context("opening a log file")?;
        let mut command = dying_with_parent("KILL", self.program.as_os_str());
        command
            .args(&self.args)
            .current_dir(&self.directory)
            // A group of its own: Ctrl-C is for the runner, which ends its children in order.
            .process_group(0)
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH.replace("aarch64", "arm64"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing a log file")?)
            .stderr(log);
        command.spawn().with_context(|| format!("starting setpriv (util-linux) {}", self.program.display()))
    }
}
