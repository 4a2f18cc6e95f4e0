//! What is written of a body that was kept, and how it compares with what is there.
//!
//! The field catalogue says what servers and controllers give out; a restore puts back what a copy in
//! another cluster must not have, where it means the same here.

use serde_json::{Map, Value};

use super::{Kept, Options};
use crate::catalogue::{strip, strip_tracking};
use crate::identity::{GroupKind, ObjectKey};
use crate::marks;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Label that every server gives its namespaces.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";
/// Fields named of a difference.
const MAX_PATHS: usize = 8;

/// Where an object comes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting<'a> {
    pub(super) options: &'a Options,
    pub(super) same_cluster: bool,
    /// In its own cluster, under its own key.
    pub(super) same_place: bool,
    /// The volume of a claim is there, and waits for this claim.
    pub(super) volume_waits: bool,
}

/// The body at its destination, without owners, and what was dropped or changed.
pub(super) fn desired(
    kept: &Kept,
    key: &ObjectKey,
    api_version: &str,
    setting: Setting<'_>,
) -> (Value, Vec<String>) {
    let mut words = Vec::new();
    let mut body = portable(&kept.key.gk, &kept.body, setting);
    dropped(kept, &body, setting, &mut words);
    set(&mut body, "", "apiVersion", api_version.into());
    if kept.body.get("apiVersion").and_then(Value::as_str).is_some_and(|version| version != api_version) {
        words.push(format!("written as {api_version}: its own version is not served here"));
    }
    set(&mut body, "", "kind", key.gk.kind.as_ref().into());
    set(&mut body, "/metadata", "name", key.name.as_ref().into());
    if !key.namespace.is_empty() {
        set(&mut body, "/metadata", "namespace", key.namespace.as_ref().into());
    }
    if setting.same_place {
        let applied = kept.body.pointer("/metadata/annotations").and_then(|all| all.get(LAST_APPLIED));
        if let Some(applied) = applied {
            if body.pointer("/metadata/annotations").is_none() {
                set(&mut body, "/metadata", "annotations", Value::Object(Map::new()));
            }
            set(&mut body, "/metadata/annotations", LAST_APPLIED, applied.clone());
        }
    }
    if key.namespace != kept.key.namespace {
        move_subjects(&mut body, &kept.key.namespace, &key.namespace, &mut words);
    }
    if key.gk.is("", "Namespace")
        && body.pointer("/metadata/labels").is_some_and(|l| l.get(NAMESPACE_LABEL).is_some())
    {
        set(&mut body, "/metadata/labels", NAMESPACE_LABEL, key.name.as_ref().into());
    }
    (body, words)
}

/// What of a body means the same at the destination.
pub(super) fn portable(gk: &GroupKind, from: &Value, setting: Setting<'_>) -> Value {
    let mut body = from.clone();
    strip(gk, &mut body);
    if !setting.same_place {
        // Elsewhere the tool that tracked it would prune it, or take it for what it has there.
        strip_tracking(gk, &mut body);
    }
    let mut back = |path: &str, field: &str| {
        if let Some(value) = from.pointer(path).and_then(|holder| holder.get(field)).filter(|v| !v.is_null())
        {
            set(&mut body, path, field, value.clone());
        }
    };
    if setting.options.status {
        back("", "status");
    }
    if setting.options.keep_finalizers {
        back("/metadata", "finalizers");
    }
    if gk.is("", "Service") {
        if setting.same_cluster {
            back("/spec", "ipFamilies");
            back("/spec", "ipFamilyPolicy");
        }
        if setting.same_place {
            back("/spec", "healthCheckNodePort");
            let ports = from.pointer("/spec/ports").and_then(Value::as_array).map_or(0, Vec::len);
            (0..ports).for_each(|port| back(&format!("/spec/ports/{port}"), "nodePort"));
        }
    }
    if gk.is("", "PersistentVolumeClaim") && setting.volume_waits {
        back("/spec", "volumeName");
    }
    body
}

fn dropped(kept: &Kept, body: &Value, setting: Setting<'_>, words: &mut Vec<String>) {
    let before = |path: &str| kept.body.pointer(path).filter(|value| !value.is_null());
    let went = |path: &str| before(path).is_some() && body.pointer(path).is_none();
    if went("/metadata/finalizers") {
        let names: Vec<&str> = before("/metadata/finalizers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        words.push(format!("without its finalizers: {} (--keep-finalizers keeps them)", names.join(", ")));
    }
    if kept.key.gk.is("", "Service") {
        if went("/spec/clusterIP") && before("/spec/clusterIP").is_some_and(|ip| ip != "") {
            words.push("it gets a clusterIP anew".to_owned());
        }
        let ports = before("/spec/ports").and_then(Value::as_array).map_or(0, Vec::len);
        if (0..ports).any(|port| went(&format!("/spec/ports/{port}/nodePort"))) {
            words.push("it gets node ports anew".to_owned());
        }
    }
    if went("/spec/volumeName") && kept.key.gk.is("", "PersistentVolumeClaim") {
        let volume = before("/spec/volumeName").and_then(Value::as_str).unwrap_or_default();
        words.push(format!(
            "it gets a volume anew: {volume} does not wait for it (what is on that volume is not lost; \
             to have it back, take the uid out of the volume's spec.claimRef first)"
        ));
    }
    if kept.key.gk.is("", "Pod") && went("/spec/nodeName") {
        words.push("it is scheduled anew".to_owned());
    }
    let marked = ["labels", "annotations"].iter().any(|member| {
        let all = before("/metadata").and_then(|metadata| metadata.get(*member)).and_then(Value::as_object);
        all.is_some_and(|all| all.keys().any(|name| marks::is_mark(name)))
    });
    if marked {
        words.push("without the marks of lockstep: it was a copy, and is nobody's now".to_owned());
    }
    if !setting.options.status && kept.key.gk.is("batch", "Job") {
        words.push("the Job runs again".to_owned());
    }
}

/// Subjects of a binding that moved along.
fn move_subjects(body: &mut Value, from: &str, to: &str, words: &mut Vec<String>) {
    let Some(subjects) = body.get_mut("subjects").and_then(Value::as_array_mut) else { return };
    let mut moved = false;
    for subject in subjects.iter_mut().filter(|s| s.get("namespace").and_then(Value::as_str) == Some(from)) {
        set(subject, "", "namespace", to.into());
        moved = true;
    }
    if moved {
        words.push(format!("its subjects in {from} are those in {to} now"));
    }
}

/// Sets a member of an object that is there.
fn set(body: &mut Value, path: &str, field: &str, value: Value) {
    if let Some(holder) = body.pointer_mut(path).and_then(Value::as_object_mut) {
        holder.insert(field.to_owned(), value);
    }
}

/// How what is there relates to what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// It is that.
    Same,
    /// It has all of it, and optional fields besides, which a server of another version fills in.
    Holds,
    /// It differs in these fields, of which some are named.
    Differs(Vec<String>),
}

/// Compares without what is no matter of the object's own: status, owners and finalizers.
pub(super) fn likeness(gk: &GroupKind, desired: &Value, live: &Value, setting: Setting<'_>) -> Likeness {
    let mut compared = Compared { paths: Vec::new(), extra: false };
    let (mut desired, mut live) = (desired.clone(), portable(gk, live, setting));
    for side in [&mut desired, &mut live] {
        for (path, field) in [
            ("", "status"),
            ("", "apiVersion"),
            ("", "kind"),
            ("/metadata", "finalizers"),
            ("/metadata/annotations", LAST_APPLIED),
        ] {
            if let Some(holder) = side.pointer_mut(path).and_then(Value::as_object_mut) {
                holder.remove(field);
            }
        }
        let annotations = side.pointer("/metadata/annotations").and_then(Value::as_object);
        if annotations.is_some_and(Map::is_empty)
            && let Some(metadata) = side.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("annotations");
        }
    }
    compared.compare(&desired, &live, "");
    match (compared.paths.is_empty(), compared.extra) {
        (false, _) => Likeness::Differs(compared.paths),
        (true, true) => Likeness::Holds,
        (true, false) => Likeness::Same,
    }
}

struct Compared {
    paths: Vec<String>,
    extra: bool,
}

impl Compared {
    fn differs(&mut self, path: &str) {
        if self.paths.len() < MAX_PATHS {
            self.paths.push(path.trim_start_matches('.').to_owned());
        }
    }

    fn compare(&mut self, desired: &Value, live: &Value, path: &str) {
        match (desired, live) {
            (Value::Object(desired), Value::Object(live)) => {
                for (name, wanted) in desired {
                    let path = format!("{path}.{name}");
                    match live.get(name) {
                        Some(value) => self.compare(wanted, value, &path),
                        None => self.differs(&path),
                    }
                }
                for name in live.keys().filter(|name| !desired.contains_key(*name)) {
                    // No server fills these in.
                    let own = matches!(path, ".data" | ".binaryData" | ".metadata.labels");
                    if own || matches!(name.as_str(), "data" | "binaryData") && path.is_empty() {
                        self.differs(&format!("{path}.{name}"));
                    } else {
                        self.extra = true;
                    }
                }
            }
            (Value::Array(desired), Value::Array(live)) if desired.len() == live.len() => {
                for (n, (wanted, value)) in desired.iter().zip(live).enumerate() {
                    self.compare(wanted, value, &format!("{path}[{n}]"));
                }
            }
            (desired, live) if desired == live => {}
            _ => self.differs(path),
        }
    }
}

/// What the server and its controllers gave the object that is replaced stays with it: all that
/// stripping takes off it.
pub(super) fn carry(gk: &GroupKind, desired: &mut Value, live: &Value) {
    let mut stripped = live.clone();
    strip(gk, &mut stripped);
    strip_tracking(gk, &mut stripped);
    carry_members(desired, live, &stripped);
}

fn carry_members(desired: &mut Value, live: &Value, stripped: &Value) {
    match (desired, live, stripped) {
        (Value::Object(desired), Value::Object(live), Value::Object(stripped)) => {
            for (name, value) in live.iter().filter(|(name, value)| !marks::is_mark(name) && !value.is_null())
            {
                match (desired.get_mut(name), stripped.get(name)) {
                    (None, None) => {
                        desired.insert(name.clone(), value.clone());
                    }
                    (Some(desired), Some(stripped)) => carry_members(desired, value, stripped),
                    _ => {}
                }
            }
        }
        (Value::Array(desired), Value::Array(live), Value::Array(stripped))
            if desired.len() == live.len() && live.len() == stripped.len() =>
        {
            for ((desired, live), stripped) in desired.iter_mut().zip(live).zip(stripped) {
                carry_members(desired, live, stripped);
            }
        }
        _ => {}
    }
}

/// What is there and what would replace it, both without what the server gives out and with what stays:
/// what differs between them is what changes.
#[must_use]
pub fn replacing(gk: &GroupKind, live: &Value, wanted: &Value) -> (Value, Value) {
    let (mut from, mut to) = (live.clone(), wanted.clone());
    carry(gk, &mut to, live);
    for side in [&mut from, &mut to] {
        if let Some(object) = side.as_object_mut() {
            object.remove("status");
        }
    }
    (from, to)
}
