//! What an agent is told: plain values; the cli fills them from file, environment and flags.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use lockstep_cluster::Limits;
use lockstep_engine::ClusterName;
use lockstep_net::is_loopback;
use serde::Deserialize;

use crate::accept::{AcceptEntry, AcceptList};
use crate::error::AgentError;

/// Lists at a time: a list costs the API server about five times its size in memory.
const LISTS_AT_ONCE: usize = 2;
/// Bytes of deltas that wait for the hub. A hub that is away for an hour costs no more memory than
/// this; what is beyond it goes to `spill_dir`, or the watches wait at the server.
const QUEUE_BYTES: usize = 64 << 20;
/// Deltas that wait for the hub: key-only deltas are small, and their slots are not free.
const QUEUE_ITEMS: usize = 500_000;
/// Bytes of bodies that may wait on disk, where a directory is given.
const SPILL_BYTES: u64 = 1 << 30;
/// How often discovery is asked. One cheap request from Kubernetes 1.27 on, a few dozen before.
const DISCOVERY_INTERVAL_S: u64 = 30;
/// Most steps at a time. The agent finds out by itself how many the API server takes; one of two cores
/// is busy with fewer than these, and one that is far away or large gets them.
const STEPS_AT_ONCE: usize = 32;
/// Where the manifests grant the agent its Lease.
const LEASE_NAMESPACE: &str = "lockstep-system";
/// How often hub and agent compare all that they hold. Nothing is ever found, so rarely is enough.
const CENSUS_INTERVAL_S: u64 = 600;
/// Watches at a time; each is a connection of its own.
const WATCHES_AT_ONCE: usize = 512;
/// Longest line of a watch: objects are at most about 1.5 MiB in etcd, JSON needs more.
const OBJECT_BYTES: usize = 16 << 20;
/// Reads and writes to the API server beside the steps: discovery, reads before writes.
const SPARE_REQUESTS: usize = 16;

/// A bearer token. Never printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// Takes a token, without white space around it (files end in newlines).
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self(token.trim().to_owned())
    }

    /// The token itself, for the one header that carries it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Token(none)" } else { "Token(redacted)" })
    }
}

/// How the hub is known to be the hub, and we to be us. Used with https:// only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificates that the hub's must be signed by. Without it: the system's.
    pub ca: Option<PathBuf>,
    /// The name that the hub's certificate must be for. Without it: the host of `hub`.
    pub server_name: Option<String>,
    /// PEM file with our own certificate, where the hub asks for one. With `key`.
    pub certificate: Option<PathBuf>,
    /// PEM file with the key of `certificate`.
    pub key: Option<PathBuf>,
}

/// Bounds on the watches.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// Watches at a time; each takes a connection to the API server.
    pub at_once: usize,
    /// Longest line of a watch, in bytes.
    pub object_bytes: usize,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self { at_once: WATCHES_AT_ONCE, object_bytes: OBJECT_BYTES }
    }
}

/// The configuration of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Name of the cluster that the agent is in: a DNS-1123 label, the same as on the hub.
    pub cluster: ClusterName,
    /// Where the hub listens for agents, as in `https://hub.example.com:7440`. `http://` on the loopback only.
    pub hub: String,
    /// The token that the hub made for this cluster.
    #[serde(default)]
    pub token: Token,
    /// TLS to the hub.
    #[serde(default)]
    pub tls: TlsConfig,
    /// What the hub may read and do here (I16). `*` never means Secrets for reading; RBAC, CustomResourceDefinitions,
    /// webhooks and APIServices for writing; system namespaces and `protected_namespaces`: these are accepted where
    /// they are named.
    #[serde(default = "AcceptEntry::everything")]
    pub accept: Vec<AcceptEntry>,
    /// Namespaces that `*` in `accept` does not mean, beside the cluster's own and `lockstep-system`. The
    /// namespace of the agent's Pod is one of them by itself.
    #[serde(default)]
    pub protected_namespaces: Vec<String>,
    /// Initial lists at a time.
    #[serde(default = "lists_at_once")]
    pub lists_at_once: usize,
    /// Bytes of memory that deltas may take while they wait for the hub. Beyond it their bodies go to
    /// `spill_dir`, and without one the watches are no longer read.
    #[serde(default = "queue_bytes")]
    pub queue_bytes: usize,
    /// Deltas that may wait for the hub before the watches are no longer read.
    #[serde(default = "queue_items")]
    pub queue_items: usize,
    /// Directory for bodies that wait for the hub and do not fit into `queue_bytes`. They are sealed
    /// under a key that only the running process has. None: nothing is written to disk.
    #[serde(default)]
    pub spill_dir: Option<PathBuf>,
    /// Bytes that may lie in `spill_dir` before the watches are no longer read.
    #[serde(default = "spill_bytes")]
    pub spill_bytes: u64,
    /// Bounds on the watches.
    #[serde(default)]
    pub watch: WatchConfig,
    /// Seconds between two looks at what the cluster serves.
    #[serde(default = "discovery_interval_s")]
    pub discovery_interval_s: u64,
    /// Most steps carried out at a time. How many it is at each moment follows from how the API
    /// server answers.
    #[serde(default = "steps_at_once")]
    pub steps_at_once: usize,
    /// Namespace of the Lease `lockstep-agent`, whose counter shows that the cluster was restored to an
    /// older state. To move it looks like such a restore.
    #[serde(default = "lease_namespace")]
    pub lease_namespace: String,
    /// Within so many seconds all that the hub holds is compared with what is here; 0: never.
    #[serde(default = "census_interval_s")]
    pub census_interval_s: u64,
}

fn lists_at_once() -> usize {
    LISTS_AT_ONCE
}
fn queue_bytes() -> usize {
    QUEUE_BYTES
}
fn queue_items() -> usize {
    QUEUE_ITEMS
}
fn spill_bytes() -> u64 {
    SPILL_BYTES
}
fn discovery_interval_s() -> u64 {
    DISCOVERY_INTERVAL_S
}
fn steps_at_once() -> usize {
    STEPS_AT_ONCE
}
fn lease_namespace() -> String {
    LEASE_NAMESPACE.to_owned()
}
fn census_interval_s() -> u64 {
    CENSUS_INTERVAL_S
}

impl AgentConfig {
    /// A configuration with defaults for everything that has one.
    #[must_use]
    pub fn new(cluster: ClusterName, hub: &str, token: Token) -> Self {
        Self {
            cluster,
            hub: hub.to_owned(),
            token,
            tls: TlsConfig::default(),
            accept: AcceptEntry::everything(),
            protected_namespaces: Vec::new(),
            lists_at_once: LISTS_AT_ONCE,
            queue_bytes: QUEUE_BYTES,
            queue_items: QUEUE_ITEMS,
            spill_dir: None,
            spill_bytes: SPILL_BYTES,
            watch: WatchConfig::default(),
            discovery_interval_s: DISCOVERY_INTERVAL_S,
            steps_at_once: STEPS_AT_ONCE,
            lease_namespace: lease_namespace(),
            census_interval_s: CENSUS_INTERVAL_S,
        }
    }

    /// Checks every value; the parsed accept list.
    ///
    /// # Errors
    /// Which value is wrong, and what it should be.
    pub fn validate(&self) -> Result<AcceptList, AgentError> {
        let uri: tonic::codegen::http::Uri =
            self.hub.parse().map_err(|_| bad("hub", "it is no URL (as in https://hub.example.com:7440)"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(bad("hub", "it must begin with http:// or https:// and name a host"));
        }
        if uri.scheme_str() == Some("http") && !uri.host().is_some_and(is_loopback) {
            return Err(bad(
                "hub",
                "http:// to another machine would send the token and every object in clear: write https:// \
                 (tls.ca names the hub's CA), or an address on the loopback",
            ));
        }
        if self.token.reveal().is_empty() {
            return Err(bad("token", "it is empty: take the token that the hub made for this cluster"));
        }
        if !self.token.reveal().bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad("token", "it contains characters that no token has"));
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            return Err(bad("tls.certificate and tls.key", "they go together"));
        }
        for (name, value) in [
            ("lists_at_once", self.lists_at_once),
            ("queue_bytes", self.queue_bytes),
            ("queue_items", self.queue_items),
            ("watch.at_once", self.watch.at_once),
            ("watch.object_bytes", self.watch.object_bytes),
            ("steps_at_once", self.steps_at_once),
        ] {
            if value == 0 {
                return Err(bad(name, "it must be at least 1"));
            }
        }
        // The rules for a namespace's name are those for a cluster's.
        if ClusterName::new(&self.lease_namespace).is_err() {
            return Err(bad("lease_namespace", "it is no name of a namespace: a DNS-1123 label"));
        }
        for (name, value) in
            [("discovery_interval_s", self.discovery_interval_s), ("spill_bytes", self.spill_bytes)]
        {
            if value == 0 {
                return Err(bad(name, "it must be at least 1"));
            }
        }
        if self.protected_namespaces.iter().any(|name| ClusterName::new(name).is_err()) {
            return Err(bad(
                "protected_namespaces",
                "each must be the name of a namespace: a DNS-1123 label",
            ));
        }
        let protected: BTreeSet<String> = self.protected_namespaces.iter().cloned().collect();
        Ok(AcceptList::parse(&self.accept, protected)?)
    }

    /// The bounds for the [`lockstep_cluster::ClusterClient`] that this agent is to use.
    #[must_use]
    pub fn client_limits(&self) -> Limits {
        Limits {
            requests: self.steps_at_once + SPARE_REQUESTS,
            lists: self.lists_at_once,
            watches: self.watch.at_once,
            object_bytes: self.watch.object_bytes,
            ..Limits::default()
        }
    }
}

fn bad(field: &'static str, why: &'static str) -> AgentError {
    AgentError::Config { field, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AgentConfig {
        AgentConfig::new(ClusterName::new("a").unwrap(), "https://hub:7440", Token::new("secret-token\n"))
    }

    #[test]
    fn tokens_are_never_printed() {
        let text = format!("{:?}", config());
        assert!(text.contains("redacted") && !text.contains("secret-token"), "{text}");
        assert_eq!(config().token.reveal(), "secret-token");
    }

    #[test]
    fn defaults_need_three_values_and_unknown_keys_are_errors() {
        let read = |text| serde_json::from_str::<AgentConfig>(text);
        let config = read(r#"{"cluster":"a","hub":"https://hub:7440","token":"secret-token"}"#).unwrap();
        assert_eq!(config, self::config());
        assert!(config.validate().is_ok());
        let error = read(r#"{"cluster":"a","hub":"https://hub:7440","tokn":"x"}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `tokn`"), "{error}");
    }

    #[test]
    fn nothing_is_sent_in_clear_to_another_machine() {
        let check = |hub: &str| {
            let mut config = config();
            config.hub = hub.to_owned();
            config.validate().map(drop).map_err(|error| error.to_string())
        };
        for fine in
            ["http://127.0.0.1:7440", "http://[::1]:7440", "http://localhost:7440", "https://hub:7440"]
        {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        for refused in
            ["http://hub:7440", "http://10.0.0.1:7440", "http://127.evil.example", "http://localhost.example"]
        {
            let error = check(refused).unwrap_err();
            assert!(error.contains("`hub`") && error.contains("https://"), "{refused}: {error}");
        }
    }

    #[test]
    fn bad_values_are_named() {
        let check = |change: fn(&mut AgentConfig)| {
            let mut config = config();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(check(|c| c.hub = "hub:7440".into()).contains("`hub`"));
        assert!(check(|c| c.hub = "ftp://hub".into()).contains("http://"));
        assert!(check(|c| c.token = Token::default()).contains("`token`"));
        assert!(check(|c| c.tls.key = Some("k".into())).contains("go together"));
        assert!(check(|c| c.steps_at_once = 0).contains("`steps_at_once`"));
        assert!(check(|c| c.lease_namespace = "A b".into()).contains("`lease_namespace`"));
        assert!(check(|c| c.protected_namespaces = vec!["A".into()]).contains("`protected_namespaces`"));
        assert!(check(|c| c.spill_bytes = 0).contains("`spill_bytes`"));
    }
}
