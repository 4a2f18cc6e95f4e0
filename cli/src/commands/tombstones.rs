//! `lockstep tombstones list|groups|show|diff`; `archive` has what is done to them.

mod tree;

use std::fmt::Write as _;
use std::time::Duration;

use lockstep_hub::http::types::{GroupItem, List, TombstoneDifference, TombstoneItem};

use super::diff::operations;
use crate::args::{
    Format, NamespaceArgs, OutputArgs, ServerArgs, TombstoneFilterArgs, TombstonesArgs, TombstonesCommand,
};
use crate::client::Client;
use crate::error::{CliError, Outcome};
use crate::output::{Cell, Out, Paint, Table, age, clock, now_ms, plain};
use crate::server;

/// Lists, shows or compares.
pub(crate) async fn run(args: TombstonesArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let client = server::client(server)?;
    match args.command {
        TombstonesCommand::Purge(args) => super::archive::purge(*args, server).await,
        TombstonesCommand::Hold(args) => super::archive::hold(*args, server).await,
        TombstonesCommand::Release { ids } => super::archive::release(ids, server).await,
        TombstonesCommand::List(filter) => list(*filter, &client).await,
        TombstonesCommand::Groups { cluster, kind, since, limit, output } => {
            let since = since.map(ago);
            let query = [
                ("cluster", cluster.as_deref()),
                ("kind", kind.as_deref()),
                ("since", since.as_deref()),
                ("limit", Some(&*limit.to_string())),
            ];
            groups(&client.get("groups", &query).await?, output)
        }
        TombstonesCommand::Show { id, show_secrets, output } if id.starts_with('g') => {
            if show_secrets {
                let remedy = "name one of its tombstones: `lockstep tombstones show ID --show-secrets`";
                return Err(CliError::usage("a group is shown without bodies", remedy));
            }
            show_group(&id, output, &client).await
        }
        TombstonesCommand::Show { id, show_secrets, output } => {
            show(&id, show_secrets, output, &client).await
        }
        TombstonesCommand::Diff { ids, cluster, output } => match ids.parse() {
            Ok(id) => super::restore::against_live(id, cluster, output.output, &client).await,
            Err(_) => diff(&ids, output, &client).await,
        },
    }
}

fn ago(span: Duration) -> String {
    now_ms().saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)).to_string()
}

async fn list(filter: TombstoneFilterArgs, client: &Client) -> Result<Outcome, CliError> {
    let out = Out::new(filter.output.output);
    let list = fetch(client, filter).await?;
    out.show(
        &list,
        |wide| table(&list, wide, now_ms()),
        || list.items.iter().map(|item| format!("tombstone/{}", item.id)).collect(),
    )?;
    super::notes(&out, &list);
    Ok(Outcome::Done)
}

/// Those that the conditions mean.
pub(super) async fn fetch(
    client: &Client,
    filter: TombstoneFilterArgs,
) -> Result<List<TombstoneItem>, CliError> {
    let TombstoneFilterArgs {
        kind,
        namespace,
        name,
        selector,
        text,
        group,
        cluster,
        cause,
        policy,
        deleter,
        since,
        until,
        undeleted,
        limit,
        output: _,
    } = filter;
    let NamespaceArgs { namespace } = namespace;
    let (since, until) = (since.map(ago), until.map(ago));
    let query = [
        ("kind", kind.as_deref()),
        ("namespace", namespace.as_deref()),
        ("name", name.as_deref()),
        ("selector", selector.as_deref()),
        ("text", text.as_deref()),
        ("group", group.as_deref()),
        ("cluster", cluster.as_deref()),
        ("cause", cause.as_deref()),
        ("policy", policy.as_deref()),
        ("deleter", deleter.as_deref()),
        ("since", since.as_deref()),
        ("until", until.as_deref()),
        ("undeleted", undeleted.then_some("true")),
        ("limit", Some(&*limit.to_string())),
    ];
    client.get("tombstones", &query).await
}

fn table(list: &List<TombstoneItem>, wide: bool, now: i64) -> Table {
    let mut headings =
        vec!["ID", "DELETED", "CLUSTER", "KIND", "NAMESPACE", "NAME", "CAUSE", "GROUP", "ARCHIVED"];
    if wide {
        headings.extend(["DELETER", "LAST SEEN", "VERSION", "UID", "HELD", "PATH"]);
    }
    let mut table = Table::new(&headings, "no tombstones");
    for item in &list.items {
        let deleted = if item.deleted {
            Cell::from(age(Some(item.deleted_at_ms), now))
        } else {
            Cell::painted("not yet", Paint::Warn)
        };
        let archived = if item.path.is_some() {
            Cell::painted("yes", Paint::Good)
        } else {
            Cell::painted("queued", Paint::Warn)
        };
        let mut row = vec![
            Cell::from(item.id.to_string()),
            deleted,
            Cell::from(&item.cluster),
            Cell::from(&item.kind),
            Cell::from(&item.namespace),
            Cell::from(&item.name),
            Cell::from(cause(item)),
            Cell::from(item.group.as_deref().unwrap_or_default()),
            archived,
        ];
        if wide {
            row.push(Cell::from(item.deleter.as_deref().unwrap_or_default()));
            row.push(Cell::from(clock(item.last_seen_ms)));
            row.push(Cell::from(&item.resource_version));
            row.push(Cell::from(&item.uid));
            let held = item.hold.as_ref().map(|hold| format!("{}: {}", hold.by, hold.reason));
            row.push(Cell::from(held.unwrap_or_default()));
            row.push(Cell::from(item.path.as_deref().unwrap_or_default()));
        }
        table.row(row);
    }
    table
}

fn cause(item: &TombstoneItem) -> String {
    item.policy.as_ref().map_or_else(|| item.cause.clone(), |policy| format!("{} ({policy})", item.cause))
}

fn groups(list: &List<GroupItem>, output: OutputArgs) -> Result<Outcome, CliError> {
    let out = Out::new(output.output);
    let now = now_ms();
    let rows = |_| {
        let headings = ["ID", "DELETED", "CLUSTER", "KIND", "WHAT", "TOMBSTONES", "BY"];
        let mut table = Table::new(&headings, "no groups");
        for item in &list.items {
            let what = item.root.as_ref().or(item.policy.as_ref());
            let by = match (&item.deleter, &item.policy) {
                (Some(deleter), _) => deleter.as_str(),
                (None, Some(_)) => "lockstep",
                (None, None) => "",
            };
            table.row(vec![
                Cell::from(&item.id),
                Cell::from(age(Some(item.last_at_ms), now)),
                Cell::from(&item.cluster),
                Cell::from(&item.kind),
                Cell::from(what.map(String::as_str).unwrap_or_default()),
                Cell::from(item.members.to_string()),
                Cell::from(by),
            ]);
        }
        table
    };
    out.show(list, rows, || list.items.iter().map(|item| format!("group/{}", item.id)).collect())?;
    super::notes(&out, list);
    Ok(Outcome::Done)
}

async fn show_group(id: &str, format: Option<Format>, client: &Client) -> Result<Outcome, CliError> {
    let out = Out::new(format.unwrap_or(Format::Table));
    let list: List<TombstoneItem> = client.get(&format!("groups/{id}"), &[]).await?;
    if format.is_none() {
        out.text(&tree::render(&list.items))?;
    } else {
        let names = || list.items.iter().map(|item| format!("tombstone/{}", item.id)).collect();
        out.show(&list, |wide| table(&list, wide, now_ms()), names)?;
    }
    super::notes(&out, &list);
    Ok(Outcome::Done)
}

async fn show(id: &str, secrets: bool, format: Option<Format>, client: &Client) -> Result<Outcome, CliError> {
    let query = [("secrets", secrets.then_some("true"))];
    let item: TombstoneItem = client.get(&format!("tombstones/{id}"), &query).await?;
    let Some(format) = format else {
        let out = Out::new(Format::Yaml);
        let body = item.body.as_ref().map(|body| out.encode(body)).transpose()?;
        let body = body.unwrap_or_else(|| "# Nothing else was known of it.\n".to_owned());
        out.text(&(head(&item) + &body))?;
        return Ok(Outcome::Done);
    };
    let out = Out::new(format);
    let list = List::new("TombstoneList", vec![item]);
    if let (true, Some(item)) = (out.structured(), list.items.first()) {
        out.text(&out.encode(item)?)?;
    } else {
        out.show(&list, |wide| table(&list, wide, now_ms()), || vec![format!("tombstone/{id}")])?;
    }
    Ok(Outcome::Done)
}

/// The facts as comments above the object, so that the whole is YAML that kubectl takes.
fn head(item: &TombstoneItem) -> String {
    let mut text = String::new();
    let slash = if item.namespace.is_empty() { "" } else { "/" };
    let what = format!("{} {}{slash}{} of {}", item.kind, item.namespace, item.name, item.cluster);
    let mut line = |words: String| {
        let _ = writeln!(text, "# {}", plain(&words));
    };
    line(format!("Tombstone {}: {what}", item.id));
    let when = clock(item.deleted_at_ms);
    match (item.deleted, item.known_until_ms) {
        (false, _) => line("not deleted yet".to_owned()),
        (true, Some(since)) => line(format!("deleted between {} and {when}: {}", clock(since), cause(item))),
        (true, None) => line(format!("deleted {when}: {}", cause(item))),
    }
    if let Some(deleter) = &item.deleter {
        line(format!("asked for by {deleter}"));
    }
    if let Some(group) = &item.group {
        line(format!("together with others: `lockstep tombstones show {group}`"));
    }
    line(format!(
        "this state was read {}, resourceVersion {}",
        clock(item.last_seen_ms),
        item.resource_version
    ));
    line(match &item.path {
        Some(path) => format!("in the archive: {path}"),
        None => "on its way into the archive".to_owned(),
    });
    text
}

async fn diff(ids: &str, output: OutputArgs, client: &Client) -> Result<Outcome, CliError> {
    let Some((one, other)) = ids.split_once("..") else {
        let remedy = "name one, as in 12, or two, as in 12..15: `lockstep tombstones list` shows them";
        return Err(CliError::usage(format!("`{ids}` names no tombstones"), remedy));
    };
    let found: TombstoneDifference =
        client.get(&format!("tombstones/{one}/diff"), &[("with", Some(other))]).await?;
    let out = Out::new(output.output);
    let TombstoneDifference { cluster, kind, namespace, name, before, patch, .. } = &found;
    let slash = if namespace.is_empty() { "" } else { "/" };
    let title = format!("{cluster} {kind} {namespace}{slash}{name}");
    match out.format {
        Format::Json | Format::Yaml => out.text(&out.encode(&found)?)?,
        Format::Name if patch.is_empty() => {}
        Format::Name => out.line(&plain(&title))?,
        Format::Table | Format::Wide if patch.is_empty() => out.line("no differences")?,
        Format::Table | Format::Wide => {
            let title = out.palette.paint(Paint::Bold, &plain(&title));
            out.text(&format!("{title}\n{}", operations(Some(before), patch, out.palette)))?;
        }
    }
    Ok(if patch.is_empty() { Outcome::Done } else { Outcome::Findings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Palette;

    pub(super) fn item() -> TombstoneItem {
        TombstoneItem {
            id: 7,
            cluster: "cluster-b".to_owned(),
            kind: "Deployment.apps".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: "u".to_owned(),
            resource_version: "812".to_owned(),
            api_version: "apps/v1".to_owned(),
            cause: "Lockstep".to_owned(),
            policy: Some("p".to_owned()),
            deleter: Some("jane".to_owned()),
            group: Some("g12".to_owned()),
            labels: std::collections::BTreeMap::new(),
            owners: Vec::new(),
            deleted_at_ms: 0,
            last_seen_ms: 0,
            known_until_ms: None,
            deleted: true,
            path: None,
            hold: None,
            body: None,
        }
    }

    #[test]
    fn a_tombstone_tells_cause_group_and_archive() {
        let text = table(&List::new("TombstoneList", vec![item()]), false, 5_000).render(Palette::None);
        assert!(
            text.contains(
                "7    5s        cluster-b   Deployment.apps   shop        web    Lockstep (p)   g12     queued"
            ),
            "{text}"
        );
    }

    #[test]
    fn the_facts_are_comments_and_nothing_breaks_out_of_them() {
        let text = head(&TombstoneItem { name: "we\nkind: Secret".to_owned(), ..item() });
        assert!(text.lines().all(|line| line.starts_with("# ")), "{text}");
        assert!(text.contains("asked for by jane") && text.contains("tombstones show g12"), "{text}");
    }
}
