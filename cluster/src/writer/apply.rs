//! The one way objects are written.

use bytes::Bytes;
use lockstep_engine::catalogue::{Tracker, tracker};
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::marks;
use lockstep_engine::object::RawObject;
use lockstep_engine::outcome::{Failure, FailureClass, Operation};
use lockstep_engine::ownership::{
    Comparison, ConflictCause, FieldSet, MANAGER, ManagedFields, ManagerEntry, Owned, Retired, YIELD_MANAGER,
    compare, conflicts, force_allowed, owned_digest_of,
};
use lockstep_engine::{GroupKind, ResourceVersion, Uid};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::compose::{Extra, compose};
use super::lists::{is_merged, merges};
use super::types::{Applied, ApplyPlan, ApplyReport, Expect, Foreign, LastApplied, Live, Outcome, Undo};
use super::undo::{Met, Place};
use super::yields::{Shared, tree, unreadable};
use super::{ApplyCall, Writer, given, live, sensitivity, status};
use crate::client::Reply;

/// Status of an apply that created its object.
const CREATED: u16 = 201;

impl Writer {
    /// Applies one object.
    pub async fn apply(&self, plan: &ApplyPlan) -> ApplyReport {
        let outcome = self.apply_once(plan).await;
        if !plan.ensure_namespace || plan.dry_run || !matches!(outcome, Outcome::NamespaceMissing) {
            return ApplyReport { outcome, created_namespace: None };
        }
        match self.create_namespace(&plan.namespace, &plan.namespace_labels).await {
            Err(failure) => ApplyReport { outcome: Outcome::Failed(failure), created_namespace: None },
            Ok(namespace) => ApplyReport {
                outcome: self.apply_once(plan).await,
                created_namespace: namespace.created.then_some(namespace.uid),
            },
        }
    }

    async fn apply_once(&self, plan: &ApplyPlan) -> Outcome {
        let done = match &plan.expect {
            Expect::Absent { nonce, look_first } => self.create(plan, nonce, *look_first).await,
            Expect::Present { uid, unless_equal, .. } => match *unless_equal {
                true => self.verify(plan, uid).await,
                false => self.update(plan, uid).await,
            },
            Expect::Foreign { uid, only_if_equal, retired, tracked_too } => {
                self.adopt(plan, uid, *only_if_equal, retired, *tracked_too).await
            }
        };
        let done = match done {
            Ok(Outcome::Applied(applied)) => self.settle(plan, *applied).await,
            other => other,
        };
        done.unwrap_or_else(|failure| match failure.class {
            FailureClass::NamespaceMissing => Outcome::NamespaceMissing,
            _ => Outcome::Failed(failure),
        })
    }

    async fn create(&self, plan: &ApplyPlan, nonce: &str, look_first: bool) -> Result<Outcome, Failure> {
        if look_first {
            // Our earlier call may have got through. An object with our nonce is ours, any other is
            // not, and then nothing is written at all.
            match self.read(&plan.resource, &plan.namespace, &plan.name).await? {
                Some(live) if live.nonce.as_deref() == Some(nonce) || !guard::on(Guard::NonceOfCreate) => {
                    return self.arrived(plan, nonce, live).await;
                }
                Some(live) => return Ok(foreign(&live.body, Vec::new())),
                None => {}
            }
        }
        let extra = Extra { nonce: Some(nonce), ..Extra::default() };
        let created = self.at_creation(plan)?;
        let plan = created.as_ref().unwrap_or(plan);
        let reply = self.send(plan, &extra, false).await?;
        if !reply.is_success() {
            return self.refused(plan, &reply);
        }
        if reply.status == CREATED {
            return self.applied(plan, reply.body, true, false);
        }
        if plan.dry_run {
            return Ok(foreign(&reply.body, Vec::new()));
        }
        let live = live(reply.body)?;
        if look_first {
            // Absent a moment ago, and there now: the earlier call may have arrived in between, or
            // somebody else was faster. An undo could empty our own object, so look again.
            return Err(Failure::local(
                FailureClass::Stale,
                "the object appeared during the call; observe again",
            ));
        }
        self.merged(plan, nonce, live).await
    }

    /// An earlier call of this create got through, and its answer was lost.
    async fn arrived(&self, plan: &ApplyPlan, nonce: &str, live: Live) -> Result<Outcome, Failure> {
        let same = rendered(&live.body) == rendered(&plan.body);
        let place = Place { resource: &plan.resource, namespace: &plan.namespace, name: &plan.name };
        let met = match plan.dry_run {
            true => Met::Unknown,
            false => self.met_before(place, nonce, &live).await?,
        };
        match met {
            Met::Other(foreign) => return Ok(Outcome::Conflict(foreign)),
            Met::Nothing if same => {
                // What was written at the creation only is the target's by now.
                let part = self.part(plan, &live.body)?;
                return self.applied(&part, live.body, true, false);
            }
            Met::Nothing | Met::Unknown => {}
        }
        // What is written at creation only is the target's by now, and the nonce is of the creation: it goes
        // (`engine::marks::was_met`).
        let last_applied = if same { LastApplied::ThisBody } else { plan.last_applied.clone() };
        let again = ApplyPlan { last_applied, ..plan.clone() };
        Ok(match self.update(&again, &live.uid).await? {
            Outcome::Applied(applied) => Outcome::Applied(Box::new(Applied { created: true, ..*applied })),
            other => other,
        })
    }

    /// Our part of the body, for the object as it is.
    fn part(&self, plan: &ApplyPlan, live: &Bytes) -> Result<ApplyPlan, Failure> {
        if plan.leave.is_empty() { Ok(plan.clone()) } else { Ok(self.shared(plan, live, &plan.leave)?.plan) }
    }

    /// Of an object that nobody has compared: it is written only where it is not what is asked for, or not ours.
    async fn verify(&self, plan: &ApplyPlan, uid: &Uid) -> Result<Outcome, Failure> {
        let live = self.read_same(plan, uid).await?;
        let shared = match plan.leave.is_empty() {
            true => Shared { plan: plan.clone(), yields: None, left: Vec::new() },
            false => self.shared(plan, &live.body, &plan.leave)?,
        };
        let merged = self.merged_with(plan, &shared.plan, &live.body)?;
        let part = merged.as_ref().unwrap_or(&shared.plan);
        if shared.yields.is_none() && is_all_ours(&tree(&part.body)?, &tree(&live.body)?) {
            let found = self.applied(part, live.body, false, false)?;
            if let Outcome::Applied(found) = found
                && found.compared.differences.is_empty()
            {
                return Ok(Outcome::Applied(Box::new(Applied { left: shared.left, ..*found })));
            }
        }
        self.update(plan, uid).await
    }

    async fn update(&self, plan: &ApplyPlan, uid: &Uid) -> Result<Outcome, Failure> {
        if plan.leave.is_empty() {
            return self.update_part(plan, plan, uid).await;
        }
        let shared = self.yielded(plan, uid).await?;
        Ok(match self.update_part(plan, &shared.plan, uid).await? {
            Outcome::Applied(applied) => {
                Outcome::Applied(Box::new(Applied { left: shared.left, ..*applied }))
            }
            other => other,
        })
    }

    /// Applies `sent`, which is what of `asked` is ours.
    async fn update_part(&self, asked: &ApplyPlan, sent: &ApplyPlan, uid: &Uid) -> Result<Outcome, Failure> {
        if merges(asked) {
            return self.update_merged(asked, sent, uid).await;
        }
        self.update_with(sent, uid, None).await
    }

    /// `read`: only onto this very state.
    pub(super) async fn update_with(
        &self,
        plan: &ApplyPlan,
        uid: &Uid,
        read: Option<&ResourceVersion>,
    ) -> Result<Outcome, Failure> {
        let done = match self.update_once(plan, uid, read).await {
            Err(failure) if failure.class == FailureClass::Invalid && !plan.dry_run => {
                if !self.regain(plan, uid).await? {
                    return Err(failure);
                }
                self.update_once(plan, uid, read).await?
            }
            done => done?,
        };
        match done {
            Outcome::Applied(applied) => self.own_alone(plan, *applied, &Retired::OfCopy).await,
            other => Ok(other),
        }
    }

    async fn update_once(
        &self,
        plan: &ApplyPlan,
        uid: &Uid,
        read: Option<&ResourceVersion>,
    ) -> Result<Outcome, Failure> {
        let version = match &plan.expect {
            _ if read.is_some() => read,
            // A yield moves the version; the uid still guards the object.
            Expect::Present { resource_version, .. } if plan.leave.is_empty() => {
                given(resource_version.as_ref())
            }
            Expect::Present { .. } | Expect::Absent { .. } | Expect::Foreign { .. } => None,
        };
        let named = Some(uid).filter(|_| guard::on(Guard::UpdateNamesUid));
        let extra = Extra { uid: named, resource_version: version, nonce: None };
        let reply = self.send(plan, &extra, false).await?;
        if reply.is_success() {
            return self.applied(plan, reply.body, false, false);
        }
        let causes = conflicts(&status(&reply));
        if causes.is_empty() {
            return self.refused(plan, &reply);
        }
        if !may_force(plan, &causes) {
            return Ok(conflict(causes));
        }
        self.force(plan, uid, read).await
    }

    /// The object as it is, if it still is that one.
    pub(super) async fn read_same(&self, plan: &ApplyPlan, uid: &Uid) -> Result<Live, Failure> {
        let Some(live) = self.read(&plan.resource, &plan.namespace, &plan.name).await? else {
            return Err(Failure::local(FailureClass::Gone, "the object is gone"));
        };
        if live.uid != *uid {
            return Err(Failure::local(FailureClass::Stale, "another object has taken the name"));
        }
        Ok(live)
    }

    /// Takes back what is ours: only the very object, only in a state whose conflicts were looked at.
    async fn force(
        &self,
        plan: &ApplyPlan,
        uid: &Uid,
        read: Option<&ResourceVersion>,
    ) -> Result<Outcome, Failure> {
        let live = self.read_same(plan, uid).await?;
        if read.is_some_and(|read| *read != live.resource_version) {
            return Err(Failure::local(FailureClass::Stale, "the object changed since its lists were read"));
        }
        let merged = self.merged_with(plan, plan, &live.body)?;
        let plan = merged.as_ref().unwrap_or(plan);
        let extra = Extra { uid: Some(uid), resource_version: Some(&live.resource_version), nonce: None };
        // The conflicts of exactly this version: more may have come since the first attempt.
        let reply = self.send(plan, &extra, false).await?;
        if reply.is_success() {
            return self.applied(plan, reply.body, false, false);
        }
        let causes = conflicts(&status(&reply));
        if causes.is_empty() || !may_force(plan, &causes) {
            return self.refused(plan, &reply);
        }
        let reply = self.send(plan, &extra, true).await?;
        if reply.is_success() {
            let managers: Vec<_> = causes.iter().map(|cause| cause.manager.as_str()).collect();
            tracing::info!(
                kind = %plan.resource.kind, namespace = %plan.namespace, name = %plan.name, ?managers,
                "took back fields of ours"
            );
            return self.applied(plan, reply.body, false, true);
        }
        self.refused(plan, &reply)
    }

    pub(super) async fn send(
        &self,
        plan: &ApplyPlan,
        extra: &Extra<'_>,
        force: bool,
    ) -> Result<Reply, Failure> {
        self.send_as(plan, extra, force, plan.dry_run).await
    }

    /// [`Self::send`], or only a question what would come of it.
    pub(super) async fn send_as(
        &self,
        plan: &ApplyPlan,
        extra: &Extra<'_>,
        force: bool,
        dry_run: bool,
    ) -> Result<Reply, Failure> {
        self.send_apply(ApplyCall {
            resource: &plan.resource,
            namespace: &plan.namespace,
            name: &plan.name,
            manager: MANAGER,
            force,
            dry_run,
            body: compose(&plan.body, extra)?,
        })
        .await
    }

    pub(super) fn refused(&self, plan: &ApplyPlan, reply: &Reply) -> Result<Outcome, Failure> {
        let causes = conflicts(&status(reply));
        if causes.is_empty() {
            return Err(reply.failure(Operation::Apply, sensitivity(&plan.resource)));
        }
        Ok(conflict(causes))
    }

    pub(super) fn applied(
        &self,
        plan: &ApplyPlan,
        body: Bytes,
        created: bool,
        forced: bool,
    ) -> Result<Outcome, Failure> {
        let live = live(body)?;
        let (desired, answer) = (tree(&plan.body)?, tree(&live.body)?);
        let owned = owned_digest_of(&answer, &plan.resource.api_version(), self.digest_key(&plan.resource))
            .unwrap_or(Owned::None);
        let ApplyPlan { resource, was_ours, leave, .. } = plan;
        let gk = GroupKind::new(&resource.group, &resource.kind);
        let comparison = Comparison { gk: &gk, desired: &desired, live: &answer, was_ours, leave };
        let compared = compare(&comparison).map_err(unreadable)?;
        Ok(Outcome::Applied(Box::new(Applied {
            fields: our_fields(&live.body),
            uid: live.uid,
            resource_version: live.resource_version,
            owned,
            created,
            forced,
            left: Vec::new(),
            body: live.body,
            sent: plan.body.clone(),
            compared,
        })))
    }
}

/// Do we own every field of the body? Items of lists are told by the comparison.
fn is_all_ours(body: &Value, live: &Value) -> bool {
    let managed = live.pointer("/metadata/managedFields").and_then(|raw| ManagedFields::from_value(raw).ok());
    let Some(entry) = managed.as_ref().and_then(ManagedFields::ours) else { return false };
    let same_version = live.get("apiVersion").and_then(Value::as_str) == Some(entry.api_version.as_str());
    same_version && ManagerEntry::fields(entry).is_ok_and(|fields: FieldSet| fields.covers(body))
}

/// Was it there before the create whose nonce it carries?
pub(super) fn is_older(body: &[u8]) -> bool {
    let Ok(object) = RawObject::parse(body) else { return false };
    let meta = &object.metadata;
    // Entries that cannot be read say nothing.
    let entries = meta.managed_fields.and_then(|raw| ManagedFields::parse(raw).ok()).unwrap_or_default();
    let created = meta.creation_timestamp.as_deref();
    entries.ours().is_some_and(|entry| marks::was_met(&meta.annotations, created, &entry.time))
}

/// The mark that names the desired body.
fn rendered(body: &[u8]) -> Option<String> {
    let object = RawObject::parse(body).ok()?;
    object.metadata.annotations.get(marks::RENDERED).cloned()
}

/// FieldsV1 of our entry, as a slice of the answer.
fn our_fields(body: &Bytes) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(default)]
        manager: String,
        #[serde(default)]
        operation: String,
        #[serde(default)]
        subresource: String,
        #[serde(borrow, default, rename = "fieldsV1")]
        fields: Option<&'a RawValue>,
    }
    let object = RawObject::parse(body).ok()?;
    let entries: Vec<Entry<'_>> = serde_json::from_str(object.metadata.managed_fields?.get()).ok()?;
    let ours = entries.into_iter().find(|entry| {
        entry.manager == MANAGER && entry.operation == "Apply" && entry.subresource.is_empty()
    })?;
    Some(body.slice_ref(ours.fields?.get().as_bytes()))
}

/// Was everything in conflict ours after our last apply, or kept by us for whoever wants it?
fn may_force(plan: &ApplyPlan, causes: &[ConflictCause]) -> bool {
    let returned = |cause: &ConflictCause| {
        cause.manager == YIELD_MANAGER
            || plan.reclaim.contains(&cause.path)
            || cause.is_of_scale()
            || is_merged(plan, &cause.path)
    };
    let rest: Vec<ConflictCause> = causes.iter().filter(|cause| !returned(cause)).cloned().collect();
    if rest.is_empty() {
        return !causes.is_empty();
    }
    match &plan.last_applied {
        LastApplied::Unknown => false,
        LastApplied::Fields(last) => force_allowed(&rest, last),
        LastApplied::ThisBody => true,
    }
}

/// Fields of others are in the way; nothing was written.
fn conflict(causes: Vec<ConflictCause>) -> Outcome {
    let managers = sorted(causes.iter().map(|cause| cause.manager.clone()));
    let undo = Undo::NotNeeded;
    Outcome::Conflict(Box::new(Foreign {
        managers,
        causes,
        owners: Vec::new(),
        tracker: None,
        uid: None,
        version: None,
        undo,
    }))
}

/// The whole object is somebody else's, and as it was read.
pub(super) fn foreign(body: &Bytes, causes: Vec<ConflictCause>) -> Outcome {
    Outcome::Conflict(met(body, causes, Undo::NotNeeded, None))
}

/// The whole object is somebody else's. `version`: where a merge was taken back, that of what is left.
pub(super) fn met(
    body: &Bytes,
    causes: Vec<ConflictCause>,
    undo: Undo,
    version: Option<ResourceVersion>,
) -> Box<Foreign> {
    let object = RawObject::parse(body).ok();
    let managed = object.as_ref().and_then(|object| object.metadata.managed_fields);
    let owners = managed
        .and_then(|raw| ManagedFields::parse(raw).ok())
        .map(|fields| fields.summaries())
        .unwrap_or_default();
    let managers = sorted(owners.iter().map(|owner| owner.manager.clone()));
    let version = version.or_else(|| object.as_ref().map(RawObject::resource_version));
    let tracker = object.as_ref().and_then(tracker_of);
    let uid = object.map(|object| object.uid());
    Box::new(Foreign { managers, causes, owners, tracker, uid, version, undo })
}

/// The GitOps tool or package manager that tracks an object which was read by itself.
pub(super) fn tracker_of(object: &RawObject<'_>) -> Option<Tracker> {
    let group = object.api_version.split_once('/').map_or("", |(group, _)| group);
    let gk = GroupKind::new(group, &object.kind);
    tracker(&gk, &object.metadata.labels, &object.metadata.annotations)
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    names.sort();
    names.dedup();
    names
}
