//! The hub's data directory on a disk that is full for a while.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};
use tokio::net::TcpStream;

const OBJECTS: usize = 12;

fn policy(name: &str, namespace: &str) -> String {
    format!(
        "apiVersion: sync.k8s.io/v1
kind: ClusterSyncPolicy
metadata: {{ name: {name} }}
spec:
  sourceCluster: cluster-a
  targetClusters: [cluster-b, cluster-c]
  resources:
  - {{ kind: ConfigMap, namespaces: [{namespace}], matchLabels: {{ sync: 'yes' }} }}
"
    )
}

fn map(namespace: &str, name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"sync": "yes"}}, "data": {"k": value}})
}

/// A place for a data directory that a test can fill without harm to others.
enum Disk {
    /// A file system of its own.
    Mounted(PathBuf),
    /// One that is shared: a bound is set just below what is free there.
    Shared(PathBuf),
}

impl Disk {
    /// Puts it where the data directory is. Not everybody may mount.
    fn under(data: &Path, mib: u64) -> Result<Self> {
        let size = format!("size={mib}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(data).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Ok(Self::Mounted(data.to_owned()));
        }
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let place = tempfile::tempdir_in(parent)?.keep();
        std::fs::remove_dir(data)?;
        std::os::unix::fs::symlink(&place, data)?;
        Ok(Self::Shared(place))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Mounted(path) | Self::Shared(path) => path,
        }
    }

    fn free(&self) -> Result<u64> {
        let output = Command::new("df").args(["--output=avail", "-B1"]).arg(self.path()).output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text.lines().last().context("df says nothing")?.trim().parse()?)
    }

    /// Takes so many bytes, or all there are.
    fn take(&self, bytes: u64) -> Result<()> {
        let mut file = std::fs::File::create(self.path().join("filler"))?;
        let chunk = vec![0x5a; 1 << 20];
        let mut taken = 0;
        while taken < bytes {
            match file.write(&chunk) {
                Ok(n) => taken += n as u64,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => bail!(error),
            }
        }
        Ok(())
    }

    fn give_back(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.path().join("filler"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        match self {
            // Lazily: the hub may still hold its files.
            Self::Mounted(path) => drop(Command::new("umount").arg("-l").arg(path).output()),
            Self::Shared(path) => drop(std::fs::remove_dir_all(path)),
        }
    }
}

/// What `/readyz` answers.
async fn ready(lockstep: &Lockstep) -> Result<(u16, String)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(lockstep.address("metrics")?).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let code = answer.split_whitespace().nth(1).context("a status line")?.parse()?;
    Ok((code, answer))
}

async fn is_full(lockstep: &Lockstep) -> Result<()> {
    eventually(PATIENCE, "the hub says that its disk is full", async || {
        let (code, answer) = ready(lockstep).await?;
        ensure!(code == 503 && answer.contains("LS0228"), "{answer}");
        Ok(())
    })
    .await
}

async fn goes_on(lockstep: &Lockstep) -> Result<()> {
    eventually(PATIENCE, "the hub goes on by itself", async || {
        let (code, answer) = ready(lockstep).await?;
        ensure!(code == 200, "{answer}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_is_full_nothing_is_taken_and_nothing_is_lost() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    let fleet = Fleet::new(&testbed, "e2e-full").await?;
    let namespace = fleet.namespace.as_str();
    let mut lockstep = Lockstep::prepare(&testbed).await?;
    lockstep.log("info");
    let disk = Disk::under(&lockstep.data(), 64)?;
    let (bound, filler) = match &disk {
        Disk::Mounted(_) => (16 << 20, u64::MAX),
        // Others may use it, too: not so near.
        Disk::Shared(_) => (disk.free()?.saturating_sub(512 << 20), 1 << 30),
    };
    lockstep.set("LOCKSTEP_CONFIG__MIN_FREE_BYTES", &bound.to_string());
    lockstep.policy("policy.yaml", &policy("fulls", namespace))?;
    lockstep.start().await?;
    for n in 0..OBJECTS {
        fleet.source().apply_value(&map(namespace, &format!("m{n}"), "1")).await?;
    }
    lockstep.all_in_step("fulls", OBJECTS, PATIENCE).await?;

    disk.take(filler)?;
    is_full(&lockstep).await?;
    fleet.source().apply_value(&map(namespace, "m0", "2")).await?;
    fleet.source().delete("v1", "ConfigMap", Some(namespace), "m1").await?;
    // Reads are answered, and say what is the matter; what changes something is refused.
    for line in [vec!["status"], vec!["clusters"]] {
        let printed = lockstep.run(&line).await?;
        let said = format!("{}{}", printed.stdout, printed.stderr);
        ensure!(printed.code == 0 && said.contains("LS0228"), "{line:?}: {said}");
    }
    let explained = lockstep.text(&["explain", "configmap/m1", "-n", namespace]).await?;
    ensure!(explained.contains("m1"), "{explained}");
    let refused = lockstep.run(&["pause", "--all"]).await?;
    ensure!(refused.code == 1 && refused.stderr.contains("LS0228"), "{refused:?}");
    eventually(PATIENCE, "agents are turned away", async || {
        let clusters = lockstep.json(&["clusters"]).await?;
        for cluster in clusters["items"].as_array().context("clusters")? {
            ensure!(cluster["connected"] == false, "{cluster}");
            ensure!(cluster["problem"].as_str().is_some_and(|why| why.contains("LS0228")), "{cluster}");
        }
        Ok(())
    })
    .await?;
    for target in fleet.targets() {
        let m0 = target.get("v1", "ConfigMap", Some(namespace), "m0").await?;
        ensure!(m0["data"]["k"] == "1", "taken in all the same: {m0}");
        target.get("v1", "ConfigMap", Some(namespace), "m1").await?;
    }

    disk.give_back()?;
    goes_on(&lockstep).await?;
    fleet.everywhere("v1", "ConfigMap", "m0", |found| found["data"]["k"] == "2").await?;
    fleet.nowhere("v1", "ConfigMap", "m1").await?;
    lockstep.all_in_step("fulls", OBJECTS - 1, PATIENCE).await?;
    eventually(PATIENCE, "one tombstone per cluster", async || {
        let line = ["tombstones", "list", "configmap", "-n", namespace, "--name", "m1"];
        let kept = lockstep.json(&line).await?;
        let items = kept["items"].as_array().context("a list")?;
        let clusters: Vec<&str> = items.iter().filter_map(|kept| kept["cluster"].as_str()).collect();
        ensure!(clusters.len() == 3 && clusters.contains(&"cluster-a"), "{kept}");
        Ok(())
    })
    .await?;
    // Told when it begins and when it ends, not every second.
    let logged = lockstep.logged()?;
    let lines = logged.lines().filter(|line| line.contains("owner") && line.contains("LS0228")).count();
    ensure!((1..4).contains(&lines), "{lines} lines:\n{logged}");
    lockstep.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_under_a_transaction_loses_nothing_of_it() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    let mut lockstep = Lockstep::prepare(&testbed).await?;
    lockstep.log("info");
    let disk = Disk::under(&lockstep.data(), 16)?;
    if matches!(disk, Disk::Shared(_)) {
        eprintln!("not shown here: nobody may mount a small file system on this machine");
        return Ok(());
    }
    let fleet = Fleet::new(&testbed, "e2e-enospc").await?;
    let namespace = fleet.namespace.as_str();
    // No bound: the database itself runs into the end of the disk.
    lockstep.set("LOCKSTEP_CONFIG__MIN_FREE_BYTES", "0");
    lockstep.policy("policy.yaml", &policy("ends", namespace))?;
    lockstep.start().await?;
    lockstep.settled().await?;
    // Half a megabyte each that no compression makes small.
    let value = |n: u64| -> String {
        let mut seed = n;
        let next = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'#' + u8::try_from((seed >> 56) % 57).unwrap_or(0))
        };
        std::iter::repeat_with(next).take(500_000).collect()
    };
    let mut count = 0;
    while ready(&lockstep).await?.0 == 200 {
        ensure!(count < 200, "the disk never was full");
        fleet.source().apply_value(&map(namespace, &format!("big-{count}"), &value(count))).await?;
        count += 1;
    }
    is_full(&lockstep).await?;
    fleet.source().apply_value(&map(namespace, "late", "1")).await?;
    // More room, as an operator gives it.
    let grown = Command::new("mount").args(["-o", "remount,size=512m"]).arg(disk.path()).output()?;
    ensure!(grown.status.success(), "{grown:?}");
    goes_on(&lockstep).await?;
    for n in 0..count {
        let wanted = value(n);
        fleet
            .everywhere("v1", "ConfigMap", &format!("big-{n}"), |found| found["data"]["k"] == wanted)
            .await?;
    }
    fleet.everywhere("v1", "ConfigMap", "late", |_| true).await?;
    lockstep.all_in_step("ends", usize::try_from(count)? + 1, PATIENCE).await?;
    lockstep.stop().await
}
