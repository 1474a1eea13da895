//! One HTTP request: connections, TLS, proxies, redirects, and why it failed.

pub(crate) mod dns;
pub(crate) mod encoding;
pub(crate) mod failure;
pub(crate) mod guard;
pub(crate) mod network;
pub(crate) mod redirect;
pub(crate) mod retry_after;
pub(crate) mod status;
pub(crate) mod tls;
pub(crate) mod transport;
