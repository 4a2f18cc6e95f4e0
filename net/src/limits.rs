//! The bounds of each port, with their reasons.

use std::time::Duration;

/// The ports that lockstep opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// The hub's, for sessions of agents: gRPC.
    Agents,
    /// The hub's HTTP API.
    Api,
    /// Metrics and probes, of hub and agent.
    Metrics,
    /// The agent's, for webhooks of its API server.
    Webhooks,
}

impl Port {
    /// The port in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Api => "api",
            Self::Metrics => "metrics",
            Self::Webhooks => "webhooks",
        }
    }
}

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1, one request after the other.
    Http1,
    /// HTTP/2 with at most so many streams of one connection at a time.
    Http2 {
        /// Streams at a time.
        streams: u32,
    },
}

/// What makes a connection one that is served, which no newcomer displaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedBy {
    /// A request whose head has arrived.
    Request,
    /// The service said so ([`crate::Peer::authenticated`]): it knows who is calling.
    Authentication,
}

/// Bounds of one port.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Protocol.
    pub speaks: Speaks,
    /// When a connection counts as served.
    pub served_by: ServedBy,
    /// Connections at a time.
    pub connections: usize,
    /// Of them, from one address (one /64 of IPv6).
    pub per_address: usize,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// From the start to the whole head of the first request, or to the authentication of its sender.
    pub first_request: Duration,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// From an answer to the whole head of the next request.
    pub idle: Duration,
    /// With a request under way and not one byte in either direction.
    pub stall: Duration,
    /// Of a connection, whatever it does. Up to a quarter is added, so that not all end together.
    pub max_age: Duration,
    /// From the request to stop to the end of every connection.
    pub drain: Duration,
}

/// One round trip to the other side of the world is 0.3 s; a handshake takes two of them and some milliseconds of CPU.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Clients speak at once. Twice the handshake, for a hub whose processor is busy with a reconnecting fleet.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// A head with a bearer token and a long selector is below 8 KiB; what proxies add is a few hundred bytes.
const HEADER_BYTES: usize = 16 << 10;
/// Above the scrape interval of Prometheus (60 s by default) and the period of kubelet's probes (10 s).
const IDLE: Duration = Duration::from_secs(90);
/// Above the longest time that a request of the API may take (30 s by default), in which the hub sends nothing.
const STALL: Duration = Duration::from_secs(75);
/// So that a certificate that was replaced, or a token that was taken back, does not live on in old connections.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Sessions are long on purpose: each new one compares indexes. Once a day is cheap.
const SESSION_MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// The process is to end within ten seconds of SIGTERM: half of them for what is open, half for the store.
pub const DRAIN: Duration = Duration::from_secs(5);

/// An agent has one session; a second stream is one that replaces it.
const STREAMS: u32 = 4;
/// Sessions of 1,000 clusters, several times over while a fleet reconnects.
const AGENTS: usize = 4096;
/// Fleets come from behind one NAT gateway, and tests from one loopback.
const AGENTS_PER_ADDRESS: usize = 2048;
/// People, scripts, `wait` and a dashboard; `kubectl port-forward` makes all of them one address.
const API: usize = 256;
/// Two Prometheus replicas and the kubelet have one each.
const METRICS: usize = 64;
/// Every replica of an API server keeps a few connections; through one proxy at worst.
const WEBHOOKS: usize = 128;
/// A port with fewer is of no use. Where descriptors are that scarce, accepting pauses.
const AT_LEAST: usize = 8;

impl Limits {
    /// The bounds of a port where all connections together may have `descriptors`.
    #[must_use]
    pub fn of(port: Port, descriptors: usize) -> Self {
        // Sixteenths of the descriptors: what agents need most, without taking from people and probes.
        let (most, sixteenths) = match port {
            Port::Agents => (AGENTS, 11),
            Port::Api => (API, 3),
            Port::Metrics | Port::Webhooks => (if port == Port::Metrics { METRICS } else { WEBHOOKS }, 1),
        };
        let connections = most.min(descriptors * sixteenths / 16).max(AT_LEAST);
        let agents = port == Port::Agents;
        Self {
            speaks: if agents { Speaks::Http2 { streams: STREAMS } } else { Speaks::Http1 },
            served_by: if agents { ServedBy::Authentication } else { ServedBy::Request },
            connections,
            per_address: if agents { AGENTS_PER_ADDRESS.min(connections) } else { connections },
            handshake: HANDSHAKE,
            first_request: FIRST_REQUEST,
            header_bytes: HEADER_BYTES,
            idle: IDLE,
            stall: STALL,
            max_age: if agents { SESSION_MAX_AGE } else { MAX_AGE },
            drain: DRAIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_of_a_process_share_its_descriptors() {
        let all = [Port::Agents, Port::Api, Port::Metrics, Port::Webhooks];
        for descriptors in [256, 832, 1 << 20] {
            let taken: usize = all.map(|port| Limits::of(port, descriptors).connections).iter().sum();
            assert!(taken <= descriptors, "{taken} of {descriptors}");
        }
        assert_eq!(Limits::of(Port::Agents, 1 << 20).connections, AGENTS);
        assert_eq!(Limits::of(Port::Metrics, 10).connections, AT_LEAST);
    }
}
