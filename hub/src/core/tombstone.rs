//! What a tombstone keeps of an object: the state before its deletionTimestamp, and what came after it as a
//! patch.

use bytes::Bytes;
use lockstep_engine::object::RawObject;
use lockstep_engine::{Millis, ResourceVersion, rfc3339};
use serde::Deserialize;

use crate::store::{Facts, ObjectRow};

/// The end of an object, as its watch told it.
#[derive(Default)]
pub(super) struct End {
    /// Its last state; empty where it was not delivered.
    pub(super) body: Bytes,
    /// resourceVersion of that.
    pub(super) version: String,
    /// Names of the managers of its fields then.
    pub(super) managers: Vec<String>,
}

/// The state of an object before its deletionTimestamp, as far as it was held.
pub(super) fn state_before(row: &ObjectRow) -> Option<Bytes> {
    row.before.clone().or_else(|| row.body.clone().filter(|_| !row.deleting))
}

/// resourceVersion of the state of an object before its deletionTimestamp, as far as it was held.
pub(super) fn version_before(row: &ObjectRow) -> Option<ResourceVersion> {
    if !row.deleting {
        return Some(row.resource_version.clone());
    }
    Some(RawObject::parse(row.before.as_deref()?).ok()?.resource_version())
}

/// Does the body carry a deletionTimestamp?
pub(super) fn is_deleting(body: &[u8]) -> bool {
    RawObject::parse(body).is_ok_and(|object| object.metadata.deletion_timestamp.is_some())
}

/// When the delete of an object that lingers was asked for, by its API server's clock: its deletionTimestamp is
/// when its grace period ends.
pub(super) fn asked_until(body: &[u8]) -> Option<Millis> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        deletion_timestamp: Option<String>,
        deletion_grace_period_seconds: Option<i64>,
    }
    let Object { metadata } = serde_json::from_slice(body).ok()?;
    let grace_ms = metadata.deletion_grace_period_seconds.unwrap_or(0).saturating_mul(1_000);
    Some(rfc3339::parse(&metadata.deletion_timestamp?)?.saturating_sub(grace_ms))
}

/// The RFC 6902 patch that makes the second state of the first, as JSON; none where they are the same.
pub(super) fn difference(from: &[u8], to: &[u8]) -> Option<Bytes> {
    let (from, to) = (serde_json::from_slice(from).ok()?, serde_json::from_slice(to).ok()?);
    let patch = json_patch::diff(&from, &to);
    // A patch always serialises.
    (!patch.is_empty()).then(|| serde_json::to_vec(&patch).unwrap_or_default().into())
}

/// API version of a body, and what a tombstone of it is found by.
pub(super) fn kept_facts(body: &[u8]) -> (String, Facts) {
    let Ok(object) = RawObject::parse(body) else { return Default::default() };
    let mut owners = object.metadata.owner_references;
    owners.sort_by_key(|owner| owner.controller != Some(true));
    let labels = object.metadata.labels;
    let version = ResourceVersion::new(&object.metadata.resource_version).ordinal();
    let alive = version.filter(|_| object.metadata.deletion_timestamp.is_none()).unwrap_or(0);
    (object.api_version.into_owned(), Facts { labels, owners, alive, ..Facts::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_patch_makes_the_last_state_of_the_one_before() {
        let before = json!({"metadata": {"name": "x", "finalizers": ["a/b"]}, "data": {"k": "v"}});
        let mut last = before.clone();
        last["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        last["metadata"]["finalizers"] = json!([]);
        let bytes = |value: &Value| serde_json::to_vec(value).unwrap();
        let patch = difference(&bytes(&before), &bytes(&last)).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        let mut patched = before.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!(patched, last);
        assert_eq!(difference(&bytes(&before), &bytes(&before)), None);
        assert_eq!(
            (asked_until(&bytes(&last)), asked_until(&bytes(&before))),
            (Some(1_767_225_600_000), None)
        );
        last["metadata"]["deletionGracePeriodSeconds"] = 30.into();
        assert_eq!(asked_until(&bytes(&last)), Some(1_767_225_570_000));
        assert!(is_deleting(&bytes(&last)) && !is_deleting(&bytes(&before)) && !is_deleting(b""));
    }
}
