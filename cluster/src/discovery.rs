//! What a server serves.
//!
//! Aggregated discovery (two requests, with ETags) where the server offers it, else one request per
//! group and version (Kubernetes 1.20). What could not be asked is in [`Served::partial`]: unknown,
//! not gone (I3).

mod aggregated;
mod legacy;
mod model;

pub use model::{PartialFailure, Served, ServedKind, ServedVersion, Serves};

use std::time::Duration;

use crate::client::{Call, ClusterClient, Reply};
use crate::error::RequestError;
use lockstep_engine::outcome::{Operation, Sensitivity};

/// How often to ask when nothing else says that something changed.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(30);

/// Aggregated discovery first, newest form first; a server that knows neither sends the last.
const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// Discovery of one cluster, with what it remembers between refreshes.
#[derive(Debug)]
pub struct Discovery {
    client: ClusterClient,
    served: Served,
    /// Of `/api` and `/apis`, where the server gives them.
    etags: [Option<String>; 2],
    /// What `/api` and `/apis` said last, in aggregated form.
    parts: [Option<Served>; 2],
}

/// What a refresh brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// The same as before.
    Same,
    /// Something was added, removed, changed, or became known or unknown.
    Changed,
}

impl Discovery {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(client: ClusterClient) -> Self {
        Self { client, served: Served::default(), etags: [None, None], parts: [None, None] }
    }

    /// What the latest [`Self::refresh`] found.
    #[must_use]
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// Asks again. Cheap where nothing changed and the server offers ETags (1.27 and newer). Call it
    /// every [`REFRESH_INTERVAL`], and on events of CustomResourceDefinitions and APIServices.
    ///
    /// # Errors
    /// When the server cannot be asked at all; what was known before stays.
    pub async fn refresh(&mut self) -> Result<Refreshed, RequestError> {
        let served = self.ask().await?;
        let changed = served.changed(&self.served);
        self.served = served;
        Ok(if changed { Refreshed::Changed } else { Refreshed::Same })
    }

    async fn ask(&mut self) -> Result<Served, RequestError> {
        let mut whole = Served::default();
        for (n, path) in ["/api", "/apis"].into_iter().enumerate() {
            let etag = self.etags.get(n).cloned().flatten();
            let mut call = Call::get(path);
            call.accept = ACCEPT;
            call.if_none_match = etag.as_deref();
            let reply = self.client.call(call).await?;
            let part = match self.parts.get(n) {
                Some(Some(known)) if reply.status == 304 => known.clone(),
                _ => {
                    let read = self.read(n == 0, &reply).await?;
                    if let (Some(etag), Some(part)) = (self.etags.get_mut(n), self.parts.get_mut(n)) {
                        // A partial answer must be asked again even if its ETag stays.
                        let keep = read.1 && read.0.partial.is_empty();
                        *etag = reply.etag.clone().filter(|_| keep);
                        *part = keep.then(|| read.0.clone());
                    }
                    read.0
                }
            };
            whole.merge(part);
        }
        whole.finish();
        Ok(whole)
    }

    /// An answer of `/api` or `/apis` and whether it was aggregated.
    async fn read(&self, core: bool, reply: &Reply) -> Result<(Served, bool), RequestError> {
        let what = if core { "/api" } else { "/apis" };
        if !reply.is_success() {
            let failure = Box::new(reply.failure(Operation::List, Sensitivity::Plain));
            return Err(RequestError::Refused { what, failure });
        }
        if let Some(served) = aggregated::parse(&reply.body, what)? {
            return Ok((served, true));
        }
        let served = legacy::discover(&self.client, core, &reply.body, what).await?;
        Ok((served, false))
    }
}

impl ClusterClient {
    /// What the server serves, asked once. To keep up with changes, keep a [`Discovery`].
    ///
    /// # Errors
    /// When the server cannot be asked at all.
    pub async fn discover(&self) -> Result<Served, RequestError> {
        let mut discovery = Discovery::new(self.clone());
        discovery.refresh().await?;
        Ok(discovery.served)
    }
}

#[cfg(test)]
mod tests;
