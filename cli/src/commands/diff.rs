//! `lockstep diff`: field-level differences, desired against observed.

use std::fmt::Write as _;

use futures::StreamExt;
use lockstep_engine::status::State;
use lockstep_hub::http::types::{Comparison, List, PlacementItem};
use serde::Serialize;
use serde_json::Value;

use crate::args::{DiffArgs, Format, ServerArgs};
use crate::client::Client;
use crate::error::{CliError, Outcome};
use crate::output::{self, Out, Paint, Palette, plain};
use crate::server;

/// Comparisons at once: each may read the target through its agent.
const AT_ONCE: usize = 8;
/// Longest value on a line.
const VALUE_SHOWN: usize = 200;
/// Items asked for at once.
const PAGE: &str = "500";

/// One object at one target that differs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    kind: String,
    namespace: String,
    name: String,
    policy: String,
    #[serde(flatten)]
    comparison: Comparison,
}

/// Shows the differences.
pub(crate) async fn run(args: DiffArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let DiffArgs { policy, target, all, output } = args;
    let client = server::client(server)?;
    let out = Out::new(output.output);
    if let Some(policy) = &policy {
        // An unknown name is an error, not an empty answer.
        super::status::fetch(&client, Some(policy)).await?;
    }
    let placements = placements(&client, policy.as_deref(), target.as_deref(), all).await?;
    let mut results = futures::stream::iter(placements).map(|item| compare(&client, item)).buffered(AT_ONCE);
    let (mut list, mut failed) = (List::new("DifferenceList", Vec::new()), None);
    while let Some(result) = results.next().await {
        match result {
            Ok(Some(difference)) => list.items.push(difference),
            Ok(None) => {}
            Err(error) => {
                output::note(&error.to_string().replace('\n', " "));
                failed = Some(error);
            }
        }
    }
    match out.format {
        Format::Json | Format::Yaml => out.text(&out.encode(&list)?)?,
        Format::Name => {
            for item in &list.items {
                out.line(&title(item))?;
            }
        }
        Format::Table | Format::Wide => {
            for item in &list.items {
                out.text(&render(item, out.palette))?;
            }
            if list.items.is_empty() && failed.is_none() {
                out.line("no differences")?;
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None if list.items.is_empty() => Ok(Outcome::Done),
        None => Ok(Outcome::Findings),
    }
}

async fn placements(
    client: &Client,
    policy: Option<&str>,
    target: Option<&str>,
    all: bool,
) -> Result<Vec<PlacementItem>, CliError> {
    // In step means: compared when it last changed. Orphans are asked for by nobody.
    let behind = State::ALL.into_iter().filter(|state| !matches!(state, State::InStep | State::Orphaned));
    let behind = behind.map(State::as_str).collect::<Vec<_>>().join(",");
    let states = if all { format!("{behind},InStep") } else { behind };
    let (mut items, mut cursor) = (Vec::new(), None);
    loop {
        let query = [
            ("policy", policy),
            ("target", target),
            ("state", Some(states.as_str())),
            ("limit", Some(PAGE)),
            ("continue", cursor.as_deref()),
        ];
        let page: List<PlacementItem> = client.get("placements", &query).await?;
        items.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(items);
        }
    }
}

async fn compare(client: &Client, item: PlacementItem) -> Result<Option<Difference>, CliError> {
    let query = [
        ("kind", Some(item.kind.as_str())),
        ("namespace", Some(item.namespace.as_str())),
        ("name", Some(item.name.as_str())),
        ("cluster", Some(item.target.as_str())),
    ];
    let comparison: Comparison = client.get("compare", &query).await?;
    // What the source removed and is still there is not in the patch, which is of what is asked for.
    let differs = comparison.status.as_ref().is_some_and(|status| status.state == State::Differs);
    let same = comparison.patch.is_empty()
        && comparison.desired.is_some() == comparison.observed.is_some()
        && !differs;
    let PlacementItem { kind, namespace, name, policy, .. } = item;
    Ok((!same).then_some(Difference { kind, namespace, name, policy, comparison }))
}

fn title(item: &Difference) -> String {
    let Difference { kind, namespace, name, comparison, .. } = item;
    let slash = if namespace.is_empty() { "" } else { "/" };
    plain(&format!("{} {kind} {namespace}{slash}{name}", comparison.target))
}

fn render(item: &Difference, palette: Palette) -> String {
    let mut text = palette.paint(Paint::Bold, &title(item));
    if let Some(status) = &item.comparison.status {
        let _ = write!(text, "  {} ({})", status.state, plain(&status.reason));
    }
    text.push('\n');
    if let Some(status) = item.comparison.status.as_ref().filter(|status| status.state == State::Differs) {
        let _ = writeln!(text, "{}", palette.paint(Paint::Bad, &plain(&status.message)));
    }
    match (&item.comparison.observed, &item.comparison.desired) {
        (None, Some(_)) => {
            let _ = writeln!(text, "{}", palette.paint(Paint::Good, "+ the object is missing at the target"));
        }
        (Some(_), None) => {
            let _ = writeln!(text, "{}", palette.paint(Paint::Bad, "- the object is to be deleted"));
        }
        (observed, _) => text.push_str(&operations(observed.as_ref(), &item.comparison.patch, palette)),
    }
    text
}

/// The operations of an RFC 6902 patch, with what was there before.
pub(super) fn operations(before: Option<&Value>, patch: &[Value], palette: Palette) -> String {
    let mut text = String::new();
    let line = |text: &mut String, paint, sign: char, path: &str, value: &Value| {
        let line = format!("{sign} {} {}", plain(path), shown(value));
        let _ = writeln!(text, "{}", palette.paint(paint, line.trim_end()));
    };
    for operation in patch {
        let path = operation["path"].as_str().unwrap_or_default();
        let kind = operation["op"].as_str().unwrap_or_default();
        let before = before.and_then(|body| body.pointer(path));
        if let (Some(before), "remove" | "replace") = (before, kind) {
            line(&mut text, Paint::Bad, '-', path, before);
        }
        if let ("add" | "replace", Some(after)) = (kind, operation.get("value")) {
            line(&mut text, Paint::Good, '+', path, after);
        }
    }
    text
}

fn shown(value: &Value) -> String {
    let text = plain(&value.to_string());
    if text.chars().count() <= VALUE_SHOWN {
        return text;
    }
    let head: String = text.chars().take(VALUE_SHOWN).collect();
    format!("{head}...")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_engine::status::Status;
    use serde_json::json;

    #[test]
    fn differences_are_shown_field_by_field() {
        let mut item = Difference {
            kind: "Deployment.apps".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            policy: "p".to_owned(),
            comparison: Comparison {
                target: "cluster-b".to_owned(),
                observed: Some(json!({"spec": {"replicas": 3, "paused": true}})),
                desired: Some(json!({"spec": {"replicas": 5, "x": "y"}})),
                patch: vec![
                    json!({"op": "replace", "path": "/spec/replicas", "value": 5}),
                    json!({"op": "remove", "path": "/spec/paused"}),
                    json!({"op": "add", "path": "/spec/x", "value": "y"}),
                ],
                status: Some(Status::new(State::Pending, "Drift", "")),
            },
        };
        assert_eq!(
            render(&item, Palette::None),
            "cluster-b Deployment.apps shop/web  Pending (Drift)\n\
             - /spec/replicas 3\n\
             + /spec/replicas 5\n\
             - /spec/paused true\n\
             + /spec/x \"y\"\n"
        );
        assert!(render(&item, Palette::Ansi).contains("\x1b[32m+ /spec/replicas 5\x1b[0m"));
        item.comparison.observed = None;
        assert!(render(&item, Palette::None).contains("+ the object is missing at the target"));
    }
}
