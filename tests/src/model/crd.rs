//! Custom resources: from a definition to kinds, and what their schema makes of an object.

use serde_json::{Map, Value, json};
use std::sync::Arc;

use super::kinds::{BUILTIN, Kind, bare, text};
use super::smd::schema::{Builder, MapType, Scalar, TypeId, strings};
use super::status::Wrong;

/// Before this version one `x-kubernetes-int-or-string` anywhere makes the server forget all types of a definition
/// ("has invalid property: anyOf").
const INT_OR_STRING_WORKS: (u32, u32) = (1, 21);
/// Verbs of custom resources, in the order of discovery.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
/// Those that are left while the definition is being deleted.
const VERBS_TERMINATING: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];

/// A condition of a definition.
pub(crate) fn is(definition: &Value, condition: &str) -> bool {
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == condition && c["status"] == "True")
}

/// The kinds of a definition, one per served version.
pub(crate) fn kinds(definition: &Value, server: (u32, u32)) -> Vec<Kind> {
    let spec = &definition["spec"];
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let forgotten = server < INT_OR_STRING_WORKS && versions.iter().any(|v| mentions(&v["schema"]));
    let terminating = is(definition, "Terminating");
    let served = versions.iter().filter(|version| version["served"] == true);
    served
        .map(|version| {
            let structural = &version["schema"]["openAPIV3Schema"];
            let mut builder = BUILTIN.builder();
            let id = if forgotten { builder.deduced() } else { root(&mut builder, structural) };
            let (group, name) = (text(&spec["group"]), text(&version["name"]));
            let kind = text(&spec["names"]["kind"]);
            let verbs: &[&str] = if terminating { &VERBS_TERMINATING } else { &VERBS };
            let mut zero = bare(&format!("{group}/{name}"), &kind);
            if let Some(members) = zero.as_object_mut() {
                members.remove("metadata");
            }
            Kind {
                group,
                version: name,
                plural: text(&spec["names"]["plural"]),
                namespaced: spec["scope"] == "Namespaced",
                verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
                schema: Arc::new(builder.finish()),
                id,
                zero,
                kind,
                status: version["subresources"]["status"].is_object(),
                custom: Some(structural.clone()),
                terminating,
            }
        })
        .collect()
}

/// Is there an int-or-string in it?
fn mentions(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => {
            members.get("x-kubernetes-int-or-string").is_some_and(|v| v == true)
                || members.values().any(mentions)
        }
        Value::Array(items) => items.iter().any(mentions),
        _ => false,
    }
}

fn root(builder: &mut Builder<'_>, schema: &Value) -> TypeId {
    let metadata = builder.named("meta.v1.ObjectMeta");
    let text = builder.scalar(Scalar::Text);
    let mut map = structure(builder, schema);
    for (name, id) in [("apiVersion", text), ("kind", text), ("metadata", metadata)] {
        map.fields.insert(name.to_owned(), id);
    }
    builder.map(map)
}

fn structure(builder: &mut Builder<'_>, schema: &Value) -> MapType {
    let mut map = MapType { atomic: schema["x-kubernetes-map-type"] == "atomic", ..MapType::default() };
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let id = typed(builder, property);
        map.fields.insert(name.clone(), id);
        if let Some(default) = property.get("default") {
            map.key_defaults.insert(name.clone(), default.clone());
        }
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        map.other = Some(builder.deduced());
    }
    map
}

fn typed(builder: &mut Builder<'_>, schema: &Value) -> TypeId {
    match schema["type"].as_str() {
        Some("string") => match schema["format"].as_str() {
            None => builder.scalar(Scalar::Text),
            Some("byte") => builder.scalar(Scalar::Bytes),
            Some(_) => builder.scalar(Scalar::Any),
        },
        Some("integer" | "number") => builder.scalar(Scalar::Number),
        Some("boolean") => builder.scalar(Scalar::Bool),
        Some("array") => {
            let item = typed(builder, &schema["items"]);
            let keys = strings(&schema["x-kubernetes-list-map-keys"]);
            let atomic = !matches!(schema["x-kubernetes-list-type"].as_str(), Some("set" | "map"));
            builder.list(item, atomic, keys)
        }
        Some("object") if schema["properties"].is_object() => {
            let map = structure(builder, schema);
            builder.map(map)
        }
        Some("object") => {
            let item = &schema["additionalProperties"];
            let other = Some(if item.is_object() { typed(builder, item) } else { builder.untyped() });
            let atomic = schema["x-kubernetes-map-type"] == "atomic";
            builder.map(MapType { other, atomic, ..MapType::default() })
        }
        _ if schema["properties"].is_object() => {
            let map = structure(builder, schema);
            builder.map(map)
        }
        _ => builder.untyped(),
    }
}

/// Takes off what the schema does not know, and sets its defaults.
pub(crate) fn complete(schema: &Value, object: &mut Value) {
    let Some(members) = object.as_object_mut() else { return };
    let preserved = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let known = schema["properties"].as_object();
    members.retain(|name, _| {
        preserved
            || matches!(name.as_str(), "apiVersion" | "kind" | "metadata")
            || known.is_some_and(|known| known.contains_key(name))
    });
    for (name, property) in known.into_iter().flatten().filter(|(name, _)| name.as_str() != "metadata") {
        complete_member(property, members, name);
    }
}

fn complete_member(schema: &Value, members: &mut Map<String, Value>, name: &str) {
    let default = schema.get("default");
    // Where the schema says nullable, null is a value.
    let null = members.get(name).is_some_and(Value::is_null) && schema["nullable"] != true;
    if let Some(default) = default.filter(|_| !members.contains_key(name) || null) {
        members.insert(name.to_owned(), default.clone());
    }
    if let Some(member) = members.get_mut(name) {
        inner(schema, member);
    }
}

fn inner(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(members) => {
            let preserved = schema["x-kubernetes-preserve-unknown-fields"] == true;
            let known = schema["properties"].as_object();
            let other = schema["additionalProperties"].as_object().is_some()
                || schema["additionalProperties"] == true;
            members
                .retain(|name, _| preserved || other || known.is_some_and(|known| known.contains_key(name)));
            for (name, property) in known.into_iter().flatten() {
                complete_member(property, members, name);
            }
            if other {
                members.values_mut().for_each(|member| inner(&schema["additionalProperties"], member));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| inner(&schema["items"], item)),
        _ => {}
    }
}

/// What is wrong with an object: types, and members that are required.
pub(crate) fn validate(schema: &Value, object: &Value) -> Vec<Wrong> {
    let mut wrongs = Vec::new();
    check(schema, object, "", &mut wrongs);
    wrongs
}

fn check(schema: &Value, value: &Value, path: &str, wrongs: &mut Vec<Wrong>) {
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted = schema["type"].as_str().unwrap_or_default();
    let fits = wanted.is_empty() || wanted == is || (wanted == "number" && is == "integer");
    let fits = fits || (value.is_null() && schema["nullable"] == true);
    if !fits {
        let why = format!("{path} in body must be of type {wanted}: {is:?}");
        wrongs.push(Wrong::invalid(path, &json!(is), &why));
        return;
    }
    let inside = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if let Value::Object(members) = value {
        for name in strings(&schema["required"]).iter().filter(|name| !members.contains_key(*name)) {
            wrongs.push(Wrong::required(&inside(name), ""));
        }
        for (name, member) in members.iter().filter(|(name, _)| !(path.is_empty() && *name == "metadata")) {
            let known = schema["properties"].get(name);
            let other = schema.get("additionalProperties").filter(|other| other.is_object());
            if let Some(schema) = known.or(other) {
                check(schema, member, &inside(name), wrongs);
            }
        }
    } else if let Value::Array(items) = value {
        for (index, item) in items.iter().enumerate() {
            check(&schema["items"], item, &format!("{path}[{index}]"), wrongs);
        }
    }
}

/// What a server adds to a definition that it accepts.
pub(crate) fn prepare(definition: &mut Value) {
    let spec = &mut definition["spec"];
    let kind = text(&spec["names"]["kind"]);
    if let Some(names) = spec["names"].as_object_mut() {
        let missing = |names: &Map<String, Value>, name: &str| {
            names.get(name).is_none_or(|value| value == "" || value.is_null())
        };
        if missing(names, "singular") {
            names.insert("singular".to_owned(), kind.to_lowercase().into());
        }
        if missing(names, "listKind") {
            names.insert("listKind".to_owned(), format!("{kind}List").into());
        }
    }
}

/// What a definition's versions store.
pub(crate) fn stored_versions(definition: &Value) -> Vec<String> {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    versions.into_iter().filter(|v| v["storage"] == true).map(|v| text(&v["name"])).collect()
}

/// Sets a condition, as the server does.
pub(crate) fn set_condition(definition: &mut Value, kind: &str, reason: &str, message: &str, now: &str) {
    let condition = json!({
        "type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message,
    });
    let conditions = &mut definition["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    match conditions.iter_mut().find(|c| c["type"] == kind) {
        Some(known) => {
            let since = known["lastTransitionTime"].clone();
            *known = condition;
            known["lastTransitionTime"] = since;
        }
        None => conditions.push(condition),
    }
}
