//! The cache's role behind its real listener, before registries that misbehave. Clients write HTTP by hand, so
//! that nothing between makes an answer look better than it is.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod addresses;
mod conformance;
mod credentials;
mod failures;
mod live;
mod world;
