//! `image-cri-shim doctor`: a node on which all is well, and nodes on which one thing is not.
//!
//! | module | what it shows |
//! |---|---|
//! | [`world`] | a node: its tree, a real containerd, registry and shim |
//! | [`healthy`] | all is well: every line is ok |
//! | [`way`] | kubelet is not led to the shim |
//! | [`shim`] | units, the socket, the running shim |
//! | [`places`] | the config, the runtime, the machine |
//! | [`registry`] | registries, and this node's clock |
//! | [`bounds`] | deadlines, images of nodes, exit statuses |

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod bounds;
mod healthy;
mod places;
mod registry;
mod shim;
mod way;
mod world;
