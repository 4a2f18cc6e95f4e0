//! What controllers do, one step at a time: namespaces and definitions go, dependents are collected, new namespaces
//! are furnished, definitions come to be served.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::crd;
use super::delete::{CRD_CLEANUP, FOREGROUND, ORPHAN, PROTECTION};
use super::kinds::{table, text};
use super::server::{ApiServer, Millis};
use super::smd::managed::updated;
use super::store::Key;
use super::time::rfc3339;
use super::write::named;

/// Table of the definitions.
pub(crate) const DEFINITIONS: &str = "apiextensions.k8s.io/customresourcedefinitions";
const NAMESPACES: &str = "/namespaces";
/// Objects that one step deletes in a namespace or of a definition.
const AT_ONCE: usize = 16;

impl ApiServer {
    /// What a fresh cluster has.
    pub(crate) fn populate(&mut self, now: Millis) {
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let mut namespace = self.object(now, "v1", "Namespace", "", name);
            namespace["spec"] = json!({"finalizers": ["kubernetes"]});
            namespace["status"] = json!({"phase": "Active"});
            self.store.put(NAMESPACES, (String::new(), name.to_owned()), namespace);
        }
        if self.config.controllers {
            while self.tick(now) > 0 {}
        }
    }

    fn object(&mut self, now: Millis, api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
        let mut object = named(api_version, kind, namespace, name);
        object["metadata"]["uid"] = self.uid().into();
        object["metadata"]["creationTimestamp"] = rfc3339(now).into();
        object
    }

    /// After every write: what is served may have changed.
    pub(crate) fn written(&mut self, of: &str, object: &Value) {
        if of == DEFINITIONS && crd::is(object, "Established") {
            self.kinds.define(object, self.config.version);
        }
    }

    /// Takes an object away for good.
    pub(crate) fn remove(&mut self, of: &str, key: &Key) {
        let definition = (of == DEFINITIONS).then(|| self.store.table(of).get(key).cloned()).flatten();
        self.store.delete(of, key);
        if let Some(definition) = definition {
            let spec = &definition.value["spec"];
            let gone = table(&text(&spec["group"]), &text(&spec["names"]["plural"]));
            self.kinds.undefine(&definition.value);
            self.end_table(&gone);
        }
    }

    /// Lets every controller take a step; answers how many writes that made. Until it answers 0, there is more to do.
    pub fn tick(&mut self, now: Millis) -> usize {
        let before = self.store.revision();
        self.compact_in_time(now);
        if self.idle.is_some_and(|(revision, until)| revision == before && now < until) {
            return 0;
        }
        self.definitions(now);
        let later = self.namespaces(now);
        if self.config.controllers {
            self.furnish(now);
        }
        let next = self.pods(now);
        self.unprotect();
        self.collect(now);
        if self.store.revision() == before {
            self.idle = Some((before, next.min(later)));
        }
        usize::try_from(self.store.revision() - before).unwrap_or(usize::MAX)
    }

    fn keys(&self, of: &str) -> Vec<(Key, Value)> {
        let objects = self.store.table(of).objects();
        objects.map(|(key, object)| (key.clone(), object.value.clone())).collect()
    }

    fn definitions(&mut self, now: Millis) {
        for (key, mut definition) in self.keys(DEFINITIONS) {
            if !definition["metadata"]["deletionTimestamp"].is_null() {
                self.undefine(now, &key, definition);
            } else if !crd::is(&definition, "Established") {
                establish(&mut definition, now);
                let stored = self.put_by("kube-apiserver", now, DEFINITIONS, key, definition);
                self.written(DEFINITIONS, &stored);
            }
        }
    }

    /// A write of a controller, with its entry in managedFields.
    fn put_by(&mut self, manager: &str, now: Millis, of: &str, key: Key, mut object: Value) -> Value {
        if let Some(kind) = self.kinds.all().into_iter().find(|kind| kind.table() == of) {
            let live = self.store.table(of).get(&key).map(|live| live.value.clone());
            let version = kind.api_version();
            updated(kind.typed(&version), live.as_ref(), &mut object, manager, &rfc3339(now));
        }
        self.store.put(of, key, object).value.clone()
    }

    /// The objects of a definition go first, then it.
    fn undefine(&mut self, now: Millis, key: &Key, mut definition: Value) {
        let spec = &definition["spec"];
        let of = table(&text(&spec["group"]), &text(&spec["names"]["plural"]));
        if self.store.table(&of).len() > 0 {
            self.drain(now, &of, None);
            if self.store.table(&of).len() > 0 {
                let before = definition["status"].clone();
                let message = "CustomResource deletion is in progress";
                crd::set_condition(
                    &mut definition,
                    "Terminating",
                    "InstanceDeletionInProgress",
                    message,
                    &rfc3339(now),
                );
                if before != definition["status"] {
                    self.store.put(DEFINITIONS, key.clone(), definition);
                }
                return;
            }
        }
        if let Some(finalizers) = definition["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != CRD_CLEANUP);
            if !finalizers.is_empty() {
                self.store.put(DEFINITIONS, key.clone(), definition);
                return;
            }
        }
        self.remove(DEFINITIONS, key);
    }

    /// Deletes some objects of a table, of one namespace or of all; those with finalizers are marked.
    fn drain(&mut self, now: Millis, of: &str, namespace: Option<&str>) -> usize {
        let objects = self.keys(of).into_iter();
        let inside = objects.filter(|((own, _), _)| namespace.is_none_or(|namespace| own == namespace));
        let mut left = 0;
        for (n, (key, object)) in inside.enumerate() {
            left += 1;
            if n < AT_ONCE && self.end(now, of, &key, object) {
                left -= 1;
            }
        }
        left
    }

    /// Deletes an object in the background; true when it is gone.
    fn end(&mut self, now: Millis, of: &str, key: &Key, mut object: Value) -> bool {
        let finalizers = object["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
        if finalizers == 0 {
            self.remove(of, key);
            return true;
        }
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = rfc3339(now).into();
            object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
            if let Some(generation) = object["metadata"]["generation"].as_i64() {
                object["metadata"]["generation"] = (generation + 1).into();
            }
            self.store.put(of, key.clone(), object);
        }
        false
    }

    /// Answers when to look again.
    fn namespaces(&mut self, now: Millis) -> Millis {
        let mut next = Millis::MAX;
        let tables: Vec<String> =
            self.kinds.all().iter().filter(|kind| kind.namespaced).map(|kind| kind.table()).collect();
        for (key, mut namespace) in self.keys(NAMESPACES) {
            let deleted = text(&namespace["metadata"]["deletionTimestamp"]);
            if deleted.is_empty() {
                continue;
            }
            if deleted > rfc3339(now.saturating_sub(self.config.namespace_delay_ms)) {
                next = now.saturating_add(1_000);
                continue;
            }
            let left: usize = tables.iter().map(|of| self.drain(now, of, Some(&key.1))).sum();
            let known = namespace["spec"]["finalizers"].as_array().map_or(0, Vec::len);
            if left > 0 || known > 1 {
                continue;
            }
            if namespace["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                self.remove(NAMESPACES, &key);
            } else if known == 1 {
                namespace["spec"]["finalizers"] = json!([]);
                self.store.put(NAMESPACES, key, namespace);
            }
        }
        next
    }

    /// What every namespace has.
    fn furnish(&mut self, now: Millis) {
        for ((_, name), namespace) in self.keys(NAMESPACES) {
            if !namespace["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            for (kind, of, own) in [
                ("ServiceAccount", "/serviceaccounts", "default"),
                ("ConfigMap", "/configmaps", "kube-root-ca.crt"),
            ] {
                let key = (name.clone(), own.to_owned());
                if self.store.table(of).get(&key).is_none() {
                    let mut object = self.object(now, "v1", kind, &name, own);
                    if kind == "ConfigMap" {
                        object["data"] = json!({"ca.crt": "model"});
                    }
                    self.store.put(of, key, object);
                }
            }
        }
    }

    /// Pods whose grace is over; answers when to look again.
    fn pods(&mut self, now: Millis) -> Millis {
        let mut next = Millis::MAX;
        for (key, pod) in self.keys("/pods") {
            let until = text(&pod["metadata"]["deletionTimestamp"]);
            let due = !until.is_empty() && until <= rfc3339(now);
            if due && pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                self.remove("/pods", &key);
            } else if !until.is_empty() {
                // To the second: times are written so.
                next = now.saturating_add(1_000);
            }
        }
        next
    }

    /// Claims and volumes that are deleted: nothing uses them here.
    fn unprotect(&mut self) {
        for (of, (_, finalizer)) in ["/persistentvolumeclaims", "/persistentvolumes"].iter().zip(PROTECTION) {
            for (key, object) in self.keys(of) {
                let held = |object: &Value| {
                    let finalizers = object["metadata"]["finalizers"].as_array();
                    finalizers.is_some_and(|list| list.iter().any(|item| item == finalizer))
                };
                if !object["metadata"]["deletionTimestamp"].is_null() && held(&object) {
                    self.without_finalizer(of, &key, object, finalizer);
                }
            }
        }
    }

    /// Garbage collection: dependents whose owners are gone, and the finalizers of those who wait for it.
    fn collect(&mut self, now: Millis) {
        let mut uids = BTreeSet::new();
        let mut waiting = Vec::new();
        let mut dependents = Vec::new();
        for (of, found) in self.store.tables() {
            for (key, object) in found.objects() {
                let metadata = &object.value["metadata"];
                uids.insert(text(&metadata["uid"]));
                if metadata["ownerReferences"].is_array() {
                    dependents.push((of.clone(), key.clone(), object.value.clone()));
                }
                let has = |name: &str| {
                    metadata["finalizers"].as_array().is_some_and(|list| list.iter().any(|item| item == name))
                };
                if !metadata["deletionTimestamp"].is_null() && (has(ORPHAN) || has(FOREGROUND)) {
                    waiting.push((of.clone(), key.clone(), object.value.clone(), has(ORPHAN)));
                }
            }
        }
        let owned_by = |object: &Value, uid: &str| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
        };
        for (of, key, owner, orphan) in waiting {
            let uid = text(&owner["metadata"]["uid"]);
            let mine: Vec<_> =
                dependents.iter().filter(|(_, _, object)| owned_by(object, &uid)).cloned().collect();
            if !orphan && !mine.is_empty() {
                for (of, key, object) in mine {
                    self.end(now, &of, &key, object);
                }
                continue;
            }
            for (of, key, mut object) in mine {
                if let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() {
                    owners.retain(|owner| owner["uid"] != uid.as_str());
                    if owners.is_empty()
                        && let Some(metadata) = object["metadata"].as_object_mut()
                    {
                        metadata.remove("ownerReferences");
                    }
                }
                self.put_by("kube-controller-manager", now, &of, key, object);
            }
            self.without_finalizer(&of, &key, owner, if orphan { ORPHAN } else { FOREGROUND });
        }
        for (of, key, object) in dependents {
            let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            let orphaned =
                !owners.is_empty() && owners.iter().all(|owner| !uids.contains(&text(&owner["uid"])));
            if orphaned && self.store.table(&of).get(&key).is_some() {
                self.end(now, &of, &key, object);
            }
        }
    }

    fn without_finalizer(&mut self, of: &str, key: &Key, mut object: Value, finalizer: &str) {
        let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() else { return };
        finalizers.retain(|item| item != finalizer);
        if finalizers.is_empty() {
            self.remove(of, key);
        } else {
            self.store.put(of, key.clone(), object);
        }
    }
}

fn establish(definition: &mut Value, now: Millis) {
    let now = rfc3339(now);
    definition["status"]["acceptedNames"] = definition["spec"]["names"].clone();
    crd::set_condition(definition, "NamesAccepted", "NoConflicts", "no conflicts found", &now);
    let message = "the initial names have been accepted";
    crd::set_condition(definition, "Established", "InitialNamesAccepted", message, &now);
}
