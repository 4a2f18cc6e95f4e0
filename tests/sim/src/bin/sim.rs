//! `sim`: thousands of histories of whole fleets, from seeds.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use lockstep_sim::{Outcome, Plan, run, shrink};

/// Histories are millions of small objects: the allocator is a tenth of their time with that of the C library.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// Histories that shortening a failure may take.
const SHRINK_RUNS: usize = 400;

/// Runs histories of whole fleets in virtual time, each from its seed, and checks every invariant.
#[derive(Debug, Parser)]
struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 20_001)]
    from: u64,
    /// Only this seed, with its log.
    #[arg(long)]
    seed: Option<u64>,
    /// Things done in each history.
    #[arg(long, default_value_t = 200)]
    events: usize,
    /// Threads; without it as many as there are cores.
    #[arg(long)]
    threads: Option<usize>,
    /// What agents and hub trace in the history that is shown last, to stderr: a filter as in RUST_LOG. With --seed.
    #[arg(long)]
    trace: Option<String>,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Do not shorten failures.
    #[arg(long)]
    no_shrink: bool,
    /// Switch guards off in turn; at most `--seeds` histories for each.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    guards: bool,
    /// Only these guards; `A+B` are switched off together. With --guards.
    #[cfg(feature = "mutants")]
    #[arg(long, value_delimiter = ',', value_parser = mutants::parse)]
    only: Vec<mutants::Mutant>,
    /// Take every N-th seed only: with 5, from 20,001 on, each history restores a cluster. With --guards.
    #[cfg(feature = "mutants")]
    #[arg(long, default_value_t = 1)]
    step: usize,
    /// These guards are off, `A+B` or one. With --seed.
    #[cfg(feature = "mutants")]
    #[arg(long, value_parser = mutants::parse)]
    without: Option<mutants::Mutant>,
}

/// Is what is traced shown?
static TRACED: AtomicBool = AtomicBool::new(false);

struct Traced;

impl std::io::Write for Traced {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if TRACED.load(Ordering::Relaxed) { std::io::stderr().write(bytes) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Traced {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

#[derive(Default)]
struct Tally {
    done: AtomicU64,
    writes: AtomicU64,
    deletes: AtomicU64,
    commits: AtomicU64,
    virtual_ms: AtomicU64,
    stop: AtomicBool,
    faults: Mutex<BTreeMap<String, u64>>,
    met: Mutex<BTreeMap<&'static str, u64>>,
    failures: Mutex<Vec<(u64, String)>>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(filter) = &options.trace {
        let filter = format!("sim=info,{filter}");
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(Traced).init();
    }
    #[cfg(feature = "mutants")]
    if options.guards {
        return mutants::hunt_all(&options);
    }
    #[cfg(feature = "mutants")]
    if let Some(mutant) = &options.without {
        lockstep_engine::guard::switch_off(&mutant.0);
    }
    if let Some(seed) = options.seed {
        return one(seed, &options);
    }
    let tally = Tally::default();
    let next = AtomicU64::new(options.from);
    let end = options.from + options.seeds;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..options.threads.unwrap_or(cores) {
            scope.spawn(|| work(&options, &tally, &next, end));
        }
        let mut told = Instant::now();
        while tally.done.load(Ordering::Relaxed) < options.seeds && !tally.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                progress(&tally, options.seeds, begun);
            }
        }
    });
    report(&tally, &options, begun)
}

/// Guards switched off in turn.
#[cfg(feature = "mutants")]
mod mutants {
    use std::process::ExitCode;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use lockstep_engine::guard::Guard;
    use lockstep_sim::{Hunt, hunt};

    use super::Options;

    /// Guards that are off together.
    #[derive(Clone, Debug)]
    pub(super) struct Mutant(pub(super) Vec<Guard>);

    pub(super) fn parse(text: &str) -> Result<Mutant, String> {
        let find = |name: &str| Guard::ALL.iter().copied().find(|guard| guard.name() == name);
        let guards =
            text.split('+').map(|name| find(name).ok_or_else(|| format!("no guard is called {name}")));
        guards.collect::<Result<_, _>>().map(Mutant)
    }

    pub(super) fn hunt_all(options: &Options) -> ExitCode {
        let mutants = if options.only.is_empty() {
            Guard::ALL.iter().map(|guard| Mutant(vec![*guard])).collect()
        } else {
            options.only.clone()
        };
        let (next, survivors) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let threads = options.threads.unwrap_or(1).max(1);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let seeds = (options.from..).step_by(options.step.max(1));
                        let found = hunt(
                            &mutant.0,
                            seeds.take(usize::try_from(options.seeds).unwrap_or(usize::MAX)),
                            options.events,
                        );
                        survivors.fetch_add(usize::from(found.found.is_none()), Ordering::Relaxed);
                        tell(mutant, &found);
                    }
                });
            }
        });
        let survivors = survivors.load(Ordering::Relaxed);
        println!("{} guards, {survivors} of them not missed", mutants.len());
        if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn tell(Mutant(guards): &Mutant, hunt: &Hunt) {
        let names: Vec<&str> = guards.iter().map(|guard| guard.name()).collect();
        let serves = guards.first().map_or("", |guard| guard.invariant());
        let (names, seeds) = (names.join("+"), hunt.seeds);
        match &hunt.found {
            Some((seed, violation)) => {
                println!("{names} ({serves}): after {seeds} seeds, seed {seed}: {violation}")
            }
            None => println!("{names} ({serves}): SURVIVES {seeds} seeds"),
        }
    }
}

fn work(options: &Options, tally: &Tally, next: &AtomicU64, end: u64) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || tally.stop.load(Ordering::Relaxed) {
            return;
        }
        let outcome = run(&Plan::draw(seed, options.events));
        add(tally, &outcome);
        if let Some(violation) = outcome.violation {
            println!("seed {seed}: {violation}");
            let mut failures = tally.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.push((seed, violation));
            if !options.keep_going {
                tally.stop.store(true, Ordering::Relaxed);
            }
        }
        tally.done.fetch_add(1, Ordering::Relaxed);
    }
}

fn add(tally: &Tally, outcome: &Outcome) {
    tally.writes.fetch_add(outcome.counts.writes, Ordering::Relaxed);
    tally.deletes.fetch_add(outcome.counts.deletes, Ordering::Relaxed);
    tally.commits.fetch_add(outcome.counts.commits, Ordering::Relaxed);
    tally.virtual_ms.fetch_add(u64::try_from(outcome.took_ms).unwrap_or(0), Ordering::Relaxed);
    let mut faults = tally.faults.lock().unwrap_or_else(PoisonError::into_inner);
    for (fault, count) in &outcome.faults {
        *faults.entry(fault.clone()).or_default() += count;
    }
    let mut met = tally.met.lock().unwrap_or_else(PoisonError::into_inner);
    for (situation, count) in &outcome.met {
        *met.entry(situation).or_default() += count;
    }
}

fn progress(tally: &Tally, seeds: u64, begun: Instant) {
    let done = tally.done.load(Ordering::Relaxed);
    let failed = tally.failures.lock().unwrap_or_else(PoisonError::into_inner).len();
    println!("{done} of {seeds} seeds, {} a minute, {failed} failed", per_minute(done, begun));
}

fn per_minute(done: u64, begun: Instant) -> u64 {
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    done * 60_000 / ms
}

fn report(tally: &Tally, options: &Options, begun: Instant) -> ExitCode {
    let done = tally.done.load(Ordering::Relaxed);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!("{done} histories of {} events, {} a minute", options.events, per_minute(done, begun));
    println!("  {} virtual hours", count(&tally.virtual_ms) / 3_600_000);
    println!("  {} writes of agents judged, {} of them deletes", count(&tally.writes), count(&tally.deletes));
    println!("  {} commits of the hub compared with what happened", count(&tally.commits));
    println!("coverage, faults:");
    for (fault, count) in tally.faults.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("  {count:>7}  {fault}");
    }
    println!("coverage, what came of them:");
    for (situation, count) in tally.met.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("  {count:>7}  {situation}");
    }
    let failures = tally.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let mut kinds: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (seed, violation) in failures.iter() {
        kinds.entry(violation.split(':').next().unwrap_or_default()).or_default().push(*seed);
    }
    for (kind, seeds) in &kinds {
        println!("FAILED {kind}: {} seeds, {:?}", seeds.len(), &seeds[..seeds.len().min(12)]);
    }
    match failures.first() {
        None => ExitCode::SUCCESS,
        Some((seed, _)) => {
            if !options.no_shrink {
                shorten(*seed, options);
            }
            println!("again: sim --seed {seed} --events {}", options.events);
            ExitCode::FAILURE
        }
    }
}

fn shorten(seed: u64, options: &Options) {
    println!("seed {seed}: shortening");
    match shrink(&Plan::draw(seed, options.events), SHRINK_RUNS) {
        None => println!("it does not fail again: the simulation is not deterministic, which is a bug"),
        Some(shrunk) => {
            TRACED.store(true, Ordering::Relaxed);
            let _ = run(&shrunk.plan);
            println!("{}", shrunk.outcome.log);
            println!(
                "{} of {} events are left, after {} runs",
                shrunk.plan.len(),
                options.events,
                shrunk.runs
            );
            println!("{}", shrunk.outcome.violation.unwrap_or_default());
        }
    }
}

fn one(seed: u64, options: &Options) -> ExitCode {
    let begun = Instant::now();
    let plan = Plan::draw(seed, options.events);
    TRACED.store(options.no_shrink, Ordering::Relaxed);
    let outcome = run(&plan);
    println!("{}", outcome.log);
    println!("{} ms for {} virtual ms", begun.elapsed().as_millis(), outcome.took_ms);
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("{violation}");
            if !options.no_shrink {
                shorten(seed, options);
            }
            ExitCode::FAILURE
        }
    }
}
