//! The listener over real TCP and TLS, with clients that write raw bytes.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod ends;
mod heads;
mod places;
mod tls;
mod world;
