//! Files, as they are written and read.

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
    read(&write(&cluster(), &row, false)).unwrap()
}

#[test]
fn files_are_for_people() {
    let mut row = tombstone(1, key("Deployment", "shop", "web"), 1_767_323_045_123);
    row.cause = Cause::Lockstep { policy: "production".into() };
    row.body = Some(Bytes::from_static(
        br#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","annotations":{"a":"yes","b":"1.0"}},"spec":{"replicas":3,"args":["--x","multi\nline\n"]}}"#,
    ));
    let text = write(&cluster(), &row, false);
    assert_eq!(text, include_str!("../../../fixtures/archive/v1.yaml"), "{text}");
    let read = read(&text).unwrap();
    assert_eq!(read.header.policy.as_deref(), Some("production"));
    assert_eq!(read.header.last_seen_ms, 1_767_323_045_122);
    assert_eq!(read.object, serde_json::from_slice::<Value>(&row.body.unwrap()).unwrap());
}

#[test]
fn facts_and_the_final_state_stand_beside_the_object() {
    let mut row = tombstone(1, key("Deployment", "shop", "web"), 1_767_323_045_123);
    row.body = Some(Bytes::from_static(br#"{"kind":"Deployment","metadata":{"name":"web"},"z":"a\n\n"}"#));
    let owner = json!({ "apiVersion": "example.com/v1", "kind": "App", "name": "shop", "uid": "o", "controller": true });
    row.facts = Facts {
        labels: [("app".to_owned(), "web".to_owned())].into(),
        owners: vec![serde_json::from_value(owner).unwrap()],
        managers: vec!["kubectl-client-side-apply".to_owned()],
        deleter: Some("jane@example.com".to_owned()),
        act: Some(7),
        ended: Some(Span { from: 8, to: u64::MAX }),
        alive: 7,
        last: Some(Bytes::from_static(br#"[{"op":"add","path":"/spec","value":"x\n---\ny"}]"#)),
        ..Facts::default()
    };
    let text = write(&cluster(), &row, false);
    assert_eq!(text, include_str!("../../../fixtures/archive/v1-facts.yaml"), "{text}");
    let read = read(&text).unwrap();
    assert_eq!(read.object, serde_json::from_slice::<Value>(&row.body.unwrap()).unwrap());
    assert_eq!(read.last, Some(serde_json::from_slice(&row.facts.last.unwrap()).unwrap()));
    assert_eq!((read.header.owners, read.header.labels), (row.facts.owners, row.facts.labels));
}

#[test]
fn metadata_only_is_without_any_value() {
    let mut row = tombstone(1, key("Secret", "shop", "db"), 1);
    let body = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true,
        "metadata": { "name": "db", "labels": { "app": "web" }, "annotations": { "a": "b", LAST_APPLIED: "canary" } },
        "data": { "password": "canary" }, "stringData": { "user": "canary" }, "unheard": ["canary"],
    });
    row.body = Some(body.to_string().into());
    row.facts.last = Some(Bytes::from_static(b"[\"canary\"]"));
    let text = write(&cluster(), &without_values(&row), true);
    assert!(!text.contains("canary"), "{text}");
    let kept = read(&text).unwrap();
    assert!(kept.header.values_withheld && kept.last.is_none());
    let expected = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": { "name": "db", "labels": { "app": "web" }, "annotations": { "a": "b" } },
        "data": { "password": null }, "stringData": { "user": null },
    });
    assert_eq!(kept.object, expected);
    row.body = Some(Bytes::from_static(b"canary"));
    assert!(!write(&cluster(), &without_values(&row), true).contains("canary"));
}

#[test]
fn anchors_are_refused() {
    let (facts, _) = include_str!("../../../fixtures/archive/v1.yaml").split_once(SEPARATOR).unwrap();
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
    let text = write(&cluster(), &row, false);
    assert!(text.contains("hex: ff7b"), "{text}");
    assert!(read(&text).is_err());
    row.body = None;
    assert_eq!(read(&write(&cluster(), &row, false)).unwrap().object, Value::Null);
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
    fn any_object_comes_back(value in json(), last in json()) {
        // Through JSON text once, as it comes from an API server.
        let [value, last] = [value, last].map(|value| serde_json::to_vec(&value).unwrap());
        let mut row = tombstone(1, key("Deployment", "shop", "web"), 1);
        row.body = Some(value.clone().into());
        row.facts.last = Some(last.clone().into());
        let read = read(&write(&cluster(), &row, false)).unwrap();
        prop_assert_eq!(read.object, serde_json::from_slice::<Value>(&value).unwrap());
        prop_assert_eq!(read.last, Some(serde_json::from_slice(&last).unwrap()));
    }
}
