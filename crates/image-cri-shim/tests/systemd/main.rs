//! The packaged units under a real systemd, in front of a real containerd, with calls going all the while.
//!
//! Each test boots a systemd of its own. What is asked of each fault is the same: no call waits long, none is refused
//! twice in a row by a client that waits as kubelet does, and the shim comes back by itself.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod bare;
mod cache;
mod doctor;
mod faults;
mod handover;
mod hardening;
mod installing;
mod leaving;
mod merged;
mod node;
mod predecessor;
mod unfinished;
