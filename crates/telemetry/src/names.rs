//! Names that metrics and their labels share.

/// What all our metrics' names begin with.
pub(crate) const PREFIX: &str = "image_cri_shim";
/// Content type of OpenMetrics text.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Label of what no registry of the config served.
pub const ORIGIN: &str = "origin";
/// Label of a resolution that found the image nowhere.
pub const NONE: &str = "none";
