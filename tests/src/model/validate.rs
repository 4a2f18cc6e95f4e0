//! What objects are refused for: names, labels, a few required fields, and the fields that cannot change.

use serde_json::{Value, json};

use super::kinds::{Kind, text};
use super::status::Wrong;

/// Of all annotations together.
const ANNOTATIONS_LIMIT: usize = 256 << 10;
/// Of the data of a ConfigMap or Secret.
const DATA_LIMIT: usize = 1 << 20;
const NAME_LIMIT: usize = 253;
const LABEL_LIMIT: usize = 63;

const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const IMMUTABLE: &str = "field is immutable";
const WHEN_SET: &str = "field is immutable when `immutable` is set";

/// Fields that can never change, by group, kind and JSON pointer, with the server's words.
const NEVER: [(&str, &str, &str, &str); 13] = [
    ("apps", "Deployment", "/spec/selector", IMMUTABLE),
    ("apps", "DaemonSet", "/spec/selector", IMMUTABLE),
    ("apps", "ReplicaSet", "/spec/selector", IMMUTABLE),
    ("batch", "Job", "/spec/selector", IMMUTABLE),
    ("batch", "Job", "/spec/template", IMMUTABLE),
    ("batch", "Job", "/spec/completions", IMMUTABLE),
    ("", "Secret", "/type", IMMUTABLE),
    ("rbac.authorization.k8s.io", "RoleBinding", "/roleRef", "cannot change roleRef"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", "/roleRef", "cannot change roleRef"),
    ("apiextensions.k8s.io", "CustomResourceDefinition", "/spec/group", IMMUTABLE),
    ("apiextensions.k8s.io", "CustomResourceDefinition", "/spec/scope", IMMUTABLE),
    ("storage.k8s.io", "StorageClass", "/provisioner", "updates to provisioner are forbidden."),
    ("storage.k8s.io", "StorageClass", "/parameters", "updates to parameters are forbidden."),
];

/// `/spec/selector` as `spec.selector`.
fn field(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

fn alphanumeric(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= NAME_LIMIT
        && name.split('.').all(|part| {
            let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            part.starts_with(lower) && part.ends_with(lower) && part.chars().all(|c| lower(c) || c == '-')
        })
}

fn is_label(text: &str) -> bool {
    text.len() <= LABEL_LIMIT
        && text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text.chars().all(|c| alphanumeric(c) || matches!(c, '-' | '_' | '.'))
}

fn is_qualified(name: &str) -> bool {
    match name.split_once('/') {
        Some((prefix, name)) => is_subdomain(&prefix.to_lowercase()) && is_label(name),
        None => is_label(name),
    }
}

/// What is wrong with an object as it is.
pub(crate) fn validate_object(kind: &Kind, object: &Value) -> Vec<Wrong> {
    let mut wrongs = Vec::new();
    specific(kind, object, &mut wrongs);
    metadata(kind, &object["metadata"], &mut wrongs);
    wrongs
}

fn metadata(kind: &Kind, metadata: &Value, wrongs: &mut Vec<Wrong>) {
    let name = text(&metadata["name"]);
    // Names of roles and bindings are path segments, nothing more.
    let segment = kind.group == "rbac.authorization.k8s.io" && kind.custom.is_none();
    if name.is_empty() {
        wrongs.push(Wrong::required("metadata.name", "name or generateName is required"));
    } else if !segment && !is_subdomain(&name) {
        wrongs.push(Wrong::invalid("metadata.name", &json!(name), SUBDOMAIN));
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if !is_qualified(key) {
            wrongs.push(Wrong::invalid("metadata.labels", &json!(key), QUALIFIED));
        }
        let value = text(value);
        if !value.is_empty() && !is_label(&value) {
            wrongs.push(Wrong::invalid("metadata.labels", &json!(value), LABEL));
        }
    }
    let mut total = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        if !is_qualified(key) {
            wrongs.push(Wrong::invalid("metadata.annotations", &json!(key), QUALIFIED));
        }
        total += key.len() + text(value).len();
    }
    if total > ANNOTATIONS_LIMIT {
        wrongs.push(Wrong::too_long("metadata.annotations", ANNOTATIONS_LIMIT));
    }
    for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
        for (name, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "kind must not be empty"),
            ("name", "name must not be empty"),
            ("uid", "uid must not be empty"),
        ] {
            if text(&owner[name]).is_empty() {
                wrongs.push(Wrong::invalid(&format!("metadata.ownerReferences.{name}"), &owner[name], why));
            }
        }
    }
    for (index, finalizer) in metadata["finalizers"].as_array().into_iter().flatten().enumerate() {
        let name = text(finalizer);
        if !is_qualified(&name) {
            wrongs.push(Wrong::invalid("metadata.finalizers", finalizer, QUALIFIED));
        }
        if kind.custom.is_none() && !name.contains('/') && !STANDARD_FINALIZERS.contains(&name.as_str()) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            wrongs.push(Wrong::invalid(&format!("metadata.finalizers[{index}]"), finalizer, why));
        }
    }
}

fn specific(kind: &Kind, object: &Value, wrongs: &mut Vec<Wrong>) {
    if let Some(schema) = &kind.custom {
        wrongs.extend(super::crd::validate(schema, object));
        return;
    }
    let spec = &object["spec"];
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "ConfigMap" | "Secret") => data(object, wrongs),
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") => {
            workload(spec, wrongs);
            containers(&spec["template"]["spec"], "spec.template.spec", wrongs);
        }
        ("batch", "Job") => containers(&spec["template"]["spec"], "spec.template.spec", wrongs),
        ("", "Pod") => containers(spec, "spec", wrongs),
        ("", "Service") => ports(spec, wrongs),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding")
            if text(&object["roleRef"]["name"]).is_empty() =>
        {
            wrongs.push(Wrong::required("roleRef.name", ""));
        }
        _ => {}
    }
}

fn data(object: &Value, wrongs: &mut Vec<Wrong>) {
    let mut total = 0;
    for (field, name) in [("data", "data"), ("binaryData", "binaryData")] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            let fits = |c: char| alphanumeric(c) || matches!(c, '-' | '_' | '.');
            if key.is_empty() || key.len() > NAME_LIMIT || !key.chars().all(fits) {
                wrongs.push(Wrong::invalid(&format!("{name}[{key}]"), &json!(key), CONFIG_KEY));
            }
            total += text(value).len();
        }
    }
    if total > DATA_LIMIT {
        wrongs.push(Wrong::too_long(if object["kind"] == "Secret" { "data" } else { "[]" }, DATA_LIMIT));
    }
}

fn workload(spec: &Value, wrongs: &mut Vec<Wrong>) {
    let selector = &spec["selector"];
    if selector.is_null() {
        wrongs.push(Wrong::required("spec.selector", ""));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let mut wanted = selector["matchLabels"].as_object().into_iter().flatten();
    if selector.is_null() || !wanted.all(|(name, value)| labels.get(name) == Some(value)) {
        let why = "`selector` does not match template `labels`";
        wrongs.push(Wrong::invalid("spec.template.metadata.labels", labels, why));
    }
}

fn containers(spec: &Value, path: &str, wrongs: &mut Vec<Wrong>) {
    let containers = spec["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if containers.is_empty() {
        wrongs.push(Wrong::required(&format!("{path}.containers"), ""));
    }
    for (index, container) in containers.iter().enumerate() {
        for name in ["name", "image"] {
            if text(&container[name]).is_empty() {
                wrongs.push(Wrong::required(&format!("{path}.containers[{index}].{name}"), ""));
            }
        }
    }
}

fn ports(spec: &Value, wrongs: &mut Vec<Wrong>) {
    const RANGE: &str = "must be between 1 and 65535, inclusive";
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() && spec["type"] != "ExternalName" && spec["clusterIP"] != "None" {
        wrongs.push(Wrong::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        for name in ["port", "targetPort"] {
            if let Some(number) = port[name].as_i64().filter(|number| !(1..=65_535).contains(number)) {
                wrongs.push(Wrong::invalid(&format!("spec.ports[{index}].{name}"), &json!(number), RANGE));
            }
        }
        if ports.len() > 1 && text(&port["name"]).is_empty() {
            wrongs.push(Wrong::required(&format!("spec.ports[{index}].name"), ""));
        }
    }
}

/// What is wrong with a change.
pub(crate) fn validate_change(kind: &Kind, old: &Value, new: &Value) -> Vec<Wrong> {
    let mut wrongs = Vec::new();
    let (before, after) = (&old["metadata"], &new["metadata"]);
    for name in ["uid", "name", "namespace"] {
        if before.get(name) != after.get(name) {
            wrongs.push(Wrong::invalid(&format!("metadata.{name}"), &after[name], IMMUTABLE));
        }
    }
    if !before["deletionTimestamp"].is_null() {
        let had = before["finalizers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let has = after["finalizers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut added: Vec<String> = has.iter().filter(|f| !had.contains(f)).map(text).collect();
        added.sort();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")
            );
            wrongs.push(Wrong::forbidden("metadata.finalizers", &why));
        }
    }
    if kind.custom.is_some() {
        return wrongs;
    }
    for (group, name, pointer, why) in NEVER {
        if kind.is(group, name) && old.pointer(pointer) != new.pointer(pointer) {
            let value = new.pointer(pointer).unwrap_or(&Value::Null);
            wrongs.push(if group == "storage.k8s.io" {
                Wrong::forbidden(&field(pointer), why)
            } else {
                Wrong::invalid(&field(pointer), value, why)
            });
        }
    }
    changes(kind, old, new, &mut wrongs);
    wrongs
}

fn changes(kind: &Kind, old: &Value, new: &Value, wrongs: &mut Vec<Wrong>) {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "ConfigMap" | "Secret") if old["immutable"] == true => {
            if new["immutable"] != true {
                wrongs.push(Wrong::forbidden("immutable", WHEN_SET));
            }
            for name in ["data", "binaryData"] {
                if old.get(name) != new.get(name) {
                    wrongs.push(Wrong::forbidden(name, WHEN_SET));
                }
            }
        }
        ("", "Service") => {
            let (was, is) = (text(&old["spec"]["clusterIP"]), text(&new["spec"]["clusterIP"]));
            if was != is && !was.is_empty() && old["spec"]["type"] != "ExternalName" {
                wrongs.push(Wrong::invalid("spec.clusterIPs[0]", &json!([is]), "may not change once set"));
            }
        }
        ("", "PersistentVolumeClaim") => {
            let without = |object: &Value| {
                let mut spec = object["spec"].clone();
                if let Some(members) = spec.as_object_mut() {
                    members.remove("resources");
                    members.remove("volumeName");
                }
                spec
            };
            if without(old) != without(new) {
                let why = "spec is immutable after creation except resources.requests for bound claims";
                wrongs.push(Wrong::forbidden("spec", why));
            }
        }
        ("apps", "StatefulSet") => {
            let without = |object: &Value| {
                let mut spec = object["spec"].clone();
                if let Some(members) = spec.as_object_mut() {
                    for name in ["replicas", "template", "updateStrategy"] {
                        members.remove(name);
                    }
                }
                spec
            };
            if without(old) != without(new) {
                let why = "updates to statefulset spec for fields other than 'replicas', 'template', and 'updateStrategy' are forbidden";
                wrongs.push(Wrong::forbidden("spec", why));
            }
        }
        _ => {}
    }
}
