//! Fields that are left to the target: what our part of a body is, seen against the object that is there.
//!
//! A field that only we own is reset when the next apply omits it. So what we own and are to leave is first applied with
//! its live value as [`YIELD_MANAGER`](super::YIELD_MANAGER), and omitted only then (decision 0013).

mod cut;
mod part;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::entries::{ManagedFields, ManagerEntry};
use super::fieldset::FieldSet;
use super::pattern::Pattern;
use super::{MANAGER, YIELD_MANAGER};
use crate::marks::is_mark;
use crate::object::ObjectError;
use cut::Cut;
use part::{extract, keyed, leaves_equal, select, still_asked};

/// What becomes of a field of ours that somebody else has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Drift {
    /// It is taken back.
    #[default]
    Correct,
    /// It stays so, and is reported.
    Report,
    /// It stays so.
    Ignore,
}

/// Which fields of a copy are not ours to write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Leave {
    /// Never written.
    pub never: BTreeSet<Pattern>,
    /// Written when the object is created, and given up then.
    pub after_create: BTreeSet<Pattern>,
    /// What these field managers own is left to them.
    pub managers: BTreeSet<String>,
    /// What becomes of fields that others took; the first rule that covers a field counts, else [`Drift::Correct`].
    pub drift: Vec<(Pattern, Drift)>,
}

impl Leave {
    /// Everything is ours.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { never, after_create, managers, drift } = self;
        never.is_empty() && after_create.is_empty() && managers.is_empty() && drift.is_empty()
    }

    /// The same for an object that is not ours yet: nobody has taken anything from us.
    #[must_use]
    pub fn for_adoption(&self) -> Self {
        Self { drift: Vec::new(), ..self.clone() }
    }

    fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.never.iter().chain(&self.after_create)
    }

    /// Equal bytes: the same rules.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        // Texts and sets always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What is asked for of an object that is there, as far as it does not depend on who owns what.
    #[must_use]
    pub fn without_left(&self, body: &Value) -> Value {
        let patterns: Vec<&Pattern> = self.patterns().collect();
        Cut::of_patterns(body, &patterns, None).apply(body)
    }

    /// What an object is created with.
    #[must_use]
    pub fn at_creation(&self, body: &Value) -> Value {
        let patterns: Vec<&Pattern> = self.never.iter().collect();
        Cut::of_patterns(body, &patterns, None).apply(body)
    }

    /// The part of a set that is never ours to write, in the object as it is.
    pub(super) fn covered(&self, set: &FieldSet, object: &Value) -> FieldSet {
        let patterns: Vec<&Pattern> = self.patterns().collect();
        select(set, Some(object), &patterns)
    }

    /// The parts of a set that the rules for drift cover, rule by rule.
    pub(super) fn drift_covered(&self, set: &FieldSet, object: &Value) -> Vec<(FieldSet, Drift)> {
        let rules = self.drift.iter();
        rules.map(|(pattern, drift)| (select(set, Some(object), &[pattern]), *drift)).collect()
    }

    /// May this set of ours hold something that is to be left? Positions and values in lists are not looked at.
    #[must_use]
    pub fn may_hold(&self, ours: &FieldSet) -> bool {
        let patterns: Vec<&Pattern> = self.patterns().collect();
        !select(ours, None, &patterns).is_empty()
    }
}

/// A field that was left to whom it belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Left {
    /// The field, as an API server writes it.
    pub path: String,
    /// Its field manager.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// RFC 3339, of that manager's last write.
    pub time: String,
    /// Is it to be reported as drift?
    pub reported: bool,
}

/// Our part of a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// To be applied as [`YIELD_MANAGER`] first: everything that it is to hold, with live values.
    pub yields: Option<Value>,
    /// To be applied as [`MANAGER`].
    pub body: Value,
    /// Fields that others took, and that stay theirs.
    pub left: Vec<Left>,
}

/// Our part of `body`, for the object as it is.
///
/// # Errors
/// When its managedFields cannot be read, or ours are of another API version than it.
pub fn share(body: &Value, live: &Value, leave: &Leave) -> Result<Share, ObjectError> {
    let managed = managed_fields(live)?;
    let ours = entry_of(&managed, MANAGER, live)?;
    let yielded = entry_of(&managed, YIELD_MANAGER, live)?;
    let others = managed.others()?;
    let patterns: Vec<&Pattern> = leave.patterns().collect();
    let given = select(&ours, Some(live), &patterns);
    let yields = if given.is_empty() {
        None
    } else {
        let mut holds = yielded;
        holds.extend(&given);
        let holds = keyed(&still_asked(&holds, live, body));
        Some(named(extract(live, &holds), live))
    };
    let mut cut = Cut::of_patterns(body, &patterns, Some((&ours, &others)));
    let mut left = Vec::new();
    for entry in managed.0.iter().filter(|entry| is_other(entry)) {
        cut.take_foreign(body, entry, &ours, leave, &mut left)?;
    }
    left.sort();
    left.dedup();
    Ok(Share { yields, body: cut.apply(body), left })
}

/// What [`YIELD_MANAGER`] is to hold after our part was applied, where that is less than it holds: the object as it was
/// answered, and the whole body that is asked for.
///
/// # Errors
/// When its managedFields cannot be read.
pub fn give_back(body: &Value, answer: &Value, leave: &Leave) -> Result<Option<Value>, ObjectError> {
    let managed = managed_fields(answer)?;
    let yielded = entry_of(&managed, YIELD_MANAGER, answer)?;
    if yielded.is_empty() {
        return Ok(None);
    }
    let patterns: Vec<&Pattern> = leave.patterns().collect();
    let kept = select(&yielded, Some(answer), &patterns);
    let kept = keyed(&still_asked(&kept, answer, body));
    Ok((!leaves_equal(&kept, &yielded)).then(|| named(extract(answer, &kept), answer)))
}

/// Where in an object we are: what names it and our marks are nobody's to leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zone {
    Object,
    Metadata,
    Marked,
    Free,
}

impl Zone {
    /// The zone of a member; none: it always stays.
    fn below(self, member: &str) -> Option<Self> {
        match (self, member) {
            (Self::Object, "apiVersion" | "kind") | (Self::Metadata, "name" | "namespace") => None,
            (Self::Object, "metadata") => Some(Self::Metadata),
            (Self::Metadata, "labels" | "annotations") => Some(Self::Marked),
            (Self::Marked, mark) if is_mark(mark) => None,
            _ => Some(Self::Free),
        }
    }
}

fn managed_fields(object: &Value) -> Result<ManagedFields, ObjectError> {
    object.pointer("/metadata/managedFields").map_or(Ok(ManagedFields::default()), ManagedFields::from_value)
}

fn is_other(entry: &ManagerEntry) -> bool {
    !entry.is_ours() && entry.manager != YIELD_MANAGER && entry.subresource != "status"
}

fn entry_of(managed: &ManagedFields, manager: &str, object: &Value) -> Result<FieldSet, ObjectError> {
    let Some(entry) = managed.entry(manager) else { return Ok(FieldSet::default()) };
    let version = object.get("apiVersion").and_then(Value::as_str);
    if version.is_some_and(|version| version != entry.api_version) {
        return Err(ObjectError::Undecodable {
            category: "fields of another API version",
            line: 0,
            column: 0,
        });
    }
    Ok(entry.fields()?.without_bookkeeping())
}

/// With what every apply must say.
fn named(mut part: Value, object: &Value) -> Value {
    for name in ["apiVersion", "kind"] {
        if let Some(value) = object.get(name) {
            part[name] = value.clone();
        }
    }
    for name in ["name", "namespace"] {
        if let Some(value) = object.pointer(&format!("/metadata/{name}")) {
            part["metadata"][name] = value.clone();
        }
    }
    part
}

#[cfg(test)]
mod tests;
