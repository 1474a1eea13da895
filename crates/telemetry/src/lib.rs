//! What was decided and counted, in the form in which people and programs are shown it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`report`] | a plan, its probes and its pulls as plain data: the one form that the log, `resolve`, `history`, `status` and the page share |
//! | [`exposition`] | which of the two text formats of metrics, and the way from one to the other |
//! | [`history`] | the last decisions, and those under way |
//! | [`live`] | metrics that are read when somebody looks |
//! | [`metrics`] | counters and histograms, in OpenMetrics text |
//!
//! Nothing here knows a credential: what is shown of one is where it stands.
//!
//! ```
//! use telemetry::Telemetry;
//!
//! let telemetry = Telemetry::new();
//! telemetry.metrics().call("ListImages", 0);
//! let text = telemetry.metrics().encode(Default::default());
//! assert!(text.contains(r#"image_cri_shim_calls_total{method="ListImages",code="OK"} 1"#));
//! ```

pub mod exposition;
pub mod history;
pub mod live;
pub mod metrics;
mod names;
pub mod report;

use std::sync::Arc;

use history::History;
use metrics::Metrics;

/// Metrics and history of one process. Cheap to clone; clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    metrics: Metrics,
    history: History,
}

impl Telemetry {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that counts nothing and keeps nothing, to measure beside one that does.
    pub fn off() -> Self {
        Self {
            shared: Arc::new(Shared {
                metrics: Metrics::off(),
                history: History::off(),
            }),
        }
    }

    /// Counters and histograms.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Decisions.
    pub fn history(&self) -> &History {
        &self.shared.history
    }
}
