//! Where work that waits for the disk is done.

use crate::store::StoreError;

/// Where work that waits for the disk is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// On threads made for it: what a hub that serves many does.
    Threads,
    /// Right here, and in order: the same inputs then have the same course.
    Here,
}

impl Blocking {
    /// Does it. None: it panicked, or the runtime ends.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await.ok(),
            Self::Here => Some(work()),
        }
    }

    /// The next item of an iterator that reads the store; the iterator comes back with it.
    pub(crate) async fn next<I, T>(self, mut items: I) -> Option<(I, Option<Result<T, StoreError>>)>
    where
        I: Iterator<Item = Result<T, StoreError>> + Send + 'static,
        T: Send + 'static,
    {
        self.run(move || {
            let item = items.next();
            (items, item)
        })
        .await
    }
}
