//! How bodies lie in the database: one byte of format, then the bytes.
//!
//! | format | then |
//! |---|---|
//! | 0 | the body |
//! | 1 | a zstd frame that records its content size |
//! | 2 | nonce, ciphertext, tag; inside: format 0 or 1 (kind Secret, I13) |

use bytes::Bytes;
use lockstep_engine::{GroupKind, ObjectKey};
use zstd::bulk::{Compressor, Decompressor};

use crate::seal::Sealer;
use crate::store::StoreError;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
const SEALED: u8 = 2;
/// Formats, pinned by a test.
#[cfg(test)]
const FORMATS: [u8; 3] = [PLAIN, ZSTD, SEALED];

/// The fastest level: at 1 KB the others save 2% and cost twice the time.
const LEVEL: i32 = 1;
/// Smaller bodies stay as they are: a frame saves little of them, and they can be read with sqlite3.
pub(super) const COMPRESS_FROM: usize = 512;
/// No body is larger; a frame that claims more is corrupt. Far above the API server's 1.5 MiB (a
/// request of 3 MiB) and the largest custom etcd limits in use.
const MAX_BODY: usize = 64 << 20;

/// Is a kind's body sealed?
pub(super) fn is_secret(gk: &GroupKind) -> bool {
    gk.is("", "Secret")
}

/// What a sealed body is bound to: its table and key, so that it cannot be moved to another row.
pub(super) fn place(table: &'static str, key: &ObjectKey) -> Vec<u8> {
    [table, ".body", "\0", &*key.namespace, "\0", &*key.name].concat().into_bytes()
}

/// Encoder and decoder with their contexts: making one costs more than using it.
pub(super) struct Bodies {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    sealer: Sealer,
}

impl Bodies {
    pub(super) fn new(sealer: Sealer) -> std::io::Result<Self> {
        Ok(Self { compressor: Compressor::new(LEVEL)?, decompressor: Decompressor::new()?, sealer })
    }

    pub(super) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Without sealing: for what is no body of a Secret.
    pub(super) fn pack(&mut self, table: &'static str, body: &[u8]) -> Result<Vec<u8>, StoreError> {
        if body.len() >= COMPRESS_FROM {
            let mut out = vec![ZSTD; 1 + zstd::zstd_safe::compress_bound(body.len())];
            let frame = self
                .compressor
                .compress_to_buffer(body, &mut out[1..])
                .map_err(|e| row(table, &e.to_string()))?;
            if frame < body.len() {
                out.truncate(1 + frame);
                return Ok(out);
            }
        }
        let mut out = Vec::with_capacity(1 + body.len());
        out.push(PLAIN);
        out.extend_from_slice(body);
        Ok(out)
    }

    /// Undoes [`Self::pack`].
    pub(super) fn unpack(&mut self, table: &'static str, stored: &[u8]) -> Result<Bytes, StoreError> {
        match stored.split_first() {
            Some((&PLAIN, rest)) => Ok(Bytes::copy_from_slice(rest)),
            Some((&ZSTD, frame)) => self
                .decompressor
                .decompress(frame, MAX_BODY)
                .map(Bytes::from)
                .map_err(|_| row(table, "a body does not decompress")),
            Some((&SEALED, _)) => Err(row(table, "a sealed body where none is expected")),
            _ => Err(row(table, "a body in a format that this version does not know")),
        }
    }

    /// A body of this key, sealed where it must be.
    pub(super) fn encode(
        &mut self,
        table: &'static str,
        key: &ObjectKey,
        body: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let packed = self.pack(table, body)?;
        if !is_secret(&key.gk) {
            return Ok(packed);
        }
        let sealed = self.sealer.seal(&place(table, key), &packed).map_err(|e| row(table, &e.to_string()))?;
        let mut out = Vec::with_capacity(1 + sealed.len());
        out.push(SEALED);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Undoes [`Self::encode`]. A Secret that lies there unsealed is not believed.
    pub(super) fn decode(
        &mut self,
        table: &'static str,
        key: &ObjectKey,
        stored: &[u8],
    ) -> Result<Bytes, StoreError> {
        if !is_secret(&key.gk) {
            return self.unpack(table, stored);
        }
        let Some((&SEALED, sealed)) = stored.split_first() else {
            return Err(row(table, "a Secret that is not sealed"));
        };
        let packed = self.sealer.open(&place(table, key), sealed).map_err(|e| row(table, &e.to_string()))?;
        self.unpack(table, &packed)
    }
}

fn row(table: &'static str, why: &str) -> StoreError {
    StoreError::Row { table, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::HubKey;
    use proptest::prelude::*;

    fn bodies() -> Bodies {
        Bodies::new(HubKey::from_bytes([1; 32]).sealer()).unwrap()
    }

    fn key(kind: &str, name: &str) -> ObjectKey {
        ObjectKey::new(GroupKind::new("", kind), "shop", name)
    }

    #[test]
    fn formats_are_pinned() {
        assert_eq!(FORMATS, [0, 1, 2]);
        let mut bodies = bodies();
        let small = key("ConfigMap", "a");
        assert_eq!(bodies.encode("objects", &small, b"{}").unwrap(), b"\0{}");
        let long = vec![b' '; COMPRESS_FROM];
        let stored = bodies.encode("objects", &small, &long).unwrap();
        assert!(stored[0] == ZSTD && stored.len() < 64, "{}", stored.len());
        assert_eq!(bodies.encode("objects", &key("Secret", "a"), b"{}").unwrap()[0], SEALED);
    }

    #[test]
    fn a_sealed_body_opens_only_where_it_was_put() {
        let mut bodies = bodies();
        let stored = bodies.encode("objects", &key("Secret", "a"), b"canary").unwrap();
        assert!(!stored.windows(6).any(|w| w == b"canary"));
        assert_eq!(bodies.decode("objects", &key("Secret", "a"), &stored).unwrap(), "canary");
        for (table, name) in [("objects", "b"), ("tombstones", "a")] {
            let error = bodies.decode(table, &key("Secret", name), &stored).unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        assert!(bodies.decode("objects", &key("Secret", "a"), b"\0canary").is_err());
        assert!(bodies.decode("objects", &key("ConfigMap", "a"), &stored).is_err());
    }

    #[test]
    fn rubbish_is_an_error_and_never_quoted() {
        let mut bodies = bodies();
        for stored in [&b""[..], b"\x01canary", b"\x09canary", b"\x02canary"] {
            let error = bodies.decode("objects", &key("ConfigMap", "a"), stored).unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_body_comes_back(body in proptest::collection::vec(any::<u8>(), 0..4096), secret: bool) {
            let mut bodies = bodies();
            let key = key(if secret { "Secret" } else { "ConfigMap" }, "a");
            let stored = bodies.encode("objects", &key, &body).unwrap();
            prop_assert_eq!(bodies.decode("objects", &key, &stored).unwrap(), body);
        }
    }
}
