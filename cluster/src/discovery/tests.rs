use lockstep_engine::GroupKind;

use super::model::Listed;
use super::*;

fn listed(kind: &str, plural: &str) -> Listed {
    Listed { kind: kind.to_owned(), plural: plural.to_owned(), namespaced: true, ..Listed::default() }
}

const AGGREGATED: &[u8] = br#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":[
  {"metadata":{"name":"apps","creationTimestamp":null},"versions":[{"version":"v1","freshness":"Current","resources":[
    {"resource":"deployments","responseKind":{"group":"","version":"","kind":"Deployment"},"scope":"Namespaced",
     "singularResource":"deployment","verbs":["list","watch"],"shortNames":["deploy"],"categories":["all"],
     "subresources":[{"subresource":"status","responseKind":{"group":"","version":"","kind":"Deployment"},"verbs":["get"]}]}]}]},
  {"metadata":{"name":"metrics.k8s.io"},"versions":[{"version":"v1beta1","freshness":"Stale"}]}]}"#;

#[test]
fn aggregated_discovery_is_read_and_stale_versions_are_unknown() {
    let served = aggregated::parse(AGGREGATED, "/apis").unwrap().unwrap();
    let deployment = served.get(&GroupKind::new("apps", "Deployment")).unwrap();
    assert!(deployment.namespaced && deployment.can("watch") && !deployment.can("get"));
    assert_eq!(
        deployment.preferred().unwrap().collection(Some("n")),
        "/apis/apps/v1/namespaces/n/deployments"
    );
    assert_eq!(served.find("deploy").len(), 1);
    assert!(matches!(served.serves(&GroupKind::new("metrics.k8s.io", "PodMetrics")), Serves::Unknown));
    assert!(matches!(served.serves(&GroupKind::new("apps", "Other")), Serves::No));
    assert!(aggregated::parse(br#"{"kind":"APIGroupList","groups":[]}"#, "/apis").unwrap().is_none());
}

#[test]
fn aliases_are_one_kind_with_the_canonical_group_first() {
    let mut served = Served::default();
    served.add("extensions", "v1beta1", listed("Ingress", "ingresses"));
    served.add("networking.k8s.io", "v1", listed("Ingress", "ingresses"));
    served.add("networking.k8s.io", "v1beta1", listed("Ingress", "ingresses"));
    served.finish();
    let ingress = served.get(&GroupKind::new("networking.k8s.io", "Ingress")).unwrap();
    let versions: Vec<_> = ingress.versions.iter().map(|v| format!("{}/{}", v.group, v.version)).collect();
    assert_eq!(versions, ["networking.k8s.io/v1", "networking.k8s.io/v1beta1", "extensions/v1beta1"]);
    assert_eq!(ingress.api_version("extensions/v1beta1").unwrap().api_version(), "extensions/v1beta1");
    assert_eq!(served.find("ingresses.extensions").len(), 1);
    assert_eq!(ingress.singular.as_ref(), "ingress");
}

#[test]
fn core_and_groups_merge_and_a_changed_reason_is_no_change() {
    let mut core = Served::default();
    core.add("", "v1", listed("Event", "events"));
    let mut groups = Served::default();
    groups.add("events.k8s.io", "v1", listed("Event", "events"));
    let failed =
        |reason: &str| PartialFailure { group: "x".into(), version: "v1".into(), reason: reason.to_owned() };
    groups.partial.push(failed("503"));
    core.merge(groups);
    core.finish();
    let event = core.get(&GroupKind::new("", "Event")).unwrap();
    assert_eq!(event.preferred().unwrap().api_version(), "events.k8s.io/v1");
    let mut later = core.clone();
    later.partial = vec![failed("timeout")];
    assert!(!later.changed(&core));
    later.partial.clear();
    assert!(later.changed(&core));
}
