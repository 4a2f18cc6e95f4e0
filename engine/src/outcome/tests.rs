use super::*;

fn class(http: u16, operation: Operation, body: &str) -> FailureClass {
    classify(http, body.as_bytes(), operation, Sensitivity::Plain, None).class
}

use FailureClass as C;
use Operation as O;

/// Written by hand after docs/kubernetes.md, except the two about base64 and `protocol`, which 1.20.2 sent. What real
/// servers answer is tried in tests/tests/cluster/writer/mod.rs.
const TABLE: &[(u16, Operation, &str, FailureClass)] = &[
    (
        500,
        O::Apply,
        r#"{"message":"failed to create typed patch object: .spec.internalTrafficPolicy: field not declared in schema","code":500}"#,
        C::SchemaMismatch,
    ),
    (
        500,
        O::Apply,
        r#"{"message":"failed to create typed patch object: errors:\n  .spec.template.spec.containers[name=\"a\"].env: duplicate entries for key [name=\"X\"]"}"#,
        C::DuplicateKeys,
    ),
    (
        500,
        O::Apply,
        r#"{"message":"failed to convert new object to proper version: unable to convert unstructured object to /v1, Kind=Secret: error decoding from json: illegal base64 data at input byte 3"}"#,
        C::Invalid,
    ),
    (
        500,
        O::Apply,
        r#"{"message":"failed to create typed patch object: .spec.ports: element 0: associative list with keys has an element that omits key field \"protocol\" (and doesn't have default value)"}"#,
        C::SchemaMismatch,
    ),
    (500, O::Apply, r#"{"message":"etcdserver: leader changed","code":500}"#, C::Transient),
    (500, O::Read, "not json at all", C::Transient),
    (
        404,
        O::Apply,
        r#"{"reason":"NotFound","details":{"name":"shop","kind":"namespaces"}}"#,
        C::NamespaceMissing,
    ),
    (404, O::Apply, "404 page not found\n", C::NotServed),
    (404, O::Delete, r#"{"reason":"NotFound","details":{"name":"a","kind":"configmaps"}}"#, C::Gone),
    (
        404,
        O::Read,
        r#"{"reason":"NotFound","message":"the server could not find the requested resource","details":{}}"#,
        C::NotServed,
    ),
    (404, O::List, "", C::NotServed),
    (
        403,
        O::Apply,
        r#"{"reason":"Forbidden","message":"unable to create new content in namespace x because it is being terminated","details":{"causes":[{"reason":"NamespaceTerminating"}]}}"#,
        C::NamespaceTerminating,
    ),
    (403, O::Apply, r#"{"reason":"Forbidden","message":"exceeded quota"}"#, C::Forbidden),
    (401, O::Read, "", C::Forbidden),
    (
        409,
        O::Apply,
        r#"{"reason":"Conflict","details":{"causes":[{"reason":"FieldManagerConflict","field":".data.a"}]}}"#,
        C::Conflict,
    ),
    (
        409,
        O::Apply,
        r#"{"reason":"Conflict","message":"uid mismatch: the provided object specified uid X, and no existing object was found"}"#,
        C::Gone,
    ),
    (
        409,
        O::Delete,
        r#"{"reason":"Conflict","message":"Precondition failed: UID in precondition"}"#,
        C::Stale,
    ),
    (409, O::Apply, r#"{"reason":"Conflict","message":"the object has been modified"}"#, C::Stale),
    (
        422,
        O::Apply,
        r#"{"reason":"Invalid","message":"x","details":{"causes":[{"reason":"FieldValueInvalid","message":"Invalid value: \"u\": field is immutable","field":"metadata.uid"}]}}"#,
        C::Stale,
    ),
    (
        422,
        O::Apply,
        r#"{"reason":"Invalid","message":"Service \"a\" is invalid: spec.clusterIP: Invalid value: \"\": field is immutable"}"#,
        C::Immutable,
    ),
    (
        422,
        O::Apply,
        r#"{"message":"StatefulSet.apps \"a\" is invalid: spec: Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden"}"#,
        C::Immutable,
    ),
    (422, O::Apply, r#"{"message":"cannot change roleRef"}"#, C::Immutable),
    (422, O::Apply, r#"{"message":"spec.replicas: Invalid value: -1"}"#, C::Invalid),
    (413, O::Apply, "", C::TooLarge),
    (500, O::Apply, r#"{"message":"etcdserver: request is too large"}"#, C::TooLarge),
    (429, O::Apply, r#"{"details":{"retryAfterSeconds":3}}"#, C::Throttled { retry_after_ms: 3_000 }),
    (429, O::Apply, "", C::Throttled { retry_after_ms: 1_000 }),
    (503, O::Apply, "", C::Transient),
    (504, O::Apply, r#"{"reason":"Timeout"}"#, C::Timeout),
    (410, O::List, r#"{"reason":"Expired"}"#, C::Stale),
    (405, O::List, "", C::NotServed),
];

#[test]
fn every_answer_has_its_class() {
    for (http, operation, body, expected) in TABLE {
        assert_eq!(class(*http, *operation, body), *expected, "{http} {operation:?} {body}");
    }
}

#[test]
fn i13_a_webhook_that_quotes_a_value_where_its_reason_belongs_is_not_repeated() {
    let body = r#"{"reason":"data.x is canary","details":{"causes":[{"reason":"not canary, please","field":"data"}]}}"#;
    let failure = classify(403, body.as_bytes(), Operation::Apply, Sensitivity::Secret, None);
    assert_eq!(failure.message, "HTTP 403: data");
}

#[test]
fn i13_a_rejected_secret_leaves_no_value_in_the_failure() {
    let body = r#"{"reason":"Invalid","message":"Secret \"a\" is invalid: data[x]: Invalid value: \"canary\"",
        "details":{"causes":[{"reason":"FieldValueInvalid","message":"Invalid value: \"canary\"","field":"data[x]"}]}}"#;
    let failure = classify(422, body.as_bytes(), Operation::Apply, Sensitivity::Secret, None);
    assert!(!format!("{failure} {failure:?}").contains("canary"));
    assert_eq!(failure.message, "HTTP 422 Invalid: data[x] (FieldValueInvalid)");
    assert_eq!(failure.fields, ["data[x]"]);
}

#[test]
fn future_versions_are_recognised_in_both_spellings() {
    assert!(
        Status::parse(
            br#"{"code":500,"message":"etcdserver: mvcc: required revision is a future revision"}"#
        )
        .is_future_version()
    );
    assert!(
        Status::parse(br#"{"code":504,"details":{"causes":[{"reason":"ResourceVersionTooLarge"}]}}"#)
            .is_future_version()
    );
    assert!(!Status::parse(b"").is_future_version());
}

#[test]
fn long_messages_are_cut() {
    let body = format!(r#"{{"message":"{}"}}"#, "ä".repeat(5_000));
    let failure = classify(500, body.as_bytes(), Operation::Apply, Sensitivity::Plain, None);
    assert_eq!(failure.message.chars().count(), MESSAGE_LIMIT + 3);
}
