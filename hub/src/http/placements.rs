//! `GET /placements`: one object at one target, filtered by policy, target and state.

use axum::Json;
use axum::extract::State;
use lockstep_engine::status::State as Standing;
use lockstep_engine::{ClusterId, GroupKind, ObjectKey};
use serde::Deserialize;

use super::error::ApiError;
use super::kinds::did_you_mean;
use super::params::{Params, all_clusters, cluster_id, cluster_name};
use super::types::{List, PlacementItem};
use super::{Api, kinds};
use crate::store::{ClusterRow, PlacementFilter, PlacementRow, Reader, StoreError};

/// Items of a page, unless asked for otherwise.
const PAGE: usize = 500;
/// Items of a page at most.
const PAGE_MAX: usize = 1000;

/// Query of `GET /placements`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlacementQuery {
    policy: Option<String>,
    target: Option<String>,
    source: Option<String>,
    kind: Option<String>,
    /// States, separated by commas.
    state: Option<String>,
    limit: Option<usize>,
    #[serde(rename = "continue")]
    cursor: Option<String>,
}

/// One page of placements.
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<PlacementQuery>,
) -> Result<Json<List<PlacementItem>>, ApiError> {
    let states = states(query.state.as_deref().unwrap_or_default())?;
    let shared = api.clone();
    let page = api
        .0
        .readers
        .read(move |reader| {
            let store = |error: StoreError| ApiError::store(&error);
            let clusters = all_clusters(reader)?;
            let gk = match &query.kind {
                None => None,
                Some(kind) => {
                    let watches = reader.watches(None).map_err(store)?;
                    Some(kinds::resolve(&shared.0.kinds, &clusters, &watches, kind)?.gk)
                }
            };
            let filter = PlacementFilter {
                policy: query.policy,
                target: cluster_id(&clusters, query.target.as_deref())?,
                source: cluster_id(&clusters, query.source.as_deref())?,
                gk,
                states,
                held: false,
            };
            let limit = query.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
            page(reader, &clusters, &filter, query.cursor.as_deref(), limit)
        })
        .await?;
    Ok(Json(page))
}

fn page(
    reader: &mut dyn Reader,
    clusters: &[ClusterRow],
    filter: &PlacementFilter,
    cursor: Option<&str>,
    limit: usize,
) -> Result<List<PlacementItem>, ApiError> {
    let after = cursor.map(parse_cursor).transpose()?;
    let rows = reader
        .placements(filter, after.as_ref(), limit.saturating_add(1))
        .map_err(|error| ApiError::store(&error))?;
    let more = rows.len() > limit;
    let last = rows.iter().take(limit).next_back().map(|row| cursor_text(row.target, &row.key));
    let items = rows.into_iter().take(limit).map(|row| item(row, clusters)).collect();
    let mut page = List::new("PlacementList", items);
    page.next = last.filter(|_| more);
    Ok(page)
}

fn states(text: &str) -> Result<Vec<Standing>, ApiError> {
    text.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let known = Standing::ALL.into_iter().find(|state| state.as_str().eq_ignore_ascii_case(name));
            known.ok_or_else(|| {
                let names = Standing::ALL.map(Standing::as_str);
                let near = did_you_mean(name, names.into_iter());
                let remedy = near.map_or_else(
                    || format!("states are {}", names.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                ApiError::bad_request(format!("`{name}` is not a state"), remedy)
            })
        })
        .collect()
}

/// `target/group/kind/namespace/name`.
fn cursor_text(target: ClusterId, key: &ObjectKey) -> String {
    format!("{}/{}/{}/{}/{}", target.0, key.gk.group, key.gk.kind, key.namespace, key.name)
}

fn parse_cursor(text: &str) -> Result<(ClusterId, ObjectKey), ApiError> {
    let parts: Vec<&str> = text.splitn(5, '/').collect();
    if let [target, group, kind, namespace, name] = parts[..]
        && let Ok(target) = target.parse()
    {
        return Ok((ClusterId(target), ObjectKey::new(GroupKind::new(group, kind), namespace, name)));
    }
    Err(ApiError::bad_request(
        "`continue` is not what a list gave",
        "pass the value of `continue` of the page before, unchanged",
    ))
}

fn item(row: PlacementRow, clusters: &[ClusterRow]) -> PlacementItem {
    let source = row.source.as_ref().map(|source| {
        let name = cluster_name(clusters, source.cluster);
        if source.namespace.is_empty() {
            format!("{name} {}", source.name)
        } else {
            format!("{name} {}/{}", source.namespace, source.name)
        }
    });
    PlacementItem {
        target: cluster_name(clusters, row.target),
        kind: row.key.gk.to_string(),
        namespace: row.key.namespace.to_string(),
        name: row.key.name.to_string(),
        policy: row.policy,
        rivals: row.rivals,
        status: row.status,
        since_ms: row.since,
        observed_generation: row.observed_generation,
        source,
        synced_at_ms: row.synced_at,
        lag_ms: row.lag_ms,
        attempts: row.attempts,
        next_attempt_ms: row.next_attempt,
        ending: row.ending.map(|ending| format!("{ending:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_and_states_are_checked() {
        let key = ObjectKey::new(GroupKind::new("apps", "Deployment"), "shop", "web");
        let text = cursor_text(ClusterId(3), &key);
        assert_eq!(parse_cursor(&text).unwrap(), (ClusterId(3), key));
        assert_eq!(parse_cursor("x").unwrap_err().code(), "LS0253");
        assert_eq!(states("held, InStep").unwrap(), [Standing::Held, Standing::InStep]);
        assert!(states("Helt").unwrap_err().to_string().contains("did you mean `Held`"));
    }
}
