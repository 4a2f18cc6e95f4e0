//! Chaos on real processes: `make chaos MINUTES=3`.
//!
//! Three control planes of its own, a hub and an agent per cluster as processes of their own, and proxies between them. A
//! writer changes the sources while faults that a seed gives kill, freeze, cut off, compact and restore whatever
//! there is. Then all is healed, and sources, targets, store and tombstones are compared with each other and with what
//! was written down. docs/reliability.md says what each fault shows.
//!
//! The same seed gives the same faults at the same times. What they meet then depends on the machine, so that a seed that
//! failed need not fail again; the logs of the run are what explains it.

pub mod compare;
pub mod dice;
mod faults;
mod fleet;
mod history;
mod inject;
mod journal;
mod knowledge;
pub mod link;
mod objects;
mod process;
mod removals;
mod report;
mod settle;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use fleet::Fleet;
use inject::Injector;
use journal::Journal;
use knowledge::Watcher;
use writer::Writers;

pub use faults::Trouble;
pub use fleet::HubClient;
pub use report::Report;

/// The run that is part of `make test`: its half minute has nearly every kind of fault, and ends without one that takes
/// long to get over (a right to write that comes back is noticed after up to a minute).
pub const SHORT_SEED: u64 = 231_285;
/// How long that hurts.
pub const SHORT_LENGTH: Duration = Duration::from_secs(30);
/// What a person waits for, at the most. An attempt that failed may be tried again only after a minute or more.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// The first copies must be there before anything is hurt: otherwise there is nothing to lose.
const FIRST_SYNC: Duration = Duration::from_secs(90);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Gives the faults.
    pub seed: u64,
    /// How long things are hurt; healing and comparing come on top, up to about three minutes.
    pub length: Duration,
    /// Everything of the run, below a directory of its seed.
    pub directory: PathBuf,
    /// Within this time after the last fault everything must be in step.
    pub patience: Duration,
    /// Only faults whose name contains one of these; all, if there are none.
    pub only: Vec<String>,
    /// Leave out faults whose name contains one of these.
    pub skip: Vec<String>,
    /// Keep logs and data also of a run that was passed.
    pub keep: bool,
    /// Tell on standard error what happens.
    pub verbose: bool,
}

/// Runs chaos, heals, compares. The report says whether anything differs; its directory is kept if so.
///
/// # Errors
/// If the run itself could not be carried out.
pub async fn run(options: &Options) -> Result<Report> {
    let dir = std::path::absolute(options.directory.join(options.seed.to_string()))?;
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir)?;
    let tell = |text: &str| tell(options, text);
    let began = Instant::now();
    tell(&format!("seed {}, logs in {}", options.seed, dir.display()));
    let fleet = Arc::new(Fleet::start(&dir, options.verbose).await.context("starting")?);
    let bystanders = objects::create_bystanders(fleet.bed.clusters()).await.context("creating bystanders")?;
    fleet.write_policies()?;
    let journal = Arc::new(Journal::create(&dir.join("journal.jsonl"))?);
    let writers = Writers::start(&fleet, &journal, options.seed);
    let watcher = Watcher::start(&fleet, &journal)?;
    first_sync(&fleet).await?;

    let mut events = faults::schedule(options.seed, options.length);
    // Out of the whole schedule, so that the others stay where they are.
    events.retain(|event| {
        let name = event.fault.to_string();
        let named = |names: &[String]| names.iter().any(|part| name.contains(part));
        (options.only.is_empty() || named(&options.only)) && !named(&options.skip)
    });
    let started = began.elapsed().as_secs_f32();
    let length = options.length.as_secs_f32();
    tell(&format!("{started:.0} s: in step; {} faults within {length:.0} s", events.len()));
    let injector = Injector::new(&fleet, &journal)?;
    injector.run(events, options.length).await.context("the chaos")?;
    tell(&format!("{:.0} s: healing", began.elapsed().as_secs_f32()));
    settle::heal(&fleet).await?;
    writers.stop(&fleet, &journal).await?;
    let history = injector.history();
    tell(&format!("{:.0} s: waiting until all is in step", began.elapsed().as_secs_f32()));
    let decided_ms = journal.now_ms();
    let settled = settle::settle(&fleet, &history, &bystanders, options.patience, decided_ms).await?;
    tell(&format!("{:.0} s: comparing with the journal", began.elapsed().as_secs_f32()));
    let known = watcher.known();
    drop(watcher);
    let past = history::past(&fleet, &history, &journal, &known, decided_ms).await;
    let report = Report::of(options, &dir, began.elapsed(), &fleet, &journal, history, settled, past)?;
    // Processes end here, before their files go.
    drop((injector, fleet));
    report.write(&dir, options.keep)?;
    Ok(report)
}

/// Waits until every policy has copies at each of its targets.
async fn first_sync(fleet: &Fleet) -> Result<()> {
    crate::harness::eventually(FIRST_SYNC, "the first copies are there", async || {
        let status = fleet.json(&["status"]).await?;
        for policy in objects::POLICIES {
            let items = status["items"].as_array().context("a list of policies")?;
            let item = items.iter().find(|item| item["name"] == policy.name).context("the policy")?;
            for target in item["targets"].as_array().context("its targets")? {
                let count = target["counts"]["inStep"].as_u64().unwrap_or_default();
                anyhow::ensure!(count > 0, "{} has nothing at {}", policy.name, target["target"]);
            }
        }
        Ok(())
    })
    .await
}

#[allow(clippy::print_stderr, reason = "progress for the person who waits; only on request")]
fn tell(options: &Options, text: &str) {
    if options.verbose {
        eprintln!("chaos: {text}");
    }
}
