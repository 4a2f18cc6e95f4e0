//! A group as a tree: what was deleted, and below it what went because of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use lockstep_hub::http::types::TombstoneItem;

use crate::output::plain;

/// Kinds that hold others.
const CONTAINERS: [&str; 2] = ["Namespace", "CustomResourceDefinition.apiextensions.k8s.io"];

/// Owners above their dependents, and a namespace or definition above everything.
pub(super) fn render(items: &[TombstoneItem]) -> String {
    let known: BTreeSet<&str> = items.iter().map(|item| item.uid.as_str()).collect();
    let container = items.iter().find(|item| CONTAINERS.contains(&item.kind.as_str()));
    let mut below: BTreeMap<Option<&str>, Vec<&TombstoneItem>> = BTreeMap::new();
    for item in items {
        let owner = item.owners.first().map(|owner| owner.uid.as_str());
        let owner = owner.filter(|owner| known.contains(owner) && *owner != item.uid);
        let top = container.filter(|top| top.uid != item.uid).map(|top| top.uid.as_str());
        below.entry(owner.or(top)).or_default().push(item);
    }
    for siblings in below.values_mut() {
        siblings.sort_by_key(|item| (&item.kind, &item.namespace, &item.name, item.id));
    }
    let mut text = String::new();
    let mut seen = BTreeSet::new();
    branch(&mut text, &below, None, "", &mut seen);
    // Owners that name each other have nobody above them.
    for item in items.iter().filter(|item| !seen.contains(&item.id)) {
        let _ = writeln!(text, "{}", line(item));
    }
    text
}

fn branch(
    text: &mut String,
    below: &BTreeMap<Option<&str>, Vec<&TombstoneItem>>,
    of: Option<&str>,
    indent: &str,
    seen: &mut BTreeSet<i64>,
) {
    let siblings = below.get(&of).map(Vec::as_slice).unwrap_or_default();
    for (n, item) in siblings.iter().enumerate() {
        if !seen.insert(item.id) {
            continue;
        }
        let last = n + 1 == siblings.len();
        let (fork, rest) = match (of, last) {
            (None, _) => ("", ""),
            (Some(_), false) => ("|- ", "|  "),
            (Some(_), true) => ("`- ", "   "),
        };
        let _ = writeln!(text, "{indent}{fork}{}", line(item));
        branch(text, below, Some(&item.uid), &format!("{indent}{rest}"), seen);
    }
}

fn line(item: &TombstoneItem) -> String {
    let slash = if item.namespace.is_empty() { "" } else { "/" };
    plain(&format!("{} {}{slash}{}  ({})", item.kind, item.namespace, item.name, item.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tombstones::tests::item;

    fn owned(id: i64, kind: &str, owner: Option<&str>) -> TombstoneItem {
        let owner = owner.map(|uid| {
            serde_json::from_value(serde_json::json!({ "kind": "X", "name": "x", "uid": uid })).unwrap()
        });
        TombstoneItem {
            id,
            kind: kind.to_owned(),
            uid: format!("u{id}"),
            owners: owner.into_iter().collect(),
            ..item()
        }
    }

    #[test]
    fn dependents_stand_below_their_owner_and_all_below_the_namespace() {
        let mut namespace = owned(1, "Namespace", None);
        namespace.namespace.clear();
        let items = [
            owned(5, "ConfigMap", None),
            owned(4, "Pod", Some("u3")),
            owned(3, "ReplicaSet.apps", Some("u2")),
            owned(2, "Deployment.apps", None),
            namespace,
        ];
        assert_eq!(
            render(&items),
            "Namespace web  (1)\n\
             |- ConfigMap shop/web  (5)\n\
             `- Deployment.apps shop/web  (2)\n   `- ReplicaSet.apps shop/web  (3)\n      `- Pod shop/web  (4)\n"
        );
        let circle = [owned(1, "A", Some("u2")), owned(2, "B", Some("u1"))];
        assert_eq!(render(&circle), "A shop/web  (1)\nB shop/web  (2)\n");
    }
}
