//! Sealed files: each under a key of its own, which lies in front of it, wrapped under a key of the archive.
//!
//! ```text
//! lockstep sealed v1\n
//! key 0123456789abcdef\n     id of the archive's key
//! wrapped key                nonce (12), key (32), tag (16)
//! content                    nonce (12), ciphertext, tag (16)
//! ```
//!
//! ChaCha20-Poly1305. Both are bound to the file's path: what lies elsewhere was moved, and does not open.
//! A new key of the archive costs a new front, and the content stays as it is.

use super::keys::{KeyId, Keyring};
use crate::seal::{KEY_LEN, SealError, Sealer, random};

/// Begins every sealed file.
const MAGIC: &[u8] = b"lockstep sealed v1\n";
const KEY_LINE: &[u8] = b"key ";
const ID_DIGITS: usize = 16;
/// Bytes of a wrapped key: nonce, key, tag.
const WRAPPED: usize = 12 + KEY_LEN + 16;

/// A sealed file cannot be opened. Carries nothing of it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum EnvelopeError {
    #[error("it is not a sealed file")]
    NotSealed,
    #[error("it is sealed under the key {0}")]
    NoKey(KeyId),
    #[error("it was altered, or moved from another place")]
    Altered,
    #[error(transparent)]
    Random(SealError),
}

struct Parts<'a> {
    id: KeyId,
    wrapped: &'a [u8],
    content: &'a [u8],
}

fn parts(sealed: &[u8]) -> Result<Parts<'_>, EnvelopeError> {
    let rest = sealed.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(KEY_LINE));
    let (id, rest) =
        rest.and_then(|rest| rest.split_at_checked(ID_DIGITS)).ok_or(EnvelopeError::NotSealed)?;
    let id = std::str::from_utf8(id).ok().and_then(KeyId::parse).ok_or(EnvelopeError::NotSealed)?;
    let rest = rest.strip_prefix(b"\n").ok_or(EnvelopeError::NotSealed)?;
    let (wrapped, content) = rest.split_at_checked(WRAPPED).ok_or(EnvelopeError::Altered)?;
    Ok(Parts { id, wrapped, content })
}

/// The id is said in clear: bound in, it cannot be exchanged.
fn key_place(id: KeyId, path: &str) -> Vec<u8> {
    format!("archive.key {id} {path}").into_bytes()
}

fn content_place(path: &str) -> Vec<u8> {
    format!("archive.file {path}").into_bytes()
}

fn joined(keys: &Keyring, path: &str, key: &[u8; KEY_LEN], content: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let (id, wrapping) = keys.writes();
    let wrapped = wrapping.seal(&key_place(*id, path), key).map_err(EnvelopeError::Random)?;
    Ok([MAGIC, KEY_LINE, id.to_string().as_bytes(), b"\n", &wrapped, content].concat())
}

fn file_key(keys: &Keyring, path: &str, parts: &Parts<'_>) -> Result<[u8; KEY_LEN], EnvelopeError> {
    let wrapping = keys.get(parts.id).ok_or(EnvelopeError::NoKey(parts.id))?;
    let key = wrapping.open(&key_place(parts.id, path), parts.wrapped).map_err(|_| EnvelopeError::Altered)?;
    key.try_into().map_err(|_| EnvelopeError::Altered)
}

/// Seals a file for its place.
pub(super) fn seal(keys: &Keyring, path: &str, plain: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let key = random::<KEY_LEN>().map_err(EnvelopeError::Random)?;
    let content = Sealer::under(key).seal(&content_place(path), plain).map_err(EnvelopeError::Random)?;
    joined(keys, path, &key, &content)
}

/// Opens what was sealed for this place.
pub(super) fn open(keys: &Keyring, path: &str, sealed: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let parts = parts(sealed)?;
    let key = file_key(keys, path, &parts)?;
    Sealer::under(key).open(&content_place(path), parts.content).map_err(|_| EnvelopeError::Altered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::HubKey;

    fn ring(own: &[u8]) -> Keyring {
        let own: Vec<_> = own.iter().map(|n| [*n; KEY_LEN]).collect();
        Keyring::new(&own, &HubKey::from_bytes([9; KEY_LEN]))
    }

    #[test]
    fn what_was_sealed_opens_with_the_same_key_at_the_same_place_only() {
        let keys = ring(&[1]);
        let sealed = seal(&keys, "v1/a", b"canary").unwrap();
        assert!(!sealed.windows(6).any(|w| w == b"canary"));
        assert_eq!(open(&keys, "v1/a", &sealed).unwrap(), b"canary");
        assert_eq!(open(&keys, "v1/b", &sealed), Err(EnvelopeError::Altered), "it was moved");
        assert_eq!(open(&ring(&[2]), "v1/a", &sealed), Err(EnvelopeError::NoKey(keys.writes().0)));
        assert_ne!(seal(&keys, "v1/a", b"canary").unwrap(), sealed, "each file has a key of its own");
        for n in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[n] ^= 1;
            assert!(open(&keys, "v1/a", &altered).is_err(), "byte {n}");
            assert!(open(&keys, "v1/a", &sealed[..n]).is_err(), "cut at {n}");
        }
    }

    #[test]
    fn a_key_of_one_file_does_not_open_another() {
        let keys = ring(&[1]);
        let [a, b] = ["v1/a", "v1/b"].map(|path| seal(&keys, path, b"canary").unwrap());
        let front = MAGIC.len() + KEY_LINE.len() + ID_DIGITS + 1 + WRAPPED;
        let mixed = [&a[..front], &b[front..]].concat();
        assert_eq!(open(&keys, "v1/a", &mixed), Err(EnvelopeError::Altered));
        assert_eq!(open(&keys, "v1/b", &mixed), Err(EnvelopeError::Altered));
    }
}
