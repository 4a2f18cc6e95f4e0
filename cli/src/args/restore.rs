//! Arguments of `restore`, `undo` and `restores`.

use clap::{Args, ValueEnum};

use super::OutputArgs;

/// `lockstep restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// A tombstone's number, an act (g12), or KIND/NAME for the newest tombstone of an object
    #[arg(required = true, num_args = 1..=2, value_name = "TOMBSTONE|gN|KIND/NAME")]
    pub what: Vec<String>,
    /// Namespace that KIND/NAME was in [default: default]
    #[arg(short = 'n', value_name = "NAMESPACE")]
    pub of_namespace: Option<String>,
    /// Cluster that KIND/NAME was deleted in, where there are several
    #[arg(long, value_name = "CLUSTER")]
    pub from: Option<String>,
    /// Restore under this name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How.
    #[command(flatten)]
    pub how: HowArgs,
}

/// `lockstep undo`.
#[derive(Clone, Debug, Args)]
pub struct UndoArgs {
    /// The act, as in g12
    pub act: String,
    /// How.
    #[command(flatten)]
    pub how: HowArgs,
}

/// How to restore.
#[derive(Clone, Debug, Args)]
pub struct HowArgs {
    /// Restore to this cluster [default: where it was deleted]
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// Restore into this namespace
    #[arg(long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Only show the plan; `client` does not ask the API server what it says to it
    #[arg(long, value_enum, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "server")]
    pub dry_run: Option<DryRun>,
    /// Where another state is there: write nothing at all, leave that out, replace it, delete and create
    /// it, or restore beside it under another name
    #[arg(long, value_enum, default_value = "fail", value_name = "WHAT")]
    pub on_conflict: ConflictArg,
    /// Also restore what is named and missing
    #[arg(long)]
    pub with_dependencies: bool,
    /// Also restore the status
    #[arg(long)]
    pub status: bool,
    /// Keep finalizers
    #[arg(long)]
    pub keep_finalizers: bool,
    /// Also where a policy looks after the object, a Job would run again, or a controller makes its own
    #[arg(long)]
    pub force: bool,
    /// Do it without asking
    #[arg(short, long)]
    pub yes: bool,
    /// Format.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Who checks a plan that is only shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Nobody.
    Client,
    /// The API server.
    Server,
}

/// `--on-conflict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConflictArg {
    /// Nothing is written.
    Fail,
    /// It is left out.
    Skip,
    /// It is replaced.
    Update,
    /// It is deleted and created.
    Recreate,
    /// Another name.
    Rename,
}

/// `lockstep restores`.
#[derive(Clone, Debug, Args)]
pub struct RestoresArgs {
    /// Only this one, with its objects
    pub id: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
    /// Format.
    #[command(flatten)]
    pub output: OutputArgs,
}
