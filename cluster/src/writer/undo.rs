//! Taking back a write that met an object where none was expected: the index said that there is none,
//! and was old. What was there before tells whose object it is, and what has to come back.
//!
//! It need not be foreign. A restore of etcd brings back a copy that lockstep had deleted, and an
//! earlier call may have arrived without its answer. Applying nothing would empty such an object, and
//! take the marks with it by which the hub knows it again.

use lockstep_engine::guard::{self, Guard};
use lockstep_engine::object::ObjectError;
use lockstep_engine::outcome::{Failure, FailureClass, Operation};
use lockstep_engine::ownership::{INTENT_ANNOTATION, MANAGER, ManagedFields, project};
use lockstep_engine::{ResourceVersion, Uid};
use serde_json::{Map, Value, json};

use super::apply::{is_older, met};
use super::types::{ApplyPlan, Foreign, Live, Outcome, Undo};
use super::{ApplyCall, Writer, live, sensitivity};
use crate::client::Call;
use crate::page::page;
use crate::resource::{Resource, with_query};

/// Where an object is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) resource: &'a Resource,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// What was there before our write.
enum Before {
    /// Nothing: this write changed nothing, and an earlier one of ours had created the object.
    Absent,
    /// This.
    Object(Live),
    /// The server does not tell.
    Unknown,
}

/// What a create left that was not answered.
#[derive(Debug)]
pub enum Retracted {
    /// Nothing: what is there, if anything, does not carry its nonce.
    Nothing,
    /// It made the object of that uid, as far as can be told.
    Made(Uid),
    /// It had met an object of others; whether that is as it was again is said there.
    Met(Box<Foreign>),
}

/// What a create of ours met that was not answered.
pub(super) enum Met {
    /// Nothing: it created the object, and nobody wrote since.
    Nothing,
    /// An object of others; what came of that.
    Other(Box<Foreign>),
    /// Nothing, as far as can be told.
    Unknown,
}

impl Writer {
    /// What comes of a create that was answered with an object that had been there, in the state that
    /// our write left it in.
    pub(super) async fn merged(&self, plan: &ApplyPlan, nonce: &str, now: Live) -> Result<Outcome, Failure> {
        let place = Place { resource: &plan.resource, namespace: &plan.namespace, name: &plan.name };
        let before = self.before(place, &now).await?;
        match &before {
            Before::Absent => self.applied(plan, now.body, true, false),
            Before::Object(live) if live.nonce.as_deref() == Some(nonce) => {
                self.applied(plan, now.body, true, false)
            }
            Before::Object(_) | Before::Unknown => {
                let (undo, version) = self.put_back(place, &now, &before).await;
                Ok(Outcome::Conflict(met(&now.body, Vec::new(), undo, version)))
            }
        }
    }

    /// Did an earlier call of this create, which left its nonce, meet an object that was there before, and nobody came to
    /// take that back? What was there one revision earlier tells, as long as nobody wrote since and the server remembers;
    /// after that only an object that is older than our entry in it, and that is left alone, and to a person.
    pub(super) async fn met_before(&self, place: Place<'_>, nonce: &str, now: &Live) -> Result<Met, Failure> {
        if !guard::on(Guard::MetByCreate) {
            return Ok(Met::Unknown);
        }
        let before = self.before(place, now).await?;
        let (undo, version) = match &before {
            Before::Absent => return Ok(Met::Nothing),
            Before::Object(live) if live.nonce.as_deref() != Some(nonce) => {
                self.put_back(place, now, &before).await
            }
            Before::Object(_) | Before::Unknown if is_older(&now.body) => (Undo::NotNeeded, None),
            Before::Object(_) | Before::Unknown => return Ok(Met::Unknown),
        };
        Ok(Met::Other(met(&now.body, Vec::new(), undo, version)))
    }

    /// Looks at what a create left whose answer never came, and takes it back where it met an object of others. Nothing of
    /// what it made is changed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn retract(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        nonce: &str,
    ) -> Result<Retracted, Failure> {
        let left = self.read(resource, namespace, name).await?;
        let Some(left) = left.filter(|live| live.nonce.as_deref() == Some(nonce)) else {
            return Ok(Retracted::Nothing);
        };
        let place = Place { resource, namespace, name };
        Ok(match self.met_before(place, nonce, &left).await? {
            Met::Other(foreign) => Retracted::Met(foreign),
            Met::Nothing | Met::Unknown => Retracted::Made(left.uid),
        })
    }

    /// Takes a write of ours back that left an object in this state.
    pub(super) async fn undo(&self, place: Place<'_>, now: &Live) -> Undo {
        match self.before(place, now).await {
            Ok(before) => self.put_back(place, now, &before).await.0,
            Err(failure) => Undo::Failed(failure),
        }
    }

    /// The state before the one that our write left: one revision of the store earlier.
    async fn before(&self, place: Place<'_>, now: &Live) -> Result<Before, Failure> {
        let Some(ours) = now.resource_version.ordinal() else { return Ok(Before::Unknown) };
        let selector = format!("metadata.name={}", place.name);
        let version = ours.saturating_sub(1).to_string();
        let parameters = [
            ("fieldSelector", selector.as_str()),
            ("resourceVersion", version.as_str()),
            ("resourceVersionMatch", "Exact"),
            ("limit", "1"),
        ];
        let path = with_query(&place.resource.collection(Some(place.namespace)), &parameters);
        let reply = self.client.call(Call::get(&path)).await.map_err(crate::RequestError::into_failure)?;
        if !reply.is_success() {
            // Compacted already, or the server cannot look back. Anything else may be answered the next time, also what
            // is forbidden now: what was there would be emptied if it were not known.
            let never = matches!(reply.status, 400 | 404 | 410);
            let failure = || reply.failure(Operation::List, sensitivity(place.resource));
            return if never { Ok(Before::Unknown) } else { Err(failure()) };
        }
        let Ok(page) = page(&reply.body) else { return Ok(Before::Unknown) };
        let Some(item) = page.items.into_iter().next() else { return Ok(Before::Absent) };
        Ok(match live(item) {
            Ok(live)
                if live.uid == now.uid
                    && live.resource_version.ordinal().is_some_and(|version| version < ours) =>
            {
                Before::Object(live)
            }
            // A server that does not know the parameters answers with what is there now.
            _ => Before::Unknown,
        })
    }

    /// Applies what we owned before our write, mostly nothing: what we alone own beyond that goes, what
    /// others own stays. Without force the write cannot have changed a value of theirs.
    /// And the resourceVersion of what is left, where that is known.
    async fn put_back(
        &self,
        place: Place<'_>,
        now: &Live,
        before: &Before,
    ) -> (Undo, Option<ResourceVersion>) {
        let Place { resource, namespace, name } = place;
        let mut body = match before {
            Before::Absent => return (Undo::NotNeeded, None),
            Before::Unknown => Map::new(),
            Before::Object(before) => match our_part(resource, before) {
                Ok(fields) => fields,
                Err(failure) => return (Undo::Failed(failure), None),
            },
        };
        body.insert("apiVersion".to_owned(), resource.api_version().into());
        body.insert("kind".to_owned(), (*resource.kind).into());
        let metadata = body.entry("metadata").or_insert_with(|| json!({}));
        if let Some(members) = metadata.as_object_mut() {
            // A nonce is of one write, and this is another (`engine::marks::was_met`).
            if let Some(annotations) = members.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(INTENT_ANNOTATION);
            }
            members.insert("name".to_owned(), name.into());
            members.insert("uid".to_owned(), now.uid.as_str().into());
            if resource.namespaced {
                members.insert("namespace".to_owned(), namespace.into());
            }
        }
        let apply = ApplyCall {
            resource,
            namespace,
            name,
            manager: MANAGER,
            force: false,
            dry_run: false,
            body: Value::Object(body).to_string().into_bytes(),
        };
        match self.send_apply(apply).await {
            Ok(reply) if reply.is_success() => {
                (Undo::Done, live(reply.body).ok().map(|left| left.resource_version))
            }
            Ok(reply) => {
                let failure = reply.failure(Operation::Apply, sensitivity(resource));
                if matches!(failure.class, FailureClass::Gone | FailureClass::Stale) {
                    // It is gone, or another object: nothing of ours is left in it.
                    (Undo::Done, None)
                } else {
                    (Undo::Failed(failure), None)
                }
            }
            Err(failure) => (Undo::Failed(failure), None),
        }
    }
}

/// What we owned of an object. Whether its marks are genuine is the hub's to say: they come back as
/// they were.
fn our_part(resource: &Resource, object: &Live) -> Result<Map<String, Value>, Failure> {
    let unreadable =
        |_: ObjectError| Failure::local(FailureClass::Transient, "what it was before cannot be read");
    let body: Value = serde_json::from_slice(&object.body).map_err(|error| unreadable(error.into()))?;
    let Some(entries) = body.pointer("/metadata/managedFields") else { return Ok(Map::new()) };
    let managed = ManagedFields::from_value(entries).map_err(unreadable)?;
    let Some(ours) = managed.ours() else { return Ok(Map::new()) };
    if ours.api_version != resource.api_version() {
        let text = format!("our fields in it are those of {}", ours.api_version);
        return Err(Failure::local(FailureClass::SchemaMismatch, &text));
    }
    let own = ours.fields().map_err(unreadable)?;
    let others = managed.others().map_err(unreadable)?;
    Ok(match project(&body, &own, &others) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    })
}
