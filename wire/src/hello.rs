//! What a hub checks before it welcomes an agent.

use lockstep_engine::ClusterName;

use crate::Protocols;
use crate::v1::{Hello, Refused};

/// Agent and hub speak no common version of the protocol.
pub const PROTOCOL_NOT_SERVED: &str = "LS0320";
/// The token belongs to another cluster than the agent says it is in (I15).
pub const TOKEN_OF_ANOTHER: &str = "LS0321";
/// The first message lacks something that the hub needs.
pub const INCOMPLETE_HELLO: &str = "LS0322";
/// The cluster's name is known with another uid.
pub const NAME_TAKEN: &str = "LS0323";
/// The cluster's uid is known under another name.
pub const KNOWN_UNDER_ANOTHER_NAME: &str = "LS0324";
/// The API server is older than what lockstep works with.
pub const SERVER_TOO_OLD: &str = "LS0325";

/// Refusals that users may meet: (code, what it is about).
pub const CODES: &[(&str, &str)] = &[
    (PROTOCOL_NOT_SERVED, "agent and hub speak no common version of the protocol"),
    (TOKEN_OF_ANOTHER, "the token belongs to another cluster"),
    (INCOMPLETE_HELLO, "the agent's first message is incomplete"),
    (NAME_TAKEN, "the name belongs to another cluster"),
    (KNOWN_UNDER_ANOTHER_NAME, "the cluster is known under another name"),
    (SERVER_TOO_OLD, "the cluster's Kubernetes is too old"),
    (crate::budget::TOO_LARGE, "a message of the session is too large"),
];

/// Oldest minor version of Kubernetes 1 that lockstep works with.
const OLDEST_MINOR: u32 = 20;

/// Why an agent is not served. The stream ends with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}; {remedy}")]
pub struct Refusal {
    /// As in `LS0321`; has a page in docs/errors.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// When to try again, in milliseconds; 0: of no use until something is changed.
    pub retry_after_ms: u64,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, message, remedy, retry_after_ms } = refusal;
        Self { code: code.to_owned(), message, remedy, retry_after_ms }
    }
}

/// What the hub knows about whoever says hello.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The cluster that the bearer token was made for.
    pub token_cluster: &'a str,
    /// The uid under which the hub knows the cluster of this name.
    pub uid_of_name: Option<&'a str>,
    /// The name under which the hub knows the cluster of this uid.
    pub name_of_uid: Option<&'a str>,
}

/// Checks a hello; the version to speak. `ours` are the versions that this hub speaks.
///
/// # Errors
/// The refusal to send.
pub fn check(hello: &Hello, known: &Known<'_>, ours: Protocols) -> Result<u32, Refusal> {
    let protocol = protocol(hello, ours)?;
    let name = hello.cluster_name.as_str();
    let missing = [
        ("cluster_name", name),
        ("cluster_uid", &hello.cluster_uid),
        ("instance", &hello.instance),
        ("server_version", &hello.server_version),
    ];
    if let Some((field, _)) = missing.iter().find(|(_, value)| value.is_empty()) {
        return refuse(
            INCOMPLETE_HELLO,
            format!("the agent's hello has no {field}"),
            "install an agent of the hub's own release",
        );
    }
    // What is no name is not repeated: it may be 64 KiB of anything.
    if ClusterName::new(name).is_err() {
        return refuse(
            TOKEN_OF_ANOTHER,
            format!(
                "an agent gives a cluster name that is no DNS-1123 label, and its token is that of {}",
                known.token_cluster
            ),
            "give each agent the name and the token of its own cluster",
        );
    }
    if let Some((field, longest)) = too_long(hello) {
        return refuse(
            INCOMPLETE_HELLO,
            format!("{field} in the agent's hello is longer than {longest} bytes"),
            "install an agent of the hub's own release",
        );
    }
    if name != known.token_cluster {
        return refuse(
            TOKEN_OF_ANOTHER,
            format!(
                "an agent says it is in cluster {name}, and its token is that of {}",
                known.token_cluster
            ),
            "give each agent the token that was made for its own cluster",
        );
    }
    if let Some(uid) = known.uid_of_name.filter(|uid| *uid != hello.cluster_uid) {
        return refuse(
            NAME_TAKEN,
            format!(
                "the name {name} belongs to the cluster with uid {uid}, this one has {}",
                hello.cluster_uid
            ),
            "give this cluster another name, or remove the old one from the hub first if it was rebuilt",
        );
    }
    if let Some(other) = known.name_of_uid.filter(|other| *other != name) {
        return refuse(
            KNOWN_UNDER_ANOTHER_NAME,
            format!("this cluster ({}) is already known as {other}", hello.cluster_uid),
            "keep its name, or remove it from the hub under the old one first",
        );
    }
    server(hello)?;
    Ok(protocol)
}

/// Texts of a hello are kept and logged. A uid is 36 bytes, versions of distributions are below 60.
const LONGEST_TEXT: usize = 256;
/// Of the accept list, one rule.
const LONGEST_RULE: usize = 4096;

fn too_long(hello: &Hello) -> Option<(&'static str, usize)> {
    let texts = [
        ("agent_version", &hello.agent_version),
        ("cluster_uid", &hello.cluster_uid),
        ("server_version", &hello.server_version),
        ("instance", &hello.instance),
    ];
    let text = texts.into_iter().find(|(_, text)| text.len() > LONGEST_TEXT);
    let rule = hello.accepts.iter().any(|rule| rule.len() > LONGEST_RULE);
    text.map(|(field, _)| (field, LONGEST_TEXT)).or(rule.then_some(("accepts", LONGEST_RULE)))
}

/// The newest version that both speak.
fn protocol(hello: &Hello, ours: Protocols) -> Result<u32, Refusal> {
    let oldest = if hello.oldest_protocol == 0 { hello.protocol } else { hello.oldest_protocol };
    let theirs = Protocols { oldest, newest: hello.protocol };
    if let Some(protocol) = ours.common(theirs) {
        return Ok(protocol);
    }
    let remedy = if theirs.oldest > ours.newest { "upgrade the hub first" } else { "upgrade the agent" };
    refuse(PROTOCOL_NOT_SERVED, format!("the agent speaks protocol {theirs}, this hub serves {ours}"), remedy)
}

fn server(hello: &Hello) -> Result<(), Refusal> {
    // A version that cannot be read is let pass: distributions put all sorts of things there.
    let mut numbers = hello.server_version.trim_start_matches('v').split('.');
    let major = numbers.next().and_then(|n| n.parse::<u32>().ok());
    let minor = numbers.next().and_then(|n| n.trim_end_matches('+').parse::<u32>().ok());
    match (major, minor) {
        (Some(1), Some(minor)) if minor < OLDEST_MINOR => refuse(
            SERVER_TOO_OLD,
            format!("cluster {} runs Kubernetes {}", hello.cluster_name, hello.server_version),
            "lockstep needs server-side apply as of Kubernetes 1.20: upgrade the cluster",
        ),
        _ => Ok(()),
    }
}

fn refuse<T>(code: &'static str, message: String, remedy: &str) -> Result<T, Refusal> {
    Err(Refusal { code, message, remedy: remedy.to_owned(), retry_after_ms: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OLDEST_PROTOCOL, PROTOCOL};

    fn hello() -> Hello {
        Hello {
            protocol: PROTOCOL,
            oldest_protocol: OLDEST_PROTOCOL,
            agent_version: "0.1.0".into(),
            cluster_name: "a".into(),
            cluster_uid: "u".into(),
            server_version: "v1.20.2".into(),
            instance: "i".into(),
            ..Hello::default()
        }
    }

    fn code(change: impl Fn(&mut Hello), known: Known<'_>) -> &'static str {
        let mut hello = hello();
        change(&mut hello);
        check(&hello, &known, Protocols::BUILT_IN).map_or_else(|refusal| refusal.code, |_| "ok")
    }

    #[test]
    fn an_agent_can_only_speak_for_its_own_cluster_i15() {
        let known = Known { token_cluster: "a", ..Known::default() };
        assert_eq!(code(|_| {}, known), "ok");
        assert_eq!(code(|_| {}, Known { token_cluster: "b", ..known }), TOKEN_OF_ANOTHER);
        assert_eq!(code(|_| {}, Known { uid_of_name: Some("u"), name_of_uid: Some("a"), ..known }), "ok");
        assert_eq!(code(|_| {}, Known { uid_of_name: Some("x"), ..known }), NAME_TAKEN);
        assert_eq!(code(|_| {}, Known { name_of_uid: Some("x"), ..known }), KNOWN_UNDER_ANOTHER_NAME);
    }

    #[test]
    fn hub_and_agent_of_neighbouring_versions_speak_the_older_one() {
        let known = Known { token_cluster: "a", ..Known::default() };
        let (old, new) = (
            Protocols { oldest: PROTOCOL, newest: PROTOCOL },
            Protocols { oldest: PROTOCOL, newest: PROTOCOL + 1 },
        );
        for (hub, agent, spoken) in
            [(new, old, PROTOCOL), (old, new, PROTOCOL), (new, new, PROTOCOL + 1), (old, old, PROTOCOL)]
        {
            let hello = Hello { protocol: agent.newest, oldest_protocol: agent.oldest, ..hello() };
            assert_eq!(check(&hello, &known, hub), Ok(spoken), "{hub} {agent}");
        }
        let remedy = |hub: Protocols, agent: Protocols| {
            let hello = Hello { protocol: agent.newest, oldest_protocol: agent.oldest, ..hello() };
            check(&hello, &known, hub).unwrap_err().remedy
        };
        let far = Protocols { oldest: PROTOCOL + 1, newest: PROTOCOL + 2 };
        assert_eq!(remedy(far, old), "upgrade the agent");
        assert_eq!(remedy(old, far), "upgrade the hub first");
    }

    #[test]
    fn what_an_agent_says_of_itself_is_repeated_only_where_it_is_short() {
        let known = Known { token_cluster: "a", ..Known::default() };
        let long = "x".repeat(60_000);
        let refused = |change: &dyn Fn(&mut Hello)| {
            let mut hello = hello();
            change(&mut hello);
            check(&hello, &known, Protocols::BUILT_IN).unwrap_err()
        };
        for refusal in [
            refused(&|h| h.cluster_name = long.clone()),
            refused(&|h| h.cluster_name = "a\nforged".into()),
            refused(&|h| h.cluster_uid = long.clone()),
            refused(&|h| h.server_version = long.clone()),
            refused(&|h| h.instance = long.clone()),
            refused(&|h| h.accepts = vec![long.clone()]),
            refused(&|h| (h.protocol, h.agent_version) = (99, long.clone())),
        ] {
            let text = refusal.to_string();
            assert!(text.len() < 300 && !text.contains("forged"), "{text}");
        }
    }

    #[test]
    fn versions_are_checked() {
        let known = Known { token_cluster: "a", ..Known::default() };
        let speaks = |oldest, newest| code(|h| (h.oldest_protocol, h.protocol) = (oldest, newest), known);
        assert_eq!(speaks(PROTOCOL + 1, PROTOCOL + 2), PROTOCOL_NOT_SERVED);
        assert_eq!(speaks(0, PROTOCOL + 1), PROTOCOL_NOT_SERVED, "it says that it speaks no other");
        assert_eq!(speaks(0, OLDEST_PROTOCOL - 1), PROTOCOL_NOT_SERVED);
        assert_eq!(speaks(PROTOCOL, PROTOCOL + 1), "ok");
        assert_eq!(code(|h| h.instance.clear(), known), INCOMPLETE_HELLO);
        assert_eq!(code(|h| h.server_version = "v1.19.16".into(), known), SERVER_TOO_OLD);
        for version in ["v1.36.2", "v1.21+", "v1.29.3-eks-1", "weird", "v2.0.0"] {
            assert_eq!(code(|h| h.server_version = version.into(), known), "ok", "{version}");
        }
    }
}
