//! What a step came to: the record, the next stage of a delete, or when to try again.

use std::collections::BTreeMap;

use lockstep_engine::backoff::Backoff;
use lockstep_engine::breaker::BreakerState;
use lockstep_engine::catalogue::PodSecurity;
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::outcome::FailureClass;
use lockstep_engine::ownership::sentence;
use lockstep_engine::status::{State, Status};
use lockstep_engine::{ClusterId, Millis, ObjectKey, ResourceVersion, Uid};
use lockstep_wire::v1::{self, outcome::Result as Answer};

use super::Core;
use super::acts::ended_by;
use super::recover::is_recovered;
use super::state::{Answered, InFlight, Purpose};
use super::tombstone::{is_deleting, state_before};
use crate::store::{
    Cause, ComparedRow, DeleteStage, Ending, Filed, Finding, ManagedRow, ObjectRow, Owned, PlacementRow,
    Record, Store, StoreError,
};

/// Between attempts that may succeed by themselves: 1 s doubling to 5 min, a fifth of jitter.
pub(super) const RETRY: Backoff = Backoff { base_ms: 1_000, factor: 2, max_ms: 300_000, jitter_percent: 20 };
/// How long to wait for the observation that a stale step asks for, ms.
pub(super) const STALE_RETRY_MS: i64 = 500;

impl<S: Store> Core<S> {
    pub(super) fn outcome(
        &mut self,
        id: ClusterId,
        outcome: v1::Outcome,
        now: Millis,
    ) -> Result<(), StoreError> {
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(()) };
        let Some(step) = cluster.in_flight.remove(&outcome.step) else { return Ok(()) };
        cluster.busy.remove(&step.key);
        let answer = outcome.result.unwrap_or_else(|| {
            Answer::Failed(v1::Failed::of(FailureClass::Transient, "the agent gave no answer that we know"))
        });
        if let Some(permit) = step.permit {
            let breaker = cluster.breaker(&step.key.gk);
            breaker.answered(permit, &step.key, answered(&answer), now);
            let open = breaker.breaker.state(now) != BreakerState::Closed;
            let label = || (cluster.row.name.to_string(), step.key.gk.to_string());
            if open {
                if self.counts.open_breakers.insert(label()) {
                    tracing::warn!(cluster = %cluster.row.name, kind = %step.key.gk, "the circuit breaker opened: the target does not answer for this kind; probes go on");
                }
            } else if !self.counts.open_breakers.is_empty() && self.counts.open_breakers.remove(&label()) {
                tracing::info!(cluster = %cluster.row.name, kind = %step.key.gk, "the circuit breaker closed");
            }
        }
        let key = step.key.clone();
        if let Purpose::Ticket { ticket } = step.purpose {
            self.ticket_answered(ticket, answer);
            return self.after_outcome(id, &key, step.again, now);
        }
        if step.purpose == Purpose::Probe {
            self.probed(id, &key, answer, now)?;
            return self.after_outcome(id, &key, step.again, now);
        }
        let row = self.store.placement(id, &key)?;
        if let Some(row) = row {
            self.note(id, row, step, answer, now)?;
        }
        self.after_outcome(id, &key, true, now)
    }

    fn after_outcome(
        &mut self,
        id: ClusterId,
        key: &ObjectKey,
        plan: bool,
        now: Millis,
    ) -> Result<(), StoreError> {
        if plan {
            self.plan(id, key, None, now)?;
        }
        self.ask_waiting(id);
        self.fill_window(id, now)
    }

    fn note(
        &mut self,
        id: ClusterId,
        row: PlacementRow,
        step: InFlight,
        answer: Answer,
        now: Millis,
    ) -> Result<(), StoreError> {
        match (answer, step.purpose) {
            (Answer::Applied(applied), purpose @ Purpose::Apply { .. }) => {
                self.applied(id, row, applied, purpose, now)
            }
            (Answer::Image(image), Purpose::Image) => self.image(row, image, now),
            (Answer::Deleted(_), Purpose::Delete { tombstone }) => self.deleted(row, tombstone, now),
            (Answer::Released(released), Purpose::Release) => self.released(&row, &released),
            (Answer::Gone(_), Purpose::Release) => self.let_go(&row),
            (Answer::Gone(_), Purpose::Image | Purpose::Delete { .. }) => self.gone(id, row),
            (Answer::Gone(_), Purpose::Retract) => self.retracted(row),
            (Answer::Probed(probed), Purpose::Retract) => self.made(row, &probed.uid, now),
            (Answer::Failed(failed), purpose) => self.failed(row, &failed, &purpose, now),
            (_, purpose) => {
                tracing::warn!(cluster = self.cluster_name(id), object = %step.key, ?purpose, "an answer that does not fit its step");
                Ok(())
            }
        }
    }

    fn applied(
        &mut self,
        id: ClusterId,
        mut row: PlacementRow,
        applied: v1::Applied,
        purpose: Purpose,
        now: Millis,
    ) -> Result<(), StoreError> {
        let Purpose::Apply { rendered, source_seen, api_version, drift, marks, .. } = purpose else {
            return Ok(());
        };
        if let Some(by) = &drift {
            self.counts.drifts += 1;
            tracing::info!(cluster = self.cluster_name(id), object = %row.key, "drift: {}", sentence(by));
        }
        let generation = row.observed_generation;
        row.fields.written(row.record.as_ref(), applied.left, drift, generation, now);
        let found = self.finding(id, applied.compared);
        let in_step = found == Finding::AsAsked;
        row.fields.compared = Some(ComparedRow { at: now, found });
        let uid = Uid::new(&applied.uid);
        let resource_version = ResourceVersion::new(&applied.resource_version);
        let owned = <[u8; 16]>::try_from(applied.owned_digest.as_ref()).ok();
        let adopted = marks.contains_key(lockstep_engine::marks::ADOPTED);
        self.own_echo(id, &row.key, &uid, &resource_version, owned, marks, now)?;
        if !applied.created_namespace_uid.is_empty() {
            self.record_namespace(&row, &applied.created_namespace_uid, now)?;
        }
        let created_at = row.record.as_ref().map_or(now, |record| record.created_at);
        let implicit = row.record.as_ref().is_some_and(|record| record.implicit);
        row.record = Some(Record {
            uid: Some(uid),
            resource_version,
            rendered,
            owned,
            field_set: applied.field_set,
            api_version: if applied.api_version.is_empty() { api_version } else { applied.api_version },
            implicit,
            adopted,
            created_at,
        });
        row.attempts = 0;
        row.next_attempt = None;
        row.barred = None;
        if in_step {
            row.synced_at = Some(now);
        }
        if let Some(seen) = source_seen {
            row.lag_ms = Some(now.saturating_sub(seen).max(0));
        }
        tracing::debug!(cluster = self.cluster_name(id), object = %row.key, created = applied.created, "applied");
        self.store.put_placement(&row)
    }

    /// The answer tells what the object is now; the watch will tell it once more.
    #[allow(clippy::too_many_arguments)] // the parts of one answer
    fn own_echo(
        &mut self,
        id: ClusterId,
        key: &ObjectKey,
        uid: &Uid,
        resource_version: &ResourceVersion,
        owned: Option<[u8; 16]>,
        marks: BTreeMap<String, String>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let before = self.store.object(id, key)?;
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(()) };
        let Some(covering) = cluster.covering(&key.gk, &key.namespace) else { return Ok(()) };
        let (watch, written) = (covering.row.id, resource_version.ordinal());
        // Versions of a history that was lost in a restore are void, and so is its checkpoint: what compares is of one.
        let newer = before.as_ref().is_some_and(|row| {
            row.resource_version == *resource_version
                || row.resource_version.ordinal().zip(written).is_some_and(|(had, written)| had > written)
        });
        let same = before.as_ref().is_some_and(|row| row.uid == *uid);
        let reached = covering.row.checkpoint.ordinal().filter(|_| covering.is_live());
        let told = reached.zip(written).is_some_and(|(reached, written)| reached >= written);
        if newer || (told && !same) {
            // The answer was long under way. The echo came before it, or something newer did: also that the object
            // went, of which no row is left, and whatever took its name since.
            return Ok(());
        }
        cluster.echoes.insert(key.clone(), resource_version.clone());
        if let Some(before) = before.clone().filter(|row| !same && row.body.is_some()) {
            // What had the name before is gone, or was lost in a restore: its last state is kept.
            let cause = if before.unseen.is_some() { Cause::Rewound } else { Cause::Inferred };
            let ended = ended_by(&before, resource_version.as_str());
            self.entomb_once(before, cause, None, ended, now)?;
        }
        let before = before.filter(|_| same);
        let told = before.as_ref().is_some_and(|row| row.managed.as_ref().is_none_or(|managed| managed.told));
        let managers =
            before.as_ref().and_then(|row| row.managed.clone()).map(|m| m.managers).unwrap_or_default();
        let created_at = before.as_ref().and_then(|row| row.managed.as_ref()).map_or(now, |m| m.created_at);
        self.store.put_object(&ObjectRow {
            cluster: id,
            key: key.clone(),
            watch,
            uid: uid.clone(),
            resource_version: resource_version.clone(),
            // Where bodies of copies are asked for, the last one stands until the echo brings its own.
            body: before.as_ref().and_then(|row| row.body.clone()),
            managed: Some(ManagedRow {
                owned: owned.map_or(Owned::NoEntry, Owned::Digest),
                marks,
                managers,
                created_at,
                told,
            }),
            deleting: before.as_ref().is_some_and(|row| row.deleting),
            pod_security: before.as_ref().map(|row| row.pod_security.clone()).unwrap_or_default(),
            before: before.and_then(|row| row.before),
            observed_at: now,
            unseen: None,
        })
    }

    /// A namespace that was created in passing is remembered, so that it is never deleted.
    fn record_namespace(&mut self, of: &PlacementRow, uid: &str, now: Millis) -> Result<(), StoreError> {
        let gk = lockstep_engine::GroupKind::new("", "Namespace");
        let key = ObjectKey::new(gk, "", &of.key.namespace);
        if self.store.placement(of.target, &key)?.is_some() {
            return Ok(());
        }
        let mut row = super::gather::fresh_placement(of.target, &key, now);
        row.status = Status::new(State::Orphaned, "ImplicitNamespace", "created in passing, never deleted");
        row.ending = Some(Ending::Unselected);
        row.record = Some(Record {
            uid: Some(Uid::new(uid)),
            resource_version: ResourceVersion::default(),
            rendered: [0; 32],
            owned: None,
            field_set: bytes::Bytes::new(),
            api_version: "v1".to_owned(),
            implicit: true,
            adopted: false,
            created_at: now,
        });
        self.store.put_placement(&row)
    }

    /// The image goes into the outbox; the delete waits until the archive has it (I4).
    fn image(&mut self, mut row: PlacementRow, image: v1::Image, now: Millis) -> Result<(), StoreError> {
        let ours = row.record.as_ref().is_some_and(|record| {
            let named = record.uid.as_ref().is_some_and(|uid| uid.as_str() == image.uid);
            named && (image.managed || !is_recovered(record))
        });
        let approved = row.delete == Some(DeleteStage::Approved);
        if (!ours && guard::on(Guard::ImageOfRecord))
            || !(approved || row.delete == Some(DeleteStage::Granted))
        {
            // Replaced meanwhile, or claimed again: plan anew, keep nothing. The watch may be long in telling
            // of what is there now.
            row.next_attempt = (!ours).then_some(now + STALE_RETRY_MS);
            self.note_due(row.next_attempt);
            return self.store.put_placement(&row);
        }
        if !approved && guard::on(Guard::ContainerAtImage) && self.container_gone(&row)?.is_some() {
            // The news of what contained it came after the budget had granted: it asks again, and is held.
            row.delete = None;
            return self.store.put_placement(&row);
        }
        let known = self.store.object(row.target, &row.key)?.filter(|known| known.uid.as_str() == image.uid);
        let object = ObjectRow {
            cluster: row.target,
            key: row.key.clone(),
            watch: 0,
            uid: Uid::new(&image.uid),
            resource_version: ResourceVersion::new(&image.resource_version),
            body: Some(image.body.clone()),
            managed: None,
            deleting: is_deleting(&image.body),
            pod_security: PodSecurity::new(),
            before: known.as_ref().and_then(state_before),
            observed_at: now,
            unseen: None,
        };
        let (uid, resource_version) = (object.uid.clone(), object.resource_version.clone());
        let tombstone =
            self.entomb(object, Cause::Lockstep { policy: row.policy.clone() }, None, None, now)?;
        row.delete = Some(if guard::on(Guard::ArchiveBeforeDelete) {
            DeleteStage::Archiving { tombstone }
        } else {
            DeleteStage::Archived { tombstone, uid, resource_version }
        });
        self.store.put_placement(&row)
    }

    pub(super) fn archived(&mut self, id: i64, file: &Filed, now: Millis) -> Result<(), StoreError> {
        self.store.set_archived(id, file)?;
        self.kept_is_archived(id);
        let Some(tombstone) = self.store.tombstone(id)? else { return Ok(()) };
        let Some(mut row) = self.store.placement(tombstone.cluster, &tombstone.key)? else { return Ok(()) };
        if row.delete != Some((DeleteStage::Archiving { tombstone: id }).clone()) {
            return Ok(());
        }
        row.delete = Some(DeleteStage::Archived {
            tombstone: id,
            uid: tombstone.uid,
            resource_version: tombstone.resource_version,
        });
        self.store.put_placement(&row)?;
        self.plan(row.target, &row.key, None, now)
    }

    fn deleted(&mut self, row: PlacementRow, tombstone: i64, now: Millis) -> Result<(), StoreError> {
        self.counts.deletes += 1;
        self.carried_out(tombstone, now)?;
        tracing::info!(cluster = self.cluster_name(row.target), object = %row.key, policy = row.policy, "deleted, archived before");
        // The object goes when its finalizers and grace period are over; the watch tells, and may have done so already,
        // and of another with its name.
        let uid = row.record.and_then(|record| record.uid);
        let object = self.store.object(row.target, &row.key)?;
        if let Some(mut object) = object.filter(|object| Some(&object.uid) == uid.as_ref()) {
            object.before = state_before(&object);
            object.deleting = true;
            self.store.put_object(&object)?;
        }
        Ok(())
    }

    /// It made what is there: that is a copy, of which is known why it ends. It is dealt with once a watch has told of it.
    fn made(&mut self, mut row: PlacementRow, uid: &str, now: Millis) -> Result<(), StoreError> {
        let object = self.store.object(row.target, &row.key)?.filter(|object| object.uid.as_str() == uid);
        let Some((object, managed)) = object.and_then(|mut o| o.managed.take().map(|managed| (o, managed)))
        else {
            let seed = u64::from(row.target.0) ^ u64::from(row.attempts);
            row.next_attempt = Some(now.saturating_add_unsigned(RETRY.delay_ms(seed, row.attempts)));
            row.attempts += 1;
            self.store.put_placement(&row)?;
            self.note_due(row.next_attempt);
            return Ok(());
        };
        row.fields.creating = None;
        (row.attempts, row.next_attempt, row.barred) = (0, None, None);
        self.store.put_placement(&row)?;
        self.recover(&object, &managed, bytes::Bytes::new(), now)?;
        let recovered = self.store.placement(row.target, &row.key)?.and_then(|placed| placed.record);
        self.store.put_placement(&PlacementRow { record: recovered.or(row.record.take()), ..row })
    }

    /// It left nothing on what is not ours.
    fn retracted(&mut self, mut row: PlacementRow) -> Result<(), StoreError> {
        row.fields.creating = None;
        (row.attempts, row.next_attempt, row.barred) = (0, None, None);
        self.store.put_placement(&row)
    }

    fn gone(&mut self, id: ClusterId, row: PlacementRow) -> Result<(), StoreError> {
        let uid = row.record.as_ref().and_then(|record| record.uid.clone());
        if self.store.object(id, &row.key)?.is_some_and(|object| Some(object.uid) == uid) {
            self.store.delete_object(id, &row.key)?;
        }
        Ok(())
    }
}

fn answered(answer: &Answer) -> Answered {
    match answer {
        Answer::Failed(failed) => match failed.known_class() {
            FailureClass::Unreachable | FailureClass::Timeout | FailureClass::Throttled { .. } => {
                Answered::NotAtAll
            }
            FailureClass::Transient => Answered::WithTrouble,
            _ => Answered::Well,
        },
        _ => Answered::Well,
    }
}
