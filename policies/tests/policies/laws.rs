//! Laws that hold for all inputs.
#![allow(clippy::unwrap_used)] // helpers of tests may

use std::collections::BTreeMap;

use lockstep_engine::ObjectKey;
use lockstep_policies::{PolicySet, RenderInput, Selection, canonical, load, render};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common::{self, file, gk, good, policy, verdict};

const KINDS: [(&str, &str); 6] = [
    ("", "Service"),
    ("", "Secret"),
    ("", "Pod"),
    ("", "ServiceAccount"),
    ("batch", "Job"),
    ("example.com", "Thing"),
];

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,6}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        Just("metadata".to_owned()),
        Just("labels".to_owned()),
        Just("annotations".to_owned()),
        Just("lockstep.dev/source".to_owned()),
        Just("spec".to_owned()),
        Just("selector".to_owned()),
        Just("template".to_owned()),
        Just("ports".to_owned()),
        Just("nodePort".to_owned()),
        Just("clusterIP".to_owned()),
        Just("secrets".to_owned()),
        Just("volumes".to_owned()),
        Just("ipFamilies".to_owned()),
        "[a-z]{1,4}",
    ];
    leaf.prop_recursive(5, 48, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn body() -> impl Strategy<Value = Value> {
    (json_value(), prop::collection::btree_map("[a-z]{1,4}", json_value(), 0..4)).prop_map(|(spec, more)| {
        let mut body =
            json!({"metadata": {"name": "x", "uid": "u", "labels": {"lockstep.dev/managed": "true"}}});
        body["spec"] = spec;
        for (name, value) in more {
            body[name] = value;
        }
        body
    })
}

fn resource() -> impl Strategy<Value = String> {
    let labels = prop::option::of(("[ab]", "[xy]"));
    (
        prop_oneof![Just("ConfigMap"), Just("Secret")],
        labels,
        prop::option::of("[mn]"),
        prop::option::of("[pq]"),
        any::<bool>(),
    )
        .prop_map(|(kind, labels, namespace, name, owned)| {
            let mut text = format!("{{ kind: {kind}");
            if let Some((key, value)) = labels {
                text += &format!(", matchLabels: {{ {key}: {value} }}");
            }
            if let Some(namespace) = namespace {
                text += &format!(", namespaces: [{namespace}]");
            }
            if let Some(name) = name {
                text += &format!(", names: [{name}]");
            }
            text + &format!(", includeOwned: {owned} }}")
        })
}

fn object() -> impl Strategy<Value = Value> {
    (prop::collection::btree_map("[ab]", "[xy]", 0..2), "[mn]", "[pq]", any::<bool>()).prop_map(
        |(labels, namespace, name, owned)| {
            json!({"metadata": {"name": name, "namespace": namespace, "labels": labels,
                "ownerReferences": [{"kind": "X", "controller": owned}]}})
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rendering_is_deterministic_and_idempotent(body in body(), kind in 0..KINDS.len()) {
        let set = good(&policy("p", "a", "b", "{ kind: ConfigMap }"));
        let target = ObjectKey::new(gk(KINDS[kind].0, KINDS[kind].1), "n", "x");
        let input = RenderInput { target: &target, digest_key: &[3; 32] };
        let policy = set.by_name("p").unwrap();
        // Bodies of another kind than the key are refused; what is odd is refused both times.
        if let Ok(once) = render(policy, &serde_json::to_vec(&body).unwrap(), &input) {
            let again = render(policy, &serde_json::to_vec(&body).unwrap(), &input).unwrap();
            let twice = render(policy, &canonical(&once.body), &input).unwrap();
            prop_assert_eq!(canonical(&once.body), canonical(&again.body));
            prop_assert_eq!(canonical(&once.body), canonical(&twice.body));
            prop_assert_eq!(once.digest, twice.digest);
        }
    }

    #[test]
    fn selection_is_independent_of_order(
        resources in prop::collection::btree_set(resource(), 1..5),
        other in resource(),
        object in object(),
    ) {
        let forward: Vec<String> = resources.iter().cloned().collect();
        let backward: Vec<String> = resources.iter().rev().cloned().collect();
        let p = |resources: &[String]| policy("p", "a", "b", &resources.join(", "));
        let q = policy("q", "a", "b", &other);
        let sets = [
            good(&p(&forward)),
            good(&p(&backward)),
            good(&format!("{}---\n{q}", p(&forward))),
            good(&format!("{q}---\n{}", p(&backward))),
        ];
        for kind in ["ConfigMap", "Secret"] {
            // The index of the entry is the one thing that may differ.
            let verdicts = sets.each_ref().map(|set| {
                match verdict(set.by_name("p").unwrap(), &gk("", kind), &object) {
                    Selection::Selected { .. } => None,
                    Selection::NotSelected { why } => Some(why),
                }
            });
            prop_assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{:?}", verdicts);
        }
    }

    #[test]
    fn what_is_selected_is_sent(resources in prop::collection::btree_set(resource(), 1..5), object in object()) {
        let set = good(&policy("p", "a", "b", &resources.into_iter().collect::<Vec<_>>().join(", ")));
        for kind in ["ConfigMap", "Secret"] {
            let selected = verdict(set.by_name("p").unwrap(), &gk("", kind), &object).is_selected();
            let metadata = &object["metadata"];
            let labels: BTreeMap<String, String> = serde_json::from_value(metadata["labels"].clone()).unwrap();
            let [namespace, name] = ["namespace", "name"].map(|field| metadata[field].as_str().unwrap());
            let sent = set.interest("a", []).iter().filter(|interest| interest.gk == gk("", kind))
                .flat_map(|interest| interest.watches())
                .any(|watch| watch.syncs(namespace, name, &labels));
            prop_assert!(sent || !selected);
        }
    }

    #[test]
    fn loading_never_panics(text in any::<String>()) {
        let _ = common::load_one(&text);
    }

    #[test]
    fn loading_never_panics_near_a_policy(
        at in 0..400_usize,
        len in 0..20_usize,
        with in "[a-z0-9 :{}\\[\\],&*!|>'\"#%@`~\\n\\t-]{0,12}",
    ) {
        let mut text = include_str!("../../examples/everything-optional-explained.yaml").to_owned();
        // The example is ASCII.
        let at = at.min(text.len());
        let end = (at + len).min(text.len());
        text.replace_range(at..end, &with);
        let outcome = common::load_one(&text);
        prop_assert_eq!(outcome.is_clean(), !outcome.set.is_empty());
    }

    #[test]
    fn i10_last_good_stays(text in "[a-z :{}\\[\\]\\n-]{0,60}") {
        let good_text = policy("p", "a", "b", "{ kind: ConfigMap }");
        let first = load(&PolicySet::default(), &[file("f", &good_text)], None);
        let second = load(&first.set, &[file("f", &text)], None);
        prop_assert!(!second.is_clean());
        prop_assert!(second.changed.is_empty());
        prop_assert_eq!(second.set.last_good().collect::<Vec<_>>(), vec![("f", good_text.as_str())]);
        // Mending the file is enough.
        prop_assert!(load(&second.set, &[file("f", &good_text)], None).is_clean());
    }
}
