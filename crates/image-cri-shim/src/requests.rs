//! What the running shim can be asked over its own socket, as JSON. Where nothing else stands here, the answers are
//! `telemetry::report`'s.

use serde::{Deserialize, Serialize};

/// Asks for a [`telemetry::report::Status`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct StatusRequest {
    /// How many decisions it should have.
    #[serde(default)]
    pub(crate) decisions: Option<usize>,
}

impl StatusRequest {
    pub(crate) const METHOD: &str = "Status";
}

/// Asks for decisions.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct HistoryRequest {
    /// About this image only.
    #[serde(default)]
    pub(crate) image: Option<String>,
}

impl HistoryRequest {
    pub(crate) const METHOD: &str = "History";
}

/// Asks for an [`telemetry::report::Explanation`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExplainRequest {
    /// The image.
    pub(crate) image: String,
    /// Whether registries may be asked.
    pub(crate) probe: bool,
}

impl ExplainRequest {
    pub(crate) const METHOD: &str = "Explain";
}

/// Asks the shim to let the program that stands in the place of its own by now take over. The answer is a
/// [`HandOverAnswer`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct HandOverRequest {
    /// The process that systemd looks after: only that one is meant.
    #[serde(default)]
    pub(crate) main_pid: Option<u32>,
}

impl HandOverRequest {
    pub(crate) const METHOD: &str = "HandOver";
}

/// A process has taken over.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandOverAnswer {
    /// Its process ID.
    pub(crate) pid: u32,
    /// Its version.
    pub(crate) version: String,
    /// The process that it has taken over from, which ends with its last call.
    pub(crate) from: u32,
}
