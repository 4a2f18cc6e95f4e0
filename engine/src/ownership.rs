//! Who owns which field: managedFields, the projection onto what we own, conflicts.
//!
//! lockstep writes by server-side apply as field manager [`MANAGER`]. What it owns of an object is
//! the entry of `metadata.managedFields` with that manager, operation Apply and no subresource.
//! The object is projected onto that entry and digested; the digest of the apply's *response* is
//! what later observations are compared with, because servers normalise values (`1000m` to `1`).
//!
//! The digest covers the owned paths as well as their values: a field that somebody took over
//! shrinks our set without changing any value that is left.

mod compare;
mod conflict;
mod differences;
mod drift;
mod entries;
mod fieldset;
mod handover;
mod leave;
mod merge;
mod pattern;
mod project;

pub use compare::{
    Compared, Comparison, Difference, DifferenceKind, Differences, Holder, WhyDifferent, compare,
};
pub use conflict::{ConflictCause, conflicts, force_allowed};
pub use differences::differences;
pub use drift::{Corrected, Taken, sentence, taken_by};
pub use entries::{
    ManagedFields, ManagerEntry, ManagerSummary, SUMMARY_BYTES, SUMMARY_PATHS, has_entry_of_ours,
};
pub use fieldset::{FieldSet, FieldSetError, PathElement};
pub use handover::{
    Claims, Handover, ManagerPattern, ManagerPatternError, RESTORE_MANAGER, Retired, displaced, hand_over,
    reinstate,
};
pub use leave::{Drift, Leave, Left, Share, give_back, share};
pub use merge::{LISTS, mark_lists, merge_lists};
pub use pattern::{Pattern, PatternError};
pub use project::{canonical_json, project};

use serde_json::Value;

use crate::object::ObjectError;

/// Our field manager.
pub const MANAGER: &str = "lockstep";
/// The second manager that keeps a value alive when we stop managing a field.
pub const YIELD_MANAGER: &str = "lockstep-yield";
/// The annotation with the nonce of a create; never part of a digest.
pub const INTENT_ANNOTATION: &str = "lockstep.dev/intent";

/// What an object says about the part of it that we own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owned<D, V> {
    /// We have no entry: never applied, or all of it was taken over.
    None,
    /// Our entry is written in this other apiVersion: unknown, not drift.
    OtherVersion(V),
    /// The digest of the owned paths and their values.
    Digest(D),
}

/// What an object says about the part of it that we own.
pub type OwnedState = Owned<[u8; 16], String>;

/// The digest of what we own of an object.
///
/// `api_version` is that of the watch, for items of a list, which carry none. Secrets need a key
/// (I13).
///
/// # Errors
/// When the bytes are no JSON object, or our managedFields entry cannot be read.
pub fn owned_digest(
    object: &[u8],
    api_version: &str,
    key: Option<&[u8; 32]>,
) -> Result<OwnedState, ObjectError> {
    let value: Value = serde_json::from_slice(object)?;
    owned_digest_of(&value, api_version, key)
}

/// As [`owned_digest`], of an object that is a tree already.
///
/// # Errors
/// When our managedFields entry cannot be read.
pub fn owned_digest_of(
    object: &Value,
    api_version: &str,
    key: Option<&[u8; 32]>,
) -> Result<OwnedState, ObjectError> {
    let Some(entries) = object.pointer("/metadata/managedFields") else { return Ok(Owned::None) };
    let managed = ManagedFields::from_value(entries)?;
    let Some(ours) = managed.ours() else { return Ok(Owned::None) };
    let object_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or(api_version);
    if ours.api_version != object_version {
        return Ok(Owned::OtherVersion(ours.api_version.clone()));
    }
    let mut own = ours.fields()?.without_bookkeeping();
    let others = managed.others()?;
    let entries = merge::our_entries(object, &mut own);
    Ok(Owned::Digest(digest_with(object, &own, &others, &entries, key)))
}

/// Did we write every value of this top-level field? What our entry owns is as we applied it.
#[must_use]
pub fn wrote_all(object: &Value, field: &str) -> bool {
    let Some(value) = object.get(field) else { return true };
    let entries = object.pointer("/metadata/managedFields").map(ManagedFields::from_value);
    let Some(Ok(managed)) = entries else { return false };
    let (Some(Ok(own)), Ok(others)) = (managed.ours().map(ManagerEntry::fields), managed.others()) else {
        return false;
    };
    project(object, &own, &others).get(field) == Some(value)
}

/// The digest of a projection: owned paths, then owned values. Keyed for Secrets.
#[must_use]
pub fn digest(object: &Value, own: &FieldSet, others: &FieldSet, key: Option<&[u8; 32]>) -> [u8; 16] {
    digest_with(object, own, others, &[], key)
}

/// [`digest`], with what is ours of lists that are merged.
fn digest_with(
    object: &Value,
    own: &FieldSet,
    others: &FieldSet,
    entries: &[u8],
    key: Option<&[u8; 32]>,
) -> [u8; 16] {
    let mut bytes = own.canonical();
    bytes.push(0);
    bytes.extend_from_slice(&canonical_json(&project(object, own, others)));
    bytes.extend_from_slice(entries);
    let hash = match key {
        Some(key) => blake3::keyed_hash(key, &bytes),
        None => blake3::hash(&bytes),
    };
    let mut short = [0_u8; 16];
    for (to, from) in short.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    short
}

#[cfg(test)]
mod tests;
