//! Checks of the member clusters, by the contexts of a kubeconfig: reachable, new enough, rights, clock.

use std::path::Path;
use std::time::Duration;

use http::{Request, header};
use kube::client::Body;
use lockstep_cluster::{ClusterClient, Limits, Served};
use lockstep_policies::PolicySet;
use serde_json::{Value, json};

use super::Check;
use super::hub::skew;
use crate::daemon::context_error;
use crate::error::CliError;
use crate::output::{now_ms, parse_date};
use crate::up::{Member, members};

/// Oldest minor version of Kubernetes 1.x that works.
const OLDEST_MINOR: u32 = 20;
/// How long a cluster may take for all its checks.
const TIMEOUT: Duration = Duration::from_secs(15);
/// What a source needs, and what a target needs beside it.
const SOURCE_VERBS: [&str; 2] = ["list", "watch"];
const TARGET_VERBS: [&str; 4] = ["get", "create", "patch", "delete"];

/// Checks every context.
pub(super) async fn check(
    kubeconfig: &Path,
    contexts: &[String],
    set: Option<&PolicySet>,
    checks: &mut Vec<Check>,
) {
    let members = match members(kubeconfig, contexts) {
        Ok(members) => members,
        Err(error) => {
            checks.push(Check::error("kubeconfig", &error));
            return;
        }
    };
    let asked = members.iter().map(|member| async move {
        let name = format!("API server of {}", member.cluster);
        match tokio::time::timeout(TIMEOUT, one(kubeconfig, member, set, &name)).await {
            Ok(Ok(checks)) => checks,
            Ok(Err(error)) => vec![Check::error(&name, &error)],
            Err(_) => {
                let message = format!("no answer within {} s", TIMEOUT.as_secs());
                vec![Check::failure(&name, message, "check address, firewall and proxy of the context")]
            }
        }
    });
    for result in futures::future::join_all(asked).await {
        checks.extend(result);
    }
}

async fn one(
    kubeconfig: &Path,
    member: &Member,
    set: Option<&PolicySet>,
    name: &str,
) -> Result<Vec<Check>, CliError> {
    let config = lockstep_cluster::from_kubeconfig(kubeconfig, Some(&member.context))
        .await
        .map_err(|error| context_error(&error))?;
    let client =
        ClusterClient::new(config.clone(), Limits::default()).map_err(|error| context_error(&error))?;
    let raw = kube::Client::try_from(config).map_err(|error| context_error(&error))?;
    let identity = client.identity().await.map_err(|error| {
        let remedy = "check the context with `kubectl --context CONTEXT get namespace kube-system`";
        CliError::new("LS0006", format!("{} cannot be reached", client.server()), remedy).caused_by(&error)
    })?;
    let mut checks = vec![version(name, &identity.version)];
    if let Some(skew_ms) = clock(&raw).await {
        checks.push(skew(&format!("clock of {}", member.cluster), skew_ms));
    }
    let Some(set) = set else { return Ok(checks) };
    let served = client.discover().await.map_err(|error| {
        CliError::new("LS0006", "discovery failed", "check the API server's health").caused_by(&error)
    })?;
    rights(member, set, &served, &raw, &mut checks).await;
    Ok(checks)
}

fn version(name: &str, version: &str) -> Check {
    let digits =
        |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().ok();
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().and_then(digits), parts.next().and_then(digits));
    match (major, minor) {
        (Some(1), Some(minor)) if minor < OLDEST_MINOR => {
            let remedy =
                format!("update it to 1.{OLDEST_MINOR} or newer: server-side apply and bookmarks are needed");
            Check::failure(name, format!("Kubernetes {version} is too old"), remedy)
        }
        (Some(_), Some(_)) => Check::ok(name, format!("reachable, Kubernetes {version}")),
        _ => Check::warning(
            name,
            format!("reachable, version `{version}` is not understood"),
            "none is needed if it syncs",
        ),
    }
}

/// The server's clock minus ours, to the second: out of the Date header.
async fn clock(client: &kube::Client) -> Option<i64> {
    let request = Request::get("/version").body(Body::empty()).ok()?;
    let before = now_ms();
    let response = client.send(request).await.ok()?;
    let middle = before + (now_ms() - before) / 2;
    let date = parse_date(response.headers().get(header::DATE)?.to_str().ok()?)?;
    // The header is cut to seconds: on average half a second is missing.
    Some(date + 500 - middle)
}

/// What the policies need in this cluster, asked of the server itself.
async fn rights(
    member: &Member,
    set: &PolicySet,
    served: &Served,
    client: &kube::Client,
    checks: &mut Vec<Check>,
) {
    let mut needed: std::collections::BTreeMap<_, Vec<&str>> = std::collections::BTreeMap::new();
    for policy in set.policies() {
        let source = policy.spec.source_cluster == member.cluster;
        let target = policy.spec.target_clusters.contains(&member.cluster);
        if !source && !target {
            continue;
        }
        for resource in &policy.spec.resources {
            let verbs = needed.entry(resource.gk.clone()).or_default();
            verbs.extend(SOURCE_VERBS);
            if target {
                verbs.extend(TARGET_VERBS);
            }
        }
    }
    // A kind that is archived only, and may not be listed, is not kept; everything else goes on.
    let synced: std::collections::BTreeSet<_> = needed.keys().cloned().collect();
    let listed = served.kinds.values().filter(|kind| kind.can("list") && kind.can("watch"));
    let listed = listed.map(|kind| (&kind.gk, kind.namespaced));
    for archived in
        set.interest(member.cluster.as_str(), listed).into_iter().filter(|i| !i.archive.is_empty())
    {
        needed.entry(archived.gk).or_default().extend(SOURCE_VERBS);
    }
    let name = format!("rights in {}", member.cluster);
    let mut missing = 0;
    for (gk, mut verbs) in needed.clone() {
        verbs.sort_unstable();
        verbs.dedup();
        let Some(kind) = served.get(&gk) else {
            let remedy = "install its definition there; what needs it waits until then";
            checks.push(Check::warning(&name, format!("{gk} is not served"), remedy));
            continue;
        };
        let mut denied = Vec::new();
        for verb in verbs {
            if allowed(client, &gk.group, &kind.plural, verb).await == Some(false) {
                denied.push(verb);
            }
        }
        if !denied.is_empty() {
            missing += 1;
            let message = format!("may not {} {}", denied.join(", "), kind.plural);
            let remedy = "add it to the agent's ClusterRole (deploy/agent shows one)";
            checks.push(if synced.contains(&gk) {
                Check::failure(&name, message, remedy)
            } else {
                Check::warning(&name, format!("{message}: they are not archived"), remedy)
            });
        }
    }
    if missing == 0 && !needed.is_empty() {
        checks.push(Check::ok(&name, format!("enough for the {} kinds of the policies", needed.len())));
    }
}

/// SelfSubjectAccessReview; None when the server does not say.
async fn allowed(client: &kube::Client, group: &str, resource: &str, verb: &str) -> Option<bool> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": { "group": group, "resource": resource, "verb": verb } },
    });
    let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        .header(header::CONTENT_TYPE, "application/json")
        .body(review.to_string().into_bytes())
        .ok()?;
    let answer: Value = client.request(request).await.ok()?;
    answer.pointer("/status/allowed")?.as_bool()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn old_versions_are_failures() {
        for (text, verdict) in [
            ("v1.20.2", Verdict::Ok),
            ("v1.36.0-alpha.1+x", Verdict::Ok),
            ("v1.19.9", Verdict::Failure),
            ("v1.28+", Verdict::Ok),
            ("unknown", Verdict::Warning),
        ] {
            assert_eq!(version("x", text).verdict, verdict, "{text}");
        }
    }
}
