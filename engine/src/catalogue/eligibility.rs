//! May this object be synced at all?

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{is_internal, is_system_namespace};
use crate::identity::{GroupKind, ObjectKey};
use crate::object::{ObjectError, OwnerReference, RawObject};

/// ConfigMap that the controller manager keeps in every namespace.
pub(super) const KUBE_ROOT_CA: &str = "kube-root-ca.crt";

/// Why an object is left out although a policy's conditions match it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SkipReason {
    /// The kind describes one cluster's own life (Event, Lease, Node, ...).
    NeverSynced,
    /// ConfigMap kube-root-ca.crt.
    KubeRootCa,
    /// Service default/kubernetes.
    KubernetesService,
    /// A Secret of type service-account-token.
    ServiceAccountToken,
    /// A Secret or ConfigMap in which Helm keeps a release.
    HelmRelease,
    /// A bootstrap token.
    BootstrapToken,
    /// In kube-system, kube-public, kube-node-lease or lockstep-system, or one of these namespaces itself.
    SystemNamespace,
    /// lockstep itself runs on it: the hub's key, a token, a certificate.
    Internal,
    /// A controller owns it.
    Owned,
    /// A Job that had finished before lockstep made a copy of it.
    FinishedJob,
    /// Endpoints that a controller writes.
    ManagedEndpoints,
    /// RBAC that every API server creates for itself.
    BootstrapRbac,
    /// An APIService that the API server manages.
    AutoManagedApiService,
    /// A PriorityClass of the system.
    SystemPriorityClass,
    /// A FlowSchema or PriorityLevelConfiguration that the API server keeps up to date.
    AutoManagedFlowControl,
}

impl SkipReason {
    /// The stable code, as in JSON output and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NeverSynced => "NeverSynced",
            Self::KubeRootCa => "KubeRootCa",
            Self::KubernetesService => "KubernetesService",
            Self::ServiceAccountToken => "ServiceAccountToken",
            Self::HelmRelease => "HelmRelease",
            Self::BootstrapToken => "BootstrapToken",
            Self::SystemNamespace => "SystemNamespace",
            Self::Internal => "Internal",
            Self::Owned => "Owned",
            Self::FinishedJob => "FinishedJob",
            Self::ManagedEndpoints => "ManagedEndpoints",
            Self::BootstrapRbac => "BootstrapRbac",
            Self::AutoManagedApiService => "AutoManagedApiService",
            Self::SystemPriorityClass => "SystemPriorityClass",
            Self::AutoManagedFlowControl => "AutoManagedFlowControl",
        }
    }

    /// One sentence for `explain`: why, and what to do about it where something can be done.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NeverSynced => "objects of this kind describe the life of one cluster and are never synced",
            Self::KubeRootCa => {
                "kube-root-ca.crt holds the certificate authority of its own cluster; every cluster makes its own"
            }
            Self::KubernetesService => {
                "Service default/kubernetes is the API server of its own cluster; every cluster makes its own"
            }
            Self::ServiceAccountToken => {
                "a service account token is valid in its own cluster only; every cluster issues its own"
            }
            Self::HelmRelease => {
                "it is Helm's record of a release in its own cluster; list it under `names` to sync it all the same"
            }
            Self::BootstrapToken => {
                "a bootstrap token lets nodes join its own cluster; list it under `names` to sync it all the same"
            }
            Self::SystemNamespace => {
                "it belongs to one of the cluster's own namespaces; list that namespace under `namespaces` (or, for the Namespace itself, under `names`) to sync it all the same"
            }
            Self::Internal => {
                "its label lockstep.dev/internal says that lockstep itself runs on it; it never leaves its cluster"
            }
            Self::Owned => {
                "a controller owns it, and its owner at the target makes its own; set `includeOwned: true` to sync it all the same"
            }
            Self::FinishedJob => {
                "the Job had already finished when lockstep came to it; a copy would run it a second time"
            }
            Self::ManagedEndpoints => {
                "a controller writes these Endpoints from the selector of their Service; every cluster makes its own"
            }
            Self::BootstrapRbac => {
                "it has the label kubernetes.io/bootstrapping: rbac-defaults; every API server creates this role or binding for itself"
            }
            Self::AutoManagedApiService => {
                "the API server manages this APIService itself; it follows the CustomResourceDefinition at the target"
            }
            Self::SystemPriorityClass => "every API server creates the system- priority classes for itself",
            Self::AutoManagedFlowControl => {
                "it has the annotation apf.kubernetes.io/autoupdate-spec: true; every API server maintains its own"
            }
        }
    }
}

impl fmt::Display for SkipReason {
    /// The code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The verdict on one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligibility {
    /// It may be synced.
    Sync,
    /// It is left out.
    Skip(SkipReason),
}

/// What the matching part of a policy asked for, as far as it lifts a rule of the catalogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The object's name is listed literally.
    pub name: bool,
    /// The object's namespace is listed literally.
    pub namespace: bool,
    /// Objects with a controller are wanted too.
    pub owned: bool,
}

/// What the catalogue looks at in an object.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// `metadata.labels`.
    pub labels: &'a BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: &'a BTreeMap<String, String>,
    /// `metadata.ownerReferences`.
    pub owners: &'a [OwnerReference],
    /// `type` of a Secret; empty for other kinds.
    pub secret_type: Cow<'a, str>,
    /// A Job whose status says Complete or Failed.
    pub finished: bool,
    /// The hub already keeps a copy of this object (or did, and the target has collected it).
    /// A Job that finishes after its copy was made stays selected: were it left out now, its
    /// copy would be deleted.
    pub bound: bool,
}

/// The top-level fields that some rows need, borrowed.
#[derive(Deserialize)]
struct Extra<'a> {
    #[serde(borrow, default, rename = "type")]
    kind_of_secret: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

impl<'a> Facts<'a> {
    /// Reads the facts out of an object. `body` is what `object` was parsed from; it is looked at
    /// only for Secrets and Jobs. `bound` starts as false.
    ///
    /// # Errors
    /// When the body is not a JSON object.
    pub fn of(gk: &GroupKind, object: &'a RawObject<'_>, body: &'a [u8]) -> Result<Self, ObjectError> {
        let mut facts = Self {
            labels: &object.metadata.labels,
            annotations: &object.metadata.annotations,
            owners: &object.metadata.owner_references,
            secret_type: Cow::Borrowed(""),
            finished: false,
            bound: false,
        };
        let (secret, job) = (gk.is("", "Secret"), gk.is("batch", "Job"));
        if secret || job {
            let extra: Extra<'a> = serde_json::from_slice(body)?;
            if let Some(raw) = extra.kind_of_secret.filter(|_| secret) {
                facts.secret_type = Cow::Owned(serde_json::from_str(raw.get())?);
            }
            if let Some(raw) = extra.status.filter(|_| job) {
                facts.finished = status_finished(&serde_json::from_str(raw.get())?);
            }
        }
        Ok(facts)
    }

    /// The same facts about an object of which the hub already keeps a copy.
    #[must_use]
    pub fn bound(mut self, bound: bool) -> Self {
        self.bound = bound;
        self
    }
}

fn status_finished(status: &Value) -> bool {
    let conditions = status.get("conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        let is = |field: &str, value: &str| condition.get(field).and_then(Value::as_str) == Some(value);
        is("status", "True") && (is("type", "Complete") || is("type", "Failed"))
    })
}

/// Kinds of which nothing is ever synced. A policy that names one is refused.
#[must_use]
pub fn is_never_synced(gk: &GroupKind) -> bool {
    match gk.group.as_ref() {
        // Every kind in these groups is a question to the API server, not an object.
        "authentication.k8s.io" | "authorization.k8s.io" => true,
        "events.k8s.io" => gk.kind.as_ref() == "Event",
        "coordination.k8s.io" => matches!(gk.kind.as_ref(), "Lease" | "LeaseCandidate"),
        "storage.k8s.io" => matches!(gk.kind.as_ref(), "CSINode" | "VolumeAttachment"),
        "discovery.k8s.io" => gk.kind.as_ref() == "EndpointSlice",
        "" => matches!(gk.kind.as_ref(), "Node" | "ComponentStatus"),
        _ => false,
    }
}

/// May this object be synced? A copy that lockstep wrote is not recognised here: only the hub's
/// record can tell a mark from a forged one (I6, I9).
#[must_use]
pub fn eligibility(key: &ObjectKey, facts: &Facts<'_>, asked: Asked) -> Eligibility {
    match skip_reason(key, facts, asked) {
        Some(reason) => Eligibility::Skip(reason),
        None => Eligibility::Sync,
    }
}

fn skip_reason(key: &ObjectKey, facts: &Facts<'_>, asked: Asked) -> Option<SkipReason> {
    if is_never_synced(&key.gk) {
        return Some(SkipReason::NeverSynced);
    }
    if is_internal(facts.labels) {
        return Some(SkipReason::Internal);
    }
    if let Some(reason) = kind_row(key, facts, asked) {
        return Some(reason);
    }
    let system = if key.gk.is("", "Namespace") {
        is_system_namespace(&key.name) && !asked.name
    } else {
        is_system_namespace(&key.namespace) && !asked.namespace
    };
    if system {
        return Some(SkipReason::SystemNamespace);
    }
    let controlled = facts.owners.iter().any(OwnerReference::is_controller);
    (controlled && !asked.owned).then_some(SkipReason::Owned)
}

/// The rows that belong to one kind.
fn kind_row(key: &ObjectKey, facts: &Facts<'_>, asked: Asked) -> Option<SkipReason> {
    match (key.gk.group.as_ref(), key.gk.kind.as_ref()) {
        ("", "ConfigMap") => config_map_row(key, facts, asked),
        // The API server reconciles them by name.
        ("", "Service") => (key.namespace.as_ref() == "default" && key.name.as_ref() == "kubernetes")
            .then_some(SkipReason::KubernetesService),
        ("", "Secret") => secret_row(key, facts, asked),
        ("", "Endpoints") => endpoints_row(key, facts),
        ("batch", "Job") => (facts.finished && !facts.bound).then_some(SkipReason::FinishedJob),
        // Only the label tells: anybody may use a name that begins with `system:`, and metrics-server does.
        ("rbac.authorization.k8s.io", _) => {
            let bootstrapping = facts.labels.get("kubernetes.io/bootstrapping").map(String::as_str);
            (bootstrapping == Some("rbac-defaults")).then_some(SkipReason::BootstrapRbac)
        }
        // The two values that the aggregator acts on.
        ("apiregistration.k8s.io", "APIService") => {
            let managed = facts.labels.get("kube-aggregator.kubernetes.io/automanaged").map(String::as_str);
            matches!(managed, Some("true" | "onstart")).then_some(SkipReason::AutoManagedApiService)
        }
        // Validation refuses the prefix to everybody but the API server, so here the name tells.
        ("scheduling.k8s.io", "PriorityClass") => {
            key.name.starts_with("system-").then_some(SkipReason::SystemPriorityClass)
        }
        ("flowcontrol.apiserver.k8s.io", _) => flow_control_row(key, facts),
        _ => None,
    }
}

fn config_map_row(key: &ObjectKey, facts: &Facts<'_>, asked: Asked) -> Option<SkipReason> {
    if key.name.as_ref() == KUBE_ROOT_CA {
        // Its controller owns the name in every namespace, whatever the object says.
        return Some(SkipReason::KubeRootCa);
    }
    // With `HELM_DRIVER=configmap`. There is no type to tell, but a label.
    let helm =
        is_named_as_helm_release(key) && facts.labels.get("owner").is_some_and(|owner| owner == "helm");
    (helm && !asked.name).then_some(SkipReason::HelmRelease)
}

fn is_named_as_helm_release(key: &ObjectKey) -> bool {
    key.name.starts_with("sh.helm.release.v1.")
}

/// Since Kubernetes 1.22 the annotation says who maintains the spec: `true` for the API server, `false` for people.
/// Older servers have no annotation, and maintain the two mandatory objects only.
fn flow_control_row(key: &ObjectKey, facts: &Facts<'_>) -> Option<SkipReason> {
    let maintained = match facts.annotations.get("apf.kubernetes.io/autoupdate-spec") {
        Some(value) => value == "true",
        None => matches!(key.name.as_ref(), "exempt" | "catch-all"),
    };
    maintained.then_some(SkipReason::AutoManagedFlowControl)
}

fn secret_row(key: &ObjectKey, facts: &Facts<'_>, asked: Asked) -> Option<SkipReason> {
    match facts.secret_type.as_ref() {
        "kubernetes.io/service-account-token" => Some(SkipReason::ServiceAccountToken),
        "bootstrap.kubernetes.io/token" if !asked.name => Some(SkipReason::BootstrapToken),
        "helm.sh/release.v1" if !asked.name => Some(SkipReason::HelmRelease),
        // Helm before 3 used type Opaque with the same names.
        _ if is_named_as_helm_release(key) && !asked.name => Some(SkipReason::HelmRelease),
        _ => None,
    }
}

/// Whether the Service has a selector cannot be seen in the Endpoints. What can be seen are the
/// traces of the endpoints controller: its label since Kubernetes 1.33, before that the trigger
/// time or the headless label. Endpoints without any trace count as written by hand.
fn endpoints_row(key: &ObjectKey, facts: &Facts<'_>) -> Option<SkipReason> {
    if key.namespace.as_ref() == "default" && key.name.as_ref() == "kubernetes" {
        return Some(SkipReason::KubernetesService);
    }
    are_controllers_endpoints(facts.labels, facts.annotations).then_some(SkipReason::ManagedEndpoints)
}

/// Did the endpoints controller leave its traces in these Endpoints?
pub(super) fn are_controllers_endpoints(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> bool {
    labels.contains_key("endpoints.kubernetes.io/managed-by")
        || labels.contains_key("service.kubernetes.io/headless")
        || annotations.contains_key("endpoints.kubernetes.io/last-change-trigger-time")
}

#[cfg(test)]
#[path = "eligibility_tests.rs"]
mod tests;
