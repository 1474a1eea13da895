//! Turns a plan into a decision: probes at once, one breaker per registry, a memory of answers, and
//! the trail of why.
//!
//! ```text
//! Plan ──▶ Resolver::resolve ──▶ memory ──▶ breakers ──▶ probes, all at once ──▶ Resolution
//! ```
//!
//! | module | what it knows |
//! |---|---|
//! | [`resolver`] | the way of one resolution, and who shares it |
//! | [`resolution`] | what was learnt: answers, choice, trail |
//! | [`health`] | breakers, and the background trials that close them |
//! | [`memory`] | answers that are still fresh |
//!
//! Everything that touches the network runs on the runtime whose handle [`Resolver::new`] is given,
//! so that a proxy on a runtime of its own is never behind a TLS handshake.

pub mod health;
pub mod memory;
pub mod resolution;
pub mod resolver;

pub use health::RegistryHealth;
pub use memory::MemoryStats;
pub use resolution::{Answer, Resolution};
pub use resolver::{Depth, Options, Resolver};
