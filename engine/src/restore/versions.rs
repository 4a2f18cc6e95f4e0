//! In which version an object is written whose own is not served any more.

use crate::identity::GroupKind;

/// Built-in versions with the same fields and the same meaning: (kind, kept, served).
const SAME: &[(&str, &str, &str)] = &[
    ("CronJob", "batch/v1beta1", "batch/v1"),
    ("Deployment", "apps/v1beta2", "apps/v1"),
    ("DaemonSet", "apps/v1beta2", "apps/v1"),
    ("ReplicaSet", "apps/v1beta2", "apps/v1"),
    ("StatefulSet", "apps/v1beta2", "apps/v1"),
    ("HorizontalPodAutoscaler", "autoscaling/v2beta2", "autoscaling/v2"),
    ("HorizontalPodAutoscaler", "autoscaling/v2", "autoscaling/v2beta2"),
    ("PodDisruptionBudget", "policy/v1beta1", "policy/v1"),
    ("PodDisruptionBudget", "policy/v1", "policy/v1beta1"),
    ("PriorityClass", "scheduling.k8s.io/v1beta1", "scheduling.k8s.io/v1"),
    ("StorageClass", "storage.k8s.io/v1beta1", "storage.k8s.io/v1"),
    ("CSIDriver", "storage.k8s.io/v1beta1", "storage.k8s.io/v1"),
    ("RuntimeClass", "node.k8s.io/v1beta1", "node.k8s.io/v1"),
    ("Role", "rbac.authorization.k8s.io/v1beta1", "rbac.authorization.k8s.io/v1"),
    ("RoleBinding", "rbac.authorization.k8s.io/v1beta1", "rbac.authorization.k8s.io/v1"),
    ("ClusterRole", "rbac.authorization.k8s.io/v1beta1", "rbac.authorization.k8s.io/v1"),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1beta1", "rbac.authorization.k8s.io/v1"),
    ("IngressClass", "networking.k8s.io/v1beta1", "networking.k8s.io/v1"),
    ("CronJob", "batch/v1", "batch/v1beta1"),
];

/// The version to write; the kept one where it is served.
///
/// # Errors
/// One sentence on why there is none.
pub(super) fn choose(gk: &GroupKind, kept: &str, served: &[String]) -> Result<String, String> {
    if served.iter().any(|version| version == kept) {
        return Ok(kept.to_owned());
    }
    let same = SAME.iter().find(|(kind, from, to)| {
        *kind == gk.kind.as_ref() && *from == kept && served.iter().any(|version| version == to)
    });
    if let Some((_, _, to)) = same {
        return Ok((*to).to_owned());
    }
    let (Some(first), false) = (served.first(), is_built_in(&gk.group)) else {
        return Err(format!(
            "{kept} is not served here any more, and what is ({}) has other fields: take the object with \
             `lockstep tombstones show`, and convert it by hand",
            served.join(", ")
        ));
    };
    // Most definitions convert nothing but the name of the version; the server's dry run tells.
    Ok(first.clone())
}

/// Groups of Kubernetes itself, whose versions differ in more than their name.
fn is_built_in(group: &str) -> bool {
    !group.contains('.') || group.ends_with(".k8s.io")
}
