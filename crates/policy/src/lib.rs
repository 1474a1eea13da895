//! Where an image may come from, and in which order.
//!
//! The rules and their numbers ("rule 4") are those of `docs/rules.md`.
//!
//! This crate is pure: no I/O, no clock (time comes in as an argument), no async runtime. What it
//! decides, the shim, the webhook, the cache and the commands that explain all share.
//!
//! | module | what it knows |
//! |---|---|
//! | [`reference`](mod@reference) | image names, as `distribution/reference` reads them |
//! | [`endpoint`] | registry addresses |
//! | [`credentials`], [`tls`] | what goes with an address |
//! | [`host_pattern`] | hosts with wildcards, as kubelet has them |
//! | [`docker_config`] | credentials in docker's formats, and Secrets made of them |
//! | [`duration`] | Go's durations |
//! | [`config`] | the file: what was written, and what it means |
//! | [`rules`] | registries and redirects, understood and sorted |
//! | [`layout`] | registries that keep the images of many hosts apart |
//! | [`short_names`], [`registries_conf`] | what a name without a host means to the runtime |
//! | [`containerd`] | where a containerd's own config stands, and what it needs for places that speak plain HTTP |
//! | [`crio`] | what CRI-O's own config needs for images that come from mirrors |
//! | [`plan`] | the ordered candidates for one image |
//! | [`pod`] | the same rules, applied to a Pod |
//! | [`cache_images`], [`cache_prefix`] | which images of Pods go through a node's cache, and their names there |
//! | [`manifest`] | the images that a manifest names |
//! | [`glob`] | patterns for image names |
//! | [`placeholder`] | texts that stand where an image will be |
//! | [`order`] | when probing is over, and what is pulled next |
//! | [`backoff`] | pauses that grow with each failure |
//! | [`jitter`] | numbers that keep nodes from doing the same at the same moment |
//! | [`breaker`] | when a registry is left alone, and for how long |
//! | [`proxies`] | which proxy a request goes through |
//! | [`text`] | text from outside, made fit to be shown |
//!
//! ```
//! use policy::config::Settings;
//! use policy::{Plan, Reference};
//!
//! let file = "registries: [{address: 'https://harbor.corp/proxy', priority: 800}]";
//! let (settings, _findings) = Settings::read(file, &|_name| None);
//! let plan = Plan::new(&settings.rules, &Reference::parse("nginx:1.27").unwrap());
//! assert_eq!(plan.candidates[0].image, "harbor.corp/proxy/library/nginx:1.27");
//! assert_eq!(plan.candidates[0].reason, "priority 800, configured for every host");
//! ```

pub mod backoff;
pub mod breaker;
pub mod cache_images;
pub mod cache_prefix;
pub mod config;
pub mod containerd;
pub mod credentials;
pub mod crio;
pub mod docker_config;
pub mod duration;
pub mod endpoint;
pub mod glob;
mod host;
pub mod host_pattern;
pub mod jitter;
pub mod layout;
pub mod manifest;
mod name;
pub mod order;
pub mod placeholder;
pub mod plan;
pub mod pod;
pub mod proxies;
mod public_hosts;
mod redirect;
pub mod reference;
pub mod registries_conf;
pub mod rules;
pub mod short_names;
pub mod text;
pub mod tls;
mod verdict;
mod yaml;

pub use credentials::{CredentialSource, Credentials, Proof};
pub use endpoint::{Endpoint, Scheme};
pub use layout::Layout;
pub use order::{PullOrder, Step};
pub use plan::{Candidate, CandidateKind, CredentialChoice, Plan};
pub use proxies::ProxySettings;
pub use reference::Reference;
pub use rules::{Priority, Rules};
pub use tls::TlsOptions;
pub use verdict::Verdict;
