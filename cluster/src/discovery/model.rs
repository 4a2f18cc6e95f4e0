//! The shape of what a server serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_engine::GroupKind;

use crate::resource::Resource;

/// One group and version that serves a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedVersion {
    /// API group as served; differs from the kind's canonical group for aliases (Ingress in
    /// `extensions`).
    pub group: Arc<str>,
    /// As in `v1`.
    pub version: Arc<str>,
    /// Plural name in paths.
    pub plural: Arc<str>,
    /// As in `list`, `watch`, `patch`.
    pub verbs: Vec<Arc<str>>,
}

/// A kind that a server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedKind {
    /// Canonical group, and kind.
    pub gk: GroupKind,
    /// The server's preferred one first; those of the canonical group before those of aliases.
    pub versions: Vec<ServedVersion>,
    /// Plural name, of the preferred version.
    pub plural: Arc<str>,
    /// Singular name; lower-case kind where the server gives none.
    pub singular: Arc<str>,
    /// As in `deploy`.
    pub short_names: Vec<Arc<str>>,
    /// Do its objects live in namespaces?
    pub namespaced: bool,
    /// Verbs of the preferred version.
    pub verbs: Vec<Arc<str>>,
    /// As in `all`.
    pub categories: Vec<Arc<str>>,
}

impl ServedKind {
    /// Does the preferred version offer this verb?
    #[must_use]
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v.as_ref() == verb)
    }

    /// The preferred version as something to build paths from.
    #[must_use]
    pub fn preferred(&self) -> Option<Resource> {
        self.versions.first().map(|version| self.at(version))
    }

    /// A given version (as in `v1`), of the canonical group if it has it.
    #[must_use]
    pub fn version(&self, version: &str) -> Option<Resource> {
        self.versions.iter().find(|served| served.version.as_ref() == version).map(|served| self.at(served))
    }

    /// A given `apiVersion` (as in `apps/v1`).
    #[must_use]
    pub fn api_version(&self, api_version: &str) -> Option<Resource> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let mut served = self.versions.iter();
        served
            .find(|s| s.group.as_ref() == group && s.version.as_ref() == version)
            .map(|served| self.at(served))
    }

    fn at(&self, served: &ServedVersion) -> Resource {
        Resource {
            group: Arc::clone(&served.group),
            version: Arc::clone(&served.version),
            kind: Arc::clone(&self.gk.kind),
            plural: Arc::clone(&served.plural),
            namespaced: self.namespaced,
        }
    }
}

/// A group and version that could not be asked: its kinds are unknown, not gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartialFailure {
    /// API group.
    pub group: String,
    /// API version; empty when the whole group is unknown.
    pub version: String,
    /// Why.
    pub reason: String,
}

/// All kinds of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// By group and kind.
    pub kinds: BTreeMap<GroupKind, ServedKind>,
    /// What is unknown.
    pub partial: Vec<PartialFailure>,
}

/// Is a kind served?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves<'a> {
    /// Yes.
    Yes(&'a ServedKind),
    /// No, for certain.
    No,
    /// Its group could not be asked completely.
    Unknown,
}

impl Served {
    /// A kind by its canonical group and name.
    #[must_use]
    pub fn get(&self, gk: &GroupKind) -> Option<&ServedKind> {
        self.kinds.get(gk)
    }

    /// Is this kind served? Tells `No` from `Unknown`.
    #[must_use]
    pub fn serves(&self, gk: &GroupKind) -> Serves<'_> {
        match self.get(gk) {
            Some(kind) => Serves::Yes(kind),
            None if self.is_unknown(gk) => Serves::Unknown,
            None => Serves::No,
        }
    }

    /// Could the kind be served by a group that could not be asked?
    #[must_use]
    pub fn is_unknown(&self, gk: &GroupKind) -> bool {
        let groups = gk.groups();
        self.partial.iter().any(|failed| groups.contains(&failed.group.as_str()))
    }

    /// Is anything different? Reasons of failures do not count, or a flapping text would.
    #[must_use]
    pub fn changed(&self, earlier: &Self) -> bool {
        let unknown = |served: &Self| -> Vec<(String, String)> {
            served.partial.iter().map(|failed| (failed.group.clone(), failed.version.clone())).collect()
        };
        self.kinds != earlier.kinds || unknown(self) != unknown(earlier)
    }

    /// A kind as people write it: plural, singular, short name or kind, with or without `.group`.
    /// Several, when it is ambiguous; core and built-in groups first.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<&ServedKind> {
        let wanted = text.to_ascii_lowercase();
        let (name, group) = wanted.split_once('.').map_or((wanted.as_str(), None), |(n, g)| (n, Some(g)));
        let is = |other: &Arc<str>| other.eq_ignore_ascii_case(name);
        let mut found: Vec<_> = self
            .kinds
            .values()
            .filter(|kind| group.is_none_or(|group| kind.versions.iter().any(|v| v.group.as_ref() == group)))
            .filter(|kind| {
                is(&kind.gk.kind) || is(&kind.plural) || is(&kind.singular) || kind.short_names.iter().any(is)
            })
            .collect();
        found.sort_by_key(|kind| {
            (kind.gk.group.contains('.') && !kind.gk.group.ends_with(".k8s.io"), kind.gk.clone())
        });
        found
    }

    /// Takes one version of a kind, as discovery lists it. Versions come in the server's order of
    /// preference.
    pub(super) fn add(&mut self, group: &str, version: &str, listed: Listed) {
        let gk = GroupKind::new(group, &listed.kind);
        let alias = gk.group.as_ref() != group;
        let served = ServedVersion {
            group: group.into(),
            version: version.into(),
            plural: listed.plural.as_str().into(),
            verbs: shared(listed.verbs),
        };
        let singular = if listed.singular.is_empty() { listed.kind.to_lowercase() } else { listed.singular };
        let Some(known) = self.kinds.get_mut(&gk) else {
            let kind = ServedKind {
                gk: gk.clone(),
                plural: Arc::clone(&served.plural),
                singular: singular.into(),
                short_names: shared(listed.short_names),
                namespaced: listed.namespaced,
                verbs: served.verbs.clone(),
                categories: shared(listed.categories),
                versions: vec![served],
            };
            self.kinds.insert(gk, kind);
            return;
        };
        if known.versions.iter().any(|v| v.group == served.group && v.version == served.version) {
            // A second resource of the same kind and version: the first listed one counts.
            return;
        }
        let first_alias = known.versions.iter().position(|v| v.group != known.gk.group);
        match first_alias.filter(|_| !alias) {
            Some(at) => known.versions.insert(at, served),
            None => known.versions.push(served),
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (gk, mut kind) in other.kinds {
            match self.kinds.get_mut(&gk) {
                None => {
                    self.kinds.insert(gk, kind);
                }
                Some(known) => {
                    known.versions.append(&mut kind.versions);
                    known.versions.sort_by_key(|v| v.group != known.gk.group);
                }
            }
        }
        self.partial.extend(other.partial);
    }

    pub(super) fn finish(&mut self) {
        self.partial.sort();
        self.partial.dedup();
        for kind in self.kinds.values_mut() {
            if let Some(first) = kind.versions.first() {
                kind.plural = Arc::clone(&first.plural);
                kind.verbs.clone_from(&first.verbs);
            }
        }
    }
}

/// A resource as either form of discovery lists it.
#[derive(Debug, Clone, Default)]
pub(super) struct Listed {
    pub(super) kind: String,
    pub(super) plural: String,
    pub(super) singular: String,
    pub(super) namespaced: bool,
    pub(super) verbs: Vec<String>,
    pub(super) short_names: Vec<String>,
    pub(super) categories: Vec<String>,
}

fn shared(texts: Vec<String>) -> Vec<Arc<str>> {
    texts.into_iter().map(Into::into).collect()
}
