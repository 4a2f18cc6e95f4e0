//! `lockstep wait`.

use std::time::Duration;

use lockstep_hub::http::types::{PolicyStatus, TargetStatus};
use tokio::time::Instant;

use super::status;
use crate::args::{Format, ServerArgs, WaitArgs, WaitFor};
use crate::error::{CliError, Outcome};
use crate::output::{Out, Palette, now_ms};
use crate::server;

/// How often it looks.
const POLL: Duration = Duration::from_millis(200);
/// Answers of the hub that mean: not yet, rather than never.
const NOT_YET: [&str; 4] = ["LS0001", "LS0255", "LS0257", "LS0259"];

/// Waits.
pub(crate) async fn run(args: WaitArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let WaitArgs { policy, condition: WaitFor::InStep, target, timeout } = args;
    let client = server::client(server)?;
    let deadline = Instant::now() + timeout;
    let out = Out::new(Format::Table);
    loop {
        let last = match status::fetch(&client, Some(&policy)).await {
            Ok(report) => {
                let found = report.items.iter().find(|item| item.name == policy);
                match found.map(|found| behind(found, target.as_deref())) {
                    Some(None) => {
                        out.line(&format!("policy/{policy} is in step"))?;
                        return Ok(Outcome::Done);
                    }
                    _ => Ok(status::table(&report, false, now_ms()).render(Palette::None)),
                }
            }
            Err(error) if NOT_YET.contains(&error.code()) => Err(error),
            Err(error) => return Err(error),
        };
        if Instant::now() + POLL > deadline {
            let message = format!("policy {policy} was not in step within {} s", timeout.as_secs());
            return Err(match last {
                Ok(table) => CliError::new("LS0012", message, table.trim_end().replace('\n', "\n  ")),
                Err(error) => CliError::new("LS0012", message, error.remedy()).caused_by(&error),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The first target that is not in step, or none. A target that nobody knows is behind.
fn behind<'a>(policy: &'a PolicyStatus, only: Option<&'a str>) -> Option<&'a str> {
    if policy.observed_generation < policy.generation || policy.generation == 0 {
        return Some("the plan");
    }
    let in_step = |target: &TargetStatus| {
        target.connected && !target.paused && target.unknown.is_empty() && target.counts.all_in_step()
    };
    if let Some(only) = only
        && !policy.targets.iter().any(|target| target.target == only)
    {
        return Some(only);
    }
    let mut considered = policy.targets.iter().filter(|target| only.is_none_or(|only| only == target.target));
    considered.find(|target| !in_step(target)).map(|target| target.target.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_hub::http::types::Counts;

    #[test]
    fn in_step_means_planned_connected_and_complete() {
        let target = |name: &str, in_step, pending, connected| TargetStatus {
            target: name.to_owned(),
            connected,
            paused: false,
            counts: Counts { in_step, pending, ..Counts::default() },
            worst_lag_ms: None,
            behind_since_ms: None,
            reasons: vec![],
            unknown: vec![],
        };
        let mut policy = PolicyStatus {
            name: "p".to_owned(),
            file: String::new(),
            source: "a".to_owned(),
            kinds: vec![],
            paused: false,
            generation: 3,
            observed_generation: 3,
            targets: vec![target("b", 2, 0, true), target("c", 1, 1, true)],
        };
        assert_eq!(behind(&policy, None), Some("c"));
        assert_eq!(behind(&policy, Some("b")), None);
        assert_eq!(behind(&policy, Some("x")), Some("x"));
        policy.targets[0].connected = false;
        assert_eq!(behind(&policy, Some("b")), Some("b"));
        policy.observed_generation = 2;
        assert_eq!(behind(&policy, Some("c")), Some("the plan"));
    }
}
