//! How bodies lie in the database: one byte of format, then the bytes.
//!
//! | format | then |
//! |---|---|
//! | 0 | the body |
//! | 1 | a zstd frame that records its content size |
//! | 3 | nonce, ciphertext, tag; inside: format 0 or 1 (kind Secret, I13); bound to its [`Place`] |

use bytes::Bytes;
use lockstep_engine::{ClusterId, GroupKind, ObjectKey, ResourceVersion, Uid};
use zstd::bulk::{Compressor, Decompressor};

use crate::seal::Sealer;
use crate::store::StoreError;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
const SEALED: u8 = 3;
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

/// What a sealed body is bound to: one state of one object in one cluster, in one column. Whoever can write the file and
/// does not have the key can neither move it to another row or column nor put an older one under a newer version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) table: &'static str,
    pub(super) column: &'static str,
    pub(super) cluster: ClusterId,
    pub(super) key: &'a ObjectKey,
    pub(super) uid: &'a Uid,
    pub(super) version: &'a ResourceVersion,
}

impl Place<'_> {
    /// Every part with its length: no two places have the same bytes.
    fn bytes(&self) -> Vec<u8> {
        let Self { table, column, cluster, key, uid, version } = self;
        let mut bytes = cluster.0.to_le_bytes().to_vec();
        for part in [*table, *column, &*key.namespace, &*key.name, uid.as_str(), version.as_str()] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
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

    /// A body for this place, sealed where it must be.
    pub(super) fn encode(&mut self, place: &Place<'_>, body: &[u8]) -> Result<Vec<u8>, StoreError> {
        let table = place.table;
        let packed = self.pack(table, body)?;
        if !is_secret(&place.key.gk) {
            return Ok(packed);
        }
        let sealed = self.sealer.seal(&place.bytes(), &packed).map_err(|e| row(table, &e.to_string()))?;
        let mut out = Vec::with_capacity(1 + sealed.len());
        out.push(SEALED);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Undoes [`Self::encode`]. A Secret that lies there unsealed is not believed.
    pub(super) fn decode(&mut self, place: &Place<'_>, stored: &[u8]) -> Result<Bytes, StoreError> {
        let table = place.table;
        if !is_secret(&place.key.gk) {
            return self.unpack(table, stored);
        }
        let Some((&SEALED, sealed)) = stored.split_first() else {
            return Err(row(table, "a Secret that is not sealed"));
        };
        let packed = self.sealer.open(&place.bytes(), sealed).map_err(|e| row(table, &e.to_string()))?;
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

    /// A place in the table `objects`, column `body`.
    fn place<'a>(key: &'a ObjectKey, state: &'a (Uid, ResourceVersion)) -> Place<'a> {
        let (uid, version) = state;
        Place { table: "objects", column: "body", cluster: ClusterId(1), key, uid, version }
    }

    fn state(uid: &str, version: &str) -> (Uid, ResourceVersion) {
        (Uid::new(uid), ResourceVersion::new(version))
    }

    #[test]
    fn formats_are_pinned() {
        assert_eq!(FORMATS, [0, 1, 3]);
        let (mut bodies, state) = (bodies(), state("u", "7"));
        let small = key("ConfigMap", "a");
        let small = place(&small, &state);
        assert_eq!(bodies.encode(&small, b"{}").unwrap(), b"\0{}");
        let long = vec![b' '; COMPRESS_FROM];
        let stored = bodies.encode(&small, &long).unwrap();
        assert!(stored[0] == ZSTD && stored.len() < 64, "{}", stored.len());
        assert_eq!(bodies.encode(&place(&key("Secret", "a"), &state), b"{}").unwrap()[0], SEALED);
    }

    #[test]
    fn a_sealed_body_opens_only_where_it_was_put() {
        let (mut bodies, state) = (bodies(), state("u", "7"));
        let (secret, other, plain) = (key("Secret", "a"), key("Secret", "b"), key("ConfigMap", "a"));
        let here = place(&secret, &state);
        let stored = bodies.encode(&here, b"canary").unwrap();
        assert!(!stored.windows(6).any(|w| w == b"canary"));
        assert_eq!(bodies.decode(&here, &stored).unwrap(), "canary");
        let (newer, replaced) = (self::state("u", "8"), self::state("v", "7"));
        for elsewhere in [
            place(&other, &state),
            Place { table: "tombstones", ..here },
            Place { column: "before", ..here },
            Place { cluster: ClusterId(2), ..here },
            place(&secret, &newer),
            place(&secret, &replaced),
        ] {
            let error = bodies.decode(&elsewhere, &stored).unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        assert!(bodies.decode(&here, b"\0canary").is_err());
        assert!(bodies.decode(&place(&plain, &state), &stored).is_err());
    }

    #[test]
    fn the_parts_of_a_place_cannot_run_into_each_other() {
        let (one, two) = (state("ab", "c"), state("a", "bc"));
        let key = key("Secret", "a");
        assert_ne!(place(&key, &one).bytes(), place(&key, &two).bytes());
    }

    #[test]
    fn rubbish_is_an_error_and_never_quoted() {
        let (mut bodies, state, key) = (bodies(), state("u", "7"), key("ConfigMap", "a"));
        for stored in [&b""[..], b"\x01canary", b"\x09canary", b"\x02canary", b"\x03canary"] {
            let error = bodies.decode(&place(&key, &state), stored).unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_body_comes_back(body in proptest::collection::vec(any::<u8>(), 0..4096), secret: bool) {
            let (mut bodies, state) = (bodies(), state("u", "7"));
            let key = key(if secret { "Secret" } else { "ConfigMap" }, "a");
            let place = place(&key, &state);
            let stored = bodies.encode(&place, &body).unwrap();
            prop_assert_eq!(bodies.decode(&place, &stored).unwrap(), body);
        }
    }
}
