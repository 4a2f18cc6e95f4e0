use proptest::prelude::*;
use serde_json::json;

use super::*;

fn patterns(paths: &[&str]) -> BTreeSet<Pattern> {
    paths.iter().map(|path| Pattern::from_json_path(path).unwrap()).collect()
}

fn entry(manager: &str, operation: &str, fields: Value) -> Value {
    json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "time": "2026-01-02T03:04:05Z",
        "fieldsType": "FieldsV1", "fieldsV1": fields})
}

fn web(replicas: u64, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web", "lockstep.dev/managed": "true"},
            "annotations": {"lockstep.dev/policy": "p"}},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [
            {"name": "web", "image": image, "args": ["x"]}, {"name": "log", "image": "log:1"}]}}}})
}

fn our_fields() -> Value {
    let container = json!({".": {}, "f:name": {}, "f:image": {}, "f:args": {}});
    json!({"f:metadata": {"f:labels": {"f:app": {}, "f:lockstep.dev/managed": {}},
            "f:annotations": {"f:lockstep.dev/policy": {}}},
        "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"web\"}": container, "k:{\"name\":\"log\"}": {".": {}, "f:name": {}, "f:image": {}}}}}}})
}

/// As the target has it.
fn live(replicas: u64, image: &str, entries: Vec<Value>) -> Value {
    let mut object = web(replicas, image);
    object["metadata"]["uid"] = "u".into();
    object["metadata"]["managedFields"] = entries.into();
    object
}

#[test]
fn what_we_own_and_are_to_leave_is_yielded_before_it_is_omitted() {
    let leave = Leave { after_create: patterns(&[".spec.replicas"]), ..Leave::default() };
    let there = live(7, "w:1", vec![entry("lockstep", "Apply", our_fields())]);
    let mut body = web(3, "w:2");
    let share = share(&body, &there, &leave).unwrap();
    assert_eq!(
        share.yields,
        Some(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop"}, "spec": {"replicas": 7}}))
    );
    body["spec"].as_object_mut().unwrap().remove("replicas");
    assert_eq!((share.body, share.left), (body, Vec::new()));
    assert_eq!(leave.at_creation(&web(3, "w")), web(3, "w"));
}

#[test]
fn what_was_yielded_once_is_not_yielded_again_and_goes_back_when_it_is_asked_for() {
    let leave = Leave { after_create: patterns(&[".spec.replicas"]), ..Leave::default() };
    let mut fields = our_fields();
    fields["f:spec"].as_object_mut().unwrap().remove("f:replicas");
    let yielded = entry("lockstep-yield", "Apply", json!({"f:spec": {"f:replicas": {}}}));
    let there = live(7, "w:1", vec![entry("lockstep", "Apply", fields), yielded.clone()]);
    assert_eq!(share(&web(3, "w:2"), &there, &leave).unwrap().yields, None);
    assert_eq!(give_back(&web(3, "w:2"), &there, &leave).unwrap(), None);
    // The rule is gone: our part is the whole, and after it was applied the yield lets go.
    let all = share(&web(3, "w:2"), &there, &Leave::default()).unwrap();
    assert_eq!((all.body, all.yields), (web(3, "w:2"), None));
    let back = live(3, "w:2", vec![entry("lockstep", "Apply", our_fields()), yielded]);
    let empty = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}});
    assert_eq!(give_back(&web(3, "w:2"), &back, &Leave::default()).unwrap(), Some(empty));
}

#[test]
fn fields_in_items_are_yielded_with_their_keys_and_keep_no_item_that_the_source_dropped() {
    let leave = Leave { never: patterns(&[".spec.template.spec.containers[*].image"]), ..Leave::default() };
    let there = live(3, "theirs:1", vec![entry("lockstep", "Apply", our_fields())]);
    let shared = share(&web(3, "w:2"), &there, &leave).unwrap();
    let containers = |value: &Value| value["spec"]["template"]["spec"]["containers"].clone();
    assert_eq!(
        containers(shared.yields.as_ref().unwrap()),
        json!([{"name": "web", "image": "theirs:1"}, {"name": "log", "image": "log:1"}])
    );
    assert_eq!(containers(&shared.body), json!([{"name": "web", "args": ["x"]}, {"name": "log"}]));
    // The source drops a container.
    let mut body = web(3, "w:2");
    body["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().pop();
    let held =
        |name: &str| (format!("k:{{\"name\":\"{name}\"}}"), json!({".": {}, "f:name": {}, "f:image": {}}));
    let items: serde_json::Map<_, _> = [held("web"), held("log")].into_iter().collect();
    let yielded = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": items}}}});
    let there = live(3, "theirs:1", vec![entry("lockstep-yield", "Apply", yielded)]);
    let back = give_back(&body, &there, &leave).unwrap().unwrap();
    assert_eq!(containers(&back), json!([{"name": "web", "image": "theirs:1"}]));
    assert_eq!(
        give_back(&web(3, "w:2"), &there, &leave).unwrap(),
        None,
        "nothing changed, nothing is written"
    );
}

#[test]
fn a_filter_and_a_position_find_the_item_in_set_and_body() {
    for path in [
        ".spec.template.spec.containers[?(@.name==\"web\")].image",
        ".spec.template.spec.containers[0].image",
        ".spec.template.spec.containers[?(@.image=='theirs:1')].image",
    ] {
        let leave = Leave { never: patterns(&[path]), ..Leave::default() };
        let there = live(3, "theirs:1", vec![entry("lockstep", "Apply", our_fields())]);
        let shared = share(&web(3, "theirs:1"), &there, &leave).unwrap();
        let containers = &shared.yields.unwrap()["spec"]["template"]["spec"]["containers"];
        assert_eq!(*containers, json!([{"name": "web", "image": "theirs:1"}]), "{path}");
        let kept = &shared.body["spec"]["template"]["spec"]["containers"];
        assert_eq!(
            *kept,
            json!([{"name": "web", "args": ["x"]}, {"name": "log", "image": "log:1"}]),
            "{path}"
        );
    }
}

#[test]
fn a_name_and_our_marks_are_never_left() {
    for path in ["$", ".metadata", ".metadata.labels", ".*", ".metadata.annotations[*]"] {
        let leave = Leave { never: patterns(&[path]), ..Leave::default() };
        let there = live(3, "w:1", vec![entry("lockstep", "Apply", our_fields())]);
        let shared = share(&web(3, "w:1"), &there, &leave).unwrap();
        let metadata = &shared.body["metadata"];
        assert_eq!(metadata["name"], "web", "{path}");
        assert_eq!(shared.body["kind"], "Deployment", "{path}");
        assert_eq!(metadata["labels"]["lockstep.dev/managed"], "true", "{path}");
        assert_eq!(metadata["annotations"]["lockstep.dev/policy"], "p", "{path}");
        if let Some(yields) = shared.yields {
            assert!(!yields.to_string().contains("lockstep.dev"), "{path}: {yields}");
        }
    }
}

#[test]
fn below_a_value_that_is_owned_as_a_whole_nothing_is_left() {
    let leave = Leave { never: patterns(&[".spec.selector.matchLabels.tier"]), ..Leave::default() };
    let mut body = web(3, "w:1");
    body["spec"]["selector"] = json!({"matchLabels": {"app": "web", "tier": "1"}});
    let mut there = live(3, "w:1", vec![entry("lockstep", "Apply", json!({"f:spec": {"f:selector": {}}}))]);
    there["spec"]["selector"] = body["spec"]["selector"].clone();
    let shared = share(&body, &there, &leave).unwrap();
    assert_eq!((shared.yields, &shared.body), (None, &body));
}

#[test]
fn what_others_took_is_left_by_rule_and_named() {
    let edited = entry(
        "kubectl-edit",
        "Update",
        json!({"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:replicas": {}, "f:paused": {}}}),
    );
    let mut fields = our_fields();
    fields["f:spec"].as_object_mut().unwrap().remove("f:replicas");
    fields["f:metadata"]["f:labels"].as_object_mut().unwrap().remove("f:app");
    let there = live(9, "w:1", vec![entry("lockstep", "Apply", fields), edited]);
    let rule = |path: &str, drift| (Pattern::from_json_path(path).unwrap(), drift);
    let left = |path: &str, reported| Left {
        path: path.into(),
        manager: "kubectl-edit".into(),
        operation: "Update".into(),
        time: "2026-01-02T03:04:05Z".into(),
        reported,
    };
    let of = |drift: Vec<(Pattern, Drift)>, managers: &[&str]| {
        let managers = managers.iter().map(|name| (*name).to_owned()).collect();
        let shared = share(&web(3, "w:1"), &there, &Leave { drift, managers, ..Leave::default() }).unwrap();
        (
            shared.body["spec"]["replicas"].clone(),
            shared.body["metadata"]["labels"]["app"].clone(),
            shared.left,
        )
    };
    let (replicas, app) = (left(".spec.replicas", true), left(".metadata.labels.app", true));
    assert_eq!(of(vec![rule("$", Drift::Report)], &[]), (Value::Null, Value::Null, vec![app, replicas]));
    assert_eq!(
        of(vec![rule(".spec.replicas", Drift::Ignore), rule("$", Drift::Correct)], &[]),
        (Value::Null, json!("web"), vec![left(".spec.replicas", false)])
    );
    assert_eq!(
        of(vec![rule(".metadata", Drift::Correct), rule("$", Drift::Report)], &[]),
        (Value::Null, json!("web"), vec![left(".spec.replicas", true)])
    );
    assert_eq!(
        of(Vec::new(), &["kubectl-edit"]),
        (Value::Null, Value::Null, vec![left(".metadata.labels.app", false), left(".spec.replicas", false)])
    );
    assert_eq!(of(Vec::new(), &["other"]), (json!(3), json!("web"), Vec::new()));
}

/// Objects of maps in maps, with one letter per name.
fn tree() -> impl Strategy<Value = Value> {
    let leaf = (0_u8..3).prop_map(|n| json!(n));
    leaf.prop_recursive(3, 24, 3, |inner| {
        proptest::collection::btree_map("[a-c]", inner, 1..4).prop_map(|members| json!(members))
    })
}

fn paths_of(value: &Value) -> Vec<String> {
    FieldSet::of_value(value).paths(usize::MAX)
}

/// The set of those leaves that the bits choose.
fn some_of(value: &Value, bits: u32) -> Value {
    fn walk(value: &Value, bits: u32, n: &mut u32) -> Option<Value> {
        let Value::Object(members) = value else {
            *n += 1;
            return (bits >> (*n % 32) & 1 == 1).then(|| json!({}));
        };
        let inner =
            members.iter().filter_map(|(name, child)| Some((format!("f:{name}"), walk(child, bits, n)?)));
        let inner: serde_json::Map<_, _> = inner.collect();
        (!inner.is_empty()).then_some(Value::Object(inner))
    }
    walk(value, bits, &mut 0).unwrap_or_else(|| json!({}))
}

proptest! {
    /// Whatever the rules: a field of ours that the next body lacks is held by somebody, or nobody asks for it.
    #[test]
    fn nothing_of_ours_is_dropped_that_nobody_else_holds(
        content in tree(), desired in tree(), ours: u32, theirs: u32, path in "(\\.[a-c]){1,3}", later in any::<bool>(),
        drift in any::<bool>()
    ) {
        let object = |content: &Value, entries: Value| json!({"apiVersion": "apps/v1", "kind": "X",
            "metadata": {"name": "x", "managedFields": entries}, "spec": content});
        let body = object(&desired, Value::Null);
        let fields = |bits| json!({"f:spec": some_of(&content, bits)});
        let entries = json!([entry("lockstep", "Apply", fields(ours)), entry("other", "Update", fields(theirs))]);
        let there = object(&content, entries);
        let given = patterns(&[&format!(".spec{path}")]);
        let leave = Leave {
            never: if later { BTreeSet::new() } else { given.clone() },
            after_create: if later { given } else { BTreeSet::new() },
            drift: if drift { vec![(Pattern::root(), Drift::Report)] } else { Vec::new() },
            ..Leave::default()
        };
        let shared = share(&body, &there, &leave).unwrap();
        let yields = shared.yields.map(|yields| paths_of(&yields)).unwrap_or_default();
        let kept = paths_of(&shared.body);
        let held = FieldSet::from_value(&fields(theirs)).unwrap();
        let mine = FieldSet::from_value(&fields(ours)).unwrap();
        for path in mine.paths(usize::MAX) {
            let asked = paths_of(&body).contains(&path);
            prop_assert!(
                !asked || kept.contains(&path) || yields.contains(&path) || held.contains(&path),
                "{} of {}", path, there
            );
        }
    }
}
