//! `GET /groups` and `GET /groups/{id}`: what was deleted together, and what is in it.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use lockstep_engine::acts::ActKind;
use serde::Deserialize;

use super::Api;
use super::error::ApiError;
use super::params::{Params, all_clusters};
use super::tombstones::{item, name_of, wanted};
use super::types::{GroupItem, List, TombstoneItem};
use crate::store::{
    ActFilter, ActRow, ClusterRow, Reader, RemovedCluster, StoreError, TombstoneFilter, TombstoneRow,
    removed_clusters,
};

/// Items of a list, unless asked for otherwise.
const LIMIT: usize = 100;
/// Items of a list at most.
const LIMIT_MAX: usize = 1_000;
/// Members of a group that are shown at most.
const MEMBERS_MAX: usize = 20_000;

/// Acts that are groups.
pub(super) type Groups = BTreeSet<i64>;

/// Query of `GET /groups`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupQuery {
    cluster: Option<String>,
    /// Namespace, Definition, Owner or Lockstep.
    kind: Option<String>,
    /// That went on at or after, ms since the epoch.
    since: Option<i64>,
    limit: Option<usize>,
}

/// As it is written everywhere.
pub(super) fn group_id(act: i64) -> String {
    format!("g{act}")
}

/// Reads `g12`.
pub(super) fn act_id(text: &str) -> Result<i64, ApiError> {
    text.strip_prefix('g').and_then(|number| number.parse().ok()).ok_or_else(|| {
        ApiError::bad_request(
            format!("`{text}` is not a group (as in g12)"),
            "`lockstep tombstones groups` shows them",
        )
    })
}

/// Which acts of these tombstones are groups: one alone is none.
pub(super) fn of(reader: &mut dyn Reader, rows: &[TombstoneRow]) -> Result<Groups, ApiError> {
    let mut groups = Groups::new();
    let acts: BTreeSet<i64> = rows.iter().filter_map(|row| row.facts.act).collect();
    for act in acts {
        let row = reader.act(act).map_err(|error| ApiError::store(&error))?;
        groups.extend(row.filter(|row| row.members > 1).map(|row| row.id));
    }
    Ok(groups)
}

/// The newest first.
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<GroupQuery>,
) -> Result<Json<List<GroupItem>>, ApiError> {
    let page = api
        .0
        .readers
        .read(move |reader| {
            let store = |error: StoreError| ApiError::store(&error);
            let (clusters, removed) = (all_clusters(reader)?, removed_clusters(reader).map_err(store)?);
            let filter = ActFilter {
                cluster: wanted(&clusters, &removed, query.cluster.as_deref())?,
                kind: query.kind.as_deref().map(act_kind).transpose()?,
                since: query.since,
            };
            let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
            let mut rows = reader.acts(&filter, limit + 1).map_err(store)?;
            let more = rows.len() > limit;
            rows.truncate(limit);
            let mut items = Vec::new();
            for row in rows {
                items.push(group(reader, row, &clusters, &removed)?);
            }
            let mut page = List::new("GroupList", items);
            if more {
                page.notes
                    .push(format!("only the newest {limit} are shown: narrow it down, or raise the limit"));
            }
            Ok(page)
        })
        .await?;
    Ok(Json(page))
}

/// What is in one.
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<List<TombstoneItem>>, ApiError> {
    let act = act_id(&id)?;
    let page = api
        .0
        .readers
        .read(move |reader| {
            let store = |error: StoreError| ApiError::store(&error);
            let row = reader.act(act).map_err(store)?.filter(|row| row.members > 0);
            row.ok_or_else(|| ApiError::no_group(&id))?;
            let (clusters, removed) = (all_clusters(reader)?, removed_clusters(reader).map_err(store)?);
            let filter = TombstoneFilter { act: Some(act), ..TombstoneFilter::default() };
            let mut rows = reader.tombstones(&filter, MEMBERS_MAX + 1).map_err(store)?;
            let more = rows.len() > MEMBERS_MAX;
            rows.truncate(MEMBERS_MAX);
            let groups = Groups::from([act]);
            let items = rows.into_iter().map(|row| item(row, &clusters, &removed, &groups)).collect();
            let mut page = List::new("TombstoneList", items);
            if more {
                page.notes.push(format!("only the newest {MEMBERS_MAX} are shown"));
            }
            Ok(page)
        })
        .await?;
    Ok(Json(page))
}

fn act_kind(kind: &str) -> Result<ActKind, ApiError> {
    let found = ActKind::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind));
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        ApiError::bad_request(
            format!("there is no kind of group `{kind}`"),
            "kinds are Namespace, Definition, Owner and Lockstep",
        )
    })
}

fn group(
    reader: &mut dyn Reader,
    row: ActRow,
    clusters: &[ClusterRow],
    removed: &[RemovedCluster],
) -> Result<GroupItem, ApiError> {
    let mut deleter = None;
    if let Some((key, _)) = &row.root {
        let of_root = TombstoneFilter {
            act: Some(row.id),
            gk: Some(key.gk.clone()),
            namespace: Some(key.namespace.to_string()),
            name: Some(key.name.to_string()),
            ..TombstoneFilter::default()
        };
        let found = reader.tombstones(&of_root, 1).map_err(|error| ApiError::store(&error))?;
        deleter = found.into_iter().next().and_then(|found| found.facts.deleter);
    }
    Ok(GroupItem {
        id: group_id(row.id),
        cluster: name_of(clusters, removed, row.cluster),
        kind: row.kind.as_str().to_owned(),
        root: row.root.as_ref().map(|(key, _)| key.to_string()),
        root_uid: row.root.map(|(_, uid)| uid.to_string()),
        policy: row.policy,
        deleter,
        started_at_ms: row.started_at,
        last_at_ms: row.last_at,
        members: row.members,
    })
}
