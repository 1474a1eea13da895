//! The real `kube` client against an API server that can be told to fail.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod candidates;
mod kubelet;
mod lease;
mod proxies;
mod watched;
mod world;
