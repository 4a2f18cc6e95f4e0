//! The field catalogue: what lockstep knows about single kinds, in one place.
//!
//! Five questions are answered here and nowhere else: may this object be synced at all
//! ([`eligibility()`]), is it of use in an archive ([`is_made_anew()`]), what is stripped from its body ([`strip()`]), in which order kinds are created
//! ([`wave()`]), and which kinds and namespaces an agent accepts only by name ([`is_sensitive()`],
//! [`is_system_namespace()`]). The rows come from KUBERNETES.md, "What to strip, keep and leave to
//! the target"; each has a test.
//!
//! Architecture invariant: no policy and no state of a cluster is looked at. What a policy asked
//! for arrives as [`Asked`].

mod archive;
mod eligibility;
mod pod_security;
mod strip;
mod wave;

pub use archive::{is_made_anew, is_never_archived};
pub use eligibility::{Asked, Eligibility, Facts, SkipReason, eligibility, is_never_synced};
pub use pod_security::{PodSecurity, only_pod_security, pod_security, pod_security_digest, restricted};
pub use strip::strip;
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
    fn system_namespaces_are_the_clusters_and_ours() {
        assert!(is_system_namespace("lockstep-system"));
        assert!(is_system_namespace("kube-system"));
        assert!(is_system_namespace("kube-public"));
        assert!(is_system_namespace("kube-node-lease"));
        assert!(!is_system_namespace("default"));
        assert!(!is_system_namespace(""));
    }
}
