//! Errors of the HTTP API: JSON `{code, message, remedy}`; each code has a page in docs/errors.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::archive::KeeperError;
use crate::codes::Code;
use crate::core::command::CommandError;
use crate::space::FULL;
use crate::store::StoreError;

/// The codes that the API and the configuration give; each has a page in docs/errors.
pub const CODES: &[Code] = &[
    Code { code: "LS0250", title: "the call needs the hub's token" },
    Code { code: "LS0251", title: "the kind is not known" },
    Code { code: "LS0252", title: "the kind is not watched" },
    Code { code: "LS0253", title: "the request cannot be understood" },
    Code { code: "LS0254", title: "there is no such cluster" },
    Code { code: "LS0255", title: "there is no such policy" },
    Code { code: "LS0256", title: "there is no such tombstone or group" },
    Code { code: "LS0257", title: "the hub did not answer in time" },
    Code { code: "LS0258", title: "the hub failed while answering" },
    Code { code: "LS0259", title: "the hub is stopping" },
    Code { code: "LS0260", title: "there is no such call" },
    Code { code: "LS0261", title: "the request came from a foreign host name or a web page" },
    Code { code: "LS0262", title: "a tombstone's body cannot be read from the archive" },
    Code { code: "LS0263", title: "settings of the hub contradict each other" },
];

/// A request was refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{body}")]
pub struct ApiError {
    status: StatusCode,
    body: CommandError,
}

impl ApiError {
    fn new(status: StatusCode, code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let body = CommandError { code: code.to_owned(), message: message.into(), remedy: remedy.into() };
        Self { status, body }
    }

    /// `LSxxxx`.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.body.code
    }

    pub(super) fn unauthorised(message: &str) -> Self {
        let remedy = "pass the content of `api-token` in the hub's data directory: LOCKSTEP_TOKEN, or \
                      --token-file";
        Self::new(StatusCode::UNAUTHORIZED, "LS0250", message, remedy)
    }

    pub(super) fn unknown_kind(message: String, remedy: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "LS0251", message, remedy)
    }

    pub(super) fn not_watched(message: String, remedy: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "LS0252", message, remedy)
    }

    pub(super) fn bad_request(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "LS0253", message, remedy)
    }

    pub(super) fn unknown_cluster(message: String, remedy: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "LS0254", message, remedy)
    }

    pub(super) fn unknown_policy(message: String, remedy: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "LS0255", message, remedy)
    }

    pub(super) fn no_tombstone(id: i64) -> Self {
        let remedy = "`lockstep tombstones list` shows what there is";
        Self::new(StatusCode::NOT_FOUND, "LS0256", format!("there is no tombstone {id}"), remedy)
    }

    pub(super) fn no_group(id: &str) -> Self {
        let remedy = "`lockstep tombstones groups` shows what there is";
        Self::new(StatusCode::NOT_FOUND, "LS0256", format!("there is no group {id}"), remedy)
    }

    pub(super) fn no_restore(id: i64) -> Self {
        let remedy = "`lockstep restores` shows what there is";
        Self::new(StatusCode::NOT_FOUND, "LS0281", format!("there is no restore r{id}"), remedy)
    }

    pub(super) fn too_slow(limit: Duration) -> Self {
        let message = format!("no answer within {} s", limit.as_secs());
        let remedy = "ask for less at once, or raise api.request_timeout_seconds";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "LS0257", message, remedy)
    }

    pub(super) fn store(error: &StoreError) -> Self {
        let remedy = "see the hub's log; `lockstep doctor` checks the disk";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "LS0258", chain(error), remedy)
    }

    pub(super) fn internal(message: &str) -> Self {
        let remedy = "see the hub's log, and report it";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "LS0258", message, remedy)
    }

    pub(super) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "LS0259", "the hub is stopping", "try again in a moment")
    }

    pub(super) fn no_such_path() -> Self {
        let remedy = "calls are under /api/v1: docs/errors/LS0260.md lists the calls";
        Self::new(StatusCode::NOT_FOUND, "LS0260", "there is no such call", remedy)
    }

    pub(super) fn wrong_method() -> Self {
        let remedy = "reads are GET; approve, accept-rewind, pause, resume and tokens are POST";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "LS0260", "this call has another method", remedy)
    }

    pub(super) fn foreign(why: &str) -> Self {
        let remedy = "use an IP address or `localhost`, or name the host in api.host_names";
        Self::new(StatusCode::FORBIDDEN, "LS0261", format!("the request was refused: {why}"), remedy)
    }

    pub(super) fn archive(id: i64, why: &str) -> Self {
        let message = format!("the body of tombstone {id} cannot be read from the archive: {why}");
        let remedy = "check that the archive is reachable; `lockstep doctor` names it";
        Self::new(StatusCode::BAD_GATEWAY, "LS0262", message, remedy)
    }
}

impl From<CommandError> for ApiError {
    fn from(body: CommandError) -> Self {
        // A hub that takes nothing new now may later.
        let later = body.code == FULL.code;
        let status = if later { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::UNPROCESSABLE_ENTITY };
        Self { status, body }
    }
}

impl From<KeeperError> for ApiError {
    fn from(error: KeeperError) -> Self {
        match error {
            KeeperError::Refused(refused) => refused.into(),
            KeeperError::Store(error) => Self::store(&error),
            KeeperError::Stopping => Self::stopping(),
            KeeperError::Archive(error) => {
                let remedy = "nothing else was done; try again when it works";
                Self::new(StatusCode::BAD_GATEWAY, error.code(), chain(&error), remedy)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
