//! The kinds that are served: the built-in ones from `tests/model/schema.json`, custom ones from their definitions.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value, json};

use super::crd;
use super::smd::schema::{Builder, Schema, TypeId};

/// Built-in kinds whose objects have a generation.
const WITH_GENERATION: [&str; 13] = [
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "ReplicationController",
    "Ingress",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "CustomResourceDefinition",
    "PriorityClass",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "EndpointSlice",
];
/// Built-in kinds of which a PUT must name the resourceVersion.
const VERSIONED_UPDATES: [&str; 5] = [
    "Lease",
    "PodDisruptionBudget",
    "CustomResourceDefinition",
    "APIService",
    "MutatingWebhookConfiguration",
];
/// Built-in kinds that a PUT may create.
const CREATED_BY_PUT: [&str; 8] = [
    "Lease",
    "Service",
    "Endpoints",
    "LimitRange",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
];
/// Built-in kinds of which a delete answers the object.
const DELETE_ANSWERS_OBJECT: [&str; 10] = [
    "Pod",
    "PodTemplate",
    "PersistentVolumeClaim",
    "PersistentVolume",
    "ResourceQuota",
    "ServiceAccount",
    "StorageClass",
    "VolumeAttachment",
    "CSIDriver",
    "CSINode",
];

/// One kind in one version.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
    pub(crate) schema: Arc<Schema>,
    pub(crate) id: TypeId,
    /// What an object is before anything is set.
    pub(crate) zero: Value,
    /// Is there a subresource `status`, so that others do not write it?
    pub(crate) status: bool,
    /// The structural schema of a custom resource.
    pub(crate) custom: Option<Value>,
    /// Is its definition being deleted?
    pub(crate) terminating: bool,
}

impl Kind {
    /// Which table its objects are in.
    pub(crate) fn table(&self) -> String {
        table(&self.group, &self.plural)
    }

    /// `v1`, `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    fn is_one_of(&self, kinds: &[&str]) -> bool {
        self.custom.is_none() && kinds.contains(&self.kind.as_str())
    }

    pub(crate) fn has_generation(&self) -> bool {
        self.custom.is_some() || self.is_one_of(&WITH_GENERATION)
    }

    pub(crate) fn updates_unversioned(&self) -> bool {
        self.custom.is_none() && !self.is_one_of(&VERSIONED_UPDATES)
    }

    pub(crate) fn created_by_put(&self) -> bool {
        self.is_one_of(&CREATED_BY_PUT)
    }

    pub(crate) fn delete_answers_object(&self) -> bool {
        self.is_one_of(&DELETE_ANSWERS_OBJECT)
    }

    /// Is it this built-in kind?
    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.custom.is_none() && self.group == group && self.kind == kind
    }

    /// Type and schema, for the field managers.
    pub(crate) fn typed<'a>(&'a self, api_version: &'a str) -> super::smd::managed::Typed<'a> {
        super::smd::managed::Typed {
            schema: &self.schema,
            id: self.id,
            version: api_version,
            zero: &self.zero,
        }
    }
}

/// The table of a resource.
pub(crate) fn table(group: &str, plural: &str) -> String {
    format!("{group}/{plural}")
}

/// What is compiled in.
pub(crate) struct Builtin {
    kinds: BTreeMap<(String, String, String), Arc<Kind>>,
    /// Discovery of each group and version, in the server's order.
    pub(crate) groups: Vec<Value>,
    types: Map<String, Value>,
    zeros: Map<String, Value>,
    pub(crate) defaults: Map<String, Value>,
}

pub(crate) static BUILTIN: LazyLock<Builtin> = LazyLock::new(|| {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let mut schema = parse(include_str!("../../model/schema.json"));
    let mut by_hand = parse(include_str!("../../model/defaults.json"));
    let mut types = members(schema["types"].take());
    for (name, keys) in members(by_hand["keys"].take()) {
        if let Some(found) = types.get_mut(&name) {
            found["defaults"] = keys;
        }
    }
    let groups = match schema["groups"].take() {
        Value::Array(groups) => groups,
        _ => Vec::new(),
    };
    let (zeros, defaults) = (members(by_hand["zero"].take()), members(by_hand["defaults"].take()));
    Builtin::new(types, zeros, defaults, groups)
});

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

impl Builtin {
    fn new(
        types: Map<String, Value>,
        zeros: Map<String, Value>,
        defaults: Map<String, Value>,
        groups: Vec<Value>,
    ) -> Self {
        let mut this = Self { kinds: BTreeMap::new(), groups, types, zeros, defaults };
        let mut builder = Builder::new(&this.types);
        let mut found = Vec::new();
        for group in &this.groups {
            let resources = group["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
            for resource in resources {
                let Some(name) = resource["type"].as_str() else { continue };
                let id = builder.named(name);
                let plural = text(&resource["name"]);
                let status = format!("{plural}/status");
                let status = resources.iter().any(|other| other["name"] == status.as_str());
                found.push((text(&group["group"]), text(&group["version"]), resource.clone(), id, status));
            }
        }
        let schema = Arc::new(builder.finish());
        for (group, version, resource, id, status) in found {
            let zero = this.zero(resource["type"].as_str().unwrap_or_default());
            let kind = Kind {
                group: group.clone(),
                version: version.clone(),
                kind: text(&resource["kind"]),
                plural: text(&resource["name"]),
                namespaced: resource["namespaced"] == true,
                verbs: super::smd::schema::strings(&resource["verbs"]),
                schema: Arc::clone(&schema),
                id,
                zero,
                status,
                custom: None,
                terminating: false,
            };
            this.kinds.insert((group, version, kind.plural.clone()), Arc::new(kind));
        }
        this
    }

    /// What a value of a type is before anything is set.
    pub(crate) fn zero(&self, name: &str) -> Value {
        let mut zero = Map::new();
        for (field, value) in self.zeros.get(name).and_then(Value::as_object).into_iter().flatten() {
            zero.insert(field.clone(), self.zero_of(name, field, value));
        }
        Value::Object(zero)
    }

    /// Of one field, where a type has it from the start.
    pub(crate) fn zero_field(&self, name: &str, field: &str) -> Option<Value> {
        let value = self.zeros.get(name)?.get(field)?;
        Some(self.zero_of(name, field, value))
    }

    fn zero_of(&self, name: &str, field: &str, value: &Value) -> Value {
        let inner = self.types.get(name).and_then(|found| found["fields"][field].as_str());
        match inner.and_then(|text| text.strip_prefix('#')) {
            Some(inner) if value.is_object() => self.zero(inner),
            _ => value.clone(),
        }
    }

    /// A schema for custom resources, beside the type of `metadata`.
    pub(crate) fn builder(&self) -> Builder<'_> {
        Builder::new(&self.types)
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values()
    }
}

/// The kinds that a server serves now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kinds {
    custom: BTreeMap<(String, String, String), Arc<Kind>>,
}

impl Kinds {
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        BUILTIN.kinds.get(&key).or_else(|| self.custom.get(&key)).cloned()
    }

    /// By kind, as objects name it.
    pub(crate) fn by_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let mut all = BUILTIN.kinds.values().chain(self.custom.values());
        all.find(|k| k.group == group && k.version == version && k.kind == kind).cloned()
    }

    /// One kind per table: the first version of each.
    pub(crate) fn all(&self) -> Vec<Arc<Kind>> {
        let mut seen = std::collections::BTreeSet::new();
        let all = BUILTIN.kinds.values().chain(self.custom.values());
        all.filter(|kind| seen.insert(kind.table())).cloned().collect()
    }

    pub(crate) fn custom(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.custom.values()
    }

    /// Serves what a definition defines, in place of what it defined before.
    pub(crate) fn define(&mut self, definition: &Value, version: (u32, u32)) {
        self.undefine(definition);
        for kind in crd::kinds(definition, version) {
            let key = (kind.group.clone(), kind.version.clone(), kind.plural.clone());
            self.custom.insert(key, Arc::new(kind));
        }
    }

    pub(crate) fn undefine(&mut self, definition: &Value) {
        let spec = &definition["spec"];
        let table = table(&text(&spec["group"]), &text(&spec["names"]["plural"]));
        self.custom.retain(|_, kind| kind.table() != table);
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An object of a kind with nothing but apiVersion, kind and metadata.
pub(crate) fn bare(api_version: &str, kind: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {}})
}
