//! What the tests of this crate share.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use lockstep_engine::catalogue::Facts;
use lockstep_engine::object::RawObject;
use lockstep_engine::{ClusterName, GroupKind, ObjectKey};
use lockstep_policies::{CompiledPolicy, LoadOutcome, LoadedFile, PolicySet, Selection, load, select};
use serde_json::Value;

pub(crate) fn file(path: &str, text: &str) -> LoadedFile {
    LoadedFile { path: path.to_owned(), text: Ok(text.to_owned()) }
}

pub(crate) fn load_one(text: &str) -> LoadOutcome {
    load(&PolicySet::default(), &[file("a.yaml", text)], None)
}

#[track_caller]
pub(crate) fn good(text: &str) -> PolicySet {
    let outcome = load_one(text);
    assert!(outcome.is_clean(), "{:#?}", outcome.findings);
    outcome.set
}

/// A policy with this name and these resources, written in flow style.
pub(crate) fn policy(name: &str, source: &str, targets: &str, resources: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1\nkind: ClusterSyncPolicy\nmetadata: {{ name: {name} }}\nspec: {{ sourceCluster: {source}, targetClusters: [{targets}], resources: [{resources}] }}\n"
    )
}

pub(crate) fn known(names: &[&str]) -> BTreeSet<ClusterName> {
    names.iter().map(|name| ClusterName::new(name).unwrap()).collect()
}

pub(crate) fn gk(group: &str, kind: &str) -> GroupKind {
    GroupKind::new(group, kind)
}

pub(crate) fn verdict(policy: &CompiledPolicy, gk: &GroupKind, body: &Value) -> Selection {
    let bytes = serde_json::to_vec(body).unwrap();
    let object = RawObject::parse(&bytes).unwrap();
    let key = ObjectKey::new(gk.clone(), &object.metadata.namespace, &object.metadata.name);
    let facts = Facts::of(gk, &object, &bytes).unwrap();
    select(policy, &key, &facts)
}
