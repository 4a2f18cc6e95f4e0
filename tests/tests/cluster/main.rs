//! The crate `cluster` against real API servers.

mod in_step;
mod lease;
mod watch;
mod writer;
