//! What every archive does, shown against a directory and against a real server of the S3 protocol.

use super::s3::S3Server;
use super::*;
use crate::config::{ArchiveConfig, HubConfig, S3Config};
use crate::problem::Problems;
use futures::TryStreamExt;

/// Written once, read as written, by any name, and without a word of what is in it where it fails.
async fn conforms(archive: Arc<dyn Archive>) {
    let large = Bytes::from(vec![b'x'; 6 << 20]);
    for (path, content) in [
        ("v1/a/core/ConfigMap/_cluster/x/u/1-1.yaml.zst", Bytes::from_static(b"one")),
        ("v1/a/core/ConfigMap/_cluster/system%3Anode%2Fx~00/u/1-1.yaml.zst", Bytes::from_static(b"two")),
        ("v1/a/core/ConfigMap/n/large/u/1-1.yaml.zst", large),
        ("v1/a/core/ConfigMap/n/empty/u/1-1.yaml.zst", Bytes::new()),
    ] {
        archive.put(path, content.clone()).await.unwrap();
        archive.put(path, content.clone()).await.unwrap();
        assert_eq!(archive.get(path).await.unwrap(), content, "{path}");
    }
    assert_eq!(archive.get("v1/a/none").await.unwrap_err().code(), "LS0246");
    assert_eq!(archive.get("../../../etc/passwd").await.unwrap_err().code(), "LS0246");
    assert_eq!(archive.put("../x", Bytes::new()).await.unwrap_err().code(), "LS0245");
    deletes_and_lists(&*archive).await;
    let tombstones = tombstones_in(archive);
    tombstones.probe("hub").await.unwrap();
    for key in [key("ConfigMap", "shop", "web"), key("Secret", "shop", "web")] {
        let path = tombstones.put(&cluster(), &tombstone(1, key, 5)).await.unwrap().path;
        assert_eq!(tombstones.read(&path).await.unwrap().object, serde_json::json!({ "canary": 1 }));
    }
}

async fn deletes_and_lists(archive: &dyn Archive) {
    let listed = async |folder: &str| {
        let mut found: Vec<Listed> = archive.list(folder).try_collect().await.unwrap();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found.into_iter().map(|file| (file.path, file.size)).collect::<Vec<_>>()
    };
    let before = listed("v1").await;
    assert_eq!(before.len(), 4);
    assert!(
        before.contains(&("v1/a/core/ConfigMap/n/large/u/1-1.yaml.zst".to_owned(), 6 << 20)),
        "{before:?}"
    );
    let odd = "v1/a/core/ConfigMap/_cluster/system%3Anode%2Fx~00/u/1-1.yaml.zst".to_owned();
    assert!(before.contains(&(odd.clone(), 3)), "{before:?}");
    assert_eq!(listed("v1/a/core/ConfigMap/n").await.len(), 2);
    assert!(listed("v1/none").await.is_empty() && listed("v2").await.is_empty());
    for _ in 0..2 {
        archive.delete(&odd).await.unwrap();
    }
    assert_eq!(archive.get(&odd).await.unwrap_err().code(), "LS0246");
    assert_eq!(listed("v1").await.len(), 3);
    archive.delete("v1/none/x").await.unwrap();
    assert_eq!(archive.delete("../x").await.unwrap_err().code(), "LS0245");
    assert!(archive.list("../x").try_collect::<Vec<_>>().await.is_err());
    archive.put(&odd, Bytes::from_static(b"two")).await.unwrap();
    assert_eq!(listed("v1").await, before, "a place that was emptied is there again");
}

fn opened(config: ArchiveConfig, dir: &TempDir) -> Arc<dyn Archive> {
    let config = HubConfig { data_dir: dir.path().join("data"), archive: config, ..HubConfig::default() };
    config.validate().unwrap();
    open(&config).unwrap()
}

#[tokio::test]
async fn a_directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(opened(ArchiveConfig::default(), &dir)).await;
}

#[tokio::test]
async fn a_bucket_of_the_s3_protocol_conforms_and_holds_secrets_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(dir.path()).await;
    conforms(opened(ArchiveConfig { s3: Some(server.config(dir.path())), ..Default::default() }, &dir)).await;
    let stored = files(&server.files().join("v1"));
    let sealed: Vec<_> = stored.iter().filter(|path| path.to_string_lossy().ends_with(".sealed")).collect();
    assert_eq!(sealed.len(), 1, "below the prefix, in the layout of a directory: {stored:?}");
    assert!(zstd::bulk::decompress(&std::fs::read(sealed[0]).unwrap(), 1 << 20).is_err());
}

#[tokio::test]
async fn a_bucket_over_tls_is_trusted_by_its_own_authority_only() {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start_tls(dir.path()).await;
    let config = server.config(dir.path());
    conforms(opened(ArchiveConfig { s3: Some(config.clone()), ..Default::default() }, &dir)).await;
    let refused = |ca: &str, text: &str| {
        std::fs::write(dir.path().join(ca), text).unwrap();
        let config = S3Config { ca_file: Some(dir.path().join(ca)), ..config.clone() };
        BucketArchive::s3(&config).unwrap_err().to_string()
    };
    assert!(refused("empty.pem", "").contains("archive.s3.ca_file"));
    let missing = S3Config { ca_file: Some(dir.path().join("none.pem")), ..config };
    assert!(BucketArchive::s3(&missing).unwrap_err().to_string().contains("archive.s3.ca_file"));
}

#[tokio::test]
async fn a_bucket_that_refuses_is_told_and_works_again_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = S3Server::start(dir.path()).await;
    let config = server.config(dir.path());
    let wrong = S3Config { profile: Some("wrong".to_owned()), ..config.clone() };
    let wrong = tombstones_in(Arc::new(BucketArchive::s3(&wrong).unwrap()));
    let error = wrong.probe("hub").await.unwrap_err();
    assert_eq!(error.code(), "LS0245");
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("SignatureDoesNotMatch") && !why.contains("canary"), "{why}");
    server.kill().await;
    let (problems, stop) = (Problems::default(), CancellationToken::new());
    let tombstones = tombstones_in(Arc::new(BucketArchive::s3(&config).unwrap()));
    let watched = probe::watch(tombstones, "hub".to_owned(), problems.clone(), || 7, stop.clone());
    let watched = tokio::spawn(watched);
    until(|| !problems.all().is_empty()).await;
    let problem = problems.all().remove(0);
    assert!(problem.code == "LS0245" && problem.since_ms == 7 && !problem.stops_work, "{problem}");
    server.listen().await;
    until(|| problems.all().is_empty()).await;
    stop.cancel();
    watched.await.unwrap();
}

pub(super) async fn until(condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(crate::TEST_PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap();
}
