//! The running kubelet: whether it is well, and whether it goes through the shim.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

use crate::commands::daemon::one_thread;

/// How long one look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Kubelet's own word, on `address`.
///
/// # Errors
/// It does not listen, does not answer in time, or says that it is not well.
pub(super) fn healthz(address: SocketAddr) -> anyhow::Result<()> {
    one_thread()?.block_on(async {
        tokio::time::timeout(LOOK_TIMEOUT, cluster::kubelet_healthz(address))
            .await
            .with_context(|| {
                format!("kubelet gives no answer on {address} within {LOOK_TIMEOUT:?}")
            })??;
        Ok(())
    })
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
