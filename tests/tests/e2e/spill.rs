//! The hub is away while more happens than an agent's memory may hold: it spills, and what it spilled arrives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::load::{Maps, names};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use tokio::net::{TcpListener, TcpStream};

const POLICY: &str = "spilling";
/// Memory of an agent's queue: for the keys of what happens, and for a tenth of the bodies.
const QUEUE_BYTES: &str = "300000";
/// For some hundred writes at each of two targets, on two cores that do other things, too.
const CATCHING_UP: Duration = Duration::from_secs(180);

fn policy(namespace: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: {POLICY} }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }}
  deletion: {{ budget: {{ count: 1000 }} }}
"
    )
}

/// One address for a hub that comes back at another port.
struct Door {
    address: String,
    hub: Arc<Mutex<String>>,
}

impl Door {
    async fn open(hub: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let hub = Arc::new(Mutex::new(hub));
        let now = Arc::clone(&hub);
        tokio::spawn(async move {
            while let Ok((mut agent, _)) = listener.accept().await {
                let hub = now.lock().unwrap().clone();
                tokio::spawn(async move {
                    let Ok(mut hub) = TcpStream::connect(hub).await else { return };
                    // Either end may hang up at any time.
                    let _ = tokio::io::copy_bidirectional(&mut agent, &mut hub).await;
                });
            }
        });
        Ok(Self { address, hub })
    }

    fn leads_to(&self, hub: String) {
        *self.hub.lock().unwrap() = hub;
    }
}

/// The spill file of a process, which has no name any more, as its file descriptor.
fn spill_file(pid: u32) -> Result<PathBuf> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        if std::fs::read_link(&path)
            .is_ok_and(|to| to.to_string_lossy().contains("lockstep-spill-cluster-a."))
        {
            return Ok(path);
        }
    }
    anyhow::bail!("process {pid} has no spill file")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spilled_while_the_hub_was_away_arrives() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let fleet = Fleet::new(&bed, "e2e-spill").await?;
    let mut hub = Lockstep::hub_with_policy(&bed, &policy(&fleet.namespace), &[]).await?;
    let door = Door::open(hub.address("agents")?).await?;
    let address = format!("http://{}", door.address);
    let dir = tempfile::tempdir()?;
    let spill_dir = dir.path().to_string_lossy().into_owned();
    let spills = [("LOCKSTEP_CONFIG__SPILL_DIR", &*spill_dir), ("LOCKSTEP_CONFIG__QUEUE_BYTES", QUEUE_BYTES)];
    let source = hub.agent("cluster-a", &address, &spills).await?;
    let _targets =
        [hub.agent("cluster-b", &address, &[]).await?, hub.agent("cluster-c", &address, &[]).await?];
    let maps = Maps::of(fleet.source(), &fleet.namespace).await?;
    maps.create(&names("early", 60), "1").await?;
    hub.all_in_step(POLICY, 60, CATCHING_UP).await?;
    let file = spill_file(source.id().context("the agent runs")?)?;
    ensure!(std::fs::metadata(&file)?.len() == 0, "nothing was spilled yet");

    hub.stop().await?;
    let large = format!("canary{}", "x".repeat(6_000));
    maps.create(&names("late", 200), "1").await?;
    maps.replace(&names("late", 200), &large).await?;
    maps.delete(&names("early", 30)).await?;
    eventually(PATIENCE, "bodies are spilled", async || {
        let length = std::fs::metadata(&file)?.len();
        ensure!(length > 700_000, "{length} bytes");
        Ok(())
    })
    .await?;
    let raw = std::fs::read(&file)?;
    ensure!(!raw.windows(6).any(|bytes| bytes == b"canary"), "I13: a body can be read in the spill file");
    ensure!(std::fs::read_dir(dir.path())?.next().is_none(), "a crash would leave a file");

    hub.start().await?;
    door.leads_to(hub.address("agents")?);
    hub.all_in_step(POLICY, 230, CATCHING_UP).await?;
    for target in fleet.targets() {
        let copies = Maps::of(target, &fleet.namespace).await?.labelled("lockstep.dev/managed=true").await?;
        ensure!(copies.len() == 230, "{} copies", copies.len());
        let whole = names("late", 200).iter().all(|name| copies[name]["data"]["k"] == *large);
        ensure!(whole && !copies.contains_key("early-00000"), "{copies:?}");
    }
    eventually(PATIENCE, "the disk is free again", async || {
        let length = std::fs::metadata(&file)?.len();
        ensure!(length == 0, "{length} bytes");
        Ok(())
    })
    .await
}
