//! What is in a file: a YAML stream of the facts, the object, and what became of it while it was deleted.

use std::collections::BTreeMap;

use lockstep_engine::acts::Span;
use lockstep_engine::object::OwnerReference;
use lockstep_engine::{Millis, rfc3339};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ClusterRef;
use crate::redact::LAST_APPLIED;
use crate::store::{Cause, Facts, TombstoneRow};

/// Between two documents. None of them holds a line like it, or it is written as JSON.
const SEPARATOR: &str = "\n---\n";
/// Deeper objects are written as JSON: the YAML library recurses, and a cluster must not be able to
/// overflow the hub's stack. Objects of Kubernetes have about a dozen levels, schemas of CRDs thirty.
const MAX_YAML_DEPTH: usize = 40;
/// Version of this format.
const API_VERSION: &str = "lockstep.dev/v1";
const KIND: &str = "Tombstone";
const COMMENT: &str = "# A tombstone of lockstep: first the facts, then the object as it was.\n";

/// The facts of a tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// `lockstep.dev/v1`.
    pub api_version: String,
    /// `Tombstone`.
    pub kind: String,
    /// The cluster.
    pub cluster: Cluster,
    /// The object.
    pub object: Object,
    /// Observed, Inferred or Lockstep.
    pub cause: String,
    /// The policy, when lockstep deleted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// RFC 3339, UTC.
    pub deleted_at: String,
    /// RFC 3339, UTC: when this state was read.
    pub last_seen: String,
    /// The same, milliseconds since the epoch.
    pub deleted_at_ms: Millis,
    /// The same, milliseconds since the epoch.
    pub last_seen_ms: Millis,
    /// Of an inferred delete: it happened between then and `deletedAtMs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_until_ms: Option<Millis>,
    /// The user who asked for the delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleter: Option<String>,
    /// The act that deleted it together with others, as the hub that wrote this numbers them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<i64>,
    /// When it ended, in resourceVersions: what ended together is found by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// resourceVersion of the state kept, where that has no deletionTimestamp; 0: it has one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub alive: u64,
    /// Labels of the object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its ownerReferences, the controller first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<OwnerReference>,
    /// Names of its field managers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub field_managers: Vec<String>,
    /// Values were left out, as `archive.secrets: MetadataOnly` says: their keys are there, with null.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub values_withheld: bool,
    /// How the second document is to be read; absent: as YAML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// How the third document is to be read; absent: as YAML, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_encoding: Option<Encoding>,
}

/// The cluster of a tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// uid of its kube-system namespace.
    #[serde(default)]
    pub uid: String,
}

/// The object of a tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// API version of the state kept.
    pub api_version: String,
    /// Group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// metadata.uid.
    pub uid: String,
    /// resourceVersion of the state kept.
    pub resource_version: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Between two resourceVersions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Not before.
    pub from: u64,
    /// Not after.
    pub to: u64,
}

/// How the object is written where YAML would not give exactly the same object back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// JSON on one line.
    Json,
    /// Hex digits of bytes that are not JSON.
    Hex,
    /// There is no object.
    None,
}

/// A tombstone out of the archive.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchivedTombstone {
    /// The facts.
    pub header: Header,
    /// The object as it was; null when no body was known.
    pub object: Value,
    /// RFC 6902 patch to the final state, where that is another one.
    pub last: Option<Value>,
}

/// The row without the values of a Secret: apiVersion, kind, metadata, type, and the names of its keys.
pub(super) fn without_values(row: &TombstoneRow) -> TombstoneRow {
    let mut row = row.clone();
    // What cannot be read cannot be told from values.
    let read = row.body.as_deref().and_then(|body| serde_json::from_slice::<Value>(body).ok());
    row.body = read.map(|body| {
        let mut kept = json!({});
        for member in ["apiVersion", "kind", "metadata", "type"] {
            if let Some(value) = body.get(member) {
                kept[member] = value.clone();
            }
        }
        if let Some(annotations) = kept.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
        for member in ["data", "stringData"] {
            if let Some(values) = body.get(member).and_then(Value::as_object) {
                kept[member] = values.keys().map(|key| (key.clone(), Value::Null)).collect();
            }
        }
        kept.to_string().into()
    });
    row.facts.last = None;
    row
}

pub(super) fn write(cluster: &ClusterRef, row: &TombstoneRow, values_withheld: bool) -> String {
    let (encoding, object) = write_object(row.body.as_deref());
    let Facts {
        labels,
        owners,
        created: _, // the object tells
        managers,
        deleter,
        act,
        ended,
        alive,
        held: _,
        sealed: _,
        size: _,
        last,
    } = &row.facts;
    let last = last.as_deref().map(|last| write_object(Some(last)));
    let (cause, policy) = match &row.cause {
        Cause::Observed => ("Observed", None),
        Cause::Inferred => ("Inferred", None),
        Cause::Lockstep { policy } => ("Lockstep", Some(policy.clone())),
        Cause::Rewound => ("Rewound", None),
        Cause::ClusterRemoved => ("ClusterRemoved", None),
        Cause::Restore => ("Restore", None),
    };
    let header = Header {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        cluster: Cluster {
            name: cluster.name.to_string(),
            uid: cluster.uid.as_ref().map_or_else(String::new, ToString::to_string),
        },
        object: Object {
            api_version: row.api_version.clone(),
            group: row.key.gk.group.to_string(),
            kind: row.key.gk.kind.to_string(),
            namespace: row.key.namespace.to_string(),
            name: row.key.name.to_string(),
            uid: row.uid.to_string(),
            resource_version: row.resource_version.to_string(),
        },
        cause: cause.to_owned(),
        policy,
        deleted_at: rfc3339::write(row.deleted_at),
        last_seen: rfc3339::write(row.last_seen),
        deleted_at_ms: row.deleted_at,
        last_seen_ms: row.last_seen,
        known_until_ms: row.known_until,
        deleter: deleter.clone(),
        act: *act,
        ended: ended.map(|Span { from, to }| Ended { from, to }),
        alive: *alive,
        labels: labels.clone(),
        owners: owners.clone(),
        field_managers: managers.clone(),
        values_withheld,
        encoding,
        final_encoding: last.as_ref().and_then(|(encoding, _)| *encoding),
    };
    // The line break before the separator is the separator's.
    let yaml = serde_saphyr::to_string(&header).ok().map(|mut yaml| {
        yaml.truncate(yaml.strip_suffix('\n').unwrap_or(&yaml).len());
        yaml
    });
    let facts = yaml
        .filter(|yaml| is_faithful(yaml, &header))
        .unwrap_or_else(|| serde_json::to_string(&header).unwrap_or_default());
    let mut text = [COMMENT, &facts, SEPARATOR, &object].concat();
    if let Some((_, last)) = last {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(SEPARATOR.trim_start());
        text.push_str(&last);
    }
    text
}

fn write_object(body: Option<&[u8]>) -> (Option<Encoding>, String) {
    let Some(body) = body else { return (Some(Encoding::None), "null\n".to_owned()) };
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return (Some(Encoding::Hex), format!("hex: {}\n", crate::seal::hex(body)));
    };
    let yaml = (depth(&value) <= MAX_YAML_DEPTH).then(|| serde_saphyr::to_string(&value).ok()).flatten();
    match yaml.filter(|yaml| is_faithful(yaml, &value)) {
        Some(yaml) => (None, yaml),
        // A value out of JSON always serialises.
        None => (Some(Encoding::Json), serde_json::to_string(&value).unwrap_or_default()),
    }
}

/// Does reading this text give exactly the same value back? Nothing is lost because two ends of a
/// library disagree on a corner of YAML.
fn is_faithful<T: for<'de> Deserialize<'de> + PartialEq>(yaml: &str, value: &T) -> bool {
    // The separator is looked for as text.
    !format!("{yaml}\n").contains(SEPARATOR) && yaml_value::<T>(yaml).is_ok_and(|read| read == *value)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn yaml_value<T: for<'de> Deserialize<'de>>(yaml: &str) -> Result<T, String> {
    // Size is bounded where the file is decompressed; depth is what costs stack. There are no anchors in what is
    // written here, and a few lines of them stand for as much as somebody likes.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_YAML_DEPTH + 1,
            max_aliases: 0,
            max_anchors: 0,
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
    };
    serde_saphyr::from_str_with_options(yaml, options).map_err(|error| {
        // Its own text quotes the document.
        let at = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        format!("not the expected YAML at line {} column {}", at.0, at.1)
    })
}

pub(super) fn read(text: &str) -> Result<ArchivedTombstone, String> {
    let (facts, rest) = text.split_once(SEPARATOR).ok_or("it has not two documents")?;
    // The line break before the separator is that of the object's last line, too.
    let (object, last) = match rest.find(SEPARATOR) {
        Some(at) => (&rest[..=at], Some(&rest[at + SEPARATOR.len()..])),
        None => (rest, None),
    };
    let facts = facts.strip_prefix(COMMENT).unwrap_or(facts);
    let header: Header = if facts.starts_with('{') {
        serde_json::from_str(facts).map_err(|e| format!("not the expected JSON at column {}", e.column()))?
    } else {
        yaml_value(facts)?
    };
    if header.api_version != API_VERSION || header.kind != KIND {
        return Err("it is of a version that this build does not know".to_owned());
    }
    let object = document(object, header.encoding)?;
    let last = last.map(|last| document(last, header.final_encoding)).transpose()?;
    Ok(ArchivedTombstone { header, object, last })
}

fn document(text: &str, encoding: Option<Encoding>) -> Result<Value, String> {
    match encoding {
        Some(Encoding::None) => Ok(Value::Null),
        Some(Encoding::Json) => {
            serde_json::from_str(text).map_err(|e| format!("not JSON at column {}", e.column()))
        }
        Some(Encoding::Hex) => Err("what the cluster sent was not JSON; it is kept as hex".to_owned()),
        None => yaml_value(text),
    }
}

#[cfg(test)]
mod tests;
