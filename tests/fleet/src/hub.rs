//! The real hub, in this process or, to see its memory alone, in one of its own.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use lockstep_engine::ClusterName;
use lockstep_hub::config::Listen;
use lockstep_hub::{HubConfig, RunningHub};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Where it listens, and the agents' tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) agents: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) tokens: BTreeMap<String, String>,
}

/// A hub that runs.
pub(crate) enum Hub {
    Here { running: RunningHub, stop: CancellationToken },
    Apart(Child),
}

/// Starts one in this process.
pub(crate) async fn start_here(
    dir: PathBuf,
    names: Vec<String>,
    runtime: &Handle,
) -> Result<(Hub, Addresses)> {
    let stop = CancellationToken::new();
    let started = runtime.spawn(Box::pin(run(dir, names, stop.clone()))).await??;
    let addresses = Addresses {
        agents: started.agents,
        api: started.api,
        tokens: started.tokens.iter().map(|(name, token)| (name.to_string(), token.clone())).collect(),
    };
    Ok((Hub::Here { running: started, stop }, addresses))
}

async fn run(dir: PathBuf, names: Vec<String>, stop: CancellationToken) -> Result<RunningHub> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = HubConfig {
        data_dir: dir.join("data"),
        policies_dir: dir.join("policies"),
        key_file: dir.join("key/hub-key"),
        listen: Listen { agents: any, api: any, metrics: None },
        ..HubConfig::default()
    };
    let members = names.iter().map(|name| Ok(ClusterName::new(name)?)).collect::<Result<_>>()?;
    Ok(Box::pin(lockstep_hub::run(config, Arc::default(), members, stop)).await?)
}

/// Starts one as a process of its own: this program, with the hidden command that [`serve`] is.
pub(crate) fn start_apart(dir: &Path, clusters: usize) -> Result<(Hub, Addresses)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["hub", "--clusters", &clusters.to_string(), "--dir"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the hub")?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
    let addresses = serde_json::from_str(&line).context("the hub did not start; its log says why")?;
    Ok((Hub::Apart(child), addresses))
}

/// Runs a hub until the standard input ends. Prints where it is.
#[allow(clippy::print_stdout, reason = "that is how the other process learns it")]
pub(crate) fn serve(dir: PathBuf, names: Vec<String>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (hub, addresses) = start_here(dir, names, runtime.handle()).await?;
        println!("{}", serde_json::to_string(&addresses)?);
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        hub.stop().await
    })
}

impl Hub {
    /// Its process, where it has one of its own.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Self::Here { .. } => None,
            Self::Apart(child) => Some(child.id()),
        }
    }

    pub(crate) async fn stop(self) -> Result<()> {
        match self {
            Self::Here { running, stop } => {
                stop.cancel();
                Ok(running.stopped().await?)
            }
            Self::Apart(mut child) => {
                drop(child.stdin.take());
                tokio::task::spawn_blocking(move || child.wait()).await??;
                Ok(())
            }
        }
    }
}
