//! `GET /clusters` and `GET /hub`: sessions, watches, checkpoints, clocks, versions.

use axum::Json;
use axum::extract;
use lockstep_engine::status::State;
use serde::Deserialize;

use super::error::ApiError;
use super::params::{Params, all_clusters, find_cluster};
use super::types::{ClusterStatus, HubFacts, List, Problem, RewoundStatus, WatchStatus};
use super::{Api, SessionFacts, policies};
use crate::owner::now;
use crate::store::sqlite::{REBUILT, Rebuilt, WAS_REBUILT, kept_aside};
use crate::store::{ClusterRow, Reader, Rewound, StoreError, WatchRow};

/// Name of the store's setting that pauses everything.
const PAUSED: &str = "paused";
/// Name of the store's setting that identifies the hub.
const HUB_ID: &str = "hub_id";

/// Query of `GET /clusters`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    cluster: Option<String>,
}

/// Every cluster, or one.
pub(super) async fn list(
    extract::State(api): extract::State<Api>,
    Params(query): Params<ListQuery>,
) -> Result<Json<List<ClusterStatus>>, ApiError> {
    let (sessions, problems) = ((api.0.sessions)(), api.0.problems.all());
    let open = problems.iter().all(|problem| !problem.stops_work);
    let items = api
        .0
        .readers
        .read(move |reader| {
            let mut clusters = all_clusters(reader)?;
            if let Some(name) = &query.cluster {
                let id = find_cluster(&clusters, name)?.id;
                clusters.retain(|row| row.id == id);
            }
            statuses(reader, &clusters, &sessions, open).map_err(|error| ApiError::store(&error))
        })
        .await?;
    let notes = problems.iter().map(ToString::to_string).collect();
    Ok(Json(List { notes, ..List::new("ClusterList", items) }))
}

/// The hub itself.
pub(super) async fn hub(extract::State(api): extract::State<Api>) -> Result<Json<HubFacts>, ApiError> {
    let (sessions, findings, shared) = ((api.0.sessions)(), api.findings(), api.clone());
    let problems = api.0.problems.all();
    let facts = api
        .0
        .readers
        .read(move |reader| {
            let clusters = all_clusters(reader)?;
            let policies = policies::facts(&shared, reader)?.len();
            let mut gather = || -> Result<HubFacts, StoreError> {
                Ok(HubFacts {
                    kind: "HubFacts".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    protocol: lockstep_wire::PROTOCOL,
                    hub_id: reader.meta(HUB_ID)?.unwrap_or_default(),
                    clock_ms: now(),
                    started_at_ms: shared.0.started_at,
                    paused: paused(reader)?,
                    outbox: reader.waiting()?.count,
                    policies: u64::try_from(policies).unwrap_or(u64::MAX),
                    findings: findings.clone(),
                    clusters: statuses(reader, &clusters, &sessions, problems.iter().all(|p| !p.stops_work))?,
                    problems: [problems.clone(), aside(reader, &shared)?].concat(),
                })
            };
            gather().map_err(|error| ApiError::store(&error))
        })
        .await?;
    Ok(Json(facts))
}

/// Is everything paused?
pub(super) fn paused(reader: &mut dyn Reader) -> Result<bool, StoreError> {
    Ok(reader.meta(PAUSED)?.is_some_and(|value| value != "false"))
}

/// Damaged stores that are kept aside, until somebody takes them away.
fn aside(reader: &mut dyn Reader, api: &Api) -> Result<Vec<Problem>, StoreError> {
    let kept = kept_aside(&api.0.database);
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    let told: Option<Rebuilt> = reader.meta(REBUILT)?.and_then(|text| serde_json::from_str(&text).ok());
    let problems = kept.into_iter().map(|file| {
        let told = told.as_ref().filter(|told| told.aside == file);
        let taken = told.map_or_else(String::new, |Rebuilt { why, salvaged, .. }| {
            format!(
                " ({why}); {} clusters and {} tombstones were taken over, {} places could not be read",
                salvaged.clusters, salvaged.tombstones, salvaged.unreadable
            )
        });
        Problem {
            code: WAS_REBUILT.code.to_owned(),
            message: format!("a state store that was found damaged is kept as {file}{taken}"),
            remedy: "check the disk; remove the file, with its -wal and -shm, when nobody needs it"
                .to_owned(),
            since_ms: told.map_or(0, |told| told.at),
            stops_work: false,
        }
    });
    Ok(problems.collect())
}

/// Is a session of this cluster open?
pub(super) fn connected(row: &ClusterRow) -> bool {
    row.connected_at.is_some() && row.disconnected_at.is_none()
}

fn statuses(
    reader: &mut dyn Reader,
    rows: &[ClusterRow],
    sessions: &[SessionFacts],
    open: bool,
) -> Result<Vec<ClusterStatus>, StoreError> {
    let mut items = Vec::with_capacity(rows.len());
    let summary = reader.summary(None)?;
    for row in rows {
        let watches = reader.watches(Some(row.id))?;
        let waiting = summary.iter().filter(|counts| counts.target == row.id && waits(counts.state));
        let waiting = waiting.map(|counts| counts.count).sum();
        let rewound = match &row.rewound {
            None => None,
            Some(Rewound { at, how }) => {
                Some(RewoundStatus { at_ms: *at, how: how.clone(), missing: reader.unseen_totals(row.id)?.0 })
            }
        };
        let objects = reader.object_count(row.id)?;
        items.push(ClusterStatus { waiting, rewound, ..status(row, watches, objects, sessions, open) });
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(items)
}

fn status(
    row: &ClusterRow,
    watches: Vec<WatchRow>,
    objects: u64,
    sessions: &[SessionFacts],
    open: bool,
) -> ClusterStatus {
    let session = sessions.iter().find(|session| session.cluster == row.name.as_str());
    // A hub that takes nothing new has ended its sessions, and could not write that down.
    let connected = open && connected(row);
    ClusterStatus {
        name: row.name.to_string(),
        uid: row.uid.as_ref().map(ToString::to_string),
        connected,
        since_ms: if connected { row.connected_at } else { row.disconnected_at },
        server_version: row.server_version.clone(),
        agent_version: row.agent_version.clone(),
        protocol: session.and_then(|session| session.protocol),
        accepts: row.accepts.clone(),
        not_accepted: session.map(|session| session.not_accepted.clone()).unwrap_or_default(),
        paused: row.paused,
        objects,
        clock_skew_ms: session.and_then(|session| session.clock_skew_ms),
        queued_items: session.and_then(|session| session.queued_items),
        waiting: 0,
        rewound: None,
        problem: session.and_then(|session| session.problem.clone()),
        watches: watches.into_iter().map(|watch| watch_status(watch, connected)).collect(),
    }
}

/// Is there something still to be done or to be learned?
fn waits(state: State) -> bool {
    matches!(state, State::Pending | State::Unknown | State::Failed)
}

/// Only a connected session's phase counts: without one nobody knows.
fn watch_status(row: WatchRow, connected: bool) -> WatchStatus {
    let phase = if connected { format!("{:?}", row.phase) } else { "Unknown".to_owned() };
    WatchStatus {
        kind: row.gk.to_string(),
        namespace: row.namespace,
        phase,
        reason: row.reason,
        message: row.message,
        api_version: row.api_version,
        epoch: row.epoch,
        checkpoint: row.checkpoint.to_string(),
        since_ms: row.since,
        updated_at_ms: row.updated_at,
    }
}
