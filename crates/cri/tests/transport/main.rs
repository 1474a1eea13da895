//! The proxy as a whole, between a raw HTTP/2 client and a fake runtime.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is the report; clippy does not see that helpers are tests too"
)]

mod authority;
mod counting;
mod failures;
mod forwarding;
mod image_calls;
mod isolation;
mod lifecycle;
mod world;
