//! A short chaos run with a fixed seed. `make chaos` runs longer ones with fresh seeds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use anyhow::{Result, ensure};
use lockstep_tests::chaos::{Options, PATIENCE, SHORT_LENGTH, SHORT_SEED, run};

/// Breaks control planes, so it starts its own.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_minute_of_chaos_ends_without_a_difference() -> Result<()> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../chaos");
    let options = Options {
        seed: SHORT_SEED,
        length: SHORT_LENGTH,
        directory: target,
        patience: PATIENCE,
        only: vec![],
        skip: vec![],
        keep: false,
        verbose: false,
    };
    let report = run(&options).await?;
    println!("{report}");
    ensure!(report.passed(), "{report}");
    Ok(())
}
