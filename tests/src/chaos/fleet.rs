//! What a run works on: three control planes, a hub, an agent per cluster, the wires between them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::{Value, json};

use super::link::Link;
use super::objects::{Changes, POLICIES, WIDGET_ROLE};
use super::process::{Nursery, Process};
use crate::cluster::Cluster;
use crate::deploy;
use crate::harness::{PATIENCE, eventually, in_time};
use crate::lockstep::Printed;
use crate::testbed::{CLUSTERS, Options, Testbed, free_ports};

/// A command that takes longer met a hub that is frozen.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a request to the hub's API.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A queue that a few large objects fill, in bytes.
const SMALL_QUEUE: u32 = 100_000;

/// Everything of a run. Its processes end when it is dropped.
pub(super) struct Fleet {
    // Before the test bed: agents end before their clusters.
    pub(super) hub: Process,
    pub(super) agents: Vec<Process>,
    pub(super) to_hub: Vec<Link>,
    pub(super) to_api: Vec<Link>,
    pub(super) bed: Testbed,
    pub(super) dir: PathBuf,
    binary: PathBuf,
    api: SocketAddr,
}

impl Fleet {
    /// Starts the control planes, installs what an administrator installs, and starts hub and agents from
    /// configuration files. Policies are not there yet.
    pub(super) async fn start(dir: &Path, verbose: bool) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        // A copy: a build that goes on beside the run must not put another lockstep into it.
        let binary = dir.join("lockstep");
        std::fs::copy(built_binary()?, &binary).context("copying lockstep")?;
        let options =
            Options { directory: Some(dir.join("testbed")), audit: true, verbose, ..Options::default() };
        let bed = Testbed::start(options).await?;
        for part in ["policies", "key"] {
            std::fs::create_dir_all(dir.join(part))?;
        }
        let [agents_port, api_port, metrics_port] = free_ports()?;
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let nursery = Nursery::start()?;
        write_hub_config(dir, local(agents_port), local(api_port), local(metrics_port))?;
        let process = |name: &str, command: &str| {
            let arguments = vec![
                command.to_owned(),
                "--config".to_owned(),
                dir.join(format!("{name}.yaml")).display().to_string(),
            ];
            Process::new(&nursery, name, binary.clone(), arguments, dir.join(format!("{name}.log")))
        };
        let mut fleet = Self {
            hub: process("hub", "hub"),
            agents: vec![],
            to_hub: vec![],
            to_api: vec![],
            dir: dir.to_owned(),
            api: local(api_port),
            binary: binary.clone(),
            bed,
        };
        fleet.hub.start()?;
        for cluster in fleet.bed.clusters() {
            let to_hub = Link::open(local(agents_port)).await?;
            let server = cluster.control_plane().server().trim_start_matches("https://").to_owned();
            let to_api = Link::open(server.parse()?).await?;
            fleet.install_rights(cluster).await?;
            fleet.write_agent_config(cluster, &to_hub, &to_api).await?;
            fleet.agents.push(process(&format!("agent-{}", cluster.name()), "agent"));
            fleet.to_hub.push(to_hub);
            fleet.to_api.push(to_api);
        }
        fleet.create_tokens().await?;
        for agent in &fleet.agents {
            agent.start()?;
        }
        Ok(fleet)
    }

    pub(super) fn cluster(&self, index: usize) -> Result<&Cluster> {
        self.bed.clusters().get(index).with_context(|| format!("there is no cluster {index}"))
    }

    /// Hub and agents.
    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        [&self.hub].into_iter().chain(&self.agents)
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Service account and roles of the agent as `deploy/agent` has them, and the custom resource's.
    pub(super) async fn install_rights(&self, cluster: &Cluster) -> Result<()> {
        deploy::install_rbac(&self.bed, cluster, "agent").await?;
        cluster.apply(WIDGET_ROLE).await?;
        Ok(())
    }

    async fn write_agent_config(&self, cluster: &Cluster, to_hub: &Link, to_api: &Link) -> Result<()> {
        let name = cluster.name();
        deploy::granted(cluster, "patch", "apps", "deployments").await?;
        deploy::granted(cluster, "patch", "chaos.example", "widgets").await?;
        let kubeconfig = eventually(PATIENCE, "the agent's ServiceAccount gets a token", async || {
            cluster.service_account_kubeconfig(deploy::NAMESPACE, deploy::AGENT).await
        })
        .await?;
        let through = format!("https://{}", to_api.address());
        let path = self.dir.join(format!("kubeconfig-{name}"));
        std::fs::write(&path, kubeconfig.replace(cluster.control_plane().server(), &through))?;
        let mut config = json!({
            "cluster": name,
            "hub": format!("http://{}", to_hub.address()),
            "token_file": self.token_file(name),
            "kubeconfig": path,
            "accept": [{ "kinds": ["*"] }, { "kinds": ["Secret"], "verbs": ["read"] }],
            // The definition's return shall be noticed within a short run.
            "discovery_interval_s": 5,
        });
        // Each has something that the others lack: one writes to disk what does not fit, one stops reading, one compares.
        match self.agents.len() {
            0 => {
                config["queue_bytes"] = SMALL_QUEUE.into();
                config["spill_dir"] = json!(self.dir.join(format!("spill-{name}")));
            }
            1 => config["queue_bytes"] = SMALL_QUEUE.into(),
            _ => config["census_interval_s"] = 10.into(),
        }
        Ok(std::fs::write(self.dir.join(format!("agent-{name}.yaml")), config.to_string())?)
    }

    fn token_file(&self, cluster: &str) -> PathBuf {
        self.dir.join(format!("token-{cluster}"))
    }

    /// Makes each agent's token, as an administrator does at the beginning.
    pub(super) async fn create_tokens(&self) -> Result<()> {
        for name in CLUSTERS {
            let token = eventually(PATIENCE, "the hub makes a token", async || {
                let made = self.json(&["token", "create", name]).await?;
                Ok(made["token"].as_str().context("a token")?.to_owned())
            })
            .await?;
            std::fs::write(self.token_file(name), token)?;
        }
        Ok(())
    }

    /// Writes every policy file as it should be.
    pub(super) fn write_policies(&self) -> Result<()> {
        POLICIES
            .iter()
            .try_for_each(|policy| self.write_policy(&policy.file(), Some(&policy.text(Changes::default()))))
    }

    /// Writes one as an editor does, or removes it.
    pub(super) fn write_policy(&self, file: &str, text: Option<&str>) -> Result<()> {
        let path = self.dir.join("policies").join(file);
        match text {
            Some(text) => {
                let beside = path.with_file_name(format!(".{file}.new"));
                std::fs::write(&beside, text)?;
                std::fs::rename(beside, path)?;
            }
            None => std::fs::remove_file(path)?,
        }
        Ok(())
    }

    /// Runs a command of `lockstep` against the hub.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<Printed> {
        let mut command = tokio::process::Command::new(&self.binary);
        command.args(arguments).args(["--server", &format!("http://{}", self.api)]);
        command.arg("--token-file").arg(self.data_dir().join("api-token"));
        command.env_remove("RUST_LOG").env("NO_COLOR", "1").kill_on_drop(true);
        let what = format!("lockstep {} ends", arguments.join(" "));
        let output = command.stdin(std::process::Stdio::null()).output();
        let output = in_time(COMMAND_TIMEOUT, &what, output).await??;
        Ok(Printed {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The same with `-o json`, and it must succeed.
    pub(super) async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let Printed { code, stdout, stderr } = self.run(&[arguments, &["-o", "json"]].concat()).await?;
        ensure!(code == 0, "lockstep {} ended with {code}: {stdout}{stderr}", arguments.join(" "));
        serde_json::from_str(&stdout).with_context(|| format!("not JSON: {stdout}"))
    }

    /// Asks the hub's API directly: it is asked often, and a process each time would be most of the load.
    pub(super) fn hub_client(&self) -> Result<HubClient> {
        HubClient::of(self.api)
    }
}

/// The hub's HTTP API.
#[derive(Clone)]
pub struct HubClient(Arc<Client>);

impl HubClient {
    /// Of a hub whose API listens there.
    ///
    /// # Errors
    /// When there can be no client.
    pub fn of(api: SocketAddr) -> Result<Self> {
        let mut config = kube::Config::new(format!("http://{api}").parse()?);
        config.connect_timeout = Some(ASK_TIMEOUT);
        config.read_timeout = Some(ASK_TIMEOUT);
        Ok(Self(Arc::new(Client::try_from(config)?)))
    }

    /// GETs a path below `/api/v1/`.
    ///
    /// # Errors
    /// When the hub does not answer in time, or refuses.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let request = http::Request::get(format!("/api/v1/{path}")).body(vec![])?;
        let answer = tokio::time::timeout(ASK_TIMEOUT, self.0.request(request)).await;
        answer.with_context(|| format!("the hub does not answer to {path}"))?.with_context(|| path.to_owned())
    }

    /// Every item of a list, page after page.
    ///
    /// # Errors
    /// When the hub does not answer in time, or refuses.
    pub async fn items(&self, path: &str) -> Result<Vec<Value>> {
        let (mut items, mut next) = (vec![], None);
        loop {
            let page = match next {
                Some(next) => self.get(&format!("{path}&continue={next}")).await?,
                None => self.get(path).await?,
            };
            items.extend(page["items"].as_array().context("a list")?.iter().cloned());
            match page["continue"].as_str() {
                Some(more) => next = Some(more.to_owned()),
                None => return Ok(items),
            }
        }
    }
}

fn write_hub_config(dir: &Path, agents: SocketAddr, api: SocketAddr, metrics: SocketAddr) -> Result<()> {
    let config = json!({
        "data_dir": dir.join("data"),
        "policies_dir": dir.join("policies"),
        "key_file": dir.join("key/hub-key"),
        "listen": { "agents": agents, "api": api, "metrics": metrics },
        "archive": { "dir": dir.join("archive") },
    });
    Ok(std::fs::write(dir.join("hub.yaml"), config.to_string())?)
}

/// `lockstep`, beside this binary or, for a test, one directory up.
fn built_binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found =
        own.ancestors().skip(1).take(2).map(|place| place.join("lockstep")).find(|path| path.is_file());
    found.with_context(|| format!("no lockstep beside {}: run `cargo build --workspace`", own.display()))
}
