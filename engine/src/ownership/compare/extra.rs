//! What we wrote before, and the source has removed since.

use serde_json::Value;

use super::{Comparison, DifferenceKind, Found, Holders};
use crate::object::ObjectError;
use crate::ownership::entries::ManagedFields;
use crate::ownership::fieldset::{FieldSet, PathElement};
use crate::ownership::project::Items;
use crate::ownership::{Drift, YIELD_MANAGER};

pub(super) fn extras(
    comparison: &Comparison<'_>,
    managed: &ManagedFields,
    ours: &FieldSet,
    others: &FieldSet,
    found: &mut Found,
) -> Result<(), ObjectError> {
    let was_ours = comparison.was_ours.clone().without_bookkeeping();
    let places = Places { desired: Some(comparison.desired), live: comparison.live };
    let mut still = Vec::new();
    walk(&was_ours, Some(ours), Some(others), places, &mut Vec::new(), &mut still);
    if still.is_empty() {
        return Ok(());
    }
    let given = Given::of(comparison, &was_ours);
    let holders = Holders::of(managed, true)?;
    for path in still {
        if !given.is_given(&path, &holders) {
            found.path = path;
            found.note(DifferenceKind::Extra);
        }
    }
    found.path.clear();
    Ok(())
}

/// One place, in both.
#[derive(Clone, Copy)]
struct Places<'a> {
    desired: Option<&'a Value>,
    live: &'a Value,
}

fn walk(
    was: &FieldSet,
    ours: Option<&FieldSet>,
    others: Option<&FieldSet>,
    places: Places<'_>,
    path: &mut Vec<PathElement>,
    still: &mut Vec<Vec<PathElement>>,
) {
    let mut live = Children::of(places.live);
    let mut desired = places.desired.map(Children::of);
    for (element, was) in &was.children {
        let Some(found) = live.get(element) else { continue };
        let asked = desired.as_mut().and_then(|desired| desired.get(element));
        let own = ours.and_then(|ours| ours.children.get(element));
        let theirs = others.and_then(|others| others.children.get(element));
        path.push(element.clone());
        match own {
            // It is ours as one value: what is in it was compared.
            Some(own) if own.children.is_empty() && was.children.is_empty() => {}
            None if asked.is_some() && was.children.is_empty() => {}
            None if asked.is_none() && is_left_over(element, was, found, theirs) => still.push(path.clone()),
            _ => walk(was, own, theirs, Places { desired: asked, live: found }, path, still),
        }
        path.pop();
    }
}

/// Is it of our former write? Of a map that has members of its own those are asked one by one.
fn is_left_over(element: &PathElement, was: &FieldSet, found: &Value, theirs: Option<&FieldSet>) -> bool {
    let is_empty = match found {
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match element {
        PathElement::Field(_) if was.children.is_empty() => {
            // A map that we held, and others have filled, is theirs.
            theirs.is_none_or(|theirs| theirs.children.is_empty())
        }
        PathElement::Field(_) => was.member && is_empty,
        PathElement::Key(_) | PathElement::Value(_) | PathElement::Index(_) => true,
    }
}

/// Members of a map, or items of a list.
enum Children<'a> {
    Members(&'a serde_json::Map<String, Value>),
    Items(&'a [Value], Items<'a>),
    None,
}

impl<'a> Children<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::Object(members) => Self::Members(members),
            Value::Array(items) => Self::Items(items, Items::new(items)),
            _ => Self::None,
        }
    }

    fn get(&mut self, element: &PathElement) -> Option<&'a Value> {
        match (self, element) {
            (Self::Members(members), PathElement::Field(name)) => members.get(name),
            (Self::Items(items, index), element) => items.get(index.locate(element)?),
            _ => None,
        }
    }
}

/// What the policy gives away.
struct Given<'a> {
    comparison: &'a Comparison<'a>,
    /// By path.
    never: FieldSet,
    /// What others took: the first rule that covers a field counts.
    drift: Vec<(FieldSet, Drift)>,
}

impl<'a> Given<'a> {
    fn of(comparison: &'a Comparison<'a>, was_ours: &FieldSet) -> Self {
        let Comparison { leave, live, .. } = comparison;
        let never = leave.covered(was_ours, live);
        let drift = leave.drift_covered(was_ours, live);
        Self { comparison, never, drift }
    }

    fn is_given(&self, path: &[PathElement], holders: &Holders<'_>) -> bool {
        if self.never.touches(path) {
            return true;
        }
        let mut held = holders.entries(path).peekable();
        if held.peek().is_none() {
            return false;
        }
        let rule = self.drift.iter().find(|(covered, _)| covered.touches(path));
        let stays = rule.is_some_and(|(_, drift)| *drift != Drift::Correct);
        let managers = &self.comparison.leave.managers;
        stays || held.all(|entry| entry.manager == YIELD_MANAGER || managers.contains(&entry.manager))
    }
}
