//! Starts every part of the hub and stops them again.
//!
//! A placeholder with the final signatures: the parts are wired in here.

use std::net::SocketAddr;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{BadConfig, HubConfig};
use crate::core::command::Command;

/// The hub cannot start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Settings contradict each other.
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// A part ended abnormally.
    #[error("{part} ended abnormally")]
    Part {
        /// Which part.
        part: &'static str,
    },
}

/// A hub that runs.
pub struct RunningHub {
    /// Where agents connect.
    pub agents: SocketAddr,
    /// Where the HTTP API answers.
    pub api: SocketAddr,
    /// Where metrics and probes answer.
    pub metrics: Option<SocketAddr>,
    /// To the core.
    pub commands: mpsc::Sender<Command>,
    task: JoinHandle<Result<(), HubError>>,
}

impl RunningHub {
    /// Waits until it has stopped.
    ///
    /// # Errors
    /// When a part failed.
    pub async fn stopped(self) -> Result<(), HubError> {
        self.task.await.unwrap_or(Err(HubError::Part { part: "the hub" }))
    }
}

/// Starts the hub; it stops when `stop` is cancelled.
///
/// # Errors
/// When a setting is refused or a part cannot start.
pub async fn run(config: HubConfig, stop: CancellationToken) -> Result<RunningHub, HubError> {
    config.validate()?;
    let (commands, mut received) = mpsc::channel(16);
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                command = received.recv() => if command.is_none() { return Ok(()) },
            }
        }
    });
    let listen = config.listen;
    Ok(RunningHub { agents: listen.agents, api: listen.api, metrics: listen.metrics, commands, task })
}
