//! The functional core stays pure: what it depends on cannot read a clock, draw randomness or do I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::root;

/// Crates without effects, and all they depend on.
const PURE: [&str; 2] = ["lockstep-engine", "lockstep-policies"];
/// What brings effects. A crate that is not listed is no proof of purity; these are the ones people reach for.
const IMPURE: [&str; 34] = [
    "async-std",
    "axum",
    "backoff",
    "chrono",
    "crossbeam",
    "fastrand",
    "figment",
    "futures",
    "getrandom",
    "hyper",
    "hyper-util",
    "instant",
    "k8s-openapi",
    "kube",
    "kube-client",
    "kube-core",
    "mio",
    "notify",
    "object_store",
    "rand",
    "rand_core",
    "rayon",
    "reqwest",
    "ring",
    "rusqlite",
    "rustix",
    "socket2",
    "tempfile",
    "time",
    "tokio",
    "tonic",
    "tower",
    "tracing",
    "uuid",
];
/// Who may depend on `kube`: `cluster` talks to API servers; the command line and the tests read kubeconfigs.
const KUBE_USERS: [&str; 4] = ["lockstep-cli", "lockstep-cluster", "lockstep-sim", "lockstep-tests"];
/// Not in the core, wherever its source stands (`wire` depends on tonic for the generated stubs).
const FORBIDDEN_PATHS: [&str; 11] = [
    "figment",
    "rand",
    "serde_saphyr::figment",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::time",
    "tokio",
    "tonic",
];

fn metadata() -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // What other platforms need was not downloaded for the build.
    let about = Command::new("rustc").arg("-vV").output().context("running rustc")?;
    let about = String::from_utf8(about.stdout)?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names its host")?;
    let output = Command::new(cargo)
        .args(["metadata", "--offline", "--locked", "--format-version=1", "--filter-platform", host])
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"))
        .output()
        .context("running cargo")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Normal dependencies by package id, and names by id.
struct Graph {
    names: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<String>>,
}

impl Graph {
    fn read() -> Result<Self> {
        let metadata = metadata()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let names = list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
        let is_normal =
            |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|k| k["kind"].is_null());
        let edges = list(&metadata["resolve"]["nodes"])
            .iter()
            .map(|node| {
                let normal = list(&node["deps"]).into_iter().filter(is_normal);
                (text(&node["id"]), normal.map(|dependency| text(&dependency["pkg"])).collect())
            })
            .collect();
        Ok(Self { names, edges })
    }

    fn id(&self, name: &str) -> Result<&String> {
        let found = self.names.iter().find(|(_, known)| *known == name).map(|(id, _)| id);
        found.with_context(|| format!("the workspace has no crate {name}"))
    }

    /// Names of all that a crate depends on, each with the name of what asks for it.
    fn reach(&self, name: &str) -> Result<BTreeMap<&str, &str>> {
        let mut reached = BTreeMap::new();
        let mut visited = BTreeSet::new();
        let mut open = vec![self.id(name)?];
        while let Some(id) = open.pop() {
            if !visited.insert(id) {
                continue;
            }
            for dependency in self.edges.get(id).into_iter().flatten() {
                reached.entry(self.names[dependency].as_str()).or_insert(self.names[id].as_str());
                open.push(dependency);
            }
        }
        Ok(reached)
    }
}

#[test]
fn the_core_depends_on_nothing_that_has_effects() -> Result<()> {
    let graph = Graph::read()?;
    for name in PURE {
        let reached = graph.reach(name)?;
        assert!(reached.contains_key("serde"), "{name}: the graph was read wrongly: {reached:?}");
        for impure in IMPURE {
            assert!(
                !reached.contains_key(impure),
                "{name} depends on {impure}, by way of {}",
                reached[impure]
            );
        }
    }
    Ok(())
}

#[test]
fn only_cluster_talks_to_api_servers() -> Result<()> {
    let graph = Graph::read()?;
    let mut users = BTreeSet::new();
    for name in graph.names.values().filter(|name| name.starts_with("lockstep-")) {
        let direct = graph.edges.get(graph.id(name)?).into_iter().flatten();
        if direct.into_iter().any(|id| graph.names[id] == "kube") {
            users.insert(name.as_str());
        }
    }
    let allowed = BTreeSet::from(KUBE_USERS);
    assert!(users.contains("lockstep-cluster"), "{users:?}");
    assert!(users.is_subset(&allowed), "who depends on kube: {users:?}; who may: {allowed:?}");
    Ok(())
}

#[test]
fn the_source_of_the_core_names_no_clock_file_socket_or_environment() -> Result<()> {
    let mut files = vec![];
    for place in ["engine/src", "policies/src", "wire/src/session", "wire/src/session.rs"] {
        rust_files(&root().join(place), &mut files)?;
    }
    assert!(files.len() > 30, "only {} files found", files.len());
    let mut found = vec![];
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        // Tests may do what they like; a module of tests is the last thing in its file.
        let text = text.find("#[cfg(test)]\nmod tests {").map_or(text.as_str(), |end| &text[..end]);
        for (number, line) in (1..).zip(text.lines()) {
            let code = line.split("//").next().unwrap_or_default();
            for path in FORBIDDEN_PATHS {
                if names_path(code, path) {
                    found.push(format!("{}:{number}: {path}: {}", file.display(), line.trim()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// A listener of its own would have none of the bounds.
#[test]
fn only_the_front_door_accepts_connections() -> Result<()> {
    let mut files = vec![];
    for place in ["agent/src", "cli/src", "hub/src", "wire/src", "cluster/src"] {
        rust_files(&root().join(place), &mut files)?;
    }
    let mut found = vec![];
    for file in files {
        // `doctor` looks whether a port is free, and closes it at once.
        if file.ends_with("doctor/hub.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file)?;
        let text = text.find("#[cfg(test)]\nmod tests {").map_or(text.as_str(), |end| &text[..end]);
        for listener in ["TcpListener", "axum::serve", "Server::builder", "UnixListener"] {
            if text.contains(listener) {
                found.push(format!("{}: {listener}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "use lockstep_net::Front: {}", found.join(", "));
    Ok(())
}

/// Is `path` used as a path in this line: `path::` (or, for a module of std, also at its end)?
fn names_path(code: &str, path: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.match_indices(path).any(|(at, _)| {
        let starts = !code[..at].chars().next_back().is_some_and(is_word);
        let rest = &code[at + path.len()..];
        let ends = rest.starts_with("::") || (path.contains("::") && !rest.starts_with(is_word));
        starts && ends
    })
}

/// All sources but files of tests, and what only tests are built with.
fn rust_files(place: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if place.is_file() {
        files.push(place.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(place).with_context(|| format!("reading {}", place.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "tests" {
            rust_files(&path, files)?;
        } else if name.ends_with(".rs")
            && !name.contains("tests")
            && !["fixtures.rs", "mutants.rs"].contains(&name)
        {
            files.push(path);
        }
    }
    Ok(())
}

#[test]
fn paths_are_recognised() {
    assert!(names_path("use std::time::Duration;", "std::time"));
    assert!(names_path("let x = tokio::spawn(y);", "tokio"));
    assert!(names_path("use std::env;", "std::env"));
    assert!(!names_path("use crate::operand::x;", "rand"));
    assert!(!names_path("the brand::x", "rand"));
    assert!(!names_path("use std::envelope::x;", "std::env"));
}

/// Guards can be switched off in one binary only, and only where it is built for that.
#[test]
fn no_ordinary_build_has_guards_that_can_be_off() -> Result<()> {
    let metadata = metadata()?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let nodes = list(&metadata["resolve"]["nodes"]);
    let with = |node: &&Value| list(&node["features"]).iter().any(|feature| feature == "mutants");
    let on: Vec<&Value> = nodes.iter().filter(with).map(|node| &node["id"]).collect();
    assert!(on.is_empty(), "the feature `mutants` is on: {on:?}");
    let mut askers = BTreeSet::new();
    for package in list(&metadata["packages"]) {
        let text = serde_json::to_string(&[&package["features"], &package["dependencies"]])?;
        if text.contains("mutants") {
            askers.insert(package["name"].as_str().unwrap_or_default().to_owned());
        }
    }
    assert_eq!(askers, BTreeSet::from(["lockstep-engine".to_owned(), "lockstep-sim".to_owned()]));
    Ok(())
}
