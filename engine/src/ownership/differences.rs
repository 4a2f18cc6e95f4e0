//! Where two states of one object differ in what people wrote.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::marks::is_mark;
use crate::object::ObjectError;

/// Most paths named: enough for a person to see what is going on.
const PATHS: usize = 20;
/// What servers keep in metadata, and what changes with every write.
const BOOKKEEPING: [&str; 3] = ["managedFields", "resourceVersion", "generation"];

/// The fields in which the states differ, but for our marks and for what servers maintain: paths only, never
/// values (I13), and the first [`PATHS`].
///
/// # Errors
/// When one of them is no JSON.
pub fn differences(before: &[u8], after: &[u8]) -> Result<Vec<String>, ObjectError> {
    let (mut before, mut after) = (serde_json::from_slice(before)?, serde_json::from_slice(after)?);
    clean(&mut before);
    clean(&mut after);
    let mut paths = Vec::new();
    walk(Some(&before), Some(&after), &mut String::new(), &mut paths);
    Ok(paths)
}

fn clean(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    metadata.retain(|name, _| !BOOKKEEPING.contains(&name.as_str()));
    for name in ["labels", "annotations"] {
        if let Some(Value::Object(map)) = metadata.get_mut(name) {
            map.retain(|key, _| !is_mark(key));
            if map.is_empty() {
                metadata.remove(name);
            }
        }
    }
}

fn walk(before: Option<&Value>, after: Option<&Value>, path: &mut String, paths: &mut Vec<String>) {
    if before == after || paths.len() >= PATHS {
        return;
    }
    let length = path.len();
    match (before, after) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                path.push('.');
                path.push_str(name);
                walk(before.get(name), after.get(name), path, paths);
                path.truncate(length);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            for at in 0..before.len().max(after.len()) {
                path.push_str(&format!("[{at}]"));
                walk(before.get(at), after.get(at), path, paths);
                path.truncate(length);
            }
        }
        _ => paths.push(path.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn of(before: &Value, after: &Value) -> Vec<String> {
        differences(before.to_string().as_bytes(), after.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn marks_and_bookkeeping_are_no_difference_and_values_are_not_named() {
        let before = json!({"metadata": {"name": "a", "resourceVersion": "1"}, "data": {"k": "canary"}});
        let after = json!({"metadata": {"name": "a", "resourceVersion": "2", "managedFields": [{}],
            "labels": {"lockstep.dev/managed": "true"}, "annotations": {"lockstep.dev/policy": "p"}},
            "data": {"k": "canary"}});
        assert_eq!(of(&before, &after), Vec::<String>::new());
        let other = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "other", "l": [1, {"m": 2}]}});
        assert_eq!(of(&before, &other), [".data.k", ".data.l", ".metadata.labels"]);
        let list = json!({"data": {"l": [1, {"m": 3}]}, "metadata": {"name": "a", "labels": {"x": "y"}}});
        assert_eq!(of(&other, &list), [".data.k", ".data.l[1].m"]);
    }

    #[test]
    fn no_more_paths_than_a_person_reads() {
        let many: Map<String, Value> = (0..1_000).map(|n| (format!("k{n}"), Value::from(n))).collect();
        let (none, many) = (json!({"data": {"x": 1}}), json!({ "data": many }));
        assert_eq!(of(&none, &many).len(), PATHS);
    }
}
