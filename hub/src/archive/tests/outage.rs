//! A server of the S3 protocol goes away under load, and comes back.

use std::collections::BTreeMap;

use super::conformance::until;
use super::s3::S3Server;
use super::*;

/// More than an archiver tries while all of them fail.
const LOAD: usize = 400;
/// What an archiver remembers while all of them fail: its bound, and the page that reached it.
const TRIED: i64 = 256 + 32;
/// Bodies that do not compress, each.
const BODY: usize = 2 << 10;
/// An outbox of so many of them takes at most twice their bytes on the disk, and the log of the store beside it.
const LOG: u64 = 16 << 20;

/// A store, an archiver and the server, with everything that was deleted so far.
struct Outage {
    dir: TempDir,
    server: S3Server,
    store: SqliteStore,
    archive: Arc<dyn Archive>,
    metrics: Arc<Metrics>,
    inputs: mpsc::Receiver<Input>,
    wake: Arc<Notify>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
    made: usize,
    paths: BTreeMap<i64, String>,
}

impl Outage {
    async fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = S3Server::start(dir.path()).await;
        let mut store = SqliteStore::open(&dir.path().join("data/state.db"), sealer()).unwrap();
        within(&mut store, |store| {
            drop(store.create_cluster(&ClusterName::new("prod").unwrap(), 1).unwrap())
        });
        let metrics = Arc::new(Metrics::register(&mut prometheus_client::registry::Registry::default()));
        let (done, inputs) = mpsc::channel(64);
        let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let archive: Arc<dyn Archive> = Arc::new(BucketArchive::s3(&server.config(dir.path())).unwrap());
        let archiver = Archiver::new(ArchiverParts {
            reader: store.open_reader().unwrap(),
            tombstones: tombstones_in(archive.clone()),
            wake: wake.clone(),
            done,
            metrics: metrics.clone(),
            blocking: crate::blocking::Blocking::Threads,
        });
        let running = tokio::spawn(archiver.run(stop.clone()));
        let (made, paths) = Default::default();
        Self { dir, server, store, archive, metrics, inputs, wake, stop, running, made, paths }
    }

    fn delete(&mut self, n: usize) {
        let (store, made) = (&mut self.store, &mut self.made);
        within(store, |store| {
            for _ in 0..n {
                *made += 1;
                let key = key(if *made % 5 == 0 { "Secret" } else { "ConfigMap" }, "n", &format!("x{made}"));
                let noise = blake3::Hasher::new().update(&made.to_le_bytes()).finalize_xof();
                let body = serde_json::json!({ "data": { "noise": noise_of(noise) } }).to_string();
                let row = TombstoneRow { body: Some(body.into()), ..tombstone(1, key, 5) };
                store.put_tombstone(&row).unwrap();
            }
        });
        self.wake.notify_one();
    }

    /// What the archiver tells is taken out of the outbox, as the core does it: what came together at once.
    async fn take(&mut self, up_to: usize) {
        while self.paths.len() < up_to {
            let mut told = Vec::new();
            let came = self.inputs.recv_many(&mut told, 64);
            tokio::time::timeout(crate::TEST_PATIENCE, came).await.unwrap();
            let Self { store, paths, .. } = self;
            within(store, |store| {
                for input in told {
                    let Input::Archived { id, file } = input else { panic!("{input:?}") };
                    store.set_archived(id, &file).unwrap();
                    paths.insert(id, file.path);
                }
            });
        }
    }

    /// Bytes of the store and its log.
    fn store_bytes(&self) -> u64 {
        let files = files(&self.dir.path().join("data"));
        files.iter().map(|file| std::fs::metadata(file).unwrap().len()).sum()
    }

    fn check_bounds(&self, before: u64) {
        let waiting = self.metrics.archive_waiting.get();
        assert!((1..=TRIED).contains(&waiting), "what is tried at a time is bounded: {waiting}");
        let (grown, queued) = (self.store_bytes() - before, (self.made - self.paths.len()) as u64);
        assert!(grown <= queued * 2 * BODY as u64 + LOG, "{queued} took {grown} bytes");
    }

    /// Everything that was deleted is in the archive, and is what was deleted.
    async fn end(mut self) {
        self.server.listen().await;
        self.take(self.made).await;
        assert!(self.store.outbox(0, 1).unwrap().is_empty());
        let tombstones = tombstones_in(self.archive.clone());
        assert_eq!(self.paths.len(), self.made);
        for (id, path) in &self.paths {
            let read = tombstones.read(path).await.unwrap();
            assert_eq!(read.header.object.name, format!("x{id}"));
            assert_eq!(read.object["data"]["noise"].as_str().unwrap().len(), BODY);
        }
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

fn noise_of(mut noise: blake3::OutputReader) -> String {
    let mut bytes = [0; BODY / 2];
    noise.fill(&mut bytes);
    crate::seal::hex(&bytes)
}

#[tokio::test]
async fn an_outage_under_load_loses_nothing_and_is_caught_up_with() {
    let mut outage = Outage::begin().await;
    outage.delete(50);
    outage.take(20).await;
    let before = outage.store_bytes();
    outage.server.kill().await;
    outage.delete(LOAD);
    let metrics = outage.metrics.clone();
    until(|| metrics.archive_failures.get() > 300).await;
    outage.check_bounds(before);
    outage.end().await;
}

/// Must show 4, as it is written. `cargo nextest run -p lockstep-hub --run-ignored only a_minute`
#[tokio::test]
#[ignore = "takes two minutes"]
async fn a_minute_without_its_bucket_under_load_loses_nothing() {
    let mut outage = Outage::begin().await;
    outage.delete(50);
    outage.take(50).await;
    let before = outage.store_bytes();
    outage.server.kill().await;
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    while tokio::time::Instant::now() < until {
        outage.delete(100);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    outage.check_bounds(before);
    let (made, grown) = (outage.made, outage.store_bytes() - before);
    let began = tokio::time::Instant::now();
    outage.end().await;
    println!(
        "{made} tombstones of {BODY} bytes, {grown} bytes of outbox, caught up in {:?}",
        began.elapsed()
    );
}
