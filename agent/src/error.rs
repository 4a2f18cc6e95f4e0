//! What can go wrong with an agent, with a code and a page in docs/errors for each.

use std::path::PathBuf;

use crate::accept::AcceptError;

/// An entry of the accept list cannot be read.
pub(crate) const BAD_ACCEPT: &str = "LS0301";
/// Another value of the configuration is wrong.
pub(crate) const BAD_CONFIG: &str = "LS0302";
/// A certificate or key file is missing or unusable.
pub(crate) const BAD_TLS: &str = "LS0303";
/// The hub cannot be reached.
pub(crate) const HUB_UNREACHABLE: &str = "LS0304";
/// The hub does not know the token.
pub(crate) const TOKEN_REFUSED: &str = "LS0305";
/// The cluster's API server cannot be reached, or does not let the agent see who it is.
pub(crate) const CLUSTER_UNREACHABLE: &str = "LS0306";
/// Bodies that wait for the hub cannot be spilled to disk, or not be read back.
pub(crate) const CANNOT_SPILL: &str = "LS0307";
/// The agent's Lease may not be read or written.
pub(crate) const LEASE_FORBIDDEN: &str = "LS0308";
/// A step was not accepted (I16).
pub(crate) const NOT_ACCEPTED: &str = "LS0310";

/// What users may meet of an agent: (code, what it is about). Each has a page in docs/errors.
pub const CODES: &[(&str, &str)] = &[
    (BAD_ACCEPT, "an entry of the accept list cannot be read"),
    (BAD_CONFIG, "a value of the agent's configuration is wrong"),
    (BAD_TLS, "a certificate or key of the agent is missing or unusable"),
    (HUB_UNREACHABLE, "the agent cannot reach the hub"),
    (TOKEN_REFUSED, "the hub does not know the agent's token"),
    (CLUSTER_UNREACHABLE, "the agent cannot reach its own API server"),
    (CANNOT_SPILL, "bodies that wait for the hub cannot be spilled to disk"),
    (LEASE_FORBIDDEN, "the agent may not read or write its Lease"),
    (NOT_ACCEPTED, "the agent's accept list does not allow a step"),
];

/// Why an agent does not run. What passes (a hub or API server that is away) is never among these:
/// it is retried, logged and counted.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The accept list.
    #[error("{BAD_ACCEPT}: the agent's accept list cannot be used")]
    Accept(#[from] AcceptError),
    /// Another setting.
    #[error("{BAD_CONFIG}: `{field}` of the agent's configuration: {why}")]
    Config {
        /// Which one.
        field: &'static str,
        /// What is wrong, and what it should be.
        why: &'static str,
    },
    /// A certificate or key file.
    #[error("{BAD_TLS}: {} cannot be read", path.display())]
    TlsFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Certificates or keys that TLS does not take.
    #[error("{BAD_TLS}: the certificates for the connection to the hub cannot be used")]
    Tls(#[source] tonic::transport::Error),
}

impl AgentError {
    /// The code, as in `LS0301`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Accept(_) => BAD_ACCEPT,
            Self::Config { .. } => BAD_CONFIG,
            Self::TlsFile { .. } | Self::Tls(_) => BAD_TLS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_page() {
        let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
        for (code, about) in CODES.iter().chain(lockstep_wire::CODES) {
            let page = std::fs::read_to_string(format!("{pages}/{code}.md")).unwrap_or_default();
            assert!(page.starts_with(&format!("# {code}")), "{code} ({about}) has no page");
        }
    }
}
