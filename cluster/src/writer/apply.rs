//! The one way objects are written.

use bytes::Bytes;
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::marks;
use lockstep_engine::object::RawObject;
use lockstep_engine::outcome::{Failure, FailureClass, Operation};
use lockstep_engine::ownership::{
    ConflictCause, MANAGER, ManagedFields, Owned, YIELD_MANAGER, conflicts, force_allowed, owned_digest,
};
use lockstep_engine::{ResourceVersion, Uid};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::compose::{Extra, compose};
use super::types::{Applied, ApplyPlan, ApplyReport, Expect, Foreign, LastApplied, Live, Outcome, Undo};
use super::undo::{Met, Place};
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
            Expect::Present { uid, .. } => self.update(plan, uid).await,
            Expect::Foreign { uid, only_if_equal } => self.adopt(plan, uid, *only_if_equal).await,
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
            Met::Nothing if same => return self.applied(plan, live.body, true, false),
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

    async fn update(&self, plan: &ApplyPlan, uid: &Uid) -> Result<Outcome, Failure> {
        if plan.leave.is_empty() {
            return self.update_with(plan, uid).await;
        }
        let shared = self.yielded(plan, uid).await?;
        Ok(match self.update_with(&shared.plan, uid).await? {
            Outcome::Applied(applied) => {
                Outcome::Applied(Box::new(Applied { left: shared.left, ..*applied }))
            }
            other => other,
        })
    }

    async fn update_with(&self, plan: &ApplyPlan, uid: &Uid) -> Result<Outcome, Failure> {
        let version = match &plan.expect {
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
        self.force(plan, uid).await
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
    async fn force(&self, plan: &ApplyPlan, uid: &Uid) -> Result<Outcome, Failure> {
        let live = self.read_same(plan, uid).await?;
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
        let owned = owned_digest(&live.body, &plan.resource.api_version(), self.digest_key(&plan.resource))
            .unwrap_or(Owned::None);
        Ok(Outcome::Applied(Box::new(Applied {
            fields: our_fields(&live.body),
            uid: live.uid,
            resource_version: live.resource_version,
            owned,
            created,
            forced,
            left: Vec::new(),
            body: live.body,
        })))
    }
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
        cause.manager == YIELD_MANAGER || plan.reclaim.contains(&cause.path) || cause.is_of_scale()
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
    let uid = object.map(|object| object.uid());
    Box::new(Foreign { managers, causes, owners, uid, version, undo })
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    names.sort();
    names.dedup();
    names
}
