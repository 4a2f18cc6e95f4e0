//! Which addresses may be listened on, and the token of the HTTP API.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::codes::Code;
use crate::seal::{TOKEN_PREFIX, new_token, write_private};

/// Codes of this module.
pub const CODES: &[Code] = &[NO_TLS, NO_CLIENT_AUTHENTICATION, TOKEN_FILE];
const NO_TLS: Code = Code { code: "LS0210", title: "an address off the loopback needs TLS" };
const NO_CLIENT_AUTHENTICATION: Code =
    Code { code: "LS0211", title: "an address off the loopback needs client authentication" };
const TOKEN_FILE: Code = Code { code: "LS0212", title: "the API token file cannot be used" };

/// A token file is one line; anything larger is another file.
const MAX_TOKEN_FILE_LEN: u64 = 4096;

/// What listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Agents' sessions, port 7440.
    Agents,
    /// The HTTP API, port 7441.
    Api,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agents => "agents",
            Self::Api => "the HTTP API",
        })
    }
}

/// How a service is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Is everything sent under TLS?
    pub tls: bool,
    /// Must every client prove who it is (bearer token, client certificate), also for reading?
    pub client_authentication: bool,
}

/// An address or the token was refused.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Plain text off the loopback.
    #[error(
        "{NO_TLS}: {address} for {service} can be reached from other machines, and there is no TLS: set tls.cert_file and tls.key_file, or listen on 127.0.0.1"
    )]
    NoTls {
        /// For what.
        service: Service,
        /// Where.
        address: SocketAddr,
    },
    /// Anybody could ask.
    #[error(
        "{NO_CLIENT_AUTHENTICATION}: {address} for {service} can be reached from other machines, and clients need not prove who they are: set api.token_for_reads, or listen on 127.0.0.1"
    )]
    NoClientAuthentication {
        /// For what.
        service: Service,
        /// Where.
        address: SocketAddr,
    },
    /// Unreadable, open to others, or not a token.
    #[error(
        "{TOKEN_FILE}: the API token file {path}: {why}; remove it, and the hub makes a new one at its next start"
    )]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong; never its content.
        why: String,
    },
}

impl ListenError {
    /// Dotted name of the setting that led here.
    #[must_use]
    pub fn setting(&self) -> &'static str {
        match self {
            Self::NoTls { service, .. } | Self::NoClientAuthentication { service, .. } => match service {
                Service::Agents => "listen.agents",
                Service::Api => "listen.api",
            },
            Self::TokenFile { .. } => "data_dir",
        }
    }

    /// The error's code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoTls { .. } => NO_TLS.code,
            Self::NoClientAuthentication { .. } => NO_CLIENT_AUTHENTICATION.code,
            Self::TokenFile { .. } => TOKEN_FILE.code,
        }
    }
}

/// 7440 and 7441 bind to the loopback; other addresses need client authentication and TLS.
///
/// # Errors
/// What is missing.
pub fn check(service: Service, address: SocketAddr, protection: Protection) -> Result<(), ListenError> {
    let Protection { tls, client_authentication } = protection;
    // `::ffff:127.0.0.1` is the loopback too.
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    if !tls {
        return Err(ListenError::NoTls { service, address });
    }
    if !client_authentication {
        return Err(ListenError::NoClientAuthentication { service, address });
    }
    Ok(())
}

/// The token of the HTTP API: that of the file, or a new one in a new file of mode 0600.
///
/// # Errors
/// When others can read the file, or it cannot be read, made, or understood.
pub fn api_token(path: &Path) -> Result<String, ListenError> {
    let refuse = |why: String| ListenError::TokenFile { path: path.to_owned(), why };
    match OpenOptions::new().read(true).open(path) {
        Ok(file) => {
            let mode = file.metadata().map_err(|e| refuse(e.to_string()))?.mode() & 0o7777;
            if mode & 0o077 != 0 {
                return Err(refuse(format!("others can read it (mode {mode:04o})")));
            }
            let mut text = String::new();
            file.take(MAX_TOKEN_FILE_LEN).read_to_string(&mut text).map_err(|e| refuse(e.to_string()))?;
            let token = text.trim();
            if !token.starts_with(TOKEN_PREFIX) || token.contains(char::is_whitespace) {
                return Err(refuse("its content is not a token".to_owned()));
            }
            Ok(token.to_owned())
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let token = new_token().map_err(|e| refuse(e.to_string()))?;
            write_private(path, format!("{token}\n").as_bytes()).map_err(|e| refuse(e.to_string()))?;
            Ok(token)
        }
        Err(e) => Err(refuse(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_the_loopback_goes_without_tls_and_client_authentication() {
        let verdict = |address: &str, tls, client_authentication| {
            check(Service::Api, address.parse().unwrap(), Protection { tls, client_authentication })
                .map_err(|e| e.code())
        };
        for loopback in ["127.0.0.1:7441", "127.9.9.9:1", "[::1]:7441", "[::ffff:127.0.0.1]:7441"] {
            assert_eq!(verdict(loopback, false, false), Ok(()), "{loopback}");
        }
        for other in ["0.0.0.0:7441", "[::]:7441", "10.0.0.1:7441", "[::ffff:10.0.0.1]:7441"] {
            assert_eq!(verdict(other, false, true), Err("LS0210"), "{other}");
            assert_eq!(verdict(other, true, false), Err("LS0211"), "{other}");
            assert_eq!(verdict(other, true, true), Ok(()), "{other}");
        }
    }

    #[test]
    fn the_token_is_made_once_private_and_refused_when_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-token");
        let token = api_token(&path).unwrap();
        assert_eq!(api_token(&path).unwrap(), token);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
        let error = api_token(&path).unwrap_err();
        assert!(error.code() == "LS0212" && !error.to_string().contains(&token), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "canary").unwrap();
        let error = api_token(&path).unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
    }
}
