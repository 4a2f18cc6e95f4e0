//! Taking ownership over at an adoption: cut off in between, refused, and against a controller that writes meanwhile.

use super::*;

/// Written by hand: a create under the name that kubectl has for it.
async fn by_hand(bench: &Bench, plural: &str, object: &Value) -> Result<Value> {
    let path = format!("/api/v1/namespaces/{}/{plural}?fieldManager=kubectl-create", bench.namespace.name());
    let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
    Ok(bench.cluster.client().request(request.body(object.to_string().into_bytes())?).await?)
}

fn foreign(object: &Value) -> Expect {
    let uid = lockstep_engine::Uid::new(object["metadata"]["uid"].as_str().unwrap_or_default());
    Expect::Foreign { uid, only_if_equal: false, retired: Vec::new(), tracked_too: false }
}

fn managers(object: &Value) -> Vec<&str> {
    let entries = object["metadata"]["managedFields"].as_array();
    entries.into_iter().flatten().filter_map(|entry| entry["manager"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_that_was_cut_off_is_finished_by_the_next() -> Result<()> {
    let bench = Bench::new().await?;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"},
        "data": {"k": "1", "gone": "1", "own": "t"}});
    let there = by_hand(&bench, "configmaps", &map).await?;
    // As far as the first of both writes.
    let entry = |manager: &str, operation: &str, fields: Value| {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:data": fields}})
    };
    let owners = json!([
        entry("lockstep", "Apply", json!({"f:k": {}, "f:gone": {}})),
        entry("kubectl-create", "Update", json!({"f:own": {}})),
    ]);
    let patch = json!({"metadata": {"managedFields": owners}});
    bench.cluster.patch("v1", "ConfigMap", Some(bench.namespace.name()), "cm", &patch).await?;
    let plan = bench.config_map(json!({"k": "2"}), foreign(&there))?;
    let adopted = applied(bench.writer.apply(&plan).await.outcome)?;
    ensure!(adopted.forced && !adopted.created, "{adopted:?}");
    let now = bench.live().await?;
    ensure!(now["data"] == json!({"k": "2", "own": "t"}), "{now}");
    ensure!(managers(&now) == ["lockstep", "kubectl-create"], "{now}");
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_over_for_an_apply_that_is_refused_is_given_back() -> Result<()> {
    let bench = Bench::new().await?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque",
        "data": {"username": "YQ==", "password": "YQ=="}});
    let there = by_hand(&bench, "secrets", &secret).await?;
    let body = json!({"type": "kubernetes.io/basic-auth", "data": {"username": "YQ=="}});
    let plan = bench.plan("", "Secret", "s", body, foreign(&there))?;
    let outcome = bench.writer.apply(&plan).await.outcome;
    ensure!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    let now = bench.cluster.get("v1", "Secret", Some(bench.namespace.name()), "s").await?;
    ensure!(now["metadata"]["managedFields"] == there["metadata"]["managedFields"], "{now}");
    ensure!(now["data"] == there["data"], "it was changed");
    bench.close().await
}
