//! From contexts of a kubeconfig to member clusters.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lockstep_cluster::ClusterClient;
use lockstep_engine::{ClusterName, Uid};

use crate::daemon;
use crate::error::CliError;
use crate::output::{Out, Paint, plain};

/// How long a cluster may take to say who it is, before it counts as unreachable for now.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(5);

/// One member cluster to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its name: the alias, else the context's name.
    pub(crate) cluster: ClusterName,
    /// The context.
    pub(crate) context: String,
}

/// The members that the arguments mean: `context` or `alias=context`; all contexts where none is
/// named. Context names may be ARNs: an alias ends at the first `=` whose right side is a context.
pub(crate) fn members(kubeconfig: &Path, wanted: &[String]) -> Result<Vec<Member>, CliError> {
    let contexts = lockstep_cluster::contexts(kubeconfig).map_err(|error| daemon::context_error(&error))?;
    choose(&contexts.names, wanted, &kubeconfig.display().to_string())
}

fn choose(names: &[String], wanted: &[String], file: &str) -> Result<Vec<Member>, CliError> {
    let all: Vec<String>;
    let wanted = if wanted.is_empty() {
        all = names.to_vec();
        &all
    } else {
        wanted
    };
    if wanted.is_empty() {
        let remedy = "name another with --kubeconfig";
        return Err(CliError::new("LS0006", format!("the kubeconfig {file} has no contexts"), remedy));
    }
    let mut members: Vec<Member> = Vec::new();
    for word in wanted {
        let member = choose_one(names, word, file)?;
        if let Some(twice) = members.iter().find(|known| known.cluster == member.cluster) {
            let message = format!(
                "contexts `{}` and `{}` are both called {}",
                twice.context, member.context, member.cluster
            );
            return Err(CliError::new("LS0008", message, "give one an alias: --contexts other=CONTEXT,..."));
        }
        members.push(member);
    }
    Ok(members)
}

fn choose_one(names: &[String], word: &str, file: &str) -> Result<Member, CliError> {
    let known = |context: &str| names.iter().any(|name| name == context);
    let (alias, context) = if known(word) {
        (None, word)
    } else {
        match word.split_once('=') {
            Some((alias, context)) if known(context) => (Some(alias), context),
            _ => {
                let context = word.split_once('=').map_or(word, |(_, context)| context);
                let message = format!("the kubeconfig {file} has no context `{context}`");
                return Err(CliError::new("LS0006", message, format!("it has: {}", names.join(", "))));
            }
        }
    };
    let cluster = ClusterName::new(alias.unwrap_or(context)).map_err(|error| {
        let remedy = format!("give it an alias: --contexts my-cluster={context}");
        CliError::new("LS0007", error.to_string(), remedy)
    })?;
    Ok(Member { cluster, context: context.to_owned() })
}

/// Two contexts of one cluster are an error; a cluster that cannot be reached is a state, and the
/// hub judges it when it comes.
pub(super) async fn check_distinct(
    clients: &BTreeMap<ClusterName, ClusterClient>,
    out: &Out,
) -> Result<(), CliError> {
    let asked = clients.iter().map(|(cluster, client)| async move {
        (cluster, client.server(), tokio::time::timeout(IDENTITY_TIMEOUT, client.identity()).await)
    });
    let mut seen: BTreeMap<Uid, &ClusterName> = BTreeMap::new();
    for (cluster, server, answer) in futures::future::join_all(asked).await {
        let why = match answer {
            Ok(Ok(identity)) => {
                if let Some(other) = seen.insert(identity.uid.clone(), cluster) {
                    return Err(same_cluster(other, cluster));
                }
                continue;
            }
            Ok(Err(error)) => CliError::new("", "", "").caused_by(&error).causes(),
            Err(_) => format!("no answer within {} s", IDENTITY_TIMEOUT.as_secs()),
        };
        let line = format!("{cluster}: unreachable at {} for now: {}", plain(server), plain(&why));
        out.line(&out.palette.paint(Paint::Bad, &line))?;
    }
    Ok(())
}

fn same_cluster(one: &ClusterName, other: &ClusterName) -> CliError {
    let message = format!("{one} and {other} are the same cluster (same uid of kube-system)");
    CliError::new("LS0008", message, "leave one of them out: --contexts names those to use")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    const ARN: &str = "arn:aws:eks:eu-1:123:cluster/x=y";

    #[test]
    fn contexts_and_aliases_name_the_members() {
        let names = strings(&["cluster-a", ARN]);
        let chosen = choose(&names, &strings(&["cluster-a", &format!("prod={ARN}")]), "k").unwrap();
        let shown: Vec<_> = chosen.iter().map(|m| (m.cluster.as_str(), m.context.as_str())).collect();
        assert_eq!(shown, [("cluster-a", "cluster-a"), ("prod", ARN)]);
        assert_eq!(choose(&names[..1], &[], "k").unwrap().len(), 1, "all contexts where none is named");
    }

    #[test]
    fn what_cannot_be_used_says_what_to_do() {
        let names = strings(&["cluster-a", ARN]);
        let error = |wanted: &[&str]| choose(&names, &strings(wanted), "k").unwrap_err();
        assert_eq!(error(&[]).code(), "LS0007");
        assert!(error(&[ARN]).to_string().contains("--contexts my-cluster=arn:aws"), "{}", error(&[ARN]));
        assert!(error(&["x"]).to_string().contains("it has: cluster-a"));
        assert_eq!(error(&["cluster-a", "cluster-a"]).code(), "LS0008");
        assert_eq!(choose(&[], &[], "k").unwrap_err().code(), "LS0006");
    }
}
