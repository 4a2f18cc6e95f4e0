//! The order in which kinds are created; deletes run it in reverse.

use crate::identity::GroupKind;

const RBAC: &str = "rbac.authorization.k8s.io";

/// The wave of CustomResourceDefinitions: later waves wait until these are Established.
pub const WAVE_DEFINITIONS: u16 = 0;
/// The wave of every kind without a row of its own, custom resources among them.
pub const WAVE_REST: u16 = 190;

/// One row per kind: (group, kind, wave). Steps of ten leave room between.
const WAVES: &[(&str, &str, u16)] = &[
    ("apiextensions.k8s.io", "CustomResourceDefinition", WAVE_DEFINITIONS),
    ("", "Namespace", 10),
    ("storage.k8s.io", "StorageClass", 20),
    ("scheduling.k8s.io", "PriorityClass", 30),
    (RBAC, "ClusterRole", 40),
    (RBAC, "ClusterRoleBinding", 40),
    ("", "ServiceAccount", 50),
    (RBAC, "Role", 60),
    (RBAC, "RoleBinding", 60),
    ("", "Secret", 70),
    ("", "ConfigMap", 80),
    ("", "LimitRange", 90),
    ("", "ResourceQuota", 100),
    ("", "PersistentVolume", 110),
    ("", "PersistentVolumeClaim", 120),
    ("networking.k8s.io", "NetworkPolicy", 130),
    ("", "Service", 140),
    ("", "Endpoints", 140),
    ("", "Pod", 150),
    ("", "PodTemplate", 150),
    ("", "ReplicationController", 150),
    ("apps", "ControllerRevision", 150),
    ("apps", "DaemonSet", 150),
    ("apps", "Deployment", 150),
    ("apps", "ReplicaSet", 150),
    ("apps", "StatefulSet", 150),
    ("batch", "CronJob", 150),
    ("batch", "Job", 150),
    ("autoscaling", "HorizontalPodAutoscaler", 160),
    ("policy", "PodDisruptionBudget", 160),
    // An Ingress refers to it, so it goes just before.
    ("networking.k8s.io", "IngressClass", 165),
    ("networking.k8s.io", "Ingress", 170),
    // Late: a webhook or an aggregated API that does not answer yet would refuse what comes after.
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", 180),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", 180),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy", 180),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", 180),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", 180),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", 180),
    ("apiregistration.k8s.io", "APIService", 180),
];

/// When this kind is created, relative to others: lower first. Deletes run in reverse.
#[must_use]
pub fn wave(gk: &GroupKind) -> u16 {
    WAVES.iter().find(|(group, kind, _)| gk.is(group, kind)).map_or(WAVE_REST, |(_, _, wave)| *wave)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_kubernetes_md() {
        let order = [
            ("apiextensions.k8s.io", "CustomResourceDefinition"),
            ("", "Namespace"),
            ("storage.k8s.io", "StorageClass"),
            ("scheduling.k8s.io", "PriorityClass"),
            (RBAC, "ClusterRole"),
            ("", "ServiceAccount"),
            (RBAC, "Role"),
            ("", "Secret"),
            ("", "ConfigMap"),
            ("", "LimitRange"),
            ("", "ResourceQuota"),
            ("", "PersistentVolume"),
            ("", "PersistentVolumeClaim"),
            ("networking.k8s.io", "NetworkPolicy"),
            ("", "Service"),
            ("apps", "Deployment"),
            ("autoscaling", "HorizontalPodAutoscaler"),
            ("networking.k8s.io", "Ingress"),
            ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
            ("cache.example.com", "RedisCluster"),
        ];
        for pair in order.windows(2) {
            let [a, b] = [pair[0], pair[1]].map(|(group, kind)| wave(&GroupKind::new(group, kind)));
            assert!(a < b, "{pair:?}: {a} < {b}");
        }
    }

    #[test]
    fn bindings_go_with_their_roles_and_old_groups_are_the_same_kind() {
        let of = |group, kind| wave(&GroupKind::new(group, kind));
        assert_eq!(of(RBAC, "ClusterRole"), of(RBAC, "ClusterRoleBinding"));
        assert_eq!(of(RBAC, "Role"), of(RBAC, "RoleBinding"));
        assert_eq!(of("extensions", "Ingress"), of("networking.k8s.io", "Ingress"));
        assert_eq!(of("policy", "PodDisruptionBudget"), of("autoscaling", "HorizontalPodAutoscaler"));
        assert_eq!(of("apiregistration.k8s.io", "APIService"), 180);
    }

    #[test]
    fn no_kind_has_two_rows() {
        let mut rows: Vec<_> = WAVES.iter().map(|(group, kind, _)| (group, kind)).collect();
        let all = rows.len();
        rows.sort();
        rows.dedup();
        assert_eq!(rows.len(), all);
    }
}
