//! From a kubeconfig or a pod's service account to a client configuration.

use std::path::{Path, PathBuf};

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

/// Why there is no configuration. Says whether file or context is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file cannot be read, or is no kubeconfig.
    #[error("kubeconfig {} cannot be read", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KubeconfigError,
    },
    /// The file has no such context.
    #[error(
        "kubeconfig {} has no context `{context}`; it has: {}",
        path.display(),
        if available.is_empty() { "none".to_owned() } else { available.join(", ") }
    )]
    NoContext {
        /// Which file.
        path: PathBuf,
        /// What was asked for; `current-context` where none was named.
        context: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The context names a cluster or user that is missing or incomplete.
    #[error("context `{context}` of kubeconfig {} is not usable", path.display())]
    Context {
        /// Which file.
        path: PathBuf,
        /// Which context.
        context: String,
        /// Why.
        #[source]
        source: KubeconfigError,
    },
    /// No pod environment here.
    #[error("this does not run inside a cluster, or its service account is not mounted")]
    InCluster(#[source] kube::config::InClusterError),
    /// Credentials or certificates are not usable.
    #[error("the connection to {server} could not be set up")]
    Client {
        /// URL of the server.
        server: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Proxies (`proxy-url` of a kubeconfig, or HTTPS_PROXY) are not supported yet.
    #[error(
        "the API server is to be reached through the proxy {proxy}, which is not supported: unset it for this cluster"
    )]
    Proxy {
        /// Its URL, without credentials.
        proxy: String,
    },
}

/// What a kubeconfig offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contexts {
    /// Names, in the file's order.
    pub names: Vec<String>,
    /// `current-context`.
    pub current: Option<String>,
}

fn read(path: &Path) -> Result<Kubeconfig, ConnectError> {
    Kubeconfig::read_from(path).map_err(|source| ConnectError::File { path: path.to_owned(), source })
}

fn names(kubeconfig: &Kubeconfig) -> Vec<String> {
    kubeconfig.contexts.iter().map(|context| context.name.clone()).collect()
}

/// The contexts of a kubeconfig.
///
/// # Errors
/// When the file cannot be read.
pub fn contexts(path: &Path) -> Result<Contexts, ConnectError> {
    let kubeconfig = read(path)?;
    Ok(Contexts { names: names(&kubeconfig), current: kubeconfig.current_context })
}

/// The configuration of one context of a kubeconfig; its current one, when none is named.
///
/// # Errors
/// When the file cannot be read, has no such context, or the context is incomplete.
pub async fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<Config, ConnectError> {
    let kubeconfig = read(path)?;
    let available = names(&kubeconfig);
    let wanted = context.map(str::to_owned).or_else(|| kubeconfig.current_context.clone());
    let Some(context) = wanted.filter(|name| available.contains(name)) else {
        let context = context
            .map(str::to_owned)
            .or(kubeconfig.current_context)
            .unwrap_or_else(|| "current-context".to_owned());
        return Err(ConnectError::NoContext { path: path.to_owned(), context, available });
    };
    let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|source| ConnectError::Context {
        path: path.to_owned(),
        context,
        source,
    })
}

/// The configuration of the pod this runs in.
///
/// # Errors
/// Outside a cluster.
pub fn in_cluster() -> Result<Config, ConnectError> {
    Config::incluster().map_err(ConnectError::InCluster)
}
