//! How often things are looked at.

use std::sync::Arc;
use std::time::Duration;

/// `reloadInterval` of the config in force, asked for each time.
pub(crate) type Interval = Arc<dyn Fn() -> Duration + Send + Sync>;
