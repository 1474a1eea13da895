//! The Helm chart, rendered by the real helm.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod config;
mod kinds;
mod kustomize;
mod objects;
mod refused;
mod resolve;
mod world;
