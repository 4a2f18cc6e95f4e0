//! The arguments of the commands that run until they are stopped.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OutputArgs;

/// Which contexts of which kubeconfig.
#[derive(Clone, Debug, Default, Args)]
pub struct ContextArgs {
    /// Kubeconfig with the contexts of the member clusters
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Contexts to use, as `context` or `alias=context` [default: all]
    #[arg(long, value_delimiter = ',', value_name = "CONTEXT,...")]
    pub contexts: Vec<String>,
}

/// `lockstep up`.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Which clusters.
    #[command(flatten)]
    pub contexts: ContextArgs,
    /// Directory of policy files
    #[arg(long, value_name = "DIR")]
    pub policies: PathBuf,
    /// The hub's key [default: $XDG_CONFIG_HOME/lockstep/hub-key]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Addresses.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Write the addresses there as JSON, once the hub answers
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Kinds that may be written beside what `*` means: RBAC, CRDs, webhooks, APIServices
    #[arg(long, value_delimiter = ',', value_name = "KIND,...")]
    pub accept: Vec<String>,
    /// Namespace of the Leases by which a restored etcd is recognised; it must exist in every cluster
    #[arg(long, value_name = "NAMESPACE", default_value = "kube-system")]
    pub lease_namespace: String,
}

/// Addresses of the hub.
#[derive(Clone, Debug, Default, Args)]
pub struct ListenArgs {
    /// Address for agents; port 0 takes any [default: 127.0.0.1:7440]
    #[arg(long, value_name = "ADDRESS")]
    pub listen_agents: Option<SocketAddr>,
    /// Address of the API [default: 127.0.0.1:7441]
    #[arg(long, value_name = "ADDRESS")]
    pub listen_api: Option<SocketAddr>,
    /// Address of metrics and probes [default: 127.0.0.1:7442]
    #[arg(long, value_name = "ADDRESS")]
    pub listen_metrics: Option<SocketAddr>,
}

/// `lockstep hub`.
#[derive(Clone, Debug, Args)]
pub struct HubArgs {
    /// Configuration file (deploy/examples/hub.yaml explains it)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of policy files
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// The hub's key
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Addresses.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Write the addresses there as JSON, once the hub answers
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Work on the hub's data instead of running it.
    #[command(subcommand)]
    pub command: Option<HubCommand>,
}

/// Below `lockstep hub`.
#[derive(Clone, Debug, Subcommand)]
pub enum HubCommand {
    /// Copy the hub's data, also while it runs (exit code 3 when archived tombstones are missing)
    Backup {
        /// Configuration file of the hub: where its data are [default: --data-dir]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Directory to make
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Format.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Put a backup into a data directory that no hub runs on
    Restore {
        /// Configuration file of the hub: where its data are [default: --data-dir]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The backup
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Keep a state store that is there aside, and restore all the same
        #[arg(long)]
        force: bool,
        /// Format.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// `lockstep agent`.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// Configuration file (deploy/examples/agent.yaml explains it)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of this member cluster
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Where the hub listens for agents, as in https://hub.example.com:7440
    #[arg(long, value_name = "URL")]
    pub hub: Option<String>,
    /// File with the token that `lockstep token create` gave
    #[arg(long, value_name = "FILE")]
    pub agent_token_file: Option<PathBuf>,
    /// Kubeconfig of this cluster [default: the Pod's service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// Address of metrics and probes
    #[arg(long, value_name = "ADDRESS")]
    pub listen_metrics: Option<SocketAddr>,
}
