//! The projection of an object onto a set of fields.

use serde_json::{Map, Value};

use super::fieldset::{FieldSet, PathElement};

/// The part of `object` that `own` covers.
///
/// A leaf of the set takes the whole value below it (an atomic list or map), except what `others`
/// own inside: a map that we applied empty and others filled is ours as a map, not in its content.
/// List items keep the set's order, not the list's: reordering a keyed list is not drift.
#[must_use]
pub fn project(object: &Value, own: &FieldSet, others: &FieldSet) -> Value {
    node(object, own, Some(others)).unwrap_or_else(|| Value::Object(Map::new()))
}

/// Nothing when the set has nothing below, or the object does not have it.
fn node(value: &Value, own: &FieldSet, others: Option<&FieldSet>) -> Option<Value> {
    if own.children.is_empty() {
        return own.member.then(|| leaf(value, others));
    }
    let children = own.children.iter().filter_map(|(element, child)| {
        let found = find(value, element)?;
        let below = others.and_then(|others| others.children.get(element));
        Some((element, node(found, child, below)?))
    });
    match value {
        Value::Object(_) => {
            let mut out = Map::new();
            for (element, projected) in children {
                if let PathElement::Field(name) = element {
                    out.insert(name.clone(), projected);
                }
            }
            Some(Value::Object(out))
        }
        Value::Array(_) => Some(Value::Array(children.map(|(_, projected)| projected).collect())),
        // The shape is not that of the set: what is there instead, so that it is seen.
        other => Some(other.clone()),
    }
}

/// A whole value without what others own in it.
fn leaf(value: &Value, others: Option<&FieldSet>) -> Value {
    let Some(others) = others.filter(|others| !others.children.is_empty()) else { return value.clone() };
    match value {
        Value::Object(members) => {
            let mut out = Map::new();
            for (name, child) in members {
                match others.children.get(&PathElement::Field(name.clone())) {
                    Some(_) => {}
                    None => {
                        out.insert(name.clone(), child.clone());
                    }
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => {
            let owned: Vec<*const Value> = others
                .children
                .keys()
                .filter_map(|element| find(value, element))
                .map(std::ptr::from_ref)
                .collect();
            Value::Array(
                items.iter().filter(|item| !owned.contains(&std::ptr::from_ref(*item))).cloned().collect(),
            )
        }
        other => other.clone(),
    }
}

/// The value that a path element leads to.
fn find<'a>(value: &'a Value, element: &PathElement) -> Option<&'a Value> {
    match (element, value) {
        (PathElement::Field(name), Value::Object(members)) => members.get(name),
        (PathElement::Index(index), Value::Array(items)) => items.get(*index),
        (PathElement::Value(text), Value::Array(items)) => {
            items.iter().find(|item| canonical_json(item) == text.as_bytes())
        }
        (PathElement::Key(key), Value::Array(items)) => items.iter().find(|item| {
            key.iter().all(|(name, text)| match item.get(name) {
                Some(value) => canonical_json(value) == text.as_bytes(),
                // A key field with a default (`protocol: TCP`) may be missing in old objects.
                None => name == "protocol" && text == "\"TCP\"",
            })
        }),
        _ => None,
    }
}

/// JSON with sorted members and without spaces: the same bytes for the same value.
#[must_use]
pub fn canonical_json(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            // serde_json's own order depends on a feature that any crate may switch on.
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(b.0));
            out.push(b'{');
            for (n, (name, child)) in sorted.into_iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                text(name, out);
                out.push(b':');
                write(child, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (n, child) in items.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                write(child, out);
            }
            out.push(b']');
        }
        Value::String(string) => text(string, out),
        other => out.extend_from_slice(other.to_string().as_bytes()),
    }
}

fn text(string: &str, out: &mut Vec<u8>) {
    // A str always serialises.
    out.extend_from_slice(serde_json::to_string(string).unwrap_or_default().as_bytes());
}
