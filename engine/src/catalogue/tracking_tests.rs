//! One test per row, and what stays.

use serde_json::json;

use super::*;
use crate::object::RawObject;

fn config_map() -> GroupKind {
    GroupKind::new("", "ConfigMap")
}

fn tracker_of(gk: &GroupKind, body: &Value) -> Option<String> {
    let bytes = serde_json::to_vec(body).unwrap();
    let object = RawObject::parse(&bytes).unwrap();
    tracker(gk, &object.metadata.labels, &object.metadata.annotations).map(|tracker| tracker.to_string())
}

fn stripped(gk: &GroupKind, mut body: Value) -> Value {
    strip_tracking(gk, &mut body);
    let once = body.clone();
    strip_tracking(gk, &mut body);
    assert_eq!(once, body, "doing it twice is doing it once");
    body
}

fn marked(place: Place, key: &str, value: &str) -> Value {
    let field = if place == Label { "labels" } else { "annotations" };
    json!({"metadata": {"name": "a", field: {key: value, "app": "web"}}})
}

#[test]
fn every_row_is_stripped_and_tells_its_tool() {
    for row @ Row(tool, place, key, value, meaning) in TABLE {
        let key = if key.ends_with('/') { format!("{key}something") } else { (*key).to_owned() };
        let value = if value.is_empty() { "shop" } else { value };
        let body = marked(*place, &key, value);
        let expected = row.tracks().then(|| format!("{tool} ({key}={value})"));
        assert_eq!(tracker_of(&config_map(), &body), expected, "{key}");
        let field = if *place == Label { "labels" } else { "annotations" };
        let rest = stripped(&config_map(), body.clone());
        if *meaning == DetailOfTracked {
            assert_eq!(rest, body, "{key} means nothing alone");
        } else {
            assert_eq!(rest, json!({"metadata": {"name": "a", field: {"app": "web"}}}), "{key}");
        }
    }
}

#[test]
fn the_marks_that_people_will_look_for() {
    use Place::{Annotation as A, Label as L};
    for (place, key, value, tool) in [
        (L, "argocd.argoproj.io/instance", "shop", "Argo CD"),
        (A, "argocd.argoproj.io/tracking-id", "shop:apps/Deployment:shop/web", "Argo CD"),
        (L, "kustomize.toolkit.fluxcd.io/name", "apps", "Flux"),
        (L, "helm.toolkit.fluxcd.io/name", "apps", "Flux"),
        (A, "meta.helm.sh/release-name", "web", "Helm"),
        (L, "objectset.rio.cattle.io/hash", "3f0a", "Rancher Fleet"),
        (L, "kapp.k14s.io/app", "1712345678", "kapp"),
        (A, "config.k8s.io/owning-inventory", "a-1", "kustomize"),
        (A, "config.kubernetes.io/owning-inventory", "a-1", "kustomize"),
        (L, "applyset.kubernetes.io/part-of", "applyset-x-v1", "kubectl ApplySet"),
    ] {
        assert_eq!(
            tracker_of(&config_map(), &marked(place, key, value)),
            Some(format!("{tool} ({key}={value})"))
        );
    }
}

#[test]
fn the_tool_above_helm_is_named_not_helm() {
    let body = json!({"metadata": {"name": "a", "labels": {"helm.toolkit.fluxcd.io/name": "web"},
        "annotations": {"meta.helm.sh/release-name": "web"}}});
    assert_eq!(tracker_of(&config_map(), &body).unwrap(), "Flux (helm.toolkit.fluxcd.io/name=web)");
}

#[test]
fn the_label_of_helm_goes_with_its_annotations_only() {
    let label = json!({"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/instance": "web"});
    let rendered = json!({"metadata": {"name": "a", "labels": label}});
    assert_eq!(stripped(&config_map(), rendered.clone()), rendered, "`helm template | kubectl apply`");
    assert_eq!(tracker_of(&config_map(), &rendered), None);
    let installed = json!({"metadata": {"name": "a", "labels": label,
        "annotations": {"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": "shop"}}});
    assert_eq!(
        stripped(&config_map(), installed),
        json!({"metadata": {"name": "a", "labels": {"app.kubernetes.io/instance": "web"}}})
    );
    let other = json!({"metadata": {"name": "a", "labels": {"app.kubernetes.io/managed-by": "me"},
        "annotations": {"meta.helm.sh/release-name": "web"}}});
    let kept = json!({"metadata": {"name": "a", "labels": {"app.kubernetes.io/managed-by": "me"}}});
    assert_eq!(stripped(&config_map(), other), kept);
}

#[test]
fn instructions_names_and_everything_below_the_metadata_stay() {
    let labels = json!({"argocd.argoproj.io/instance": "shop", "kapp.k14s.io/app": "1"});
    let spec = json!({"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}});
    let kept = json!({"app.kubernetes.io/instance": "shop", "app.kubernetes.io/part-of": "shop"});
    let instructions = json!({"argocd.argoproj.io/sync-options": "Prune=false", "argocd.argoproj.io/sync-wave": "1",
        "kustomize.toolkit.fluxcd.io/prune": "disabled", "helm.sh/resource-policy": "keep",
        "kapp.k14s.io/change-group": "x"});
    let body = json!({"metadata": {"name": "a", "labels": kept, "annotations": instructions}, "spec": spec});
    let deployment = GroupKind::new("apps", "Deployment");
    assert_eq!(stripped(&deployment, body.clone()), body);
    assert_eq!(tracker_of(&deployment, &body), None);
}

#[test]
fn labels_that_a_tool_selects_by_stay_on_pods() {
    let pod = GroupKind::new("", "Pod");
    let body = marked(Label, "kapp.k14s.io/app", "1");
    assert_eq!(stripped(&pod, body.clone()), body);
    assert_eq!(tracker_of(&pod, &body), None);
    let tracked = marked(Label, "argocd.argoproj.io/instance", "shop");
    assert_eq!(stripped(&pod, tracked), json!({"metadata": {"name": "a", "labels": {"app": "web"}}}));
}

#[test]
fn objects_of_the_tool_itself_keep_what_they_are_about() {
    let body = marked(Label, "fleet.cattle.io/repo-name", "shop");
    assert_eq!(stripped(&GroupKind::new("fleet.cattle.io", "Bundle"), body.clone()), body);
}

#[test]
fn a_map_that_holds_nothing_else_goes_and_one_that_was_empty_stays() {
    let body =
        json!({"metadata": {"name": "a", "labels": {"tanka.dev/environment": "x"}, "annotations": {}}});
    assert_eq!(stripped(&config_map(), body), json!({"metadata": {"name": "a", "annotations": {}}}));
}
