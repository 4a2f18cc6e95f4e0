//! The manifests in `deploy/`: rendered by the oldest kubectl that we support, accepted by a real API server, as
//! strict as they claim, and with rights that suffice for an agent and go no further.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use lockstep_tests::deploy::{AGENT, NAMESPACE, install_rbac, kubectl, namespace, render};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

/// Every kustomization there is, in the order of installation.
const KUSTOMIZATIONS: [&str; 7] = [
    "hub",
    "policies",
    "agent",
    "agent/components/custom-resources",
    "agent/components/definitions",
    "agent/components/deleters",
    "agent/components/rbac",
];

#[tokio::test]
async fn deploy_is_accepted_by_an_api_server() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    let [a, _, _] = testbed.three()?;
    namespace(a).await?;
    for kustomization in KUSTOMIZATIONS {
        let expected = render(&testbed, kustomization)?.len();
        let arguments = ["--context", a.name(), "apply", "--dry-run=server", "--output=name", "-k"];
        let accepted = kubectl(&testbed, &arguments, kustomization)?;
        assert_eq!(accepted.lines().count(), expected, "{kustomization}: {accepted}");
    }
    Ok(())
}

#[tokio::test]
async fn deploy_runs_pods_without_privileges() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    let mut seen = 0;
    for object in render(&testbed, "hub")?.into_iter().chain(render(&testbed, "agent")?) {
        let pod = &object["spec"]["template"]["spec"];
        if pod.is_null() {
            continue;
        }
        seen += 1;
        let name = &object["metadata"]["name"];
        assert_eq!(pod["enableServiceLinks"], false, "{name}");
        assert!(pod["terminationGracePeriodSeconds"].is_u64(), "{name}");
        assert!(pod["automountServiceAccountToken"].is_boolean(), "{name} leaves it to the default");
        let security = &pod["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{name}");
        assert!(security["runAsUser"].as_u64().is_some_and(|user| user > 0), "{name}");
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for member in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod[member].is_null(), "{name} sets {member}");
        }
        for container in pod["containers"].as_array().context("no containers")? {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{name}");
            assert!(security["privileged"].is_null(), "{name}");
            for (path, probe) in [("/healthz", "livenessProbe"), ("/readyz", "readinessProbe")] {
                assert_eq!(container[probe]["httpGet"]["path"], path, "{name} {probe}");
                assert_eq!(container[probe]["httpGet"]["port"], "metrics", "{name} {probe}");
            }
            let resources = &container["resources"];
            assert!(resources["requests"]["memory"].is_string(), "{name}");
            assert!(resources["limits"]["memory"].is_string(), "{name}");
        }
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            assert!(volume["hostPath"].is_null(), "{name} mounts {volume}");
        }
    }
    assert_eq!(seen, 2, "a hub and an agent");
    Ok(())
}

#[tokio::test]
async fn deploy_keeps_the_hub_key_out_of_the_data_directory_and_mounts_what_the_configuration_names()
-> Result<()> {
    let testbed = Testbed::from_env().await?;
    let objects = render(&testbed, "hub")?;
    let kind = |kind: &str| {
        objects.iter().find(|object| object["kind"] == kind).with_context(|| format!("no {kind}"))
    };
    let text = kind("ConfigMap")?["data"]["hub.yaml"].as_str().context("no hub.yaml")?;
    let config: Value = serde_saphyr::from_str(text)?;
    let container = &kind("StatefulSet")?["spec"]["template"]["spec"]["containers"][0];
    let mounts: BTreeSet<&str> = container["volumeMounts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|m| m["mountPath"].as_str())
        .collect();
    let mount_of = |path: &Value| {
        let path = path.as_str().unwrap_or_default().to_owned();
        mounts.iter().copied().find(|mount| path == **mount || path.starts_with(&format!("{mount}/")))
    };
    let data = mount_of(&config["data_dir"]).context("data_dir is not mounted")?;
    for setting in [
        &config["key_file"],
        &config["policies_dir"],
        &config["tls"]["cert_file"],
        &config["tls"]["key_file"],
    ] {
        let mount = mount_of(setting).with_context(|| format!("{setting} is not mounted"))?;
        assert_ne!(mount, data, "{setting} lies with the data");
    }
    assert_eq!(config["listen"]["api"], "127.0.0.1:7441", "the API stays on the loopback of the Pod");
    Ok(())
}

async fn may(
    client: &kube::Client,
    verb: &str,
    group: &str,
    resource: &str,
    namespace: &str,
) -> Result<bool> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace,
        } },
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
    let answer: Value = client.request(request.body(serde_json::to_vec(&review)?)?).await?;
    Ok(answer["status"]["allowed"] == true)
}

#[tokio::test]
async fn deploy_grants_an_agent_what_it_needs_and_no_more() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    // A source: tests of targets may add the component for RBAC there.
    let [a, _, _] = testbed.three()?;
    install_rbac(&testbed, a, "agent").await?;
    let text = eventually(PATIENCE, "the ServiceAccount gets a token", async || {
        a.service_account_kubeconfig(NAMESPACE, AGENT).await
    })
    .await?;
    let kubeconfig = Kubeconfig::from_yaml(&text)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = kube::Client::try_from(config)?;
    // The aggregated role is filled by a controller, and the authorizer learns of it by a watch.
    eventually(PATIENCE, "the roles are in force", async || {
        ensure!(may(&client, "patch", "apps", "deployments", "shop").await?, "no patch of Deployments");
        ensure!(may(&client, "list", "cache.example.com", "redisclusters", "").await?, "no list");
        Ok(())
    })
    .await?;

    let mut wrong = vec![];
    let mut check = async |expected: bool, verb: &str, group: &str, resource: &str, namespace: &str| {
        let allowed = may(&client, verb, group, resource, namespace).await?;
        if allowed != expected {
            wrong.push(format!("{verb} {resource}.{group} in {namespace:?}: allowed is {allowed}"));
        }
        anyhow::Ok(())
    };
    for (group, resource) in [
        ("", "configmaps"),
        ("", "secrets"),
        ("", "services"),
        ("", "serviceaccounts"),
        ("", "persistentvolumeclaims"),
        ("apps", "deployments"),
        ("apps", "statefulsets"),
        ("apps", "daemonsets"),
        ("batch", "jobs"),
        ("batch", "cronjobs"),
        ("autoscaling", "horizontalpodautoscalers"),
        ("policy", "poddisruptionbudgets"),
        ("networking.k8s.io", "ingresses"),
        ("networking.k8s.io", "networkpolicies"),
    ] {
        for verb in ["get", "list", "watch", "create", "update", "patch", "delete"] {
            check(true, verb, group, resource, "shop").await?;
        }
    }
    for (group, resource) in [
        ("", "namespaces"),
        ("", "persistentvolumes"),
        ("storage.k8s.io", "storageclasses"),
        ("scheduling.k8s.io", "priorityclasses"),
    ] {
        for verb in ["get", "list", "watch", "create", "update", "patch", "delete"] {
            check(true, verb, group, resource, "").await?;
        }
    }
    for (group, resource) in [
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("apiextensions.k8s.io", "customresourcedefinitions"),
        ("any.example.com", "things"),
    ] {
        check(true, "list", group, resource, "").await?;
        check(true, "watch", group, resource, "").await?;
    }
    for verb in ["get", "create", "patch"] {
        check(true, verb, "coordination.k8s.io", "leases", NAMESPACE).await?;
        check(false, verb, "coordination.k8s.io", "leases", "kube-system").await?;
    }
    for (group, resource) in [("apps", "deployments"), ("", "services"), ("batch", "jobs")] {
        check(true, "update", group, &format!("{resource}/status"), "shop").await?;
    }
    check(false, "update", "", "nodes/status", "").await?;
    check(false, "update", "", "namespaces/status", "").await?;
    for verb in ["escalate", "bind", "create", "update", "patch", "delete"] {
        check(false, verb, "rbac.authorization.k8s.io", "clusterroles", "").await?;
        check(false, verb, "rbac.authorization.k8s.io", "roles", "shop").await?;
    }
    check(false, "patch", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", "").await?;
    check(false, "patch", "apiregistration.k8s.io", "apiservices", "").await?;
    check(false, "impersonate", "", "users", "").await?;
    // Ways to run commands or to become somebody else, which a wildcard grants without saying so.
    for (verb, resource) in [
        ("get", "pods/exec"),
        ("create", "pods/exec"),
        ("get", "pods/attach"),
        ("get", "pods/portforward"),
        ("get", "pods/log"),
        ("create", "serviceaccounts/token"),
        ("get", "services/proxy"),
    ] {
        check(false, verb, "", resource, "shop").await?;
    }
    check(false, "get", "", "nodes/proxy", "").await?;
    check(false, "deletecollection", "", "configmaps", "shop").await?;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
