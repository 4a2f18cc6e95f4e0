//! An agent is away while much happens and etcd forgets it: the resume meets 410, a list shows what is, and what was
//! deleted is inferred, kept, and deleted at the targets. On control planes of the test's own, because it compacts
//! etcd and restarts API servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_engine::listwatch::PAGE_START;
use lockstep_tests::cluster::Cluster;
use lockstep_tests::conditions::now_ms;
use lockstep_tests::harness::{PATIENCE, eventually};
use lockstep_tests::identity::Identity;
use lockstep_tests::load::{Maps, names};
use lockstep_tests::lockstep::{Fleet, Lockstep};
use lockstep_tests::testbed::{CLUSTERS, Component, Options, Testbed};
use serde_json::{Value, json};
use tokio::process::Child;

const MANAGED: &str = "lockstep.dev/managed=true";
const SELECTED: &str = "sync=yes";

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
  deletion: {{ budget: {{ count: 1000 }} }}
"
    )
}

/// What happens in a gap, and to how many.
#[derive(Clone, Copy)]
struct Gap {
    deleted: usize,
    changed: usize,
    recreated: usize,
    created: usize,
    untouched: usize,
}

impl Gap {
    fn before(&self) -> Vec<String> {
        let parts = [
            names("deleted", self.deleted),
            names("changed", self.changed),
            names("recreated", self.recreated),
            names("untouched", self.untouched),
        ];
        parts.concat()
    }

    fn after(&self) -> usize {
        self.changed + self.recreated + self.created + self.untouched
    }

    /// Changes at the source that nobody watches, and then cannot be watched any more. Gives when it began.
    async fn happens(&self, source: &Cluster, maps: &Maps) -> Result<i64> {
        let began = now_ms()?;
        // A state that nobody saw, and then a delete: what is kept is the last that was committed.
        maps.replace(&names("deleted", self.deleted / 2), "never seen").await?;
        maps.delete(&names("deleted", self.deleted)).await?;
        maps.replace(&names("changed", self.changed), "3").await?;
        maps.delete(&names("recreated", self.recreated)).await?;
        maps.create(&names("recreated", self.recreated), "3").await?;
        maps.create(&names("created", self.created), "3").await?;
        forget(source).await?;
        Ok(began)
    }
}

/// Compacts etcd and empties the watch cache: no watch can go on from before.
async fn forget(cluster: &Cluster) -> Result<()> {
    cluster.control_plane().compact().await?;
    cluster.control_plane().restart(Component::ApiServer).await
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

type Objects = BTreeMap<String, Value>;

/// What a test knows from before the gap.
struct Before {
    sources: Objects,
    copies: Vec<Objects>,
    writes: Vec<usize>,
}

async fn look(fleet: &Fleet<'_>, identity: &Identity) -> Result<Before> {
    let sources = Maps::of(fleet.source(), &fleet.namespace).await?.labelled(SELECTED).await?;
    let (mut copies, mut writes) = (Vec::new(), Vec::new());
    for target in fleet.targets() {
        copies.push(Maps::of(target, &fleet.namespace).await?.labelled(MANAGED).await?);
        writes.push(identity.writes(target)?.len());
    }
    Ok(Before { sources, copies, writes })
}

/// Exactly the right effect: values and identities of all copies, and the number of writes.
async fn check_targets(fleet: &Fleet<'_>, identity: &Identity, gap: Gap, before: &Before) -> Result<()> {
    let sources = Maps::of(fleet.source(), &fleet.namespace).await?.labelled(SELECTED).await?;
    ensure!(sources.len() == gap.after());
    for (n, target) in fleet.targets().into_iter().enumerate() {
        let place = target.name();
        let copies = Maps::of(target, &fleet.namespace).await?.labelled(MANAGED).await?;
        ensure!(copies.keys().eq(sources.keys()), "{place}: {:?}", copies.keys().collect::<Vec<_>>());
        for (name, copy) in &copies {
            ensure!(copy["data"] == sources[name]["data"], "{place}: {copy}");
            let old = before.copies[n].get(name);
            let same = |pointer: &str| old.is_some_and(|old| old.pointer(pointer) == copy.pointer(pointer));
            let expected = if name.starts_with("untouched") {
                same("/metadata/resourceVersion")
            } else {
                name.starts_with("created") || same("/metadata/uid")
            };
            ensure!(expected, "{place}: {old:?} became {copy}");
        }
        let writes = identity.writes(target)?.split_off(before.writes[n]);
        let deletes = writes.iter().filter(|event| event.verb == "delete").count();
        ensure!(deletes == gap.deleted, "{place}: {deletes} deletes");
        let applies = writes.len() - deletes;
        ensure!(applies == gap.changed + gap.recreated + gap.created, "{place}: {applies} applies");
    }
    Ok(())
}

/// A tombstone for each that went, with the last state that was committed, inferred, with a window that holds the
/// moment of the delete.
async fn check_tombstones(
    lockstep: &Lockstep,
    fleet: &Fleet<'_>,
    gap: Gap,
    before: &Before,
    began: i64,
) -> Result<()> {
    let filter = ["--cluster", "cluster-a", "-n", &fleet.namespace, "--limit", "1000"];
    let list = lockstep.json(&[&["tombstones", "list", "configmap"], &filter[..]].concat()).await?;
    let items = list["items"].as_array().context("a list")?;
    ensure!(items.len() == gap.deleted + gap.recreated, "{} tombstones", items.len());
    for item in items {
        let name = text(item, "/name");
        ensure!(name.starts_with("deleted") || name.starts_with("recreated"), "{item}");
        let last = &before.sources[name];
        ensure!(item["cause"] == "Inferred" && item["deleted"] == true, "{item}");
        ensure!(item["uid"] == last["metadata"]["uid"], "{item}, but it was {last}");
        ensure!(item["resourceVersion"] == last["metadata"]["resourceVersion"], "{item}, but it was {last}");
        let time = |field: &str| item[field].as_i64().with_context(|| format!("no {field}: {item}"));
        let (seen, until, deleted) = (time("lastSeenMs")?, time("knownUntilMs")?, time("deletedAtMs")?);
        ensure!(seen <= until && until <= began && began <= deleted, "began at {began}: {item}");
    }
    // Bodies of some: the state that was never seen is not what is kept.
    for item in items.iter().step_by(items.len() / 5) {
        let shown = lockstep.json(&["tombstones", "show", &item["id"].to_string()]).await?;
        ensure!(shown["body"]["data"]["k"] == "2", "{shown}");
        ensure!(shown["body"]["metadata"]["uid"] == item["uid"], "{shown}");
    }
    Ok(())
}

/// Everything is in step at its second version, which the hub has committed.
async fn fill(lockstep: &Lockstep, name: &str, fleet: &Fleet<'_>, gap: Gap) -> Result<()> {
    let maps = Maps::of(fleet.source(), &fleet.namespace).await?;
    maps.create(&gap.before(), "1").await?;
    lockstep.all_in_step(name, gap.before().len(), PATIENCE).await?;
    maps.replace(&gap.before(), "2").await?;
    let sources = maps.labelled(SELECTED).await?;
    eventually(PATIENCE, "the hub holds the second versions", async || {
        let list = ["get", "configmap", "--cluster", "cluster-a", "-n", &fleet.namespace, "-l", SELECTED];
        let list = lockstep.json(&list).await?;
        let items = list["items"].as_array().context("a list")?;
        let newest = |item: &Value| {
            item["resourceVersion"] == sources[text(item, "/name")]["metadata"]["resourceVersion"]
        };
        ensure!(items.len() == sources.len() && items.iter().all(newest), "{} of them", items.len());
        Ok(())
    })
    .await?;
    lockstep.all_in_step(name, gap.before().len(), PATIENCE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_in_a_gap_that_etcd_forgot_has_exactly_its_effect() -> Result<()> {
    let bed = Testbed::start(Options { audit: true, ..Options::default() }).await?;
    all_down(&bed).await?;
    one_agent_down(&bed).await
}

/// Hub and agents are killed.
async fn all_down(bed: &Testbed) -> Result<()> {
    let gap = Gap { deleted: 200, changed: 100, recreated: 50, created: 20, untouched: 30 };
    let fleet = Fleet::new(bed, "e2e-gap").await?;
    let identity = Identity::install(bed, "gap").await?;
    let mut lockstep = Lockstep::prepare_with(&identity.kubeconfig(bed, &BTreeMap::new()).await?)?;
    lockstep.log("info,lockstep_cluster=debug");
    lockstep.policy("policy.yaml", &policy("gap", &fleet.namespace))?;
    lockstep.start().await?;
    let maps = Maps::of(fleet.source(), &fleet.namespace).await?;
    fill(&lockstep, "gap", &fleet, gap).await?;
    let before = look(&fleet, &identity).await?;

    lockstep.kill().await?;
    let began = gap.happens(fleet.source(), &maps).await?;
    let after = now_ms()?;
    lockstep.start().await?;
    lockstep.resumed(&CLUSTERS, after).await?;
    lockstep.all_in_step("gap", gap.after(), PATIENCE).await?;
    check_targets(&fleet, &identity, gap, &before).await?;
    check_tombstones(&lockstep, &fleet, gap, &before, began).await?;
    // It was a gap indeed: the source was listed, the targets went on.
    let listed = |cluster: &Cluster| -> Result<usize> {
        let requests = identity.requests(cluster)?;
        let place = format!("/namespaces/{}/configmaps?limit={PAGE_START}", fleet.namespace);
        Ok(requests.iter().filter(|event| event.verb == "list" && event.request_uri.contains(&place)).count())
    };
    ensure!(listed(fleet.source())? == 2, "once at first, once after the gap: {}", listed(fleet.source())?);
    for target in fleet.targets() {
        ensure!(listed(target)? == 1, "{} was listed again", target.name());
    }
    lockstep.stop().await
}

/// The hub stays, and the agent of the source is killed: its cluster is unknown, not empty.
async fn one_agent_down(bed: &Testbed) -> Result<()> {
    let gap = Gap { deleted: 20, changed: 10, recreated: 5, created: 2, untouched: 3 };
    let fleet = Fleet::new(bed, "e2e-absent").await?;
    let identity = Identity::install(bed, "absent").await?;
    let kubeconfig = identity.kubeconfig(bed, &BTreeMap::new()).await?;
    let hub = Lockstep::hub_as(&kubeconfig, &policy("absent", &fleet.namespace), &[]).await?;
    let address = format!("http://{}", hub.address("agents")?);
    let mut agent = hub.agent("cluster-a", &address, &[]).await?;
    let target_agent = hub.agent("cluster-b", &address, &[]).await?;
    let _other = hub.agent("cluster-c", &address, &[]).await?;
    let maps = Maps::of(fleet.source(), &fleet.namespace).await?;
    fill(&hub, "absent", &fleet, gap).await?;
    let before = look(&fleet, &identity).await?;

    agent.kill().await?;
    let began = gap.happens(fleet.source(), &maps).await?;
    eventually(PATIENCE, "the hub says since when the source is unknown", async || {
        let clusters = hub.json(&["clusters", "cluster-a"]).await?;
        let cluster = &clusters["items"][0];
        ensure!(cluster["connected"] == false && cluster["sinceMs"].is_i64(), "{cluster}");
        ensure!(text(cluster, "/watches/0/phase") == "Unknown", "{cluster}");
        Ok(())
    })
    .await?;
    let says = hub.text(&["explain", "configmap/deleted-00000", "-n", &fleet.namespace]).await?;
    ensure!(says.contains("cluster-a: Unknown") || says.contains("not connected"), "{says}");
    // While it is away nothing is concluded, and the targets are left as they are.
    for (n, target) in fleet.targets().into_iter().enumerate() {
        let copies = Maps::of(target, &fleet.namespace).await?.labelled(MANAGED).await?;
        ensure!(copies == before.copies[n], "{} was changed", target.name());
    }
    let _agent = hub.agent("cluster-a", &address, &[]).await?;
    hub.all_in_step("absent", gap.after(), PATIENCE + Duration::from_secs(30)).await?;
    check_targets(&fleet, &identity, gap, &before).await?;
    check_tombstones(&hub, &fleet, gap, &before, began).await?;
    target_away(&hub, &fleet, &identity, target_agent, &address).await
}

/// The agent of a target is away, while both its source and its copies change, and etcd forgets the latter.
async fn target_away(
    hub: &Lockstep,
    fleet: &Fleet<'_>,
    identity: &Identity,
    mut agent: Child,
    address: &str,
) -> Result<()> {
    let [b, c] = fleet.targets();
    let sources = Maps::of(fleet.source(), &fleet.namespace).await?;
    let (copies, others) = (Maps::of(b, &fleet.namespace).await?, Maps::of(c, &fleet.namespace).await?);
    let (lost, altered, changed) = (names("changed", 2), names("recreated", 2), names("untouched", 3));
    let objects = sources.labelled(SELECTED).await?.len();
    agent.kill().await?;
    let writes = identity.writes(b)?.len();
    copies.delete(&lost).await?;
    for name in &altered {
        let drift = json!({"data": {"k": "altered"}});
        b.patch("v1", "ConfigMap", Some(&fleet.namespace), name, &drift).await?;
    }
    for value in ["4", "5", "6"] {
        sources.replace(&changed, value).await?;
        eventually(PATIENCE, "the other target follows", async || {
            let copies = others.labelled(MANAGED).await?;
            ensure!(changed.iter().all(|name| text(&copies[name], "/data/k") == value));
            Ok(())
        })
        .await?;
    }
    eventually(PATIENCE, "the hub says what waits", async || {
        let clusters = hub.json(&["clusters", "cluster-b"]).await?;
        let cluster = &clusters["items"][0];
        ensure!(cluster["connected"] == false && cluster["waiting"] == changed.len(), "{cluster}");
        Ok(())
    })
    .await?;
    forget(b).await?;
    let after = now_ms()?;
    let _agent = hub.agent("cluster-b", address, &[]).await?;
    hub.resumed(&["cluster-b"], after).await?;
    hub.all_in_step("absent", objects, PATIENCE).await?;
    let (wanted, found) = (sources.labelled(SELECTED).await?, copies.labelled(MANAGED).await?);
    ensure!(
        wanted.keys().eq(found.keys())
            && found.iter().all(|(name, copy)| copy["data"] == wanted[name]["data"])
    );
    let written = identity.writes(b)?.split_off(writes);
    ensure!(written.iter().all(|event| event.verb == "patch"), "{written:?}");
    ensure!(written.len() == lost.len() + altered.len() + changed.len(), "the net effect only: {written:?}");
    Ok(())
}
