//! A way from a network of its own, as a [`Machine`](crate::systemd::Machine) may have one, to a server of this machine.

use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;

/// A folder with a socket `relay.sock`, to be mounted there: who connects to it talks with the server. Ends when it is
/// dropped. To be started on a tokio runtime.
pub struct Relay {
    dir: TempDir,
    task: JoinHandle<()>,
}

impl Relay {
    /// To a TCP address of this machine.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn to(address: String) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let listener =
            UnixListener::bind(dir.path().join("relay.sock")).context("listening for a relay")?;
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let address = address.clone();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(address).await?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
        Ok(Self { dir, task })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
