//! What can never be changed: immutable Secrets, their type, and the role of a binding.

use anyhow::{Result, ensure};
use lockstep_tests::deploy::{granted, install_rbac};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::{Case, force, policy, post};

const RBAC: &str = "rbac.authorization.k8s.io/v1";
/// "one" and "two", as a Secret holds them.
const ONE: &str = "b25l";
const TWO: &str = "dHdv";

/// Case 12 (external-secrets/external-secrets#3604, mittwald/kubernetes-replicator#11): rotation is a delete and a create
/// at the source. Case 14 (kubernetes/kubernetes#66353, rancher/rancher#35903): `cannot change roleRef`. Under Recreate in
/// cluster-b, under Fail in cluster-c.
#[tokio::test(flavor = "multi_thread")]
async fn cases_12_and_14_what_cannot_change_is_made_anew_or_left_whole() -> Result<()> {
    let bed = Testbed::from_env().await?;
    for cluster in &bed.three()?[1..] {
        install_rbac(&bed, cluster, "agent/components/rbac").await?;
        granted(cluster, "bind", "rbac.authorization.k8s.io", "clusterroles").await?;
    }
    let case = Case::accepting(&bed, "case-12", &["RoleBinding"], |namespace| {
        let resources = format!(
            "{{ kind: Secret, namespaces: [{namespace}] }}, {{ apiGroup: rbac.authorization.k8s.io, kind: RoleBinding, namespaces: [{namespace}] }}"
        );
        // The source is away for a moment; a grace period delays no Recreate.
        let more = |how: &str| format!("  ownership: {{ onImmutable: {how} }}\n  deletion: {{ budget: {{ count: 10 }}, gracePeriod: 1h }}\n");
        vec![
            policy("case-12-recreate", "cluster-b", &resources, &more("Recreate")),
            policy("case-12-fail", "cluster-c", &resources, &more("Fail")),
        ]
    })
    .await?;
    let secret = |name: &str, content: Value| case.object("v1", "Secret", name, content);
    let binding = |role: &str, user: &str| {
        let group = "rbac.authorization.k8s.io";
        case.object(
            RBAC,
            "RoleBinding",
            "people",
            json!({
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}]}),
        )
    };
    post(case.a(), &secret("rotated", json!({"immutable": true, "stringData": {"password": "one"}}))).await?;
    post(
        case.a(),
        &secret("typed", json!({"type": "Opaque", "stringData": {".dockerconfigjson": "{\"auths\":{}}"}})),
    )
    .await?;
    post(case.a(), &secret("unsealed", json!({"immutable": true, "stringData": {"password": "one"}})))
        .await?;
    post(case.a(), &binding("view", "jane")).await?;
    let of = |name| ("v1", "Secret", name);
    let people = (RBAC, "RoleBinding", "people");
    let grants = |copy: &Value, role: &str, user: &str| {
        copy["roleRef"]["name"] == role && copy["subjects"][0]["name"] == user
    };
    let mut uids = Vec::new();
    for cluster in [case.b(), case.c()] {
        for name in ["rotated", "unsealed"] {
            case.holds("case 12, as made", cluster, of(name), |copy| copy["data"]["password"] == ONE).await?;
        }
        case.holds("case 12, as made", cluster, of("typed"), |copy| copy["type"] == "Opaque").await?;
        let copy =
            case.holds("case 14, as made", cluster, people, |copy| grants(copy, "view", "jane")).await?;
        uids.push(copy["metadata"]["uid"].clone());
    }
    // Subjects change in place.
    case.a().apply_value(&json!({"apiVersion": RBAC, "kind": "RoleBinding", "metadata": {"name": "people", "namespace": case.namespace()},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "joe"}]})).await?;
    for (cluster, uid) in [case.b(), case.c()].into_iter().zip(&uids) {
        case.holds("case 14, subjects in place", cluster, people, |copy| {
            grants(copy, "view", "joe") && copy["metadata"]["uid"] == *uid
        })
        .await?;
    }
    let config = "{\"auths\":{\"example.invalid\":{\"auth\":\"eDp5\"}}}";
    force(case.a(), &secret("rotated", json!({"immutable": true, "stringData": {"password": "two"}})))
        .await?;
    force(
        case.a(),
        &secret(
            "typed",
            json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config}}),
        ),
    )
    .await?;
    force(case.a(), &secret("unsealed", json!({"stringData": {"password": "two"}}))).await?;
    force(case.a(), &binding("edit", "ann")).await?;
    let b = case.b();
    case.holds("case 12, Recreate", b, of("rotated"), |copy| {
        copy["data"]["password"] == TWO && copy["immutable"] == true
    })
    .await?;
    case.holds("case 12, Recreate, type", b, of("typed"), |copy| {
        copy["type"] == "kubernetes.io/dockerconfigjson"
    })
    .await?;
    case.same("case 12, Recreate, type", of("typed"), "/data").await?;
    case.holds("case 12, Recreate, unsealed", b, of("unsealed"), |copy| {
        copy["data"]["password"] == TWO && copy["immutable"].is_null()
    })
    .await?;
    case.holds("case 14, Recreate", b, people, |copy| grants(copy, "edit", "ann")).await?;
    // Under Fail the old ones stay whole, and it is said why and what to do.
    for object in ["secret/rotated", "rolebinding/people"] {
        case.lockstep.stands(object, case.namespace(), "cluster-c", "Blocked/Immutable").await?;
        let said = case.explained(object).await?;
        ensure!(
            said.contains("to do: set `ownership.onImmutable: Recreate` in the policy"),
            "cases 12 and 14: {said}"
        );
    }
    case.holds("case 12, Fail", case.c(), of("rotated"), |copy| copy["data"]["password"] == ONE).await?;
    case.holds("case 14, Fail: neither half of it", case.c(), people, |copy| grants(copy, "view", "joe"))
        .await?;
    eventually(PATIENCE, "case 12: the old value is a tombstone", async || {
        let kept = case
            .lockstep
            .json(&["tombstones", "list", "secret", "-n", case.namespace(), "--name", "rotated"])
            .await?;
        ensure!(kept["items"].as_array().is_some_and(|items| !items.is_empty()), "{kept}");
        Ok(())
    })
    .await?;
    // Tokens of service accounts never travel: the namespace has one of its own in each cluster.
    let token = |secrets: &[Value]| {
        secrets.iter().find_map(|secret| secret["data"]["token"].as_str().map(ToOwned::to_owned))
    };
    if let Some(token) = token(&case.a().list("v1", "Secret", Some(case.namespace()), "").await?) {
        for cluster in [case.b(), case.c()] {
            let secrets = cluster.list("v1", "Secret", None, "").await?;
            ensure!(
                !json!(secrets).to_string().contains(&token),
                "case 12: a token of the source is in {}",
                cluster.name()
            );
        }
    }
    // The policy says otherwise now: what was barred is looked at again at once, and the grace period delays nothing.
    let resources = format!("{{ kind: Secret, namespaces: [{}] }}", case.namespace());
    let more =
        "  ownership: { onImmutable: Recreate }\n  deletion: { budget: { count: 10 }, gracePeriod: 1h }\n";
    case.lockstep.policy("1.yaml", &policy("case-12-fail", "cluster-c", &resources, more))?;
    case.holds("case 12, onImmutable changed", case.c(), of("rotated"), |copy| {
        copy["data"]["password"] == TWO
    })
    .await?;
    Ok(())
}
