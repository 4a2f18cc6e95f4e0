//! Which nulls of a body mean something.
//!
//! Built-in kinds are Go structures: a null in one is a member that is not set. A schema of a custom kind may say
//! `nullable`, with a default that is something else, and free-form parts hold whatever they were given. What a source
//! serves has been through its schema, so what is null there is meant.

use serde_json::{Map, Value};

use crate::identity::GroupKind;

/// Groups without a dot belong to Kubernetes, and so do these. Others below `k8s.io` are definitions that are installed
/// (`gateway.networking.k8s.io`, `snapshot.storage.k8s.io`) or aggregated: their nulls stay.
const BUILT_IN: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// Members of built-in kinds below which anything may stand, nulls included.
fn free_form(gk: &GroupKind) -> &'static [&'static str] {
    match (gk.group.as_ref(), gk.kind.as_ref()) {
        ("apiextensions.k8s.io", "CustomResourceDefinition") => &["default", "enum", "example"],
        ("apps", "ControllerRevision") => &["data"],
        ("resource.k8s.io", _) => &["parameters"],
        _ => &[],
    }
}

/// Removes the members that are null and not set. Nulls in lists stay: there they have a place.
pub(super) fn remove(gk: &GroupKind, body: &mut Map<String, Value>) {
    let built_in = !gk.group.contains('.') || BUILT_IN.contains(&gk.group.as_ref());
    if built_in {
        remove_in(body, free_form(gk));
    } else if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        // Metadata is a structure of Go in every kind.
        remove_in(metadata, &[]);
    }
}

fn remove_in(members: &mut Map<String, Value>, free_form: &[&str]) {
    members.retain(|_, member| !member.is_null());
    for (name, member) in members {
        if !free_form.contains(&name.as_str()) {
            below(member, free_form);
        }
    }
}

fn below(value: &mut Value, free_form: &[&str]) {
    match value {
        Value::Object(members) => remove_in(members, free_form),
        Value::Array(items) => items.iter_mut().for_each(|item| below(item, free_form)),
        _ => {}
    }
}
