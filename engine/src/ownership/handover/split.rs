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
