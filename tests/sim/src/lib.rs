//! Histories of whole fleets in virtual time: real agents and a real hub on models of API servers.
//!
//! A [`Plan`] is drawn from a seed: what users do in three clusters, and what breaks, when. [`run`] carries it out: the
//! agents' own tasks, the hub's core on its SQLite store, sessions and archiver run in one thread on a clock that jumps
//! to the next timer; only the network, the API servers and the archive's disk are models. Every write of an agent and
//! every commit of the hub is judged by the oracle against what really happened; then the faults end, and everything must be in step
//! and quiet. The same plan gives the same log, byte by byte. [`shrink`] takes away what a failure does not need.

mod acts;
mod agent;
mod archive;
mod builds;
mod closeup;
mod dice;
#[cfg(feature = "mutants")]
mod guards;
mod hub;
mod journal;
mod link;
mod log;
mod member;
mod objects;
mod oracle;
mod plan;
mod settle;
mod shrink;
mod signal;
mod world;

#[cfg(feature = "mutants")]
pub use guards::{Hunt, hunt};
pub use oracle::Counts;
pub use plan::Plan;
pub use shrink::{Shrunk, shrink};
pub use world::{Outcome, run};
