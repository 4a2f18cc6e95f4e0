//! A bounded pool of readers of the state store: each read is blocking work on its own thread.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::error::ApiError;
use crate::session::Readers;
use crate::store::Reader;

/// Opens readers as they are needed, at most as many as it has permits.
pub(super) struct ReaderPool {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

struct Shared {
    open: Readers,
    idle: Mutex<Vec<Box<dyn Reader>>>,
}

impl ReaderPool {
    pub(super) fn new(open: Readers, size: usize) -> Self {
        let shared = Arc::new(Shared { open, idle: Mutex::new(Vec::new()) });
        Self { shared, permits: Arc::new(Semaphore::new(size.max(1))) }
    }

    /// Runs one piece of reading. The permit stays with the thread, so that a request that was
    /// given up does not let another one in beside it.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Reader) -> Result<T, ApiError> + Send + 'static,
    {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| ApiError::stopping())?;
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = shared.idle().pop();
            let mut reader = match idle {
                Some(reader) => reader,
                None => (shared.open)().map_err(|error| ApiError::store(&error))?,
            };
            let result = work(reader.as_mut());
            // A reader that failed is not kept: the next one starts from a fresh connection.
            if result.as_ref().err().is_none_or(|error| error.code() != "LS0258") {
                shared.idle().push(reader);
            }
            result
        });
        task.await.map_err(|_| ApiError::internal("a read ended abnormally"))?
    }
}

impl Shared {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Reader>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
