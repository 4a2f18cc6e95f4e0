//! Tells what happens, in a few lines: clusters that come and go, policies, findings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lockstep_hub::http::types::{ClusterStatus, HubFacts};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::error::CliError;
use crate::output::{Out, Paint, plain};

/// How often it looks.
const POLL: Duration = Duration::from_millis(500);
/// How long a cluster may take to connect before it is called missing.
const PATIENCE: u32 = 10;

/// What was told last.
#[derive(Debug, Default)]
struct Told {
    clusters: BTreeMap<String, bool>,
    policies: Option<u64>,
    findings: BTreeSet<String>,
    looks: u32,
}

/// Tells until `stop`.
pub(super) async fn run(client: Client, out: Out, stop: CancellationToken) {
    let mut told = Told::default();
    loop {
        let seen: Result<HubFacts, CliError> = client.get("hub", &[]).await;
        match seen {
            Ok(facts) => {
                for (paint, line) in told.news(&facts) {
                    // A closed stdout is no reason to stop working.
                    let _ = out.line(&out.palette.paint(paint, &plain(&line)));
                }
            }
            Err(error) => tracing::debug!("{error}"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

impl Told {
    /// The lines that are new.
    fn news(&mut self, facts: &HubFacts) -> Vec<(Paint, String)> {
        let mut lines = Vec::new();
        self.looks = self.looks.saturating_add(1);
        for cluster in &facts.clusters {
            self.cluster(cluster, &mut lines);
        }
        if self.policies != Some(facts.policies) && (facts.policies > 0 || self.policies.is_some()) {
            self.policies = Some(facts.policies);
            let plural = if facts.policies == 1 { "policy" } else { "policies" };
            lines.push((Paint::Good, format!("{} {plural} loaded", facts.policies)));
        }
        let findings: BTreeSet<String> = facts.findings.iter().map(ToString::to_string).collect();
        for new in findings.difference(&self.findings) {
            lines.push((Paint::Bad, new.clone()));
        }
        if findings.is_empty() && !self.findings.is_empty() {
            lines.push((Paint::Good, "policy files: nothing to mend any more".to_owned()));
        }
        self.findings = findings;
        lines
    }

    fn cluster(&mut self, cluster: &ClusterStatus, lines: &mut Vec<(Paint, String)>) {
        let ClusterStatus { name, connected, server_version, problem, .. } = cluster;
        let before = self.clusters.get(name).copied();
        // A cluster that was never seen gets some time before it is called missing.
        if before == Some(*connected) || (before.is_none() && !connected && self.looks < PATIENCE) {
            return;
        }
        self.clusters.insert(name.clone(), *connected);
        if *connected {
            lines.push((Paint::Good, format!("{name}: connected, Kubernetes {server_version}")));
        } else {
            let why =
                problem.clone().unwrap_or_else(|| "no agent is in session; the log says why".to_owned());
            lines.push((Paint::Bad, format!("{name}: not connected: {why}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(connected: bool, policies: u64) -> HubFacts {
        HubFacts {
            kind: "HubFacts".to_owned(),
            version: "0".to_owned(),
            protocol: 1,
            hub_id: String::new(),
            clock_ms: 0,
            started_at_ms: 0,
            paused: false,
            outbox: 0,
            policies,
            findings: vec![],
            problems: vec![],
            clusters: vec![ClusterStatus {
                name: "a".to_owned(),
                uid: None,
                connected,
                since_ms: None,
                server_version: "v1.20.2".to_owned(),
                agent_version: String::new(),
                protocol: None,
                accepts: vec![],
                not_accepted: vec![],
                paused: false,
                objects: 0,
                clock_skew_ms: None,
                queued_items: None,
                waiting: 0,
                rewound: None,
                problem: None,
                watches: vec![],
            }],
        }
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut told = Told::default();
        assert!(told.news(&facts(false, 0)).is_empty(), "it is early");
        let lines: Vec<String> = told.news(&facts(true, 1)).into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, ["a: connected, Kubernetes v1.20.2", "1 policy loaded"]);
        assert!(told.news(&facts(true, 1)).is_empty());
        assert!(told.news(&facts(false, 1))[0].1.starts_with("a: not connected"));
    }
}
