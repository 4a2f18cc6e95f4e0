//! Arguments of `lockstep tombstones`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Format, HoldArgs, NamespaceArgs, OutputArgs, PurgeArgs, duration};

/// `lockstep tombstones`.
#[derive(Clone, Debug, Args)]
pub struct TombstonesArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TombstonesCommand,
}

/// Below `lockstep tombstones`.
#[derive(Clone, Debug, Subcommand)]
pub enum TombstonesCommand {
    /// The newest first
    List(Box<TombstoneFilterArgs>),
    /// What was deleted together: a namespace, a definition, an owner, or by lockstep for a policy
    Groups {
        /// Only of this cluster
        #[arg(long, value_name = "CLUSTER")]
        cluster: Option<String>,
        /// Only of this kind: namespace, definition, owner or lockstep
        #[arg(long)]
        kind: Option<String>,
        /// Only what went on in the last while, as in 2h
        #[arg(long, value_parser = duration, value_name = "TIME")]
        since: Option<Duration>,
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Format.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// One, with the body that was kept; of a group, what is in it
    Show {
        /// Number, as `list` shows it, or a group, as in g12
        #[arg(value_parser = tombstone_or_group)]
        id: String,
        /// Show values of Secrets (needs the token)
        #[arg(long)]
        show_secrets: bool,
        /// Format: the object as YAML below the facts, and a group as a tree, unless told otherwise
        #[arg(short, long = "output", value_enum, value_name = "FORMAT")]
        output: Option<Format>,
    },
    /// What would change if a tombstone were put back over what is there now (ID), or what changed between two of one
    /// object (ID..ID)
    Diff {
        /// A number, or two, as in 12..15
        ids: String,
        /// Of one: against the object in this cluster, instead of where it was
        #[arg(long, value_name = "CLUSTER")]
        cluster: Option<String>,
        /// Format.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Take some away for good, from the archive too
    Purge(Box<PurgeArgs>),
    /// Put a legal hold on some: nothing purges them
    Hold(Box<HoldArgs>),
    /// Take the hold off
    Release {
        /// Numbers, as `list` shows them
        #[arg(required = true)]
        ids: Vec<i64>,
    },
}

/// Which tombstones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct TombstoneFilterArgs {
    /// Only of this kind
    pub kind: Option<String>,
    /// Namespace.
    #[command(flatten)]
    pub namespace: NamespaceArgs,
    /// Only of this name; a pattern with `*` and `?`, as in 'web-*'
    #[arg(long)]
    pub name: Option<String>,
    /// Only with these labels, as kubectl takes them
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Only with these words in it, one after the other; a `*` behind them stands for the rest of a word
    #[arg(long, value_name = "WORDS")]
    pub text: Option<String>,
    /// Only of this group, as in g12
    #[arg(long)]
    pub group: Option<String>,
    /// Only of this cluster
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// Only for this reason: observed, inferred, lockstep, rewound or clusterremoved
    #[arg(long)]
    pub cause: Option<String>,
    /// Only deletes by lockstep for this policy
    #[arg(long)]
    pub policy: Option<String>,
    /// Only deletes that this user asked for
    #[arg(long, value_name = "USER")]
    pub deleter: Option<String>,
    /// Only of the last while, as in 2h
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub since: Option<Duration>,
    /// Only of before the last while, as in 1h
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub until: Option<Duration>,
    /// Also images of deletes that were not carried out
    #[arg(long)]
    pub undeleted: bool,
    /// How many at most
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
    /// Format.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn tombstone_or_group(text: &str) -> Result<String, String> {
    let number = text.strip_prefix('g').unwrap_or(text);
    let known = number.parse::<i64>().is_ok();
    known.then(|| text.to_owned()).ok_or_else(|| "write a number, as in 12, or a group, as in g12".to_owned())
}
