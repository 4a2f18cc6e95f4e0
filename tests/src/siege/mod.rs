//! Hostile clients, for all ports of a hub: silent, slow, many, malformed, and huge ones.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// For one connect of many: what a full port does not take is not waited for.
const CONNECT: Duration = Duration::from_secs(2);

/// What a client sends before it falls silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Nothing.
    Silence,
    /// Part of the head of a request.
    HalfRequest,
    /// The first bytes of a TLS handshake.
    HalfHandshake,
    /// The preface of HTTP/2 and settings, and no request.
    Preface,
}

impl Opening {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Silence, Self::HalfRequest, Self::HalfHandshake, Self::Preface];

    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Silence => b"",
            Self::HalfRequest => b"GET /metrics HTTP/1.1\r\nHost: local",
            Self::HalfHandshake => &[0x16, 0x03, 0x01, 0x02, 0x00],
            Self::Preface => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        }
    }
}

/// Opens as many connections as the port takes, up to `count`.
pub async fn flood(address: &str, count: usize, opening: Opening) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        let Ok(Ok(mut stream)) = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await else {
            continue;
        };
        // One that is closed already is of no use to the attacker.
        if stream.write_all(opening.bytes()).await.is_ok() {
            open.push(stream);
        }
    }
    open
}

/// Waits until the other side has closed a connection.
///
/// # Errors
/// When it does not in time.
pub async fn closed(stream: &mut TcpStream, patience: Duration) -> Result<()> {
    let mut read = Vec::new();
    // A reset is an end, too.
    let _ =
        tokio::time::timeout(patience, stream.read_to_end(&mut read)).await.context("it is still open")?;
    Ok(())
}
