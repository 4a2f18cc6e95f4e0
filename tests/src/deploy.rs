//! The manifests in `deploy/`, as tests use them: the agents of the end-to-end tests run with the
//! rights that they grant, so that these are known to suffice.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::harness::{PATIENCE, eventually};
use crate::testbed::Testbed;

/// Where everything is installed.
pub const NAMESPACE: &str = "lockstep-system";
/// The ServiceAccount of an agent.
pub const AGENT: &str = "lockstep-agent";

/// A kustomization by its folder.
#[must_use]
pub fn folder(kustomization: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(kustomization)
}

/// Runs the test bed's kubectl on a kustomization.
///
/// # Errors
/// When it fails, with what it said.
pub fn kubectl(testbed: &Testbed, arguments: &[&str], kustomization: &str) -> Result<String> {
    let output = Command::new(testbed.kubectl())
        .args(arguments)
        .arg(folder(kustomization))
        .env("KUBECONFIG", testbed.kubeconfig())
        .output()
        .context("running kubectl")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl {} {kustomization}: {errors}", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

/// The objects of a kustomization.
///
/// # Errors
/// When kubectl refuses it.
pub fn render(testbed: &Testbed, kustomization: &str) -> Result<Vec<Value>> {
    let yaml = kubectl(testbed, &["kustomize"], kustomization)?;
    serde_saphyr::from_multiple(&yaml).with_context(|| format!("parsing {kustomization}"))
}

/// The namespace is shared by the tests of a run and stays: another test may be at work in it.
///
/// # Errors
/// When the API server refuses.
pub async fn namespace(cluster: &Cluster) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    cluster.apply_value(&namespace).await.map(drop)
}

/// Applies ServiceAccount and RBAC of a kustomization for real; idempotent, so tests may do it side by side.
///
/// # Errors
/// When the API server refuses.
pub async fn install_rbac(testbed: &Testbed, cluster: &Cluster, kustomization: &str) -> Result<()> {
    namespace(cluster).await?;
    let group = "rbac.authorization.k8s.io/v1";
    for object in render(testbed, kustomization)? {
        if object["kind"] == "ServiceAccount" || object["apiVersion"] == group {
            cluster.apply_value(&object).await?;
        }
    }
    Ok(())
}

/// Waits until the agent's ServiceAccount may do something: aggregated roles are filled by a controller,
/// and the authorizer learns of them by a watch.
///
/// # Errors
/// When the right does not come.
pub async fn granted(cluster: &Cluster, verb: &str, group: &str, resource: &str) -> Result<()> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": format!("system:serviceaccount:{NAMESPACE}:{AGENT}"),
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": { "verb": verb, "group": group, "resource": resource },
        },
    });
    let body = serde_json::to_vec(&review)?;
    eventually(PATIENCE, &format!("agents may {verb} {resource}.{group}"), async || {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
        let answer: Value = cluster.client().request(request.body(body.clone())?).await?;
        ensure!(answer["status"]["allowed"] == true, "{answer}");
        Ok(())
    })
    .await
}

/// One kubeconfig with a context per cluster, each with the token of the agent's ServiceAccount there.
///
/// # Errors
/// When the rights cannot be installed.
pub async fn agent_kubeconfig(testbed: &Testbed) -> Result<String> {
    let mut merged =
        json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []});
    for cluster in testbed.clusters() {
        install_rbac(testbed, cluster, "agent").await?;
        granted(cluster, "patch", "apps", "deployments").await?;
        let text = eventually(PATIENCE, "the agent's ServiceAccount gets a token", async || {
            cluster.service_account_kubeconfig(NAMESPACE, AGENT).await
        })
        .await?;
        let one: Value = serde_saphyr::from_str(&text).context("parsing a kubeconfig")?;
        for part in ["clusters", "users", "contexts"] {
            let entries = one[part].as_array().cloned().unwrap_or_default();
            if let Some(all) = merged[part].as_array_mut() {
                all.extend(entries);
            }
        }
    }
    Ok(serde_json::to_string(&merged)?)
}
