//! Which versions of HTTP a listener speaks.

/// Versions of HTTP that a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 where a TLS client asks for it, else HTTP/1.1. Without TLS that is always HTTP/1.1.
    Http1AndHttp2,
}
