//! ArchivePolicy: what is read, what is refused, what is captured.
#![allow(clippy::unwrap_used)] // helpers of tests may

use std::collections::{BTreeMap, BTreeSet};

use lockstep_engine::interest::Interest;
use lockstep_engine::object::RawObject;
use lockstep_engine::retention::Limits;
use lockstep_engine::{GroupKind, ObjectKey};
use lockstep_policies::{Change, Kind, PolicySet, load};

use crate::common::{self, file, gk, good, policy};

fn archive(name: &str, spec: &str) -> String {
    format!("apiVersion: sync.k8s.io/v1\nkind: ArchivePolicy\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
}

#[track_caller]
fn check(spec: &str, expected: &[&str]) {
    let outcome = common::load_one(&archive("p", spec));
    let found: Vec<String> = outcome.findings.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}

const DAY_MS: i64 = 24 * 3_600_000;

/// What a cluster offers to list and watch: two kinds in namespaces, two beside them, and one that is never archived.
fn served() -> Vec<(GroupKind, bool)> {
    vec![
        (gk("", "ConfigMap"), true),
        (gk("", "Namespace"), false),
        (gk("", "Pod"), true),
        (gk("coordination.k8s.io", "Lease"), true),
        (gk("rbac.authorization.k8s.io", "ClusterRole"), false),
    ]
}

fn interests(set: &PolicySet, cluster: &str) -> Vec<Interest> {
    let served = served();
    let kinds = set.interest(cluster, served.iter().map(|(gk, namespaced)| (gk, *namespaced)));
    kinds.iter().flat_map(lockstep_policies::KindInterest::watches).collect()
}

/// Is the body of such an object sent from cluster a?
fn sent(set: &PolicySet, kind: &GroupKind, metadata: &str) -> bool {
    let text = format!(r#"{{"metadata": {metadata}}}"#);
    let object = RawObject::parse(text.as_bytes()).unwrap();
    let interests = interests(set, "a");
    let of_kind = interests.iter().filter(|interest| interest.gk == *kind);
    of_kind.into_iter().any(|interest| interest.wants_body(&object.metadata))
}

#[test]
fn an_empty_spec_means_everything_in_all_clusters() {
    for spec in ["{}", ""] {
        let set = good(&archive("everything", spec));
        for cluster in ["a", "elsewhere"] {
            let kinds: Vec<String> = interests(&set, cluster).iter().map(|i| i.gk.to_string()).collect();
            let expected = ["ConfigMap", "Namespace", "Pod", "ClusterRole.rbac.authorization.k8s.io"];
            assert_eq!(kinds, expected, "Leases are never archived");
        }
        assert!(
            interests(&set, "a").iter().all(|i| i.scope.is_empty() && !i.managed && i.conditions.is_empty())
        );
        assert!(sent(&set, &gk("", "ConfigMap"), r#"{"name": "x", "namespace": "kube-system"}"#));
        let owned = r#"{"name": "x", "namespace": "n", "ownerReferences": [{"controller": true}]}"#;
        assert!(sent(&set, &gk("", "Pod"), r#"{"name": "x", "namespace": "n"}"#));
        assert!(sent(&set, &gk("", "ConfigMap"), owned));
        assert!(!sent(&set, &gk("", "Pod"), owned), "its controller makes it anew");
    }
    let owned = r#"{"name": "x", "namespace": "n", "ownerReferences": [{"controller": true}]}"#;
    assert!(sent(&good(&archive("p", "{ includeOwned: true }")), &gk("", "Pod"), owned));
}

#[test]
fn conditions_and_exclusions_say_what_is_sent() {
    let set = good(&archive(
        "p",
        "{ clusters: [a], resources: [{ kind: ConfigMap, matchLabels: { env: prod } }, { namespaces: [shop] }], exclude: [{ names: [leader] }] }",
    ));
    assert!(interests(&set, "b").is_empty());
    let map = gk("", "ConfigMap");
    assert!(sent(&set, &map, r#"{"name": "x", "namespace": "n", "labels": {"env": "prod"}}"#));
    assert!(!sent(&set, &map, r#"{"name": "x", "namespace": "n"}"#));
    assert!(sent(&set, &map, r#"{"name": "x", "namespace": "shop"}"#));
    assert!(!sent(&set, &map, r#"{"name": "leader", "namespace": "shop"}"#));
    let watched = interests(&set, "a");
    let pods = watched.iter().find(|i| i.gk == gk("", "Pod")).unwrap();
    assert_eq!(pods.scope, "shop", "only named namespaces are watched where all are named");
    assert!(watched.iter().all(|i| i.gk != gk("", "Namespace")), "nothing without a namespace is in one");
}

#[test]
fn a_kind_that_is_named_is_watched_before_it_is_served() {
    let set = good(&archive("p", "{ resources: [{ apiGroup: example.com, kind: Queue }] }"));
    assert_eq!(interests(&set, "a")[0].gk, gk("example.com", "Queue"));
}

#[test]
fn a_sync_of_some_namespaces_and_an_archive_of_all_share_one_watch() {
    let sync = policy("p", "a", "b", "{ kind: ConfigMap, namespaces: [shop] }");
    let set = good(&format!("{sync}---\n{}", archive("p", "{}")));
    let maps: Vec<Interest> =
        interests(&set, "a").into_iter().filter(|i| i.gk == gk("", "ConfigMap")).collect();
    assert_eq!(maps.len(), 1);
    assert_eq!(maps[0].scope, "");
    assert!(maps[0].syncs("shop", "x", &BTreeMap::new()) && !maps[0].syncs("n", "x", &BTreeMap::new()));
}

#[test]
fn the_longest_retention_and_any_encryption_win() {
    let texts = [
        archive("short", "{ retention: { maxAge: 7d, maxVersions: 3 } }"),
        archive("long", "{ resources: [{ kind: ConfigMap }], retention: { maxAge: 365d } }"),
        archive(
            "sealed",
            "{ encrypt: [{ kind: ConfigMap, namespaces: [vault] }], resources: [{ apiGroup: '' }] }",
        ),
    ];
    let set = good(&texts.join("---\n"));
    let none = BTreeMap::new();
    let default = Limits { max_age: Some(90 * DAY_MS), max_versions: Some(10) };
    let of = |kind: &GroupKind, namespace: &str| {
        set.retention("a", &ObjectKey::new(kind.clone(), namespace, "x"), &none, default)
    };
    let year = Limits { max_age: Some(365 * DAY_MS), max_versions: Some(10) };
    assert_eq!(of(&gk("", "ConfigMap"), "n"), year);
    assert_eq!(of(&gk("", "Secret"), "n"), default, "`sealed` means it, and says nothing of its age");
    let week = Limits { max_age: Some(7 * DAY_MS), max_versions: Some(3) };
    assert_eq!(of(&gk("apps", "Deployment"), "n"), week);
    let forever = Limits { max_age: None, max_versions: None };
    let key = ObjectKey::new(gk("", "ConfigMap"), "n", "x");
    assert_eq!(set.retention("a", &key, &none, forever).max_age, None, "the default outlives all");
    let encrypts =
        |kind: &str, namespace: &str| set.encrypts("a", &ObjectKey::new(gk("", kind), namespace, "x"), &none);
    assert!(encrypts("ConfigMap", "vault") && !encrypts("ConfigMap", "n") && !encrypts("Secret", "vault"));
}

#[test]
fn names_are_unique_per_kind() {
    let sync = policy("p", "a", "b", "{ kind: Secret }");
    let set = good(&format!("{sync}---\n{}", archive("p", "{}")));
    assert_eq!((set.policies().count(), set.archive().count(), set.len()), (1, 1, 2));
    let twice = common::load_one(&format!("{0}---\n{0}", archive("p", "{}")));
    let found: Vec<String> = twice.findings.iter().map(ToString::to_string).collect();
    let expected = "a.yaml:8:19: LS0110 metadata.name: policy p is already defined at a.yaml:3; give one of them another name";
    assert_eq!(found, [expected]);
}

#[test]
fn i10_a_bad_file_keeps_its_last_good_version_and_changes_are_told_by_kind() {
    let first = load(&PolicySet::default(), &[file("a", &archive("p", "{}"))], None);
    assert!(first.is_clean());
    let told: Vec<_> = first.changed.iter().map(|change| (change.kind, change.change)).collect();
    assert_eq!(told, [(Kind::Archive, Change::Added)]);
    let bad = load(&first.set, &[file("a", &archive("p", "{ cluster: [a] }"))], None);
    assert!(!bad.is_clean() && bad.changed.is_empty());
    assert_eq!(interests(&bad.set, "a").len(), 4);
    let changed = load(&first.set, &[file("a", &archive("p", "{ includeOwned: true }"))], None);
    assert_eq!(changed.changed[0].change, Change::Changed);
    let gone = load(&changed.set, &[], None);
    assert_eq!((gone.changed[0].kind, gone.changed[0].change), (Kind::Archive, Change::Removed));
    assert!(interests(&gone.set, "a").is_empty());
    let (restored, findings) = PolicySet::restore(first.set.last_good());
    assert!(findings.is_empty() && restored.archive().count() == 1);
}

#[test]
fn what_is_wrong_is_said_with_a_remedy() {
    check("{ cluster: [a] }", &["a.yaml:4:9: LS0103 spec.cluster: unknown field; did you mean clusters?"]);
    check(
        "{ resources: [{ apiGroup: coordination.k8s.io, kind: Lease }] }",
        &[
            "a.yaml:4:21: LS0150 spec.resources[0]: Lease.coordination.k8s.io is of no use in an archive: clusters make it by themselves; remove the entry",
        ],
    );
    check("{ exclude: [{ kind: Event }] }", &[]);
    check(
        "{ resources: [{ kind: 'Deploy*', apiGroup: apps }] }",
        &[
            "a.yaml:4:29: LS0116 spec.resources[0].kind: `Deploy*` is a pattern; write the whole name, or * alone for all",
        ],
    );
    check(
        "{ resources: [{ kind: Queue, apiGroup: '*' }] }",
        &[
            "a.yaml:4:46: LS0116 spec.resources[0].apiGroup: a kind has one group; name the group of the kind, or leave the kind out",
        ],
    );
    check(
        "{ resources: [{ kind: Deployment }] }",
        &[
            "a.yaml:4:29: LS0120 spec.resources[0].kind: the core group has no kind Deployment; write apiGroup: apps",
        ],
    );
    check(
        "{ resources: [{}], exclude: [] }",
        &[
            "a.yaml:4:21: LS0111 spec.resources[0]: the entry is empty; name a kind, namespaces, names or labels; kind: '*' stands for every kind",
            "a.yaml:4:35: LS0111 spec.exclude: the list is empty; leave the field out, or list at least one entry",
        ],
    );
    check(
        "{ retention: { maxAge: 5m, maxVersions: 0 }, encrypt: yes please }",
        &[
            "a.yaml:4:30: LS0118 spec.retention.maxAge: the duration is out of range; allowed is 1h to 3650d",
            "a.yaml:4:61: LS0104 spec.encrypt: expected true or false, found a string; see the examples in policies/examples",
        ],
    );
    check(
        "{ clusters: [a, a] }",
        &["a.yaml:4:23: LS0113 spec.clusters[1]: a is listed twice; remove one of them"],
    );
    let known: BTreeSet<_> = common::known(&["cluster-a"]);
    let text = archive("p", "{ clusters: [cluster-b] }");
    let outcome = load(&PolicySet::default(), &[file("a.yaml", &text)], Some(&known));
    let expected = "a.yaml:4:20: LS0114 spec.clusters[0]: unknown cluster cluster-b; did you mean cluster-a?";
    assert_eq!(outcome.findings[0].to_string(), expected);
}
