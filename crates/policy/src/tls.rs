//! How an entry of the config wants its host's certificate checked.

use std::path::PathBuf;

/// TLS options of one configured entry. The default says nothing: the system's roots and what the
/// runtime itself is told about the host apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsOptions {
    /// PEM file with CAs to trust on top of the system's.
    pub ca_file: Option<PathBuf>,
    /// Accept any certificate. The operator's explicit choice, never a default.
    pub insecure_skip_verify: bool,
    /// Speak plain HTTP where nobody speaks TLS: what CRI-O does for a host with `insecure = true` in its
    /// registries.conf. No option of ours says so, and no credentials are sent that way.
    pub or_plain: bool,
}
