//! What is held, and what is let go of: shown first, and done when a person has said so.

use std::io::{IsTerminal as _, Write as _};

use lockstep_hub::http::types::{
    ApproveRequest, Approved, ClusterRemoval, List, OrphanRequest, PauseScope, Releasing,
    RemoveClusterRequest, digest_of,
};

use super::act::scope;
use crate::args::{ApproveArgs, Format, OrphanArgs, ServerArgs};
use crate::error::{CliError, Outcome};
use crate::output::{self, Cell, Out, Table, age, now_ms};
use crate::server;

/// Releases held deletes.
pub(crate) async fn approve(args: ApproveArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let ApproveArgs { policy, target, dry_run, yes, output } = args;
    let client = server::client(server)?;
    let out = Out::new(output.output);
    let request = ApproveRequest { policy, target, dry_run: false, shown: None };
    if yes && !dry_run {
        let released: List<Approved> = client.post("approve", &request).await?;
        show(&out, &released)?;
        return Ok(Outcome::Done);
    }
    let held: List<Approved> =
        client.post("approve", &ApproveRequest { dry_run: true, ..request.clone() }).await?;
    let count: usize = held.items.iter().map(|item| item.objects.len()).sum();
    if dry_run || count == 0 {
        show(&out, &held)?;
        return Ok(Outcome::Done);
    }
    can_ask("approving")?;
    show(&out, &held)?;
    if !ask(&format!("Release these {count} deletes?"))? {
        return Ok(Outcome::Failed);
    }
    let request = ApproveRequest { shown: Some(digest_of(&held.items)), ..request };
    let _: List<Approved> = client.post("approve", &request).await?;
    output::note("released");
    Ok(Outcome::Done)
}

fn show(out: &Out, list: &List<Approved>) -> Result<(), CliError> {
    let now = now_ms();
    let objects = || list.items.iter().flat_map(|item| item.objects.iter().map(move |object| (item, object)));
    out.show(
        list,
        |wide| {
            let mut columns = vec!["TARGET", "KIND", "NAMESPACE", "NAME", "WHY", "SINCE"];
            if wide {
                columns.push("MESSAGE");
            }
            let mut table = Table::new(&columns, "nothing is held");
            for (item, object) in objects() {
                let since = age(Some(object.since_ms), now);
                let mut row =
                    vec![Cell::from(&item.target), Cell::from(&object.kind), Cell::from(&object.namespace)];
                row.extend([Cell::from(&object.name), Cell::from(&object.reason), Cell::from(since)]);
                if wide {
                    row.push(Cell::from(&object.message));
                }
                table.row(row);
            }
            table
        },
        || objects().map(|(_, o)| format!("{} {}/{}", o.kind, o.namespace, o.name)).collect(),
    )
}

/// Lets go of copies.
pub(crate) async fn orphan(args: OrphanArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let OrphanArgs { scope: args, dry_run, yes, output } = args;
    let client = server::client(server)?;
    let out = Out::new(output.output);
    let scope: PauseScope = scope(args);
    let request = OrphanRequest { scope, dry_run: true };
    let counted: List<Releasing> = client.post("orphan", &request).await?;
    let count: u64 = counted.items.iter().map(|item| item.objects).sum();
    out.show(
        &counted,
        |_| {
            let mut table = Table::new(&["POLICY", "TARGET", "OBJECTS"], "nothing of lockstep is there");
            for Releasing { policy, target, objects } in &counted.items {
                let policy = if policy.is_empty() { "(namespaces made for objects)" } else { policy };
                table.row(vec![Cell::from(policy), Cell::from(target), Cell::from(objects.to_string())]);
            }
            table
        },
        || counted.items.iter().map(|item| format!("{}/{}", item.target, item.policy)).collect(),
    )?;
    if dry_run || count == 0 {
        return Ok(Outcome::Done);
    }
    if !yes {
        can_ask("letting go")?;
        if !ask(&format!("Let go of these {count} objects? They stay, and lockstep forgets them."))? {
            return Ok(Outcome::Failed);
        }
    }
    let _: List<Releasing> = client.post("orphan", &OrphanRequest { dry_run: false, ..request }).await?;
    output::note("under way; `lockstep status` counts those that remain as Releasing");
    Ok(Outcome::Done)
}

/// Removes a cluster that is gone for good.
pub(super) async fn remove_cluster(
    cluster: String,
    dry_run: bool,
    yes: bool,
    format: Format,
    server: &ServerArgs,
) -> Result<Outcome, CliError> {
    let client = server::client(server)?;
    let out = Out::new(format);
    let request = RemoveClusterRequest { cluster, dry_run: true };
    let removal: ClusterRemoval = client.post("remove-cluster", &request).await?;
    if out.structured() {
        out.text(&out.encode(&removal)?)?;
    } else {
        let ClusterRemoval { cluster, placements, objects, policies } = removal;
        out.line(&output::plain(&format!(
            "{cluster}: {placements} copies that lockstep looks after or was to make there; {objects} objects known, whose last states go to the archive"
        )))?;
        if !policies.is_empty() {
            let named = policies.join(", ");
            out.line(&output::plain(&format!(
                "policies that name it: {named}; they go on without it, take it out of their files"
            )))?;
        }
    }
    if dry_run {
        return Ok(Outcome::Done);
    }
    if !yes {
        can_ask("removing a cluster")?;
        if !ask(&format!("Remove {} for good? No other cluster is touched.", request.cluster))? {
            return Ok(Outcome::Failed);
        }
    }
    let request = RemoveClusterRequest { dry_run: false, ..request };
    let _: ClusterRemoval = client.post("remove-cluster", &request).await?;
    output::note(&format!(
        "removed; `lockstep tombstones list --cluster {}` shows what was kept",
        request.cluster
    ));
    Ok(Outcome::Done)
}

pub(super) fn can_ask(what: &str) -> Result<(), CliError> {
    if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        return Ok(());
    }
    let message = format!("{what} needs a person who says yes, and there is no terminal to ask on");
    Err(CliError::usage(message, "look with --dry-run, then give --yes"))
}

/// Asks on the terminal; anything but `y` or `yes` is a no.
pub(super) fn ask(question: &str) -> Result<bool, CliError> {
    let failed = |error: std::io::Error| CliError::io("the terminal cannot be read", &error);
    let mut terminal = std::io::stderr();
    write!(terminal, "{} [y/N] ", output::plain(question)).and_then(|()| terminal.flush()).map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    let said = matches!(answer.trim(), "y" | "Y" | "yes");
    if !said {
        output::note("nothing was done");
    }
    Ok(said)
}
