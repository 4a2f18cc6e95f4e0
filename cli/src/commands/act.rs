//! Commands that change something: approve, pause, resume, token create.

use lockstep_hub::http::types::{
    ApproveRequest, Approved, Done, List, PauseRequest, PauseScope, TokenAnswer, TokenRequest,
};

use crate::args::{ApproveArgs, Format, ScopeArgs, ServerArgs, TokenArgs, TokenCommand};
use crate::error::{CliError, Outcome};
use crate::output::{self, Cell, Out, Table};
use crate::server;

/// Releases held deletes.
pub(crate) async fn approve(args: ApproveArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let ApproveArgs { policy, target, output } = args;
    let client = server::client(server)?;
    let out = Out::new(output.output);
    let list: List<Approved> = client.post("approve", &ApproveRequest { policy, target }).await?;
    out.show(
        &list,
        |_| {
            let mut table = Table::new(&["POLICY", "TARGET", "RELEASED"], "nothing is held");
            for item in &list.items {
                for object in &item.objects {
                    table.row(vec![Cell::from(&item.policy), Cell::from(&item.target), Cell::from(object)]);
                }
            }
            table
        },
        || list.items.iter().flat_map(|item| item.objects.clone()).collect(),
    )?;
    Ok(Outcome::Done)
}

/// Pauses or resumes.
pub(crate) async fn pause(args: ScopeArgs, server: &ServerArgs, paused: bool) -> Result<Outcome, CliError> {
    let scope = match args {
        ScopeArgs { policy: Some(policy), .. } => PauseScope::Policy(policy),
        ScopeArgs { cluster: Some(cluster), .. } => PauseScope::Cluster(cluster),
        ScopeArgs { policy: None, cluster: None, all: _ } => PauseScope::Everything,
    };
    let client = server::client(server)?;
    let path = if paused { "pause" } else { "resume" };
    let done: Done = client.post(path, &PauseRequest { scope }).await?;
    Out::new(Format::Table).line(&output::plain(&done.message))?;
    Ok(Outcome::Done)
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
