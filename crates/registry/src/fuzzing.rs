//! Parts that nobody else may use, for the properties that fuzzing checks (crate `properties`).

use std::path::{Path, PathBuf};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};

/// The challenges in one `WWW-Authenticate` header: schemes, each with its parameters.
pub fn challenges(header: &[u8]) -> Vec<(String, Vec<(String, String)>)> {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(header) {
        headers.append(WWW_AUTHENTICATE, value);
    }
    let challenges = crate::auth::challenges(&headers).into_iter();
    challenges.map(|c| (c.scheme, c.params)).collect()
}

/// The files that a `hosts.toml` in `dir` names for `domain`.
///
/// # Errors
/// It can't be read.
pub fn hosts_toml(text: &str, dir: &Path, domain: &str) -> Result<Vec<PathBuf>, String> {
    let section = crate::http::tls::hosts_toml::parse(text, dir, domain, &[])?;
    let clients = section.clients.into_iter();
    let clients = clients.flat_map(|(certificate, key)| [Some(certificate), key]);
    Ok(section.ca.into_iter().chain(clients.flatten()).collect())
}
