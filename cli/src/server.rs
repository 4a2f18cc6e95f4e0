//! Which hub, and with which token.

use std::path::{Path, PathBuf};

use lockstep_hub::config::{API_PORT, API_TOKEN_FILE};
use lockstep_net::is_loopback;

use crate::args::ServerArgs;
use crate::client::{Client, Token};
use crate::error::CliError;
use crate::paths;

/// Holds the token itself.
const TOKEN_VARIABLE: &str = "LOCKSTEP_TOKEN";

/// The client for the hub that the arguments mean. The token comes from LOCKSTEP_TOKEN, then
/// --token-file, then, for a hub on this machine only, from `api-token` in the data directory where
/// this user may read it: such a user could change the hub's state directly.
pub(crate) fn client(args: &ServerArgs) -> Result<Client, CliError> {
    let ServerArgs { server, token_file, ca_file, data_dir } = args;
    let default = format!("http://127.0.0.1:{API_PORT}");
    let server = server.as_deref().filter(|server| !server.is_empty()).unwrap_or(&default);
    let token =
        match (std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.trim().is_empty()), token_file) {
            (Some(token), _) => Some(usable(&token, "LOCKSTEP_TOKEN")?),
            (None, Some(file)) => Some(read(file)?),
            (None, None) if is_local(server) => local(data_dir.clone()),
            (None, None) => None,
        };
    Client::new(server, token, ca_file.as_deref())
}

fn is_local(server: &str) -> bool {
    let url: Option<http::Uri> = server.parse().ok();
    url.as_ref().and_then(http::Uri::host).is_some_and(is_loopback)
}

fn local(data_dir: Option<PathBuf>) -> Option<Token> {
    let file = data_dir.or_else(paths::data_dir)?.join(API_TOKEN_FILE);
    Token::new(&std::fs::read_to_string(file).ok()?)
}

fn read(file: &Path) -> Result<Token, CliError> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        let remedy = "name the `api-token` in the hub's data directory, and read it as the hub's user";
        CliError::new("LS0005", format!("the token file {shown} cannot be read"), remedy).caused_by(&error)
    })?;
    usable(&text, &format!("the token file {shown}"))
}

fn usable(text: &str, whence: &str) -> Result<Token, CliError> {
    let token = Token::new(text).filter(|_| !text.trim().is_empty());
    token.ok_or_else(|| {
        CliError::new("LS0005", format!("{whence} holds no token"), "copy it again, as one line")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hub_on_this_machine_gets_the_token_of_this_machine() {
        for local in ["http://127.0.0.1:7441", "http://localhost:1", "http://[::1]:7441", "http://LOCALHOST"]
        {
            assert!(is_local(local), "{local}");
        }
        for other in [
            "http://hub.example:7441",
            "http://10.0.0.1",
            "http://localhost.evil.example",
            "http://127.evil.example",
        ] {
            assert!(!is_local(other), "{other}");
        }
    }

    #[test]
    fn a_bad_token_file_names_itself() {
        let error = read(Path::new("/nowhere/api-token")).unwrap_err().to_string();
        assert!(error.contains("LS0005") && error.contains("/nowhere/api-token"), "{error}");
    }
}
