//! Questions to registries that behave and that do not: what comes out, how many requests it takes,
//! and who gets to see which credentials.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod addresses;
mod answers;
mod auth;
mod examining;
mod fetching;
mod ping;
mod proxies;
mod real;
mod redirects;
mod schemes;
mod setup;
mod sharing;
mod tls;
mod tls_server;
