//! One image and what became of it.

use serde::Serialize;
use telemetry::report::{Explanation, NodeCacheImage};

/// One image that `resolve` was asked about. Its JSON is the explanation's, with what follows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Item {
    #[serde(flatten)]
    pub(crate) explanation: Explanation,
    /// Where it is named, if in a manifest: `shop.yaml:26: Deployment/web: spec.….image`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) named_at: Option<String>,
    /// What the node cache has of it; none where no cache answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node_cache: Option<NodeCacheImage>,
    /// How its pull ended, with `--pull`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pull: Option<Pull>,
}

/// How a pull ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pull {
    /// Whether the node has the image now.
    pub(crate) ok: bool,
    /// What it was pulled as, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// From which registry, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) registry: Option<String>,
    /// How long it took.
    pub(crate) elapsed_us: u64,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl Item {
    /// Whether all is well: with a pull, that it worked; without, that one would.
    pub(crate) fn is_good(&self) -> bool {
        match &self.pull {
            Some(pull) => pull.ok,
            None => {
                let report = &self.explanation;
                report.untouched.is_none() && report.available != Some(false)
            }
        }
    }
}
