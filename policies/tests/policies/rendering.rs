//! What copies look like.
#![allow(clippy::unwrap_used)] // helpers of tests may

use std::error::Error as _;

use lockstep_engine::ObjectKey;
use lockstep_policies::{RenderError, RenderInput, Rendered, canonical, render};
use serde_json::json;

use crate::common::{gk, good, policy};

fn rendered(group: &str, kind: &str, body: &[u8], key: [u8; 32]) -> Result<Rendered, RenderError> {
    let set = good(&policy("p", "a", "b", "{ kind: ConfigMap }"));
    let target = ObjectKey::new(gk(group, kind), "shop", "web");
    render(set.by_name("p").unwrap(), body, &RenderInput { target: &target, digest_key: &key })
}

#[test]
fn a_copy_is_stripped_named_and_sorted() {
    let body = br#"{"z":12345678901234567890,"kind":"ConfigMap","apiVersion":"v1","metadata":{"uid":"u","namespace":"old","name":"old","generateName":"w-"},"data":{"b":"1","a":"2"},"n":null,"f":0.1,"i":1.0}"#;
    let out = rendered("", "ConfigMap", body, [0; 32]).unwrap();
    assert_eq!(
        String::from_utf8(canonical(&out.body)).unwrap(),
        r#"{"apiVersion":"v1","data":{"a":"2","b":"1"},"f":0.1,"i":1.0,"kind":"ConfigMap","metadata":{"name":"web","namespace":"shop"},"z":12345678901234567890}"#,
        "members sorted: `preserve_order` must not be on"
    );
}

#[test]
fn i13_digests_of_secrets_are_keyed_and_others_are_not() {
    let digest = |kind: &str, key| {
        rendered("", kind, &serde_json::to_vec(&json!({"metadata": {}})).unwrap(), [key; 32]).unwrap().digest
    };
    assert_ne!(digest("Secret", 1), digest("Secret", 2));
    assert_eq!(digest("ConfigMap", 1), digest("ConfigMap", 2));
}

#[test]
fn i13_no_error_quotes_a_body() {
    for body in [
        br#"{"data":{"password":"canary"#.as_slice(),
        br#"{"data":"canary"}"#,
        br#""canary""#,
        br#"{"kind":"canary","metadata":{}}"#,
        br#"{"metadata":"canary"}"#,
    ] {
        let error = rendered("", "Secret", body, [0; 32]).unwrap_err();
        let text = format!("{error} {:?} {error:?}", error.source().map(ToString::to_string));
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn a_cluster_scoped_copy_has_no_namespace() {
    let set = good(&policy("p", "a", "b", "{ kind: Namespace }"));
    let target = ObjectKey::new(gk("", "Namespace"), "", "shop");
    let input = RenderInput { target: &target, digest_key: &[0; 32] };
    let out = render(set.by_name("p").unwrap(), br#"{"metadata":{"name":"x","namespace":""}}"#, &input);
    assert_eq!(out.unwrap().body, json!({"metadata": {"name": "shop"}}));
}
