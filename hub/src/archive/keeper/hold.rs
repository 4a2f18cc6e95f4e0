//! Legal holds. A hold lies beside the file it holds: it outlives the store.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::layout::hold_of;
use super::super::{ArchiveError, HELD};
use super::{Keeper, KeeperError, named};
use crate::core::command::CommandError;
use crate::core::keeping::Keeping;
use crate::store::{Hold, Reader, StoreError};

const API_VERSION: &str = "lockstep.dev/v1";
const KIND: &str = "Hold";

/// The file of a hold.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HoldFile {
    api_version: String,
    kind: String,
    #[serde(flatten)]
    hold: Hold,
}

impl Keeper {
    /// Puts a hold on tombstones: nothing purges them.
    ///
    /// # Errors
    /// When there is no such tombstone, when the archive does not have it yet, or refuses.
    pub async fn hold(&self, ids: Vec<i64>, reason: String, by: String) -> Result<(), KeeperError> {
        let _turn = self.0.turn.lock().await;
        let hold = Hold { reason, by, at_ms: (self.0.parts.now)() };
        for path in self.paths(&ids).await? {
            let path = hold_of(&path);
            let file = HoldFile { api_version: API_VERSION.into(), kind: KIND.into(), hold: hold.clone() };
            // Three texts and a number: JSON, which is YAML, where the library cannot.
            let text = serde_saphyr::to_string(&file).or_else(|_| serde_json::to_string(&file));
            self.0.parts.tombstones.archive.put(&path, Bytes::from(text.unwrap_or_default())).await?;
        }
        self.ask(|reply| Keeping::Hold { ids, hold: Some(hold), reply }).await
    }

    /// Takes the hold off tombstones.
    ///
    /// # Errors
    /// When there is no such tombstone, or the archive refuses.
    pub async fn release(&self, ids: Vec<i64>) -> Result<(), KeeperError> {
        let _turn = self.0.turn.lock().await;
        for path in self.paths(&ids).await? {
            self.0.parts.tombstones.archive.delete(&hold_of(&path)).await?;
        }
        self.ask(|reply| Keeping::Hold { ids, hold: None, reply }).await
    }

    async fn paths(&self, ids: &[i64]) -> Result<Vec<String>, KeeperError> {
        let ids = ids.to_vec();
        let found = self
            .read(move |reader| ids.into_iter().map(|id| path(reader, id)).collect::<Result<Vec<_>, _>>())
            .await?;
        Ok(found.into_iter().collect::<Result<Vec<_>, CommandError>>()?)
    }

    /// The hold of a file.
    pub(super) async fn read_hold(&self, path: &str) -> Result<Hold, ArchiveError> {
        let bytes = self.0.parts.tombstones.archive.get(path).await?;
        let text = String::from_utf8_lossy(&bytes);
        let file: HoldFile = serde_saphyr::from_str(&text).map_err(|_| ArchiveError::Content {
            path: path.to_owned(),
            why: "it is not a hold".to_owned(),
        })?;
        Ok(file.hold)
    }
}

fn path(reader: &mut dyn Reader, id: i64) -> Result<Result<String, CommandError>, StoreError> {
    let refused = |code: &str, message: String, remedy: &str| {
        Err(CommandError { code: code.to_owned(), message, remedy: remedy.to_owned() })
    };
    let Some(row) = reader.retained_one(id)? else {
        let remedy = "`lockstep tombstones list` shows what there is";
        return Ok(refused("LS0256", format!("there is no tombstone {id}"), remedy));
    };
    Ok(row.path.clone().map_or_else(
        || {
            let message = format!("tombstone {id} ({}) is not in the archive yet", named(&row));
            refused(HELD.code, message, "nothing purges it before it is; try again then")
        },
        Ok,
    ))
}
