//! `resolve`, `status` and `history`: the released binary, in front of registries and a runtime that can
//! be told what to answer.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod agreement;
mod cases;
mod certificates;
mod manual;
mod printed;
mod terminal;
mod users;
mod world;
