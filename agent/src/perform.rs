//! One step from the accept list to the API server and back.
//!
//! No choices are made here: what is found instead of what was expected is the outcome.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lockstep_cluster::{
    ApplyPlan, Contents, DeletePlan, Deleted, Expect, Foreign, LastApplied, Outcome, ReleasePlan, Released,
    Resource, RestoreExpect, RestorePlan, Retracted, Served, ServedKind, Undo, Writer,
};
use lockstep_engine::catalogue::{Tracker, is_container, only_pod_security};
use lockstep_engine::marks::has_marks;
use lockstep_engine::object::{ObjectError, RawObject, defined_kind, without_managed_fields};
use lockstep_engine::outcome::{Failure, FailureClass};
use lockstep_engine::ownership::{
    Compared, Difference, DifferenceKind, Differences, FieldSet, Holder, Leave, Left, ManagerPattern,
    has_entry_of_ours, wrote_all,
};
use lockstep_engine::{GroupKind, ResourceVersion, Uid};
use lockstep_wire::v1::{
    self, apply::Expect as Wanted, outcome::Result as Done, restore::Expect as Anew, step::Action,
};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::accept::{AcceptList, ReadScope, Subject, Verb};
use crate::judge::{manager, owned_state};
use crate::steps::Job;

/// Annotation in which kubectl keeps a body.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Objects named when something that had to be empty is not.
const NAMED_INSIDE: usize = 10;

/// What steps are carried out with.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) writer: Writer,
    pub(crate) served: Arc<Served>,
    pub(crate) accept: Arc<AcceptList>,
}

/// Carries a step out.
pub(crate) async fn perform(tools: &Tools, job: &Job) -> v1::Outcome {
    let begun = Instant::now();
    let result = match resolve(tools, job) {
        Ok((kind, resource, action)) => {
            let call = Call { tools, job, kind, resource };
            call.act(action).await.unwrap_or_else(|failure| Done::Failed(failed(failure)))
        }
        Err(failure) => Done::Failed(failed(failure)),
    };
    v1::Outcome { step: job.step.step, result: Some(result), took_us: micros(begun.elapsed()) }
}

/// The class of an outcome, for counting.
pub(crate) fn class(outcome: &v1::Outcome) -> &str {
    match &outcome.result {
        Some(Done::Applied(_)) => "Applied",
        Some(Done::Image(_)) => "Image",
        Some(Done::Deleted(_)) => "Deleted",
        Some(Done::Released(_)) => "Released",
        Some(Done::Probed(_)) => "Probed",
        Some(Done::Gone(_)) => "Gone",
        Some(Done::Failed(failed)) => &failed.class,
        None => "None",
    }
}

/// Accepted, served, and in which version?
fn resolve<'a>(tools: &'a Tools, job: &'a Job) -> Result<(&'a ServedKind, Resource, &'a Action), Failure> {
    let v1::Step { namespace, name, action, .. } = &job.step;
    let gk = &job.key.gk;
    let kind = tools.served.get(gk);
    let subject = Subject { gk, plural: kind.map(|kind| &*kind.plural), namespace, name };
    let action =
        action.as_ref().ok_or_else(|| failure(FailureClass::Invalid, "a step without an action we know"))?;
    let verb = match action {
        Action::Apply(v1::Apply { expect: Some(Wanted::Absent(_)), .. }) => Some(Verb::Create),
        Action::Restore(v1::Restore { expect: Some(Anew::Absent(_)), .. }) => Some(Verb::Create),
        Action::Apply(_) | Action::Release(_) | Action::Restore(_) | Action::Retract(_) => Some(Verb::Update),
        Action::Delete(_) => Some(Verb::Delete),
        Action::Read(_) | Action::Probe(_) => None,
    };
    let accepted = match (action, verb) {
        (_, Some(verb)) => tools.accept.check(subject, verb),
        // No more than the watch of the kind tells the hub anyway.
        (Action::Probe(_), None) if is_container(gk) => Ok(()),
        _ => tools.accept.read_scope(subject).map(drop),
    };
    accepted.map_err(|said| failure(FailureClass::NotAccepted, &said))?;
    let kind =
        kind.ok_or_else(|| failure(FailureClass::NotServed, &format!("the cluster does not serve {gk}")))?;
    let resource = match action {
        Action::Apply(apply) => {
            apply.versions.iter().find_map(|v| kind.api_version(v)).or_else(|| kind.preferred())
        }
        // Its body is in the version that it says, and in no other.
        Action::Restore(restore) => api_version(&restore.body).and_then(|v| kind.api_version(&v)),
        _ => kind.preferred(),
    };
    let resource =
        resource.ok_or_else(|| failure(FailureClass::NotServed, &format!("no version of {gk} is served")))?;
    Ok((kind, resource, action))
}

/// Microseconds, as far as the wire carries them (71 minutes).
fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn foreign(adopt: &v1::Adopt) -> Result<Expect, Failure> {
    let v1::Adopt { uid, only_if_equal, retired, tracked_too } = adopt;
    let retired: Result<_, _> = retired.iter().map(|text| text.parse::<ManagerPattern>()).collect();
    let retired = retired.map_err(|error| {
        failure(FailureClass::Invalid, &format!("a retired field manager cannot be read: {error}"))
    })?;
    let (only_if_equal, tracked_too) = (*only_if_equal, *tracked_too);
    Ok(Expect::Foreign { uid: Uid::new(uid), only_if_equal, retired, tracked_too })
}

struct Call<'a> {
    tools: &'a Tools,
    job: &'a Job,
    kind: &'a ServedKind,
    resource: Resource,
}

impl Call<'_> {
    async fn act(&self, action: &Action) -> Result<Done, Failure> {
        match action {
            Action::Apply(apply) => self.apply(apply).await,
            Action::Read(read) => self.read(read.must_be_empty).await,
            Action::Delete(delete) => self.delete(delete).await,
            Action::Release(release) => self.release(release).await,
            Action::Probe(v1::Probe {}) => self.probe().await,
            Action::Restore(restore) => self.restore(restore).await,
            Action::Retract(retract) => self.retract(&retract.nonce).await,
        }
    }

    fn namespace(&self) -> &Arc<str> {
        &self.job.key.namespace
    }

    fn name(&self) -> &Arc<str> {
        &self.job.key.name
    }

    async fn apply(&self, apply: &v1::Apply) -> Result<Done, Failure> {
        let expect = match &apply.expect {
            Some(Wanted::Absent(v1::Absent { nonce, again })) => {
                // Unless the index is sure that nothing is there, the writer looks first.
                let look_first = *again || self.job.present != Some(false);
                Expect::Absent { nonce: nonce.clone(), look_first }
            }
            Some(Wanted::Present(v1::Present { uid, resource_version })) => Expect::Present {
                uid: Uid::new(uid),
                resource_version: (!resource_version.is_empty())
                    .then(|| ResourceVersion::new(resource_version)),
                unless_equal: apply.unless_equal,
            },
            Some(Wanted::Adopt(adopt)) => foreign(adopt)?,
            None => return Err(failure(FailureClass::Invalid, "an apply that expects nothing")),
        };
        let last_applied = match apply.last_field_set.as_ref() {
            [] if apply.same_body => LastApplied::ThisBody,
            [] => LastApplied::Unknown,
            _ => LastApplied::Fields(fields(&apply.last_field_set)?),
        };
        let mut was_ours = fields(&apply.was_ours)?;
        if let LastApplied::Fields(last) = &last_applied {
            was_ours.extend(last);
        }
        let plan = ApplyPlan {
            resource: self.resource.clone(),
            namespace: Arc::clone(self.namespace()),
            name: Arc::clone(self.name()),
            body: in_version(&apply.body, &self.resource)?,
            expect,
            last_applied,
            was_ours,
            reclaim: apply.reclaim.clone(),
            leave: leave(&apply.leave)?,
            ensure_namespace: apply.ensure_namespace && self.may_create_namespace(),
            // A hub may not label namespaces as it likes.
            namespace_labels: only_pod_security(apply.namespace_labels.clone()),
            dry_run: false,
        };
        let report = self.tools.writer.apply(&plan).await;
        let namespace = report.created_namespace.map(|uid| uid.as_str().to_owned()).unwrap_or_default();
        match report.outcome {
            Outcome::Applied(applied) => Ok(Done::Applied(v1::Applied {
                uid: applied.uid.as_str().to_owned(),
                resource_version: applied.resource_version.as_str().to_owned(),
                owned_digest: owned_state(&applied.owned).1,
                field_set: applied.fields.unwrap_or_default(),
                created: applied.created,
                created_namespace_uid: namespace,
                api_version: self.resource.api_version(),
                left: applied.left.into_iter().map(left).collect(),
                compared: Some(compared(applied.compared)),
            })),
            Outcome::Conflict(foreign) => Ok(Done::Failed(conflict(*foreign))),
            Outcome::NamespaceMissing => Err(failure(
                FailureClass::NamespaceMissing,
                &format!("namespace {} does not exist", self.namespace()),
            )),
            Outcome::Failed(failure) => Err(failure),
        }
    }

    /// Implicit namespaces are created only where creating them would be accepted (I16).
    fn may_create_namespace(&self) -> bool {
        let gk = GroupKind::new("", "Namespace");
        let subject = Subject { gk: &gk, plural: Some("namespaces"), namespace: "", name: self.namespace() };
        self.tools.accept.check(subject, Verb::Create).is_ok()
    }

    async fn read(&self, must_be_empty: bool) -> Result<Done, Failure> {
        let live = self.tools.writer.read(&self.resource, self.namespace(), self.name()).await?;
        let Some(live) = live else { return Ok(Done::Gone(v1::Done {})) };
        self.check_values(&live.body)?;
        if must_be_empty {
            self.check_empty(Some(&live.body)).await?;
        }
        let api_version = self.resource.api_version();
        let unreadable = |error: ObjectError| failure(FailureClass::Transient, &error.to_string());
        let metadata = RawObject::parse(&live.body).map_err(unreadable)?.metadata;
        let managed = has_marks(&metadata.annotations, &metadata.labels)
            || metadata.managed_fields.is_some_and(has_entry_of_ours);
        let body =
            without_managed_fields(&live.body, &api_version, &self.kind.gk.kind).map_err(unreadable)?;
        Ok(Done::Image(v1::Image {
            uid: live.uid.as_str().to_owned(),
            resource_version: live.resource_version.as_str().to_owned(),
            body: Bytes::from(body),
            api_version,
            managed,
        }))
    }

    /// Values of a Secret that may be written and not read: only those that lockstep wrote itself go back.
    fn check_values(&self, body: &Bytes) -> Result<(), Failure> {
        let gk = &self.kind.gk;
        let plural = Some(&*self.kind.plural);
        let subject = Subject { gk, plural, namespace: self.namespace(), name: self.name() };
        let accept = &self.tools.accept;
        let scope = accept.read_scope(subject).map_err(|said| failure(FailureClass::NotAccepted, &said))?;
        if scope == ReadScope::Everything || knows_values(body) {
            return Ok(());
        }
        accept.check(subject, Verb::Read).map_err(|said| failure(FailureClass::NotAccepted, &said))
    }

    async fn delete(&self, delete: &v1::DeleteStep) -> Result<Done, Failure> {
        if delete.uid.is_empty() || delete.resource_version.is_empty() {
            // I4: never without both preconditions.
            return Err(failure(FailureClass::Invalid, "a delete without uid and resourceVersion"));
        }
        if delete.must_be_empty {
            self.check_empty(None).await?;
        }
        let plan = DeletePlan {
            resource: self.resource.clone(),
            namespace: Arc::clone(self.namespace()),
            name: Arc::clone(self.name()),
            uid: Uid::new(&delete.uid),
            resource_version: ResourceVersion::new(&delete.resource_version),
        };
        match self.tools.writer.delete(&plan).await {
            Deleted::Done { .. } => Ok(Done::Deleted(v1::Done {})),
            Deleted::Gone => Ok(Done::Gone(v1::Done {})),
            Deleted::Stale => Err(stale()),
            Deleted::Failed(failure) => Err(failure),
        }
    }

    async fn release(&self, release: &v1::Release) -> Result<Done, Failure> {
        let plan = ReleasePlan {
            resource: self.resource.clone(),
            namespace: Arc::clone(self.namespace()),
            name: Arc::clone(self.name()),
            uid: Uid::new(&release.uid),
        };
        match self.tools.writer.release(&plan).await {
            Released::Done { resource_version } => {
                Ok(Done::Released(v1::Released { resource_version: resource_version.to_string() }))
            }
            Released::Gone => Ok(Done::Gone(v1::Done {})),
            Released::Stale => Err(stale()),
            Released::Failed(failure) => Err(failure),
        }
    }

    async fn restore(&self, restore: &v1::Restore) -> Result<Done, Failure> {
        let expect = match &restore.expect {
            Some(Anew::Absent(_)) => RestoreExpect::Absent,
            Some(Anew::Present(v1::Present { uid, resource_version }))
                if !uid.is_empty() && !resource_version.is_empty() =>
            {
                RestoreExpect::Present {
                    uid: Uid::new(uid),
                    resource_version: ResourceVersion::new(resource_version),
                }
            }
            _ => return Err(failure(FailureClass::Invalid, "a restore that does not say what it expects")),
        };
        let plan = RestorePlan {
            resource: self.resource.clone(),
            namespace: Arc::clone(self.namespace()),
            name: Arc::clone(self.name()),
            body: restore.body.clone(),
            expect,
            dry_run: restore.dry_run,
            status: restore.status,
        };
        let restored = self.tools.writer.restore(&plan).await?;
        Ok(Done::Applied(v1::Applied {
            uid: restored.uid.as_str().to_owned(),
            resource_version: restored.resource_version.as_str().to_owned(),
            created: restored.created,
            api_version: self.resource.api_version(),
            ..v1::Applied::default()
        }))
    }

    /// What did the create with that nonce leave?
    async fn retract(&self, nonce: &str) -> Result<Done, Failure> {
        let writer = &self.tools.writer;
        Ok(match writer.retract(&self.resource, self.namespace(), self.name(), nonce).await? {
            Retracted::Nothing => Done::Gone(v1::Done {}),
            Retracted::Made(uid) => {
                Done::Probed(v1::Probed { uid: uid.to_string(), ..v1::Probed::default() })
            }
            Retracted::Met(foreign) => Done::Failed(conflict(*foreign)),
        })
    }

    async fn probe(&self) -> Result<Done, Failure> {
        Ok(match self.tools.writer.probe(&self.resource, self.name()).await? {
            Some(probed) => Done::Probed(v1::Probed {
                uid: probed.uid.as_str().to_owned(),
                deleting: probed.deleting,
                created_ms: probed.created.unwrap_or(0),
                resource_version: probed.resource_version.as_str().to_owned(),
            }),
            None => Done::Gone(v1::Done {}),
        })
    }

    /// A Namespace or CustomResourceDefinition with nothing inside (I6); what cannot be listed
    /// counts as something. Other kinds hold nothing.
    async fn check_empty(&self, body: Option<&Bytes>) -> Result<(), Failure> {
        let gk = &self.kind.gk;
        if gk.is("", "Namespace") {
            return empty(&self.tools.writer.namespace_contents(self.name(), &self.tools.served).await);
        }
        if !gk.is("apiextensions.k8s.io", "CustomResourceDefinition") {
            return Ok(());
        }
        let read;
        let body = match body {
            Some(body) => body,
            None => {
                let live = self.tools.writer.read(&self.resource, self.namespace(), self.name()).await?;
                let Some(live) = live else { return Ok(()) };
                read = live.body;
                &read
            }
        };
        let defined = defined_kind(body)
            .ok_or_else(|| failure(FailureClass::Invalid, "the definition names no group and kind"))?;
        match self.tools.served.get(&defined) {
            Some(kind) => empty(&self.tools.writer.crd_contents(kind).await),
            None => Err(failure(
                FailureClass::NotServed,
                &format!("whether objects of {defined} exist is unknown: it is not served"),
            )),
        }
    }
}

fn empty(contents: &Contents) -> Result<(), Failure> {
    if contents.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = contents
        .items
        .iter()
        .take(NAMED_INSIDE)
        .map(|item| item.key.to_string())
        .chain(contents.unknown.iter().take(NAMED_INSIDE).map(|kind| format!("unknown: {kind}")))
        .collect();
    let more = if contents.truncated || contents.items.len() > NAMED_INSIDE { ", and more" } else { "" };
    Err(failure(FailureClass::Conflict, &format!("it is not empty: {}{more}", named.join(", "))))
}

/// Does the hub know every value of this Secret, as it had them written?
fn knows_values(body: &[u8]) -> bool {
    let Ok(object) = serde_json::from_slice::<Value>(body) else { return false };
    // What kubectl applied last has values of its own.
    let told = object.pointer("/metadata/annotations").and_then(|all| all.get(LAST_APPLIED)).is_some();
    !told && wrote_all(&object, "data") && wrote_all(&object, "stringData")
}

fn api_version(body: &[u8]) -> Option<String> {
    RawObject::parse(body).ok().map(|object| object.api_version.into_owned())
}

/// Which fields are not ours to write. One that this agent cannot read must not be taken for "none".
fn leave(bytes: &[u8]) -> Result<Leave, Failure> {
    if bytes.is_empty() {
        return Ok(Leave::default());
    }
    serde_json::from_slice(bytes)
        .map_err(|_| failure(FailureClass::Invalid, "the fields that are left to the target cannot be read"))
}

fn fields(bytes: &[u8]) -> Result<FieldSet, Failure> {
    if bytes.is_empty() {
        return Ok(FieldSet::default());
    }
    FieldSet::parse(bytes)
        .map_err(|_| failure(FailureClass::Invalid, "the field set of an earlier apply cannot be read"))
}

fn compared(compared: Compared) -> v1::Compared {
    let Compared { differences: Differences { named, more }, lingering } = compared;
    let lingering = if lingering.is_empty() { Vec::new() } else { lingering.canonical() };
    v1::Compared {
        differences: named.into_iter().map(difference).collect(),
        more,
        lingering: lingering.into(),
    }
}

fn difference(difference: Difference) -> v1::Difference {
    let Difference { path, kind, holders } = difference;
    let kind = match kind {
        DifferenceKind::Missing => v1::DifferenceKind::Missing,
        DifferenceKind::Different => v1::DifferenceKind::Different,
        DifferenceKind::Extra => v1::DifferenceKind::Extra,
    };
    let holder =
        |Holder { manager: name, operation }| v1::Manager { name, operation, ..v1::Manager::default() };
    v1::Difference { path, kind: kind.into(), holders: holders.into_iter().map(holder).collect() }
}

fn left(left: Left) -> v1::Left {
    let Left { path, manager: name, operation, time, reported } = left;
    let manager = v1::Manager { name, operation, time, ..v1::Manager::default() };
    v1::Left { path, manager: Some(manager), reported }
}

/// The body with the `apiVersion` and `kind` that are written here.
fn in_version(body: &Bytes, resource: &Resource) -> Result<Bytes, Failure> {
    let unreadable = |_| failure(FailureClass::Invalid, "the desired body is no JSON object");
    let api_version = resource.api_version();
    let mut members: BTreeMap<&str, &RawValue> = serde_json::from_slice(body).map_err(unreadable)?;
    let (api_version, kind) = (raw(&api_version), raw(&resource.kind));
    let (Ok(api_version), Ok(kind)) = (api_version, kind) else {
        return Err(failure(FailureClass::Invalid, "the kind's name is no JSON string"));
    };
    members.insert("apiVersion", &api_version);
    members.insert("kind", &kind);
    serde_json::to_vec(&members).map(Bytes::from).map_err(unreadable)
}

fn raw(text: &str) -> Result<Box<RawValue>, serde_json::Error> {
    serde_json::value::to_raw_value(text)
}

fn failure(class: FailureClass, message: &str) -> Failure {
    Failure::local(class, message)
}

fn stale() -> Failure {
    failure(FailureClass::Stale, "the object is another one, or in another state, than the step says")
}

fn failed(failure: Failure) -> v1::Failed {
    let Failure { class, message, fields, retry_after_ms } = failure;
    let retry_after_ms = retry_after_ms.unwrap_or(0);
    v1::Failed { retry_after_ms, paths: fields, ..v1::Failed::of(class, message) }
}

fn conflict(foreign: Foreign) -> v1::Failed {
    let Foreign { managers, causes, owners, tracker, uid, version, undo } = foreign;
    let mut message = match (causes.is_empty(), uid) {
        (true, _) => "an object that is not ours is already there".to_owned(),
        (false, Some(_)) => {
            "an object that is not ours is there, and differs from what is asked for".to_owned()
        }
        (false, None) => format!("fields are owned by {}", managers.join(", ")),
    };
    let taken_back = !matches!(undo, Undo::Failed(_));
    if let Undo::Failed(failure) = &undo {
        message.push_str(&format!("; what was merged into it could not be taken back: {failure}"));
    }
    let mut owners: Vec<v1::Manager> = owners.into_iter().map(manager).collect();
    if owners.is_empty() {
        owners = managers.into_iter().map(|name| v1::Manager { name, ..v1::Manager::default() }).collect();
    }
    // What could not be taken back is to be tried again.
    let class = match &undo {
        Undo::Failed(failure) => failure.class,
        Undo::Done | Undo::NotNeeded => FailureClass::Conflict,
    };
    v1::Failed {
        class: class.code().to_owned(),
        message,
        retry_after_ms: 0,
        managers: owners,
        paths: causes.into_iter().map(|cause| cause.path).collect(),
        // A merge that is still there is told of by the watch.
        resource_version: version
            .filter(|_| taken_back)
            .map(|version| version.to_string())
            .unwrap_or_default(),
        tracker: tracker.map(|Tracker { tool, mark }| v1::Tracker { tool, mark }),
    }
}
