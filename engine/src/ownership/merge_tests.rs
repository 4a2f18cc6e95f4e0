use serde_json::json;

use super::*;
use crate::ownership::{MANAGER, Owned, owned_digest_of};

fn account() -> GroupKind {
    GroupKind::new("", "ServiceAccount")
}

fn pulls(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name})).collect()
}

/// What a policy asks for, stamped.
fn body(names: &[&str]) -> Value {
    let mut body = json!({"metadata": {"name": "robot"}});
    if !names.is_empty() {
        body["imagePullSecrets"] = pulls(names);
    }
    let asked = body.clone();
    mark_lists(&account(), &asked, &mut body);
    body
}

/// The object as it is: its list, whose entries are ours by the mark, and who owns the list.
fn live(names: &[&str], ours: &[&str], owner: &str) -> Value {
    let mut live = body(ours);
    live["apiVersion"] = "v1".into();
    live["imagePullSecrets"] = pulls(names);
    let entry = |manager: &str, operation: &str, fields: Value| json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsV1": fields});
    let list = json!({"f:imagePullSecrets": {}});
    live["metadata"]["managedFields"] = match owner {
        MANAGER => json!([entry(MANAGER, "Apply", list)]),
        other => json!([entry(MANAGER, "Apply", json!({"f:metadata": {}})), entry(other, "Update", list)]),
    };
    live
}

fn merged(asked: &[&str], live: &Value) -> Option<Vec<String>> {
    let body = body(asked);
    let merged = merge_lists(&account(), &body, &body, live).unwrap()?;
    let names = merged["imagePullSecrets"].as_array().unwrap().iter();
    Some(names.map(|entry| entry["name"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn what_the_target_added_stays_what_the_source_removed_goes() {
    let expect = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let both = live(&["a", "theirs"], &["a"], "builder");
    assert_eq!(merged(&["a"], &both), expect(&["a", "theirs"]));
    assert_eq!(merged(&["a", "b"], &both), expect(&["a", "theirs", "b"]), "a new one follows");
    assert_eq!(merged(&["b"], &both), expect(&["theirs", "b"]), "the source replaced its own");
    let ours = live(&["a"], &["a"], MANAGER);
    assert_eq!(merged(&["b"], &ours), None, "where nobody added, the body is sent as it stands");
    assert_eq!(
        merged(&["theirs", "a"], &both),
        None,
        "what both want is asked for, and the order is the source's"
    );
    // What was there before lockstep came is not ours.
    assert_eq!(merged(&["a"], &live(&["old"], &[], "kubectl")), expect(&["old", "a"]));
}

#[test]
fn the_last_entry_of_ours_goes_and_theirs_stay() {
    let owned = live(&["a", "theirs"], &["a"], MANAGER);
    let rest = merge_lists(&account(), &body(&[]), &body(&[]), &owned).unwrap().unwrap();
    assert_eq!(rest["imagePullSecrets"], pulls(&["theirs"]));
    assert_eq!(rest["metadata"]["annotations"][LISTS], r#"{"imagePullSecrets":[]}"#);
    let theirs = live(&["a", "theirs"], &["a"], "builder");
    assert_eq!(merged(&[], &theirs), None, "the list is not ours, so leaving it out changes nothing");
}

#[test]
fn a_keyed_list_is_left_to_the_server_and_a_list_that_is_left_to_the_target_to_it() {
    let mut keyed = live(&["a", "theirs"], &["a"], MANAGER);
    keyed["metadata"]["managedFields"][0]["fieldsV1"] =
        json!({"f:imagePullSecrets": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}}}});
    assert_eq!(merged(&["a"], &keyed), None);
    let owned = live(&["a", "theirs"], &["a"], MANAGER);
    assert_eq!(merge_lists(&account(), &body(&["a"]), &body(&[]), &owned).unwrap(), None);
}

#[test]
fn entries_of_others_are_no_drift_and_the_loss_of_ours_is() {
    let digest = |live: &Value| match owned_digest_of(live, "v1", None).unwrap() {
        Owned::Digest(digest) => digest,
        other => panic!("{other:?}"),
    };
    let written = digest(&live(&["a"], &["a"], MANAGER));
    // A controller that changes the list becomes its only owner.
    let mut added = live(&["a", "theirs"], &["a"], "builder");
    added["metadata"]["managedFields"][0]["fieldsV1"] = json!({});
    assert_eq!(digest(&added), written);
    assert_eq!(digest(&live(&["theirs", "a"], &["a"], MANAGER)), written, "nor is the order");
    let mut lost = live(&["theirs"], &["a"], "builder");
    lost["metadata"]["managedFields"][0]["fieldsV1"] = json!({});
    assert_ne!(digest(&lost), written);
    assert_ne!(digest(&live(&["a", "b"], &["a", "b"], MANAGER)), written);
}

#[test]
fn entries_without_a_key_are_told_apart_as_a_whole() {
    let pod = GroupKind::new("", "Pod");
    let toleration = |key: &str| json!({"key": key, "operator": "Exists"});
    let mut body = json!({"metadata": {"name": "p"}, "spec": {"tolerations": [toleration("ours")]}});
    let asked = body.clone();
    mark_lists(&pod, &asked, &mut body);
    let mut live = body.clone();
    live["spec"]["tolerations"] = json!([toleration("ours"), toleration("admission")]);
    let merged = merge_lists(&pod, &body, &body, &live).unwrap().unwrap();
    assert_eq!(merged["spec"], live["spec"]);
}

#[test]
fn a_mark_that_cannot_be_read_takes_nothing_away() {
    let mut odd = live(&["a", "theirs"], &["a"], "builder");
    odd["metadata"]["annotations"][LISTS] = "{".into();
    assert_eq!(merged(&["b"], &odd).unwrap(), ["a", "theirs", "b"]);
    assert_eq!(body(&[]), json!({"metadata": {"name": "robot"}}), "no list, no mark");
}
