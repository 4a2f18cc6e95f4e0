//! Protobuf messages and the session state machine that agent and hub share.
//!
//! Architecture invariant: the session part has no tokio, no clock and no randomness; the shells
//! move its messages. The gRPC stubs in [`v1`] are generated at build time without protoc.

pub mod budget;
pub mod codec;
mod failed;
pub mod hello;
mod item;
mod protocols;
pub mod resume;
pub mod session;

pub use hello::Refusal;
pub use protocols::Protocols;
pub use session::{
    AgentEffect, AgentSession, Compared, HubEffect, HubSession, ProtocolError, Resumed, SecretKey, Window,
};

/// Messages and gRPC stubs, generated from `proto/lockstep/v1/session.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("lockstep.v1");
}

/// Version of the session protocol. Hub and agent speak this one and the one before; a session uses the newest that both
/// speak ([`Protocols::common`]).
pub const PROTOCOL: u32 = 1;

/// Oldest protocol still spoken: the version before [`PROTOCOL`], once there is one.
pub const OLDEST_PROTOCOL: u32 = 1;

/// Largest message either side takes, in bytes: several times the API server's 1.5 MiB limit on an
/// object, and far above tonic's default of 4 MiB.
pub const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// What users may meet of this crate: (code, what it is about). Each has a page in docs/errors.
pub const CODES: &[(&str, &str)] = hello::CODES;
