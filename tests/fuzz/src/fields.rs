//! managedFields and the projection of objects onto them.

use lockstep_engine::object::RawObject;
use lockstep_engine::ownership::{
    FieldSet, ManagedFields, SUMMARY_BYTES, SUMMARY_PATHS, canonical_json, digest, owned_digest, project,
};
use serde_json::Value;

/// Paths whose containment is checked.
const CHECKED_PATHS: usize = 64;

/// Three lines: an object, a field set that is ours, and one that is others'.
///
/// - A set that is read and written is the same set, and writing it again gives the same bytes.
/// - Union is idempotent and commutative, and keeps every path.
/// - A projection never holds more than its object; the same one is made of the same input, and projecting it again
///   changes nothing (where items of lists are not named by what the projection leaves out).
/// - Summaries are bounded whatever the entries are.
pub fn field_sets(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let (object, own, others) = (lines.next(), lines.next(), lines.next());
    if let Some(object) = object {
        managed(object);
    }
    let own = own.and_then(read_set);
    let others = others.and_then(read_set).unwrap_or_default();
    let (Some(own), Some(Ok(object))) = (own, object.map(serde_json::from_slice::<Value>)) else { return };
    let mut union = own.clone();
    union.extend(&others);
    let mut reverse = others.clone();
    reverse.extend(&own);
    assert_eq!(union, reverse, "union is not commutative");
    for path in own.paths(CHECKED_PATHS) {
        assert!(union.contains(&path), "{path} is lost in a union");
    }
    reverse.extend(&union);
    assert_eq!(union, reverse, "union is not idempotent");
    let _ = (own.covers(&object), FieldSet::of_value(&object).covers(&object));
    projected(&object, &own, &others);
    projected(&object, &own.clone().without_bookkeeping(), &others);
}

fn read_set(bytes: &[u8]) -> Option<FieldSet> {
    let set = FieldSet::parse(bytes).ok()?;
    let canonical = set.canonical();
    let again = FieldSet::parse(&canonical).expect("what was written can be read");
    assert_eq!(again, set);
    assert_eq!(again.canonical(), canonical);
    let paths = set.paths(CHECKED_PATHS);
    assert!(paths.len() <= CHECKED_PATHS);
    assert_eq!(paths.is_empty(), set.is_empty());
    for path in paths {
        assert!(set.contains(&path), "{path} is not in its own set");
    }
    Some(set)
}

fn projected(object: &Value, own: &FieldSet, others: &FieldSet) {
    let projection = project(object, own, others);
    assert_eq!(projection, project(object, own, others));
    let (small, large) = (canonical_json(&projection).len(), canonical_json(object).len());
    assert!(small <= large.max(2), "a projection of {small} bytes out of an object of {large}");
    assert_eq!(digest(object, own, others, None), digest(object, own, others, None));
    if names_fields_only(own) && names_fields_only(others) {
        assert_eq!(project(&projection, own, others), projection, "projecting twice");
    }
}

/// Does it name no items of lists?
fn names_fields_only(set: &FieldSet) -> bool {
    let set: Value = serde_json::from_slice(&set.canonical()).expect("a set is JSON");
    fn fields_only(set: &Value) -> bool {
        let members = set.as_object().into_iter().flatten();
        members.into_iter().all(|(name, below)| (name == "." || name.starts_with("f:")) && fields_only(below))
    }
    fields_only(&set)
}

/// What an object says of its managers.
fn managed(bytes: &[u8]) {
    let Ok(object) = RawObject::parse(bytes) else { return };
    let digest = owned_digest(bytes, "v1", None);
    assert_eq!(digest.as_ref().ok(), owned_digest(bytes, "v1", None).as_ref().ok());
    let Some(fields) = object.metadata.managed_fields else { return };
    let Ok(fields) = ManagedFields::parse(fields) else { return };
    let summaries = fields.summaries();
    let paths = summaries.iter().map(|summary| summary.fields.len()).max().unwrap_or(0);
    assert!(paths <= SUMMARY_PATHS, "{paths} paths");
    let bytes: usize = summaries.iter().flat_map(|summary| &summary.fields).map(String::len).sum();
    assert!(bytes <= SUMMARY_BYTES, "paths of {bytes} bytes");
}
