//! Atomic lists to which controllers of the target add: what is sent is the union.
//!
//! managedFields say who owns such a list, not who put which entry there. So the copy carries a mark with the keys of our
//! entries ([`LISTS`]). It is not under the MAC: who forges it may edit the list itself. What is on the list and not in
//! the mark is the target's: it stays, and is no part of what we compare.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::entries::ManagedFields;
use super::fieldset::{FieldSet, PathElement};
use super::project::canonical_json;
use crate::catalogue::{MergedList, merged_lists};
use crate::identity::GroupKind;
use crate::object::ObjectError;

/// Annotation: the keys of our entries, as JSON, by the path of their list: `{"imagePullSecrets":["regcred"]}`.
pub const LISTS: &str = "lockstep.dev/lists";

/// By path; keys are JSON values.
type Marked = BTreeMap<String, Vec<Value>>;

/// Writes the mark for the entries that are ours to write, which is what `asked` has, onto a body. Without such lists it
/// gets none.
pub fn mark_lists(gk: &GroupKind, asked: &Value, body: &mut Value) {
    let marked: Marked = merged_lists(gk)
        .filter_map(|row| {
            let entries = list(asked, row.path)?;
            Some((row.path.join("."), entries.iter().map(|entry| key(row, entry)).collect()))
        })
        .collect();
    if !marked.is_empty() {
        set_mark(body, &marked);
    }
}

/// The body to send to an object as it is; none: the body as it stands. `asked` is the body before fields that are left
/// to the target were cut from `sent`.
///
/// # Errors
/// When its managedFields cannot be read.
pub fn merge_lists(
    gk: &GroupKind,
    asked: &Value,
    sent: &Value,
    live: &Value,
) -> Result<Option<Value>, ObjectError> {
    let mut out: Option<Value> = None;
    for row in merged_lists(gk) {
        let (wanted, there) = (list(sent, row.path), list(live, row.path));
        let cut = wanted.is_none() && list(asked, row.path).is_some();
        let Some(there) = there.filter(|_| !cut) else { continue };
        let owners = Owners::of(live, row)?;
        if owners.keyed || wanted.is_none() && !owners.ours {
            continue;
        }
        let Some(union) = union(row, wanted.unwrap_or_default(), there, &marked(live, row)) else { continue };
        let body = out.get_or_insert_with(|| sent.clone());
        set(body, row.path, Value::Array(union));
        if wanted.is_none() {
            // Nothing of it is ours any more, and to leave it out would take the rest along.
            let mut marks = read_mark(body);
            marks.insert(row.path.join("."), Vec::new());
            set_mark(body, &marks);
        }
    }
    Ok(out)
}

/// The list with what the target added; none where it added nothing. Its order stays, so that nothing moves.
fn union(
    row: &MergedList,
    wanted: &[Value],
    there: &[Value],
    before: &BTreeSet<Vec<u8>>,
) -> Option<Vec<Value>> {
    let text = |entry: &Value| canonical_json(&key(row, entry));
    let asked: BTreeMap<Vec<u8>, &Value> = wanted.iter().map(|entry| (text(entry), entry)).collect();
    let (mut union, mut placed, mut theirs) = (Vec::new(), BTreeSet::new(), false);
    for entry in there {
        let key = text(entry);
        let ours = asked.get(&key).copied();
        if ours.is_none() && before.contains(&key) {
            continue;
        }
        theirs |= ours.is_none();
        if placed.insert(key) {
            union.push(ours.unwrap_or(entry).clone());
        }
    }
    union.extend(wanted.iter().filter(|entry| placed.insert(text(entry))).cloned());
    theirs.then_some(union)
}

/// How a server treats a list, and whether it is ours.
struct Owners {
    keyed: bool,
    ours: bool,
}

impl Owners {
    fn of(live: &Value, row: &MergedList) -> Result<Self, ObjectError> {
        let mut owners = Self { keyed: false, ours: false };
        let entries = live.pointer("/metadata/managedFields");
        let managed = entries.map_or(Ok(ManagedFields::default()), ManagedFields::from_value)?;
        for entry in &managed.0 {
            let fields = entry.fields()?;
            let Some(set) = row
                .path
                .iter()
                .try_fold(&fields, |set, member| set.children.get(&PathElement::Field((*member).to_owned())))
            else {
                continue;
            };
            owners.keyed |= !set.children.is_empty();
            owners.ours |= entry.is_ours();
        }
        Ok(owners)
    }
}

/// Takes the lists that the mark names out of what is compared, and gives our entries on them instead.
#[must_use]
pub(super) fn our_entries(object: &Value, own: &mut FieldSet) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, keys) in read_mark(object) {
        let members: Vec<&str> = path.split('.').collect();
        remove(own, &members);
        let keys: BTreeSet<Vec<u8>> = keys.iter().map(canonical_json).collect();
        let is_ours = |entry: &&Value| {
            // The mark does not say which field is the key; an entry has few.
            let of_field = entry
                .as_object()
                .into_iter()
                .flat_map(Map::values)
                .any(|v| keys.contains(&canonical_json(v)));
            of_field || keys.contains(&canonical_json(entry))
        };
        let entries = list(object, &members).unwrap_or_default().iter().filter(is_ours);
        let mut entries: Vec<Vec<u8>> = entries.map(canonical_json).collect();
        entries.sort();
        out.extend_from_slice(&[0]);
        out.extend_from_slice(path.as_bytes());
        for entry in entries {
            out.push(0);
            out.extend_from_slice(&entry);
        }
    }
    out
}

fn remove(set: &mut FieldSet, members: &[&str]) {
    let Some((first, rest)) = members.split_first() else { return };
    let element = PathElement::Field((*first).to_owned());
    if rest.is_empty() {
        set.children.remove(&element);
    } else if let Some(child) = set.children.get_mut(&element) {
        remove(child, rest);
        // As in a set that never had the list.
        if child.children.is_empty() && !child.member {
            set.children.remove(&element);
        }
    }
}

fn key(row: &MergedList, entry: &Value) -> Value {
    row.key.map_or_else(|| entry.clone(), |field| entry.get(field).cloned().unwrap_or_default())
}

/// An empty list is none.
fn list<'a>(object: &'a Value, path: &[&str]) -> Option<&'a [Value]> {
    let found = path.iter().try_fold(object, |value, member| value.get(member))?;
    found.as_array().map(Vec::as_slice).filter(|list| !list.is_empty())
}

fn set(object: &mut Value, path: &[&str], value: Value) {
    let mut at = object;
    for member in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[*member];
    }
    *at = value;
}

fn marked(object: &Value, row: &MergedList) -> BTreeSet<Vec<u8>> {
    let keys = read_mark(object).remove(&row.path.join(".")).unwrap_or_default();
    keys.iter().map(canonical_json).collect()
}

/// Nothing where it cannot be read: then nothing on the list is known to be ours, and all of it stays.
fn read_mark(object: &Value) -> Marked {
    let text = object.pointer("/metadata/annotations").and_then(|all| all.get(LISTS)).and_then(Value::as_str);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn set_mark(body: &mut Value, marked: &Marked) {
    // Texts and values always serialise.
    let text = serde_json::to_string(marked).unwrap_or_default();
    set(body, &["metadata", "annotations", LISTS], text.into());
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
