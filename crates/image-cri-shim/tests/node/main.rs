//! The node shim, end to end: the released binary between a CRI client and a real containerd, with
//! real registries. A fake stands in only for what these can't be made to show.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod broken_start;
mod bypass;
mod circuits;
mod credentials;
mod early;
mod failover;
mod lifecycle;
mod link_script;
mod local;
mod log;
mod origin;
mod original_names;
mod routing;
mod secrets;
mod sharing;
mod start;
mod world;
