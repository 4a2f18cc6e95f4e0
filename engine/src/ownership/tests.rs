use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::object::RawObject;
use crate::outcome::Status;

/// A Deployment as 1.20 answers an apply, with a second manager and the controller's status.
fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7",
            "labels": {"app": "web", "team": "x"},
            "annotations": {"lockstep.dev/policy": "p", "lockstep.dev/intent": "n1", "deployment.kubernetes.io/revision": "1"},
            "finalizers": ["example.com/a", "example.com/b"],
            "managedFields": [
                {"manager": "lockstep", "operation": "Apply", "apiVersion": "apps/v1", "time": "2024-01-01T00:00:00Z",
                 "fieldsType": "FieldsV1", "fieldsV1": {
                    "f:metadata": {
                        "f:annotations": {"f:lockstep.dev/policy": {}, "f:lockstep.dev/intent": {}},
                        "f:labels": {"f:app": {}},
                        "f:finalizers": {"v:\"example.com/a\"": {}}},
                    "f:spec": {
                        "f:replicas": {},
                        "f:selector": {},
                        "f:template": {"f:spec": {
                            "f:containers": {"k:{\"name\":\"web\"}": {
                                ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}},
                            "f:volumes": {"k:{\"name\":\"tmp\"}": {".": {}, "f:emptyDir": {}, "f:name": {}}}}}}}},
                {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "apps/v1",
                 "time": "2024-01-01T00:00:01Z", "fieldsType": "FieldsV1", "fieldsV1": {
                    "f:metadata": {"f:annotations": {".": {}, "f:deployment.kubernetes.io/revision": {}}},
                    "f:status": {"f:conditions": {".": {}, "k:{\"type\":\"Available\"}": {".": {}, "f:type": {}}}}}},
                {"manager": "kubectl-edit", "operation": "Update", "apiVersion": "apps/v1",
                 "time": "2024-01-01T00:00:02Z", "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:team": {}}},
                    "f:spec": {"f:template": {"f:spec": {
                        "f:initContainers": {"i:0": {}},
                        "f:volumes": {"k:{\"name\":\"tmp\"}": {"f:emptyDir": {"f:sizeLimit": {}}}}}}}}}
            ]},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {
                "containers": [
                    {"name": "sidecar", "image": "s:1"},
                    {"name": "web", "image": "w:1", "args": ["a", "b"], "imagePullPolicy": "Always",
                     "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
                "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]}}},
        "status": {"replicas": 2}
    })
}

fn digest_now(object: &Value) -> OwnedState {
    owned_digest(object.to_string().as_bytes(), "", None).unwrap()
}

fn edited(path: &str, value: Value) -> Value {
    let mut object = deployment();
    *object.pointer_mut(path).unwrap() = value;
    object
}

#[test]
fn the_projection_holds_what_we_own_and_nothing_else() {
    let object = deployment();
    let managed = ManagedFields::from_value(object.pointer("/metadata/managedFields").unwrap()).unwrap();
    let own = managed.ours().unwrap().fields().unwrap();
    let projected = project(&object, &own, &managed.others().unwrap());
    assert_eq!(
        projected,
        json!({
            "metadata": {
                "annotations": {"lockstep.dev/policy": "p", "lockstep.dev/intent": "n1"},
                "labels": {"app": "web"},
                "finalizers": ["example.com/a"]},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"spec": {
                    "containers": [{"name": "web", "image": "w:1", "args": ["a", "b"], "ports": [{"containerPort": 80}]}],
                    "volumes": [{"name": "tmp", "emptyDir": {}}]}}}
        })
    );
}

#[test]
fn what_we_do_not_own_changes_no_digest() {
    let before = digest_now(&deployment());
    assert!(matches!(before, Owned::Digest(_)));
    for (path, value) in [
        ("/status/replicas", json!(1)),
        ("/metadata/labels/team", json!("y")),
        ("/metadata/resourceVersion", json!("8")),
        ("/metadata/annotations/lockstep.dev~1intent", json!("n2")),
        ("/spec/template/spec/containers/0/image", json!("s:2")),
        ("/spec/template/spec/containers/1/imagePullPolicy", json!("Never")),
        ("/spec/template/spec/volumes/0/emptyDir/sizeLimit", json!("2Gi")),
        ("/metadata/managedFields/0/time", json!("2030-01-01T00:00:00Z")),
    ] {
        assert_eq!(digest_now(&edited(path, value)), before, "{path}");
    }
    let mut without_intent = deployment();
    without_intent
        .pointer_mut("/metadata/annotations")
        .unwrap()
        .as_object_mut()
        .unwrap()
        .remove(INTENT_ANNOTATION);
    let own = "/metadata/managedFields/0/fieldsV1/f:metadata/f:annotations";
    without_intent.pointer_mut(own).unwrap().as_object_mut().unwrap().remove("f:lockstep.dev/intent");
    assert_eq!(digest_now(&without_intent), before);
}

#[test]
fn what_we_own_changes_the_digest() {
    let before = digest_now(&deployment());
    for (path, value) in [
        ("/spec/replicas", json!(3)),
        ("/spec/template/spec/containers/1/image", json!("w:2")),
        ("/spec/template/spec/containers/1/args", json!(["a"])),
        ("/spec/selector/matchLabels/app", json!("x")),
        ("/metadata/finalizers", json!(["example.com/b"])),
    ] {
        assert_ne!(digest_now(&edited(path, value)), before, "{path}");
    }
}

#[test]
fn a_field_that_somebody_took_over_is_seen_though_its_value_is_the_same() {
    let before = digest_now(&deployment());
    let mut object = deployment();
    let own = object.pointer_mut("/metadata/managedFields/0/fieldsV1/f:spec").unwrap();
    own.as_object_mut().unwrap().remove("f:replicas");
    // Also where the value itself is not in the projection any more on either side.
    object.pointer_mut("/spec").unwrap().as_object_mut().unwrap().remove("replicas");
    assert_ne!(digest_now(&object), before);
}

#[test]
fn no_entry_and_another_version_are_told_apart() {
    let other = edited("/metadata/managedFields/0/apiVersion", json!("apps/v1beta1"));
    assert_eq!(digest_now(&other), Owned::OtherVersion("apps/v1beta1".to_owned()));
    for (path, value) in [
        ("/metadata/managedFields/0/operation", json!("Update")),
        ("/metadata/managedFields/0/manager", json!("x")),
        ("/metadata/managedFields", json!(null)),
        ("/metadata/managedFields", json!([])),
    ] {
        assert_eq!(digest_now(&edited(path, value)), Owned::None, "{path}");
    }
    let mut status = deployment();
    status.pointer_mut("/metadata/managedFields/0").unwrap()["subresource"] = json!("status");
    assert_eq!(digest_now(&status), Owned::None);
    // Items of a list carry no apiVersion.
    let mut item = deployment();
    item.as_object_mut().unwrap().remove("apiVersion");
    let digest = owned_digest(item.to_string().as_bytes(), "apps/v1", None).unwrap();
    assert_eq!(digest, digest_now(&deployment()));
}

#[test]
fn i13_digests_of_secrets_are_keyed() {
    let bytes = deployment().to_string();
    let keyed = |key| owned_digest(bytes.as_bytes(), "", Some(&key)).unwrap();
    assert_ne!(keyed([1; 32]), keyed([2; 32]));
    assert_ne!(keyed([1; 32]), digest_now(&deployment()));
}

#[test]
fn other_managers_are_summarised_without_values() {
    let text = deployment().to_string();
    let object = RawObject::parse(text.as_bytes()).unwrap();
    let summaries = ManagedFields::parse(object.metadata.managed_fields.unwrap()).unwrap().summaries();
    assert_eq!(summaries.len(), 2);
    let edit = summaries.last().unwrap();
    assert_eq!(
        (edit.manager.as_str(), edit.operation.as_str(), edit.truncated),
        ("kubectl-edit", "Update", false)
    );
    assert_eq!(
        edit.fields,
        [
            ".metadata.labels.team",
            ".spec.template.spec.initContainers[0]",
            ".spec.template.spec.volumes[name=\"tmp\"].emptyDir.sizeLimit",
        ]
    );
    let fields: serde_json::Map<String, Value> = (0..100).map(|n| (format!("f:k{n}"), json!({}))).collect();
    let many = json!([{"manager": "m", "operation": "Update", "fieldsV1": fields}]);
    let summary = ManagedFields::from_value(&many).unwrap().summaries().remove(0);
    assert_eq!((summary.fields.len(), summary.truncated), (SUMMARY_PATHS, true));
}

#[test]
fn summaries_are_small_however_long_the_names_of_fields_are() {
    let below: serde_json::Map<String, Value> = (0..64).map(|n| (format!("f:k{n}"), json!({}))).collect();
    let long = json!({format!("f:{}", "x".repeat(10_000)): below});
    let many = json!([
        {"manager": "a", "operation": "Update", "fieldsV1": long},
        {"manager": "b", "operation": "Update", "fieldsV1": long},
        {"manager": "c", "operation": "Update", "fieldsV1": {"f:spec": {}}},
    ]);
    let summaries = ManagedFields::from_value(&many).unwrap().summaries();
    let bytes: usize = summaries.iter().flat_map(|summary| &summary.fields).map(String::len).sum();
    assert!(bytes <= SUMMARY_BYTES, "{bytes}");
    let truncated: Vec<bool> = summaries.iter().map(|summary| summary.truncated).collect();
    assert_eq!(truncated, [true, true, false]);
}

#[test]
fn a_projection_is_no_larger_than_its_object_in_however_many_ways_an_item_is_named() {
    let object = json!({"x": [{"a": 1, "b": 2, "c": 3, "long": "l".repeat(1_000)}, {"a": 1}]});
    let own = json!({"f:x": {
        "i:0": {}, "k:{}": {}, "k:{\"a\":1}": {}, "k:{\"b\":2}": {}, "k:{\"a\":1,\"b\":2}": {}, "k:{\"c\":3}": {},
    }});
    let own = FieldSet::from_value(&own).unwrap();
    let projection = project(&object, &own, &FieldSet::default());
    assert_eq!(projection["x"].as_array().map(Vec::len), Some(1), "{projection}");
}

#[test]
fn conflicts_are_forced_only_where_all_of_it_was_ours() {
    let status = Status::parse(
        br#"{"code":409,"reason":"Conflict","details":{"causes":[
        {"reason":"FieldManagerConflict","field":".spec.template.spec.containers[name=\"web\"].image",
         "message":"conflict with \"kubectl-edit\" using apps/v1"},
        {"reason":"FieldManagerConflict","field":".metadata.annotations.lockstep.dev/policy",
         "message":"conflict with \"a \\\"b\\\"\" with subresource \"scale\" using apps/v1 at 2024-01-01T00:00:00Z"}]}}"#,
    );
    let causes = conflicts(&status);
    let managers: Vec<_> = causes.iter().map(|cause| cause.manager.as_str()).collect();
    assert_eq!(managers, ["kubectl-edit", "a \"b\""]);
    let object = deployment();
    let last = FieldSet::from_value(object.pointer("/metadata/managedFields/0/fieldsV1").unwrap()).unwrap();
    assert!(force_allowed(&causes, &last));
    assert!(!force_allowed(&[], &last));
    assert!(!force_allowed(&causes, &FieldSet::default()));
    let path = ".spec.paused".to_owned();
    let theirs = ConflictCause { manager: "x".to_owned(), path, ..ConflictCause::default() };
    let both: Vec<_> = causes.into_iter().chain([theirs]).collect();
    assert!(!force_allowed(&both, &last));
}

#[test]
fn bad_field_sets_are_errors_without_values() {
    for bad in [r#"{"f:a":1}"#, r#"{"x:a":{}}"#, r#"{"k:canary":{}}"#, r#"{"i:x":{}}"#, "[]", "x"] {
        let error = FieldSet::parse(bad.as_bytes()).unwrap_err();
        assert!(!error.to_string().contains("canary"));
    }
    let deep = format!("{}{{}}{}", r#"{"f:a":"#.repeat(200), "}".repeat(200));
    assert!(FieldSet::parse(deep.as_bytes()).is_err());
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z\"ä]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-d./]{1,2}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-d]{1,2}", tree(), 0..4)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

fn reversed(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            Value::Object(members.iter().rev().map(|(name, child)| (name.clone(), reversed(child))).collect())
        }
        Value::Array(items) => items.iter().map(reversed).collect(),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn an_object_projected_onto_all_of_itself_is_itself(object in object()) {
        let all = FieldSet::of_value(&object);
        let projected = project(&object, &all, &FieldSet::default());
        prop_assert_eq!(canonical_json(&projected), canonical_json(&object));
    }

    #[test]
    fn a_digest_does_not_depend_on_the_order_of_members(object in object()) {
        let all = FieldSet::of_value(&object);
        let none = FieldSet::default();
        let turned = reversed(&object);
        prop_assert_eq!(digest(&object, &all, &none, None), digest(&turned, &FieldSet::of_value(&turned), &none, None));
    }

    #[test]
    fn a_digest_does_not_depend_on_what_is_not_owned(object in object(), other in tree()) {
        let own = FieldSet::of_value(&object);
        let none = FieldSet::default();
        let before = digest(&object, &own, &none, None);
        let mut more = object;
        if let Some(members) = more.as_object_mut() {
            members.insert("unowned".to_owned(), other);
        }
        prop_assert_eq!(digest(&more, &own, &none, None), before);
    }

    #[test]
    fn every_path_of_a_set_is_found_in_it(object in object()) {
        let all = FieldSet::of_value(&object);
        for path in all.paths(usize::MAX) {
            prop_assert!(all.contains(&path), "{}", path);
        }
    }

    #[test]
    fn a_different_set_is_a_different_digest(object in object()) {
        let none = FieldSet::default();
        let mut more = FieldSet::of_value(&object);
        let before = digest(&object, &more, &none, None);
        more.extend(&FieldSet::parse(br#"{"f:zz":{}}"#).unwrap());
        prop_assert_ne!(digest(&object, &more, &none, None), before);
    }
}
