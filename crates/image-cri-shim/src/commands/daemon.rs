//! The running shim, seen from a command: asked over its own socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use config::ConfigError;
use cri::grpc::Code;
use cri::inspect;
use cri::upstream::{Upstream, UpstreamError};
use policy::config::Settings;
use serde::Serialize;
use serde::de::DeserializeOwned;
use telemetry::report::{Decision, Explanation, Status};
use tokio::runtime::Runtime;

use crate::commands::terminal;
use crate::requests::{
    ExplainRequest, HandOverAnswer, HandOverRequest, HistoryRequest, StatusRequest,
};

/// How long a shim that is well may take to answer. It asks the runtime meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Above what a running shim takes to hand over or to give that up.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the running shim gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    /// Nobody listens on the socket.
    #[error("no image-cri-shim runs at {}: {why}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the connect said.
        why: String,
    },
    /// Its socket is another user's.
    #[error("may not open {}; run this as root", socket.display())]
    Denied {
        /// The socket.
        socket: PathBuf,
    },
    /// Somebody listens there who doesn't have the shim's own service.
    #[error("what listens on {} is not this image-cri-shim, or an older one: {why}; is `shim` in the config the right socket?", socket.display())]
    NotOurs {
        /// The socket.
        socket: PathBuf,
        /// What it said.
        why: String,
    },
    /// It answered, but not with what was asked for.
    #[error("the image-cri-shim at {} failed: {why}", socket.display())]
    Failed {
        /// The socket.
        socket: PathBuf,
        /// What it said.
        why: String,
    },
}

/// The shim that listens on a socket. Connects when it is asked something.
pub(crate) struct Daemon {
    upstream: Upstream,
}

impl Daemon {
    /// The shim on `socket`.
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            upstream: Upstream::new(socket),
        }
    }

    /// Its state, with the last `decisions` decisions.
    pub(crate) async fn status(&self, decisions: usize) -> Result<Status, DaemonError> {
        let request = StatusRequest {
            decisions: Some(decisions),
        };
        self.ask(StatusRequest::METHOD, &request).await
    }

    /// Its decisions about `image`, or all that it has kept; newest first.
    pub(crate) async fn history(&self, image: Option<&str>) -> Result<Vec<Decision>, DaemonError> {
        let request = HistoryRequest {
            image: image.map(ToOwned::to_owned),
        };
        self.ask(HistoryRequest::METHOD, &request).await
    }

    /// What it would do with `image` now; with `probe`, after asking the registries.
    pub(crate) async fn explain(
        &self,
        image: &str,
        probe: bool,
    ) -> Result<Explanation, DaemonError> {
        let request = ExplainRequest {
            image: image.to_owned(),
            probe,
        };
        self.ask(ExplainRequest::METHOD, &request).await
    }

    /// Lets the program that stands in the place of its own by now take over. It may take some seconds, for which it has
    /// its own limits.
    pub(crate) async fn hand_over(
        &self,
        request: &HandOverRequest,
    ) -> Result<HandOverAnswer, DaemonError> {
        let asked = self.ask(HandOverRequest::METHOD, request);
        match tokio::time::timeout(HAND_OVER_TIMEOUT, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(self.failed(format!("no answer within {HAND_OVER_TIMEOUT:?}"))),
        }
    }

    /// Pulls `image` through it, as a kubelet does, without credentials of a Pod.
    pub(crate) async fn pull(&self, image: &str) -> Result<(), DaemonError> {
        match cri::pull_image(&self.upstream, image).await {
            Ok(status) if status.is_ok() => Ok(()),
            Ok(status) => Err(self.failed(status.message)),
            Err(error) => Err(self.not_running(&error)),
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        request: &impl Serialize,
    ) -> Result<T, DaemonError> {
        let message =
            serde_json::to_vec(request).map_err(|error| self.failed(error.to_string()))?;
        let answer = inspect::ask(&self.upstream, method, &message).await;
        let answer = answer.map_err(|error| self.not_running(&error))?;
        let json = answer.map_err(|status| match status.code {
            Code::UNIMPLEMENTED => DaemonError::NotOurs {
                socket: self.upstream.socket().to_owned(),
                why: status.message,
            },
            _ => self.failed(status.message),
        })?;
        serde_json::from_slice(&json).map_err(|error| DaemonError::NotOurs {
            socket: self.upstream.socket().to_owned(),
            why: format!("its answer can't be read: {error}"),
        })
    }

    fn not_running(&self, error: &UpstreamError) -> DaemonError {
        let socket = self.upstream.socket().to_owned();
        match error {
            UpstreamError::Connect { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                DaemonError::Denied { socket }
            }
            UpstreamError::Connect { source, .. } => DaemonError::NotRunning {
                socket,
                why: source.to_string(),
            },
            // It speaks no HTTP/2, or closed the connection.
            other => DaemonError::NotOurs {
                socket,
                why: other.to_string(),
            },
        }
    }

    fn failed(&self, why: String) -> DaemonError {
        DaemonError::Failed {
            socket: self.upstream.socket().to_owned(),
            why,
        }
    }
}

/// Where the shim listens that runs by the config `file`. A shim runs on when its file is gone: then it is looked for
/// where it listens without one, which is said.
///
/// # Errors
/// The file can't be read.
pub(crate) fn socket_by(file: &Path) -> anyhow::Result<PathBuf> {
    match config::file::shim_socket(file) {
        Err(ConfigError::Open { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            let socket = Settings::read("", &|_| None).0.shim_socket;
            terminal::say(&format!(
                "there is no config file {}; asking the shim at {}",
                file.display(),
                socket.display()
            ));
            Ok(socket)
        }
        found => Ok(found?),
    }
}

/// What the shim answers, unless it takes too long.
pub(crate) async fn ask<T>(
    asked: impl Future<Output = Result<T, DaemonError>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => {
            bail!("the image-cri-shim gives no answer within {ANSWER_TIMEOUT:?}; is it stuck?")
        }
    }
}

/// A runtime for a command that waits for one answer.
pub(crate) fn one_thread() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start an async runtime")
}
