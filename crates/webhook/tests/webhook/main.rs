//! The webhook over real TLS, with AdmissionReviews as an API server sends them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod best;
mod limits;
mod manifests;
mod replicas;
mod reviews;
mod rotation;
mod world;
