//! Parts of field sets, and of objects by them.

use serde_json::{Map, Value};

use super::Zone;
use crate::ownership::fieldset::{FieldSet, PathElement};
use crate::ownership::pattern::{Pattern, Place, Segment};
use crate::ownership::project::Items;

/// The part of a set that patterns cover. Without the object, places in lists count as covered where they may be.
pub(super) fn select(set: &FieldSet, object: Option<&Value>, patterns: &[&Pattern]) -> FieldSet {
    let active: Vec<&[Segment]> = patterns.iter().map(|pattern| pattern.segments()).collect();
    let mut found = FieldSet::default();
    if !active.is_empty() {
        walk(set, object, &active, Zone::Object, &mut found);
    }
    found
}

fn walk(set: &FieldSet, value: Option<&Value>, active: &[&[Segment]], zone: Zone, found: &mut FieldSet) {
    if zone == Zone::Free && active.iter().any(|rest| rest.is_empty()) {
        found.extend(set);
        return;
    }
    let items = value.and_then(Value::as_array);
    let mut index = items.map(|items| Items::new(items));
    for (element, child) in &set.children {
        let zone = match element {
            PathElement::Field(name) => zone.below(name),
            _ => Some(Zone::Free),
        };
        let Some(zone) = zone else { continue };
        let (next, below) = match element {
            PathElement::Field(name) => {
                (step(active, |s| s.matches(Place::Member(name))), value.and_then(|value| value.get(name)))
            }
            _ => match index.as_mut().map(|index| index.locate(element)) {
                Some(Some(at)) => {
                    let item = items.and_then(|items| items.get(at));
                    let matches = |s: &Segment| item.is_some_and(|item| s.matches(Place::Item(at, item)));
                    (step(active, matches), item)
                }
                // The item is not there any more: there is nothing to hold.
                Some(None) => continue,
                None => (step(active, |_| true), None),
            },
        };
        if next.is_empty() {
            continue;
        }
        let mut inner = FieldSet::default();
        walk(child, below, &next, zone, &mut inner);
        if !inner.is_empty() {
            found.children.entry(element.clone()).or_default().extend(&inner);
        }
    }
}

fn step<'p>(active: &[&'p [Segment]], matches: impl Fn(&Segment) -> bool) -> Vec<&'p [Segment]> {
    let behind = |rest: &&'p [Segment]| match rest.split_first() {
        // A pattern that ended above covers what is below; at the top that is everything.
        None => Some(*rest),
        Some((segment, behind)) => matches(segment).then_some(behind),
    };
    active.iter().filter_map(behind).collect()
}

/// Without items of lists that the body has no longer: a field that is left must not keep them.
pub(super) fn still_asked(set: &FieldSet, object: &Value, body: &Value) -> FieldSet {
    let mut kept = FieldSet { member: set.member, ..FieldSet::default() };
    for (element, child) in &set.children {
        let (below, asked) = match (element, object, body) {
            (PathElement::Field(name), _, _) => (object.get(name), body.get(name)),
            (_, Value::Array(items), Value::Array(asked)) => {
                let at = |list: &[Value]| Items::new(list).locate(element);
                match (at(items), at(asked)) {
                    (Some(here), Some(there)) => (items.get(here), asked.get(there)),
                    _ => continue,
                }
            }
            _ => (None, None),
        };
        let child = match (below, asked) {
            (Some(below), Some(asked)) => still_asked(child, below, asked),
            _ => child.clone(),
        };
        if !child.is_empty() {
            kept.children.insert(element.clone(), child);
        }
    }
    kept
}

/// With the items that fields of the set are in, and the fields by which these are found: no apply goes without.
pub(super) fn keyed(set: &FieldSet) -> FieldSet {
    let mut out = FieldSet { member: set.member, ..FieldSet::default() };
    for (element, child) in set.children.iter().filter(|(_, child)| !child.is_empty()) {
        let mut child = keyed(child);
        if let PathElement::Key(keys) = element {
            child.member = true;
            for (key, _) in keys {
                let own = child.children.entry(PathElement::Field(key.clone())).or_default();
                own.member = true;
            }
        }
        out.children.insert(element.clone(), child);
    }
    out
}

/// Do both hold the same fields? Maps in between that are members of their own do not count.
pub(super) fn leaves_equal(one: &FieldSet, other: &FieldSet) -> bool {
    leaves(one) == leaves(other)
}

fn leaves(set: &FieldSet) -> FieldSet {
    let children = set.children.iter().filter(|(_, child)| !child.is_empty());
    let children: std::collections::BTreeMap<_, _> =
        children.map(|(element, child)| (element.clone(), leaves(child))).collect();
    FieldSet { member: set.member && children.is_empty(), children }
}

/// The part of an object that a set names, with its values.
pub(super) fn extract(object: &Value, set: &FieldSet) -> Value {
    if set.children.is_empty() {
        return if set.member { object.clone() } else { Value::Object(Map::new()) };
    }
    match object {
        Value::Object(members) => {
            let mut out = Map::new();
            for (element, child) in &set.children {
                if let PathElement::Field(name) = element
                    && let Some(found) = members.get(name)
                {
                    out.insert(name.clone(), extract(found, child));
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => {
            let mut index = Items::new(items);
            let located = set.children.iter();
            let mut found: Vec<(usize, &FieldSet)> =
                located.filter_map(|(element, child)| Some((index.locate(element)?, child))).collect();
            found.sort_by_key(|(at, _)| *at);
            let item = |(at, child): (usize, &FieldSet)| Some(extract(items.get(at)?, child));
            Value::Array(found.into_iter().filter_map(item).collect())
        }
        other => other.clone(),
    }
}
