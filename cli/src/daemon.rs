//! `lockstep hub` and `lockstep agent`: configuration in, a process that runs until it is stopped.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use lockstep_agent::{AgentMetrics, Deleters};
use lockstep_cluster::ClusterClient;
use lockstep_engine::ClusterName;
use lockstep_hub::{HubConfig, RunningHub};
use lockstep_net::{Front, Limits, Port, PortMetrics, descriptors};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::args::{AgentArgs, HubArgs, ListenArgs, LogArgs, ServerArgs};
use crate::config::{self, AgentSettings, Flags, Layers};
use crate::error::{CliError, Outcome};
use crate::{commands, deleters, logging, signals};

/// Media type of the metrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Runs the hub.
pub(crate) async fn hub(args: HubArgs, server: &ServerArgs, log: &LogArgs) -> Result<Outcome, CliError> {
    let HubArgs { config, policies, key_file, listen, ready_file, command } = args;
    if let Some(command) = command {
        return commands::hub::run(command, config, server);
    }
    let flags = listen_flags(&listen)
        .with("data_dir", server.data_dir.as_ref().map(|path| path.display()))
        .with("policies_dir", policies.as_ref().map(|path| path.display()))
        .with("key_file", key_file.as_ref().map(|path| path.display()));
    let config = config::hub(&HubConfig::default(), &Layers::of_process(config.as_deref(), flags)?)?;
    logging::start(log, false);
    let stop = signals::stop_on_signals()?;
    let running = start_hub(config.clone(), SharedRegistry::default(), Vec::new(), stop).await?;
    tracing::info!(api = %running.api, agents = %running.agents, "the hub runs");
    if let Some(file) = ready_file {
        write_ready(&file, &running, &config)?;
    }
    running.stopped().await.map_err(|error| hub_error(&error))?;
    Ok(Outcome::Done)
}

/// The settings of the address flags.
pub(crate) fn listen_flags(listen: &ListenArgs) -> Flags {
    let ListenArgs { listen_agents, listen_api, listen_metrics } = listen;
    Flags::default()
        .with("listen.agents", *listen_agents)
        .with("listen.api", *listen_api)
        .with("listen.metrics", *listen_metrics)
}

/// Metrics of the hub, and of agents in its process.
pub(crate) type SharedRegistry = Arc<Mutex<Registry>>;

/// Starts a hub.
pub(crate) async fn start_hub(
    config: HubConfig,
    registry: Arc<Mutex<Registry>>,
    members: Vec<ClusterName>,
    stop: CancellationToken,
) -> Result<RunningHub, CliError> {
    Box::pin(lockstep_hub::run(config, registry, members, stop)).await.map_err(|error| hub_error(&error))
}

/// An error of the hub, its chain printed once.
pub(crate) fn hub_error(error: &dyn std::error::Error) -> CliError {
    let remedy = "`lockstep doctor` checks configuration, key, ports and disk";
    CliError::new("LS0009", "the hub cannot run", remedy).caused_by(error)
}

/// Tells where everything is, as JSON: written beside it and renamed, so that nobody reads half.
pub(crate) fn write_ready(file: &Path, running: &RunningHub, config: &HubConfig) -> Result<(), CliError> {
    let ready = serde_json::json!({
        "api": format!("{}://{}", if config.api_has_tls() { "https" } else { "http" }, running.api),
        "agents": running.agents.to_string(),
        "metrics": running.metrics.map(|address| address.to_string()),
        "dataDir": config.data_dir,
        "tokenFile": config.api_token_file(),
        "pid": std::process::id(),
    });
    let beside = file.with_extension("tmp");
    std::fs::write(&beside, format!("{ready}\n"))
        .and_then(|()| std::fs::rename(&beside, file))
        .map_err(|error| CliError::io(format!("the ready file {} cannot be written", file.display()), &error))
}

/// Runs the agent.
pub(crate) async fn agent(args: AgentArgs, log: &LogArgs) -> Result<Outcome, CliError> {
    let AgentArgs { config, cluster, hub, agent_token_file, kubeconfig, context, listen_metrics } = args;
    let flags = Flags::default()
        .with("cluster", cluster)
        .with("hub", hub)
        .with("token_file", agent_token_file.map(|path| path.display().to_string()))
        .with("kubeconfig", kubeconfig.map(|path| path.display().to_string()))
        .with("context", context)
        .with("metrics", listen_metrics);
    let settings = config::agent(Layers::of_process(config.as_deref(), flags)?)?;
    logging::start(log, false);
    let AgentSettings { agent, kubeconfig, context, metrics, deleters: receiver } = settings;
    let target = match &kubeconfig {
        Some(file) => lockstep_cluster::from_kubeconfig(file, context.as_deref()).await,
        None => lockstep_cluster::in_cluster(),
    };
    let target = target.map_err(|error| context_error(&error))?;
    let client = ClusterClient::new(target, agent.client_limits()).map_err(|error| context_error(&error))?;
    let stop = signals::stop_on_signals()?;
    let mut registry = Registry::default();
    let agent_metrics = AgentMetrics::register(&mut registry);
    let figures = PortMetrics::register(&mut registry);
    let connections = descriptors::for_connections(descriptors::raise());
    let mut served = Vec::new();
    if let Some(address) = metrics {
        let limits = Limits::of(Port::Metrics, connections);
        served.push(serve_metrics(address, limits, registry, figures.clone(), stop.clone()).await?);
    }
    let told = Deleters::default();
    if let Some(receiver) = receiver {
        let limits = Limits::of(Port::Webhooks, connections);
        served.push(deleters::serve(&receiver, limits, told.clone(), figures, stop.clone()).await?);
    }
    tracing::info!(cluster = %agent.cluster, hub = agent.hub, "the agent runs");
    Box::pin(lockstep_agent::run(agent, client, stop.clone(), agent_metrics, told)).await.map_err(
        |error| {
            let remedy = "deploy/examples/agent.yaml shows every setting";
            CliError::new("LS0010", "the agent cannot run", remedy).caused_by(&error)
        },
    )?;
    stop.cancel();
    for port in served {
        // It ends by itself within the time to drain.
        let _ = port.await;
    }
    Ok(Outcome::Done)
}

/// A kubeconfig or service account cannot be used.
pub(crate) fn context_error(error: &dyn std::error::Error) -> CliError {
    let remedy = "check the kubeconfig with `kubectl --kubeconfig FILE --context CONTEXT version`; inside a Pod, \
                  the service account must be mounted";
    CliError::new("LS0006", "the API server's address and credentials cannot be used", remedy)
        .caused_by(error)
}

/// `/metrics`, `/healthz` and `/readyz` of an agent.
async fn serve_metrics(
    address: SocketAddr,
    limits: Limits,
    registry: Registry,
    figures: PortMetrics,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, CliError> {
    let front = Front::bind(Port::Metrics, address, limits, figures).await.map_err(|error| {
        CliError::io(format!("metrics cannot be served at {address} (setting `metrics`)"), &error)
    })?;
    let registry = Arc::new(registry);
    let metrics = move || {
        let registry = registry.clone();
        async move {
            let mut text = String::new();
            match prometheus_client::encoding::text::encode(&mut text, &registry) {
                Ok(()) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
                Err(_) => axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }));
    Ok(tokio::spawn(front.serve(router, stop)))
}
