//! Commands that change something: pause, resume, token create.

use lockstep_hub::http::types::{Done, PauseRequest, PauseScope, TokenAnswer, TokenRequest};

use crate::args::{Format, ScopeArgs, ServerArgs, TokenArgs, TokenCommand};
use crate::error::{CliError, Outcome};
use crate::output::{self, Out};
use crate::server;

/// Pauses or resumes.
pub(crate) async fn pause(args: ScopeArgs, server: &ServerArgs, paused: bool) -> Result<Outcome, CliError> {
    let scope = scope(args);
    let client = server::client(server)?;
    let path = if paused { "pause" } else { "resume" };
    let done: Done = client.post(path, &PauseRequest { scope }).await?;
    Out::new(Format::Table).line(&output::plain(&done.message))?;
    Ok(Outcome::Done)
}

/// What a scope on the command line means.
pub(super) fn scope(args: ScopeArgs) -> PauseScope {
    match args {
        ScopeArgs { policy: Some(policy), .. } => PauseScope::Policy(policy),
        ScopeArgs { cluster: Some(cluster), .. } => PauseScope::Cluster(cluster),
        ScopeArgs { policy: None, cluster: None, all: _ } => PauseScope::Everything,
    }
}

/// Makes a token for a member cluster. The token alone goes to stdout, so that it can be piped.
pub(crate) async fn token(args: TokenArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let TokenCommand::Create { cluster, output } = args.command;
    let client = server::client(server)?;
    let out = Out::new(output.output);
    let answer: TokenAnswer = client.post("tokens", &TokenRequest { cluster }).await?;
    match out.format {
        Format::Json | Format::Yaml => out.text(&out.encode(&answer)?)?,
        Format::Name => out.line(&format!("cluster/{}", answer.cluster))?,
        Format::Table | Format::Wide => {
            out.line(&answer.token)?;
            output::note(&format!(
                "this is the token of {}, told only once; the one before no longer holds. \
                 Put it into the agent's `token_file`",
                answer.cluster
            ));
        }
    }
    Ok(Outcome::Done)
}
