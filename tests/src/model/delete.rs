//! Deletes: preconditions, finalizers, grace, what is propagated.

use serde_json::{Value, json};

use super::http::{Answer, Target};
use super::kinds::text;
use super::server::{ApiServer, Call, json_answer, success};
use super::status::{About, ApiError};
use super::time::rfc3339;

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// Of a Pod on a node, unless it says otherwise.
const GRACE_S: i64 = 30;
/// What holds claims and volumes while they are in use.
pub(crate) const PROTECTION: [(&str, &str); 2] = [
    ("PersistentVolumeClaim", "kubernetes.io/pvc-protection"),
    ("PersistentVolume", "kubernetes.io/pv-protection"),
];
pub(crate) const ORPHAN: &str = "orphan";
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Holds a definition until its objects are gone.
pub(crate) const CRD_CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// `DeleteOptions`, from the body or the query.
#[derive(Debug, Default)]
struct Options {
    uid: Option<String>,
    resource_version: Option<String>,
    propagation: Option<String>,
    grace_s: Option<i64>,
    dry_run: bool,
}

impl Options {
    fn of(call: &Call<'_>) -> Result<Self, ApiError> {
        let body = if call.request.body.is_empty() {
            json!({})
        } else {
            super::write::parse(&call.request.body).map_err(|error| {
                ApiError::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
            })?
        };
        let member = |value: &Value| value.as_str().map(str::to_owned);
        let query = |name: &str| Some(call.parameters.get(name)).filter(|text| !text.is_empty());
        let mut propagation =
            member(&body["propagationPolicy"]).or_else(|| query("propagationPolicy").map(str::to_owned));
        if body["orphanDependents"] == true {
            propagation = Some("Orphan".to_owned());
        }
        Ok(Self {
            uid: member(&body["preconditions"]["uid"]),
            resource_version: member(&body["preconditions"]["resourceVersion"]),
            propagation,
            grace_s: body["gracePeriodSeconds"]
                .as_i64()
                .or_else(|| query("gracePeriodSeconds")?.parse().ok()),
            dry_run: call.dry_run() || body["dryRun"].as_array().is_some_and(|list| !list.is_empty()),
        })
    }
}

impl ApiServer {
    pub(crate) fn delete(&mut self, call: &Call<'_>) -> Result<Answer, ApiError> {
        let options = Options::of(call)?;
        let table = call.kind.table();
        let Some(live) = self.store.table(&table).get(&call.key()).cloned() else {
            return Err(ApiError::not_found(call.about()));
        };
        let metadata = &live.value["metadata"];
        check(call, &options, metadata, live.revision)?;
        let name = call.target.name.as_str();
        if call.kind.is("", "Namespace") && IMMORTAL.contains(&name) {
            return Err(ApiError::forbidden(call.about(), "this namespace may not be deleted"));
        }
        if !metadata["deletionGracePeriodSeconds"].is_null() || is_terminating(call, &live.value) {
            // Under way already; a shorter grace period may still come into force.
            if metadata["finalizers"].as_array().is_none_or(Vec::is_empty) && options.grace_s == Some(0) {
                self.remove_unless(&options, &table, call);
                return Ok(success(call, &metadata["uid"]));
            }
            return Ok(json_answer(200, self.shown(&call.kind, &live)));
        }
        let mut object = self.seen(call, &live);
        let grace_s = grace(call, &object, &options);
        let finalizers = finalizers(call, &object, &options);
        let held = !finalizers.is_empty();
        if !held && grace_s == 0 && !has_own_end(call) {
            self.remove_unless(&options, &table, call);
            return Ok(if call.kind.delete_answers_object() {
                json_answer(200, self.shown(&call.kind, &live))
            } else {
                success(call, &metadata["uid"])
            });
        }
        mark(call, &mut object, &finalizers, grace_s);
        if options.dry_run {
            return Ok(json_answer(200, object.to_string()));
        }
        let stored = self.store.put(&table, call.key(), object);
        self.written(&table, &stored.value);
        Ok(json_answer(200, self.shown(&call.kind, &stored)))
    }

    fn remove_unless(&mut self, options: &Options, table: &str, call: &Call<'_>) {
        if !options.dry_run {
            self.remove(table, &call.key());
        }
    }

    pub(crate) fn delete_all(&mut self, call: &Call<'_>) -> Result<Answer, ApiError> {
        let listed = self.list(call)?;
        let list: Value = serde_json::from_slice(&listed.body).unwrap_or_default();
        for item in list["items"].as_array().into_iter().flatten() {
            let target = Target {
                namespace: text(&item["metadata"]["namespace"]),
                name: text(&item["metadata"]["name"]),
                ..call.target.clone()
            };
            let one = Call {
                now: call.now,
                request: call.request,
                parameters: call.request.parameters(),
                target,
                kind: std::sync::Arc::clone(&call.kind),
            };
            self.delete(&one)?;
        }
        Ok(listed)
    }
}

fn check(call: &Call<'_>, options: &Options, metadata: &Value, revision: u64) -> Result<(), ApiError> {
    let about = About { kind: &call.kind.kind, ..call.about() };
    let uid = text(&metadata["uid"]);
    if let Some(wanted) = options.uid.as_ref().filter(|wanted| **wanted != uid) {
        if has_own_end(call) {
            let why =
                format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
            return Err(ApiError::conflict(call.about(), &why));
        }
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(about, &why));
    }
    let version = revision.to_string();
    if let Some(wanted) = options.resource_version.as_ref().filter(|wanted| **wanted != version) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        );
        return Err(ApiError::conflict(about, &why));
    }
    Ok(())
}

/// Namespaces and definitions go in steps of their own.
fn has_own_end(call: &Call<'_>) -> bool {
    call.kind.is("", "Namespace") || call.kind.is("apiextensions.k8s.io", "CustomResourceDefinition")
}

fn is_terminating(call: &Call<'_>, object: &Value) -> bool {
    has_own_end(call) && !object["metadata"]["deletionTimestamp"].is_null()
}

/// Seconds that the object is left; only Pods on nodes have any.
fn grace(call: &Call<'_>, object: &Value, options: &Options) -> i64 {
    if !call.kind.is("", "Pod") || text(&object["spec"]["nodeName"]).is_empty() {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(GRACE_S);
    options.grace_s.unwrap_or(own)
}

/// The finalizers that a deleted object has.
fn finalizers(call: &Call<'_>, object: &Value, options: &Options) -> Vec<Value> {
    let mut finalizers: Vec<Value> = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if has_own_end(call) {
        let held = finalizers.iter().any(|finalizer| finalizer == CRD_CLEANUP);
        if call.kind.kind == "CustomResourceDefinition" && !held {
            finalizers.push(CRD_CLEANUP.into());
        }
        return finalizers;
    }
    let by_default = if call.kind.is("batch", "Job") { "Orphan" } else { "Background" };
    let policy = options.propagation.as_deref().unwrap_or(by_default);
    finalizers.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
    match policy {
        "Orphan" => finalizers.push(ORPHAN.into()),
        "Foreground" => finalizers.push(FOREGROUND.into()),
        _ => {}
    }
    finalizers
}

/// The object as it is while it is being deleted.
fn mark(call: &Call<'_>, object: &mut Value, finalizers: &[Value], grace_s: i64) {
    let own = has_own_end(call);
    let generation = object["metadata"]["generation"].as_i64();
    let metadata = &mut object["metadata"];
    metadata["deletionTimestamp"] = rfc3339(call.now.saturating_add(grace_s * 1_000)).into();
    if !finalizers.is_empty() {
        metadata["finalizers"] = finalizers.into();
    }
    if !own {
        metadata["deletionGracePeriodSeconds"] = grace_s.into();
        if let Some(generation) = generation {
            metadata["generation"] = (generation + 1).into();
        }
    }
    if call.kind.is("", "Namespace") {
        object["status"]["phase"] = "Terminating".into();
    } else if own {
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        super::crd::set_condition(
            object,
            "Terminating",
            "InstanceDeletionPending",
            message,
            &rfc3339(call.now),
        );
    }
}
