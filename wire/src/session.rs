//! The session between an agent and its hub, as two state machines without a socket.
//!
//! The agent numbers its batches and keeps each until the hub has acknowledged it; an ack means
//! committed (I1). A connection may break at any point: whoever comes back with the same instance
//! sends again what was not committed, in order, and the hub acknowledges a number that it already
//! holds without applying it again. If the hub does not know the instance, the agent forgets
//! everything and starts where the hub tells it to.

mod agent;
mod hub;

use crate::Protocols;

pub use agent::{AgentEffect, AgentSession, Compared, Opened, Resumed, SecretKey};
pub use hub::{HubEffect, HubSession};

/// How much may be under way without an acknowledgement. One batch is always allowed, however
/// large, or an object bigger than the window would stop everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bytes of encoded batches.
    pub bytes: u64,
    /// Batches.
    pub batches: u32,
}

impl Default for Window {
    /// 8 MiB in at most 64 batches: enough to keep a commit of the hub's store busy while the next
    /// ones travel, small enough for a thousand agents at once.
    fn default() -> Self {
        Self { bytes: 8 << 20, batches: 64 }
    }
}

impl Window {
    /// Bytes that may be added to what is under way; none when it is used up.
    #[must_use]
    pub fn room(&self, bytes: u64, batches: usize) -> Option<u64> {
        if batches == 0 {
            return Some(self.bytes.max(1));
        }
        let free = self.bytes.saturating_sub(bytes);
        (free > 0 && batches < self.batches as usize).then_some(free)
    }
}

/// The other side does not keep to the protocol, or knows another past than we do. The stream is
/// closed; an agent goes on as a new instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Something came before the greeting.
    #[error("a message came before the greeting")]
    BeforeGreeting,
    /// A second Hello or Welcome.
    #[error("a second greeting")]
    SecondGreeting,
    /// The hub chose a protocol that we do not speak.
    #[error("the hub chose protocol {chosen}, this agent speaks {ours}")]
    Version {
        /// What the hub chose.
        chosen: u32,
        /// What we offered.
        ours: Protocols,
    },
    /// The hub's key for digests of Secrets is not 32 bytes long.
    #[error("the welcome's secret_key has {0} bytes instead of 32")]
    SecretKey(usize),
    /// An ack for something that was never sent.
    #[error("ack of {sequence}, the last batch sent is {sent}")]
    AckAhead {
        /// What was acknowledged.
        sequence: u64,
        /// The last number sent.
        sent: u64,
    },
    /// The hub lost batches that it had acknowledged: its store was restored from a backup.
    #[error("the hub holds batches up to {committed}, but acknowledged up to {acked}")]
    HubBehind {
        /// What it says it holds.
        committed: u64,
        /// What it acknowledged before.
        acked: u64,
    },
    /// A batch is missing.
    #[error("batch {got} came where {expected} was due")]
    Gap {
        /// The number due.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// More was sent than the window allows.
    #[error("the window of {bytes} bytes and {batches} batches was exceeded")]
    WindowExceeded {
        /// Of the window.
        bytes: u64,
        /// Of the window.
        batches: u32,
    },
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
