//! The field catalogue: what lockstep knows about single kinds, in one place.
//!
//! These questions are answered here and nowhere else: may this object be synced at all ([`eligibility()`]), is it of use
//! in an archive ([`is_made_anew()`]), what is stripped from its body ([`strip()`], [`strip_tracking()`]), which other
//! tool does it belong to ([`tracker()`]), which lists are merged by the writer ([`merged_lists()`]), in which order kinds
//! are created ([`wave()`]), and which kinds and namespaces an agent accepts only by name ([`is_sensitive()`],
//! [`is_system_namespace()`]). docs/kubernetes.md, "What is stripped, kept and left to the target", is the summary; each
//! row has a test.
//!
//! Architecture invariant: no policy and no state of a cluster is looked at. What a policy asked
//! for arrives as [`Asked`].

mod archive;
mod eligibility;
mod lists;
mod pod_security;
mod strip;
mod tracking;
mod values;
mod wave;

pub use archive::{is_made_anew, is_never_archived};
pub use eligibility::{Asked, Eligibility, Facts, SkipReason, eligibility, is_never_synced};
pub use lists::{MergedList, merged_lists};
pub use pod_security::{PodSecurity, only_pod_security, pod_security, pod_security_digest, restricted};
pub use strip::strip;
pub use tracking::{Tracker, strip_tracking, tracker};
pub use values::{ValueType, is_built_in, is_filled_in, value_type};
pub use wave::{WAVE_DEFINITIONS, WAVE_REST, wave};

use std::collections::BTreeMap;

use crate::identity::GroupKind;

/// Namespaces that belong to the cluster itself.
const SYSTEM_NAMESPACES: &[&str] = &["kube-node-lease", "kube-public", "kube-system"];
/// Where the manifests install lockstep.
const OWN_NAMESPACE: &str = "lockstep-system";

/// Kinds that an agent's accept list, and a person, must name: `*` never means them. Whoever
/// may write them can take over the cluster.
#[must_use]
pub fn is_sensitive(gk: &GroupKind) -> bool {
    match gk.group.as_ref() {
        "rbac.authorization.k8s.io" | "admissionregistration.k8s.io" => true,
        "apiextensions.k8s.io" => gk.kind.as_ref() == "CustomResourceDefinition",
        "apiregistration.k8s.io" => gk.kind.as_ref() == "APIService",
        _ => false,
    }
}

/// The group of a kind that must be named, by its kind or plural alone, in any case: the core group, which a name without
/// a group means elsewhere, has none of these.
#[must_use]
pub fn group_of_sensitive(name: &str) -> Option<&'static str> {
    const NAMES: &[(&str, &str, &str)] = &[
        ("Role", "roles", "rbac.authorization.k8s.io"),
        ("RoleBinding", "rolebindings", "rbac.authorization.k8s.io"),
        ("ClusterRole", "clusterroles", "rbac.authorization.k8s.io"),
        ("ClusterRoleBinding", "clusterrolebindings", "rbac.authorization.k8s.io"),
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "admissionregistration.k8s.io"),
        ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "admissionregistration.k8s.io"),
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", "admissionregistration.k8s.io"),
        (
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            "admissionregistration.k8s.io",
        ),
        ("CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io"),
        ("APIService", "apiservices", "apiregistration.k8s.io"),
    ];
    let named = |&&(kind, plural, _): &&(&str, &str, &str)| {
        name.eq_ignore_ascii_case(kind) || name.eq_ignore_ascii_case(plural)
    };
    NAMES.iter().find(named).map(|(_, _, group)| *group)
}

/// Kinds that hold others: when one goes, everything inside goes with it.
#[must_use]
pub fn is_container(gk: &GroupKind) -> bool {
    gk.is("", "Namespace") || gk.is("apiextensions.k8s.io", "CustomResourceDefinition")
}

/// Is it one of the cluster's own namespaces, or lockstep's? They are synced from, and written to, only where
/// they are named literally.
#[must_use]
pub fn is_system_namespace(namespace: &str) -> bool {
    SYSTEM_NAMESPACES.contains(&namespace) || is_own_namespace(namespace)
}

/// Label of what lockstep itself runs on: the hub's key, tokens, certificates. The manifests set it.
pub const INTERNAL: &str = "lockstep.dev/internal";

/// Is it something that lockstep itself runs on? It is never synced and never archived, and its body never leaves its
/// cluster.
#[must_use]
pub fn is_internal(labels: &BTreeMap<String, String>) -> bool {
    labels.get(INTERNAL).is_some_and(|value| value == "true")
}

/// Is it lockstep's own namespace? "Everything" never means it: it holds the hub's key and the agents' tokens.
#[must_use]
pub fn is_own_namespace(namespace: &str) -> bool {
    namespace == OWN_NAMESPACE
}

/// The cluster's own namespaces.
pub fn system_namespaces() -> impl Iterator<Item = &'static str> {
    SYSTEM_NAMESPACES.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sensitive_kinds_are_the_ones_that_own_a_cluster() {
        for (group, kind, expected) in [
            ("rbac.authorization.k8s.io", "ClusterRole", true),
            ("rbac.authorization.k8s.io", "RoleBinding", true),
            ("apiextensions.k8s.io", "CustomResourceDefinition", true),
            ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", true),
            ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", true),
            ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", true),
            ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", true),
            ("apiregistration.k8s.io", "APIService", true),
            ("", "Secret", false),
            ("apps", "Deployment", false),
            ("example.com", "APIService", false),
        ] {
            assert_eq!(is_sensitive(&GroupKind::new(group, kind)), expected, "{group} {kind}");
        }
    }

    #[test]
    fn what_must_be_named_may_be_named_by_its_kind_alone() {
        for name in ["Role", "rolebindings", "customresourcedefinition", "APIService"] {
            let group = group_of_sensitive(name).unwrap_or_default();
            let kind = if name.ends_with("definition") { "CustomResourceDefinition" } else { "APIService" };
            assert!(is_sensitive(&GroupKind::new(group, kind)), "{name}: {group}");
        }
        assert_eq!(group_of_sensitive("Secret"), None);
    }

    #[test]
    fn system_namespaces_are_the_clusters_and_ours() {
        assert!(is_system_namespace("lockstep-system"));
        assert!(is_system_namespace("kube-system"));
        assert!(is_system_namespace("kube-public"));
        assert!(is_system_namespace("kube-node-lease"));
        assert!(!is_system_namespace("default"));
        assert!(!is_system_namespace(""));
    }
}
