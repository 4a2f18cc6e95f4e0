//! Figures of the front door, by port.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::life::Overdue;
use crate::limits::Port;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabel {
    port: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabel {
    port: &'static str,
    reason: &'static str,
}

/// Why the hub or agent closed a connection or did not take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Every place was in use.
    Full,
    /// A newcomer took its place.
    Displaced,
    /// TLS was not agreed on.
    HandshakeFailed,
    /// The TLS handshake did not end in time.
    HandshakeTimeout,
    /// It lived too long in one of its stages.
    Overdue(Overdue),
    /// It was open when the process stopped, and did not end in time.
    Stopped,
}

impl Closed {
    fn reason(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Displaced => "displaced",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Overdue(Overdue::FirstRequest) => "no_request",
            Self::Overdue(Overdue::Idle) => "idle",
            Self::Overdue(Overdue::Stalled) => "stalled",
            Self::Overdue(Overdue::Aged) => "aged",
            Self::Stopped => "stopped",
        }
    }
}

/// The metrics of all ports of a process. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct PortMetrics {
    open: Family<PortLabel, Gauge>,
    accepted: Family<PortLabel, Counter>,
    closed: Family<EndLabel, Counter>,
    pauses: Family<PortLabel, Counter>,
}

impl PortMetrics {
    /// Makes them and registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let Self { open, accepted, closed, pauses } = Self::default();
        registry.register("lockstep_port_connections_open", "connections that are open", open.clone());
        registry.register("lockstep_port_connections_accepted", "connections taken", accepted.clone());
        let help = "connections refused, displaced or closed by a limit, by reason";
        registry.register("lockstep_port_connections_closed", help, closed.clone());
        let help = "pauses in accepting because the process had no descriptors left";
        registry.register("lockstep_port_accept_pauses", help, pauses.clone());
        Self { open, accepted, closed, pauses }
    }

    pub(crate) fn opened(&self, port: Port) {
        let port = PortLabel { port: port.name() };
        self.accepted.get_or_create(&port).inc();
        self.open.get_or_create(&port).inc();
    }

    pub(crate) fn ended(&self, port: Port) {
        self.open.get_or_create(&PortLabel { port: port.name() }).dec();
    }

    pub(crate) fn closed(&self, port: Port, why: Closed) {
        self.closed.get_or_create(&EndLabel { port: port.name(), reason: why.reason() }).inc();
    }

    pub(crate) fn paused(&self, port: Port) {
        self.pauses.get_or_create(&PortLabel { port: port.name() }).inc();
    }

    /// How many connections were closed for that reason.
    #[must_use]
    pub fn count_closed(&self, port: Port, why: Closed) -> u64 {
        self.closed.get_or_create(&EndLabel { port: port.name(), reason: why.reason() }).get()
    }
}
