//! A wire that can be cut, swallow everything, or be slow: a TCP proxy on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::faults::Trouble;

/// Bytes moved at once.
const CHUNK: usize = 8 << 10;
/// What a slow wire adds to each chunk: 80 KiB/s, and the latency of another continent.
const SLOWNESS: Duration = Duration::from_millis(100);

/// What a wire does now; `None`: it works.
type Mode = watch::Receiver<Option<Trouble>>;

/// One proxy. Ends when dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    mode: watch::Sender<Option<Trouble>>,
}

impl Link {
    /// Listens on a free port of the loopback and forwards to another.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn open(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("opening a proxy's port")?;
        let address = listener.local_addr()?;
        let (mode, receiver) = watch::channel(None);
        tokio::spawn(accept(listener, upstream, receiver));
        Ok(Self { address, mode })
    }

    /// Where to connect instead.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does from now on; none: it works.
    pub fn set(&self, mode: Option<Trouble>) {
        self.mode.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, mut mode: Mode) {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                tokio::spawn(serve(client, upstream, mode.clone()));
            }
            changed = mode.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn serve(mut client: TcpStream, upstream: SocketAddr, mut mode: Mode) {
    // What was connected into a black hole is connected on when that ends.
    if until(&mut mode, |mode| mode != Some(Trouble::BlackHole)).await == Some(Trouble::Cut) {
        return reset(&client);
    }
    let Ok(mut server) = TcpStream::connect(upstream).await else { return reset(&client) };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let was_cut = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let (to, from) = (mode.clone(), mode.clone());
        let both = async {
            tokio::join!(pump(client_read, server_write, to), pump(server_read, client_write, from))
        };
        tokio::select! {
            _ = both => false,
            _ = until(&mut mode, |mode| mode == Some(Trouble::Cut)) => true,
        }
    };
    if was_cut {
        reset(&client);
        reset(&server);
    }
}

/// Moves bytes one way until that way is closed. In a black hole they wait in the kernel's buffers, as they would
/// wait in the sender's for an acknowledgement.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut mode: Mode) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(count) = from.read(&mut buffer).await {
        match until(&mut mode, |mode| mode != Some(Trouble::BlackHole)).await {
            Some(Trouble::Slow) => tokio::time::sleep(SLOWNESS).await,
            Some(Trouble::Cut) => return,
            Some(Trouble::BlackHole) | None => {}
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Waits until the mode is such; also for ever, when the link has been dropped and this end is to be aborted.
async fn until(mode: &mut Mode, wanted: impl Fn(Option<Trouble>) -> bool) -> Option<Trouble> {
    match mode.wait_for(|mode| wanted(*mode)).await {
        Ok(mode) => *mode,
        Err(_) => Some(Trouble::Cut),
    }
}

/// The other end gets a reset instead of an orderly end when the socket is closed next.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        Ok(address)
    }

    async fn ask(stream: &mut TcpStream) -> Result<()> {
        stream.write_all(b"ping").await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"ping");
        Ok(())
    }

    #[tokio::test]
    async fn a_link_passes_swallows_and_cuts() -> Result<()> {
        let link = Link::open(echo().await?).await?;
        let mut stream = TcpStream::connect(link.address()).await?;
        ask(&mut stream).await?;

        link.set(Some(Trouble::BlackHole));
        let swallowed = tokio::time::timeout(Duration::from_millis(50), ask(&mut stream)).await;
        assert!(swallowed.is_err(), "nothing moves, and nothing fails");
        let mut second = TcpStream::connect(link.address()).await?;
        link.set(None);
        let mut late = [0; 4];
        stream.read_exact(&mut late).await?;
        ask(&mut second).await?;

        link.set(Some(Trouble::Cut));
        let error = stream.read_exact(&mut late).await.expect_err("the connection is gone");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        link.set(Some(Trouble::Slow));
        let mut third = TcpStream::connect(link.address()).await?;
        let began = std::time::Instant::now();
        ask(&mut third).await?;
        assert!(began.elapsed() >= SLOWNESS);
        Ok(())
    }
}
