//! One test per row of the catalogue.

use serde_json::json;

use super::*;

const NOTHING: Asked = Asked { name: false, namespace: false, owned: false };
const NAMED: Asked = Asked { name: true, namespace: false, owned: false };

fn verdict(group: &str, kind: &str, body: &Value, asked: Asked) -> Option<SkipReason> {
    bound_verdict(group, kind, body, asked, false)
}

fn bound_verdict(group: &str, kind: &str, body: &Value, asked: Asked, bound: bool) -> Option<SkipReason> {
    let bytes = serde_json::to_vec(body).unwrap();
    let object = RawObject::parse(&bytes).unwrap();
    let gk = GroupKind::new(group, kind);
    let facts = Facts::of(&gk, &object, &bytes).unwrap().bound(bound);
    let key = ObjectKey::new(gk, &object.metadata.namespace, &object.metadata.name);
    match eligibility(&key, &facts, asked) {
        Eligibility::Sync => None,
        Eligibility::Skip(reason) => Some(reason),
    }
}

fn named(namespace: &str, name: &str) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}})
}

#[test]
fn kinds_of_one_clusters_life_are_never_synced() {
    for (group, kind) in [
        ("", "Event"),
        ("events.k8s.io", "Event"),
        ("coordination.k8s.io", "Lease"),
        ("", "Node"),
        ("storage.k8s.io", "CSINode"),
        ("storage.k8s.io", "VolumeAttachment"),
        ("discovery.k8s.io", "EndpointSlice"),
        ("", "ComponentStatus"),
        ("authentication.k8s.io", "TokenReview"),
        ("authorization.k8s.io", "SubjectAccessReview"),
        ("authorization.k8s.io", "SelfSubjectRulesReview"),
    ] {
        let asked = Asked { name: true, namespace: true, owned: true };
        assert_eq!(
            verdict(group, kind, &named("a", "b"), asked),
            Some(SkipReason::NeverSynced),
            "{group} {kind}"
        );
    }
    assert_eq!(verdict("example.com", "Node", &named("", "b"), NOTHING), None);
}

#[test]
fn kube_root_ca_stays_home() {
    assert_eq!(
        verdict("", "ConfigMap", &named("shop", "kube-root-ca.crt"), NAMED),
        Some(SkipReason::KubeRootCa)
    );
    assert_eq!(verdict("", "ConfigMap", &named("shop", "settings"), NOTHING), None);
}

#[test]
fn service_default_kubernetes_and_its_endpoints_stay_home() {
    for kind in ["Service", "Endpoints"] {
        assert_eq!(
            verdict("", kind, &named("default", "kubernetes"), NAMED),
            Some(SkipReason::KubernetesService)
        );
        assert_eq!(verdict("", kind, &named("shop", "kubernetes"), NOTHING), None);
    }
}

#[test]
fn secrets_of_one_cluster_stay_home() {
    let secret =
        |kind: &str, name: &str| json!({"metadata": {"namespace": "shop", "name": name}, "type": kind});
    let token = secret("kubernetes.io/service-account-token", "t");
    assert_eq!(verdict("", "Secret", &token, NAMED), Some(SkipReason::ServiceAccountToken));
    let helm = secret("helm.sh/release.v1", "x");
    assert_eq!(verdict("", "Secret", &helm, NOTHING), Some(SkipReason::HelmRelease));
    assert_eq!(verdict("", "Secret", &helm, NAMED), None);
    let old_helm = secret("Opaque", "sh.helm.release.v1.web.v3");
    assert_eq!(verdict("", "Secret", &old_helm, NOTHING), Some(SkipReason::HelmRelease));
    assert_eq!(verdict("", "Secret", &old_helm, NAMED), None);
    let map = |owner: &str| json!({"metadata": {"namespace": "shop", "name": "sh.helm.release.v1.web.v3", "labels": {"owner": owner}}});
    assert_eq!(verdict("", "ConfigMap", &map("helm"), NOTHING), Some(SkipReason::HelmRelease));
    assert_eq!(verdict("", "ConfigMap", &map("helm"), NAMED), None);
    assert_eq!(verdict("", "ConfigMap", &map("me"), NOTHING), None);
    let bootstrap = secret("bootstrap.kubernetes.io/token", "bootstrap-token-abc");
    assert_eq!(verdict("", "Secret", &bootstrap, NOTHING), Some(SkipReason::BootstrapToken));
    assert_eq!(verdict("", "Secret", &bootstrap, NAMED), None);
    assert_eq!(verdict("", "Secret", &secret("Opaque", "db"), NOTHING), None);
}

#[test]
fn system_namespaces_must_be_named() {
    for namespace in ["kube-system", "kube-public", "kube-node-lease"] {
        let body = named(namespace, "x");
        assert_eq!(verdict("", "ConfigMap", &body, NAMED), Some(SkipReason::SystemNamespace));
        assert_eq!(verdict("", "ConfigMap", &body, Asked { namespace: true, ..NOTHING }), None);
        let itself = json!({"metadata": {"name": namespace}});
        assert_eq!(verdict("", "Namespace", &itself, NOTHING), Some(SkipReason::SystemNamespace));
        assert_eq!(verdict("", "Namespace", &itself, NAMED), None);
    }
}

#[test]
fn owned_objects_follow_their_owner_unless_asked_for() {
    let owned = |controller: Value| json!({"metadata": {"namespace": "shop", "name": "web-1", "ownerReferences": [{"kind": "Deployment", "name": "web", "controller": controller}]}});
    assert_eq!(verdict("apps", "ReplicaSet", &owned(json!(true)), NOTHING), Some(SkipReason::Owned));
    assert_eq!(verdict("apps", "ReplicaSet", &owned(json!(true)), Asked { owned: true, ..NOTHING }), None);
    assert_eq!(verdict("apps", "ReplicaSet", &owned(json!(false)), NOTHING), None);
    assert_eq!(verdict("apps", "ReplicaSet", &owned(Value::Null), NOTHING), None);
}

#[test]
fn a_job_that_finished_before_its_copy_was_made_is_not_run_again() {
    let job = |kind: &str, status: &str| json!({"metadata": {"namespace": "shop", "name": "j"}, "status": {"conditions": [{"type": kind, "status": status}]}});
    for kind in ["Complete", "Failed"] {
        assert_eq!(verdict("batch", "Job", &job(kind, "True"), NAMED), Some(SkipReason::FinishedJob));
        assert_eq!(bound_verdict("batch", "Job", &job(kind, "True"), NOTHING, true), None);
        assert_eq!(verdict("batch", "Job", &job(kind, "False"), NOTHING), None);
    }
    assert_eq!(verdict("batch", "Job", &job("Suspended", "True"), NOTHING), None);
}

#[test]
fn endpoints_with_a_trace_of_their_controller_stay_home() {
    let with = |meta: Value| {
        let mut body = named("shop", "web");
        body["metadata"].as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
        verdict("", "Endpoints", &body, NOTHING)
    };
    let managed = Some(SkipReason::ManagedEndpoints);
    assert_eq!(
        with(json!({"labels": {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}})),
        managed
    );
    assert_eq!(with(json!({"labels": {"service.kubernetes.io/headless": ""}})), managed);
    assert_eq!(
        with(
            json!({"annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2024-01-01T00:00:00Z"}})
        ),
        managed
    );
    assert_eq!(with(json!({})), None);
}

#[test]
fn bootstrap_rbac_stays_home_and_only_its_label_tells() {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let labelled = |name: &str, value: &str| json!({"metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": value}}});
    for name in ["cluster-admin", "system:node"] {
        let bootstrap = labelled(name, "rbac-defaults");
        assert_eq!(verdict(RBAC, "ClusterRole", &bootstrap, NAMED), Some(SkipReason::BootstrapRbac));
    }
    for asked in [NOTHING, NAMED] {
        assert_eq!(verdict(RBAC, "ClusterRole", &labelled("system:x", "other"), asked), None);
        assert_eq!(verdict(RBAC, "ClusterRole", &named("", "system:aggregated-metrics-reader"), asked), None);
        assert_eq!(verdict(RBAC, "ClusterRoleBinding", &named("", "system:metrics-server"), asked), None);
        assert_eq!(verdict(RBAC, "Role", &named("shop", "system:x"), asked), None);
    }
    assert_eq!(verdict(RBAC, "ClusterRoleBinding", &named("", "web"), NOTHING), None);
}

#[test]
fn auto_managed_api_services_stay_home() {
    const GROUP: &str = "apiregistration.k8s.io";
    for (value, expected) in [
        ("onstart", Some(SkipReason::AutoManagedApiService)),
        ("true", Some(SkipReason::AutoManagedApiService)),
        ("false", None),
    ] {
        let body = json!({"metadata": {"name": "v1.apps", "labels": {"kube-aggregator.kubernetes.io/automanaged": value}}});
        assert_eq!(verdict(GROUP, "APIService", &body, NAMED), expected, "{value}");
    }
    assert_eq!(verdict(GROUP, "APIService", &named("", "v1.mine"), NOTHING), None);
}

#[test]
fn flow_control_that_the_api_server_maintains_stays_home() {
    const GROUP: &str = "flowcontrol.apiserver.k8s.io";
    let maintained = Some(SkipReason::AutoManagedFlowControl);
    let body = |name: &str, value: &str| json!({"metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": value}}});
    for kind in ["FlowSchema", "PriorityLevelConfiguration"] {
        assert_eq!(verdict(GROUP, kind, &body("service-accounts", "true"), NAMED), maintained);
        assert_eq!(verdict(GROUP, kind, &body("service-accounts", "false"), NOTHING), None);
        assert_eq!(verdict(GROUP, kind, &named("", "exempt"), NAMED), maintained);
        assert_eq!(verdict(GROUP, kind, &named("", "mine"), NOTHING), None);
    }
}

#[test]
fn system_priority_classes_stay_home() {
    let body = named("", "system-node-critical");
    assert_eq!(
        verdict("scheduling.k8s.io", "PriorityClass", &body, NAMED),
        Some(SkipReason::SystemPriorityClass)
    );
    assert_eq!(verdict("scheduling.k8s.io", "PriorityClass", &named("", "high"), NOTHING), None);
}

#[test]
fn a_code_is_the_name_of_its_variant() {
    for reason in [SkipReason::NeverSynced, SkipReason::Owned, SkipReason::AutoManagedApiService] {
        assert_eq!(serde_json::to_value(reason).unwrap(), json!(reason.code()));
        assert_eq!(format!("{reason:?}"), reason.code());
        assert!(!reason.sentence().is_empty());
    }
}
