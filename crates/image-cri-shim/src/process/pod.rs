//! What a Pod is told about itself.

use std::path::Path;

/// Where a Pod is told its namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The namespace that this process is in: as the command line says, else `$POD_NAMESPACE`, else the service account's.
/// `None` where nobody says it.
pub(crate) fn namespace(told: Option<&str>) -> Option<String> {
    told.map(str::to_owned)
        .or_else(|| std::env::var("POD_NAMESPACE").ok())
        .or_else(|| std::fs::read_to_string(Path::new(NAMESPACE_FILE)).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
}
