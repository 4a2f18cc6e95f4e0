//! `lockstep up`: a hub and one agent per kubeconfig context in one process, over the real session
//! on the loopback. The quickest way to a working system.

mod members;
mod narrate;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use lockstep_agent::{AcceptEntry, AgentConfig, AgentMetrics, Deleters, Token};
use lockstep_cluster::ClusterClient;
use lockstep_engine::ClusterName;
use lockstep_hub::{HubConfig, RunningHub};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{ContextArgs, Format, LogArgs, ServerArgs, UpArgs};
use crate::client::Client;
use crate::config::{self, Layers};
use crate::daemon::{self, SharedRegistry};
use crate::error::{CliError, Outcome};
use crate::output::{Out, Paint, plain};
use crate::{logging, paths, signals};

pub(crate) use members::{Member, members};

/// How long agents may take to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs everything until it is stopped.
pub(crate) async fn run(args: UpArgs, server: &ServerArgs, log: &LogArgs) -> Result<Outcome, CliError> {
    let UpArgs { contexts, policies, key_file, listen, ready_file, accept, lease_namespace } = args;
    let ContextArgs { kubeconfig, contexts } = contexts;
    let kubeconfig = kubeconfig.ok_or_else(|| {
        CliError::usage("no kubeconfig", "name it: --kubeconfig ~/.kube/config, or KUBECONFIG")
    })?;
    if !policies.is_dir() {
        let remedy = "name a directory of ClusterSyncPolicy files; it may be empty";
        return Err(CliError::usage(format!("--policies {} is not a directory", policies.display()), remedy));
    }
    let members = members(&kubeconfig, &contexts)?;
    let flags = daemon::listen_flags(&listen)
        .with("policies_dir", Some(policies.display()))
        .with("data_dir", server.data_dir.as_ref().map(|path| path.display()))
        .with("key_file", key_file.as_ref().map(|path| path.display()));
    let config = config::hub(&defaults(server)?, &Layers::of_process(None, flags)?)?;
    if config.tls.is_some() {
        let remedy = "for TLS, run `lockstep hub` and `lockstep agent`";
        return Err(CliError::usage("`up` talks on the loopback only, without TLS", remedy));
    }
    logging::start(log, true);
    let out = Out::new(Format::Table);
    let stop = signals::stop_on_signals()?;

    let clients = connect(&kubeconfig, members).await?;
    members::check_distinct(&clients, &out).await?;
    // One registry: the metrics port of this process serves those of its agents, too.
    let registry = SharedRegistry::default();
    let running =
        daemon::start_hub(config.clone(), registry.clone(), clients.keys().cloned().collect(), stop.clone())
            .await?;
    greet(&out, &running, &config)?;
    let result = serve(&running, clients, (&accept, &lease_namespace), &registry, &stop, &out).await;
    let (mut agents, api) = match result {
        Ok(started) => started,
        Err(error) => {
            stop.cancel();
            let _ = running.stopped().await;
            return Err(error);
        }
    };
    if let Some(file) = ready_file {
        daemon::write_ready(&file, &running, &config)?;
    }
    let narrator = tokio::spawn(narrate::run(api, out, stop.clone()));
    let stopped = running.stopped().await;
    // Where the hub ended by itself, the agents end with it.
    stop.cancel();
    let _ = tokio::time::timeout(DRAIN, async { while agents.join_next().await.is_some() {} }).await;
    agents.abort_all();
    narrator.abort();
    stopped.map_err(|error| daemon::hub_error(&error))?;
    out.line("stopped")?;
    Ok(Outcome::Done)
}

fn defaults(server: &ServerArgs) -> Result<HubConfig, CliError> {
    let data_dir = server.data_dir.clone().or_else(paths::data_dir).ok_or_else(|| {
        CliError::usage("there is no home directory for the hub's data", "name a directory with --data-dir")
    })?;
    let defaults = HubConfig::default();
    let key_file = paths::hub_key().unwrap_or(defaults.key_file);
    Ok(HubConfig { data_dir, key_file, ..HubConfig::default() })
}

async fn connect(
    kubeconfig: &Path,
    members: Vec<Member>,
) -> Result<BTreeMap<ClusterName, ClusterClient>, CliError> {
    let mut clients = BTreeMap::new();
    for Member { cluster, context } in members {
        let target = lockstep_cluster::from_kubeconfig(kubeconfig, Some(&context))
            .await
            .map_err(|error| daemon::context_error(&error))?;
        let limits = AgentConfig::new(cluster.clone(), "", Token::default()).client_limits();
        let client = ClusterClient::new(target, limits).map_err(|error| daemon::context_error(&error))?;
        clients.insert(cluster, client);
    }
    Ok(clients)
}

fn greet(out: &Out, running: &RunningHub, config: &HubConfig) -> Result<(), CliError> {
    let bold = |text: &str| out.palette.paint(Paint::Bold, text);
    out.line(&format!("{} {}", bold("lockstep"), env!("CARGO_PKG_VERSION")))?;
    let api = format!("http://{}", running.api);
    out.line(&format!("API       {api}"))?;
    if let Some(metrics) = running.metrics {
        out.line(&format!("metrics   http://{metrics}/metrics"))?;
    }
    out.line(&format!("data      {}", plain(&config.data_dir.display().to_string())))?;
    out.line(&format!("policies  {}", plain(&config.policies_dir.display().to_string())))
}

/// Gives each agent a token and starts it; a client for the API that may change nothing.
async fn serve(
    running: &RunningHub,
    clients: BTreeMap<ClusterName, ClusterClient>,
    (accept, lease_namespace): (&[String], &str),
    registry: &SharedRegistry,
    stop: &CancellationToken,
    out: &Out,
) -> Result<(JoinSet<()>, Client), CliError> {
    let metrics = AgentMetrics::register(&mut registry.lock().unwrap_or_else(PoisonError::into_inner));
    let mut agents = JoinSet::new();
    let hub = format!("http://{}", running.agents);
    for (cluster, client) in clients {
        let token = Token::new(running.tokens.get(&cluster).map_or("", String::as_str));
        let mut config = AgentConfig::new(cluster.clone(), &hub, token);
        lease_namespace.clone_into(&mut config.lease_namespace);
        // Hub and agents are one process here, with the rights of the person who runs it.
        config.accept.push(AcceptEntry::reading_everything());
        if !accept.is_empty() {
            let all = || vec!["*".to_owned()];
            let named = AcceptEntry { kinds: accept.to_vec(), namespaces: all(), ..everything(&config) };
            config.accept.push(named);
        }
        config.validate().map_err(|error| {
            let remedy = "name kinds as in Role.rbac.authorization.k8s.io, and a namespace that exists";
            CliError::usage("--accept or --lease-namespace cannot be used", remedy).caused_by(&error)
        })?;
        let (cancelled, metrics) = (stop.clone(), metrics.clone());
        agents.spawn(async move {
            if let Err(error) =
                Box::pin(lockstep_agent::run(config, client, cancelled, metrics, Deleters::default())).await
            {
                tracing::error!(%cluster, "the agent ended: {error}");
            }
        });
    }
    out.line(&format!("agents    {} started", agents.len()))?;
    Ok((agents, Client::new(&format!("http://{}", running.api), None, None)?))
}

/// The entry that every agent starts with.
fn everything(config: &AgentConfig) -> AcceptEntry {
    let first = config.accept.first().cloned();
    first.unwrap_or(AcceptEntry { kinds: Vec::new(), namespaces: Vec::new(), verbs: Vec::new() })
}
