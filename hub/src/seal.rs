//! Keys of the hub, and sealing of what must not lie readable on a disk (I13).
//!
//! One key file, outside of the data directory (I11), from which the keys for sealing, for the MAC
//! of marks and for the digests of Secrets are derived under distinct contexts.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use lockstep_engine::ClusterName;

use crate::codes::Code;

/// Codes of this module.
pub const CODES: &[Code] = &[OPEN_TO_OTHERS, UNUSABLE_KEY, KEY_IN_DATA_DIR];
const OPEN_TO_OTHERS: Code = Code { code: "LS0230", title: "the hub's key file can be read by others" };
const UNUSABLE_KEY: Code = Code { code: "LS0231", title: "the hub's key file cannot be used" };
const KEY_IN_DATA_DIR: Code = Code { code: "LS0232", title: "the hub's key lies inside the data directory" };

/// Bytes of the hub's key, and of each key derived from it.
pub const KEY_LEN: usize = 32;
/// A key file is one line of hex digits; anything much larger is another file.
const MAX_KEY_FILE_LEN: u64 = 256;
/// Prefix of bearer tokens: lets secret scanners recognise a leaked one.
pub const TOKEN_PREFIX: &str = "lockstep_";

// Contexts of the derived keys. Changing one makes everything made under it unreadable.
const SEAL_CONTEXT: &str = "lockstep.dev 2026-01 hub key: seal stored Secrets";
const MAC_CONTEXT: &str = "lockstep.dev 2026-01 hub key: MAC of marks";
const TOKEN_CONTEXT: &str = "lockstep.dev 2026-01 hub key: tokens of agents";
const ARCHIVE_CONTEXT: &str = "lockstep.dev 2026-11 hub key: files of the archive";
const AGENT_DIGEST_CONTEXT: &str = "lockstep.dev 2026-12 hub key: digests of Secrets by agents";
const SHOWN_DIGEST_CONTEXT: &str = "lockstep.dev 2026-12 hub key: digests of Secrets that are shown";
const RENDERED_DIGEST_CONTEXT: &str = "lockstep.dev 2026-12 hub key: digests of rendered Secrets";

/// The hub's key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Group or others may read it.
    #[error(
        "{OPEN_TO_OTHERS}: {path} has mode {mode:04o}: others can read the hub's key; run `chmod 600 {path}`, and replace the key if this machine is shared"
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It cannot be read, written or understood.
    #[error("{UNUSABLE_KEY}: the hub's key {path}: {why}; give a file with {digits} hex digits, or a path where the hub may create one", digits = KEY_LEN * 2)]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong; never its content.
        why: String,
    },
    /// It would be lost together with the data that it protects.
    #[error(
        "{KEY_IN_DATA_DIR}: the hub's key {path} lies inside the data directory {data_dir}: losing that disk would lose both; move it elsewhere, such as /etc/lockstep/hub.key"
    )]
    InDataDir {
        /// The file.
        path: PathBuf,
        /// The data directory.
        data_dir: PathBuf,
    },
}

/// Sealing or unsealing failed. Carries nothing of what was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The system gave no random bytes.
    #[error("the system's random number generator failed")]
    Random,
    /// Altered, truncated, or sealed under another key or for another place.
    #[error("sealed under another key, or altered")]
    Open,
}

/// The hub's key. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct HubKey([u8; KEY_LEN]);

impl fmt::Debug for HubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubKey(redacted)")
    }
}

impl HubKey {
    /// A key out of its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Reads the key file; where there is none, makes one (mode 0600, fsynced).
    ///
    /// # Errors
    /// When others may read it, when it is not a key, or when it can neither be read nor made.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let unusable = |why: String| KeyError::Unusable { path: path.to_owned(), why };
        match File::open(path) {
            Ok(file) => Self::load(path, file),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let key = Self(random().map_err(|e| unusable(e.to_string()))?);
                match write_private(path, format!("{}\n", hex(&key.0)).as_bytes()) {
                    Ok(()) => Ok(key),
                    // Another process was quicker: its key counts.
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                        Self::load(path, File::open(path).map_err(|e| unusable(e.to_string()))?)
                    }
                    Err(e) => Err(unusable(format!("cannot create it: {e}"))),
                }
            }
            Err(e) => Err(unusable(e.to_string())),
        }
    }

    fn load(path: &Path, file: File) -> Result<Self, KeyError> {
        let unusable = |why: String| KeyError::Unusable { path: path.to_owned(), why };
        if let Some(mode) = open_to_others(&file).map_err(|e| unusable(e.to_string()))? {
            return Err(KeyError::OpenToOthers { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(MAX_KEY_FILE_LEN).read_to_string(&mut text).map_err(|e| unusable(e.to_string()))?;
        match unhex(text.trim()) {
            Some(bytes) => Ok(Self(bytes)),
            None => Err(unusable("its content is not a key".to_owned())),
        }
    }

    /// Refuses a key file inside the data directory (I11).
    ///
    /// # Errors
    /// When it lies there.
    pub fn check_outside(path: &Path, data_dir: &Path) -> Result<(), KeyError> {
        if lies_in(path, data_dir) {
            return Err(KeyError::InDataDir { path: absolute(path), data_dir: absolute(data_dir) });
        }
        Ok(())
    }

    /// Key under which stored Secrets are sealed.
    #[must_use]
    pub fn sealer(&self) -> Sealer {
        Sealer::new(self)
    }

    /// Key of the MAC over marks (`lockstep.dev/mac`).
    #[must_use]
    pub fn mac_key(&self) -> [u8; KEY_LEN] {
        blake3::derive_key(MAC_CONTEXT, &self.0)
    }

    /// Key that agents' tokens are made with.
    #[must_use]
    pub fn token_key(&self) -> [u8; KEY_LEN] {
        blake3::derive_key(TOKEN_CONTEXT, &self.0)
    }

    /// Key of the archive where it has none of its own.
    #[must_use]
    pub fn archive_key(&self) -> [u8; KEY_LEN] {
        blake3::derive_key(ARCHIVE_CONTEXT, &self.0)
    }

    /// Key that the keys of agents for digests of Secrets are made with; none of these opens what another cluster told,
    /// what is shown, or what is on copies.
    #[must_use]
    pub fn agent_digest_key(&self) -> [u8; KEY_LEN] {
        blake3::derive_key(AGENT_DIGEST_CONTEXT, &self.0)
    }

    /// Key of the digests that stand for values of Secrets in answers of the API. It never leaves the hub.
    #[must_use]
    pub fn shown_digest_key(&self) -> [u8; KEY_LEN] {
        blake3::derive_key(SHOWN_DIGEST_CONTEXT, &self.0)
    }

    /// Key of the digests of rendered Secrets, which marks on copies carry. It never leaves the hub.
    #[must_use]
    pub fn rendered_digest_key(&self) -> [u8; KEY_LEN] {
        blake3::derive_key(RENDERED_DIGEST_CONTEXT, &self.0)
    }
}

/// The permission bits of a file that others can read.
pub(crate) fn open_to_others(file: &File) -> std::io::Result<Option<u32>> {
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o7777;
    // A Secret that a Pod mounts with an fsGroup is root's, and readable by that group only: the
    // group is how this process may read it at all.
    let mounted = own_uid().is_some_and(|own| metadata.uid() != own);
    Ok((mode & if mounted { 0o037 } else { 0o077 } != 0).then_some(mode))
}

/// Does the file lie below the directory, links followed?
pub(crate) fn lies_in(file: &Path, dir: &Path) -> bool {
    absolute(file).starts_with(absolute(dir))
}

/// The user this process runs as.
fn own_uid() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|own| own.uid())
}

/// The path without links and `..`, as far as it exists.
fn absolute(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent != Path::new("") => absolute(parent).join(name),
        (_, Some(name)) => absolute(Path::new(".")).join(name),
        _ => path.to_owned(),
    }
}

/// Writes a new file that only its owner can read, durably.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

/// Encrypts and authenticates: `nonce (12) || ciphertext || tag (16)`, ChaCha20-Poly1305, random
/// nonces. Cheap to clone.
///
/// Random 96-bit nonces are safe for about 2^32 messages under one key; a hub that writes 100 Secrets
/// a second gets there after 16 months, with a collision chance of 2^-33.
#[derive(Clone)]
pub struct Sealer {
    key: [u8; KEY_LEN],
    random: SystemRandom,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(redacted)")
    }
}

impl Sealer {
    /// A sealer under the key derived for this purpose.
    #[must_use]
    pub fn new(key: &HubKey) -> Self {
        Self { key: blake3::derive_key(SEAL_CONTEXT, &key.0), random: SystemRandom::new() }
    }

    /// A sealer under this very key.
    #[must_use]
    pub(crate) fn under(key: [u8; KEY_LEN]) -> Self {
        Self { key, random: SystemRandom::new() }
    }

    /// For ChaCha20 this copies the key; there is nothing to keep.
    fn key(&self) -> Result<LessSafeKey, SealError> {
        UnboundKey::new(&CHACHA20_POLY1305, &self.key).map(LessSafeKey::new).map_err(|_| SealError::Open)
    }

    /// Seals for one place: `aad` names table, column and row, so that a sealed value cannot be moved.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| SealError::Random)?;
        let mut out = Vec::with_capacity(NONCE_LEN + plain.len() + CHACHA20_POLY1305.tag_len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let tag = self
            .key()?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut out[NONCE_LEN..],
            )
            .map_err(|_| SealError::Open)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Opens what was sealed for the same place.
    ///
    /// # Errors
    /// When it was altered, or sealed under another key or for another place.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Open)?;
        let mut buffer = rest.to_vec();
        let plain = self
            .key()?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut buffer)
            .map_err(|_| SealError::Open)?
            .len();
        buffer.truncate(plain);
        Ok(buffer)
    }
}

/// Bytes from the system's generator.
///
/// # Errors
/// When it fails.
pub fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SealError::Random)?;
    Ok(bytes)
}

/// A new bearer token: `lockstep_` and 32 random bytes in base64url.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_token() -> Result<String, SealError> {
    Ok(format!("{TOKEN_PREFIX}{}", base64url(&random::<32>()?)))
}

/// A bearer token as it was presented. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(String);

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(redacted)")
    }
}

impl BearerToken {
    /// Takes a token, without white space around it.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self(token.trim().to_owned())
    }

    /// A new token for an agent: `lockstep_`, the cluster's name, 18 random bytes and a MAC, with
    /// dots between them. The MAC lets a hub that lost its data know a token that it once gave out.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn of_agent(key: &[u8; KEY_LEN], cluster: &ClusterName) -> Result<Self, SealError> {
        let head = format!("{cluster}.{}", base64url(&random::<18>()?));
        Ok(Self(format!("{TOKEN_PREFIX}{head}.{}", base64url(token_mac(key, &head).as_bytes()))))
    }

    /// The cluster that this hub key gave the token to, if it did.
    #[must_use]
    pub fn vouched(&self, key: &[u8; KEY_LEN]) -> Option<ClusterName> {
        let (head, mac) = self.0.strip_prefix(TOKEN_PREFIX)?.rsplit_once('.')?;
        let (cluster, _) = head.rsplit_once('.')?;
        // Both sides hashed: compared in constant time.
        let genuine = blake3::hash(mac.as_bytes())
            == blake3::hash(base64url(token_mac(key, head).as_bytes()).as_bytes());
        genuine.then(|| ClusterName::new(cluster).ok()).flatten()
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        hash_token(&self.0)
    }

    /// The token itself, to be told once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

fn token_mac(key: &[u8; KEY_LEN], head: &str) -> blake3::Hash {
    blake3::keyed_hash(key, head.as_bytes())
}

/// What is stored of a token. A token has 256 random bits: it needs no salt and no slow hash.
#[must_use]
pub fn hash_token(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut word = 0_u32;
        for n in 0..3 {
            word = word << 8 | u32::from(chunk.get(n).copied().unwrap_or(0));
        }
        for n in 0..=chunk.len() {
            out.push(char::from(DIGITS[(word >> (18 - 6 * n) & 63) as usize]));
        }
    }
    out
}

/// Lower-case hex.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Exactly `N` bytes out of hex digits.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[n * 2..n * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn key(n: u8) -> HubKey {
        HubKey::from_bytes([n; KEY_LEN])
    }

    #[test]
    fn what_was_sealed_opens_only_with_the_same_key_and_place() {
        let sealer = key(1).sealer();
        let sealed = sealer.seal(b"objects.body", b"canary").unwrap();
        assert!(!sealed.windows(6).any(|w| w == b"canary"));
        assert_eq!(sealer.open(b"objects.body", &sealed).unwrap(), b"canary");
        assert_eq!(sealer.open(b"tombstones.body", &sealed), Err(SealError::Open));
        assert_eq!(key(2).sealer().open(b"objects.body", &sealed), Err(SealError::Open));
        for n in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[n] ^= 1;
            assert_eq!(sealer.open(b"objects.body", &altered), Err(SealError::Open), "byte {n}");
            assert_eq!(sealer.open(b"objects.body", &sealed[..n]), Err(SealError::Open), "cut at {n}");
        }
        assert_ne!(sealed, sealer.seal(b"objects.body", b"canary").unwrap(), "nonces repeat");
    }

    #[test]
    fn derived_keys_differ_and_are_pinned() {
        let key = key(7);
        let all = [
            key.0,
            key.mac_key(),
            key.token_key(),
            key.archive_key(),
            key.agent_digest_key(),
            key.shown_digest_key(),
            key.rendered_digest_key(),
        ];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
        // Marks on objects and digests in stores outlive versions of lockstep.
        assert_eq!(hex(&key.mac_key()[..8]), "3fbe51b565986c1b");
        assert_eq!(hex(&key.rendered_digest_key()[..8]), "885dfb9c8e44e7c7");
        assert_eq!(hex(&key.agent_digest_key()[..8]), "37c8c963e4de13da");
    }

    #[test]
    fn nothing_prints_a_key() {
        assert_eq!(format!("{:?} {:?}", key(9), key(9).sealer()), "HubKey(redacted) Sealer(redacted)");
    }

    #[test]
    fn a_key_file_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.key");
        let made = HubKey::load_or_create(&path).unwrap();
        assert_eq!(HubKey::load_or_create(&path).unwrap(), made);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = HubKey::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("LS0230") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_bad_key_file_is_refused_without_quoting_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.key");
        write_private(&path, b"canary").unwrap();
        let error = HubKey::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("LS0231") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn a_key_inside_the_data_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        assert!(HubKey::check_outside(&dir.path().join("hub.key"), &data).is_ok());
        let sneaky = dir.path().join("data/../data/new/hub.key");
        assert!(matches!(HubKey::check_outside(&sneaky, &data), Err(KeyError::InDataDir { .. })));
    }

    #[test]
    fn tokens() {
        let token = new_token().unwrap();
        assert_eq!(token.len(), TOKEN_PREFIX.len() + 43);
        assert_ne!(token, new_token().unwrap());
        assert_ne!(hash_token(&token), hash_token("lockstep_x"));
    }

    #[test]
    fn base64url_is_that_of_rfc_4648() {
        for (plain, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("fooba", "Zm9vYmE")]
        {
            assert_eq!(base64url(plain.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff, 0xfe]), "-__-");
    }
}
