//! The examples are policies, and the first is the one that the design promises.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test may read the examples

use lockstep_policies::{Disposition, PolicySet, load};

use crate::common::{self, file, gk};

#[test]
fn every_example_loads_together_with_the_others() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| file(path.to_str().unwrap(), &std::fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() >= 5);
    let outcome = load(&PolicySet::default(), &files, None);
    assert!(outcome.findings.is_empty(), "{:#?}", outcome.findings);
    assert_eq!((outcome.set.policies().count(), outcome.set.archive().count()), (6, 2));
}

#[test]
fn the_policy_that_must_work_as_it_stands() {
    let set = common::good(include_str!("../../examples/production-deployments.yaml"));
    let policy = set.by_name("production-deployments").unwrap();
    assert_eq!(policy.spec.source_cluster.as_str(), "cluster-a");
    let targets: Vec<_> = policy.spec.target_clusters.iter().map(|name| name.as_str()).collect();
    assert_eq!(targets, ["cluster-b", "cluster-c"]);
    assert_eq!(policy.spec.resources[0].gk, gk("apps", "Deployment"));
    assert!(!policy.spec.suspend);
    let deletion = policy.spec.deletion;
    assert_eq!((deletion.budget.count, deletion.budget.percent), (3, 20));
    assert_eq!(
        (deletion.on_source_delete, deletion.on_unselect, deletion.on_policy_delete),
        (Disposition::Delete, Disposition::Delete, Disposition::Orphan)
    );
}

#[test]
fn the_defaults_that_are_explained_are_the_defaults() {
    let set = common::good(include_str!("../../examples/everything-optional-explained.yaml"));
    let explained = &set.by_name("everything-explained").unwrap().spec;
    let plain = common::good(&common::policy("p", "a", "b", "{ kind: ConfigMap }"));
    let plain = &plain.by_name("p").unwrap().spec;
    assert_eq!(explained.deletion, plain.deletion);
    assert_eq!(explained.suspend, plain.suspend);
    assert_eq!(explained.resources[0].include_owned, plain.resources[0].include_owned);
    assert_eq!(explained.resources[0].ownership, plain.resources[0].ownership);
}
