//! Query parameters and bodies, with errors of our own shape; names of clusters.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use lockstep_engine::ClusterId;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::kinds::did_you_mean;
use crate::store::{ClusterRow, Reader};

/// Longest query of a call, in bytes. A selector with every condition that is taken is shorter.
const QUERY_BYTES: usize = 16 << 10;

/// Query parameters.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        if query.len() > QUERY_BYTES {
            let message = format!("the query has {} bytes, and {QUERY_BYTES} are taken", query.len());
            return Err(ApiError::bad_request(message, "ask for less in one call"));
        }
        if query.contains("%00") {
            let message = "a query parameter holds a NUL character";
            return Err(ApiError::bad_request(message, "no name, label or text has one: leave it out"));
        }
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(ApiError::bad_request(
                format!("bad query parameters: {}", rejection.body_text()),
                "docs/errors/LS0260.md lists the calls",
            )),
        }
    }
}

/// The bytes of a body, within the limit.
pub(super) struct Raw(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(rejection) => Err(ApiError::bad_request(
                format!("the request body cannot be read: {}", rejection.body_text()),
                "bodies are small JSON documents; docs/errors/LS0260.md lists the calls",
            )),
        }
    }
}

/// A JSON body.
pub(super) fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        ApiError::bad_request(format!("bad request body: {error}"), "docs/errors/LS0260.md lists the calls")
    })
}

/// The clusters, from the store.
pub(super) fn all_clusters(reader: &mut dyn Reader) -> Result<Vec<ClusterRow>, ApiError> {
    reader.clusters().map_err(|error| ApiError::store(&error))
}

/// The cluster of a name; an error names near ones.
pub(super) fn find_cluster<'a>(clusters: &'a [ClusterRow], name: &str) -> Result<&'a ClusterRow, ApiError> {
    clusters.iter().find(|row| row.name.as_str() == name).ok_or_else(|| {
        let near = did_you_mean(name, clusters.iter().map(|row| row.name.as_str()));
        let remedy = near.map_or_else(
            || format!("`lockstep clusters` lists them; `lockstep token create {name}` registers one"),
            |near| format!("did you mean `{near}`?"),
        );
        ApiError::unknown_cluster(format!("there is no cluster `{name}`"), remedy)
    })
}

/// The id of an optional name.
pub(super) fn cluster_id(clusters: &[ClusterRow], name: Option<&str>) -> Result<Option<ClusterId>, ApiError> {
    name.map(|name| find_cluster(clusters, name).map(|row| row.id)).transpose()
}

/// The name of an id; the id itself where the store forgot it.
pub(super) fn cluster_name(clusters: &[ClusterRow], id: ClusterId) -> String {
    clusters.iter().find(|row| row.id == id).map_or_else(|| id.to_string(), |row| row.name.to_string())
}
