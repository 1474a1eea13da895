//! ROLE, the node cache: a pull-through OCI registry that keeps serving while upstreams are down.
//!
//! | module | what it knows |
//! |---|---|
//! | [`digest`], [`name`], [`manifest`] | what things are called, and what they refer to |
//! | [`store`] | blobs by digest: on the disk |
//! | [`index`] | tags, references, links, pins, and when something was used; eviction |

pub mod digest;
#[cfg(test)]
mod fake;
pub mod index;
pub mod manifest;
pub mod name;
pub mod pull_through;
pub mod storage;
pub mod store;
pub mod upstream;
