//! What is taken out of a body before it is applied.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Drift, Leave, Left, Zone};
use crate::object::ObjectError;
use crate::ownership::entries::ManagerEntry;
use crate::ownership::fieldset::{FieldSet, PathElement};
use crate::ownership::pattern::{Pattern, Place, Segment};
use crate::ownership::project::Items;

/// Places in a body that are taken out.
#[derive(Debug, Default)]
pub(super) struct Cut {
    whole: bool,
    members: BTreeMap<String, Cut>,
    items: BTreeMap<usize, Cut>,
}

/// Who owns what at a place: we, and all others.
type Owners<'a> = (Option<&'a FieldSet>, Option<&'a FieldSet>);

impl Cut {
    /// What these patterns cover. With the owners of the object that is there, nothing is taken out of a list or map that
    /// is owned as one value.
    pub(super) fn of_patterns(
        body: &Value,
        patterns: &[&Pattern],
        owners: Option<(&FieldSet, &FieldSet)>,
    ) -> Self {
        let mut cut = Self::default();
        if !patterns.is_empty() {
            let active: Vec<&[Segment]> = patterns.iter().map(|pattern| pattern.segments()).collect();
            let owners = owners.map_or((None, None), |(ours, others)| (Some(ours), Some(others)));
            cut.cover(body, Zone::Object, &active, owners);
        }
        cut
    }

    fn cover(&mut self, value: &Value, zone: Zone, active: &[&[Segment]], owners: Owners<'_>) {
        let matched = active.iter().any(|rest| rest.is_empty());
        if matched && zone == Zone::Free {
            self.whole = true;
            return;
        }
        if is_one_value(owners) {
            return;
        }
        match value {
            Value::Object(members) => {
                for (name, child) in members {
                    let Some(zone) = zone.below(name) else { continue };
                    let next = step(active, Place::Member(name));
                    if !next.is_empty() {
                        let element = PathElement::Field(name.clone());
                        let cut = self.members.entry(name.clone()).or_default();
                        cut.cover(child, zone, &next, below(owners, &element));
                    }
                }
            }
            Value::Array(items) => {
                let ours = by_position(owners.0, items);
                let others = by_position(owners.1, items);
                for (at, child) in items.iter().enumerate() {
                    let next = step(active, Place::Item(at, child));
                    if !next.is_empty() {
                        let owners = (ours.get(&at).copied(), others.get(&at).copied());
                        self.items.entry(at).or_default().cover(child, Zone::Free, &next, owners);
                    }
                }
            }
            _ => {}
        }
    }

    /// Takes out what another manager owns and is to keep; notes what was taken from us.
    pub(super) fn take_foreign(
        &mut self,
        body: &Value,
        entry: &ManagerEntry,
        ours: &FieldSet,
        leave: &Leave,
        left: &mut Vec<Left>,
    ) -> Result<(), ObjectError> {
        let given = leave.managers.contains(&entry.manager);
        if !given && leave.drift.iter().all(|(_, drift)| *drift == Drift::Correct) {
            return Ok(());
        }
        let rules: Vec<(&[Segment], Drift)> =
            leave.drift.iter().map(|(pattern, drift)| (pattern.segments(), *drift)).collect();
        let mut walk = Foreign { entry, given, left, path: String::new() };
        walk.walk(self, body, Zone::Object, &entry.fields()?, Some(ours), &rules);
        Ok(())
    }

    /// The body without these places, and without what they leave empty.
    pub(super) fn apply(&self, body: &Value) -> Value {
        self.rest(body).unwrap_or_else(|| body.clone())
    }

    fn rest(&self, value: &Value) -> Option<Value> {
        if self.whole {
            return None;
        }
        if self.members.is_empty() && self.items.is_empty() {
            return Some(value.clone());
        }
        match value {
            Value::Object(members) => {
                let kept = members.iter().filter_map(|(name, child)| {
                    let rest =
                        self.members.get(name).map_or_else(|| Some(child.clone()), |cut| cut.rest(child));
                    Some((name.clone(), rest?))
                });
                let kept: serde_json::Map<_, _> = kept.collect();
                (!kept.is_empty() || members.is_empty()).then_some(Value::Object(kept))
            }
            Value::Array(items) => {
                let kept = items.iter().enumerate().filter_map(|(at, child)| {
                    self.items.get(&at).map_or_else(|| Some(child.clone()), |cut| cut.rest(child))
                });
                let kept: Vec<Value> = kept.collect();
                (!kept.is_empty() || items.is_empty()).then_some(Value::Array(kept))
            }
            other => Some(other.clone()),
        }
    }
}

/// What is left of the patterns behind this place.
fn step<'p>(active: &[&'p [Segment]], place: Place<'_>) -> Vec<&'p [Segment]> {
    let behind = |rest: &&'p [Segment]| match rest.split_first() {
        // It covered the place above, and so all that is below.
        None => Some(*rest),
        Some((segment, behind)) => segment.matches(place).then_some(behind),
    };
    active.iter().filter_map(behind).collect()
}

fn below<'a>(owners: Owners<'a>, element: &PathElement) -> Owners<'a> {
    let child = |set: Option<&'a FieldSet>| set.and_then(|set| set.children.get(element));
    (child(owners.0), child(owners.1))
}

/// Do we own this place as a whole, and nobody a part of it?
fn is_one_value((ours, others): Owners<'_>) -> bool {
    ours.is_some_and(|ours| ours.member && ours.children.is_empty())
        && others.is_none_or(|others| others.children.is_empty())
}

/// The sets of a list's items, by their places in this list.
fn by_position<'a>(set: Option<&'a FieldSet>, items: &'a [Value]) -> BTreeMap<usize, &'a FieldSet> {
    let mut index = Items::new(items);
    let children = set.into_iter().flat_map(|set| &set.children);
    children.filter_map(|(element, child)| Some((index.locate(element)?, child))).collect()
}

/// A walk along what another manager owns.
struct Foreign<'a> {
    entry: &'a ManagerEntry,
    /// All that it owns is left to it.
    given: bool,
    left: &'a mut Vec<Left>,
    path: String,
}

impl Foreign<'_> {
    fn walk(
        &mut self,
        cut: &mut Cut,
        value: &Value,
        zone: Zone,
        theirs: &FieldSet,
        ours: Option<&FieldSet>,
        rules: &[(&[Segment], Drift)],
    ) {
        if theirs.children.is_empty() {
            if theirs.member && zone == Zone::Free {
                self.leaf(cut, ours, rules);
            }
            return;
        }
        let keys = theirs.children.keys();
        let items = match value {
            Value::Array(items) => {
                let mut index = Items::new(items);
                keys.map(|element| index.locate(element).and_then(|at| Some((at, items.get(at)?)))).collect()
            }
            _ => Vec::new(),
        };
        for (n, (element, child)) in theirs.children.iter().enumerate() {
            let ours = ours.and_then(|ours| ours.children.get(element));
            let length = self.path.len();
            element.write(&mut self.path);
            match (element, value) {
                (PathElement::Field(name), Value::Object(members)) => {
                    if let (Some(found), Some(zone)) = (members.get(name), zone.below(name)) {
                        let rules = behind(rules, Place::Member(name));
                        let cut = cut.members.entry(name.clone()).or_default();
                        self.walk(cut, found, zone, child, ours, &rules);
                    }
                }
                _ => {
                    if let Some(Some((at, found))) = items.get(n) {
                        let rules = behind(rules, Place::Item(*at, found));
                        let cut = cut.items.entry(*at).or_default();
                        self.item(cut, found, element, child, ours, &rules);
                    }
                }
            }
            self.path.truncate(length);
        }
    }

    /// An item of a list: the fields by which it is found stay.
    fn item(
        &mut self,
        cut: &mut Cut,
        value: &Value,
        element: &PathElement,
        theirs: &FieldSet,
        ours: Option<&FieldSet>,
        rules: &[(&[Segment], Drift)],
    ) {
        let PathElement::Key(keys) = element else {
            return self.walk(cut, value, Zone::Free, theirs, ours, rules);
        };
        let mut theirs = theirs.clone();
        for (key, _) in keys {
            theirs.children.remove(&PathElement::Field(key.clone()));
        }
        // Of an item that they only hold, nothing is theirs to keep from us.
        if !theirs.children.is_empty() {
            self.walk(cut, value, Zone::Free, &theirs, ours, rules);
        }
    }

    fn leaf(&mut self, cut: &mut Cut, ours: Option<&FieldSet>, rules: &[(&[Segment], Drift)]) {
        let drift =
            rules.iter().find(|(rest, _)| rest.is_empty()).map_or(Drift::Correct, |(_, drift)| *drift);
        let taken = ours.is_none_or(FieldSet::is_empty) && drift != Drift::Correct;
        if !self.given && !taken {
            return;
        }
        cut.whole = true;
        let ManagerEntry { manager, operation, time, .. } = self.entry;
        self.left.push(Left {
            path: self.path.clone(),
            manager: manager.clone(),
            operation: operation.clone(),
            time: time.clone(),
            reported: !self.given && drift == Drift::Report,
        });
    }
}

fn behind<'p>(rules: &[(&'p [Segment], Drift)], place: Place<'_>) -> Vec<(&'p [Segment], Drift)> {
    let behind = |(rest, drift): &(&'p [Segment], Drift)| match rest.split_first() {
        None => Some((*rest, *drift)),
        Some((segment, behind)) => segment.matches(place).then_some((behind, *drift)),
    };
    rules.iter().filter_map(behind).collect()
}
