//! `GET /policies` and `GET /findings`: every policy with its standing at each target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use lockstep_engine::GroupKind;
use lockstep_engine::advice;
use lockstep_engine::interest::Condition;
use lockstep_engine::status::State as Standing;
use lockstep_policies::PolicySet;
use serde::Deserialize;

use super::clusters::{connected, paused};
use super::error::ApiError;
use super::kinds::did_you_mean;
use super::params::{Params, all_clusters, cluster_name};
use super::types::{Counts, Finding, Gap, List, PolicyReport, PolicyStatus, ReasonCount, TargetStatus};
use super::{Api, SessionFacts};
use crate::store::{ClusterRow, Phase, PolicyRow, Reader, StoreError, SummaryRow, WatchRow};

/// Query of `GET /policies`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    policy: Option<String>,
}

/// Every policy, or one.
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<ListQuery>,
) -> Result<Json<PolicyReport>, ApiError> {
    let shared = api.clone();
    api.0.readers.read(move |reader| report(&shared, reader, query.policy.as_deref())).await.map(Json)
}

/// What is wrong with policy files.
pub(super) async fn findings(State(api): State<Api>) -> Json<List<Finding>> {
    Json(List::new("FindingList", api.findings()))
}

/// A loaded policy.
#[derive(Clone, Debug)]
pub(super) struct PolicyFacts {
    name: String,
    file: String,
    source: String,
    targets: Vec<String>,
    kinds: Vec<String>,
    asked: Vec<(GroupKind, Condition)>,
    suspended: bool,
}

/// The policies of the last texts that were seen, with the digest of those texts.
#[derive(Default)]
pub(super) struct Cache(Mutex<Option<(blake3::Hash, Arc<Vec<PolicyFacts>>)>>);

/// The policies in force: those of the last good texts, which are in the store.
pub(super) fn facts(api: &Api, reader: &mut dyn Reader) -> Result<Arc<Vec<PolicyFacts>>, ApiError> {
    let files = reader.policy_files().map_err(|error| ApiError::store(&error))?;
    let mut hasher = blake3::Hasher::new();
    for file in &files {
        for part in [&file.path, &file.text] {
            hasher.update(&part.len().to_le_bytes()).update(part.as_bytes());
        }
    }
    let digest = hasher.finalize();
    let mut cache = api.0.policies.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((cached, facts)) = &*cache
        && *cached == digest
    {
        return Ok(facts.clone());
    }
    let texts = files.iter().map(|file| (file.path.as_str(), file.text.as_str()));
    let (set, _) = PolicySet::restore(texts);
    let facts = set.policies().map(|policy| PolicyFacts {
        name: policy.name.to_string(),
        file: policy.file.clone(),
        source: policy.spec.source_cluster.to_string(),
        targets: policy.spec.target_clusters.iter().map(ToString::to_string).collect(),
        kinds: policy.spec.resources.iter().map(|resource| resource.gk.to_string()).collect(),
        asked: policy
            .spec
            .resources
            .iter()
            .map(|resource| (resource.gk.clone(), resource.condition.clone()))
            .collect(),
        suspended: policy.spec.suspend,
    });
    let facts = Arc::new(facts.collect());
    *cache = Some((digest, Arc::clone(&facts)));
    Ok(facts)
}

fn report(api: &Api, reader: &mut dyn Reader, only: Option<&str>) -> Result<PolicyReport, ApiError> {
    let clusters = all_clusters(reader)?;
    let (loaded, sessions) = (facts(api, reader)?, (api.0.sessions)());
    let mut gather = || -> Result<_, StoreError> {
        Ok((reader.policies()?, reader.summary(only)?, reader.watches(None)?, paused(reader)?))
    };
    let (rows, summary, watches, all_paused) = gather().map_err(|error| ApiError::store(&error))?;
    let mut names: BTreeSet<&str> = loaded.iter().map(|facts| facts.name.as_str()).collect();
    names.extend(rows.iter().map(|row| row.name.as_str()));
    // Of a policy that was removed: its deletes may be held, or what it left may be let go of.
    let ends = |row: &&SummaryRow| row.state != Standing::Orphaned && !row.policy.is_empty();
    names.extend(summary.iter().filter(ends).map(|row| row.policy.as_str()));
    if let Some(name) = only
        && !names.contains(name)
    {
        let remedy = did_you_mean(name, names.iter().copied()).map_or_else(
            || "`lockstep status` lists them; a file with an error is named there too".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        return Err(ApiError::unknown_policy(format!("there is no policy `{name}`"), remedy));
    }
    let items = names
        .into_iter()
        .filter(|name| only.is_none_or(|only| only == *name))
        .map(|name| {
            let facts = loaded.iter().find(|facts| facts.name == name);
            let row = rows.iter().find(|row| row.name == name);
            let counted: Vec<&SummaryRow> = summary.iter().filter(|row| row.policy == name).collect();
            let seen = Seen { clusters: &clusters, watches: &watches, sessions: &sessions };
            policy(name, facts, row, &counted, &seen, all_paused)
        })
        .collect();
    Ok(PolicyReport {
        kind: "PolicyList".to_owned(),
        items,
        paused: all_paused,
        findings: api.findings(),
        problems: api.0.problems.all(),
    })
}

/// What is known of clusters and their watches, to tell what is not.
struct Seen<'a> {
    clusters: &'a [ClusterRow],
    watches: &'a [WatchRow],
    sessions: &'a [SessionFacts],
}

impl Seen<'_> {
    /// What a policy on these kinds cannot know of a cluster now: the figures are from before.
    fn gaps(&self, cluster: &str, kinds: &[String], gaps: &mut Vec<Gap>) {
        let gap = |kind: &str, reason: &str, message: String, since_ms| Gap {
            cluster: cluster.to_owned(),
            kind: kind.to_owned(),
            namespace: String::new(),
            reason: reason.to_owned(),
            message,
            since_ms,
        };
        let Some(row) = self.clusters.iter().find(|row| row.name.as_str() == cluster) else {
            let message = "no cluster of this name is registered".to_owned();
            return gaps.push(gap("", "NotConnected", message, None));
        };
        if !connected(row) {
            let message = "its agent is not connected".to_owned();
            return gaps.push(gap("", "NotConnected", message, row.disconnected_at));
        }
        for kind in kinds {
            let of_kind = |watch: &&WatchRow| watch.cluster == row.id && watch.gk.to_string() == *kind;
            let mut watches = self.watches.iter().filter(of_kind).peekable();
            if watches.peek().is_none() {
                gaps.push(gap(kind, "NotWatched", "it is not watched yet".to_owned(), row.connected_at));
            }
            for watch in watches.filter(|watch| is_gap(watch)) {
                let reason = match watch.reason.as_str() {
                    "" => format!("{:?}", watch.phase),
                    reason => reason.to_owned(),
                };
                let gap = gap(kind, &reason, watch.message.clone(), Some(watch.since));
                gaps.push(Gap { namespace: watch.namespace.clone(), ..gap });
            }
        }
        gaps.dedup();
    }

    /// What a policy asks for in its source, and the agent there does not let the hub read.
    fn refused(&self, source: &str, asked: &[(GroupKind, Condition)], gaps: &mut Vec<Gap>) {
        let session = self.sessions.iter().find(|session| session.cluster == source);
        let Some(reading) = session.and_then(|session| session.reading.as_ref()) else { return };
        let connected = self.clusters.iter().any(|row| row.name.as_str() == source && connected(row));
        for refused in asked.iter().filter_map(|(gk, condition)| reading.refused(gk, condition)) {
            gaps.extend(connected.then(|| Gap {
                cluster: source.to_owned(),
                kind: refused.gk.to_string(),
                namespace: String::new(),
                reason: "NotAccepted".to_owned(),
                message: refused.to_string(),
                since_ms: None,
            }));
        }
    }
}

/// A kind that was never served has no objects: that is known.
fn is_gap(watch: &WatchRow) -> bool {
    watch.phase != Phase::Live && !(watch.phase == Phase::Pending && watch.reason == "NotServed")
}

fn policy(
    name: &str,
    facts: Option<&PolicyFacts>,
    row: Option<&PolicyRow>,
    counted: &[&SummaryRow],
    seen: &Seen<'_>,
    all_paused: bool,
) -> PolicyStatus {
    let clusters = seen.clusters;
    let generation = row.map_or(0, |row| row.generation);
    let planned = row.is_some_and(|row| row.planned);
    let policy_paused = row.is_some_and(|row| row.paused) || facts.is_some_and(|facts| facts.suspended);
    let mut targets: BTreeMap<String, Vec<&SummaryRow>> = BTreeMap::new();
    for target in facts.iter().flat_map(|facts| &facts.targets) {
        targets.entry(target.clone()).or_default();
    }
    for row in counted {
        targets.entry(cluster_name(clusters, row.target)).or_default().push(row);
    }
    let targets = targets
        .into_iter()
        .map(|(target, rows)| {
            let cluster = clusters.iter().find(|cluster| cluster.name.as_str() == target);
            let paused = all_paused || policy_paused || cluster.is_some_and(|cluster| cluster.paused);
            let mut unknown = Vec::new();
            if let Some(facts) = facts {
                seen.gaps(&facts.source, &facts.kinds, &mut unknown);
                seen.refused(&facts.source, &facts.asked, &mut unknown);
                seen.gaps(&target, &facts.kinds, &mut unknown);
            }
            let connected = cluster.is_some_and(connected);
            TargetStatus { unknown, ..target_status(name, target, connected, paused, &rows) }
        })
        .collect();
    PolicyStatus {
        name: name.to_owned(),
        file: facts.map(|facts| facts.file.clone()).unwrap_or_default(),
        source: facts.map(|facts| facts.source.clone()).unwrap_or_default(),
        kinds: facts.map(|facts| facts.kinds.clone()).unwrap_or_default(),
        paused: policy_paused,
        generation,
        // Until everything was planned with the newest, only the one before it is certain.
        observed_generation: if planned { generation } else { generation.saturating_sub(1) },
        targets,
    }
}

fn target_status(
    policy: &str,
    target: String,
    connected: bool,
    paused: bool,
    rows: &[&SummaryRow],
) -> TargetStatus {
    let mut counts = Counts::default();
    let mut reasons = Vec::new();
    for row in rows {
        counts.add(row.state, row.count);
        if !matches!(row.state, Standing::InStep | Standing::Orphaned) {
            let (state, reason, count) = (row.state, row.reason.clone(), row.count);
            let meaning = advice::class_of(state, &reason).map(|class| class.advice().means.to_owned());
            let remedy = advice::remedy(state, &reason, policy, &target);
            reasons.push(ReasonCount { state, reason, count, since_ms: row.oldest_since, meaning, remedy });
        }
    }
    reasons.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
    TargetStatus {
        target,
        connected,
        paused,
        counts,
        worst_lag_ms: rows.iter().filter_map(|row| row.max_lag_ms).max(),
        behind_since_ms: reasons.iter().map(|reason| reason.since_ms).min(),
        reasons,
        unknown: Vec::new(),
    }
}
