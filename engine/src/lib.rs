//! The pure decision core of lockstep: identity, canonical form, deltas, ownership, diff, plan,
//! budget and status.
//!
//! Architecture invariant: nothing in this crate does I/O, reads a clock, draws randomness or
//! looks at the environment. `now` ([`Millis`]) and seeds are arguments. `tests/tests/repository/purity.rs`
//! reads `cargo metadata` and fails when a dependency breaks that.

pub mod acts;
pub mod advice;
pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod catalogue;
pub mod census;
pub mod clock;
pub mod coalesce;
pub mod concurrency;
pub mod deleters;
pub mod grace;
pub mod guard;
pub mod identity;
pub mod interest;
pub mod listwatch;
pub mod marks;
pub mod object;
pub mod outcome;
pub mod ownership;
pub mod plan;
pub mod reading;
pub mod relist;
pub mod restore;
pub mod retention;
pub mod rfc3339;
pub mod selector;
pub mod status;

pub use identity::{ClusterId, ClusterName, GroupKind, ObjectKey, ResourceVersion, Uid};

/// Milliseconds since the Unix epoch. Always an argument, never read here.
pub type Millis = i64;
