//! What a test needs around a cluster: waiting, names, namespaces that go away.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::cluster::Cluster;
use crate::patience::scaled;
use crate::testbed::random;

/// Keep the namespaces of failed tests when this environment variable is `1`.
pub const KEEP_VARIABLE: &str = "LOCKSTEP_KEEP";
/// Enough for anything that a test waits for on an idle machine; [`eventually`] and [`in_time`] give slower ones more. A
/// passing test does not wait so long.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// First pause between polls; it doubles up to the next constant.
const FIRST_POLL: Duration = Duration::from_millis(10);
/// Longest pause between polls: short beside what a person notices, long beside a request (2 ms).
const LONGEST_POLL: Duration = Duration::from_millis(200);
/// Deleting a namespace at the end of a failed test must not hang the test.
const DELETE_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for a future, for so long as this machine needs where an idle one needs `limit`.
///
/// # Errors
/// If it does not end in time.
pub async fn in_time<T>(limit: Duration, description: &str, future: impl Future<Output = T>) -> Result<T> {
    let limit = scaled(limit);
    let ended = tokio::time::timeout(limit, future).await;
    ended.map_err(|_| anyhow!("waited {:.1} s in vain until: {description}", limit.as_secs_f32()))
}

/// Polls until `condition` succeeds, for so long as this machine needs where an idle one needs `limit`. When time is up,
/// gives its last error.
///
/// # Errors
/// If the condition does not hold in time.
pub async fn eventually<T>(
    limit: Duration,
    description: &str,
    mut condition: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let began = Instant::now();
    let deadline = tokio::time::Instant::now() + scaled(limit);
    let mut pause = FIRST_POLL;
    let mut last = anyhow!("the first check did not end");
    loop {
        match tokio::time::timeout_at(deadline, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
        if tokio::time::Instant::now() + pause >= deadline {
            let seconds = began.elapsed().as_secs_f32();
            return Err(last.context(format!("waited {seconds:.1} s in vain until: {description}")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_POLL);
    }
}

/// Memory that a process holds now, in KiB.
///
/// # Errors
/// If there is no such process.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("reading its status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// A name that no other test has, in this run or another: prefix, process id, counter, randomness of the system.
///
/// # Errors
/// If the system gives no randomness.
pub fn unique_name(prefix: &str) -> Result<String> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    Ok(format!("{prefix}-{}-{count}-{:05x}", std::process::id(), random()? & 0xf_ffff))
}

/// A namespace of one test. It is deleted at the end; after a failure it is kept if `LOCKSTEP_KEEP=1`.
pub struct TestNamespace {
    name: String,
    cluster: Cluster,
    closed: bool,
}

impl TestNamespace {
    /// Creates one with a unique name.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn create(cluster: &Cluster, prefix: &str) -> Result<Self> {
        Self::create_named(cluster, &unique_name(prefix)?).await
    }

    /// Creates one with this name, to have the same in several clusters.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn create_named(cluster: &Cluster, name: &str) -> Result<Self> {
        let yaml = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{ name: {name} }}\n");
        cluster.apply(&yaml).await.with_context(|| format!("creating namespace {name}"))?;
        // Pods and their like are refused until the controller manager has made the service account.
        eventually(PATIENCE, "the namespace has its service account", async || {
            cluster.get("v1", "ServiceAccount", Some(name), "default").await
        })
        .await?;
        Ok(Self::adopt(cluster, name))
    }

    /// Takes over a namespace that something else creates, now or later, so that it is deleted at the end.
    #[must_use]
    pub fn adopt(cluster: &Cluster, name: &str) -> Self {
        Self { name: name.to_owned(), cluster: cluster.clone(), closed: false }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Deletes it, without waiting: the namespace controller lets 5 s pass before it removes anything.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn close(mut self) -> Result<()> {
        self.closed = true;
        self.cluster.delete("v1", "Namespace", None, &self.name).await
    }

    /// Deletes it and waits until it is gone: at least 5 s, see [`Self::close`].
    ///
    /// # Errors
    /// If it does not go away.
    pub async fn close_and_wait(mut self) -> Result<()> {
        self.closed = true;
        self.cluster.delete("v1", "Namespace", None, &self.name).await?;
        eventually(PATIENCE, "the namespace is gone", async || {
            let found = self.cluster.find("v1", "Namespace", None, &self.name).await?;
            found.map_or(Ok(()), |namespace| Err(anyhow!("it is still there: {}", namespace["status"])))
        })
        .await
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        let keep = std::env::var(KEEP_VARIABLE).is_ok_and(|value| value == "1");
        if self.closed || (keep && std::thread::panicking()) {
            return;
        }
        // A runtime and a client of our own: those of the test may be shutting down around us.
        let (cluster, name) = (self.cluster.clone(), self.name.clone());
        let deletion = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let deletion =
                    async { cluster.reconnect().await?.delete("v1", "Namespace", None, &name).await };
                in_time(DELETE_TIMEOUT, "the namespace is deleted", deletion).await?
            })
        });
        if let Ok(Err(error)) = deletion.join() {
            // The shared control planes end with the run, and this namespace with them.
            tracing::warn!(
                namespace = self.name,
                error = format!("{error:#}"),
                "a test's namespace stays behind"
            );
        }
    }
}
