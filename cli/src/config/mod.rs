//! Configuration: defaults < YAML file < environment < flags. Keys are snake_case; unknown keys are
//! errors that name the file and line and the key that was probably meant.

mod explain;
mod layers;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lockstep_agent::{AgentConfig, Token};
use lockstep_hub::HubConfig;
use lockstep_hub::config::BadConfig;
use serde::Deserialize;

pub use layers::{Flags, Layers};

use crate::deleters::DeletersConfig;
use crate::error::CliError;

/// Keys of agent.yaml that are the command line's own.
const AGENT_EXTRAS: [&str; 5] = ["kubeconfig", "context", "metrics", "token_file", "deleters"];

/// Taken from the environment only.
const ARCHIVE_KEYS: &str = "archive.keys";

/// Everything `lockstep agent` can be told.
#[derive(Debug)]
pub struct AgentSettings {
    /// For the agent itself.
    pub agent: AgentConfig,
    /// Kubeconfig of this cluster; none: the Pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; none: its current one.
    pub context: Option<String>,
    /// Address of metrics and probes; none: not served.
    pub metrics: Option<SocketAddr>,
    /// Where webhooks tell who deletes what; none: not received.
    pub deleters: Option<DeletersConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Extras {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    metrics: Option<SocketAddr>,
    token_file: Option<PathBuf>,
    deleters: Option<DeletersConfig>,
}

/// The hub's configuration out of its layers, checked.
///
/// # Errors
/// LS0004 with file, line and key.
pub fn hub(defaults: &HubConfig, layers: &Layers) -> Result<HubConfig, CliError> {
    if layers.is_in_the_open(ARCHIVE_KEYS) {
        let remedy = "give LOCKSTEP_CONFIG__ARCHIVE__KEYS, or archive.keys_file with mode 0600";
        let message = format!(
            "{}{ARCHIVE_KEYS}: keys do not belong into a configuration file, which others read",
            layers.place(ARCHIVE_KEYS)
        );
        return Err(CliError::new("LS0004", message, remedy));
    }
    let config: HubConfig = layers.extract(Some(defaults), &[])?;
    config.validate().map_err(|error| {
        let setting = error.setting();
        let at = layers.place(setting);
        match error {
            BadConfig::Setting { why, remedy, .. } => {
                CliError::new("LS0004", format!("{at}{setting}: {why}"), remedy)
            }
            BadConfig::Listen(error) => {
                let remedy = "`deploy/examples/hub.yaml` explains each setting";
                CliError::new("LS0004", format!("{at}{setting}: {error}"), remedy)
            }
        }
    })?;
    Ok(config)
}

/// The agent's configuration out of its layers, checked.
///
/// # Errors
/// LS0004 with file, line and key; LS0005 when the token cannot be read.
pub fn agent(layers: Layers) -> Result<AgentSettings, CliError> {
    let (own, rest) = layers.partition(&AGENT_EXTRAS);
    let Extras { kubeconfig, context, metrics, token_file, deleters } = own.extract(None::<&()>, &[])?;
    let mut agent: AgentConfig = rest.extract(None::<&()>, &AGENT_EXTRAS)?;
    if let Some(file) = token_file {
        agent.token = token(&file)?;
    }
    if kubeconfig.is_none() {
        agent.protected_namespaces.extend(own_namespace(Path::new(SERVICE_ACCOUNT_NAMESPACE)));
    }
    agent.validate().map_err(|error| {
        let remedy = "deploy/examples/agent.yaml shows every setting";
        CliError::new("LS0004", format!("the agent's configuration is not usable{}", own.origin()), remedy)
            .caused_by(&error)
    })?;
    Ok(AgentSettings { agent, kubeconfig, context, metrics, deleters })
}

/// Where a Pod finds the namespace that it is in.
const SERVICE_ACCOUNT_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The namespace of the Pod that this is, if it is one: it holds the agent's token and its accept list.
fn own_namespace(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    Some(text.trim().to_owned()).filter(|namespace| !namespace.is_empty())
}

fn token(file: &Path) -> Result<Token, CliError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let message = format!("the agent's token file {} cannot be read", file.display());
        let remedy = "put the output of `lockstep token create CLUSTER` there";
        CliError::new("LS0005", message, remedy).caused_by(&error)
    })?;
    Ok(Token::new(&text))
}
