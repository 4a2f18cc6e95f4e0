//! `spec.resources`.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_engine::GroupKind;
use lockstep_engine::catalogue::is_never_synced;
use lockstep_engine::interest::Condition;
use lockstep_engine::selector::{LabelSelector, Operator, Requirement};

use crate::codes;
use crate::node::{Kind, Node};
use crate::policy::{Ownership, Resource};
use crate::reader::{Fields, Reader, join, shown};
use crate::syntax;

const FIELDS: &[&str] = &[
    "apiGroup",
    "kind",
    "matchLabels",
    "matchExpressions",
    "namespaces",
    "excludeNamespaces",
    "names",
    "includeOwned",
    "ownership",
];

const OPERATORS: &[(&str, Operator)] = &[
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
];

pub(super) fn resources(
    reader: &mut Reader<'_>,
    node: &Node,
    ownership: &Ownership,
) -> Option<Vec<Resource>> {
    const PATH: &str = "spec.resources";
    let list = reader.list(node, PATH, "list at least one kind, as in: - kind: ConfigMap")?;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut resources = Vec::with_capacity(list.len());
    for (i, node) in list.iter().enumerate() {
        let path = format!("{PATH}[{i}]");
        let before = reader.findings.len();
        let Some(resource) = resource(reader, node, &path, ownership) else { continue };
        if reader.findings.len() > before {
            // What is left of a faulty entry may look like another one; the faults say enough.
            continue;
        }
        // The canonical form of entries that select the same is equal.
        let selects = (&resource.gk, &resource.condition, resource.include_owned);
        let canonical = serde_json::to_string(&selects).unwrap_or_default();
        if let Some(first) = seen.get(&canonical) {
            let message = format!("the entry selects the same as spec.resources[{first}]");
            reader.error(codes::DUPLICATE_ENTRY, node.place, &path, message, "remove one of them");
        } else {
            seen.insert(canonical, i);
            resources.push(resource);
        }
    }
    // Whatever is missing here has a finding of its own, which keeps the file from being taken.
    Some(resources)
}

fn resource(reader: &mut Reader<'_>, node: &Node, path: &str, ownership: &Ownership) -> Option<Resource> {
    let fields = reader.fields(node, path, FIELDS)?;
    let gk = group_kind(reader, &fields, path).filter(|gk| is_synced(reader, &fields, path, gk));
    let condition = condition(reader, &fields, path);
    let include_owned = fields
        .get("includeOwned")
        .and_then(|node| reader.flag(node, &join(path, "includeOwned")))
        .unwrap_or(false);
    let ownership =
        super::ownership::ownership(reader, fields.get("ownership"), &join(path, "ownership"), ownership);
    Some(Resource { gk: gk?, condition, include_owned, ownership })
}

/// Which objects of a kind are meant.
pub(super) fn condition(reader: &mut Reader<'_>, fields: &Fields<'_>, path: &str) -> Condition {
    let selector = LabelSelector {
        match_labels: match_labels(reader, fields, path),
        match_expressions: match_expressions(reader, fields, path),
    };
    let namespace_remedy = "use the names of namespaces as they are; patterns are not supported";
    let namespaces = names(reader, fields, path, "namespaces", syntax::is_label, namespace_remedy);
    let exclude_namespaces =
        names(reader, fields, path, "excludeNamespaces", syntax::is_label, namespace_remedy);
    let name_remedy = "use the names of objects as they are; patterns are not supported";
    let group = fields.get("apiGroup").map(|node| &node.value);
    let rbac = matches!(group, Some(Kind::Text(group)) if matches!(group.as_str(), "rbac.authorization.k8s.io" | "*"));
    let is_name = if rbac { syntax::is_rbac_name } else { syntax::is_object_name };
    let names = names(reader, fields, path, "names", is_name, name_remedy);
    for namespace in namespaces.intersection(&exclude_namespaces) {
        let message = format!("namespace {namespace} is both listed and excluded");
        let place = fields.get("excludeNamespaces").map_or(fields.place, |node| node.place);
        reader.error(
            codes::CONTRADICTION,
            place,
            &join(path, "excludeNamespaces"),
            message,
            "remove it from one of the lists",
        );
    }
    Condition { namespaces, exclude_namespaces, names, selector, system: false }
}

fn is_synced(reader: &mut Reader<'_>, fields: &Fields<'_>, path: &str, gk: &GroupKind) -> bool {
    if is_never_synced(gk) {
        let place = fields.get("kind").map_or(fields.place, |node| node.place);
        let message = format!("{gk} describes the life of one cluster and is never synced");
        reader.error(codes::NEVER_SYNCED, place, &join(path, "kind"), message, "remove the entry");
    }
    !is_never_synced(gk)
}

/// The kind that an entry names.
pub(super) fn group_kind(reader: &mut Reader<'_>, fields: &Fields<'_>, path: &str) -> Option<GroupKind> {
    let group = match fields.get("apiGroup") {
        Some(node) => group(reader, node, &join(path, "apiGroup")),
        None => Some(""),
    };
    let node = reader.required(fields, path, "kind", "name the kind")?;
    let path = join(path, "kind");
    let kind = reader.text(node, &path)?;
    if kind.contains('*') {
        let message = format!("`{}` is not a kind", shown(kind));
        let remedy = "list each kind that you want: a kind that appears later must not be synced by surprise";
        reader.error(codes::WILDCARD, node.place, &path, message, remedy);
        return None;
    }
    if !syntax::is_kind(kind) {
        let message = format!("`{}` is not a kind", shown(kind));
        let remedy = match syntax::nearest_kind(kind) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "write it as in the object's own `kind` field, as in Deployment".to_owned(),
        };
        reader.error(codes::BAD_NAME, node.place, &path, message, remedy);
        return None;
    }
    let gk = GroupKind::new(group?, kind);
    if let Some(home) = syntax::other_group(&gk.group, kind) {
        let core =
            |group: &str| if group.is_empty() { "the core group".to_owned() } else { group.to_owned() };
        let message = format!("{} has no kind {kind}", core(&gk.group));
        let remedy = match home {
            "" => "leave apiGroup out: the kind is in the core group".to_owned(),
            home => format!("write apiGroup: {home}"),
        };
        reader.error(codes::WRONG_GROUP, node.place, &path, message, remedy);
        return None;
    }
    Some(gk)
}

pub(super) fn group<'n>(reader: &mut Reader<'_>, node: &'n Node, path: &str) -> Option<&'n str> {
    let group = reader.text(node, path)?;
    if group.contains('*') {
        let message = format!("`{}` is not an API group", shown(group));
        let remedy = "name the group of each kind: a kind that appears later must not be synced by surprise";
        reader.error(codes::WILDCARD, node.place, path, message, remedy);
        return None;
    }
    if group.is_empty() || syntax::is_subdomain(group) && group != "v1" {
        return Some(group);
    }
    let message = format!("`{}` is not an API group", shown(group));
    let remedy = match group.split_once('/') {
        Some((name, _)) if syntax::is_subdomain(name) => format!("write {name}, without the version"),
        _ if group == "v1" => "leave it out for the core group".to_owned(),
        _ => "write it as in apiVersion, without the version, as in apps".to_owned(),
    };
    reader.error(codes::BAD_NAME, node.place, path, message, remedy);
    None
}

/// A list of literal names.
fn names(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    path: &str,
    field: &str,
    check: fn(&str) -> bool,
    remedy: &str,
) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let path = join(path, field);
    let Some(node) = fields.get(field) else { return names };
    let list = reader.list(node, &path, "leave the field out, or list at least one name");
    for (i, node) in list.into_iter().flatten().enumerate() {
        let path = format!("{path}[{i}]");
        let Some(text) = reader.text(node, &path) else { continue };
        if !check(text) {
            let message = format!("`{}` is not a name", shown(text));
            reader.error(codes::BAD_NAME, node.place, &path, message, remedy);
        } else if !names.insert(text.to_owned()) {
            let message = format!("{text} is listed twice");
            reader.error(codes::DUPLICATE_ENTRY, node.place, &path, message, "remove one of them");
        }
    }
    names
}

const KEY_REMEDY: &str =
    "a label key is `name` or `example.com/name`, at most 63 letters, digits, `-`, `_` and `.`";
const VALUE_REMEDY: &str = "a label value has at most 63 letters, digits, `-`, `_` and `.`, and begins and ends with a letter or digit";

fn match_labels(reader: &mut Reader<'_>, fields: &Fields<'_>, path: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let path = join(path, "matchLabels");
    let Some(node) = fields.get("matchLabels") else { return labels };
    let Some(pairs) = reader.any_fields(node, &path) else { return labels };
    for (key, value) in pairs.iter() {
        let path = join(&path, &shown(&key.text));
        if !syntax::is_label_key(&key.text) {
            reader.error(codes::BAD_SELECTOR, key.place, &path, "not a label key", KEY_REMEDY);
        }
        let Some(text) = reader.text(value, &path) else { continue };
        if !syntax::is_label_value(text) {
            let message = format!("`{}` is not a label value", shown(text));
            reader.error(codes::BAD_SELECTOR, value.place, &path, message, VALUE_REMEDY);
        }
        labels.insert(key.text.clone(), text.to_owned());
    }
    if pairs.iter().next().is_none() {
        let remedy = "leave the field out to select objects with any labels";
        reader.error(codes::EMPTY, node.place, &path, "the map is empty", remedy);
    }
    labels
}

fn match_expressions(reader: &mut Reader<'_>, fields: &Fields<'_>, path: &str) -> BTreeSet<Requirement> {
    let path = join(path, "matchExpressions");
    let Some(node) = fields.get("matchExpressions") else { return BTreeSet::new() };
    let list = reader.list(node, &path, "leave the field out to select objects with any labels");
    let list = list.into_iter().flatten().enumerate();
    list.filter_map(|(i, node)| expression(reader, node, &format!("{path}[{i}]"))).collect()
}

fn expression(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Requirement> {
    let fields = reader.fields(node, path, &["key", "operator", "values"])?;
    let key = reader.required(&fields, path, "key", "name the label").and_then(|node| {
        let key = reader.text(node, &join(path, "key"))?;
        if !syntax::is_label_key(key) {
            let message = format!("`{}` is not a label key", shown(key));
            reader.error(codes::BAD_SELECTOR, node.place, &join(path, "key"), message, KEY_REMEDY);
        }
        Some(key)
    });
    let operator = reader
        .required(&fields, path, "operator", "write In, NotIn, Exists or DoesNotExist")
        .and_then(|node| reader.one_of(node, &join(path, "operator"), OPERATORS));
    let values_path = join(path, "values");
    let mut values = BTreeSet::new();
    let wants_values = matches!(operator, Some(Operator::In | Operator::NotIn));
    match fields.get("values") {
        Some(node) if wants_values => {
            let list = reader.list(node, &values_path, "list at least one value");
            for (i, node) in list.into_iter().flatten().enumerate() {
                let path = format!("{values_path}[{i}]");
                let Some(text) = reader.text(node, &path) else { continue };
                if !syntax::is_label_value(text) {
                    let message = format!("`{}` is not a label value", shown(text));
                    reader.error(codes::BAD_SELECTOR, node.place, &path, message, VALUE_REMEDY);
                }
                values.insert(text.to_owned());
            }
        }
        Some(node) if operator.is_some() => {
            let message = "Exists and DoesNotExist take no values";
            reader.error(codes::BAD_SELECTOR, node.place, &values_path, message, "remove the values");
        }
        None if wants_values => {
            let message = "In and NotIn need values";
            reader.error(codes::BAD_SELECTOR, fields.place, &values_path, message, "list at least one value");
        }
        _ => {}
    }
    Some(Requirement { key: key?.to_owned(), operator: operator?, values })
}
