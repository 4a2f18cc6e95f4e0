//! An agent in a real cluster, under a hub that is played by the test: what it tells of its Lease, of
//! rewinds, and of what the hub holds otherwise than the cluster does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use lockstep_engine::GroupKind;
use lockstep_engine::census::{Census, Member};
use lockstep_engine::interest::{Condition, Interest};
use lockstep_tests::cluster::Cluster;
use lockstep_tests::harness::{TestNamespace, in_time};
use lockstep_tests::lockstep::binary;
use lockstep_tests::testbed::Testbed;
use lockstep_wire::v1::item::Change;
use lockstep_wire::v1::{self, HubMessage, agent_message, hub_message};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Several signs of life, ten seconds apart, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(90);

type Out = mpsc::Sender<Result<HubMessage, Status>>;

struct Streams(mpsc::Sender<(Streaming<v1::AgentMessage>, Out)>);

#[tonic::async_trait]
impl v1::hub_server::Hub for Streams {
    type SessionStream = ReceiverStream<Result<HubMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (out, outgoing) = mpsc::channel(64);
        let stream = (request.into_inner(), out);
        self.0.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// A hub that keeps what it is told of one watch, and acks it.
struct Hub {
    incoming: Streaming<v1::AgentMessage>,
    out: Out,
    /// Name to uid and resourceVersion.
    rows: BTreeMap<String, (String, String)>,
    /// What came: `+a`, `~a`, `!a`, `Live/`, `lease 3`, `census 2`.
    told: Vec<String>,
    census: Option<v1::Census>,
}

impl Hub {
    async fn say(&self, body: hub_message::Body) -> Result<()> {
        Ok(self.out.send(Ok(HubMessage { body: Some(body) })).await?)
    }

    /// Takes messages until all these were told since the last call, in whatever order.
    async fn until(&mut self, wanted: &[&str]) -> Result<()> {
        let search = async {
            while !wanted.iter().all(|wanted| self.told.iter().any(|told| told == wanted)) {
                let message = self.incoming.message().await?.context("the agent hung up")?;
                self.take(message.body.context("a body")?).await?;
            }
            anyhow::Ok(())
        };
        let searched = in_time(PATIENCE, "the agent tells all of it", search).await;
        let told = std::mem::take(&mut self.told);
        searched.with_context(|| format!("waited for {wanted:?}, was told {told:?}"))?
    }

    async fn take(&mut self, body: agent_message::Body) -> Result<()> {
        match body {
            agent_message::Body::Hello(hello) => self.told.push(format!("hello {}", hello.lease_counter)),
            agent_message::Body::Heartbeat(beat) => self.told.push(format!("lease {}", beat.lease_counter)),
            agent_message::Body::Batch(batch) => {
                for section in batch.sections {
                    self.section(section);
                }
                self.say(hub_message::Body::Ack(v1::Ack { sequence: batch.sequence })).await?;
            }
            _ => {}
        }
        Ok(())
    }

    fn section(&mut self, section: v1::Section) {
        if let Some(status) = section.status {
            self.told.push(format!("{:?}/{}", status.phase(), status.reason));
        }
        for item in section.items {
            let v1::Item { name, uid, resource_version, change, .. } = item;
            match change {
                Some(Change::Upsert(_)) => {
                    self.told.push(format!("+{name}"));
                    self.rows.insert(name, (uid, resource_version));
                }
                Some(Change::Delete(delete)) => {
                    self.told.push(format!("{}{name}", if delete.inferred { "~" } else { "-" }));
                    self.rows.remove(&name);
                }
                Some(Change::Unseen(_)) => self.told.push(format!("!{name}")),
                _ => {}
            }
        }
        for census in section.census {
            self.told.push(format!("census {}", census.count));
            self.census = Some(census);
        }
    }

    /// What the hub would count.
    fn census(&self) -> Census {
        let mut census = Census::default();
        for (name, (uid, version)) in &self.rows {
            census.add(&Member { name, uid, resource_version: version, body_held: true, managed: false });
        }
        census
    }

    fn entries(&self, namespace: &str) -> Vec<v1::IndexEntry> {
        let entry = |(name, (uid, version)): (&String, &(String, String))| v1::IndexEntry {
            namespace: namespace.to_owned(),
            name: name.clone(),
            uid: uid.clone(),
            resource_version: version.clone(),
            body_held: true,
            managed: false,
        };
        self.rows.iter().map(entry).collect()
    }

    /// Welcomes the agent, and names one watch of ConfigMaps with what the hub holds of it.
    async fn welcome(&self, namespace: &str) -> Result<()> {
        self.say(hub_message::Body::Welcome(v1::Welcome {
            protocol: 1,
            window_bytes: 1 << 20,
            window_batches: 8,
            secret_key: Bytes::from_static(&[7; 32]),
            ..v1::Welcome::default()
        }))
        .await?;
        let interest = Interest {
            gk: GroupKind::new("", "ConfigMap"),
            scope: namespace.to_owned(),
            conditions: [Condition::default()].into(),
            managed: true,
            archive: std::collections::BTreeSet::new(),
            revisions: false,
        };
        let watches = vec![v1::WatchInterest { watch: 1, interest: serde_json::to_vec(&interest)?.into() }];
        self.say(hub_message::Body::Interest(v1::InterestSet { generation: 1, watches })).await?;
        let entries = self.entries(namespace);
        let resume = v1::Resume { watch: 1, entries, last: true, ..v1::Resume::default() };
        self.say(hub_message::Body::Resume(resume)).await
    }
}

/// An agent of its own, with its Lease in the test's namespace, and the stream that it opens.
async fn agent(
    bed: &Testbed,
    cluster: &Cluster,
    namespace: &str,
    dir: &std::path::Path,
) -> Result<(Child, Hub)> {
    let (streams, mut accepted) = mpsc::channel(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let hub = format!("http://{}", listener.local_addr()?);
    let zstd = tonic::codec::CompressionEncoding::Zstd;
    let server = v1::hub_server::HubServer::new(Streams(streams)).accept_compressed(zstd);
    let serving = tonic::transport::Server::builder().add_service(server);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    let token = dir.join("token");
    std::fs::write(&token, "t0ken")?;
    let log = std::fs::File::create(dir.join("log"))?;
    let child = Command::new(binary()?)
        .args(["agent", "--cluster", cluster.name(), "--hub", &hub, "--context", cluster.name()])
        .arg("--kubeconfig")
        .arg(&bed.state().kubeconfig)
        .arg("--agent-token-file")
        .arg(token)
        .env("LOCKSTEP_CONFIG__LEASE_NAMESPACE", namespace)
        .env("LOCKSTEP_CONFIG__CENSUS_INTERVAL_S", "2")
        .env("RUST_LOG", "debug")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    let stream = in_time(PATIENCE, "the agent comes", accepted.recv()).await?;
    let Some((incoming, out)) = stream else { bail!("the server is gone") };
    Ok((child, Hub { incoming, out, rows: BTreeMap::new(), told: Vec::new(), census: None }))
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_an_agent_counts_compares_and_recognises_a_rewind_on_a_real_server() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let [a, _, _] = bed.three()?;
    let namespace = TestNamespace::create(a, "guard").await?;
    let namespace = namespace.name();
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}});
    for name in ["a", "b"] {
        a.apply_value(&map(name)).await?;
    }
    let dir = tempfile::tempdir()?;
    let (_child, mut hub) = agent(&bed, a, namespace, dir.path()).await?;
    hub.until(&["hello 0"]).await?;
    // The hub holds an object that is gone: a list finds that, after discovery and Lease were asked.
    hub.rows.insert("gone".to_owned(), ("u-gone".to_owned(), "1".to_owned()));
    hub.welcome(namespace).await?;
    hub.until(&["+a", "+b", "~gone", "Live/", "lease 1"]).await?;

    // The hub's store decays: one row is wrong, one is lost, one was never there.
    let settled = async |hub: &mut Hub| -> Result<()> {
        loop {
            let count = hub.rows.len();
            hub.until(&[&format!("census {count}")]).await?;
            let theirs = hub.census.take().context("a census")?;
            if theirs.digest == hub.census().digest().as_slice() {
                return Ok(());
            }
        }
    };
    settled(&mut hub).await?;
    hub.rows.get_mut("a").context("a")?.0 = "another".to_owned();
    hub.rows.remove("b");
    hub.rows.insert("ghost".to_owned(), ("u-ghost".to_owned(), "1".to_owned()));
    let entries = hub.entries(namespace);
    let compare = v1::Compare { watch: 1, namespace: namespace.to_owned(), entries, last: true };
    hub.say(hub_message::Body::Compare(compare)).await?;
    hub.until(&["+a", "+b", "~ghost"]).await?;
    settled(&mut hub).await?;

    // The Lease goes, as by a restore to the time before lockstep.
    a.delete("coordination.k8s.io/v1", "Lease", Some(namespace), "lockstep-agent").await?;
    hub.until(&["lease 0", "Failing/RewindSuspected"]).await?;
    hub.until(&["Live/", "lease 1"]).await?;
    a.apply_value(&map("after")).await?;
    hub.until(&["+after"]).await?;
    ensure!(hub.rows.contains_key("a") && hub.rows.contains_key("b"), "{:?}", hub.rows);
    Ok(())
}
