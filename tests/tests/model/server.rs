//! The model in process: what no real API server does on request. Time is an argument here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as the tests do")]

use lockstep_tests::model::{
    ApiServer, Config, Effect, Fault, Forbid, Matcher, Polled, Reply, Request, Response, Restore, WatchId,
};
use serde_json::{Value, json};

const APPLY: &str = "application/apply-patch+yaml";

fn server() -> ApiServer {
    ApiServer::new(0, Config { controllers: false, ..Config::new((1, 20), 1) })
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"x": value}})
}

fn apply(server: &mut ApiServer, now: i64, name: &str, value: &str) -> Value {
    let reply = server.user_apply(now, "m", &config_map(name, value), true).unwrap();
    assert!(matches!(reply.status(), 200 | 201), "{reply:?}");
    reply.json()
}

fn get(server: &mut ApiServer, now: i64, target: &str) -> Reply {
    server.handle(now, &Request::get(target))
}

fn watch(server: &mut ApiServer, now: i64, query: &str) -> WatchId {
    let target = format!("/api/v1/namespaces/default/configmaps?watch=true&allowWatchBookmarks=true&{query}");
    match get(server, now, &target).response {
        Response::Watch(id) => id,
        other => panic!("{other:?}"),
    }
}

/// Types and names of what a watch says, and whether it ended.
fn said(server: &mut ApiServer, id: WatchId, now: i64) -> (Vec<String>, bool) {
    let (lines, ended) = match server.poll(id, now) {
        Polled::Lines(lines) => (lines, false),
        Polled::Ended(lines) => (lines, true),
    };
    let words = lines.iter().map(|line| {
        let event: Value = serde_json::from_slice(line).unwrap();
        let object = &event["object"];
        let what = object["metadata"]["name"].as_str().or(object["reason"].as_str()).unwrap_or_default();
        format!("{} {what}", event["type"].as_str().unwrap()).trim().to_owned()
    });
    (words.collect(), ended)
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[test]
fn the_same_requests_give_the_same_bytes() {
    let run = || {
        let mut server = ApiServer::new(5, Config::new((1, 34), 9));
        let mut bytes = Vec::new();
        for n in 0..20 {
            apply(&mut server, n, &format!("c{}", n % 7), &n.to_string());
            server.tick(n);
            let reply = get(&mut server, n, "/api/v1/configmaps?limit=3");
            let Response::Full(answer) = reply.response else { panic!("a watch") };
            bytes.extend_from_slice(&answer.body);
        }
        bytes
    };
    assert_eq!(run(), run());
}

#[test]
fn a_watch_follows_and_ends_at_its_timeout() {
    let mut server = server();
    let first = apply(&mut server, 0, "a", "1");
    let id = watch(&mut server, 0, &format!("resourceVersion={}&timeoutSeconds=100", version(&first)));
    assert_eq!(said(&mut server, id, 0), (vec![], false));
    apply(&mut server, 1, "b", "1");
    apply(&mut server, 1, "a", "2");
    assert_eq!(said(&mut server, id, 1), (vec!["ADDED b".into(), "MODIFIED a".into()], false));
    // A minute without anything, and two seconds before the end.
    assert_eq!(said(&mut server, id, 60_000), (vec!["BOOKMARK".into()], false));
    assert_eq!(said(&mut server, id, 97_999), (vec![], false));
    assert_eq!(said(&mut server, id, 98_000), (vec!["BOOKMARK".into()], false));
    assert_eq!(said(&mut server, id, 100_000), (vec![], true));
    assert_eq!(server.open_watches(), 0);
}

#[test]
fn a_version_beyond_the_cache_is_gone_in_either_form() {
    let mut server = ApiServer::new(0, Config { watch_cache_events: 3, ..Config::new((1, 20), 1) });
    let first = version(&apply(&mut server, 0, "a", "0"));
    for n in 1..=3 {
        apply(&mut server, 0, "a", &n.to_string());
    }
    let id = watch(&mut server, 0, &format!("resourceVersion={first}"));
    assert_eq!(said(&mut server, id, 0).0.len(), 3);
    apply(&mut server, 0, "a", "4");
    let id = watch(&mut server, 0, &format!("resourceVersion={first}"));
    assert_eq!(said(&mut server, id, 0), (vec!["ERROR Expired".into()], true));
    let mut other = ApiServer::new(0, Config { gone_as_http: true, ..Config::new((1, 20), 1) });
    let reply = get(&mut other, 0, "/api/v1/configmaps?watch=true&resourceVersion=1");
    assert_eq!((reply.status(), &reply.json()["reason"]), (410, &json!("Expired")));
}

#[test]
fn a_restart_empties_the_cache_and_ends_watches() {
    let mut server = server();
    let old = version(&apply(&mut server, 0, "a", "1"));
    let new = version(&apply(&mut server, 0, "a", "2"));
    let id = watch(&mut server, 0, &format!("resourceVersion={new}"));
    server.restart();
    assert_eq!(said(&mut server, id, 0), (vec![], true));
    let id = watch(&mut server, 0, &format!("resourceVersion={old}"));
    assert_eq!(said(&mut server, id, 0), (vec!["ERROR Expired".into()], true));
    let id = watch(&mut server, 0, &format!("resourceVersion={new}"));
    assert_eq!(said(&mut server, id, 0), (vec![], false));
}

#[test]
fn a_compaction_expires_tokens_and_loses_no_event() {
    let mut server = server();
    for name in ["a", "b", "c"] {
        apply(&mut server, 0, name, "1");
    }
    let page = get(&mut server, 0, "/api/v1/namespaces/default/configmaps?limit=1").json();
    let id = watch(&mut server, 0, &format!("resourceVersion={}", version(&page)));
    apply(&mut server, 0, "d", "1");
    server.compact(server.revision());
    let token = page["metadata"]["continue"].as_str().unwrap();
    let target = format!("/api/v1/namespaces/default/configmaps?limit=1&continue={token}");
    let reply = get(&mut server, 0, &target);
    assert_eq!((reply.status(), &reply.json()["reason"]), (410, &json!("Expired")));
    // What the answer offers instead goes on with what is there now.
    let token = reply.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = get(&mut server, 0, &format!("/api/v1/namespaces/default/configmaps?continue={token}")).json();
    let names: Vec<_> =
        rest["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["b", "c", "d"]);
    assert_eq!(said(&mut server, id, 0), (vec!["ADDED d".into()], false));
}

#[test]
fn a_plain_restore_goes_back_and_watches_from_the_future_are_silent() {
    let mut server = server();
    apply(&mut server, 0, "a", "1");
    let snapshot = server.snapshot();
    let kube_system = server.find("v1", "Namespace", "", "kube-system").unwrap();
    let lost = apply(&mut server, 0, "b", "1");
    server.restore(&snapshot, Restore::Plain);
    assert!(server.find("v1", "ConfigMap", "default", "b").is_none());
    assert_eq!(server.find("v1", "Namespace", "", "kube-system").unwrap(), kube_system);
    let id = watch(&mut server, 0, &format!("resourceVersion={}", version(&lost)));
    let again = apply(&mut server, 0, "c", "1");
    // The version is given out a second time, to another object; uids are not.
    assert_eq!(version(&again), version(&lost));
    assert_ne!(again["metadata"]["uid"], lost["metadata"]["uid"]);
    assert_eq!(said(&mut server, id, 70_000), (vec![], false));
    let probe = get(&mut server, 0, "/api/v1/namespaces/default/configmaps?limit=1").json();
    assert_eq!(version(&probe), version(&lost));
    let target = "/api/v1/configmaps?limit=1&resourceVersion=99999";
    assert_eq!(
        get(&mut server, 0, target).json()["message"],
        "etcdserver: mvcc: required revision is a future revision"
    );
}

#[test]
fn a_bumped_restore_looks_like_an_ordinary_410() {
    let mut server = server();
    let kept = apply(&mut server, 0, "a", "1");
    let snapshot = server.snapshot();
    let lost = apply(&mut server, 0, "b", "1");
    server.restore(&snapshot, Restore::Bumped);
    let id = watch(&mut server, 0, &format!("resourceVersion={}", version(&lost)));
    assert_eq!(said(&mut server, id, 0), (vec!["ERROR Expired".into()], true));
    let list = get(&mut server, 0, "/api/v1/namespaces/default/configmaps").json();
    assert!(version(&list).parse::<u64>().unwrap() > version(&lost).parse::<u64>().unwrap());
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(version(&list["items"][0]), version(&kept));
}

fn fault(effect: Effect, verb: &str, times: Option<u32>) -> Fault {
    Fault {
        matches: Matcher { verbs: vec![verb.to_owned()], ..Matcher::default() },
        effect,
        until: None,
        times,
    }
}

#[test]
fn faults_refuse_drop_and_delay() {
    let mut server = server();
    server.inject(fault(Effect::Answer { code: 429, retry_after_s: Some(3) }, "apply", Some(1)));
    let refused = server.user_apply(0, "m", &config_map("a", "1"), false).unwrap();
    let Response::Full(answer) = &refused.response else { panic!("{refused:?}") };
    assert_eq!((answer.status, answer.retry_after_s), (429, Some(3)));
    apply(&mut server, 0, "a", "1");
    server.inject(fault(Effect::DropBefore, "apply", Some(1)));
    assert_eq!(server.user_apply(0, "m", &config_map("b", "1"), false).unwrap().status(), 0);
    assert!(server.find("v1", "ConfigMap", "default", "b").is_none());
    server.inject(fault(Effect::DropAfter, "apply", Some(1)));
    assert_eq!(server.user_apply(0, "m", &config_map("b", "1"), false).unwrap().status(), 0);
    assert!(server.find("v1", "ConfigMap", "default", "b").is_some());
    let slow = server.inject(fault(Effect::Delay(500), "get", None));
    assert_eq!(get(&mut server, 0, "/api/v1/namespaces/default/configmaps/b").after_ms, 500);
    server.heal(slow);
    assert_eq!(get(&mut server, 0, "/api/v1/namespaces/default/configmaps/b").after_ms, 0);
    server.inject(Fault {
        until: Some(10),
        ..fault(Effect::Answer { code: 500, retry_after_s: None }, "get", None)
    });
    assert_eq!(get(&mut server, 9, "/api/v1/namespaces/default/configmaps/b").status(), 500);
    assert_eq!(get(&mut server, 10, "/api/v1/namespaces/default/configmaps/b").status(), 200);
}

#[test]
fn a_silenced_watch_tells_later() {
    let mut server = server();
    let first = version(&apply(&mut server, 0, "a", "1"));
    let id = watch(&mut server, 0, &format!("resourceVersion={first}&timeoutSeconds=10"));
    let fault = server.inject(fault(Effect::Silence, "watch", None));
    apply(&mut server, 0, "b", "1");
    assert_eq!(said(&mut server, id, 20_000), (vec![], false));
    server.heal(fault);
    let (words, ended) = said(&mut server, id, 20_000);
    assert!(ended && words.first().is_some_and(|word| word == "ADDED b"), "{words:?}");
}

#[test]
fn rights_are_withdrawn_and_given_back() {
    let mut server = server();
    let rule = Forbid { user: "agent".into(), verbs: vec!["create".into()], ..Forbid::default() };
    let id = server.forbid(rule);
    let request = Request::new("PATCH", "/api/v1/namespaces/default/configmaps/a?fieldManager=m");
    let request = request.with(APPLY, config_map("a", "1").to_string()).by("agent");
    // An apply that creates needs the right to create.
    let reply = server.handle(0, &request);
    assert_eq!((reply.status(), &reply.json()["reason"]), (403, &json!("Forbidden")));
    server.allow(id);
    assert_eq!(server.handle(0, &request).status(), 201);
    server.forbid(Forbid { user: "agent".into(), unknown: true, ..Forbid::default() });
    assert_eq!(server.handle(0, &request).status(), 401);
}

#[test]
fn a_group_that_is_down_is_listed_and_not_answered() {
    let mut server = server();
    server.set_group_down("apps", true);
    let groups = get(&mut server, 0, "/apis").json();
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "apps"));
    assert_eq!(get(&mut server, 0, "/apis/apps/v1").status(), 503);
    assert_eq!(get(&mut server, 0, "/apis/apps/v1/deployments").status(), 503);
    server.set_group_down("apps", false);
    assert_eq!(get(&mut server, 0, "/apis/apps/v1/deployments").status(), 200);
}

#[test]
fn aggregated_discovery_has_etags_and_tells_what_is_stale() {
    let mut server = ApiServer::new(0, Config::new((1, 34), 1));
    server.set_group_down("apps", true);
    let mut request = Request::get("/apis");
    request.accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList".into();
    let reply = server.handle(0, &request);
    let Response::Full(answer) = &reply.response else { panic!("{reply:?}") };
    request.if_none_match.clone_from(&answer.etag);
    let list = reply.json();
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
    );
    let apps =
        list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "apps").unwrap();
    assert_eq!(apps["versions"][0]["freshness"], "Stale");
    assert_eq!(server.handle(0, &request).status(), 304);
    server.set_group_down("apps", false);
    assert_eq!(server.handle(0, &request).status(), 200);
}

#[test]
fn a_pod_on_a_node_has_its_grace() {
    let mut server = server();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(server.user_apply(0, "m", &pod, false).unwrap().status(), 201);
    let path = server.path_of(&pod).unwrap();
    let deleted = server.user_delete(0, &path).json();
    assert_eq!(deleted["metadata"]["deletionGracePeriodSeconds"], 30);
    server.tick(29_000);
    assert!(server.find("v1", "Pod", "default", "p").is_some());
    server.tick(30_000);
    assert!(server.find("v1", "Pod", "default", "p").is_none());
}
