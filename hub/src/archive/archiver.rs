//! The task that empties the store's outbox into the archive.
//!
//! The outbox is the truth: a tombstone leaves it when the core has committed that the archive has
//! it. So a pass goes over the whole outbox, and skips what it told the core of a moment ago and what
//! failed and is not due again. A crash, or a transaction of the core that failed, costs a second put
//! of the same file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lockstep_engine::{ClusterId, ClusterName};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ArchiveError, ClusterRef, Tombstones};
use crate::blocking::Blocking;
use crate::core::Input;
use crate::metrics::Metrics;
use crate::retry::Retry;
use crate::store::{Filed, Reader, StoreError, TombstoneRow, removed_clusters};

/// Tombstones read at a time: bodies of up to some MiB each (I14).
const PAGE: usize = 32;
/// Puts at a time: fsyncs run beside each other well, and share the disk's flushes.
const CONCURRENT: usize = 16;
/// A core that has not taken a tombstone out of the outbox by then is told again.
const TELL_AGAIN: Duration = Duration::from_secs(5);
/// A pass at least this often, should a wake-up be lost.
const IDLE: Duration = Duration::from_secs(30);
/// First and longest wait after a failure.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// With so many failing it is the archive, not the tombstones: the rest is not tried (I14).
const MAX_FAILING: usize = 256;

/// What an archiver is made of.
pub struct ArchiverParts<R> {
    /// Reads the outbox.
    pub reader: R,
    /// Takes the tombstones.
    pub tombstones: Tombstones,
    /// Notified when there is something new in the outbox.
    pub wake: Arc<Notify>,
    /// To the core: `Input::Archived`.
    pub done: mpsc::Sender<Input>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Where the outbox is read.
    pub blocking: Blocking,
}

/// Empties the outbox into the archive.
pub struct Archiver<R> {
    reader: Option<R>,
    tombstones: Tombstones,
    wake: Arc<Notify>,
    done: mpsc::Sender<Input>,
    metrics: Arc<Metrics>,
    blocking: Blocking,
    clusters: BTreeMap<ClusterId, ClusterRef>,
    told: BTreeMap<i64, Told>,
    failing: BTreeMap<i64, Failing>,
}

/// The archive has it, the core was told.
struct Told {
    file: Filed,
    again: Instant,
}

/// It failed.
struct Failing {
    retry: Retry,
    due: Instant,
}

/// Why a pass ended early.
enum Stop {
    /// The core is gone, or the hub stops.
    Over,
    /// The outbox cannot be read now.
    Store(StoreError),
}

impl<R: Reader + 'static> Archiver<R> {
    /// An archiver that has done nothing yet.
    #[must_use]
    pub fn new(parts: ArchiverParts<R>) -> Self {
        let ArchiverParts { reader, tombstones, wake, done, metrics, blocking } = parts;
        Self {
            reader: Some(reader),
            tombstones,
            wake,
            done,
            metrics,
            blocking,
            clusters: BTreeMap::new(),
            told: BTreeMap::new(),
            failing: BTreeMap::new(),
        }
    }

    /// Runs until the hub stops or the core is gone.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut unreadable = Retry::new(RETRY_FIRST, RETRY_LONGEST, 0);
        loop {
            let Some(passed) = stop.run_until_cancelled(self.pass()).await else { return };
            let wait = match passed {
                Ok(()) => {
                    unreadable.reset();
                    self.next_pass()
                }
                Err(Stop::Over) => return,
                Err(Stop::Store(error)) => {
                    tracing::warn!("the archiver cannot read the outbox, and tries again: {error}");
                    Instant::now() + unreadable.next_wait()
                }
            };
            // Woken or not, there is something to do.
            let idle = tokio::time::timeout_at(wait, self.wake.notified());
            if stop.run_until_cancelled(idle).await.is_none() {
                return;
            }
        }
    }

    /// When something is due, if nothing wakes it before.
    fn next_pass(&self) -> Instant {
        let told = self.told.values().map(|told| told.again);
        let failing = self.failing.values().map(|failing| failing.due);
        told.chain(failing).min().unwrap_or_else(|| Instant::now() + IDLE).min(Instant::now() + IDLE)
    }

    /// Over the whole outbox once.
    async fn pass(&mut self) -> Result<(), Stop> {
        let mut seen = BTreeSet::new();
        let mut after = 0;
        loop {
            let page = self.read(move |reader| reader.outbox(after, PAGE)).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            seen.extend(page.iter().map(|row| row.id));
            self.page(page).await?;
            if self.failing.len() >= MAX_FAILING {
                // What was not looked at is not forgotten.
                seen.extend(self.told.range(after..).map(|(id, _)| *id));
                seen.extend(self.failing.range(after..).map(|(id, _)| *id));
                break;
            }
        }
        self.told.retain(|id, _| seen.contains(id));
        self.failing.retain(|id, _| seen.contains(id));
        self.count_failing();
        Ok(())
    }

    async fn page(&mut self, page: Vec<TombstoneRow>) -> Result<(), Stop> {
        let now = Instant::now();
        let mut puts = Vec::new();
        for row in page {
            if let Some(told) = self.told.get_mut(&row.id) {
                if told.again <= now {
                    told.again = now + TELL_AGAIN;
                    let file = told.file.clone();
                    self.tell(row.id, file).await?;
                }
            } else if self.failing.get(&row.id).is_none_or(|failing| failing.due <= now) {
                puts.push((self.cluster(row.cluster).await?, row));
            }
        }
        let tombstones = self.tombstones.clone();
        let mut results = futures::stream::iter(puts)
            .map(|(cluster, row)| {
                let tombstones = tombstones.clone();
                async move { (row.id, tombstones.put(&cluster, &row).await) }
            })
            .buffer_unordered(CONCURRENT);
        while let Some((id, result)) = results.next().await {
            match result {
                Ok(file) => {
                    self.metrics.took(file.size);
                    self.failing.remove(&id);
                    self.told.insert(id, Told { file: file.clone(), again: Instant::now() + TELL_AGAIN });
                    self.tell(id, file).await?;
                }
                Err(error) => self.failed(id, &error),
            }
        }
        Ok(())
    }

    fn failed(&mut self, id: i64, error: &ArchiveError) {
        let failing = self.failing.entry(id).or_insert_with(|| Failing {
            retry: Retry::new(RETRY_FIRST, RETRY_LONGEST, id.unsigned_abs()),
            due: Instant::now(),
        });
        let wait = failing.retry.next_wait();
        failing.due = Instant::now() + wait;
        self.metrics.archive_failures.inc();
        self.count_failing();
        let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(tombstone = id, again_in_ms = wait.as_millis(), "{error}: {why}");
    }

    fn count_failing(&self) {
        self.metrics.archive_waiting.set(i64::try_from(self.failing.len()).unwrap_or(i64::MAX));
    }

    async fn tell(&mut self, id: i64, file: Filed) -> Result<(), Stop> {
        self.done.send(Input::Archived { id, file }).await.map_err(|_| Stop::Over)
    }

    /// Name and uid of a cluster; asked again while the uid is not known.
    async fn cluster(&mut self, id: ClusterId) -> Result<ClusterRef, Stop> {
        if self.clusters.get(&id).is_none_or(|known| known.uid.is_none()) {
            let rows = self.read(|reader| reader.clusters()).await?;
            let removed = self.read(|reader| removed_clusters(reader)).await?;
            let rows = rows.into_iter().map(|row| (row.id, ClusterRef { name: row.name, uid: row.uid }));
            let removed =
                removed.into_iter().map(|row| (row.id, ClusterRef { name: row.name, uid: row.uid }));
            self.clusters = rows.chain(removed).collect();
        }
        if let Some(known) = self.clusters.get(&id) {
            return Ok(known.clone());
        }
        // Removed ones are remembered; should one be lost all the same, what it held is archived.
        let name = ClusterName::new(&id.to_string())
            .map_err(|e| Stop::Store(StoreError::Row { table: "clusters", why: e.to_string() }))?;
        Ok(ClusterRef { name, uid: None })
    }

    /// Reads the store.
    async fn read<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut R) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Stop> {
        let Some(mut reader) = self.reader.take() else { return Err(Stop::Over) };
        let work = move || {
            let result = work(&mut reader);
            (reader, result)
        };
        let (reader, result) = self.blocking.run(work).await.ok_or(Stop::Over)?;
        self.reader = Some(reader);
        result.map_err(Stop::Store)
    }
}
