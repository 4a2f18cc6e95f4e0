//! Walks of values along their types: validate, list the fields, merge, compare, remove.
//!
//! A port of the rules of structured-merge-diff 4.0 (`typed`), the version in Kubernetes 1.20, as small recursive
//! functions. Where a rule looks odd (an emptied list becomes null) it is the original's, and the conformance suite
//! has a row that shows it.

use serde_json::{Map, Value};

use super::fields::{FieldSet, Step};
use super::schema::{ListType, MapType, Scalar, Schema, Shape, TypeId};

/// Which fields were added, changed, removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) added: FieldSet,
    pub(crate) modified: FieldSet,
    pub(crate) removed: FieldSet,
}

impl Comparison {
    pub(crate) fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// How an item of a list is found again.
fn step_of(schema: &Schema, list: &ListType, index: usize, item: &Value) -> Result<Step, String> {
    if list.atomic {
        return Ok(Step::Index(index));
    }
    if list.keys.is_empty() {
        return match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            scalar => Ok(Step::Value(scalar.to_string())),
        };
    }
    let Value::Object(members) = item else {
        let what = if item.is_null() { "a null" } else { "non-map" };
        return Err(format!("associative list with keys may not have {what} element"));
    };
    let mut key = Vec::new();
    for name in &list.keys {
        let default = || schema.get(list.item).map.as_ref().and_then(|map| map.key_defaults.get(name));
        let Some(value) = members.get(name).or_else(default) else {
            return Err(format!(
                "associative list with keys has an element that omits key field {name:?} (and doesn't have default value)"
            ));
        };
        key.push((name.clone(), value.to_string()));
    }
    key.sort();
    Ok(Step::Key(key))
}

fn field_type(map: &MapType, name: &str) -> Option<TypeId> {
    map.fields.get(name).copied().or(map.other)
}

/// What is wrong with a value, each with its path.
pub(crate) fn validate(schema: &Schema, id: TypeId, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    check(schema, id, value, "", &mut errors);
    errors
}

/// As Go joins them.
pub(crate) fn joined(errors: &[String]) -> String {
    match errors {
        [only] => only.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    }
}

fn check(schema: &Schema, id: TypeId, value: &Value, path: &str, errors: &mut Vec<String>) {
    let colon = if path.is_empty() { "" } else { ": " };
    if value.is_null() {
        return;
    }
    match schema.shape(id, Some(value)) {
        Shape::Scalar(scalar) => {
            let (fits, expected) = match scalar {
                Scalar::Text | Scalar::Bytes | Scalar::Quantity => (value.is_string(), "string"),
                Scalar::Number => (value.is_number(), "numeric (int or float)"),
                Scalar::Bool => (value.is_boolean(), "boolean"),
                Scalar::Any => (true, ""),
            };
            if !fits {
                errors.push(format!("{path}{colon}expected {expected}, got {value}"));
            }
        }
        Shape::List(list) => {
            let Some(items) = value.as_array() else {
                errors.push(format!("{path}{colon}expected list, got {value}"));
                return;
            };
            let mut seen: Vec<Step> = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let step = match step_of(schema, list, index, item) {
                    Ok(step) => step,
                    Err(error) => {
                        errors.push(format!("{path}{colon}element {index}: {error}"));
                        return;
                    }
                };
                if seen.contains(&step) {
                    errors.push(format!("{path}{colon}duplicate entries for key {}", step.path()));
                }
                check(schema, list.item, item, &format!("{path}{}", step.path()), errors);
                if !list.atomic {
                    seen.push(step);
                }
            }
        }
        Shape::Map(map) => {
            let Some(members) = value.as_object() else {
                errors.push(format!("{path}{colon}expected map, got {value}"));
                return;
            };
            for (name, member) in members {
                let inner = format!("{path}.{name}");
                match field_type(map, name) {
                    Some(id) => check(schema, id, member, &inner, errors),
                    None => {
                        errors.push(format!("{inner}: field not declared in schema"));
                        return;
                    }
                }
            }
        }
    }
}

/// The fields that a manager who applies this value owns.
pub(crate) fn field_set(schema: &Schema, id: TypeId, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    collect(schema, id, value, &mut Vec::new(), &mut set);
    set
}

fn collect(schema: &Schema, id: TypeId, value: &Value, path: &mut Vec<Step>, set: &mut FieldSet) {
    match schema.shape(id, Some(value)) {
        Shape::Scalar(_) => set.insert(path),
        Shape::List(list) if list.atomic => set.insert(path),
        Shape::Map(map) if map.atomic => set.insert(path),
        Shape::List(list) => {
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                let Ok(step) = step_of(schema, list, index, item) else { continue };
                path.push(step);
                collect(schema, list.item, item, path, set);
                set.insert(path);
                path.pop();
            }
        }
        Shape::Map(map) => {
            for (name, member) in value.as_object().into_iter().flatten() {
                let Some(id) = field_type(map, name) else { continue };
                path.push(Step::Field(name.clone()));
                collect(schema, id, member, path, set);
                if !map.fields.contains_key(name) {
                    set.insert(path);
                }
                path.pop();
            }
        }
    }
}

/// Both empty or not there: then a map or list counts as a leaf, which keeps "empty" and "absent" apart.
fn both_empty(lhs: usize, rhs: usize) -> bool {
    lhs == 0 && rhs == 0
}

/// What an apply of `rhs` onto `lhs` gives, before anything is removed.
pub(crate) fn merge(schema: &Schema, id: TypeId, lhs: Option<&Value>, rhs: Option<&Value>) -> Option<Value> {
    let leaf = || rhs.or(lhs).cloned();
    match schema.shape(id, rhs.or(lhs)) {
        Shape::Scalar(_) => leaf(),
        Shape::List(list) => {
            let (left, right) = (items(lhs), items(rhs));
            if list.atomic || both_empty(left.len(), right.len()) {
                return leaf();
            }
            let right: Vec<_> = right
                .iter()
                .enumerate()
                .filter_map(|(n, item)| Some((step_of(schema, list, n, item).ok()?, item)))
                .collect();
            let mut out = Vec::new();
            let mut seen = Vec::new();
            for (index, item) in left.iter().enumerate() {
                let Ok(step) = step_of(schema, list, index, item) else { continue };
                let other = right.iter().find(|(other, _)| *other == step).map(|(_, other)| *other);
                out.extend(merge(schema, list.item, Some(item), other));
                seen.push(step);
            }
            for (_, item) in right.iter().filter(|(step, _)| !seen.contains(step)) {
                out.extend(merge(schema, list.item, None, Some(item)));
            }
            (!out.is_empty()).then_some(Value::Array(out))
        }
        Shape::Map(map) => {
            let empty = Map::new();
            let (left, right) = (members(lhs, &empty), members(rhs, &empty));
            if map.atomic || both_empty(left.len(), right.len()) {
                return leaf();
            }
            let mut out = Map::new();
            for name in left.keys().chain(right.keys().filter(|name| !left.contains_key(*name))) {
                let Some(id) = field_type(map, name) else { continue };
                if let Some(value) = merge(schema, id, left.get(name), right.get(name)) {
                    out.insert(name.clone(), value);
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn members<'a>(value: Option<&'a Value>, empty: &'a Map<String, Value>) -> &'a Map<String, Value> {
    value.and_then(Value::as_object).unwrap_or(empty)
}

/// What differs between two values of a type.
pub(crate) fn compare(schema: &Schema, id: TypeId, lhs: &Value, rhs: &Value) -> Comparison {
    let mut walk = Compare { schema, path: Vec::new(), out: Comparison::default() };
    walk.node(id, Some(lhs), Some(rhs));
    walk.out
}

struct Compare<'a> {
    schema: &'a Schema,
    path: Vec<Step>,
    out: Comparison,
}

impl Compare<'_> {
    fn leaf(&mut self, lhs: Option<&Value>, rhs: Option<&Value>) {
        match (lhs, rhs) {
            (None, _) => self.out.added.insert(&self.path),
            (_, None) => self.out.removed.insert(&self.path),
            (Some(lhs), Some(rhs)) if !equal(lhs, rhs) => self.out.modified.insert(&self.path),
            _ => {}
        }
    }

    /// A map or list that came or went is itself added or removed.
    fn whole(&mut self, lhs: Option<&Value>, rhs: Option<&Value>) {
        match (lhs, rhs) {
            (None, _) => self.out.added.insert(&self.path),
            (_, None) => self.out.removed.insert(&self.path),
            _ => {}
        }
    }

    fn node(&mut self, id: TypeId, lhs: Option<&Value>, rhs: Option<&Value>) {
        let schema = self.schema;
        if let (Some(left), Some(right)) = (lhs, rhs)
            && left.is_object() != right.is_object()
            && !left.is_null()
            && !right.is_null()
        {
            self.shaped(schema.shape(id, lhs), lhs, rhs);
        }
        let by = match (lhs, rhs) {
            (_, Some(right)) if !right.is_null() => rhs,
            (Some(_), _) => lhs,
            _ => rhs,
        };
        self.shaped(schema.shape(id, by), lhs, rhs);
    }

    fn shaped(&mut self, shape: Shape<'_>, lhs: Option<&Value>, rhs: Option<&Value>) {
        match shape {
            Shape::Scalar(_) => self.leaf(lhs, rhs),
            Shape::List(list) => {
                let (left, right) = (items(lhs), items(rhs));
                if list.atomic || both_empty(left.len(), right.len()) {
                    return self.leaf(lhs, rhs);
                }
                self.list(list, left, right);
                self.whole(lhs, rhs);
            }
            Shape::Map(map) => {
                let empty = Map::new();
                let (left, right) = (members(lhs, &empty), members(rhs, &empty));
                if map.atomic || both_empty(left.len(), right.len()) {
                    return self.leaf(lhs, rhs);
                }
                for name in left.keys().chain(right.keys().filter(|name| !left.contains_key(*name))) {
                    let Some(id) = field_type(map, name) else { continue };
                    self.path.push(Step::Field(name.clone()));
                    self.node(id, left.get(name), right.get(name));
                    self.path.pop();
                }
                self.whole(lhs, rhs);
            }
        }
    }

    fn list(&mut self, list: &ListType, left: &[Value], right: &[Value]) {
        let schema = self.schema;
        let keyed = |items: &[Value]| -> Vec<(Step, usize)> {
            let steps = items.iter().enumerate();
            steps.filter_map(|(n, item)| Some((step_of(schema, list, n, item).ok()?, n))).collect()
        };
        let (left_steps, right_steps) = (keyed(left), keyed(right));
        for (step, n) in &left_steps {
            let other = right_steps.iter().find(|(other, _)| other == step).map(|(_, n)| &right[*n]);
            self.path.push(step.clone());
            self.node(list.item, Some(&left[*n]), other);
            self.path.pop();
        }
        for (step, n) in right_steps.iter().filter(|(step, _)| !left_steps.iter().any(|(s, _)| s == step)) {
            self.path.push(step.clone());
            self.node(list.item, None, Some(&right[*n]));
            self.path.pop();
        }
    }
}

/// Numbers are equal by value: 1 and 1.0.
fn equal(lhs: &Value, rhs: &Value) -> bool {
    match (lhs, rhs) {
        (Value::Number(l), Value::Number(r)) => l == r || l.as_f64() == r.as_f64(),
        (Value::Array(l), Value::Array(r)) => l.len() == r.len() && l.iter().zip(r).all(|(l, r)| equal(l, r)),
        (Value::Object(l), Value::Object(r)) => {
            l.len() == r.len() && l.iter().all(|(name, l)| r.get(name).is_some_and(|r| equal(l, r)))
        }
        _ => lhs == rhs,
    }
}

/// A value without these fields. What is emptied by that becomes null.
pub(crate) fn remove(schema: &Schema, id: TypeId, value: &Value, gone: &FieldSet) -> Value {
    match schema.shape(id, Some(value)) {
        Shape::Scalar(_) => value.clone(),
        Shape::List(list) => {
            let items = items(Some(value));
            if items.is_empty() || list.atomic {
                return Value::Null;
            }
            let mut out = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let Ok(step) = step_of(schema, list, index, item) else { continue };
                if !gone.has(&step) {
                    out.push(descend(schema, list.item, item, gone.below(&step)));
                }
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        Shape::Map(map) => {
            let empty = Map::new();
            let members = members(Some(value), &empty);
            if members.is_empty() || map.atomic {
                return Value::Null;
            }
            let mut out = Map::new();
            for (name, member) in members {
                let step = Step::Field(name.clone());
                if !gone.has(&step) {
                    let value = match field_type(map, name) {
                        Some(id) => descend(schema, id, member, gone.below(&step)),
                        None => member.clone(),
                    };
                    out.insert(name.clone(), value);
                }
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
    }
}

fn descend(schema: &Schema, id: TypeId, value: &Value, gone: Option<&FieldSet>) -> Value {
    gone.map_or_else(|| value.clone(), |gone| remove(schema, id, value, gone))
}
