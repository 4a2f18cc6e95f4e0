//! The syntax of names, as Kubernetes checks it.

/// A DNS-1123 label, as for namespaces.
pub(crate) fn is_label(text: &str) -> bool {
    let middle = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(middle)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A DNS-1123 subdomain, as for most names and for API groups.
pub(crate) fn is_subdomain(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    (1..=253).contains(&text.len()) && text.split('.').all(part)
}

/// What the names of objects satisfy but those of RBAC: one segment of a path without blanks or patterns.
pub(crate) fn is_object_name(text: &str) -> bool {
    is_path_segment(text)
        && text.len() <= 253
        && !text.contains(['*', '?'])
        && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// The name of a role or binding, of which API servers check only that it is one segment of a path. `*` is left out:
/// who writes it means a pattern.
pub(crate) fn is_rbac_name(text: &str) -> bool {
    is_path_segment(text) && !text.contains('*')
}

fn is_path_segment(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '%'])
}

/// A kind: `Deployment`.
pub(crate) fn is_kind(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The name part of a label key, or a label value that is not empty.
fn is_qualified(text: &str) -> bool {
    let middle = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let end = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&text.len()) && text.bytes().all(middle) && text.starts_with(end) && text.ends_with(end)
}

/// `env`, `example.com/env`.
pub(crate) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_qualified(name),
        None => is_qualified(text),
    }
}

/// A label's value; may be empty.
pub(crate) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified(text)
}

/// Kinds of built-in groups other than core, to notice a forgotten apiGroup.
const BUILT_IN: &[(&str, &[&str])] = &[
    ("apps", &["ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"]),
    ("batch", &["CronJob", "Job"]),
    ("autoscaling", &["HorizontalPodAutoscaler"]),
    ("networking.k8s.io", &["Ingress", "IngressClass", "NetworkPolicy"]),
    ("policy", &["PodDisruptionBudget"]),
    ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]),
    ("storage.k8s.io", &["CSIDriver", "StorageClass"]),
    ("scheduling.k8s.io", &["PriorityClass"]),
    ("apiextensions.k8s.io", &["CustomResourceDefinition"]),
    ("apiregistration.k8s.io", &["APIService"]),
    ("admissionregistration.k8s.io", &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]),
];

/// The kinds of the core group that can be synced.
const CORE: &[&str] = &[
    "ConfigMap",
    "Endpoints",
    "LimitRange",
    "Namespace",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "Secret",
    "Service",
    "ServiceAccount",
];

/// The built-in group that this kind belongs to, when it is surely not the given one. Only core
/// and the built-in groups are closed; any other group may define any kind.
pub(crate) fn other_group(group: &str, kind: &str) -> Option<&'static str> {
    let home = BUILT_IN.iter().find(|(_, kinds)| kinds.contains(&kind)).map(|(group, _)| *group);
    let home = home.or_else(|| CORE.contains(&kind).then_some(""))?;
    let closed = group.is_empty() || BUILT_IN.iter().any(|(built_in, _)| *built_in == group);
    (closed && home != group).then_some(home)
}

/// The built-in kind that a lower-case, plural or misspelt word most likely means.
pub(crate) fn nearest_kind(text: &str) -> Option<&'static str> {
    let kinds = || BUILT_IN.iter().flat_map(|(_, kinds)| kinds.iter()).chain(CORE).copied();
    let lower = text.to_lowercase();
    let plain = |kind: &&str| {
        let kind = kind.to_lowercase();
        lower == kind || lower == format!("{kind}s") || lower == format!("{kind}es")
    };
    kinds().find(plain).or_else(|| crate::finding::nearest(text, kinds()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_kubernetes_takes() {
        for (check, good, bad) in [
            (is_label as fn(&str) -> bool, vec!["a", "a-1"], vec!["", "-a", "a-", "A", "a.b", "a_b"]),
            (is_subdomain, vec!["a", "a.b-c.d"], vec!["", ".a", "a..b", "A", "a.-b"]),
            (
                is_object_name,
                vec!["system:x", "a.b"],
                vec!["", ".", "..", "a/b", "a b", "a%2f", "a\n", "a*", "a?"],
            ),
            (
                is_rbac_name,
                vec!["system:x", "team::lead", "on call", "what?now#then", "größe+1"],
                vec!["", ".", "..", "a/b", "a%2f", "a*"],
            ),
            (is_kind, vec!["Deployment", "V2"], vec!["", "deployment", "Two Words", "*", "A*"]),
            (is_label_key, vec!["env", "a.b/C_d"], vec!["", "/a", "a/", "a/b/c", "-a", "a b"]),
            (is_label_value, vec!["", "a", "A.b_c"], vec!["-a", "a-", "a b", "ä"]),
        ] {
            for text in good {
                assert!(check(text), "{text:?}");
            }
            for text in bad {
                assert!(!check(text), "{text:?}");
            }
        }
    }

    #[test]
    fn a_forgotten_group_and_a_plural_are_noticed() {
        assert_eq!(other_group("", "Deployment"), Some("apps"));
        assert_eq!(other_group("apps", "ConfigMap"), Some(""));
        assert_eq!(other_group("apps", "Deployment"), None);
        assert_eq!(other_group("serving.knative.dev", "Service"), None);
        assert_eq!(other_group("", "Odd"), None);
        assert_eq!(nearest_kind("deployments"), Some("Deployment"));
        assert_eq!(nearest_kind("ingresses"), Some("Ingress"));
        assert_eq!(nearest_kind("Configmap"), Some("ConfigMap"));
        assert_eq!(nearest_kind("Whatever"), None);
    }
}
