//! The hub's settings: a plain structure with defaults. Reading files, environment and flags is
//! the command line's work; here is what the settings mean and which combinations are refused.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::listen::{ListenError, Protection, Service, check};

mod archive;
mod retention;

pub use lockstep_net::TlsConfig;

pub use archive::{ArchiveConfig, AzureConfig, GcsConfig, KeysText, S3Config, Secrets};
pub use retention::{RetentionConfig, Span};

/// Port for agents.
pub const AGENTS_PORT: u16 = 7440;
/// Port of the HTTP API.
pub const API_PORT: u16 = 7441;
/// Port of metrics and probes.
pub const METRICS_PORT: u16 = 7442;
/// File in the data directory that holds the bearer token of the HTTP API, mode 0600.
pub const API_TOKEN_FILE: &str = "api-token";
/// File in the data directory that holds the state.
pub const STATE_FILE: &str = "state.db";
/// Directory of the archive within the data directory, unless `archive.dir` names another.
pub const ARCHIVE_DIR: &str = "archive";

/// Room for the store's log, for its write back into the file, and for tombstones under way.
pub const MIN_FREE_BYTES: u64 = 64 << 20;

/// Everything `lockstep hub` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HubConfig {
    /// State, outbox and `api-token`. Created with mode 0700.
    pub data_dir: PathBuf,
    /// Directory of `ClusterSyncPolicy` files; watched, also through symlink swaps.
    pub policies_dir: PathBuf,
    /// The hub's key (32 bytes, mode 0600): encrypts Secrets in the store and signs marks. It must
    /// not lie in `data_dir`: whoever has the key and the data has the Secrets, and losing the
    /// data must not lose the key (I11). Created when it does not exist.
    pub key_file: PathBuf,
    /// Bytes that must be free where `data_dir` lies. Below, the hub takes nothing new, and says so,
    /// until there is room again; nothing is lost. 0: no bound but the disk's own.
    pub min_free_bytes: u64,
    /// Addresses.
    pub listen: Listen,
    /// TLS for agents (and for the API, where it leaves the loopback).
    pub tls: Option<TlsConfig>,
    /// Where tombstones are kept.
    pub archive: ArchiveConfig,
    /// Bounds of the HTTP API.
    pub api: ApiConfig,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/lockstep"),
            policies_dir: PathBuf::from("/etc/lockstep/policies"),
            key_file: PathBuf::from("/etc/lockstep/key/hub-key"),
            min_free_bytes: MIN_FREE_BYTES,
            listen: Listen::default(),
            tls: None,
            archive: ArchiveConfig::default(),
            api: ApiConfig::default(),
        }
    }
}

/// Addresses to listen on. Port 0 takes any free port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Agents: gRPC.
    pub agents: SocketAddr,
    /// HTTP API.
    pub api: SocketAddr,
    /// Metrics and probes; none: not served.
    pub metrics: Option<SocketAddr>,
}

impl Default for Listen {
    fn default() -> Self {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self { agents: loopback(AGENTS_PORT), api: loopback(API_PORT), metrics: Some(loopback(METRICS_PORT)) }
    }
}

/// Bounds of the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Reads at the state store that run at once; each is a thread and a connection.
    pub readers: usize,
    /// Longest time one request may take, seconds.
    pub request_timeout_seconds: u64,
    /// Ask for the token on reads too. Required where the API leaves the loopback.
    pub token_for_reads: bool,
    /// Host names that requests may name, beside `localhost` and IP addresses. Others are refused,
    /// so that no web page can reach the API through a name that it made resolve to the loopback.
    pub host_names: Vec<String>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { readers: 4, request_timeout_seconds: 30, token_for_reads: false, host_names: Vec::new() }
    }
}

/// A combination of settings that is refused.
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    /// A setting that cannot be.
    #[error("LS0263: {setting}: {why}; {remedy}")]
    Setting {
        /// Dotted name of the setting.
        setting: &'static str,
        /// What is wrong.
        why: String,
        /// How to mend it.
        remedy: &'static str,
    },
    /// An address that others can reach, without protection.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

impl BadConfig {
    /// Dotted name of the setting.
    #[must_use]
    pub fn setting(&self) -> &'static str {
        match self {
            Self::Setting { setting, .. } => setting,
            Self::Listen(error) => error.setting(),
        }
    }
}

impl HubConfig {
    /// The directory of the archive; none where a bucket holds it.
    #[must_use]
    pub fn archive_dir(&self) -> Option<PathBuf> {
        let dir = || self.archive.dir.clone().unwrap_or_else(|| self.data_dir.join(ARCHIVE_DIR));
        (!self.archive.is_bucket()).then(dir)
    }

    /// Does the API speak TLS? On the loopback it does not: there is nobody in between.
    #[must_use]
    pub fn api_has_tls(&self) -> bool {
        self.tls.is_some() && !self.listen.api.ip().to_canonical().is_loopback()
    }

    /// The file of the API's token.
    #[must_use]
    pub fn api_token_file(&self) -> PathBuf {
        self.data_dir.join(API_TOKEN_FILE)
    }

    /// Refuses settings that contradict each other.
    ///
    /// # Errors
    /// The first contradiction: the key inside the data directory, an address off the loopback
    /// without TLS (and, for the API, without a token on reads), a bound of zero.
    pub fn validate(&self) -> Result<(), BadConfig> {
        let Self { data_dir, policies_dir: _, key_file, min_free_bytes: _, listen, tls, archive, api } = self;
        if key_file.starts_with(data_dir) {
            return Err(BadConfig::Setting {
                setting: "key_file",
                why: format!("{} lies in the data directory {}", key_file.display(), data_dir.display()),
                remedy: "put the key somewhere else: a copy of the data must not be readable by itself",
            });
        }
        archive.validate()?;
        let ApiConfig { readers, request_timeout_seconds, token_for_reads, host_names: _ } = api;
        let Listen { agents, api: api_address, metrics: _ } = listen;
        // Agents always prove who they are, by their token.
        let for_agents = Protection { tls: tls.is_some(), client_authentication: true };
        let for_api = Protection { tls: tls.is_some(), client_authentication: *token_for_reads };
        check(Service::Agents, *agents, for_agents)?;
        check(Service::Api, *api_address, for_api)?;
        for (setting, zero) in
            [("api.readers", *readers == 0), ("api.request_timeout_seconds", *request_timeout_seconds == 0)]
        {
            if zero {
                return Err(BadConfig::Setting {
                    setting,
                    why: "it is 0".to_owned(),
                    remedy: "set 1 or more",
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_survive_json() {
        let config = HubConfig::default();
        config.validate().unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<HubConfig>(&text).unwrap(), config);
    }

    #[test]
    fn other_addresses_are_refused_without_client_authentication_and_tls() {
        let open: SocketAddr = "0.0.0.0:7440".parse().unwrap();
        let mut config = HubConfig::default();
        config.listen.agents = open;
        let error = config.validate().unwrap_err();
        assert!(error.to_string().starts_with("LS0210"), "{error}");
        config.tls =
            Some(TlsConfig { cert_file: "/x.crt".into(), key_file: "/x.key".into(), client_ca_file: None });
        config.validate().unwrap();
        config.listen.api = open;
        let error = config.validate().unwrap_err();
        assert!(error.to_string().contains("api.token_for_reads"), "{error}");
        config.api.token_for_reads = true;
        config.validate().unwrap();
    }

    #[test]
    fn the_key_stays_out_of_the_data_directory() {
        let mut config = HubConfig::default();
        config.key_file = config.data_dir.join("hub-key");
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with("LS0263: key_file: "), "{error}");
    }
}
