//! One test per row of the catalogue: what goes in, what comes out, and that twice is once.

use serde_json::json;

use super::*;

#[track_caller]
fn check(group: &str, kind: &str, mut input: Value, expected: &Value) {
    let gk = GroupKind::new(group, kind);
    strip(&gk, &mut input);
    assert_eq!(&input, expected);
    strip(&gk, &mut input);
    assert_eq!(&input, expected, "stripping twice");
}

#[test]
fn what_is_always_stripped() {
    check(
        "example.com",
        "Anything",
        json!({
            "apiVersion": "example.com/v1", "kind": "Anything",
            "metadata": {
                "name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1", "generation": 3,
                "creationTimestamp": "t", "deletionTimestamp": "t", "deletionGracePeriodSeconds": 30,
                "selfLink": "/x", "managedFields": [], "ownerReferences": [{"kind": "X"}], "finalizers": ["f"],
                "labels": {"keep": "me", "lockstep.dev/managed": "true"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "lockstep.dev/source": "{}"}
            },
            "spec": {"list": [null, {}], "template": {"metadata": {}}},
            "status": {"phase": "Ready"}
        }),
        &json!({
            "apiVersion": "example.com/v1", "kind": "Anything",
            "metadata": {"name": "a", "namespace": "b", "labels": {"keep": "me"}},
            "spec": {"list": [null, {}], "template": {"metadata": {}}}
        }),
    );
}

#[test]
fn a_null_of_a_built_in_kind_is_not_set() {
    for (group, kind) in [("", "Pod"), ("apps", "Deployment"), ("networking.k8s.io", "Ingress")] {
        check(
            group,
            kind,
            json!({"metadata": {"name": "a", "labels": null},
                "spec": {"none": null, "list": [null, {"none": null}], "template": {"metadata": {"creationTimestamp": null}}}}),
            &json!({"metadata": {"name": "a"}, "spec": {"list": [null, {}], "template": {"metadata": {}}}}),
        );
    }
}

#[test]
fn a_null_of_a_custom_kind_is_a_value() {
    for group in ["example.com", "gateway.networking.k8s.io"] {
        check(
            group,
            "Anything",
            json!({"metadata": {"name": "a", "labels": null, "creationTimestamp": null},
                "spec": {"limit": null, "free": {"a": null, "list": [null, {"b": null}]}}, "top": null}),
            &json!({"metadata": {"name": "a"},
                "spec": {"limit": null, "free": {"a": null, "list": [null, {"b": null}]}}, "top": null}),
        );
    }
}

#[test]
fn nulls_below_free_form_members_of_built_in_kinds_stay() {
    check(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        json!({"spec": {"conversion": null, "schema": {"default": {"a": null}, "enum": [null, {"b": null}], "items": null}}}),
        &json!({"spec": {"schema": {"default": {"a": null}, "enum": [null, {"b": null}]}}}),
    );
    let revision =
        json!({"data": {"spec": {"template": {"metadata": {"creationTimestamp": null}}}}, "revision": 1});
    check("apps", "ControllerRevision", revision.clone(), &revision);
}

#[test]
fn service_leaves_addresses_and_ports_to_the_target() {
    check(
        "",
        "Service",
        json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "healthCheckNodePort": 31000,
            "ports": [{"port": 80, "nodePort": 30080}], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster", "sessionAffinity": "ClientIP"}}),
        &json!({"spec": {"ports": [{"port": 80}], "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "ClientIP"}}),
    );
}

#[test]
fn headless_service_stays_headless() {
    let headless = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}});
    check("", "Service", headless.clone(), &headless);
}

#[test]
fn ip_families_stay_where_somebody_set_them() {
    check(
        "",
        "Service",
        json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}}),
        &json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}}),
    );
    let service = |fields: Value| json!({"metadata": {"managedFields": [{"fieldsV1": {"f:spec": fields}}]}, "spec": {"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}});
    let stripped = |fields| {
        let mut body = service(fields);
        strip(&GroupKind::new("", "Service"), &mut body);
        body
    };
    assert_eq!(
        stripped(json!({"f:ipFamilies": {}})),
        json!({"metadata": {}, "spec": {"ipFamilies": ["IPv6"]}})
    );
    assert_eq!(stripped(json!({"f:ports": {}})), json!({"metadata": {}, "spec": {}}));
}

fn job_spec(manual: Option<bool>) -> Value {
    let labels = json!({"controller-uid": "u", "job-name": "j", "batch.kubernetes.io/controller-uid": "u",
        "batch.kubernetes.io/job-name": "j", "app": "a"});
    let mut spec = json!({"selector": {"matchLabels": {"controller-uid": "u"}}, "template": {"metadata": {"labels": labels}}});
    if let Some(manual) = manual {
        spec["manualSelector"] = json!(manual);
    }
    spec
}

#[test]
fn job_loses_generated_selector_and_labels() {
    check(
        "batch",
        "Job",
        json!({"metadata": {"labels": {"controller-uid": "u", "job-name": "j"}}, "spec": job_spec(None)}),
        &json!({"metadata": {}, "spec": {"template": {"metadata": {"labels": {"app": "a"}}}}}),
    );
    let manual = json!({"spec": job_spec(Some(true))});
    check("batch", "Job", manual.clone(), &manual);
    check(
        "batch",
        "Job",
        json!({"spec": job_spec(Some(false))}),
        &json!({"spec": {"manualSelector": false, "template": {"metadata": {"labels": {"app": "a"}}}}}),
    );
}

#[test]
fn cron_job_loses_them_in_its_template() {
    check(
        "batch",
        "CronJob",
        json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job_spec(None)}}}),
        &json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"metadata": {"labels": {"app": "a"}}}}}}}),
    );
}

#[test]
fn claim_is_bound_anew() {
    check(
        "",
        "PersistentVolumeClaim",
        json!({"metadata": {"annotations": {
            "pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes",
            "volume.kubernetes.io/selected-node": "n", "volume.beta.kubernetes.io/storage-provisioner": "p",
            "volume.kubernetes.io/storage-provisioner": "p", "mine": "x"}},
            "spec": {"volumeName": "pv-1", "storageClassName": "fast"}}),
        &json!({"metadata": {"annotations": {"mine": "x"}}, "spec": {"storageClassName": "fast"}}),
    );
}

#[test]
fn volume_keeps_the_claim_but_not_its_identity() {
    check(
        "",
        "PersistentVolume",
        json!({"spec": {"claimRef": {"name": "c", "namespace": "n", "uid": "u", "resourceVersion": "1"}}}),
        &json!({"spec": {"claimRef": {"name": "c", "namespace": "n"}}}),
    );
}

#[test]
fn service_account_loses_generated_tokens_only() {
    check(
        "",
        "ServiceAccount",
        json!({"metadata": {"name": "web"}, "secrets": [{"name": "web-token-x7k2p"}, {"name": "mine"}], "imagePullSecrets": [{"name": "pull"}]}),
        &json!({"metadata": {"name": "web"}, "secrets": [{"name": "mine"}], "imagePullSecrets": [{"name": "pull"}]}),
    );
    check(
        "",
        "ServiceAccount",
        json!({"metadata": {"name": "web"}, "secrets": [{"name": "web-token-x7k2p"}]}),
        &json!({"metadata": {"name": "web"}}),
    );
    check(
        "",
        "ServiceAccount",
        json!({"metadata": {"name": "web"}, "secrets": [{"name": "web-dockercfg-x7k2p"}, {"name": "web-token-of-github"}],
            "imagePullSecrets": [{"name": "web-dockercfg-x7k2p"}]}),
        &json!({"metadata": {"name": "web"}, "secrets": [{"name": "web-token-of-github"}]}),
    );
}

#[test]
fn pod_loses_its_node_priority_and_injected_tokens() {
    let mount = |name: &str| json!({"name": name, "mountPath": TOKEN_MOUNT, "readOnly": true});
    check(
        "",
        "Pod",
        json!({"spec": {"nodeName": "n", "priority": 0, "priorityClassName": "high",
            "volumes": [{"name": "kube-api-access-abcde", "projected": {"sources": []}},
                {"name": "default-token-x7k2p", "secret": {"secretName": "default-token-x7k2p"}},
                {"name": "mine", "secret": {"secretName": "my-token-1"}}],
            "initContainers": [{"name": "i", "volumeMounts": [mount("default-token-x7k2p")]}],
            "containers": [{"name": "c", "volumeMounts": [mount("kube-api-access-abcde"), {"name": "mine", "mountPath": "/x"}]}]}}),
        &json!({"spec": {"priorityClassName": "high", "volumes": [{"name": "mine", "secret": {"secretName": "my-token-1"}}],
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "mine", "mountPath": "/x"}]}]}}),
    );
}

#[test]
fn deployment_loses_its_revision() {
    check(
        "apps",
        "Deployment",
        json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "4"}}, "spec": {"replicas": 2}}),
        &json!({"metadata": {}, "spec": {"replicas": 2}}),
    );
}

#[test]
fn autoscaler_loses_the_status_in_its_annotations() {
    let of = |field: &str| format!("autoscaling.alpha.kubernetes.io/{field}");
    let (status, intent) = (["conditions", "current-metrics"].map(of), ["metrics", "behavior"].map(of));
    let mut annotations = serde_json::Map::new();
    annotations.extend(intent.iter().map(|name| (name.clone(), json!("[]"))));
    let kept = json!({"metadata": {"annotations": annotations.clone()}, "spec": {}});
    annotations.extend(status.iter().map(|name| (name.clone(), json!("[]"))));
    let body = json!({"metadata": {"annotations": annotations}, "spec": {}});
    check("autoscaling", "HorizontalPodAutoscaler", body, &kept);
}

#[test]
fn daemon_set_loses_the_count_of_its_changes() {
    check(
        "apps",
        "DaemonSet",
        json!({"metadata": {"annotations": {"deprecated.daemonset.template.generation": "4"}}, "spec": {}}),
        &json!({"metadata": {}, "spec": {}}),
    );
}

#[test]
fn aggregated_cluster_role_loses_its_rules() {
    check(
        "rbac.authorization.k8s.io",
        "ClusterRole",
        json!({"aggregationRule": {"clusterRoleSelectors": []}, "rules": [{"verbs": ["get"]}]}),
        &json!({"aggregationRule": {"clusterRoleSelectors": []}}),
    );
    let plain = json!({"rules": [{"verbs": ["get"]}]});
    check("rbac.authorization.k8s.io", "ClusterRole", plain.clone(), &plain);
}

#[test]
fn namespace_loses_its_finalizer() {
    check(
        "",
        "Namespace",
        json!({"metadata": {"name": "shop"}, "spec": {"finalizers": ["kubernetes"]}}),
        &json!({"metadata": {"name": "shop"}}),
    );
}

#[test]
fn odd_shapes_are_left_alone() {
    for body in [json!(1), json!([]), json!({"metadata": 1, "spec": [], "secrets": {}})] {
        for kind in ["Service", "Pod", "ServiceAccount", "PersistentVolumeClaim", "Secret"] {
            check("", kind, body.clone(), &body);
        }
        check("batch", "Job", body.clone(), &body);
    }
}
