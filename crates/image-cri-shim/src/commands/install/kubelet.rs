//! The running kubelet: whether it is well, and whether it goes through the shim.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::commands::daemon::one_thread;

/// How long one look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Kubelet's own word, on `address`.
///
/// # Errors
/// It does not listen, does not answer in time, or says that it is not well.
pub(super) fn healthz(address: SocketAddr) -> anyhow::Result<()> {
    one_thread()?.block_on(async {
        tokio::time::timeout(LOOK_TIMEOUT, ask(address))
            .await
            .with_context(|| {
                format!("kubelet gives no answer on {address} within {LOOK_TIMEOUT:?}")
            })?
    })
}

async fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("kubelet does not listen on {address}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .context("kubelet's /healthz speaks no HTTP")?;
    let request = Request::get("/healthz")
        .header(header::HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    // The connection is driven until the answer's head is there; more is not needed.
    let answer = tokio::select! {
        answer = sender.send_request(request) => answer,
        ended = connection => {
            ended.context("kubelet's /healthz broke off")?;
            anyhow::bail!("kubelet's /healthz closed the connection without an answer");
        }
    };
    let status = answer
        .context("kubelet's /healthz gave no answer")?
        .status();
    ensure!(status == StatusCode::OK, "kubelet says: {status}");
    Ok(())
}

/// Whether a connection to one of these sockets stands (unix(7): state 3 in `/proc/net/unix` is connected).
///
/// # Errors
/// The kernel's table can't be read.
pub(super) fn is_connected_to(sockets: [&str; 2]) -> anyhow::Result<bool> {
    let table = fs::read_to_string("/proc/net/unix").context("cannot read /proc/net/unix")?;
    Ok(table.lines().skip(1).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        matches!(fields.as_slice(), [_, _, _, _, _, "03", _, path] if sockets.contains(path))
    }))
}
