//! Arguments of what is done to the archive.

use clap::{Args, Subcommand};

use super::{OutputArgs, TombstoneFilterArgs};

/// `lockstep archive`.
#[derive(Clone, Debug, Args)]
pub struct ArchiveArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ArchiveCommand,
}

/// Below `lockstep archive`.
#[derive(Clone, Debug, Subcommand)]
pub enum ArchiveCommand {
    /// Size, keys, and work that is under way
    Status {
        /// Format.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Seal every file under the newest key, after a rotation
    Rewrap {
        /// Format.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Bring the index back out of the files, after the loss of the hub's data
    Reindex {
        /// Format.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// `lockstep tombstones purge`.
#[derive(Clone, Debug, Args)]
pub struct PurgeArgs {
    /// These, by number; may be repeated
    #[arg(long = "id", value_name = "ID")]
    pub ids: Vec<i64>,
    /// Those that `list` shows with the same conditions.
    #[command(flatten)]
    pub filter: TombstoneFilterArgs,
    /// Only say what would go
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(short, long)]
    pub yes: bool,
}

/// `lockstep tombstones hold`.
#[derive(Clone, Debug, Args)]
pub struct HoldArgs {
    /// Numbers, as `list` shows them
    #[arg(required = true)]
    pub ids: Vec<i64>,
    /// Why
    #[arg(long)]
    pub reason: String,
    /// Who says so [default: the user of this machine]
    #[arg(long, env = "USER", default_value = "unknown")]
    pub by: String,
}
