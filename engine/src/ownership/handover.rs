//! Taking ownership over from field managers that are done with an object (decision 0017).
//!
//! A field that two managers own stays when one of them drops it. So whoever adopts an object must become the only owner
//! of what it asks for: the entries of *retired* managers are handed over to ours. What only the target has stays with its
//! manager, and the entry of a controller that is still at work is never touched.

mod retired;
mod rivals;
mod split;

use serde_json::{Value, json};

use super::MANAGER;
use super::entries::{ManagedFields, ManagerEntry};
use super::fieldset::FieldSet;
use crate::object::ObjectError;

pub use retired::{ManagerPattern, ManagerPatternError, RESTORE_MANAGER, Retired};
use rivals::{Sides, rivals};
use split::{Split, metadata_of, split};

/// What a body claims of an object.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// What is applied, or is about to be.
    pub body: &'a Value,
    /// What our last apply owned: it is ours also where the body no longer has it, so that it goes.
    pub last: Option<&'a FieldSet>,
    /// Fields that only the target has, and that cannot stay beside the body.
    pub displaced: Option<&'a FieldSet>,
}

/// `metadata.managedFields` as it is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Handover {
    /// All entries.
    pub entries: Value,
    /// The managers whose fields are handed over, sorted, each once.
    pub from: Vec<String>,
}

/// Hands the fields that `claims` names over from retired managers to us. Nothing where they own none of it.
///
/// # Errors
/// When the object's managedFields cannot be read.
pub fn hand_over(
    live: &Value,
    claims: Claims<'_>,
    retired: &Retired<'_>,
) -> Result<Option<Handover>, ObjectError> {
    let Some(listed) = live.pointer("/metadata/managedFields").and_then(Value::as_array) else {
        return Ok(None);
    };
    let version = live.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let managed = ManagedFields::from_value(&Value::Array(listed.clone()))?;
    let (mut entries, mut claimed, mut from) = (Vec::new(), FieldSet::default(), Vec::new());
    let mut time = "";
    for (raw, entry) in listed.iter().zip(&managed.0) {
        if entry.is_ours() {
            continue;
        }
        let part = if retired.includes(entry) { part(entry, version, claims)? } else { None };
        let Some(Split { claimed: taken, kept, .. }) = part else {
            entries.push(raw.clone());
            continue;
        };
        claimed.extend(&taken);
        from.push(entry.manager.clone());
        time = time.max(&entry.time);
        if !kept.is_empty() {
            let mut rest = raw.clone();
            rest["fieldsV1"] = kept.to_value();
            entries.push(rest);
        }
    }
    if let Some(displaced) = claims.displaced {
        claimed.extend(displaced);
    }
    if from.is_empty() && claimed.is_empty() {
        return Ok(None);
    }
    if let Some(ours) = managed.ours().filter(|ours| ours.api_version == version) {
        claimed.extend(&ours.fields()?);
        time = time.max(&ours.time);
    }
    entries.insert(0, entry_of_ours(&claimed, version, time));
    from.sort();
    from.dedup();
    Ok(Some(Handover { entries: Value::Array(entries), from }))
}

/// Our entry alone, for an object whose managedFields were cleared: without it the next apply would leave everything that
/// is there to `before-first-apply`. Nothing where somebody owns something, or nothing of ours is left.
///
/// # Errors
/// When the object's managedFields cannot be read.
pub fn reinstate(live: &Value, last: &FieldSet) -> Result<Option<Handover>, ObjectError> {
    let listed = live.pointer("/metadata/managedFields");
    if !listed.map_or(Ok(ManagedFields::default()), ManagedFields::from_value)?.0.is_empty() {
        return Ok(None);
    }
    let version = live.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let ours = split(last, Some(live), &[]).claimed;
    Ok((!ours.is_empty())
        .then(|| Handover { entries: json!([entry_of_ours(&ours, version, "")]), from: Vec::new() }))
}

/// Fields that the body does not have, that nobody but retired managers own, and that cannot stay beside the body, as the
/// API server says: each cause is a field as its answer names it, and whether its value is there twice.
///
/// # Errors
/// When the object's managedFields cannot be read.
pub fn displaced(
    live: &Value,
    body: &Value,
    retired: &Retired<'_>,
    causes: &[(String, bool)],
) -> Result<FieldSet, ObjectError> {
    let version = live.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let listed = live.pointer("/metadata/managedFields");
    let managed = listed.map_or(Ok(ManagedFields::default()), ManagedFields::from_value)?;
    let (mut theirs, mut others) = (FieldSet::default(), FieldSet::default());
    for entry in managed.0.iter().filter(|entry| entry.api_version == version) {
        let ends = entry.is_ours() || retired.includes(entry);
        let set = if ends { &mut theirs } else { &mut others };
        set.extend(&entry.fields()?);
    }
    let mut found = FieldSet::default();
    for (path, twice) in causes {
        rivals(&Sides { theirs: &theirs, others: Some(&others), live, body }, path, *twice, &mut found);
    }
    Ok(found)
}

/// What is to become of the entry of a retired manager; nothing where it stays as it is.
fn part(entry: &ManagerEntry, version: &str, claims: Claims<'_>) -> Result<Option<Split>, ObjectError> {
    let theirs = entry.fields()?;
    if entry.api_version == version {
        let part = split(&theirs, Some(claims.body), &[claims.last, claims.displaced]);
        return Ok(part.changed.then_some(part));
    }
    // Paths of another version cannot be compared, but for metadata, which is the same in all of them. What such an entry
    // says of the rest is given up: the values stay as they are, and hold nothing against us.
    let metadata = metadata_of(&theirs);
    let mut part = split(&metadata, Some(claims.body), &[]);
    part.changed |= metadata != theirs;
    Ok(part.changed.then_some(part))
}

fn entry_of_ours(fields: &FieldSet, version: &str, time: &str) -> Value {
    let mut entry = json!({
        "manager": MANAGER,
        "operation": "Apply",
        "apiVersion": version,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields.to_value(),
    });
    if !time.is_empty() {
        entry["time"] = time.into();
    }
    entry
}

#[cfg(test)]
mod tests;
