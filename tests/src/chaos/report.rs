//! What a run did and found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Options;
use super::fleet::Fleet;
use super::history::Past;
use super::inject::History;
use super::journal::{Journal, Outcome};
use super::settle::Settled;

/// Differences that are printed; the file has all.
const SHOWN: usize = 25;

/// What a run did and found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Of the run.
    pub seed: u64,
    /// How long things were hurt, in seconds.
    pub length_seconds: u64,
    /// The whole run, in seconds.
    pub seconds: u64,
    /// How often each fault was carried out.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults that could not be carried out as planned, and why.
    pub faults_failed: Vec<String>,
    /// Operations of the writer that were acknowledged, refused, and without an answer.
    pub operations: [u64; 3],
    /// Full lists that agents asked the API servers for.
    pub lists: u64,
    /// Requests with which lockstep changed something.
    pub writes: u64,
    settled: Settled,
    tombstones_required: u64,
    deletes_by_lockstep: u64,
    sources_compared: u64,
    /// Something was found and healed by the comparison between agents and hub, which should never find anything.
    pub doubtful: bool,
    /// What is wrong. Empty: the run was passed.
    pub differences: Vec<String>,
    directory: String,
    filters: Vec<String>,
}

impl Report {
    #[allow(clippy::too_many_arguments, reason = "it gathers from everywhere, once")]
    pub(super) fn of(
        options: &Options,
        directory: &Path,
        took: Duration,
        fleet: &Fleet,
        journal: &Journal,
        history: History,
        settled: Settled,
        past: Result<Past>,
    ) -> Result<Self> {
        let mut differences = settled.differences.clone();
        let past = past.unwrap_or_else(|error| {
            differences.push(format!("the past could not be compared: {error:#}"));
            Past::default()
        });
        differences.extend(past.differences);
        // A process that panicked is a failure, even if all is well in the end.
        differences.extend(logged(fleet, "panicked at")?);
        let mut faults = BTreeMap::new();
        let mut faults_failed = vec![];
        for done in &history.done {
            *faults.entry(done.name).or_default() += 1;
            faults_failed.extend(done.error.as_ref().map(|error| format!("{}: {error}", done.fault)));
        }
        let mut operations = [0; 3];
        for entry in journal.entries() {
            operations[match entry.outcome {
                Outcome::Acknowledged => 0,
                Outcome::Refused => 1,
                Outcome::Unknown => 2,
            }] += 1;
        }
        let mut settled = settled;
        let Requests { lists, writes, others } = requests(fleet).unwrap_or_else(|error| {
            settled.remarks.push(format!("requests could not be counted: {error:#}"));
            Requests::default()
        });
        differences.extend(
            others
                .iter()
                .map(|shape| format!("a request that tests/allowed-requests.txt does not name: {shape}")),
        );
        // Healed, and yet nothing that should ever be found.
        let healed = logged(fleet, "what differs is read again")?;
        let doubtful = !healed.is_empty();
        settled.remarks.extend(healed);
        settled.remarks.extend(fleet.processes().flat_map(super::process::Process::surprises));
        Ok(Self {
            seed: options.seed,
            length_seconds: options.length.as_secs(),
            seconds: took.as_secs(),
            faults,
            faults_failed,
            operations,
            lists,
            writes,
            settled,
            tombstones_required: past.tombstones_required,
            deletes_by_lockstep: past.deletes_by_lockstep,
            sources_compared: past.sources_compared,
            doubtful,
            differences,
            directory: directory.display().to_string(),
            filters: options
                .only
                .iter()
                .map(|only| format!("--only '{only}'"))
                .chain(options.skip.iter().map(|skip| format!("--skip '{skip}'")))
                .collect(),
        })
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }

    /// Writes itself down; of a run that was passed without a doubt, only that and what was done stays.
    pub(super) fn write(&self, directory: &Path, keep: bool) -> Result<()> {
        if self.passed() && !self.doubtful && !keep {
            for entry in std::fs::read_dir(directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    std::fs::remove_dir_all(&path)?;
                } else if path.extension().is_none_or(|extension| extension != "jsonl") {
                    std::fs::remove_file(&path)?;
                }
            }
        }
        let text = serde_json::to_vec_pretty(self)?;
        std::fs::write(directory.join("report.json"), text).context("writing the report")
    }
}

/// Lines of the logs that say this.
fn logged(fleet: &Fleet, phrase: &str) -> Result<Vec<String>> {
    let mut found = vec![];
    for process in fleet.processes() {
        let log =
            std::fs::read(&process.log).with_context(|| format!("reading {}", process.log.display()))?;
        let log = String::from_utf8_lossy(&log);
        let lines = log.lines().filter(|line| line.contains(phrase));
        found.extend(lines.map(|line| format!("{}: {line}", process.name)));
    }
    Ok(found)
}

/// What lockstep asked the API servers for.
#[derive(Default)]
struct Requests {
    /// Full lists, page by page.
    lists: u64,
    writes: u64,
    /// Shapes that older or newer servers may not know: `make test` compares them too.
    others: BTreeSet<String>,
}

/// From the API servers' audit logs.
fn requests(fleet: &Fleet) -> Result<Requests> {
    let allowed =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("allowed-requests.txt"))?;
    let allowed: BTreeSet<&str> = allowed.lines().map(str::trim).collect();
    let mut requests = Requests::default();
    for cluster in fleet.bed.clusters() {
        for event in cluster.audit_events()? {
            if !event.user_agent.starts_with("lockstep/") {
                continue;
            }
            let uri = &event.request_uri;
            match event.verb.as_str() {
                "list" if !uri.contains("limit=1&") && !uri.ends_with("limit=1") => requests.lists += 1,
                "patch" | "create" | "delete" | "update" => requests.writes += 1,
                _ => {}
            }
            let shape = event.shape();
            if !allowed.contains(shape.as_str()) {
                requests.others.insert(shape);
            }
        }
    }
    Ok(requests)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, length_seconds, seconds, settled, .. } = self;
        writeln!(f, "chaos, seed {seed}: {length_seconds} s of faults, {seconds} s in all")?;
        for (name, count) in &self.faults {
            writeln!(f, "  {count:>4}  {name}")?;
        }
        let [acknowledged, refused, unknown] = self.operations;
        writeln!(
            f,
            "operations: {acknowledged} acknowledged, {refused} refused, {unknown} without an answer"
        )?;
        writeln!(f, "lockstep: {} requests for lists, {} writes", self.lists, self.writes)?;
        let Settled { seconds, approvals, rewinds_accepted, conflicts_resolved, remarks, .. } = settled;
        writeln!(
            f,
            "in step {seconds:.0} s after the last fault; {approvals} deletes approved, {rewinds_accepted} rewinds accepted, {conflicts_resolved} conflicts resolved"
        )?;
        writeln!(
            f,
            "compared: {} sources with the journal, {} tombstones, {} deletes by lockstep",
            self.sources_compared, self.tombstones_required, self.deletes_by_lockstep
        )?;
        for remark in self.faults_failed.iter().chain(remarks) {
            writeln!(f, "remark: {remark}")?;
        }
        for difference in self.differences.iter().take(SHOWN) {
            writeln!(f, "DIFFERENCE: {difference}")?;
        }
        let more = self.differences.len().saturating_sub(SHOWN);
        if more > 0 {
            writeln!(f, "and {more} more")?;
        }
        if self.passed() {
            write!(f, "no difference")
        } else {
            writeln!(f, "logs, journal and report: {}", self.directory)?;
            write!(f, "the same faults again: target/debug/chaos --seed {seed} --seconds {length_seconds}")?;
            self.filters.iter().try_for_each(|filter| write!(f, " {filter}"))
        }
    }
}
