//! `testbed`: starts and stops real control planes for tests, demos and people. See `make help`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use lockstep_tests::patience;
use lockstep_tests::requests::AuditEvent;
use lockstep_tests::testbed::{
    Binaries, Component, Options, STATE_VARIABLE, Signal, State, Testbed, dying_with_parent, remove_data,
};
use tokio::signal::unix::{SignalKind, signal};

/// Where `make clusters` keeps its test bed.
const DIRECTORY: &str = ".testbed";
/// Killing nine processes takes milliseconds; their memory may take longer to be given back.
const DOWN_TIMEOUT: Duration = Duration::from_secs(20);
/// nextest gives its tests 10 s after a signal; a command that takes longer than this is killed.
const COMMAND_GRACE: Duration = Duration::from_secs(20);
/// Pause between looks at a file or a process.
const POLL: Duration = Duration::from_millis(100);

/// Real Kubernetes control planes on loopback.
#[derive(Parser)]
#[command(name = "testbed")]
struct Cli {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Start three control planes and leave them running
    Up {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        planes: Planes,
    },
    /// Stop those that `up` started, and remove their data
    Down(Place),
    /// Tell what runs
    Status(Place),
    /// Freeze the API servers of clusters: connections stay open and nothing answers
    Pause(Chosen),
    /// Let frozen API servers go on
    Resume(Chosen),
    /// Start control planes for one command, with LOCKSTEP_TESTBED and LOCKSTEP_PATIENCE set; exit with its code
    Run {
        #[command(flatten)]
        planes: Planes,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Find or build the binaries; print their directory
    Binaries,
    /// Compare every request that lockstep made so far with an allow-list (needs `--audit`)
    CheckRequests {
        /// One shape per line; `#` begins a comment
        #[arg(long)]
        allow: PathBuf,
    },
    /// Run in the foreground until a signal comes (`up` starts this)
    #[command(hide = true)]
    Serve {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        planes: Planes,
    },
}

#[derive(Args)]
struct Place {
    /// Where kubeconfig, state, data and logs are
    #[arg(long, default_value = DIRECTORY)]
    dir: PathBuf,
}

#[derive(Args)]
struct Chosen {
    #[command(flatten)]
    place: Place,
    /// Names of clusters
    #[arg(required = true)]
    clusters: Vec<String>,
}

#[derive(Args, Clone)]
struct Planes {
    /// Log every request to DIR/CLUSTER/audit.log
    #[arg(long)]
    audit: bool,
}

impl Planes {
    fn options(&self, directory: Option<PathBuf>) -> Options {
        let Self { audit } = *self;
        Options { directory, audit, verbose: true, ..Options::default() }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Commands::Up { place, planes } => up(&place.dir, &planes).await.map(|()| 0),
        Commands::Down(place) => down(&place.dir).await.map(|()| 0),
        Commands::Status(place) => status(&place.dir),
        Commands::Pause(chosen) => freeze(&chosen, true).await.map(|()| 0),
        Commands::Resume(chosen) => freeze(&chosen, false).await.map(|()| 0),
        Commands::Run { planes, command } => run(&planes, &command).await,
        Commands::Binaries => binaries().map(|()| 0),
        Commands::CheckRequests { allow } => check_requests(&allow).await.map(|()| 0),
        Commands::Serve { place, planes } => serve(&place.dir, &planes).await.map(|()| 0),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("testbed: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Silent when all is well: a test runner's summary shall stay the last line.
async fn check_requests(allow: &Path) -> Result<()> {
    let text = std::fs::read_to_string(allow).with_context(|| format!("reading {}", allow.display()))?;
    let allowed: BTreeSet<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let bed = Testbed::from_env().await?;
    let mut others = BTreeSet::new();
    for cluster in bed.clusters() {
        let events = cluster.audit_events()?;
        let ours = events.iter().filter(|event| event.user_agent.starts_with("lockstep/"));
        others.extend(ours.map(AuditEvent::shape).filter(|shape| !allowed.contains(shape.as_str())));
    }
    ensure!(
        others.is_empty(),
        "requests that {} does not name: make sure that Kubernetes 1.20 and the newest take them, then add them:\n{}",
        allow.display(),
        others.into_iter().collect::<Vec<_>>().join("\n")
    );
    Ok(())
}

fn binaries() -> Result<()> {
    println!("{}", Binaries::locate_or_build()?.directory().display());
    Ok(())
}

async fn up(directory: &Path, planes: &Planes) -> Result<()> {
    let directory = absolute(directory)?;
    std::fs::create_dir_all(&directory)?;
    let lock = File::create(directory.join("lock"))?;
    lock.try_lock().context("another `testbed up` or `down` is at work")?;
    let state_path = State::path(&directory);
    if State::read(&state_path).is_ok_and(|state| state.is_alive() && state.ready) {
        eprintln!("testbed: already up");
        return usage(&directory);
    }
    // Here, where it can be seen and interrupted, rather than in the background.
    tokio::task::spawn_blocking(Binaries::locate_or_build).await??;
    // Also clears away what is left of a supervisor that was killed.
    end(&directory).await?;
    let log_path = directory.join("supervisor.log");
    let log = File::create(&log_path)?;
    let mut supervisor = Command::new("setsid")
        .arg(std::env::current_exe()?)
        .args(["serve", "--dir"])
        .arg(&directory)
        .args(planes.audit.then_some("--audit"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // setsid forks if it leads a group, and the id would not be the supervisor's; a new child never leads one.
        .spawn()
        .context("starting setsid (util-linux)")?;
    let began = Instant::now();
    let mut told = 0;
    let ready = async {
        loop {
            let text = std::fs::read_to_string(&log_path).unwrap_or_default();
            eprint!("{}", text.get(told..).unwrap_or_default());
            told = text.len();
            if State::read(&state_path).is_ok_and(|state| state.ready) {
                return Ok(());
            }
            if let Some(status) = supervisor.try_wait()? {
                bail!("the control planes did not start ({status}); see {}", log_path.display());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let outcome = tokio::select! {
        outcome = ready => outcome,
        name = stop_signal() => Err(anyhow::anyhow!("interrupted by {} after {:.1} s", name?.1, began.elapsed().as_secs_f32())),
    };
    if let Err(error) = outcome {
        supervisor.kill()?;
        supervisor.wait()?;
        end(&directory).await?;
        return Err(error);
    }
    usage(&directory)
}

fn usage(directory: &Path) -> Result<()> {
    let State { kubernetes_version, kubeconfig, binaries, clusters, patience_percent, .. } =
        State::read(&State::path(directory))?;
    let names: Vec<_> = clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    let kubeconfig = shown(&kubeconfig);
    println!("Kubernetes {kubernetes_version}: {}", names.join(", "));
    println!();
    println!("  export KUBECONFIG={kubeconfig}");
    println!(
        "  kubectl --context {} get ns      # one that fits: {}/kubectl",
        names.first().unwrap_or(&""),
        binaries.display()
    );
    println!("  lockstep up --kubeconfig {kubeconfig} --policies policies/examples");
    let patience = f64::from(patience_percent) / 100.0;
    println!(
        "  {STATE_VARIABLE}={} {}={patience} cargo test",
        shown(&State::path(directory)),
        patience::VARIABLE
    );
    println!();
    println!("Stop them: make clusters-down");
    Ok(())
}

/// A path as people would type it here.
fn shown(path: &Path) -> String {
    let current = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(current).unwrap_or(path).display().to_string()
}

async fn down(directory: &Path) -> Result<()> {
    let directory = absolute(directory)?;
    if !State::path(&directory).exists() {
        println!("nothing runs in {}", shown(&directory));
        return Ok(());
    }
    let lock = File::create(directory.join("lock"))?;
    lock.try_lock().context("another `testbed up` or `down` is at work")?;
    end(&directory).await?;
    for file in ["supervisor.log", "lock"] {
        let _ = std::fs::remove_file(directory.join(file));
    }
    // Stays if somebody keeps files of their own there.
    let _ = std::fs::remove_dir(&directory);
    println!("stopped");
    Ok(())
}

/// Ends what `state.json` names: first politely, then by force; only processes whose start time fits. Removes the data.
async fn end(directory: &Path) -> Result<()> {
    let path = State::path(directory);
    if !path.exists() {
        return Ok(());
    }
    let state = State::read(&path)?;
    if state.is_alive() {
        state.supervisor.signal(Signal::TERM)?;
        if !gone(&path).await {
            state.supervisor.signal(Signal::KILL)?;
        }
    }
    // They die with the supervisor. If it was killed a moment ago, some may still be at it.
    for process in State::read(&path).unwrap_or(state).living_processes() {
        process.signal(Signal::KILL)?;
    }
    ensure!(gone(&path).await, "processes of {} do not end", path.display());
    remove_data(directory)
}

async fn gone(state: &Path) -> bool {
    let deadline = Instant::now() + DOWN_TIMEOUT;
    while State::read(state).is_ok_and(|state| !state.living_processes().is_empty()) {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

fn status(directory: &Path) -> Result<u8> {
    let path = State::path(&absolute(directory)?);
    let Some(state) = path.exists().then(|| State::read(&path)).transpose()? else {
        println!("nothing runs in {}", shown(directory));
        return Ok(1);
    };
    let alive = if state.is_alive() { "runs" } else { "has ended" };
    println!("Kubernetes {}; supervisor {} {alive}", state.kubernetes_version, state.supervisor.pid);
    for cluster in &state.clusters {
        println!("{}  {}", cluster.name, cluster.server);
        for process in &cluster.processes {
            let alive = if process.process.is_alive() { "runs" } else { "has ended" };
            println!("  {:<24} {:>8} {alive}", process.component.binary(), process.process.pid);
        }
    }
    Ok(u8::from(!state.is_alive()))
}

async fn freeze(chosen: &Chosen, frozen: bool) -> Result<()> {
    let testbed = Testbed::open(&State::path(&absolute(&chosen.place.dir)?)).await?;
    for name in &chosen.clusters {
        let control_plane = testbed.cluster(name)?.control_plane();
        match frozen {
            true => control_plane.pause(Component::ApiServer).await?,
            false => control_plane.resume(Component::ApiServer).await?,
        }
    }
    Ok(())
}

async fn serve(directory: &Path, planes: &Planes) -> Result<()> {
    let options = planes.options(Some(absolute(directory)?));
    let testbed = tokio::select! {
        testbed = Testbed::start(options) => testbed?,
        name = stop_signal() => bail!("{}", name?.1),
    };
    stop_signal().await?;
    drop(testbed);
    Ok(())
}

async fn run(planes: &Planes, command: &[OsString]) -> Result<u8> {
    let Some((program, arguments)) = command.split_first() else { bail!("no command") };
    let set_by_person = patience::set_by_person()?;
    let testbed = tokio::select! {
        testbed = Testbed::start(planes.options(None)) => testbed?,
        name = stop_signal() => {
            let (number, name) = name?;
            eprintln!("testbed: {name}");
            return Ok(exit_code_of_signal(number));
        }
    };
    let factor = set_by_person.unwrap_or(testbed.state().patience());
    if factor > 1.0 {
        eprintln!("testbed: tests wait {factor:.1} times as long as on an idle machine");
    }
    std::io::stderr().flush()?;
    // Spawned by the main thread, which lives as long as this process: see `dying_with_parent`.
    let mut command: tokio::process::Command = dying_with_parent("TERM", program).into();
    let mut child = command
        .args(arguments)
        .env(STATE_VARIABLE, testbed.state_path())
        .env(patience::VARIABLE, factor.to_string())
        .spawn()
        .context("starting setpriv (util-linux)")?;
    let status = tokio::select! {
        status = child.wait() => status?,
        stopped = stop_signal() => {
            let (number, _) = stopped?;
            // Ctrl-C reaches the whole foreground group; other signals only us.
            if number != Signal::INT.as_raw() && let Some(pid) = child.id() {
                lockstep_tests::testbed::ProcessId::of(i32::try_from(pid)?)?.signal(Signal::TERM)?;
            }
            if tokio::time::timeout(COMMAND_GRACE, child.wait()).await.is_err() {
                child.kill().await?;
            }
            drop(testbed);
            return Ok(exit_code_of_signal(number));
        }
    };
    drop(testbed);
    let code = status.code().map(u8::try_from).transpose()?;
    Ok(code.unwrap_or_else(|| exit_code_of_signal(status.signal().unwrap_or_default())))
}

/// As shells count.
fn exit_code_of_signal(number: i32) -> u8 {
    128_u8.saturating_add(u8::try_from(number).unwrap_or(u8::MAX))
}

/// Waits for Ctrl-C or a request to end; gives number and name.
async fn stop_signal() -> Result<(i32, &'static str)> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => (Signal::INT.as_raw(), "SIGINT"),
        _ = terminate.recv() => (Signal::TERM.as_raw(), "SIGTERM"),
        _ = hangup.recv() => (Signal::HUP.as_raw(), "SIGHUP"),
    })
}
