//! The wire's item as a delta of the coalescing queue: deltas are queued as they are sent.

use lockstep_engine::ResourceVersion;
use lockstep_engine::coalesce::{Coalesce, DeltaKind};

use crate::v1::{Item, item::Change};

/// Bytes of an item beside its texts and body: tags, lengths, and what the queue itself needs.
const ITEM_OVERHEAD: usize = 160;

impl Coalesce for Item {
    fn kind(&self) -> DeltaKind {
        match &self.change {
            // Either way the key is gone from the agent's index.
            Some(Change::Delete(_) | Change::Unseen(_)) => DeltaKind::Delete,
            Some(Change::Undecodable(_)) => DeltaKind::Undecodable,
            Some(Change::Upsert(_)) | None => DeltaKind::Upsert,
        }
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn has_body(&self) -> bool {
        match &self.change {
            Some(Change::Upsert(upsert)) => !upsert.body.is_empty(),
            Some(Change::Delete(delete)) => !delete.body.is_empty(),
            Some(Change::Undecodable(_) | Change::Unseen(_)) | None => false,
        }
    }

    fn left(&self) -> bool {
        matches!(&self.change, Some(Change::Upsert(upsert)) if upsert.left)
    }

    fn set_left(&mut self) {
        if let Some(Change::Upsert(upsert)) = &mut self.change {
            upsert.left = true;
        }
    }

    fn deleting(&self) -> bool {
        matches!(&self.change, Some(Change::Upsert(upsert)) if upsert.deleting)
    }

    fn deleting_since(&self) -> Option<ResourceVersion> {
        let version =
            if self.deleting_since.is_empty() { &self.resource_version } else { &self.deleting_since };
        self.deleting().then(|| ResourceVersion::new(version))
    }

    fn set_deleting_since(&mut self, since: &ResourceVersion) {
        self.deleting_since = since.as_str().to_owned();
    }

    fn weight(&self) -> usize {
        let texts = self.namespace.len() + self.name.len() + self.uid.len() + self.resource_version.len();
        let change = match &self.change {
            Some(Change::Upsert(upsert)) => {
                let managed = upsert.managed.as_ref().map_or(0, prost::Message::encoded_len);
                upsert.body.len() + managed
            }
            Some(Change::Delete(delete)) => {
                delete.body.len() + delete.managers.iter().map(String::len).sum::<usize>()
            }
            Some(Change::Undecodable(undecodable)) => undecodable.error.len(),
            Some(Change::Unseen(_)) | None => 0,
        };
        ITEM_OVERHEAD + texts + change
    }
}
