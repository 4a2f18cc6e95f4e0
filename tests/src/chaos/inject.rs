//! Carries out the schedule. Every fault heals itself after its time, or as soon as the chaos is over.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::faults::{Edit, Event, Fault, Part, Right, Victim, Wire};
use super::fleet::Fleet;
use super::journal::Journal;
use super::objects::{Changes, DEFINITION, DEFINITION_NAME, DOOMED, POLICIES, create_namespace};
use super::process::Process;
use crate::cluster::Cluster;
use crate::harness::{eventually, in_time};
use crate::testbed::{Component, RestoreForm, Saved, Signal};

/// What a fault does through an API server that others hurt at the same time is tried for so long.
const ACT_TIMEOUT: Duration = Duration::from_secs(30);
/// A request of such a fault.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often processes are looked at that ended by themselves.
const LOOK: Duration = Duration::from_millis(500);

/// How a fault went.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done {
    pub(super) fault: String,
    #[serde(skip)]
    pub(super) name: &'static str,
    pub(super) planned_ms: u64,
    pub(super) began_ms: u64,
    pub(super) healed_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// A cluster was taken back.
#[derive(Debug, Clone)]
pub(super) struct Rewind {
    pub(super) cluster: usize,
    pub(super) began_ms: u64,
    pub(super) restored_ms: u64,
}

/// The hub forgot what it knew, rightly: of one policy (which was removed), or all of it (with its data directory).
#[derive(Debug, Clone, Copy)]
pub(super) struct Forgotten {
    pub(super) policy: Option<&'static str>,
    /// What it showed later it had learnt anew.
    pub(super) at_ms: u64,
}

/// What happened that the comparison must know.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    pub(super) done: Vec<Done>,
    pub(super) rewinds: Vec<Rewind>,
    pub(super) forgotten: Vec<Forgotten>,
    pub(super) namespace_deleted: bool,
    /// Clusters whose definition was deleted.
    pub(super) definitions: Vec<usize>,
    /// A policy was removed, or a target from it: copies may be left without one, and are then `Orphaned`.
    pub(super) orphans: bool,
}

/// Everything that a fault needs.
pub(super) struct Injector {
    fleet: Arc<Fleet>,
    journal: Arc<Journal>,
    /// Faults of one victim come one after the other, also when one takes longer than planned.
    victims: Mutex<BTreeMap<Victim, Arc<tokio::sync::Mutex<()>>>>,
    saved: Mutex<BTreeMap<usize, Saved>>,
    history: Mutex<History>,
    log: Mutex<File>,
    over: watch::Sender<bool>,
}

impl Injector {
    pub(super) fn new(fleet: &Arc<Fleet>, journal: &Arc<Journal>) -> Result<Self> {
        Ok(Self {
            fleet: Arc::clone(fleet),
            journal: Arc::clone(journal),
            victims: Mutex::default(),
            saved: Mutex::default(),
            history: Mutex::default(),
            log: Mutex::new(File::create(fleet.dir.join("faults.jsonl"))?),
            over: watch::channel(false).0,
        })
    }

    /// Runs the whole schedule; returns when every fault has healed.
    pub(super) async fn run(&self, events: Vec<Event>, length: Duration) -> Result<()> {
        let began = tokio::time::Instant::now();
        // Not as tasks of their own: closures that are tried again and again are not known to be Send.
        let faults = futures::future::try_join_all(events.into_iter().map(async |event| {
            tokio::time::sleep_until(began + event.at).await;
            self.hurt(event).await
        }));
        let end = async {
            tokio::time::sleep_until(began + length).await;
            self.over.send_replace(true);
            anyhow::Ok(())
        };
        let keeper = async {
            loop {
                self.fleet.processes().try_for_each(Process::look)?;
                self.keep_planes().await?;
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            outcome = futures::future::try_join(faults, end) => outcome.map(drop),
            outcome = keeper => outcome,
        }
    }

    pub(super) fn history(&self) -> History {
        self.lock(&self.history).clone()
    }

    /// An API server that meets no etcd ends itself, and a controller manager without an API server too.
    async fn keep_planes(&self) -> Result<()> {
        for (index, cluster) in self.fleet.bed.clusters().iter().enumerate() {
            let victim = self.victim(Victim::Plane(index));
            let Ok(_alone) = victim.try_lock() else { continue };
            for component in Component::ALL {
                cluster.control_plane().start(component).await?;
            }
        }
        Ok(())
    }

    fn victim(&self, victim: Victim) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.lock(&self.victims).entry(victim).or_default())
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn hurt(&self, event: Event) -> Result<()> {
        let victim = self.victim(event.fault.victim());
        let _alone = victim.lock().await;
        if *self.over.borrow() {
            return Ok(());
        }
        let began_ms = self.journal.now_ms();
        // A fault that could not be carried out makes the run easier, not wrong; healing is ensured at the end.
        let outcome = Box::pin(self.carry_out(event)).await;
        let done = Done {
            fault: event.fault.to_string(),
            name: event.fault.name(),
            planned_ms: u64::try_from(event.at.as_millis())?,
            began_ms,
            healed_ms: self.journal.now_ms(),
            error: outcome.err().map(|error| format!("{error:#}")),
        };
        let line = serde_json::to_string(&done)? + "\n";
        self.lock(&self.log).write_all(line.as_bytes())?;
        self.lock(&self.history).done.push(done);
        Ok(())
    }

    /// For as long as a fault lasts, or until the chaos is over.
    async fn last(&self, time: Duration) {
        let mut over = self.over.subscribe();
        let _ = tokio::time::timeout(time, over.wait_for(|over| *over)).await;
    }

    async fn carry_out(&self, event: Event) -> Result<()> {
        let fleet = &self.fleet;
        let lasts = event.lasts;
        match event.fault {
            Fault::Kill(part) => self.kill(part, lasts).await,
            Fault::Freeze(part) => self.freeze(part, lasts).await,
            Fault::Trouble(wire, trouble) => {
                let link = match wire {
                    Wire::Hub(cluster) => fleet.to_hub.get(cluster),
                    Wire::Api(cluster) => fleet.to_api.get(cluster),
                };
                let link = link.context("a link")?;
                link.set(Some(trouble));
                self.last(lasts).await;
                link.set(None);
                Ok(())
            }
            Fault::Compact(cluster, kill) => {
                let plane = fleet.cluster(cluster)?.control_plane();
                let compacted = plane.compact().await;
                if kill {
                    plane.kill(Component::ApiServer).await?;
                    plane.start(Component::ApiServer).await?;
                }
                // Nothing was written since the last time.
                compacted.map(drop).or_else(|error| {
                    let idle = format!("{error:#}").contains("has been compacted");
                    if idle { Ok(()) } else { Err(error) }
                })
            }
            Fault::Save(cluster) => {
                let saved = fleet.cluster(cluster)?.control_plane().save().await?;
                self.lock(&self.saved).insert(cluster, saved);
                Ok(())
            }
            Fault::Restore(cluster, form) => self.restore(cluster, form).await,
            Fault::Definition(cluster, false) => self.definition(cluster, lasts).await,
            Fault::Definition(cluster, true) => self.unseen(cluster, self.definition(cluster, lasts)).await,
            Fault::Namespace(false) => self.namespace(lasts).await,
            Fault::Namespace(true) => self.unseen(0, self.namespace(lasts)).await,
            Fault::Rights(cluster, right) => self.rights(cluster, right, lasts).await,
            Fault::Policy(edit) => self.policy(edit, lasts).await,
            Fault::HubData => {
                fleet.hub.kill()?;
                self.forgets(None);
                std::fs::remove_dir_all(fleet.data_dir()).context("removing the hub's data directory")?;
                self.last(lasts).await;
                fleet.hub.start()
            }
        }
    }

    async fn kill(&self, part: Part, lasts: Duration) -> Result<()> {
        match part {
            Part::Hub | Part::Agent(_) => {
                let process = self.process(part)?;
                process.kill()?;
                self.last(lasts).await;
                process.start()
            }
            Part::Server(cluster, component) => {
                let plane = self.fleet.cluster(cluster)?.control_plane();
                plane.kill(component).await?;
                self.last(lasts).await;
                plane.start(component).await
            }
        }
    }

    async fn freeze(&self, part: Part, lasts: Duration) -> Result<()> {
        match part {
            Part::Hub | Part::Agent(_) => {
                let process = self.process(part)?;
                process.signal(Signal::STOP)?;
                self.last(lasts).await;
                process.signal(Signal::CONT)
            }
            Part::Server(cluster, component) => {
                let plane = self.fleet.cluster(cluster)?.control_plane();
                plane.start(component).await?;
                plane.pause(component).await?;
                self.last(lasts).await;
                plane.resume(component).await
            }
        }
    }

    fn process(&self, part: Part) -> Result<&Process> {
        match part {
            Part::Hub => Ok(&self.fleet.hub),
            Part::Agent(cluster) => self.fleet.agents.get(cluster).context("an agent"),
            Part::Server(..) => anyhow::bail!("a server of a cluster belongs to the test bed"),
        }
    }

    async fn restore(&self, cluster: usize, form: RestoreForm) -> Result<()> {
        let saved = self.lock(&self.saved).remove(&cluster);
        let began_ms = self.journal.now_ms();
        let saved = saved.context("there is no snapshot: it could not be taken")?;
        let outcome = self.fleet.cluster(cluster)?.control_plane().restore(&saved, form).await;
        // Also when it did not come up in time: the data may be the old ones.
        let restored_ms = self.journal.now_ms();
        self.lock(&self.history).rewinds.push(Rewind { cluster, began_ms, restored_ms });
        outcome
    }

    /// Something that happens while the agent of a cluster is away.
    async fn unseen(&self, cluster: usize, what: impl Future<Output = Result<()>>) -> Result<()> {
        let victim = self.victim(Victim::Agent(cluster));
        let _alone = victim.lock().await;
        let agent = self.process(Part::Agent(cluster))?;
        agent.kill()?;
        let outcome = what.await;
        agent.start()?;
        outcome
    }

    async fn definition(&self, cluster: usize, lasts: Duration) -> Result<()> {
        self.lock(&self.history).definitions.push(cluster);
        let (version, kind, name) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", DEFINITION_NAME);
        let cluster = self.fleet.cluster(cluster)?;
        self.gone(cluster, version, kind, name).await?;
        self.last(lasts).await;
        patiently("the definition is made again", async || cluster.install_crd(DEFINITION).await).await
    }

    async fn namespace(&self, lasts: Duration) -> Result<()> {
        self.lock(&self.history).namespace_deleted = true;
        let cluster = self.fleet.cluster(0)?;
        self.gone(cluster, "v1", "Namespace", DOOMED).await?;
        self.last(lasts).await;
        patiently("the namespace is made again", async || create_namespace(cluster, DOOMED).await).await
    }

    /// Deletes something and waits until it is gone: its contents go first, by a controller.
    async fn gone(&self, cluster: &Cluster, version: &str, kind: &str, name: &str) -> Result<()> {
        let found = patiently("it is read", async || cluster.find(version, kind, None, name).await).await?;
        // An earlier fault took it and could not give it back.
        let Some(found) = found else { return Ok(()) };
        let uid = found["metadata"]["uid"].clone();
        patiently("it is deleted", async || cluster.delete(version, kind, None, name).await).await?;
        patiently("it is gone", async || {
            let found = cluster.find(version, kind, None, name).await?;
            ensure!(found.is_none_or(|found| found["metadata"]["uid"] != uid), "it is still there");
            Ok(())
        })
        .await
    }

    async fn rights(&self, cluster: usize, right: Right, lasts: Duration) -> Result<()> {
        let cluster = self.fleet.cluster(cluster)?;
        let (role, verbs) = match right {
            Right::ReadConfigMaps => ("lockstep-agent-read", json!(["list", "watch"])),
            Right::WriteConfigMaps => {
                ("lockstep-agent-write-builtin", json!(["get", "create", "patch", "delete"]))
            }
        };
        // All that the run needs, but ConfigMaps.
        let rules: Value = json!([
            { "apiGroups": [""], "resources": ["secrets", "namespaces"], "verbs": verbs },
            { "apiGroups": ["apps", "chaos.example", "apiextensions.k8s.io"], "resources": ["*"], "verbs": verbs },
            { "apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"] },
        ]);
        let version = "rbac.authorization.k8s.io/v1";
        patiently("the right is withdrawn", async || {
            cluster.patch(version, "ClusterRole", None, role, &json!({ "rules": rules })).await
        })
        .await?;
        self.last(lasts).await;
        patiently("the right is given back", async || self.fleet.install_rights(cluster).await).await
    }

    async fn policy(&self, edit: Edit, lasts: Duration) -> Result<()> {
        let which = usize::try_from(lasts.as_millis())? % POLICIES.len();
        let policy = POLICIES.get(which).context("a policy")?;
        let file = policy.file();
        let text = match edit {
            Edit::Broken => Some("apiVersion: sync.k8s.io/v1\nkind: ClusterSyncPolicy\nspec: [\n".to_owned()),
            Edit::Suspended => Some(policy.text(Changes { suspend: true, ..Changes::default() })),
            Edit::TargetRemoved => Some(policy.text(Changes { fewer_targets: true, ..Changes::default() })),
            Edit::Removed => None,
        };
        if matches!(edit, Edit::TargetRemoved | Edit::Removed) {
            self.lock(&self.history).orphans = true;
        }
        self.fleet.write_policy(&file, text.as_deref())?;
        self.last(lasts).await;
        self.fleet.write_policy(&file, Some(&policy.text(Changes::default())))?;
        if edit == Edit::Removed {
            self.forgets(Some(policy.name));
        }
        Ok(())
    }

    fn forgets(&self, policy: Option<&'static str>) {
        let at_ms = self.journal.now_ms();
        self.lock(&self.history).forgotten.push(Forgotten { policy, at_ms });
    }
}

/// Tries something through an API server that may be hurt at the same time.
async fn patiently<T>(what: &str, mut act: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    eventually(ACT_TIMEOUT, what, async || {
        in_time(CALL_TIMEOUT, "the API server answers", act())
            .await
            .with_context(|| format!("{:.0} s after the first try", began.elapsed().as_secs_f32()))?
    })
    .await
}
