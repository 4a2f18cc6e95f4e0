//! Lists that Kubernetes treats as one value, and to which controllers of each cluster add entries of their own.
//!
//! Server-side apply merges keyed lists and sets by itself. An atomic list has one owner: who applies it replaces what
//! others put there. For these, the writer makes the union ([`merge`](crate::ownership::merge)).
//!
//! Not in the table, though atomic:
//! - `Namespace.spec.finalizers`, Service `clusterIPs` and `ipFamilies`: never written ([`strip`](super::strip())).
//! - tolerations and the like in templates: admission adds them to each write again.
//! - `subjects` and `rules` of RBAC, `loadBalancerSourceRanges`, `externalIPs`, the rules of a NetworkPolicy: an entry more
//!   opens something. What somebody adds there is drift, and a policy can say otherwise.
//! - `Ingress.spec.tls`, CRD `versions`, HPA `metrics`: no controller adds to them.

use crate::identity::GroupKind;

/// One such list.
#[derive(Debug, PartialEq, Eq)]
pub struct MergedList {
    group: &'static str,
    kind: &'static str,
    /// Members from the object down to the list.
    pub path: &'static [&'static str],
    /// The field that tells one entry from another; none: the whole entry.
    pub key: Option<&'static str>,
}

/// Where an API server treats such a list as keyed after all, it is left to the server.
const TABLE: &[MergedList] = &[
    // OpenShift and registry operators add a pull secret to every account.
    MergedList { group: "", kind: "ServiceAccount", path: &["imagePullSecrets"], key: Some("name") },
    // Keyed by name as of 1.18; atomic before.
    MergedList { group: "", kind: "ServiceAccount", path: &["secrets"], key: Some("name") },
    // Admission adds to Pods, and validation refuses to take a toleration away.
    MergedList { group: "", kind: "Pod", path: &["spec", "tolerations"], key: None },
    // Load balancer controllers inject a gate when the Pod is created; it cannot be changed afterwards.
    MergedList { group: "", kind: "Pod", path: &["spec", "readinessGates"], key: Some("conditionType") },
];

/// The lists of a kind.
pub fn merged_lists(gk: &GroupKind) -> impl Iterator<Item = &'static MergedList> + use<> {
    let gk = gk.clone();
    TABLE.iter().filter(move |row| gk.is(row.group, row.kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_that_are_merged() {
        for (kind, paths) in [
            ("ServiceAccount", vec!["imagePullSecrets", "secrets"]),
            ("Pod", vec!["spec.tolerations", "spec.readinessGates"]),
            ("Service", vec![]),
        ] {
            let found: Vec<String> =
                merged_lists(&GroupKind::new("", kind)).map(|row| row.path.join(".")).collect();
            assert_eq!(found, paths, "{kind}");
        }
        assert_eq!(merged_lists(&GroupKind::new("example.com", "Pod")).count(), 0);
    }
}
