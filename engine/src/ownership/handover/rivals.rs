//! What cannot stay beside a body: the other member of a one-of, the item with the same name.

use serde_json::Value;

use crate::ownership::fieldset::{FieldSet, PathElement};
use crate::ownership::project::Items;

/// A place in an object: what is there and whose it is, and what is asked for.
pub(super) struct Sides<'a> {
    /// What retired managers and we own.
    pub(super) theirs: &'a FieldSet,
    /// What everybody else owns.
    pub(super) others: Option<&'a FieldSet>,
    pub(super) live: &'a Value,
    pub(super) body: &'a Value,
}

/// One step of a field as a validation error names it: `.spec`, `.volumes`, `[1]`.
enum Step<'a> {
    Member(&'a str),
    /// The position is that of an object nobody has seen: every item may be meant.
    Item,
}

fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let mut parts = part.split('[');
        steps.extend(parts.next().filter(|name| !name.is_empty()).map(Step::Member));
        steps.extend(parts.map(|_| Step::Item));
    }
    steps
}

/// Adds what stands against the body by this error: the items that hold a value that may be there once, or the fields
/// beside the one that is named.
pub(super) fn rivals(sides: &Sides<'_>, path: &str, twice: bool, found: &mut FieldSet) {
    let steps = steps(path);
    let Some((last, above)) = steps.split_last() else { return };
    if matches!(steps.first(), Some(Step::Member("metadata" | "status"))) {
        return;
    }
    if let (true, Step::Member(name)) = (twice, last) {
        return below(sides, above, Some(name), found);
    }
    let before = found.clone();
    // The error may name what holds the fields, as `spec` does for both numbers of a disruption budget,
    below(sides, &steps, None, found);
    if *found == before && steps.len() > 1 {
        // or what holds what holds them, as `spec.defaultBackend` does for the port of its service,
        at(sides, &steps, &anywhere, found);
    }
    if *found == before && !above.is_empty() {
        // or one of them.
        below(sides, above, None, found);
    }
}

/// Goes to a place by members only.
fn at(sides: &Sides<'_>, steps: &[Step<'_>], go: &dyn Fn(&Sides<'_>, &mut FieldSet), found: &mut FieldSet) {
    match steps.split_first() {
        None => go(sides, found),
        Some((Step::Member(name), rest)) => {
            let element = PathElement::Field((*name).to_owned());
            if let (Some(live), Some(body)) = (sides.live.get(name), sides.body.get(name)) {
                descend(sides, element, live, body, found, |sides, found| at(sides, rest, go, found));
            }
        }
        Some((Step::Item, _)) => {}
    }
}

/// Members that the body does not have, at any depth.
fn anywhere(sides: &Sides<'_>, found: &mut FieldSet) {
    beside(sides, found);
    let (Some(live), Some(body)) = (sides.live.as_object(), sides.body.as_object()) else { return };
    for (name, live) in live {
        if let Some(body) = body.get(name) {
            descend(sides, PathElement::Field(name.clone()), live, body, found, anywhere);
        }
    }
}

/// `twice`: the member whose value may be there once.
fn below(sides: &Sides<'_>, steps: &[Step<'_>], twice: Option<&str>, found: &mut FieldSet) {
    match steps.split_first() {
        None if twice.is_none() => beside(sides, found),
        None => {}
        Some((Step::Member(name), rest)) => {
            let element = PathElement::Field((*name).to_owned());
            if let (Some(live), Some(body)) = (sides.live.get(name), sides.body.get(name)) {
                descend(sides, element, live, body, found, |sides, found| below(sides, rest, twice, found));
            }
        }
        Some((Step::Item, rest)) => items(sides, rest, twice, found),
    }
}

/// Members that the body does not have.
fn beside(sides: &Sides<'_>, found: &mut FieldSet) {
    let (Some(live), Some(body)) = (sides.live.as_object(), sides.body.as_object()) else { return };
    for (name, value) in live.iter().filter(|(name, _)| !body.contains_key(*name)) {
        let element = PathElement::Field(name.clone());
        // What nobody owns was chosen by the server.
        let is_theirs = sides.theirs.children.contains_key(&element);
        if is_theirs && sides.others.is_none_or(|others| !others.children.contains_key(&element)) {
            found.children.entry(element).or_default().extend(&all_of(value));
        }
    }
}

fn items(sides: &Sides<'_>, rest: &[Step<'_>], twice: Option<&str>, found: &mut FieldSet) {
    let (Some(live), Some(body)) = (sides.live.as_array(), sides.body.as_array()) else { return };
    let (mut there, mut wanted) = (Items::new(live), Items::new(body));
    for element in sides.theirs.children.keys() {
        let Some(item) = there.locate(element).and_then(|at| live.get(at)) else { continue };
        match wanted.locate(element).and_then(|at| body.get(at)) {
            Some(same) => {
                descend(sides, element.clone(), item, same, found, |sides, found| {
                    below(sides, rest, twice, found)
                });
            }
            None if rest.is_empty() => {
                let is_twice = twice.and_then(|name| Some((name, item.get(name)?)));
                let is_twice = is_twice
                    .is_some_and(|(name, value)| body.iter().any(|wanted| wanted.get(name) == Some(value)));
                if is_twice && sides.others.is_none_or(|others| !others.children.contains_key(element)) {
                    found.children.entry(element.clone()).or_default().extend(&all_of(item));
                }
            }
            None => {}
        }
    }
}

fn descend(
    sides: &Sides<'_>,
    element: PathElement,
    live: &Value,
    body: &Value,
    found: &mut FieldSet,
    go: impl FnOnce(&Sides<'_>, &mut FieldSet),
) {
    let none = FieldSet::default();
    let theirs = sides.theirs.children.get(&element).unwrap_or(&none);
    let others = sides.others.and_then(|others| others.children.get(&element));
    let mut inner = FieldSet::default();
    go(&Sides { theirs, others, live, body }, &mut inner);
    if !inner.is_empty() {
        found.children.entry(element).or_default().extend(&inner);
    }
}

/// A value with all that is in it; lists as one.
fn all_of(value: &Value) -> FieldSet {
    let members = value.as_object().into_iter().flatten();
    let children = members.map(|(name, child)| (PathElement::Field(name.clone()), all_of(child)));
    FieldSet { member: true, children: children.collect() }
}
