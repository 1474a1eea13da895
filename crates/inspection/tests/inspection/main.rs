//! The listener over real TCP, and the page in a real browser; what it shows is made up.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod limits;
mod other_sites;
mod page;
mod routes;
mod scrape;
mod world;
