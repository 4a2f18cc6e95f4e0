//! `spec.ownership`: an entry says more than the policy, and what contradicts is an error.

use lockstep_engine::plan::OnConflict;

use crate::common;

const HEAD: &str = "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: { name: p }
spec:
  sourceCluster: a
  targetClusters: [b]
";

#[test]
fn an_entry_overrides_what_the_policy_says() {
    let text = format!(
        "{HEAD}  ownership: {{ conflict: TakeOver }}
  resources:
  - {{ kind: Secret }}
  - {{ kind: ConfigMap, ownership: {{ conflict: AdoptIfEqual }} }}
"
    );
    let set = common::good(&text);
    let entries = &set.by_name("p").unwrap().spec.resources;
    let modes: Vec<_> = entries.iter().map(|entry| entry.ownership.conflict).collect();
    assert_eq!(modes, [OnConflict::TakeOver, OnConflict::AdoptIfEqual]);
    let changed = common::good(&text.replace("TakeOver", "Fail"));
    assert_ne!(changed.by_name("p").unwrap().digest, set.by_name("p").unwrap().digest);
}

#[test]
fn misspelt_and_contradicting_ownership_is_refused() {
    let text = format!(
        "{HEAD}  ownership: {{ conflict: Takeover, conflicts: x }}
  resources:
  - {{ kind: Secret, names: [x] }}
  - {{ kind: Secret, names: [x], ownership: {{ conflict: AdoptIfEqual }} }}
"
    );
    let found: Vec<String> = common::load_one(&text).findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "a.yaml:7:26: LS0109 spec.ownership.conflict: unknown value `Takeover`; did you mean TakeOver?",
            "a.yaml:7:36: LS0103 spec.ownership.conflicts: unknown field; did you mean conflict?",
            "a.yaml:10:5: LS0113 spec.resources[1]: the entry selects the same as spec.resources[0]; remove one of them",
        ]
    );
}

#[test]
fn retired_managers_are_named_and_never_all_nor_those_of_kubernetes() {
    let set = common::good(&format!(
        "{HEAD}  ownership: {{ conflict: TakeOver, retiredManagers: [helm, 'terraform*'] }}
  resources:
  - {{ kind: Secret, names: [x] }}
  - {{ kind: ConfigMap, ownership: {{ retiredManagers: [pulumi] }} }}
"
    ));
    let entries = &set.by_name("p").unwrap().spec.resources;
    let named = |n: usize| entries[n].ownership.retired.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(named(0), ["helm", "terraform*"]);
    assert_eq!(named(1), ["pulumi"]);
    let text = format!(
        "{HEAD}  ownership: {{ retiredManagers: ['*', kubelet] }}\n  resources:\n  - {{ kind: ConfigMap }}\n"
    );
    let found: Vec<String> = common::load_one(&text).findings.iter().map(ToString::to_string).collect();
    assert!(found[0].contains("retiredManagers[0]") && found[0].contains("controllers at work"), "{found:?}");
    assert!(found[1].contains("retiredManagers[1]") && found[1].contains("`kubelet`"), "{found:?}");
}

const ALL: &str = "  ownership:
    drift: Report
    replicas: Target
    driftRules:
    - { jsonPointers: [/data/k], jsonPaths: ['.data[\"x.y\"]'], drift: Correct }
    - { jsonPaths: [.data], drift: Ignore }
    ignoreDifferences:
    - { jsonPointers: [/metadata/annotations/a~1b], managers: [webhook] }
    - managers: [operator]
    createOnly: { jsonPaths: ['.spec.containers[*].image'] }
  resources:
  - { kind: ConfigMap }
  - { apiGroup: apps, kind: Deployment, ownership: { createOnly: true, drift: Correct } }
";

#[test]
fn fields_are_left_by_pointer_by_path_and_by_manager() {
    let set = common::good(&format!("{HEAD}{ALL}"));
    let entries = &set.by_name("p").unwrap().spec.resources;
    let map = &entries[0].ownership;
    let leave = map.leave(&entries[0].gk, false);
    let shown: Vec<String> = leave.never.iter().chain(&leave.after_create).map(ToString::to_string).collect();
    assert_eq!(shown, ["$.metadata.annotations['a/b']", "$.spec.containers[*].image"]);
    assert_eq!(leave.managers.iter().collect::<Vec<_>>(), ["operator", "webhook"]);
    let rules: Vec<String> = leave.drift.iter().map(|(path, drift)| format!("{path} {drift:?}")).collect();
    assert_eq!(rules, ["$.data.k Correct", "$.data['x.y'] Correct", "$.data Ignore", "$ Report"]);
    assert!(!map.creates_only() && entries[1].ownership.creates_only());
    // What an entry does not say is as the policy says, lists as a whole.
    let deployment = entries[1].ownership.leave(&entries[1].gk, false);
    assert_eq!(deployment.drift.len(), 3);
    assert!(deployment.after_create.iter().any(|path| path.to_string() == "$.spec.replicas"));
}

#[test]
fn replicas_are_left_where_an_autoscaler_is_and_the_policy_does_not_say_otherwise() {
    let text =
        format!("{HEAD}  resources:\n  - {{ apiGroup: apps, kind: Deployment, namespaces: [shop] }}\n");
    let set = common::good(&text);
    let entry = &set.by_name("p").unwrap().spec.resources[0];
    assert!(entry.ownership.leave(&entry.gk, false).is_empty());
    assert!(!entry.ownership.leave(&entry.gk, true).is_empty());
    let kinds = |set: &lockstep_policies::PolicySet, cluster| -> Vec<String> {
        set.interest(cluster, []).iter().map(|interest| interest.gk.to_string()).collect()
    };
    assert_eq!(kinds(&set, "b"), ["Deployment.apps", "HorizontalPodAutoscaler.autoscaling"]);
    assert_eq!(kinds(&set, "a"), ["Deployment.apps"]);
    let interest = &set.interest("b", [])[1];
    assert_eq!(interest.namespaces.as_ref().unwrap().iter().collect::<Vec<_>>(), ["shop"]);
    assert!(interest.conditions.iter().next().unwrap().covers_namespace("shop") && !interest.managed);
    let source = common::good(&text.replace("[shop] }", "[shop], ownership: { replicas: Source } }"));
    assert_eq!(kinds(&source, "b"), ["Deployment.apps"]);
    let entry = &source.by_name("p").unwrap().spec.resources[0];
    assert!(entry.ownership.leave(&entry.gk, true).is_empty());
}

#[test]
fn paths_that_cannot_be_read_and_rules_that_name_nothing_are_refused() {
    let text = format!(
        "{HEAD}  ownership:
    driftRules: [{{ drift: Ignore }}]
    ignoreDifferences:
    - {{ jsonPaths: ['$..image'], managers: [lockstep] }}
    - {{ jsonPointers: [''] }}
    createOnly: {{ jsonPointers: [spec] }}
  resources: [{{ kind: Secret }}]
"
    );
    let found: Vec<String> = common::load_one(&text).findings.iter().map(ToString::to_string).collect();
    let codes: Vec<&str> = found.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(codes, ["LS0111", "LS0121", "LS0108", "LS0121", "LS0121"], "{found:#?}");
    assert!(found[1].contains("at character 2"), "{found:#?}");
}
