//! Hostile clients on every port of a hub, while people and agents go on. No cluster is needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod raw;

use anyhow::{Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually, resident_kib};
use lockstep_tests::lockstep::Lockstep;
use lockstep_tests::siege::{Opening, closed, flood};

/// Open files that the hub may have: a shell's default, a quarter of it.
const DESCRIPTORS: u32 = 256;
/// More than it may have.
const FLOOD: usize = 300;
/// What reading a message may add to the hub's memory beside noise: far below the 600 MB that it took.
const GROWTH_KIB: u64 = 64 << 10;
const PORTS: [&str; 3] = ["agents", "api", "metrics"];

async fn hub() -> Result<Lockstep> {
    Lockstep::hub_as("", "# none\n", &[]).await
}

/// Everything that people and probes use.
async fn works(hub: &Lockstep) -> Result<()> {
    eventually(PATIENCE, "commands, metrics and agents get through", async || {
        hub.json(&["clusters"]).await?;
        let metrics = hub.metrics().await?;
        ensure!(metrics.contains("lockstep_port_connections_open"), "{metrics}");
        let status = raw::send_first(&hub.address("agents")?, "lockstep_a.b.c", raw::empty_items(1)).await?;
        ensure!(status.code() == tonic::Code::Unauthenticated, "{status}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_flood_on_every_port_leaves_the_hub_at_work_and_stopping_ends_it() -> Result<()> {
    let mut hub = hub().await?;
    hub.stop().await?;
    hub.limit_descriptors(DESCRIPTORS);
    hub.start().await?;
    let mut open = Vec::new();
    for opening in Opening::ALL {
        for port in PORTS {
            open.extend(flood(&hub.address(port)?, FLOOD / Opening::ALL.len(), opening).await);
        }
        works(&hub).await?;
    }
    // The store has its descriptors: it takes writes.
    hub.json(&["token", "create", "cluster-d"]).await?;
    // Whatever is open then: connections of every kind.
    for port in PORTS {
        for opening in Opening::ALL {
            open.extend(flood(&hub.address(port)?, 3, opening).await);
        }
    }
    hub.stop().await?;
    for stream in &mut open {
        closed(stream, PATIENCE).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_nothing_is_decoded_before_the_token_is_known_and_bounded_afterwards() -> Result<()> {
    let hub = hub().await?;
    let agents = hub.address("agents")?;
    let pid = hub.pid().expect("it runs");
    works(&hub).await?;
    let before = resident_kib(pid)?;
    // 868 bytes on the wire, 10 MB of two bytes each.
    let huge = raw::empty_items(5_000_000);
    for token in ["anything", "lockstep_cluster-a.AAAA.AAAA"] {
        let status = raw::send_first(&agents, token, huge.clone()).await?;
        ensure!(status.code() == tonic::Code::Unauthenticated, "{status}");
    }
    let genuine = std::fs::read_to_string(hub.dir.path().join("token-cluster-a"))?;
    for message in [huge, raw::empty_items(2_000_000), raw::empty_items(40_000)] {
        let status = raw::send_first(&agents, &genuine, message).await?;
        ensure!(status.code() == tonic::Code::ResourceExhausted, "{status}");
        ensure!(status.message().contains("LS0326"), "{status}");
    }
    let after = resident_kib(pid)?;
    ensure!(after < before + GROWTH_KIB, "{before} KiB before, {after} KiB after");
    works(&hub).await
}

#[tokio::test(flavor = "multi_thread")]
async fn s16_who_is_refused_writes_no_log_and_no_problem() -> Result<()> {
    let hub = hub().await?;
    let agents = hub.address("agents")?;
    for n in 0..50 {
        let token = format!("lockstep_cluster-a.{n}.{}", "x".repeat(4000));
        let status = raw::send_first(&agents, &token, raw::empty_items(1)).await?;
        ensure!(status.code() == tonic::Code::Unauthenticated, "{status}");
    }
    let logged = hub.logged()?;
    let lines: Vec<&str> = logged.lines().filter(|line| line.contains("agent refused")).collect();
    ensure!((1..=2).contains(&lines.len()), "one a minute: {lines:?}");
    ensure!(lines.iter().all(|line| line.len() < 1000), "{lines:?}");
    let clusters = hub.json(&["clusters"]).await?;
    ensure!(!clusters.to_string().contains("LS0201"), "{clusters}");
    Ok(())
}
