//! Hostile clients on every port of a hub for some minutes, while commands and scrapes must get through. Prints what was
//! opened and answered; fails when an honest client was not served, or the hub does not end when it is stopped.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use lockstep_tests::harness::{PATIENCE, eventually, resident_kib};
use lockstep_tests::lockstep::Lockstep;
use lockstep_tests::siege::{Opening, flood};

/// Connections of one wave at one port: several times what the port has places for.
const WAVE: usize = 1000;
/// Waves that stay open at a time.
const WAVES: usize = 8;

/// Besieges a hub.
#[derive(Parser)]
struct Args {
    /// For how long.
    #[arg(long, default_value_t = 3)]
    minutes: u64,
    /// Open files that the hub may have.
    #[arg(long, default_value_t = 1024)]
    descriptors: u32,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Args { minutes, descriptors } = Args::parse();
    let mut hub = Lockstep::hub_as("", "# none\n", &[]).await?;
    hub.stop().await?;
    hub.limit_descriptors(descriptors);
    hub.start().await?;
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    let (mut opened, mut answered, mut peak_kib) = (0, 0, 0);
    let mut waves = std::collections::VecDeque::new();
    let all =
        || ["agents", "api", "metrics"].into_iter().flat_map(|port| Opening::ALL.map(|what| (port, what)));
    for (port, opening) in all().cycle() {
        if Instant::now() >= until {
            break;
        }
        let wave = flood(&hub.address(port)?, WAVE, opening).await;
        opened += wave.len();
        waves.push_back(wave);
        if waves.len() > WAVES {
            waves.pop_front();
        }
        eventually(PATIENCE, "an honest client gets through", async || {
            hub.json(&["clusters"]).await?;
            hub.metrics().await
        })
        .await?;
        answered += 2;
        peak_kib = peak_kib.max(resident_kib(hub.pid().unwrap_or_default())?);
    }
    let stopping = Instant::now();
    hub.stop().await?;
    let stopped = stopping.elapsed();
    println!(
        "{opened} hostile connections, {answered} honest requests answered, at most {peak_kib} KiB, stopped in {stopped:?}"
    );
    ensure!(answered > 0, "the siege was too short");
    Ok(())
}
