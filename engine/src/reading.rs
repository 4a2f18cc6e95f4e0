//! What a hub may read in a member cluster.
//!
//! The agent's configuration says it, the agent enforces it, and tells the hub, which asks for no more than that
//! ([`Reading::cut`]) and reports what it therefore cannot know ([`Reading::refused`]). Keys are not limited: that an
//! object exists is told of every kind that is watched. Bodies are.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::catalogue::{is_system_namespace, system_namespaces};
use crate::identity::{GroupKind, ObjectKey};
use crate::interest::{Capture, Condition, Interest};

/// A kind as an accept list names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KindRule {
    /// Every kind that need not be named.
    All,
    /// One kind, by its name or plural name.
    Named {
        /// As in `Deployment` or `deployments`.
        name: String,
        /// As in `apps`; empty: the core group.
        group: String,
    },
}

impl KindRule {
    /// Does it name this kind? `plural` is what the cluster calls it, where that is known.
    #[must_use]
    pub fn names(&self, gk: &GroupKind, plural: Option<&str>) -> bool {
        let Self::Named { name, group } = self else { return false };
        let named = name.eq_ignore_ascii_case(&gk.kind)
            || plural.is_some_and(|plural| name.eq_ignore_ascii_case(plural));
        named && gk.groups().contains(&group.as_str())
    }
}

/// A namespace as an accept list names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NamespaceRule {
    /// Every namespace that need not be named, and what is in none.
    All,
    /// This one.
    Named(String),
}

/// What may be read: these kinds in these namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRule {
    /// Kinds; [`KindRule::All`] does not mean Secrets.
    pub kinds: BTreeSet<KindRule>,
    /// Namespaces; [`NamespaceRule::All`] does not mean the cluster's own and the protected ones.
    pub namespaces: BTreeSet<NamespaceRule>,
}

/// What a hub may read in a cluster. Serialised for the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Any of these allows.
    pub rules: Vec<ReadRule>,
    /// Namespaces that must be named, beside the cluster's own.
    #[serde(default)]
    pub protected: BTreeSet<String>,
}

/// Where objects of one kind may be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Places {
    /// Everywhere, but in the cluster's own namespaces and the protected ones.
    all: bool,
    /// In these.
    named: BTreeSet<String>,
}

/// Kinds whose bodies are never meant by "all kinds".
fn must_be_named(gk: &GroupKind) -> bool {
    gk.is("", "Secret")
}

/// The plural name that Kubernetes gives a kind by default, in lower case.
fn plural(kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    match kind.as_bytes() {
        _ if kind == "endpoints" => kind,
        [.., b's'] => format!("{kind}es"),
        [rest @ .., b'y'] => format!("{}ies", String::from_utf8_lossy(rest)),
        _ => format!("{kind}s"),
    }
}

impl Reading {
    /// Is this namespace read only where it is named?
    #[must_use]
    pub fn is_protected(&self, namespace: &str) -> bool {
        is_system_namespace(namespace) || self.protected.contains(namespace)
    }

    /// May bodies of this kind be read in this namespace? Of a Namespace its own name is the place.
    #[must_use]
    pub fn allows(&self, gk: &GroupKind, namespace: &str, name: &str) -> bool {
        let place = if gk.is("", "Namespace") { name } else { namespace };
        self.places(gk).allow(place, self)
    }

    /// What is left of an interest. Keys stay.
    #[must_use]
    pub fn cut(&self, interest: &Interest) -> Interest {
        let places = self.places(&interest.gk);
        let cut = |condition: &Condition| self.cut_condition(&interest.gk, &places, condition);
        let captured =
            |capture: &Capture| Some(Capture { condition: cut(&capture.condition)?, ..capture.clone() });
        Interest {
            conditions: interest.conditions.iter().filter_map(cut).collect(),
            archive: interest.archive.iter().filter_map(captured).collect(),
            ..interest.clone()
        }
    }

    /// What a condition asks for and may not be read, as a sentence that says what to accept. Namespaces that it does
    /// not name and that are protected are not missed.
    #[must_use]
    pub fn refused(&self, gk: &GroupKind, condition: &Condition) -> Option<Refused> {
        let places = self.places(gk);
        let asked: BTreeSet<String> = if gk.is("", "Namespace") {
            condition.names.clone()
        } else if condition.namespaces.is_empty() && condition.system {
            system_namespaces()
                .filter(|namespace| condition.covers_namespace(namespace))
                .map(str::to_owned)
                .collect()
        } else {
            condition.namespaces.difference(&condition.exclude_namespaces).cloned().collect()
        };
        let mut missing: BTreeSet<NamespaceRule> = asked
            .into_iter()
            .filter(|namespace| !places.allow(namespace, self))
            .map(NamespaceRule::Named)
            .collect();
        let everywhere =
            if gk.is("", "Namespace") { condition.names.is_empty() } else { condition.namespaces.is_empty() };
        if everywhere && !places.all {
            missing.insert(NamespaceRule::All);
        }
        (!missing.is_empty()).then(|| Refused { gk: gk.clone(), namespaces: missing })
    }

    fn places(&self, gk: &GroupKind) -> Places {
        let plural = plural(&gk.kind);
        let means = |kind: &KindRule| match kind {
            KindRule::All => !must_be_named(gk),
            KindRule::Named { .. } => kind.names(gk, Some(&plural)),
        };
        let mut places = Places::default();
        let rules = self.rules.iter().filter(|rule| rule.kinds.iter().any(means));
        for namespace in rules.flat_map(|rule| &rule.namespaces) {
            match namespace {
                NamespaceRule::All => places.all = true,
                NamespaceRule::Named(named) => {
                    places.named.insert(named.clone());
                }
            }
        }
        places
    }

    fn cut_condition(&self, gk: &GroupKind, places: &Places, condition: &Condition) -> Option<Condition> {
        let mut cut = condition.clone();
        // A Namespace is in none, and is read where it is named.
        if gk.is("", "Namespace") {
            if condition.names.is_empty() && places.all {
                return Some(cut);
            }
            let asked = if condition.names.is_empty() { &places.named } else { &condition.names };
            cut.names = asked.iter().filter(|name| places.allow(name, self)).cloned().collect();
            return (!cut.names.is_empty()).then_some(cut);
        }
        if condition.namespaces.is_empty() && places.all {
            let guarded = system_namespaces().filter(|_| condition.system).map(str::to_owned);
            let guarded = guarded.chain(self.protected.iter().cloned());
            cut.exclude_namespaces.extend(guarded.filter(|namespace| !places.named.contains(namespace)));
            return Some(cut);
        }
        let asked = if condition.namespaces.is_empty() { &places.named } else { &condition.namespaces };
        let readable =
            |namespace: &&String| places.allow(namespace, self) && condition.covers_namespace(namespace);
        cut.namespaces = asked.iter().filter(readable).cloned().collect();
        (!cut.namespaces.is_empty()).then_some(cut)
    }
}

impl Places {
    fn allow(&self, place: &str, reading: &Reading) -> bool {
        self.named.contains(place) || (self.all && !reading.is_protected(place))
    }
}

/// What may not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// Of this kind.
    pub gk: GroupKind,
    /// In these namespaces.
    pub namespaces: BTreeSet<NamespaceRule>,
}

impl Refused {
    /// This one object.
    #[must_use]
    pub fn at(key: &ObjectKey) -> Self {
        let place = if key.gk.is("", "Namespace") { &key.name } else { &key.namespace };
        let place =
            if place.is_empty() { NamespaceRule::All } else { NamespaceRule::Named(place.to_string()) };
        Self { gk: key.gk.clone(), namespaces: BTreeSet::from([place]) }
    }
}

impl fmt::Display for Refused {
    /// What to add to the agent's configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespaces: Vec<String> = self
            .namespaces
            .iter()
            .map(|namespace| match namespace {
                NamespaceRule::All => "\"*\"".to_owned(),
                NamespaceRule::Named(named) => format!("\"{named}\""),
            })
            .collect();
        write!(
            f,
            "the cluster's agent does not accept that {} is read there; to allow it, add to `accept` in the agent's \
             configuration: {{ kinds: [\"{}\"], namespaces: [{}], verbs: [read] }}",
            self.gk,
            self.gk,
            namespaces.join(", ")
        )
    }
}

#[cfg(test)]
mod tests;
