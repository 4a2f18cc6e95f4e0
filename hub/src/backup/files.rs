//! Directories that come to be whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use super::BackupError;

/// Mode of directories and files: they hold what members' objects say.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// A directory beside its place; removed unless it is finished.
pub(super) struct Partial {
    path: PathBuf,
    place: PathBuf,
    finished: bool,
}

impl Partial {
    pub(super) fn make(place: &Path) -> Result<Self, BackupError> {
        let place = std::path::absolute(place).unwrap_or_else(|_| place.to_owned());
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let path = place.with_file_name(name);
        let io = |source| BackupError::Write { path: path.clone(), source };
        make_dir(place.parent().unwrap_or(Path::new("/"))).map_err(io)?;
        DirBuilder::new().mode(DIR_MODE).create(&path).map_err(io)?;
        Ok(Self { path, place, finished: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All of it is on the disk: it gets its name.
    pub(super) fn finish(mut self) -> Result<(), BackupError> {
        let Self { path, place, finished } = &mut self;
        let parent = place.parent().unwrap_or(Path::new("/"));
        sync_dir(path)
            .and_then(|()| std::fs::rename(&*path, &*place))
            .and_then(|()| sync_dir(parent))
            .map_err(|source| BackupError::Write { path: place.clone(), source })?;
        *finished = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Makes a directory and those above it.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Every directory below, and the one itself.
pub(super) fn sync_tree(path: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync_dir(path)
}

/// Gives a file that never changes a second name, or copies it where that cannot be; its size.
/// One that is there already is the same.
pub(super) fn link_or_copy(from: &Path, to: &Path) -> io::Result<u64> {
    let size = std::fs::metadata(from)?.len();
    if std::fs::metadata(to).is_ok_and(|there| there.len() == size) {
        return Ok(size);
    }
    if let Some(parent) = to.parent() {
        make_dir(parent)?;
    }
    if std::fs::hard_link(from, to).is_ok() {
        return Ok(size);
    }
    // Another file system, or one without links. Beside it first: half a file would be taken for one.
    let mut beside = to.as_os_str().to_owned();
    beside.push(".partial");
    copy(from, Path::new(&beside), &mut |_| {})?;
    std::fs::rename(&beside, to)?;
    Ok(size)
}

/// Copies bytes, durably; tells how many there were so far.
pub(super) fn copy(from: &Path, to: &Path, told: &mut dyn FnMut(u64)) -> io::Result<String> {
    let mut from = File::open(from)?;
    let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(to)?;
    let mut hasher = blake3::Hasher::new();
    let (mut chunk, mut sum) = (vec![0; CHUNK], 0);
    loop {
        let n = from.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        hasher.update(&chunk[..n]);
        to.write_all(&chunk[..n])?;
        sum += n as u64;
        told(sum);
    }
    to.sync_all()?;
    Ok(hasher.finalize().to_hex().to_string())
}

pub(super) fn write_durably(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Size and checksum.
pub(super) fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    let size = io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok((size, hasher.finalize().to_hex().to_string()))
}

/// Does a relative path stay below where it begins?
pub(super) fn is_within(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// The path without links, as far as it exists.
pub(super) fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(real), ..) => real,
        (Err(_), Some(parent), Some(name)) => real(parent).join(name),
        _ => path,
    }
}
