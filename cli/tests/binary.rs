//! The binary as people meet it: help, exit codes, streams.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::{Command, Output};

fn lockstep(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(arguments)
        .env_remove("LOCKSTEP_SERVER")
        .env_remove("LOCKSTEP_TOKEN")
        .env_remove("KUBECONFIG")
        .env("XDG_DATA_HOME", "/nonexistent")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A port that nothing listens on.
fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let output = lockstep(&["--help"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0));
    for word in [
        "up",
        "hub",
        "agent",
        "token",
        "status",
        "clusters",
        "get",
        "explain",
        "diff",
        "approve",
        "pause",
        "resume",
        "wait",
        "policy",
        "tombstones",
        "doctor",
        "completions",
    ] {
        assert!(text.contains(&format!("\n  {word} ")), "{word} is not in:\n{text}");
    }
    assert!(text.contains("Exit codes: 0 done, 1 failed, 2 usage, 3 differences or findings."), "{text}");
    assert!(text.contains("kubectl lockstep") && text.contains("LOCKSTEP_TOKEN"), "{text}");
    assert!(!text.contains('\x1b'), "no colours into a pipe");
}

#[test]
fn every_command_has_help() {
    for command in [
        vec!["up"],
        vec!["hub"],
        vec!["hub", "backup"],
        vec!["hub", "restore"],
        vec!["agent"],
        vec!["token", "create"],
        vec!["status"],
        vec!["clusters"],
        vec!["get"],
        vec!["explain"],
        vec!["diff"],
        vec!["approve"],
        vec!["pause"],
        vec!["resume"],
        vec!["wait"],
        vec!["policy", "lint"],
        vec!["tombstones", "list"],
        vec!["tombstones", "show"],
        vec!["doctor"],
        vec!["completions"],
    ] {
        let mut arguments = command.clone();
        arguments.push("--help");
        let output = lockstep(&arguments);
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        assert!(stdout(&output).contains("Usage: lockstep "), "{command:?}");
    }
}

#[test]
fn version_and_usage_errors() {
    let output = lockstep(&["--version"]);
    assert_eq!(stdout(&output), format!("lockstep {}\n", env!("CARGO_PKG_VERSION")));
    let output = lockstep(&["statsu"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("status"), "a near command is offered: {}", stderr(&output));
    let output = lockstep(&["explain", "deployment"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("LS0011"), "{}", stderr(&output));
}

#[test]
fn a_refused_connection_says_how_to_start_a_hub() {
    let server = nowhere();
    for command in
        [vec!["status"], vec!["clusters"], vec!["get", "deploy"], vec!["pause", "--all"], vec!["diff"]]
    {
        let mut arguments = vec!["--server", &server];
        arguments.extend(command.iter().copied());
        let output = lockstep(&arguments);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let text = stderr(&output);
        assert!(text.starts_with("error: LS0001: no hub at "), "{text}");
        assert!(text.contains("lockstep up --kubeconfig"), "{text}");
        assert_eq!(stdout(&output), "", "errors go to stderr");
    }
}

#[test]
fn lint_exits_3_on_findings_and_names_line_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.yaml");
    let policy = "apiVersion: sync.k8s.io/v1\nkind: ClusterSyncPolicy\nmetadata: {name: p}\nspec:\n  \
                  sourceCluster: cluster-a\n  targetClusters: [cluster-b]\n  resources:\n  - apiGroup: apps\n    \
                  kind: Deployment\n    matchLabels: {env: production}\n";
    std::fs::write(&good, policy).unwrap();
    let output = lockstep(&["policy", "lint", good.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    std::fs::write(
        dir.path().join("bad.yaml"),
        policy.replace("matchLabels", "matchLables").replace("name: p", "name: q"),
    )
    .unwrap();
    let output = lockstep(&["policy", "lint", dir.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    let text = stdout(&output);
    assert!(text.contains("bad.yaml:10:") && text.contains("matchLabels"), "{text}");
    let output = lockstep(&["policy", "lint", dir.path().to_str().unwrap(), "-o", "json"]);
    assert_eq!(output.status.code(), Some(3));
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list["kind"], "FindingList");
    assert_eq!(list["items"][0]["line"], 10);
    let output = lockstep(&["policy", "lint", "/nowhere/p.yaml"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn completions_are_scripts() {
    for (shell, word) in
        [("bash", "complete -F"), ("zsh", "#compdef lockstep"), ("fish", "complete -c lockstep")]
    {
        let output = lockstep(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains(word), "{shell}");
    }
}

#[test]
fn up_refuses_what_cannot_work() {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("config");
    std::fs::write(
        &kubeconfig,
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {server: 'http://127.0.0.1:1'}\n\
         users:\n- name: u\n  user: {}\ncontexts:\n- name: Not_A_Label\n  context: {cluster: c, user: u}\n",
    )
    .unwrap();
    let policies = dir.path().to_str().unwrap();
    let output = lockstep(&["up", "--kubeconfig", kubeconfig.to_str().unwrap(), "--policies", policies]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("LS0007") && stderr(&output).contains("--contexts my-cluster=Not_A_Label")
    );
    let output = lockstep(&["up", "--policies", policies]);
    assert_eq!(output.status.code(), Some(2));
    let missing = lockstep(&["up", "--kubeconfig", "/nowhere", "--policies", policies]);
    assert!(stderr(&missing).contains("/nowhere"), "{}", stderr(&missing));
}

#[test]
fn doctor_finds_what_is_wrong_and_exits_3() {
    let server = nowhere();
    let output = lockstep(&["doctor", "--server", &server, "-o", "json"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let hub = list["items"].as_array().unwrap().iter().find(|check| check["name"] == "hub").unwrap();
    assert_eq!(hub["verdict"], "failure");
    assert!(hub["remedy"].as_str().unwrap().contains("lockstep up"));
}

#[test]
fn runs_under_kubectls_name() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("kubectl-lockstep");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_lockstep"), &link).unwrap();
    let output = Command::new(&link).arg("status").arg("--help").output().unwrap();
    assert!(stdout(&output).contains("Usage: kubectl lockstep status"), "{}", stdout(&output));
}
