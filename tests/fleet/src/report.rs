//! What a run did and found.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Differences that are printed.
const SHOWN: usize = 25;

/// What a run did and found.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Clusters.
    pub clusters: usize,
    /// Objects that each holds, at the start.
    pub objects: usize,
    /// Of the faults and edits.
    pub seed: u64,
    /// Seconds of faults and edits.
    pub seconds: u64,
    /// Copies that there should be at the end.
    pub copies: u64,
    /// From the start of the agents until the status says that all is in step, in seconds.
    pub in_step_seconds: f32,
    /// The same since the last fault ended.
    pub after_faults_seconds: f32,
    /// Applies that succeeded, until then.
    pub applies: u64,
    /// The same, per second.
    pub applies_per_second: f32,
    /// CPU by part until then, in microseconds per apply that succeeded.
    pub cpu_us_per_apply: BTreeMap<&'static str, f32>,
    /// Milliseconds from one change to its arrival at a target: median, 99th percentile, worst.
    pub latency_ms: [f32; 3],
    /// The same at the last of all targets.
    pub last_target_ms: [f32; 3],
    /// CPU by part for a change, per target, in microseconds.
    pub change_cpu_us: BTreeMap<&'static str, f32>,
    /// CPU by part while nothing happens, in percent of one core.
    pub idle_cpu_percent: BTreeMap<&'static str, f32>,
    /// Peak memory of the whole process, MiB.
    pub peak_mib: u64,
    /// Peak memory of the hub alone, where it has a process of its own, MiB.
    pub hub_peak_mib: Option<u64>,
    /// Size of the hub's data, MiB.
    pub data_mib: u64,
    /// Edits of the writer.
    pub edits: u64,
    /// Faults by name.
    pub faults: BTreeMap<String, u64>,
    /// Requests to all API servers, by verb and outcome, at the end.
    pub requests: BTreeMap<String, u64>,
    /// What is wrong. Empty: the run was passed.
    pub differences: Vec<String>,
}

impl Report {
    /// Was nothing wrong?
    #[must_use]
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

fn listed<V: fmt::Display>(map: &BTreeMap<impl fmt::Display, V>) -> String {
    map.iter().map(|(name, value)| format!("{name} {value:.0}")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clusters, objects, seed, seconds, copies, edits, .. } = self;
        writeln!(
            f,
            "{clusters} clusters, {objects} objects each, {copies} copies; {seconds} s of edits and faults, seed {seed}"
        )?;
        writeln!(f, "faults       {}", listed(&self.faults))?;
        writeln!(f, "edits        {edits}")?;
        writeln!(
            f,
            "in step      {:.1} s after the start, {:.1} s after the last fault",
            self.in_step_seconds, self.after_faults_seconds
        )?;
        writeln!(f, "applies      {}, {:.0}/s", self.applies, self.applies_per_second)?;
        writeln!(f, "CPU/apply    {} (us)", listed(&self.cpu_us_per_apply))?;
        let times = |[median, high, worst]: [f32; 3]| {
            format!("p50 {median:.1} ms, p99 {high:.1} ms, worst {worst:.1} ms")
        };
        writeln!(f, "one change   {} to a target", times(self.latency_ms))?;
        writeln!(f, "             {} to the last target", times(self.last_target_ms))?;
        writeln!(f, "             CPU per target: {} (us)", listed(&self.change_cpu_us))?;
        writeln!(f, "idle         {} (% of a core)", listed(&self.idle_cpu_percent))?;
        let alone = self.hub_peak_mib.map_or_else(String::new, |mib| format!(", the hub alone {mib} MiB"));
        writeln!(f, "peak memory  {} MiB{alone}; the hub's data {} MiB", self.peak_mib, self.data_mib)?;
        writeln!(f, "requests     {}", listed(&self.requests))?;
        for difference in self.differences.iter().take(SHOWN) {
            writeln!(f, "DIFFERENCE   {difference}")?;
        }
        if self.differences.len() > SHOWN {
            writeln!(f, "and {} more", self.differences.len() - SHOWN)?;
        }
        write!(f, "{}", if self.passed() { "passed" } else { "FAILED" })
    }
}
