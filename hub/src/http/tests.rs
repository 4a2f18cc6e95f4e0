//! The handlers over a real store: what they answer, and what they refuse.

use std::sync::{Arc, RwLock};

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;
use futures::future::BoxFuture;
use lockstep_engine::status::{State, Status};
use lockstep_engine::{ClusterId, ClusterName, GroupKind, ObjectKey, ResourceVersion, Uid};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tonic::codegen::Service as _;

use super::*;
use crate::codes::Code;
use crate::core::command::{AcceptedRewind, Approved, ClusterRemoval, CommandError};
use crate::seal::HubKey;
use crate::store::sqlite::SqliteStore;
use crate::store::{
    Cause, Facts, Fields, Filed, ObjectRow, PlacementRow, PolicyFileRow, PolicyRow, Reader, Store,
    TombstoneRow, WatchRow,
};

const TOKEN: &str = "the-token-of-this-hub";
const CANARY: &str = "Y2FuYXJ5";

const POLICY: &str = "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {name: production}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {apiGroup: apps, kind: Deployment, matchLabels: {env: production}}
";

struct Archive;

impl Bodies for Archive {
    fn body<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Value, String>> {
        Box::pin(async move {
            if path == "v1/there" {
                Ok(json!({"kind": "Secret", "data": {"p": CANARY}}))
            } else {
                Err("not found".to_owned())
            }
        })
    }
}

struct Bed {
    _dir: TempDir,
    _store: SqliteStore,
    api: Api,
    commands: Option<mpsc::Receiver<Command>>,
}

fn served() -> Bytes {
    let kind = |group: &str, kind: &str, plural: &str, short: &[&str], namespaced: bool| {
        json!({
            "group": group, "kind": kind, "versions": ["v1"], "plural": plural, "singular": kind.to_lowercase(),
            "short_names": short, "namespaced": namespaced, "verbs": ["list", "watch"],
        })
    };
    let kinds = json!([
        kind("apps", "Deployment", "deployments", &["deploy"], true),
        kind("", "Secret", "secrets", &[], true),
        kind("", "Node", "nodes", &["no"], false),
    ]);
    kinds.to_string().into()
}

fn watch(store: &mut SqliteStore, cluster: ClusterId, group: &str, kind: &str) -> WatchRow {
    let mut row = store.ensure_watch(cluster, &GroupKind::new(group, kind), "", 1).unwrap();
    row.phase = crate::store::Phase::Live;
    row.checkpoint = ResourceVersion::new("100");
    store.put_watch(&row).unwrap();
    row
}

fn object(cluster: ClusterId, watch: &WatchRow, name: &str, body: Option<Value>) -> ObjectRow {
    ObjectRow {
        unseen: None,
        cluster,
        key: ObjectKey::new(watch.gk.clone(), "shop", name),
        watch: watch.id,
        uid: Uid::new(&format!("uid-{name}")),
        resource_version: ResourceVersion::new("7"),
        body: body.map(|body| body.to_string().into()),
        managed: None,
        deleting: false,
        pod_security: Default::default(),
        before: None,
        observed_at: 5,
    }
}

fn body(kind: &str, name: &str, labels: Value) -> Value {
    json!({"kind": kind, "metadata": {
        "name": name, "namespace": "shop", "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z",
    }})
}

fn placement(target: ClusterId, name: &str, state: State, reason: &str) -> PlacementRow {
    PlacementRow {
        target,
        key: ObjectKey::new(GroupKind::new("apps", "Deployment"), "shop", name),
        policy: "production".to_owned(),
        rivals: vec![],
        source: None,
        record: None,
        status: Status::new(state, reason, "a sentence"),
        since: 10,
        observed_generation: 2,
        ending: None,
        delete: None,
        attempts: 0,
        next_attempt: None,
        barred: None,
        synced_at: None,
        lag_ms: Some(12),
        fields: Fields::default(),
    }
}

fn fill(store: &mut SqliteStore) {
    store.begin().unwrap();
    let mut ids = Vec::new();
    for name in ["cluster-a", "cluster-b", "cluster-c"] {
        let mut row = store.create_cluster(&ClusterName::new(name).unwrap(), 1).unwrap();
        row.served = served();
        row.connected_at = (name != "cluster-c").then_some(2);
        store.put_cluster(&row).unwrap();
        ids.push(row.id);
    }
    let deployments = watch(store, ids[0], "apps", "Deployment");
    let secrets = watch(store, ids[0], "", "Secret");
    let copies = watch(store, ids[1], "apps", "Deployment");
    for n in 0..5 {
        let labels = json!({"env": if n % 2 == 0 { "production" } else { "dev" }});
        let name = format!("web-{n}");
        store
            .put_object(&object(ids[0], &deployments, &name, Some(body("Deployment", &name, labels))))
            .unwrap();
    }
    store.put_object(&object(ids[0], &deployments, "key-only", None)).unwrap();
    store
        .put_object(&object(ids[1], &copies, "web-0", Some(body("Deployment", "web-0", json!({})))))
        .unwrap();
    let mut secret = body("Secret", "db", json!({}));
    secret["data"] = json!({"p": CANARY});
    store.put_object(&object(ids[0], &secrets, "db", Some(secret.clone()))).unwrap();
    store.put_placement(&placement(ids[1], "web-0", State::InStep, "Synced")).unwrap();
    store.put_placement(&placement(ids[1], "web-2", State::Held, "DeleteBudgetExceeded")).unwrap();
    store.put_placement(&placement(ids[2], "web-0", State::Pending, "Queued")).unwrap();
    let file = PolicyFileRow { path: "p.yaml".to_owned(), text: POLICY.to_owned() };
    store.put_policy_files(&[file]).unwrap();
    let row = PolicyRow {
        name: "production".to_owned(),
        digest: [0; 32],
        generation: 2,
        planned: true,
        paused: false,
    };
    store.put_policy(&row).unwrap();
    let tombstone = TombstoneRow {
        known_until: None,
        id: 0,
        cluster: ids[1],
        key: ObjectKey::new(GroupKind::new("", "Secret"), "shop", "db"),
        uid: Uid::new("u"),
        resource_version: ResourceVersion::new("9"),
        api_version: "v1".to_owned(),
        cause: Cause::Lockstep { policy: "production".to_owned() },
        deleted_at: 20,
        last_seen: 19,
        body: Some(secret.to_string().into()),
        path: None,
        deleted: true,
        facts: Facts::default(),
    };
    let in_outbox = store.put_tombstone(&tombstone).unwrap();
    assert_eq!(in_outbox, 1);
    for path in ["v1/there", "v1/lost"] {
        let id = store.put_tombstone(&tombstone).unwrap();
        store.set_archived(id, &Filed { path: path.to_owned(), size: 7, key: None }).unwrap();
    }
    store.commit().unwrap();
}

fn bed_with(config: ApiConfig) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/state.db");
    let mut store = SqliteStore::open(&path, HubKey::from_bytes([7; 32]).sealer()).unwrap();
    fill(&mut store);
    let readers = store.readers();
    let (commands, received) = mpsc::channel(4);
    let readers: crate::session::Readers = Arc::new(move || Ok(Box::new(readers.open()?) as Box<dyn Reader>));
    let (inputs, _nobody) = mpsc::channel(1);
    let keeper = crate::archive::Keeper::new(crate::archive::KeeperParts {
        tombstones: crate::archive::Tombstones::new(
            Arc::new(crate::archive::LocalArchive::open(&dir.path().join("archive")).unwrap()),
            crate::archive::Keyring::of_hub(&HubKey::from_bytes([7; 32])),
            crate::config::Secrets::Encrypted,
        ),
        readers: readers.clone(),
        inputs,
        retention: crate::config::RetentionConfig::default(),
        metrics: crate::metrics::Metrics::default(),
        problems: crate::problem::Problems::default(),
        now: || 5,
    });
    let restorer = Restorer::new(readers.clone(), commands.clone(), Arc::new(Archive), [9; 32]);
    let api = Api::new(ApiParts {
        readers,
        restorer,
        commands,
        findings: Arc::new(RwLock::new(Findings {
            files: vec![],
            directory: Some("permission denied".to_owned()),
        })),
        sessions: Arc::new(Vec::new),
        started_at: 1,
        bodies: Arc::new(Archive),
        keeper,
        token: ApiToken::new(TOKEN),
        digest_key: [9; 32],
        problems: crate::problem::Problems::default(),
        database: "/nonexistent/state.db".into(),
        config,
    });
    Bed { _dir: dir, _store: store, api, commands: Some(received) }
}

fn bed() -> Bed {
    bed_with(ApiConfig::default())
}

impl Bed {
    async fn call(&self, method: Method, path: &str, token: Option<&str>, body: &str) -> (StatusCode, Value) {
        let mut request =
            Request::builder().method(method).uri(format!("/api/v1/{path}")).header("host", "127.0.0.1");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.api.clone().router().into_service().call(request).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{path}: {bytes:?}")))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, value) = self.call(Method::GET, path, None, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {value}");
        value
    }

    async fn refused(&self, path: &str, code: &str) -> String {
        let (status, value) = self.call(Method::GET, path, None, "").await;
        assert!(!status.is_success(), "{path}: {value}");
        assert_eq!(value["code"], code, "{path}: {value}");
        format!("{}; {}", value["message"].as_str().unwrap(), value["remedy"].as_str().unwrap())
    }

    /// Answers commands as a core would.
    fn answer(&mut self) {
        let mut received = self.commands.take().unwrap();
        tokio::spawn(async move {
            while let Some(command) = received.recv().await {
                match command {
                    Command::Approve { policy, target, reply, .. } => {
                        let target = target.unwrap_or_default();
                        let _ = reply.send(Ok(vec![Approved { policy, target, objects: Vec::new() }]));
                    }
                    Command::Orphan { reply, .. } => drop(reply.send(Ok(Vec::new()))),
                    Command::Pause { reply, .. } => drop(reply.send(Ok(()))),
                    Command::CreateToken { reply, .. } => drop(reply.send(Ok("fresh".to_owned()))),
                    Command::Explain { object, reply } => {
                        let message = format!("{} {}/{}", object.kind, object.namespace, object.name);
                        let (code, remedy) = ("LS0200".to_owned(), String::new());
                        let _ = reply.send(Err(CommandError { code, message, remedy }));
                    }
                    Command::AcceptRewind { cluster, reply } => {
                        let _ = reply.send(Ok(AcceptedRewind { cluster, objects: 3 }));
                    }
                    Command::RemoveCluster { cluster, reply, .. } => {
                        let _ = reply.send(Ok(ClusterRemoval { cluster, ..ClusterRemoval::default() }));
                    }
                    Command::Keep(_) => panic!("nothing of the archive is asked for"),
                    Command::Compare { reply, .. } => drop(reply),
                    Command::Restore(command) => drop(command),
                }
            }
        });
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn every_code_has_a_page() {
    for Code { code, title } in CODES {
        let path = format!("{}/../docs/errors/{code}.md", env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(page.starts_with(&format!("# {code}: {title}\n")), "{code} has another title");
    }
}

#[tokio::test]
async fn policies_show_counts_per_target_and_findings() {
    let bed = bed();
    let report = bed.get("policies").await;
    let policy = &report["items"][0];
    assert_eq!((&policy["source"], &policy["observedGeneration"]), (&json!("cluster-a"), &json!(2)));
    let targets = policy["targets"].as_array().unwrap();
    assert_eq!(targets[0]["counts"]["inStep"], 1);
    assert_eq!(targets[0]["counts"]["held"], 1);
    assert_eq!(targets[0]["reasons"][0]["reason"], "DeleteBudgetExceeded");
    assert_eq!(targets[1]["connected"], false);
    assert_eq!(report["findings"][0]["code"], "LS0264");
    let text = bed.refused("policies?policy=produktion", "LS0255").await;
    assert!(text.contains("did you mean `production`?"), "{text}");
}

#[tokio::test]
async fn kinds_are_taken_as_kubectl_takes_them() {
    let bed = bed();
    for kind in ["deployments", "Deployment", "deploy", "deployments.apps", "DEPLOY", "deployment.v1.apps"] {
        assert_eq!(
            bed.get(&format!("objects?kind={kind}")).await["items"].as_array().unwrap().len(),
            7,
            "{kind}"
        );
    }
    let text = bed.refused("objects?kind=deploymnets", "LS0251").await;
    assert!(text.contains("did you mean `deployments`?"), "{text}");
    let text = bed.refused("objects?kind=nodes", "LS0252").await;
    assert!(
        text.contains("is not watched in any cluster (served by cluster-a, cluster-b, cluster-c)"),
        "{text}"
    );
    let text = bed.refused("objects?kind=deploy&cluster=cluster-x", "LS0254").await;
    assert!(text.contains("did you mean"), "{text}");
    let notes = bed.get("objects?kind=deploy").await["notes"].to_string();
    assert!(notes.contains("not watched in cluster-c"), "{notes}");
}

#[tokio::test]
async fn pages_join_to_the_whole_and_selectors_select() {
    let bed = bed();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..20 {
        let page = bed.get(&format!("objects?kind=deploy&limit=2{cursor}")).await;
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| format!("{}/{}", item["cluster"], item["name"])),
        );
        let Some(next) = page["continue"].as_str() else { break };
        cursor = format!("&continue={}", next.replace('/', "%2F"));
    }
    assert_eq!(seen.len(), 7, "{seen:?}");
    let selected = bed.get("objects?kind=deploy&selector=env%3Dproduction").await;
    assert_eq!(names(&selected), ["web-0", "web-2", "web-4"]);
    assert!(selected["notes"].to_string().contains("1 objects whose labels are not held"), "{selected}");
    let copy = bed.get("objects?kind=deploy&cluster=cluster-b&name=web-0").await;
    assert_eq!(copy["items"][0]["status"]["state"], "InStep");
    assert_eq!(names(&bed.get("objects?kind=deploy&namespace=elsewhere").await), Vec::<&str>::new());
    bed.refused("objects?kind=deploy&selector=a%3Eb", "LS0253").await;
    bed.refused("objects?kind=deploy&continue=x", "LS0253").await;
    bed.refused("objects?kind=deploy&colour=red", "LS0253").await;
    bed.refused("objects", "LS0253").await;
}

/// What SQLite would choke on is refused before it is asked.
#[tokio::test]
async fn searches_that_the_store_cannot_take_are_bad_requests() {
    let bed = bed();
    let many = |n: usize| (0..n).map(|n| format!("l{n}")).collect::<Vec<_>>().join("%2C");
    for path in [
        "tombstones?text=%00%22*%22".to_owned(),
        "tombstones?text=*".to_owned(),
        "tombstones?text=%22".to_owned(),
        format!("tombstones?selector={}", many(65)),
        format!("tombstones?selector=a+in+({})", many(1_001)),
        format!("objects?kind=deploy&selector={}", many(3_000)),
        format!("objects?kind=deploy&name={}", "x".repeat(20_000)),
    ] {
        let (status, value) = bed.call(Method::GET, &path, None, "").await;
        assert_eq!(
            (status, value["code"].as_str()),
            (StatusCode::BAD_REQUEST, Some("LS0253")),
            "{path}: {value}"
        );
    }
    bed.get(&format!("tombstones?selector={}", many(64))).await;
    for text in ["%22a%22*", "a%27b", "AND", "a+OR+b", "NEAR(a+b)", "x%3Ay", "(", "a*"] {
        let (status, value) = bed.call(Method::GET, &format!("tombstones?text={text}"), None, "").await;
        assert!(status == StatusCode::OK || status == StatusCode::BAD_REQUEST, "{text}: {value}");
    }
}

#[tokio::test]
async fn secrets_are_digests_unless_authorised_and_asked_for() {
    let bed = bed();
    for path in ["objects?kind=secrets&bodies=true", "tombstones/1", "tombstones/2"] {
        let text = bed.get(path).await.to_string();
        assert!(!text.contains(CANARY) && text.contains("redacted:"), "{path}: {text}");
        let (_, with_token) = bed.call(Method::GET, path, Some(TOKEN), "").await;
        assert!(!with_token.to_string().contains(CANARY), "{path}: the token alone shows nothing");
        let asking = format!("{path}{}secrets=true", if path.contains('?') { '&' } else { '?' });
        bed.refused(&asking, "LS0250").await;
        let (status, both) = bed.call(Method::GET, &asking, Some(TOKEN), "").await;
        assert_eq!(status, StatusCode::OK);
        assert!(both.to_string().contains(CANARY), "{path}");
    }
    let text = bed.get("tombstones").await.to_string();
    assert!(!text.contains("body"), "{text}");
}

#[tokio::test]
async fn tombstones_come_from_outbox_and_archive() {
    let bed = bed();
    let list = bed.get("tombstones?kind=secret&cluster=cluster-b").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    assert_eq!(list["items"][0]["policy"], "production");
    let of_pattern = bed.get("tombstones?name=*&cause=observed&until=9000000000000").await;
    assert_eq!(of_pattern["items"], bed.get("tombstones?cause=Observed").await["items"]);
    assert_eq!(bed.get("tombstones?policy=none").await["items"].as_array().unwrap().len(), 0);
    bed.refused("tombstones?cause=canary", "LS0253").await;
    let newest = bed.get("tombstones?limit=1").await;
    assert!(newest["notes"].to_string().contains("only the newest 1"), "{newest}");
    bed.refused("tombstones/3", "LS0262").await;
    bed.refused("tombstones/99", "LS0256").await;
    bed.refused("tombstones/x", "LS0253").await;
}

#[tokio::test]
async fn placements_are_filtered_and_paged() {
    let bed = bed();
    assert_eq!(bed.get("placements?policy=production").await["items"].as_array().unwrap().len(), 3);
    let held = bed.get("placements?state=held,pending&target=cluster-b").await;
    assert_eq!(names(&held), ["web-2"]);
    let page = bed.get("placements?limit=2").await;
    let next = page["continue"].as_str().unwrap().replace('/', "%2F");
    let rest = bed.get(&format!("placements?limit=2&continue={next}")).await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert!(rest["continue"].is_null());
}

#[tokio::test]
async fn clusters_and_hub_tell_sessions_and_watches() {
    let bed = bed();
    let list = bed.get("clusters").await;
    assert_eq!(names(&list), ["cluster-a", "cluster-b", "cluster-c"]);
    assert_eq!(list["items"][0]["watches"][0]["phase"], "Live");
    assert_eq!(bed.get("clusters?cluster=cluster-c").await["items"][0]["connected"], false);
    let hub = bed.get("hub").await;
    assert_eq!((&hub["policies"], &hub["outbox"]), (&json!(1), &json!(1)));
    assert_eq!(hub["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn what_changes_state_needs_the_token() {
    let mut bed = bed();
    bed.answer();
    let approve = r#"{"policy":"production","target":"cluster-b"}"#;
    for (path, body) in [
        ("approve", approve),
        ("pause", r#"{"scope":"everything"}"#),
        ("resume", r#"{"scope":{"cluster":"cluster-b"}}"#),
        ("tokens", r#"{"cluster":"cluster-d"}"#),
    ] {
        for wrong in [None, Some("another")] {
            let (status, answer) = bed.call(Method::POST, path, wrong, body).await;
            assert_eq!((status, &answer["code"]), (StatusCode::UNAUTHORIZED, &json!("LS0250")), "{path}");
            assert!(answer["remedy"].as_str().unwrap().contains("api-token"));
        }
        let (status, answer) = bed.call(Method::POST, path, Some(TOKEN), body).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
    }
    let (_, answer) = bed.call(Method::POST, "approve", Some(TOKEN), approve).await;
    assert!(answer["items"][0]["policy"].is_string(), "{answer}");
    let (status, answer) = bed.call(Method::POST, "tokens", Some(TOKEN), r#"{"cluster":"Bad_Name"}"#).await;
    assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("LS0253")));
    let (status, _) = bed.call(Method::POST, "clusters", Some(TOKEN), "").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_core_gets_kinds_in_full_and_its_refusals_pass() {
    let mut bed = bed();
    bed.answer();
    for (query, expected) in [
        ("kind=deploy&name=web&namespace=shop", "Deployment.apps shop/web"),
        ("kind=deploy&name=web", "Deployment.apps default/web"),
        ("kind=no&name=n1&namespace=shop", "Node /n1"),
    ] {
        let text = bed.refused(&format!("explain?{query}"), "LS0200").await;
        assert_eq!(text, format!("{expected}; "), "{query}");
    }
    bed.refused("compare?kind=deploy&name=web", "LS0253").await;
    bed.refused("compare?kind=deploy&name=web&cluster=cluster-b", "LS0259").await;
}

#[tokio::test]
async fn limits_hold() {
    let mut bed =
        bed_with(ApiConfig { request_timeout_seconds: 1, token_for_reads: true, ..ApiConfig::default() });
    bed.refused("clusters", "LS0250").await;
    let (status, _) = bed.call(Method::GET, "clusters", Some(TOKEN), "").await;
    assert_eq!(status, StatusCode::OK);
    // Nobody answers: the command waits in the channel.
    let query = "explain?kind=deploy&name=web";
    let (status, answer) = bed.call(Method::GET, query, Some(TOKEN), "").await;
    assert_eq!((status, &answer["code"]), (StatusCode::GATEWAY_TIMEOUT, &json!("LS0257")));
    drop(bed.commands.take());
    let (status, _) = bed.call(Method::GET, query, Some(TOKEN), "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    bed.refused("nothing", "LS0250").await;
    let long = "x".repeat(MAX_BODY_BYTES + 1);
    let (status, answer) = bed.call(Method::POST, "approve", Some(TOKEN), &long).await;
    assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("LS0253")));
}
