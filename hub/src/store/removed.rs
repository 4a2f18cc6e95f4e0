//! Member clusters that were removed: what their tombstones call them, and whose tokens are void.

use lockstep_engine::{ClusterId, ClusterName, Millis, Uid};
use serde::{Deserialize, Serialize};

use super::{Reader, Store, StoreError};

/// Name of the store's setting that holds the list as JSON. There are few of them in the life of a hub.
const SETTING: &str = "removed_clusters";

/// A member cluster that a person removed. Joined anew under the same name, it is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedCluster {
    /// The hub's integer for it, never given out again.
    pub id: ClusterId,
    /// The name it had.
    pub name: ClusterName,
    /// uid of its kube-system namespace, if it ever connected.
    pub uid: Option<Uid>,
    /// When it was removed (hub's clock).
    pub at: Millis,
    /// Nothing is left of it but tombstones.
    pub cleared: bool,
}

/// Every cluster that was removed, the first one first.
///
/// # Errors
/// When the store cannot be read.
pub fn removed_clusters<R: Reader + ?Sized>(reader: &mut R) -> Result<Vec<RemovedCluster>, StoreError> {
    let Some(json) = reader.meta(SETTING)? else { return Ok(Vec::new()) };
    serde_json::from_str(&json).map_err(|error| StoreError::Row { table: "meta", why: error.to_string() })
}

/// Replaces the list.
///
/// # Errors
/// When the store refuses.
pub fn put_removed_clusters<S: Store>(store: &mut S, removed: &[RemovedCluster]) -> Result<(), StoreError> {
    // Names, numbers and times always serialise.
    store.put_meta(SETTING, &serde_json::to_string(removed).unwrap_or_default())
}
