//! `lockstep archive`, and `lockstep tombstones purge|hold|release`.

use std::time::Duration;

use lockstep_hub::http::types::{
    ArchiveFacts, Done, HoldRequest, KeyUse, List, PurgeRequest, Purged, ReleaseRequest, Work,
};
use serde::Serialize;

use super::deletes::{ask, can_ask};
use super::tombstones;
use crate::args::{
    ArchiveArgs, ArchiveCommand, Format, HoldArgs, OutputArgs, PurgeArgs, ServerArgs, TombstoneFilterArgs,
};
use crate::client::Client;
use crate::error::{CliError, Outcome};
use crate::output::{self, Cell, Out, Paint, Table};
use crate::server;

/// Between two looks at work that is under way.
const LOOK: Duration = Duration::from_millis(500);

/// Body of a call that needs none.
#[derive(Serialize)]
struct Nothing {}

/// Shows, rotates or rebuilds.
pub(crate) async fn run(args: ArchiveArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let client = server::client(server)?;
    match args.command {
        ArchiveCommand::Status { output } => {
            show(&Out::new(output.output), &client.get("archive", &[]).await?)?;
            Ok(Outcome::Done)
        }
        ArchiveCommand::Rewrap { output } => {
            let of = |facts: ArchiveFacts| facts.rewrap;
            work(&client, "rewrap", of, output.output).await
        }
        ArchiveCommand::Reindex { output } => {
            let of = |facts: ArchiveFacts| facts.reindex;
            work(&client, "reindex", of, output.output).await
        }
    }
}

fn show(out: &Out, facts: &ArchiveFacts) -> Result<(), CliError> {
    if out.structured() {
        return out.text(&out.encode(facts)?);
    }
    let ArchiveFacts { kind: _, bytes, keys, rewrap, reindex } = facts;
    out.show(
        keys,
        |_| {
            let mut table = Table::new(&["KEY", "FILES", "GIVEN", "WRITES"], "no keys");
            table.above(format!("{bytes} bytes in the archive"), None);
            for (name, work) in [("rewrap", rewrap), ("reindex", reindex)] {
                if let Some(work) = work {
                    table.above(format!("{name}: {}", sentence(work)), None);
                }
            }
            for KeyUse { id, files, given, writes } in keys {
                let given =
                    if *given { Cell::painted("yes", Paint::Good) } else { Cell::painted("no", Paint::Warn) };
                let writes = if *writes { "yes" } else { "" };
                table.row(vec![Cell::from(id), Cell::from(files.to_string()), given, Cell::from(writes)]);
            }
            table
        },
        || keys.iter().map(|key| format!("key/{}", key.id)).collect(),
    )
}

/// Begins it, or joins what is under way, and waits until it is through.
async fn work(
    client: &Client,
    path: &str,
    of: impl Fn(ArchiveFacts) -> Option<Work>,
    format: Format,
) -> Result<Outcome, CliError> {
    let out = Out::new(format);
    let mut told: Work = client.post(&format!("archive/{path}"), &Nothing {}).await?;
    while told.running {
        tokio::time::sleep(LOOK).await;
        match of(client.get("archive", &[]).await?) {
            Some(work) => told = work,
            None => return Err(CliError::new("LS0002", "the hub was started anew meanwhile", "begin again")),
        }
    }
    if out.structured() {
        out.text(&out.encode(&told)?)?;
    } else {
        out.line(&output::plain(&sentence(&told)))?;
        for failure in &told.failures {
            output::note(&format!("note: {failure}"));
        }
    }
    Ok(if told.failed > 0 || told.error.is_some() { Outcome::Failed } else { Outcome::Done })
}

fn sentence(work: &Work) -> String {
    let Work { running, looked_at, done, failed, left, error, .. } = work;
    let state = match (running, error) {
        (true, _) => "under way".to_owned(),
        (false, Some(error)) => format!("ended early: {error}"),
        (false, None) => "through".to_owned(),
    };
    let left = left.map_or_else(String::new, |left| format!(", {left} left"));
    format!("{state}: {looked_at} files looked at, {done} done, {failed} failed{left}")
}

/// Purges tombstones: shows them, asks, and purges exactly those.
pub(crate) async fn purge(args: PurgeArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let PurgeArgs { mut ids, filter, dry_run, yes } = args;
    let client = server::client(server)?;
    let out = Out::new(filter.output.output);
    let open =
        TombstoneFilterArgs { limit: 0, undeleted: false, output: OutputArgs::default(), ..filter.clone() };
    match (ids.is_empty(), open == TombstoneFilterArgs::default()) {
        (true, true) => {
            let remedy = "name tombstones (--id), or conditions as for `lockstep tombstones list`";
            return Err(CliError::usage("this would purge everything", remedy));
        }
        (false, false) => {
            return Err(CliError::usage("--id and conditions do not go together", "give one of the two"));
        }
        (false, true) => {}
        (true, false) => {
            let list = tombstones::fetch(&client, filter).await?;
            super::notes(&out, &list);
            ids = list.items.iter().map(|item| item.id).collect();
            if ids.is_empty() {
                output::note("no tombstones");
                return Ok(Outcome::Done);
            }
        }
    }
    if dry_run || !yes {
        let shown: List<Purged> =
            client.post("tombstones/purge", &PurgeRequest { ids: ids.clone(), dry_run: true }).await?;
        table(&out, &shown)?;
        ids = shown.items.iter().filter(|item| item.purged).map(|item| item.id).collect();
        if dry_run || ids.is_empty() {
            return Ok(if shown.items.iter().all(|item| item.purged) {
                Outcome::Done
            } else {
                Outcome::Findings
            });
        }
        can_ask("purging")?;
        if !ask(&format!("Purge these {} tombstones for good? Nothing brings them back.", ids.len()))? {
            return Ok(Outcome::Failed);
        }
    }
    let told: List<Purged> = client.post("tombstones/purge", &PurgeRequest { ids, dry_run: false }).await?;
    let all = told.items.iter().all(|item| item.purged);
    if yes || !all {
        table(&out, &told)?;
    }
    output::note(&format!("{} purged", told.items.iter().filter(|item| item.purged).count()));
    Ok(if all { Outcome::Done } else { Outcome::Findings })
}

fn table(out: &Out, list: &List<Purged>) -> Result<(), CliError> {
    out.show(
        list,
        |_| {
            let mut table = Table::new(&["ID", "OBJECT", "BYTES", "GOES"], "no tombstones");
            for Purged { id, object, bytes, purged: _, why } in &list.items {
                let goes = match why {
                    None => Cell::painted("yes", Paint::Good),
                    Some(why) => Cell::painted(format!("no: {why}"), Paint::Warn),
                };
                let row =
                    [Cell::from(id.to_string()), Cell::from(object), Cell::from(bytes.to_string()), goes];
                table.row(row.into());
            }
            table
        },
        || {
            list.items
                .iter()
                .filter(|item| item.purged)
                .map(|item| format!("tombstone/{}", item.id))
                .collect()
        },
    )
}

/// Puts a legal hold on tombstones.
pub(crate) async fn hold(args: HoldArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let HoldArgs { ids, reason, by } = args;
    let done: Done =
        server::client(server)?.post("tombstones/hold", &HoldRequest { ids, reason, by }).await?;
    Out::new(Format::Table).line(&output::plain(&done.message))?;
    Ok(Outcome::Done)
}

/// Takes it off.
pub(crate) async fn release(ids: Vec<i64>, server: &ServerArgs) -> Result<Outcome, CliError> {
    let done: Done = server::client(server)?.post("tombstones/release", &ReleaseRequest { ids }).await?;
    Out::new(Format::Table).line(&output::plain(&done.message))?;
    Ok(Outcome::Done)
}
