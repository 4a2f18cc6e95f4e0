//! Bodies that wait for the hub and do not fit into memory: sealed, in a file without a name.
//!
//! This is memory by other means, not state: the key lives in this process only, the file loses its
//! name as soon as it is open, and where to go on is known to the hub. What is in the file when the
//! process ends is gone, and nothing is lost by it.
//!
//! The file is a row of segments that are filled one after the other. A body's place is freed when the
//! body was taken back or a newer state of its object made it superfluous; a segment without bodies is
//! used again, and cut off where it is the last. Writes are small, one after the other and never synced:
//! they end in the page cache, a few microseconds each, which is why they need no thread of their own.

mod held;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

pub(crate) use held::{Held, Key, Lost};

/// Bytes of a segment. Larger bodies stay in memory: API servers take objects of about 1.5 MiB.
const SEGMENT: u64 = 4 << 20;
/// Bytes of the key.
const KEY_LEN: usize = 32;
/// How names of spill files begin and end.
const PREFIX: &str = "lockstep-spill-";
const SUFFIX: &str = ".tmp";

/// A body cannot be put into the file, or not be read back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpillError {
    /// The configured bound is reached.
    #[error("`spill_bytes` are in use")]
    Full,
    /// It does not fit into a segment.
    #[error("the body is too large for the spill file")]
    TooLarge,
    /// The disk does not take it, or does not give it back.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came back is not what was written.
    #[error("the spill file was changed by somebody else")]
    Altered,
    /// The system's generator failed.
    #[error("no random bytes for a key")]
    Random,
}

/// The file and what opens it, shared with all that lies in it.
#[derive(Debug)]
struct Vault {
    key: LessSafeKey,
    area: Mutex<Area>,
}

/// The file and who lies where in it.
#[derive(Debug)]
struct Area {
    file: File,
    /// Bytes of the bodies in each segment.
    segments: Vec<u64>,
    /// The segment that is being filled, and how far.
    filling: Option<(usize, u64)>,
    max_bytes: u64,
    items: usize,
    bytes: u64,
}

/// The spill file of one agent.
pub(crate) struct Spill {
    vault: Arc<Vault>,
    /// Counts what was sealed: no number is used twice under this key.
    sealed: u64,
    buffer: Vec<u8>,
}

/// A place in the file. It is free again when this is dropped.
#[derive(Debug)]
struct Place {
    vault: Arc<Vault>,
    at: u64,
    len: u32,
    nonce: u64,
}

impl Spill {
    /// A new file in `dir`, which is made if it is not there. Files that earlier processes of this
    /// cluster's agent could not remove are removed.
    ///
    /// # Errors
    /// When no file can be made there.
    pub(crate) fn open(
        dir: &Path,
        cluster: &str,
        instance: &str,
        max_bytes: u64,
    ) -> Result<Self, SpillError> {
        if !dir.is_dir() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        // Names of clusters are DNS labels, instances hex digits: a dot keeps `a` from `a-b`.
        let prefix = format!("{PREFIX}{cluster}.");
        remove_old(dir, &prefix);
        let path = dir.join(format!("{prefix}{instance}{SUFFIX}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        // Where locks are not known, old files are simply left to people.
        let _ = file.try_lock();
        // Nobody else is to find it, and a crash is to leave nothing. Where a file in use keeps its
        // name, the lock tells others that it is in use.
        let _ = std::fs::remove_file(&path);
        Self::over(file, max_bytes)
    }

    /// In a file that is open for reading and writing, and empty.
    pub(crate) fn over(file: File, max_bytes: u64) -> Result<Self, SpillError> {
        let mut key = [0; KEY_LEN];
        SystemRandom::new().fill(&mut key).map_err(|_| SpillError::Random)?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).map_err(|_| SpillError::Random)?;
        let area = Area { file, segments: Vec::new(), filling: None, max_bytes, items: 0, bytes: 0 };
        let vault = Vault { key: LessSafeKey::new(key), area: Mutex::new(area) };
        Ok(Self { vault: Arc::new(vault), sealed: 0, buffer: Vec::new() })
    }

    /// Bodies in the file, and their bytes.
    pub(crate) fn level(&self) -> (usize, u64) {
        let area = self.vault.area();
        (area.items, area.bytes)
    }

    /// The file itself, for tests that look into it or break it.
    #[cfg(test)]
    pub(crate) fn file(&self) -> File {
        self.vault.area().file.try_clone().unwrap()
    }

    /// Seals and writes. Nothing has changed when it fails.
    fn put(&mut self, plain: &[u8]) -> Result<Place, SpillError> {
        let nonce = self.sealed;
        self.sealed += 1;
        self.buffer.clear();
        self.buffer.extend_from_slice(plain);
        self.vault
            .key
            .seal_in_place_append_tag(numbered(nonce), Aad::empty(), &mut self.buffer)
            .map_err(|_| SpillError::TooLarge)?;
        let len = u32::try_from(self.buffer.len()).map_err(|_| SpillError::TooLarge)?;
        let at = self.vault.area().write(&self.buffer)?;
        Ok(Place { vault: Arc::clone(&self.vault), at, len, nonce })
    }
}

impl Vault {
    fn area(&self) -> MutexGuard<'_, Area> {
        self.area.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Reads back and opens.
    fn read(&self) -> Result<Vec<u8>, SpillError> {
        let mut bytes = vec![0; usize::try_from(self.len).map_err(|_| SpillError::Altered)?];
        self.vault.area().file.read_exact_at(&mut bytes, self.at)?;
        let plain = self
            .vault
            .key
            .open_in_place(numbered(self.nonce), Aad::empty(), &mut bytes)
            .map_err(|_| SpillError::Altered)?
            .len();
        bytes.truncate(plain);
        Ok(bytes)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.vault.area().free(self.at, self.len);
    }
}

impl Area {
    fn write(&mut self, bytes: &[u8]) -> Result<u64, SpillError> {
        let len = bytes.len() as u64;
        let (segment, offset) = self.place(len)?;
        let at = segment as u64 * SEGMENT + offset;
        self.file.write_all_at(bytes, at)?;
        if segment == self.segments.len() {
            self.segments.push(0);
        }
        if let Some(used) = self.segments.get_mut(segment) {
            *used += len;
        }
        self.filling = Some((segment, offset + len));
        self.items += 1;
        self.bytes += len;
        Ok(at)
    }

    /// Segment and offset for so many bytes.
    fn place(&self, len: u64) -> Result<(usize, u64), SpillError> {
        if len > SEGMENT {
            return Err(SpillError::TooLarge);
        }
        if let Some((segment, offset)) = self.filling
            && offset + len <= self.capacity(segment)
        {
            return Ok((segment, offset));
        }
        let empty = self.segments.iter().position(|used| *used == 0);
        let next = empty.unwrap_or(self.segments.len());
        if len <= self.capacity(next) { Ok((next, 0)) } else { Err(SpillError::Full) }
    }

    /// Bytes that a segment may hold: the last one that the bound allows may be short.
    fn capacity(&self, segment: usize) -> u64 {
        self.max_bytes.saturating_sub(segment as u64 * SEGMENT).min(SEGMENT)
    }

    fn free(&mut self, at: u64, len: u32) {
        let len = u64::from(len);
        self.items = self.items.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(len);
        let segment = usize::try_from(at / SEGMENT).unwrap_or(usize::MAX);
        let Some(used) = self.segments.get_mut(segment) else { return };
        *used = used.saturating_sub(len);
        if *used > 0 {
            return;
        }
        if self.filling.is_some_and(|(filling, _)| filling == segment) {
            self.filling = None;
        }
        let before = self.segments.len();
        while self.segments.pop_if(|used| *used == 0).is_some() {}
        if self.segments.len() < before {
            // A disk that does not take its space back is no trouble of ours.
            let _ = self.file.set_len(self.segments.len() as u64 * SEGMENT);
        }
    }
}

fn numbered(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Removes files that begin so and that no process holds.
fn remove_old(dir: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(SUFFIX));
        if ours && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
