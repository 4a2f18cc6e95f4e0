//! What is asked for, against what is there.

use serde_json::{Map, Value};

use super::value::is_same;
use super::{Comparison, DifferenceKind, Found};
use crate::catalogue::{ValueType, is_built_in, is_filled_in, value_type};
use crate::identity::GroupKind;
use crate::ownership::fieldset::{FieldSet, PathElement};
use crate::ownership::project::Items;

/// Who owns what at a place: we, and all others.
type Owners<'a> = (Option<&'a FieldSet>, Option<&'a FieldSet>);

/// Lists whose items run one after the other: their order is part of what is asked for.
const ORDERED: &[&str] = &["initContainers"];

/// Maps that a server of Go types leaves out where they are empty. Structs it keeps: `emptyDir: {}` means something.
const OMITTED_IF_EMPTY: &[&str] = &[
    "annotations",
    "binaryData",
    "capacity",
    "data",
    "hard",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "overhead",
    "parameters",
    "requests",
    "selector",
];

struct Walk<'a, 'f> {
    gk: &'a GroupKind,
    built_in: bool,
    /// Names of the members on the way, without lists.
    names: Vec<&'a str>,
    found: &'f mut Found,
}

pub(super) fn object(comparison: &Comparison<'_>, ours: &FieldSet, others: &FieldSet, found: &mut Found) {
    let Comparison { gk, desired, live, .. } = comparison;
    let (Value::Object(desired), Value::Object(live)) = (desired, live) else { return };
    let mut walk = Walk { gk, built_in: is_built_in(gk), names: Vec::new(), found };
    for (name, child) in desired {
        match name.as_str() {
            // What an object is called is nobody's field.
            "apiVersion" | "kind" => {}
            "metadata" => walk.metadata(child, live.get(name), (Some(ours), Some(others))),
            _ => walk.member(name, child, live, (Some(ours), Some(others))),
        }
    }
}

impl<'a> Walk<'a, '_> {
    fn metadata(&mut self, desired: &'a Value, live: Option<&Value>, owners: Owners<'_>) {
        let (Value::Object(desired), Some(Value::Object(live))) = (desired, live) else { return };
        let element = PathElement::Field("metadata".to_owned());
        let owners = below(owners, &element);
        self.names.push("metadata");
        self.found.path.push(element);
        for (name, child) in desired.iter().filter(|(name, _)| !matches!(name.as_str(), "name" | "namespace"))
        {
            self.member(name, child, live, owners);
        }
        self.found.path.pop();
        self.names.pop();
    }

    fn member(&mut self, name: &'a str, desired: &'a Value, live: &Map<String, Value>, owners: Owners<'_>) {
        if desired.is_null() && self.built_in {
            // Nothing is asked for.
            return;
        }
        let element = PathElement::Field(name.to_owned());
        let owners = below(owners, &element);
        self.names.push(name);
        self.found.path.push(element);
        match live.get(name).filter(|live| !(self.built_in && live.is_null())) {
            Some(live) => self.node(desired, live, owners),
            None if self.is_left_out(name, desired) => {}
            None => self.found.note(DifferenceKind::Missing),
        }
        self.found.path.pop();
        self.names.pop();
    }

    /// Does a server of this kind store nothing for it?
    fn is_left_out(&self, name: &str, desired: &Value) -> bool {
        let empty = match desired {
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty() && OMITTED_IF_EMPTY.contains(&name),
            _ => false,
        };
        empty && (self.built_in || self.names.first() == Some(&"metadata"))
    }

    fn node(&mut self, desired: &'a Value, live: &Value, owners: Owners<'_>) {
        match (desired, live) {
            (Value::Object(members), Value::Object(there)) => {
                if owners.0.is_some_and(|ours| ours.children.is_empty()) {
                    return self.one_map(members, there, owners.1);
                }
                for (name, child) in members {
                    self.member(name, child, there, owners);
                }
            }
            (Value::Array(items), Value::Array(there)) => match owners.0 {
                Some(ours) if !ours.children.is_empty() => self.list(items, there, owners),
                _ => self.one_list(items, there, owners.1),
            },
            _ => self.scalar(desired, live),
        }
    }

    fn scalar(&mut self, desired: &Value, live: &Value) {
        if !is_same(desired, live, self.value_type()) {
            self.found.note(DifferenceKind::Different);
        }
    }

    fn value_type(&self) -> ValueType {
        value_type(self.gk, &self.names)
    }

    /// A list whose items are owned one by one. Each is compared with the one of the same key, wherever that stands.
    fn list(&mut self, desired: &'a [Value], live: &[Value], owners: Owners<'_>) {
        let (mut asked, mut there) = (Items::new(desired), Items::new(live));
        let mut matched: Vec<Option<usize>> = vec![None; desired.len()];
        let mut known = vec![false; desired.len()];
        for element in owners.0.into_iter().flat_map(|ours| ours.children.keys()) {
            let Some(at) = asked.locate(element) else { continue };
            known[at] = true;
            matched[at] = there.locate(element);
            self.found.path.push(element.clone());
            match matched[at].and_then(|place| live.get(place)) {
                None => self.found.note(DifferenceKind::Missing),
                Some(found) => {
                    if let Some(item) = desired.get(at)
                        && !matches!(element, PathElement::Value(_))
                    {
                        self.node(item, found, below(owners, element));
                    }
                }
            }
            self.found.path.pop();
        }
        // We own nothing of it: it was not written, or whose it is cannot be told.
        for at in (0..desired.len()).filter(|at| !known[*at]) {
            self.found.path.push(PathElement::Index(at));
            self.found.note(DifferenceKind::Missing);
            self.found.path.pop();
        }
        let order: Vec<usize> = matched.into_iter().flatten().collect();
        if self.names.last().is_some_and(|name| ORDERED.contains(name)) && !order.is_sorted() {
            self.found.note(DifferenceKind::Different);
        }
    }

    /// A map or struct that is owned as one value: what is in it and nobody else owns is ours, too.
    fn one_map(
        &mut self,
        desired: &Map<String, Value>,
        live: &Map<String, Value>,
        others: Option<&FieldSet>,
    ) {
        let whole = (desired, live, others);
        if !self.same_map(whole, &mut self.names.clone(), true) {
            self.found.note(DifferenceKind::Different);
        }
    }

    fn one_list(&mut self, desired: &[Value], live: &[Value], others: Option<&FieldSet>) {
        let theirs = others.is_some_and(|others| !others.children.is_empty());
        if desired.is_empty() && theirs {
            // A list that we hold empty, and others have put their items into.
            return;
        }
        if !self.same_list(desired, live, &mut self.names.clone()) {
            self.found.note(DifferenceKind::Different);
        }
    }

    fn same_map(
        &self,
        (desired, live, others): (&Map<String, Value>, &Map<String, Value>, Option<&FieldSet>),
        names: &mut Vec<&str>,
        strict: bool,
    ) -> bool {
        let asked = |value: &Value| !(value.is_null() && self.built_in);
        let parent = names.last().copied().unwrap_or_default();
        let of_others = |name: &String| {
            others.is_some_and(|others| others.children.contains_key(&PathElement::Field(name.clone())))
        };
        let more = live.iter().any(|(name, value)| {
            let ours = desired.get(name).is_some_and(asked);
            strict && !ours && !value.is_null() && !of_others(name) && !is_filled_in(self.gk, parent, name)
        });
        !more
            && desired.iter().filter(|(_, value)| asked(value)).all(|(name, value)| match live.get(name) {
                Some(found) => {
                    let mut names = names.clone();
                    names.push(name);
                    self.same(value, found, &mut names, strict)
                }
                None => self.is_left_out(name, value),
            })
    }

    /// Items may hold more than was asked for: servers fill in defaults.
    fn same_list(&self, desired: &[Value], live: &[Value], names: &mut Vec<&str>) -> bool {
        desired.len() == live.len()
            && desired.iter().zip(live).all(|(one, other)| self.same(one, other, names, false))
    }

    /// Is it the same, as one value?
    fn same(&self, desired: &Value, live: &Value, names: &mut Vec<&str>, strict: bool) -> bool {
        match (desired, live) {
            (Value::Object(desired), Value::Object(live)) => {
                self.same_map((desired, live, None), names, strict)
            }
            (Value::Array(desired), Value::Array(live)) => self.same_list(desired, live, names),
            (desired, live) => is_same(desired, live, value_type(self.gk, names)),
        }
    }
}

fn below<'a>(owners: Owners<'a>, element: &PathElement) -> Owners<'a> {
    let child = |set: Option<&'a FieldSet>| set.and_then(|set| set.children.get(element));
    (child(owners.0), child(owners.1))
}
