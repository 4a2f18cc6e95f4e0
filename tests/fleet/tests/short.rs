//! A small fleet with all faults and a fixed seed.

use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_fleet::{Options, What, run};

#[test]
fn a_fleet_with_all_faults_comes_in_step_and_deletes_nothing_by_surprise() -> Result<()> {
    let report = run(&Options {
        clusters: 12,
        objects: 40,
        seed: 7,
        length: Duration::from_secs(8),
        faults: What::all(),
        patience: Duration::from_secs(180),
        rounds: 3,
        hub_apart: false,
        verbose: true,
    })?;
    ensure!(report.passed(), "{report}");
    ensure!(What::all().iter().all(|what| report.faults.contains_key(&what.to_string())), "{report}");
    Ok(())
}
