//! Selection, the interests that follow from it, and how the set is queried.
#![allow(clippy::unwrap_used)] // helpers of tests may

use lockstep_policies::{PolicySet, Selection};
use serde_json::{Value, json};

use crate::common::{gk, good, policy, verdict};

fn why(set: &PolicySet, kind: &str, body: &Value) -> (String, String) {
    let policy = set.by_name("p").unwrap();
    let gk = gk("", kind);
    match verdict(policy, &gk, body) {
        Selection::Selected { resource } => ("Selected".to_owned(), resource.to_string()),
        Selection::NotSelected { why } => {
            let metadata = &body["metadata"];
            let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
            let key = lockstep_engine::ObjectKey::new(gk, &text("namespace"), &text("name"));
            (why.code().to_owned(), why.sentence(policy, &key))
        }
    }
}

#[test]
fn the_nearest_reason_is_given() {
    let set = good(&policy(
        "p",
        "a",
        "b",
        "{ kind: ConfigMap, namespaces: [shop], names: [x], matchLabels: { env: production } }, { kind: Secret, excludeNamespaces: [dev] }, { kind: ConfigMap, namespaces: [kube-system] }",
    ));
    let object = |namespace: &str, name: &str, labels: Value| json!({"metadata": {"namespace": namespace, "name": name, "labels": labels}});
    let none = json!({});
    for (kind, body, code, sentence) in [
        (
            "Service",
            object("shop", "x", none.clone()),
            "KindNotListed",
            "policy p does not list kind Service",
        ),
        (
            "ConfigMap",
            object("dev", "x", none.clone()),
            "NamespaceNotListed",
            "policy p does not list namespace dev",
        ),
        ("Secret", object("dev", "x", none.clone()), "NamespaceExcluded", "policy p excludes namespace dev"),
        (
            "ConfigMap",
            object("shop", "y", none.clone()),
            "NameNotListed",
            "policy p does not list the name y",
        ),
        (
            "ConfigMap",
            object("shop", "x", json!({"env": "dev"})),
            "LabelsDiffer",
            "policy p wants the label env=production, and the object has env=dev",
        ),
        (
            "ConfigMap",
            object("shop", "x", none.clone()),
            "LabelsDiffer",
            "policy p wants the label env=production, and the object has no label env",
        ),
        ("ConfigMap", object("shop", "x", json!({"env": "production"})), "Selected", "0"),
        ("ConfigMap", object("kube-system", "any", none.clone()), "Selected", "2"),
        ("Secret", object("shop", "x", none.clone()), "Selected", "1"),
    ] {
        assert_eq!(why(&set, kind, &body), (code.to_owned(), sentence.to_owned()), "{body}");
    }
    let (code, sentence) = why(&set, "Secret", &object("kube-system", "x", none));
    assert_eq!(code, "SystemNamespace");
    assert!(sentence.contains("list that namespace"), "{sentence}");
}

#[test]
fn the_set_is_asked_by_source_and_by_target() {
    let set = good(&format!(
        "{}---\n{}",
        policy("p", "a", "b, c", "{ kind: ConfigMap }, { kind: ConfigMap, names: [x] }"),
        policy("q", "b", "c", "{ kind: ConfigMap }, { kind: Secret }")
    ));
    let names = |policies: Vec<String>| policies.join(" ");
    let source = |cluster, kind| {
        names(set.for_source(cluster, &gk("", kind)).map(|policy| policy.name.to_string()).collect())
    };
    let target = |cluster, kind| {
        names(set.claimants(cluster, &gk("", kind)).map(|policy| policy.name.to_string()).collect())
    };
    assert_eq!(source("a", "ConfigMap"), "p");
    assert_eq!(source("a", "Secret"), "");
    assert_eq!(target("c", "ConfigMap"), "p q");
    assert_eq!(target("c", "Secret"), "q");
    assert_eq!(target("a", "ConfigMap"), "");
    assert_eq!(set.clusters().len(), 3);
}

#[test]
fn an_interest_is_limited_to_namespaces_only_when_all_are_literal() {
    let literal = policy("p", "a", "b", "{ kind: Secret, namespaces: [shop, dev], names: [x] }");
    let set = good(&literal);
    let source = &set.interest("a", [])[0];
    assert_eq!(source.namespaces.as_ref().unwrap().len(), 2);
    assert!(!source.managed);
    let watches = source.watches();
    assert_eq!(watches.iter().map(|w| w.scope.as_str()).collect::<Vec<_>>(), ["dev", "shop"]);
    assert!(watches[1].syncs("shop", "x", &Default::default()));
    assert!(!watches[1].syncs("shop", "y", &Default::default()));
    let target = &set.interest("b", [])[0];
    assert!(target.managed && target.conditions.is_empty() && target.namespaces.is_some());

    let set = good(&format!("{literal}---\n{}", policy("q", "c", "a", "{ kind: Secret }")));
    let both = &set.interest("a", [])[0];
    assert!(both.managed && both.namespaces.is_none() && both.conditions.len() == 1);
    assert_eq!(both.watches().len(), 1);

    let many: Vec<String> = (0..17).map(|i| format!("n{i}")).collect();
    let set = good(&policy("p", "a", "b", &format!("{{ kind: Secret, namespaces: [{}] }}", many.join(", "))));
    assert!(set.interest("a", [])[0].namespaces.is_none());
    assert!(set.interest("elsewhere", []).is_empty());
}

#[test]
fn a_suspended_policy_is_still_watched() {
    let text = policy("p", "a", "b", "{ kind: Secret }").replace("spec: {", "spec: { suspend: true,");
    let set = good(&text);
    assert!(set.by_name("p").unwrap().spec.suspend);
    assert_eq!(set.interest("a", []).len(), 1);
}
