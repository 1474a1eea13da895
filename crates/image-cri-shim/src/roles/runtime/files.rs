//! The runtime's own files, which say more about each config.

use std::path::{Path, PathBuf};

use config::runtime::RuntimeConfig;
use policy::config::Settings;
use registry::CertsDirs;

use super::socket;

/// Reads the files of the runtime behind a socket anew for each config. What they need beside the config is
/// logged once, and again when it is something else.
pub(crate) struct RuntimeFiles {
    socket: PathBuf,
    warned: Vec<String>,
}

impl RuntimeFiles {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            warned: Vec::new(),
        }
    }

    /// The config as it is in front of the runtime.
    pub(crate) fn applied_to(&mut self, settings: Settings) -> Settings {
        let runtime = read(&self.socket);
        let warnings = runtime.warnings(&settings.rules);
        if warnings != self.warned {
            for warning in &warnings {
                tracing::warn!("runtime: {warning}");
            }
            self.warned = warnings;
        }
        runtime.applied_to(settings)
    }
}

/// What the files say of the runtime that a config is for; nothing where nobody knows which one that is.
pub(crate) fn of(settings: &Settings) -> RuntimeConfig {
    match socket::of(settings) {
        Ok(socket) => read(&socket),
        Err(_) => RuntimeConfig::default(),
    }
}

/// The socket of the runtime that a config is for, where somebody knows which one that is.
pub(crate) fn socket(settings: &Settings) -> Option<PathBuf> {
    socket::of(settings).ok()
}

/// What that runtime is told about hosts' certificates. Where nobody knows which one it is, as in a Pod that sees no
/// socket, it is taken to be a containerd as most nodes have it.
pub(crate) fn certs_dirs(settings: &Settings) -> CertsDirs {
    let socket = socket(settings);
    socket
        .as_deref()
        .map_or_else(CertsDirs::default, CertsDirs::of)
}

fn read(socket: &Path) -> RuntimeConfig {
    RuntimeConfig::read(Path::new("/"), socket)
}
