//! `lockstep get`.

use lockstep_hub::http::types::{List, ObjectItem};

use super::object;
use crate::args::{GetArgs, NamespaceArgs, ServerArgs};
use crate::error::{CliError, Outcome};
use crate::output::{Cell, Out, Paint, Table, age, now_ms, parse_date};
use crate::server;

/// Items asked for at once.
const PAGE: &str = "500";

/// Shows objects across the fleet.
pub(crate) async fn run(args: GetArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let GetArgs {
        object,
        namespace,
        all_namespaces: _,
        cluster,
        selector,
        show_secrets,
        show_labels,
        output,
    } = args;
    let NamespaceArgs { namespace } = namespace;
    let (kind, name) = object::split(&object)?;
    let client = server::client(server)?;
    let out = Out::new(output.output);
    let mut list: List<ObjectItem> = List::new("ObjectList", Vec::new());
    let mut cursor: Option<String> = None;
    loop {
        let query = [
            ("kind", Some(kind.as_str())),
            ("name", name.as_deref()),
            ("namespace", namespace.as_deref()),
            ("cluster", cluster.as_deref()),
            ("selector", selector.as_deref()),
            ("limit", Some(PAGE)),
            ("continue", cursor.as_deref()),
            ("bodies", out.structured().then_some("true")),
            ("secrets", show_secrets.then_some("true")),
        ];
        let page: List<ObjectItem> = client.get("objects", &query).await?;
        list.items.extend(page.items);
        for note in page.notes {
            if !list.notes.contains(&note) {
                list.notes.push(note);
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let now = now_ms();
    out.show(&list, |wide| table(&list, wide, show_labels, now), || names(&list))?;
    super::notes(&out, &list);
    if let (Some(name), true) = (&name, list.items.is_empty()) {
        let remedy = format!("`lockstep get {kind} -A` shows what there is");
        return Err(CliError::new("LS0013", format!("no {kind} `{name}` is known"), remedy));
    }
    Ok(Outcome::Done)
}

fn names(list: &List<ObjectItem>) -> Vec<String> {
    let name = |item: &ObjectItem| {
        let kind = item.kind.to_lowercase();
        let group = if item.group.is_empty() { String::new() } else { format!(".{}", item.group) };
        format!("{kind}{group}/{}", item.name)
    };
    list.items.iter().map(name).collect()
}

fn table(list: &List<ObjectItem>, wide: bool, labels: bool, now: i64) -> Table {
    let mut headings = vec!["CLUSTER", "NAMESPACE", "NAME", "STATE", "POLICY", "AGE"];
    if wide {
        headings.extend(["SEEN", "VERSION", "UID"]);
    }
    if labels {
        headings.push("LABELS");
    }
    let mut table = Table::new(&headings, "nothing found");
    for item in &list.items {
        let created = item.created.as_deref().and_then(parse_date);
        let mut row = vec![
            Cell::from(&item.cluster),
            Cell::from(&item.namespace),
            Cell::from(&item.name),
            state(item),
            Cell::from(item.policy.as_deref().unwrap_or_default()),
            Cell::from(age(created, now)),
        ];
        if wide {
            row.push(Cell::from(age(Some(item.observed_at_ms), now)));
            row.push(Cell::from(&item.resource_version));
            row.push(Cell::from(&item.uid));
        }
        if labels {
            let pairs = item.labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
            row.push(Cell::from(pairs.collect::<Vec<_>>().join(",")));
        }
        table.row(row);
    }
    table
}

/// Where a copy stands; for everything else, what is known of it.
fn state(item: &ObjectItem) -> Cell {
    use lockstep_engine::status::State;
    if item.deleting {
        return Cell::painted("Deleting", Paint::Warn);
    }
    match &item.status {
        Some(status) => {
            let paint = match status.state {
                State::InStep => Paint::Good,
                State::Failed | State::Conflict | State::Differs | State::Blocked => Paint::Bad,
                _ => Paint::Warn,
            };
            let text = match status.state {
                State::InStep | State::Pending | State::Orphaned => status.state.to_string(),
                state => format!("{state} ({})", status.reason),
            };
            Cell::painted(text, paint)
        }
        None if !item.body_held => Cell::painted("KeyOnly", Paint::Dim),
        None => Cell::painted("Source", Paint::Dim),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Palette;
    use lockstep_engine::status::{State, Status};

    fn item(cluster: &str, status: Option<Status>) -> ObjectItem {
        ObjectItem {
            cluster: cluster.to_owned(),
            group: "apps".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: "u".to_owned(),
            resource_version: "7".to_owned(),
            created: Some("1970-01-01T00:00:00Z".to_owned()),
            labels: Some([("env".to_owned(), "production".to_owned())].into()),
            observed_at_ms: 0,
            deleting: false,
            body_held: true,
            managed: status.is_some(),
            policy: status.as_ref().map(|_| "p".to_owned()),
            status,
            body: None,
        }
    }

    #[test]
    fn the_fleet_in_a_table() {
        let in_step = Status::new(State::InStep, "Synced", "");
        let list = List::new("ObjectList", vec![item("a", None), item("b", Some(in_step))]);
        let text = table(&list, false, true, 60_000).render(Palette::None);
        assert_eq!(
            text,
            "CLUSTER   NAMESPACE   NAME   STATE    POLICY   AGE   LABELS\n\
             a         shop        web    Source   -        1m    env=production\n\
             b         shop        web    InStep   p        1m    env=production\n"
        );
        assert_eq!(names(&list), ["deployment.apps/web", "deployment.apps/web"]);
    }
}
