//! Harness for real control planes, end-to-end tests, simulation, benchmarks.
//!
//! [`testbed`] runs real API servers, [`cluster`] talks to them, [`harness`] is what a test needs around that.
//! Tests never start control planes of their own unless they break them on purpose: they take the shared ones by
//! [`testbed::Testbed::from_env`] and work in a [`harness::TestNamespace`].

pub mod chaos;
pub mod cluster;
pub mod conditions;
pub mod deploy;
pub mod harness;
pub mod identity;
pub mod in_step;
pub mod load;
pub mod lockstep;
pub mod model;
pub mod patience;
pub mod proxy;
pub mod requests;
pub mod scene;
pub mod siege;
pub mod testbed;
pub mod webhook;
