//! What clients may take.

use std::time::Duration;

/// What clients may take. API servers stay far below all of it. It is there for others: any Pod of the
/// cluster can reach the webhook. Together the limits keep the process below the 128 MiB that its manifest
/// allows.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest body. Default 8 MiB: a Pod of 3 MiB and its old self.
    pub body: usize,
    /// Bytes of bodies and answers in memory at one time, over all connections. Default 24 MiB.
    pub bodies: usize,
    /// Time for a body. Default 5 s.
    pub body_timeout: Duration,
    /// Longest time for an answer, whatever the API server says. Default 25 s.
    pub answer_timeout: Duration,
    /// Connections: at one time 128, each with at most 32 reviews at one time.
    pub connections: listener::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 8 << 20,
            bodies: 24 << 20,
            body_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(25),
            connections: listener::Limits {
                connections: 128,
                head_size: 8 << 10,
                streams: 32,
                // API servers keep one connection for hours. A new one now and then finds a new replica.
                lifetime: Some(Duration::from_secs(600)),
                drain_timeout: Duration::from_secs(20),
                ..listener::Limits::default()
            },
        }
    }
}
