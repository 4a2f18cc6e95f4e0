//! Which field managers are done with an object, and which are still at work.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::guard::{self, Guard};
use crate::ownership::entries::ManagerEntry;
use crate::ownership::{MANAGER, YIELD_MANAGER};

/// Field manager of restores. Not the manager of copies: what a person has brought back is not ours.
pub const RESTORE_MANAGER: &str = "lockstep-restore";
/// Stands for everybody who wrote before managedFields were kept, or before they were cleared.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Programs that a person runs: they write once, and end.
const RUN_BY_PEOPLE: [&str; 9] =
    ["kubectl", "oc", "k9s", "Mozilla", "curl", "Wget", "HTTPie", "PostmanRuntime", "python-requests"];
/// Each subcommand of kubectl writes under a name of its own.
const SUBCOMMANDS: &str = "kubectl-";
/// Whatever a policy says, these are at work for as long as there is a cluster.
const AT_WORK: [&str; 9] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "cloud-controller-manager",
    "cluster-autoscaler",
    MANAGER,
    YIELD_MANAGER,
];

/// The name of a field manager, in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ManagerPattern(String);

/// Why a text names no field manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManagerPatternError {
    /// Empty, or nothing but `*`.
    #[error("it would mean every field manager")]
    Everybody,
    /// One of Kubernetes or of lockstep itself.
    #[error("it is always at work")]
    AtWork,
}

impl FromStr for ManagerPattern {
    type Err = ManagerPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.chars().all(|c| c == '*') {
            return Err(ManagerPatternError::Everybody);
        }
        if AT_WORK.contains(&text) {
            return Err(ManagerPatternError::AtWork);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ManagerPattern {
    type Error = ManagerPatternError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ManagerPattern> for String {
    fn from(pattern: ManagerPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for ManagerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ManagerPattern {
    /// Does it mean this manager?
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else { return rest.is_empty() };
        let mut rest = rest;
        for part in parts {
            let Some((_, behind)) = rest.split_once(part) else { return false };
            rest = behind;
        }
        rest.ends_with(last)
    }
}

/// Whose entries are handed over.
#[derive(Clone, Copy, Debug)]
pub enum Retired<'a> {
    /// At an adoption: who wrote the object by hand, and whom the policy says to be retired.
    Adopting(&'a [ManagerPattern]),
    /// Of a copy that is ours: who stands for us, because managedFields were cleared or the copy was restored.
    OfCopy,
}

impl Retired<'_> {
    /// Is the manager of this entry done with the object? A name is all there is to go by: the time of an entry says when
    /// somebody wrote, not whether he comes back, and the fields of an operator that created the object look like those of
    /// a person who did.
    #[must_use]
    pub fn includes(&self, entry: &ManagerEntry) -> bool {
        let name = entry.manager.as_str();
        if guard::on(Guard::ControllersKeep) && (!entry.subresource.is_empty() || AT_WORK.contains(&name)) {
            return false;
        }
        let stands_for_us =
            entry.operation == "Update" && matches!(name, BEFORE_FIRST_APPLY | RESTORE_MANAGER);
        match self {
            _ if stands_for_us => true,
            Self::OfCopy => false,
            Self::Adopting(declared) => {
                RUN_BY_PEOPLE.contains(&name)
                    || name.starts_with(SUBCOMMANDS)
                    || declared.iter().any(|pattern| pattern.matches(name))
                    || !guard::on(Guard::ControllersKeep)
            }
        }
    }
}
