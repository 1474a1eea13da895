//! `image-cri-shim cache` as a process of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::process::{Process, log_to, tail};
use crate::wait;

/// A running cache in a directory of its own. Dropping it kills it and deletes the directory.
pub struct NodeCache {
    binary: PathBuf,
    address: SocketAddr,
    variables: Vec<(String, String)>,
    process: Option<Process>,
    /// Last, so that the process is gone when the directory goes.
    dir: TempDir,
}

impl NodeCache {
    /// Starts a cache on a free port of 127.0.0.1 and returns when it answers. `config` is the file without
    /// `nodeCache`.
    pub async fn start(binary: &Path, config: &str) -> Result<Self> {
        Self::start_in(binary, config, &std::env::temp_dir()).await
    }

    /// The same, with its directory below `parent`.
    pub async fn start_in(binary: &Path, config: &str, parent: &Path) -> Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = free.local_addr()?;
        drop(free);
        let dir = tempfile::Builder::new()
            .prefix("testkit-cache-")
            .tempdir_in(parent)?;
        let mut cache = Self {
            binary: binary.to_owned(),
            address,
            variables: Vec::new(),
            process: None,
            dir,
        };
        let store = cache.dir.path().join("store");
        let text = format!(
            "{config}\nnodeCache:\n  listen: ['{address}']\n  dir: {}\n  metricsAddress: 'off'\n  minFree: 1Mi\n",
            store.display()
        );
        std::fs::write(cache.config_file(), text)?;
        cache.start_again().await?;
        Ok(cache)
    }

    /// Sets a variable of its environment, from its next start on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it again after [`NodeCache::stop`], with what it has stored.
    pub async fn start_again(&mut self) -> Result<()> {
        let log = self.log_file();
        let (file, socket) = (self.config_file(), self.command_socket());
        let variables = self.variables.iter().cloned();
        let mut process = Process::spawn(&self.binary, |command| {
            command
                .args(["cache", "--log-format", "text", "--file"])
                .arg(file)
                .arg("--socket")
                .arg(socket);
            // The developer's own cluster is none of its business.
            command.env("KUBECONFIG", "/nonexistent");
            command.env("HOME", "/nonexistent");
            command.envs(variables);
            if let Err(error) = log_to(command, &log) {
                eprintln!("testkit: {error:#}");
            }
        })?;
        let address = self.address;
        let answers = wait::within(wait::TIMEOUT, || {
            let ended = process.ended();
            async move {
                match ended {
                    Some(status) => Some(Err(status)),
                    None => TcpStream::connect(address).await.ok().map(|_| Ok(())),
                }
            }
        });
        match answers.await {
            Some(Ok(())) => {
                self.process = Some(process);
                Ok(())
            }
            Some(Err(status)) => bail!("the cache ended with {status}:\n{}", tail(&log)),
            None => bail!("the cache does not answer:\n{}", tail(&log)),
        }
    }

    /// Ends it as a service manager does. Its content and its port stay.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let status = process.terminate().await?;
            if !status.success() {
                bail!("the cache ended with {status}:\n{}", tail(&self.log_file()));
            }
        }
        Ok(())
    }

    /// SIGKILL. Its content and its port stay.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it answers its commands.
    #[must_use]
    pub fn command_socket(&self) -> PathBuf {
        self.dir.path().join("commands.sock")
    }

    /// Its config.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("config.yaml")
    }

    /// The directory that all of it is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// All that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}
