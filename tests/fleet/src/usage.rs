//! What hub, agents and simulated servers take of the machine. They share a process; their threads have names.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

/// Threads of a pool end after some seconds without work, and take their figures with them.
const SAMPLE: Duration = Duration::from_millis(500);

/// Whose thread it is, by its name; whatever has another name is the hub's.
pub(crate) const MODEL: &str = "model";
/// Agents.
pub(crate) const AGENTS: &str = "agents";
/// The run itself.
pub(crate) const RUN: &str = "fleet";
/// The hub.
pub(crate) const HUB: &str = "hub";

type Threads = BTreeMap<u64, (&'static str, u64)>;

/// CPU time by part, nanoseconds. Samples until it is dropped.
pub(crate) struct Meter {
    seen: Arc<Mutex<Threads>>,
    ended: Arc<AtomicBool>,
    pids: Vec<u32>,
}

impl Meter {
    /// Of this process, and of the hub's where it has one of its own.
    pub(crate) fn start(hub: Option<u32>) -> Result<Self> {
        let pids: Vec<u32> = [std::process::id()].into_iter().chain(hub).collect();
        let meter = Self { seen: Arc::default(), ended: Arc::default(), pids };
        let (seen, ended, pids) = (Arc::clone(&meter.seen), Arc::clone(&meter.ended), meter.pids.clone());
        let sample = move || {
            while !ended.load(Ordering::Relaxed) {
                sample(&pids, &seen);
                std::thread::sleep(SAMPLE);
            }
        };
        std::thread::Builder::new().name(RUN.to_owned()).spawn(sample).context("starting a thread")?;
        Ok(meter)
    }

    /// Nanoseconds so far.
    pub(crate) fn read(&self) -> BTreeMap<&'static str, u64> {
        sample(&self.pids, &self.seen);
        let mut sums = BTreeMap::new();
        for (part, ns) in self.seen.lock().unwrap_or_else(PoisonError::into_inner).values() {
            *sums.entry(*part).or_default() += ns;
        }
        sums
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn sample(pids: &[u32], seen: &Mutex<Threads>) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    for (index, pid) in pids.iter().enumerate() {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let read = |file: &str| std::fs::read_to_string(task.path().join(file)).ok();
            let id = task.file_name().to_string_lossy().parse();
            // A thread may end between the two.
            if let (Ok(id), Some(name), Some(stat)) = (id, read("comm"), read("schedstat")) {
                let ns = stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
                let own = [MODEL, AGENTS, RUN].into_iter().find(|part| name.starts_with(part));
                let part = if index == 0 { own.unwrap_or(HUB) } else { HUB };
                seen.insert(id, (part, ns));
            }
        }
    }
}

/// A figure of `/proc/PID/status`, such as `VmHWM`, in KiB.
pub(crate) fn memory_kib(pid: u32, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("reading its status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("no {field}"))?.trim().trim_end_matches(" kB").parse()?)
}
