//! The lockstep command: one binary for everything, also as `kubectl lockstep`.
//!
//! Architecture invariant: whatever the commands show comes from the HTTP API, with its types;
//! nothing is recomputed here. All output to stdout goes through `output`, and every error is
//! printed once, here.

pub mod args;
mod client;
mod commands;
pub mod config;
mod daemon;
pub mod deleters;
mod doctor;
pub mod error;
mod logging;
pub mod output;
mod paths;
mod server;
mod signals;
mod up;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command};
use error::{CliError, Outcome};

/// Name under which kubectl finds the plugin.
const PLUGIN: &str = "kubectl-lockstep";

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os().collect())
}

fn run(arguments: Vec<OsString>) -> ExitCode {
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help to stdout and errors to stderr; exit codes 0 and 2.
            let code = if error.use_stderr() { Outcome::Usage } else { Outcome::Done };
            return if error.print().is_ok() { code.exit_code() } else { Outcome::Failed.exit_code() };
        }
    };
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::io("the runtime cannot start", &error))
        .and_then(|runtime| {
            let result = runtime.block_on(Box::pin(dispatch(cli)));
            // Blocking tasks (a name lookup, say) must not hold the process after the answer.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(outcome) => outcome.exit_code(),
        Err(error) if error.is_broken_pipe() => Outcome::Done.exit_code(),
        Err(error) => {
            output::error(&error);
            error.outcome().exit_code()
        }
    }
}

fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    if as_plugin(arguments) {
        command = command.bin_name("kubectl lockstep").display_name("kubectl lockstep");
    }
    Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

fn as_plugin(arguments: &[OsString]) -> bool {
    let name = arguments.first().and_then(|path| Path::new(path).file_stem());
    name.is_some_and(|name| name == PLUGIN)
}

async fn dispatch(cli: Cli) -> Result<Outcome, CliError> {
    let Cli { command, server, log } = cli;
    match command {
        Command::Up(args) => up::run(args, &server, &log).await,
        Command::Hub(args) => daemon::hub(args, &server, &log).await,
        Command::Agent(args) => daemon::agent(args, &log).await,
        Command::Policy(args) => commands::policy::run(args),
        Command::Completions { shell } => output::completions(shell, &mut Cli::command()),
        Command::Doctor(args) => doctor::run(args, &server).await,
        Command::Token(args) => commands::act::token(args, &server).await,
        Command::Status(args) => commands::status::run(args, &server).await,
        Command::Clusters(args) => commands::clusters::run(args, &server).await,
        Command::Get(args) => commands::get::run(args, &server).await,
        Command::Explain(args) => commands::explain::run(args, &server).await,
        Command::Diff(args) => commands::diff::run(args, &server).await,
        Command::Approve(args) => commands::deletes::approve(args, &server).await,
        Command::Orphan(args) => commands::deletes::orphan(args, &server).await,
        Command::Pause(args) => commands::act::pause(args, &server, true).await,
        Command::Resume(args) => commands::act::pause(args, &server, false).await,
        Command::Wait(args) => commands::wait::run(args, &server).await,
        Command::Archive(args) => commands::archive::run(args, &server).await,
        Command::Tombstones(args) => commands::tombstones::run(args, &server).await,
        Command::Restore(args) => commands::restore::restore(args, &server).await,
        Command::Undo(args) => commands::restore::undo(args, &server).await,
        Command::Restores(args) => commands::restore::list(args, &server).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_when_kubectl_called_it() {
        let arguments = |path: &str| vec![OsString::from(path)];
        assert!(as_plugin(&arguments("/usr/local/bin/kubectl-lockstep")));
        assert!(!as_plugin(&arguments("lockstep")));
        let mut command = Cli::command().bin_name("kubectl lockstep");
        command.build();
        assert!(command.render_usage().to_string().contains("kubectl lockstep"));
    }
}
