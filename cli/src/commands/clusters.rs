//! `lockstep clusters`.

use lockstep_hub::http::types::{AcceptRewindRequest, AcceptedRewind, ClusterStatus, List, RewoundStatus};

use crate::args::{ClustersArgs, ClustersCommand, Format, ServerArgs};
use crate::error::{CliError, Outcome};
use crate::output::{Cell, Out, Paint, Table, age, now_ms, span};
use crate::server;

/// Clocks that differ by more are shown as wrong.
pub(crate) const SKEW_SHOWN_MS: i64 = 2_000;

/// Shows the member clusters.
pub(crate) async fn run(args: ClustersArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let ClustersArgs { command, cluster, output } = args;
    match command {
        Some(ClustersCommand::AcceptRewind { cluster, output }) => {
            return accept_rewind(cluster, output.output, server).await;
        }
        Some(ClustersCommand::Remove { cluster, dry_run, yes, output }) => {
            return super::deletes::remove_cluster(cluster, dry_run, yes, output.output, server).await;
        }
        None => {}
    }
    let client = server::client(server)?;
    let out = Out::new(output.output);
    let list: List<ClusterStatus> = client.get("clusters", &[("cluster", cluster.as_deref())]).await?;
    let now = now_ms();
    out.show(
        &list,
        |wide| table(&list, wide, now),
        || list.items.iter().map(|item| format!("cluster/{}", item.name)).collect(),
    )?;
    if cluster.is_some() && matches!(out.format, Format::Table | Format::Wide) {
        for item in &list.items {
            out.text(&format!("\n{}", watches(item, now).render(out.palette)))?;
        }
    }
    super::notes(&out, &list);
    Ok(Outcome::Done)
}

/// Takes what a cluster lost in a rewind for deleted.
async fn accept_rewind(cluster: String, format: Format, server: &ServerArgs) -> Result<Outcome, CliError> {
    let client = server::client(server)?;
    let out = Out::new(format);
    let done: AcceptedRewind = client.post("accept-rewind", &AcceptRewindRequest { cluster }).await?;
    if out.structured() {
        out.text(&out.encode(&done)?)?;
    } else {
        let AcceptedRewind { cluster, objects } = done;
        out.line(&format!(
            "{cluster}: {objects} objects that it lost count as deleted now; `lockstep tombstones list --cluster {cluster}` shows them"
        ))?;
    }
    Ok(Outcome::Done)
}

/// One line per cluster.
pub(crate) fn table(list: &List<ClusterStatus>, wide: bool, now: i64) -> Table {
    let mut headings =
        vec!["CLUSTER", "STATE", "SINCE", "WATCHES", "CHECKPOINT", "OBJECTS", "WAITING", "KUBERNETES"];
    if wide {
        headings.extend(["AGENT", "CLOCK", "QUEUED", "ACCEPTS", "UID"]);
    }
    let empty = "no clusters: `lockstep token create NAME` registers one";
    let mut table = Table::new(&headings, empty);
    for item in &list.items {
        let live = item.watches.iter().filter(|watch| watch.phase == "Live").count();
        let oldest = item.watches.iter().map(|watch| watch.updated_at_ms).min();
        let mut row = vec![
            Cell::from(&item.name),
            state(item),
            Cell::from(age(item.since_ms, now)),
            Cell::from(format!("{live}/{}", item.watches.len())),
            Cell::from(age(oldest, now)),
            Cell::from(item.objects.to_string()),
            if item.waiting > 0 {
                Cell::painted(item.waiting.to_string(), Paint::Warn)
            } else {
                Cell::from("0")
            },
            Cell::from(&item.server_version),
        ];
        if wide {
            row.push(Cell::from(&item.agent_version));
            row.push(skew(item.clock_skew_ms));
            row.push(Cell::from(item.queued_items.map(|count| count.to_string()).unwrap_or_default()));
            row.push(Cell::from(item.accepts.join(" ")));
            row.push(Cell::from(item.uid.as_deref().unwrap_or_default()));
        }
        table.row(row);
    }
    for item in &list.items {
        if let Some(RewoundStatus { at_ms, how, missing }) = &item.rewound {
            let line = format!(
                "{}: rewound {} ago ({how}); {missing} objects are missing since: bring them back, or `lockstep clusters accept-rewind {}` takes them for deleted",
                item.name,
                age(Some(*at_ms), now),
                item.name
            );
            table.below(line, Some(Paint::Bad));
        }
        for refused in &item.not_accepted {
            table.below(format!("{}: {refused}", item.name), Some(Paint::Warn));
        }
        if let Some(problem) = &item.problem {
            table.below(format!("{}: {problem}", item.name), Some(Paint::Bad));
        }
    }
    table
}

fn state(item: &ClusterStatus) -> Cell {
    match (item.connected, item.paused, item.since_ms) {
        (true, _, _) if item.rewound.is_some() => Cell::painted("Rewound", Paint::Bad),
        (true, true, _) => Cell::painted("Paused", Paint::Warn),
        (true, false, _) => Cell::painted("Connected", Paint::Good),
        (false, _, Some(_)) => Cell::painted("Disconnected", Paint::Bad),
        (false, _, None) => Cell::painted("NeverConnected", Paint::Warn),
    }
}

fn skew(skew_ms: Option<i64>) -> Cell {
    skew_ms.map_or_else(
        || Cell::from(""),
        |skew| {
            let text = format!("{}{}", if skew < 0 { "-" } else { "+" }, span(skew.abs()));
            if skew.abs() > SKEW_SHOWN_MS { Cell::painted(text, Paint::Bad) } else { Cell::from(text) }
        },
    )
}

/// The watches of one cluster.
fn watches(item: &ClusterStatus, now: i64) -> Table {
    let headings = ["WATCH", "NAMESPACE", "PHASE", "SINCE", "CHECKPOINT", "AGE", "REASON"];
    let mut table = Table::new(&headings, "it watches nothing: no policy names it");
    for watch in &item.watches {
        let paint = match watch.phase.as_str() {
            "Live" => Paint::Good,
            "Failing" => Paint::Bad,
            _ => Paint::Warn,
        };
        table.row(vec![
            Cell::from(&watch.kind),
            Cell::from(if watch.namespace.is_empty() { "*" } else { &watch.namespace }),
            Cell::painted(&watch.phase, paint),
            Cell::from(age(Some(watch.since_ms), now)),
            Cell::from(&watch.checkpoint),
            Cell::from(age(Some(watch.updated_at_ms), now)),
            Cell::from([watch.reason.as_str(), watch.message.as_str()].join(" ").trim()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Palette;
    use lockstep_hub::http::types::WatchStatus;

    #[test]
    fn a_cluster_shows_its_watches_and_its_clock() {
        let watch = |phase: &str| WatchStatus {
            kind: "Deployment.apps".to_owned(),
            namespace: String::new(),
            phase: phase.to_owned(),
            reason: String::new(),
            message: String::new(),
            api_version: "apps/v1".to_owned(),
            epoch: 1,
            checkpoint: "812".to_owned(),
            since_ms: 0,
            updated_at_ms: 55_000,
        };
        let item = ClusterStatus {
            name: "cluster-b".to_owned(),
            uid: Some("u".to_owned()),
            connected: true,
            since_ms: Some(0),
            server_version: "v1.20.2".to_owned(),
            agent_version: "0.1.0".to_owned(),
            protocol: Some(1),
            accepts: vec!["*".to_owned()],
            not_accepted: vec![],
            paused: false,
            objects: 12,
            clock_skew_ms: Some(-5_000),
            queued_items: Some(0),
            waiting: 3,
            rewound: None,
            problem: None,
            watches: vec![watch("Live"), watch("Listing")],
        };
        let list = List::new("ClusterList", vec![item.clone()]);
        let text = table(&list, false, 60_000).render(Palette::None);
        assert!(
            text.contains(
                "cluster-b   Connected   1m      1/2       5s           12        3         v1.20.2"
            ),
            "{text}"
        );
        assert!(table(&list, true, 60_000).render(Palette::None).contains("-5s"));
        assert!(watches(&item, 60_000).render(Palette::None).contains("Deployment.apps   *           Live"));
    }
}
