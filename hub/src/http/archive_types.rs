//! What is asked of the archive; re-exported by `types`.

use serde::{Deserialize, Serialize};

use super::types::Work;

/// Body of `POST /api/v1/tombstones/purge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PurgeRequest {
    /// Which, by number.
    pub ids: Vec<i64>,
    /// Only say what would go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Body of `POST /api/v1/tombstones/hold`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HoldRequest {
    /// Which, by number.
    pub ids: Vec<i64>,
    /// Why.
    pub reason: String,
    /// Who says so.
    pub by: String,
}

/// Body of `POST /api/v1/tombstones/release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Which, by number.
    pub ids: Vec<i64>,
}

/// The archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveFacts {
    /// `ArchiveFacts`.
    pub kind: String,
    /// Bytes of its files, as the index has them.
    pub bytes: u64,
    /// Keys that files are sealed under, and the one that writes.
    pub keys: Vec<KeyUse>,
    /// The last rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrap: Option<Work>,
    /// The last time that the index was rebuilt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reindex: Option<Work>,
}

/// A key of the archive, and what it is used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyUse {
    /// Its id: a digest, not the key.
    pub id: String,
    /// Files that are sealed under it.
    pub files: u64,
    /// Is it among the keys that the hub was given?
    pub given: bool,
    /// Does it seal new files?
    pub writes: bool,
}
