//! What the running shim can be asked over its own socket, as JSON. The answers are `telemetry::report`'s.

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
