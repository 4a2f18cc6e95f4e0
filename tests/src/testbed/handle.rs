//! Starting, stopping and hurting the parts of one control plane, from any process.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::Request as HttpRequest;
use kube::Client;
use serde_json::{Value, json};

use super::control_plane::{etcd_directory, log_path};
use super::state::{ClusterState, Component};
use super::supervisor::{Action, Request, ask};
use crate::harness::eventually;

/// An idle machine needs 4 s; three at once beside a compiler on two cores, 40 s.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// The API server ends open watches before it exits; etcd and the controller manager take less.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
/// How much of a log an error shows.
const LOG_TAIL_LINES: usize = 15;

/// One control plane: what tests of failures need.
///
/// Hurting a shared control plane disturbs the tests that run beside: such tests start a test bed of their own.
#[derive(Clone)]
pub struct ControlPlane {
    socket: PathBuf,
    state: ClusterState,
    client: Client,
}

impl ControlPlane {
    pub(crate) fn new(socket: PathBuf, state: ClusterState, client: Client) -> Self {
        Self { socket, state, client }
    }

    /// Starts it if it does not run; see [`Self::wait_ready`].
    ///
    /// # Errors
    /// If the supervisor is gone or cannot start it.
    pub async fn start(&self, component: Component) -> Result<()> {
        self.ask(component, Action::Start).await.map(drop)
    }

    /// Ends it by SIGKILL: it loses whatever it had not written.
    ///
    /// # Errors
    /// If the supervisor is gone.
    pub async fn kill(&self, component: Component) -> Result<()> {
        self.ask(component, Action::Kill).await.map(drop)
    }

    /// Ends it by SIGTERM and waits until it has exited.
    ///
    /// # Errors
    /// If the supervisor is gone, or the process does not exit.
    pub async fn stop(&self, component: Component) -> Result<()> {
        self.ask(component, Action::Stop).await?;
        eventually(STOP_TIMEOUT, &format!("{} exits", component.binary()), async || {
            ensure!(!self.is_running(component).await?, "it still runs");
            Ok(())
        })
        .await
    }

    /// SIGKILL, start, and wait until the control plane is ready again.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn restart(&self, component: Component) -> Result<()> {
        self.kill(component).await?;
        self.start(component).await?;
        self.wait_ready().await
    }

    /// Freezes it by SIGSTOP: connections stay open and nothing answers.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn pause(&self, component: Component) -> Result<()> {
        self.ask(component, Action::Pause).await.map(drop)
    }

    /// Continues it by SIGCONT.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn resume(&self, component: Component) -> Result<()> {
        self.ask(component, Action::Resume).await.map(drop)
    }

    /// Whether it runs (paused counts as running).
    ///
    /// # Errors
    /// If the supervisor is gone.
    pub async fn is_running(&self, component: Component) -> Result<bool> {
        self.ask(component, Action::Query).await
    }

    /// Waits until `/readyz` says so and the namespace `default` has its service account.
    ///
    /// # Errors
    /// If a component exits or time is up; the error shows the end of the log.
    pub async fn wait_ready(&self) -> Result<()> {
        self.wait_api_server().await?;
        self.wait_while_running(
            Component::ControllerManager,
            "has made the first service account",
            async || self.get("/api/v1/namespaces/default/serviceaccounts/default").await,
        )
        .await
    }

    /// Starts all parts that do not run, each when the one before it answers: none of them waits for long by itself.
    ///
    /// # Errors
    /// If one does not come up; the error shows the end of its log.
    pub async fn start_all(&self) -> Result<()> {
        self.start_etcd().await?;
        self.start(Component::ApiServer).await?;
        self.wait_api_server().await?;
        self.start(Component::ControllerManager).await?;
        self.wait_ready().await
    }

    /// Starts etcd if it does not run, and waits until it answers.
    ///
    /// # Errors
    /// If it does not come up; the error shows the end of its log.
    pub async fn start_etcd(&self) -> Result<()> {
        self.start(Component::Etcd).await?;
        self.wait_while_running(Component::Etcd, "answers", async || {
            self.etcd("/v3/maintenance/status", &json!({})).await.map(drop)
        })
        .await
    }

    /// Compacts etcd up to now, so that watches cannot resume from an earlier resourceVersion once the API server's
    /// watch cache no longer has it (kill the API server to empty that). Returns the revision.
    ///
    /// # Errors
    /// If etcd does not answer or refuses.
    pub async fn compact(&self) -> Result<i64> {
        let status = self.etcd("/v3/maintenance/status", &json!({})).await?;
        let revision = status["header"]["revision"].as_str().context("etcd tells no revision")?.to_owned();
        self.etcd("/v3/kv/compaction", &json!({ "revision": revision, "physical": true })).await?;
        revision.parse().context("etcd's revision is not a number")
    }

    /// Sends a request to etcd's JSON gateway.
    ///
    /// # Errors
    /// If it does not answer or refuses.
    pub async fn etcd(&self, path: &str, body: &Value) -> Result<Value> {
        Self::etcd_ask(&self.etcd_client()?, path, body).await
    }

    /// A client for many requests to etcd's JSON gateway.
    pub(super) fn etcd_client(&self) -> Result<Client> {
        Ok(Client::try_from(kube::Config::new(self.state.etcd.parse()?))?)
    }

    pub(super) async fn etcd_ask(client: &Client, path: &str, body: &Value) -> Result<Value> {
        let request = HttpRequest::post(path).header(http::header::CONTENT_TYPE, "application/json");
        let request = request.body(serde_json::to_vec(body)?)?;
        client.request(request).await.with_context(|| format!("asking etcd for {path}"))
    }

    /// Where etcd keeps its data.
    pub(super) fn etcd_directory(&self) -> PathBuf {
        etcd_directory(&self.state)
    }

    /// URL of the API server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.state.server
    }

    /// Path of a component's log.
    #[must_use]
    pub fn log_path(&self, component: Component) -> PathBuf {
        log_path(&self.state, component)
    }

    async fn wait_api_server(&self) -> Result<()> {
        self.wait_while_running(Component::ApiServer, "is ready", async || {
            self.get("/readyz").await?;
            self.get("/api/v1/namespaces/default").await
        })
        .await
    }

    async fn get(&self, path: &str) -> Result<()> {
        let request = HttpRequest::get(path).body(vec![])?;
        self.client.request_text(request).await.with_context(|| format!("GET {path}"))?;
        Ok(())
    }

    /// Waits for a condition, but not longer than the component lives.
    async fn wait_while_running(
        &self,
        component: Component,
        what: &str,
        condition: impl AsyncFnMut() -> Result<()>,
    ) -> Result<()> {
        let what = format!("{} of {} {what}", component.binary(), self.state.name);
        let exited = async {
            while self.is_running(component).await? {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            bail!("{} of {} has exited", component.binary(), self.state.name)
        };
        let outcome = tokio::select! {
            outcome = eventually(READY_TIMEOUT, &what, condition) => outcome,
            outcome = exited => outcome,
        };
        outcome.with_context(|| {
            let path = self.log_path(component);
            let log = std::fs::read(&path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
            format!("{} did not come up; the end of {}:\n{tail}", component.binary(), path.display())
        })
    }

    async fn ask(&self, component: Component, action: Action) -> Result<bool> {
        let request = Request::Process { cluster: self.state.name.clone(), component, action };
        let socket = self.socket.clone();
        tokio::task::spawn_blocking(move || ask(&socket, &request)).await?
    }
}
