//! Tombstones, and what they keep of an object: the state before its deletionTimestamp, and what came after it
//! as a patch.

use bytes::Bytes;
use lockstep_engine::acts::Span;
use lockstep_engine::object::RawObject;
use lockstep_engine::{Millis, ResourceVersion, rfc3339};
use serde::Deserialize;

use super::{AfterCommit, Core};
use crate::store::{Cause, DeleteStage, Facts, ObjectRow, Store, StoreError, TombstoneFilter, TombstoneRow};

/// Tombstones of one name that are looked through for a deletion that is told again.
const RECENT: usize = 16;

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
    let created = object.metadata.creation_timestamp.as_deref().and_then(rfc3339::parse);
    let version = ResourceVersion::new(&object.metadata.resource_version).ordinal();
    let alive = version.filter(|_| object.metadata.deletion_timestamp.is_none()).unwrap_or(0);
    (object.api_version.into_owned(), Facts { labels, owners, created, alive, ..Facts::default() })
}

impl<S: Store> Core<S> {
    /// Like [`Self::entomb`], unless that very deletion is kept already: a delta may come again.
    pub(super) fn entomb_once(
        &mut self,
        row: ObjectRow,
        cause: Cause,
        end: Option<End>,
        ended: Option<Span>,
        now: Millis,
    ) -> Result<(), StoreError> {
        if self.is_kept_as_image(&row)? {
            return Ok(());
        }
        let filter = TombstoneFilter {
            cluster: Some(row.cluster),
            gk: Some(row.key.gk.clone()),
            namespace: Some(row.key.namespace.to_string()),
            name: Some(row.key.name.to_string()),
            ..TombstoneFilter::default()
        };
        // The same deletion keeps the same state; after a rewind one uid may be deleted twice.
        let version = match &end {
            Some(end) if !end.body.is_empty() => ResourceVersion::new(&end.version),
            _ => row.resource_version.clone(),
        };
        let known = self.store.tombstones(&filter, RECENT)?;
        let same = |kept: &TombstoneRow| {
            kept.uid == row.uid
                && matches!(kept.cause, Cause::Observed | Cause::Inferred)
                && (kept.resource_version == version || kept.last_seen >= row.observed_at)
        };
        if known.iter().any(same) {
            return Ok(());
        }
        self.entomb(row, cause, end, ended, now).map(drop)
    }

    /// Is its last state the image of a delete of ours that is under way? Whoever was first, that one is kept.
    fn is_kept_as_image(&mut self, row: &ObjectRow) -> Result<bool, StoreError> {
        let placed = self.store.placement(row.cluster, &row.key)?.and_then(|placed| placed.delete);
        let Some(DeleteStage::Archiving { tombstone } | DeleteStage::Archived { tombstone, .. }) = placed
        else {
            return Ok(false);
        };
        let version = version_before(row);
        let image = self.store.tombstone(tombstone)?;
        let same = image.is_some_and(|image| image.uid == row.uid && Some(image.resource_version) == version);
        if same {
            self.store.set_deleted(tombstone, true)?;
        }
        Ok(same)
    }

    /// Keeps what was deleted: into the outbox now, in this transaction; into the archive from there.
    pub(super) fn entomb(
        &mut self,
        row: ObjectRow,
        cause: Cause,
        end: Option<End>,
        ended: Option<Span>,
        now: Millis,
    ) -> Result<i64, StoreError> {
        // The last time at which everything that this watch knew of was there.
        let known_until = match cause {
            Cause::Inferred => self.known_until(&row),
            Cause::Observed
            | Cause::Lockstep { .. }
            | Cause::Rewound
            | Cause::ClusterRemoved
            | Cause::Restore => None,
        };
        self.entomb_known(row, cause, known_until, end, ended, now)
    }

    fn known_until(&self, row: &ObjectRow) -> Option<Millis> {
        let watch = self.clusters.get(&row.cluster)?.watches.get(&row.watch)?;
        watch.row.live_at.max(Some(row.observed_at))
    }

    /// [`Self::entomb`], of an object that is known to have existed until then.
    pub(super) fn entomb_known(
        &mut self,
        row: ObjectRow,
        cause: Cause,
        known_until: Option<Millis>,
        end: Option<End>,
        ended: Option<Span>,
        now: Millis,
    ) -> Result<i64, StoreError> {
        let End { body: last, version, managers } = end.unwrap_or_default();
        let before = if is_deleting(&last) || row.deleting { state_before(&row) } else { None };
        let (last, resource_version) = if last.is_empty() {
            (row.body, row.resource_version)
        } else {
            (Some(last), ResourceVersion::new(&version))
        };
        let patch = before.as_ref().zip(last.as_ref()).and_then(|(before, last)| difference(before, last));
        let body = before.or_else(|| last.clone());
        let (api_version, facts) = body.as_deref().map(kept_facts).unwrap_or_default();
        let sealed = self.set.encrypts(self.cluster_name(row.cluster), &row.key, &facts.labels);
        let facts = Facts { managers, sealed, last: patch, ended, ..facts };
        let deleted = !matches!(cause, Cause::Lockstep { .. } | Cause::Restore);
        let asked_until = last.as_deref().and_then(asked_until).map_or(now, |at| at.min(now));
        let mut tombstone = TombstoneRow {
            id: 0,
            cluster: row.cluster,
            key: row.key,
            uid: row.uid,
            resource_version,
            api_version,
            cause,
            deleted_at: now,
            last_seen: row.observed_at,
            known_until,
            body,
            path: None,
            deleted,
            facts,
        };
        if matches!(tombstone.cause, Cause::Observed | Cause::Inferred) {
            tombstone.facts.deleter = self.who_deleted(&tombstone, asked_until)?;
        }
        let id = self.store.put_tombstone(&tombstone)?;
        self.last_tombstone = id;
        self.join_act(tombstone.cluster, id, now)?;
        self.counts.tombstones += 1;
        self.after.push(AfterCommit::Archive);
        Ok(id)
    }
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
