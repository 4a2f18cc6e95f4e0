//! The hub: sessions, state store, planner driver, tombstone archive, HTTP API.
//!
//! Architecture invariant: everything that changes the hub's state goes through one owner thread
//! (`core`), which works in store transactions and hands out effects as values. The shells around
//! it (gRPC sessions, HTTP API, policy directory, archive) hold no state that matters.

pub mod archive;
pub mod backup;
pub mod blocking;
pub mod codes;
pub mod config;
pub mod core;
pub mod gate;
pub mod http;
pub mod listen;
mod load;
pub mod metrics;
pub mod owner;
pub mod policies_dir;
pub mod problem;
pub mod pulse;
mod redact;
pub mod restore;
pub mod retry;
pub mod run;
pub mod seal;
pub mod session;
pub mod settle;
pub mod space;
pub mod store;
pub mod tls;

/// What a test waits for happens within seconds on a busy machine. Only a failing test waits so long.
#[cfg(test)]
pub(crate) const TEST_PATIENCE: std::time::Duration = std::time::Duration::from_secs(300);

pub use config::HubConfig;
pub use run::{HubError, RunningHub, run};
