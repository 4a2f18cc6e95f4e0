//! A model of the Kubernetes API server: a state machine without socket, clock or randomness.
//!
//! [`ApiServer::handle`] takes a request and the time and gives a reply; [`ApiServer::poll`] asks an open watch;
//! [`ApiServer::tick`] lets the controllers take a step. The same requests at the same times give the same bytes. It
//! behaves as Kubernetes 1.20 does, and as newer versions where [`Config::version`] says so, in everything that
//! lockstep's correctness depends on; `tests/tests/model/conformance` compares it with a real API server, row by row.
//!
//! [`serve`] puts it behind HTTP on loopback, hundreds in one process, for agents and hub to run against unchanged.
//!
//! What it leaves out: admission plugins but those of namespaces, strategic merge patches, conversion between versions
//! of built-in kinds (one version of each is served), most validation, and every subresource but `status`.

mod access;
mod complete;
mod crd;
mod delete;
mod discovery;
mod faults;
mod http;
mod kinds;
mod lifecycle;
mod list;
mod patch;
mod quantity;
mod selector;
pub mod serve;
mod server;
mod smd;
mod status;
mod store;
mod strategy;
mod time;
mod users;
mod validate;
mod watch;
mod write;
mod yaml;

pub use access::{Forbid, ForbidId};
pub use faults::{Effect, Fault, FaultId, Matcher};
pub use http::{Answer, Polled, Reply, Request, Response, WatchId};
pub use server::{ApiServer, Changed, Config, Millis, Restore, Snapshot};
pub use smd::generate;
