//! What is done to the archive: tombstones purged and held, keys rotated, the index rebuilt.

use axum::Json;
use axum::extract::State;

use super::Api;
use super::error::ApiError;
use super::params::{Raw, body};
use super::types::{
    ArchiveFacts, Done, HoldRequest, KeyUse, List, PurgeRequest, Purged, ReleaseRequest, Work,
};
use crate::archive::KeeperError;

/// Tombstones that one call names at most.
const MOST: usize = 4_000;

/// Purges tombstones by number.
pub(super) async fn purge(State(api): State<Api>, Raw(bytes): Raw) -> Result<Json<List<Purged>>, ApiError> {
    let PurgeRequest { ids, dry_run } = body(&bytes)?;
    let (ids, keeper) = (named(ids)?, api.0.keeper.clone());
    let told = finished(async move { keeper.purge(ids, dry_run).await }).await?;
    if !dry_run {
        let purged = told.iter().filter(|told| told.purged).count();
        tracing::warn!(purged, "tombstones were purged, as a person asked");
    }
    Ok(Json(List::new("PurgedList", told)))
}

/// Puts a hold on tombstones.
pub(super) async fn hold(State(api): State<Api>, Raw(bytes): Raw) -> Result<Json<Done>, ApiError> {
    let HoldRequest { ids, reason, by } = body(&bytes)?;
    if reason.trim().is_empty() {
        return Err(ApiError::bad_request("a hold needs a reason", "say why: --reason"));
    }
    let ids = named(ids)?;
    let (count, keeper) = (ids.len(), api.0.keeper.clone());
    finished(async move { keeper.hold(ids, reason, by).await }).await?;
    Ok(Json(Done { message: format!("{count} held") }))
}

/// Takes the hold off tombstones.
pub(super) async fn release(State(api): State<Api>, Raw(bytes): Raw) -> Result<Json<Done>, ApiError> {
    let ReleaseRequest { ids } = body(&bytes)?;
    let ids = named(ids)?;
    let (count, keeper) = (ids.len(), api.0.keeper.clone());
    finished(async move { keeper.release(ids).await }).await?;
    Ok(Json(Done { message: format!("{count} released") }))
}

/// Also when nobody waits for the answer any more: what was begun with files goes on to their rows.
async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, KeeperError>> + Send + 'static,
) -> Result<T, ApiError> {
    Ok(tokio::spawn(work).await.map_err(|_| ApiError::stopping())??)
}

fn named(mut ids: Vec<i64>) -> Result<Vec<i64>, ApiError> {
    ids.sort_unstable();
    ids.dedup();
    match ids.len() {
        0 => Err(ApiError::bad_request(
            "no tombstone is named",
            "`lockstep tombstones list` shows the numbers",
        )),
        1..=MOST => Ok(ids),
        _ => {
            Err(ApiError::bad_request(format!("more than {MOST} tombstones are named"), "name fewer at once"))
        }
    }
}

/// The archive, its keys, and work that is under way.
pub(super) async fn facts(State(api): State<Api>) -> Result<Json<ArchiveFacts>, ApiError> {
    let keeper = &api.0.keeper;
    let (bytes, used) = keeper.used().await?;
    let keys = used
        .into_iter()
        .map(|(id, files)| KeyUse {
            given: keeper.has_key(&id),
            writes: keeper.writes_with() == id,
            id,
            files,
        })
        .collect();
    let (rewrap, reindex) = (keeper.rewrapping(), keeper.reindexing());
    Ok(Json(ArchiveFacts { kind: "ArchiveFacts".to_owned(), bytes, keys, rewrap, reindex }))
}

/// Begins to seal files under the key that writes.
pub(super) async fn rewrap(State(api): State<Api>) -> Json<Work> {
    Json(api.0.keeper.rewrap())
}

/// Begins to bring rows back for files that have none.
pub(super) async fn reindex(State(api): State<Api>) -> Json<Work> {
    Json(api.0.keeper.reindex())
}
