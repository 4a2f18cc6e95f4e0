//! What an agent watches, and which bodies it may send.
//!
//! The hub compiles interests from policies; the agent evaluates them with the very code below, so
//! both sides agree on what leaves a cluster. Objects that match no condition stay keys.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::catalogue::{is_internal, is_made_anew, is_own_namespace, is_system_namespace};
use crate::identity::GroupKind;
use crate::object::Meta;
use crate::selector::LabelSelector;

/// One way for an object to be wanted. Empty sets ask for nothing in particular.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Only objects in these namespaces; empty: in all, of the cluster's own as `system` says.
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
    /// Where no namespaces are asked for: the cluster's own, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
}

impl Condition {
    /// Is this namespace covered? The cluster's own namespaces are covered only where they are
    /// named or asked for together, lockstep's own only where it is named, and a cluster-scoped object (empty namespace) only where no namespaces are asked for.
    #[must_use]
    pub fn covers_namespace(&self, namespace: &str) -> bool {
        let listed = if self.namespaces.is_empty() {
            (self.system && !is_own_namespace(namespace)) || !is_system_namespace(namespace)
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

/// What an archive keeps of a kind when it is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// Objects that match this.
    pub condition: Condition,
    /// But none of these.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub except: BTreeSet<Condition>,
    /// Also objects that a controller would make anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made_anew: bool,
}

impl Capture {
    /// Is the object meant? Whether a controller would make it anew is looked at elsewhere.
    #[must_use]
    pub fn means(&self, namespace: &str, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let matches = |condition: &Condition| condition.matches(namespace, name, labels);
        matches(&self.condition) && !self.except.iter().any(matches)
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
    /// Objects that match any of these are synced from here. A set: their order means nothing.
    pub conditions: BTreeSet<Condition>,
    /// The cluster is a target for this kind: for objects that lockstep manages, digests of what
    /// it owns are sent.
    pub managed: bool,
    /// Objects that any of these means are archived when they are deleted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub archive: BTreeSet<Capture>,
    /// Of a key outside of everything above each new resourceVersion is reported, and not its life only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revisions: bool,
}

impl Interest {
    /// Of a kind in a scope, for nothing but the keys of its objects.
    #[must_use]
    pub fn of_keys(gk: GroupKind, scope: &str) -> Self {
        let (conditions, archive) = (BTreeSet::new(), BTreeSet::new());
        Self { gk, scope: scope.to_owned(), conditions, managed: false, archive, revisions: false }
    }

    /// Is the body of this object sent to the hub?
    #[must_use]
    pub fn wants_body(&self, meta: &Meta<'_>) -> bool {
        let wanted = self.syncs(&meta.namespace, &meta.name, &meta.labels) || self.archives(meta);
        wanted && !is_internal(&meta.labels)
    }

    /// Does a policy sync objects like this one from here?
    #[must_use]
    pub fn syncs(&self, namespace: &str, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.covers(namespace)
            && self.conditions.iter().any(|condition| condition.matches(namespace, name, labels))
    }

    /// Is this object archived when it is deleted?
    #[must_use]
    pub fn archives(&self, meta: &Meta<'_>) -> bool {
        let kept = |capture: &Capture| {
            !is_internal(&meta.labels)
                && capture.means(&meta.namespace, &meta.name, &meta.labels)
                && (capture.made_anew || !is_made_anew(&self.gk, meta))
        };
        self.covers(&meta.namespace) && self.archive.iter().any(kept)
    }

    fn covers(&self, namespace: &str) -> bool {
        self.scope.is_empty() || self.scope == namespace
    }

    /// Equal digests: the same interest.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("lockstep 2026 interest v2");
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
            conditions: conditions.into_iter().collect(),
            ..Interest::of_keys(GroupKind::new("", "Secret"), "")
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
        assert!(interest.syncs("shop", "db", &none));
        assert!(!interest.syncs("shop", "other", &none));
        assert!(!interest.syncs("elsewhere", "db", &none));
        assert!(interest.syncs("elsewhere", "x", &labels));
        assert!(!interest.syncs("dev", "x", &labels));
        assert!(!self::interest(vec![]).syncs("shop", "db", &labels), "no condition, no body");
    }

    #[test]
    fn system_namespaces_must_be_named_and_cluster_scoped_objects_have_none() {
        let none = BTreeMap::new();
        assert!(!interest(vec![Condition::default()]).syncs("kube-system", "x", &none));
        let named = Condition { namespaces: set(&["kube-system"]), ..Condition::default() };
        assert!(interest(vec![named.clone()]).syncs("kube-system", "x", &none));
        assert!(interest(vec![Condition::default()]).syncs("", "x", &none));
        assert!(!interest(vec![named]).syncs("", "x", &none));
    }

    fn archives(interest: &Interest, metadata: &str) -> bool {
        let text = format!(r#"{{"metadata": {metadata}}}"#);
        let object = crate::object::RawObject::parse(text.as_bytes()).unwrap();
        assert!(!interest.syncs(&object.metadata.namespace, &object.metadata.name, &object.metadata.labels));
        assert_eq!(interest.archives(&object.metadata), interest.wants_body(&object.metadata));
        interest.wants_body(&object.metadata)
    }

    #[test]
    fn a_scope_limits_and_an_archive_widens() {
        let everything = Condition { system: true, ..Condition::default() };
        let scratch = Condition { namespaces: set(&["scratch"]), ..Condition::default() };
        let capture =
            Capture { condition: everything, except: BTreeSet::from([scratch]), ..Capture::default() };
        let mut interest = Interest {
            archive: BTreeSet::from([capture.clone()]),
            ..Interest::of_keys(GroupKind::new("", "Pod"), "")
        };
        assert!(archives(&interest, r#"{"name": "x", "namespace": "shop"}"#));
        assert!(archives(&interest, r#"{"name": "x", "namespace": "kube-system"}"#));
        assert!(!archives(&interest, r#"{"name": "hub-key", "namespace": "lockstep-system"}"#));
        let internal = r#"{"name": "key", "namespace": "shop", "labels": {"lockstep.dev/internal": "true"}}"#;
        assert!(!archives(&interest, internal), "what lockstep runs on never leaves");
        assert!(archives(&interest, r#"{"name": "x"}"#));
        assert!(!archives(&interest, r#"{"name": "x", "namespace": "scratch"}"#));
        let owned = r#"{"name": "x", "namespace": "shop", "ownerReferences": [{"controller": true}]}"#;
        assert!(!archives(&interest, owned), "its controller makes it anew");
        interest.archive.insert(Capture { made_anew: true, ..capture });
        assert!(archives(&interest, owned));
        interest.scope = "shop".to_owned();
        assert!(archives(&interest, owned));
        assert!(!archives(&interest, r#"{"name": "x", "namespace": "dev"}"#));
    }

    #[test]
    fn the_digest_does_not_see_the_order_but_every_field() {
        let a = Condition { names: set(&["a"]), ..Condition::default() };
        let b = Condition { names: set(&["b"]), ..Condition::default() };
        let one = interest(vec![a.clone(), b.clone()]);
        assert_eq!(one.digest(), interest(vec![b, a.clone()]).digest());
        assert_ne!(one.digest(), interest(vec![a]).digest());
        assert_ne!(one.digest(), Interest { managed: true, ..one.clone() }.digest());
        assert_ne!(one.digest(), Interest { revisions: true, ..one.clone() }.digest());
        assert_ne!(
            one.digest(),
            Interest { archive: BTreeSet::from([Capture::default()]), ..one.clone() }.digest()
        );
        assert_ne!(one.digest(), Interest { scope: "x".to_owned(), ..one.clone() }.digest());
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Interest>(&text).unwrap(), one);
    }
}
