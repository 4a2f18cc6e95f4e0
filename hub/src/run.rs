//! Starts every part of the hub and stops them again.

mod error;
mod ports;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lockstep_engine::ClusterName;
use lockstep_engine::clock::Clock;
use lockstep_net::{Front, PortMetrics};
use lockstep_wire::Protocols;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::archive::keeper::{Keeper, KeeperParts};
use crate::archive::{self, Archiver, ArchiverParts, Keyring, Tombstones};
use crate::blocking::Blocking;
use crate::config::{HubConfig, STATE_FILE};
use crate::core::command::Command;
use crate::core::{Core, Counts, Findings, Input, Keys, Parts, SharedSessions};
use crate::http::{self, Api, ApiParts, ApiToken, SessionFacts};
use crate::load::{Loaded, load, watch_damage};
use crate::metrics::{self, Metrics, Scraped};
use crate::problem::Problems;
use crate::pulse::Pulse;
use crate::restore::Restorer;
use crate::seal::HubKey;
use crate::session::{Readers, SessionService};
use crate::settle::Settling;
use crate::space::Space;
use crate::store::sqlite::{Damage, SqliteReader, SqliteStore};
use crate::{listen, owner, policies_dir};

pub use error::HubError;
use ports::Ports;

/// Commands of people that wait for the core.
const COMMANDS: usize = 64;

/// A hub that runs.
pub struct RunningHub {
    /// Where agents connect.
    pub agents: SocketAddr,
    /// Where the HTTP API answers.
    pub api: SocketAddr,
    /// Where metrics and probes answer.
    pub metrics: Option<SocketAddr>,
    /// To the core.
    pub commands: mpsc::Sender<Command>,
    /// Tokens of the members that were registered at the start.
    pub tokens: BTreeMap<ClusterName, String>,
    task: JoinHandle<Result<(), HubError>>,
}

impl RunningHub {
    /// Waits until it has stopped.
    ///
    /// # Errors
    /// When a part failed.
    pub async fn stopped(self) -> Result<(), HubError> {
        self.task.await.unwrap_or(Err(HubError::Part { part: "the hub" }))
    }
}

/// Starts the hub; it stops when `stop` is cancelled. Agents in the same process may register their
/// metrics in `registry`; it is served at the metrics port. `members` are registered before the
/// policies are read, each with a new token.
///
/// # Errors
/// When a setting is refused or a part cannot start.
pub async fn run(
    config: HubConfig,
    registry: Arc<Mutex<Registry>>,
    members: Vec<ClusterName>,
    stop: CancellationToken,
) -> Result<RunningHub, HubError> {
    config.validate()?;
    private_dir(&config.data_dir)?;
    HubKey::check_outside(&config.key_file, &config.data_dir)?;
    if let Some(parent) = config.key_file.parent() {
        private_dir(parent)?;
    }
    let key = HubKey::load_or_create(&config.key_file)?;
    let token = listen::api_token(&config.api_token_file())?;
    let archive =
        Tombstones::new(archive::open(&config)?, Keyring::load(&config, &key)?, config.archive.secrets);
    let (outbox, findings, sessions) = (Arc::new(Notify::new()), Arc::default(), SharedSessions::default());
    let Loaded { core, damage, readers, outbox_reader } = load(&config, &key, |store| Parts {
        store,
        keys: Keys::of(&key),
        archive: outbox.clone(),
        findings: Arc::clone(&findings),
        sessions: Arc::clone(&sessions),
        hub_id: hub_id(&key),
        protocols: Protocols::BUILT_IN,
    })?;
    let (metrics, figures) = {
        let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        (Metrics::register(&mut registry), PortMetrics::register(&mut registry))
    };
    let parts = Running {
        ports: Ports::bind(&config, &figures).await?,
        config,
        key,
        token,
        archive,
        readers,
        outbox_reader,
        outbox,
        findings,
        sessions,
        registry,
        metrics,
        problems: Problems::default(),
        damage,
        stop,
    };
    parts.start(core, members).await
}

/// What the parts share.
struct Running {
    config: HubConfig,
    key: HubKey,
    token: String,
    archive: Tombstones,
    readers: Readers,
    outbox_reader: SqliteReader,
    outbox: Arc<Notify>,
    findings: Arc<std::sync::RwLock<Findings>>,
    sessions: SharedSessions,
    registry: Arc<Mutex<Registry>>,
    metrics: Metrics,
    problems: Problems,
    damage: Damage,
    ports: Ports,
    stop: CancellationToken,
}

impl Running {
    async fn start(self, core: Core<SqliteStore>, members: Vec<ClusterName>) -> Result<RunningHub, HubError> {
        let Self {
            config,
            key,
            token,
            archive,
            readers,
            outbox_reader,
            outbox,
            findings,
            sessions,
            registry,
            metrics,
            problems,
            damage,
            mut ports,
            stop,
        } = self;
        ports.watch_certificates(&problems, &stop);
        let Ports { agents, api, metrics: probes, .. } = ports;
        let local = |front: &Front| front.local_addr().map_err(|_| HubError::Part { part: "a listener" });
        let (agents_at, api_at) = (local(&agents)?, local(&api)?);
        let metrics_at = probes.as_ref().map(local).transpose()?;
        let ready = Arc::new(AtomicBool::new(false));
        let (inputs, received) = mpsc::channel(owner::INPUTS);
        let space = Space { dir: config.data_dir.clone(), min_free: config.min_free_bytes };
        let (noted, figures) = (damage.clone(), metrics.clone());
        let pulse = Pulse::default();
        let care = owner::Care {
            space,
            problems: problems.clone(),
            damage: noted,
            metrics: figures,
            pulse: pulse.clone(),
            clock: Clock::new(owner::now),
        };
        let gate = core.gate();
        let owned = spawn_core(core, received, care)?;
        let mut tokens = BTreeMap::new();
        for member in members {
            let token = register(&inputs, member.clone()).await?;
            tokens.insert(member, token);
        }
        let (commands, asked) = mpsc::channel(COMMANDS);
        let mut tasks = JoinSet::new();
        tasks.spawn(part("the tombstone archive", {
            let archiver = Archiver::new(ArchiverParts {
                reader: outbox_reader,
                tombstones: archive.clone(),
                wake: outbox,
                done: inputs.clone(),
                metrics: Arc::new(metrics.clone()),
                blocking: Blocking::Threads,
            });
            let stop = stop.clone();
            async move {
                archiver.run(stop).await;
                Ok(())
            }
        }));
        tasks.spawn(part("the policies directory", {
            let work = policies_dir::run(config.policies_dir.clone(), inputs.clone(), stop.clone());
            async move {
                work.await;
                Ok(())
            }
        }));
        tasks.spawn(part("the commands", forward(asked, inputs.clone(), stop.clone())));
        tasks.spawn(part("the state store", watch_damage(damage.clone(), stop.clone())));
        let clock = Clock::new(owner::now);
        if let Some(settling) = Settling::begin(&mut *readers()?, problems.clone(), clock, Blocking::Threads)?
        {
            tokio::spawn(settling.run(readers.clone(), inputs.clone(), stop.clone()));
        }
        let keeper = Keeper::new(KeeperParts {
            tombstones: archive.clone(),
            readers: readers.clone(),
            inputs: inputs.clone(),
            retention: config.archive.retention,
            metrics: metrics.clone(),
            problems: problems.clone(),
            now: owner::now,
        });
        tokio::spawn(archive::keeper::watch(keeper.clone(), stop.clone()));
        let probing = (archive.clone(), hub_id(&key), problems.clone());
        tokio::spawn(archive::probe::watch(probing.0, probing.1, probing.2, owner::now, stop.clone()));
        let service = SessionService::new(inputs, readers.clone(), gate, Blocking::Threads, stop.clone());
        tasks.spawn(part("the port for agents", ports::agents(agents, service, stop.clone())));
        let bodies: Arc<dyn http::Bodies> = Arc::new(archive);
        let digest_key = key.shown_digest_key();
        let restorer = Restorer::new(readers.clone(), commands.clone(), bodies.clone(), digest_key);
        let restoring = restorer.clone().run(stop.clone());
        tasks.spawn(part("the restores", async move {
            restoring.await;
            Ok(())
        }));
        let served = Api::new(ApiParts {
            readers: readers.clone(),
            commands: commands.clone(),
            findings,
            sessions: Arc::new(move || facts(&sessions)),
            started_at: owner::now(),
            bodies,
            keeper,
            restorer,
            token: ApiToken::new(&token),
            digest_key,
            problems: problems.clone(),
            database: config.data_dir.join(STATE_FILE),
            config: config.api.clone(),
        });
        tasks.spawn(part("the HTTP API", ports::http(api, served.router(), stop.clone())));
        if let Some(front) = probes {
            let router = metrics::router(Scraped {
                registry,
                readers,
                problems,
                pulse,
                database: config.data_dir.join(STATE_FILE),
                ready: ready.clone(),
            });
            tasks.spawn(part("the port for metrics", ports::http(front, router, stop.clone())));
        }
        ready.store(true, Ordering::Release);
        let task = tokio::spawn(supervise(tasks, owned, damage, ready, stop));
        Ok(RunningHub { agents: agents_at, api: api_at, metrics: metrics_at, commands, tokens, task })
    }
}

fn facts(sessions: &SharedSessions) -> Vec<SessionFacts> {
    let sessions = sessions.read().unwrap_or_else(PoisonError::into_inner);
    let facts = sessions.iter().map(|(cluster, told)| SessionFacts {
        cluster: cluster.clone(),
        protocol: told.protocol,
        reading: told.reading.clone(),
        not_accepted: told.not_accepted.clone(),
        clock_skew_ms: told.clock_skew_ms,
        queued_items: told.queued_items,
        problem: told.problem.clone(),
    });
    facts.collect()
}

async fn register(inputs: &mpsc::Sender<Input>, cluster: ClusterName) -> Result<String, HubError> {
    let (reply, answer) = oneshot::channel();
    let command = Command::CreateToken { cluster, reply };
    // A core that is gone, or a store that refuses: the reason is in the log.
    inputs.send(Input::Command(command)).await.map_err(|_| HubError::Part { part: "the core" })?;
    match answer.await {
        Ok(Ok(token)) => Ok(token),
        Ok(Err(refused)) => Err(HubError::Refused(refused)),
        Err(_) => Err(HubError::Part { part: "the core" }),
    }
}

/// Waits for all parts. One that ends by itself takes the others with it: half a hub helps nobody.
async fn supervise(
    mut tasks: JoinSet<(&'static str, std::io::Result<()>)>,
    core: std::thread::JoinHandle<()>,
    damage: Damage,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
) -> Result<(), HubError> {
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let part = match ended {
            Ok((_, Ok(()))) if stop.is_cancelled() => continue,
            Ok((part, _)) => part,
            Err(_) => "a part",
        };
        result = Err(HubError::Part { part });
        stop.cancel();
        ready.store(false, Ordering::Release);
    }
    // All senders are gone: the core finishes what it has, and closes its store.
    let joined = tokio::task::spawn_blocking(move || core.join());
    match joined.await {
        _ if damage.why().is_some() => {
            Err(HubError::Damaged { why: damage.why().unwrap_or_default().to_owned() })
        }
        Ok(Ok(())) => result,
        _ => Err(HubError::Part { part: "the core" }),
    }
}

async fn part(
    name: &'static str,
    work: impl Future<Output = std::io::Result<()>>,
) -> (&'static str, std::io::Result<()>) {
    let result = work.await;
    if let Err(error) = &result {
        tracing::error!("{name} failed: {error}");
    }
    (name, result)
}

fn spawn_core(
    core: Core<SqliteStore>,
    received: mpsc::Receiver<Input>,
    care: owner::Care,
) -> Result<std::thread::JoinHandle<()>, HubError> {
    let mut before = Counts::default();
    let metrics = care.metrics.clone();
    let observe = Box::new(move |counts: &Counts, connected: usize, took: std::time::Duration| {
        metrics.observe(&before, counts, connected, took);
        before = counts.clone();
    });
    std::thread::Builder::new()
        .name("lockstep-core".to_owned())
        .spawn(move || owner::run(core, received, observe, care))
        .map_err(|_| HubError::Part { part: "the core" })
}

async fn forward(
    mut asked: mpsc::Receiver<Command>,
    inputs: mpsc::Sender<Input>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            command = asked.recv() => {
                let Some(command) = command else { return Ok(()) };
                if inputs.send(Input::Command(command)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Names this hub in marks. Derived from the key, so that it survives the loss of the data (I11).
fn hub_id(key: &HubKey) -> String {
    blake3::Hash::from(blake3::derive_key("lockstep 2026 hub id v1", &key.mac_key())).to_hex()[..16]
        .to_owned()
}

fn private_dir(path: &Path) -> Result<(), HubError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| HubError::File { path: path.to_owned(), source })
}
