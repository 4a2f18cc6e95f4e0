//! PATCH: server-side apply, JSON patch, JSON merge patch.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::http::Answer;
use super::kinds::text;
use super::server::{ApiServer, Call};
use super::smd::managed::{Refused, applied, updated};
use super::status::{About, ApiError, Wrong};
use super::store::Stored;

/// Media type of server-side apply.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";

impl ApiServer {
    pub(crate) fn patch(&mut self, call: &Call<'_>) -> Result<Answer, ApiError> {
        let media = call.request.content_type.split(';').next().unwrap_or_default().trim();
        if !matches!(media, APPLY | JSON_PATCH | MERGE_PATCH) {
            return Err(ApiError::media_type("415: Unsupported Media Type"));
        }
        self.check_patch_options(call, media)?;
        let live = self.store.table(&call.kind.table()).get(&call.key()).cloned();
        if media == APPLY {
            return self.apply(call, live.as_ref());
        }
        let live = live.ok_or_else(|| ApiError::not_found(call.about()))?;
        let old = self.seen(call, &live);
        let mut new = if media == MERGE_PATCH {
            let patch = super::write::parse(&call.request.body)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
            let mut new = old.clone();
            merge(&mut new, &patch);
            new
        } else {
            json_patch(call, &old)?
        };
        // An empty list clears the entries, too, but is dropped on the way like any other.
        if let Some(Value::Array(entries)) = new.pointer_mut("/metadata/managedFields")
            && entries.is_empty()
        {
            entries.push(Value::Object(Map::new()));
        }
        call.complete(&mut new).map_err(|why| {
            let wrong = Wrong::invalid("patch", &Value::from("..."), &why);
            ApiError::invalid(About { group: "", kind: "", name: "" }, &[wrong])
        })?;
        let manager = call.request.manager(&call.parameters);
        updated(call.kind.typed(&call.kind.api_version()), Some(&old), &mut new, &manager, &call.time());
        call.check_name(&new)?;
        self.replace(call, &live, new)
    }

    fn check_patch_options(&self, call: &Call<'_>, media: &str) -> Result<(), ApiError> {
        let mut wrongs = Vec::new();
        if media == APPLY && call.parameters.get("fieldManager").is_empty() {
            wrongs.push(Wrong::required("fieldManager", "is required for apply patch"));
        }
        if media != APPLY && call.parameters.has("force") {
            wrongs.push(Wrong::forbidden("force", "may not be specified for non-apply patch"));
        }
        if !wrongs.is_empty() {
            let about = About { group: "meta.k8s.io", kind: "PatchOptions", name: "" };
            return Err(ApiError::invalid(about, &wrongs));
        }
        call.check_options("PatchOptions")
    }

    fn apply(&mut self, call: &Call<'_>, live: Option<&Arc<Stored>>) -> Result<Answer, ApiError> {
        let config = super::yaml::read(&call.request.body)
            .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
        let expected = call.kind.api_version();
        let specified = text(&config["apiVersion"]);
        if specified != expected {
            return Err(ApiError::bad_request(format!(
                "Incorrect version specified in apply patch. Specified patch version: {specified}, expected: {expected}"
            )));
        }
        if config["metadata"].get("managedFields").is_some_and(|fields| !fields.is_null()) {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        if config["kind"] != call.kind.kind.as_str() {
            return Err(ApiError::internal("failed to merge config: expected objects of the same type"));
        }
        let old = live.map(|live| self.seen(call, live));
        let (manager, force) = (call.parameters.get("fieldManager"), call.parameters.is_true("force"));
        let of = call.kind.typed(&expected);
        let mut new = applied(of, old.as_ref(), &config, manager, force, &call.time()).map_err(
            |refused| match refused {
                Refused::Failed(why) => ApiError::internal(why),
                Refused::Conflicts(conflicts) => {
                    let conflicts: Vec<_> = conflicts.into_iter().map(|c| (c.manager, c.field)).collect();
                    ApiError::apply_conflicts(&conflicts)
                }
            },
        )?;
        call.complete(&mut new).map_err(|why| {
            ApiError::internal(format!(
                "failed to convert new object to proper version: unable to convert unstructured object to {}/{}, Kind={}: {why}",
                call.kind.group, call.kind.version, call.kind.kind
            ))
        })?;
        let uid = text(&config["metadata"]["uid"]);
        if live.is_none() && !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(ApiError::conflict(call.about(), &why));
        }
        call.check_name(&new)?;
        match live {
            None => self.insert(call, new, true),
            Some(live) => self.replace(call, live, new),
        }
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(members) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

fn json_patch(call: &Call<'_>, old: &Value) -> Result<Value, ApiError> {
    let operations: Value = serde_json::from_slice(&call.request.body)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    let Some(operations) = operations.as_array() else {
        return Err(ApiError::bad_request(
            "json: cannot unmarshal object into Go value of type jsonpatch.Patch",
        ));
    };
    let mut new = old.clone();
    for operation in operations {
        step(&mut new, operation).ok_or_else(ApiError::rejected)?;
    }
    Ok(new)
}

/// One operation of RFC 6902; nothing when it cannot be done.
fn step(target: &mut Value, operation: &Value) -> Option<()> {
    let path = operation["path"].as_str()?;
    let value = operation.get("value");
    match operation["op"].as_str()? {
        "test" => (target.pointer(path).unwrap_or(&Value::Null) == value?).then_some(()),
        "add" => put(target, path, value?.clone(), false),
        "replace" => put(target, path, value?.clone(), true),
        "remove" => drop_at(target, path).map(drop),
        "move" => {
            let moved = drop_at(target, operation["from"].as_str()?)?;
            put(target, path, moved, false)
        }
        "copy" => {
            let copied = target.pointer(operation["from"].as_str()?)?.clone();
            put(target, path, copied, false)
        }
        _ => None,
    }
}

/// A pointer's parent and the last step, unescaped.
fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn put(target: &mut Value, path: &str, value: Value, there: bool) -> Option<()> {
    if path.is_empty() {
        *target = value;
        return Some(());
    }
    let (parent, last) = split(path)?;
    match target.pointer_mut(parent)? {
        Value::Object(members) => {
            if there && !members.contains_key(&last) {
                return None;
            }
            members.insert(last, value);
        }
        Value::Array(items) if !there => {
            let index = if last == "-" { items.len() } else { last.parse().ok()? };
            if index > items.len() {
                return None;
            }
            items.insert(index, value);
        }
        Value::Array(items) => *items.get_mut(last.parse::<usize>().ok()?)? = value,
        _ => return None,
    }
    Some(())
}

fn drop_at(target: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = split(path)?;
    match target.pointer_mut(parent)? {
        Value::Object(members) => members.remove(&last),
        Value::Array(items) => {
            let index: usize = last.parse().ok()?;
            (index < items.len()).then(|| items.remove(index))
        }
        _ => None,
    }
}
