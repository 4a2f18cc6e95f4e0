//! `fleet`: hundreds of simulated clusters under the real hub and real agents. See `make help` and docs/reliability.md.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand};
use lockstep_fleet::{Options, What, run, serve_hub};
use tracing_subscriber::EnvFilter;

/// Sync simulated clusters with the real hub and real agents, hurt them, then compare
#[derive(Parser)]
#[command(name = "fleet")]
struct Cli {
    /// How many clusters
    #[arg(long, default_value_t = 100)]
    clusters: usize,
    /// Objects in each
    #[arg(long, default_value_t = 1000)]
    objects: usize,
    /// Which faults, as in "429,500,api-cut"; "all", or "none"
    #[arg(long, default_value = "all")]
    faults: String,
    /// Gives faults and edits; without it a fresh one
    #[arg(long)]
    seed: Option<u64>,
    /// How long there are edits and faults
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Within so many seconds after the last fault everything must be in step
    #[arg(long, default_value_t = 600)]
    patience: u64,
    /// How often the way of one change to all targets is measured
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Run the hub in a process of its own, to see its memory
    #[arg(long)]
    hub_apart: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// The hub of a run
    #[command(hide = true)]
    Hub {
        #[arg(long)]
        clusters: usize,
        #[arg(long)]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match fleet(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fleet: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn fleet(cli: Cli) -> Result<bool> {
    let Cli { clusters, objects, faults, seed, seconds, patience, rounds, hub_apart, json, command } = cli;
    if let Some(Command::Hub { clusters, dir }) = command {
        return serve_hub(dir, clusters).map(|()| true);
    }
    let faults = match faults.as_str() {
        "all" => What::all(),
        "none" => vec![],
        list => list
            .split(',')
            .map(|name| name.parse().map_err(|why: String| anyhow!(why)))
            .collect::<Result<_>>()?,
    };
    let fresh = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() % 1_000_000_000;
    let options = Options {
        clusters,
        objects,
        seed: seed.unwrap_or(u64::try_from(fresh)?),
        length: Duration::from_secs(seconds),
        faults,
        patience: Duration::from_secs(patience),
        rounds,
        hub_apart,
        verbose: true,
    };
    eprintln!("fleet: seed {}", options.seed);
    let report = run(&options)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.passed())
}
