//! `lockstep restore`, `undo` and `restores`: the plan is shown first, and carried out when a person has
//! said so.

use std::fmt::Write as _;
use std::time::Duration;

use lockstep_hub::http::types::{
    List, OnConflict, Options, PlanItem, PlanView, RestoreRequest, RestoreStarted, RestoreView, Selection,
    Verdict,
};
use serde_json::Value;

use super::deletes::{ask, can_ask};
use super::object;
use crate::args::{ConflictArg, DryRun, Format, HowArgs, RestoreArgs, RestoresArgs, ServerArgs, UndoArgs};
use crate::client::{Client, encode};
use crate::error::{CliError, Outcome};
use crate::output::{self, Cell, Out, Paint, Palette, Table, age, now_ms, plain};
use crate::server;

/// Between two looks at a restore that runs.
const POLL: Duration = Duration::from_millis(300);
/// Longest value shown of a field.
const VALUE_SHOWN: usize = 200;

/// Restores.
pub(crate) async fn restore(args: RestoreArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let RestoreArgs { what, of_namespace, from, name, how } = args;
    run(selection(&what, of_namespace, from)?, name, how, server).await
}

/// Restores what one act deleted.
pub(crate) async fn undo(args: UndoArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let UndoArgs { act, how } = args;
    let number = act_number(&act).ok_or_else(|| {
        let remedy = "write it as in g12; `lockstep tombstones groups` shows them";
        CliError::usage(format!("`{act}` is no act"), remedy)
    })?;
    run(Selection::Act(number), None, how, server).await
}

/// A tombstone against what is there now: what putting it back over that would change.
pub(crate) async fn against_live(
    id: i64,
    cluster: Option<String>,
    format: Format,
    client: &Client,
) -> Result<Outcome, CliError> {
    let request = RestoreRequest {
        selection: Selection::Tombstones(vec![id]),
        cluster,
        options: Options { on_conflict: OnConflict::Update, force: true, ..Options::default() },
        unchecked: true,
        shown: None,
        asked_by: String::new(),
    };
    let plan: PlanView = client.post("restores", &request).await?;
    let out = Out::new(format);
    show(&out, &plan)?;
    let same = plan.items.iter().all(|item| item.verdict == Verdict::InPlace);
    Ok(if same { Outcome::Done } else { Outcome::Findings })
}

fn act_number(text: &str) -> Option<i64> {
    text.strip_prefix('g')?.parse().ok()
}

fn selection(
    what: &[String],
    namespace: Option<String>,
    from: Option<String>,
) -> Result<Selection, CliError> {
    if let [one] = what {
        if let Ok(id) = one.parse() {
            return Ok(Selection::Tombstones(vec![id]));
        }
        if let Some(act) = act_number(one) {
            return Ok(Selection::Act(act));
        }
    }
    let (kind, name) = object::named(what)?;
    Ok(Selection::Object { kind, namespace: namespace.unwrap_or_default(), name, from })
}

async fn run(
    selection: Selection,
    name: Option<String>,
    how: HowArgs,
    server: &ServerArgs,
) -> Result<Outcome, CliError> {
    let HowArgs {
        cluster,
        namespace,
        dry_run,
        on_conflict,
        with_dependencies,
        status,
        keep_finalizers,
        force,
        yes,
        output,
    } = how;
    let client = server::client(server)?;
    let out = Out::new(output.output);
    let on_conflict = match on_conflict {
        ConflictArg::Fail => OnConflict::Fail,
        ConflictArg::Skip => OnConflict::Skip,
        ConflictArg::Update => OnConflict::Update,
        ConflictArg::Recreate => OnConflict::Recreate,
        ConflictArg::Rename => OnConflict::Rename,
    };
    let request = RestoreRequest {
        selection,
        cluster,
        options: Options { namespace, name, on_conflict, with_dependencies, status, keep_finalizers, force },
        unchecked: dry_run == Some(DryRun::Client),
        shown: None,
        asked_by: std::env::var("USER").unwrap_or_default(),
    };
    let plan: PlanView = client.post("restores", &request).await?;
    let stops = plan.items.iter().filter(|item| item.verdict.stops()).count();
    let writes = plan.items.iter().filter(|item| item.verdict.writes()).count();
    let findings = if stops > 0 { Outcome::Findings } else { Outcome::Done };
    if dry_run.is_some() || writes == 0 || !out.structured() {
        show(&out, &plan)?;
    }
    if dry_run.is_some() || writes == 0 {
        return Ok(findings);
    }
    if stops > 0 && on_conflict == OnConflict::Fail {
        output::note(
            "nothing is written while something is in the way: mend it, or choose with --on-conflict",
        );
        return Ok(Outcome::Findings);
    }
    if !yes {
        can_ask("restoring")?;
        if !ask(&format!("Write these {writes} objects to {}?", plan.cluster))? {
            return Ok(Outcome::Failed);
        }
    }
    let request = RestoreRequest { shown: Some(plan.digest.clone()), ..request };
    let RestoreStarted { id } = client.post("restores", &request).await?;
    follow(&client, &out, id, findings).await
}

/// Until it has ended.
async fn follow(client: &Client, out: &Out, id: i64, findings: Outcome) -> Result<Outcome, CliError> {
    loop {
        let view: RestoreView = client.get(&format!("restores/{id}"), &[]).await?;
        let count = |state: &str| view.counts.get(state).copied().unwrap_or_default();
        if view.ended_at_ms.is_none() {
            output::progress(&format!("r{id}: {} restored, {} to go", count("Done"), count("Planned")));
            tokio::time::sleep(POLL).await;
            continue;
        }
        output::progress("");
        if out.structured() {
            out.text(&out.encode(&view)?)?;
        } else {
            for item in view.items.iter().filter(|item| item.state == "Failed") {
                let line = format!("x {} {}: {}", item.kind, path(&item.namespace, &item.name), item.message);
                out.line(&out.palette.paint(Paint::Bad, &plain(&line)))?;
            }
            out.line(&format!("r{id}: {} restored, {} failed", count("Done"), count("Failed")))?;
        }
        return Ok(if count("Failed") > 0 { Outcome::Failed } else { findings });
    }
}

fn path(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

fn show(out: &Out, plan: &PlanView) -> Result<(), CliError> {
    match out.format {
        Format::Json | Format::Yaml => out.text(&out.encode(plan)?),
        Format::Name => {
            let names = plan
                .items
                .iter()
                .map(|item| format!("{} {}\n", item.kind, path(&item.namespace, &item.name)));
            out.text(&plain_lines(&names.collect::<String>()))
        }
        Format::Table => out.text(&render(plan, false, out.palette)),
        Format::Wide => out.text(&render(plan, true, out.palette)),
    }
}

fn plain_lines(text: &str) -> String {
    text.lines().map(|line| plain(line) + "\n").collect()
}

fn mark(verdict: Verdict) -> (char, Paint) {
    match verdict {
        Verdict::Create | Verdict::Rename => ('+', Paint::Good),
        Verdict::Update | Verdict::Recreate => ('~', Paint::Warn),
        Verdict::Conflict => ('!', Paint::Bad),
        Verdict::Blocked => ('x', Paint::Bad),
        Verdict::InPlace => ('=', Paint::Bold),
        Verdict::Rebuilt | Verdict::Skip => ('-', Paint::Bold),
    }
}

/// One line per object, what changes under it, and a summary. What a controller makes anew is counted
/// only, unless all is asked for.
fn render(plan: &PlanView, all: bool, palette: Palette) -> String {
    let mut text = String::new();
    for item in plan.items.iter().filter(|item| all || item.verdict != Verdict::Rebuilt) {
        let (sign, paint) = mark(item.verdict);
        let mut line = format!("{sign} {} {}", item.kind, path(&item.namespace, &item.name));
        let _ = write!(line, "  {} (tombstone {})", item.verdict, item.tombstone);
        if !item.why.is_empty() {
            let _ = write!(line, ": {}", item.why);
        }
        let _ = writeln!(text, "{}", palette.paint(paint, &plain(&line)));
        for word in &item.words {
            let _ = writeln!(text, "    {}", plain(word));
        }
        if item.untried {
            let _ = writeln!(text, "    not checked by the API server: it needs what is restored before it");
        }
        changes(&mut text, item, palette);
    }
    for missing in &plan.missing {
        let kept = match missing.tombstone {
            Some(id) => format!("tombstone {id}; --with-dependencies restores it"),
            None => "--with-dependencies restores it where there is a tombstone".to_owned(),
        };
        let line = format!("? {} is not there; {} names it ({kept})", missing.object, missing.named_by);
        let _ = writeln!(text, "{}", palette.paint(Paint::Warn, &plain(&line)));
    }
    let counts: Vec<String> =
        plan.counts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    let _ = writeln!(text, "{}: {}", plain(&plan.cluster), counts.join(", "));
    text
}

fn changes(text: &mut String, item: &PlanItem, palette: Palette) {
    for operation in &item.patch {
        let at = operation["path"].as_str().unwrap_or_default();
        let removed = operation["op"] == "remove";
        let (sign, paint) = if removed { ('-', Paint::Bad) } else { ('+', Paint::Good) };
        let value = operation.get("value").map(shown).unwrap_or_default();
        let line = format!("{sign} {} {value}", plain(at));
        let _ = writeln!(text, "    {}", palette.paint(paint, line.trim_end()));
    }
}

fn shown(value: &Value) -> String {
    let text = plain(&value.to_string());
    if text.chars().count() <= VALUE_SHOWN {
        return text;
    }
    let head: String = text.chars().take(VALUE_SHOWN).collect();
    format!("{head}...")
}

/// Lists restores, or shows one.
pub(crate) async fn list(args: RestoresArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let RestoresArgs { id, limit, output } = args;
    let client = server::client(server)?;
    let out = Out::new(output.output);
    if let Some(id) = id {
        let view: RestoreView = client.get(&format!("restores/{}", encode(&id)), &[]).await?;
        out.show(&view, |_| objects(&view), || vec![format!("r{}", view.id)])?;
        return Ok(Outcome::Done);
    }
    let list: List<RestoreView> = client.get("restores", &[("limit", Some(&limit.to_string()))]).await?;
    let now = now_ms();
    out.show(
        &list,
        |_| {
            let headings = ["ID", "CLUSTER", "STATE", "RESTORED", "FAILED", "TO GO", "BY", "BEGAN"];
            let mut table = Table::new(&headings, "no restores");
            for view in &list.items {
                let count = |state: &str| view.counts.get(state).copied().unwrap_or_default().to_string();
                table.row(vec![
                    Cell::from(format!("r{}", view.id)),
                    Cell::from(&view.cluster),
                    Cell::from(&view.state),
                    Cell::from(count("Done")),
                    Cell::from(count("Failed")),
                    Cell::from(count("Planned")),
                    Cell::from(&view.asked_by),
                    Cell::from(age(Some(view.asked_at_ms), now)),
                ]);
            }
            table
        },
        || list.items.iter().map(|view| format!("r{}", view.id)).collect(),
    )?;
    Ok(Outcome::Done)
}

fn objects(view: &RestoreView) -> Table {
    let headings = ["TOMBSTONE", "KIND", "NAMESPACE", "NAME", "PLANNED", "STATE", "REPLACED", "MESSAGE"];
    let mut table = Table::new(&headings, "no objects");
    for item in &view.items {
        let paint = if item.state == "Failed" { Paint::Bad } else { Paint::Good };
        table.row(vec![
            Cell::from(item.tombstone.to_string()),
            Cell::from(&item.kind),
            Cell::from(&item.namespace),
            Cell::from(&item.name),
            Cell::from(item.verdict.to_string()),
            Cell::painted(&item.state, paint),
            Cell::from(item.replaced.map(|id| id.to_string()).unwrap_or_default()),
            Cell::from(&item.message),
        ]);
    }
    table
}
