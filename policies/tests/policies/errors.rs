//! Bad files, and exactly what is said about them.
#![allow(clippy::unwrap_used)] // helpers of tests may

use lockstep_policies::{LoadedFile, PolicySet, load};

use crate::common::{file, known, load_one, policy};

const HEAD: &str = "apiVersion: sync.k8s.io/v1\nkind: ClusterSyncPolicy\nmetadata: { name: p }\n";

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found: Vec<String> = load_one(text).findings.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "\n{text}");
    assert!(load_one(text).set.is_empty());
}

/// A policy whose resources are these lines, each indented by two; they begin at line 8.
fn resources(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!("{HEAD}spec:\n  sourceCluster: a\n  targetClusters: [b]\n  resources:\n{lines}")
}

#[test]
fn i10_the_error_names_file_line_column_field_and_remedy() {
    check(
        &resources("- kind: ConfigMap\n  matchLables: { env: production }"),
        &["a.yaml:9:5: LS0103 spec.resources[0].matchLables: unknown field; did you mean matchLabels?"],
    );
}

#[test]
fn every_error_of_a_file_is_reported() {
    check(
        &format!(
            "{HEAD}spec:\n  sourceCluster: Cluster_A\n  targetClusters: []\n  suspend: yes\n  resource: []\n  deletion: {{ onUnselect: orphan, budget: {{ percent: 101, count: -1 }} }}\n"
        ),
        &[
            "a.yaml:5:3: LS0105 spec.resources: the field is missing; list what is synced, as in: - kind: ConfigMap",
            "a.yaml:5:18: LS0108 spec.sourceCluster: `Cluster_A` is not a cluster name: only lower-case letters, digits and `-` are allowed; use the name under which the cluster is registered, as in prod-eu-1",
            "a.yaml:6:19: LS0111 spec.targetClusters: the list is empty; list at least one cluster",
            "a.yaml:7:12: LS0104 spec.suspend: expected true or false, found a string; see the examples in policies/examples",
            "a.yaml:8:3: LS0103 spec.resource: unknown field; did you mean resources?",
            "a.yaml:9:27: LS0109 spec.deletion.onUnselect: unknown value `orphan`; did you mean Orphan?",
            "a.yaml:9:54: LS0118 spec.deletion.budget.percent: the number is out of range; allowed is 0 to 100",
            "a.yaml:9:66: LS0118 spec.deletion.budget.count: the number is out of range; allowed is 0 to 1000000",
        ],
    );
}

#[test]
fn kinds_and_groups() {
    check(
        &resources(
            "- { kind: '*' }\n- { kind: deployments, apiGroup: apps }\n- { apiGroup: apps/v1, kind: Deployment }\n- { kind: Deployment }\n- { apiGroup: coordination.k8s.io, kind: Lease }\n- { apiGroup: apps }\n- { apiGroup: '*', kind: Odd }\n- { apiGroup: v1, kind: Secret }\n- ConfigMap",
        ),
        &[
            "a.yaml:8:13: LS0116 spec.resources[0].kind: `*` is not a kind; list each kind that you want: a kind that appears later must not be synced by surprise",
            "a.yaml:9:13: LS0108 spec.resources[1].kind: `deployments` is not a kind; did you mean Deployment?",
            "a.yaml:10:17: LS0108 spec.resources[2].apiGroup: `apps/v1` is not an API group; write apps, without the version",
            "a.yaml:11:13: LS0120 spec.resources[3].kind: the core group has no kind Deployment; write apiGroup: apps",
            "a.yaml:12:44: LS0117 spec.resources[4].kind: Lease.coordination.k8s.io describes the life of one cluster and is never synced; remove the entry",
            "a.yaml:13:5: LS0105 spec.resources[5].kind: the field is missing; name the kind",
            "a.yaml:14:17: LS0116 spec.resources[6].apiGroup: `*` is not an API group; name the group of each kind: a kind that appears later must not be synced by surprise",
            "a.yaml:15:17: LS0108 spec.resources[7].apiGroup: `v1` is not an API group; leave it out for the core group",
            "a.yaml:16:5: LS0104 spec.resources[8]: expected a map, found a string; see the examples in policies/examples",
        ],
    );
}

#[test]
fn selectors_and_names() {
    const KEY: &str =
        "a label key is `name` or `example.com/name`, at most 63 letters, digits, `-`, `_` and `.`";
    const VALUE: &str = "a label value has at most 63 letters, digits, `-`, `_` and `.`, and begins and ends with a letter or digit";
    check(
        &resources(
            "- kind: Secret\n  matchLabels: { a b: x, env: -x, on: true }\n  matchExpressions:\n  - { key: env, operator: in, values: [a] }\n  - { key: env, operator: In }\n  - { key: env, operator: Exists, values: [a] }\n  - { operator: Exists }\n  - { key: env, operator: NotIn, values: [a!] }\n  namespaces: [shop, shop, 'prod-*']\n  excludeNamespaces: [shop]\n  names: []\n- kind: Secret\n  matchLabels: {}\n- kind: Secret\n  names:",
        ),
        &[
            &format!("a.yaml:9:20: LS0115 spec.resources[0].matchLabels.a b: not a label key; {KEY}"),
            &format!(
                "a.yaml:9:33: LS0115 spec.resources[0].matchLabels.env: `-x` is not a label value; {VALUE}"
            ),
            "a.yaml:9:41: LS0104 spec.resources[0].matchLabels.on: expected a string, found a boolean; put it in quotes",
            "a.yaml:11:29: LS0109 spec.resources[0].matchExpressions[0].operator: unknown value `in`; did you mean In?",
            "a.yaml:12:7: LS0115 spec.resources[0].matchExpressions[1].values: In and NotIn need values; list at least one value",
            "a.yaml:13:45: LS0115 spec.resources[0].matchExpressions[2].values: Exists and DoesNotExist take no values; remove the values",
            "a.yaml:14:7: LS0105 spec.resources[0].matchExpressions[3].key: the field is missing; name the label",
            &format!(
                "a.yaml:15:45: LS0115 spec.resources[0].matchExpressions[4].values[0]: `a!` is not a label value; {VALUE}"
            ),
            "a.yaml:16:24: LS0113 spec.resources[0].namespaces[1]: shop is listed twice; remove one of them",
            "a.yaml:16:30: LS0108 spec.resources[0].namespaces[2]: `prod-*` is not a name; use the names of namespaces as they are; patterns are not supported",
            "a.yaml:17:24: LS0119 spec.resources[0].excludeNamespaces: namespace shop is both listed and excluded; remove it from one of the lists",
            "a.yaml:18:12: LS0111 spec.resources[0].names: the list is empty; leave the field out, or list at least one name",
            "a.yaml:20:18: LS0111 spec.resources[1].matchLabels: the map is empty; leave the field out to select objects with any labels",
            "a.yaml:22:10: LS0104 spec.resources[2].names: expected a list, found nothing; give it a value, or leave the field out",
        ],
    );
}

#[test]
fn clusters() {
    check(
        &policy("p", "a", "a, b, b", "{ kind: Secret }"),
        &[
            "a.yaml:4:44: LS0112 spec.targetClusters[0]: a is the source; a cluster cannot be its own target; remove it here",
            "a.yaml:4:50: LS0113 spec.targetClusters[2]: b is listed twice; remove one of them",
        ],
    );
    let text = policy("p", "cluster-a", "clusterb, elsewhere", "{ kind: Secret }");
    let outcome = load(
        &PolicySet::default(),
        &[file("a.yaml", &text)],
        Some(&known(&["cluster-a", "cluster-b", "cluster-c"])),
    );
    let found: Vec<String> = outcome.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "a.yaml:4:52: LS0114 spec.targetClusters[0]: unknown cluster clusterb; did you mean cluster-b?",
            "a.yaml:4:62: LS0114 spec.targetClusters[1]: unknown cluster elsewhere; connect its agent first; `lockstep clusters` lists those that are known",
        ]
    );
}

#[test]
fn documents_that_are_no_policies() {
    check(
        "",
        &[
            "a.yaml: LS0111 the file holds no policy; write a policy into it; to remove its policies, delete the file",
        ],
    );
    check(
        "apiVersion: sync.k8s.io/v1\nkind: ClusterSyncPolicies\n---\napiVersion: v1\nkind: Secret\nstringData: { password: canary }\n",
        &[
            "a.yaml:2:7: LS0106 kind: unknown kind `ClusterSyncPolicies`; did you mean ClusterSyncPolicy?",
            "a.yaml:4:13: LS0106 apiVersion: unknown apiVersion `v1`; write apiVersion: sync.k8s.io/v1 and kind: ClusterSyncPolicy or ArchivePolicy",
        ],
    );
    check("- 1", &["a.yaml:1:1: LS0104 expected a map, found a list; see the examples in policies/examples"]);
    check(
        &format!("{HEAD}metadatas: 1\n"),
        &[
            "a.yaml:1:1: LS0105 spec: the field is missing; say what is synced from where to where",
            "a.yaml:4:1: LS0103 metadatas: unknown field; did you mean metadata?",
        ],
    );
}

#[test]
fn text_that_is_not_yaml() {
    for (text, place) in [
        ("a: [", "a.yaml:1:"),
        ("a: 1\na: 2\n", "a.yaml:2:1: LS0102 the key stands twice in this map; mend"),
        ("x: &x { a: 1 }\ny: { <<: *x }\n", "a.yaml:2:"),
        ("a: \u{0}", "a.yaml:1:"),
    ] {
        let outcome = load_one(text);
        let found: Vec<String> = outcome.findings.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(place) && found[0].contains("LS0102"), "{found:?}");
        assert!(!found[0].contains('\n'), "{found:?}");
    }
    let broken = LoadedFile { path: "a.yaml".to_owned(), text: Err("permission denied".to_owned()) };
    let outcome = load(&PolicySet::default(), &[broken], None);
    assert_eq!(
        outcome.findings[0].to_string(),
        "a.yaml: LS0101 the file cannot be read: permission denied; mend its permissions or remove it; the last good version stays in force"
    );
}

#[test]
fn duplicate_names_name_both_places() {
    let one = policy("p", "a", "b", "{ kind: Secret }");
    check(
        &format!("{one}---\n{one}"),
        &[
            "a.yaml:8:19: LS0110 metadata.name: policy p is already defined at a.yaml:3; give one of them another name",
        ],
    );
    check(
        &policy(
            "p",
            "a",
            "b",
            "{ kind: Secret, names: [x, y] }, { names: [y, x], apiGroup: '', kind: Secret }",
        ),
        &[
            "a.yaml:4:93: LS0113 spec.resources[1]: the entry selects the same as spec.resources[0]; remove one of them",
        ],
    );
}

#[test]
fn i13_a_secret_among_the_policies_is_not_quoted() {
    for value in [
        "canary: canary",
        "\"canary",
        "[canary",
        "*canary",
        "!!int canary",
        "!!float canary",
        "!!bool canary",
        "!!null canary",
        "!!binary canary!",
        "!!timestamp canary",
        "!canary canary",
        "|canary",
        "&canary &canary canary",
        "\"\\xcanary\"",
        "%canary",
        "@canary",
        "`canary",
        "? canary",
        "{ canary: 1, canary: 2 }",
        "{ 'x': canary } canary",
        "- canary",
        "<<: canary",
    ] {
        let text = format!("apiVersion: v1\nkind: Secret\nstringData:\n  password: {value}\n");
        for finding in load_one(&text).findings {
            assert!(!finding.to_string().contains("canary"), "{value}: {finding}");
        }
    }
}
