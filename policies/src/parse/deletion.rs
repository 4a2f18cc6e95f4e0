//! `spec.deletion`: what happens to copies when their reason goes away.

use std::ops::RangeInclusive;

use crate::codes;
use crate::node::Node;
use crate::policy::{Budget, Deletion, Disposition, OnContainer, OnRewind};
use crate::reader::{Reader, join, shown};

const PATH: &str = "spec.deletion";
const FIELDS: &[&str] = &[
    "budget",
    "gracePeriod",
    "onSourceDelete",
    "onUnselect",
    "onPolicyDelete",
    "onSourceRewind",
    "containerDeleted",
    "adopted",
];
const DISPOSITIONS: &[(&str, Disposition)] =
    &[("Delete", Disposition::Delete), ("Orphan", Disposition::Orphan)];
const REWINDS: &[(&str, OnRewind)] = &[("Hold", OnRewind::Hold), ("Delete", OnRewind::Delete)];
const CONTAINERS: &[(&str, OnContainer)] = &[("Hold", OnContainer::Hold), ("Delete", OnContainer::Delete)];

const SECOND: i64 = 1_000;
pub(super) const DAY: i64 = 24 * 3_600 * SECOND;
/// Units of a duration, milliseconds.
const UNITS: [(&str, i64); 5] =
    [("ms", 1), ("s", SECOND), ("m", 60 * SECOND), ("h", 3_600 * SECOND), ("d", DAY)];
/// Longer than a month nobody remembers why something waits.
const LONGEST: i64 = 30 * DAY;
/// In a shorter window every delete would begin one, and nothing would be limited.
const SHORTEST_WINDOW: i64 = SECOND;

pub(super) fn deletion(reader: &mut Reader<'_>, node: &Node) -> Option<Deletion> {
    let fields = reader.fields(node, PATH, FIELDS)?;
    let default = Deletion::default();
    let mut choice = |name: &str, default| match fields.get(name) {
        Some(node) => reader.one_of(node, &join(PATH, name), DISPOSITIONS),
        None => Some(default),
    };
    let on_source_delete = choice("onSourceDelete", default.on_source_delete);
    let on_unselect = choice("onUnselect", default.on_unselect);
    let on_policy_delete = choice("onPolicyDelete", default.on_policy_delete);
    let adopted = choice("adopted", default.adopted);
    let on_source_rewind = match fields.get("onSourceRewind") {
        Some(node) => reader.one_of(node, &join(PATH, "onSourceRewind"), REWINDS),
        None => Some(default.on_source_rewind),
    };
    let container_deleted = match fields.get("containerDeleted") {
        Some(node) => reader.one_of(node, &join(PATH, "containerDeleted"), CONTAINERS),
        None => Some(default.container_deleted),
    };
    let grace_ms = match fields.get("gracePeriod") {
        Some(node) => {
            duration(reader, node, &join(PATH, "gracePeriod"), &(0..=LONGEST), "allowed is 0s to 30d")
        }
        None => Some(default.grace_ms),
    };
    let budget = fields.get("budget").map_or(Some(default.budget), |node| budget(reader, node));
    Some(Deletion {
        budget: budget?,
        grace_ms: grace_ms?,
        on_source_delete: on_source_delete?,
        on_unselect: on_unselect?,
        on_policy_delete: on_policy_delete?,
        on_source_rewind: on_source_rewind?,
        container_deleted: container_deleted?,
        adopted: adopted?,
    })
}

fn budget(reader: &mut Reader<'_>, node: &Node) -> Option<Budget> {
    const PATH: &str = "spec.deletion.budget";
    let fields = reader.fields(node, PATH, &["count", "percent", "window"])?;
    let default = Budget::default();
    let mut number = |name: &str, most, default| match fields.get(name) {
        Some(node) => reader.number(node, &join(PATH, name), &(0..=most)),
        None => Some(default),
    };
    let count = number("count", 1_000_000, default.count);
    let percent = number("percent", 100, u32::from(default.percent));
    let window_ms = match fields.get("window") {
        Some(node) => {
            let range = SHORTEST_WINDOW..=LONGEST;
            duration(reader, node, &join(PATH, "window"), &range, "allowed is 1s to 30d")
        }
        None => Some(default.window_ms),
    };
    Some(Budget { count: count?, percent: u8::try_from(percent?).ok()?, window_ms: window_ms? })
}

/// A whole number and a unit, as in `90s`; milliseconds.
pub(super) fn duration(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &str,
    range: &RangeInclusive<i64>,
    allowed: &str,
) -> Option<i64> {
    let text = reader.text(node, path)?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let (Some((_, unit)), false) = (unit, number.is_empty()) else {
        let message = format!("`{}` is not a duration", shown(text));
        let remedy = "write a whole number and ms, s, m, h or d, as in 10m";
        reader.error(codes::UNKNOWN_VALUE, node.place, path, message, remedy);
        return None;
    };
    let millis = number.parse().ok().and_then(|number: i64| number.checked_mul(*unit));
    let millis = millis.filter(|millis| range.contains(millis));
    if millis.is_none() {
        reader.error(codes::OUT_OF_RANGE, node.place, path, "the duration is out of range", allowed);
    }
    millis
}
