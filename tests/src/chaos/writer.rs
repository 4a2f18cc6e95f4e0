//! Creates, changes and deletes objects in the sources, and disturbs copies in the targets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::dice::Dice;
use super::fleet::Fleet;
use super::journal::{Entry, Journal, Operation, Outcome};
use super::objects::{CLASH, DEFINITION_NAME, Kind, POLICIES, Policy, Slot};
use crate::cluster::{Cluster, FIELD_MANAGER};

/// An operation that takes longer is given up, with an unknown outcome.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two operations of one writer; there is one writer per policy.
const PAUSE_LEAST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_millis(700);
/// Between two disturbances of copies.
const DRIFT_LEAST: Duration = Duration::from_millis(500);
const DRIFT_MOST: Duration = Duration::from_secs(3);

/// All writers; they end when told to.
pub(super) struct Writers {
    tasks: JoinSet<Result<()>>,
    stop: Arc<AtomicBool>,
}

struct Writer {
    fleet: Arc<Fleet>,
    journal: Arc<Journal>,
    serial: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    dice: Dice,
}

impl Writers {
    pub(super) fn start(fleet: &Arc<Fleet>, journal: &Arc<Journal>, seed: u64) -> Self {
        let (stop, serial) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
        let mut tasks = JoinSet::new();
        let writer = |stream: &str| Writer {
            fleet: Arc::clone(fleet),
            journal: Arc::clone(journal),
            serial: Arc::clone(&serial),
            stop: Arc::clone(&stop),
            dice: Dice::new(seed, stream),
        };
        for policy in POLICIES {
            tasks.spawn(writer(policy.name).write(policy));
        }
        for target in [1, 2] {
            tasks.spawn(writer(&format!("drift {target}")).disturb(target));
        }
        Self { tasks, stop }
    }

    /// Ends them, and reads back what became of operations without an answer.
    pub(super) async fn stop(mut self, fleet: &Fleet, journal: &Journal) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a writer panicked")??;
        }
        let unknown: Vec<Entry> =
            journal.entries().into_iter().filter(|entry| entry.outcome == Outcome::Unknown).collect();
        for entry in unknown {
            let Entry { cluster, kind, namespace, name, .. } = &entry;
            let kind = Kind::ALL.into_iter().find(|candidate| candidate.name() == *kind).context("a kind")?;
            let found =
                fleet.cluster(*cluster)?.find(kind.api_version(), kind.name(), Some(namespace), name).await;
            let found = found.ok().flatten().unwrap_or_default();
            let entry = journal.entry(*cluster, kind, namespace, name);
            journal.note(Entry {
                uid: text(&found, "/metadata/uid"),
                resource_version: text(&found, "/metadata/resourceVersion"),
                ..entry
            })?;
        }
        Ok(())
    }
}

impl Writer {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    async fn write(mut self, policy: Policy) -> Result<()> {
        let slots = policy.slots();
        while !self.stopped() {
            if let Some(slot) = self.dice.pick(&slots).cloned() {
                self.work(&slot).await?;
            }
            tokio::time::sleep(self.dice.between(PAUSE_LEAST, PAUSE_MOST)).await;
        }
        Ok(())
    }

    /// One operation, or two, at a slot.
    async fn work(&mut self, slot: &Slot) -> Result<()> {
        let fleet = Arc::clone(&self.fleet);
        let cluster = fleet.cluster(slot.cluster)?;
        let kind = slot.kind;
        if kind == Kind::Widget && !self.is_defined(cluster).await {
            return Ok(());
        }
        let look = cluster.find(kind.api_version(), kind.name(), Some(slot.namespace), &slot.name);
        // Nothing is known, so nothing is done: the API server is away, or the kind is.
        let Ok(Ok(found)) = tokio::time::timeout(OPERATION_TIMEOUT, look).await else { return Ok(()) };
        let Some(object) = found else {
            return self.apply(cluster, slot, true).await.map(drop);
        };
        match self.dice.below(100) {
            0..60 => self.apply(cluster, slot, true).await.map(drop),
            60..68 => self.apply(cluster, slot, false).await.map(drop),
            68..86 => self.delete(cluster, slot, &object).await.map(drop),
            _ => {
                if self.delete(cluster, slot, &object).await? {
                    self.apply(cluster, slot, true).await?;
                }
                Ok(())
            }
        }
    }

    /// Whoever applies objects of a definition that is being deleted keeps it from ever going.
    async fn is_defined(&self, cluster: &Cluster) -> bool {
        let look = cluster.find("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, DEFINITION_NAME);
        let found = tokio::time::timeout(OPERATION_TIMEOUT, look).await;
        matches!(found, Ok(Ok(Some(found))) if found["metadata"]["deletionTimestamp"].is_null())
    }

    async fn apply(&mut self, cluster: &Cluster, slot: &Slot, selected: bool) -> Result<bool> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let body = slot.body(&mut self.dice, serial, selected);
        let entry = Entry { operation: Operation::Apply { serial, selected }, ..self.entry_of(slot) };
        let call = async {
            let api = cluster.api(slot.kind.api_version(), slot.kind.name(), Some(slot.namespace)).await?;
            let params = PatchParams::apply(FIELD_MANAGER).force();
            let answer = api.patch(&slot.name, &params, &Patch::Apply(&body)).await;
            anyhow::Ok(answer.map(|object| (object.metadata.uid, object.metadata.resource_version)))
        };
        self.finish(entry, call).await
    }

    async fn delete(&self, cluster: &Cluster, slot: &Slot, object: &Value) -> Result<bool> {
        let uid = text(object, "/metadata/uid");
        let entry = Entry {
            operation: Operation::Delete,
            uid: uid.clone(),
            resource_version: text(object, "/metadata/resourceVersion"),
            ..self.entry_of(slot)
        };
        self.remove(cluster, slot.kind, entry, uid).await
    }

    /// Deletes exactly this object.
    async fn remove(&self, cluster: &Cluster, kind: Kind, entry: Entry, uid: String) -> Result<bool> {
        let (namespace, name) = (entry.namespace.clone(), entry.name.clone());
        let call = async move {
            let api = cluster.api(kind.api_version(), kind.name(), Some(&namespace)).await?;
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: Some(uid), resource_version: None }),
                propagation_policy: Some(PropagationPolicy::Background),
                ..DeleteParams::default()
            };
            anyhow::Ok(api.delete(&name, &params).await.map(|_| (None, None)))
        };
        self.finish(entry, call).await
    }

    /// Carries an operation out and notes how it ended; true if it was acknowledged.
    async fn finish(
        &self,
        mut entry: Entry,
        call: impl Future<Output = Result<Result<(Option<String>, Option<String>), kube::Error>>>,
    ) -> Result<bool> {
        match tokio::time::timeout(OPERATION_TIMEOUT, call).await {
            Ok(Ok(Ok((uid, resource_version)))) => {
                entry.uid = uid.unwrap_or(entry.uid);
                entry.resource_version = resource_version.unwrap_or(entry.resource_version);
            }
            // 500 and above: the API server may have lost etcd after it had asked it to write.
            Ok(Ok(Err(kube::Error::Api(status)))) if status.code < 500 => {
                entry.outcome = Outcome::Refused;
                entry.error = status.message.clone();
            }
            Ok(Ok(Err(error))) => {
                entry.outcome = Outcome::Unknown;
                entry.error = error.to_string();
            }
            // It was not even sent: the cluster does not tell what it serves.
            Ok(Err(error)) => {
                entry.outcome = Outcome::Refused;
                entry.error = format!("{error:#}");
            }
            Err(_) => {
                entry.outcome = Outcome::Unknown;
                "no answer in time".clone_into(&mut entry.error);
            }
        }
        // The time of the answer, so that what came between two times is known to lie there.
        entry.at_ms = self.journal.now_ms();
        let acknowledged = entry.outcome == Outcome::Acknowledged;
        self.journal.note(entry)?;
        Ok(acknowledged)
    }

    fn entry_of(&self, slot: &Slot) -> Entry {
        self.journal.entry(slot.cluster, slot.kind, slot.namespace, &slot.name)
    }

    /// Now and then changes or deletes a copy.
    async fn disturb(mut self, target: usize) -> Result<()> {
        let fleet = Arc::clone(&self.fleet);
        let cluster = fleet.cluster(target)?;
        while !self.stopped() {
            tokio::time::sleep(self.dice.between(DRIFT_LEAST, DRIFT_MOST)).await;
            let kinds = [Kind::ConfigMap, Kind::Secret, Kind::Widget];
            let Some(kind) = self.dice.pick(&kinds).copied() else { continue };
            let list = cluster.list(kind.api_version(), kind.name(), None, "lockstep.dev/managed=true");
            let Ok(Ok(copies)) = tokio::time::timeout(OPERATION_TIMEOUT, list).await else { continue };
            let copies: Vec<_> = copies.iter().filter(|copy| copy["metadata"]["name"] != CLASH).collect();
            let Some(copy) = self.dice.pick(&copies) else { continue };
            let (namespace, name) = (text(copy, "/metadata/namespace"), text(copy, "/metadata/name"));
            let uid = text(copy, "/metadata/uid");
            let entry = Entry { uid: uid.clone(), ..self.journal.entry(target, kind, &namespace, &name) };
            if self.dice.chance(30) {
                let entry = Entry { operation: Operation::DriftDelete, ..entry };
                self.remove(cluster, kind, entry, uid).await?;
            } else {
                let entry = Entry { operation: Operation::DriftEdit, ..entry };
                self.edit(cluster, kind, entry).await?;
            }
        }
        Ok(())
    }

    /// Only what every source has: a field that lockstep no longer wants and another manager took is the other's.
    async fn edit(&self, cluster: &Cluster, kind: Kind, entry: Entry) -> Result<()> {
        let value = if kind == Kind::Secret { "ZHJpZnQ=" } else { "drift" };
        let part = if kind == Kind::Widget { "spec" } else { "data" };
        let patch =
            json!({ part: { "k": value }, "metadata": { "uid": entry.uid, "labels": { "tier": "drift" } } });
        let (namespace, name) = (entry.namespace.clone(), entry.name.clone());
        let call = async move {
            let api = cluster.api(kind.api_version(), kind.name(), Some(&namespace)).await?;
            let answer = api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            anyhow::Ok(answer.map(|object| (object.metadata.uid, object.metadata.resource_version)))
        };
        self.finish(entry, call).await.map(drop)
    }
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
