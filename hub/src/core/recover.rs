//! Copies without a record: after the loss of the hub's data, a create whose reply was lost with
//! the hub, or a restore at the target that brought an old copy back. Genuine marks make them ours
//! again (I11); what no source accounts for is held, never deleted by itself.

use lockstep_engine::guard::{self, Guard};
use lockstep_engine::marks;
use lockstep_engine::ownership::{FieldSet, Leave};
use lockstep_engine::{ClusterName, Millis, ResourceVersion, Uid};
use serde_json::Value;

use super::Core;
use super::gather::fresh_placement;
use crate::store::{
    Creating, Ending, ManagedRow, ObjectRow, Owned, PlacementRow, Record, SourceRef, Store, StoreError,
};

/// How long the record of a copy outlives it: older snapshots are seldom restored.
const REMEMBERED_MS: i64 = 30 * 24 * 3_600_000;
/// A digest that no projection has: what is seen is drift.
pub(super) const UNLIKE_ANY: [u8; 16] = [0; 16];

impl<S: Store> Core<S> {
    /// A managed object was told of. Where nothing is known of it, and its marks are genuine, it gets a placement as
    /// if it had just been written. What a create without an answer may have left on an object of others tells nothing:
    /// the agent finds out (I6).
    pub(super) fn recover(
        &mut self,
        object: &ObjectRow,
        managed: &ManagedRow,
        field_set: bytes::Bytes,
        now: Millis,
    ) -> Result<(), StoreError> {
        let (id, key) = (object.cluster, &object.key);
        // A write of ours that met a foreign object is undone by the agent: until that is seen, the
        // object carries marks that are genuine and mean nothing (I6).
        if self.clusters.get(&id).is_some_and(|cluster| cluster.busy.contains_key(key))
            && guard::on(Guard::MarksWhileBusy)
        {
            return Ok(());
        }
        let placed = self.store.placement(id, key)?;
        let creating = placed.as_ref().and_then(|row| row.fields.creating.as_ref());
        let recorded = placed.as_ref().and_then(|row| row.record.as_ref());
        let written = |record: &Record| record.implicit || record.uid.is_some() && !is_recovered(record);
        if recorded.is_some_and(written) || creating.is_some_and(|creating| is_left_by(creating, managed)) {
            return Ok(());
        }
        let labels = std::collections::BTreeMap::from([(marks::MANAGED.to_owned(), "true".to_owned())]);
        let Some(read) = marks::read_marks(&managed.marks, &labels) else { return Ok(()) };
        if !self.is_genuine(id, key, &read) || managed.marks.contains_key(marks::MET) {
            return Ok(());
        }
        // Of a record without a uid (a restore, of the cluster or of the hub's data) only this very write still counts. What
        // only marks told of may have been written again, or made anew, before the watch caught up: they tell of that, too.
        let stands = |record: &Record| match &record.uid {
            None => record.rendered == read.rendered,
            Some(uid) => *uid == object.uid && (record.rendered == read.rendered || field_set.is_empty()),
        };
        if recorded.is_some_and(stands) {
            return Ok(());
        }
        let Ok(source) = ClusterName::new(&read.source.cluster) else { return Ok(()) };
        // After a loss the source may not have come yet: the marks are genuine, so it is a member.
        let source = self.registered(&source, now)?;
        let record = match self.store.former_record(id, key, &object.uid)? {
            Some(former) => {
                tracing::info!(cluster = self.cluster_name(id), object = %key, "a copy that was gone is there again; its record is taken up");
                Record { adopted: read.adopted, ..brought_back(former, read.rendered) }
            }
            None => Record {
                uid: Some(object.uid.clone()),
                // Without the fields nothing tells whether all of them are still ours: it is written once.
                resource_version: match field_set.is_empty() {
                    true => ResourceVersion::default(),
                    false => object.resource_version.clone(),
                },
                rendered: read.rendered,
                owned: match managed.owned {
                    Owned::Digest(digest) if !field_set.is_empty() => Some(digest),
                    Owned::Digest(_) | Owned::NoEntry | Owned::OtherVersion => None,
                },
                field_set,
                // None: not written by what this hub remembers ([`is_recovered`]).
                api_version: String::new(),
                implicit: false,
                adopted: read.adopted,
                created_at: now,
            },
        };
        // Its source may have come first, also another one of the same name: it is updated in place (I5).
        // And what was written before, for whom, and why it ends, is known where there is a record.
        let known = placed.filter(|row| row.ending.is_none() || row.record.is_some());
        let mut placement = known.unwrap_or_else(|| PlacementRow {
            policy: read.policy,
            source: Some(SourceRef {
                cluster: source,
                namespace: read.source.namespace,
                name: read.source.name,
                uid: Uid::new(&read.source.uid),
            }),
            ending: Some(Ending::Recovered),
            ..fresh_placement(id, key, now)
        });
        placement.record = Some(record);
        placement.fields.compared = None;
        self.store.put_placement(&placement)?;
        Ok(())
    }

    /// Does the object carry the nonce of a create that was not answered, or met it? The agent can tell by what was there
    /// before, and takes back what is to be taken back, when the create is sent once more (I6).
    pub(super) fn awaits_answer(&self, row: &PlacementRow, object: &ObjectRow) -> bool {
        let named = row.record.as_ref().is_some_and(|record| record.uid.is_some());
        let creating = row.fields.creating.as_ref().filter(|_| !named);
        let managed = object.managed.as_ref();
        managed.zip(creating).is_some_and(|(managed, creating)| is_left_by(creating, managed))
    }

    /// What a create had left on an object of others was taken back by this resourceVersion: until a watch, which may
    /// be silent for long, tells of that, what it tells counts without its marks, and so does what it has told.
    pub(super) fn taken_back(&mut self, row: &PlacementRow, version: &str) -> Result<(), StoreError> {
        let version = ResourceVersion::new(version);
        let known = self.store.object(row.target, &row.key)?;
        let is_known =
            known.as_ref().is_some_and(|known| known.resource_version.ordinal() >= version.ordinal());
        if version.ordinal().is_none() || is_known {
            return Ok(());
        }
        if let Some(known) = known.filter(|known| known.managed.is_some()) {
            // The placement, which remembers the create, may end before that.
            self.store.put_object(&ObjectRow { managed: None, ..known })?;
        }
        if let Some(cluster) = self.clusters.get_mut(&row.target) {
            cluster.echoes.insert(row.key.clone(), version);
        }
        Ok(())
    }

    /// A placement is forgotten. A restore of its cluster may bring the copy back, with its marks: then only
    /// this tells which of its fields were ours.
    pub(super) fn keep_record(&mut self, row: &PlacementRow, now: Millis) -> Result<(), StoreError> {
        match row.record.as_ref().filter(|record| !record.implicit && !is_recovered(record)) {
            Some(record) => {
                let before = now.saturating_sub(REMEMBERED_MS);
                self.store.put_former_record(row.target, &row.key, record, now, before)
            }
            None => Ok(()),
        }
    }

    /// Why the delete of a recovered copy is held.
    pub(super) fn recovered(&self, row: &PlacementRow) -> Option<String> {
        let (Some(Ending::Recovered), Some(source)) = (row.ending, &row.source) else { return None };
        let name = self.cluster_name(source.cluster);
        Some(format!(
            "lockstep wrote it from {name}, has no record of it, and its source is not there: `lockstep approve {}` deletes it; a source object brings it back in step",
            row.policy
        ))
    }
}

/// Was a create sent of which no answer said what became of it?
pub(super) fn is_unanswered(row: &PlacementRow) -> bool {
    let named = row.record.as_ref().is_some_and(|record| record.uid.is_some());
    matches!(row.fields.creating, Some(Creating::Sent(_))) && !named && guard::on(Guard::UnansweredCreate)
}

/// Does the object carry what that create left, on whatever it met?
fn is_left_by(creating: &Creating, managed: &ManagedRow) -> bool {
    managed.marks.get(marks::INTENT).is_some_and(|nonce| nonce == creating.nonce())
        && guard::on(Guard::UnansweredCreate)
}

/// The record of a copy that was forgotten and is there again, by marks that name this body. Its
/// resourceVersions begin anew.
fn brought_back(former: Record, rendered: [u8; 32]) -> Record {
    let resource_version = ResourceVersion::default();
    if former.rendered == rendered {
        return Record { resource_version, ..former };
    }
    // It is as an earlier write left it, and what that left nobody remembers: it is written once.
    Record { resource_version, rendered, owned: Some(UNLIKE_ANY), api_version: String::new(), ..former }
}

/// Was it made from what was found, not by a write that this hub remembers?
pub(super) fn is_recovered(record: &Record) -> bool {
    record.api_version.is_empty()
}

/// Does nothing say any more that it is a copy, neither a write that is remembered, nor a mark or a field of ours? What an
/// agent took back looks like this, where the answer that said so was lost, and a watch told of the merge first (I6).
pub(super) fn was_marked_only(record: Option<&Record>, there: Option<&ObjectRow>) -> bool {
    let there = there.filter(|there| there.managed.is_none() && there.unseen.is_none());
    let recovered = record.filter(|record| is_recovered(record) && !record.implicit);
    recovered.zip(there).is_some_and(|(record, there)| record.uid.as_ref() == Some(&there.uid))
}

/// Nobody remembers what a recovered copy looked like after our last write. But if that wrote the body
/// that is asked for now, every field of it was ours then: where one is not, somebody took it over.
pub(super) fn was_taken_over(record: &Record, desired: &[u8; 32], body: &Value, leave: &Leave) -> bool {
    if !is_recovered(record) || record.field_set.is_empty() || record.rendered != *desired {
        return false;
    }
    // What is to be left may still be ours, where the answer to a creation was lost.
    FieldSet::parse(&record.field_set).is_ok_and(|owned| !owned.covers(body) || leave.may_hold(&owned))
}
