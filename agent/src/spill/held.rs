//! A delta in the queue, here or in the spill file.

use std::sync::Arc;

use lockstep_engine::ResourceVersion;
use lockstep_engine::coalesce::{Coalesce, DeltaKind};
use lockstep_wire::v1::{Item, item::Change};
use prost::Message as _;

use super::{Place, Spill, SpillError};

/// An object's key within a watch, shared between the queue's two maps.
pub(crate) type Key = Arc<(Box<str>, Box<str>)>;

/// Bytes that the queue takes for a key beside its texts: two entries of trees that are a little over
/// half full, an allocation for the key and one for its deltas.
const SLOT: usize = 240;
/// Bytes of the headers of an item's texts on the heap, about.
const TEXTS: usize = 64;
/// Changes below this stay: what is left of them here would be no smaller.
const WORTH_SPILLING: usize = 512;

/// A delta that waits for the hub.
#[derive(Debug)]
pub(crate) enum Held {
    /// All of it is in memory.
    Here(Box<Item>),
    /// Key, uid and versions are; what happened lies in the file.
    Away(Box<Away>),
}

/// What stays of a delta whose change lies in the file.
#[derive(Debug)]
pub(crate) struct Away {
    key: Key,
    uid: Box<str>,
    resource_version: Box<str>,
    observed_ms: i64,
    place: Place,
    size: usize,
    kind: DeltaKind,
    has_body: bool,
    left: bool,
    deleting: bool,
    deleting_since: Option<Box<str>>,
}

/// A delta whose change could not be read back.
#[derive(Debug)]
pub(crate) struct Lost {
    /// Its key, uid and versions, without a change.
    pub(crate) item: Item,
    /// What it did.
    pub(crate) kind: DeltaKind,
    /// Why.
    pub(crate) error: SpillError,
}

impl Held {
    pub(crate) fn new(item: Item) -> Self {
        Self::Here(Box::new(item))
    }

    /// Moves the change into the file, where that is worth it. The bytes of memory that this freed.
    ///
    /// # Errors
    /// When the file does not take it; all is as it was then.
    pub(crate) fn spill(&mut self, key: &Key, spill: &mut Spill) -> Result<usize, SpillError> {
        let Self::Here(item) = self else { return Ok(0) };
        if item.change.as_ref().is_none_or(|change| change.encoded_len() < WORTH_SPILLING) {
            return Ok(0);
        }
        let before = self.weight();
        let Self::Here(item) = self else { return Ok(0) };
        let change = Item { change: item.change.take(), ..Item::default() };
        let written = spill.put(&change.encode_to_vec());
        item.change = change.change;
        let place = written?;
        *self = Self::Away(Box::new(Away {
            key: Arc::clone(key),
            uid: item.uid.as_str().into(),
            resource_version: item.resource_version.as_str().into(),
            observed_ms: item.observed_ms,
            deleting_since: (!item.deleting_since.is_empty()).then(|| item.deleting_since.as_str().into()),
            place,
            size: item.weight(),
            kind: item.kind(),
            has_body: item.has_body(),
            left: item.left(),
            deleting: item.deleting(),
        }));
        Ok(before.saturating_sub(self.weight()))
    }

    /// The whole delta, from wherever it is.
    ///
    /// # Errors
    /// When it cannot be read back.
    pub(crate) fn into_item(self) -> Result<Item, Box<Lost>> {
        let away = match self {
            Self::Here(item) => return Ok(*item),
            Self::Away(away) => away,
        };
        let item = Item {
            namespace: away.key.0.as_ref().to_owned(),
            name: away.key.1.as_ref().to_owned(),
            uid: away.uid.as_ref().to_owned(),
            resource_version: away.resource_version.as_ref().to_owned(),
            observed_ms: away.observed_ms,
            change: None,
            deleting_since: away.deleting_since.map(String::from).unwrap_or_default(),
        };
        let read = || -> Result<Change, SpillError> {
            let bytes = away.place.read()?;
            let decoded = Item::decode(bytes::Bytes::from(bytes)).map_err(|_| SpillError::Altered)?;
            decoded.change.ok_or(SpillError::Altered)
        };
        match read() {
            Ok(mut change) => {
                if let Change::Upsert(upsert) = &mut change {
                    upsert.left |= away.left;
                }
                Ok(Item { change: Some(change), ..item })
            }
            Err(error) => Err(Box::new(Lost { item, kind: away.kind, error })),
        }
    }
}

impl Coalesce for Held {
    fn kind(&self) -> DeltaKind {
        match self {
            Self::Here(item) => item.kind(),
            Self::Away(away) => away.kind,
        }
    }

    fn uid(&self) -> &str {
        match self {
            Self::Here(item) => item.uid(),
            Self::Away(away) => &away.uid,
        }
    }

    fn has_body(&self) -> bool {
        match self {
            Self::Here(item) => item.has_body(),
            Self::Away(away) => away.has_body,
        }
    }

    fn left(&self) -> bool {
        match self {
            Self::Here(item) => item.left(),
            Self::Away(away) => away.left,
        }
    }

    fn set_left(&mut self) {
        match self {
            Self::Here(item) => item.set_left(),
            Self::Away(away) => away.left = true,
        }
    }

    fn deleting(&self) -> bool {
        match self {
            Self::Here(item) => item.deleting(),
            Self::Away(away) => away.deleting,
        }
    }

    fn deleting_since(&self) -> Option<ResourceVersion> {
        match self {
            Self::Here(item) => item.deleting_since(),
            Self::Away(away) => {
                let since = away.deleting_since.as_ref().unwrap_or(&away.resource_version);
                away.deleting.then(|| ResourceVersion::new(since))
            }
        }
    }

    fn set_deleting_since(&mut self, since: &ResourceVersion) {
        match self {
            Self::Here(item) => item.set_deleting_since(since),
            Self::Away(away) => away.deleting_since = Some(since.as_str().into()),
        }
    }

    fn weight(&self) -> usize {
        let own = match self {
            Self::Here(item) => size_of::<Item>() + item.weight(),
            Self::Away(away) => {
                let texts = away.key.0.len() + away.key.1.len() + away.uid.len();
                size_of::<Away>() + texts + away.resource_version.len()
            }
        };
        SLOT + TEXTS + own
    }

    fn size(&self) -> usize {
        match self {
            Self::Here(item) => item.weight(),
            Self::Away(away) => away.size,
        }
    }
}
