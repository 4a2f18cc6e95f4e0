//! What servers do with objects of certain kinds before they store them.

use serde_json::{Map, Value, json};

use super::delete::PROTECTION;
use super::kinds::text;
use super::server::Call;
use super::write::Scope;

/// An annotation of DaemonSets.
pub(crate) const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// A Job knows its Pods by labels of its own, unless it brings a selector.
pub(crate) fn own_pods(object: &mut Value) {
    if object["spec"]["manualSelector"] == true {
        return;
    }
    let metadata = &object["metadata"];
    let (uid, name) = (metadata["uid"].clone(), metadata["name"].clone());
    let unlabelled = metadata["labels"].as_object().is_none_or(Map::is_empty);
    let labels = &mut object["spec"]["template"]["metadata"]["labels"];
    labels["controller-uid"] = uid.clone();
    labels["job-name"] = name;
    let labels = labels.clone();
    object["spec"]["selector"] = json!({"matchLabels": {"controller-uid": uid}});
    if unlabelled {
        object["metadata"]["labels"] = labels;
    }
}

/// Claims and volumes are held while they are in use.
pub(crate) fn protect(kind: &str, object: &mut Value) {
    let Some((_, own)) = PROTECTION.iter().find(|(name, _)| *name == kind) else { return };
    let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == own) {
        finalizers.push((*own).into());
    }
    object["metadata"]["finalizers"] = finalizers.into();
}

/// Was an update the last one: deleted, and the last finalizer is gone?
pub(crate) fn done_with(old: &Value, new: &Value) -> bool {
    let empty = |value: &Value| value.as_array().is_none_or(Vec::is_empty);
    !old["metadata"]["deletionTimestamp"].is_null()
        && empty(&new["metadata"]["finalizers"])
        && old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && (new["kind"] != "Namespace" || empty(&new["spec"]["finalizers"]))
}

pub(crate) fn set_or_remove(object: &mut Value, name: &str, value: Option<Value>) {
    let Some(members) = object.as_object_mut() else { return };
    match value {
        Some(value) => members.insert(name.to_owned(), value),
        None => members.remove(name),
    };
}

/// What a client cannot change is as it was.
pub(crate) fn before_update(call: &Call<'_>, old: &Value, new: &mut Value) {
    if call.scope() == Scope::Status {
        if call.kind.custom.is_none() {
            // Servers let metadata through here.
            set_or_remove(new, "spec", old.get("spec").cloned());
            keep_metadata(old, new);
            return;
        }
        // Everything but the status is as it was; the owners of fields are new.
        let managed = new["metadata"].get("managedFields").cloned();
        let version = new["metadata"].get("resourceVersion").cloned();
        let status = new.get("status").cloned();
        *new = old.clone();
        set_or_remove(new, "status", status);
        set_or_remove(&mut new["metadata"], "managedFields", managed);
        set_or_remove(&mut new["metadata"], "resourceVersion", version);
        return;
    }
    if call.kind.status {
        set_or_remove(new, "status", old.get("status").cloned());
    }
    if call.kind.is("", "Namespace") {
        let spec = old["spec"].clone();
        if call.target.subresource != "finalize" {
            new["spec"] = spec;
        }
    }
    if call.kind.is("", "Service") {
        // What was allocated stays where nothing else is asked for.
        for name in ["clusterIP", "clusterIPs"] {
            if new["spec"].get(name).is_none_or(|value| value.is_null() || value == "") {
                set_or_remove(&mut new["spec"], name, old["spec"].get(name).cloned());
            }
        }
    }
    keep_metadata(old, new);
    if call.kind.is("apps", "DaemonSet") && old["spec"]["template"] != new["spec"]["template"] {
        let count = text(&old["metadata"]["annotations"][TEMPLATE_GENERATION]).parse().unwrap_or(0_u64) + 1;
        new["metadata"]["annotations"][TEMPLATE_GENERATION] = count.to_string().into();
    }
    if call.kind.has_generation() && changed(call, old, new) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        new["metadata"]["generation"] = generation.into();
    }
}

/// Metadata that servers write stay as they were.
fn keep_metadata(old: &Value, new: &mut Value) {
    let before = &old["metadata"];
    if let Some(metadata) = new["metadata"].as_object_mut() {
        for name in ["uid", "namespace"] {
            if metadata.get(name).is_none_or(|value| value == "" || value.is_null())
                && let Some(value) = before.get(name)
            {
                metadata.insert(name.to_owned(), value.clone());
            }
        }
        for name in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
            match before.get(name) {
                Some(value) => metadata.insert(name.to_owned(), value.clone()),
                None => metadata.remove(name),
            };
        }
    }
}

/// Did anything change that a generation counts?
fn changed(call: &Call<'_>, old: &Value, new: &Value) -> bool {
    let empty = Map::new();
    let members = |value: &Value| -> Map<String, Value> {
        let mut members = value.as_object().unwrap_or(&empty).clone();
        members.remove("metadata");
        if call.kind.status || call.kind.custom.is_none() {
            members.remove("status");
        }
        members
    };
    members(old) != members(new)
}
