//! What of a manager's fields is asked for, and what only the target has.

use serde_json::Value;

use crate::ownership::fieldset::{FieldSet, PathElement};
use crate::ownership::project::Items;

/// A field set in parts. What is in neither is owned by nobody from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// Is handed over.
    pub(super) claimed: FieldSet,
    /// Stays.
    pub(super) kept: FieldSet,
    /// Does less stay than there was?
    pub(super) changed: bool,
}

/// Claimed is what `body` or one of the sets has. Inside an item of a keyed list that is claimed nothing stays: the item
/// could never be removed, because of a field in it that only the target has. Such a field is nobody's from now on, keeps
/// its value, and goes with its item.
pub(super) fn split(theirs: &FieldSet, body: Option<&Value>, sets: &[Option<&FieldSet>]) -> Split {
    let mut split = Split::default();
    let sets: Vec<&FieldSet> = sets.iter().copied().flatten().collect();
    split.changed = walk(theirs, body, &sets, false, &mut split.claimed, &mut split.kept);
    split
}

fn walk(
    theirs: &FieldSet,
    body: Option<&Value>,
    sets: &[&FieldSet],
    in_item: bool,
    claimed: &mut FieldSet,
    kept: &mut FieldSet,
) -> bool {
    let items = body.and_then(Value::as_array);
    let mut index = items.map(|items| Items::new(items));
    let mut changed = false;
    for (element, child) in &theirs.children {
        let wanted = match element {
            PathElement::Field(name) => body.and_then(|body| body.get(name)),
            _ => index.as_mut().and_then(|index| index.locate(element)).and_then(|at| items?.get(at)),
        };
        let below: Vec<&FieldSet> = sets.iter().filter_map(|set| set.children.get(element)).collect();
        if wanted.is_none() && below.is_empty() {
            if in_item {
                changed = true;
            } else {
                kept.children.insert(element.clone(), child.clone());
            }
            continue;
        }
        let is_item = matches!(element, PathElement::Key(_));
        let (mut ours, mut rest) = (FieldSet::default(), FieldSet::default());
        changed |= walk(child, wanted, &below, in_item || is_item, &mut ours, &mut rest);
        if child.member {
            changed = true;
            // An apply owns leaves and items; a map or struct is owned by owning what is in it.
            ours.member = is_item || child.children.is_empty();
        }
        for (part, of) in [(ours, &mut *claimed), (rest, &mut *kept)] {
            if !part.is_empty() {
                of.children.insert(element.clone(), part);
            }
        }
    }
    changed
}

/// The part of a set that is of metadata.
pub(super) fn metadata_of(set: &FieldSet) -> FieldSet {
    let metadata = PathElement::Field("metadata".to_owned());
    let child = set.children.get(&metadata).cloned();
    FieldSet { member: false, children: child.into_iter().map(|child| (metadata.clone(), child)).collect() }
}

/// One step of a field as a validation error names it: `.spec`, `.volumes`, `[1]`.
enum Step<'a> {
    Member(&'a str),
    Item,
}

fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (name, items) = part.split_once('[').map_or((part, None), |(name, rest)| (name, Some(rest)));
        if !name.is_empty() {
            steps.push(Step::Member(name));
        }
        // The position is that of an object nobody has seen: every item may be meant.
        steps.extend(items.into_iter().flat_map(|rest| rest.split('[')).map(|_| Step::Item));
    }
    steps
}

/// Adds what a manager owns, the body does not have, and stands against it by this error: the items that hold a value
/// that must be there once, or the fields beside the one that is named.
pub(super) fn rivals(
    theirs: &FieldSet,
    live: &Value,
    body: &Value,
    path: &str,
    twice: bool,
    found: &mut FieldSet,
) {
    let steps = steps(path);
    let Some((last, above)) = steps.split_last() else { return };
    let walk = Rivals { twice: twice.then_some(last) };
    walk.walk(theirs, live, body, above, found);
    if found.is_empty() && !twice {
        // The error may name what holds the fields, and not one of them.
        walk.walk(theirs, live, body, &steps, found);
    }
}

struct Rivals<'a> {
    /// The member whose value is there twice.
    twice: Option<&'a Step<'a>>,
}

impl Rivals<'_> {
    fn walk(&self, theirs: &FieldSet, live: &Value, body: &Value, steps: &[Step<'_>], found: &mut FieldSet) {
        match steps.split_first() {
            None => {
                for (element, child) in &theirs.children {
                    if let PathElement::Field(name) = element
                        && live.get(name).is_some()
                        && body.get(name).is_none()
                    {
                        found.children.entry(element.clone()).or_default().extend(child);
                    }
                }
            }
            Some((Step::Member(name), rest)) => {
                let element = PathElement::Field((*name).to_owned());
                if let (Some(theirs), Some(live), Some(body)) =
                    (theirs.children.get(&element), live.get(name), body.get(name))
                {
                    self.below(element, theirs, live, body, rest, found);
                }
            }
            Some((Step::Item, rest)) => self.items(theirs, live, body, rest, found),
        }
    }

    fn items(&self, theirs: &FieldSet, live: &Value, body: &Value, rest: &[Step<'_>], found: &mut FieldSet) {
        let (Some(live), Some(body)) = (live.as_array(), body.as_array()) else { return };
        let (mut there, mut wanted) = (Items::new(live), Items::new(body));
        for (element, theirs) in &theirs.children {
            let Some(item) = there.locate(element).and_then(|at| live.get(at)) else { continue };
            match wanted.locate(element).and_then(|at| body.get(at)) {
                Some(same) => self.below(element.clone(), theirs, item, same, rest, found),
                None if rest.is_empty() && self.is_twice(item, body) => {
                    found.children.entry(element.clone()).or_default().extend(theirs);
                }
                None => {}
            }
        }
    }

    fn is_twice(&self, item: &Value, body: &[Value]) -> bool {
        let Some(Step::Member(name)) = self.twice else { return false };
        item.get(name).is_some_and(|value| body.iter().any(|wanted| wanted.get(name) == Some(value)))
    }

    fn below(
        &self,
        element: PathElement,
        theirs: &FieldSet,
        live: &Value,
        body: &Value,
        rest: &[Step<'_>],
        found: &mut FieldSet,
    ) {
        if self.twice.is_some() && rest.is_empty() {
            return;
        }
        let mut inner = FieldSet::default();
        self.walk(theirs, live, body, rest, &mut inner);
        if !inner.is_empty() {
            found.children.entry(element).or_default().extend(&inner);
        }
    }
}
