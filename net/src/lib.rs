//! The front door of every port that lockstep opens: hub and agent use it for all of theirs.
//!
//! A connection costs a descriptor, a task and some buffers before anybody has proven anything, so every stage
//! has a bound: how many there are ([`admission`]), how long each stage may take ([`life`]), and what happens at
//! shutdown ([`front`]). `admission` and `life` decide and have no effects; `front` moves bytes.
//!
//! Why it is built like this: docs/decisions/0020-front-door.md.

pub mod admission;
mod body;
pub mod descriptors;
pub mod front;
mod io;
pub mod life;
pub mod limits;
mod loopback;
pub mod metrics;
pub mod refusals;
pub mod tls;

pub use front::{Front, Peer};
pub use limits::{Limits, Port};
pub use loopback::is_loopback;
pub use metrics::PortMetrics;
pub use refusals::Refusals;
pub use tls::{ServerTls, TlsConfig, TlsError};
