//! `lockstep explain`: renders the planner's report; nothing is recomputed.

use std::fmt::Write as _;

use lockstep_engine::advice;
use lockstep_engine::outcome::{Attempt, Retry};
use lockstep_engine::ownership::{Left, sentence};
use lockstep_engine::status::State;
use lockstep_hub::http::types::{Explanation, PolicySays, Sighting, TargetSays};

use super::object;
use crate::args::{ExplainArgs, Format, NamespaceArgs, ServerArgs};
use crate::error::{CliError, Outcome};
use crate::output::{Out, Paint, Palette, age, now_ms, plain, span};
use crate::server;

/// Fields of a foreign manager that are shown.
const FIELDS_SHOWN: usize = 5;

/// Explains one object.
pub(crate) async fn run(args: ExplainArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let ExplainArgs { object, namespace, cluster, output } = args;
    let NamespaceArgs { namespace } = namespace;
    let (kind, name) = object::named(&object)?;
    let client = server::client(server)?;
    let out = Out::new(output.output);
    let query = [
        ("kind", Some(kind.as_str())),
        ("name", Some(name.as_str())),
        ("namespace", namespace.as_deref()),
        ("cluster", cluster.as_deref()),
    ];
    let explanation: Explanation = client.get("explain", &query).await?;
    match out.format {
        Format::Json | Format::Yaml => out.text(&out.encode(&explanation)?)?,
        Format::Name => out.line(&plain(&explanation.object))?,
        Format::Table | Format::Wide => {
            out.text(&render(&explanation, out.format == Format::Wide, out.palette, now_ms()))?;
        }
    }
    Ok(Outcome::Done)
}

fn render(explanation: &Explanation, wide: bool, palette: Palette, now: i64) -> String {
    let Explanation { object, note, clusters, policies, targets } = explanation;
    let mut text = palette.paint(Paint::Bold, &plain(object));
    text.push('\n');
    if let Some(note) = note {
        let _ = writeln!(text, "{}", palette.paint(Paint::Warn, &plain(note)));
    }
    section(&mut text, palette, "Where it is", clusters.iter().map(|item| sighting(item, palette, now)));
    section(&mut text, palette, "Which policies mean it", policies.iter().map(|item| policy(item, palette)));
    let targets = targets.iter().map(|item| target(item, wide, palette, now));
    section(&mut text, palette, "Where it stands", targets);
    text
}

fn section(text: &mut String, palette: Palette, title: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.collect();
    if !lines.is_empty() {
        let _ = writeln!(text, "\n{}", palette.paint(Paint::Bold, title));
        text.extend(lines);
    }
}

fn sighting(item: &Sighting, palette: Palette, now: i64) -> String {
    let Sighting { cluster, presence, resource_version, observed_at_ms, body_held, managed, note } = item;
    let mut line = format!("  {}: {presence}", plain(cluster));
    if let Some(version) = resource_version {
        let _ = write!(line, " at resourceVersion {}", plain(version));
    }
    if observed_at_ms.is_some() {
        let _ = write!(line, ", seen {} ago", age(*observed_at_ms, now));
    }
    if *managed {
        line.push_str(", written by lockstep");
    }
    if presence == "Exists" && !body_held {
        line.push_str(", its body is not held (no policy selects it there)");
    }
    line.push('\n');
    if let Some(note) = note {
        let _ = writeln!(line, "    {}", palette.paint(Paint::Warn, &plain(note)));
    }
    line
}

fn policy(item: &PolicySays, palette: Palette) -> String {
    let PolicySays { policy, source, selected, reason, message } = item;
    let verdict =
        if *selected { palette.paint(Paint::Good, "selects it") } else { "does not select it".to_owned() };
    format!(
        "  {} (source {}): {verdict}: {}: {}\n",
        plain(policy),
        plain(source),
        plain(reason),
        plain(message)
    )
}

fn target(item: &TargetSays, wide: bool, palette: Palette, now: i64) -> String {
    let status = &item.status;
    let since = age(Some(item.since_ms), now);
    let mut text = format!("  {}: ", plain(&item.target));
    if status.state == State::InStep {
        text.push_str(&palette.paint(Paint::Good, &format!("in step since {since}")));
        if let Some(lag) = item.lag_ms {
            let _ = write!(text, ", lag {}", span(lag));
        }
        text.push('\n');
    } else {
        trouble(&mut text, item, palette, now);
    }
    let _ = write!(text, "    policy {}", plain(&item.policy));
    if let Some(source) = &item.source {
        let _ = write!(text, ", from {}", plain(source));
    }
    text.push('\n');
    if !item.rivals.is_empty() {
        let _ = writeln!(
            text,
            "    also selected by {}; {} wins",
            plain(&item.rivals.join(", ")),
            plain(&item.policy)
        );
    }
    if let Some(corrected) = &item.corrected {
        let ago = age(Some(corrected.at), now);
        let _ = writeln!(text, "    drift was set back {ago} ago: {}", plain(&sentence(&corrected.by)));
    }
    for Left { path, manager, .. } in item.left.iter().filter(|left| wide || left.reported) {
        let _ = writeln!(text, "    {} is left to {}", plain(path), plain(manager));
    }
    if wide || matches!(status.state, State::Conflict | State::Differs) {
        for manager in &item.managers {
            let mut fields = manager.fields.iter().take(FIELDS_SHOWN).cloned().collect::<Vec<_>>().join(" ");
            if manager.fields.len() > FIELDS_SHOWN || manager.truncated {
                fields.push_str(" ...");
            }
            let _ = writeln!(
                text,
                "    {} ({}) owns {}",
                plain(&manager.name),
                plain(&manager.operation),
                plain(&fields)
            );
        }
    }
    text
}

/// Why a copy is not in step, since when, and what a person can do.
fn trouble(text: &mut String, item: &TargetSays, palette: Palette, now: i64) {
    let status = &item.status;
    let since = age(Some(item.since_ms), now);
    let paint = match status.state {
        State::Failed | State::Conflict | State::Differs | State::Blocked => Paint::Bad,
        _ => Paint::Warn,
    };
    let head = format!("{} ({}) for {since}", status.state, plain(&status.reason));
    let _ = writeln!(text, "{}: {}", palette.paint(paint, &head), plain(&status.message));
    if let Some(synced) = item.synced_at_ms {
        let _ = writeln!(text, "    last in step {} ago", age(Some(synced), now));
    }
    if item.attempts > 0 {
        let next = item.next_attempt_ms.map_or_else(
            || "no further attempt until something changes".to_owned(),
            |at| format!("next attempt in {}", span((at - now).max(0))),
        );
        let class = advice::class_of(status.state, &status.reason);
        let barred = class.map(|class| class.retry(Attempt::Write { adopts: false }));
        let next = match (barred, item.next_attempt_ms) {
            (Some(Retry::Barred { .. }), Some(_)) => format!("{next}, or when something changes"),
            _ => next,
        };
        let _ = writeln!(text, "    {} failed attempts; {next}", item.attempts);
    }
    if let Some(meaning) = &item.meaning {
        let _ = writeln!(text, "    {}: {}", plain(&status.reason), plain(meaning));
    }
    if item.held && status.state != State::Held {
        let _ = writeln!(text, "    its delete is held, and waits for a person");
    }
    if let Some(remedy) = &item.remedy {
        let remedy = plain(remedy);
        let _ = writeln!(text, "    {}", palette.paint(Paint::Bold, &format!("to do: {remedy}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_engine::ownership::{Corrected, Taken};
    use lockstep_engine::plan::DRIFT_REPORTED;
    use lockstep_engine::status::Status;

    fn says(status: Status) -> TargetSays {
        TargetSays {
            target: "cluster-b".to_owned(),
            policy: "production".to_owned(),
            rivals: vec![],
            held: status.state == State::Held,
            meaning: advice::meaning(&status).map(ToOwned::to_owned),
            remedy: advice::remedy(status.state, &status.reason, "production", "cluster-b"),
            status,
            since_ms: 0,
            synced_at_ms: Some(0),
            lag_ms: Some(12),
            source: Some("cluster-a shop/web".to_owned()),
            attempts: 0,
            next_attempt_ms: None,
            managers: vec![],
            corrected: None,
            left: vec![],
        }
    }

    #[test]
    fn drift_names_field_manager_and_time_also_once_it_is_set_back() {
        let taken = |fields: &str| Taken {
            manager: "kubectl-edit".to_owned(),
            operation: "Update".to_owned(),
            time: "2026-01-02T03:04:05Z".to_owned(),
            fields: vec![fields.to_owned()],
        };
        let mut item = says(Status::new(State::InStep, "InStep", ""));
        item.corrected = Some(Corrected::again(None, vec![taken(".data.k")], 1, 30_000));
        let text = target(&item, false, Palette::None, 60_000);
        let line = "drift was set back 30s ago: .data.k by kubectl-edit (Update) at 2026-01-02T03:04:05Z\n";
        assert!(text.contains(line), "{text}");
        let mut item = says(Status::new(State::Conflict, DRIFT_REPORTED, ""));
        let left = |path: &str, reported| Left {
            path: path.to_owned(),
            manager: "kubectl-edit".to_owned(),
            operation: "Update".to_owned(),
            time: String::new(),
            reported,
        };
        item.left = vec![left(".data.k", true), left(".data.l", false)];
        let text = target(&item, false, Palette::None, 60_000);
        assert!(text.contains(".data.k is left to kubectl-edit") && !text.contains(".data.l"), "{text}");
        assert!(text.contains("to do: change it back"), "{text}");
        assert!(target(&item, true, Palette::None, 60_000).contains(".data.l is left"));
    }

    #[test]
    fn a_failure_says_its_class_and_what_to_do_and_a_hold_is_said_whatever_else_is() {
        let mut item = says(Status::new(State::Failed, "Invalid", "ConfigMap \"web\" is invalid: x"));
        (item.attempts, item.next_attempt_ms) = (1, Some(120_000));
        assert_eq!(
            target(&item, false, Palette::None, 60_000),
            "\x20 cluster-b: Failed (Invalid) for 1m: ConfigMap \"web\" is invalid: x\n\
             \x20   last in step 1m ago\n\
             \x20   1 failed attempts; next attempt in 1m, or when something changes\n\
             \x20   Invalid: the target's API server considers the object invalid\n\
             \x20   to do: fix the field that the message names at the source, or update the definition or version of the target\n\
             \x20   policy production, from cluster-a shop/web\n"
        );
        let mut item = says(Status::new(State::Unknown, "NotConnected", "cluster-b is not connected"));
        item.held = true;
        item.remedy = advice::remedy(State::Held, "NotConnected", "production", "cluster-b");
        let text = target(&item, false, Palette::None, 60_000);
        assert!(text.contains("its delete is held, and waits for a person\n"), "{text}");
        assert!(text.contains("to do: lockstep approve production --target cluster-b\n"), "{text}");
    }

    #[test]
    fn it_says_since_when_or_where_it_stops() {
        let explanation = Explanation {
            object: "Deployment.apps shop/web".to_owned(),
            note: None,
            clusters: vec![Sighting {
                cluster: "cluster-a".to_owned(),
                presence: "Exists".to_owned(),
                resource_version: Some("812".to_owned()),
                observed_at_ms: Some(55_000),
                body_held: true,
                managed: false,
                note: None,
            }],
            policies: vec![PolicySays {
                policy: "production".to_owned(),
                source: "cluster-a".to_owned(),
                selected: true,
                reason: "Selected".to_owned(),
                message: "resources[0] matches".to_owned(),
            }],
            targets: vec![
                says(Status::new(State::InStep, "Synced", "")),
                TargetSays {
                    target: "cluster-c".to_owned(),
                    ..says(Status::new(State::Held, "DeleteBudgetExceeded", "4 deletes, 3 are allowed"))
                },
            ],
        };
        let text = render(&explanation, false, Palette::None, 60_000);
        assert_eq!(
            text,
            "Deployment.apps shop/web\n\
             \n\
             Where it is\n\
             \x20 cluster-a: Exists at resourceVersion 812, seen 5s ago\n\
             \n\
             Which policies mean it\n\
             \x20 production (source cluster-a): selects it: Selected: resources[0] matches\n\
             \n\
             Where it stands\n\
             \x20 cluster-b: in step since 1m, lag 12ms\n\
             \x20   policy production, from cluster-a shop/web\n\
             \x20 cluster-c: Held (DeleteBudgetExceeded) for 1m: 4 deletes, 3 are allowed\n\
             \x20   last in step 1m ago\n\
             \x20   to do: lockstep approve production --target cluster-b\n\
             \x20   policy production, from cluster-a shop/web\n"
        );
    }
}
