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
//! | [`resolution`], [`answer`] | what was learnt: answers, choice, trail |
//! | [`depth`], [`options`] | how far is asked, and by which times and sizes |
//! | [`circuits`] | breakers, and the background trials that close them |
//! | [`explain`](mod@explain) | what would happen to an image, for people |
//! | [`memory`] | answers that are still fresh |
//! | [`last_places`], `likely` | where a repository's last image was; whom it suffices to ask first |
//! | `clock` | the time |
//! | `background` | the runtime that asks, and what happens when it is stuck |
//!
//! Rules that comments name by number are those of [docs/rules.md](https://github.com/image-cri-shim/image-cri-shim/blob/main/docs/rules.md).
//!
//! Everything that touches the network runs on the runtime whose handle [`Resolver::new`] is given,
//! so that a proxy on a runtime of its own is never behind a TLS handshake.

pub mod answer;
mod background;
pub mod circuits;
mod clock;
pub mod depth;
pub mod explain;
pub mod last_places;
mod likely;
pub mod memory;
pub mod options;
pub mod resolution;
pub mod resolver;

pub use answer::Answer;
pub use circuits::RegistryHealth;
pub use depth::Depth;
pub use last_places::LastPlaces;
pub use memory::MemoryStats;
pub use options::ResolverOptions;
pub use resolution::Resolution;
pub use resolver::Resolver;
