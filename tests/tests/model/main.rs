//! The model of an API server: held against a real one, and served over HTTP.

mod agents;
mod conformance;
mod in_step;
mod schema;
mod server;
