//! `spec.ownership`: an entry says more than the policy, and what contradicts is an error.

mod common;

use lockstep_engine::plan::OnConflict;

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
