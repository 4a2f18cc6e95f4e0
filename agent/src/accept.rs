//! What the hub may do in this cluster (I16): the agent's own configuration decides, not the hub.

use std::collections::BTreeSet;
use std::fmt;

use lockstep_engine::GroupKind;
use lockstep_engine::catalogue::{group_of_sensitive, is_sensitive, system_namespaces};
use lockstep_engine::reading::{KindRule, NamespaceRule, ReadRule, Reading};
use serde::Deserialize;

use crate::error::NOT_ACCEPTED;

/// Means: all, except what must be named.
const ALL: &str = "*";

/// What may be done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Tell the hub its content.
    Read,
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
            Self::Read => "read",
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
    /// `read`, `create`, `update`, `delete`; all four where none are given.
    #[serde(default = "all_verbs")]
    pub verbs: Vec<Verb>,
}

fn all_namespaces() -> Vec<String> {
    vec![ALL.to_owned()]
}

fn all_verbs() -> Vec<Verb> {
    vec![Verb::Read, Verb::Create, Verb::Update, Verb::Delete]
}

impl AcceptEntry {
    /// The default list: everything that `*` means.
    #[must_use]
    pub fn everything() -> Vec<Self> {
        vec![Self { kinds: vec![ALL.to_owned()], namespaces: all_namespaces(), verbs: all_verbs() }]
    }

    /// Everything may be read, also Secrets and the cluster's own namespaces: for an agent that is one process with its
    /// hub, where a read crosses no border. lockstep's own and protected namespaces are not among it.
    #[must_use]
    pub fn reading_everything() -> Self {
        let system = system_namespaces().map(str::to_owned);
        Self {
            kinds: vec![ALL.to_owned(), "Secret".to_owned()],
            namespaces: system.chain([ALL.to_owned()]).collect(),
            verbs: vec![Verb::Read],
        }
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
    reading: Reading,
}

/// How much of an object the hub may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadScope {
    /// All of it.
    Everything,
    /// Its values only where lockstep wrote every one of them: a Secret that may be written and not read.
    WrittenByUs,
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
    /// Reads the entries. `protected` are namespaces that `*` does not mean, beside the cluster's own and lockstep's.
    ///
    /// # Errors
    /// The first entry that is wrong.
    pub fn parse(entries: &[AcceptEntry], protected: BTreeSet<String>) -> Result<Self, AcceptError> {
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
                return Err(error(
                    "verbs",
                    "it is empty: leave it out, or name read, create, update, delete",
                ));
            }
            let kinds: Result<Vec<_>, String> = kinds.iter().map(|text| kind_rule(text)).collect();
            let namespaces: Result<Vec<_>, String> =
                namespaces.iter().map(|text| namespace_rule(text)).collect();
            rules.push(Rule {
                kinds: kinds.map_err(|why| error("kinds", &why))?,
                namespaces: namespaces.map_err(|why| error("namespaces", &why))?,
                verbs: verbs.clone(),
            });
        }
        let reads = rules.iter().filter(|rule| rule.verbs.contains(&Verb::Read)).map(|rule| ReadRule {
            kinds: rule.kinds.iter().cloned().collect(),
            namespaces: rule.namespaces.iter().cloned().collect(),
        });
        let reading = Reading { rules: reads.collect(), protected };
        Ok(Self { rules, reading })
    }

    /// May this be done?
    ///
    /// # Errors
    /// A sentence that says what to add to the agent's configuration.
    pub fn check(&self, subject: Subject<'_>, verb: Verb) -> Result<(), String> {
        let accepted = match verb {
            Verb::Read => self.reading.allows(subject.gk, subject.namespace, subject.name),
            Verb::Create | Verb::Update | Verb::Delete => self.writes(subject, &[verb]),
        };
        if accepted { Ok(()) } else { Err(refusal(subject, verb)) }
    }

    /// How much of this object may be read by itself? What may be written is archived before it is deleted, so it is
    /// read; but no value of a Secret that the hub does not know already.
    ///
    /// # Errors
    /// A sentence that says what to add to the agent's configuration.
    pub fn read_scope(&self, subject: Subject<'_>) -> Result<ReadScope, String> {
        if self.check(subject, Verb::Read).is_ok() {
            return Ok(ReadScope::Everything);
        }
        if !self.writes(subject, &[Verb::Create, Verb::Update, Verb::Delete]) {
            return Err(refusal(subject, Verb::Read));
        }
        let secret = subject.gk.is("", "Secret");
        Ok(if secret { ReadScope::WrittenByUs } else { ReadScope::Everything })
    }

    /// What the hub may read.
    #[must_use]
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    fn writes(&self, subject: Subject<'_>, verbs: &[Verb]) -> bool {
        let rules = self.rules.iter().filter(|rule| verbs.iter().any(|verb| rule.verbs.contains(verb)));
        rules.into_iter().any(|rule| rule.covers(subject, &self.reading))
    }

    /// One line per entry, for people.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        self.rules.iter().map(ToString::to_string).collect()
    }
}

impl Rule {
    /// Does it cover this for writing?
    fn covers(&self, subject: Subject<'_>, reading: &Reading) -> bool {
        let kind = self.kinds.iter().any(|kind| match kind {
            KindRule::All => !is_sensitive(subject.gk),
            KindRule::Named { .. } => kind.names(subject.gk, subject.plural),
        });
        let place = subject.place();
        kind && self.namespaces.iter().any(|namespace| match namespace {
            NamespaceRule::All => !reading.is_protected(place),
            NamespaceRule::Named(named) => named == place,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verbs: Vec<String> = self.verbs.iter().map(ToString::to_string).collect();
        let kinds: Vec<String> = self.kinds.iter().map(named).collect();
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

fn named(kind: &KindRule) -> String {
    match kind {
        KindRule::All => ALL.to_owned(),
        KindRule::Named { name, group } if group.is_empty() => name.clone(),
        KindRule::Named { name, group } => format!("{name}.{group}"),
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

fn refusal(subject: Subject<'_>, verb: Verb) -> String {
    let Subject { gk, namespace, .. } = subject;
    let place = subject.place();
    let scope = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") };
    let entry = if place.is_empty() { ALL } else { place };
    format!(
        "{NOT_ACCEPTED}: this cluster's agent does not accept to {verb} {gk} {}{scope}; to allow it, add to `accept` \
         in the agent's configuration: {{ kinds: [\"{gk}\"], namespaces: [\"{entry}\"], verbs: [{verb}] }}",
        subject.name
    )
}

#[cfg(test)]
mod tests;
