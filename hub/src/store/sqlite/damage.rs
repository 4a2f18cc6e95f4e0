//! What is remembered of damage that was met while the file was in use.
//!
//! A hub that meets damage stops, and leaves a mark: the next start looks at every page before it
//! relies on one. Where it finds nothing, the file is suspect from then on; damage met in a suspect
//! file is believed without another look, or the hub would stop at the same place for ever.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use super::open::{DAMAGED, OpenError};
use crate::store::StoreError;

/// Ending of the mark's name: damage was met.
pub(super) const MARK: &str = "-damaged";
/// Ending of the name of the mark of a suspect file.
pub(super) const SUSPECT: &str = "-suspect";
/// Longest text of a mark that is read.
const MAX_MARK: usize = 1024;

/// Tells once that the file was found damaged. Shared by all connections of a store.
#[derive(Clone, Debug)]
pub struct Damage(Arc<State>);

#[derive(Debug)]
struct State {
    mark: PathBuf,
    why: OnceLock<String>,
    met: CancellationToken,
}

impl Damage {
    pub(super) fn of(database: &Path) -> Self {
        let (why, met) = (OnceLock::new(), CancellationToken::new());
        Self(Arc::new(State { mark: beside(database, MARK), why, met }))
    }

    /// Damage was met: leaves the mark for the next start, and tells whoever waits.
    pub fn note(&self, why: &str) {
        let State { mark, why: known, met } = &*self.0;
        if known.set(why.to_owned()).is_err() {
            return;
        }
        tracing::error!(
            "{DAMAGED}: the state store was found damaged while it was in use ({why}): the hub stops; the next start checks the file, keeps it aside and builds the state anew"
        );
        if let Err(error) = std::fs::write(mark, why) {
            tracing::error!("the mark {} cannot be written: {error}", mark.display());
        }
        met.cancel();
    }

    /// Notes it where an error says so.
    pub(super) fn look<T>(&self, result: &Result<T, StoreError>) {
        if let Err(StoreError::Damaged(why)) = result {
            self.note(why);
        }
    }

    /// What was met, if anything.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        self.0.why.get().map(String::as_str)
    }

    /// Waits until damage is met.
    pub async fn met(&self) {
        self.0.met.cancelled().await;
    }
}

/// The path with an ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// What an earlier process met.
pub(super) fn noted(database: &Path) -> Option<String> {
    let text = std::fs::read(beside(database, MARK)).ok()?;
    Some(String::from_utf8_lossy(&text[..text.len().min(MAX_MARK)]).into_owned())
}

/// Was it met before, and nothing found then?
pub(super) fn suspected(database: &Path) -> bool {
    beside(database, SUSPECT).exists()
}

/// Nothing was found: the file is suspect.
pub(super) fn suspect(database: &Path) -> Result<(), OpenError> {
    let (mark, path) = (beside(database, MARK), beside(database, SUSPECT));
    std::fs::rename(mark, &path).map_err(|source| OpenError::Io { path, source })
}

/// The last process met nothing, or the file is another one now.
pub(super) fn acquit(database: &Path) {
    for ending in [MARK, SUSPECT] {
        // Mostly there is none; one that stays costs a check.
        let _ = std::fs::remove_file(beside(database, ending));
    }
}
