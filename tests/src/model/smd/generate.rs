//! Makes `tests/model/schema.json` out of what a real API server says of itself.
//!
//! The compact form of a type: `"str"`, `"num"`, `"bool"`, `"bytes"` (base64), `"qty"` (quantity), `"any"` (any scalar),
//! `"obj"` (anything, as one value), `"#name"`; `{"list": T}` (atomic), `{"list": T, "set": true}`, `{"list": T,
//! "keys": [..]}`; `{"map": T}`, `{"map": T, "atomic": true}`; `{"fields": {..}}`, with `"defaults"` of members that
//! are keys. The rules are those of kube-openapi's `schemaconv`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// The groups and versions that the model serves: one version of each kind, so that nothing is ever converted.
pub const SERVED: [(&str, &str); 15] = [
    ("", "v1"),
    ("apiregistration.k8s.io", "v1"),
    ("apps", "v1"),
    ("autoscaling", "v1"),
    ("batch", "v1"),
    ("batch", "v1beta1"),
    ("networking.k8s.io", "v1"),
    ("policy", "v1beta1"),
    ("rbac.authorization.k8s.io", "v1"),
    ("storage.k8s.io", "v1"),
    ("admissionregistration.k8s.io", "v1"),
    ("apiextensions.k8s.io", "v1"),
    ("scheduling.k8s.io", "v1"),
    ("coordination.k8s.io", "v1"),
    ("discovery.k8s.io", "v1beta1"),
];

const PREFIX: &str = "#/definitions/";

/// The path of a group and version in discovery.
#[must_use]
pub fn discovery_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// The schema, from `/openapi/v2` and the discovery of each of [`SERVED`], in their order.
#[must_use]
pub fn schema(openapi: &Value, discovery: &[Value]) -> Value {
    let definitions = &openapi["definitions"];
    let mut groups = Vec::new();
    let mut wanted: BTreeSet<String> =
        BTreeSet::from(["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta".into()]);
    for ((group, version), listed) in SERVED.iter().zip(discovery) {
        let mut resources = Vec::new();
        for resource in listed["resources"].as_array().into_iter().flatten() {
            let mut resource = resource.clone();
            let found = find(definitions, group, version, resource["kind"].as_str().unwrap_or_default());
            if let Some(members) = resource.as_object_mut() {
                // It is a hash of the path in etcd, which the model has none of.
                members.remove("storageVersionHash");
                let name = members["name"].as_str().unwrap_or_default();
                if let Some(found) = found.filter(|_| !name.contains('/')) {
                    members.insert("type".to_owned(), short(&found).into());
                    wanted.insert(found);
                }
            }
            resources.push(resource);
        }
        groups.push(json!({"group": group, "version": version, "resources": resources}));
    }
    json!({"version": openapi["info"]["version"], "groups": groups, "types": types(definitions, wanted)})
}

fn types(definitions: &Value, mut wanted: BTreeSet<String>) -> Map<String, Value> {
    let mut types = Map::new();
    while let Some(name) = wanted.pop_first() {
        let compact = compact(&definitions[&name], &mut wanted);
        types.insert(short(&name), compact);
        wanted.retain(|name| !types.contains_key(&short(name)));
    }
    types.sort_keys();
    types
}

/// The definition of a kind.
fn find(definitions: &Value, group: &str, version: &str, kind: &str) -> Option<String> {
    let is = |gvk: &Value| gvk["group"] == group && gvk["version"] == version && gvk["kind"] == kind;
    definitions.as_object()?.iter().find_map(|(name, definition)| {
        let gvks = definition["x-kubernetes-group-version-kind"].as_array()?;
        // DeleteOptions and its like are of every group.
        (gvks.len() == 1 && gvks.iter().any(is)).then(|| name.clone())
    })
}

/// `io.k8s.api.core.v1.Pod` -> `core.v1.Pod`.
fn short(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    parts.get(parts.len().saturating_sub(3)..).unwrap_or_default().join(".")
}

fn compact(definition: &Value, wanted: &mut BTreeSet<String>) -> Value {
    if let Some(name) = definition["$ref"].as_str().and_then(|text| text.strip_prefix(PREFIX)) {
        return match name {
            "io.k8s.apimachinery.pkg.runtime.RawExtension" => "obj".into(),
            "io.k8s.apimachinery.pkg.api.resource.Quantity" => "qty".into(),
            name => {
                wanted.insert(name.to_owned());
                format!("#{}", short(name)).into()
            }
        };
    }
    let properties = definition["properties"].as_object();
    match (definition["type"].as_str(), properties) {
        (Some("array"), _) => list(definition, wanted),
        (Some("string"), _) => match definition["format"].as_str() {
            None => "str".into(),
            Some("byte") => "bytes".into(),
            Some(_) => "any".into(),
        },
        (Some("integer" | "number"), _) => "num".into(),
        (Some("boolean"), _) => "bool".into(),
        (Some("object") | None, Some(properties)) => fields(definition, properties, wanted),
        (Some("object"), None) => {
            let item = &definition["additionalProperties"];
            let item = if item.is_object() { compact(item, wanted) } else { "obj".into() };
            with_atomic(definition, json!({"map": item}))
        }
        _ => "obj".into(),
    }
}

fn fields(definition: &Value, properties: &Map<String, Value>, wanted: &mut BTreeSet<String>) -> Value {
    let mut members = Map::new();
    let mut defaults = Map::new();
    for (name, property) in properties {
        members.insert(name.clone(), compact(property, wanted));
        if let Some(default) = property.get("default") {
            defaults.insert(name.clone(), default.clone());
        }
    }
    members.sort_keys();
    let mut out = json!({ "fields": members });
    if !defaults.is_empty() {
        out["defaults"] = Value::Object(defaults);
    }
    with_atomic(definition, out)
}

fn with_atomic(definition: &Value, mut compact: Value) -> Value {
    if definition["x-kubernetes-map-type"] == "atomic" {
        compact["atomic"] = true.into();
    }
    compact
}

fn list(definition: &Value, wanted: &mut BTreeSet<String>) -> Value {
    let item = compact(&definition["items"], wanted);
    let strategy = definition["x-kubernetes-patch-strategy"].as_str().unwrap_or_default();
    match definition["x-kubernetes-list-type"].as_str() {
        Some("set") => json!({"list": item, "set": true}),
        Some("map") => json!({"list": item, "keys": definition["x-kubernetes-list-map-keys"]}),
        Some(_) => json!({ "list": item }),
        None if strategy.split(',').any(|word| word == "merge") => {
            match definition.get("x-kubernetes-patch-merge-key") {
                Some(key) => json!({"list": item, "keys": [key]}),
                None => json!({"list": item, "set": true}),
            }
        }
        None => json!({ "list": item }),
    }
}

/// As text: a line per resource and per type, so that differences can be read.
#[must_use]
pub fn render(schema: &Value) -> String {
    let empty = Vec::new();
    let groups = schema["groups"].as_array().unwrap_or(&empty).iter().map(|group| {
        let resources = group["resources"].as_array().unwrap_or(&empty).iter();
        let resources: Vec<String> = resources.map(|resource| format!("  {}", sorted(resource))).collect();
        let (name, version) = (&group["group"], &group["version"]);
        format!(" {{\"group\":{name},\"version\":{version},\"resources\":[\n{}\n ]}}", resources.join(",\n"))
    });
    let groups: Vec<String> = groups.collect();
    let types = schema["types"].as_object().into_iter().flatten();
    let types: Vec<String> =
        types.map(|(name, found)| format!(" {}: {}", Value::from(name.as_str()), sorted(found))).collect();
    format!(
        "{{\n\"groups\": [\n{}\n],\n\"types\": {{\n{}\n}},\n\"version\": {}\n}}\n",
        groups.join(",\n"),
        types.join(",\n"),
        schema["version"]
    )
}

/// With sorted members, however serde_json keeps them.
fn sorted(value: &Value) -> String {
    let mut value = value.clone();
    value.sort_all_objects();
    value.to_string()
}
