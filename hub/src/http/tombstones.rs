//! `GET /tombstones` and `GET /tombstones/{id}`: what was deleted, and the body that was kept.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use lockstep_engine::ClusterId;
use serde::Deserialize;
use serde_json::Value;

use super::auth::Caller;
use super::error::ApiError;
use super::groups::{self, Groups, group_id};
use super::params::{Params, all_clusters, cluster_id, cluster_name};
use super::types::{List, TombstoneItem};
use super::{Api, kinds, selector};
use crate::redact;
use crate::store::{
    Cause, CauseKind, ClusterRow, RemovedCluster, StoreError, TombstoneFilter, TombstoneRow, removed_clusters,
};

/// Items of a list, unless asked for otherwise.
const LIMIT: usize = 100;
/// Items of a list at most.
const LIMIT_MAX: usize = 1000;

/// Query of `GET /tombstones`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TombstoneQuery {
    cluster: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    /// With `*` or `?` in it: a pattern.
    name: Option<String>,
    /// Observed, Inferred, Lockstep, Rewound or ClusterRemoved.
    cause: Option<String>,
    /// Deleted by lockstep for this policy.
    policy: Option<String>,
    /// As kubectl takes it.
    selector: Option<String>,
    /// As in g12.
    group: Option<String>,
    /// A user.
    deleter: Option<String>,
    /// Words.
    text: Option<String>,
    /// Deleted at or after, ms since the epoch.
    since: Option<i64>,
    /// Deleted before, ms since the epoch.
    until: Option<i64>,
    /// Also images of deletes that were not carried out.
    #[serde(default)]
    undeleted: bool,
    limit: Option<usize>,
}

/// Query of `GET /tombstones/{id}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowQuery {
    #[serde(default)]
    secrets: bool,
}

/// The newest first, without bodies.
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<TombstoneQuery>,
) -> Result<Json<List<TombstoneItem>>, ApiError> {
    let shared = api.clone();
    let selector = selector::parse(query.selector.as_deref().unwrap_or_default())
        .map_err(|bad| ApiError::bad_request(bad.to_string(), "see `lockstep tombstones list --help`"))?;
    if query.text.as_deref().is_some_and(|text| !text.contains(char::is_alphanumeric)) {
        let message = "the text to look for holds no letter and no digit";
        return Err(ApiError::bad_request(message, "give a word, or the beginning of one as in `pass*`"));
    }
    let act = query.group.as_deref().map(groups::act_id).transpose()?;
    let page = api
        .0
        .readers
        .read(move |reader| {
            let store = |error: StoreError| ApiError::store(&error);
            let clusters = all_clusters(reader)?;
            let removed = removed_clusters(reader).map_err(store)?;
            let gk = match &query.kind {
                None => None,
                Some(kind) => {
                    let watches = reader.watches(None).map_err(store)?;
                    Some(kinds::resolve(&shared.0.kinds, &clusters, &watches, kind)?.gk)
                }
            };
            let filter = TombstoneFilter {
                cluster: wanted(&clusters, &removed, query.cluster.as_deref())?,
                gk,
                namespace: query.namespace,
                name: query.name.clone().filter(|name| !is_pattern(name)),
                name_glob: query.name.filter(|name| is_pattern(name)),
                cause: query.cause.as_deref().map(cause_kind).transpose()?,
                policy: query.policy,
                since: query.since,
                until: query.until,
                act,
                selector,
                text: query.text,
                deleter: query.deleter,
                undeleted: query.undeleted,
            };
            let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
            let mut rows = reader.tombstones(&filter, limit + 1).map_err(store)?;
            let more = rows.len() > limit;
            rows.truncate(limit);
            let groups = groups::of(reader, &rows)?;
            let items: Result<_, StoreError> = rows
                .into_iter()
                .map(|row| {
                    let hold = if row.facts.held { reader.hold(row.id)? } else { None };
                    Ok(TombstoneItem { hold, ..item(row, &clusters, &removed, &groups) })
                })
                .collect();
            let items = items.map_err(store)?;
            let mut page = List::new("TombstoneList", items);
            if more {
                page.notes
                    .push(format!("only the newest {limit} are shown: narrow it down, or raise the limit"));
            }
            Ok(page)
        })
        .await?;
    Ok(Json(page))
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

fn cause_kind(cause: &str) -> Result<CauseKind, ApiError> {
    let found = CauseKind::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(cause));
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        ApiError::bad_request(
            "there is no such cause",
            "causes are Observed, Inferred, Lockstep, Rewound, ClusterRemoved and Restore",
        )
    })
}

/// One, with its body: from the outbox, or from the archive.
pub(super) async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Params(query): Params<ShowQuery>,
) -> Result<Json<TombstoneItem>, ApiError> {
    let id: i64 = id.parse().map_err(|_| {
        ApiError::bad_request(
            "a tombstone is named by its number",
            "`lockstep tombstones list` shows the numbers",
        )
    })?;
    if query.secrets {
        caller.authorised()?;
    }
    let (row, hold, clusters, removed, groups) = api
        .0
        .readers
        .read(move |reader| {
            let row = reader.tombstone(id).map_err(|error| ApiError::store(&error))?;
            let row = row.ok_or_else(|| ApiError::no_tombstone(id))?;
            let removed = removed_clusters(reader).map_err(|error| ApiError::store(&error))?;
            let hold = reader.hold(id).map_err(|error| ApiError::store(&error))?;
            let groups = groups::of(reader, std::slice::from_ref(&row))?;
            Ok((row, hold, all_clusters(reader)?, removed, groups))
        })
        .await?;
    let body = body_of(&api, &row, query.secrets).await?;
    Ok(Json(TombstoneItem { body, hold, ..item(row, &clusters, &removed, &groups) }))
}

/// The body that was kept, from the outbox or from the archive; of a Secret with digests for values, unless
/// they are asked for.
pub(super) async fn body_of(api: &Api, row: &TombstoneRow, secrets: bool) -> Result<Option<Value>, ApiError> {
    let mut body: Option<Value> = match (&row.body, &row.path) {
        (Some(bytes), _) => {
            let parsed = serde_json::from_slice(bytes);
            Some(parsed.map_err(|_| ApiError::internal("the body in the outbox is not JSON"))?)
        }
        (None, Some(path)) => {
            Some(api.0.bodies.body(path).await.map_err(|why| ApiError::archive(row.id, &why))?)
        }
        (None, None) => None,
    };
    if let Some(body) = &mut body
        && !secrets
        && redact::is_secret(&row.key.gk.group, &row.key.gk.kind)
    {
        redact::redact(body, &api.0.digest_key);
    }
    Ok(body)
}

/// A cluster that is a member, else the last that was removed under that name.
pub(super) fn wanted(
    clusters: &[ClusterRow],
    removed: &[RemovedCluster],
    name: Option<&str>,
) -> Result<Option<ClusterId>, ApiError> {
    cluster_id(clusters, name).or_else(|unknown| {
        let former = removed.iter().rfind(|removed| Some(removed.name.as_str()) == name);
        former.map(|former| Some(former.id)).ok_or(unknown)
    })
}

/// Its name, also where it was removed since.
pub(super) fn name_of(clusters: &[ClusterRow], removed: &[RemovedCluster], id: ClusterId) -> String {
    let former = removed.iter().find(|removed| removed.id == id);
    former.map_or_else(|| cluster_name(clusters, id), |former| former.name.to_string())
}

pub(super) fn item(
    row: TombstoneRow,
    clusters: &[ClusterRow],
    removed: &[RemovedCluster],
    groups: &Groups,
) -> TombstoneItem {
    let (cause, policy) = match row.cause {
        Cause::Observed => ("Observed", None),
        Cause::Inferred => ("Inferred", None),
        Cause::Lockstep { policy } => ("Lockstep", Some(policy)),
        Cause::Rewound => ("Rewound", None),
        Cause::ClusterRemoved => ("ClusterRemoved", None),
        Cause::Restore => ("Restore", None),
    };
    TombstoneItem {
        id: row.id,
        cluster: name_of(clusters, removed, row.cluster),
        kind: row.key.gk.to_string(),
        namespace: row.key.namespace.to_string(),
        name: row.key.name.to_string(),
        uid: row.uid.to_string(),
        resource_version: row.resource_version.to_string(),
        api_version: row.api_version,
        cause: cause.to_owned(),
        policy,
        group: row.facts.act.filter(|act| groups.contains(act)).map(group_id),
        labels: row.facts.labels,
        owners: row.facts.owners,
        deleted_at_ms: row.deleted_at,
        last_seen_ms: row.last_seen,
        known_until_ms: row.known_until,
        deleted: row.deleted,
        path: row.path,
        hold: None,
        deleter: row.facts.deleter,
        body: None,
    }
}
