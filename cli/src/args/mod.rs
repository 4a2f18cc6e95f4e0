//! The arguments of every command.

mod archive;
mod restore;
mod run;
#[cfg(test)]
mod tests;
mod tombstones;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use archive::{ArchiveArgs, ArchiveCommand, HoldArgs, PurgeArgs};
pub use restore::{ConflictArg, DryRun, HowArgs, RestoreArgs, RestoresArgs, UndoArgs};
pub use run::{AgentArgs, ContextArgs, HubArgs, HubCommand, ListenArgs, UpArgs};
pub use tombstones::{TombstoneFilterArgs, TombstonesArgs, TombstonesCommand};

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 differences or findings.

The hub's API is found by --server, LOCKSTEP_SERVER, or at http://127.0.0.1:7441. Calls that change
something, and values of Secrets, need its token: LOCKSTEP_TOKEN, --token-file, or (for a hub on
this machine) the `api-token` in --data-dir.

Installed or linked as `kubectl-lockstep` it also runs as `kubectl lockstep`.
Try it on your own clusters: lockstep up --kubeconfig ~/.kube/config --policies ./policies";

/// lockstep keeps Kubernetes clusters in step.
#[derive(Debug, Parser)]
#[command(name = "lockstep", version, about, after_help = AFTER_HELP, max_term_width = 100)]
#[command(propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Where the hub is.
    #[command(flatten)]
    pub server: ServerArgs,
    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Where the hub is, and how to prove who asks.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// The hub's API, as in http://127.0.0.1:7441; https:// off this machine
    #[arg(long, global = true, env = "LOCKSTEP_SERVER", value_name = "URL", help_heading = "Hub")]
    pub server: Option<String>,
    /// File with the hub's token [env: LOCKSTEP_TOKEN holds the token itself]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Hub")]
    pub token_file: Option<PathBuf>,
    /// File with the CA of an https:// hub's certificate [default: the system's]
    #[arg(long, global = true, env = "LOCKSTEP_CA_FILE", value_name = "FILE", help_heading = "Hub")]
    pub ca_file: Option<PathBuf>,
    /// Data directory of a hub on this machine [default: $XDG_DATA_HOME/lockstep]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Hub")]
    pub data_dir: Option<PathBuf>,
}

/// How to log, to stderr.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Log more; twice for traces. RUST_LOG says it in detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Logging")]
    pub verbose: u8,
    /// Log as text or as JSON
    #[arg(long, global = true, value_enum, default_value = "text", help_heading = "Logging")]
    pub log_format: LogFormat,
}

/// Formats of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Formats of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// The API's own JSON: `{kind, items: [...]}`.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names only, one per line.
    Name,
}

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct OutputArgs {
    /// Output format
    #[arg(short, long = "output", value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Format,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a hub and one agent per kubeconfig context, in this process
    Up(UpArgs),
    /// Run the hub
    Hub(HubArgs),
    /// Run the agent of one member cluster
    Agent(AgentArgs),
    /// Make tokens for member clusters
    Token(TokenArgs),
    /// What is in step, pending, held or failed, per policy and target
    Status(StatusArgs),
    /// Member clusters: connected, lag, versions, watches
    #[command(visible_alias = "cluster")]
    Clusters(ClustersArgs),
    /// Objects across the fleet
    Get(GetArgs),
    /// Why an object is, or is not, in step
    Explain(ExplainArgs),
    /// Field-level differences, desired against observed (exit code 3 when there are some)
    Diff(DiffArgs),
    /// Release deletes that are held
    Approve(ApproveArgs),
    /// Let go of copies: they stay as they are, and nothing of lockstep stays on them
    Orphan(OrphanArgs),
    /// Stop writing: for a policy, to a cluster, or everywhere
    Pause(ScopeArgs),
    /// Write again
    Resume(ScopeArgs),
    /// Wait until a policy is in step
    Wait(WaitArgs),
    /// Work on policy files
    Policy(PolicyArgs),
    /// What was deleted, and is kept
    Tombstones(TombstonesArgs),
    /// Where tombstones are kept: keys, and the index out of the files
    Archive(ArchiveArgs),
    /// Bring back what was deleted: shows the plan, and asks
    Restore(RestoreArgs),
    /// Bring back all that one act deleted
    Undo(UndoArgs),
    /// Restores, and how far they have come
    Restores(RestoresArgs),
    /// Check configuration, hub, clusters, rights, clocks and policies, and say what to do
    Doctor(DoctorArgs),
    /// Print a completion script
    Completions {
        /// For this shell
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// `lockstep token`.
#[derive(Clone, Debug, Args)]
pub struct TokenArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// Below `lockstep token`.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token for a member cluster, in place of the old one; it is shown only once
    Create {
        /// Name of the cluster
        cluster: String,
        /// Format.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// `lockstep status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Only this policy
    pub policy: Option<String>,
    /// Go on, and show it again whenever it changes
    #[arg(short, long)]
    pub watch: bool,
    /// Format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `lockstep clusters`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ClustersArgs {
    /// What to do, where it is not showing.
    #[command(subcommand)]
    pub command: Option<ClustersCommand>,
    /// Only this cluster
    pub cluster: Option<String>,
    /// Format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `lockstep clusters ...`.
#[derive(Clone, Debug, Subcommand)]
pub enum ClustersCommand {
    /// A cluster that was restored to an older state: take what it lost for deleted
    AcceptRewind {
        /// The cluster
        cluster: String,
        /// Format.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// A cluster that is gone for good: drop its work, keep its last state in tombstones
    Remove {
        /// The cluster
        cluster: String,
        /// Only say what that would drop
        #[arg(long)]
        dry_run: bool,
        /// Do it without asking
        #[arg(short, long)]
        yes: bool,
        /// Format.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// `-n`, `-A`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct NamespaceArgs {
    /// Namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

/// `lockstep get`.
#[derive(Clone, Debug, Args)]
pub struct GetArgs {
    /// KIND, KIND NAME or KIND/NAME; kinds as kubectl takes them
    #[arg(required = true, num_args = 1..=2, value_name = "KIND [NAME]")]
    pub object: Vec<String>,
    /// Namespace.
    #[command(flatten)]
    pub namespace: NamespaceArgs,
    /// All namespaces (also without it, unless -n names one)
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Only in this cluster
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// Label selector, as kubectl takes it
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Show values of Secrets (needs the token); otherwise digests stand for them
    #[arg(long)]
    pub show_secrets: bool,
    /// Show labels
    #[arg(long)]
    pub show_labels: bool,
    /// Format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `lockstep explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// KIND/NAME or KIND NAME
    #[arg(required = true, num_args = 1..=2, value_name = "KIND/NAME")]
    pub object: Vec<String>,
    /// Namespace [default: default].
    #[command(flatten)]
    pub namespace: NamespaceArgs,
    /// Only as far as this cluster is concerned
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// Format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `lockstep diff`.
#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    /// Only this policy
    pub policy: Option<String>,
    /// Only at this target
    #[arg(long, value_name = "CLUSTER")]
    pub target: Option<String>,
    /// Compare also what is in step
    #[arg(long)]
    pub all: bool,
    /// Format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `lockstep approve`.
#[derive(Clone, Debug, Args)]
pub struct ApproveArgs {
    /// The policy whose held deletes are released
    pub policy: String,
    /// Only at this target
    #[arg(long, value_name = "CLUSTER")]
    pub target: Option<String>,
    /// Only show what would be released
    #[arg(long)]
    pub dry_run: bool,
    /// Release whatever is held, without asking
    #[arg(short, long)]
    pub yes: bool,
    /// Format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `lockstep orphan`.
#[derive(Clone, Debug, Args)]
pub struct OrphanArgs {
    /// What to let go of.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Only count it
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(short, long)]
    pub yes: bool,
    /// Format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `lockstep pause`, `lockstep resume` and `lockstep orphan`.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ScopeArgs {
    /// A policy
    pub policy: Option<String>,
    /// A cluster, as a target
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// Everything
    #[arg(long)]
    pub all: bool,
}

/// `lockstep wait`.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// The policy
    pub policy: String,
    /// What to wait for
    #[arg(long = "for", value_enum, default_value = "InStep", value_name = "CONDITION")]
    pub condition: WaitFor,
    /// Only at this target
    #[arg(long, value_name = "CLUSTER")]
    pub target: Option<String>,
    /// How long, as in 30s, 5m, 1h
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
}

/// What `wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WaitFor {
    /// The newest version of the policy is planned, and everything it asks for is in step.
    #[value(name = "InStep", alias = "instep", alias = "in-step")]
    InStep,
}

/// `lockstep policy`.
#[derive(Clone, Debug, Args)]
pub struct PolicyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// Below `lockstep policy`.
#[derive(Clone, Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check policy files; exit code 3 on findings
    Lint {
        /// Files or directories
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Format.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// `lockstep doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Configuration file of a hub
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Configuration file of an agent
    #[arg(long, value_name = "FILE")]
    pub agent_config: Option<PathBuf>,
    /// Directory of policy files
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// Which clusters.
    #[command(flatten)]
    pub contexts: ContextArgs,
    /// Format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Reads `500ms`, `30s`, `5m`, `2h`, `1d`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let bad = || format!("`{text}` is not a time (as in 500ms, 30s, 5m, 2h, 1d)");
    let number: u64 = number.parse().map_err(|_| bad())?;
    let factor = match unit {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(bad)
}
