//! Is an object meant by a policy, and if not, why?

use lockstep_engine::ObjectKey;
use lockstep_engine::catalogue::{Asked, Eligibility, Facts, SkipReason, eligibility};
use lockstep_engine::selector::LabelDifference;
use serde::{Deserialize, Serialize};

use crate::policy::{CompiledPolicy, Resource};

/// The verdict on one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selection {
    /// It is meant.
    Selected {
        /// Index of the first entry of `spec.resources` that selects it.
        resource: usize,
    },
    /// It is not.
    NotSelected {
        /// What came nearest.
        why: Why,
    },
}

impl Selection {
    /// Is it meant?
    #[must_use]
    pub fn is_selected(&self) -> bool {
        matches!(self, Self::Selected { .. })
    }
}

/// Why an object is not selected. Ordered by how near it came: the further down, the nearer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Why {
    /// No entry names the kind.
    KindNotListed,
    /// Entries for the kind list namespaces, and its namespace is not among them.
    NamespaceNotListed,
    /// Its namespace is excluded.
    NamespaceExcluded,
    /// Entries for the kind list names, and its name is not among them.
    NameNotListed,
    /// Its labels do not match.
    LabelsDiffer(LabelDifference),
    /// All conditions match, and the field catalogue leaves it out.
    Skipped(SkipReason),
}

impl Why {
    /// The stable code, as in JSON output.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::KindNotListed => "KindNotListed",
            Self::NamespaceNotListed => "NamespaceNotListed",
            Self::NamespaceExcluded => "NamespaceExcluded",
            Self::NameNotListed => "NameNotListed",
            Self::LabelsDiffer(_) => "LabelsDiffer",
            Self::Skipped(reason) => reason.code(),
        }
    }

    /// One sentence for `explain`.
    #[must_use]
    pub fn sentence(&self, policy: &CompiledPolicy, key: &ObjectKey) -> String {
        let name = &policy.name;
        match self {
            Self::KindNotListed => format!("policy {name} does not list kind {}", key.gk),
            Self::NamespaceNotListed if key.namespace.is_empty() => {
                format!("policy {name} lists namespaces for kind {}, and the object has none", key.gk)
            }
            Self::NamespaceNotListed => format!("policy {name} does not list namespace {}", key.namespace),
            Self::NamespaceExcluded => format!("policy {name} excludes namespace {}", key.namespace),
            Self::NameNotListed => format!("policy {name} does not list the name {}", key.name),
            Self::LabelsDiffer(LabelDifference { key, wanted, found: Some(found) }) => {
                format!("policy {name} wants the label {wanted}, and the object has {key}={found}")
            }
            Self::LabelsDiffer(LabelDifference { key, wanted, found: None }) => {
                format!("policy {name} wants the label {wanted}, and the object has no label {key}")
            }
            Self::Skipped(reason) => reason.sentence().to_owned(),
        }
    }
}

/// Does this policy mean this object of its source cluster? Depends on the policy and the object
/// only: not on other policies, and, but for the index, not on the order of entries. A suspended
/// policy still selects: what is suspended is writing.
#[must_use]
pub fn select(policy: &CompiledPolicy, key: &ObjectKey, facts: &Facts<'_>) -> Selection {
    let mut nearest = Why::KindNotListed;
    for (index, resource) in policy.resources_for(&key.gk) {
        match judge(resource, key, facts) {
            None => return Selection::Selected { resource: index },
            Some(why) => nearest = nearest.max(why),
        }
    }
    Selection::NotSelected { why: nearest }
}

fn judge(resource: &Resource, key: &ObjectKey, facts: &Facts<'_>) -> Option<Why> {
    let condition = &resource.condition;
    if condition.exclude_namespaces.contains(key.namespace.as_ref()) {
        return Some(Why::NamespaceExcluded);
    }
    if !condition.namespaces.is_empty() && !condition.namespaces.contains(key.namespace.as_ref()) {
        return Some(Why::NamespaceNotListed);
    }
    if !condition.covers_name(&key.name) {
        return Some(Why::NameNotListed);
    }
    if let Some(difference) = condition.selector.difference(facts.labels) {
        return Some(Why::LabelsDiffer(difference));
    }
    let asked = Asked {
        name: condition.names.contains(key.name.as_ref()),
        namespace: condition.namespaces.contains(key.namespace.as_ref()),
        owned: resource.include_owned,
    };
    match eligibility(key, facts, asked) {
        Eligibility::Skip(reason) => Some(Why::Skipped(reason)),
        Eligibility::Sync => None,
    }
}
