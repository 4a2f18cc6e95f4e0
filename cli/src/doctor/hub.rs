//! Checks of the hub: reachable, of this version, its clock, its sessions and watches.

use std::net::SocketAddr;

use lockstep_hub::HubConfig;
use lockstep_hub::http::types::{ClusterStatus, HubFacts, PolicyReport, Problem, ReasonCount};

use super::Check;
use crate::client::Client;
use crate::output::{now_ms, span};

/// Clocks that differ by more make ages and lags misleading, and certificates invalid early.
pub(super) const SKEW_MS: i64 = 2_000;

/// Asks the hub; where none answers, says whether one could start.
pub(super) async fn check(client: &Client, config: Option<&HubConfig>, checks: &mut Vec<Check>) {
    let before = now_ms();
    let facts: HubFacts = match client.get("hub", &[]).await {
        Ok(facts) => facts,
        Err(error) => {
            checks.push(Check::error("hub", &error));
            if let Some(config) = config.filter(|_| error.code() == "LS0001") {
                ports(config, checks);
            }
            return;
        }
    };
    let ours = env!("CARGO_PKG_VERSION");
    if facts.version == ours {
        checks.push(Check::ok("hub", format!("{} answers, version {ours}", client.server())));
    } else {
        let message =
            format!("{} answers with version {}, this command is {ours}", client.server(), facts.version);
        checks.push(Check::warning("hub", message, "use the same version on both sides"));
    }
    // Half of the way there and back is the best guess at when it looked at its clock.
    let middle = before + (now_ms() - before) / 2;
    checks.push(skew("hub clock", facts.clock_ms - middle));
    if facts.paused {
        checks.push(Check::warning("hub", "everything is paused", "`lockstep resume --all` goes on"));
    }
    for Problem { code, message, remedy, since_ms: _, stops_work } in &facts.problems {
        let message = format!("{code}: {message}");
        checks.push(if *stops_work {
            Check::failure("hub", message, remedy)
        } else {
            Check::warning("hub", message, remedy)
        });
    }
    for finding in &facts.findings {
        checks.push(Check::failure(
            "policies at the hub",
            finding.to_string(),
            "the last good version stays in force",
        ));
    }
    for cluster in &facts.clusters {
        session(cluster, checks);
    }
    match client.get::<PolicyReport>("policies", &[]).await {
        Ok(report) => waiting(&report, checks),
        Err(error) => checks.push(Check::error("policies at the hub", &error)),
    }
}

/// What waits for a person, by policy, target and reason.
fn waiting(report: &PolicyReport, checks: &mut Vec<Check>) {
    for policy in &report.items {
        for target in &policy.targets {
            let name = format!("policy {} at {}", policy.name, target.target);
            for ReasonCount { state, reason, count, since_ms: _, meaning, remedy } in &target.reasons {
                let Some(remedy) = remedy else { continue };
                let mut message = format!("{count} {state} ({reason})");
                if let Some(meaning) = meaning {
                    message.push_str(&format!(": {meaning}"));
                }
                checks.push(Check::warning(&name, message, remedy));
            }
        }
    }
}

/// A check on the difference of two clocks.
pub(super) fn skew(name: &str, skew_ms: i64) -> Check {
    let shown = span(skew_ms.abs());
    if skew_ms.abs() <= SKEW_MS {
        Check::ok(name, format!("within {shown}"))
    } else {
        let side = if skew_ms < 0 { "behind" } else { "ahead" };
        Check::warning(name, format!("{shown} {side}"), "synchronise the clocks (chrony, systemd-timesyncd)")
    }
}

fn session(cluster: &ClusterStatus, checks: &mut Vec<Check>) {
    let name = format!("cluster {}", cluster.name);
    if !cluster.connected {
        let why = cluster.problem.clone().unwrap_or_else(|| "its agent is not connected".to_owned());
        let remedy = "look at the agent's log; its token comes from `lockstep token create`";
        checks.push(Check::failure(&name, why, remedy));
        return;
    }
    if let Some(skew_ms) = cluster.clock_skew_ms.filter(|skew| skew.abs() > SKEW_MS) {
        checks.push(skew(&name, skew_ms));
    }
    for refused in &cluster.not_accepted {
        let remedy = "add the entry to `accept` in that cluster's agent.yaml, or take the kind or namespace out of the policy";
        checks.push(Check::warning(&name, refused.clone(), remedy));
    }
    let behind: Vec<_> = cluster.watches.iter().filter(|watch| watch.phase != "Live").collect();
    for watch in &behind {
        let message =
            format!("watch of {} is {}: {} {}", watch.kind, watch.phase, watch.reason, watch.message);
        let remedy = match watch.reason.as_str() {
            "NotServed" => "install the definition of this kind there, or leave it out of the policy",
            "Forbidden" => "give the agent's service account list and watch on it",
            _ => "`lockstep clusters` shows how it goes on",
        };
        checks.push(Check::warning(&name, message.trim().to_owned(), remedy));
    }
    if behind.is_empty() {
        let message = format!(
            "connected, {} watches live, Kubernetes {}",
            cluster.watches.len(),
            cluster.server_version
        );
        checks.push(Check::ok(&name, message));
    }
}

/// Could a hub listen?
fn ports(config: &HubConfig, checks: &mut Vec<Check>) {
    let listen = &config.listen;
    let addresses = [
        Some(("agents", listen.agents)),
        Some(("api", listen.api)),
        listen.metrics.map(|at| ("metrics", at)),
    ];
    for (name, address) in addresses.into_iter().flatten() {
        checks.push(port(name, address));
    }
}

fn port(name: &str, address: SocketAddr) -> Check {
    let check = format!("port for {name}");
    match std::net::TcpListener::bind(address) {
        Ok(_) => Check::ok(&check, format!("{address} is free")),
        Err(error) => {
            let remedy = format!("see what holds it (`ss -ltnp`), or set listen.{name}");
            Check::failure(&check, format!("{address} cannot be used: {error}"), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn taken_ports_and_wrong_clocks_are_found() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(port("api", taken.local_addr().unwrap()).verdict, Verdict::Failure);
        assert_eq!(port("api", "127.0.0.1:0".parse().unwrap()).verdict, Verdict::Ok);
        assert_eq!(skew("x", 500).verdict, Verdict::Ok);
        assert!(skew("x", -65_000).message.contains("1m5s behind"));
    }
}
