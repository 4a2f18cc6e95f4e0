//! Must show 6: a Secret's value is unreadable wherever it lies on a disk, and readable with the key.

use super::s3::S3Server;
use super::*;
use crate::seal::KEY_LEN;
use crate::store::conformance::object;

/// base64 of what nobody may see, as an API server has it.
const CANARY: &str = "Y2FuYXJ5LXRoYXQtbm9ib2R5LW1heS1zZWU=";

/// Does any file below have it, also where it is compressed?
fn is_open(dir: &std::path::Path) -> bool {
    files(dir).into_iter().any(|file| {
        let raw = std::fs::read(&file).unwrap();
        let text = zstd::bulk::decompress(&raw, 1 << 20).unwrap_or_default();
        [raw, text].iter().any(|bytes| bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()))
    })
}

#[tokio::test]
async fn i13_a_canary_is_unreadable_in_store_outbox_directory_and_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let body = serde_json::json!({ "kind": "Secret", "data": { "password": CANARY } });
    let row = |kind: &str| {
        let row = tombstone(1, key(kind, "shop", "db"), 5);
        TombstoneRow { body: Some(body.to_string().into()), ..row }
    };
    // Store and outbox.
    let data = dir.path().join("data");
    let mut store = SqliteStore::open(&data.join("state.db"), sealer()).unwrap();
    within(&mut store, |store| {
        let mut object = object(1, 1, key("Secret", "shop", "db"));
        object.body = Some(body.to_string().into());
        store.put_object(&object).unwrap();
        let mut deleted = row("Secret");
        let patch = serde_json::json!([{ "op": "add", "path": "/data/more", "value": CANARY }]);
        deleted.facts.last = Some(patch.to_string().into());
        store.put_tombstone(&deleted).unwrap();
    });
    let outbox = store.outbox(0, 1).unwrap();
    drop(store);
    assert!(!is_open(&data), "the store");
    // Directory and bucket.
    let server = S3Server::start(dir.path()).await;
    let bucket: Arc<dyn Archive> = Arc::new(BucketArchive::s3(&server.config(dir.path())).unwrap());
    let local: Arc<dyn Archive> = Arc::new(LocalArchive::open(&dir.path().join("archive")).unwrap());
    let places = [(local, dir.path().join("archive")), (bucket, server.files())];
    for (archive, files) in places {
        let with = |own: &[u8]| Tombstones::new(archive.clone(), keys(own), Secrets::Encrypted);
        let path = with(&[1]).put(&cluster(), &outbox[0]).await.unwrap().path;
        assert!(!is_open(&files), "{}", files.display());
        // With the key, and after a rotation with the new one too.
        for own in [&[1][..], &[2, 1]] {
            let read = with(own).read(&path).await.unwrap();
            assert_eq!(read.object["data"]["password"], CANARY);
            assert_eq!(read.last.unwrap()[0]["value"], CANARY);
        }
        let error = with(&[2]).read(&path).await.unwrap_err().to_string();
        let id = keys(&[1]).writes().0.to_string();
        assert!(error.starts_with("LS0248") && error.contains(&id) && !error.contains(CANARY), "{error}");
        // The search finds what is not sealed.
        with(&[1]).put(&cluster(), &row("ConfigMap")).await.unwrap();
        assert!(is_open(&files), "{}", files.display());
    }
    // No key lies beside what it protects.
    let secret = crate::seal::hex(&[1; KEY_LEN]);
    assert!(files(dir.path()).iter().all(|file| {
        let text = std::fs::read(file).unwrap();
        !text.windows(secret.len()).any(|window| window == secret.as_bytes())
    }));
}
