//! `chaos`: hurts lockstep on real processes, and compares. See `make help` and docs/reliability.md.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Parser;
use lockstep_tests::chaos::{Options, PATIENCE, run};
use tokio::signal::unix::{SignalKind, signal};

/// Kill, freeze, cut off, compact and restore whatever there is, then compare
#[derive(Parser)]
#[command(name = "chaos")]
struct Cli {
    /// How long things are hurt
    #[arg(long, default_value_t = 3)]
    minutes: u64,
    /// The same in seconds
    #[arg(long, conflicts_with = "minutes")]
    seconds: Option<u64>,
    /// Gives the faults; without it a fresh one
    #[arg(long)]
    seed: Option<u64>,
    /// Within so many seconds after the last fault everything must be in step
    #[arg(long, default_value_t = PATIENCE.as_secs())]
    patience: u64,
    /// Only faults whose name contains this, as in "kill"
    #[arg(long)]
    only: Vec<String>,
    /// Leave out faults whose name contains this, as in "restore" or "delete definition (cluster-c)"
    #[arg(long)]
    skip: Vec<String>,
    /// Keep logs and data also of a run that was passed
    #[arg(long)]
    keep: bool,
    /// Where a directory for the seed is made
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match chaos(Cli::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn chaos(cli: Cli) -> Result<bool> {
    let Cli { minutes, seconds, seed, patience, only, skip, keep, dir } = cli;
    let fresh = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() % 1_000_000_000;
    let options = Options {
        seed: seed.unwrap_or(u64::try_from(fresh)?),
        length: Duration::from_secs(seconds.unwrap_or(minutes * 60)),
        directory: match dir {
            Some(dir) => dir,
            None => target()?.join("chaos"),
        },
        patience: Duration::from_secs(patience),
        only,
        skip,
        keep,
        verbose: true,
    };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let report = tokio::select! {
        report = run(&options) => report?,
        _ = interrupt.recv() => bail!("interrupted; seed {}", options.seed),
        _ = terminate.recv() => bail!("ended by a signal; seed {}", options.seed),
    };
    println!("{report}");
    Ok(report.passed())
}

/// The build directory that this binary lies in.
fn target() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.ancestors().nth(2).context("a binary lies in target/debug")?.to_owned())
}
