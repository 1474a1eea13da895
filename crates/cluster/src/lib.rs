//! Kubernetes, as far as a node follows it: which API server, the ConfigMap, and Secrets.
//!
//! Nothing here can keep a node from serving. Whoever asks gets a [`WatchedObject`] at once; what the
//! server says arrives there, and an API server that can't be reached, is slow or refuses is only a
//! [`LastSync`]. Requests are few: one watch per object, opened anew every 5 to 10 minutes, one question
//! every `reloadInterval` where the server lets no watch through, and tries that are spread while it fails.
//!
//! | module | what it knows |
//! |---|---|
//! | [`candidates`] | where a kubeconfig or a service account may be, in which order |
//! | `kubeconfig` | one kubeconfig file, as kubectl reads it |
//! | `context` | what a kubeconfig's current context says, and the proxy on the way |
//! | `token` | a token that stands in a file |
//! | [`client`] | the one client that all share |
//! | [`watched`] | following one object |
//! | `retry` | when a watch is opened again |
//! | [`objects`] | the ConfigMap and the Secrets |
//! | [`kubelet`] | what a running kubelet says of itself |
//! | [`lease`] | a Lease that several processes share |
//! | [`failure`] | why the server gave no answer |

pub mod candidates;
pub mod client;
mod context;
pub mod failure;
mod kubeconfig;
pub mod kubelet;
pub mod lease;
pub mod objects;
mod retry;
mod token;
pub mod watched;

pub use candidates::{Discovered, KubeconfigCandidates};
pub use client::ClientProvider;
pub use failure::{Failure, FailureKind};
pub use kubelet::{HealthzError, KubeletEndpoints, kubelet_endpoints, kubelet_healthz};
pub use lease::{SharedLease, Written};
pub use objects::{
    ConfigMapText, SecretData, follow_config_map, follow_secret, in_manifest, read_config_map,
};
pub use watched::{LastSync, Snapshot, WatchedObject};
