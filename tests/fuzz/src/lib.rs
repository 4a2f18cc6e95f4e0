//! Fuzz targets for everything that reads bytes from outside.
//!
//! One function per kind of bytes. Each feeds them to the code that reads them in production and asserts the laws
//! that must hold whatever they are; a broken law panics. `tests/replay.rs` runs the corpus and a bounded number of
//! mutations of it as ordinary tests, `libfuzzer/` runs the same functions under libFuzzer (`make fuzz`).
//!
//! Architecture invariant: a target depends on nothing but its bytes, so that an input that broke a law once breaks
//! it again.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken law ends the run")]

mod archive;
mod config;
mod credentials;
mod fields;
mod hub;
mod input;
mod marks;
pub mod mutate;
mod page;
mod patterns;
mod policy;
mod secrecy;
mod session;
mod status;
mod watch;

pub use archive::archive_file;
pub use config::hub_config;
pub use credentials::credentials;
pub use fields::field_sets;
pub use hub::hub_core;
pub use marks::marks;
pub use page::list_pages;
pub use patterns::patterns;
pub use policy::policy_yaml;
pub use session::agent::agent_session;
pub use session::hub::hub_session;
pub use status::server_status;
pub use watch::watch_lines;
