//! Histories of one object that lockstep and others write, and a comparison of what is there with what was asked for (I17).
//!
//! The comparison is written from the definition, by names instead of managedFields, and shares nothing with
//! `engine::ownership::compare`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::chaos::dice::Dice;

/// One write.
#[derive(Clone, Debug)]
pub enum Write {
    /// lockstep applies this body by force, as it does where all that it conflicts with was its own.
    Ours(Value),
    /// Another manager applies its part.
    Theirs(&'static str, Value),
    /// Another manager patches.
    Patch(&'static str, Value),
}

/// Kinds that histories are of.
pub const KINDS: [(&str, &str); 6] = [
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("v1", "ResourceQuota"),
    ("apps/v1", "Deployment"),
    ("in-step.example/v1", "Widget"),
];
const OTHERS: [&str; 2] = ["operator", "kubectl-edit"];

/// The definition of the custom resource.
#[must_use]
pub fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.in-step.example"},
        "spec": {"group": "in-step.example", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
    })
}

/// The writes of one history; the first is ours.
#[must_use]
pub fn history(dice: &mut Dice, kind: (&str, &str), namespace: &str, name: &str) -> Vec<Write> {
    let body = |dice: &mut Dice, whole: bool| {
        let mut body =
            json!({"apiVersion": kind.0, "kind": kind.1, "metadata": {"name": name, "namespace": namespace}});
        let labels = texts(dice, &["la", "lb", "lc"]);
        if !labels.is_empty() {
            body["metadata"]["labels"] = labels.into();
        }
        content(dice, kind.1, whole, &mut body);
        body
    };
    let mut writes = vec![Write::Ours(body(dice, true))];
    for _ in 0..dice.below(8) + 3 {
        let other = OTHERS[dice.below(OTHERS.len())];
        writes.push(match dice.below(10) {
            0..=4 => Write::Ours(body(dice, true)),
            5..=7 => Write::Theirs(other, body(dice, false)),
            _ => Write::Patch(
                other,
                json!({"metadata": {"labels": Value::Object(texts(dice, &["la", "lb", "own"]))}}),
            ),
        });
    }
    writes
}

fn texts(dice: &mut Dice, keys: &[&str]) -> Map<String, Value> {
    let mut map = Map::new();
    for key in keys {
        if dice.chance(60) {
            map.insert((*key).to_owned(), ["1", "1000m", "x"][dice.below(3)].into());
        }
    }
    map
}

fn content(dice: &mut Dice, kind: &str, whole: bool, body: &mut Value) {
    match kind {
        "ConfigMap" => body["data"] = texts(dice, &["a", "b", "c", "d"]).into(),
        "Secret" => {
            let keys = ["a", "b", "c"].into_iter().filter(|_| dice.chance(60)).collect::<Vec<_>>();
            body["data"] =
                keys.into_iter().map(|key| (key.to_owned(), json!("YWJj"))).collect::<Map<_, _>>().into();
        }
        "Service" => {
            let ports = [("http", 80), ("admin", 8080), ("dns", 53)];
            let mut ports: Vec<_> = ports.into_iter().filter(|_| dice.chance(60)).collect();
            if ports.is_empty() {
                ports.push(("http", 80));
            }
            let port = |(name, port): (&str, u16)| json!({"name": name, "port": port, "protocol": "TCP"});
            body["spec"] = json!({"ports": ports.into_iter().map(port).collect::<Vec<_>>()});
            if whole {
                let app = ["x", "y"][dice.below(2)];
                body["spec"]["selector"] = json!({"app": app});
            }
        }
        "ResourceQuota" => {
            let mut hard = Map::new();
            for (key, spellings) in [
                ("pods", ["10", "11"]),
                ("limits.cpu", ["2000m", "2"]),
                ("requests.memory", ["1Gi", "1024Mi"]),
            ] {
                if dice.chance(70) {
                    hard.insert(key.to_owned(), spellings[dice.below(2)].into());
                }
            }
            body["spec"] = json!({"hard": hard});
        }
        "Deployment" => deployment(dice, whole, body),
        _ => {
            let mut spec = texts(dice, &["a", "b"]);
            if dice.chance(50) {
                let items = [json!(1), json!({"x": dice.below(3)}), json!("z")];
                spec.insert("list".to_owned(), items[..=dice.below(3)].into());
            }
            if dice.chance(50) {
                spec.insert("map".to_owned(), texts(dice, &["p", "q"]).into());
            }
            body["spec"] = spec.into();
        }
    }
}

fn deployment(dice: &mut Dice, whole: bool, body: &mut Value) {
    let names: Vec<&str> = if whole {
        ["web", "side"][..=dice.below(2)].to_vec()
    } else {
        vec![["side", "proxy"][dice.below(2)]]
    };
    let mut containers = Vec::new();
    for name in names {
        let env = ["A", "B"].into_iter().filter(|_| dice.chance(60));
        let env: Vec<Value> =
            env.collect::<Vec<_>>().into_iter().map(|key| json!({"name": key, "value": "1"})).collect();
        let mut container =
            json!({"name": name, "image": format!("example.invalid/{name}:{}", dice.below(2))});
        if !env.is_empty() {
            container["env"] = env.into();
        }
        if dice.chance(50) {
            let cpu = ["1000m", "1", "0.5"][dice.below(3)];
            container["resources"] = json!({"limits": {"cpu": cpu}});
        }
        containers.push(container);
    }
    body["spec"] = json!({"template": {"spec": {"containers": containers}}});
    if whole {
        body["spec"]["replicas"] = 0.into();
        body["spec"]["selector"] = json!({"matchLabels": {"app": "x"}});
        body["spec"]["template"]["metadata"] = json!({"labels": {"app": "x"}});
    }
}

/// What of a body is not there, or otherwise: by names, from the definition.
#[must_use]
pub fn differences(desired: &Value, live: &Value) -> Vec<String> {
    let mut off = Vec::new();
    missing(desired, live, "", &mut off);
    off
}

fn missing(desired: &Value, live: &Value, path: &str, off: &mut Vec<String>) {
    match (desired, live) {
        (Value::Object(members), Value::Object(there)) => {
            for (name, value) in members {
                let path = format!("{path}/{name}");
                match there.get(name) {
                    Some(live) => missing(value, live, &path, off),
                    None if is_empty(value) => {}
                    None => off.push(path),
                }
            }
        }
        (Value::Array(items), Value::Array(there)) => {
            let named = !items.is_empty() && items.iter().all(|item| item["name"].is_string());
            if !named && items.len() != there.len() {
                off.push(path.to_owned());
                return;
            }
            for (at, item) in items.iter().enumerate() {
                let found = match named {
                    true => there.iter().find(|other| other["name"] == item["name"]),
                    false => there.get(at),
                };
                let path = format!("{path}/{}", item["name"].as_str().unwrap_or("-"));
                match found {
                    Some(found) => missing(item, found, &path, off),
                    None => off.push(path),
                }
            }
        }
        _ if desired == live => {}
        _ if is_quantity(path) && amount(desired).is_some() && amount(desired) == amount(live) => {}
        _ => off.push(path.to_owned()),
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

fn is_quantity(path: &str) -> bool {
    path.contains("/resources/limits/") || path.starts_with("/spec/hard/")
}

/// Enough for the amounts that histories ask for.
fn amount(value: &Value) -> Option<u64> {
    let text = value.as_str()?;
    let (number, thousandths) = match text {
        _ if text.ends_with('m') => (text.trim_end_matches('m'), 1.0),
        _ if text.ends_with("Gi") => (text.trim_end_matches("Gi"), 1_000.0 * 1_073_741_824.0),
        _ if text.ends_with("Mi") => (text.trim_end_matches("Mi"), 1_000.0 * 1_048_576.0),
        _ => (text, 1_000.0),
    };
    let amount = number.parse::<f64>().ok()? * thousandths;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small and positive
    Some(amount as u64)
}

/// Paths of everything that is neither a list nor a map, below what an object is called.
#[must_use]
pub fn leaves(object: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        match name.as_str() {
            "apiVersion" | "kind" | "status" => {}
            "metadata" => {
                for name in ["labels", "annotations"] {
                    collect(&value[name], &format!("/metadata/{name}"), &mut found);
                }
            }
            _ => collect(value, &format!("/{name}"), &mut found),
        }
    }
    found
}

fn collect(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| collect(value, &format!("{path}/{name}"), found));
        }
        // A list without names is one value.
        Value::Array(items) if !items.iter().all(|item| item["name"].is_string()) => {
            found.insert(path.to_owned());
        }
        Value::Array(items) => {
            for item in items {
                collect(item, &format!("{path}/{}", item["name"].as_str().unwrap_or_default()), found);
            }
        }
        Value::Null => {}
        _ => {
            found.insert(path.to_owned());
        }
    }
}
