//! The only crate that talks to a Kubernetes API server: discovery, list-watch, writer.
//!
//! A shell: what to do next and what an answer means is decided in `lockstep_engine`
//! ([`lockstep_engine::listwatch`], [`lockstep_engine::outcome`], [`lockstep_engine::ownership`]);
//! here requests are built, sent and read. Everything works with Kubernetes 1.20 and newer.
//!
//! Architecture invariant: no typed Kubernetes objects. Bodies are bytes; members run versions that
//! no one schema covers.

mod body;
mod client;
mod connect;
mod discovery;
mod error;
mod frame;
mod lease;
mod page;
mod resource;
mod watch;
mod writer;
mod yaml;

/// Bodies in this crate's interface.
pub use bytes::Bytes;
/// Ends a [`run_watch`].
pub use tokio_util::sync::CancellationToken;

pub use client::{ClusterClient, ClusterIdentity, Limits, Reply};
pub use connect::{ConnectError, Contexts, contexts, from_kubeconfig, in_cluster};
pub use discovery::{
    Discovery, PartialFailure, REFRESH_INTERVAL, Refreshed, Served, ServedKind, ServedVersion, Serves,
};
pub use error::RequestError;
pub use frame::{Frame, FrameError, LineSplitter, frame};
pub use lease::{LeaseState, LeaseWrite};
pub use page::{ListPage, PageError, page};
pub use resource::{Resource, Scope};
pub use watch::{WatchOptions, run_watch};
pub use writer::{
    Applied, ApplyPlan, ApplyReport, Contents, ContentsItem, CreatedNamespace, DeletePlan, Deleted, Expect,
    Foreign, LastApplied, Live, Outcome, Probed, ReleasePlan, Released, RestoreExpect, RestorePlan, Restored,
    Retracted, Undo, Writer,
};
pub use yaml::yaml_safe;
