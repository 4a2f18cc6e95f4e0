//! `make demo`, as a new user runs it. It starts control planes of its own.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lockstep_tests::lockstep::binary;

/// Runs the script with the binaries under test; gives what it printed.
async fn demo(delay: &str) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo.sh");
    let binary = binary()?;
    let binaries = binary.parent().context("the binary is in a directory")?;
    let mut command = tokio::process::Command::new(script);
    command.env("BINARIES", binaries).env("DELAY", delay).env_remove("KEEP");
    let output = command.kill_on_drop(true).output().await?;
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}\n{out}\n{error}", output.status);
    ensure!(out.contains("demo succeeded"), "{out}\n{error}");
    Ok(out.into_owned())
}

#[tokio::test]
async fn the_demo_shows_every_act() -> Result<()> {
    let printed = demo("0").await?;
    for act in ["1. Create", "2. Scale", "3. Relabel", "4. Relabel", "5. Delete", "lockstep tombstones list"]
    {
        ensure!(printed.contains(act), "no {act}: {printed}");
    }
    ensure!(printed.matches("followed").count() >= 2 * 5, "{printed}");
    Ok(())
}

#[tokio::test]
async fn the_demo_waits_for_agents_that_connect_late() -> Result<()> {
    let printed = demo("8").await?;
    // The script itself checks that they came late.
    ensure!(printed.contains("are frozen for 8 s") && printed.contains("answer again"), "{printed}");
    Ok(())
}
