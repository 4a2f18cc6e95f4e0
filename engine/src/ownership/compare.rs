//! Does an object hold what was asked for? (decision 0016)
//!
//! An apply that is answered with 200 is no proof: what another manager owns stays, webhooks change values, a server may
//! drop what it does not know. So what is there is compared with what was asked for, under the paths that are ours to
//! write. What only the target has is no difference; what we wrote before and the source has removed since is one, as long
//! as it is there.

mod extra;
mod value;
mod walk;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::YIELD_MANAGER;
use super::entries::{ManagedFields, ManagerEntry};
use super::fieldset::{FieldSet, PathElement};
use super::leave::Leave;
use crate::identity::GroupKind;
use crate::object::ObjectError;

/// Most differences named: enough for a person to see what is going on.
const NAMED: usize = 20;
/// Bytes of their paths together. A path may be as long as its object.
const PATH_BYTES: usize = 16 << 10;
/// Managers named per difference.
const HOLDERS: usize = 4;

/// What is not as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DifferenceKind {
    /// Asked for, and not there.
    Missing,
    /// There with another value.
    Different,
    /// We wrote it, the source has removed it since, and it is still there.
    Extra,
}

/// A field manager that owns the field, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// Field manager.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
}

/// One difference; never a value (I13).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// The field, as an API server writes it.
    pub path: String,
    /// What about it.
    pub kind: DifferenceKind,
    /// Who holds it beside us, the first few; nobody: the API server or a webhook made it so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,
}

/// All differences of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differences {
    /// The first of them.
    pub named: Vec<Difference>,
    /// How many more there are.
    #[serde(default)]
    pub more: u64,
}

/// Why an object differs. Names are stable; programs read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyDifferent {
    /// Other managers hold some of the fields.
    HeldByOthers,
    /// Nobody else holds them: the API server or a webhook changed or dropped what was written.
    ChangedByServer,
    /// The source removed them, and the API server or a webhook put them back.
    NotRemoved,
}

impl WhyDifferent {
    /// The reason of the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HeldByOthers => "HeldByOthers",
            Self::ChangedByServer => "ChangedByServer",
            Self::NotRemoved => "NotRemoved",
        }
    }

    /// What a person can do about it.
    fn remedy(self) -> &'static str {
        match self {
            Self::HeldByOthers => {
                "let these managers give the fields up, or give them away by `ownership.ignoreDifferences`"
            }
            Self::ChangedByServer => {
                "find the webhook or the schema that does it, or give the fields away by `ownership.ignoreDifferences`"
            }
            Self::NotRemoved => {
                "find the default or the webhook that puts them back, or give them away by `ownership.ignoreDifferences`"
            }
        }
    }
}

impl Differences {
    /// Is everything as it was asked for?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.more == 0
    }

    /// Why, in one word.
    #[must_use]
    pub fn why(&self) -> WhyDifferent {
        if self.named.iter().any(|difference| !difference.holders.is_empty()) {
            WhyDifferent::HeldByOthers
        } else if self.named.iter().any(|difference| difference.kind != DifferenceKind::Extra) {
            WhyDifferent::ChangedByServer
        } else {
            WhyDifferent::NotRemoved
        }
    }

    /// For people: which fields, who holds them, what to do.
    #[must_use]
    pub fn sentence(&self) -> String {
        let named: Vec<String> = self.named.iter().map(Difference::to_string).collect();
        let more = if self.more == 0 { String::new() } else { format!(" and {} more", self.more) };
        let (named, remedy) = (named.join(", "), self.why().remedy());
        format!("it was written, and is not what the policy asks for: {named}{more}; {remedy}")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            DifferenceKind::Missing => "is missing",
            DifferenceKind::Different => "has another value",
            DifferenceKind::Extra => "was removed at the source and is still there",
        };
        write!(f, "{} {what}", self.path)?;
        for (n, Holder { manager, operation }) in self.holders.iter().enumerate() {
            write!(f, "{}{manager} ({operation})", if n == 0 { ", held by " } else { " and " })?;
        }
        Ok(())
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// Its kind: values of built-in kinds are typed.
    pub gk: &'a GroupKind,
    /// What was asked for, without what is left to others.
    pub desired: &'a Value,
    /// The object as an API server shows it.
    pub live: &'a Value,
    /// What earlier writes of ours owned.
    pub was_ours: &'a FieldSet,
    /// What is not ours to write.
    pub leave: &'a Leave,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// What is not as it was asked for.
    pub differences: Differences,
    /// What the source removed and is still there: part of [`Comparison::was_ours`] next time.
    pub lingering: FieldSet,
}

/// Compares what is there with what was asked for.
///
/// # Errors
/// When managedFields of the object cannot be read.
pub fn compare(comparison: &Comparison<'_>) -> Result<Compared, ObjectError> {
    let managed = comparison
        .live
        .pointer("/metadata/managedFields")
        .map_or(Ok(ManagedFields::default()), ManagedFields::from_value)?;
    let ours = managed.ours().map(ManagerEntry::fields).transpose()?.unwrap_or_default();
    let others = managed.others()?;
    let mut found = Found { path: Vec::new(), places: Vec::new(), more: 0, lingering: FieldSet::default() };
    walk::object(comparison, &ours, &others, &mut found);
    extra::extras(comparison, &managed, &ours, &others, &mut found)?;
    let Found { places, more, lingering, .. } = found;
    let holders = Holders::of(&managed, !places.is_empty())?;
    let mut differences = Differences { named: Vec::new(), more };
    let mut room = PATH_BYTES;
    for (path, kind) in places {
        let text = text_of(&path);
        match room.checked_sub(text.len()) {
            Some(rest) => room = rest,
            None => {
                differences.more += 1;
                continue;
            }
        }
        differences.named.push(Difference { path: text, kind, holders: holders.at(&path) });
    }
    differences.named.sort();
    Ok(Compared { differences, lingering })
}

/// Differences as they are found.
struct Found {
    /// Where the walk is.
    path: Vec<PathElement>,
    places: Vec<(Vec<PathElement>, DifferenceKind)>,
    more: u64,
    lingering: FieldSet,
}

impl Found {
    /// The place where the walk is differs.
    fn note(&mut self, kind: DifferenceKind) {
        if kind == DifferenceKind::Extra {
            self.lingering.insert(&self.path);
        }
        if self.places.len() < NAMED {
            self.places.push((self.path.clone(), kind));
        } else {
            self.more += 1;
        }
    }
}

/// As an API server writes it.
fn text_of(path: &[PathElement]) -> String {
    let mut text = String::new();
    path.iter().for_each(|element| element.write(&mut text));
    text
}

/// The other managers, with what they own.
struct Holders<'a>(Vec<(&'a ManagerEntry, FieldSet)>);

impl<'a> Holders<'a> {
    fn of(managed: &'a ManagedFields, wanted: bool) -> Result<Self, ObjectError> {
        let others = managed.0.iter().filter(|entry| wanted && !entry.is_ours());
        others.map(|entry| Ok((entry, entry.fields()?))).collect::<Result<_, ObjectError>>().map(Self)
    }

    /// Who owns this place, something in it, or a value that it is part of.
    fn entries(&self, path: &[PathElement]) -> impl Iterator<Item = &'a ManagerEntry> {
        self.0.iter().filter(|(_, set)| set.touches(path)).map(|(entry, _)| *entry)
    }

    fn at(&self, path: &[PathElement]) -> Vec<Holder> {
        let mut holders: Vec<Holder> = self
            .entries(path)
            .filter(|entry| entry.manager != YIELD_MANAGER)
            .map(|entry| Holder { manager: entry.manager.clone(), operation: entry.operation.clone() })
            .collect();
        holders.sort();
        holders.dedup();
        holders.truncate(HOLDERS);
        holders
    }
}

#[cfg(test)]
mod tests;
