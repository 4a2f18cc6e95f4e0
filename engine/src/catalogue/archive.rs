//! What an archive has no use for: what clusters make by themselves.

use super::eligibility::{KUBE_ROOT_CA, are_controllers_endpoints};
use crate::identity::GroupKind;
use crate::object::{Meta, OwnerReference};

/// Kinds of which nothing is archived. A policy that names one is refused.
#[must_use]
pub fn is_never_archived(gk: &GroupKind) -> bool {
    match gk.group.as_ref() {
        // Every kind in these groups is a question to the API server, not an object.
        "authentication.k8s.io" | "authorization.k8s.io" => true,
        // Events end by themselves, within an hour and by the thousand.
        "events.k8s.io" => gk.kind.as_ref() == "Event",
        // Leases are written every few seconds, and whoever holds one makes it anew.
        "coordination.k8s.io" => matches!(gk.kind.as_ref(), "Lease" | "LeaseCandidate"),
        // The first is the kubelet's, the second the attach-detach controller's.
        "storage.k8s.io" => matches!(gk.kind.as_ref(), "CSINode" | "VolumeAttachment"),
        // Slices follow the addresses of Pods.
        "discovery.k8s.io" => gk.kind.as_ref() == "EndpointSlice",
        // Answers to a question, not stored.
        "" => gk.kind.as_ref() == "ComponentStatus",
        _ => false,
    }
    // Nodes are archived: a kubelet registers its Node again, but without the labels and taints that
    // people gave it.
}

/// Does a controller make the object anew by itself?
#[must_use]
pub fn is_made_anew(gk: &GroupKind, meta: &Meta<'_>) -> bool {
    let controlled = || meta.owner_references.iter().any(OwnerReference::is_controller);
    match (gk.group.as_ref(), gk.kind.as_ref()) {
        // The controller manager has it in every namespace.
        ("", "ConfigMap") => meta.name == KUBE_ROOT_CA,
        ("", "Endpoints") => are_controllers_endpoints(&meta.labels, &meta.annotations) || controlled(),
        ("", "Pod") | ("apps", "ReplicaSet" | "ControllerRevision") => controlled(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::RawObject;

    #[test]
    fn what_clusters_write_by_the_thousand_is_never_archived() {
        for (group, kind, never) in [
            ("", "Event", true),
            ("events.k8s.io", "Event", true),
            ("coordination.k8s.io", "Lease", true),
            ("coordination.k8s.io", "LeaseCandidate", true),
            ("discovery.k8s.io", "EndpointSlice", true),
            ("storage.k8s.io", "CSINode", true),
            ("storage.k8s.io", "VolumeAttachment", true),
            ("authorization.k8s.io", "SubjectAccessReview", true),
            ("", "ComponentStatus", true),
            ("", "Node", false),
            ("", "Secret", false),
            ("storage.k8s.io", "StorageClass", false),
            ("example.com", "Event", false),
        ] {
            assert_eq!(is_never_archived(&GroupKind::new(group, kind)), never, "{group} {kind}");
        }
    }

    #[test]
    fn what_a_controller_makes_anew_is_told_by_its_owner() {
        const OWNED: &str = r#""ownerReferences": [{"uid": "o", "controller": true}]"#;
        const DEPENDENT: &str = r#""ownerReferences": [{"uid": "o"}]"#;
        const TRACED: &str =
            r#""annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"}"#;
        for (group, kind, name, rest, anew) in [
            ("", "Pod", "p", OWNED, true),
            ("", "Pod", "p", DEPENDENT, false),
            ("", "Pod", "p", r#""labels": {}"#, false),
            ("apps", "ReplicaSet", "r", OWNED, true),
            ("apps", "ControllerRevision", "r", OWNED, true),
            ("batch", "Job", "j", OWNED, false),
            ("", "Endpoints", "e", TRACED, true),
            ("", "Endpoints", "e", r#""labels": {}"#, false),
            ("", "ConfigMap", "kube-root-ca.crt", r#""labels": {}"#, true),
            ("", "ConfigMap", "mine", OWNED, false),
        ] {
            let text = format!(r#"{{"metadata": {{"name": "{name}", {rest}}}}}"#);
            let object = RawObject::parse(text.as_bytes()).unwrap();
            assert_eq!(is_made_anew(&GroupKind::new(group, kind), &object.metadata), anew, "{kind} {rest}");
        }
    }
}
