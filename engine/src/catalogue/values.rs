//! Values that API servers rewrite: what is written and what is there may be one value in two spellings.
//!
//! Only built-in kinds are of Go types that do this. A custom resource is stored as it was sent.

use crate::identity::GroupKind;

/// How values of a field are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// As it stands.
    Exact,
    /// `1000m` is `1`.
    Quantity,
    /// Base64: whitespace does not count.
    Bytes,
    /// RFC 3339: an instant in whole seconds.
    Time,
}

/// API groups that are part of Kubernetes itself.
const BUILT_IN: &[&str] = &[
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// Is the kind one of Kubernetes itself, and not a custom resource?
#[must_use]
pub fn is_built_in(gk: &GroupKind) -> bool {
    BUILT_IN.contains(&gk.group.as_ref())
}

/// Any key of a map.
const ANY: &str = "*";

/// The last names of a path, lists left out. The maps that people fill with names of their own (labels, data) are never
/// deep enough to be taken for one of these.
const TYPED: &[(&[&str], ValueType)] = &[
    (&["resources", "limits", ANY], ValueType::Quantity),
    (&["resources", "requests", ANY], ValueType::Quantity),
    (&["spec", "overhead", ANY], ValueType::Quantity),
    (&["overhead", "podFixed", ANY], ValueType::Quantity),
    (&["emptyDir", "sizeLimit"], ValueType::Quantity),
    (&["resourceFieldRef", "divisor"], ValueType::Quantity),
    (&["spec", "capacity", ANY], ValueType::Quantity),
    (&["status", "capacity", ANY], ValueType::Quantity),
    (&["status", "allocatable", ANY], ValueType::Quantity),
    (&["status", "allocatedResources", ANY], ValueType::Quantity),
    (&["spec", "hard", ANY], ValueType::Quantity),
    (&["status", "hard", ANY], ValueType::Quantity),
    (&["status", "used", ANY], ValueType::Quantity),
    (&["limits", "default", ANY], ValueType::Quantity),
    (&["limits", "defaultRequest", ANY], ValueType::Quantity),
    (&["limits", "max", ANY], ValueType::Quantity),
    (&["limits", "min", ANY], ValueType::Quantity),
    (&["limits", "maxLimitRequestRatio", ANY], ValueType::Quantity),
    // HorizontalPodAutoscaler, v2 and its betas.
    (&["target", "value"], ValueType::Quantity),
    (&["target", "averageValue"], ValueType::Quantity),
    (&["object", "targetValue"], ValueType::Quantity),
    (&["object", "averageValue"], ValueType::Quantity),
    (&["external", "targetValue"], ValueType::Quantity),
    (&["external", "targetAverageValue"], ValueType::Quantity),
    (&["pods", "targetAverageValue"], ValueType::Quantity),
    (&["resource", "targetAverageValue"], ValueType::Quantity),
    (&["scaleUp", "tolerance"], ValueType::Quantity),
    (&["scaleDown", "tolerance"], ValueType::Quantity),
    (&["clientConfig", "caBundle"], ValueType::Bytes),
    (&["metadata", "creationTimestamp"], ValueType::Time),
    (&["metadata", "deletionTimestamp"], ValueType::Time),
    (&["taints", "timeAdded"], ValueType::Time),
];

/// The same, of one kind, from the top of the object.
const TYPED_OF_KIND: &[(&str, &str, &[&str], ValueType)] = &[
    ("", "Secret", &["data", ANY], ValueType::Bytes),
    ("", "ConfigMap", &["binaryData", ANY], ValueType::Bytes),
    ("apiregistration.k8s.io", "APIService", &["spec", "caBundle"], ValueType::Bytes),
    ("certificates.k8s.io", "CertificateSigningRequest", &["spec", "request"], ValueType::Bytes),
    ("storage.k8s.io", "CSIStorageCapacity", &["capacity"], ValueType::Quantity),
    ("storage.k8s.io", "CSIStorageCapacity", &["maximumVolumeSize"], ValueType::Quantity),
];

/// Defaults that API servers fill in within a struct that managers own as one value.
const FILLED_IN: &[(&str, &str)] = &[("fieldRef", "apiVersion"), ("resourceFieldRef", "divisor")];

/// How a field is compared. `names`: those on the way to it from the top; lists are left out.
#[must_use]
pub fn value_type(gk: &GroupKind, names: &[&str]) -> ValueType {
    if !is_built_in(gk) {
        return ValueType::Exact;
    }
    let of_kind = TYPED_OF_KIND.iter().find(|(group, kind, path, _)| {
        gk.is(group, kind) && names.len() == path.len() && ends_with(names, path)
    });
    if let Some((.., found)) = of_kind {
        return *found;
    }
    // Schemas of definitions hold members of any name.
    let holds_schemas = gk.is("apiextensions.k8s.io", "CustomResourceDefinition");
    let found = TYPED
        .iter()
        .find(|(path, found)| ends_with(names, path) && !(holds_schemas && *found == ValueType::Quantity));
    found.map_or(ValueType::Exact, |(_, found)| *found)
}

/// Does an API server of a built-in kind put this member into that struct by itself?
#[must_use]
pub fn is_filled_in(gk: &GroupKind, parent: &str, member: &str) -> bool {
    is_built_in(gk) && FILLED_IN.contains(&(parent, member))
}

fn ends_with(names: &[&str], path: &[&str]) -> bool {
    let Some(from) = names.len().checked_sub(path.len()) else { return false };
    names[from..].iter().zip(path).all(|(name, wanted)| *wanted == ANY || name == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_typed_by_its_place_and_a_text_of_people_never_is() {
        let of = |group: &str, kind: &str, path: &str| {
            value_type(&GroupKind::new(group, kind), &path.split('.').collect::<Vec<_>>())
        };
        let pod = "spec.template.spec.containers";
        assert_eq!(of("apps", "Deployment", &format!("{pod}.resources.limits.cpu")), ValueType::Quantity);
        assert_eq!(of("", "PersistentVolumeClaim", "spec.resources.requests.storage"), ValueType::Quantity);
        assert_eq!(of("", "ResourceQuota", "spec.hard.pods"), ValueType::Quantity);
        assert_eq!(of("", "Secret", "data.k"), ValueType::Bytes);
        assert_eq!(of("", "ConfigMap", "binaryData.k"), ValueType::Bytes);
        for (group, kind, path) in [
            ("", "ConfigMap", "data.cpu"),
            ("", "ConfigMap", "metadata.annotations.cpu"),
            ("apps", "Deployment", "metadata.annotations.limits"),
            ("apps", "Deployment", "spec.template.metadata.labels.cpu"),
            ("example.com", "Gauge", "spec.resources.limits.cpu"),
            ("gateway.networking.k8s.io", "HTTPRoute", "spec.resources.limits.cpu"),
            ("apiextensions.k8s.io", "CustomResourceDefinition", "spec.schema.default.resources.limits.cpu"),
        ] {
            assert_eq!(of(group, kind, path), ValueType::Exact, "{kind} {path}");
        }
    }
}
