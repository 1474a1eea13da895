//! `image-cri-shim doctor`: the whole chain in one page, from kubelet's flags to each registry's certificate.
//!
//! Each area of checks is a module with two halves. *Gathering* looks: files, processes, sockets, systemd,
//! registries; it is bounded in time and never fails. *Judging* is pure: facts in, lines out. Areas gather all at
//! once, so that the page is there after a few seconds, whatever hangs.
//!
//! Nothing is changed on the node, and nothing secret is in a line.
//!
//! | module | what it knows |
//! |---|---|
//! | [`report`] | lines, how bad each is, and the report |
//! | `host` | where the node's files stand, and whether its services may be asked |
//! | `patience` | looking at something that may hang |
//! | `environment` | the variables that the shim's unit has |
//! | `words` | times and sizes as people say them |
//! | `scrub` | the last look for secrets |
//! | `wiring`, `kubelet` | whether kubelet is told to dial the shim, and does |
//! | `service` | units of systemd |
//! | `link` | the socket that kubelet dials, and the bypass |
//! | `daemon` | the running shim |
//! | `settings` | the config, and which one is in force |
//! | `runtime` | the container runtime, behind the shim and behind the bypass |
//! | `machine` | disk, inotify, file descriptors |
//! | `access` | who can read secrets, and SELinux |
//! | `registries`, `clock` | each registry, and this node's clock by theirs |
//! | `api_server` | the ConfigMap |
//! | `cache` | the node cache |
//! | `leftovers` | what the predecessor has left |

mod access;
mod api_server;
mod cache;
mod clock;
mod daemon;
mod environment;
mod examine;
mod host;
mod kubelet;
mod leftovers;
mod link;
mod machine;
mod patience;
mod registries;
pub mod report;
mod runtime;
mod scrub;
mod service;
mod settings;
mod wiring;
mod words;

pub use examine::{AskDaemon, Options, examine};
pub use report::{Area, Line, Report, Verdict};
