//! `lockstep status`.

use std::time::Duration;

use lockstep_hub::http::types::{Finding, Gap, PolicyReport, PolicyStatus, TargetStatus};

use crate::args::{ServerArgs, StatusArgs};
use crate::client::Client;
use crate::error::{CliError, Outcome};
use crate::output::{self, Cell, Out, Paint, Table, age, now_ms, span};
use crate::{server, signals};

/// How often `--watch` looks.
const REFRESH: Duration = Duration::from_secs(1);

/// Shows it once, or again whenever it changes.
pub(crate) async fn run(args: StatusArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let StatusArgs { policy, watch, output } = args;
    let client = server::client(server)?;
    let out = Out::new(output.output);
    if watch {
        return follow(&client, policy.as_deref(), &out).await;
    }
    let report = fetch(&client, policy.as_deref()).await?;
    out.show(&report, |wide| table(&report, wide, now_ms()), || names(&report))?;
    Ok(Outcome::Done)
}

pub(crate) async fn fetch(client: &Client, policy: Option<&str>) -> Result<PolicyReport, CliError> {
    client.get("policies", &[("policy", policy)]).await
}

fn names(report: &PolicyReport) -> Vec<String> {
    report.items.iter().map(|policy| format!("policy/{}", policy.name)).collect()
}

async fn follow(client: &Client, policy: Option<&str>, out: &Out) -> Result<Outcome, CliError> {
    let stop = signals::stop_quietly()?;
    let mut last: Option<String> = None;
    let screen = out.terminal && !out.structured();
    loop {
        let text = match fetch(client, policy).await {
            Ok(report) if out.structured() => out.encode(&report)?,
            Ok(report) => table(&report, true, now_ms()).render(out.palette),
            // A hub that restarts is no reason to stop watching; one that never answered is.
            Err(error) if last.is_some() => format!("{error}\n"),
            Err(error) => return Err(error),
        };
        if last.as_ref() != Some(&text) {
            if screen {
                if last.is_none() {
                    out.clear()?;
                }
                out.repaint(&text)?;
            } else {
                out.text(&text)?;
            }
            last = Some(text);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(Outcome::Done),
            () = tokio::time::sleep(REFRESH) => {}
        }
    }
}

/// The table that people see.
pub(crate) fn table(report: &PolicyReport, wide: bool, now: i64) -> Table {
    let mut headings = vec!["POLICY", "TARGET", "IN STEP", "PENDING", "HELD", "FAILED", "LAG", "STATE"];
    if wide {
        headings.splice(6..6, ["CONFLICT", "DIFFERS", "BLOCKED", "UNKNOWN", "PAUSED"]);
        headings.push("GENERATION");
        headings.push("SOURCE");
    }
    let mut table = Table::new(&headings, "no policies: put a ClusterSyncPolicy into the policies directory");
    for problem in &report.problems {
        table.above(problem.to_string(), Some(if problem.stops_work { Paint::Bad } else { Paint::Warn }));
    }
    if report.paused {
        table.above("everything is paused: `lockstep resume --all` goes on", Some(Paint::Warn));
    }
    for policy in &report.items {
        if policy.targets.is_empty() {
            let filler = vec![Cell::from(""); headings.len() - 2];
            let mut row = vec![Cell::from(&policy.name), Cell::from("")];
            row.extend(filler);
            table.row(row);
        }
        for target in &policy.targets {
            table.row(row(policy, target, wide));
        }
    }
    for policy in &report.items {
        for target in &policy.targets {
            reasons(&mut table, policy, target, now);
        }
    }
    let mut gaps: Vec<&Gap> = Vec::new();
    for gap in report.items.iter().flat_map(|policy| &policy.targets).flat_map(|target| &target.unknown) {
        if !gaps.contains(&gap) {
            gaps.push(gap);
            table.below(gap_line(gap, now), Some(Paint::Warn));
        }
    }
    for finding in &report.findings {
        table.below(finding.to_string(), Some(finding_paint(finding)));
    }
    table
}

/// The colour of a finding.
pub(crate) fn finding_paint(finding: &Finding) -> Paint {
    match finding.severity {
        lockstep_policies::Severity::Error => Paint::Bad,
        lockstep_policies::Severity::Warning => Paint::Warn,
    }
}

fn row(policy: &PolicyStatus, target: &TargetStatus, wide: bool) -> Vec<Cell> {
    let counts = &target.counts;
    // In the narrow table everything that needs a person counts as failed; STATE says what it is.
    let failed =
        if wide { counts.failed } else { counts.failed + counts.conflict + counts.differs + counts.blocked };
    let pending = if wide { counts.pending } else { counts.pending + counts.unknown };
    let mut cells = vec![
        Cell::from(&policy.name),
        Cell::from(&target.target),
        Cell::painted(format!("{}/{}", counts.in_step, counts.wanted()), Paint::Bold),
        Cell::count(pending, Paint::Warn),
        Cell::count(counts.held, Paint::Warn),
        Cell::count(failed, Paint::Bad),
    ];
    if wide {
        cells.push(Cell::count(counts.conflict, Paint::Bad));
        cells.push(Cell::count(counts.differs, Paint::Bad));
        cells.push(Cell::count(counts.blocked, Paint::Bad));
        cells.push(Cell::count(counts.unknown, Paint::Warn));
        cells.push(Cell::count(counts.paused, Paint::Warn));
    }
    cells.push(Cell::from(target.worst_lag_ms.map(span).unwrap_or_default()));
    cells.push(state(policy, target));
    if wide {
        cells.push(Cell::from(format!("{}/{}", policy.observed_generation, policy.generation)));
        cells.push(Cell::from(&policy.source));
    }
    cells
}

/// One word for a policy at a target, the gravest first.
fn state(policy: &PolicyStatus, target: &TargetStatus) -> Cell {
    let counts = &target.counts;
    let (text, paint) = if target.paused {
        ("Paused", Paint::Warn)
    } else if !target.connected {
        ("Disconnected", Paint::Bad)
    } else if counts.conflict > 0 {
        ("Conflict", Paint::Bad)
    } else if counts.differs > 0 {
        ("Differs", Paint::Bad)
    } else if counts.failed > 0 {
        ("Failed", Paint::Bad)
    } else if counts.blocked > 0 {
        ("Blocked", Paint::Bad)
    } else if counts.held > 0 {
        ("Held", Paint::Warn)
    } else if counts.unknown > 0 || !target.unknown.is_empty() {
        ("Unknown", Paint::Warn)
    } else if !counts.all_in_step() || policy.observed_generation < policy.generation {
        ("Pending", Paint::Warn)
    } else {
        ("InStep", Paint::Good)
    };
    Cell::painted(text, paint)
}

/// What keeps a target from being in step, below the table.
fn reasons(table: &mut Table, policy: &PolicyStatus, target: &TargetStatus, now: i64) {
    for reason in &target.reasons {
        let since = age(Some(reason.since_ms), now);
        let mut line = format!(
            "{} at {}: {} {} ({}) for {since}",
            policy.name, target.target, reason.count, reason.state, reason.reason
        );
        if let Some(meaning) = &reason.meaning {
            line.push_str(&format!(": {meaning}"));
        }
        if let Some(remedy) = &reason.remedy {
            line.push_str(&format!("; to do: {remedy}"));
        }
        table.below(line, Some(Paint::Dim));
    }
}

/// What is not known, and since when.
fn gap_line(gap: &Gap, now: i64) -> String {
    let Gap { cluster, kind, namespace, reason, message, since_ms } = gap;
    let mut line = match (kind.as_str(), namespace.as_str()) {
        ("", _) => format!("{cluster} is not known"),
        (kind, "") => format!("{kind} in {cluster} is not known"),
        (kind, namespace) => format!("{kind} in namespace {namespace} of {cluster} is not known"),
    };
    if since_ms.is_some() {
        line.push_str(&format!(" for {}", age(*since_ms, now)));
    }
    line.push_str(&format!(" ({reason})"));
    if !message.is_empty() {
        line.push_str(&format!(": {message}"));
    }
    line
}

/// Prints findings of policy files, one per line.
pub(crate) fn print_findings(out: &Out, findings: &[Finding]) -> Result<(), CliError> {
    for finding in findings {
        out.line(&out.palette.paint(finding_paint(finding), &output::plain(&finding.to_string())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Palette;
    use lockstep_engine::advice;
    use lockstep_engine::status::State;
    use lockstep_hub::http::types::{Counts, ReasonCount};

    fn report() -> PolicyReport {
        let target = |name: &str, counts, reasons| TargetStatus {
            target: name.to_owned(),
            connected: true,
            paused: false,
            counts,
            worst_lag_ms: Some(12),
            behind_since_ms: None,
            reasons,
            unknown: vec![],
        };
        let held = ReasonCount {
            state: State::Held,
            reason: "DeleteBudgetExceeded".to_owned(),
            count: 4,
            since_ms: 1_000,
            meaning: None,
            remedy: advice::remedy(State::Held, "DeleteBudgetExceeded", "production", "cluster-c"),
        };
        PolicyReport {
            kind: "PolicyList".to_owned(),
            items: vec![PolicyStatus {
                name: "production".to_owned(),
                file: "p.yaml".to_owned(),
                source: "cluster-a".to_owned(),
                kinds: vec!["Deployment.apps".to_owned()],
                paused: false,
                generation: 2,
                observed_generation: 2,
                targets: vec![
                    target("cluster-b", Counts { in_step: 7, ..Counts::default() }, vec![]),
                    target("cluster-c", Counts { in_step: 3, held: 4, ..Counts::default() }, vec![held]),
                ],
            }],
            paused: false,
            findings: vec![],
            problems: vec![],
        }
    }

    #[test]
    fn the_table_shows_what_is_held_and_how_to_release_it() {
        let text = table(&report(), false, 181_000).render(Palette::None);
        assert_eq!(
            text,
            "POLICY       TARGET      IN STEP   PENDING   HELD   FAILED   LAG    STATE\n\
             production   cluster-b   7/7       0         0      0        12ms   InStep\n\
             production   cluster-c   3/7       0         4      0        12ms   Held\n\
             production at cluster-c: 4 Held (DeleteBudgetExceeded) for 3m; \
             to do: lockstep approve production --target cluster-c\n"
        );
        let wide = table(&report(), true, 181_000).render(Palette::None);
        assert!(wide.contains("GENERATION") && wide.contains("2/2"), "{wide}");
    }

    #[test]
    fn i3_what_is_not_known_is_said_and_is_not_in_step() {
        let mut report = report();
        let gap = Gap {
            cluster: "cluster-a".to_owned(),
            kind: "Deployment.apps".to_owned(),
            namespace: String::new(),
            reason: "Forbidden".to_owned(),
            message: "requests fail".to_owned(),
            since_ms: Some(1_000),
        };
        for target in &mut report.items[0].targets {
            target.unknown = vec![gap.clone()];
        }
        let text = table(&report, false, 181_000).render(Palette::None);
        assert!(text.contains("12ms   Unknown"), "{text}");
        let line = "Deployment.apps in cluster-a is not known for 3m (Forbidden): requests fail\n";
        assert_eq!(text.matches(line).count(), 1, "once, not per target: {text}");
    }

    #[test]
    fn a_policy_that_is_not_planned_yet_is_pending() {
        let mut report = report();
        report.items[0].observed_generation = 1;
        report.paused = true;
        let text = table(&report, false, 181_000).render(Palette::None);
        assert!(text.contains("cluster-b   7/7       0         0      0        12ms   Pending"), "{text}");
        assert!(text.starts_with("everything is paused"), "{text}");
    }
}
