//! Agents under a ServiceAccount of their own: their requests can be told from everybody else's in the audit log, and
//! their rights can be edited while other tests run beside.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::deploy::{AGENT, NAMESPACE, namespace, render};
use crate::harness::{PATIENCE, eventually, unique_name};
use crate::proxy::Proxy;
use crate::requests::AuditEvent;
use crate::testbed::Testbed;

const RBAC: &str = "rbac.authorization.k8s.io";
/// Roles with this label add up to what agents may write; they are shared.
const AGGREGATED: &str = "lockstep.dev/aggregate-to-agent-write";
/// Verbs of the audit log that change something.
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// A ServiceAccount in every cluster, with a copy of the rights that `deploy/agent` grants.
pub struct Identity {
    suffix: String,
}

impl Identity {
    /// Creates ServiceAccount and rights in all clusters. They stay until the control planes end.
    ///
    /// # Errors
    /// When an API server refuses.
    pub async fn install(bed: &Testbed, prefix: &str) -> Result<Self> {
        let identity = Self { suffix: format!("-{}", unique_name(prefix)?) };
        let objects = render(bed, "agent")?;
        for cluster in bed.clusters() {
            namespace(cluster).await?;
            for object in &objects {
                let group = object["apiVersion"].as_str().and_then(|version| version.split('/').next());
                if object["kind"] == "ServiceAccount" || group == Some(RBAC) {
                    cluster.apply_value(&identity.renamed(object)).await?;
                }
            }
            identity.granted(cluster, "list", "", "secrets", true).await?;
            identity.granted(cluster, "patch", "apps", "deployments", true).await?;
        }
        Ok(identity)
    }

    fn renamed(&self, object: &Value) -> Value {
        let mut object = object.clone();
        if object["metadata"]["labels"][AGGREGATED].is_null() {
            let subjects = object["subjects"].as_array().map_or(0, Vec::len);
            let subjects = (0..subjects).map(|n| format!("/subjects/{n}/name"));
            for pointer in
                ["/metadata/name".to_owned(), "/roleRef/name".to_owned()].into_iter().chain(subjects)
            {
                if let Some(Value::String(name)) = object.pointer_mut(&pointer) {
                    name.push_str(&self.suffix);
                }
            }
        }
        object
    }

    /// Name of the ClusterRole by which the agents list and watch.
    #[must_use]
    pub fn read_role(&self) -> String {
        format!("lockstep-agent-read{}", self.suffix)
    }

    /// Name of the user in audit logs.
    #[must_use]
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{NAMESPACE}:{AGENT}{}", self.suffix)
    }

    /// Waits until the authorizer grants something, or does not: it learns of edits by a watch.
    ///
    /// # Errors
    /// When it does not come to be.
    pub async fn granted(
        &self,
        cluster: &Cluster,
        verb: &str,
        group: &str,
        resource: &str,
        is: bool,
    ) -> Result<()> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": self.user(),
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "resourceAttributes": { "verb": verb, "group": group, "resource": resource },
            },
        });
        let body = serde_json::to_vec(&review)?;
        eventually(PATIENCE, &format!("may {verb} {resource}.{group}: {is}"), async || {
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
            let answer: Value = cluster.client().request(request.body(body.clone())?).await?;
            ensure!(answer["status"]["allowed"] == is, "{answer}");
            Ok(())
        })
        .await
    }

    /// A kubeconfig with a context per cluster, for [`Lockstep::prepare_with`](crate::lockstep::Lockstep::prepare_with).
    /// Clusters with a proxy are reached through it.
    ///
    /// # Errors
    /// When there is no token.
    pub async fn kubeconfig(&self, bed: &Testbed, proxies: &BTreeMap<&str, &Proxy>) -> Result<String> {
        let mut merged =
            json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []});
        let account = format!("{AGENT}{}", self.suffix);
        for cluster in bed.clusters() {
            let text = eventually(PATIENCE, "the agent's ServiceAccount gets a token", async || {
                cluster.service_account_kubeconfig(NAMESPACE, &account).await
            })
            .await?;
            let mut one: Value = serde_saphyr::from_str(&text).context("parsing a kubeconfig")?;
            if let Some(proxy) = proxies.get(cluster.name()) {
                one["clusters"][0]["cluster"] = json!({ "server": proxy.url() });
            }
            for part in ["clusters", "users", "contexts"] {
                let entries = one[part].as_array().cloned().unwrap_or_default();
                merged[part].as_array_mut().context("a list")?.extend(entries);
            }
        }
        Ok(serde_json::to_string(&merged)?)
    }

    /// Every request of these agents that a cluster has answered, from its audit log. Watches are left out: API server
    /// 1.20 logs one when its first event comes, or when it ends.
    ///
    /// # Errors
    /// When there is no audit log.
    pub fn requests(&self, cluster: &Cluster) -> Result<Vec<AuditEvent>> {
        let user = self.user();
        let mut events = cluster.audit_events()?;
        events.retain(|event| event.user.username == user && event.verb != "watch");
        Ok(events)
    }

    /// Did it change an object? Not an error, and not a Lease, which is the agent's own sign of life.
    #[must_use]
    pub fn is_write(event: &AuditEvent) -> bool {
        WRITES.contains(&event.verb.as_str())
            && event.response_status.as_ref().is_some_and(|status| status.code < 400)
            && !event.request_uri.contains("/leases")
    }

    /// Those that changed an object of the cluster.
    ///
    /// # Errors
    /// When there is no audit log.
    pub fn writes(&self, cluster: &Cluster) -> Result<Vec<AuditEvent>> {
        let mut events = self.requests(cluster)?;
        events.retain(Self::is_write);
        Ok(events)
    }
}
