use serde_json::{Value, json};

use super::*;

const NONE: Retired<'static> = Retired::Adopting(&[]);

fn entry(manager: &str, operation: &str, fields: &Value) -> Value {
    json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": fields})
}

fn object(entries: &[Value], rest: &Value) -> Value {
    let mut object =
        json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "a", "managedFields": entries}});
    for (name, value) in rest.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

fn by(live: &Value, body: &Value, retired: &Retired<'_>) -> Option<Vec<Value>> {
    let claims = Claims { body, last: None, displaced: None };
    hand_over(live, claims, retired).unwrap().map(|h| h.entries.as_array().unwrap().clone())
}

#[test]
fn what_is_asked_for_is_handed_over_and_what_only_the_target_has_stays() {
    let csa = json!({"f:data": {".": {}, "f:keep": {}, "f:own": {}},
        "f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/last-applied-configuration": {}},
            "f:labels": {".": {}, "f:app": {}}}});
    let live = object(&[entry("kubectl-client-side-apply", "Update", &csa)], &json!({}));
    let body = json!({"metadata": {"name": "a", "labels": {"app": "x"}}, "data": {"keep": "1", "new": "2"}});
    let now = by(&live, &body, &NONE).unwrap();
    assert_eq!(now.len(), 2);
    assert_eq!((&now[0]["manager"], &now[0]["operation"]), (&json!("lockstep"), &json!("Apply")));
    assert_eq!(
        now[0]["fieldsV1"],
        json!({"f:data": {"f:keep": {}}, "f:metadata": {"f:labels": {"f:app": {}}}})
    );
    assert_eq!(
        now[1]["fieldsV1"],
        json!({"f:data": {"f:own": {}}, "f:metadata": {"f:annotations":
            {".": {}, "f:kubectl.kubernetes.io/last-applied-configuration": {}}}})
    );
    // It is done once.
    let again = object(&now, &json!({}));
    assert_eq!(by(&again, &body, &NONE), None);
}

#[test]
fn an_entry_of_which_nothing_is_left_goes() {
    let live = object(&[entry("kubectl", "Apply", &json!({"f:data": {"f:k": {}}}))], &json!({}));
    let now = by(&live, &json!({"data": {"k": "1"}}), &NONE).unwrap();
    assert_eq!(now.len(), 1);
    assert_eq!(now[0]["manager"], "lockstep");
}

#[test]
fn nothing_in_an_item_that_is_asked_for_is_held_against_its_removal() {
    let ports = json!({"f:spec": {"f:ports": {".": {},
        "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}, "f:nodePort": {}},
        "k:{\"port\":90,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}});
    let live = object(&[entry("kubectl-create", "Update", &ports)], &json!({}));
    // The protocol has a default, which the body need not say.
    let body = json!({"spec": {"ports": [{"port": 80, "name": "http"}]}});
    let now = by(&live, &body, &NONE).unwrap();
    assert_eq!(
        now[0]["fieldsV1"],
        json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}}}})
    );
    assert_eq!(
        now[1]["fieldsV1"],
        json!({"f:spec": {"f:ports": {"k:{\"port\":90,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}})
    );
}

#[test]
fn controllers_keep_their_entries() {
    let set = json!({"f:spec": {"f:replicas": {}}});
    let body = json!({"spec": {"replicas": 1}});
    let declared: Vec<ManagerPattern> = ["helm", "kube-*", "Terraform*"].map(|p| p.parse().unwrap()).to_vec();
    let mut scale = entry("kubectl", "Update", &set);
    scale["subresource"] = "scale".into();
    for kept in [
        scale,
        entry("kube-controller-manager", "Update", &set),
        entry("cert-manager-cainjector", "Update", &set),
        entry("argocd-controller", "Apply", &set),
        entry("ancient-changes", "Update", &set),
        entry("lockstep-yield", "Apply", &set),
    ] {
        let live = object(std::slice::from_ref(&kept), &json!({}));
        assert_eq!(by(&live, &body, &Retired::Adopting(&declared)), None, "{kept}");
    }
    for taken in ["helm", "Terraform", "kubectl-edit", "before-first-apply", "Mozilla", "lockstep-restore"] {
        let live = object(&[entry(taken, "Update", &set)], &json!({}));
        assert!(by(&live, &body, &Retired::Adopting(&declared)).is_some(), "{taken}");
        let of_copy = by(&live, &body, &Retired::OfCopy).is_some();
        assert_eq!(of_copy, matches!(taken, "before-first-apply" | "lockstep-restore"), "{taken}");
    }
}

#[test]
fn patterns_of_managers_mean_what_they_say_and_never_everybody() {
    for (pattern, name, matches) in [
        ("helm", "helm", true),
        ("helm", "helm2", false),
        ("helm*", "helm2", true),
        ("*-operator", "x-operator", true),
        ("a*b*c", "a1b2c", true),
        ("a*b*c", "a1c2b", false),
        ("ab*b", "ab", false),
    ] {
        let parsed: ManagerPattern = pattern.parse().unwrap();
        assert_eq!(parsed.matches(name), matches, "{pattern} {name}");
    }
    for everybody in ["", "*", "**"] {
        assert_eq!(everybody.parse::<ManagerPattern>(), Err(ManagerPatternError::Everybody));
    }
    assert_eq!("kubelet".parse::<ManagerPattern>(), Err(ManagerPatternError::AtWork));
}

#[test]
fn an_entry_of_another_version_holds_nothing_but_its_metadata() {
    let set = json!({"f:spec": {"f:targetCPUUtilizationPercentage": {}},
        "f:metadata": {"f:labels": {"f:app": {}, "f:own": {}}}});
    let mut old = entry("kubectl-client-side-apply", "Update", &set);
    old["apiVersion"] = "autoscaling/v1".into();
    let live = object(&[old], &json!({}));
    let now =
        by(&live, &json!({"metadata": {"labels": {"app": "x"}}, "spec": {"metrics": []}}), &NONE).unwrap();
    assert_eq!(now[0]["fieldsV1"], json!({"f:metadata": {"f:labels": {"f:app": {}}}}));
    assert_eq!(now[1]["fieldsV1"], json!({"f:metadata": {"f:labels": {"f:own": {}}}}));
    assert_eq!(now[1]["apiVersion"], "autoscaling/v1");
}

#[test]
fn what_was_ours_before_managed_fields_were_cleared_is_ours_again_and_nothing_more() {
    let all = json!({"f:data": {".": {}, "f:keep": {}, "f:gone": {}, "f:own": {}}});
    let ours = entry("lockstep", "Apply", &json!({"f:data": {"f:keep": {}}}));
    let live = object(&[ours, entry("before-first-apply", "Update", &all)], &json!({}));
    let last = FieldSet::parse(br#"{"f:data":{"f:keep":{},"f:gone":{}}}"#).unwrap();
    let body = json!({"data": {"keep": "1"}});
    let claims = Claims { body: &body, last: Some(&last), displaced: None };
    let now = hand_over(&live, claims, &Retired::OfCopy).unwrap().unwrap();
    assert_eq!(now.entries[0]["fieldsV1"], json!({"f:data": {"f:keep": {}, "f:gone": {}}}));
    assert_eq!(now.entries[1]["fieldsV1"], json!({"f:data": {"f:own": {}}}));
    // Before anybody applied again.
    let cleared = json!({"apiVersion": "v1", "metadata": {"name": "a"}, "data": {"keep": "1", "own": "t"}});
    let now = reinstate(&cleared, &last).unwrap().unwrap();
    assert_eq!(now.entries[0]["fieldsV1"], json!({"f:data": {"f:keep": {}}}));
    assert_eq!(reinstate(&live, &last).unwrap(), None);
}

#[test]
fn what_cannot_stay_beside_the_body_is_found_by_the_error() {
    let theirs = json!({"f:spec": {"f:ports": {".": {},
        "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}},
        "k:{\"port\":90,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}},
        "f:volumes": {"k:{\"name\":\"v\"}": {".": {}, "f:name": {}, "f:emptyDir": {}}},
        "f:backend": {"f:service": {"f:port": {"f:number": {}}}},
        "f:minAvailable": {}, "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}}}});
    let spec = json!({"minAvailable": 1, "backend": {"service": {"port": {"number": 1}}}, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
        "ports": [{"port": 80, "name": "http"}, {"port": 90, "name": "own"}],
        "volumes": [{"name": "v", "emptyDir": {}}]});
    let live = object(&[entry("kubectl", "Update", &theirs)], &json!({ "spec": spec }));
    let body = json!({"spec": {"maxUnavailable": 1, "backend": {"service": {"port": {"name": "x"}}}, "strategy": {"type": "Recreate"},
        "ports": [{"port": 8080, "name": "http"}], "volumes": [{"name": "v", "configMap": {"name": "c"}}]}});
    for (path, twice, found) in [
        ("spec.ports[1].name", true, &[".spec.ports[port=80,protocol=\"TCP\"]"][..]),
        ("spec.volumes[0].configMap", false, &[".spec.volumes[name=\"v\"].emptyDir"]),
        ("spec", false, &[".spec.minAvailable"]),
        ("spec.strategy.rollingUpdate", false, &[".spec.strategy.rollingUpdate"]),
        ("spec.backend", false, &[".spec.backend.service.port.number"]),
        ("spec.nothing.there", false, &[]),
    ] {
        let set = displaced(&live, &body, &NONE, &[(path.to_owned(), twice)]).unwrap();
        let paths = set.paths(9);
        assert_eq!(paths.first().map(String::as_str), found.first().copied(), "{path}: {paths:?}");
        assert!(!paths.iter().any(|path| path.contains("90")), "{path}: {paths:?}");
        let claims = Claims { body: &body, last: None, displaced: Some(&set) };
        let handover = hand_over(&live, claims, &NONE).unwrap().unwrap();
        let ours = FieldSet::from_value(&handover.entries[0]["fieldsV1"]).unwrap();
        assert!(paths.iter().all(|path| ours.contains(path)), "{path}: {ours:?}");
        let rest = handover.entries.get(1).map_or(&Value::Null, |entry| &entry["fieldsV1"]);
        let kept = if rest.is_null() { FieldSet::default() } else { FieldSet::from_value(rest).unwrap() };
        assert!(!paths.iter().any(|path| kept.contains(path)), "{path}: {kept:?}");
    }
    // What somebody at work owns stays, and so does the refusal.
    let mut shared = live.clone();
    let operator = entry("operator", "Update", &json!({"f:spec": {"f:minAvailable": {}}}));
    shared["metadata"]["managedFields"].as_array_mut().unwrap().push(operator);
    assert!(displaced(&shared, &body, &NONE, &[("spec".to_owned(), false)]).unwrap().is_empty());
}
