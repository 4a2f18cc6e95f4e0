//! Owning alone what we ask for: managedFields are rewritten where a retired manager owns it, too (decision 0017).

use bytes::Bytes;
use http::Method;
use lockstep_engine::Uid;
use lockstep_engine::object::ObjectError;
use lockstep_engine::outcome::{Failure, FailureClass, Operation};
use lockstep_engine::ownership::{
    Claims, FieldSet, Handover, RESTORE_MANAGER, Retired, displaced, hand_over, reinstate,
};
use serde_json::{Value, json};

use super::compose::Extra;
use super::types::{Applied, ApplyPlan, LastApplied, Live, Outcome};
use super::undo::Place;
use super::{Writer, live, sensitivity, status};
use crate::client::{Call, Reply};
use crate::resource::with_query;

/// Field manager of the patch. Not ours: a patch under our name could become an entry of its own.
const HANDOVER_MANAGER: &str = "lockstep-handover";
/// The API server's name for everybody whom it does not know.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Of an object that others keep writing to.
pub(super) const ATTEMPTS: usize = 4;

/// What came of a JSON patch that names the state it is for.
pub(super) enum Patched {
    Done(Live),
    Gone,
    /// It is in another state now; nothing was written.
    Changed,
    Refused(Failure),
}

impl Writer {
    /// A JSON patch of exactly the state that was read.
    pub(super) async fn patch_exactly(
        &self,
        place: Place<'_>,
        read: &Live,
        manager: &str,
        operations: Vec<Value>,
    ) -> Result<Patched, Failure> {
        let mut all = vec![
            json!({"op": "test", "path": "/metadata/uid", "value": read.uid.as_str()}),
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": read.resource_version.as_str()}),
        ];
        all.extend(operations);
        let path =
            with_query(&place.resource.object(place.namespace, place.name), &[("fieldManager", manager)]);
        let call = Call {
            method: Method::PATCH,
            content_type: Some("application/json-patch+json"),
            body: Value::Array(all).to_string().into_bytes(),
            ..Call::get(&path)
        };
        let reply = self.client.call(call).await.map_err(crate::RequestError::into_failure)?;
        if reply.is_success() {
            return live(reply.body).map(Patched::Done);
        }
        let failure = reply.failure(Operation::Patch, sensitivity(place.resource));
        Ok(match failure.class {
            FailureClass::Gone => Patched::Gone,
            // A failed test of a JSON patch is answered 422, and so is an object that is refused as it is.
            FailureClass::Invalid if self.is_unchanged(place, read).await => Patched::Refused(failure),
            FailureClass::Stale | FailureClass::Invalid => Patched::Changed,
            _ => Patched::Refused(failure),
        })
    }

    async fn is_unchanged(&self, place: Place<'_>, read: &Live) -> bool {
        let now = self.read(place.resource, place.namespace, place.name).await;
        matches!(now, Ok(Some(now)) if now.uid == read.uid && now.resource_version == read.resource_version)
    }

    /// Takes over what the plan asks for, before it is applied: else what the object cannot hold twice (a port renumbered
    /// under one name) would be refused. The object as it is then; nothing when it changed meanwhile.
    pub(super) async fn take_over(
        &self,
        plan: &ApplyPlan,
        read: &Live,
        retired: &Retired<'_>,
        displaced: Option<&FieldSet>,
    ) -> Result<Option<Live>, Failure> {
        let (object, body) = (tree(&read.body)?, tree(&plan.body)?);
        let claims = Claims { body: &body, last: None, displaced };
        match hand_over(&object, claims, retired).map_err(unreadable)? {
            Some(handover) if !plan.dry_run => self.write_owners(plan, read, &handover).await,
            _ => Ok(Some(read.clone())),
        }
    }

    /// What nobody but retired managers own and this refusal says cannot stay beside the body; of the object as it was before
    /// fields were taken over.
    pub(super) fn displaced(
        &self,
        plan: &ApplyPlan,
        before: &Live,
        retired: &Retired<'_>,
        refusal: &Reply,
    ) -> Result<Option<FieldSet>, Failure> {
        let causes: Vec<(String, bool)> = status(refusal)
            .details
            .causes
            .into_iter()
            .map(|cause| (cause.field, cause.reason == "FieldValueDuplicate"))
            .collect();
        let (object, body) = (tree(&before.body)?, tree(&plan.body)?);
        let found = displaced(&object, &body, retired, &causes).map_err(unreadable)?;
        Ok((!found.is_empty()).then_some(found))
    }

    /// Gives back what was taken over for an apply that was refused, if nobody wrote since.
    pub(super) async fn give_owners_back(&self, plan: &ApplyPlan, before: &Live, now: &Live) {
        if before.resource_version == now.resource_version {
            return;
        }
        let former = tree(&before.body)
            .ok()
            .and_then(|mut object| object.pointer_mut("/metadata/managedFields").map(Value::take));
        let Some(former) = former else { return };
        let operation = json!({"op": "replace", "path": "/metadata/managedFields", "value": former});
        let done = self.patch_exactly(place(plan), now, HANDOVER_MANAGER, vec![operation]).await;
        if !matches!(done, Ok(Patched::Done(_) | Patched::Gone)) {
            tracing::warn!(
                kind = %plan.resource.kind, namespace = %plan.namespace, name = %plan.name,
                "the adoption was refused, and the fields taken over could not be given back; the next attempt goes on from there"
            );
        }
    }

    /// After an apply: managers that stand for us or are retired no longer own what we ask for. What they alone held of our
    /// last apply goes by a second apply.
    pub(super) async fn own_alone(
        &self,
        plan: &ApplyPlan,
        applied: Applied,
        retired: &Retired<'_>,
    ) -> Result<Outcome, Failure> {
        let mut now = applied;
        for _ in 0..ATTEMPTS {
            if plan.dry_run || !may_share(&now.body, retired) {
                break;
            }
            let Some(handover) = self.owed(plan, &now.body, retired)? else { break };
            let read = live(now.body.clone())?;
            let after = match self.write_owners(plan, &read, &handover).await? {
                Some(_) => {
                    let extra = Extra { uid: Some(&read.uid), ..Extra::default() };
                    let reply = self.send(plan, &extra, false).await?;
                    if !reply.is_success() {
                        return self.refused(plan, &reply);
                    }
                    reply.body
                }
                None => self.read_same(plan, &read.uid).await?.body,
            };
            now = match self.applied(plan, after, now.created, now.forced)? {
                Outcome::Applied(again) => Applied { left: now.left, ..*again },
                other => return Ok(other),
            };
        }
        Ok(Outcome::Applied(Box::new(now)))
    }

    /// Before an update is tried again that was refused: managedFields that somebody cleared leave what we no longer ask
    /// for to others. Did that change anything?
    pub(super) async fn regain(&self, plan: &ApplyPlan, uid: &Uid) -> Result<bool, Failure> {
        let read = self.read_same(plan, uid).await?;
        let cleared = match &plan.last_applied {
            LastApplied::Fields(last) => reinstate(&tree(&read.body)?, last).map_err(unreadable)?,
            LastApplied::Unknown | LastApplied::ThisBody => None,
        };
        let handover = match cleared {
            Some(handover) => Some(handover),
            None => self.owed(plan, &read.body, &Retired::OfCopy)?,
        };
        let Some(handover) = handover else { return Ok(false) };
        match self.write_owners(plan, &read, &handover).await? {
            Some(_) => Ok(true),
            None => Err(Failure::local(FailureClass::Stale, "the object changed meanwhile")),
        }
    }

    /// What is still to be handed over to us.
    fn owed(
        &self,
        plan: &ApplyPlan,
        body: &Bytes,
        retired: &Retired<'_>,
    ) -> Result<Option<Handover>, Failure> {
        let last = match &plan.last_applied {
            LastApplied::Fields(last) => Some(last),
            LastApplied::Unknown | LastApplied::ThisBody => None,
        };
        let wanted = tree(&plan.body)?;
        let claims = Claims { body: &wanted, last, displaced: None };
        hand_over(&tree(body)?, claims, retired).map_err(unreadable)
    }

    async fn write_owners(
        &self,
        plan: &ApplyPlan,
        read: &Live,
        handover: &Handover,
    ) -> Result<Option<Live>, Failure> {
        // `add` also where there are none.
        let operation = json!({"op": "add", "path": "/metadata/managedFields", "value": handover.entries});
        match self.patch_exactly(place(plan), read, HANDOVER_MANAGER, vec![operation]).await? {
            Patched::Done(now) => {
                tracing::info!(
                    kind = %plan.resource.kind, namespace = %plan.namespace, name = %plan.name,
                    from = ?handover.from, "took over the fields that are asked for"
                );
                Ok(Some(now))
            }
            Patched::Changed => Ok(None),
            Patched::Gone => Err(Failure::local(FailureClass::Gone, "the object is gone")),
            Patched::Refused(failure) => Err(failure),
        }
    }
}

/// Is it worth a look at who owns what? Most updates meet nobody.
fn may_share(body: &Bytes, retired: &Retired<'_>) -> bool {
    match retired {
        Retired::Adopting(_) => true,
        Retired::OfCopy => std::str::from_utf8(body)
            .is_ok_and(|text| text.contains(BEFORE_FIRST_APPLY) || text.contains(RESTORE_MANAGER)),
    }
}

fn place(plan: &ApplyPlan) -> Place<'_> {
    Place { resource: &plan.resource, namespace: &plan.namespace, name: &plan.name }
}

fn tree(body: &Bytes) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|error| unreadable(error.into()))
}

fn unreadable(error: ObjectError) -> Failure {
    let text = format!("who owns which of its fields cannot be read: {error}");
    Failure::local(FailureClass::SchemaMismatch, &text)
}
