//! The real `lockstep` binary under test: `lockstep up` on the test bed, and its commands.

mod fleet;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::deploy;
use crate::harness::{PATIENCE, eventually, in_time};
use crate::patience::scaled;
use crate::testbed::Testbed;

pub use fleet::Fleet;

/// "Within a second" of the issue, on an idle machine. Tests run several at a time on two cores, and
/// do not time: they wait with patience and leave the figure to the benchmarks.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// One request to a hub that may be busy.
const METRICS_PATIENCE: Duration = Duration::from_secs(10);

/// Agents of their own read what `lockstep up` lets its agents read.
const READS_EVERYTHING: &str = "accept:
- kinds: ['*']
- { kinds: ['*', Secret], namespaces: ['*', kube-system, kube-public, kube-node-lease], verbs: [read] }
";

/// The binary, beside the test's own.
///
/// # Errors
/// When it was not built.
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // Tests lie in target/debug/deps, our own programs in target/debug.
    let dir = own.parent().context("a program lies in a directory")?;
    let target = if dir.ends_with("deps") { dir.parent().context("deps lies in target/debug")? } else { dir };
    let binary = target.join("lockstep");
    ensure!(binary.is_file(), "{} is missing: run `cargo build --workspace`", binary.display());
    Ok(binary)
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Printed {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A `lockstep up` with directories of its own. Killed when dropped.
pub struct Lockstep {
    /// Holds policies, data, key and logs.
    pub dir: tempfile::TempDir,
    kubeconfig: PathBuf,
    contexts: String,
    child: Option<Child>,
    log_filter: String,
    accept: Vec<String>,
    hub_only: bool,
    environment: Vec<(String, String)>,
    descriptors: Option<u32>,
    starts: u32,
    addresses: Value,
}

impl Lockstep {
    /// Prepares one on all three clusters, with the rights that `deploy/agent` grants; nothing runs yet.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub async fn prepare(bed: &Testbed) -> Result<Self> {
        Self::prepare_with(&deploy::agent_kubeconfig(bed).await?)
    }

    /// Prepares one whose agents use this kubeconfig; nothing runs yet.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn prepare_with(text: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        for part in ["policies", "data"] {
            std::fs::create_dir(dir.path().join(part))?;
        }
        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, text)?;
        let contexts = "cluster-a,cluster-b,cluster-c".to_owned();
        let log_filter = "info,lockstep_hub=debug,lockstep_agent=debug,lockstep_cluster=debug".to_owned();
        Ok(Self {
            dir,
            kubeconfig,
            contexts,
            child: None,
            log_filter,
            accept: Vec::new(),
            hub_only: false,
            environment: Vec::new(),
            descriptors: None,
            starts: 0,
            addresses: Value::Null,
        })
    }

    /// Prepares one, writes a policy and starts it.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn with_policy(bed: &Testbed, policy: &str) -> Result<Self> {
        let mut lockstep = Self::prepare(bed).await?;
        lockstep.policy("policy.yaml", policy)?;
        lockstep.start().await?;
        Ok(lockstep)
    }

    /// Prepares a hub without agents, with settings from the environment, registers the three clusters, writes a policy and starts it.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn hub_with_policy(bed: &Testbed, policy: &str, environment: &[(&str, &str)]) -> Result<Self> {
        Self::hub_as(&deploy::agent_kubeconfig(bed).await?, policy, environment).await
    }

    /// The same, for agents that use this kubeconfig.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn hub_as(kubeconfig: &str, policy: &str, environment: &[(&str, &str)]) -> Result<Self> {
        let mut lockstep = Self::prepare_with(kubeconfig)?;
        lockstep.hub_only = true;
        lockstep.environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        lockstep.start().await?;
        for cluster in lockstep.contexts.split(',') {
            let made = lockstep.json(&["token", "create", cluster]).await?;
            let token = made["token"].as_str().context("a token")?;
            std::fs::write(lockstep.dir.path().join(format!("token-{cluster}")), token)?;
        }
        lockstep.policy("policy.yaml", policy)?;
        Ok(lockstep)
    }

    /// Starts the agent of a cluster, as a process of its own, against a hub's address.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn agent(&self, cluster: &str, hub: &str, environment: &[(&str, &str)]) -> Result<Child> {
        let log = std::fs::File::create(self.dir.path().join(format!("log-{cluster}")))?;
        let mut command = Command::new(binary()?);
        command.args(["agent", "--cluster", cluster, "--hub", hub, "--context", cluster]);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command.arg("--agent-token-file").arg(self.dir.path().join(format!("token-{cluster}")));
        let config = self.dir.path().join(format!("agent-{cluster}.yaml"));
        std::fs::write(&config, READS_EVERYTHING)?;
        command.arg("--config").arg(config);
        command.envs(environment.iter().copied());
        command.env("RUST_LOG", &self.log_filter).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command.kill_on_drop(true).spawn()?)
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Logs by another filter from the next start on.
    pub fn log(&mut self, filter: &str) {
        filter.clone_into(&mut self.log_filter);
    }

    /// A variable of the environment from the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Open files that it may have, from the next start on.
    pub fn limit_descriptors(&mut self, limit: u32) {
        self.descriptors = Some(limit);
    }

    /// What the agents accept from the next start on; as in `lockstep up --accept`.
    pub fn accept(&mut self, kinds: &[&str]) {
        self.accept = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    }

    /// Writes a policy file, as an editor does: beside, then renamed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn policy(&self, file: &str, text: &str) -> Result<()> {
        let path = self.policies().join(file);
        let beside = self.policies().join(format!(".{file}.new"));
        std::fs::write(&beside, text)?;
        Ok(std::fs::rename(beside, path)?)
    }

    /// The policies directory.
    #[must_use]
    pub fn policies(&self) -> PathBuf {
        self.dir.path().join("policies")
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// All that it has logged and printed, over all its starts.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn logged(&self) -> Result<String> {
        let mut text = String::new();
        for n in 1..=self.starts {
            text += &std::fs::read_to_string(self.log_path(n))?;
        }
        Ok(text)
    }

    fn log_path(&self, n: u32) -> PathBuf {
        self.dir.path().join(format!("log-{n}"))
    }

    /// Starts `lockstep up` and waits until the hub answers.
    ///
    /// # Errors
    /// When it ends, or does not answer in time.
    pub async fn start(&mut self) -> Result<()> {
        let ready = self.dir.path().join("ready.json");
        let _ = std::fs::remove_file(&ready);
        self.starts += 1;
        let log = std::fs::File::create(self.log_path(self.starts))?;
        let mut command = match self.descriptors {
            None => Command::new(binary()?),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\"")).arg(binary()?);
                shell
            }
        };
        if self.hub_only {
            command.arg("hub");
        } else {
            command.arg("up").arg("--kubeconfig").arg(&self.kubeconfig).args(["--contexts", &self.contexts]);
            // Where `deploy/agent` grants it.
            command.args(["--lease-namespace", deploy::NAMESPACE]);
        }
        command.arg("--policies").arg(self.policies()).arg("--data-dir").arg(self.data());
        command.arg("--key-file").arg(self.dir.path().join("hub-key")).arg("--ready-file").arg(&ready);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        for kind in &self.accept {
            command.args(["--accept", kind]);
        }
        for address in ["--listen-agents", "--listen-api", "--listen-metrics"] {
            command.args([address, "127.0.0.1:0"]);
        }
        command.env("RUST_LOG", &self.log_filter).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.kill_on_drop(true).spawn()?);
        self.addresses = eventually(PATIENCE, "lockstep up is ready", async || {
            if let Some(ended) = self.child.as_mut().context("it was started")?.try_wait()? {
                bail!("it ended with {ended}:\n{}", std::fs::read_to_string(self.log_path(self.starts))?);
            }
            Ok(serde_json::from_slice(&std::fs::read(&ready)?)?)
        })
        .await?;
        Ok(())
    }

    /// Waits until all agents are connected and their watches are live.
    ///
    /// # Errors
    /// When that does not come to be.
    pub async fn settled(&self) -> Result<()> {
        eventually(PATIENCE, "every watch of every cluster is live", async || {
            let clusters = self.json(&["clusters"]).await?;
            for cluster in clusters["items"].as_array().context("a list of clusters")? {
                ensure!(cluster["connected"] == true, "not connected: {cluster}");
                for watch in cluster["watches"].as_array().into_iter().flatten() {
                    ensure!(watch["phase"] == "Live", "not live: {watch}");
                }
            }
            Ok(())
        })
        .await
    }

    /// SIGKILL, at any time.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.take().context("it does not run")?.kill().await?)
    }

    /// SIGTERM, and waits for a graceful end.
    ///
    /// # Errors
    /// When it does not end, or not with 0.
    pub async fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        let id = i32::try_from(child.id().context("it runs")?)?;
        let pid = rustix::process::Pid::from_raw(id).context("a process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let ended = in_time(STOP_PATIENCE, "lockstep has stopped", child.wait()).await??;
        ensure!(ended.success(), "it ended with {ended}");
        Ok(())
    }

    /// Where one of its parts listens: `agents`, `api`, `metrics`.
    ///
    /// # Errors
    /// When it has not said so.
    pub fn address(&self, part: &str) -> Result<String> {
        let address = &self.addresses[part];
        let address =
            address.as_str().with_context(|| format!("no address of {part} in {}", self.addresses))?;
        Ok(address.trim_start_matches("http://").to_owned())
    }

    /// What the hub's `/metrics` gives.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        let url = format!("http://{}/metrics", self.address("metrics")?);
        let limit = scaled(METRICS_PATIENCE).as_secs().to_string();
        let output = Command::new("curl").args(["-sS", "--max-time", &limit, &url]).output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a command against this hub.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn run(&self, arguments: &[&str]) -> Result<Printed> {
        let mut command = Command::new(binary()?);
        command.args(arguments).env_remove("RUST_LOG").env("NO_COLOR", "1").stdin(Stdio::null());
        if let Ok(api) = self.address("api") {
            command.env("LOCKSTEP_SERVER", format!("http://{api}"));
            command.arg("--token-file").arg(self.data().join("api-token"));
        }
        let output = command.output().await?;
        Ok(Printed {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that must succeed; what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub async fn text(&self, arguments: &[&str]) -> Result<String> {
        let printed = self.run(arguments).await?;
        ensure!(
            printed.code == 0,
            "{arguments:?} ended with {}: {}{}",
            printed.code,
            printed.stdout,
            printed.stderr
        );
        Ok(printed.stdout)
    }

    /// Waits by `lockstep wait` until a policy is in step.
    ///
    /// # Errors
    /// When it does not come to be.
    pub async fn wait(&self, policy: &str) -> Result<String> {
        self.text(&["wait", policy, "--timeout", &wait_limit()]).await
    }

    /// Runs a command with `-o json`.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.text(&[arguments, &["-o", "json"]].concat()).await?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// `State/Reason: message` of an object at a target, from `explain`.
    ///
    /// # Errors
    /// When the hub does not answer.
    pub async fn standing(&self, object: &str, namespace: &str, target: &str) -> Result<String> {
        let explanation = self.json(&["explain", object, "-n", namespace]).await?;
        let targets = explanation["targets"].as_array().context("a list of targets")?;
        let found = targets.iter().find(|t| t["target"] == target);
        Ok(found.map_or_else(
            || format!("nothing: {explanation}"),
            |t| format!("{}/{}: {}", text_of(&t["state"]), text_of(&t["reason"]), text_of(&t["message"])),
        ))
    }

    /// Waits until an object stands like that at a target.
    ///
    /// # Errors
    /// When it does not.
    pub async fn stands(&self, object: &str, namespace: &str, target: &str, prefix: &str) -> Result<String> {
        eventually(PATIENCE, &format!("{object} at {target} is {prefix}"), async || {
            let standing = self.standing(object, namespace, target).await?;
            ensure!(standing.starts_with(prefix), "it is {standing}");
            Ok(standing)
        })
        .await
    }
}

/// What `lockstep wait --timeout` should be given.
#[must_use]
pub fn wait_limit() -> String {
    format!("{}s", scaled(PATIENCE).as_secs())
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Does any file below a directory hold one of these byte strings? The first that does.
///
/// # Errors
/// When a file cannot be read.
pub fn search(dir: &Path, needles: &[&str]) -> Result<Option<String>> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = search(&path, needles)? {
                return Ok(Some(found));
            }
        } else if path.is_file() {
            let bytes = std::fs::read(&path)?;
            for needle in needles {
                if bytes.windows(needle.len()).any(|window| window == needle.as_bytes()) {
                    return Ok(Some(format!("`{needle}` is in {}", path.display())));
                }
            }
        }
    }
    Ok(None)
}
