//! Kubeconfig text. Contexts are named after clusters; everything is embedded, so the file can be copied anywhere.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How to prove who we are.
pub(crate) enum Credentials<'a> {
    Certificate { certificate: &'a str, key: &'a str },
    Token(&'a str),
}

/// One context, with a cluster and a user of the same name.
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) server: &'a str,
    pub(crate) ca: &'a str,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) credentials: Credentials<'a>,
}

/// A kubeconfig with these contexts; the first is the current one.
pub(crate) fn render(entries: &[Entry<'_>]) -> String {
    let (mut clusters, mut users, mut contexts) = (String::new(), String::new(), String::new());
    for entry in entries {
        let Entry { name, server, ca, namespace, credentials } = entry;
        let ca = STANDARD.encode(ca);
        // Writing to a String cannot fail.
        let _ = write!(
            clusters,
            "- name: {name}\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n"
        );
        let _ = match credentials {
            Credentials::Certificate { certificate, key } => write!(
                users,
                "- name: {name}\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
                STANDARD.encode(certificate),
                STANDARD.encode(key)
            ),
            Credentials::Token(token) => write!(users, "- name: {name}\n  user:\n    token: {token}\n"),
        };
        let namespace =
            namespace.map(|namespace| format!("    namespace: {namespace}\n")).unwrap_or_default();
        let _ = write!(
            contexts,
            "- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n{namespace}"
        );
    }
    let current = entries.first().map_or("", |entry| entry.name);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {current}\nclusters:\n{clusters}users:\n{users}contexts:\n{contexts}"
    )
}
