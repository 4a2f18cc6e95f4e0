//! Member clusters that are gone for good, and targets that a policy no longer names.

use lockstep_wire::v1::{self, outcome::Result as Answer, step::Action};
use tokio::sync::oneshot;

use super::fleet::*;
use super::told::*;
use crate::core::Input;
use crate::core::command::{ClusterRemoval, Command, CommandError};
use crate::store::{Cause, Reader, removed_clusters};

const BOTH: &str = "
apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: { name: maps }
spec:
  sourceCluster: a
  targetClusters: [b, c]
  resources:
  - kind: ConfigMap
    matchLabels: { sync: 'yes' }
";

fn remove(fleet: &mut Fleet, cluster: &str, dry_run: bool) -> Result<ClusterRemoval, CommandError> {
    let (reply, mut answer) = oneshot::channel();
    let cluster = cluster.to_owned();
    fleet.input(Input::Command(Command::RemoveCluster { cluster, dry_run, reply }));
    answer.try_recv().unwrap()
}

/// One copy in b and in c, in step.
fn both() -> Fleet {
    let mut fleet = Fleet::up(&[("p.yaml", BOTH)]);
    fleet.connect("c");
    fleet.live("c", Vec::new());
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    for name in ["b", "c"] {
        let step = fleet.one_step(name);
        fleet.perform(name, &step, &format!("t-{name}"), 50, true);
        assert_eq!(fleet.status(name, "cm-0"), "InStep/InStep");
    }
    fleet
}

#[test]
fn a_dead_target_is_removed_without_touching_any_other() {
    let mut fleet = both();
    fleet.disconnect("c");
    // What was to be done there waits for nobody.
    fleet.section("a", vec![source("cm-1", "s1", 11, "1")], None);
    let step = fleet.one_step("b");
    fleet.perform("b", &step, "t1-b", 51, true);
    assert_eq!(fleet.status("c", "cm-1"), "Unknown/NotConnected");
    let shown = remove(&mut fleet, "c", true).unwrap();
    assert_eq!((shown.placements, shown.objects, shown.policies), (2, 1, vec!["maps".to_owned()]));
    remove(&mut fleet, "c", false).unwrap();
    let store = &mut fleet.core.store;
    assert_eq!(store.clusters().unwrap().len(), 2);
    assert!(store.summary(None).unwrap().iter().all(|row| row.policy == "maps" && row.count == 2));
    assert!(removed_clusters(store).unwrap()[0].cleared);
    assert!(fleet.steps("b").is_empty() && fleet.tombstones().is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    assert_eq!(remove(&mut fleet, "c", false).unwrap_err().code, "LS0200");
    // The policy goes on, with its file as before and without the name.
    for (version, text) in [(60, BOTH), (61, POLICY)] {
        fleet.policies(&[("p.yaml", text)]);
        fleet.section("a", vec![source("cm-0", "s0", version, &version.to_string())], None);
        let step = fleet.one_step("b");
        fleet.perform("b", &step, "t-b", version, true);
        assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
    }
}

#[test]
fn i3_a_removed_source_deletes_nothing_and_what_is_held_of_it_becomes_tombstones() {
    let mut fleet = both();
    fleet.disconnect("a");
    remove(&mut fleet, "a", false).unwrap();
    let tombstones = fleet.tombstones();
    let kept: Vec<_> = tombstones.iter().map(|kept| (&*kept.key.name, &kept.cause)).collect();
    assert_eq!(kept, [("cm-0", &Cause::ClusterRemoved)]);
    let waiting = fleet.core.store.outbox(0, 9).unwrap();
    assert!(waiting[0].body.as_ref().is_some_and(|body| body.windows(3).any(|part| part == b"\"k\"")));
    for restarts in [false, true] {
        if restarts {
            fleet.restart();
            fleet.policies(&[("p.yaml", BOTH)]);
            for name in ["b", "c"] {
                fleet.connect(name);
                fleet.live(name, Vec::new());
            }
        }
        fleet.tick(60_000);
        for name in ["b", "c"] {
            assert!(fleet.steps(name).is_empty());
            assert_eq!(fleet.status(name, "cm-0"), "Unknown/SourceNotConnected");
        }
    }
    fleet.policies(&[]);
    assert!(fleet.steps("b").is_empty());
    assert_eq!(fleet.status("b", "cm-0"), "Orphaned/PolicyRemoved");
}

#[test]
fn what_is_left_of_a_removed_cluster_is_cleared_after_a_restart() {
    let mut fleet = both();
    fleet.disconnect("a");
    let (reply, _answer) = oneshot::channel();
    let command = Command::RemoveCluster { cluster: "a".into(), dry_run: false, reply };
    let more = fleet.core.handle(vec![Input::Command(command)], fleet.now).unwrap();
    assert!(more, "there is more than one slice");
    fleet.restart();
    fleet.policies(&[("p.yaml", BOTH)]);
    assert_eq!(fleet.tombstones().len(), 1);
    assert!(removed_clusters(&mut fleet.core.store).unwrap()[0].cleared);
    assert!(fleet.core.store.watches(None).unwrap().iter().all(|watch| watch.cluster.0 != 1));
}

#[test]
fn a_removed_cluster_that_comes_back_is_refused_until_it_is_joined_anew() {
    let mut fleet = both();
    let body = fleet.copy_of("c", "cm-0");
    let refused = remove(&mut fleet, "c", false).unwrap_err();
    assert_eq!(refused.code, "LS0216");
    assert!(refused.remedy.contains("lockstep orphan --cluster c"), "{refused}");
    fleet.disconnect("c");
    let before = fleet.core.names[&lockstep_engine::ClusterName::new("c").unwrap()];
    remove(&mut fleet, "c", false).unwrap();
    let refused = fleet.connect_as("c", "instance-2", "uid-of-c").unwrap_err();
    assert_eq!(refused.code, "LS0217");
    assert!(refused.remedy.contains("token create"), "{refused:?}");
    fleet.restart();
    fleet.policies(&[("p.yaml", POLICY)]);
    assert_eq!(fleet.connect_as("c", "instance-2", "uid-of-c").unwrap_err().code, "LS0217");

    let (reply, mut answer) = oneshot::channel();
    let cluster = lockstep_engine::ClusterName::new("c").unwrap();
    fleet.input(Input::Command(Command::CreateToken { cluster, reply }));
    let former = fleet.tokens.insert("c", answer.try_recv().unwrap().unwrap()).unwrap();
    let fresh = fleet.tokens["c"].clone();
    fleet.tokens.insert("c", former);
    assert_eq!(fleet.connect_as("c", "instance-3", "uid-of-c").unwrap_err().code, "LS0201");
    fleet.tokens.insert("c", fresh);
    fleet.policies(&[("p.yaml", BOTH)]);
    fleet.connect("a");
    fleet.namespaces("a", Vec::new());
    fleet.live("a", Vec::new());
    fleet.connect("c");
    assert_ne!(fleet.agents["c"].id, before, "it is another member");
    // Its copy is known by its marks.
    fleet.live("c", vec![listed(copy("cm-0", "t-c", 50, &body, [50; 16]), &body)]);
    let step = fleet.one_step("c");
    assert!(only_compares(&step), "nothing is written where it is what is asked for");
    fleet.perform("c", &step, "t-c", 50, false);
    assert_eq!(fleet.status("c", "cm-0"), "InStep/InStep");
}

#[test]
fn a_target_that_a_policy_no_longer_names_while_it_is_away_keeps_its_copies_and_may_come_back() {
    let mut fleet = both();
    let body = fleet.copy_of("c", "cm-0");
    fleet.disconnect("c");
    fleet.policies(&[("p.yaml", POLICY)]);
    assert_eq!(fleet.status("c", "cm-0"), "Orphaned/TargetRemoved");
    fleet.connect("c");
    assert!(fleet.steps("c").is_empty());
    assert_eq!(fleet.status("c", "cm-0"), "Orphaned/TargetRemoved");
    // Named again, it is in step without a write.
    fleet.policies(&[("p.yaml", BOTH)]);
    fleet.live("c", vec![listed(copy("cm-0", "t-c", 50, &body, [50; 16]), &body)]);
    assert!(fleet.steps("c").is_empty() && fleet.steps("b").is_empty());
    assert_eq!(fleet.status("c", "cm-0"), "InStep/InStep");
}

#[test]
fn a_target_that_a_policy_no_longer_names_is_emptied_when_it_is_back_where_the_policy_says_so() {
    let deletes = |policy: &str| format!("{policy}  deletion: {{ onPolicyDelete: Delete }}\n");
    let mut fleet = both();
    fleet.policies(&[("p.yaml", &deletes(BOTH))]);
    fleet.disconnect("c");
    fleet.policies(&[("p.yaml", &deletes(POLICY))]);
    assert_eq!(fleet.status("c", "cm-0"), "Unknown/NotConnected");
    fleet.restart();
    fleet.policies(&[("p.yaml", &deletes(POLICY))]);
    fleet.connect("c");
    fleet.live("c", Vec::new());
    let step = fleet.one_step("c");
    assert!(matches!(step.action, Some(Action::Read(_))), "its last state is archived first: {step:?}");
    let image = v1::Image {
        uid: "t-c".into(),
        resource_version: "50".into(),
        body: br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"cm-0","namespace":"shop"}}"#
            .as_slice()
            .into(),
        api_version: "v1".into(),
        managed: true,
    };
    fleet.outcome("c", step.step, Answer::Image(image));
    fleet.archive();
    let step = fleet.one_step("c");
    assert!(matches!(step.action, Some(Action::Delete(_))));
    assert_eq!(fleet.status("b", "cm-0"), "InStep/InStep");
}
