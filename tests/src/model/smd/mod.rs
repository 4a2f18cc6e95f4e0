//! Structured merge and diff: schema, field sets, walks, field managers. Pure functions of values.

pub(crate) mod fields;
pub mod generate;
pub(crate) mod managed;
pub(crate) mod schema;
pub(crate) mod typed;
