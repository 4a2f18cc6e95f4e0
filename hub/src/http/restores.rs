//! `POST /restores`, `GET /restores` and `GET /restores/{id}`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::Api;
use super::error::ApiError;
use super::params::{Params, Raw, body};
use super::types::{List, RestoreStarted, RestoreView};
use crate::restore::{Asked, RestoreRequest};

/// Items of a list, unless asked for otherwise.
const LIMIT: usize = 50;
/// Items of a list at most.
const LIMIT_MAX: usize = 500;

/// Query of `GET /restores`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoresQuery {
    limit: Option<usize>,
}

/// Plans, or carries out what was shown.
pub(super) async fn restore(State(api): State<Api>, Raw(bytes): Raw) -> Result<Response, ApiError> {
    let request: RestoreRequest = body(&bytes)?;
    Ok(match api.0.restorer.handle(request).await? {
        Asked::Plan(plan) => Json(plan).into_response(),
        Asked::Begun(id) => Json(RestoreStarted { id }).into_response(),
        Asked::Changed(plan) => {
            let answer = json!({
                "code": "LS0282",
                "message": "nothing was written: what is there is not what it was when the plan was shown",
                "remedy": "look at the new plan",
                "plan": plan,
            });
            (StatusCode::CONFLICT, Json(answer)).into_response()
        }
    })
}

/// The newest first.
pub(super) async fn list(
    State(api): State<Api>,
    Params(query): Params<RestoresQuery>,
) -> Result<Json<List<RestoreView>>, ApiError> {
    let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    Ok(Json(List::new("RestoreList", api.0.restorer.list(limit).await?)))
}

/// One, with its objects.
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<RestoreView>, ApiError> {
    let remedy = "`lockstep restores` shows the numbers";
    let number = id.strip_prefix('r').unwrap_or(&id).parse();
    let number: i64 =
        number.map_err(|_| ApiError::bad_request("a restore is named by its number", remedy))?;
    let found = api.0.restorer.show(number).await?;
    found.map(Json).ok_or_else(|| ApiError::no_restore(number))
}
