//! What the hub may do in this cluster (I16): the agent's own configuration decides, not the hub.

use std::fmt;

use lockstep_engine::GroupKind;
use lockstep_engine::catalogue::{group_of_sensitive, is_sensitive, is_system_namespace};
use serde::Deserialize;

use crate::error::NOT_ACCEPTED;

/// Means: all, except what must be named.
const ALL: &str = "*";

/// What may be done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Bring into being.
    Create,
    /// Change, also take our marks off.
    Update,
    /// Delete.
    Delete,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        })
    }
}

/// One entry of `accept`, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptEntry {
    /// `*`, or kinds as in `Secret`, `Deployment.apps`, `roles.rbac.authorization.k8s.io`; of RBAC, webhooks, definitions and
    /// APIServices the kind alone is enough.
    pub kinds: Vec<String>,
    /// `*`, or names of namespaces. Cluster-scoped objects need `*`, a Namespace its own name.
    #[serde(default = "all_namespaces")]
    pub namespaces: Vec<String>,
    /// `create`, `update`, `delete`; all three where none are given.
    #[serde(default = "all_verbs")]
    pub verbs: Vec<Verb>,
}

fn all_namespaces() -> Vec<String> {
    vec![ALL.to_owned()]
}

fn all_verbs() -> Vec<Verb> {
    vec![Verb::Create, Verb::Update, Verb::Delete]
}

impl AcceptEntry {
    /// The default list: everything that `*` means.
    #[must_use]
    pub fn everything() -> Vec<Self> {
        vec![Self { kinds: vec![ALL.to_owned()], namespaces: all_namespaces(), verbs: all_verbs() }]
    }
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("accept[{entry}].{field}: {why}")]
pub struct AcceptError {
    /// Position in the list, from 0.
    pub entry: usize,
    /// Which part of it.
    pub field: &'static str,
    /// What is wrong, and what it should be.
    pub why: String,
}

/// A kind as the list names it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum KindRule {
    All,
    Named { name: String, group: String },
}

/// A namespace as the list names it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NamespaceRule {
    All,
    Named(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    kinds: Vec<KindRule>,
    namespaces: Vec<NamespaceRule>,
    verbs: Vec<Verb>,
}

/// The parsed accept list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptList {
    rules: Vec<Rule>,
}

/// The object that a step is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Group and kind.
    pub gk: &'a GroupKind,
    /// Plural name, where the cluster serves the kind.
    pub plural: Option<&'a str>,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
}

impl Subject<'_> {
    /// The namespace that counts: a Namespace is in itself, so to speak.
    fn place(&self) -> &str {
        if self.gk.is("", "Namespace") { self.name } else { self.namespace }
    }
}

impl AcceptList {
    /// Reads the entries.
    ///
    /// # Errors
    /// The first entry that is wrong.
    pub fn parse(entries: &[AcceptEntry]) -> Result<Self, AcceptError> {
        let mut rules = Vec::with_capacity(entries.len());
        for (entry, AcceptEntry { kinds, namespaces, verbs }) in entries.iter().enumerate() {
            let error = |field, why: &str| AcceptError { entry, field, why: why.to_owned() };
            if kinds.is_empty() {
                return Err(error("kinds", "it is empty: name kinds, or \"*\""));
            }
            if namespaces.is_empty() {
                return Err(error("namespaces", "it is empty: name namespaces, or \"*\""));
            }
            if verbs.is_empty() {
                return Err(error("verbs", "it is empty: leave it out, or name create, update, delete"));
            }
            let kinds: Result<_, String> = kinds.iter().map(|text| kind_rule(text)).collect();
            let namespaces: Result<_, String> = namespaces.iter().map(|text| namespace_rule(text)).collect();
            rules.push(Rule {
                kinds: kinds.map_err(|why| error("kinds", &why))?,
                namespaces: namespaces.map_err(|why| error("namespaces", &why))?,
                verbs: verbs.clone(),
            });
        }
        Ok(Self { rules })
    }

    /// May this be done?
    ///
    /// # Errors
    /// A sentence that says what to add to the agent's configuration.
    pub fn check(&self, subject: Subject<'_>, verb: Verb) -> Result<(), String> {
        if self.rules.iter().any(|rule| rule.verbs.contains(&verb) && rule.covers(subject)) {
            return Ok(());
        }
        Err(refusal(subject, &verb.to_string(), Some(verb)))
    }

    /// May this be read? Wherever anything may be done with it.
    ///
    /// # Errors
    /// A sentence that says what to add to the agent's configuration.
    pub fn check_read(&self, subject: Subject<'_>) -> Result<(), String> {
        if self.rules.iter().any(|rule| rule.covers(subject)) {
            return Ok(());
        }
        Err(refusal(subject, "read", None))
    }

    /// One line per entry, for people.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        self.rules.iter().map(ToString::to_string).collect()
    }
}

impl Rule {
    fn covers(&self, subject: Subject<'_>) -> bool {
        let kind = self.kinds.iter().any(|kind| match kind {
            KindRule::All => !is_sensitive(subject.gk),
            KindRule::Named { name, group } => {
                let named = name.eq_ignore_ascii_case(&subject.gk.kind)
                    || subject.plural.is_some_and(|plural| name.eq_ignore_ascii_case(plural));
                named && subject.gk.groups().contains(&group.as_str())
            }
        });
        let place = subject.place();
        kind && self.namespaces.iter().any(|namespace| match namespace {
            NamespaceRule::All => !is_system_namespace(place),
            NamespaceRule::Named(named) => named == place,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verbs: Vec<String> = self.verbs.iter().map(ToString::to_string).collect();
        let kinds: Vec<String> = self.kinds.iter().map(ToString::to_string).collect();
        let namespaces: Vec<&str> = self
            .namespaces
            .iter()
            .map(|namespace| match namespace {
                NamespaceRule::All => ALL,
                NamespaceRule::Named(named) => named,
            })
            .collect();
        write!(f, "{} {} in {}", verbs.join(","), kinds.join(","), namespaces.join(","))
    }
}

impl fmt::Display for KindRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str(ALL),
            Self::Named { name, group } if group.is_empty() => f.write_str(name),
            Self::Named { name, group } => write!(f, "{name}.{group}"),
        }
    }
}

fn kind_rule(text: &str) -> Result<KindRule, String> {
    if text == ALL {
        return Ok(KindRule::All);
    }
    let (name, group) =
        text.split_once('.').unwrap_or_else(|| (text, group_of_sensitive(text).unwrap_or_default()));
    let well = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
    };
    if !well(name) || (text.contains('.') && !well(group)) {
        return Err(format!(
            "`{text}` is no kind: write it as in Secret, Deployment.apps or roles.rbac.authorization.k8s.io, or \"*\" alone"
        ));
    }
    Ok(KindRule::Named { name: name.to_owned(), group: group.to_owned() })
}

fn namespace_rule(text: &str) -> Result<NamespaceRule, String> {
    if text == ALL {
        return Ok(NamespaceRule::All);
    }
    let well = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.is_empty() || text.len() > 63 || !text.bytes().all(well) {
        return Err(format!("`{text}` is no namespace: name one, or \"*\" alone"));
    }
    Ok(NamespaceRule::Named(text.to_owned()))
}

fn refusal(subject: Subject<'_>, what: &str, verb: Option<Verb>) -> String {
    let Subject { gk, namespace, .. } = subject;
    let place = subject.place();
    let scope = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") };
    let entry = if place.is_empty() { ALL } else { place };
    let verbs = verb.map_or_else(|| "create, update, delete".to_owned(), |verb| verb.to_string());
    format!(
        "{NOT_ACCEPTED}: this cluster's agent does not accept to {what} {gk} {}{scope}; to allow it, add to `accept` \
         in the agent's configuration: {{ kinds: [\"{gk}\"], namespaces: [\"{entry}\"], verbs: [{verbs}] }}",
        subject.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &str) -> Result<AcceptList, AcceptError> {
        AcceptList::parse(&serde_json::from_str::<Vec<AcceptEntry>>(entries).unwrap())
    }

    fn check(list: &AcceptList, verb: Verb, group: &str, kind: &str, namespace: &str) -> bool {
        let gk = GroupKind::new(group, kind);
        let plural = format!("{}s", kind.to_lowercase());
        let subject = Subject { gk: &gk, plural: Some(&plural), namespace, name: "x" };
        list.check(subject, verb).is_ok()
    }

    #[test]
    fn i16_a_star_never_means_what_must_be_named() {
        let list = AcceptList::parse(&AcceptEntry::everything()).unwrap();
        for (group, kind, namespace, expected) in [
            ("apps", "Deployment", "shop", true),
            ("", "Secret", "shop", true),
            ("", "Secret", "kube-system", false),
            ("example.com", "Thing", "", true),
            ("rbac.authorization.k8s.io", "Role", "shop", false),
            ("rbac.authorization.k8s.io", "ClusterRoleBinding", "", false),
            ("apiextensions.k8s.io", "CustomResourceDefinition", "", false),
            ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", "", false),
            ("apiregistration.k8s.io", "APIService", "", false),
        ] {
            for verb in all_verbs() {
                assert_eq!(
                    check(&list, verb, group, kind, namespace),
                    expected,
                    "{verb} {kind} in {namespace}"
                );
            }
        }
    }

    #[test]
    fn i16_named_kinds_namespaces_and_verbs_are_accepted() {
        let list = list(
            r#"[
            {"kinds": ["roles.rbac.authorization.k8s.io"], "namespaces": ["shop"], "verbs": ["create", "update"]},
            {"kinds": ["secret"], "namespaces": ["kube-system"], "verbs": ["update"]},
            {"kinds": ["Deployment.apps", "Ingress.networking.k8s.io"]},
            {"kinds": ["RoleBinding"], "namespaces": ["dev"]}
        ]"#,
        )
        .unwrap();
        let rbac = "rbac.authorization.k8s.io";
        assert!(check(&list, Verb::Create, rbac, "Role", "shop"));
        assert!(!check(&list, Verb::Delete, rbac, "Role", "shop"));
        assert!(!check(&list, Verb::Create, rbac, "Role", "dev"));
        assert!(!check(&list, Verb::Create, rbac, "RoleBinding", "shop"));
        assert!(check(&list, Verb::Create, rbac, "RoleBinding", "dev"), "the kind alone is enough");
        assert!(!check(&list, Verb::Create, "example.com", "RoleBinding", "dev"));
        assert!(check(&list, Verb::Update, "", "Secret", "kube-system"));
        assert!(!check(&list, Verb::Update, "", "Secret", "shop"));
        assert!(check(&list, Verb::Delete, "apps", "Deployment", "dev"));
        assert!(!check(&list, Verb::Delete, "apps", "StatefulSet", "dev"));
        assert!(check(&list, Verb::Create, "extensions", "Ingress", "dev"), "one object in two groups");
    }

    #[test]
    fn a_namespace_needs_its_own_name() {
        let list = AcceptList::parse(&AcceptEntry::everything()).unwrap();
        let gk = GroupKind::new("", "Namespace");
        let named = |name| Subject { gk: &gk, plural: None, namespace: "", name };
        assert!(list.check(named("shop"), Verb::Delete).is_ok());
        assert!(list.check(named("kube-system"), Verb::Delete).is_err());
    }

    #[test]
    fn reading_goes_where_anything_may_be_done() {
        let list = list(r#"[{"kinds": ["Secret"], "namespaces": ["shop"], "verbs": ["delete"]}]"#).unwrap();
        let gk = GroupKind::new("", "Secret");
        let at = |namespace| Subject { gk: &gk, plural: None, namespace, name: "x" };
        assert!(list.check_read(at("shop")).is_ok());
        assert!(list.check_read(at("dev")).is_err());
    }

    #[test]
    fn the_refusal_says_what_to_add() {
        let list = AcceptList::parse(&AcceptEntry::everything()).unwrap();
        let gk = GroupKind::new("rbac.authorization.k8s.io", "Role");
        let subject = Subject { gk: &gk, plural: None, namespace: "shop", name: "reader" };
        let said = list.check(subject, Verb::Create).unwrap_err();
        assert_eq!(
            said,
            "LS0310: this cluster's agent does not accept to create Role.rbac.authorization.k8s.io reader in namespace \
             shop; to allow it, add to `accept` in the agent's configuration: { kinds: \
             [\"Role.rbac.authorization.k8s.io\"], namespaces: [\"shop\"], verbs: [create] }"
        );
        let entry =
            r#"[{"kinds": ["Role.rbac.authorization.k8s.io"], "namespaces": ["shop"], "verbs": ["create"]}]"#;
        assert!(self::list(entry).unwrap().check(subject, Verb::Create).is_ok());
    }

    #[test]
    fn bad_entries_are_named() {
        let error = |entries| list(entries).unwrap_err().to_string();
        assert!(error(r#"[{"kinds": []}]"#).starts_with("accept[0].kinds: it is empty"));
        assert!(
            error(r#"[{"kinds": ["*"]}, {"kinds": ["*.apps"]}]"#)
                .starts_with("accept[1].kinds: `*.apps` is no")
        );
        assert!(error(r#"[{"kinds": ["Secret."]}]"#).contains("`Secret.` is no kind"));
        assert!(error(r#"[{"kinds": ["*"], "namespaces": ["Shop"]}]"#).contains("`Shop` is no namespace"));
        assert!(error(r#"[{"kinds": ["*"], "verbs": []}]"#).starts_with("accept[0].verbs"));
    }
}
