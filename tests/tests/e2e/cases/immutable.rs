//! What can never be changed: immutable Secrets, their type, and the role of a binding.

use anyhow::{Result, ensure};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::deploy::{granted, install_rbac};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::{Case, force, policy, post};

const GROUP: &str = "rbac.authorization.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io/v1";
const PEOPLE: (&str, &str, &str) = (RBAC, "RoleBinding", "people");
/// "one" and "two", as a Secret holds them.
const ONE: &str = "b25l";
const TWO: &str = "dHdv";
/// The content of Secrets, before and after the rotation.
const SECRETS: [(&str, &str, &str); 3] = [
    (
        "rotated",
        r#"{"immutable": true, "stringData": {"password": "one"}}"#,
        r#"{"immutable": true, "stringData": {"password": "two"}}"#,
    ),
    (
        "typed",
        r#"{"type": "Opaque", "stringData": {".dockerconfigjson": "{\"auths\":{}}"}}"#,
        r#"{"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{\"auths\":{\"example.invalid\":{\"auth\":\"eDp5\"}}}"}}"#,
    ),
    (
        "unsealed",
        r#"{"immutable": true, "stringData": {"password": "one"}}"#,
        r#"{"stringData": {"password": "two"}}"#,
    ),
];

/// The policy of a target: the source is away for a moment in a rotation, and a grace period delays no Recreate.
fn on_immutable(target: &str, namespace: &str, how: &str) -> String {
    let resources = format!(
        "{{ kind: Secret, namespaces: [{namespace}] }}, {{ apiGroup: {GROUP}, kind: RoleBinding, namespaces: [{namespace}] }}"
    );
    let more = format!(
        "  ownership: {{ onImmutable: {how} }}\n  deletion: {{ budget: {{ count: 10 }}, gracePeriod: 1h }}\n"
    );
    policy(&format!("case-12-{target}"), target, &resources, &more)
}

fn secret(name: &str) -> (&str, &str, &str) {
    ("v1", "Secret", name)
}

fn binding(case: &Case<'_>, role: &str, user: &str) -> Value {
    let role = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": role});
    let subjects = json!([{"apiGroup": GROUP, "kind": "User", "name": user}]);
    case.object(RBAC, "RoleBinding", "people", json!({"roleRef": role, "subjects": subjects}))
}

fn grants(copy: &Value, role: &str, user: &str) -> bool {
    copy["roleRef"]["name"] == role && copy["subjects"][0]["name"] == user
}

/// Case 12 (external-secrets/external-secrets#3604, mittwald/kubernetes-replicator#11): rotation is a delete and a create
/// at the source. Case 14 (kubernetes/kubernetes#66353, rancher/rancher#35903): `cannot change roleRef`. Under Recreate in
/// cluster-b, under Fail in cluster-c.
#[tokio::test(flavor = "multi_thread")]
async fn cases_12_and_14_what_cannot_change_is_made_anew_or_left_whole() -> Result<()> {
    let bed = Testbed::from_env().await?;
    for cluster in &bed.three()?[1..] {
        install_rbac(&bed, cluster, "agent/components/rbac").await?;
        granted(cluster, "escalate", GROUP, "roles").await?;
    }
    let case = Case::accepting(&bed, "case-12", &["RoleBinding"], |namespace| {
        vec![on_immutable("cluster-b", namespace, "Recreate"), on_immutable("cluster-c", namespace, "Fail")]
    })
    .await?;
    as_made(&case).await?;
    for (name, _, after) in SECRETS {
        force(case.a(), &case.object("v1", "Secret", name, serde_json::from_str(after)?)).await?;
    }
    force(case.a(), &binding(&case, "edit", "ann")).await?;
    recreated(&case, case.b()).await?;
    left_whole(&case, case.c()).await?;
    no_token_travels(&case).await?;
    // The policy says otherwise now: what was barred is looked at again at once, and the grace period delays nothing.
    case.lockstep.policy("1.yaml", &on_immutable("cluster-c", case.namespace(), "Recreate"))?;
    recreated(&case, case.c()).await
}

async fn as_made(case: &Case<'_>) -> Result<()> {
    for (name, before, _) in SECRETS {
        post(case.a(), &case.object("v1", "Secret", name, serde_json::from_str(before)?)).await?;
    }
    post(case.a(), &binding(case, "view", "jane")).await?;
    let mut uids = Vec::new();
    for cluster in [case.b(), case.c()] {
        for name in ["rotated", "unsealed"] {
            let is = |copy: &Value| copy["data"]["password"] == ONE;
            case.holds("case 12, as made", cluster, secret(name), is).await?;
        }
        case.holds("case 12, as made", cluster, secret("typed"), |copy| copy["type"] == "Opaque").await?;
        let copy =
            case.holds("case 14, as made", cluster, PEOPLE, |copy| grants(copy, "view", "jane")).await?;
        uids.push(copy["metadata"]["uid"].clone());
    }
    super::set(case.a(), &binding(case, "view", "jane"), &[("/subjects/0/name", json!("joe"))]).await?;
    for (cluster, uid) in [case.b(), case.c()].into_iter().zip(&uids) {
        let in_place = |copy: &Value| grants(copy, "view", "joe") && copy["metadata"]["uid"] == *uid;
        case.holds("case 14, subjects in place", cluster, PEOPLE, in_place).await?;
    }
    Ok(())
}

async fn recreated(case: &Case<'_>, at: &Cluster) -> Result<()> {
    let rotated = |copy: &Value| copy["data"]["password"] == TWO && copy["immutable"] == true;
    case.holds("case 12, Recreate", at, secret("rotated"), rotated).await?;
    let source = case.a().get("v1", "Secret", Some(case.namespace()), "typed").await?;
    let typed = |copy: &Value| copy["type"] == source["type"] && copy["data"] == source["data"];
    case.holds("case 12, Recreate, type", at, secret("typed"), typed).await?;
    let unsealed = |copy: &Value| copy["data"]["password"] == TWO && copy["immutable"].is_null();
    case.holds("case 12, Recreate, unsealed", at, secret("unsealed"), unsealed).await?;
    case.holds("case 14, Recreate", at, PEOPLE, |copy| grants(copy, "edit", "ann")).await?;
    eventually(PATIENCE, "case 12: the old value is a tombstone", async || {
        let arguments = ["tombstones", "list", "secret", "-n", case.namespace(), "--name", "rotated"];
        let kept = case.lockstep.json(&arguments).await?;
        ensure!(kept["items"].as_array().is_some_and(|items| !items.is_empty()), "{kept}");
        Ok(())
    })
    .await
}

/// Under Fail the old ones stay, and it is said why and what to do.
async fn left_whole(case: &Case<'_>, at: &Cluster) -> Result<()> {
    for object in ["secret/rotated", "rolebinding/people"] {
        case.lockstep.stands(object, case.namespace(), at.name(), "Blocked/Immutable").await?;
        let said = case.explained(object).await?;
        let remedy = "to do: set `ownership.onImmutable: Recreate` in the policy";
        ensure!(said.contains(remedy), "cases 12 and 14: {said}");
    }
    case.holds("case 12, Fail", at, secret("rotated"), |copy| copy["data"]["password"] == ONE).await?;
    case.holds("case 14, Fail: neither half of it", at, PEOPLE, |copy| grants(copy, "view", "joe")).await?;
    Ok(())
}

/// Service accounts have tokens of their own in each cluster.
async fn no_token_travels(case: &Case<'_>) -> Result<()> {
    let secrets = case.a().list("v1", "Secret", Some(case.namespace()), "").await?;
    let Some(token) = secrets.iter().find_map(|secret| secret["data"]["token"].as_str()) else {
        return Ok(());
    };
    for cluster in [case.b(), case.c()] {
        let found = json!(cluster.list("v1", "Secret", None, "").await?).to_string();
        ensure!(!found.contains(token), "case 12: a token of the source is in {}", cluster.name());
    }
    Ok(())
}
