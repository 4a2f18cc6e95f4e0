//! `spec.ownership`, and the same of one entry of `spec.resources`.

use std::collections::BTreeSet;

use lockstep_engine::ownership::{
    Drift, MANAGER, ManagerPattern, ManagerPatternError, Pattern, PatternError, YIELD_MANAGER,
};
use lockstep_engine::plan::{OnConflict, OnTracked};

use crate::codes;
use crate::node::{Kind, Node};
use crate::policy::{OnImmutable, Ownership, Replicas};
use crate::reader::{Fields, Reader, join, shown};

const FIELDS: &[&str] = &[
    "conflict",
    "retiredManagers",
    "tracked",
    "drift",
    "driftRules",
    "ignoreDifferences",
    "createOnly",
    "replicas",
    "onImmutable",
];
const TRACKED: &[(&str, OnTracked)] = &[("Conflict", OnTracked::Conflict), ("Ignore", OnTracked::Ignore)];
const IMMUTABLES: &[(&str, OnImmutable)] =
    &[("Fail", OnImmutable::Fail), ("Recreate", OnImmutable::Recreate)];
const PATHS: &[&str] = &["jsonPointers", "jsonPaths"];
const CONFLICTS: &[(&str, OnConflict)] = &[
    ("Fail", OnConflict::Fail),
    ("AdoptIfEqual", OnConflict::AdoptIfEqual),
    ("TakeOver", OnConflict::TakeOver),
];
const DRIFTS: &[(&str, Drift)] =
    &[("Correct", Drift::Correct), ("Report", Drift::Report), ("Ignore", Drift::Ignore)];
const REPLICAS: &[(&str, Replicas)] =
    &[("Auto", Replicas::Auto), ("Source", Replicas::Source), ("Target", Replicas::Target)];

/// What is not said is as in `default`. A faulty field has a finding, which keeps the file from being taken.
pub(super) fn ownership(
    reader: &mut Reader<'_>,
    node: Option<&Node>,
    path: &str,
    default: &Ownership,
) -> Ownership {
    let mut ownership = default.clone();
    let Some(fields) = node.and_then(|node| reader.fields(node, path, FIELDS)) else { return ownership };
    let of = |name: &str| fields.get(name).map(|node| (node, join(path, name)));
    if let Some(conflict) = of("conflict").and_then(|(node, path)| reader.one_of(node, &path, CONFLICTS)) {
        ownership.conflict = conflict;
    }
    if let Some((node, path)) = of("retiredManagers") {
        let list = reader.list(node, &path, "leave the field out, or name at least one field manager");
        let named = list.into_iter().flatten().enumerate();
        ownership.retired =
            named.filter_map(|(i, node)| retired(reader, node, &format!("{path}[{i}]"))).collect();
    }
    if let Some(tracked) = of("tracked").and_then(|(node, path)| reader.one_of(node, &path, TRACKED)) {
        ownership.tracked = tracked;
    }
    if let Some(drift) = of("drift").and_then(|(node, path)| reader.one_of(node, &path, DRIFTS)) {
        ownership.drift = drift;
    }
    if let Some(replicas) = of("replicas").and_then(|(node, path)| reader.one_of(node, &path, REPLICAS)) {
        ownership.replicas = replicas;
    }
    let on_immutable = of("onImmutable").and_then(|(node, path)| reader.one_of(node, &path, IMMUTABLES));
    ownership.on_immutable = on_immutable.unwrap_or(ownership.on_immutable);
    if let Some((node, path)) = of("driftRules") {
        ownership.drift_rules = drift_rules(reader, node, &path);
    }
    if let Some((node, path)) = of("ignoreDifferences") {
        (ownership.ignored, ownership.ignored_managers) = ignored(reader, node, &path);
    }
    if let Some((node, path)) = of("createOnly") {
        ownership.create_only = create_only(reader, node, &path);
    }
    ownership
}

fn drift_rules(reader: &mut Reader<'_>, node: &Node, path: &str) -> Vec<(Pattern, Drift)> {
    let mut rules = Vec::new();
    let list = reader.list(node, path, "leave the field out, or list at least one rule");
    for (i, node) in list.into_iter().flatten().enumerate() {
        let path = format!("{path}[{i}]");
        let Some(fields) = reader.fields(node, &path, &[PATHS, &["drift"]].concat()) else { continue };
        let found = paths(reader, &fields, &path);
        if found.is_empty() {
            nothing_named(reader, &fields, &path, "name fields under jsonPointers or jsonPaths");
        }
        let drift = reader
            .required(&fields, &path, "drift", "write Correct, Report or Ignore")
            .and_then(|node| reader.one_of(node, &join(&path, "drift"), DRIFTS));
        rules.extend(found.into_iter().map(|pattern| (pattern, drift.unwrap_or_default())));
    }
    rules
}

fn ignored(reader: &mut Reader<'_>, node: &Node, path: &str) -> (BTreeSet<Pattern>, BTreeSet<String>) {
    let (mut ignored, mut managers) = (BTreeSet::new(), BTreeSet::new());
    let list = reader.list(node, path, "leave the field out, or list at least one entry");
    for (i, node) in list.into_iter().flatten().enumerate() {
        let path = format!("{path}[{i}]");
        let Some(fields) = reader.fields(node, &path, &[PATHS, &["managers"]].concat()) else { continue };
        let found = paths(reader, &fields, &path);
        let mut named = false;
        if let Some(node) = fields.get("managers") {
            let path = join(&path, "managers");
            let list = reader.list(node, &path, "name at least one field manager");
            for (i, node) in list.into_iter().flatten().enumerate() {
                named = true;
                managers.extend(manager(reader, node, &format!("{path}[{i}]")));
            }
        }
        if found.is_empty() && !named {
            nothing_named(reader, &fields, &path, "name fields under jsonPointers or jsonPaths, or managers");
        }
        ignored.extend(found);
    }
    (ignored, managers)
}

fn manager(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<String> {
    let name = reader.text(node, path)?;
    if name.is_empty() || name == MANAGER || name == YIELD_MANAGER {
        let message = format!("`{}` is not a field manager of others", shown(name));
        let remedy = "use the name as `kubectl get -o yaml --show-managed-fields` shows it";
        reader.error(codes::BAD_NAME, node.place, path, message, remedy);
        return None;
    }
    Some(name.to_owned())
}

/// A field manager whose fields are taken over, with `*` for any characters.
fn retired(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<ManagerPattern> {
    let text = reader.text(node, path)?;
    let (message, remedy) = match text.parse() {
        Ok(pattern) => return Some(pattern),
        Err(ManagerPatternError::Everybody) => (
            format!("`{}` means every field manager, controllers at work among them", shown(text)),
            "name the managers that no longer write, as in helm or terraform*",
        ),
        Err(ManagerPatternError::AtWork) => (
            format!("`{}` is at work in every cluster, and keeps its fields", shown(text)),
            "leave it out; name the managers that no longer write",
        ),
    };
    reader.error(codes::BAD_NAME, node.place, path, message, remedy);
    None
}

fn create_only(reader: &mut Reader<'_>, node: &Node, path: &str) -> BTreeSet<Pattern> {
    if let Kind::Bool(whole) = node.value {
        return whole.then(Pattern::root).into_iter().collect();
    }
    let Some(fields) = reader.fields(node, path, PATHS) else { return BTreeSet::new() };
    let found = paths(reader, &fields, path);
    if found.is_empty() {
        let remedy = "name fields under jsonPointers or jsonPaths, or write true for the whole object";
        nothing_named(reader, &fields, path, remedy);
    }
    found.into_iter().collect()
}

fn nothing_named(reader: &mut Reader<'_>, fields: &Fields<'_>, path: &str, remedy: &str) {
    if PATHS.iter().all(|name| fields.get(name).is_none()) {
        reader.error(codes::EMPTY, fields.place, path, "it names no fields", remedy);
    }
}

/// The fields under `jsonPointers` and `jsonPaths`, in their order.
fn paths(reader: &mut Reader<'_>, fields: &Fields<'_>, path: &str) -> Vec<Pattern> {
    type Read = fn(&str) -> Result<Pattern, PatternError>;
    let ways: [(&str, Read); 2] =
        [("jsonPointers", Pattern::from_pointer), ("jsonPaths", Pattern::from_json_path)];
    let mut found = Vec::new();
    for (name, read) in ways {
        let path = join(path, name);
        let Some(node) = fields.get(name) else { continue };
        let list = reader.list(node, &path, "leave the field out, or list at least one path");
        for (i, node) in list.into_iter().flatten().enumerate() {
            let path = format!("{path}[{i}]");
            let Some(text) = reader.text(node, &path) else { continue };
            match read(text) {
                Ok(pattern) if pattern.is_root() => {
                    let message = "the path means the whole object";
                    reader.error(codes::BAD_PATH, node.place, &path, message, "name fields of it");
                }
                Ok(pattern) => found.push(pattern),
                Err(error) => {
                    let message = format!("`{}`: {error}", shown(text));
                    let remedy =
                        "write a JSON pointer as in /spec/replicas, or a JSONPath as in .spec.replicas";
                    reader.error(codes::BAD_PATH, node.place, &path, message, remedy);
                }
            }
        }
    }
    found
}
