//! `GET /tombstones/{id}/diff`: what changed between two states of an object that were kept.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::Value;

use super::Api;
use super::error::ApiError;
use super::params::{Params, all_clusters};
use super::tombstones::{body_of, name_of};
use super::types::TombstoneDifference;
use crate::store::{StoreError, TombstoneRow, removed_clusters};

/// Of the metadata, what a server changes with every write, or gives to each object anew.
const BY_THE_SERVER: [&str; 7] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
];

/// Query of `GET /tombstones/{id}/diff`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffQuery {
    /// Number of the other one.
    with: i64,
}

/// From the one to the other.
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<i64>,
    Params(query): Params<DiffQuery>,
) -> Result<Json<TombstoneDifference>, ApiError> {
    let (one, other, cluster) = api
        .0
        .readers
        .read(move |reader| {
            let store = |error: StoreError| ApiError::store(&error);
            let mut row = |id| reader.tombstone(id).map_err(store)?.ok_or_else(|| ApiError::no_tombstone(id));
            let (one, other): (TombstoneRow, TombstoneRow) = (row(id)?, row(query.with)?);
            let removed = removed_clusters(reader).map_err(store)?;
            let cluster = name_of(&all_clusters(reader)?, &removed, one.cluster);
            Ok((one, other, cluster))
        })
        .await?;
    if one.key.gk != other.key.gk {
        return Err(ApiError::bad_request(
            format!("tombstone {} is of a {}, and {} of a {}", one.id, one.key.gk, other.id, other.key.gk),
            "name two tombstones of one kind: `lockstep tombstones list KIND --name NAME` shows them",
        ));
    }
    let (before, after) = (whole(&api, &one).await?, whole(&api, &other).await?);
    let patch = json_patch::diff(&plain(&before), &plain(&after)).0;
    Ok(Json(TombstoneDifference {
        cluster,
        kind: one.key.gk.to_string(),
        namespace: one.key.namespace.to_string(),
        name: one.key.name.to_string(),
        patch: patch.iter().filter_map(|operation| serde_json::to_value(operation).ok()).collect(),
        before,
        after,
    }))
}

async fn whole(api: &Api, row: &TombstoneRow) -> Result<Value, ApiError> {
    let body = body_of(api, row, false).await?;
    body.ok_or_else(|| {
        ApiError::bad_request(
            format!("nothing was known of the object of tombstone {}", row.id),
            "choose another one: `lockstep tombstones list` shows them",
        )
    })
}

/// Without what differs by itself.
fn plain(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !BY_THE_SERVER.contains(&name.as_str()));
    }
    body
}
