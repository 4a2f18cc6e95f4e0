//! What is taken off a source body before it is written elsewhere.

mod nulls;

use serde_json::{Map, Value};

use crate::guard::{self, Guard};
use crate::identity::GroupKind;
use crate::marks;

type Object = Map<String, Value>;

/// Metadata that the server of each cluster gives out, or that points into one cluster.
const METADATA: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
    "ownerReferences",
    // Not copied; those of the target are left alone, because server-side apply omits them.
    "finalizers",
];

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Annotations that the volume controllers of one cluster write on a claim.
const CLAIM_ANNOTATIONS: &[&str] = &[
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/selected-node",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
];

/// Labels that the job controller generates, in both spellings.
const JOB_LABELS: &[&str] =
    &["controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"];

/// Where the kubelet and the service account admission mount tokens.
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Strips everything from a source body that must not, or need not, be copied: what servers and
/// controllers fill in, status, marks of lockstep, and nulls where they mean nothing. Stripping twice is stripping once.
///
/// IP families of a Service stay only where a manager of the source set them, which can be seen
/// only as long as `metadata.managedFields` is there. Without it a dual-stack `ipFamilyPolicy`
/// stays (nobody gets one by default) and the families are left to the target.
pub fn strip(gk: &GroupKind, body: &mut Value) {
    let Some(object) = body.as_object_mut() else { return };
    nulls::remove(gk, object);
    object.remove("status");
    kind_row(gk, object);
    let Some(metadata) = child(object, "metadata") else { return };
    for field in METADATA {
        metadata.remove(*field);
    }
    let stays = |name: &str| !(marks::is_mark(name) && guard::on(Guard::MarksStripped));
    retain(metadata, "annotations", |name| name != LAST_APPLIED && stays(name));
    retain(metadata, "labels", stays);
}

fn kind_row(gk: &GroupKind, object: &mut Object) {
    match (gk.group.as_ref(), gk.kind.as_ref()) {
        ("", "Service") => service(object),
        ("", "Pod") => pod(object),
        ("", "ServiceAccount") => service_account(object),
        ("", "PersistentVolumeClaim") => claim(object),
        ("", "PersistentVolume") => {
            if let Some(claim) = child(object, "spec").and_then(|spec| child(spec, "claimRef")) {
                claim.remove("uid");
                claim.remove("resourceVersion");
            }
        }
        // The finalizer `kubernetes`, which each API server adds.
        ("", "Namespace") => {
            if let Some(spec) = child(object, "spec") {
                spec.remove("finalizers");
            }
            remove_if_empty(object, "spec");
        }
        ("batch", "Job") => job(object),
        ("batch", "CronJob") => {
            if let Some(template) = child(object, "spec").and_then(|spec| child(spec, "jobTemplate")) {
                job(template);
            }
        }
        ("apps", "Deployment") => {
            if let Some(metadata) = child(object, "metadata") {
                retain(metadata, "annotations", |name| name != "deployment.kubernetes.io/revision");
            }
        }
        // Status, which autoscaling/v1 has room for in annotations only. `metrics` and `behavior` there are intent.
        ("autoscaling", "HorizontalPodAutoscaler") => {
            if let Some(metadata) = child(object, "metadata") {
                let status = |name: &str| {
                    let field = name.strip_prefix("autoscaling.alpha.kubernetes.io/");
                    matches!(field, Some("conditions" | "current-metrics"))
                };
                retain(metadata, "annotations", |name| !status(name));
            }
        }
        // Each API server counts the changes of its own object.
        ("apps", "DaemonSet") => {
            if let Some(metadata) = child(object, "metadata") {
                retain(metadata, "annotations", |name| name != "deprecated.daemonset.template.generation");
            }
        }
        // The controller at the target aggregates its own.
        ("rbac.authorization.k8s.io", "ClusterRole") if object.contains_key("aggregationRule") => {
            object.remove("rules");
        }
        _ => {}
    }
}

fn service(object: &mut Object) {
    let set = families_set(object);
    let Some(spec) = child(object, "spec") else { return };
    if spec.get("clusterIP").and_then(Value::as_str) != Some("None") {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    spec.remove("healthCheckNodePort");
    for port in items(spec, "ports") {
        port.remove("nodePort");
    }
    if let Some([families, policy]) = set {
        if !families {
            spec.remove("ipFamilies");
        }
        if !policy {
            spec.remove("ipFamilyPolicy");
        }
    } else {
        spec.remove("ipFamilies");
        if spec.get("ipFamilyPolicy").and_then(Value::as_str) == Some("SingleStack") {
            spec.remove("ipFamilyPolicy");
        }
    }
}

/// Did a manager set ipFamilies, and ipFamilyPolicy? None when that cannot be known.
fn families_set(service: &Object) -> Option<[bool; 2]> {
    let managers = service.get("metadata")?.get("managedFields")?.as_array()?;
    Some(["f:ipFamilies", "f:ipFamilyPolicy"].map(|field| {
        managers.iter().any(|manager| {
            manager
                .pointer("/fieldsV1/f:spec")
                .and_then(Value::as_object)
                .is_some_and(|s| s.contains_key(field))
        })
    }))
}

/// A Job, or the template of one in a CronJob.
fn job(object: &mut Object) {
    let Some(spec) = child(object, "spec") else { return };
    // Whoever sets manualSelector chose selector and labels by hand.
    if spec.get("manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    spec.remove("selector");
    if let Some(metadata) = child(spec, "template").and_then(|template| child(template, "metadata")) {
        retain(metadata, "labels", |name| !JOB_LABELS.contains(&name));
    }
    // Defaulting copies the template's labels onto a Job without labels.
    if let Some(metadata) = child(object, "metadata") {
        retain(metadata, "labels", |name| !JOB_LABELS.contains(&name));
    }
}

fn claim(object: &mut Object) {
    if let Some(metadata) = child(object, "metadata") {
        retain(metadata, "annotations", |name| !CLAIM_ANNOTATIONS.contains(&name));
    }
    if let Some(spec) = child(object, "spec") {
        spec.remove("volumeName");
    }
}

fn service_account(object: &mut Object) {
    let name = object.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Value::as_str);
    let Some(name) = name.map(str::to_owned) else { return };
    for list in ["secrets", "imagePullSecrets"] {
        if let Some(secrets) = object.get_mut(list).and_then(Value::as_array_mut) {
            secrets.retain(|secret| !is_generated(&name, text(secret, "name")));
        }
        remove_if_empty(object, list);
    }
}

/// Did a controller of one cluster make this secret for the account? Kubernetes makes tokens, OpenShift credentials of its
/// own registry, too; both append five random characters.
fn is_generated(account: &str, secret: &str) -> bool {
    let Some(rest) = secret.strip_prefix(account) else { return false };
    let suffix = rest.strip_prefix("-token-").or_else(|| rest.strip_prefix("-dockercfg-"));
    let is_random = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    suffix.is_some_and(|suffix| suffix.len() == 5 && suffix.bytes().all(is_random))
}

fn pod(object: &mut Object) {
    let Some(spec) = child(object, "spec") else { return };
    spec.remove("nodeName");
    spec.remove("priority");
    let mut injected = Vec::new();
    if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
        volumes.retain(|volume| {
            let token = is_token_volume(volume);
            if token {
                injected.push(text(volume, "name").to_owned());
            }
            !token
        });
    }
    remove_if_empty(spec, "volumes");
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(spec, list) {
            if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                mounts.retain(|mount| {
                    text(mount, "mountPath") != TOKEN_MOUNT
                        || !injected.iter().any(|name| name == text(mount, "name"))
                });
            }
            remove_if_empty(container, "volumeMounts");
        }
    }
}

/// Injected by the service account admission: a projected volume `kube-api-access-xxxxx` since
/// 1.21, before that a Secret volume named like its token Secret, `default-token-xxxxx`.
fn is_token_volume(volume: &Value) -> bool {
    let name = text(volume, "name");
    if name.starts_with("kube-api-access-") {
        return volume.get("projected").is_some();
    }
    let secret = volume.get("secret").map_or("", |secret| text(secret, "secretName"));
    !secret.is_empty() && secret == name && name.contains("-token-")
}

fn child<'a>(object: &'a mut Object, field: &str) -> Option<&'a mut Object> {
    object.get_mut(field).and_then(Value::as_object_mut)
}

fn items<'a>(object: &'a mut Object, field: &str) -> impl Iterator<Item = &'a mut Object> {
    let list = object.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Keeps the members that `keep` wants; an empty rest is removed, so that a body that had
/// nothing else there renders like one that never had the map.
fn retain(object: &mut Object, field: &str, keep: impl Fn(&str) -> bool) {
    if let Some(map) = child(object, field) {
        map.retain(|name, _| keep(name));
    }
    remove_if_empty(object, field);
}

fn remove_if_empty(object: &mut Object, field: &str) {
    let empty = match object.get(field) {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => false,
    };
    if empty {
        object.remove(field);
    }
}

#[cfg(test)]
#[path = "strip_tests.rs"]
mod tests;
