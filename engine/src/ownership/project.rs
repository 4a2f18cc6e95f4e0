//! The projection of an object onto a set of fields.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fieldset::{FieldSet, PathElement};

/// A list has one set of key fields; a few more where its schema changed. Each costs a pass over the list.
const KEY_SHAPES: usize = 4;

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
    let below = |element| others.and_then(|others| others.children.get(element));
    match value {
        Value::Object(members) => {
            let mut out = Map::new();
            for (element, child) in &own.children {
                if let PathElement::Field(name) = element
                    && let Some(found) = members.get(name)
                    && let Some(projected) = node(found, child, below(element))
                {
                    out.insert(name.clone(), projected);
                }
            }
            Some(Value::Object(out))
        }
        Value::Array(items) => {
            let mut items = Items::new(items);
            let named = own.children.iter();
            let projected =
                named.filter_map(|(element, child)| node(items.take(element)?, child, below(element)));
            Some(Value::Array(projected.collect()))
        }
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
            let mut items = Items::new(items);
            for element in others.children.keys() {
                items.take(element);
            }
            Value::Array(items.left().cloned().collect())
        }
        other => other.clone(),
    }
}

/// The items of a list, found by path elements in a time that does not grow with the list. Each is found
/// once: a set that names an item in many ways (anyone may write one) makes no projection that is larger than
/// the object.
pub(super) struct Items<'a> {
    items: &'a [Value],
    taken: Vec<bool>,
    by_value: Option<BTreeMap<Vec<u8>, usize>>,
    by_key: BTreeMap<Vec<String>, ByKey>,
}

/// The first item of each key, by the canonical values of the key's fields.
type ByKey = BTreeMap<Vec<Vec<u8>>, usize>;

impl<'a> Items<'a> {
    pub(super) fn new(items: &'a [Value]) -> Self {
        Self { items, taken: vec![false; items.len()], by_value: None, by_key: BTreeMap::new() }
    }

    /// The item that a path element leads to, if it is the first to do so.
    fn take(&mut self, element: &PathElement) -> Option<&'a Value> {
        self.items.get(self.locate(element)?)
    }

    /// Its position, if the element is the first that leads there.
    pub(super) fn locate(&mut self, element: &PathElement) -> Option<usize> {
        let at = match element {
            PathElement::Field(_) => None,
            PathElement::Index(index) => Some(*index),
            PathElement::Value(text) => self.by_value(text),
            PathElement::Key(key) => self.by_key(key),
        }?;
        let taken = self.taken.get_mut(at)?;
        (!std::mem::replace(taken, true)).then_some(at)
    }

    /// Those that no element led to.
    fn left(&self) -> impl Iterator<Item = &'a Value> {
        self.items.iter().zip(&self.taken).filter(|(_, taken)| !**taken).map(|(item, _)| item)
    }

    fn by_value(&mut self, text: &str) -> Option<usize> {
        let items = self.items;
        let index = self
            .by_value
            .get_or_insert_with(|| first_of(items.iter().map(|item| Some(canonical_json(item)))));
        index.get(text.as_bytes()).copied()
    }

    fn by_key(&mut self, key: &[(String, String)]) -> Option<usize> {
        let names: Vec<String> = key.iter().map(|(name, _)| name.clone()).collect();
        if !self.by_key.contains_key(&names) {
            if self.by_key.len() >= KEY_SHAPES {
                return None;
            }
            let index = first_of(self.items.iter().map(|item| key_of(item, &names)));
            self.by_key.insert(names.clone(), index);
        }
        let values: Vec<Vec<u8>> = key.iter().map(|(_, value)| value.clone().into_bytes()).collect();
        self.by_key.get(&names)?.get(&values).copied()
    }
}

/// The canonical values of these fields of an item.
fn key_of(item: &Value, names: &[String]) -> Option<Vec<Vec<u8>>> {
    let value = |name: &String| match item.get(name) {
        Some(value) => Some(canonical_json(value)),
        // A key field with a default (`protocol: TCP`) may be missing in old objects.
        None => (name == "protocol").then(|| b"\"TCP\"".to_vec()),
    };
    names.iter().map(value).collect()
}

/// Where each key stands first.
fn first_of<K: Ord>(keys: impl Iterator<Item = Option<K>>) -> BTreeMap<K, usize> {
    let mut first = BTreeMap::new();
    for (at, key) in keys.enumerate() {
        if let Some(key) = key {
            first.entry(key).or_insert(at);
        }
    }
    first
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
