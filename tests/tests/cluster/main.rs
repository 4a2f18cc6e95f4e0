//! The crate `cluster` against real API servers.

mod lease;
mod watch;
mod writer;
