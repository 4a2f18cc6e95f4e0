//! What a body names, so that what is missing is told before and not found out after.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::identity::{GroupKind, ObjectKey};

const RBAC: &str = "rbac.authorization.k8s.io";

/// The objects that this one needs, by their keys in its own cluster, its namespace first. What it says
/// is optional, and what every cluster or namespace has by itself, is not among them.
#[must_use]
pub fn references(gk: &GroupKind, namespace: &str, body: &Value) -> BTreeSet<ObjectKey> {
    let mut found = Found { namespace, keys: BTreeSet::new() };
    if !namespace.is_empty() {
        found.cluster("", "Namespace", Some(namespace));
    }
    if let Some(spec) = pod_spec(gk, body) {
        found.pod(spec);
    }
    found.kind(gk, body);
    found.keys
}

/// Where a kind has the spec of its Pods.
fn pod_spec<'a>(gk: &GroupKind, body: &'a Value) -> Option<&'a Value> {
    let path = match (gk.group.as_ref(), gk.kind.as_ref()) {
        ("", "Pod") => "/spec",
        ("", "PodTemplate") => "/template/spec",
        ("", "ReplicationController")
        | ("apps", "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet")
        | ("batch", "Job") => "/spec/template/spec",
        ("batch", "CronJob") => "/spec/jobTemplate/spec/template/spec",
        _ => return None,
    };
    body.pointer(path)
}

struct Found<'a> {
    namespace: &'a str,
    keys: BTreeSet<ObjectKey>,
}

impl Found<'_> {
    fn local(&mut self, group: &str, kind: &str, name: Option<&str>) {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            self.keys.insert(ObjectKey::new(GroupKind::new(group, kind), self.namespace, name));
        }
    }

    fn cluster(&mut self, group: &str, kind: &str, name: Option<&str>) {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            self.keys.insert(ObjectKey::new(GroupKind::new(group, kind), "", name));
        }
    }

    /// A member `field` that names an object, unless it says that it may be missing.
    fn named(&mut self, kind: &str, holder: Option<&Value>, field: &str) {
        let Some(holder) = holder else { return };
        if holder.get("optional") == Some(&Value::Bool(true)) {
            return;
        }
        let name = text(holder, field).filter(|name| (kind, *name) != ("ConfigMap", "kube-root-ca.crt"));
        self.local("", kind, name);
    }

    fn service_account(&mut self, name: Option<&str>) {
        // Every namespace has one of that name.
        self.local("", "ServiceAccount", name.filter(|name| *name != "default"));
    }

    fn pod(&mut self, spec: &Value) {
        for volume in items(spec, "/volumes") {
            self.named("ConfigMap", volume.get("configMap"), "name");
            // Token Secrets of older clusters are injected, and their names are made up.
            let token = |secret: &&Value| text(secret, "secretName") == text(volume, "name");
            self.named("Secret", volume.get("secret").filter(|secret| !token(secret)), "secretName");
            self.named("PersistentVolumeClaim", volume.get("persistentVolumeClaim"), "claimName");
            for source in items(volume, "/projected/sources") {
                self.named("ConfigMap", source.get("configMap"), "name");
                self.named("Secret", source.get("secret"), "name");
            }
        }
        for list in ["/containers", "/initContainers"] {
            for container in items(spec, list) {
                for from in items(container, "/envFrom") {
                    self.named("ConfigMap", from.get("configMapRef"), "name");
                    self.named("Secret", from.get("secretRef"), "name");
                }
                for variable in items(container, "/env") {
                    self.named("ConfigMap", variable.pointer("/valueFrom/configMapKeyRef"), "name");
                    self.named("Secret", variable.pointer("/valueFrom/secretKeyRef"), "name");
                }
            }
        }
        for secret in items(spec, "/imagePullSecrets") {
            self.named("Secret", Some(secret), "name");
        }
        self.service_account(text(spec, "serviceAccountName"));
        let class = text(spec, "priorityClassName").filter(|name| !name.starts_with("system-"));
        self.cluster("scheduling.k8s.io", "PriorityClass", class);
    }

    fn kind(&mut self, gk: &GroupKind, body: &Value) {
        let at = |path: &str| body.pointer(path).and_then(Value::as_str);
        match (gk.group.as_ref(), gk.kind.as_ref()) {
            ("apps", "StatefulSet") => {
                self.local("", "Service", at("/spec/serviceName"));
                for claim in items(body, "/spec/volumeClaimTemplates") {
                    let class = claim.pointer("/spec/storageClassName").and_then(Value::as_str);
                    self.cluster("storage.k8s.io", "StorageClass", class);
                }
            }
            ("", "PersistentVolumeClaim") => {
                self.cluster("storage.k8s.io", "StorageClass", at("/spec/storageClassName"));
            }
            ("", "ServiceAccount") => {
                for secret in items(body, "/imagePullSecrets") {
                    self.named("Secret", Some(secret), "name");
                }
            }
            ("networking.k8s.io", "Ingress") => self.ingress(body),
            (RBAC, "RoleBinding" | "ClusterRoleBinding") => self.binding(body),
            ("autoscaling", "HorizontalPodAutoscaler") => {
                let group = at("/spec/scaleTargetRef/apiVersion").and_then(|version| version.split_once('/'));
                let group = group.map_or("", |(group, _)| group);
                if let Some(kind) = at("/spec/scaleTargetRef/kind") {
                    self.local(group, kind, at("/spec/scaleTargetRef/name"));
                }
            }
            _ => {}
        }
    }

    fn ingress(&mut self, body: &Value) {
        let class = body.pointer("/spec/ingressClassName").and_then(Value::as_str);
        self.cluster("networking.k8s.io", "IngressClass", class);
        let mut backends: Vec<&Value> = items(body, "/spec/rules")
            .flat_map(|rule| items(rule, "/http/paths"))
            .filter_map(|path| path.get("backend"))
            .collect();
        backends.extend(["/spec/defaultBackend", "/spec/backend"].iter().filter_map(|at| body.pointer(at)));
        for backend in backends {
            let name = backend.pointer("/service/name").or_else(|| backend.get("serviceName"));
            self.local("", "Service", name.and_then(Value::as_str));
        }
        for tls in items(body, "/spec/tls") {
            self.local("", "Secret", text(tls, "secretName"));
        }
    }

    fn binding(&mut self, body: &Value) {
        let role = body.get("roleRef").unwrap_or(&Value::Null);
        let name = text(role, "name");
        match text(role, "kind") {
            Some("Role") => self.local(RBAC, "Role", name),
            Some("ClusterRole") => self.cluster(RBAC, "ClusterRole", name),
            _ => {}
        }
        for subject in items(body, "/subjects") {
            let here = text(subject, "namespace").is_none_or(|namespace| namespace == self.namespace);
            if text(subject, "kind") == Some("ServiceAccount") && here && !self.namespace.is_empty() {
                self.service_account(text(subject, "name"));
            }
        }
    }
}

fn items<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(group: &str, kind: &str, body: &Value, expected: &[&str]) {
        let namespace = if kind == "ClusterRoleBinding" { "" } else { "shop" };
        let found = references(&GroupKind::new(group, kind), namespace, body);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        let mut expected: Vec<String> = expected.iter().map(|&text| text.to_owned()).collect();
        if !namespace.is_empty() {
            expected.push("Namespace shop".to_owned());
        }
        let sorted = |mut list: Vec<String>| {
            list.sort();
            list
        };
        assert_eq!(sorted(found), sorted(expected), "{kind}");
    }

    #[test]
    fn what_a_body_names_is_found_unless_it_is_optional() {
        let spec = json!({
            "serviceAccountName": "web", "priorityClassName": "high", "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "configMap": {"name": "files"}},
                {"name": "b", "configMap": {"name": "maybe", "optional": true}},
                {"name": "default-token-x", "secret": {"secretName": "default-token-x"}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "d", "projected": {"sources": [
                    {"configMap": {"name": "kube-root-ca.crt"}}, {"secret": {"name": "projected"}}]}},
            ],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "password"}}}],
                "envFrom": [{"configMapRef": {"name": "env"}}]}],
        });
        let deployment = json!({"spec": {"template": {"spec": spec}}});
        check(
            "apps",
            "Deployment",
            &deployment,
            &[
                "ServiceAccount shop/web",
                "PriorityClass.scheduling.k8s.io high",
                "Secret shop/pull",
                "ConfigMap shop/files",
                "PersistentVolumeClaim shop/data",
                "Secret shop/projected",
                "Secret shop/password",
                "ConfigMap shop/env",
            ],
        );
        let cron = json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"serviceAccountName": "default",
            "imagePullSecrets": [{"name": "pull"}]}}}}}});
        check("batch", "CronJob", &cron, &["Secret shop/pull"]);
    }

    #[test]
    fn kinds_that_name_others_have_a_row() {
        check(
            "networking.k8s.io",
            "Ingress",
            &json!({"spec": {"ingressClassName": "nginx", "tls": [{"secretName": "cert"}],
                "rules": [{"http": {"paths": [{"backend": {"service": {"name": "web"}}}]}}]}}),
            &["IngressClass.networking.k8s.io nginx", "Secret shop/cert", "Service shop/web"],
        );
        check(
            RBAC,
            "RoleBinding",
            &json!({"roleRef": {"kind": "Role", "name": "reader"},
                "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "shop"},
                    {"kind": "ServiceAccount", "name": "else", "namespace": "other"}]}),
            &["Role.rbac.authorization.k8s.io shop/reader", "ServiceAccount shop/web"],
        );
        check(
            RBAC,
            "ClusterRoleBinding",
            &json!({"roleRef": {"kind": "ClusterRole", "name": "reader"}}),
            &["ClusterRole.rbac.authorization.k8s.io reader"],
        );
        check(
            "autoscaling",
            "HorizontalPodAutoscaler",
            &json!({"spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}),
            &["Deployment.apps shop/web"],
        );
        check(
            "apps",
            "StatefulSet",
            &json!({"spec": {"serviceName": "db", "volumeClaimTemplates": [{"spec": {"storageClassName": "fast"}}]}}),
            &["Service shop/db", "StorageClass.storage.k8s.io fast"],
        );
    }
}
