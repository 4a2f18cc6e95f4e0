//! Secrets: values stay where they belong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use futures::StreamExt;
use lockstep_tests::harness::{PATIENCE, TestNamespace, eventually, unique_name};
use lockstep_tests::lockstep::{Fleet, Lockstep, search};
use lockstep_tests::testbed::Testbed;
use lockstep_wire::{MAX_MESSAGE_BYTES, v1};
use prost::Message as _;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn policy(namespace: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: secrets }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: Secret, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_a_canary_appears_nowhere_but_in_the_clusters() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-canary").await?;
    let namespace = fleet.namespace.as_str();
    let canary = unique_name("canary-value-that-nobody-may-see")?;
    let encoded = base64(&canary);
    // What a 422 of the target would quote: the same name as an immutable Secret of ours there.
    let mut lockstep = Lockstep::prepare(&bed).await?;
    lockstep.log("trace");
    lockstep.policy("policy.yaml", &policy(namespace))?;
    lockstep.start().await?;
    let secret = |name: &str, kind: &str, data: serde_json::Value| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": kind,
            "metadata": {"name": name, "namespace": namespace, "labels": {"sync": "yes"}}, "data": data})
    };
    let source = fleet.source();
    source.apply_value(&secret("plain", "Opaque", json!({"password": encoded}))).await?;
    fleet.everywhere("v1", "Secret", "plain", |s| s["data"]["password"] == encoded.as_str()).await?;
    // An update that the target refuses: the type is immutable, and the source was made anew with
    // another one. The server's answer quotes what it got.
    source.delete("v1", "Secret", Some(namespace), "plain").await?;
    source
        .apply_value(&secret("plain", "example.com/other", json!({"password": encoded, "more": encoded})))
        .await?;
    eventually(PATIENCE, "the refusal shows, or the delete came first", async || {
        let standing = lockstep.standing("secret/plain", namespace, "cluster-b").await?;
        ensure!(!standing.starts_with("Pending"), "{standing}");
        Ok(())
    })
    .await?;
    // A deleted one goes through store, outbox and archive.
    source.apply_value(&secret("gone", "Opaque", json!({"password": encoded}))).await?;
    fleet.everywhere("v1", "Secret", "gone", |_| true).await?;
    source.delete("v1", "Secret", Some(namespace), "gone").await?;
    fleet.nowhere("v1", "Secret", "gone").await?;

    let mut said = String::new();
    for command in [
        &["status", "-o", "json"][..],
        &["clusters", "-o", "json"],
        &["get", "secrets", "-A", "-o", "json"],
        &["get", "secrets", "-A", "-o", "yaml"],
        &["explain", "secret/plain", "-n", namespace, "-o", "json"],
        &["diff", "secrets", "--all"],
        &["tombstones", "list", "-o", "json"],
        &["tombstones", "show", "1"],
    ] {
        let printed = lockstep.run(command).await?;
        said += &printed.stdout;
        said += &printed.stderr;
    }
    let metrics = lockstep.metrics().await?;
    ensure!(metrics.contains("lockstep_"), "{metrics}");
    for cluster in fleet.clusters {
        let events = cluster.list("v1", "Event", Some(namespace), "").await?;
        said += &serde_json::to_string(&events)?;
    }
    lockstep.stop().await?;
    let logged = lockstep.logged()?;
    ensure!(logged.contains("TRACE"), "the log must be at trace level for this to mean anything");
    // base64 of a text shifts with its position; these are the three alignments.
    let inner: Vec<String> = (0..3).map(|n| base64(&canary[n..])[..24].to_owned()).collect();
    let mut needles: Vec<&str> = vec![&canary, &encoded];
    needles.extend(inner.iter().map(String::as_str));
    for needle in &needles {
        for (what, text) in [("output", &said), ("metrics", &metrics), ("log", &logged)] {
            if let Some(at) = text.find(needle) {
                let from = text[..at].char_indices().rev().nth(300).map_or(0, |(n, _)| n);
                panic!("the canary is in the {what}: {}", &text[from..at]);
            }
        }
    }
    let found = search(lockstep.dir.path(), &needles)?;
    ensure!(found.is_none(), "{found:?}");
    Ok(())
}

/// Stands between an agent and its hub, and keeps every message that passes, decompressed.
struct Spy {
    hub: String,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

#[tonic::async_trait]
impl v1::hub_server::Hub for Spy {
    type SessionStream = ReceiverStream<Result<v1::HubMessage, tonic::Status>>;

    async fn session(
        &self,
        request: tonic::Request<tonic::Streaming<v1::AgentMessage>>,
    ) -> Result<tonic::Response<Self::SessionStream>, tonic::Status> {
        let authorization = request.metadata().get("authorization").cloned();
        let (up, upward) = mpsc::channel(64);
        let (down, downward) = mpsc::channel(64);
        let (seen, seen_down) = (self.seen.clone(), self.seen.clone());
        let mut from_agent = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(message)) = from_agent.next().await {
                seen.lock().unwrap().push(message.encode_to_vec());
                if up.send(message).await.is_err() {
                    return;
                }
            }
        });
        let mut client = v1::hub_client::HubClient::connect(self.hub.clone())
            .await
            .map_err(|e| tonic::Status::unavailable(e.to_string()))?
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .accept_compressed(tonic::codec::CompressionEncoding::Zstd);
        tokio::spawn(async move {
            let mut request = tonic::Request::new(ReceiverStream::new(upward));
            if let Some(authorization) = authorization {
                request.metadata_mut().insert("authorization", authorization);
            }
            let Ok(answer) = client.session(request).await else { return };
            let mut from_hub = answer.into_inner();
            while let Some(message) = from_hub.next().await {
                if let Ok(message) = &message {
                    seen_down.lock().unwrap().push(message.encode_to_vec());
                }
                if down.send(message).await.is_err() {
                    return;
                }
            }
        });
        Ok(tonic::Response::new(ReceiverStream::new(downward)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_policy_selects_never_crosses_the_wire() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-wire").await?;
    let namespace = fleet.namespace.as_str();
    let [b, _] = fleet.targets();
    let _in_b = TestNamespace::create_named(b, namespace).await?;
    let secret_value = base64(&unique_name("must-not-travel")?);
    let wanted_value = base64(&unique_name("may-travel")?);
    let secret = |name: &str, labels: serde_json::Value, value: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "data": {"value": value}})
    };
    for cluster in [fleet.source(), b] {
        cluster.apply_value(&secret("private", json!({}), &secret_value)).await?;
    }
    fleet.source().apply_value(&secret("shared", json!({"sync": "yes"}), &wanted_value)).await?;
    // One that a policy wants, and that is there already without being ours.
    b.apply_value(&secret("taken", json!({}), &secret_value)).await?;
    fleet.source().apply_value(&secret("taken", json!({"sync": "yes"}), &wanted_value)).await?;

    let hub = Lockstep::hub_with_policy(&bed, &policy(namespace), &[]).await?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let spy = Spy { hub: format!("http://{}", hub.address("agents")?), seen: seen.clone() };
    let server = v1::hub_server::HubServer::new(spy)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .accept_compressed(tonic::codec::CompressionEncoding::Zstd);
    let serving = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(server)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let mut agents = Vec::new();
    for cluster in ["cluster-a", "cluster-b", "cluster-c"] {
        agents.push(hub.agent(cluster, &format!("http://{address}"), &[]).await?);
    }
    fleet.everywhere_but(b, "v1", "Secret", "taken", |_| true).await?;
    fleet.everywhere("v1", "Secret", "shared", |s| s["data"]["value"] == wanted_value.as_str()).await?;
    hub.stands("secret/taken", namespace, "cluster-b", "Conflict").await?;
    // Touched again, so that updates are seen as well.
    fleet.source().apply_value(&secret("private", json!({"touched": "1"}), &secret_value)).await?;
    fleet.source().apply_value(&secret("last", json!({"sync": "yes"}), &wanted_value)).await?;
    fleet.everywhere("v1", "Secret", "last", |_| true).await?;
    let messages = seen.lock().unwrap().clone();
    let contains = |needle: &str| {
        messages.iter().filter(|m| m.windows(needle.len()).any(|w| w == needle.as_bytes())).count()
    };
    ensure!(contains(&wanted_value) > 0, "the capture must see what may travel");
    ensure!(contains("private") > 0, "keys travel");
    ensure!(contains(&secret_value) == 0, "a value that no policy selects crossed the wire");
    // Tokens of service accounts are never synced: their values stay, too.
    let tokens = fleet.source().list("v1", "Secret", Some(namespace), "").await?;
    for token in tokens.iter().filter(|s| s["type"] == "kubernetes.io/service-account-token") {
        let value = token["data"]["token"].as_str().context("a token")?;
        ensure!(contains(value) == 0, "a service account's token crossed the wire");
    }
    serving.abort();
    Ok(())
}
