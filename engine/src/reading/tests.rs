use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn kind(text: &str) -> KindRule {
    match text {
        "*" => KindRule::All,
        text => {
            let (name, group) = text.split_once('.').unwrap_or((text, ""));
            KindRule::Named { name: name.to_owned(), group: group.to_owned() }
        }
    }
}

fn namespace(text: &str) -> NamespaceRule {
    if text == "*" { NamespaceRule::All } else { NamespaceRule::Named(text.to_owned()) }
}

fn rule(kinds: &[&str], namespaces: &[&str]) -> ReadRule {
    ReadRule {
        kinds: kinds.iter().map(|text| kind(text)).collect(),
        namespaces: namespaces.iter().map(|text| namespace(text)).collect(),
    }
}

fn reading(rules: &[(&[&str], &[&str])]) -> Reading {
    let rules = rules.iter().map(|(kinds, namespaces)| rule(kinds, namespaces)).collect();
    Reading { rules, protected: set(&["agents"]) }
}

fn default() -> Reading {
    reading(&[(&["*"], &["*"])])
}

fn secret() -> GroupKind {
    GroupKind::new("", "Secret")
}

fn config_map() -> GroupKind {
    GroupKind::new("", "ConfigMap")
}

#[test]
fn i16_a_star_reads_neither_secrets_nor_namespaces_that_must_be_named() {
    let reading = default();
    for (gk, namespace, expected) in [
        (config_map(), "shop", true),
        (config_map(), "", true),
        (config_map(), "kube-system", false),
        (config_map(), "lockstep-system", false),
        (config_map(), "agents", false),
        (secret(), "shop", false),
        (GroupKind::new("apps", "Deployment"), "shop", true),
        (GroupKind::new("rbac.authorization.k8s.io", "ClusterRole"), "", true),
    ] {
        assert_eq!(reading.allows(&gk, namespace, "x"), expected, "{gk} in {namespace}");
    }
    let namespaces = GroupKind::new("", "Namespace");
    assert!(reading.allows(&namespaces, "", "shop"));
    assert!(!reading.allows(&namespaces, "", "kube-system"));
}

#[test]
fn i16_what_is_named_is_read() {
    let reading = reading(&[
        (&["*"], &["*"]),
        (&["secrets"], &["shop", "kube-system"]),
        (&["NetworkPolicy.networking.k8s.io"], &["agents"]),
    ]);
    assert!(reading.allows(&secret(), "shop", "x"));
    assert!(reading.allows(&secret(), "kube-system", "x"));
    assert!(!reading.allows(&secret(), "dev", "x"));
    assert!(reading.allows(&GroupKind::new("networking.k8s.io", "NetworkPolicy"), "agents", "x"));
    assert!(!reading.allows(&GroupKind::new("cilium.io", "NetworkPolicy"), "agents", "x"));
    assert!(!Reading::default().allows(&config_map(), "shop", "x"), "nothing is named, nothing is read");
}

fn condition(namespaces: &[&str]) -> Condition {
    Condition { namespaces: set(namespaces), ..Condition::default() }
}

fn interest(gk: GroupKind, condition: Condition) -> Interest {
    Interest {
        conditions: BTreeSet::from([condition.clone()]),
        archive: BTreeSet::from([Capture { condition, ..Capture::default() }]),
        managed: true,
        ..Interest::of_keys(gk, "")
    }
}

#[test]
fn an_interest_is_cut_to_what_may_be_read_and_keeps_its_keys() {
    let reading = reading(&[(&["*"], &["*"]), (&["Secret"], &["shop"])]);
    let cut = |gk: GroupKind, asked: Condition| {
        let cut = reading.cut(&interest(gk, asked));
        assert!(cut.managed, "what lockstep wrote itself is told by digests");
        assert_eq!(cut.conditions.len(), cut.archive.len());
        cut.conditions.into_iter().next()
    };
    assert_eq!(cut(secret(), condition(&["shop", "kube-system"])), Some(condition(&["shop"])));
    assert_eq!(cut(secret(), condition(&["kube-system"])), None);
    assert_eq!(cut(secret(), condition(&[])), Some(condition(&["shop"])));
    let but_shop = Condition { exclude_namespaces: set(&["shop"]), ..Condition::default() };
    assert_eq!(cut(secret(), but_shop), None);
    let but_ours = Condition { exclude_namespaces: set(&["agents"]), ..Condition::default() };
    assert_eq!(cut(config_map(), condition(&[])), Some(but_ours));
    let everything = Condition { system: true, ..Condition::default() };
    let excluded = cut(config_map(), everything).unwrap().exclude_namespaces;
    assert_eq!(excluded, set(&["agents", "kube-node-lease", "kube-public", "kube-system"]));
}

#[test]
fn what_is_refused_says_what_to_add() {
    let reading = reading(&[(&["*"], &["*"]), (&["Secret"], &["shop"])]);
    let refused =
        |gk: &GroupKind, asked: &Condition| reading.refused(gk, asked).map(|refused| refused.to_string());
    assert_eq!(refused(&config_map(), &condition(&[])), None);
    assert_eq!(refused(&secret(), &condition(&["shop"])), None);
    let text = refused(&secret(), &condition(&["shop", "kube-system"])).unwrap();
    assert!(text.ends_with(r#"{ kinds: ["Secret"], namespaces: ["kube-system"], verbs: [read] }"#), "{text}");
    let text = refused(&secret(), &condition(&[])).unwrap();
    assert!(text.ends_with(r#"namespaces: ["*"], verbs: [read] }"#), "{text}");
    let everything = Condition { system: true, ..Condition::default() };
    let text = refused(&config_map(), &everything).unwrap();
    assert!(text.contains(r#"["kube-node-lease", "kube-public", "kube-system"]"#), "{text}");
}

#[test]
fn plural_names_follow_the_rule_of_kubernetes() {
    for (kind, expected) in [
        ("Secret", "secrets"),
        ("Ingress", "ingresses"),
        ("NetworkPolicy", "networkpolicies"),
        ("Endpoints", "endpoints"),
        ("StorageClass", "storageclasses"),
    ] {
        assert_eq!(plural(kind), expected);
    }
}

const NAMESPACES: [&str; 6] = ["", "shop", "dev", "kube-system", "lockstep-system", "agents"];

fn some(items: &'static [&'static str]) -> impl Strategy<Value = BTreeSet<String>> {
    prop::sample::subsequence(items.to_vec(), 0..=items.len()).prop_map(|items| set(&items))
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let kinds = prop::sample::subsequence(vec!["*", "Secret", "configmaps"], 1..=2);
    let places = prop::sample::subsequence(vec!["*", "shop", "kube-system", "agents"], 1..=3);
    let rule = (kinds, places).prop_map(|(kinds, places)| rule(&kinds, &places));
    prop::collection::vec(rule, 0..3).prop_map(|rules| Reading { rules, protected: set(&["agents"]) })
}

fn any_condition() -> impl Strategy<Value = Condition> {
    (some(&NAMESPACES[1..]), some(&NAMESPACES[1..]), any::<bool>()).prop_map(
        |(namespaces, exclude_namespaces, system)| Condition {
            namespaces,
            exclude_namespaces,
            system,
            ..Condition::default()
        },
    )
}

proptest! {
    /// What is left of an interest is exactly what it asked for and may be read.
    #[test]
    fn i16_a_cut_interest_is_what_was_asked_for_and_may_be_read(
        reading in any_reading(),
        condition in any_condition(),
        gk in prop::sample::select(vec![secret(), config_map()]),
    ) {
        let asked = interest(gk.clone(), condition);
        let cut = reading.cut(&asked);
        let none = BTreeMap::new();
        for namespace in NAMESPACES {
            let expected = asked.syncs(namespace, "x", &none) && reading.allows(&gk, namespace, "x");
            prop_assert_eq!(cut.syncs(namespace, "x", &none), expected, "{}", namespace);
        }
        prop_assert_eq!(reading.cut(&cut), cut, "cutting twice takes nothing more");
    }

    /// Nothing is missed without a word, but what nobody has named.
    #[test]
    fn what_is_cut_off_is_reported(reading in any_reading(), condition in any_condition()) {
        let gk = secret();
        let asked = interest(gk.clone(), condition.clone());
        let refused = reading.refused(&gk, &condition);
        let none = BTreeMap::new();
        for namespace in NAMESPACES {
            let lost = asked.syncs(namespace, "x", &none) && !reading.allows(&gk, namespace, "x");
            let nobody_named = reading.is_protected(namespace) && condition.namespaces.is_empty();
            if lost && !nobody_named {
                prop_assert!(refused.is_some(), "{}", namespace);
            }
        }
    }
}
