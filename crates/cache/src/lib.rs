//! ROLE, the node cache: a pull-through OCI registry that keeps serving while upstreams are down.
//!
//! ```text
//! api ──▶ service ──▶ storage ──▶ store (files, S3), index (redb)
//!            └──────▶ pull_through ──▶ upstream ──▶ registry
//! ```
//!
//! | module | what it knows |
//! |---|---|
//! | [`digest`], [`name`], [`manifest`] | what things are called, and what they refer to |
//! | [`api`] | HTTP: routes, ranges, conditions, errors, who may ask |
//! | [`service`] | what is answered: from the store where one may and can, else from upstream |
//! | [`freshness`] | what a tag means, from what it meant and what the places say; pure |
//! | [`rights`] | who has proved what |
//! | [`pull_through`] | one download per blob, from all who have it, verified as it arrives |
//! | [`upstream`] | the places of the plan, and what they answer |
//! | [`registries`] | the upstream of the released binary: the registry client, behind circuit breakers |
//! | [`storage`] | store and index as one: what goes when room is needed |
//! | [`store`] | blobs by digest: a directory, a bucket |
//! | [`shared`] | the bucket that several caches share: bounded waits, what is written there, what goes |
//! | [`index`] | tags, references, links, pins, and when something was used; eviction |
//! | [`layout`] | images in a tar, for where no network leads |
//! | [`role`], [`control`], [`metrics`] | the listeners, commands over a unix socket, numbers |
//! | [`status`] | all of it at a glance, and what there is of an image |
//! | [`mirror_config`] | what runtimes have to be told |
//! | [`flights`] | many who want the same thing get it from one question |

pub mod api;
pub mod control;
pub mod digest;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod fake_bucket;
pub mod flights;
pub mod freshness;
#[doc(hidden)]
pub mod fuzzing;
pub mod index;
pub mod layout;
pub mod manifest;
pub mod metrics;
pub mod mirror_config;
pub mod name;
pub mod pull_through;
pub mod registries;
pub mod rights;
pub mod role;
pub mod service;
pub mod shared;
pub mod status;
pub mod storage;
pub mod store;
pub mod upstream;
