//! Files of the tombstone archive.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::{BoxFuture, ready};
use futures::stream::{BoxStream, StreamExt, empty};
use lockstep_engine::{ClusterId, ClusterName, GroupKind, ObjectKey, ResourceVersion, Uid};
use lockstep_hub::archive::{Archive, ArchiveError, ClusterRef, Keyring, Listed, Tombstones};
use lockstep_hub::config::Secrets;
use lockstep_hub::seal::HubKey;
use lockstep_hub::store::{Cause, Facts, TombstoneRow};
use serde_json::Value;

const PLAIN: &str = "v1/a/core/ConfigMap/n/x/u/1-1.yaml.zst";
const SEALED: &str = "v1/a/core/Secret/n/x/u/1-1.yaml.zst.sealed";
/// Parts of a path, and bytes of each: file systems take 255.
const PARTS: usize = 8;
const LONGEST_PART: usize = 255;

/// One file, whatever it is called.
#[derive(Default)]
struct OneFile(Mutex<(String, Bytes)>);

impl OneFile {
    fn holding(content: Bytes) -> Arc<Self> {
        Arc::new(Self(Mutex::new((String::new(), content))))
    }

    fn content(&self) -> (String, Bytes) {
        self.0.lock().expect("no panic while it was held").clone()
    }
}

impl Archive for OneFile {
    fn put<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<(), ArchiveError>> {
        *self.0.lock().expect("no panic while it was held") = (path.to_owned(), content);
        Box::pin(ready(Ok(())))
    }

    fn get<'a>(&'a self, _path: &'a str) -> BoxFuture<'a, Result<Bytes, ArchiveError>> {
        Box::pin(ready(Ok(self.content().1)))
    }

    fn delete<'a>(&'a self, _path: &'a str) -> BoxFuture<'a, Result<(), ArchiveError>> {
        *self.0.lock().expect("no panic while it was held") = (String::new(), Bytes::new());
        Box::pin(ready(Ok(())))
    }

    fn list<'a>(&'a self, _folder: &'a str) -> BoxStream<'a, Result<Listed, ArchiveError>> {
        empty().boxed()
    }
}

/// A file as it lies in the archive, the text in one, and an object that goes in.
///
/// - Whatever lies there is a tombstone or an error; nothing that was not sealed is taken for sealed.
/// - The same file gives the same tombstone.
/// - An object comes back as it was; what is no JSON is refused, and kept.
/// - Every part of a path is short, safe and, decoded, what it was made of.
pub fn archive_file(data: &[u8]) {
    let keys = Keyring::of_hub(&HubKey::from_bytes([7; 32]));
    let tombstones_in = |archive| Tombstones::new(archive, keys.clone(), Secrets::Encrypted);
    let read = |content: Bytes, path| block_on(tombstones_in(OneFile::holding(content)).read(path));
    let raw = Bytes::copy_from_slice(data);
    let _ = read(raw.clone(), PLAIN);
    assert!(read(raw.clone(), SEALED).is_err(), "what nobody sealed was opened");
    let file = Bytes::from(zstd::bulk::compress(data, 1).expect("it compresses"));
    if let Ok(tombstone) = read(file.clone(), PLAIN) {
        assert_eq!(read(file, PLAIN).ok(), Some(tombstone));
    }

    let (kind, place) = if data.len().is_multiple_of(2) { ("ConfigMap", PLAIN) } else { ("Secret", SEALED) };
    let row = row(kind, data);
    let cluster = ClusterRef { name: ClusterName::new("prod").expect("a name"), uid: Some(row.uid.clone()) };
    let archive = Arc::new(OneFile::default());
    let tombstones = tombstones_in(archive.clone());
    let path = block_on(tombstones.put(&cluster, &row)).expect("this archive takes everything").path;
    well_placed(&path, &row);
    assert_eq!(path.ends_with(".sealed"), place == SEALED);
    let (put_at, content) = archive.content();
    assert_eq!(put_at, path);
    let back = block_on(tombstones.read(&path));
    match serde_json::from_slice::<Value>(data) {
        Ok(object) => {
            let back = back.expect("what was written can be read");
            assert_eq!(back.object, object);
            assert_eq!(back.header.object.name, *row.key.name);
            assert_eq!(back.header.object.uid, row.uid.as_str());
        }
        Err(_) => assert!(back.is_err(), "bytes that are no JSON came back as an object"),
    }
    if place == SEALED {
        assert!(zstd::bulk::decompress(&content, 1 << 20).is_err(), "a Secret lies open");
    }
}

fn row(kind: &str, data: &[u8]) -> TombstoneRow {
    let text = String::from_utf8_lossy(data);
    let parts: Vec<&str> = text.splitn(3, '\n').collect();
    let part = |n: usize| parts.get(n).copied().unwrap_or_default();
    TombstoneRow {
        id: 1,
        cluster: ClusterId(1),
        key: ObjectKey::new(GroupKind::new("", kind), part(0), part(1)),
        uid: Uid::new(part(1)),
        resource_version: ResourceVersion::new(part(0)),
        api_version: "v1".to_owned(),
        cause: Cause::Lockstep { policy: part(0).to_owned() },
        deleted_at: i64::try_from(data.len()).unwrap_or(0),
        last_seen: 1,
        known_until: None,
        body: Some(Bytes::copy_from_slice(data)),
        path: None,
        deleted: true,
        facts: Facts::default(),
    }
}

fn well_placed(path: &str, row: &TombstoneRow) {
    let parts: Vec<&str> = path.split('/').collect();
    assert_eq!(parts.len(), PARTS, "{path}");
    for part in &parts {
        assert!((1..=LONGEST_PART).contains(&part.len()) && *part != "." && *part != "..", "{path}");
        assert!(part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)), "{path}");
    }
    let (namespace, name) = (&*row.key.namespace, &*row.key.name);
    for (part, made_of, instead) in [(parts[4], namespace, "_cluster"), (parts[5], name, "_none")] {
        if made_of.is_empty() {
            assert_eq!(part, instead);
        } else if !part.contains('~') {
            assert_eq!(decoded(part), made_of.as_bytes(), "{path}");
        }
    }
}

fn decoded(part: &str) -> Vec<u8> {
    let mut bytes = part.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits: String = bytes.by_ref().take(2).map(char::from).collect();
            out.push(u8::from_str_radix(&digits, 16).expect("two digits"));
        } else {
            out.push(byte);
        }
    }
    out
}
