//! Creates and updates: what every write goes through, whatever its form.

use std::sync::Arc;

use serde_json::{Value, json};

use super::complete::complete;
use super::http::{Answer, Target};
use super::kinds::{bare, text};
use super::server::{ApiServer, Call, json_answer};
use super::smd::managed::{take, updated};
use super::smd::typed;
use super::status::{About, ApiError, Wrong};
use super::store::Stored;
use super::strategy::{TEMPLATE_GENERATION, before_update, done_with, own_pods, protect, set_or_remove};
use super::validate::{validate_change, validate_object};

/// Largest object that etcd takes.
const OBJECT_LIMIT: usize = 1_572_864;
/// What API servers add to a name prefix.
const NAME_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// What an update may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Main,
    Status,
}

impl Call<'_> {
    pub(crate) fn scope(&self) -> Scope {
        if self.target.subresource == "status" { Scope::Status } else { Scope::Main }
    }

    /// Options that are wrong in any write.
    pub(crate) fn check_options(&self, options: &str) -> Result<(), ApiError> {
        let unknown: Vec<&String> = self
            .parameters
            .all("dryRun")
            .iter()
            .filter(|value| *value != "All" && !value.is_empty())
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let wrong = Wrong {
            reason: "FieldValueNotSupported",
            field: "dryRun".to_owned(),
            message: format!("Unsupported value: []string{unknown:?}: supported values: \"All\""),
        };
        Err(ApiError::invalid(About { group: "meta.k8s.io", kind: options, name: "" }, &[wrong]))
    }

    /// The name in the body must be that of the URL, and so must the namespace.
    pub(crate) fn check_name(&self, object: &Value) -> Result<(), ApiError> {
        let metadata = &object["metadata"];
        let (name, namespace) = (text(&metadata["name"]), text(&metadata["namespace"]));
        if name.is_empty() {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({} based on URL) was undeterminable: name must be provided",
                self.target.name
            )));
        }
        if name != self.target.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                self.target.name
            )));
        }
        if !namespace.is_empty() && namespace != self.target.namespace && self.kind.namespaced {
            return Err(ApiError::bad_request(format!(
                "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
                self.target.namespace
            )));
        }
        Ok(())
    }

    /// The object in the body of a POST or PUT, completed.
    fn decode(&self) -> Result<Value, ApiError> {
        let kind = &self.kind.kind;
        let media = self.request.content_type.split(';').next().unwrap_or_default().trim();
        if !matches!(media, "" | "application/json" | "application/yaml") {
            return Err(ApiError::media_type(
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml",
            ));
        }
        let mut object = parse(&self.request.body).map_err(|error| {
            ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): {error}"
            ))
        })?;
        let api_version = self.kind.api_version();
        let named = (text(&object["apiVersion"]), text(&object["kind"]));
        if named.0.is_empty() || named.1.is_empty() {
            if self.kind.custom.is_some() {
                return Err(ApiError::bad_request(format!(
                    "Object 'Kind' is missing in the body, expected {kind}"
                )));
            }
        } else if (named.0.as_str(), &named.1) != (api_version.as_str(), kind) {
            return Err(ApiError::bad_request(format!(
                "{} in version {:?} cannot be handled as a {kind}",
                named.1, named.0
            )));
        }
        object["apiVersion"] = api_version.into();
        object["kind"] = kind.as_str().into();
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        self.complete(&mut object).map_err(|why| {
            ApiError::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {kind}: {why}",
                self.kind.version
            ))
        })?;
        Ok(object)
    }

    /// Completes an object, and finds values that are not of their type.
    pub(crate) fn complete(&self, object: &mut Value) -> Result<(), String> {
        complete(&self.kind, object)?;
        if self.kind.custom.is_none() {
            let managed = take(object);
            let errors = typed::validate(&self.kind.schema, self.kind.id, object);
            // Only apply minds these.
            let wrong = errors
                .into_iter()
                .find(|e| !e.contains("duplicate entries") && !e.contains("associative list"));
            if let Some(wrong) = wrong {
                return Err(wrong);
            }
            if let Some(managed) = managed {
                object["metadata"]["managedFields"] = managed;
            }
        }
        Ok(())
    }
}

pub(crate) fn parse(body: &[u8]) -> Result<Value, String> {
    let parsed = serde_json::from_slice(body)
        .or_else(|json| serde_saphyr::from_slice::<Value>(body).map_err(|_| json.to_string()))?;
    match parsed {
        Value::Object(_) => Ok(parsed),
        _ => Err("no object".to_owned()),
    }
}

impl ApiServer {
    pub(crate) fn create(&mut self, call: &Call<'_>) -> Result<Answer, ApiError> {
        call.check_options("CreateOptions")?;
        let mut object = call.decode()?;
        let manager = call.request.manager(&call.parameters);
        updated(call.kind.typed(&call.kind.api_version()), None, &mut object, &manager, &call.time());
        let sent = text(&object["metadata"]["namespace"]);
        if call.kind.namespaced && !sent.is_empty() && sent != call.target.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        self.insert(call, object, false)
    }

    /// Makes an object that is not there.
    pub(crate) fn insert(
        &mut self,
        call: &Call<'_>,
        mut object: Value,
        applied: bool,
    ) -> Result<Answer, ApiError> {
        let mut target = call.target.clone();
        let prefix = text(&object["metadata"]["generateName"]);
        if text(&object["metadata"]["name"]).is_empty() && !prefix.is_empty() {
            let name = format!("{prefix}{}", self.suffix());
            object["metadata"]["name"] = name.into();
        }
        if applied {
            object["metadata"]["name"] = target.name.as_str().into();
        }
        target.name = text(&object["metadata"]["name"]);
        let about = About { group: &target.group, kind: &target.plural, name: &target.name };
        self.admit(&target, about)?;
        if applied {
            self.authorized(&call.request.user, "create", &call.target)?;
        }
        self.before_create(call, &mut object);
        let wrongs = validate_object(&call.kind, &object);
        if !wrongs.is_empty() {
            let about = About { group: &target.group, kind: &call.kind.kind, name: &target.name };
            return Err(ApiError::invalid(about, &wrongs));
        }
        if let Some(found) =
            self.store.table(&call.kind.table()).get(&(target.namespace.clone(), target.name.clone()))
        {
            return Err(ApiError::exists(about, !found.value["metadata"]["deletionTimestamp"].is_null()));
        }
        let version =
            object["metadata"].as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
        if version.is_some() && !applied {
            return Err(ApiError::internal("resourceVersion should not be set on objects to be created"));
        }
        too_large(&object)?;
        if call.dry_run() {
            return Ok(json_answer(201, object.to_string()));
        }
        let stored = self.commit(call, (target.namespace, target.name), object);
        Ok(json_answer(201, self.shown(&call.kind, &stored)))
    }

    /// Namespaces that are missing or going away take nothing new.
    fn admit(&self, target: &Target, about: About<'_>) -> Result<(), ApiError> {
        if target.namespace.is_empty() {
            return Ok(());
        }
        let namespaces = self.store.table("/namespaces");
        let Some(namespace) = namespaces.get(&(String::new(), target.namespace.clone())) else {
            return Err(ApiError::not_found(About {
                group: "",
                kind: "namespaces",
                name: &target.namespace,
            }));
        };
        if namespace.value["status"]["phase"] == "Terminating" {
            return Err(ApiError::terminating(about, &target.namespace));
        }
        Ok(())
    }

    fn suffix(&mut self) -> String {
        let mut draw = self.draw();
        let letters = (0..5).map(|_| {
            let index = usize::try_from(draw % 27).unwrap_or(0);
            draw /= 27;
            NAME_LETTERS.get(index).copied().map_or('x', char::from)
        });
        letters.collect()
    }

    fn before_create(&mut self, call: &Call<'_>, object: &mut Value) {
        let (uid, now) = (self.uid(), call.time());
        let kind = &call.kind;
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for name in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "namespace"] {
                metadata.remove(name);
            }
            metadata.insert("uid".to_owned(), uid.into());
            metadata.insert("creationTimestamp".to_owned(), now.into());
            if kind.namespaced {
                metadata.insert("namespace".to_owned(), call.target.namespace.as_str().into());
            }
            if kind.has_generation() {
                metadata.insert("generation".to_owned(), 1.into());
            }
        }
        if kind.status {
            let status = kind.zero.get("status").filter(|_| kind.custom.is_none());
            set_or_remove(object, "status", status.cloned());
        }
        match (kind.custom.is_some(), kind.kind.as_str()) {
            (false, "Namespace") => {
                object["status"] = json!({"phase": "Active"});
                object["spec"]["finalizers"] = json!(["kubernetes"]);
            }
            (false, name @ ("PersistentVolumeClaim" | "PersistentVolume")) => {
                object["status"] = json!({"phase": "Pending"});
                protect(name, object);
            }
            (false, "DaemonSet") => object["metadata"]["annotations"][TEMPLATE_GENERATION] = "1".into(),
            (false, "Service") => self.allocate(object),
            (false, "Job") => own_pods(object),
            (false, "CustomResourceDefinition") => {
                object["status"] = json!({
                    "conditions": null, "acceptedNames": {"plural": "", "kind": ""},
                    "storedVersions": super::crd::stored_versions(object),
                });
            }
            _ => {}
        }
    }

    /// A Service gets an address.
    fn allocate(&mut self, object: &mut Value) {
        let spec = &mut object["spec"];
        if spec["type"] == "ExternalName" {
            return;
        }
        let asked = text(&spec["clusterIP"]);
        let address = if asked.is_empty() {
            let draw = self.draw();
            format!("10.0.{}.{}", draw % 254 + 1, draw / 254 % 254 + 1)
        } else {
            asked
        };
        spec["clusterIP"] = address.as_str().into();
        spec["clusterIPs"] = json!([address]);
    }

    pub(crate) fn update(&mut self, call: &Call<'_>) -> Result<Answer, ApiError> {
        call.check_options("UpdateOptions")?;
        let mut object = call.decode()?;
        call.check_name(&object)?;
        let manager = call.request.manager(&call.parameters);
        let table = call.kind.table();
        let Some(live) = self.store.table(&table).get(&call.key()).cloned() else {
            if call.kind.created_by_put() && call.scope() == Scope::Main {
                updated(call.kind.typed(&call.kind.api_version()), None, &mut object, &manager, &call.time());
                return self.insert(call, object, true);
            }
            return Err(ApiError::not_found(call.about()));
        };
        let (uid, sent) = (text(&live.value["metadata"]["uid"]), text(&object["metadata"]["uid"]));
        if !sent.is_empty() && sent != uid {
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: {table}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {sent}, UID in object meta: {uid}"
            );
            return Err(ApiError::conflict(call.about(), &why));
        }
        let (version, old) = (call.kind.api_version(), self.seen(call, &live));
        updated(call.kind.typed(&version), Some(&old), &mut object, &manager, &call.time());
        self.replace(call, &live, object)
    }

    /// An object as a tree in the version that a call asks for.
    pub(crate) fn seen(&self, call: &Call<'_>, live: &Stored) -> Value {
        let api_version = call.kind.api_version();
        if live.value["apiVersion"] == api_version.as_str() {
            return live.value.clone();
        }
        serde_json::from_slice(&self.shown(&call.kind, live)).unwrap_or_else(|_| live.value.clone())
    }

    /// Puts a new state in the place of an old one.
    pub(crate) fn replace(
        &mut self,
        call: &Call<'_>,
        live: &Arc<Stored>,
        mut new: Value,
    ) -> Result<Answer, ApiError> {
        let old = self.seen(call, live);
        let about = call.about();
        let sent = text(&new["metadata"]["resourceVersion"]);
        let current = live.revision.to_string();
        if sent.is_empty() {
            if !call.kind.updates_unversioned() {
                let wrong = Wrong {
                    message: "Invalid value: 0x0: must be specified for an update".to_owned(),
                    ..Wrong::invalid("metadata.resourceVersion", &json!(0), "")
                };
                return Err(ApiError::invalid(about, &[wrong]));
            }
        } else if sent != current {
            return Err(ApiError::stale(about));
        }
        before_update(call, &old, &mut new);
        let mut wrongs = validate_change(&call.kind, &old, &new);
        wrongs.extend(validate_object(&call.kind, &new));
        if !wrongs.is_empty() {
            return Err(ApiError::invalid(call.about_kind(), &wrongs));
        }
        too_large(&new)?;
        new["metadata"]["resourceVersion"] = current.into();
        if done_with(&old, &new) {
            if !call.dry_run() {
                self.remove(&call.kind.table(), &call.key());
            }
            return Ok(json_answer(200, new.to_string()));
        }
        if call.dry_run() || new == old {
            return Ok(json_answer(200, new.to_string()));
        }
        let stored = self.commit(call, call.key(), new);
        Ok(json_answer(200, self.shown(&call.kind, &stored)))
    }

    fn commit(&mut self, call: &Call<'_>, key: (String, String), object: Value) -> Arc<Stored> {
        let stored = self.store.put(&call.kind.table(), key, object);
        self.written(&call.kind.table(), &stored.value);
        stored
    }
}

fn too_large(object: &Value) -> Result<(), ApiError> {
    if object.to_string().len() > OBJECT_LIMIT {
        return Err(ApiError::internal("etcdserver: request is too large"));
    }
    Ok(())
}

/// An object with apiVersion, kind, name and namespace.
pub(crate) fn named(api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    let mut object = bare(api_version, kind);
    object["metadata"]["name"] = name.into();
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}
