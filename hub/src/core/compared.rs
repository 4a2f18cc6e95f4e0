//! What is at a target, against what was asked for: what the agent's comparison found, and when to compare again
//! (decision 0016).

use lockstep_engine::ownership::{Difference, DifferenceKind, Differences, FieldSet, Holder};
use lockstep_engine::plan::Holds;
use lockstep_engine::{ClusterId, Millis};
use lockstep_wire::v1;

use super::Core;
use crate::store::{ComparedRow, Finding, ManagerRow, ObjectRow, PlacementRow, Store};

/// A copy that is not as it was asked for is written again that seldom, though nothing that is known of has changed: what
/// holds it (a webhook, a schema) may be gone without a sign.
const AGAIN_MS: Millis = 15 * 60_000;
/// A copy whose changes cannot be told from afar (it is watched in another API version than the one it is written in) is
/// compared no more often than this, however often it changes.
const VERIFY_MS: Millis = 60_000;
/// As many managers as an agent names at most: one that is not among them may be there all the same.
const MANAGERS_NAMED: usize = 32;

impl<S: Store> Core<S> {
    /// What an agent found, as it is kept.
    pub(super) fn finding(&self, target: ClusterId, compared: Option<v1::Compared>) -> Finding {
        let Some(v1::Compared { differences, more, lingering }) = compared else {
            return Finding::NotCompared;
        };
        let named: Vec<Difference> = differences.into_iter().map(difference).collect();
        let differences = Differences { named, more };
        if differences.is_empty() {
            return Finding::AsAsked;
        }
        let lingering = String::from_utf8(lingering.to_vec()).unwrap_or_default();
        Finding::Differs { differences, lingering, target: self.compared_at(target) }
    }

    /// What may change the answer, and is not of the object.
    fn compared_at(&self, target: ClusterId) -> String {
        self.clusters.get(&target).map(|cluster| cluster.row.server_version.clone()).unwrap_or_default()
    }

    /// Is a copy that differs to be written again? Once somebody who held what differs has let go of it, the API server
    /// has changed, or it is time. Never because of other events: a webhook would be written to for ever.
    pub(super) fn differs_again(&self, row: &PlacementRow, object: Option<&ObjectRow>, now: Millis) -> bool {
        let Some(ComparedRow { at, found: Finding::Differs { differences, target, .. } }) =
            &row.fields.compared
        else {
            return false;
        };
        now >= at + AGAIN_MS || *target != self.compared_at(row.target) || is_let_go(row, object, differences)
    }
}

/// When a copy that is not as it was asked for is looked at again.
pub(super) fn again_at(row: &PlacementRow) -> Option<Millis> {
    row.fields.compared.as_ref().map(|compared| compared.at + AGAIN_MS)
}

/// Not to be compared before, if that is still to come.
pub(super) fn verify_at(row: &PlacementRow, now: Millis) -> Option<Millis> {
    let compared = row.fields.compared.as_ref().filter(|compared| compared.found != Finding::NotCompared)?;
    Some(compared.at + VERIFY_MS).filter(|at| *at > now)
}

/// Does the object hold what our last write asked for?
pub(super) fn holds(row: &PlacementRow, again: bool) -> Holds<'_> {
    match row.fields.compared.as_ref().map(|compared| &compared.found) {
        None => Holds::Unknown,
        Some(Finding::AsAsked) => Holds::AsAsked,
        Some(Finding::NotCompared) => Holds::NotCompared,
        Some(Finding::Differs { differences, .. }) => Holds::Differs { differences, again },
    }
}

/// What earlier writes owned and the source has removed since, where it was still there after the last one.
pub(super) fn lingering(row: &PlacementRow) -> Option<FieldSet> {
    match row.fields.compared.as_ref().map(|compared| &compared.found) {
        Some(Finding::Differs { lingering, .. }) => FieldSet::parse(lingering.as_bytes()).ok(),
        _ => None,
    }
}

/// Has somebody let go of what they held of the differences, by what was seen since our last write?
fn is_let_go(row: &PlacementRow, object: Option<&ObjectRow>, differences: &Differences) -> bool {
    let (Some(record), Some(object)) = (&row.record, object) else { return false };
    let Some(managed) = object.managed.as_ref() else { return false };
    if record.resource_version == object.resource_version || managed.managers.len() >= MANAGERS_NAMED {
        return false;
    }
    let is_below = |path: &str, above: &str| {
        path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let overlaps = |one: &str, other: &str| is_below(one, other) || is_below(other, one);
    let holds = |holder: &Holder, path: &str| {
        managed.managers.iter().any(|ManagerRow { name, operation, fields, truncated, .. }| {
            *name == holder.manager
                && *operation == holder.operation
                && (*truncated || fields.iter().any(|field| overlaps(field, path)))
        })
    };
    let held = differences.named.iter().flat_map(|one| one.holders.iter().map(|holder| (holder, &one.path)));
    held.into_iter().any(|(holder, path)| !holds(holder, path))
}

fn difference(difference: v1::Difference) -> Difference {
    let kind = match difference.kind() {
        v1::DifferenceKind::Missing => DifferenceKind::Missing,
        v1::DifferenceKind::Unspecified | v1::DifferenceKind::Different => DifferenceKind::Different,
        v1::DifferenceKind::Extra => DifferenceKind::Extra,
    };
    let v1::Difference { path, holders, .. } = difference;
    let holder = |v1::Manager { name, operation, .. }| Holder { manager: name, operation };
    Difference { path, kind, holders: holders.into_iter().map(holder).collect() }
}
