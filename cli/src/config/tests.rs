use std::path::PathBuf;

use super::*;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hub.yaml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(text: &str, pairs: &[(&str, &str)], flags: Flags) -> Result<HubConfig, CliError> {
    let (_dir, path) = file(text);
    hub(&HubConfig::default(), &Layers::new(Some(&path), variables(pairs), flags)?)
}

#[test]
fn each_layer_wins_over_the_one_below() {
    let text = "data_dir: /from/file\npolicies_dir: /from/file\nlisten:\n  api: 127.0.0.1:1\n  agents: 127.0.0.1:2\n";
    let pairs = [
        ("LOCKSTEP_CONFIG__POLICIES_DIR", "/from/environment"),
        ("LOCKSTEP_CONFIG__LISTEN__API", "127.0.0.1:3"),
        ("LOCKSTEP_CONFIG__API__READERS", "9"),
        ("LOCKSTEP_SERVER", "http://ignored"),
    ];
    let flags = Flags::default().with("listen.api", Some("127.0.0.1:4")).with("key_file", None::<String>);
    let config = load(text, &pairs, flags).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/from/file"));
    assert_eq!(config.policies_dir, PathBuf::from("/from/environment"));
    assert_eq!(config.listen.api.port(), 4);
    assert_eq!(config.listen.agents.port(), 2, "a level keeps what the layers above do not name");
    assert_eq!(config.api.readers, 9);
    assert_eq!(config.key_file, HubConfig::default().key_file);
    let nothing = Layers::new(None, [], Flags::default()).unwrap();
    assert_eq!(hub(&HubConfig::default(), &nothing).unwrap(), HubConfig::default());
}

#[test]
fn an_empty_file_is_no_error_and_metrics_can_be_switched_off() {
    assert_eq!(load("", &[], Flags::default()).unwrap(), HubConfig::default());
    assert_eq!(load("# nothing\n", &[], Flags::default()).unwrap(), HubConfig::default());
    assert_eq!(load("listen: {metrics: null}\n", &[], Flags::default()).unwrap().listen.metrics, None);
}

#[test]
fn unknown_keys_name_file_line_and_the_key_that_was_meant() {
    let error = load("data_dir: /d\nlisten:\n  agnets: 127.0.0.1:1\n", &[], Flags::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("LS0004: /") && error.contains("hub.yaml:3: unknown key `listen.agnets`"),
        "{error}"
    );
    assert!(error.contains("did you mean `agents`?"), "{error}");
    let pairs = [("LOCKSTEP_CONFIG__DATADIR", "/x")];
    let error = load("", &pairs, Flags::default()).unwrap_err().to_string();
    assert!(error.contains("LOCKSTEP_CONFIG__DATADIR: unknown key `datadir`"), "{error}");
    assert!(error.contains("did you mean `data_dir`?"), "{error}");
    let error = load("colour: red\n", &[], Flags::default()).unwrap_err().to_string();
    assert!(error.contains("known here: data_dir, "), "{error}");
}

#[test]
fn bad_values_and_contradictions_say_where_they_stand() {
    let error = load("listen:\n  api: nowhere\n", &[], Flags::default()).unwrap_err().to_string();
    assert!(error.contains("hub.yaml:2: `listen.api`: "), "{error}");
    let error = load("listen:\n  agents: 0.0.0.0:7440\n", &[], Flags::default()).unwrap_err().to_string();
    assert!(error.contains("hub.yaml:2: listen.agents: ") && error.contains("tls.cert_file"), "{error}");
    let error = load("a: [\n", &[], Flags::default()).unwrap_err().to_string();
    assert!(error.contains("LS0004") && error.contains("hub.yaml:"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = Layers::new(Some(Path::new("/nowhere/hub.yaml")), [], Flags::default()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/hub.yaml cannot be read"), "{error}");
}

#[test]
fn agents_take_their_own_keys_and_ours() {
    let (dir, path) = file(
        "cluster: a\nhub: http://127.0.0.1:7440\ntoken_file: TOKEN\ncontext: ctx\nmetrics: 127.0.0.1:1\n",
    );
    let token = dir.path().join("token");
    std::fs::write(&token, "12345\n").unwrap();
    let flags = Flags::default().with("token_file", Some(token.display()));
    let settings = agent(Layers::new(Some(&path), [], flags).unwrap()).unwrap();
    assert_eq!(settings.agent.cluster.as_str(), "a");
    assert_eq!(settings.agent.token.reveal(), "12345");
    assert_eq!(settings.context.as_deref(), Some("ctx"));
    assert!(!format!("{settings:?}").contains("12345"));
    let pairs = variables(&[("LOCKSTEP_CONFIG__TOKEN", "999")]);
    let (_dir, path) = file("cluster: a\nhub: https://h:1\nkubeconfg: x\n");
    let error = agent(Layers::new(Some(&path), pairs, Flags::default()).unwrap()).unwrap_err().to_string();
    assert!(error.contains("did you mean `kubeconfig`?"), "{error}");
}

#[test]
fn tokens_are_in_no_error() {
    let (_dir, path) = file("cluster: a\nhub: https://h:1\ntoken: 123456\n");
    let error = agent(Layers::new(Some(&path), [], Flags::default()).unwrap()).unwrap_err().to_string();
    assert!(!error.contains("123456") && error.contains("`token` is not text"), "{error}");
    let (_dir, path) = file("cluster: a\nhub: https://h:1\n");
    let error = agent(Layers::new(Some(&path), [], Flags::default()).unwrap()).unwrap_err().to_string();
    assert!(error.contains("`token`"), "{error}");
}

#[test]
fn the_sample_files_are_valid_and_name_every_setting() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let layers = Layers::new(Some(&examples.join("hub.yaml")), [], Flags::default()).unwrap();
    assert_eq!(
        hub(&HubConfig::default(), &layers).unwrap(),
        HubConfig::default(),
        "the sample shows the defaults"
    );
    let pairs = variables(&[("LOCKSTEP_CONFIG__TOKEN", "x")]);
    let text = std::fs::read_to_string(examples.join("agent.yaml")).unwrap();
    let text = text.replace("token_file:", "# token_file:");
    let (_dir, path) = file(&text);
    let settings = agent(Layers::new(Some(&path), pairs, Flags::default()).unwrap()).unwrap();
    let AgentConfig {
        cluster,
        hub,
        token,
        tls,
        accept,
        protected_namespaces,
        lists_at_once,
        queue_bytes,
        queue_items,
        spill_dir,
        spill_bytes,
        watch,
        discovery_interval_s,
        steps_at_once,
        lease_namespace,
        census_interval_s,
    } = settings.agent;
    let defaults = AgentConfig::new(cluster, &hub, token);
    assert_eq!(
        (accept, lists_at_once, queue_bytes, queue_items, watch, discovery_interval_s, steps_at_once),
        (
            defaults.accept,
            defaults.lists_at_once,
            defaults.queue_bytes,
            defaults.queue_items,
            defaults.watch,
            defaults.discovery_interval_s,
            defaults.steps_at_once
        ),
        "the sample shows the defaults"
    );
    assert_eq!(protected_namespaces, defaults.protected_namespaces);
    assert_eq!((lease_namespace, census_interval_s), (defaults.lease_namespace, defaults.census_interval_s));
    assert_eq!((tls, spill_dir, spill_bytes), (defaults.tls, defaults.spill_dir, defaults.spill_bytes));
    for key in ["tls", "kubeconfig", "context", "metrics", "token_file", "spill_dir"] {
        assert!(text.contains(&format!("{key}:")), "agent.yaml does not name {key}");
    }
}
