//! Hundreds of simulated clusters under the real hub and real agents: `make fleet CLUSTERS=100 OBJECTS=1000`.
//!
//! Each cluster is a model of an API server behind HTTP on loopback ([`lockstep_tests::model::serve`]), with an agent of
//! its own, that has its own token and accept list. Three clusters are sources, each of a policy to all others. While
//! everything is synced for the first time, objects are created, changed and deleted at the sources, and faults that a
//! seed gives refuse, delay, lose, cut off and compact. Then all is healed, and when the hub's status says that all is in
//! step, every copy is compared with its source, deletes are compared with those at the sources, and nobody may
//! write any more.

mod faults;
mod fleet;
mod hub;
mod latency;
mod objects;
mod report;
mod settle;
mod usage;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use lockstep_tests::model::serve::Asked;
use tokio::time::Instant;

use fleet::{Fleet, Member, Runtimes};
use latency::{Latencies, percentile};
use usage::{Meter, RUN};
use writer::{Edits, Writer};

pub use faults::What;
pub use report::Report;

/// How long nothing happens when it is measured what that takes.
const IDLE: Duration = Duration::from_secs(3);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Clusters, more than three.
    pub clusters: usize,
    /// Objects that each holds, about.
    pub objects: usize,
    /// Gives the faults and edits.
    pub seed: u64,
    /// How long there are edits and faults.
    pub length: Duration,
    /// Which faults.
    pub faults: Vec<What>,
    /// Within this time after the last fault everything must be in step.
    pub patience: Duration,
    /// How often the way of one change is measured.
    pub rounds: usize,
    /// Run the hub in a process of its own, to see its memory. Only for the program `fleet`.
    pub hub_apart: bool,
    /// Tell on standard error what happens.
    pub verbose: bool,
}

/// Runs a fleet. The report says whether anything differs.
///
/// # Errors
/// If the run itself could not be carried out, or did not come in step.
pub fn run(options: &Options) -> Result<Report> {
    let dir = tempfile::tempdir()?;
    let runtimes = Runtimes::build()?;
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ran = own.block_on(Box::pin(carry_out(options, dir.path(), &runtimes)));
    // Whatever still runs may end in the background.
    let Runtimes { model, agents, hub } = runtimes;
    [agents, hub, model].into_iter().for_each(tokio::runtime::Runtime::shutdown_background);
    ran
}

/// Runs the hub alone, for a run with [`Options::hub_apart`], until the standard input ends.
///
/// # Errors
/// If it cannot run.
pub fn serve_hub(dir: PathBuf, clusters: usize) -> Result<()> {
    hub::serve(dir, fleet::names(clusters))
}

async fn carry_out(options: &Options, dir: &Path, runtimes: &Runtimes) -> Result<Report> {
    let tell = |text: &str| tell(options, text);
    let fleet = Fleet::start(options, dir, runtimes).await.context("starting")?;
    let began = Instant::now();
    tell("all agents are started");
    let meter = Meter::start(fleet.hub.pid())?;
    let bystanders: Vec<_> =
        fleet.members.iter().map(|member| member.served.look(objects::bystander)).collect();
    let before = meter.read();
    let (faults, edits) = hurt(options, &fleet.members, began).await?;
    tell(&format!("{:.0} s: no more faults", began.elapsed().as_secs_f32()));
    let healed = settle::in_step(&fleet, options.patience, &tell).await?;
    let in_step = began.elapsed();
    tell(&format!("{:.0} s: in step; comparing", in_step.as_secs_f32()));
    let cpu = since(&before, &meter.read());
    let requests = settle::traffic(&fleet.members);
    let applies = applied(&requests);
    let mut report = Report {
        clusters: options.clusters,
        objects: options.objects,
        seed: options.seed,
        seconds: options.length.as_secs(),
        copies: copies(&fleet.members),
        in_step_seconds: in_step.as_secs_f32(),
        after_faults_seconds: healed.as_secs_f32(),
        applies,
        applies_per_second: applies as f32 / in_step.as_secs_f32(),
        cpu_us_per_apply: microseconds(&cpu, applies),
        edits: edits.done,
        faults,
        ..Report::default()
    };
    settle::quiet(&fleet.members, options.patience).await?;
    report.differences = settle::compare(&fleet.members, &bystanders, &edits);
    afterwards(options, &fleet, &meter, runtimes, &mut report).await?;
    report.requests = by_outcome(&settle::traffic(&fleet.members));
    report.peak_mib = usage::memory_kib(std::process::id(), "VmHWM")? >> 10;
    report.hub_peak_mib =
        fleet.hub.pid().map(|pid| usage::memory_kib(pid, "VmHWM")).transpose()?.map(|kib| kib >> 10);
    report.data_mib = size(&dir.join("data"))? >> 20;
    fleet.stop().await.context("stopping")?;
    Ok(report)
}

/// Edits and faults, until the time is over and everything is healed.
async fn hurt(
    options: &Options,
    members: &Arc<Vec<Member>>,
    began: Instant,
) -> Result<(BTreeMap<String, u64>, Edits)> {
    let until = began + options.length;
    let writer = Writer::new(members, options.objects, options.seed).run(until);
    let events = faults::schedule(options.seed, options.length, options.clusters, &options.faults);
    let inject = async {
        let mut counts = BTreeMap::new();
        for event in events {
            tokio::time::sleep_until(began + event.at).await;
            if let Some(member) = members.get(event.cluster) {
                event.act(member);
            }
            *counts.entry(event.what.to_string()).or_default() += u64::from(event.begins);
        }
        counts
    };
    let (edits, counts) = tokio::join!(writer, inject);
    faults::heal(members);
    Ok((counts, edits?))
}

/// What one change takes, and what nothing takes.
async fn afterwards(
    options: &Options,
    fleet: &Fleet,
    meter: &Meter,
    runtimes: &Runtimes,
    report: &mut Report,
) -> Result<()> {
    let before = meter.read();
    tokio::time::sleep(IDLE).await;
    let idle = since(&before, &meter.read());
    report.idle_cpu_percent =
        idle.into_iter().map(|(part, ns)| (part, ns as f32 / 1e7 / IDLE.as_secs_f32())).collect();
    let before = meter.read();
    let Latencies { each, last } =
        latency::measure(&fleet.members, options.rounds, options.patience, runtimes.model.handle()).await?;
    report.change_cpu_us = microseconds(&since(&before, &meter.read()), each.len() as u64);
    let figures =
        |sorted: &[Duration]| [50, 99, 100].map(|percent| percentile(sorted, percent).as_secs_f32() * 1e3);
    (report.latency_ms, report.last_target_ms) = (figures(&each), figures(&last));
    Ok(())
}

type Cpu = BTreeMap<&'static str, u64>;

fn since(before: &Cpu, after: &Cpu) -> Cpu {
    let of = |part: &&'static str| before.get(part).copied().unwrap_or_default();
    after
        .iter()
        .filter(|(part, _)| **part != RUN)
        .map(|(part, ns)| (*part, ns.saturating_sub(of(part))))
        .collect()
}

fn microseconds(cpu: &Cpu, per: u64) -> BTreeMap<&'static str, f32> {
    cpu.iter().map(|(part, ns)| (*part, *ns as f32 / 1e3 / per.max(1) as f32)).collect()
}

fn applied(requests: &BTreeMap<Asked, u64>) -> u64 {
    let applied = requests.iter().filter(|(asked, _)| {
        settle::is_write(asked) && asked.verb == "apply" && matches!(asked.status, 200 | 201)
    });
    applied.map(|(_, count)| count).sum()
}

fn by_outcome(requests: &BTreeMap<Asked, u64>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (Asked { verb, status, resource }, count) in requests {
        let outcome = if *status == 0 { "lost".to_owned() } else { status.to_string() };
        let what = if resource == "leases" { "lease" } else { verb };
        *sums.entry(format!("{what}:{outcome}")).or_default() += count;
    }
    sums
}

fn copies(members: &[Member]) -> u64 {
    let held = members.iter().enumerate().take(objects::SOURCES.len()).flat_map(|(source, from)| {
        objects::Kind::ALL.map(|kind| {
            let count = from.served.look(|server| objects::originals(server, source, kind).len());
            let accept = |(index, to): &(usize, &Member)| *index != source && to.accepts.contains(&kind);
            count * members.iter().enumerate().filter(accept).count()
        })
    });
    held.sum::<usize>() as u64
}

fn size(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // Files come and go.
        let Ok(facts) = entry.metadata() else { continue };
        bytes += if facts.is_dir() { size(&entry.path())? } else { facts.len() };
    }
    Ok(bytes)
}

#[allow(clippy::print_stderr, reason = "progress for the person who waits; only on request")]
fn tell(options: &Options, text: &str) {
    if options.verbose {
        eprintln!("fleet: {text}");
    }
}
