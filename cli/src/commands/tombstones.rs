//! `lockstep tombstones list|show`.

use std::time::Duration;

use lockstep_hub::http::types::{List, TombstoneItem};

use crate::args::{
    Format, NamespaceArgs, ServerArgs, TombstoneFilterArgs, TombstonesArgs, TombstonesCommand,
};
use crate::error::{CliError, Outcome};
use crate::output::{Cell, Out, Paint, Table, age, clock, now_ms};
use crate::server;

/// Lists or shows.
pub(crate) async fn run(args: TombstonesArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    match args.command {
        TombstonesCommand::List(filter) => list(filter, server).await,
        TombstonesCommand::Show { id, show_secrets, output } => show(id, show_secrets, output, server).await,
    }
}

async fn list(filter: TombstoneFilterArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let TombstoneFilterArgs {
        kind,
        namespace,
        name,
        cluster,
        cause,
        policy,
        since,
        until,
        undeleted,
        limit,
        output,
    } = filter;
    let NamespaceArgs { namespace } = namespace;
    let client = server::client(server)?;
    let out = Out::new(output.output);
    let now = now_ms();
    let ago =
        |span: Duration| now.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)).to_string();
    let (since, until) = (since.map(ago), until.map(ago));
    let query = [
        ("kind", kind.as_deref()),
        ("namespace", namespace.as_deref()),
        ("name", name.as_deref()),
        ("cluster", cluster.as_deref()),
        ("cause", cause.as_deref()),
        ("policy", policy.as_deref()),
        ("since", since.as_deref()),
        ("until", until.as_deref()),
        ("undeleted", undeleted.then_some("true")),
        ("limit", Some(&*limit.to_string())),
    ];
    let list: List<TombstoneItem> = client.get("tombstones", &query).await?;
    out.show(
        &list,
        |wide| table(&list, wide, now),
        || list.items.iter().map(|item| format!("tombstone/{}", item.id)).collect(),
    )?;
    super::notes(&out, &list);
    Ok(Outcome::Done)
}

fn table(list: &List<TombstoneItem>, wide: bool, now: i64) -> Table {
    let mut headings = vec!["ID", "DELETED", "CLUSTER", "KIND", "NAMESPACE", "NAME", "CAUSE", "ARCHIVED"];
    if wide {
        headings.extend(["LAST SEEN", "VERSION", "UID", "PATH"]);
    }
    let mut table = Table::new(&headings, "no tombstones");
    for item in &list.items {
        let cause = item
            .policy
            .as_ref()
            .map_or_else(|| item.cause.clone(), |policy| format!("{} ({policy})", item.cause));
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
            Cell::from(cause),
            archived,
        ];
        if wide {
            row.push(Cell::from(clock(item.last_seen_ms)));
            row.push(Cell::from(&item.resource_version));
            row.push(Cell::from(&item.uid));
            row.push(Cell::from(item.path.as_deref().unwrap_or_default()));
        }
        table.row(row);
    }
    table
}

async fn show(id: i64, secrets: bool, format: Format, server: &ServerArgs) -> Result<Outcome, CliError> {
    let client = server::client(server)?;
    let out = Out::new(format);
    let query = [("secrets", secrets.then_some("true"))];
    let item: TombstoneItem = client.get(&format!("tombstones/{id}"), &query).await?;
    let list = List::new("TombstoneList", vec![item]);
    if let (true, Some(item)) = (out.structured(), list.items.first()) {
        out.text(&out.encode(item)?)?;
    } else {
        out.show(&list, |wide| table(&list, wide, now_ms()), || vec![format!("tombstone/{id}")])?;
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Palette;

    #[test]
    fn a_tombstone_tells_cause_and_archive() {
        let item = TombstoneItem {
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
            deleted_at_ms: 0,
            last_seen_ms: 0,
            known_until_ms: None,
            deleted: true,
            path: None,
            deleter: None,
            body: None,
        };
        let text = table(&List::new("TombstoneList", vec![item]), false, 5_000).render(Palette::None);
        assert!(
            text.contains(
                "7    5s        cluster-b   Deployment.apps   shop        web    Lockstep (p)   queued"
            ),
            "{text}"
        );
    }
}
