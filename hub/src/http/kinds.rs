//! Kinds as people type them: plural, singular, short name, `kind.group`, in any case; resolved
//! against what the member clusters said that they serve.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use lockstep_engine::GroupKind;
use serde::Deserialize;

use super::error::ApiError;
use super::params::cluster_name;
use crate::store::{ClusterRow, WatchRow};

/// Different answers of discovery that are kept parsed. Most clusters of a fleet give one of few.
const CACHED: usize = 64;

/// One kind as a cluster told it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Served {
    #[serde(default)]
    group: String,
    kind: String,
    #[serde(default)]
    plural: String,
    #[serde(default)]
    singular: String,
    #[serde(default, alias = "shortNames")]
    short_names: Vec<String>,
    #[serde(default)]
    namespaced: bool,
}

/// Parsed answers of discovery, by digest.
#[derive(Default)]
pub(super) struct Cache(Mutex<HashMap<[u8; 32], Arc<Vec<Served>>>>);

impl Cache {
    fn parse(&self, json: &[u8]) -> Arc<Vec<Served>> {
        if json.is_empty() {
            return Arc::default();
        }
        let digest = *blake3::hash(json).as_bytes();
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cache.get(&digest) {
            return found.clone();
        }
        let parsed = Arc::new(serde_json::from_slice::<Vec<Served>>(json).unwrap_or_default());
        if cache.len() >= CACHED {
            cache.clear();
        }
        cache.insert(digest, parsed.clone());
        parsed
    }
}

/// A kind that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) gk: GroupKind,
    pub(super) namespaced: bool,
    /// Names of the clusters that serve it.
    pub(super) served_by: Vec<String>,
    /// Further kinds that go by the same name in other groups.
    pub(super) also: Vec<GroupKind>,
}

/// Finds the kind that a person means.
pub(super) fn resolve(
    cache: &Cache,
    clusters: &[ClusterRow],
    watches: &[WatchRow],
    typed: &str,
) -> Result<Kind, ApiError> {
    let wanted = typed.trim().to_ascii_lowercase();
    let (name, group) = match wanted.split_once('.') {
        Some((name, group)) => (name, Some(group)),
        None => (wanted.as_str(), None),
    };
    let mut found: BTreeMap<GroupKind, (bool, Vec<String>)> = BTreeMap::new();
    let mut names = BTreeSet::new();
    let mut told = false;
    for cluster in clusters {
        let served = cache.parse(&cluster.served);
        told |= !served.is_empty();
        for kind in served.iter() {
            names.extend([kind.plural.to_ascii_lowercase(), kind.kind.to_ascii_lowercase()]);
            if !goes_by(kind, name) {
                continue;
            }
            let gk = GroupKind::new(&kind.group, &kind.kind);
            if group.is_none_or(|group| group_matches(group, &kind.group) || group_matches(group, &gk.group))
            {
                let entry = found.entry(gk).or_insert((kind.namespaced, Vec::new()));
                if entry.1.last().is_none_or(|last| last != cluster.name.as_str()) {
                    entry.1.push(cluster.name.to_string());
                }
            }
        }
    }
    // A watched kind whose definition is gone everywhere still has state worth showing.
    for watch in watches {
        let kind = watch.gk.kind.to_ascii_lowercase();
        if (name == kind || name == format!("{kind}s"))
            && group.is_none_or(|group| group_matches(group, &watch.gk.group))
        {
            found.entry(watch.gk.clone()).or_insert((true, Vec::new()));
        }
    }
    let mut ranked: Vec<GroupKind> = found.keys().cloned().collect();
    ranked.sort_by_key(|gk| (group.is_some_and(|g| g != gk.group.as_ref()), rank(&gk.group), gk.clone()));
    let Some(gk) = ranked.first().cloned() else { return Err(unknown(typed, &names, told)) };
    let (namespaced, served_by) = found.remove(&gk).unwrap_or_default();
    Ok(Kind { gk, namespaced, served_by, also: ranked.split_off(1) })
}

fn goes_by(kind: &Served, name: &str) -> bool {
    kind.plural.eq_ignore_ascii_case(name)
        || kind.singular.eq_ignore_ascii_case(name)
        || kind.kind.eq_ignore_ascii_case(name)
        || kind.short_names.iter().any(|short| short.eq_ignore_ascii_case(name))
}

/// Exact, a prefix of dotted parts, behind a version (`deployments.v1.apps`), or `core`.
fn group_matches(typed: &str, group: &str) -> bool {
    if typed == group || (group.is_empty() && (typed == "core" || typed == "v1")) {
        return true;
    }
    if group.strip_prefix(typed).is_some_and(|rest| rest.starts_with('.')) {
        return true;
    }
    typed.split_once('.').is_some_and(|(version, rest)| is_version(version) && rest == group)
}

fn is_version(text: &str) -> bool {
    text.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Core first, then Kubernetes' own groups, then the rest: as kubectl prefers them.
fn rank(group: &str) -> u8 {
    match group {
        "" => 0,
        "metrics.k8s.io" => 3,
        own if !own.contains('.') || own.ends_with(".k8s.io") => 1,
        _ => 2,
    }
}

fn unknown(typed: &str, names: &BTreeSet<String>, told: bool) -> ApiError {
    if !told {
        return ApiError::unknown_kind(
            format!("kind `{typed}` is not known: no cluster has told yet what it serves"),
            "see `lockstep clusters`: an agent must have connected once".to_owned(),
        );
    }
    let name = typed.split('.').next().unwrap_or(typed);
    let remedy = did_you_mean(name, names.iter().map(String::as_str)).map_or_else(
        || "write it as kubectl does: plural, singular, short name or kind.group".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    ApiError::unknown_kind(format!("no cluster serves a kind `{typed}`"), remedy)
}

/// The clusters that watch a kind; an error when none does.
pub(super) fn watched_in(
    kind: &Kind,
    clusters: &[ClusterRow],
    watches: &[WatchRow],
) -> Result<Vec<String>, ApiError> {
    let names: BTreeSet<String> = watches
        .iter()
        .filter(|watch| watch.gk == kind.gk)
        .map(|watch| cluster_name(clusters, watch.cluster))
        .collect();
    if names.is_empty() {
        return Err(ApiError::not_watched(
            format!("{} is not watched in any cluster (served by {})", kind.gk, kind.served_by.join(", ")),
            format!("agents watch what policies name: add a rule with kind: {}", kind.gk.kind),
        ));
    }
    Ok(names.into_iter().collect())
}

/// The nearest of some names, when one is near enough to be meant.
pub(super) fn did_you_mean<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase();
    let allowed = (typed.chars().count() / 3).clamp(1, 3);
    names
        .map(|name| (distance(&typed, &name.to_ascii_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Edit distance with swaps of neighbours counted as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        let names = ["deployments", "daemonsets", "pods"];
        assert_eq!(did_you_mean("deploymnets", names.into_iter()), Some("deployments"));
        assert_eq!(did_you_mean("pod", names.into_iter()), Some("pods"));
        assert_eq!(did_you_mean("redis", names.into_iter()), None);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("ab", "ba"), 1);
    }

    #[test]
    fn groups_match_as_kubectl_takes_them() {
        for (typed, group) in [
            ("apps", "apps"),
            ("networking", "networking.k8s.io"),
            ("v1.apps", "apps"),
            ("core", ""),
            ("v1", ""),
        ] {
            assert!(group_matches(typed, group), "{typed} {group}");
        }
        assert!(!group_matches("app", "apps"));
        assert!(!group_matches("v1.app", "apps"));
    }
}
