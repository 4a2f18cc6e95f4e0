//! The start of the core: its store opened, a damaged one dealt with, its state loaded.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::HubConfig;
use crate::config::STATE_FILE;
use crate::core::{Core, Parts};
use crate::owner;
use crate::run::HubError;
use crate::seal::HubKey;
use crate::session::Readers;
use crate::space::free_bytes;
use crate::store::StoreError;
use crate::store::sqlite::{Damage, OpenError, SqliteReader, SqliteStore};

/// Damage that is met while the state is loaded is dealt with at once: the file is looked at, and the
/// second time it is not believed.
const LOADS: usize = 3;
/// With less an error of the disk while the store is opened is one of room: its index takes 32 KiB,
/// and a first transaction some pages.
const TOO_LITTLE: u64 = 1 << 20;

/// The core with its store.
pub(crate) struct Loaded {
    pub(crate) core: Core<SqliteStore>,
    pub(crate) damage: Damage,
    pub(crate) readers: Readers,
    pub(crate) outbox_reader: SqliteReader,
}

/// Opens the store and loads the core from it.
///
/// # Errors
/// When the store cannot be opened or read.
pub(crate) fn load(
    config: &HubConfig,
    key: &HubKey,
    parts: impl Fn(SqliteStore) -> Parts<SqliteStore>,
) -> Result<Loaded, HubError> {
    let mut loads = 1;
    loop {
        let database = config.data_dir.join(STATE_FILE);
        let store = SqliteStore::open_or_rebuild(&database, key.sealer(), owner::now())
            .map_err(|error| no_room(&config.data_dir, error))?;
        let damage = store.damage();
        let outbox_reader = store.open_reader()?;
        let sqlite = store.readers();
        let readers: Readers = Arc::new(move || Ok(Box::new(sqlite.open()?)));
        match Core::load(parts(store)) {
            Ok(core) => return Ok(Loaded { core, damage, readers, outbox_reader }),
            Err(StoreError::Damaged(why) | StoreError::Row { why, .. }) if loads < LOADS => {
                damage.note(&why);
                loads += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A database cannot be opened where nothing can be written: not a fault of the file.
fn no_room(dir: &Path, source: OpenError) -> HubError {
    let failed = matches!(source, OpenError::Store(StoreError::Full | StoreError::Disk(_)));
    match free_bytes(dir) {
        Ok(free) if failed && free < TOO_LITTLE => {
            HubError::NoRoom { dir: dir.to_owned(), free_kib: free >> 10, source }
        }
        _ => HubError::Open(source),
    }
}

/// Damage that a reader meets ends the hub, too.
pub(crate) async fn watch_damage(damage: Damage, stop: CancellationToken) -> std::io::Result<()> {
    tokio::select! {
        () = damage.met() => Err(std::io::Error::other(damage.why().unwrap_or("damaged").to_owned())),
        () = stop.cancelled() => Ok(()),
    }
}
