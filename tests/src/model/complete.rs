//! What an API server makes of a built-in object before it stores it: unknown fields off, defaults in, values in
//! their canonical form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::kinds::{BUILTIN, Kind};
use super::quantity;
use super::smd::schema::{MapType, Scalar, Schema, Shape, TypeId};

/// Completes an object of a kind. Custom resources have their own way: [`super::crd::complete`].
///
/// # Errors
/// A value that its type cannot take, in words.
pub(crate) fn complete(kind: &Kind, object: &mut Value) -> Result<(), String> {
    if let Some(schema) = &kind.custom {
        super::crd::complete(schema, object);
        return metadata(object);
    }
    if kind.is("", "Secret") {
        string_data(object);
    }
    value(&kind.schema, kind.id, object)?;
    if kind.is("batch", "Job") {
        job(object);
    }
    if kind.is("apiextensions.k8s.io", "CustomResourceDefinition") {
        super::crd::prepare(object);
    }
    metadata(object)
}

/// `creationTimestamp: null` is how nothing is written.
fn metadata(object: &mut Value) -> Result<(), String> {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    metadata.retain(|name, value| {
        let empty = match value {
            Value::Null => true,
            Value::Object(members) => members.is_empty(),
            Value::Array(items) => items.is_empty() && name != "managedFields",
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        !empty
    });
    Ok(())
}

fn value(schema: &Schema, id: TypeId, target: &mut Value) -> Result<(), String> {
    match schema.shape(id, Some(target)) {
        Shape::Scalar(Scalar::Quantity) => {
            if let Some(text) = target.as_str() {
                *target = quantity::canonical(text)
                    .ok_or(
                        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                    )?
                    .into();
            }
        }
        Shape::Scalar(Scalar::Bytes) => {
            if let Some(text) = target.as_str() {
                STANDARD
                    .decode(text)
                    .map_err(|_| "error decoding from json: illegal base64 data at input byte 0")?;
            }
        }
        Shape::Scalar(_) => {}
        Shape::List(list) => {
            for item in target.as_array_mut().into_iter().flatten() {
                value(schema, list.item, item)?;
            }
        }
        Shape::Map(map) => {
            if let Some(members) = target.as_object_mut() {
                structure(schema, &schema.get(id).name, map, members)?;
            }
        }
    }
    Ok(())
}

fn structure(
    schema: &Schema,
    name: &str,
    map: &MapType,
    members: &mut Map<String, Value>,
) -> Result<(), String> {
    if !map.fields.is_empty() {
        members.retain(|field, value| map.fields.contains_key(field) && !value.is_null());
        for field in
            map.fields.keys().filter(|field| !members.contains_key(*field)).cloned().collect::<Vec<_>>()
        {
            let zero = BUILTIN.zero_field(name, &field);
            let default = || BUILTIN.defaults.get(name).and_then(|defaults| defaults.get(&field)).cloned();
            // A required text that nobody set is defaulted too.
            if let Some(value) = zero.filter(|zero| zero != "").or_else(default) {
                members.insert(field, value);
            }
        }
        special(name, members);
    }
    for (field, member) in members.iter_mut() {
        if let Some(inner) = map.fields.get(field).copied().or(map.other) {
            if member.is_null() && map.other.is_some() {
                // A null in a map of texts is an empty text.
                *member = "".into();
            }
            value(schema, inner, member)?;
        }
    }
    // Go leaves empty lists and maps out; a struct that is there stays.
    members.retain(|field, member| {
        let empty = match member {
            Value::Array(items) => items.is_empty(),
            Value::Object(inner) => {
                let id = map.fields.get(field);
                inner.is_empty() && id.is_some_and(|id| is_plain_map(schema, *id))
            }
            _ => false,
        };
        !empty || map.fields.is_empty() || BUILTIN.zero_field(name, field).is_some()
    });
    Ok(())
}

fn is_plain_map(schema: &Schema, id: TypeId) -> bool {
    let found = schema.get(id);
    // A named type is a struct, also where it has no members.
    found.name.is_empty()
        && found.scalar.is_none()
        && found.map.as_ref().is_some_and(|map| map.fields.is_empty())
}

/// Defaults that depend on other fields.
fn special(name: &str, members: &mut Map<String, Value>) {
    let rolling = members.get("type").is_some_and(|value| value == "RollingUpdate");
    match name {
        "core.v1.Container" => {
            let image = members.get("image").and_then(Value::as_str).unwrap_or_default();
            let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
            let latest = tag.is_none_or(|tag| tag == "latest") && !image.contains('@');
            let policy = if latest { "Always" } else { "IfNotPresent" };
            members.entry("imagePullPolicy").or_insert_with(|| policy.into());
        }
        "core.v1.ServicePort" => {
            let port = members.get("port").cloned().unwrap_or_default();
            let target = members.entry("targetPort").or_insert(Value::Null);
            if target.is_null() || target == &json!(0) || target == "" {
                *target = port;
            }
        }
        "apps.v1.DeploymentStrategy"
        | "apps.v1.DaemonSetUpdateStrategy"
        | "apps.v1.StatefulSetUpdateStrategy"
            if rolling =>
        {
            members.entry("rollingUpdate").or_insert_with(|| json!({}));
        }
        "core.v1.ServiceSpec" => {
            if members.get("sessionAffinity").is_some_and(|value| value == "ClientIP") {
                let config = members.entry("sessionAffinityConfig").or_insert_with(|| json!({}));
                if config["clientIP"]["timeoutSeconds"].is_null() {
                    config["clientIP"]["timeoutSeconds"] = 10_800.into();
                }
            } else {
                members.remove("sessionAffinityConfig");
            }
        }
        "core.v1.LimitRangeItem" if members.get("type").is_some_and(|value| value == "Container") => {
            for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
                let given = members.get(from).and_then(Value::as_object).cloned().unwrap_or_default();
                for (resource, quantity) in given {
                    let target = members.entry(to).or_insert_with(|| json!({}));
                    if target[&resource].is_null() {
                        target[&resource] = quantity;
                    }
                }
            }
        }
        "rbac.v1.Subject" => {
            let group = match members.get("kind").and_then(Value::as_str) {
                Some("User" | "Group") => "rbac.authorization.k8s.io",
                _ => return,
            };
            members.entry("apiGroup").or_insert_with(|| group.into());
        }
        _ => {}
    }
}

/// `stringData` is written into `data`.
fn string_data(object: &mut Value) {
    let Some(members) = object.as_object_mut() else { return };
    let Some(Value::Object(texts)) = members.remove("stringData") else { return };
    let data = members.entry("data").or_insert_with(|| json!({}));
    for (name, text) in texts {
        data[&name] = STANDARD.encode(text.as_str().unwrap_or_default()).into();
    }
}

fn job(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        spec.insert("completions".to_owned(), 1.into());
    }
    spec.entry("parallelism").or_insert(json!(1));
    spec.entry("backoffLimit").or_insert(json!(6));
}
