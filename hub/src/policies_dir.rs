//! The directory of policy files, as whole snapshots: read at the start, after each change (inotify,
//! debounced), and every ten seconds in case a file system does not tell.
//!
//! A mounted ConfigMap swaps its files by renaming `..data`; names that begin with a dot are not
//! policies, but a change of them is a change. A directory that cannot be read is not an empty one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::codes::Code;
use crate::core::{Input, PolicyFiles};

/// Codes of this part.
pub const CODES: &[Code] = &[UNREADABLE];
const UNREADABLE: Code = Code { code: "LS0264", title: "the policies directory cannot be read" };

/// Editors and mounts change several things at once: wait until they are through.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Where no change is told (network file systems), this is how long an edit takes to be seen.
const POLL: Duration = Duration::from_secs(10);
/// A policy is a few kilobytes; the parser takes 1 MiB at most.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Changes that wait to be looked at; one is as good as many.
const SIGNALS: usize = 1;

/// Reads the directory now and whenever it changes, and tells the core.
pub async fn run(dir: PathBuf, inputs: mpsc::Sender<Input>, stop: CancellationToken) {
    let (signal, mut changed) = mpsc::channel(SIGNALS);
    let mut watcher = None;
    let mut last: Option<PolicyFiles> = None;
    loop {
        if watcher.is_none() {
            watcher = watch(&dir, signal.clone());
        }
        let files = read_blocking(dir.clone()).await;
        if last.as_ref() != Some(&files) {
            last = Some(files.clone());
            if inputs.send(Input::Policies(files)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(POLL) => {
                // A directory that was replaced is another inode: watch it anew.
                watcher = None;
            }
            _ = changed.recv() => {
                tokio::time::sleep(DEBOUNCE).await;
                while changed.try_recv().is_ok() {}
            }
        }
    }
}

fn watch(dir: &Path, signal: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let told = move |_| {
        // Full: somebody was told already.
        let _ = signal.try_send(());
    };
    let mut watcher = notify::recommended_watcher(told)
        .inspect_err(|error| tracing::debug!("changes of policies are found by polling: {error}"))
        .ok()?;
    watcher.watch(dir, RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}

async fn read_blocking(dir: PathBuf) -> PolicyFiles {
    tokio::task::spawn_blocking(move || read(&dir))
        .await
        .unwrap_or_else(|_| Err("reading it panicked".to_owned()))
}

/// All policy files, by name. A file that cannot be read is an entry with the reason.
///
/// # Errors
/// When the directory itself cannot be read; one sentence.
pub fn read(dir: &Path) -> PolicyFiles {
    let refused = |error: std::io::Error| format!("{} cannot be read: {error}", dir.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(refused)? {
        let entry = entry.map_err(refused)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let policy = name.ends_with(".yaml") || name.ends_with(".yml");
        if name.starts_with('.') || !policy {
            continue;
        }
        match read_file(&entry.path()) {
            Ok(text) => files.push((name, Ok(text))),
            // Between listing and reading an editor may have renamed it away: gone is gone.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !entry.path().is_symlink() => {}
            Err(error) => files.push((name, Err(error.to_string()))),
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_FILE_BYTES {
        return Err(std::io::Error::other(format!(
            "it has {size} bytes; a policy file has at most {MAX_FILE_BYTES}"
        )));
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    async fn next(inputs: &mut mpsc::Receiver<Input>) -> PolicyFiles {
        let input = tokio::time::timeout(crate::TEST_PATIENCE, inputs.recv()).await.unwrap().unwrap();
        let Input::Policies(files) = input else { panic!("{input:?}") };
        files
    }

    fn start(dir: &Path) -> (mpsc::Receiver<Input>, CancellationToken) {
        let (sender, inputs) = mpsc::channel(4);
        let stop = CancellationToken::new();
        tokio::spawn(run(dir.to_owned(), sender, stop.clone()));
        (inputs, stop)
    }

    fn one(name: &str, text: &str) -> PolicyFiles {
        Ok(vec![(name.to_owned(), Ok(text.to_owned()))])
    }

    #[tokio::test]
    async fn writes_renames_and_removals_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (mut inputs, _stop) = start(dir.path());
        assert_eq!(next(&mut inputs).await, Ok(Vec::new()));
        std::fs::write(dir.path().join("p.yaml"), "1").unwrap();
        assert_eq!(next(&mut inputs).await, one("p.yaml", "1"));
        std::fs::write(dir.path().join(".p.yaml.swp"), "2").unwrap();
        std::fs::rename(dir.path().join(".p.yaml.swp"), dir.path().join("p.yaml")).unwrap();
        assert_eq!(next(&mut inputs).await, one("p.yaml", "2"));
        std::fs::remove_file(dir.path().join("p.yaml")).unwrap();
        assert_eq!(next(&mut inputs).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn the_symlink_swap_of_a_mounted_config_map_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (n, text) in [("..1", "1"), ("..2", "2")] {
            std::fs::create_dir(path(n)).unwrap();
            std::fs::write(path(n).join("p.yaml"), text).unwrap();
        }
        symlink("..1", path("..data")).unwrap();
        symlink("..data/p.yaml", path("p.yaml")).unwrap();
        let (mut inputs, _stop) = start(dir.path());
        assert_eq!(next(&mut inputs).await, one("p.yaml", "1"));
        symlink("..2", path("..data_tmp")).unwrap();
        std::fs::rename(path("..data_tmp"), path("..data")).unwrap();
        assert_eq!(next(&mut inputs).await, one("p.yaml", "2"));
    }

    #[tokio::test]
    async fn a_missing_directory_is_not_an_empty_one_and_an_unreadable_file_is_an_entry() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&dir.path().join("none")).is_err());
        std::fs::write(dir.path().join("bin.yaml"), [0xff, 0xfe]).unwrap();
        symlink("nowhere", dir.path().join("dangling.yaml")).unwrap();
        std::fs::write(dir.path().join("notes.txt"), "x").unwrap();
        let files = read(dir.path()).unwrap();
        assert_eq!(files.len(), 2);
        assert!(files.iter().all(|(_, text)| text.is_err()));
    }
}
