//! The archive's keys: one writes, all of them read.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::BAD_KEYS;
use crate::config::HubConfig;
use crate::seal::{HubKey, KEY_LEN, Sealer, hex, lies_in, open_to_others, unhex};

/// Bytes of a key's id: enough that no two of a handful are the same.
const ID_LEN: usize = 8;
/// A rotation a week for ten years; what is larger is another file.
const MAX_TEXT: u64 = 64 << 10;

// Contexts of what is derived of a key. Changing one makes everything made under it unreadable.
const ID_CONTEXT: &str = "lockstep.dev 2026-11 archive key: its id";
const WRAP_CONTEXT: &str = "lockstep.dev 2026-11 archive key: wrap keys of files";

/// The archive's keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Group or others may read the file.
    #[error(
        "{BAD_KEYS}: {path} has mode {mode:04o}: others can read the archive's keys; run `chmod 600 {path}`, and put a new key in front if this machine is shared"
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It cannot be read.
    #[error("{BAD_KEYS}: the archive's keys {path} cannot be read; mend it, or archive.keys_file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Whoever has the files would have the keys.
    #[error(
        "{BAD_KEYS}: the archive's keys {path} lie inside {dir}, with what they protect; move them elsewhere, such as /etc/lockstep/archive.keys"
    )]
    Inside {
        /// The file.
        path: PathBuf,
        /// The data directory, or the archive's.
        dir: PathBuf,
    },
    /// What is there are no keys.
    #[error(
        "{BAD_KEYS}: {whence}: {why}; write one key a line, each {digits} hex digits, as `openssl rand -hex 32` prints them, the newest first",
        digits = KEY_LEN * 2
    )]
    Malformed {
        /// The setting, or file and line.
        whence: String,
        /// What is wrong; never a part of it.
        why: &'static str,
    },
}

/// Names a key without telling it: a digest of it. 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId([u8; ID_LEN]);

impl KeyId {
    /// An id as it is written.
    pub(super) fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// The keys, the one that writes first. Never empty, never printed. Cheap to clone.
#[derive(Clone)]
pub struct Keyring(Arc<[(KeyId, Sealer)]>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

impl Keyring {
    /// The key derived from the hub's alone.
    #[must_use]
    pub fn of_hub(hub: &HubKey) -> Self {
        Self::new(&[], hub)
    }

    /// Keys of the archive's own. The one that is derived from the hub's key comes last: what it wrote
    /// stays readable when the archive gets keys of its own.
    #[must_use]
    pub fn new(own: &[[u8; KEY_LEN]], hub: &HubKey) -> Self {
        let wrapping = |key: &[u8; KEY_LEN]| {
            let digest = blake3::derive_key(ID_CONTEXT, key);
            let mut id = [0; ID_LEN];
            id.copy_from_slice(&digest[..ID_LEN]);
            (KeyId(id), Sealer::under(blake3::derive_key(WRAP_CONTEXT, key)))
        };
        Self(own.iter().chain([&hub.archive_key()]).map(wrapping).collect())
    }

    /// The keys that the settings name.
    ///
    /// # Errors
    /// When they cannot be read, when others could read them, or when they are no keys.
    pub fn load(config: &HubConfig, hub: &HubKey) -> Result<Self, KeysError> {
        let own = match (&config.archive.keys_file, &config.archive.keys) {
            (Some(path), _) => {
                let dirs = [Some(config.data_dir.clone()), config.archive_dir()];
                if let Some(dir) = dirs.into_iter().flatten().find(|dir| lies_in(path, dir)) {
                    return Err(KeysError::Inside { path: path.clone(), dir });
                }
                parse(&read(path)?, &path.display().to_string())?
            }
            // Lines do not stand well in an environment.
            (None, Some(text)) => parse(&text.reveal().replace([',', ' '], "\n"), "archive.keys")?,
            (None, None) => Vec::new(),
        };
        Ok(Self::new(&own, hub))
    }

    /// The one that writes.
    pub(super) fn writes(&self) -> &(KeyId, Sealer) {
        &self.0[0]
    }

    /// The one of this id.
    pub(super) fn get(&self, id: KeyId) -> Option<&Sealer> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, sealer)| sealer)
    }
}

fn read(path: &Path) -> Result<String, KeysError> {
    let unreadable = |source| KeysError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    if let Some(mode) = open_to_others(&file).map_err(unreadable)? {
        return Err(KeysError::OpenToOthers { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(MAX_TEXT).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// One key a line; empty lines and what follows a `#` are nothing.
fn parse(text: &str, whence: &str) -> Result<Vec<[u8; KEY_LEN]>, KeysError> {
    let mut keys = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let bad = |why| KeysError::Malformed { whence: format!("{whence}: line {}", n + 1), why };
        let key: [u8; KEY_LEN] = unhex(line).ok_or_else(|| bad("it is not a key"))?;
        if key.iter().all(|byte| *byte == key[0]) {
            return Err(bad("it is one byte over and over, which anybody may guess"));
        }
        if keys.contains(&key) {
            return Err(bad("it stands there already"));
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err(KeysError::Malformed { whence: whence.to_owned(), why: "there is no key" });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ArchiveConfig;
    use std::os::unix::fs::PermissionsExt;

    fn hub() -> HubKey {
        HubKey::from_bytes([3; KEY_LEN])
    }

    fn digits(n: u8) -> String {
        format!("{}{n:02x}", "5a".repeat(KEY_LEN - 1))
    }

    #[test]
    fn the_first_key_writes_and_all_of_them_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        std::fs::write(&file, format!("# rotated in March\n\n{}  # new\n{}\n", digits(2), digits(1)))
            .unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config =
            |archive| HubConfig { data_dir: dir.path().join("data"), archive, ..HubConfig::default() };
        let of_file = config(ArchiveConfig { keys_file: Some(file.clone()), ..Default::default() });
        let ring = Keyring::load(&of_file, &hub()).unwrap();
        let text = format!("{},{}", digits(2), digits(1));
        let of_env = config(ArchiveConfig { keys: Some(text.as_str().into()), ..Default::default() });
        assert_eq!(format!("{:?}", Keyring::load(&of_env, &hub()).unwrap()), format!("{ring:?}"));
        assert!(!format!("{of_env:?}").contains(&digits(2)) && !format!("{ring:?}").contains("5a5a"));
        assert!(!serde_json::to_string(&of_env).unwrap().contains(&digits(2)));
        let older = Keyring::new(&[unhex(&digits(1)).unwrap()], &hub());
        assert_ne!(ring.writes().0, older.writes().0);
        assert!(ring.get(older.writes().0).is_some(), "the second one reads");
        assert!(ring.get(Keyring::of_hub(&hub()).writes().0).is_some(), "and the one of the hub's key");
        assert!(older.get(ring.writes().0).is_none());
    }

    #[test]
    fn keys_that_others_have_and_what_is_none_are_refused_without_quoting_it() {
        let dir = tempfile::tempdir().unwrap();
        let load = |text: &str, mode: u32, data_dir: &str| {
            let file = dir.path().join("keys");
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let archive = ArchiveConfig { keys_file: Some(file), ..Default::default() };
            let config = HubConfig { data_dir: dir.path().join(data_dir), archive, ..HubConfig::default() };
            Keyring::load(&config, &hub()).unwrap_err().to_string()
        };
        assert!(load(&digits(1), 0o640, "data").contains("chmod 600"));
        assert!(load(&digits(1), 0o600, "").contains("inside"));
        for (text, why) in [
            ("", "there is no key"),
            ("# none\n", "there is no key"),
            ("canary", "line 1: it is not a key"),
            (&format!("{}\n\n{}", digits(1), digits(1)), "line 3: it stands there already"),
            (&"00".repeat(KEY_LEN), "over and over"),
        ] {
            let error = load(text, 0o600, "data");
            assert!(error.starts_with("LS0249") && error.contains(why), "{error}");
            assert!(!error.contains("canary") && !error.contains(&digits(1)), "{error}");
        }
        let archive = ArchiveConfig { keys_file: Some(dir.path().join("none")), ..Default::default() };
        let config = HubConfig { data_dir: dir.path().join("data"), archive, ..HubConfig::default() };
        assert!(Keyring::load(&config, &hub()).unwrap_err().to_string().contains("LS0249"));
    }
}
