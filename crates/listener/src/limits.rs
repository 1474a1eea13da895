//! How much clients may take.

use std::sync::Arc;
use std::time::Duration;

use crate::protocols::Protocols;
use crate::tls::Tls;

/// What a listener is, beside the service that answers.
#[derive(Clone, Debug)]
pub struct Options {
    /// What its connections are for, as log lines name it: `metrics and status`.
    pub purpose: &'static str,
    /// Which versions of HTTP are spoken.
    pub protocols: Protocols,
    /// TLS; without it the listener is plain.
    pub tls: Option<Arc<Tls>>,
    /// How much clients may take.
    pub limits: Limits,
}

impl Options {
    /// A plain listener with the default limits.
    pub fn new(purpose: &'static str, protocols: Protocols) -> Self {
        Self {
            purpose,
            protocols,
            tls: None,
            limits: Limits::default(),
        }
    }
}

/// What happens when all places are taken, and every connection has a request that is being answered.
/// (A connection without one gives way in any case.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The one whose request has taken the longest is ended. For short answers: who takes so long is
    /// likely to do it on purpose.
    EndLongest,
    /// The new connection waits. For long transfers, which must not be cut.
    Wait,
}

/// How much clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at one time. With one more, an idle one is closed, of the client that has the most:
    /// nobody can keep others out by holding on to all of them. Default 64.
    pub connections: usize,
    /// What happens when none of them is idle. Default [`WhenFull::EndLongest`].
    pub when_full: WhenFull,
    /// Time for a TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Time for a request's head, counted from when the connection is free for one; so an HTTP/1
    /// connection may also be idle for so long. Default 10 s.
    pub head_timeout: Duration,
    /// Time for which an HTTP/2 connection may be idle. Default 2 minutes.
    pub idle_timeout: Duration,
    /// Bytes of a request's head; at least 8192. Default 16 KiB.
    pub head_size: usize,
    /// Requests at one time on one HTTP/2 connection. Default 32; clients open another connection, or
    /// wait, for more.
    pub streams: u32,
    /// Bytes of bodies that one HTTP/2 connection may send before the service reads them. Default
    /// 128 KiB. (An HTTP/1 connection has [`Limits::head_size`].)
    pub window: u32,
    /// Time after which a connection takes no more requests. Default 60 s; `None` is without end.
    pub lifetime: Option<Duration>,
    /// Time for the answers under way when a connection is to end, and when the listener is to end.
    /// Default 10 s.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            when_full: WhenFull::EndLongest,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            head_size: 16 << 10,
            streams: 32,
            window: 128 << 10,
            lifetime: Some(Duration::from_secs(60)),
            drain_timeout: Duration::from_secs(10),
        }
    }
}
