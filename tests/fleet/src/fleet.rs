//! The system under test: simulated servers, the real hub, a real agent per cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use lockstep_agent::{AcceptEntry, AgentConfig, AgentMetrics, Deleters, Token, Verb};
use lockstep_cluster::ClusterClient;
use lockstep_engine::ClusterName;
use lockstep_tests::chaos::HubClient;
use lockstep_tests::chaos::link::Link;
use lockstep_tests::conditions::now_ms;
use lockstep_tests::model::serve::Served;
use lockstep_tests::model::{ApiServer, Config};
use prometheus_client::registry::Registry;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::faults::{USER, What};
use crate::hub::{self, Addresses, Hub};
use crate::objects::{self, Kind, SOURCES};
use crate::usage::{AGENTS, HUB, MODEL};

/// How often the controllers of a simulated cluster take a step: a hundred of them share the machine with the hub.
const TICK: Duration = Duration::from_secs(1);
/// Of different ages, so that lists come in pages and as streams, and discovery in both forms.
const VERSIONS: [(u32, u32); 3] = [(1, 34), (1, 20), (1, 28)];
/// Agents that begin at a time.
const STARTS: usize = 16;
/// Both ends of every connection are files of this process, and a process commonly has 20,000: agents of more clusters
/// than this do less at a time.
const MANY: usize = 200;
/// Steps of such an agent at a time.
const FEW_STEPS: usize = 2;
/// Its requests at a time.
const FEW_REQUESTS: usize = 4;
/// How long agents may take to end.
const DRAIN: Duration = Duration::from_secs(20);

/// One cluster.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) served: Served,
    /// Where it can be cut.
    pub(crate) to_hub: Option<Link>,
    /// What its agent accepts.
    pub(crate) accepts: Vec<Kind>,
}

/// Runtimes with threads of their own, so that it can be told who takes the time.
pub(crate) struct Runtimes {
    pub(crate) model: Runtime,
    pub(crate) agents: Runtime,
    pub(crate) hub: Runtime,
}

impl Runtimes {
    pub(crate) fn build() -> Result<Self> {
        let named = |name: &str| Builder::new_multi_thread().enable_all().thread_name(name).build();
        Ok(Self { model: named(MODEL)?, agents: named(AGENTS)?, hub: named(HUB)? })
    }
}

/// Everything of a run.
pub(crate) struct Fleet {
    pub(crate) members: Arc<Vec<Member>>,
    pub(crate) hub: Hub,
    pub(crate) client: HubClient,
    agents: JoinSet<Result<()>>,
    stop: CancellationToken,
}

/// The names of the clusters.
pub(crate) fn names(clusters: usize) -> Vec<String> {
    (0..clusters).map(|index| format!("c{index:04}")).collect()
}

impl Fleet {
    pub(crate) async fn start(options: &Options, dir: &Path, runtimes: &Runtimes) -> Result<Self> {
        ensure!(options.clusters > SOURCES.len(), "there must be more than {} clusters", SOURCES.len());
        let names = names(options.clusters);
        for part in ["policies", "kubeconfigs"] {
            std::fs::create_dir_all(dir.join(part))?;
        }
        objects::write_policies(&dir.join("policies"), &names)?;
        let (hub, addresses) = if options.hub_apart {
            hub::start_apart(dir, options.clusters)?
        } else {
            hub::start_here(dir.to_owned(), names.clone(), runtimes.hub.handle()).await?
        };
        let mut members = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let started = start_member(index, name.clone(), options.clone(), addresses.clone());
            members.push(runtimes.model.spawn(started).await??);
        }
        let client = HubClient::of(addresses.api)?;
        let mut this = Self {
            members: Arc::new(members),
            hub,
            client,
            agents: JoinSet::new(),
            stop: CancellationToken::new(),
        };
        this.start_agents(dir, &addresses, runtimes).await?;
        Ok(this)
    }

    async fn start_agents(&mut self, dir: &Path, addresses: &Addresses, runtimes: &Runtimes) -> Result<()> {
        let metrics = AgentMetrics::register(&mut Registry::default());
        let prepared = self.members.iter().map(|member| {
            let kubeconfig = dir.join("kubeconfigs").join(&member.name);
            let written = std::fs::write(&kubeconfig, member.served.kubeconfig(&member.name, USER));
            let config = agent_config(member, addresses, self.members.len());
            async move {
                written?;
                let config = config?;
                let made = runtimes.agents.spawn(connect(kubeconfig, config.clone()));
                Ok::<_, anyhow::Error>((config, made.await??))
            }
        });
        let prepared: Vec<_> = futures::stream::iter(prepared).buffered(STARTS).try_collect().await?;
        for (config, client) in prepared {
            let agent =
                lockstep_agent::run(config, client, self.stop.clone(), metrics.clone(), Deleters::default());
            self.agents.spawn_on(async move { Ok(Box::pin(agent).await?) }, runtimes.agents.handle());
        }
        Ok(())
    }

    /// Ends agents and hub in good order; none may have ended before.
    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(ended) = self.agents.try_join_next() {
            ended.context("an agent panicked")??;
            anyhow::bail!("an agent ended by itself");
        }
        self.stop.cancel();
        let drained = tokio::time::timeout(DRAIN, async {
            while let Some(ended) = self.agents.join_next().await {
                ended.context("an agent panicked")??;
            }
            anyhow::Ok(())
        });
        drained.await.context("agents do not end")??;
        self.hub.stop().await
    }
}

async fn start_member(index: usize, name: String, options: Options, addresses: Addresses) -> Result<Member> {
    let now = now_ms()?;
    let version = VERSIONS.get(index % VERSIONS.len()).copied().unwrap_or((1, 34));
    let mut server = ApiServer::new(now, Config::new(version, options.seed ^ index as u64));
    objects::furnish(&mut server, now, index, options.objects, options.seed)?;
    let cut = options.faults.iter().any(|what: &What| what.is_of_the_hub());
    let mut accepts = Kind::ALL.to_vec();
    // One cluster lets no Secrets in.
    if index + 1 == options.clusters {
        accepts.retain(|kind| *kind != Kind::Secret);
    }
    Ok(Member {
        name,
        served: Served::start_ticking(server, TICK).await?,
        to_hub: if cut { Some(Link::open(addresses.agents).await?) } else { None },
        accepts,
    })
}

async fn connect(kubeconfig: PathBuf, config: AgentConfig) -> Result<ClusterClient> {
    let target = lockstep_cluster::from_kubeconfig(&kubeconfig, None).await?;
    let mut limits = config.client_limits();
    if config.steps_at_once == FEW_STEPS {
        limits.requests = FEW_REQUESTS;
    }
    Ok(ClusterClient::new(target, limits)?)
}

fn agent_config(member: &Member, addresses: &Addresses, clusters: usize) -> Result<AgentConfig> {
    let hub = member.to_hub.as_ref().map_or(addresses.agents, Link::address);
    let token = addresses.tokens.get(&member.name).context("a token")?;
    let mut config =
        AgentConfig::new(ClusterName::new(&member.name)?, &format!("http://{hub}"), Token::new(token));
    if clusters > MANY {
        config.steps_at_once = FEW_STEPS;
    }
    let kinds = member.accepts.iter().map(|kind| kind.full_name().to_owned());
    config.accept = vec![AcceptEntry {
        kinds: kinds.chain(["Namespace".to_owned()]).collect(),
        namespaces: vec!["*".to_owned()],
        verbs: vec![Verb::Create, Verb::Update, Verb::Delete],
    }];
    config.accept.push(AcceptEntry::reading_everything());
    Ok(config)
}
