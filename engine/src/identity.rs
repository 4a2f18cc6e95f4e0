//! What things are called.
//!
//! An object is (cluster, group, kind, namespace, name). Version and plural resource belong to the
//! watch that observed it, not to the object. The same object served in two API groups (Ingress,
//! Event) is one object: [`GroupKind::canonical`] maps the older name onto the newer.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The hub's small integer for a member cluster; stable for the life of the hub's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClusterId(pub u32);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// Why a cluster name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a cluster name: {why} (a DNS-1123 label, as in `prod-eu-1`)")]
pub struct BadClusterName {
    /// What was given.
    pub name: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// The name of a member cluster: a DNS-1123 label, at most 63 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(Arc<str>);

impl ClusterName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// When it is not a DNS-1123 label.
    pub fn new(name: &str) -> Result<Self, BadClusterName> {
        let refuse = |why| Err(BadClusterName { name: name.to_owned(), why });
        if name.is_empty() {
            return refuse("it is empty");
        }
        if name.len() > 63 {
            return refuse("it is longer than 63 characters");
        }
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return refuse("only lower-case letters, digits and `-` are allowed");
        }
        if name.starts_with('-') || name.ends_with('-') {
            return refuse("it starts or ends with `-`");
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ClusterName {
    type Error = BadClusterName;
    fn try_from(value: String) -> Result<Self, Self::Error> {
        Self::new(&value)
    }
}

impl From<ClusterName> for String {
    fn from(value: ClusterName) -> Self {
        value.0.as_ref().to_owned()
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ClusterName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// API group and kind. The core group is the empty string. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupKind {
    /// API group; empty for the core group.
    pub group: Arc<str>,
    /// Kind, as in `Deployment`.
    pub kind: Arc<str>,
}

/// Kinds that servers offer in two groups for one and the same stored object: (old, new, kind).
const ALIASES: &[(&str, &str, &str)] = &[
    ("extensions", "networking.k8s.io", "Ingress"),
    ("extensions", "apps", "Deployment"),
    ("extensions", "apps", "DaemonSet"),
    ("extensions", "apps", "ReplicaSet"),
    ("extensions", "networking.k8s.io", "NetworkPolicy"),
    ("extensions", "policy", "PodSecurityPolicy"),
    ("", "events.k8s.io", "Event"),
];

impl GroupKind {
    /// Group and kind as given, aliases resolved ([`Self::canonical`]).
    #[must_use]
    pub fn new(group: &str, kind: &str) -> Self {
        Self { group: Self::canonical_group(group, kind).into(), kind: kind.into() }
    }

    /// The group under which lockstep keys this kind, where servers offer it in two.
    #[must_use]
    pub fn canonical_group<'a>(group: &'a str, kind: &str) -> &'a str {
        for (old, new, aliased) in ALIASES {
            if *old == group && *aliased == kind {
                return new;
            }
        }
        group
    }

    /// Every group in which a server may serve this kind: the canonical one first.
    #[must_use]
    pub fn groups(&self) -> Vec<&str> {
        let mut groups = vec![self.group.as_ref()];
        groups.extend(
            ALIASES
                .iter()
                .filter(|(_, new, kind)| *new == self.group.as_ref() && *kind == self.kind.as_ref())
                .map(|(old, _, _)| *old),
        );
        groups
    }

    /// Is it this group and kind?
    #[must_use]
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group.as_ref() == group && self.kind.as_ref() == kind
    }
}

impl fmt::Display for GroupKind {
    /// `Deployment.apps`, `ConfigMap`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// An object within one cluster. `namespace` is empty for cluster-scoped kinds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Group and kind.
    #[serde(flatten)]
    pub gk: GroupKind,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// A key out of its parts.
    #[must_use]
    pub fn new(gk: GroupKind, namespace: &str, name: &str) -> Self {
        Self { gk, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    /// `Deployment.apps shop/web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.gk, self.name)
        } else {
            write!(f, "{} {}/{}", self.gk, self.namespace, self.name)
        }
    }
}

/// `metadata.resourceVersion`: opaque, except for the rewind guard ([`Self::ordinal`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceVersion(Box<str>);

impl ResourceVersion {
    /// The value as the server sent it; empty when there is none.
    #[must_use]
    pub fn new(value: &str) -> Self {
        Self(value.into())
    }

    /// The value as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a number, for comparisons within one resource of one cluster only. Officially comparable
    /// since Kubernetes 1.35; before that we use it for the rewind guard and nothing else.
    #[must_use]
    pub fn ordinal(&self) -> Option<u64> {
        self.0.parse().ok()
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `metadata.uid`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(Box<str>);

impl Uid {
    /// The value as the server sent it.
    #[must_use]
    pub fn new(value: &str) -> Self {
        Self(value.into())
    }

    /// The value as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
