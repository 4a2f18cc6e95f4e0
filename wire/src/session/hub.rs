//! The hub's side of the session.

use lockstep_engine::guard::{self, Guard};
use prost::Message as _;
use std::collections::VecDeque;

use super::{ProtocolError, Window};
use crate::v1::{
    Ack, AgentMessage, Batch, Deleters, Heartbeat, Hello, HubMessage, Outcome, Served, Welcome,
    agent_message::Body, hub_message,
};

/// What the owner of the session is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum HubEffect {
    /// Commit this, with its checkpoints and its number, in one transaction; then call
    /// [`HubSession::committed`].
    Commit {
        /// The next batch in order.
        batch: Batch,
        /// Its encoded size.
        bytes: u64,
    },
    /// Send this to the agent.
    Send(HubMessage),
    /// What the cluster serves.
    Served(Served),
    /// What came of a step.
    Outcome(Outcome),
    /// The agent lives.
    Heartbeat(Heartbeat),
    /// Who asked for deletes.
    Deleters(Deleters),
    /// A message of a kind that this version does not have was left out. Told once in a session.
    Unknown,
}

/// One stream of one agent, after its [`Hello`] was accepted ([`crate::hello::check`]).
#[derive(Clone, Debug)]
pub struct HubSession {
    protocol: u32,
    same_instance: bool,
    window: Window,
    committed: u64,
    received: u64,
    /// Sizes of the batches between `committed` and `received`.
    outstanding: VecDeque<u64>,
    outstanding_bytes: u64,
    told_of_unknown: bool,
}

impl HubSession {
    /// A session for an agent that said `hello`, in the version that [`crate::hello::check`] found. `stored` is the instance whose batches the store
    /// holds for this cluster, and the number of the last one.
    #[must_use]
    pub fn open(hello: &Hello, protocol: u32, stored: Option<(&str, u64)>, window: Window) -> Self {
        // An agent that can no longer send what comes next after our last commit has a future that
        // we never saw: it must start anew.
        let resumable = |committed: u64| {
            !guard::on(Guard::AgentAheadOfHub)
                || hello.oldest_unacked == 0
                || hello.oldest_unacked <= committed + 1
        };
        let committed = stored
            .filter(|(instance, committed)| *instance == hello.instance && resumable(*committed))
            .map(|(_, committed)| committed);
        Self {
            protocol,
            same_instance: committed.is_some(),
            window,
            committed: committed.unwrap_or(0),
            received: committed.unwrap_or(0),
            outstanding: VecDeque::new(),
            outstanding_bytes: 0,
            told_of_unknown: false,
        }
    }

    /// The welcome to send. `facts` gives what the shell knows (names, session, clock, key);
    /// protocol, numbers and window are filled in here.
    #[must_use]
    pub fn welcome(&self, facts: Welcome) -> HubMessage {
        let welcome = Welcome {
            protocol: self.protocol,
            same_instance: self.same_instance,
            committed: self.committed,
            window_bytes: self.window.bytes,
            window_batches: self.window.batches,
            ..facts
        };
        HubMessage { body: Some(hub_message::Body::Welcome(welcome)) }
    }

    /// The version of this session: what it does not have is not sent.
    #[must_use]
    pub fn protocol(&self) -> u32 {
        self.protocol
    }

    /// Does the agent go on where it was? If not, its watches need their Resume again.
    #[must_use]
    pub fn same_instance(&self) -> bool {
        self.same_instance
    }

    /// Takes a message of the agent.
    ///
    /// # Errors
    /// When the agent does not keep to the protocol: close the stream.
    pub fn handle(&mut self, message: AgentMessage) -> Result<Option<HubEffect>, ProtocolError> {
        let Some(body) = message.body else {
            let first = !std::mem::replace(&mut self.told_of_unknown, true);
            return Ok(first.then_some(HubEffect::Unknown));
        };
        match body {
            Body::Hello(_) => Err(ProtocolError::SecondGreeting),
            Body::Served(served) => Ok(Some(HubEffect::Served(served))),
            Body::Outcome(outcome) => Ok(Some(HubEffect::Outcome(outcome))),
            Body::Heartbeat(heartbeat) => Ok(Some(HubEffect::Heartbeat(heartbeat))),
            Body::Deleters(deleters) => Ok(Some(HubEffect::Deleters(deleters))),
            Body::Batch(batch) => self.batch(batch),
        }
    }

    /// Everything up to `sequence` is committed: the ack to send, if that is news.
    pub fn committed(&mut self, sequence: u64) -> Option<HubMessage> {
        let sequence = sequence.min(self.received);
        if sequence <= self.committed {
            return None;
        }
        while self.committed < sequence {
            self.committed += 1;
            self.outstanding_bytes -= self.outstanding.pop_front().unwrap_or(0);
        }
        Some(self.ack())
    }

    /// Bytes of batches that were received and not yet committed.
    #[must_use]
    pub fn outstanding_bytes(&self) -> u64 {
        self.outstanding_bytes
    }

    /// Batches that were received and not yet committed.
    #[must_use]
    pub fn outstanding_batches(&self) -> usize {
        self.outstanding.len()
    }

    fn batch(&mut self, batch: Batch) -> Result<Option<HubEffect>, ProtocolError> {
        if batch.sequence <= self.committed {
            return Ok(Some(HubEffect::Send(self.ack())));
        }
        if batch.sequence <= self.received {
            // Under way to the store; its ack follows.
            return Ok(None);
        }
        let expected = self.received + 1;
        if batch.sequence != expected {
            return Err(ProtocolError::Gap { expected, got: batch.sequence });
        }
        if self.window.room(self.outstanding_bytes, self.outstanding.len()).is_none() {
            let Window { bytes, batches } = self.window;
            return Err(ProtocolError::WindowExceeded { bytes, batches });
        }
        let bytes = batch.encoded_len() as u64;
        self.received = expected;
        self.outstanding.push_back(bytes);
        self.outstanding_bytes += bytes;
        Ok(Some(HubEffect::Commit { batch, bytes }))
    }

    fn ack(&self) -> HubMessage {
        HubMessage { body: Some(hub_message::Body::Ack(Ack { sequence: self.committed })) }
    }
}
