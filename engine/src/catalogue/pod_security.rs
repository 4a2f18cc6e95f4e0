//! Pod Security of namespaces: what a namespace that lockstep makes for an object is labelled with.

use std::collections::BTreeMap;

use crate::identity::GroupKind;
use crate::object::Meta;

/// The labels by which the API server admits Pods in a namespace
/// (<https://kubernetes.io/docs/concepts/security/pod-security-admission/>).
const PREFIX: &str = "pod-security.kubernetes.io/";

/// Labels of Pod Security.
pub type PodSecurity = BTreeMap<String, String>;

/// The Pod Security labels of a Namespace; none of any other object.
#[must_use]
pub fn pod_security(gk: &GroupKind, meta: &Meta<'_>) -> PodSecurity {
    let labels = meta.labels.iter().filter(|_| gk.is("", "Namespace"));
    only_pod_security(labels.map(|(key, value)| (key.clone(), value.clone())))
}

/// Those of these labels that are of Pod Security.
#[must_use]
pub fn only_pod_security(labels: impl IntoIterator<Item = (String, String)>) -> PodSecurity {
    labels.into_iter().filter(|(key, _)| key.starts_with(PREFIX)).collect()
}

/// Tells different labels apart; zeros: there are none.
#[must_use]
pub fn pod_security_digest(labels: &PodSecurity) -> [u8; 14] {
    let mut digest = [0; 14];
    if !labels.is_empty() {
        // Texts always serialise.
        let hash = blake3::hash(&serde_json::to_vec(labels).unwrap_or_default());
        for (to, from) in digest.iter_mut().zip(hash.as_bytes()) {
            *to = *from;
        }
    }
    digest
}

/// What a namespace gets while that of the source is not known: a tenant must not gain rights by being synced.
#[must_use]
pub fn restricted() -> PodSecurity {
    BTreeMap::from([(format!("{PREFIX}enforce"), "restricted".to_owned())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::RawObject;

    #[test]
    fn only_the_labels_of_pod_security_are_taken_and_only_of_namespaces() {
        let text = r#"{"metadata": {"name": "shop", "labels": {
            "pod-security.kubernetes.io/enforce": "baseline",
            "pod-security.kubernetes.io/enforce-version": "v1.30",
            "team": "shop"
        }}}"#;
        let object = RawObject::parse(text.as_bytes()).unwrap();
        let namespace = pod_security(&GroupKind::new("", "Namespace"), &object.metadata);
        let keys: Vec<&str> = namespace.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/enforce-version"]
        );
        assert!(pod_security(&GroupKind::new("", "ConfigMap"), &object.metadata).is_empty());
    }
}
