//! Plans and restores as the HTTP API shows them. Values of Secrets become keyed digests before anything
//! is compared (I13).

use std::collections::BTreeMap;

use lockstep_engine::restore::{Item, Verdict, replacing};
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Draft;
use crate::redact;
use crate::store::restores::{ItemState, RestoreItemRow, RestoreRow};

/// What a restore would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanView {
    /// `RestorePlan`.
    pub kind: String,
    /// Where to.
    pub cluster: String,
    /// Names exactly this plan.
    pub digest: String,
    /// In the order in which they are written.
    pub items: Vec<PlanItem>,
    /// What is named by them and is not there.
    pub missing: Vec<MissingItem>,
    /// How many of each verdict.
    pub counts: BTreeMap<Verdict, usize>,
}

/// One object of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanItem {
    /// Its tombstone.
    pub tombstone: i64,
    /// `Deployment.apps`.
    pub kind: String,
    /// At the destination; empty for cluster-scoped kinds.
    pub namespace: String,
    /// At the destination.
    pub name: String,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why, where the verdict does not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Nobody named it: another object of the plan does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dependency: bool,
    /// What was dropped or changed, and what to know of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// The API server has not checked it: it needs what this restore creates before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untried: bool,
    /// What is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// RFC 6902 patch from what is there to what would be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patch: Vec<Value>,
}

/// Something that is named and not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingItem {
    /// `Secret shop/password`.
    pub object: String,
    /// The object that names it.
    pub named_by: String,
    /// Its newest tombstone, where it was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstone: Option<i64>,
}

/// A restore, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreView {
    /// Its number.
    pub id: i64,
    /// Where to.
    pub cluster: String,
    /// Running, Done or Failed.
    pub state: String,
    /// Who asked, as the caller calls itself.
    pub asked_by: String,
    /// When.
    pub asked_at_ms: Millis,
    /// When the last of it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<Millis>,
    /// How many objects are Planned, Done, Failed or Left.
    pub counts: BTreeMap<String, usize>,
    /// Its objects, where one restore is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<RestoreItem>,
}

/// One object of a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreItem {
    /// Its tombstone.
    pub tombstone: i64,
    /// `Deployment.apps`.
    pub kind: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What was planned.
    pub verdict: Verdict,
    /// Planned, Done, Failed or Left.
    pub state: String,
    /// Why, in one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The tombstone of what it replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<i64>,
}

pub(super) fn plan(draft: &Draft, digest_key: &[u8; 32]) -> PlanView {
    let mut counts = BTreeMap::new();
    let items: Vec<PlanItem> = draft.plan.items.iter().map(|item| shown(item, digest_key)).collect();
    for item in &items {
        *counts.entry(item.verdict).or_default() += 1;
    }
    let missing = draft.plan.missing.iter().map(|missing| MissingItem {
        object: missing.key.to_string(),
        named_by: missing.named_by.to_string(),
        tombstone: missing.tombstone,
    });
    PlanView {
        kind: "RestorePlan".to_owned(),
        cluster: draft.name.clone(),
        digest: digest(draft, digest_key),
        missing: missing.collect(),
        items,
        counts,
    }
}

/// What would be written, and nothing that changes by itself: of what is there only what it means for it.
fn digest(draft: &Draft, key: &[u8; 32]) -> String {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(draft.name.as_bytes());
    for item in &draft.plan.items {
        let owners: Vec<String> = item.owners.iter().map(|owner| owner.key.to_string()).collect();
        let body = item
            .body
            .as_ref()
            .filter(|_| item.verdict.writes())
            .map(|body| without_server_fields(body.clone()));
        let line = serde_json::json!([item.tombstone, item.key.to_string(), item.verdict, owners, body]);
        hasher.update(line.to_string().as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Status and the counters of the server change without anybody's doing.
fn without_server_fields(mut body: Value) -> Value {
    if let Some(object) = body.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["resourceVersion", "generation"] {
            metadata.remove(field);
        }
    }
    body
}

fn shown(item: &Item, digest_key: &[u8; 32]) -> PlanItem {
    let gk = &item.key.gk;
    let body = item.body.as_ref().map(|body| hidden(gk, body.clone(), digest_key));
    let compared = matches!(item.verdict, Verdict::Update | Verdict::Conflict | Verdict::Recreate);
    let patch = match (&item.found, &item.body) {
        (Some(found), Some(body)) if compared => {
            let (from, to) = replacing(gk, &found.body, body);
            let (from, to) = (hidden(gk, from, digest_key), hidden(gk, to, digest_key));
            json_patch::diff(&from, &to).0.iter().filter_map(|op| serde_json::to_value(op).ok()).collect()
        }
        _ => Vec::new(),
    };
    PlanItem {
        tombstone: item.tombstone,
        kind: gk.to_string(),
        namespace: item.key.namespace.to_string(),
        name: item.key.name.to_string(),
        verdict: item.verdict,
        why: item.why.clone(),
        dependency: item.dependency,
        words: item.words.clone(),
        untried: item.untried && item.verdict.writes(),
        body,
        patch,
    }
}

fn hidden(gk: &GroupKind, mut body: Value, digest_key: &[u8; 32]) -> Value {
    if gk.is("", "Secret") {
        redact::redact(&mut body, digest_key);
    }
    body
}

pub(super) fn restore(
    row: &RestoreRow,
    items: &[RestoreItemRow],
    names: &BTreeMap<ClusterId, String>,
    detailed: bool,
) -> RestoreView {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for item in items {
        *counts.entry(format!("{:?}", item.state)).or_default() += 1;
    }
    let state = match row.ended_at {
        None => "Running",
        Some(_) if items.iter().any(|item| item.state == ItemState::Failed) => "Failed",
        Some(_) => "Done",
    };
    let items = items.iter().filter(|_| detailed).map(|row| {
        let ObjectKey { gk, namespace, name } = &row.key;
        RestoreItem {
            tombstone: row.tombstone,
            kind: gk.to_string(),
            namespace: namespace.to_string(),
            name: name.to_string(),
            verdict: row.verdict,
            state: format!("{:?}", row.state),
            message: row.message.clone(),
            replaced: row.replaced,
        }
    });
    RestoreView {
        id: row.id,
        cluster: names.get(&row.cluster).cloned().unwrap_or_else(|| row.cluster.to_string()),
        state: state.to_owned(),
        asked_by: row.asked_by.clone(),
        asked_at_ms: row.asked_at,
        ended_at_ms: row.ended_at,
        counts,
        items: items.collect(),
    }
}
