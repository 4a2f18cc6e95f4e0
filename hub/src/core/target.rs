//! Planning of one object at one target: gather, decide, note, act.

use lockstep_engine::catalogue::is_container;
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::ownership::sentence;
use lockstep_engine::plan::{
    self, Act, DRIFT_REPORTED, Decision, DeleteProgress, Input, RecordChange, RecordView, TRACKED, VERIFYING,
    Wish,
};
use lockstep_engine::status::{State, Status};
use lockstep_engine::{ClusterId, Millis, ObjectKey, ResourceVersion, Uid};

use super::Core;
use super::asked::{Asked, ending_reason};
use super::compared::{again_at, holds, verify_at};
use super::dispatch::Prepared;
use super::gather::{fresh_placement, observed, pause};
use super::recover::{UNLIKE_ANY, is_unanswered, was_marked_only, was_taken_over};
use super::release::Waits;
use crate::store::{
    Creating, DeleteStage, Ending, ObjectRow, Owned, PlacementRow, Record, Store, StoreError,
};

impl<S: Store> Core<S> {
    /// Looks at one object at one target, and does what is to be done. `seen`: when the source
    /// event that led here was read, for the lag.
    pub(super) fn plan(
        &mut self,
        target: ClusterId,
        key: &ObjectKey,
        seen: Option<Millis>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let Some(cluster) = self.clusters.get_mut(&target) else { return Ok(()) };
        if let Some(step) = cluster.busy.get(key).and_then(|step| cluster.in_flight.get_mut(step))
            && guard::on(Guard::OneStepPerKey)
        {
            // Observations of a key are held while a step is in flight: echoes arrive before replies.
            step.again = true;
            return self.note_unselected(target, key);
        }
        let there = self.store.object(target, key)?;
        let mut row = self.store.placement(target, key)?;
        let mut claims = self.claims(target, key)?;
        if row.as_ref().is_some_and(|row| row.record.is_none())
            && let Some(object) = &there
            && let Some(managed) = &object.managed
        {
            self.recover(object, managed, bytes::Bytes::new(), now)?;
            row = self.store.placement(target, key)?;
            if row.as_ref().is_some_and(|row| row.record.is_some()) {
                // What is ours already may be asked for where it would not be made.
                claims = self.claims(target, key)?;
            }
        }
        if let Some(placed) = row.as_mut().filter(|row| was_marked_only(row.record.as_ref(), there.as_ref()))
        {
            tracing::info!(cluster = self.cluster_name(target), object = %key, "marks were all that said it was a copy, and they are gone: it is not ours");
            (placed.record, placed.delete) = (None, None);
            self.store.put_placement(placed)?;
            claims = self.claims(target, key)?;
        }
        if claims.is_empty() && row.is_none() {
            return Ok(());
        }
        let released = row.as_ref().is_some_and(|row| row.delete == Some(DeleteStage::Releasing));
        let implicit = row.as_ref().and_then(|row| row.record.as_ref()).is_some_and(|r| r.implicit);
        if claims.is_empty() && implicit && !released {
            // A namespace created in passing: remembered, and nobody's business.
            return Ok(());
        }
        self.counts.planned += 1;
        let before = row.clone();
        let mut row = row.take().unwrap_or_else(|| fresh_placement(target, key, now));
        let mut asked = self.asked(&mut row, claims)?;
        self.wait_for_source(&mut row, &mut asked, now)?;
        if let (Asked::Claimed { claim, rendered: Ok(rendered) }, Some(record)) = (&asked, &mut row.record) {
            let desired = self.desired_digest(claim, rendered);
            let asked = claim.leave.without_left(&rendered.body);
            if was_taken_over(record, &desired, &asked, &claim.leave) {
                record.owned = Some(UNLIKE_ANY);
                record.resource_version = ResourceVersion::default();
            }
        }
        // What a rewind of the target took away is not there.
        let object = there.filter(|object| object.unseen.is_none());
        let absence = self.absence(target, key);
        let mut marks_uid = String::new();
        let marks = self.marks_view(
            target,
            key,
            object.as_ref().and_then(|object| object.managed.as_ref()),
            &mut marks_uid,
        );
        let written = row.record.as_ref().map(|record| record.resource_version.clone());
        let claimed = matches!(asked, Asked::Claimed { .. });
        // A create that was not answered is sent again, whatever it has left there.
        let seen_there = object.as_ref().filter(|object| !(claimed && self.awaits_answer(&row, object)));
        let on_tracked = self.on_tracked(&row, &asked);
        let observed = observed(seen_there, absence.as_ref(), marks, written.as_ref(), on_tracked);
        let ends = claimed && self.definition_ends(target, &key.gk)?;
        let taken = self.taken(&row, object.as_ref());
        let (by, reported) = (sentence(&taken), row.fields.reported());
        let taken = plan::Taken {
            reported: reported.as_deref(),
            free: row.fields.is_free(row.record.as_ref(), object.as_ref()),
            by: &by,
        };
        let again = self.differs_again(&row, object.as_ref(), now);
        let decision = self.decide(&row, &asked, observed, taken, ends, again);
        self.carry_out(before, row, asked, decision, object, seen, now)
    }

    /// What is asked for the placement now; notes claimant, rivals and source in the row.
    fn decide(
        &self,
        row: &PlacementRow,
        asked: &Asked,
        observed: plan::Observed<'_>,
        taken: plan::Taken<'_>,
        definition_ends: bool,
        differs_again: bool,
    ) -> Decision {
        let no_uid = Uid::default();
        let mut obstacle = None;
        let mut desired = [0; 32];
        if let Asked::Claimed { claim, rendered } = asked {
            match rendered {
                Ok(rendered) => {
                    desired = self.desired_digest(claim, rendered);
                    let api_version =
                        rendered.body.get("apiVersion").and_then(|v| v.as_str()).unwrap_or_default();
                    obstacle = self.versions(row.target, &row.key.gk, api_version).err();
                }
                Err(status) => obstacle = Some(status.clone()),
            }
            if definition_ends {
                obstacle = Some(Status::new(
                    State::Blocked,
                    "DefinitionTerminating",
                    "the definition of this kind is being deleted at the target",
                ));
            }
            if let Some((reason, message)) = &claim.waits {
                obstacle = Some(Status::new(State::Unknown, reason, message.clone()));
            }
            if claim.source == row.target {
                obstacle =
                    Some(Status::new(State::Blocked, "SourceIsTarget", "source and target are one cluster"));
            }
        }
        let wish = match asked {
            Asked::Claimed { claim, .. } => Wish::Present {
                source_uid: &claim.object.uid,
                desired,
                source_deleting: claim.object.deleting,
                obstacle: obstacle.as_ref(),
                run_once: row.key.gk.is("batch", "Job"),
                on_conflict: claim.ownership().conflict,
                create_only: claim.ownership().creates_only(),
            },
            Asked::Ended { why, delete: true, .. } if !self.stays_adopted(row) => {
                Wish::Gone { why, takes_others: is_container(&row.key.gk) }
            }
            Asked::Ended { why, ending, waits, .. } => {
                Wish::Left { reason: ending_reason(*ending), why, release: waits.release }
            }
            Asked::Released => Wish::Release,
            Asked::NotAccepted { message } => Wish::NotAccepted { message },
            Asked::Unknown { reason, message } => Wish::Unknown { reason, message },
        };
        let record = row.record.as_ref().map(|record| RecordView {
            uid: record.uid.as_ref().filter(|uid| **uid != no_uid),
            rendered: record.rendered,
            owned: record.owned,
            implicit: record.implicit,
            holds: holds(row, differs_again),
        });
        let grace = match asked {
            Asked::Ended { waits, .. } => waits.grace(),
            _ => None,
        };
        let Some(cluster) = self.clusters.get(&row.target) else {
            return plan::decide(&Input {
                wish: Wish::Unknown { reason: "NotConnected", message: "the target cluster is not known" },
                record,
                observed,
                served: None,
                paused: None,
                delete: DeleteProgress::Asking,
                grace: None,
                taken,
                unanswered: is_unanswered(row),
            });
        };
        let suspended = self.set.by_name(&row.policy).is_some_and(|policy| policy.spec.suspend);
        let policy_paused = self.policies.get(&row.policy).is_some_and(|policy| policy.paused);
        plan::decide(&Input {
            wish,
            record,
            observed,
            served: cluster.serves(&row.key.gk),
            paused: pause(self.paused, cluster, suspended, policy_paused),
            delete: match &row.delete {
                None | Some(DeleteStage::Waiting { .. } | DeleteStage::Held | DeleteStage::Releasing) => {
                    DeleteProgress::Asking
                }
                Some(DeleteStage::Granted | DeleteStage::Approved) => DeleteProgress::Granted,
                Some(DeleteStage::Archiving { .. }) => DeleteProgress::Archiving,
                Some(DeleteStage::Archived { .. }) => DeleteProgress::Archived,
            },
            grace: grace.as_deref(),
            taken,
            unanswered: is_unanswered(row),
        })
    }

    #[allow(clippy::too_many_arguments)] // one call, and every part of it is needed
    fn carry_out(
        &mut self,
        before: Option<PlacementRow>,
        mut row: PlacementRow,
        asked: Asked,
        decision: Decision,
        object: Option<ObjectRow>,
        seen: Option<Millis>,
        now: Millis,
    ) -> Result<(), StoreError> {
        if decision.record == RecordChange::TakeOver {
            take_over(&mut row, object.as_ref(), &asked, now);
        }
        let Decision { status, act, .. } = decision;
        if act == Act::Forget {
            return self.forget(&row, object.as_ref(), now);
        }
        let too_soon = verify_at(&row, now).filter(|_| act == Act::Verify);
        let prepared = match too_soon {
            Some(_) => None,
            None => self.prepare(&row, act, &asked, object.as_ref(), &status)?,
        };
        // What failed for good waits only for as long as its inputs are the same. What differs, or is to be compared, did not
        // fail: when it is looked at again says nothing of other writes.
        let failed = row.status.state != State::Differs && row.status.reason != VERIFYING;
        let waits = failed && row.barred.is_none() && row.next_attempt.is_some_and(|at| at > now);
        if prepared.as_ref().is_some_and(|step| waits || step.is_barred(&row)) {
            // The same inputs failed for good, or the next attempt is not due: what was said of the
            // last one still stands.
            return self.put_if_changed(before.as_ref(), &row);
        }
        if prepared.is_none() || row.barred.is_some() {
            // An input changed: what failed before says nothing about this attempt.
            (row.attempts, row.next_attempt, row.barred) = (0, None, None);
        }
        // A delete that is held asks again at each look, and stays held until the budget says otherwise.
        let held = act == Act::AskToDelete && row.status.state == State::Held;
        if row.status != status && !held {
            if (row.status.state, &row.status.reason) != (status.state, &status.reason) {
                row.since = now;
            }
            row.status = status;
        }
        if let Asked::Ended { waits: Waits { again: Some(at), .. }, .. } = &asked
            && prepared.is_none()
        {
            row.next_attempt = Some(*at);
            self.note_due(row.next_attempt);
        }
        let differs = row.status.state == State::Differs && prepared.is_none();
        if let Some(at) = too_soon.or_else(|| again_at(&row).filter(|_| differs)) {
            row.next_attempt = Some(at);
            self.note_due(row.next_attempt);
        }
        if row.status.state == State::InStep {
            row.synced_at.get_or_insert(now);
        }
        if act == Act::AskToDelete {
            self.asking.entry((row.policy.clone(), row.target)).or_default().push(row.key.clone());
        }
        if prepared.is_some() && matches!(act, Act::Create | Act::Rest) {
            // What an earlier one met may be gone by now.
            let source = row.source.as_ref().map(|source| source.uid.clone()).unwrap_or_default();
            row.fields.creating = Some(Creating::Sent(self.nonce(&row, &source)));
        }
        if let (Act::Create, Some(record)) = (act, &mut row.record) {
            // What it named is gone.
            record.uid = None;
            record.resource_version = ResourceVersion::default();
        }
        self.put_if_changed(before.as_ref(), &row)?;
        prepared.map_or(Ok(()), |step| self.dispatch(&row, step, seen, now))
    }

    fn put_if_changed(
        &mut self,
        before: Option<&PlacementRow>,
        row: &PlacementRow,
    ) -> Result<(), StoreError> {
        if before == Some(row) { Ok(()) } else { self.store.put_placement(row) }
    }

    fn forget(
        &mut self,
        row: &PlacementRow,
        there: Option<&ObjectRow>,
        now: Millis,
    ) -> Result<(), StoreError> {
        if let Some(DeleteStage::Archived { tombstone, .. } | DeleteStage::Archiving { tombstone }) =
            &row.delete
        {
            // Whoever deleted it: it is gone, and this was its last state.
            self.carried_out(*tombstone, now)?;
        }
        // A watch may have been kept for this one only.
        self.review_interest |= self.kept_watches;
        self.keep_record(row, now)?;
        if row.record.is_some() && there.is_some_and(|object| object.managed.is_some()) {
            // What has the name now may be of an older write of ours, which a restore brought back.
            self.store.put_placement(&PlacementRow { record: None, delete: None, ..row.clone() })?;
            return self.plan(row.target, &row.key, None, now);
        }
        self.store.delete_placement(row.target, &row.key)?;
        if row.ending == Some(Ending::Recreate) { self.plan(row.target, &row.key, None, now) } else { Ok(()) }
    }
}

/// The object there is ours by its marks: the record follows it.
fn take_over(row: &mut PlacementRow, object: Option<&ObjectRow>, asked: &Asked, now: Millis) {
    let Some(object) = object else { return };
    let Some(managed) = &object.managed else { return };
    let rendered = managed
        .marks
        .get(lockstep_engine::marks::RENDERED)
        .and_then(|hex| blake3::Hash::from_hex(hex).ok())
        .map_or([0; 32], Into::into);
    let api_version = match asked {
        Asked::Claimed { rendered: Ok(rendered), .. } => {
            rendered.body.get("apiVersion").and_then(|v| v.as_str()).unwrap_or_default().to_owned()
        }
        _ => row.record.as_ref().map(|record| record.api_version.clone()).unwrap_or_default(),
    };
    let old = row.record.take();
    // Of what is there now nobody has compared anything.
    row.fields.compared = None;
    row.record = Some(Record {
        uid: Some(object.uid.clone()),
        resource_version: object.resource_version.clone(),
        rendered,
        // What is seen of a write that nobody heard of may be drift already.
        owned: match (&old, managed.owned) {
            (Some(old), _) if old.rendered == rendered && old.owned.is_some() => old.owned,
            (Some(_), Owned::Digest(digest)) => Some(digest),
            _ => None,
        },
        field_set: old.as_ref().map(|record| record.field_set.clone()).unwrap_or_default(),
        api_version,
        implicit: old.as_ref().is_some_and(|record| record.implicit),
        adopted: managed.marks.contains_key(lockstep_engine::marks::ADOPTED),
        created_at: old.map_or(now, |record| record.created_at),
    });
}

impl<S: Store> Core<S> {
    /// Turns an act into a step, if it is one.
    fn prepare(
        &mut self,
        row: &PlacementRow,
        act: Act,
        asked: &Asked,
        object: Option<&ObjectRow>,
        status: &Status,
    ) -> Result<Option<Prepared>, StoreError> {
        let apply = match act {
            Act::Create | Act::Update | Act::Verify | Act::Adopt => Some(act),
            // Only the agent can tell who manages what is in the way: a create that expects nothing
            // there looks first, writes nothing, and answers with the managers.
            Act::Rest
                if status.state == State::Conflict
                    && status.reason != DRIFT_REPORTED
                    && status.reason != TRACKED =>
            {
                Some(Act::Create)
            }
            _ => None,
        };
        if let Some((apply, desired)) = apply.zip(asked.desired()) {
            let step = self.prepare_apply(row, &desired, object, apply)?;
            let corrects = act == Act::Update && status.reason == "Drifted";
            return Ok(Some(if corrects { step.correcting(self.taken(row, object)) } else { step }));
        }
        Ok(match act {
            Act::ReadImage => Some(Prepared::read(is_container(&row.key.gk))),
            Act::Delete => match &row.delete {
                Some(DeleteStage::Archived { tombstone, uid, resource_version }) => {
                    Some(Prepared::delete(*tombstone, uid, resource_version, is_container(&row.key.gk)))
                }
                _ => None,
            },
            Act::Retract => row.fields.creating.as_ref().map(|creating| Prepared::retract(creating.nonce())),
            Act::Release => row.record.as_ref().and_then(|record| record.uid.as_ref()).map(Prepared::release),
            Act::Create | Act::Update | Act::Verify | Act::Adopt => None,
            Act::Rest | Act::AskToDelete | Act::Forget => None,
        })
    }
}
