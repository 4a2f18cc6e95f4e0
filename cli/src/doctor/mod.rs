//! `lockstep doctor`: checks, one after the other, and says what to do.

mod clusters;
mod hub;
mod local;

use lockstep_hub::http::types::List;
use serde::Serialize;

use crate::args::{ContextArgs, DoctorArgs, Format, ServerArgs};
use crate::error::{CliError, Outcome};
use crate::output::{Out, Paint, plain};
use crate::server;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failure,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: String,
    verdict: Verdict,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

impl Check {
    fn ok(name: &str, message: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, name, message, "")
    }

    fn warning(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, name, message, remedy)
    }

    fn failure(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Verdict::Failure, name, message, remedy)
    }

    fn error(name: &str, error: &CliError) -> Self {
        let text = error.to_string();
        let message = text.split("\n  ").next().unwrap_or_default().to_owned();
        Self::failure(name, message, error.remedy())
    }

    fn new(verdict: Verdict, name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.to_owned(), verdict, message: message.into(), remedy: remedy.into() }
    }
}

/// Runs every check that the arguments allow.
pub(crate) async fn run(args: DoctorArgs, server: &ServerArgs) -> Result<Outcome, CliError> {
    let DoctorArgs { config, agent_config, policies, contexts, output } = args;
    let ContextArgs { kubeconfig, contexts } = contexts;
    let out = Out::new(output.output);
    let mut checks = Vec::new();
    let hub_config = local::configuration(config.as_deref(), agent_config.as_deref(), server, &mut checks);
    if let Some(hub_config) = &hub_config {
        local::key_file(&hub_config.key_file, &mut checks);
        local::disk(&hub_config.data_dir, &mut checks);
    }
    let configured =
        config.is_some().then(|| hub_config.as_ref().map(|config| config.policies_dir.clone())).flatten();
    let set = local::policies(policies.or(configured), &mut checks);
    let client = server::client(server)?;
    hub::check(&client, hub_config.as_ref(), &mut checks).await;
    if let Some(kubeconfig) = kubeconfig {
        clusters::check(&kubeconfig, &contexts, set.as_ref(), &mut checks).await;
    }
    show(&out, &checks)?;
    let clean = checks.iter().all(|check| check.verdict == Verdict::Ok);
    Ok(if clean { Outcome::Done } else { Outcome::Findings })
}

fn show(out: &Out, checks: &[Check]) -> Result<(), CliError> {
    if out.structured() {
        return out.text(&out.encode(&List::new("CheckList", checks.to_vec()))?);
    }
    for check in checks {
        let (paint, word) = match check.verdict {
            Verdict::Ok => (Paint::Good, "ok     "),
            Verdict::Warning => (Paint::Warn, "warning"),
            Verdict::Failure => (Paint::Bad, "failure"),
        };
        if out.format == Format::Name {
            out.line(&plain(&check.name))?;
            continue;
        }
        out.line(&format!(
            "{} {}: {}",
            out.palette.paint(paint, word),
            plain(&check.name),
            plain(&check.message)
        ))?;
        if !check.remedy.is_empty() {
            out.line(&format!("        {}", plain(&check.remedy)))?;
        }
    }
    Ok(())
}
