use serde_json::json;

use super::*;
use crate::ownership::{Drift, Pattern};

/// An object as an API server shows it: its content, and who owns what.
fn live(mut object: Value, entries: &[(&str, &str, Value)]) -> Value {
    let entries = entries.iter().map(|(manager, operation, fields)| {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": "2026-01-02T03:04:05Z", "fieldsV1": fields})
    });
    object["metadata"]["managedFields"] = entries.collect();
    object
}

fn check_with(gk: (&str, &str), desired: &Value, live: &Value, was: &Value, leave: &Leave, expect: &[&str]) {
    let was_ours = FieldSet::from_value(was).unwrap();
    let gk = GroupKind::new(gk.0, gk.1);
    let compared = compare(&Comparison { gk: &gk, desired, live, was_ours: &was_ours, leave }).unwrap();
    let found: Vec<String> = compared.differences.named.iter().map(Difference::to_string).collect();
    assert_eq!(found, expect, "{desired} {live}");
}

const CONFIG: (&str, &str) = ("", "ConfigMap");
const DEPLOYMENT: (&str, &str) = ("apps", "Deployment");
const WIDGET: (&str, &str) = ("example.com", "Widget");

fn check(gk: (&str, &str), desired: &Value, live: &Value, was: &Value, expect: &[&str]) {
    check_with(gk, desired, live, was, &Leave::default(), expect);
}

#[test]
fn equal_with_what_only_the_target_has() {
    let desired =
        json!({"kind": "ConfigMap", "metadata": {"name": "a", "labels": {"l": "1"}}, "data": {"a": "1"}});
    let there = live(
        json!({"metadata": {"name": "a", "uid": "u", "labels": {"l": "1", "own": "t"}}, "data": {"a": "1", "own": "t"}}),
        &[
            ("lockstep", "Apply", json!({"f:metadata": {"f:labels": {"f:l": {}}}, "f:data": {"f:a": {}}})),
            (
                "somebody",
                "Update",
                json!({"f:metadata": {"f:labels": {"f:own": {}}}, "f:data": {"f:own": {}}}),
            ),
        ],
    );
    check(CONFIG, &desired, &there, &json!({"f:data": {"f:a": {}, "f:gone": {}}}), &[]);
}

#[test]
fn what_the_source_removed_and_others_hold_is_named_with_them() {
    let desired = json!({"metadata": {"name": "a"}, "data": {"keep": "2"}});
    let was = json!({"f:metadata": {"f:labels": {".": {}, "f:stage": {}}}, "f:data": {".": {}, "f:keep": {}, "f:legacy": {}}});
    let there = live(
        json!({"metadata": {"labels": {"stage": "test"}}, "data": {"keep": "2", "legacy": "1", "own": "t"}}),
        &[
            ("lockstep", "Apply", json!({"f:data": {"f:keep": {}}})),
            (
                "kubectl-client-side-apply",
                "Update",
                json!({"f:metadata": {"f:labels": {"f:stage": {}}},
                "f:data": {"f:keep": {}, "f:legacy": {}, "f:own": {}}}),
            ),
        ],
    );
    let expect = [
        ".data.legacy was removed at the source and is still there, held by kubectl-client-side-apply (Update)",
        ".metadata.labels.stage was removed at the source and is still there, held by kubectl-client-side-apply (Update)",
    ];
    check(CONFIG, &desired, &there, &was, &expect);
    // The last key, and the map stays empty on our side.
    let empty = json!({"metadata": {"name": "a"}, "data": {}});
    let there = live(
        json!({"metadata": {}, "data": {"legacy": "1"}}),
        &[("lockstep", "Apply", json!({"f:data": {}})), ("x", "Apply", json!({"f:data": {"f:legacy": {}}}))],
    );
    let was = json!({"f:data": {"f:legacy": {}}});
    check(
        CONFIG,
        &empty,
        &there,
        &was,
        &[".data.legacy was removed at the source and is still there, held by x (Apply)"],
    );
    // Nobody holds it: a default or a webhook put it back.
    let there = live(json!({"data": {"legacy": "1"}}), &[("lockstep", "Apply", json!({"f:data": {}}))]);
    check(
        WIDGET,
        &json!({"metadata": {}}),
        &there,
        &was,
        &[".data.legacy was removed at the source and is still there"],
    );
}

#[test]
fn an_item_of_a_keyed_list_is_found_by_its_key_and_may_hold_defaults() {
    let item = |name: &str, rest: Value| {
        let mut item = json!({"name": name, "image": "i"});
        item.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        item
    };
    let body = |items: Value| json!({"metadata": {}, "spec": {"containers": items}});
    let key = |name: &str| format!("k:{{\"name\":\"{name}\"}}");
    let own = |fields: Value| json!({"f:spec": {"f:containers": fields}});
    let mine = json!({".": {}, "f:name": {}, "f:image": {}});
    let there = live(
        body(json!([
            item("proxy", json!({})),
            item("web", json!({"imagePullPolicy": "Always"})),
            item("side", json!({}))
        ])),
        &[
            ("lockstep", "Apply", own(json!({key("web"): mine}))),
            ("injector", "Update", own(json!({key("proxy"): mine, key("side"): {".": {}, "f:name": {}}}))),
        ],
    );
    let was = own(json!({key("web"): mine, key("side"): mine}));
    check(
        DEPLOYMENT,
        &body(json!([item("web", json!({}))])),
        &there,
        &was,
        &[
            r#".spec.containers[name="side"] was removed at the source and is still there, held by injector (Update)"#,
        ],
    );
    check(
        DEPLOYMENT,
        &body(json!([{"name": "web", "image": "other"}])),
        &there,
        &json!({}),
        &[r#".spec.containers[name="web"].image has another value"#],
    );
    // What we do not own was not written.
    check(
        DEPLOYMENT,
        &body(json!([item("web", json!({})), item("new", json!({}))])),
        &there,
        &json!({}),
        &[".spec.containers[1] is missing"],
    );
}

#[test]
fn one_value_is_compared_as_a_whole() {
    let body =
        |selector: Value| json!({"metadata": {}, "spec": {"podSelector": selector, "list": [1, {"a": 1}]}});
    let own = [("lockstep", "Apply", json!({"f:spec": {"f:podSelector": {}, "f:list": {}}}))];
    let there = live(body(json!({"matchLabels": {"a": "b"}})), &own);
    let policy = ("networking.k8s.io", "NetworkPolicy");
    check(policy, &body(json!({"matchLabels": {"a": "b"}})), &there, &json!({}), &[]);
    check(policy, &body(json!({})), &there, &json!({}), &[".spec.podSelector has another value"]);
    let mut longer = body(json!({"matchLabels": {"a": "b"}}));
    longer["spec"]["list"] = json!([1]);
    check(policy, &longer, &there, &json!({}), &[".spec.list has another value"]);
}

#[test]
fn values_are_typed_by_their_place_and_never_where_people_write_texts() {
    let own = json!({"f:metadata": {"f:annotations": {"f:n": {}}}, "f:spec": {"f:hard": {"f:cpu": {}}}});
    let of = |cpu: &str, note: &str| json!({"metadata": {"annotations": {"n": note}}, "spec": {"hard": {"cpu": cpu}}});
    let there = live(of("1", "1"), &[("lockstep", "Apply", own)]);
    check(("", "ResourceQuota"), &of("1000m", "1"), &there, &json!({}), &[]);
    check(
        ("", "ResourceQuota"),
        &of("1", "1000m"),
        &there,
        &json!({}),
        &[".metadata.annotations.n has another value"],
    );
    check(WIDGET, &of("1000m", "1"), &there, &json!({}), &[".spec.hard.cpu has another value"]);
}

#[test]
fn null_is_nothing_in_built_in_kinds_and_a_value_elsewhere() {
    let desired = json!({"metadata": {"labels": {}}, "spec": {"limit": null, "list": []}});
    let there = live(
        json!({"metadata": {}, "spec": {"list": []}}),
        &[("lockstep", "Apply", json!({"f:spec": {"f:list": {}}}))],
    );
    check(DEPLOYMENT, &desired, &there, &json!({}), &[]);
    check(WIDGET, &desired, &there, &json!({}), &[".spec.limit is missing"]);
    let none = live(json!({"metadata": {}, "spec": {}}), &[]);
    check(DEPLOYMENT, &desired, &none, &json!({}), &[]);
    check(WIDGET, &desired, &none, &json!({}), &[".spec.limit is missing", ".spec.list is missing"]);
}

#[test]
fn what_the_policy_gives_away_is_no_difference() {
    let desired = json!({"metadata": {}, "data": {"a": "1"}});
    let was = json!({"f:data": {"f:a": {}, "f:b": {}}});
    let there = live(
        json!({"metadata": {}, "data": {"a": "1", "b": "x"}}),
        &[
            ("lockstep", "Apply", json!({"f:data": {"f:a": {}}})),
            ("op", "Update", json!({"f:data": {"f:b": {}}})),
        ],
    );
    let held = ".data.b was removed at the source and is still there, held by op (Update)";
    check(CONFIG, &desired, &there, &was, &[held]);
    let pattern = Pattern::from_pointer("/data/b").unwrap();
    for leave in [
        Leave { never: [pattern.clone()].into(), ..Leave::default() },
        Leave { managers: ["op".to_owned()].into(), ..Leave::default() },
        Leave { drift: vec![(Pattern::root(), Drift::Ignore)], ..Leave::default() },
    ] {
        check_with(CONFIG, &desired, &there, &was, &leave, &[]);
    }
    let correct = Leave {
        drift: vec![(pattern, Drift::Correct), (Pattern::root(), Drift::Report)],
        ..Leave::default()
    };
    check_with(CONFIG, &desired, &there, &was, &correct, &[held]);
}

#[test]
fn no_more_is_named_than_a_person_reads_and_what_lingers_is_remembered_as_a_whole() {
    let many: serde_json::Map<String, Value> = (0..50).map(|n| (format!("k{n:02}"), json!("1"))).collect();
    let fields: serde_json::Map<String, Value> =
        many.keys().map(|key| (format!("f:{key}"), json!({}))).collect();
    let there = live(json!({"metadata": {}, "data": many}), &[("x", "Update", json!({"f:data": fields}))]);
    let gk = GroupKind::new("", "ConfigMap");
    let was_ours = FieldSet::from_value(&json!({"f:data": fields})).unwrap();
    let (desired, leave) = (json!({"metadata": {}}), Leave::default());
    let compared =
        compare(&Comparison { gk: &gk, desired: &desired, live: &there, was_ours: &was_ours, leave: &leave })
            .unwrap();
    assert_eq!((compared.differences.named.len(), compared.differences.more), (NAMED, 30));
    assert_eq!(compared.differences.why(), WhyDifferent::HeldByOthers);
    assert_eq!(FieldSet::parse(&compared.lingering.canonical()).unwrap(), was_ours);
    assert!(compared.differences.sentence().contains("and 30 more; let these managers"));
}
