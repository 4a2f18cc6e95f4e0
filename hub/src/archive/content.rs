//! What is in a file: a YAML stream of two documents, the facts and the object.

use lockstep_engine::{Millis, rfc3339};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ClusterRef;
use crate::store::{Cause, TombstoneRow};

/// Between the two documents. The first one holds no line like it: its values are quoted.
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
    /// How the second document is to be read; absent: as YAML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
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
}

pub(super) fn write(cluster: &ClusterRef, row: &TombstoneRow) -> String {
    let (encoding, object) = write_object(row.body.as_deref());
    let (cause, policy) = match &row.cause {
        Cause::Observed => ("Observed", None),
        Cause::Inferred => ("Inferred", None),
        Cause::Lockstep { policy } => ("Lockstep", Some(policy.clone())),
        Cause::Rewound => ("Rewound", None),
        Cause::ClusterRemoved => ("ClusterRemoved", None),
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
        encoding,
    };
    // The line break before the separator is the separator's.
    let yaml = serde_saphyr::to_string(&header).ok().map(|mut yaml| {
        yaml.truncate(yaml.strip_suffix('\n').unwrap_or(&yaml).len());
        yaml
    });
    let facts = yaml
        .filter(|yaml| is_faithful(yaml, &header))
        .unwrap_or_else(|| serde_json::to_string(&header).unwrap_or_default());
    [COMMENT, &facts, SEPARATOR, &object].concat()
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
    !yaml.contains(SEPARATOR) && yaml_value::<T>(yaml).is_ok_and(|read| read == *value)
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
    let (facts, object) = text.split_once(SEPARATOR).ok_or("it has not two documents")?;
    let facts = facts.strip_prefix(COMMENT).unwrap_or(facts);
    let header: Header = if facts.starts_with('{') {
        serde_json::from_str(facts).map_err(|e| format!("not the expected JSON at column {}", e.column()))?
    } else {
        yaml_value(facts)?
    };
    if header.api_version != API_VERSION || header.kind != KIND {
        return Err("it is of a version that this build does not know".to_owned());
    }
    let object = match header.encoding {
        Some(Encoding::None) => Value::Null,
        Some(Encoding::Json) => {
            serde_json::from_str(object).map_err(|e| format!("not JSON at column {}", e.column()))?
        }
        Some(Encoding::Hex) => return Err("what the cluster sent was not JSON; it is kept as hex".to_owned()),
        None => yaml_value(object)?,
    };
    Ok(ArchivedTombstone { header, object })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{key, tombstone};
    use bytes::Bytes;
    use lockstep_engine::{ClusterName, Uid};
    use proptest::prelude::*;

    fn cluster() -> ClusterRef {
        ClusterRef { name: ClusterName::new("prod").unwrap(), uid: Some(Uid::new("uid")) }
    }

    fn round(value: &Value) -> ArchivedTombstone {
        let mut row = tombstone(1, key("Deployment", "shop", "web"), 1_767_323_045_123);
        row.body = Some(Bytes::from(serde_json::to_vec(value).unwrap()));
        read(&write(&cluster(), &row)).unwrap()
    }

    #[test]
    fn files_are_for_people() {
        let mut row = tombstone(1, key("Deployment", "shop", "web"), 1_767_323_045_123);
        row.cause = Cause::Lockstep { policy: "production".into() };
        row.body = Some(Bytes::from_static(
            br#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","annotations":{"a":"yes","b":"1.0"}},"spec":{"replicas":3,"args":["--x","multi\nline\n"]}}"#,
        ));
        let text = write(&cluster(), &row);
        assert_eq!(text, include_str!("../../fixtures/archive/v1.yaml"), "{text}");
        let read = read(&text).unwrap();
        assert_eq!(read.header.policy.as_deref(), Some("production"));
        assert_eq!(read.header.last_seen_ms, 1_767_323_045_122);
        assert_eq!(read.object, serde_json::from_slice::<Value>(&row.body.unwrap()).unwrap());
    }

    #[test]
    fn anchors_are_refused() {
        let (facts, _) = include_str!("../../fixtures/archive/v1.yaml").split_once(SEPARATOR).unwrap();
        assert!(read(&format!("{facts}{SEPARATOR}a: [x]\nb: x\n")).is_ok());
        assert!(read(&format!("{facts}{SEPARATOR}a: &a [x]\nb: *a\n")).is_err());
    }

    #[test]
    fn corners_of_yaml_come_back() {
        for text in [
            "",
            " ",
            "yes",
            "no",
            "null",
            "~",
            "1",
            "1e3",
            "0x1f",
            "0o7",
            "1_000",
            ".inf",
            ".nan",
            "2026-01-01",
            "a: b",
            "- a",
            "# a",
            "a #b",
            "---",
            "\n---\n",
            "x\n---\ny",
            "...",
            "%TAG",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "'",
            "\"",
            "\\",
            "\t",
            "a\tb",
            "\r\n",
            "a\r",
            "\n",
            "\n\n",
            " a\n b\n",
            "a\n ",
            "trailing \n",
            "\u{0}",
            "\u{7f}",
            "\u{85}",
            "\u{2028}",
            "\u{feff}",
            "\u{1f600}",
            "{a}",
            "[a]",
            "a, b",
            "? a",
            "@a",
            "`a",
            "=",
            "<<",
            "on",
            "Off",
            "TRUE",
            "-",
            "--",
            ":",
            "a:",
            "1:2",
            "0777",
            "+1",
            "1.",
            ".5",
        ] {
            let value = serde_json::json!({ "data": { "k": text }, text: [text, { text: text }] });
            assert_eq!(round(&value).object, value, "{text:?}");
        }
        for number in
            ["0", "-1", "18446744073709551615", "-9223372036854775808", "1.5", "1e100", "1.0", "-0.0", "1e-7"]
        {
            let value: Value = serde_json::from_str(&format!("[{number}]")).unwrap();
            assert_eq!(round(&value).object, value, "{number}");
        }
        let long = "k".repeat(5_000);
        for value in [
            serde_json::json!([]),
            serde_json::json!({}),
            serde_json::json!([[], {}, null, true]),
            serde_json::json!({ &long: &long }),
        ] {
            assert_eq!(round(&value).object, value);
        }
    }

    #[test]
    fn large_and_deep_objects_come_back() {
        for levels in [1, MAX_YAML_DEPTH / 2, MAX_YAML_DEPTH / 2 + 1, 60] {
            let mut deep = serde_json::json!("x");
            for _ in 0..levels {
                deep = serde_json::json!({ "a": [deep] });
            }
            let read = round(&deep);
            assert_eq!(read.object, deep);
            assert_eq!(read.header.encoding.is_none(), levels * 2 <= MAX_YAML_DEPTH, "{levels}");
        }
        let large: Value =
            (0..20_000).map(|n| serde_json::json!({ "name": format!("n{n}"), "value": n })).collect();
        let read = round(&large);
        assert_eq!(read.header.encoding, None, "a large object is YAML too");
        assert_eq!(read.object, large);
        let long_text = serde_json::json!({ "data": { "binary": "QUJD".repeat(400_000) } });
        assert_eq!(round(&long_text).object, long_text);
    }

    #[test]
    fn what_is_not_json_is_kept_and_what_is_not_there_is_said() {
        let mut row = tombstone(1, key("ConfigMap", "shop", "web"), 1);
        row.body = Some(Bytes::from_static(b"\xff{"));
        let text = write(&cluster(), &row);
        assert!(text.contains("hex: ff7b"), "{text}");
        assert!(read(&text).is_err());
        row.body = None;
        assert_eq!(read(&write(&cluster(), &row)).unwrap().object, Value::Null);
        for text in ["", "a: b\n---\nc: canary\n", "apiVersion: [canary\n---\nx"] {
            let why = read(text).unwrap_err();
            assert!(!why.contains("canary"), "{why}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[ \\n:#'\"a-]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[ \\n:#'\"a-]{0,6}|\\PC{0,6}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_object_comes_back(value in json()) {
            // Through JSON text once, as it comes from an API server.
            let value: Value = serde_json::from_slice(&serde_json::to_vec(&value).unwrap()).unwrap();
            prop_assert_eq!(round(&value).object, value);
        }
    }
}
