//! What of an answer is compared: everything but uids, times, versions, addresses, and words that are no contract.

use serde_json::{Map, Value, json};

/// Members whose values differ from server to server.
const DIFFERENT: [&str; 12] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "time",
    "lastTransitionTime",
    "clusterIP",
    "continue",
    "selfLink",
    "serverAddressByClientCIDRs",
    "uncounted",
    "ca.crt",
];
/// What controllers of a real cluster add, while nobody waits for them: statuses of these kinds, an annotation, and the
/// hash of a path in etcd that the model has not.
const CONTROLLED: [&str; 7] = [
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "ResourceQuota",
    "HorizontalPodAutoscaler",
    "PersistentVolume",
];
const ADDED: [&str; 2] = ["storageVersionHash", "deployment.kubernetes.io/revision"];
const CONTROLLER: &str = "kube-controller-manager";
/// Words of messages that lockstep, or anybody, decides by.
const WORDS: [&str; 20] = [
    "failed to create typed patch object",
    "field not declared in schema",
    "duplicate entries for key",
    "omits key field",
    "no existing object was found",
    "because it is being terminated",
    "Too large resource version",
    "future revision",
    "too old resource version",
    "uid mismatch",
    "Precondition failed: UID",
    "UID in precondition",
    "failed to convert new object to proper version",
    "error decoding from json",
    "request is too large",
    "may not change once set",
    "cannot change roleRef",
    "are forbidden",
    "is immutable",
    "being deleted",
];
/// Objects that controllers put into every namespace, sooner or later.
const EVERYWHERE: [&str; 2] = ["kube-root-ca.crt", "default"];

/// An answer in the form in which it is compared. `namespace` is written `$ns`.
pub(crate) fn normal(value: &Value, namespace: &str) -> Value {
    if value["kind"] == "Status" && value["status"] == "Failure" {
        return failure(value, namespace);
    }
    match value {
        Value::Object(members) => {
            let mut out = Map::new();
            for (name, member) in members.iter().filter(|(name, _)| !ADDED.contains(&name.as_str())) {
                out.insert(anonymous(name, namespace), self::member(name, member, namespace));
            }
            // An annotation of a controller may have been the only one.
            if out.get("annotations").is_some_and(|annotations| annotations == &json!({})) {
                out.remove("annotations");
            }
            if CONTROLLED.iter().any(|kind| value["kind"] == *kind) {
                out.remove("status");
            }
            if value["kind"] == "ServiceAccount" {
                out.remove("secrets");
            }
            if out.contains_key("generateName") {
                out.insert("name".to_owned(), "<generated>".into());
            }
            if let Some(items) = out.get_mut("items").and_then(Value::as_array_mut) {
                items.retain(|item| !is_everywhere(item));
                items.sort_by_key(|item| item["metadata"]["name"].to_string());
                out.remove("uncounted");
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| normal(item, namespace)).collect()),
        Value::String(text) => anonymous(text, namespace).into(),
        other => other.clone(),
    }
}

/// A text without the name of the namespace and without uids.
fn anonymous(text: &str, namespace: &str) -> String {
    let text = text.replace(namespace, "$ns");
    let parts = text.split('"').map(|part| if is_uid(part) { "<uid>" } else { part });
    parts.collect::<Vec<_>>().join("\"")
}

fn is_uid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

fn member(name: &str, value: &Value, namespace: &str) -> Value {
    if value.is_null() {
        return Value::Null;
    }
    if DIFFERENT.contains(&name) && value != "" && value != "None" {
        return format!("<{name}>").into();
    }
    match name {
        "clusterIPs" if value != &json!(["None"]) => json!(["<clusterIP>"]),
        // How many are left depends on what controllers put there.
        "remainingItemCount" => "<some>".into(),
        "managedFields" => managed(value, namespace),
        _ => normal(value, namespace),
    }
}

/// Entries in an order of their own: that of the servers depends on times.
fn managed(value: &Value, namespace: &str) -> Value {
    let mut entries: Vec<Value> = value.as_array().cloned().unwrap_or_default();
    entries.retain(|entry| entry["manager"] != CONTROLLER);
    for entry in &mut entries {
        if let Some(members) = entry.as_object_mut() {
            members.remove("time");
        }
        *entry = normal(entry, namespace);
    }
    entries.sort_by_key(|entry| format!("{}{}{}", entry["manager"], entry["operation"], entry["apiVersion"]));
    Value::Array(entries)
}

fn is_everywhere(item: &Value) -> bool {
    let name = item["metadata"]["name"].as_str().unwrap_or_default();
    EVERYWHERE.contains(&name) || name.starts_with("default-token-")
}

/// Status: code, reason, details, and the words that count. Of causes each once, the message only of conflicts.
fn failure(status: &Value, namespace: &str) -> Value {
    let message = status["message"].as_str().unwrap_or_default();
    let words: Vec<&str> = WORDS.iter().filter(|word| message.contains(*word)).copied().collect();
    let mut causes: Vec<Value> = Vec::new();
    for cause in status["details"]["causes"].as_array().into_iter().flatten() {
        let mut kept = json!({"reason": cause["reason"], "field": normal(&cause["field"], namespace)});
        if matches!(cause["reason"].as_str(), Some("FieldManagerConflict" | "NamespaceTerminating")) {
            kept["message"] = normal(&cause["message"], namespace);
        }
        if !causes.contains(&kept) {
            causes.push(kept);
        }
    }
    causes.sort_by_key(Value::to_string);
    let mut details = status["details"].as_object().cloned().unwrap_or_default();
    details.remove("causes");
    json!({
        "code": status["code"], "reason": status["reason"], "words": words, "causes": causes,
        "details": normal(&Value::Object(details), namespace),
    })
}

/// Events of a watch, in a form in which their order does not matter where servers differ in it: initial ones.
pub(crate) fn events(lines: &str, namespace: &str) -> Value {
    let mut out: Vec<Value> = Vec::new();
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| json!({"text": line}));
        if is_everywhere(&event["object"]) {
            continue;
        }
        if event["type"] == "BOOKMARK" {
            // How many come depends on the clock: one is kept.
            let event = normal(&event, namespace);
            if !out.contains(&event) {
                out.push(event);
            }
            continue;
        }
        out.push(normal(&event, namespace));
    }
    let initial = out.iter().take_while(|event| event["type"] == "ADDED").count();
    out[..initial].sort_by_key(|event| event["object"]["metadata"]["name"].to_string());
    Value::Array(out)
}

/// The paths at which two values differ, with both.
pub(crate) fn differences(path: &str, real: &Value, model: &Value, out: &mut Vec<String>) {
    match (real, model) {
        (Value::Object(left), Value::Object(right)) => {
            let names = left.keys().chain(right.keys().filter(|name| !left.contains_key(*name)));
            for name in names {
                let inner = format!("{path}.{name}");
                let (left, right) = (left.get(name), right.get(name));
                match (left, right) {
                    (Some(left), Some(right)) => differences(&inner, left, right, out),
                    _ => out.push(format!("{inner}: real {} model {}", shown(left), shown(right))),
                }
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (n, (left, right)) in left.iter().zip(right).enumerate() {
                differences(&format!("{path}[{n}]"), left, right, out);
            }
        }
        _ if real == model => {}
        _ => out.push(format!("{path}: real {} model {}", shown(Some(real)), shown(Some(model)))),
    }
}

fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    text.chars().take(300).collect()
}
