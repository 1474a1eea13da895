//! A link to a server far away: each connection has its own limit, and every byte takes its time.
//!
//! It passes bytes on as they are, whatever they mean. What is limited is the way back, from the server to the
//! client, as it is for who downloads.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::background;

/// Bytes that are passed on at once. Small, so that the pace is even.
const CHUNK: usize = 32 * 1024;
/// Chunks that are under way at most; more than a connection can have at these rates.
const UNDER_WAY: usize = 64;

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// What each connection brings from the server, in bytes per second.
    pub rate: u64,
    /// From a question to the first byte of its answer, and once more to connect.
    pub round_trip: Duration,
}

/// The near end of a link, on a port of 127.0.0.1. Dropping it cuts all of its connections.
pub struct SlowLink {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl SlowLink {
    /// Leads to a server.
    pub fn start(server: SocketAddr, link: Link) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let _guard = background::handle().enter();
        let listener = TcpListener::from_std(listener)?;
        let accepting = background::handle().spawn(accept(listener, server, link));
        Ok(Self { address, accepting })
    }

    /// Where a client connects to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, link: Link) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            // Either end may go at any time.
            let _ = connect(client, server, link).await;
        });
    }
}

async fn connect(client: TcpStream, server: SocketAddr, link: Link) -> std::io::Result<()> {
    tokio::time::sleep(link.round_trip).await;
    let server = TcpStream::connect(server).await?;
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let one_way = link.round_trip / 2;
    tokio::try_join!(
        pass(from_client, to_server, one_way, None),
        pass(from_server, to_client, one_way, Some(link.rate)),
    )?;
    Ok(())
}

/// Hands on what comes, each chunk when it has been under way for `one_way`, and not faster than `rate`.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    one_way: Duration,
    rate: Option<u64>,
) -> std::io::Result<()> {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async move {
        loop {
            let mut chunk = vec![0; CHUNK];
            let length = from.read(&mut chunk).await?;
            chunk.truncate(length);
            let is_end = chunk.is_empty();
            let arrives = Instant::now() + one_way;
            if is_end || sender.send((arrives, chunk)).await.is_err() {
                return std::io::Result::Ok(());
            }
        }
    };
    let write = async move {
        // By the clock and not by sleeps: what one sleep is too long the next is shorter.
        let mut free = Instant::now();
        while let Some((arrives, chunk)) = under_way.recv().await {
            free = free.max(arrives);
            tokio::time::sleep_until(free).await;
            if let Some(rate) = rate {
                let nanos = chunk.len() as u128 * 1_000_000_000 / u128::from(rate.max(1));
                free += Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            }
            to.write_all(&chunk).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn every_byte_comes_and_none_too_early() {
        let link = Link {
            rate: 4 << 20,
            round_trip: Duration::from_millis(20),
        };
        let slow = SlowLink::start(echo().await, link).unwrap();
        let sent: Vec<u8> = (0..1_u32 << 20).map(|n| (n % 251) as u8).collect();
        let started = Instant::now();
        let mut stream = TcpStream::connect(slow.address()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let write = async {
            writer.write_all(&sent).await?;
            writer.shutdown().await
        };
        let mut received = Vec::new();
        let (written, read) = tokio::join!(write, reader.read_to_end(&mut received));
        written.unwrap();
        read.unwrap();
        assert!(received == sent);
        // A busy machine makes it slower, never faster: a quarter of a second, and two round trips.
        let least = Duration::from_millis(240 + 2 * 20);
        assert!(started.elapsed() >= least, "{:?}", started.elapsed());
    }
}
