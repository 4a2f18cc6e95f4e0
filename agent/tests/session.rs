//! A whole agent between a hub and an API server that are played by this test.

// The lints' exception for tests does not see helper functions of an integration test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use lockstep_agent::{AgentConfig, AgentMetrics, Deleters, Token};
use lockstep_cluster::ClusterClient;
use lockstep_engine::interest::{Condition, Interest};
use lockstep_engine::{ClusterName, GroupKind};
use lockstep_wire::v1::hub_server::{Hub, HubServer};
use lockstep_wire::v1::{self, AgentMessage, HubMessage, agent_message, hub_message, outcome};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

/// Everything here happens within milliseconds, on a busy machine within seconds. Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(300);

fn config_map(name: &str, version: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "v"}, "metadata": {
        "name": name, "namespace": "shop", "uid": format!("u-{name}"), "resourceVersion": version.to_string(),
    }})
}

/// An API server with one ConfigMap; lines of its watch come out of a channel.
type Lines = Arc<Mutex<Option<mpsc::Receiver<Value>>>>;

async fn config_maps(State(lines): State<Lines>, Query(query): Query<Vec<(String, String)>>) -> Response {
    if !query.iter().any(|(name, _)| name == "watch") {
        let items = [config_map("a", 90)];
        return Json(
            json!({"kind": "ConfigMapList", "metadata": {"resourceVersion": "100"}, "items": items}),
        )
        .into_response();
    }
    match lines.lock().await.take() {
        Some(lines) => {
            let lines =
                ReceiverStream::new(lines).map(|line| Ok::<_, Infallible>(Bytes::from(format!("{line}\n"))));
            Body::from_stream(lines).into_response()
        }
        None => StatusCode::TOO_MANY_REQUESTS.into_response(),
    }
}

async fn apply(Path(name): Path<String>, body: Bytes) -> Response {
    let mut object: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(object["apiVersion"], "v1", "the agent fills in the version");
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.insert("uid".into(), format!("u-{name}").into());
    metadata.insert("resourceVersion".into(), "200".into());
    let entry = json!({"manager": "lockstep", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:k": {}}}});
    metadata.insert("managedFields".into(), json!([entry]));
    (StatusCode::CREATED, Json(object)).into_response()
}

async fn api_server() -> (String, mpsc::Sender<Value>) {
    let (line, lines) = mpsc::channel(8);
    let resource = json!({"name": "configmaps", "singularName": "configmap", "kind": "ConfigMap", "namespaced": true,
        "verbs": ["get", "list", "watch", "patch", "delete"]});
    let counter = json!({"lockstep.dev/lease-counter": "7"});
    let lease = json!({"metadata": {"uid": "l", "resourceVersion": "5", "annotations": counter}});
    let fixed = |value: Value| get(move || async move { Json(value) });
    let router = Router::new()
        .route("/version", fixed(json!({"gitVersion": "v1.30.0"})))
        .route("/api", fixed(json!({"kind": "APIVersions", "versions": ["v1"]})))
        .route("/apis", fixed(json!({"kind": "APIGroupList", "groups": []})))
        .route(
            "/api/v1",
            fixed(json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [resource]})),
        )
        .route(
            "/api/v1/namespaces/kube-system",
            fixed(json!({"metadata": {"name": "kube-system", "uid": "u"}})),
        )
        .route(
            "/apis/coordination.k8s.io/v1/namespaces/lockstep-system/leases/lockstep-agent",
            fixed(lease.clone()).patch(move || async move { Json(lease) }),
        )
        .route("/api/v1/configmaps", get(config_maps))
        .route("/api/v1/namespaces/shop/configmaps/{name}", axum::routing::patch(apply))
        .with_state(Arc::new(Mutex::new(Some(lines))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, line)
}

/// One stream of the agent, in the hands of the test.
struct Line {
    token: String,
    incoming: Streaming<AgentMessage>,
    out: mpsc::Sender<Result<HubMessage, Status>>,
}

struct FakeHub(mpsc::Sender<Line>);

#[tonic::async_trait]
impl Hub for FakeHub {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<HubMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<tonic::Response<Self::SessionStream>, Status> {
        let token = request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
        let (out, outgoing) = mpsc::channel(64);
        self.0.send(Line { token, incoming: request.into_inner(), out }).await.unwrap();
        Ok(tonic::Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

async fn hub() -> (String, mpsc::Receiver<Line>) {
    let (lines, accepted) = mpsc::channel(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = HubServer::new(FakeHub(lines))
        .accept_compressed(tonic::codec::CompressionEncoding::Zstd)
        .send_compressed(tonic::codec::CompressionEncoding::Zstd);
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    (url, accepted)
}

impl Line {
    async fn say(&self, body: hub_message::Body) {
        self.out.send(Ok(HubMessage { body: Some(body) })).await.unwrap();
    }

    /// The next message that this picks something from.
    async fn until<T>(&mut self, mut pick: impl FnMut(agent_message::Body) -> Option<T>) -> T {
        let search = async {
            loop {
                let message = self.incoming.message().await.unwrap().expect("the agent hung up");
                if let Some(found) = pick(message.body.unwrap()) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("in time")
    }

    async fn hello(&mut self) -> v1::Hello {
        self.until(|body| match body {
            agent_message::Body::Hello(hello) => Some(hello),
            other => panic!("before hello: {other:?}"),
        })
        .await
    }

    /// The next batch with an item of this name.
    async fn batch_with(&mut self, name: &str) -> v1::Batch {
        self.until(|body| match body {
            agent_message::Body::Batch(batch) => {
                let mut items = batch.sections.iter().flat_map(|section| &section.items);
                items.any(|item| item.name == name).then_some(batch)
            }
            _ => None,
        })
        .await
    }

    async fn welcome(&self, same_instance: bool, committed: u64) {
        self.say(hub_message::Body::Welcome(v1::Welcome {
            protocol: 1,
            same_instance,
            committed,
            window_bytes: 1 << 20,
            window_batches: 8,
            secret_key: Bytes::from_static(&[7; 32]),
            ..v1::Welcome::default()
        }))
        .await;
        let interest = Interest {
            gk: GroupKind::new("", "ConfigMap"),
            scope: String::new(),
            conditions: [Condition::default()].into(),
            managed: true,
            archive: std::collections::BTreeSet::new(),
            revisions: false,
        };
        let interest = Bytes::from(serde_json::to_vec(&interest).unwrap());
        let watches = vec![v1::WatchInterest { watch: 1, interest }];
        self.say(hub_message::Body::Interest(v1::InterestSet { generation: 1, watches })).await;
        if !same_instance {
            let resume = v1::Resume { watch: 1, epoch: 0, last: true, ..v1::Resume::default() };
            self.say(hub_message::Body::Resume(resume)).await;
        }
    }
}

fn step(kind: &str, name: &str) -> v1::Step {
    let absent = v1::apply::Expect::Absent(v1::Absent { nonce: "n".into(), again: false });
    let body = json!({"metadata": {"name": name, "namespace": "shop"}, "data": {"k": "v"}});
    let apply = v1::Apply {
        body: Bytes::from(body.to_string()),
        versions: vec!["v9".into(), "v1".into()],
        expect: Some(absent),
        ..v1::Apply::default()
    };
    v1::Step {
        step: 7,
        kind: kind.into(),
        namespace: "shop".into(),
        name: name.into(),
        action: Some(v1::step::Action::Apply(apply)),
        ..v1::Step::default()
    }
}

#[tokio::test]
async fn an_agent_lists_watches_applies_and_sends_again_what_was_not_acknowledged() {
    let (server, event) = api_server().await;
    let (address, mut lines) = hub().await;
    let config = AgentConfig::new(ClusterName::new("a").unwrap(), &address, Token::new("t0ken"));
    let client =
        ClusterClient::new(kube::Config::new(server.parse().unwrap()), config.client_limits()).unwrap();
    let metrics = AgentMetrics::register(&mut prometheus_client::registry::Registry::default());
    let cancelled = CancellationToken::new();
    let agent =
        tokio::spawn(lockstep_agent::run(config, client, cancelled.clone(), metrics, Deleters::default()));

    let mut line = tokio::time::timeout(PATIENCE, lines.recv()).await.unwrap().unwrap();
    assert_eq!(line.token, "Bearer t0ken");
    let hello = line.hello().await;
    assert_eq!((hello.cluster_name.as_str(), hello.cluster_uid.as_str()), ("a", "u"));
    assert_eq!(hello.lease_counter, 7);
    line.welcome(false, 0).await;
    let listed = line.batch_with("a").await;
    line.say(hub_message::Body::Ack(v1::Ack { sequence: listed.sequence })).await;
    event.send(json!({"type": "ADDED", "object": config_map("b", 101)})).await.unwrap();
    let watched = line.batch_with("b").await;
    let section = &watched.sections[0];
    assert_eq!((section.checkpoint.as_str(), section.epoch), ("101", 1));

    line.say(hub_message::Body::Step(step("ConfigMap", "new"))).await;
    line.say(hub_message::Body::Step(v1::Step { step: 8, ..step("Gadget", "new") })).await;
    let mut outcomes = Vec::new();
    while outcomes.len() < 2 {
        let outcome = line.until(|body| match body {
            agent_message::Body::Outcome(outcome) => Some(outcome),
            _ => None,
        });
        outcomes.push(outcome.await);
    }
    outcomes.sort_by_key(|outcome| outcome.step);
    let Some(outcome::Result::Applied(applied)) = &outcomes[0].result else { panic!("{outcomes:?}") };
    assert!(applied.created && applied.owned_digest.len() == 16);
    assert_eq!((applied.uid.as_str(), applied.api_version.as_str()), ("u-new", "v1"));
    let Some(outcome::Result::Failed(failed)) = &outcomes[1].result else { panic!("{outcomes:?}") };
    assert_eq!(failed.class, "NotServed");

    // I1: the stream breaks before the second batch was acknowledged.
    drop(line);
    event.send(json!({"type": "ADDED", "object": config_map("c", 102)})).await.unwrap();
    let mut line = tokio::time::timeout(PATIENCE, lines.recv()).await.unwrap().unwrap();
    let again = line.hello().await;
    assert_eq!(again.instance, hello.instance);
    assert_eq!(again.live, [v1::LiveWatch { watch: 1, epoch: 1 }]);
    line.welcome(true, watched.sequence - 1).await;
    assert_eq!(line.batch_with("b").await, watched, "the same batch, with its number");
    line.batch_with("c").await;

    cancelled.cancel();
    tokio::time::timeout(PATIENCE, agent).await.unwrap().unwrap().unwrap();
}
