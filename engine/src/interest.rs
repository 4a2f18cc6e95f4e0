//! What an agent watches, and which bodies it may send.
//!
//! The hub compiles interests from policies; the agent evaluates them with the very code below, so
//! both sides agree on what leaves a cluster. Objects that match no condition stay keys.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::catalogue::is_system_namespace;
use crate::identity::GroupKind;
use crate::selector::LabelSelector;

/// One way for an object to be wanted. Empty sets ask for nothing in particular.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Only objects in these namespaces; empty: in all but the cluster's own.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub namespaces: BTreeSet<String>,
    /// No objects in these namespaces.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exclude_namespaces: BTreeSet<String>,
    /// Only objects of these names; empty: of all names.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub names: BTreeSet<String>,
    /// Only objects with matching labels.
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pub selector: LabelSelector,
}

impl Condition {
    /// Is this namespace covered? The cluster's own namespaces are covered only where they are
    /// named, and a cluster-scoped object (empty namespace) only where no namespaces are asked for.
    #[must_use]
    pub fn covers_namespace(&self, namespace: &str) -> bool {
        let listed = if self.namespaces.is_empty() {
            !is_system_namespace(namespace)
        } else {
            self.namespaces.contains(namespace)
        };
        listed && !self.exclude_namespaces.contains(namespace)
    }

    /// Is this name covered?
    #[must_use]
    pub fn covers_name(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.contains(name)
    }

    /// Is the object wanted?
    #[must_use]
    pub fn matches(&self, namespace: &str, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.covers_namespace(namespace) && self.covers_name(name) && self.selector.matches(labels)
    }
}

/// What one watch of an agent is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interest {
    /// The kind that is watched.
    pub gk: GroupKind,
    /// The namespace that is watched; empty for the whole cluster.
    pub scope: String,
    /// Bodies of objects that match any of these are sent. A set: their order means nothing.
    pub conditions: BTreeSet<Condition>,
    /// The cluster is a target for this kind: for objects that lockstep manages, digests of what
    /// it owns are sent.
    pub managed: bool,
    /// Every object of this watch is archived when it is deleted: all bodies are sent.
    pub archive: bool,
}

impl Interest {
    /// Is the body of this object sent to the hub?
    #[must_use]
    pub fn wants_body(&self, namespace: &str, name: &str, labels: &BTreeMap<String, String>) -> bool {
        if !self.scope.is_empty() && self.scope != namespace {
            return false;
        }
        self.archive || self.conditions.iter().any(|condition| condition.matches(namespace, name, labels))
    }

    /// Equal digests: the same interest.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("lockstep 2026 interest v1");
        // Strings, booleans and sets always serialise.
        hasher.update(&serde_json::to_vec(self).unwrap_or_default());
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(items: &[&str]) -> BTreeSet<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn interest(conditions: Vec<Condition>) -> Interest {
        Interest {
            gk: GroupKind::new("", "Secret"),
            scope: String::new(),
            conditions: conditions.into_iter().collect(),
            managed: false,
            archive: false,
        }
    }

    #[test]
    fn bodies_are_sent_only_where_a_condition_matches() {
        let none = BTreeMap::new();
        let labels = BTreeMap::from([("env".to_owned(), "production".to_owned())]);
        let selector = LabelSelector { match_labels: labels.clone(), ..LabelSelector::default() };
        let interest = interest(vec![
            Condition { namespaces: set(&["shop"]), names: set(&["db"]), ..Condition::default() },
            Condition { selector, exclude_namespaces: set(&["dev"]), ..Condition::default() },
        ]);
        assert!(interest.wants_body("shop", "db", &none));
        assert!(!interest.wants_body("shop", "other", &none));
        assert!(!interest.wants_body("elsewhere", "db", &none));
        assert!(interest.wants_body("elsewhere", "x", &labels));
        assert!(!interest.wants_body("dev", "x", &labels));
        assert!(!self::interest(vec![]).wants_body("shop", "db", &labels), "no condition, no body");
    }

    #[test]
    fn system_namespaces_must_be_named_and_cluster_scoped_objects_have_none() {
        let none = BTreeMap::new();
        assert!(!interest(vec![Condition::default()]).wants_body("kube-system", "x", &none));
        let named = Condition { namespaces: set(&["kube-system"]), ..Condition::default() };
        assert!(interest(vec![named.clone()]).wants_body("kube-system", "x", &none));
        assert!(interest(vec![Condition::default()]).wants_body("", "x", &none));
        assert!(!interest(vec![named]).wants_body("", "x", &none));
    }

    #[test]
    fn a_scope_limits_and_an_archive_widens() {
        let none = BTreeMap::new();
        let mut interest = interest(vec![]);
        interest.archive = true;
        interest.scope = "shop".to_owned();
        assert!(interest.wants_body("shop", "x", &none));
        assert!(!interest.wants_body("dev", "x", &none));
    }

    #[test]
    fn the_digest_does_not_see_the_order_but_every_field() {
        let a = Condition { names: set(&["a"]), ..Condition::default() };
        let b = Condition { names: set(&["b"]), ..Condition::default() };
        let one = interest(vec![a.clone(), b.clone()]);
        assert_eq!(one.digest(), interest(vec![b, a.clone()]).digest());
        assert_ne!(one.digest(), interest(vec![a]).digest());
        assert_ne!(one.digest(), Interest { managed: true, ..one.clone() }.digest());
        assert_ne!(one.digest(), Interest { archive: true, ..one.clone() }.digest());
        assert_ne!(one.digest(), Interest { scope: "x".to_owned(), ..one.clone() }.digest());
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Interest>(&text).unwrap(), one);
    }
}
