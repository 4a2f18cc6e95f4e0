//! What is known about a running test bed, in a file that other processes read.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::process::{ProcessId, boot_id};

/// Layout of `state.json`; raised when it changes.
const STATE_VERSION: u32 = 2;

/// A part of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// `etcd`
    Etcd,
    /// `kube-apiserver`
    ApiServer,
    /// `kube-controller-manager`
    ControllerManager,
}

impl Component {
    /// All of them, in the order in which they are started.
    pub const ALL: [Self; 3] = [Self::Etcd, Self::ApiServer, Self::ControllerManager];

    /// The binary's name.
    #[must_use]
    pub fn binary(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
        }
    }
}

/// A test bed: the content of `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    version: u32,
    boot_id: String,
    /// The process that owns all others; they die with it.
    pub supervisor: ProcessId,
    /// Whether all control planes have become ready.
    pub ready: bool,
    /// How much longer than on an idle machine tests should wait here, in percent: see [`crate::patience`].
    pub patience_percent: u32,
    /// Whether it goes on after the command that it was started for: then tests clear up what they leave behind.
    pub lasting: bool,
    /// Data, certificates, logs.
    pub directory: PathBuf,
    /// Where the supervisor listens.
    pub socket: PathBuf,
    /// One file with a context per cluster.
    pub kubeconfig: PathBuf,
    /// Where the binaries, kubectl among them, are.
    pub binaries: PathBuf,
    /// Version of the API servers, like `v1.20.2`.
    pub kubernetes_version: String,
    /// The control planes.
    pub clusters: Vec<ClusterState>,
}

/// One control plane.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterState {
    /// Name of the cluster and of its context.
    pub name: String,
    /// Data, certificates, logs.
    pub directory: PathBuf,
    /// URL of the API server.
    pub server: String,
    /// URL of etcd, without TLS.
    pub etcd: String,
    /// The CA that signed the API server's certificate.
    pub ca: PathBuf,
    /// Where the API server logs requests, if it was asked to.
    pub audit_log: Option<PathBuf>,
    /// Those that run.
    pub processes: Vec<ProcessState>,
}

/// One process of a control plane.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessState {
    /// Which part it is.
    pub component: Component,
    /// Which process it is.
    #[serde(flatten)]
    pub process: ProcessId,
}

impl State {
    pub(crate) fn new(directory: &Path, lasting: bool, binaries: &super::Binaries) -> Result<Self> {
        Ok(Self {
            version: STATE_VERSION,
            boot_id: boot_id().context("reading the boot id")?,
            supervisor: ProcessId::own().context("reading our own start time")?,
            ready: false,
            patience_percent: 100,
            lasting,
            directory: directory.to_owned(),
            socket: directory.join("control.sock"),
            kubeconfig: directory.join("kubeconfig"),
            binaries: binaries.directory().to_owned(),
            kubernetes_version: binaries.version_text().to_owned(),
            clusters: vec![],
        })
    }

    /// The file's place in a test bed's directory.
    #[must_use]
    pub fn path(directory: &Path) -> PathBuf {
        directory.join("state.json")
    }

    /// How much longer than on an idle machine tests should wait here.
    #[must_use]
    pub fn patience(&self) -> f64 {
        f64::from(self.patience_percent) / 100.0
    }

    /// Reads it.
    ///
    /// # Errors
    /// If it cannot be read, or was written by another version of lockstep.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let state: Self =
            serde_json::from_slice(&text).with_context(|| format!("parsing {}", path.display()))?;
        ensure!(
            state.version == STATE_VERSION,
            "{} has layout {}, this lockstep has {STATE_VERSION}: run `make clusters-down` with the version that started it",
            path.display(),
            state.version
        );
        Ok(state)
    }

    /// Writes it; readers see the old or the new one.
    pub(crate) fn write(&self) -> Result<()> {
        let path = Self::path(&self.directory);
        let new = path.with_extension("json.new");
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", new.display()))?;
        std::fs::rename(&new, &path).with_context(|| format!("writing {}", path.display()))
    }

    /// Whether its supervisor lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|id| id == self.boot_id) && self.supervisor.is_alive()
    }

    /// Every process of it that lives, the supervisor last.
    #[must_use]
    pub fn living_processes(&self) -> Vec<ProcessId> {
        if boot_id().is_ok_and(|id| id != self.boot_id) {
            return vec![];
        }
        let processes =
            self.clusters.iter().flat_map(|cluster| &cluster.processes).map(|process| process.process);
        processes.chain([self.supervisor]).filter(ProcessId::is_alive).collect()
    }
}
