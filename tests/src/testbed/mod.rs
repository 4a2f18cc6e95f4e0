//! Real Kubernetes control planes on loopback: `etcd`, `kube-apiserver` and `kube-controller-manager`, three of each.
//!
//! A *supervisor* (the process that called [`Testbed::start`], usually the `testbed` command) owns all processes; they
//! die with it, whatever ends it. Everyone else, tests above all, reads `state.json` ([`Testbed::from_env`]) and asks
//! the supervisor over a socket to stop and start parts ([`ControlPlane`]).

mod binaries;
pub(crate) mod certificates;
mod control_plane;
mod handle;
pub(crate) mod kubeconfig;
mod process;
mod snapshot;
mod state;
mod supervisor;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

pub use binaries::Binaries;
pub use handle::ControlPlane;
pub use process::{ProcessId, Signal, dying_with_parent};
pub use snapshot::{RestoreForm, Saved};
pub use state::{ClusterState, Component, ProcessState, State};

use crate::cluster::Cluster;
use crate::patience;
use control_plane::Plan;
use supervisor::{Request, Supervisor, ask};

pub(crate) use control_plane::{free_ports, random};

/// The environment variable that names the `state.json` of the test bed to use.
pub const STATE_VARIABLE: &str = "LOCKSTEP_TESTBED";
/// Names of the clusters, and of their contexts.
pub const CLUSTERS: [&str; 3] = ["cluster-a", "cluster-b", "cluster-c"];
/// Prefix of temporary directories, by which leftovers of killed runs are found.
const DIRECTORY_PREFIX: &str = "lockstep-testbed-";
/// A port can be taken between its choice and its use; twice in a row is something else.
const START_ATTEMPTS: u32 = 2;

/// A person who waits longer without a word thinks that it hangs.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names of the clusters.
    pub clusters: Vec<String>,
    /// Where to put data, certificates and logs; without it a temporary directory, removed at the end.
    pub directory: Option<PathBuf>,
    /// Log every request (who, what, which parameters, which outcome): see [`Cluster::audit_events`].
    pub audit: bool,
    /// More arguments for `kube-apiserver`, for example feature gates.
    pub api_server_args: Vec<String>,
    /// Tell on standard error what happens.
    pub verbose: bool,
}

impl Default for Options {
    /// Three clusters in a temporary directory, silent.
    fn default() -> Self {
        Self {
            clusters: CLUSTERS.map(String::from).into(),
            directory: None,
            audit: false,
            api_server_args: vec![],
            verbose: false,
        }
    }
}

/// A running test bed.
///
/// If this value started it, dropping the value ends it.
pub struct Testbed {
    state: State,
    clusters: Vec<Cluster>,
    // Order matters: processes end before their directory goes.
    owned: Option<(Supervisor, Option<TempDir>)>,
}

impl Testbed {
    /// Uses the one named by `LOCKSTEP_TESTBED`, which is how tests share control planes.
    ///
    /// # Errors
    /// If the variable is not set, or names a test bed that does not run.
    pub async fn from_env() -> Result<Self> {
        let Some(path) = std::env::var_os(STATE_VARIABLE) else {
            bail!(
                "no control planes: run `make test`, or `make clusters` and set {STATE_VARIABLE}=.testbed/state.json"
            );
        };
        let mut path = PathBuf::from(path);
        if path.is_relative() && !path.exists() {
            // Test runners change to the package's directory; people mean the one where they typed `make`.
            path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        }
        Self::open(&path).await
    }

    /// Uses the one described by a `state.json`.
    ///
    /// # Errors
    /// If it does not run, or has not become ready.
    pub async fn open(state: &Path) -> Result<Self> {
        let state = State::read(state).context("run `make clusters` to start control planes")?;
        ensure!(
            state.is_alive(),
            "the test bed in {} has ended: run `make clusters`",
            state.directory.display()
        );
        ensure!(state.ready, "the test bed in {} is not ready yet", state.directory.display());
        let clusters = connect(&state).await?;
        Ok(Self { state, clusters, owned: None })
    }

    /// Starts one of our own and waits until it is ready. Dropping it ends it.
    ///
    /// The process that calls this is the supervisor. Ready means: `/readyz` says so, and the namespace `default`
    /// has its service account (so the controller manager works).
    ///
    /// # Errors
    /// If binaries are missing, or a control plane does not become ready; the error shows the end of its log.
    pub async fn start(options: Options) -> Result<Self> {
        let began = Instant::now();
        let binaries = tokio::task::spawn_blocking(Binaries::locate_or_build).await??;
        remove_leftovers();
        let mut attempt = 1;
        loop {
            match Self::try_start(&options, &binaries).await {
                Ok(this) => {
                    tell(&options, &format!("ready after {:.1} s", began.elapsed().as_secs_f32()));
                    return Ok(this);
                }
                Err(error) if attempt < START_ATTEMPTS => {
                    tell(&options, &format!("starting once more, on other ports: {error:#}"));
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_start(options: &Options, binaries: &Binaries) -> Result<Self> {
        let (directory, temporary) = match &options.directory {
            Some(directory) => (directory.clone(), None),
            None => {
                let temporary =
                    TempDir::with_prefix(DIRECTORY_PREFIX).context("creating a temporary directory")?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        remove_data(&directory)?;
        tell(
            options,
            &format!("starting {} (Kubernetes {})", options.clusters.join(", "), binaries.version_text()),
        );
        let state = State::new(&directory, options.directory.is_some(), binaries)?;
        let mut plans = vec![];
        for (index, name) in (0..).zip(&options.clusters) {
            plans.push(Plan::prepare(&directory, name, index, binaries, options)?);
        }
        std::fs::write(&state.kubeconfig, control_plane::admin_kubeconfig(&plans))
            .context("writing the kubeconfig")?;
        let state_path = State::path(&directory);
        let socket = state.socket.clone();
        let owned = Some((Supervisor::launch(state, plans)?, temporary));
        let state = State::read(&state_path)?;
        let clusters = connect(&state).await?;
        let ready_after = start_all(options, &clusters).await?;
        let patience_percent = (patience::measured(ready_after) * 100.0).round() as u32;
        ask(&socket, &Request::Ready { patience_percent })?;
        Ok(Self { state: State::read(&state_path)?, clusters, owned })
    }

    /// The clusters, in order.
    #[must_use]
    pub fn clusters(&self) -> &[Cluster] {
        &self.clusters
    }

    /// A cluster by name.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn cluster(&self, name: &str) -> Result<&Cluster> {
        let found = self.clusters.iter().find(|cluster| cluster.name() == name);
        found.with_context(|| format!("this test bed has no cluster {name:?}"))
    }

    /// The usual three, for `let [a, b, c] = testbed.three()?;`.
    ///
    /// # Errors
    /// If there are not exactly three.
    pub fn three(&self) -> Result<[&Cluster; 3]> {
        match &self.clusters[..] {
            [a, b, c] => Ok([a, b, c]),
            others => bail!("this test bed has {} clusters, not three", others.len()),
        }
    }

    /// A kubeconfig with an administrator's context per cluster, named like it.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.state.kubeconfig
    }

    /// What is known about it.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Path of the `state.json` by which other processes find it.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        State::path(&self.state.directory)
    }

    /// Major and minor version of Kubernetes, for tests whose expectations depend on it.
    ///
    /// # Errors
    /// If the binaries are gone.
    pub fn version(&self) -> Result<(u32, u32)> {
        Ok(Binaries::open(&self.state.binaries)?.version())
    }

    /// The `kubectl` that fits the API servers.
    #[must_use]
    pub fn kubectl(&self) -> PathBuf {
        self.state.binaries.join("kubectl")
    }

    /// Whether this value owns the processes, so that dropping it ends them.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.owned.is_some()
    }
}

/// Starts them side by side, and says now and then that it is at it; gives how long it took.
async fn start_all(options: &Options, clusters: &[Cluster]) -> Result<Duration> {
    let began = Instant::now();
    let starts = clusters.iter().map(async |cluster| {
        cluster.control_plane().start_all().await?;
        tell(options, &format!("{} is ready after {:.1} s", cluster.name(), began.elapsed().as_secs_f32()));
        anyhow::Ok(())
    });
    let mut starts = std::pin::pin!(futures::future::try_join_all(starts));
    loop {
        match tokio::time::timeout(HEARTBEAT, &mut starts).await {
            Ok(outcome) => return outcome.map(|_| began.elapsed()),
            Err(_) => tell(options, &format!("still starting, {} s so far", began.elapsed().as_secs())),
        }
    }
}

async fn connect(state: &State) -> Result<Vec<Cluster>> {
    let mut clusters = vec![];
    for cluster in &state.clusters {
        clusters.push(Cluster::connect(state, cluster).await?);
    }
    Ok(clusters)
}

#[allow(clippy::print_stderr, reason = "progress for the person who waits; only on request")]
fn tell(options: &Options, message: &str) {
    if options.verbose {
        eprintln!("testbed: {message}");
    }
}

/// Removes what an earlier test bed left in a directory, and nothing else that may be there.
///
/// # Errors
/// If a test bed still runs there, or files cannot be removed.
pub fn remove_data(directory: &Path) -> Result<()> {
    let state_path = State::path(directory);
    if let Ok(state) = State::read(&state_path) {
        ensure!(state.living_processes().is_empty(), "a test bed runs in {}", directory.display());
        for cluster in &state.clusters {
            if cluster.directory.starts_with(directory) && cluster.directory.exists() {
                std::fs::remove_dir_all(&cluster.directory).context("removing a cluster's data")?;
            }
        }
        for file in [&state.kubeconfig, &state.socket, &state_path] {
            if file.starts_with(directory) && file.exists() {
                std::fs::remove_file(file).with_context(|| format!("removing {}", file.display()))?;
            }
        }
    }
    std::fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))
}

/// Removes temporary directories of test beds whose supervisor was killed before it could.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(DIRECTORY_PREFIX));
        if !ours {
            continue;
        }
        if let Ok(state) = State::read(&State::path(&entry.path()))
            && state.living_processes().is_empty()
        {
            // Another run may be doing the same at this moment; whoever comes second finds nothing.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
